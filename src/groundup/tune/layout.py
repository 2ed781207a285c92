"""The layout of fine-tuning data: the length of rows, rows per step, and the share of replay.

    60 questions of 50 tokens      3,000 tokens, 12 rows of 256: 1 row per step, 12 steps per pass
    3,000 talks of 200 tokens      600,000 tokens, 2,400 rows of 256: 16 rows per step

A low-rank adapter learns by steps, not by tokens: 60 rows packed into five long steps teach it
nothing, the same tokens in a hundred and fifty short ones do. A step is therefore as small as
needed for enough steps with the data and the time. The decisions are written to plan.json once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from groundup.runs import ranks
from groundup.runs.console import counted
from groundup.tune.config import GENERAL

# Rows are at least this long if the model allows it: replayed general text, and the fast kernels,
# need some length. Lengths are multiples of a step, so that few shapes occur.
SHORTEST_ROW, _ROW_STEP = 256, 64
# Maximum rows per step: more made no run better per token.
MAX_ROWS = 16
# Steps in a pass over the data, if there are enough rows, and in a run, if there is enough time:
# below a hundred little was learned, whatever the learning rate.
_STEPS_A_PASS, _MIN_STEPS = 12, 100
# The user's data counts as little up to this many tokens: a model sees each row several times, and
# drifts.
LITTLE = 200_000
# The share of general text for little data, and if the data folder has text of its own: with a
# twentieth of it small models were worse at text and no better at what they learned.
REPLAYED_BESIDE_LITTLE, REPLAYED = 0.1, 0.2
# Share of the steps spent decaying: with much data most of them, as suits a long run. Little data
# means few steps, and each must count.
DECAY, DECAY_OF_LITTLE = 0.8, 0.4
# Models below this were trained here, on a data folder; their general data is unknown.
_MIN_TO_FORGET = 20e6
# Default passes: two over much data; over little as many as these steps need.
_PASSES, _MAX_PASSES, _STEPS = 2.0, 16.0, 200
# From this many tokens on, small models learn at their full rate; up to a tenth of them, at a tenth
# of it. At the full rate 60 conversations made the quickstart's model forget everything, and it
# learned 600 worse than at a tenth. Adapters on small models behave alike: the best of three rates
# was 0.001 for 60 conversations, 0.003 for 600, 0.01 for 4,000.
MUCH, SLOWEST = 1_000_000, 0.1
# A row that is seen more often than this is memorized, and more training would only cost general
# knowledge.
BY_HEART, MAX_SEEN = 30.0, 50.0


@dataclass(frozen=True)
class Layout:
    """The decisions: tokens per row, rows per step, passes over the data, share of general text,
    and share of the steps spent decaying."""

    context: int
    rows: int
    epochs: float
    replay: float
    decay: float = DECAY


def row_length(most: int, longest: int) -> tuple[int, str]:
    """Tokens per row that fit items of at most `most` tokens, up to `longest`, and the reason."""
    needed = max(SHORTEST_ROW, -(-most // _ROW_STEP) * _ROW_STEP)
    if needed >= longest:
        return longest, "as long as such rows may be; change with --context"
    return needed, f"the longest of your items has {most:,} tokens; change with --context"


def rows_of_step(
    rows_per_epoch: int, *, rows_in_time: float | None, steps: int | None
) -> tuple[int, str]:
    """Rows per optimizer step, and the reason: few enough for enough steps in a pass and a run.

    Each of the processes that share a step has at least one row.

    `rows_in_time` is the number of rows that fit into the given minutes, `steps` the given number
    of steps.
    """
    wanted = {"a pass": rows_per_epoch / _STEPS_A_PASS, "much data": float(MAX_ROWS)}
    if rows_in_time is not None and steps is None:
        wanted["the time"] = min(rows_in_time, MAX_SEEN * rows_per_epoch) / _MIN_STEPS
    least = min(wanted, key=lambda name: wanted[name])
    rows = max(ranks.size(), min(MAX_ROWS, int(wanted[least])))
    a_pass = counted(math.ceil(rows_per_epoch / rows), "step")
    reasons = {
        "a pass": f"so few that a pass over the data ({counted(rows_per_epoch, 'packed row')}) has "
        f"{a_pass}",
        "much data": "the most that pay off, as there are many rows",
        "the time": f"at least {_MIN_STEPS} steps in the available time",
    }
    return rows, f"{reasons[least]}; change with --rows"


def passes(rows_per_epoch: int, rows: int, tokens: int) -> float:
    """Default passes over the data."""
    if tokens > LITTLE:
        return _PASSES
    return min(_MAX_PASSES, max(_PASSES, _STEPS * rows / rows_per_epoch))


def replayed(
    tokens: int, parameters: int, texts: tuple[Path, ...] = GENERAL, *, mixed: bool
) -> tuple[float, str]:
    """The default share of general text, and the reason.

    `tokens` of the user's own are for a model of `parameters` parameters; `texts` are the sources
    of general text, and `mixed` says whether the data already contains it.
    """
    if mixed:
        return 0.0, ""
    if texts != GENERAL:
        return REPLAYED, (
            f"{REPLAYED:.0%} of the tokens are of {' and '.join(map(str, texts))}, so that the "
            "model forgets less; change with --replay, 0 turns it off"
        )
    if tokens > LITTLE:
        return 0.0, ""
    if parameters < _MIN_TO_FORGET:
        return 0.0, (
            f"0, as the training data of so small a model is unknown; it forgets over {tokens:,} "
            "tokens, so give its data by --replay-data, as in --replay-data quickstart/data"
        )
    return REPLAYED_BESIDE_LITTLE, (
        f"{REPLAYED_BESIDE_LITTLE:.0%} of the tokens are general text, as {tokens:,} tokens are "
        "little and a model forgets over them; change with --replay, 0 turns it off"
    )


def rate_share(tokens: int) -> float:
    """The share of a small model's learning rates that suits `tokens` tokens of the user's own,
    for a whole model or an adapter."""
    return min(1.0, max(SLOWEST, tokens / MUCH))


def seen(times: float, items: int, of: str = "", *, bounded: bool = True) -> tuple[str, str]:
    """A sentence on how often each of the `items` is seen, and a warning if that is extreme.

    `of` names a source of the items. If no steps or minutes bound them, there is no warning about
    unseen items.
    """
    number = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    which = (f"each of the {items:,} items" if items > 1 else "the one item") + of
    text = f"{which} is seen about {number} times"
    if times < 1 and bounded:
        share = math.floor(100 * times)
        return text, (
            f"there is time for only {share} % of the {items:,} items, the others are never seen; "
            "give more --minutes or --steps, or fewer items"
        )
    if times > BY_HEART:
        return text, (
            f"{which} is seen about {number} times: it will be memorized, and general knowledge "
            f"may suffer; {BY_HEART:.0f} times are enough, so give less --minutes, --steps or "
            "--epochs, or more items"
        )
    return text, ""
