"""What a model trained on of the suite's items: found in its runs' data, and looked for once."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from groundup.evals.measure import Subject
from groundup.evals.values.suite.asking import Material, hashed
from groundup.evals.values.suite.cache import RowCache
from groundup.evals.values.suite.seen import seeing
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_it_is_looked_for_once(
    tmp_path: Path,
    tiny_model: object,
    tokenizer: Tokenizer,
) -> None:
    documents = tmp_path / "data" / "documents" / "train.jsonl"
    documents.parent.mkdir(parents=True)
    documents.write_text(json.dumps({"text": f"A title\n\nSo: {ITEM}.", "source": "wiki"}) + "\n")
    run = {
        "schema": 1,
        "stage": "pretrain",
        "parents": {"data": {"path": str(tmp_path / "data")}},
        "traits": {"reads": "documents"},
    }
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "plan.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    model = tiny_model()  # type: ignore[operator]
    assert isinstance(model, CausalLM)
    compute = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)

    def found(items: list[str], weights: str) -> dict[str, int]:
        subject = Subject(
            0, folder, None, model, tokenizer, 64, Material({"task": items}), None, compute,
            {hashed: weights},
        )  # fmt: skip
        [task] = subject(seeing(RowCache(tmp_path / "cache")))["overlaps"]
        return {name: task[name] for name in ("items", "same", "grams")}

    before = {"items": 2, "same": 0, "grams": 1}
    assert found([ITEM, "never read"], "a") == before
    # Nothing of the text is left to find it in: of the same weights and items it is known.
    documents.write_text("")
    assert found([ITEM, "never read"], "a") == before
    assert found([ITEM, "never read"], "b")["grams"] == 0
    assert found([ITEM], "a") == {"items": 1, "same": 0, "grams": 0}
