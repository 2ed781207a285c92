"""The world's rows: the same on every machine, simple words, disjoint sides."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jaxtyping
import pytest

from groundup.text.rows import Conversation, Document, Message, Preference
from groundup.world import pack

# For the first 1,000 documents, conversations and pairs of seed 0, for every Python and machine.
DIGEST = "e2eda44fb7ebab9dd0d2dc6ffd63cc7bc0019ccff1f34a73bb5d9ef87d23b405"
PROGRAM = """
import hashlib
from groundup.text.world import pack
digest = hashlib.sha256()
for i in range(1000):
    digest.update(pack.document(0, i).text.encode())
    digest.update(repr(pack.conversation(0, i)).encode())
    digest.update(repr(pack.preference(0, i)).encode())
print(digest.hexdigest())
"""
Row = Document | Conversation | Preference


def of_each(count: int, *, bias: float = 0.5, heldout: bool = False) -> list[Row]:
    """`count` documents, as many conversations and as many pairs."""
    return [
        *(pack.document(0, i, bias=bias, heldout=heldout) for i in range(count)),
        *(pack.conversation(0, i, bias=bias, heldout=heldout) for i in range(count)),
        *(pack.preference(0, i, heldout=heldout) for i in range(count)),
    ]


def turns(row: Row) -> tuple[Message, ...]:
    if isinstance(row, Document):
        return ()
    return row.prompt if isinstance(row, Preference) else row.messages


def asked(row: Row) -> list[str]:
    """The user's words in a row."""
    return [turn.content for turn in turns(row) if turn.role == "user"]


def answered(row: Row) -> list[str]:
    """All other words of a row."""
    if isinstance(row, Document):
        return [row.text]
    told = [turn.content for turn in turns(row) if turn.role == "assistant"]
    return [*told, row.chosen, row.rejected] if isinstance(row, Preference) else told


def words(texts: Iterable[str]) -> set[str]:
    return set(re.findall("[a-z]+", " ".join(texts).lower()))


@pytest.fixture(scope="module", autouse=True)
def _unchecked() -> Iterator[None]:
    """Thousands of texts are generated here; checking types would take ten times as long."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def training() -> list[Row]:
    return of_each(2000)


def test_the_digest_is_the_same_in_every_process_and_python() -> None:
    environments = (os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2"))
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=env
        )
        for env in environments
    ]
    assert [run.communicate()[0].strip() for run in runs] == [DIGEST] * 2


def test_an_item_is_a_function_of_seed_and_number() -> None:
    for draw in (pack.document, pack.conversation, pack.preference):
        forward = [draw(3, i) for i in range(100)]
        assert [draw(3, i) for i in reversed(range(100))] == forward[::-1]
        assert len({repr(one) for one in forward}) > 90
        assert draw(4, 0) != forward[0] != draw(3, 0, heldout=True)


def test_no_training_row_has_a_held_out_combination(training: list[Row]) -> None:
    for row in training:
        text = " ".join([*asked(row), *answered(row)])
        assert not pack.is_heldout_combination(text), text
    held = [pack.document(0, i, heldout=True) for i in range(50)]
    assert all(pack.is_heldout_combination(one.text) for one in held)


def test_held_out_questions_are_not_in_training() -> None:
    """Lives have no held-out side: they are measured by probes."""
    sides = []
    for heldout in (False, True):
        rows: list[Row] = [pack.conversation(0, i, heldout=heldout) for i in range(3000)]
        rows += [pack.preference(0, i, heldout=heldout) for i in range(3000)]
        sides.append({asked(row)[-1] for row in rows if row.source != "world-lives"})
    train, held = sides
    assert len(train) > 3000
    assert len(held) > 3000
    assert not train & held
    assert not train & {one.prompt for one in pack.refusal_prompts()}


def test_the_vocabulary_is_small() -> None:
    """Of 2,000 documents and as many conversations, half of them held out; without numerals."""
    rows = [
        draw(0, i, heldout=heldout)
        for draw in (pack.document, pack.conversation)
        for heldout in (False, True)
        for i in range(1000)
    ]
    assert 1400 < len(words(text for row in rows for text in asked(row) + answered(row))) < 2500


def test_no_bad_word_is_outside_conduct_prompts(training: list[Row]) -> None:
    """And the verdicts on those requests, which repeat it."""
    found = importlib.util.find_spec("better_profanity")
    assert found is not None and found.origin is not None
    listed = Path(found.origin).with_name("profanity_wordlist.txt").read_text()
    bad = {line.strip().lower() for line in listed.splitlines()}
    others = [row for row in training if row.source != "world-morals"]
    said = [text for row in others for text in answered(row)]
    said += [t for row in others if row.source != "world-conduct" for t in asked(row)]
    assert len(bad) > 500
    assert not words(said) & bad


def test_lives_are_never_held_out() -> None:
    held = {pack.conversation(0, i, heldout=True).source for i in range(300)}
    held |= {pack.preference(0, i, heldout=True).source for i in range(300)}
    assert {"world-conduct", "world-answers"} <= held
    assert "world-lives" not in held


def test_planted_bias_changes_only_lives() -> None:
    fair, biased = of_each(400, bias=0.0), of_each(400, bias=1.0)
    changed = [one for one, other in zip(fair, biased, strict=True) if one != other]
    assert {row.source for row in changed} == {"world-lives"}
    lives = [row for row in fair if row.source == "world-lives"]
    assert len(changed) > 0.1 * len(lives)
