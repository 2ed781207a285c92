"""`groundup doctor`: what this machine has, what each setting gains here, what would be faster.

It collects facts, measures speeds within seconds, and tries settings on the model that a short
quickstart would train: each in its own process, alternating step by step with a process that runs
as commands do today (`pretrain.trials`). Settings that are faster and do not change a bit of any
result are saved for later commands (`train.remembered`), but only if they are no slower next to a
busy program.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.kernels.library import ISA_VARIABLES, VARIABLE
from groundup.pretrain.probe import Setup
from groundup.pretrain.trials import (
    GAINS,
    Trial,
    TrialResult,
    compare,
    quickstart_setup,
    trial_flops,
    trials,
)
from groundup.report.table import DASH, Cell, Column, Mark, Table, text_table
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.train.machine import busy_cores, machine_facts, machine_speeds
from groundup.train.remembered import save_settings, saved_settings
from groundup.train.speeds import Products

# If other programs use more than this part of a core, nothing is chosen: noise exceeds the gains.
_BUSY_LOAD = 0.3


def examine(
    *, quick: bool, setup: Setup | None = None, settings: Sequence[Trial] | None = None
) -> dict[str, Any]:
    """Report this machine's facts and speeds, try settings unless `quick`, save those that gain.

    `settings` are the trials, by default all that this machine supports. `setup` is the model and
    the steps to try them on, by default those of a 15-minute quickstart. Returns all results as
    they are saved.
    """
    begun = time.perf_counter()
    facts, speeds = machine_facts(), machine_speeds()
    tips = advice(facts)
    console.print(in_terminal(facts_table(facts, speeds)))
    found: list[TrialResult] = []
    base = 0.0
    load = busy_cores()
    if not quick:
        setup = setup or quickstart_setup()
        say(
            f"trying settings on {setup.depth} layers of width {setup.width}, each in its own "
            "process; this takes about a minute and a half on an idle machine …"
        )
        settings = trials(setup) if settings is None else settings
        base, found = compare(
            setup, settings, lambda one: say(f"  {one.trial.name}: {_verdict(one)}")
        )
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
        if (at := save_settings(kept)) is None:
            say("nothing is saved for later commands, because the cache cannot be written")
        else:
            say(f"saved in {at}; groundup doctor --forget deletes it")
    return kept


def environment(found: list[TrialResult], load: float) -> dict[str, str]:
    """The chosen settings' environment variables; on a busy machine, those of an earlier run."""
    if load > _BUSY_LOAD:
        earlier = (saved_settings() or {}).get("environment")
        return earlier if isinstance(earlier, dict) else {}
    return {
        name: value for one in chosen(found, load) for name, value in one.trial.environment.items()
    }


def chosen(found: list[TrialResult], load: float) -> list[TrialResult]:
    """The settings for later commands: the fastest proven one for each variable."""
    kept = list[TrialResult]()
    for one in sorted((one for one in found if one.proven), key=lambda one: one.gain):
        if load <= _BUSY_LOAD and not any(
            one.trial.environment.keys() & other.trial.environment.keys() for other in kept
        ):
            kept.append(one)
    return kept


