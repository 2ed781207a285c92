"""Several processes train like one: the same batches, the same mean, one folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.errors import UserError
from groundup.runs import ranks
from groundup.runs.files import read_json_object, read_lines, read_sealed
from groundup.train.config import ENVIRONMENT
from groundup.train.plan import TrainPlan
from preloaded import Process

ROOT = os.fspath(Path(__file__).parents[2])


def torchrun_command(processes: int, command: list[str]) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launch, "--nproc-per-node", str(processes), *command[1:]]


def torchrun(processes: int, command: list[str]) -> tuple[int, str]:
    """Run a stage's command on this number of processes of this machine, with gloo."""
    return Process(torchrun_command(processes, command)).communicate()


def in_two_processes(command: list[str]) -> tuple[int, str]:
    """The same without torchrun, whose processes take seconds to begin.

    Where one of the two ends badly, the other is ended as well, a tenth of a second later at most,
    as by torchrun.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    begun = [Process(command, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    deadline = time.monotonic() + 300
    while None in (codes := [one.poll() for one in begun]) and not any(codes):
        assert time.monotonic() < deadline, "the two have not ended"
        time.sleep(0.1)
    if any(codes):
        for one in begun:
            one.send_signal(signal.SIGKILL)
    said = "".join(one.communicate()[1] for one in begun)
    return next(filter(None, codes), 0), said


@pytest.mark.parametrize("adapter", ["none", pytest.param("qlora", marks=pytest.mark.long)])
def test_two_processes_train_like_one(workshop: Any, tmp_path: Path, adapter: str) -> None:
    settings: dict[str, Any] = {"rows": 6, "micro_rows": 2, "adapter": adapter}
    # Sums in another order differ in their last bits, and high rates make more of that.
    settings |= {"learning_rate": 0.002, "embedding_learning_rate": 0.0006, "steps": 12}
    if adapter != "none":
        settings |= {"lora_rank": 4, "embedding_learning_rate": None}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    code, said = workshop.run_here(workshop.command("sft", alone, **settings))
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


def test_a_process_whose_torchrun_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill of torchrun while its processes start: they would wait for it, with the run's lock."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launched = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    for name, value in (launched | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_STORE_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(UserError, match=r"another process of this run ended.*same command again"):
        ranks.any_of(False)


# The clock of the second process runs so fast that it measures a slower machine. The speed that a
# model's size follows from is no one's to measure.
UNEVEN = """
import os, runpy, time
clock, second = time.perf_counter, os.environ["RANK"] == "1"
if second:
    time.perf_counter = lambda: 1000 * clock()
