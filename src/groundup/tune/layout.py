"""How fine-tuning lays its data out: how long rows are, how many make a step, what is replayed.

    60 questions of 50 tokens      3,000 tokens, 12 rows of 256: one row a step, 12 steps a pass
    3,000 talks of 200 tokens      600,000 tokens, 2,400 rows of 256: 16 rows a step

A low-rank adapter learns by steps, not by tokens: 60 rows packed into five long steps teach it
nothing, the same tokens in a hundred and fifty short ones do. So a step is as small as the data and
the time make it, until there are steps enough. What is decided here is written to plan.json once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from groundup.runs import ranks
from groundup.runs.console import counted
from groundup.tune.config import GENERAL

# Rows are no shorter than this where the model allows it: general text that is replayed, and the
# fast kernels, need some length. Lengths are multiples, so that few shapes occur.
SHORTEST_ROW, _ROW_STEP = 256, 64
# Rows of a step at most: more made no run better per token.
MOST_ROWS = 16
# Steps that a pass over the data has, if there are rows for it, and that a run has, if there is
# time for it: below a hundred little was learned, whatever the learning rate.
_STEPS_A_PASS, _LEAST_STEPS = 12, 100
# Tokens of one's own up to which data are little: a model sees each row several times, and drifts.
LITTLE = 200_000
# Share of the tokens that are general text then, and where text of its own lies beside the data:
# with a twentieth of it small models were worse at text and no better at what they learned.
REPLAYED_BESIDE_LITTLE, REPLAYED = 0.1, 0.2
# Share of the steps spent decaying: over much data most of them, as suits a long run. Little data
# mean few steps, and each is to count.
DECAY, DECAY_OF_LITTLE = 0.8, 0.4
# Models below this were trained here, on data that lie in a folder; what is general to them is not
# known.
_LEAST_TO_FORGET = 20e6
# Passes where nobody says how long: two over much data; over little as many as the steps need.
_PASSES, _MOST_PASSES, _STEPS = 2.0, 16.0, 200
# From so many tokens of one's own on, small models learn at their full rate, and up to a tenth of
# them at a tenth. At the full rate 60 conversations took all from the quickstart's model that it
# had known, and 600 it learned worse than at a tenth. Adapters beside small models want the same:
# the best of three rates was 0.001 for 60 conversations, 0.003 for 600, 0.01 for 4,000.
MUCH, SLOWEST = 1_000_000, 0.1
# A row that is seen more often than this is known by heart, and the minutes that are left would
# only cost general knowledge.
BY_HEART, MOST_SEEN = 30.0, 50.0


@dataclass(frozen=True)
class Layout:
    """The decisions: tokens in a row, rows in a step, passes if asked, share of general text,
    and share of the steps spent decaying."""

    context: int
    rows: int
    epochs: float
    replay: float
    decay: float = DECAY


def row_length(most: int, longest: int) -> tuple[int, str]:
    """Tokens in a row that hold items of at most `most` tokens, and why; at most `longest`."""
    needed = max(SHORTEST_ROW, -(-most // _ROW_STEP) * _ROW_STEP)
    if needed >= longest:
        return longest, "as long as such rows may be; change with --context"
    return needed, f"the longest of your items has {most:,} tokens; change with --context"


def rows_of_step(
    rows_per_epoch: int, *, rows_in_time: float | None, steps: int | None
) -> tuple[int, str]:
    """Rows in an optimizer step, and why: so few that a pass and a run have steps enough.

    Each of the processes that share a step has a row.

    `rows_in_time` is how many rows there is time to train on, where minutes are given, and `steps`
    how many steps are, where they are.
    """
    wanted = {"a pass": rows_per_epoch / _STEPS_A_PASS, "much data": float(MOST_ROWS)}
    if rows_in_time is not None and steps is None:
        wanted["the time"] = min(rows_in_time, MOST_SEEN * rows_per_epoch) / _LEAST_STEPS
    least = min(wanted, key=lambda name: wanted[name])
    rows = max(ranks.size(), min(MOST_ROWS, int(wanted[least])))
    a_pass = counted(math.ceil(rows_per_epoch / rows), "step")
    reasons = {
        "a pass": f"so few that a pass over the data ({counted(rows_per_epoch, 'packed row')}) has "
        f"{a_pass}",
        "much data": "as many as pay, of so many rows",
        "the time": f"at least {_LEAST_STEPS} steps in the time there is",
    }
    return rows, f"{reasons[least]}; change with --rows"


def passes(rows_per_epoch: int, rows: int, tokens: int) -> float:
    """Passes over the data where neither steps nor minutes say."""
    if tokens > LITTLE:
        return _PASSES
    return min(_MOST_PASSES, max(_PASSES, _STEPS * rows / rows_per_epoch))


def replayed(
    tokens: int, parameters: int, texts: tuple[Path, ...] = GENERAL, *, mixed: bool
) -> tuple[float, str]:
    """The share of general text where nobody says, and why.

    `tokens` of one's own, for a model of so many `parameters`; `texts` are where general text lies,
    and `mixed` says whether the data have it already.
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
    if parameters < _LEAST_TO_FORGET:
        return 0.0, (
            f"0, as nobody says what so small a model was made of; it forgets over {tokens:,} "
            "tokens, so give its data by --replay-data, as in --replay-data quickstart/data"
        )
    return REPLAYED_BESIDE_LITTLE, (
        f"{REPLAYED_BESIDE_LITTLE:.0%} of the tokens are general text, as {tokens:,} tokens are "
        "little and a model forgets over them; change with --replay, 0 turns it off"
    )


def rate_share(tokens: int) -> float:
    """The share of a small model's learning rates that suits so many `tokens` of one's own, whether
    it is trained as a whole or an adapter beside it."""
    return min(1.0, max(SLOWEST, tokens / MUCH))


def seen(times: float, items: int, of: str = "", *, bounded: bool = True) -> tuple[str, str]:
    """Says in words how often each of the `items` is seen, and warns where that is extreme.

    They are of a source or, where there is none, all; where no steps or minutes bound them, nobody
    is warned that they are seen too seldom.
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
            f"{which} is seen about {number} times: it will be known by heart and general "
            f"knowledge may suffer; {BY_HEART:.0f} times are enough, so give less --minutes, "
            "--steps or --epochs, or more items"
        )
    return text, ""
