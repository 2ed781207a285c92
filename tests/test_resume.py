"""kill -9 at any instant, then the same command: the same bits as if nothing had happened."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Workshop

from groundup.train.run import is_finished, read_lines

STAGES = ("pretrain", "sft", "dpo")
# What must be the same; speeds differ from run to run.
PROMISED = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "bits_per_byte")


def promised(folder: Path) -> list[dict[str, Any]]:
    lines = read_lines(folder / "metrics.jsonl")
    return [{name: line.get(name) for name in PROMISED} for line in lines]


def kill_until_done(
    workshop: Workshop, command: list[str], out: Path, kills: int, seed: int
) -> int:
    """Start and kill, then let it finish. Every second kill waits for a save to be under way."""
    chance = random.Random(seed)
    inside = 0
    for number in range(kills):
        process = workshop.start(command)
        deadline = time.monotonic() + 120
        if number % 2 == 0:
            inside += _wait_for_save(process, out, deadline)
        else:
            _wait_for_steps(process, out, chance.randint(1, 20), deadline)
            time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if is_finished(out):
            break
    code, said = workshop.run(command)
    assert code == 0, said
    return inside


def _wait_for_save(process: Any, out: Path, deadline: float) -> bool:
    """Until a checkpoint is half written."""
    while process.poll() is None and time.monotonic() < deadline:
        if any(out.glob("checkpoints/.step-*.partial")):
            return True
        time.sleep(0.0005)
    return False


def _wait_for_steps(process: Any, out: Path, more: int, deadline: float) -> None:
    def lines() -> int:
        try:
            return (out / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    goal = lines() + more
    while process.poll() is None and lines() < goal and time.monotonic() < deadline:
        time.sleep(0.002)


def check(workshop: Workshop, tmp_path: Path, stage: str, kills: int, **changes: Any) -> None:
    whole, killed = workshop.finished(stage), tmp_path / "killed"
    if changes:
        whole = tmp_path / "whole"
        code, said = workshop.run(workshop.command(stage, whole, **changes))
        assert code == 0, said
    command = workshop.command(stage, killed, **changes)
    inside = kill_until_done(workshop, command, killed, kills, seed=kills)
    assert inside > 0, "no kill met a save; the test is too slow to see one"
    assert promised(killed) == promised(whole)
    weights = "model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_ends_with_the_same_bits(
    workshop: Workshop, tmp_path: Path, stage: str
) -> None:
    check(workshop, tmp_path, stage, kills=2)


def test_two_threads_in_bfloat16_give_the_same_bits_too(workshop: Workshop, tmp_path: Path) -> None:
    check(workshop, tmp_path, "pretrain", kills=1, threads=2, dtype="bfloat16")


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_killed_twenty_five_times(workshop: Workshop, tmp_path: Path, stage: str) -> None:
    check(workshop, tmp_path, stage, kills=25, steps=120)


def test_a_finished_run_is_left_alone(workshop: Workshop) -> None:
    out = workshop.finished("pretrain")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    code, said = workshop.run(workshop.command("pretrain", out))
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_thread_count_is_refused_unless_allowed(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = workshop.command("pretrain", out)
    process = workshop.start(command)
    _wait_for_steps(process, out, 8, time.monotonic() + 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Torch counts its threads from the environment when the settings leave it open; here another
    # torch would say so too: the plan on disk is what is compared.
    plan = out / "plan.json"
    plan.write_text(plan.read_text().replace('"threads": 1', '"threads": 3'))
    code, said = workshop.run(command)
    assert code == 2
    assert "threads=3" in said and "--allow-inexact-resume" in said
    code, said = workshop.run([*command, "--allow-inexact-resume"])
    assert code == 0, said


def test_ctrl_c_saves_and_says_how_to_go_on(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = workshop.command("sft", out)
    process = workshop.start(command)
    _wait_for_steps(process, out, 5, time.monotonic() + 120)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "The same command continues" in said
    code, said = workshop.run(command)
    assert code == 0, said
    assert promised(out) == promised(workshop.finished("sft"))
