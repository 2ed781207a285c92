"""Ten runs of different shapes: the estimates of `groundup plan`, and the actual time and memory.

    python benchmarks/planner.py [--seconds 25] [--only N …] [--json FILE]

Each run is planned by `groundup plan` and then trained by `groundup pretrain`, in separate
processes, one after the other, on generated text; the number of steps is chosen so that a run takes
about `--seconds`. Prints predicted and actual time (from the first step to the finished model) and
peak memory, and in how many of the runs they were within 15 % and 20 %. It prints the same for the
peak that the run itself planned, which has its steps given and measures nothing. It also prints how
busy the machine was, since a program that starts or ends between plan and run changes the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

TIME, MEMORY = 0.15, 0.20


@dataclass(frozen=True)
class Shape:
    """A run: its name, command options, tokens per step, and environment variables."""

    name: str
    options: tuple[str, ...]
    tokens: int
    environment: Mapping[str, str] = field(default_factory=dict)


def shape(
    name: str, depth: int, width: int, context: int = 256, rows: int = 16, *more: str
) -> Shape:
    sizes = ("--depth", depth, "--width", width, "--context", context, "--rows", rows)
    return Shape(name, (*map(str, sizes), *more), context * rows)


RUNS = (
    shape("2 x 128", 2, 128),
    shape("4 x 256", 4, 256),
    shape("6 x 384", 6, 384),
    shape("3 x 192, short rows", 3, 192, 64, 64),
    shape("4 x 256, context 1,024", 4, 256, 1_024, 8),
    shape("8 x 256, narrow and deep", 8, 256),
    shape("2 x 512, wide and flat", 2, 512),
    shape("4 x 256, AdamW", 4, 256, 256, 16, "--optimizer", "adamw"),
    replace(shape("4 x 256, no kernels", 4, 256), environment={"GROUNDUP_KERNELS": "none"}),
    shape("lstm, 2 x 128", 2, 128, 128, 16, "--arch", "lstm"),
)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seconds", type=float, default=25.0)
    arguments.add_argument("--only", type=int, nargs="*", help="these runs, counted from 1")
    arguments.add_argument("--json", metavar="FILE")
    options = arguments.parse_args()
    chosen = [run for n, run in enumerate(RUNS, 1) if not options.only or n in options.only]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_text(folder / "text.txt")
        groundup("tokenizer", str(folder / "text.txt"), "--vocab-size", "1024", "--out",
                 str(folder / "tokenizer"))  # fmt: skip
        for number, run in enumerate(chosen):
            rows.append(compare(run, folder, number, options.seconds))
            say(rows[-1])
    near = [(abs(r["time_ratio"] - 1) <= TIME, abs(r["memory_ratio"] - 1) <= MEMORY) for r in rows]
    print(
        f"time within {TIME:.0%} in {sum(a for a, _ in near)} of {len(rows)} runs, peak memory "
        f"within {MEMORY:.0%} in {sum(b for _, b in near)}, by the run's own plan in "
        f"{sum(abs(float(row['own_memory_ratio']) - 1) <= MEMORY for row in rows)}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def compare(run: Shape, folder: Path, number: int, seconds: float) -> dict[str, float | str]:
    """Plan a run twice, once for its speed and once as it will run, and then run it."""
    inputs = ("--data", str(folder / "text.txt"), "--tokenizer", str(folder / "tokenizer"))
    first = planned(run, inputs, folder / f"first-{number}.json", 10)
    steps = max(10, round(seconds * first["tokens_per_second"] / run.tokens))
    psutil.cpu_percent()
    told = planned(run, inputs, folder / f"plan-{number}.json", steps)
    before = psutil.cpu_percent()
    out = folder / f"run-{number}"
    words = ("pretrain", *inputs, *run.options, "--steps", str(steps), "--out", str(out))
    groundup(*words, environment=run.environment)
    after = psutil.cpu_percent()
    status = json.loads((out / "status.json").read_text())
    own = json.loads((out / "plan.json").read_text())["expected"]["peak_memory_bytes"]
    return {
        "run": run.name,
        "steps": steps,
        "planned_seconds": told["seconds"],
        "seconds": status["seconds"],
        "time_ratio": status["seconds"] / told["seconds"],
        "planned_peak": told["peak_memory"] / 1e9,
        "peak": status["peak_memory_bytes"] / 1e9,
        "memory_ratio": status["peak_memory_bytes"] / told["peak_memory"],
        "own_planned_peak": own / 1e9,
        "own_memory_ratio": status["peak_memory_bytes"] / own,
        "busy_before": before,
        "busy_meanwhile": after,
    }


def planned(run: Shape, inputs: tuple[str, ...], path: Path, steps: int) -> dict[str, float]:
    own, settings = list(run.options), list[str]()
    known = {"--depth", "--width", "--context", "--rows"}
    for name, value in zip(own[::2], own[1::2], strict=True):
        if name not in known:
            settings.append(f"{name.removeprefix('--')}={value}")
    plain = [w for n, v in zip(own[::2], own[1::2], strict=True) if n in known for w in (n, v)]
    more = ["--set", *settings] if settings else []
    words = ("plan", *inputs, *plain, "--steps", str(steps), *more, "--json", str(path))
    groundup(*words, environment=run.environment)
    found: dict[str, float] = json.loads(path.read_text())
    return found


def groundup(*words: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "groundup", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)


def make_text(path: Path) -> None:
    """Half a megabyte of sentences of made-up words."""
    generator = random.Random(0)
    letters = "etaoinshrdlu"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 8))) for _ in range(3_000)]
    lines = [" ".join(generator.choices(words, k=12)).capitalize() + "." for _ in range(8_000)]
    path.write_text("\n\n".join(lines), encoding="utf-8")


def say(row: dict[str, float | str]) -> None:
    print(
        f"{row['run']:28} {row['steps']:5} steps  time {row['planned_seconds']:6.1f} s planned, "
        f"{row['seconds']:6.1f} s real ({row['time_ratio']:.2f})  memory "
        f"{row['planned_peak']:.2f} GB planned, {row['peak']:.2f} real ({row['memory_ratio']:.2f}; "
        f"by its own plan {row['own_memory_ratio']:.2f})"
        f"  machine busy {row['busy_before']:.0f} % then {row['busy_meanwhile']:.0f} %",
        flush=True,
    )


if __name__ == "__main__":
    main()
