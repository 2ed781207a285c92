"""Which settings make training faster on this machine: each is tried beside as it is.

A setting is a variable of the environment (how long threads spin, huge pages), or a way to compute
(kernels, compiling, micro-batch, threads). Both sides train the same model in processes of their
own (`pretrain.probe`) and take turns, step by step. What gains is tried again beside a busy
program: a thread that spins while it waits is a little faster alone, and many times slower where
a core is taken.
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
# Turns of each pair, and of those beside a busy program; fewer where that would take so long.
_TURNS, _BUSY_TURNS = 8, 4
_LEAST_TURNS, _PAIR_SECONDS = 3, 5.0
# What is chosen gains this much, in more than three of four turns at all, ...
GAINS = 0.97
# ... and beside a busy program takes at most this much of the time that it takes as it is.
_HARMLESS = 1.1


@dataclass(frozen=True)
class Trial:
    """One setting: how it is set, and whether results are the same bits with it."""

    name: str
    setup: Mapping[str, Any]
    environment: Mapping[str, str]
    how: str

    @property
    def remembered(self) -> bool:
        """Whether commands may use it by themselves: it is of the environment alone."""
        return not self.setup


@dataclass(frozen=True)
class TrialResult:
    """Time against as it is, pair by pair, alone and beside a busy program.

    `own_base` are the tokens per second of what it was compared with, where that is a step of as
    many rows as the trial's; `failed` says why it could not be tried.
    """

    trial: Trial
    ratios: tuple[float, ...]
    busy: tuple[float, ...] = ()
    own_base: float = 0.0
    failed: str = ""

    @property
    def gain(self) -> float:
        """The median time against as it is; below 1 it is faster."""
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
        """Whether beside a busy program it is as good as it is now."""
        return bool(self.busy) and statistics.median(self.busy) <= _HARMLESS

    @property
    def proven(self) -> bool:
        """Whether later commands may use it."""
        return self.trial.remembered and self.gains and self.harmless


def quickstart_setup() -> Setup:
    """The model that a quickstart of 15 minutes trains here, by steps of 16 rows."""
    config = PretrainConfig.model_validate(
        {"out": "unused", "data": "unused", "tokenizer": "unused", "minutes": 6.0}
    )
    peak = matmul_peak("cpu", compute_dtype())
    shape, _ = model_shape(config, _VOCABULARY, peak)
    return Setup(shape.num_hidden_layers, shape.hidden_size, _VOCABULARY, _CONTEXT)


def trial_flops(setup: Setup | None, speed: float) -> float | None:
    """FLOP/s that training the tried model came to, for plans elsewhere; None without a trial."""
    if setup is None or not speed:
        return None
    shape = ModelConfig.of(
        width=setup.width, depth=setup.depth, vocab_size=setup.vocab_size, context=setup.context
    )
    return speed * shape.flops_per_token(setup.context)


def trials(setup: Setup) -> list[Trial]:
    """The settings that are tried on this machine."""
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
        elif rows == 2 * fitting:  # a step has fewer rows, so that both sides take one of as many
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
    """Tokens per second as it is, and what every setting came to, of which `said` hears at once."""
    found = list[TrialResult]()
    # As a command starts itself, whatever this very process was started with.
    plain = {**dict.fromkeys(("GOMP_SPINCOUNT", "GLIBC_TUNABLES"), ""), **ENVIRONMENT}
    if best_kernels(compute_dtype()) == "none":  # each would find out again why, and say so
        plain[VARIABLE] = "none"
    with Side(setup, plain) as base:
        for trial in settings:
            found.append(measure(base, trial, plain))
            said(found[-1])
        # A base that is alone with every other setting has been timed often enough by now.
        return base.speed, found


def measure(base: Side, trial: Trial, plain: Mapping[str, str]) -> TrialResult:
    """One setting against `base`, which has run for a while."""
    setup = base.setup.changed(**trial.setup)
    try:
        if setup.rows != base.setup.rows:
            # More rows a step gain by themselves: it is compared with as many as it is.
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
                del base.seconds[alone:]  # they are not of its speed as it is
            return found
    except ChildProcessError as error:
        return TrialResult(trial, (), failed=str(error))


def _turns(base: Side, side: Side, turns: int) -> tuple[float, ...]:
    """Time a step of `side` against `base`, which has as many tokens, turn by turn."""
    begun, found = time.perf_counter(), list[float]()
    for turn in range(turns):
        if turn >= _LEAST_TURNS and time.perf_counter() - begun > _PAIR_SECONDS:
            break
        found.append(side.turn() / base.turn())
    return tuple(found)


class _busy_neighbor:
    """Another program that takes a core, for as long as the block lasts."""

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
