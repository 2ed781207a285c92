"""A run killed with kill -9 at any time and restarted gives the same bits as an uninterrupted
one."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Workshop, forget_finished

from groundup.runs.files import read_json_object, read_lines
from groundup.runs.folder import Run, is_finished
from groundup.train.config import TrainingConfig
from groundup.train.device import find_compiler
from groundup.train.early_stopping import EarlyStopping
from groundup.train.optim import Optimizer, Rates
from preloaded import Process

STAGES = ("pretrain", "sft", "dpo", "kto", "reward", "ppo", "grpo")
# Metrics that must be the same; speeds differ from run to run.
PROMISED = (
    *("kind", "step", "tokens", "loss", "learning_rate", "gradient_norm", "bits_per_byte"),
    *("reward", "score", "kl", "exact_kl", "entropy", "kl_coef", "negative_reward"),
    *("cost", "multiplier"),
)


def reproducible_metrics(folder: Path) -> list[dict[str, Any]]:
    lines = read_lines(folder / "metrics.jsonl")
    return [{name: line.get(name) for name in PROMISED} for line in lines]


def assert_each_once(lines: list[dict[str, Any]]) -> None:
    """Every step was taken once, and answers were sampled once per iteration."""
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    rolled = [line["step"] for line in lines if line["kind"] == "rollout"]
    assert sorted({*rolled}) == rolled


def kill_until_done(
    workshop: Workshop, command: list[str], out: Path, kills: int, seed: int
) -> tuple[int, int]:
    """Start and kill, then let it finish: how many kills met it alive, and how many a save.

    Every second kill waits for a save to be under way.
    """
    chance = random.Random(seed)
    met = inside = 0
    for number in range(kills):
        process = Process(command)
        deadline = time.monotonic() + 120
        if number % 2 == 0:
            _wait_for_save(process, out, deadline)
        else:
            _wait_for_steps(process, out, chance.randint(1, 6), deadline)
            time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        code, _ = process.communicate()
        met += code == -signal.SIGKILL
        inside += half_written(out)
        if is_finished(out):
            break
    code, said = workshop.run(command)
    assert code == 0, said
    return met, inside


def half_written(out: Path) -> bool:
    """Whether a save has begun and not ended: in a live run it is in progress, in a dead one
    torn."""
    return any(out.glob("checkpoints/.step-*.partial"))


def _wait_for_save(process: Process, out: Path, deadline: float) -> None:
    while process.poll() is None and not half_written(out) and time.monotonic() < deadline:
        time.sleep(0.0005)


def _wait_for_steps(process: Process, out: Path, more: int, deadline: float) -> None:
    def lines() -> int:
        try:
            return (out / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    goal = lines() + more
    while process.poll() is None and lines() < goal and time.monotonic() < deadline:
        time.sleep(0.002)


def stopped(
    workshop: Workshop, stage: str, folder: Path, steps: int, number: signal.Signals
) -> tuple[list[str], Path, int, str]:
    """A run that got a signal after `steps` steps: its command, folder, exit code and output."""
    # On a busy machine a signal may come after the end: then it is tried again.
    for attempt in range(5):
        out = folder / f"stopped-{attempt}"
        command = workshop.command(stage, out)
        process = Process(command)
        _wait_for_steps(process, out, steps, time.monotonic() + 120)
        process.send_signal(number)
        code, said = process.communicate(timeout=120)
        if not is_finished(out):
            return command, out, code, said
    pytest.fail("every attempt had ended before its signal came")


def check(workshop: Workshop, tmp_path: Path, stage: str, kills: int, **changes: Any) -> None:
    whole = workshop.finished(stage)
    if changes:
        whole = tmp_path / "whole"
        code, said = workshop.run(workshop.command(stage, whole, **changes))
        assert code == 0, said
    # On a busy machine a kill may come too late, after a save or the end: then it is tried again.
    for seed in range(5):
        killed = tmp_path / f"killed-{seed}"
        command = workshop.command(stage, killed, **changes)
        met, inside = kill_until_done(workshop, command, killed, kills, seed)
        assert reproducible_metrics(killed) == reproducible_metrics(whole)
        assert_each_once(reproducible_metrics(killed))
        adapted = changes.get("adapter", "none") != "none"
        weights = "adapter_model.safetensors" if adapted else "model.safetensors"
        # The reward model's report is of the same bits, too.
        kept = [weights, "result.json"] if (whole / "result.json").exists() else [weights]
        for name in kept:
            assert (killed / name).read_bytes() == (whole / name).read_bytes()
        if met == kills and inside > 0:
            return
    pytest.fail("no attempt had all of its kills meet a living run, and one of them a save")


@pytest.mark.parametrize("stage", ["pretrain", pytest.param("ppo", marks=pytest.mark.long)])
def test_a_killed_run_ends_with_the_same_bits(
    workshop: Workshop, tmp_path: Path, stage: str
) -> None:
    """One stage of each kind of stream; the others are killed below."""
    check(workshop, tmp_path, stage, kills=2)


@pytest.mark.long
def test_a_killed_4_bit_adapter_run_with_early_stopping_ends_with_the_same_bits(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Dropout, the best weights so far and the stopping decision are restored."""
    settings = {"adapter": "qlora", "lora_rank": 4, "lora_dropout": 0.1, "learning_rate": 0.3}
    settings |= {"embedding_learning_rate": None}
    check(workshop, tmp_path, "sft", kills=2, evaluations=12, patience=2, **settings)


@pytest.mark.long
def test_a_killed_run_with_fine_tuning_data_and_preferences_ends_with_the_same_bits(
    workshop: Workshop, tmp_path: Path
) -> None:
    check(workshop, tmp_path, "kto", kills=1, ptx=0.5)


