"""`groundup doctor`: what this machine has, what each setting gains here, what would be faster.

Facts are read, speeds are measured in seconds, and settings are tried on the model that a short
quickstart would train: each in a process of its own, taking turns with one as commands run today,
step by step. What gains without changing a bit of a result is remembered for later commands
(`train.remembered`), but only if it does no harm beside a busy program: a thread that spins while
it waits is a little faster alone, and many times slower where a core is taken.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch

from groundup.kernels.compiler import cpu_flags
from groundup.kernels.library import best_kernels
from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.probe import Setup, Side
from groundup.pretrain.shape import model_shape
from groundup.report.table import DASH, Cell, Mark, Table, text_table
from groundup.report.terminal import in_terminal
from groundup.runs.cache import cache_folder
from groundup.runs.console import console, say
from groundup.train.config import ENVIRONMENT
from groundup.train.device import (
    available_memory,
    has_compiler,
    has_fast_bfloat16,
    matmul_peak,
    resolve_device,
)
from groundup.train.remembered import processor, remember, remembered
from groundup.train.speeds import Products, disk_bandwidth, matrices, memory_bandwidth, products

_VOCABULARY, _CONTEXT, _MICRO_TOKENS = 4_096, 256, 4_096
# Turns of each pair, and of those beside a busy program; fewer where that would take so long.
_TURNS, _BUSY_TURNS = 8, 4
_LEAST_TURNS, _PAIR_SECONDS = 3, 5.0
# What is chosen gains this much, in three of four turns at all, ...
_GAINS = 0.97
# ... and beside a busy program takes at most this much of the time that it takes as it is.
_HARMLESS = 1.1
# With more than this of a core taken by others nothing is chosen: chance is larger than gains.
_BUSY_LOAD = 0.3
_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "neon", "asimd", "bf16")


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
class Found:
    """What a trial came to: time against as it is, pair by pair, alone and beside a busy program.

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
        return self.gain <= _GAINS and upper < 1

    @property
    def harmless(self) -> bool:
        """Whether beside a busy program it is as good as it is now."""
        return bool(self.busy) and statistics.median(self.busy) <= _HARMLESS

    @property
    def proven(self) -> bool:
        """Whether later commands may use it."""
        return self.trial.remembered and self.gains and self.harmless


def examine(*, quick: bool, setup: Setup | None = None) -> dict[str, Any]:
    """Say what this machine has and can, try settings unless `quick`, and remember what gains.

    `setup` is the model and steps to try them on; by default that of a quickstart of 15 minutes.
    Returns all of it, as it is kept.
    """
    begun = time.perf_counter()
    facts, speeds = machine_facts(), machine_speeds()
    tips = advice(facts)
    console.print(in_terminal(facts_table(facts, speeds)))
    found: list[Found] = []
    base = 0.0
    load = busy_cores()
    if not quick:
        setup = setup or quickstart_setup()
        say(
            f"trying settings on {setup.depth} layers of width {setup.width}, each in a process of "
            "its own; about a minute and a half on a quiet machine …"
        )
        base, found = tried(setup)
        console.print(in_terminal(trials_table(found, base)))
    used, said = chosen(found, load), conclusions(found, load) + tips
    for one in said:
        say(f"- {one}")
    kept: dict[str, Any] = {
        "facts": facts,
        "speeds": speeds,
        "base_tokens_per_second": base,
        "trial_flops": trial_flops(setup, base),
        "trials": [trial_json(one, used=one in used) for one in found],
        "busy_cores": load,
        "environment": environment(found, load),
        "said": said,
        "seconds": time.perf_counter() - begun,
    }
    if not quick:
        say(f"kept in {remember(kept)}; groundup doctor --forget takes it back")
    return kept


def environment(found: list[Found], load: float) -> dict[str, str]:
    """The variables of what was chosen; beside other programs those of an earlier doctor stay."""
    if load > _BUSY_LOAD:
        earlier = (remembered() or {}).get("environment")
        return earlier if isinstance(earlier, dict) else {}
    return {
        name: value for one in chosen(found, load) for name, value in one.trial.environment.items()
    }


