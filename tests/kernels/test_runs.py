"""Runs with kernels learn like runs without, record it in their plan, and keep it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.conftest import Workshop, forget_finished
from tests.kernels.conftest import number

from groundup.errors import UserError
from groundup.kernels.library import VARIABLE, Kernels, in_use
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.stage import run
from groundup.runs.files import read_lines

STEPS = 16


@pytest.fixture
def config(workshop: Workshop, tmp_path: Path, kernels: Kernels) -> PretrainConfig:
    return PretrainConfig(
        out=tmp_path,
        data=workshop.data,
        tokenizer=workshop.tokenizer,
        depth=2,
        width=128,
        context=64,
        rows=4,
        micro_rows=2,
        steps=STEPS,
        evaluations=2,
        dtype="float32" if number() == torch.float32 else "bfloat16",
        threads=1,
        # At the rates that a run of so few steps wants different roundings grow from step to step.
        learning_rate=0.002,
        embedding_learning_rate=0.002,
    )


def losses(folder: Path) -> list[float]:
    lines = read_lines(folder / "metrics.jsonl")
    return [line["loss"] for line in lines if line["kind"] == "train"]


def planned(folder: Path) -> str:
    kernels: str = json.loads((folder / "plan.json").read_text())["compute"]["kernels"]
    return kernels


def test_a_run_learns_like_one_without_and_is_reproducible(
    config: PretrainConfig, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, weights, dtype = [], [], number()
    for place, kind in enumerate((kernels, kernels, "none")):
        monkeypatch.setenv(VARIABLE, kind)
        out = run(config.model_copy(update={"out": config.out / str(place)}))
        assert planned(out) == kind
        assert not in_use(torch.zeros(1, dtype=dtype)), "only while the stage runs"
        found.append(losses(out))
        weights.append((out / "model.safetensors").read_bytes())
    own, again, plain = found
    assert len(own) == STEPS and own == again and own != plain
    assert own == pytest.approx(plain, rel=0.02)
    assert weights[0] == weights[1]


def test_a_run_continues_as_planned(
    config: PretrainConfig, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without kernels continues without; one with them is rejected where there are none."""

    def start(kind: str, folder: str) -> Path:
        monkeypatch.setenv(VARIABLE, kind)
        out = config.out / folder
        forget_finished(out)  # as if it had been killed at the end
        (out / "model.safetensors").unlink(missing_ok=True)
        return run(config.model_copy(update={"out": out, "steps": 2}))

    start("none", "plain")
    assert planned(start(kernels, "plain")) == "none"
    start(kernels, "fast")
    with pytest.raises(UserError, match=f"kernels={kernels} and would continue with kernels=none"):
        start("none", "fast")
    assert planned(start(kernels, "fast")) == kernels
