"""The runner: a suite of one measure on tiny models, from settings to output."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.align import comparison
from groundup.align.config import ComparisonConfig
from groundup.errors import UserError
from groundup.evals import harness_run
from groundup.evals.config import CoreConfig, HarnessConfig, RedTeamConfig
from groundup.evals.measure import Evaluated, Measure, Subject, informative, parts_of, to_json
from groundup.evals.redteam import stage as redteam
from groundup.evals.suites import Prepared, Suite, run_suite
from groundup.lm.logprobs import score
from groundup.report.estimate import POOLED, ratio
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

TEXTS = ("The sea is blue.", "The grass is green.", "The snow is white.")
CALLS: list[str] = []


def nats(on: Subject) -> np.ndarray:
    """The loss of each text: the measuring function of a new measure."""
    CALLS.append(on.folder.name)
    assert on.chats == (on.folder.name != "pretrain")
    scores = score(on.model, on.material, context=on.context)
    return np.array([-values.sum() for values in scores])


def nothing(on: Subject) -> np.ndarray | None:
    assert len(on(nats)) == len(TEXTS)  # what was measured already is not measured again
    return None


def row(measuring: Callable[[Subject], np.ndarray | None], name: str) -> Measure[np.ndarray]:
    return Measure(
        name=name,
        sentence="pays less than",
        unit="nats",
        better="below",
        measuring=measuring,
        read=lambda found: {POOLED: ratio(found)},
        difference=lambda one, other: {POOLED: ratio(one - other)},
    )


MEASURES = (row(nats, "cost"), row(nothing, "nothing"), row(nats, "cost again"))


def prepare(config: CoreConfig, models: Sequence[Path], compute: Compute) -> Prepared:
    assert [path.name for path in models] == ["pretrain", "sft"]

    def material(folder: Path, tokenizer: Tokenizer, context: int) -> list[Example]:
        ids = [tokenizer.encode(text) for text in TEXTS]
        return [Example(one, [False] + [True] * (len(one) - 1)) for one in ids]

    return Prepared({"texts": len(TEXTS)}, material)


def write(
    folder: Path, config: CoreConfig, models: Sequence[Evaluated], compute: Compute, seconds: float
) -> Callable[[], None]:
    base, sft = models
    cost, none, _ = MEASURES
    assert none.of(base) == {} == none.minus(sft, base) and none.estimate(base) is None
    assert not informative(none, models)(POOLED) and parts_of(cost, models) == [POOLED]
    assert (base.stage, base.chats, sft.stage, sft.chats) == ("pretrain", False, "sft", True)
    change = cost.change(sft, base)
    assert change is not None
    expected = float(np.mean(sft(nats) - base(nats)))
    assert change.estimate == pytest.approx(expected)
    same = cost.change(base, base)  # every text costs as much
    assert same is not None and (same.estimate, same.low, same.high) == (0, 0, 0)
    found = {model.name: to_json(cost.of(model)) for model in models}
    (folder / "found.json").write_text(json.dumps(found))
    return lambda: CALLS.append("said")


TOY = Suite(
    name="toy",
    measures=MEASURES,
    also=(),
    longest_context=32,
    data=lambda config: {},
    prepare=prepare,
    write=write,
)


def test_a_measure_is_a_function_and_a_row(workshop: Any, tmp_path: Path) -> None:
    config = CoreConfig(
        out=tmp_path / "out",
        models=tuple(str(workshop.finished(stage)) for stage in ("pretrain", "sft")),
        dtype="float32",
        threads=1,
    )
    CALLS.clear()
    folder = run_suite(TOY, config)
    # Each function measures each model once, however many rows read it.
    assert CALLS == ["pretrain", "sft", "said"]
    found = json.loads((folder / "found.json").read_text())
    assert found["sft"][POOLED]["items"] == len(TEXTS)
    assert json.loads((folder / "plan.json").read_text())["texts"] == len(TEXTS)
    assert json.loads((folder / "run.json").read_text())["stage"] == "toy"
    assert run_suite(TOY, config) == folder and CALLS == ["pretrain", "sft", "said"]


def test_a_missing_model_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    config = CoreConfig(out=tmp_path / "out", models=(str(tmp_path / "none"),))
    with pytest.raises(UserError, match="none"):
        run_suite(TOY, config)
    assert not (tmp_path / "out").exists()


def weightless(folder: Path, model: Path) -> Path:
    """A downloaded model without its weights."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder / name)
    return folder


def adapter_on(folder: Path, base: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.parametrize("command", ["core", "lm-eval", "redteam", "rewards"])
@pytest.mark.parametrize("kind", ["model", "adapter", "base"])
def test_missing_weights_are_reported_before_anything_is_written(
    workshop: Any, tmp_path: Path, command: str, kind: str
) -> None:
    whole, out = workshop.finished("sft"), tmp_path / "out"
    lacking = weightless(tmp_path / "lacking", whole)
    if kind != "model":
        lacking = adapter_on(tmp_path / "adapter", whole if kind == "adapter" else lacking)
    models = (str(whole), str(lacking))
    with pytest.raises(UserError, match=r"download the (adapter's )?weights as well"):
        if command == "core":
            run_suite(TOY, CoreConfig(out=out, models=models))
        elif command == "lm-eval":
            harness_run.run(HarnessConfig(out=out, models=models, tasks=("arc_easy",)))
        elif command == "redteam":
            redteam.run(RedTeamConfig(out=out, models=models))
        else:
            comparison.run(
                ComparisonConfig(
                    out=out,
                    models=tuple(map(Path, models)),
                    reward="exact",
                    prompts=workshop.data,
                )
            )
    assert not out.exists()