def chosen(found: list[Found], load: float) -> list[Found]:
    """What later commands are to use: of the proven the fastest for each variable."""
    kept = list[Found]()
    for one in sorted((one for one in found if one.proven), key=lambda one: one.gain):
        if load <= _BUSY_LOAD and not any(
            one.trial.environment.keys() & other.trial.environment.keys() for other in kept
        ):
            kept.append(one)
    return kept


# What it has.


def machine_facts() -> dict[str, Any]:
    """What the machine has, by name."""
    memory, cache = psutil.virtual_memory(), cache_folder()
    place = next(one for one in (cache, *cache.parents) if one.exists())
    compiler = next((one for one in ("g++", "clang++", "c++") if shutil.which(one)), None)
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "vectors": [one for one in _VECTORS if one in cpu_flags()],
        "memory_bytes": int(memory.total),
        "free_bytes": available_memory(),
        "device": resolve_device("auto"),
        "fast_bfloat16": has_fast_bfloat16("cpu"),
        "kernels": best_kernels(),
        "compiler": compiler if has_compiler() else None,
        "torch": torch.__version__,
        "torch_vectors": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "cache": str(cache),
        "disk_free_bytes": shutil.disk_usage(place).free,
    }


def machine_speeds() -> dict[str, Any]:
    """Products, memory and disk, measured in a few seconds."""
    setup = Setup(6, 384)
    shapes = matrices(384, 1_024, (384, 128), _VOCABULARY)
    kinds = {"float32": torch.float32}
    if has_fast_bfloat16("cpu"):
        kinds["bfloat16"] = torch.bfloat16
    found = {name: products(shapes, _MICRO_TOKENS, kind) for name, kind in kinds.items()}
    speeds: dict[str, Any] = {
        "products": {name: asdict(one) | {"together": one.together} for name, one in found.items()},
        "square": {name: matmul_peak("cpu", kind) for name, kind in kinds.items()},
        "shape": f"width {setup.width}, {_MICRO_TOKENS:,} tokens at once",
        "memory_bandwidth": memory_bandwidth(),
        "disk_bandwidth": None,
    }
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        speeds["disk_bandwidth"] = disk_bandwidth(cache_folder())
    except OSError:
        pass  # there is no room, or nobody may write there: the advice says so
    return speeds


def busy_cores() -> float:
    """Cores that other programs take at the moment."""
    return psutil.cpu_percent(interval=0.5) / 100 * (os.cpu_count() or 1)


def facts_table(facts: Mapping[str, Any], speeds: Mapping[str, Any]) -> Table:
    """All of it as lines."""

    def giga(value: float | None, unit: str) -> str:
        return DASH if value is None else f"{value / 1e9:,.1f} {unit}"

    rows: list[tuple[str, str | Cell]] = [
        ("processor", f"{facts['processor']}, {facts['cores']} cores"),
        ("vectors", ", ".join(facts["vectors"]) or DASH),
        (
            "memory",
            f"{giga(facts['memory_bytes'], 'GB')}, {giga(facts['free_bytes'], 'GB')} free",
        ),
        ("accelerator", DASH if facts["device"] == "cpu" else facts["device"]),
        ("bfloat16", "in hardware" if facts["fast_bfloat16"] else "emulated, so float32 is used"),
        ("our kernels", DASH if facts["kernels"] == "none" else facts["kernels"]),
        ("C++ compiler", facts["compiler"] or DASH),
        (
            "torch",
            f"{facts['torch']}, {facts['torch_vectors']}, oneDNN "
            f"{'yes' if facts['onednn'] else 'no'}",
        ),
        ("cache", f"{facts['cache']}, {giga(facts['disk_free_bytes'], 'GB')} free"),
    ]
    for name, found in speeds["products"].items():
        one = Products(found["forward"], found["data_gradient"], found["weight_gradient"])
        parts = (one.forward, one.data_gradient, one.weight_gradient)
        rows.append(
            (
                f"products, {name}\n{speeds['shape']}",
                Cell(
                    f"{one.together / 1e9:,.0f} GFLOP/s",
                    f"forward, data and weight gradient "
                    f"{', '.join(f'{part / 1e9:,.0f}' for part in parts)}; "
                    f"1024 x 1024 x 1024: {speeds['square'][name] / 1e9:,.0f}",
                ),
            )
        )
    rows += [
        ("memory, copied", giga(speeds["memory_bandwidth"], "GB/s")),
        ("disk, written", giga(speeds["disk_bandwidth"], "GB/s")),
    ]
    table = text_table("This machine", ("", ""), rows)
    return Table([type(table.columns[0])("", words=True)], table.rows, title=table.title)