@pytest.mark.long
def test_a_killed_run_with_a_cost_limit_ends_with_the_same_bits(
    workshop: Workshop, tmp_path: Path
) -> None:
    """The multiplier changes at every iteration, and continues from its last value."""
    limit = {"cost": "length:4", "cost_limit": 0.2, "cost_rate": 2.0}
    check(workshop, tmp_path, "ppo", kills=2, **limit)
    found = [line.get("multiplier") for line in reproducible_metrics(tmp_path / "whole")]
    assert len({one for one in found if one is not None}) > 2


@pytest.mark.long
def test_a_killed_run_with_two_threads_in_bfloat16_ends_with_the_same_bits(
    workshop: Workshop, tmp_path: Path
) -> None:
    check(workshop, tmp_path, "pretrain", kills=1, threads=2, dtype="bfloat16")


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_many_times(workshop: Workshop, tmp_path: Path, stage: str) -> None:
    """Every start costs seconds: one stage is killed often, the others a few times."""
    kills, steps = (25, 120) if stage == "pretrain" else (4, 60)
    check(workshop, tmp_path, stage, kills=kills, steps=steps)


@pytest.mark.long
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_compiled_runs_resume_with_the_same_bits_and_learn_like_eager_ones(
    workshop: Workshop, tmp_path: Path
) -> None:
    # 16 rows of 64 tokens fill two chunks of the loss, which are compiled too.
    # At the larger rates of the other tests their different roundings grow from step to step.
    rates = {"learning_rate": 0.005, "embedding_learning_rate": 0.0015}
    shape = {"rows": 16, "micro_rows": 16, "steps": 8, "save_every": 1, **rates}
    check(workshop, tmp_path, "pretrain", kills=1, compile="on", **shape)
    code, said = workshop.run(workshop.command("pretrain", tmp_path / "eager", **shape))
    assert code == 0, said
    eager, compiled = (
        reproducible_metrics(tmp_path / "eager"),
        reproducible_metrics(tmp_path / "whole"),
    )
    for one, other in zip(eager, compiled, strict=True):
        for name in ("loss", "gradient_norm", "bits_per_byte"):
            assert one[name] == (other[name] and pytest.approx(other[name], rel=0.01))
    assert eager[0]["gradient_norm"] == pytest.approx(compiled[0]["gradient_norm"], rel=1e-4)


def test_a_finished_run_does_not_change(workshop: Workshop) -> None:
    out = workshop.finished("pretrain")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    code, said = workshop.run_here(workshop.command("pretrain", out))
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_thread_count_is_refused_unless_allowed(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(workshop.finished("pretrain"), out)
    forget_finished(out)
    command = workshop.command("pretrain", out)
    # Torch reads its thread count from the environment when the settings leave it open; a different
    # torch version would be reported too, so only the plan on disk is compared.
    plan = json.loads((out / "plan.json").read_text())
    plan["compute"]["threads"] = 3
    del plan["sha256"]  # as a user does who changes it on purpose
    (out / "plan.json").write_text(json.dumps(plan))
    code, said = workshop.run_here(command)
    assert code == 2
    assert "threads=3" in said and "--allow-inexact-resume" in said
    code, said = workshop.run_here([*command, "--allow-inexact-resume"])
    assert code == 0, said


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        pytest.param("sft", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("ppo", signal.SIGINT, marks=pytest.mark.long),
        ("sft", signal.SIGTERM),
    ],
)
def test_stopping_saves_and_says_how_to_continue(
    workshop: Workshop, tmp_path: Path, stage: str, number: signal.Signals
) -> None:
    """By Ctrl-C, or by the signal that services and clusters send."""
    command, out, code, said = stopped(workshop, stage, tmp_path, 5, number)
    assert code == 128 + number, said
    saved = re.search(r"saved at step (\d+) of .*The same command continues", said, re.DOTALL)
    assert saved is not None, said
    assert read_json_object(out / "status.json")["step"] == int(saved[1])
    code, said = workshop.run(command)
    assert code == 0, said
    assert reproducible_metrics(out) == reproducible_metrics(workshop.finished(stage))


def test_weights_of_an_abandoned_branch_are_not_taken_for_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was killed after step 40 and continued from step 30, inexactly."""
    config = TrainingConfig(out=tmp_path, patience=2)
    model = torch.nn.Linear(1, 1)
    optimizer = Optimizer(model, Rates(0.1, 0.1, 0.1), muon=False)
    with Run.open(tmp_path, "test", config) as run:
        stopping = EarlyStopping(run, optimizer, config)

        def measured(step: int, loss: float, weight: float) -> bool:
            run.log("metrics.jsonl", kind="evaluation", step=step, heldout_loss=loss)
            with torch.no_grad():
                optimizer.masters["weight"].fill_(weight)
            return stopping.ends_training(step)

        assert not measured(0, 5.0, 0) and not measured(20, 3.0, 20) and not measured(40, 2.0, 40)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "metrics.jsonl").write_text("".join(lines[:-1]))
        assert not measured(40, 3.5, 41) and measured(60, 3.6, 61)
        assert stopping.restored() == {"best_step": 40}
        assert "better ones were lost" in " ".join(capsys.readouterr().out.split())
        assert optimizer.masters["weight"].item() == 41
        # Earlier versions did not record the step of the weights: they are those of the best.
        save_file(load_file(stopping.path), stopping.path)
        assert stopping.restored() == {"best_step": 20} and measured(80, 3.1, 81)
        assert stopping.restored() == {"best_step": 20}
