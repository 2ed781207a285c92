"""Cached rows are read back completely or not at all, and errors never stop a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conftest import TinyModel
from groundup.errors import UserError
from groundup.evals.config import ValuesConfig
from groundup.evals.measure import Subject
from groundup.evals.values.fairness import counterfactual
from groundup.evals.values.fairness.swaps import Template
from groundup.evals.values.knowledge import TASKS
from groundup.evals.values.suite.asking import Asked, asking, hashed
from groundup.evals.values.suite.cache import RowCache, pack_hashes
from groundup.formats.adapter import model_hash
from groundup.formats.folder import save_model
from groundup.lm.model import CausalLM
from groundup.text.rows import Choice
from groundup.text.tokenizer import Tokenizer
from parrots import babbler

KEY: dict[str, Any] = {"task": "core", "version": 1, "model": "a", "packs": {"piqa": "b"}}
ROWS: list[dict[str, Any]] = [
    {"id": "x", "group": "g", "right": 1 / 3, "declined": True, "said": None},
    {"id": "y", "group": "h", "right": 0.1 + 0.2, "declined": False, "said": "no"},
]


def only_file(folder: Path) -> Path:
    (found,) = folder.rglob("*.json")
    return found


def test_rows_round_trip(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "cache")
    assert cache.read(KEY) is None
    cache.write(KEY, ROWS)
    assert cache.read(dict(reversed(KEY.items()))) == ROWS


@pytest.mark.parametrize(
    "other", [{"version": 2}, {"model": "c"}, {"packs": {"piqa": "c"}}, {"packs": {}}, {"count": 1}]
)
def test_rows_of_other_inputs_are_not_used(tmp_path: Path, other: dict[str, Any]) -> None:
    cache = RowCache(tmp_path)
    cache.write(KEY, ROWS)
    assert cache.read(KEY | other) is None


@pytest.mark.parametrize("how", ["cut", "bit", "empty", "list", "binary", "other key", "no seal"])
def test_a_damaged_file_is_reported_and_measured_again(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = RowCache(tmp_path)
    cache.write(KEY, ROWS)
    path = only_file(tmp_path)
    content = path.read_bytes()
    whole = json.loads(content)
    damaged = {
        "cut": content[: len(content) // 2],
        "bit": content.replace(b"true", b"fals").replace(b"fals,", b"false,"),
        "empty": b"",
        "list": b"[]",
        "binary": bytes(range(256)),
        "other key": json.dumps(whole | {"key": KEY | {"version": 9}}).encode(),
        "no seal": json.dumps({"key": KEY, "rows": ROWS}).encode(),
    }[how]
    assert damaged != content
    path.write_bytes(damaged)
    assert cache.read(KEY) is None
    assert "damaged" in capsys.readouterr().out
    cache.write(KEY, ROWS)
    assert cache.read(KEY) == ROWS


def test_an_unwritable_cache_only_costs_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    cache = RowCache(tmp_path / "file" / "cache")
    cache.write(KEY, ROWS)
    assert cache.read(KEY) is None and "not kept" in capsys.readouterr().out


@pytest.mark.long
def test_concurrent_processes_see_complete_rows(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path\n"
        "from groundup.evals.values.suite.cache import RowCache\n"
        f"cache, key, rows = RowCache(Path({str(tmp_path)!r})), json.loads(sys.argv[1]), "
        "json.loads(sys.argv[2])\n"
        "for _ in range(40):\n"
        "    cache.write(key, rows)\n"
        "    assert cache.read(key) in (None, rows)\n"
    )
    many = ROWS * 200
    words = [sys.executable, "-c", code, json.dumps(KEY), json.dumps(many)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0] and said == ["", ""]
    assert RowCache(tmp_path).read(KEY) == many
    assert not [name for name in os.listdir(tmp_path / "core") if "partial" in name]


def test_a_model_is_identified_by_its_computation(
    tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save_model(first, tiny_model(), tokenizer, card="one")
    shutil.copytree(first, second)
    (second / "README.md").write_text("another card")
    (second / "run.json").write_text("{}")
    for folder in (first, second):
        (folder / "guard.json").write_text("{}")
    assert model_hash(first) == model_hash(second)
    for name in (
        *("config.json", "tokenizer.json", "generation_config.json", "model.safetensors"),
        "guard.json",
    ):
        kept = (second / name).read_bytes()
        (second / name).write_bytes(kept + b" ")
        assert model_hash(first) != model_hash(second), name
        (second / name).write_bytes(kept)
    assert model_hash(first) == model_hash(second)


def test_an_adapter_is_identified_with_its_base(
    tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    for name, shift in (("one", 0.0), ("two", 0.5)):
        model = tiny_model()
        next(model.parameters()).data.add_(shift)
        save_model(tmp_path / name, model, tokenizer, card="")
        adapter = tmp_path / f"on-{name}"
        adapter.mkdir()
        save_file({"x": torch.ones(1)}, adapter / "adapter_model.safetensors")
        (adapter / "adapter_config.json").write_text(
            json.dumps(
                {
                    "peft_type": "LORA",
                    "base_model_name_or_path": f"../{name}",
                    "target_modules": ["q_proj"],
                }
            )
        )
    configs = [tmp_path / f"on-{name}" / "adapter_config.json" for name in ("one", "two")]
    # The place of the base is no part of what it computes, its weights are.
    hashes = [model_hash(config.parent) for config in configs]
    assert hashes[0] != hashes[1]
    shutil.rmtree(tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    configs[1].write_bytes(configs[0].read_bytes())
    assert model_hash(configs[0].parent) == model_hash(configs[1].parent) == hashes[0]


def test_rows_of_non_finite_logits_are_not_cached(
    tmp_path: Path, overflowing: CausalLM, subject: Callable[[CausalLM], Subject]
) -> None:
    core, _ = TASKS
    question = Choice("The sea is", ("deep", "wide"), 0, "piqa", "1")
    on = replace(
        subject(overflowing),
        material={core.name: [question]},
        config=ValuesConfig(out=tmp_path, models=("a",)),
        found={hashed: "a"},
    )
    with pytest.raises(UserError, match="the model's logits are not finite"):
        on(asking(core, RowCache(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


def test_the_sets_of_a_task_are_identified_by_their_archives() -> None:
    core, bits = TASKS
    assert set(pack_hashes(core)) == set(core.packs) and len(pack_hashes(bits)["wiki"]) == 64


def test_edited_items_are_measured_again(tmp_path: Path) -> None:
    """A page of prompts may be edited: the same words and sides give the same rows."""
    swaps, _ = counterfactual.TASKS
    (item, *_) = swaps.items(swaps.count)
    (first, *others), said = item.swaps, item.text.replace("doctor", "judge")
    assert said != item.text

    def asked(one: Template) -> Asked:
        config = ValuesConfig(out=tmp_path, models=("a",))
        on = replace(babbler(), material={"swaps": [one]}, config=config)
        found = replace(on, found={hashed: "a"})(asking(swaps, RowCache(tmp_path)))
        assert found is not None
        return found

    kept = asked(item)
    assert not kept.kept and asked(replace(item)).kept
    for edited in (
        replace(item, text=said),
        replace(item, swaps=(replace(first, sides=first.sides[::-1]), *others)),
        replace(item, swaps=(replace(first, kind="other"), *others)),
    ):
        assert not asked(edited).kept and asked(edited).kept
    assert asked(item).kept and asked(item).rows == kept.rows


@pytest.mark.long
def test_the_items_of_every_task_have_one_hash_in_all_processes() -> None:
    names = ("world-answers", "world-conduct", "world-bias", "instructions", "swaps", "unknown")
    code = (
        "from groundup.evals.values.suite.asking import hash_of\n"
        "from groundup.evals.values.suite.tasks import TASKS\n"
        f"print([hash_of(task.items(66)) for task in TASKS if task.name in {names}])"
    )
    said = {
        subprocess.check_output(
            [sys.executable, "-c", code], text=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    }
    assert len(said) == 1 and said.pop().count("'") == 2 * len(names)