# What each setting gains.


def quickstart_setup() -> Setup:
    """The model that a quickstart of 15 minutes trains here, by steps of 16 rows."""
    config = PretrainConfig.model_validate(
        {"out": "unused", "data": "unused", "tokenizer": "unused", "minutes": 6.0}
    )
    bfloat16 = has_fast_bfloat16("cpu")
    peak = matmul_peak("cpu", torch.bfloat16 if bfloat16 else torch.float32)
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
    found, kernels = list[Trial](), best_kernels() != "none"
    if kernels:
        found.append(Trial("no kernels", {"kernels": False}, {}, "GROUNDUP_KERNELS=none"))
    if has_compiler():
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
    if (os.cpu_count() or 1) > 1:
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


def tried(setup: Setup) -> tuple[float, list[Found]]:
    """Tokens per second as it is, and what every setting came to beside it."""
    found = []
    # As a command starts itself, whatever this very process was started with.
    plain = {**dict.fromkeys(("GOMP_SPINCOUNT", "GLIBC_TUNABLES"), ""), **ENVIRONMENT}
    with Side(setup, plain) as base:
        for trial in trials(setup):
            found.append(_trial(base, trial, plain))
            say(f"  {trial.name}: {_verdict(found[-1])}")
        # A base that is alone with every other setting has been timed often enough by now.
        return setup.tokens / min(base.seconds), found


def _trial(base: Side, trial: Trial, plain: Mapping[str, str]) -> Found:
    setup = base.setup.changed(**trial.setup)
    try:
        if setup.rows != base.setup.rows:
            # More rows a step gain by themselves: it is compared with as many as it is.
            with (
                Side(base.setup.changed(rows=setup.rows), plain) as wide,
                Side(setup, plain) as side,
            ):
                ratios = _turns(wide, side, _TURNS)
                return Found(trial, ratios, own_base=setup.tokens / min(wide.seconds))
        with Side(setup, {**plain, **trial.environment}) as side:
            found = Found(trial, _turns(base, side, _TURNS))
            if trial.remembered and found.gains:
                with _busy_neighbour():
                    return replace(found, busy=_turns(base, side, _BUSY_TURNS))
            return found
    except ChildProcessError as error:
        return Found(trial, (), failed=str(error))


def _turns(base: Side, side: Side, turns: int) -> tuple[float, ...]:
    """Time a step of `side` against `base`, which has as many tokens, turn by turn."""
    begun, found = time.perf_counter(), list[float]()
    for turn in range(turns):
        if turn >= _LEAST_TURNS and time.perf_counter() - begun > _PAIR_SECONDS:
            break
        found.append(side.turn() / base.turn())
    return tuple(found)


class _busy_neighbour:
    """Another program that takes a core, for as long as the block lasts."""

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


# Words.


def _verdict(found: Found) -> str:
    if found.failed or not found.ratios:
        return "could not be tried"
    change = 1 / found.gain - 1
    if not found.gains:
        return "no gain" if abs(change) < 0.03 else f"{change:+.0%} speed"
    if found.trial.remembered and found.busy and not found.harmless:
        slower = statistics.median(found.busy)
        return f"{change:+.0%} alone, but {slower:.1f} times the time beside a busy program"
    return f"{change:+.0%} speed"