from groundup.pretrain import stage
stage.matmul_peak = lambda device, dtype: 1e8 if second else 1e11
runpy.run_module("groundup", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("stage", ["pretrain", pytest.param("sft", marks=pytest.mark.long)])
def test_the_first_process_evaluates_for_all(workshop: Any, tmp_path: Path, stage: str) -> None:
    uneven = tmp_path / "uneven.py"
    uneven.write_text(UNEVEN)
    settings: dict[str, Any] = {"micro_rows": 1, "context": 64}
    if stage == "pretrain":  # of the size that 5 minutes have time for
        settings |= {"steps": 2, "width": None, "depth": None}
    else:  # its speed is measured, and the second process sees a thousandth of it
        settings |= {"steps": None, "minutes": 0.03, "rows": None}
    command = workshop.command(stage, tmp_path / "run", **settings)
    code, said = in_two_processes([sys.executable, str(uneven), *command[3:]])
    assert code == 0, said
    plan = read_sealed(tmp_path / "run" / "plan.json", TrainPlan.from_json)
    if stage == "pretrain":  # a machine 1,000 times as slow would have time for one layer
        assert read_json_object(tmp_path / "run" / "config.json")["num_hidden_layers"] > 1
    else:
        lines = read_lines(tmp_path / "run" / "metrics.jsonl")
        taken = [line["tokens_per_second"] for line in lines if line["kind"] == "train"]
        assert plan.tokens_per_second is not None
        assert plan.tokens_per_second > median(taken) / 50


# A module that nothing is sent to, and one that a step's second batch alone is sent to.
IDLE = """
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, sys.argv[1])
from groundup.runs import ranks
from groundup.runs.folder import Run
from groundup.train.batch import Batch, DataStream, Loss
from groundup.train.config import TrainingConfig
from groundup.train.loop import fit
from groundup.train.optim import Optimizer, Rates
from tests.train.test_loop import plan_of

class Rows(DataStream):
    def at(self, step, model):
        rows = [Batch.of(torch.arange(4).view(1, 4) + 4 * number) for number in range(2)]
        return [replace(row, weights=torch.ones(1, 4)) for row in rows]

def loss(model, batch):
    x = batch.input_ids.float()
    x = model["used"](x) + (model["second"](x) if x[0, 0] else 0)
    total = x.square().sum()
    # Each batch has the loss, and a metric of its own beside it; the second has one more.
    own = ("second", "more") if batch.input_ids[0, 0] else ("first",)
    metrics = {name: (float(total), batch.weight) for name in ("loss", *own)}
    return Loss(total, batch.weight, metrics)

torch.manual_seed(0)
model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("used", "second", "idle")})
before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
folder = Path(sys.argv[2])
with Run.open(folder, "test", TrainingConfig(out=folder)) as run:
    optimizer = Optimizer(model, Rates(0.01, 0.01, 0.01, weight_decay=0.1))
    fit(model, Rows(), loss, optimizer, run, plan_of(3, 1.0, 100))
    if run.writes:
        moved = {name: tensor - before[name] for name, tensor in model.state_dict().items()}
        save_file(moved, folder / "moved.safetensors")
ranks.shutdown(0)
"""


def test_parameters_without_a_gradient_in_any_process_do_not_change(
    workshop: Any, tmp_path: Path
) -> None:
    script, found, logged = tmp_path / "idle.py", [], []
    script.write_text(IDLE)
    for processes in (1, 2):
        words = [os.fspath(script), ROOT, os.fspath(tmp_path / str(processes))]
        command = [sys.executable, *words]
        code, said = workshop.run(command) if processes == 1 else in_two_processes(command)
        assert code == 0, said
        folder = tmp_path / str(processes)
        found.append(load_file(folder / "moved.safetensors"))
        logged.append(read_lines(folder / "metrics.jsonl"))
    for name, moved in found[0].items():
        assert bool(moved.any()) == (not name.startswith("idle")), name
        assert_close(found[1][name], moved, rtol=1e-3, atol=1e-6)
    # A metric of only one process is a mean over its own values.
    names = {"loss", "first", "second", "more"}
    assert len(logged[0]) == len(logged[1]) == 3
    for alone, shared in zip(*logged, strict=True):
        assert names <= alone.keys() == shared.keys()
        assert {name: shared[name] for name in names} == pytest.approx(
            {name: alone[name] for name in names}, rel=1e-3
        )
        assert alone["loss"] == pytest.approx((alone["first"] + alone["second"]) / 2)
        assert alone["second"] == alone["more"] != pytest.approx(alone["first"], rel=0.01)


def test_each_process_has_a_part_of_a_step(workshop: Any, tmp_path: Path) -> None:
    # Time for so little that one process would take a step of one row.
    settings = {"rows": None, "micro_rows": None, "steps": None, "minutes": 0.001}
    code, said = in_two_processes(workshop.command("sft", tmp_path / "run", **settings))
    assert code == 0, said
    plan = read_sealed(tmp_path / "run" / "plan.json", TrainPlan.from_json)
    assert plan.layout is not None and (plan.layout["rows"], plan.micro_rows) == (2, 1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "ptx"),
    [
        *((stage, 0.0) for stage in ("pretrain", "dpo", "kto", "reward", "ppo", "grpo")),
        *((stage, 0.3) for stage in ("dpo", "ppo")),
    ],
)
def test_every_stage_runs_on_two_processes(
    workshop: Any, tmp_path: Path, stage: str, ptx: float
) -> None:
    more = {"ptx": ptx} if ptx else {}
    code, said = in_two_processes(
        workshop.command(stage, tmp_path / "run", micro_rows=None, **more)
    )
    assert code == 0, said
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert any("ptx_loss" in line for line in lines) == bool(ptx)


