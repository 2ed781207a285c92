"""Finds settings that make training faster on this machine, by comparing each with the default.

A setting is an environment variable (how long threads spin, huge pages) or a way to compute
(kernels, compiling, micro-batch, threads). Both sides train the same model in separate processes
(`pretrain.probe`) and take turns, step by step. Faster settings are tried again next to a busy
program: a thread that spins while waiting is a little faster alone, and many times slower if a core
is occupied.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup.kernels.library import VARIABLE, best_kernels
from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.probe import Setup, Side
from groundup.pretrain.shape import model_shape
from groundup.train.config import ENVIRONMENT
from groundup.train.device import compute_dtype, find_compiler, matmul_peak, usable_cores

_VOCABULARY, _CONTEXT, _MICRO_TOKENS = 4_096, 256, 4_096
# Turns of each pair, and of those next to a busy program; fewer if steps are slow.
_TURNS, _BUSY_TURNS = 8, 4
_MIN_TURNS, _PAIR_SECONDS = 3, 5.0
# A setting is chosen if its median time is at most this share, it is faster in more than three of
# four turns, ...
GAINS = 0.97
# ... and next to a busy program it takes at most this share of the default's time.
_HARMLESS = 1.1


@dataclass(frozen=True)
class Trial:
    """One setting: its name, how to set it, and the option that users give."""

    name: str
    setup: Mapping[str, Any]
    environment: Mapping[str, str]
    how: str

    @property
    def remembered(self) -> bool:
        """Whether commands may use it by themselves: it consists of environment variables only."""
        return not self.setup


@dataclass(frozen=True)
class TrialResult:
    """Times relative to the default, pair by pair, alone and next to a busy program.

    `own_base` is the speed of the compared default in tokens per second, if its steps had as many
    rows as the trial's; `failed` says why the setting could not be tried.
    """

    trial: Trial
    ratios: tuple[float, ...]
    busy: tuple[float, ...] = ()
    own_base: float = 0.0
    failed: str = ""

    @property
    def gain(self) -> float:
        """The median time relative to the default; below 1 it is faster."""
        return statistics.median(self.ratios)

    @property
    def gains(self) -> bool:
        """Whether it is faster by more than chance."""
        if not self.ratios:
            return False
        upper = sorted(self.ratios)[(3 * len(self.ratios)) // 4]
        return self.gain <= GAINS and upper < 1

    @property
    def harmless(self) -> bool:
        """Whether it is not much slower than the default next to a busy program."""
        return bool(self.busy) and statistics.median(self.busy) <= _HARMLESS

    @property
    def proven(self) -> bool:
        """Whether later commands may use it."""
        return self.trial.remembered and self.gains and self.harmless


def quickstart_setup() -> Setup:
    """The model that a quickstart of 15 minutes trains on this machine, with steps of 16 rows."""
    config = PretrainConfig.model_validate(
        {"out": "unused", "data": "unused", "tokenizer": "unused", "minutes": 6.0}
    )
    peak = matmul_peak("cpu", compute_dtype())
    shape, _ = model_shape(config, _VOCABULARY, peak)
    return Setup(shape.num_hidden_layers, shape.hidden_size, _VOCABULARY, _CONTEXT)


def trial_flops(setup: Setup | None, speed: float) -> float | None:
    """The training speed of the tried model in FLOP/s, for plans; None without a trial."""
    if setup is None or not speed:
        return None
    shape = ModelConfig.of(
        width=setup.width, depth=setup.depth, vocab_size=setup.vocab_size, context=setup.context
    )
    return speed * shape.flops_per_token(setup.context)


def trials(setup: Setup) -> list[Trial]:
    """The settings to try on this machine."""
    found, kernels = list[Trial](), best_kernels(compute_dtype()) != "none"
    if kernels:
        found.append(Trial("no kernels", {"kernels": False}, {}, "GROUNDUP_KERNELS=none"))
    if find_compiler() is not None:
        found.append(
            Trial("compiled, no kernels", {"kernels": False, "compile": True}, {}, "--compile on")
        )
    fitting = max(1, _MICRO_TOKENS // setup.context)
    for rows in (max(1, fitting // 2), 2 * fitting):
        name, how = f"micro-batch of {rows * setup.context:,} tokens", f"--micro-rows {rows}"
        if rows <= setup.rows:
            found.append(Trial(name, {"micro_rows": rows}, {}, how))
        elif rows == 2 * fitting:  # the default step has fewer rows, so both sides get more
            more = {"micro_rows": rows, "rows": rows}
            found.append(Trial(f"{name} in steps of as many", more, {}, f"--rows {rows} {how}"))
    if usable_cores() > 1:
        found.append(Trial("one thread", {"threads": 1}, {}, "--threads 1"))
    if sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names:
        for value, name in (
            ("10000", "threads spin 10 times as long"),
            ("", "threads spin freely"),
        ):
            found.append(Trial(name, {}, {"GOMP_SPINCOUNT": value}, f"GOMP_SPINCOUNT={value}"))
        pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        found.append(Trial("huge pages", {}, pages, "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"))
    return found


def compare(
    setup: Setup, settings: Sequence[Trial], said: Callable[[TrialResult], None]
) -> tuple[float, list[TrialResult]]:
    """The default's tokens per second, and every setting's result, reported to `said` at once."""
    found = list[TrialResult]()
    # The environment with which commands start themselves, whatever this process has.
    plain = {**dict.fromkeys(("GOMP_SPINCOUNT", "GLIBC_TUNABLES"), ""), **ENVIRONMENT}
    if best_kernels(compute_dtype()) == "none":  # otherwise each process would warn again
        plain[VARIABLE] = "none"
    with Side(setup, plain) as base:
        for trial in settings:
            found.append(measure(base, trial, plain))
            said(found[-1])
        # By now the default has taken a step for every step of the other sides.
        return base.speed, found


def measure(base: Side, trial: Trial, plain: Mapping[str, str]) -> TrialResult:
    """Compare one setting with `base`, which has been warmed up."""
    setup = base.setup.changed(**trial.setup)
    try:
        if setup.rows != base.setup.rows:
            # More rows per step are faster by themselves, so both sides get as many.
            with (
                Side(base.setup.changed(rows=setup.rows), plain) as wide,
                Side(setup, plain) as side,
            ):
                ratios = _turns(wide, side, _TURNS)
                return TrialResult(trial, ratios, own_base=wide.speed)
        with Side(setup, {**plain, **trial.environment}) as side:
            found = TrialResult(trial, _turns(base, side, _TURNS))
            if trial.remembered and found.gains:
                alone = len(base.seconds)
                with _busy_neighbor():
                    found = replace(found, busy=_turns(base, side, _BUSY_TURNS))
                del base.seconds[alone:]  # these are not its undisturbed speed
            return found
    except ChildProcessError as error:
        return TrialResult(trial, (), failed=str(error))


def _turns(base: Side, side: Side, turns: int) -> tuple[float, ...]:
    """Step times of `side` relative to `base`, which has as many tokens, turn by turn."""
    begun, found = time.perf_counter(), list[float]()
    for turn in range(turns):
        if turn >= _MIN_TURNS and time.perf_counter() - begun > _PAIR_SECONDS:
            break
        found.append(side.turn() / base.turn())
    return tuple(found)


class _busy_neighbor:
    """A context in which another program occupies a core."""

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