def trials_table(found: list[Found], base: float) -> Table:
    """What every setting came to."""
    rows: list[tuple[str, str | Cell, str | Cell, str | Cell]] = [
        ("as it is", f"{base:,.0f}", "1", DASH)
    ]
    for one in found:
        if not one.ratios:
            rows.append((one.trial.name, DASH, "could not be tried", DASH))
            continue
        mark: Mark = "yes" if one.gains else "no" if one.gain > 1 / _GAINS else "open"
        spread = f"{min(one.ratios):.2f} to {max(one.ratios):.2f}"
        busy = f"{statistics.median(one.busy):.2f}" if one.busy else DASH
        speed = f"{(one.own_base or base) / one.gain:,.0f}"
        rows.append((one.trial.name, speed, Cell(f"{one.gain:.2f}", spread, mark=mark), busy))
    heads = ("", "tokens/s", "time against as it is", "beside a busy program")
    return text_table("What each setting gains here", heads, rows)


def conclusions(found: list[Found], load: float) -> list[str]:
    """What was chosen and why, in sentences."""
    said = []
    if load > _BUSY_LOAD:
        told = f"Other programs took {load:.1f} cores meanwhile"
        earlier = "nothing is chosen, and what was chosen before stays"
        return [f"{told}, so {earlier}: measure again when it is quiet."] if found else []
    used = chosen(found, load)
    for one in found:
        if one in used:
            said.append(
                f"Chosen: {one.trial.name} ({one.trial.how}), {1 / one.gain - 1:+.0%} speed, and "
                "no slower beside a busy program. Later commands use it by themselves."
            )
        elif one.proven:
            continue  # another value of its variable gains more
        elif one.gains and one.trial.remembered:
            said.append(
                f"Not chosen: {one.trial.name} ({one.trial.how}), {_verdict(one)}; set it yourself "
                "where nothing else runs."
            )
        elif one.gains:
            said.append(
                f"{one.trial.name} ({one.trial.how}) gains {1 / one.gain - 1:.0%}; it changes the "
                "last bits of results, so it is left to you."
            )
    if found and not used:
        said.append("Commands go on as they are: nothing else was proven to gain and do no harm.")
    return said


def advice(facts: Mapping[str, Any]) -> list[str]:
    """What would make this machine faster, in sentences."""
    said = []
    if facts["compiler"] is None:
        what = "compiles its kernels and models" if facts["fast_bfloat16"] else "compiles models"
        said.append(f"With a C++ compiler groundup {what}: install g++ or clang (apt install g++).")
    elif facts["fast_bfloat16"] and facts["kernels"] == "none" and facts["device"] == "cpu":
        said.append("Our kernels are not used, as GROUNDUP_KERNELS or the compiler has it.")
    if os.environ.get("ONEDNN_MAX_CPU_ISA") and "amx_bf16" in facts["vectors"]:
        said.append("ONEDNN_MAX_CPU_ISA holds the processor back; take it out of the environment.")
    if not facts["fast_bfloat16"] and facts["device"] == "cpu":
        said.append(
            "This processor computes bfloat16 slower than float32, so float32 is used; one with "
            "AVX512-BF16 or AMX trains two to eight times as fast."
        )
    if facts["free_bytes"] < 2e9:
        said.append(
            f"{facts['free_bytes'] / 1e9:.1f} GB of memory are free, and training a model of ten "
            "million parameters takes about 1.5: close other programs, or lower --micro-rows."
        )
    if facts["disk_free_bytes"] < 5e9:
        said.append(
            f"{facts['disk_free_bytes'] / 1e9:.1f} GB are free at {facts['cache']}; a quickstart "
            "takes about 2. Set GROUNDUP_CACHE to a larger disk."
        )
    if facts["cores"] == 1:
        said.append("One core was found; a container may have been given more.")
    return said


def trial_json(found: Found, *, used: bool) -> dict[str, Any]:
    """A trial as it is kept."""
    return {
        "name": found.trial.name,
        "how": found.trial.how,
        "time_ratio": found.gain if found.ratios and math.isfinite(found.gain) else None,
        "ratios": list(found.ratios),
        "busy_ratios": list(found.busy),
        "gains": found.gains,
        "chosen": used,
        "failed": found.failed,
    }