def test_more_processes_than_batches_are_rejected(workshop: Any, tmp_path: Path) -> None:
    command = workshop.command("sft", tmp_path / "run", rows=2, micro_rows=2)
    code, said = in_two_processes(command)
    assert code != 0
    assert said.count("a step has 1 micro-batches for 2 processes") == 1


# Both processes are of a machine that has one GPU, or of a Mac.
ONE_GPU = """
import runpy, types, torch

def set_device(number):
    if number > 0:
        raise RuntimeError("CUDA error: invalid device ordinal")

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.current_device = lambda: 0
torch.cuda.set_device = set_device
torch.cuda.get_device_properties = lambda number: types.SimpleNamespace(uuid="GPU-1")
runpy.run_module("groundup", run_name="__main__", alter_sys=True)
"""
MAC = """
import functools, runpy, torch
# torch 2.15 looks for what the function wraps.
torch.backends.mps.is_available = functools.cache(lambda: True)
runpy.run_module("groundup", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("machine", "device", "refusal"),
    [
        pytest.param(ONE_GPU, "cpu", None, marks=pytest.mark.long),
        (ONE_GPU, "cuda", "2 processes were started and have 1 GPU; start as many processes as"),
        (MAC, "auto", None),
        pytest.param(
            MAC,
            "mps",
            "device='mps' supports one process and 2 were started; use device='cpu'",
            marks=pytest.mark.long,
        ),
    ],
    ids=["CPU beside a GPU", "one GPU for two", "a Mac's CPU", "a Mac's GPU for two"],
)
def test_several_processes_require_a_backend(
    workshop: Any, tmp_path: Path, machine: str, device: str, refusal: str | None
) -> None:
    script, out = tmp_path / "machine.py", tmp_path / "run"
    script.write_text(machine)
    command = workshop.command("sft", out, steps=2, device=device)
    code, said = in_two_processes([sys.executable, str(script), *command[3:]])
    if refusal is None:
        assert code == 0, said
        assert read_sealed(out / "plan.json", TrainPlan.from_json).compute.device == "cpu"
    else:
        assert code != 0 and said.count(refusal) == 1, said


def test_a_rank_is_a_whole_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MASTER_ADDR", "x"), ("WORLD_SIZE", "2"), ("RANK", "-1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK='-1' must be a whole number, at least 0"):
        ranks.rank()


def test_a_command_that_does_not_train_is_rejected_once(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text("[data]\n")
    words = ["run", os.fspath(recipe), "--out", os.fspath(out)]
    code, said = in_two_processes([sys.executable, "-m", "groundup", *words])
    assert code != 0 and not out.exists()
    assert said.count("groundup run runs in one process and 2 were started; start it without") == 1


@pytest.mark.long
@pytest.mark.parametrize("killed", ["0", "1", None])
def test_the_end_of_a_run_is_reported_once(
    workshop: Any, tmp_path: Path, killed: str | None
) -> None:
    """One process is killed, or torchrun asks both to stop."""
    out = tmp_path / "run"
    command = torchrun_command(2, workshop.command("sft", out, steps=1000))
    process = subprocess.Popen(
        command,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not any(out.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    if killed is None:
        process.send_signal(signal.SIGTERM)
    else:
        started = psutil.Process(process.pid).children(recursive=True)
        next(one for one in started if one.environ().get("RANK") == killed).kill()
    said, _ = process.communicate(timeout=120)
    mark = "stopped; saved at" if killed is None else "error: another process of this run ended"
    assert said.count(mark) == 1 and "gloo" not in said, said


@pytest.mark.parametrize("processes", [1, 2])
def test_a_finished_rank_exits_with_its_code(processes: int) -> None:
    """Even if Python's shutdown would abort; a single process ends normally."""
    code = (
        "import atexit, os; from groundup.runs import ranks; "
        "atexit.register(os.abort); print('done'); ranks.shutdown(3)"
    )
    launched = {"RANK": "1", "WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | launched, capture_output=True, text=True
    )
    if processes == 1:
        assert done.returncode == -signal.SIGABRT
    else:
        assert (done.returncode, done.stdout) == (3, "done\n")
