"""Several processes train as one does: the same batches, the same mean, one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.runs.files import read_lines
from groundup.train.config import ENVIRONMENT


def torchrun(processes: int, command: list[str]) -> tuple[int, str]:
    """Run a stage's command on so many processes of this machine, with gloo."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", str(processes), *command[1:]]
    done = subprocess.run(
        launch,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("adapter", ["none", "qlora"])
def test_two_processes_train_as_one_does(workshop: Any, tmp_path: Path, adapter: str) -> None:
    settings: dict[str, Any] = {"rows": 6, "micro_rows": 2, "adapter": adapter}
    # Sums in another order differ in their last bits, and high rates make more of that.
    settings |= {"learning_rate": 0.002, "embedding_learning_rate": 0.0006, "steps": 12}
    if adapter != "none":
        settings |= {"lora_rank": 4, "embedding_learning_rate": None}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    code, said = workshop.run(workshop.command("sft", alone, **settings))
    assert code == 0, said
    # Three micro-batches a step: one process has two of them and the other one.
    code, said = torchrun(2, workshop.command("sft", shared, **settings))
    assert code == 0, said
    spoken = [line.split()[1] for line in said.splitlines() if line.startswith("sft: ")]
    assert len(spoken) == len(set(spoken)), "one process speaks"
    lines, expected = (
        [line for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
        for folder in (shared, alone)
    )
    assert len(lines) == len(expected) == 12
    for line, other in zip(lines, expected, strict=True):
        assert line["tokens"] == other["tokens"]
        assert line["loss"] == pytest.approx(other["loss"], rel=5e-3)
    assert lines[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-6)
    assert lines[0]["gradient_norm"] == pytest.approx(expected[0]["gradient_norm"], rel=1e-5)
    name = "model.safetensors" if adapter == "none" else "adapter_model.safetensors"
    ours, theirs = load_file(shared / name), load_file(alone / name)
    for key, tensor in theirs.items():
        assert_close(ours[key], tensor, rtol=0.05, atol=0.01)


# The clock of the second process runs so fast that it measures a slower machine.
UNEVEN = """
import os, runpy, time
clock = time.perf_counter
if os.environ["RANK"] == "1":
    time.perf_counter = lambda: 30 * clock()
runpy.run_module("groundup", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_the_first_process_measures_for_all(workshop: Any, tmp_path: Path, stage: str) -> None:
    uneven = tmp_path / "uneven.py"
    uneven.write_text(UNEVEN)
    settings: dict[str, Any] = {"micro_rows": 1, "context": 64}
    if stage == "pretrain":  # of the size that 5 minutes have time for
        settings |= {"steps": 2, "width": None, "depth": None}
    else:
        settings |= {"steps": None, "minutes": 0.03, "rows": None}
    command = workshop.command(stage, tmp_path / "run", **settings)
    code, said = torchrun(2, [sys.executable, str(uneven), *command[3:]])
    assert code == 0, said


def test_more_processes_than_batches_are_refused(workshop: Any, tmp_path: Path) -> None:
    code, said = torchrun(2, workshop.command("sft", tmp_path / "run", rows=2, micro_rows=2))
    assert code != 0
    assert "a step has 1 micro-batches and 2 processes are to share them" in said
