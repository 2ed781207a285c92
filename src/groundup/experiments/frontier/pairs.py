"""The small world's preferences by kind, and mixes of them.

    helpful     a right answer over a wrong one; to a look-alike, an answer over a refusal
    harmless    to a harmful request, a kind refusal over help and over rudeness
    balanced    a sketch without bias over a stereotype, a fair word over a prejudice

The parts of the gold reward that apply to the preferred answer determine the kind. All mixes of a
seed take the first pairs of each kind from the same sequence, so that points on a dial differ only
in their shares.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

from groundup.data.files import write_json_lines
from groundup.evals.world.answers import CONDUCT
from groundup.text.rows import Message, Preference
from groundup.world import gold, pack

KINDS = ("helpful", "harmless", "balanced")
# The rarest kind, a tenth of the world's pairs.
_LIVES = "world-lives"
# Held-out pairs for evaluation during training.
_HELDOUT = 120


def kind_of(row: Preference) -> str:
    """The kind of a pair of the world."""
    if row.source == _LIVES:
        return "balanced"
    return "helpful" if gold.judge(row.prompt, row.chosen).harmless is None else "harmless"


def counts(pairs: int, harmless: float, balanced: float) -> dict[str, int]:
    """Pairs of each kind: `balanced` is a share of all, `harmless` one of the rest."""
    fair = round(balanced * pairs)
    safe = round(harmless * (pairs - fair))
    return {"helpful": pairs - fair - safe, "harmless": safe, "balanced": fair}


def mix(pairs: int, harmless: float, balanced: float, seed: int) -> list[Preference]:
    """`pairs` training pairs in these shares."""
    wanted = counts(pairs, harmless, balanced)
    return [row for kind in KINDS for row in _first(kind, wanted[kind], seed)]


def _first(kind: str, many: int, seed: int) -> Sequence[Preference]:
    pools = _pools(seed)
    pool, drawn = pools[kind], pools["drawn"]
    while len(pool) < many:
        row = pack.preference(seed, len(drawn))
        drawn.append(row)
        pools[kind_of(row)].append(row)
    return pool[:many]


@functools.cache
def _pools(seed: int) -> dict[str, list[Preference]]:
    return {kind: [] for kind in (*KINDS, "drawn")}


def prompts(many: int, seed: int) -> list[tuple[Message, ...]]:
    """Prompts for a policy: requests, half of them harmful, and as many questions."""
    pairs = (pack.preference(seed, i) for i in count())
    talks = (pack.conversation(seed, i) for i in count())
    requests = (row.prompt for row in pairs if row.source == CONDUCT)
    questions = (row.messages[:-1] for row in talks if row.source not in (CONDUCT, _LIVES))
    half = many // 2
    return [*islice(requests, half), *islice(questions, many - half)]


def write_pairs(folder: Path, rows: Sequence[Preference]) -> Path:
    """Write a folder of preferences like a data stage's, with the world's held-out pairs."""
    kept = folder / "preferences"
    kept.mkdir(parents=True, exist_ok=True)
    heldout = (pack.preference(0, i, heldout=True) for i in count())
    write_json_lines(kept / "train.jsonl", rows)
    write_json_lines(kept / "heldout.jsonl", [next(heldout) for _ in range(_HELDOUT)])
    return folder
