"""The automata of patterns agree with Python's re."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.generation.grammar import DONE, Automaton, Table, all_but, characters
from groundup.generation.regular_expressions import Patterns


def accepts(automaton: Automaton, text: str) -> bool:
    """Whether an automaton accepts a text in the bytes of a JSON string."""
    here: set[tuple[int, Table | None, int]] = {(0, None, 0)}
    for byte in json.dumps(text, ensure_ascii=False)[1:-1].encode():
        following = set[tuple[int, Table | None, int]]()
        for place, table, row in here:
            ways = [(table, place, row)] if table else []
            ways += [] if table else [(one, then, 0) for one, then in automaton.following(place)]
            for one, then, at in ways:
                after = one.rows[at].get(byte)
                if after is not None:
                    following.add((then, None if after == DONE else one, max(after, 0)))
        here = following
    return any(table is None and automaton.may_end(place) for place, table, _ in here)


ATOMS = st.sampled_from(
    [
        r"a",
        r"b",
        r"é",
        r"€",
        r"😀",
        r".",
        r"\d",
        r"\w",
        r"\s",
        r"\S",
        r"[ab]",
        r"[^ab]",
        r"[a-c1]",
        r"\.",
        r"\n",
        r"[^\s@]",
        r"[\w.-]",
        r"\\",
        r'"',
        r"[é-€]",
        r"\x41",
        r"\u00e9",
        r"[\]\-]",
        r"^",
        r"$",
        r"a|",
    ]
)
ENDS = st.sampled_from(["?", "*", "+", "{2}", "{1,2}", "{0,3}", "{2,}", "*?", "+?"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds(str.__add__, inner, inner)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("(?:{}){}".format, inner, ENDS)
    ),
    max_leaves=8,
)
TEXTS = st.text('abcA1.é€😀 \n"\\@_-]\x07', max_size=5)


@settings(deadline=None, max_examples=400)
@given(
    pattern=PATTERNS, texts=st.lists(st.text('abcA1.é€😀 \n"\\@_-]\x07', max_size=5), min_size=9)
)
def test_patterns_match_where_those_of_python_match(pattern: str, texts: list[str]) -> None:
    automaton = Patterns().automaton(pattern)
    # In Python, $ also matches before a final line break.
    found = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    for text in texts:
        assert accepts(automaton, text) is (found.search(text) is not None), (pattern, text)


@settings(deadline=None, max_examples=100)
@given(
    ranges=st.lists(st.tuples(st.characters(), st.characters()).map(sorted), max_size=4),
    more=st.lists(st.characters(exclude_categories=["Cs"])),
)
def test_the_table_of_a_set_accepts_only_its_characters(
    ranges: list[list[str]], more: list[str]
) -> None:
    those = all_but(characters((ord(first), ord(last)) for first, last in ranges))
    automaton = Automaton([[(those, 1)], []], frozenset({1}))
    edges = [chr(ord(end) + by) for pair in ranges for end in pair for by in (-1, 0, 1) if ord(end)]
    for one in (*more, *edges, "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000"):
        if not "\ud800" <= one <= "\udfff":
            is_one = not any(first <= one <= last for first, last in ranges)
            assert accepts(automaton, one) is is_one, (ranges, one)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[A-Z]{3}-\d{4}$", ["ABC-0123"], ["ABC-123", "xABC-0123", "ABC-0123\n"]),
        ("a+", ["a", "xay"], ["", "xyz"]),
        ("^a|b$", ["axx", "xxb"], ["xaxbx"]),
        (r"\A(?P<name>x)(?<other>y)?\Z", ["x", "xy"], ["xyy"]),
        (r"\/\-\u{1F600}", ["/-😀"], ["/-"]),
        # Characters on which dialects disagree are excluded.
        (r"^\w$", ["a", "_"], ["é"]),
        (r"^[^\w]$", ["-", " "], ["a", "é"]),
        (r"^\S$", ["é"], ["\xa0", "\x1c", " "]),
        ("^.$", ["é"], ["\n", "\r", "\u2028"]),
        (r"a{3", ["a{3"], ["aaa"]),
    ],
)
def test_strings_in_which_a_pattern_matches(pattern: str, good: list[str], bad: list[str]) -> None:
    automaton = Patterns().automaton(pattern)
    assert [accepts(automaton, text) for text in good] == [True] * len(good)
    assert [accepts(automaton, text) for text in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a(?=b)", "has look-around or flags, which are not supported, at character 4"),
        ("(?i)a", "has look-around or flags"),
        (r"(a)\1", r"has \\1, which is not supported, at character 6"),
        (r"\bfoo", r"has \\b, which is not supported"),
        (r"\p{L}", r"has \\p, which is not supported"),
        (r"\ud800", r"has \\u, which is not supported"),
        ("(a", r"has an unmatched \("),
        ("a)", r"has an unmatched \)"),
        ("[a", "ends too early"),
        ("[]a]", "has an empty class"),
        ("[[:alpha:]]", r"has \[ in a class, which dialects read differently"),
        ("[a-z&&b]", "has && in a class"),
        ("[b-a]", "has a range that ends before it begins"),
        (r"[\d-z]", "has a range between classes"),
        ("*a", r"has \* with nothing before it"),
        ("a**", "repeats a repeat"),
        ("a{2,1}", "repeats at least 2 and at most 1 times"),
        ("a{,3}", "has {…} with nothing to repeat"),
    ],
)
def test_unsupported_patterns_are_refused(pattern: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        Patterns().automaton(pattern)