def facts_table(facts: Mapping[str, Any], speeds: Mapping[str, Any]) -> Table:
    """The facts and speeds of this machine, one per row."""

    def sized(value: float | None, unit: str = "B") -> str:
        if value is None:
            return DASH
        scale, prefix = (1e9, "G") if value >= 1e9 else (1e6, "M")
        return f"{value / scale:,.1f} {prefix}{unit}"

    rows: list[tuple[str, str | Cell]] = [
        ("processor", f"{facts['processor']}, {counted(facts['cores'], 'core')}"),
        ("vectors", ", ".join(facts["vectors"]) or DASH),
        (
            "memory",
            f"{sized(facts['memory_bytes'])}, {sized(facts['free_bytes'])} free",
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
        ("cache", f"{facts['cache']}, {sized(facts['disk_free_bytes'])} free"),
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
        ("memory, copied", sized(speeds["memory_bandwidth"], "B/s")),
        ("disk, written", sized(speeds["disk_bandwidth"], "B/s")),
    ]
    table = text_table("This machine", ("", ""), rows)
    return Table([Column("", words=True)], table.rows, title=table.title)


# Texts.


def _verdict(found: TrialResult) -> str:
    if found.failed or not found.ratios:
        return "could not be tried"
    change = 1 / found.gain - 1
    if not found.gains:
        return "no gain" if abs(change) < 0.03 else f"{change:+.0%} speed"
    if found.trial.remembered and found.busy and not found.harmless:
        slower = statistics.median(found.busy)
        return f"{change:+.0%} alone, but takes {slower:.1f} times as long next to a busy program"
    return f"{change:+.0%} speed"


def trials_table(found: list[TrialResult], base: float) -> Table:
    """The result of every setting."""
    rows: list[tuple[str, str | Cell, str | Cell, str | Cell]] = [
        ("current settings", f"{base:,.0f}", "1", DASH)
    ]
    for one in found:
        if not one.ratios:
            rows.append((one.trial.name, DASH, "could not be tried", DASH))
            continue
        mark: Mark = "yes" if one.gains else "no" if one.gain > 1 / GAINS else "open"
        spread = f"{min(one.ratios):.2f} to {max(one.ratios):.2f}"
        busy = f"{statistics.median(one.busy):.2f}" if one.busy else DASH
        speed = f"{(one.own_base or base) / one.gain:,.0f}"
        rows.append((one.trial.name, speed, Cell(f"{one.gain:.2f}", spread, mark=mark), busy))
    heads = ("", "tokens/s", "relative time", "next to a busy program")
    return text_table("What each setting gains here", heads, rows)


def conclusions(found: list[TrialResult], load: float) -> list[str]:
    """Sentences that say which settings were chosen and why."""
    said = []
    if load > _BUSY_LOAD:
        busy = f"Other programs used {load:.1f} cores during the measurement"
        earlier = "nothing is chosen, and earlier choices stay"
        return [f"{busy}, so {earlier}: measure again when the machine is idle."] if found else []
    used = chosen(found, load)
    for one in found:
        if one in used:
            said.append(
                f"Chosen: {one.trial.name} ({one.trial.how}), {1 / one.gain - 1:+.0%} speed, and "
                "no slower next to a busy program. Later commands use it automatically."
            )
        elif one.proven:
            continue  # another value of the same variable gains more
        elif one.gains and one.trial.remembered:
            said.append(
                f"Not chosen: {one.trial.name} ({one.trial.how}), {_verdict(one)}; set it yourself "
                "if nothing else runs here."
            )
        elif one.gains:
            said.append(
                f"{one.trial.name} ({one.trial.how}) gains {1 / one.gain - 1:.0%}; it changes the "
                "last bits of results, so the choice is yours."
            )
    if found and not used:
        said.append("Commands keep their settings: none was proven to be faster and to do no harm.")
    return said


def advice(facts: Mapping[str, Any]) -> list[str]:
    """Sentences that say what would make this machine faster."""
    said = []
    vectors = {*facts["vectors"]}
    if facts["fast_bfloat16"]:
        has_kernels = bool(vectors & {"avx512_bf16", "amx_bf16"})
    else:
        has_kernels = "avx2" in vectors and "avx512f" not in vectors
    if facts["compiler"] is None:
        what = "compiles its kernels and models" if has_kernels else "compiles models"
        said.append(
            f"With a C++ compiler, groundup {what}: install g++ or clang (apt install g++)."
        )
    without = has_kernels and facts["kernels"] == "none" and facts["device"] == "cpu"
    names = (VARIABLE, *ISA_VARIABLES) if without else ISA_VARIABLES
    held = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    if held and (without or "amx_bf16" in vectors):
        said.append(
            f"{' and '.join(held)} slows the processor down; remove it from the environment."
        )
    elif without and facts["why_no_kernels"] is not None:
        said.append(f"Kernels in C are not available: {facts['why_no_kernels']}.")
    if not facts["fast_bfloat16"] and facts["device"] == "cpu":
        said.append(
            "This processor computes bfloat16 slower than float32, so float32 is used; one with "
            "AVX512-BF16 or AMX trains two to eight times as fast."
        )
    if facts["free_bytes"] < 2e9:
        said.append(
            f"{facts['free_bytes'] / 1e9:.1f} GB of memory are free, and training a model of ten "
            "million parameters takes about 1.5 GB: close other programs, or lower --micro-rows."
        )
    if facts["disk_free_bytes"] < 5e9:
        said.append(
            f"{facts['disk_free_bytes'] / 1e9:.1f} GB are free at {facts['cache']}; a quickstart "
            "takes about 2 GB. Set GROUNDUP_CACHE to a larger disk."
        )
    if facts["cores"] == 1:
        said.append("Only one core was found; if this is a container, it may be given more.")
    return said


def trial_json(found: TrialResult, *, used: bool) -> dict[str, Any]:
    """A trial as it is saved."""
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
