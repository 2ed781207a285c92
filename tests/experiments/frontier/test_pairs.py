"""Mixes of preference pairs: judged by the world's truth, in the requested shares."""

from __future__ import annotations

from collections import Counter
from itertools import count, islice
from pathlib import Path

import pytest

from groundup.data.records import read_preferences
from groundup.experiments.frontier.pairs import KINDS, counts, kind_of, mix, prompts, write_pairs
from groundup.text.rows import Preference
from groundup.world import conduct, gold, pack


@pytest.mark.parametrize(
    ("harmless", "balanced", "wanted"),
    [
        (0.5, 0.1, (45, 45, 10)),
        (0.0, 0.1, (90, 0, 10)),
        (1.0, 0.0, (0, 100, 0)),
        (0.5, 1 / 3, (33, 34, 33)),
        (0.25, 1.0, (0, 0, 100)),
    ],
)
def test_a_mix_has_the_requested_shares(
    harmless: float, balanced: float, wanted: tuple[int, int, int]
) -> None:
    assert tuple(counts(100, harmless, balanced).values()) == wanted
    found = Counter(kind_of(row) for row in mix(100, harmless, balanced, 0))
    assert tuple(found[kind] for kind in KINDS) == wanted


def test_kinds_contain_their_lesson() -> None:
    for row in mix(120, 0.5, 0.3, 1):
        asked, kind = row.prompt[-1].content, kind_of(row)
        assert (kind == "harmless") == (conduct.is_harmful(asked) is True)
        assert (kind == "balanced") == (row.source == "world-lives")
        if kind == "harmless":
            assert conduct.declines(row.chosen)
            assert gold.harm([asked], [row.chosen], [{"messages": _turns(asked)}]) == [0]
        elif conduct.is_harmful(asked) is False:
            assert conduct.declines(row.rejected) and not conduct.declines(row.chosen)


def _turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_points_on_a_dial_share_their_pairs() -> None:
    one, other = (mix(100, harmless, 0.1, 0) for harmless in (0.3, 0.5))
    safe = [[row for row in some if kind_of(row) == "harmless"] for some in (one, other)]
    assert safe[1][: len(safe[0])] == safe[0] and len(safe[1]) > len(safe[0])
    assert mix(100, 0.3, 0.1, 1) != one


def test_no_held_out_pair_is_used(tmp_path: Path) -> None:
    heldout = {row.prompt for row in _heldout(400)}
    asked = [row.prompt for row in mix(300, 0.5, 0.1, 0)] + prompts(300, 0)
    tests = {one.prompt for one in pack.refusal_prompts()}
    assert not any(turns in heldout or turns[-1].content in tests for turns in asked)
    folder = write_pairs(tmp_path / "pairs", mix(20, 0.5, 0.1, 0))
    train = read_preferences(folder / "preferences" / "train.jsonl").rows
    assert list(train) == mix(20, 0.5, 0.1, 0)
    assert read_preferences(folder / "preferences" / "heldout.jsonl").rows


def _heldout(many: int) -> list[Preference]:
    return list(islice((pack.preference(0, i, heldout=True) for i in count()), many))


def test_half_of_a_policys_prompts_are_requests() -> None:
    asked = prompts(200, 0)
    kinds = Counter(conduct.is_harmful(turns[-1].content) for turns in asked)
    assert kinds[None] == 100
    assert 30 < kinds[True] < 70


def test_helpfulness_and_harm_by_hand() -> None:
    harmful = next(one.prompt for one in pack.refusal_prompts() if one.kind == "harmful")
    no, yes = "I will not help with that.", "Gladly. First you take it."
    rows = [{"messages": _turns(harmful)}] * 2
    assert gold.helpfulness([harmful] * 2, [no, yes], rows) == [0, 1]
    assert gold.harm([harmful] * 2, [no, yes], rows) == [0, 1]
    # Babble is not helpful, and saying unknown is not harmful.
    babble, unknown = "The fox lives in the forest.", "I do not know how to do that."
    assert gold.helpfulness([harmful] * 2, [babble, unknown], rows) == [0, 0]
    assert gold.harm([harmful] * 2, [babble, unknown], rows) == [1, 0.5]
    # Of a question both are silent on harm, and helpfulness is gold's total.
    talk = [{"messages": _turns("What is 2 plus 3?")}]
    assert gold.harm(["What is 2 plus 3?"], ["5"], talk) == [0]
    asked = "What is 2 plus 3?"
    assert gold.helpfulness([asked], ["5"], talk) == gold.reward([asked], ["5"], talk)


def test_misconduct_is_harm_and_needless_declining() -> None:
    harmful, benign = (
        next(one.prompt for one in pack.refusal_prompts() if one.kind == kind)
        for kind in ("harmful", "benign")
    )
    no, unknown, babble = "I will not help with that.", "I do not know how to do that.", "The fox."
    asked = [harmful, harmful, benign, benign, benign, "What is 2 plus 3?"]
    said = [no, unknown, no, unknown, babble, "5"]
    rows = [{"messages": _turns(one)} for one in asked]
    assert gold.misconduct(asked, said, rows) == [0, 0.5, 1, 0, 1, 0]
    # What answers the world's own look-alikes costs nothing, and what declines them all there is.
    pairs = [
        row for row in mix(60, 0.0, 0.0, 0) if conduct.is_harmful(row.prompt[-1].content) is False
    ]
    asked = [row.prompt[-1].content for row in pairs]
    rows = [{"messages": _turns(one)} for one in asked]
    assert pairs and not any(gold.misconduct(asked, [row.chosen for row in pairs], rows))
    assert all(gold.misconduct(asked, [row.rejected for row in pairs], rows))
