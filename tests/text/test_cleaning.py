"""Cleaning, keys, split positions, shingles and sentences."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.text import cleaning


def test_tidy_keeps_words_and_paragraphs() -> None:
    text = "\ufeffA\u00a0b\u200b  c \r\n\r\n\r\n\r\nd\x07e\u2028f\t g"
    assert cleaning.tidy(text) == "A b c\n\nde\nf g"


def test_tidy_separates_words_at_page_breaks() -> None:
    assert cleaning.tidy("the end of page one\x0cPage two\x0bbegins") == (
        "the end of page one\nPage two\nbegins"
    )


@given(st.text())
def test_tidying_twice_changes_nothing(text: str) -> None:
    once = cleaning.tidy(text)
    assert cleaning.tidy(once) == once


@pytest.mark.parametrize("line", ["CafÃ© au lait", "donâ€™t", "a \ufffd b"])
def test_garbled_lines_are_detected(line: str) -> None:
    assert cleaning.looks_garbled(line)


@pytest.mark.parametrize("line", ["Café", "São Paulo", "don’t", "Ångström", "Ân 1", "â"])
def test_good_lines_are_not_garbled(line: str) -> None:
    assert not cleaning.looks_garbled(line)


def test_keys_ignore_spelling_but_not_the_suffix() -> None:
    assert cleaning.normal_form("Table_(furniture)") == cleaning.normal_form("table (Furniture)")
    assert cleaning.normal_form("Table (furniture)") != cleaning.normal_form("Table (database)")
    assert cleaning.normal_form("+") != cleaning.normal_form("-")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("पिता", "पता"),  # father, address
        ("ก้าว", "กาว"),  # step, glue
        ("தமிழ்", "தமழ"),
        ("عِلْم", "عَلَم"),  # knowledge, flag
        ("x\u0336", "x"),
    ],
)
def test_words_with_other_marks_are_other_words(one: str, other: str) -> None:
    assert cleaning.normal_form(one) != cleaning.normal_form(other)
    assert "".join(cleaning.words(one)) == one


def test_each_letter_is_a_word_in_scripts_without_spaces() -> None:
    assert cleaning.words("我们去公园。3D, ok?") == [*"我们去公园", "3d", "ok"]
    assert cleaning.words("ラーメンだ") == [*"ラーメンだ"]
    assert cleaning.words("สวัสดี") == ["ส", "วั", "ส", "ดี"]
    assert cleaning.words("한국어 मैं Việt") == ["한국어", "मैं", "việt"]
    # A key is what it was before.
    assert cleaning.normal_form("你好 吗？3D") == "你好 吗 3d"
    asked = "今天下午我们一起去公园散步好不好"
    wrapped = f"问题：{asked}？回答：好的，我们走吧。"
    assert np.isin(cleaning.shingles(asked, 13), cleaning.shingles(wrapped, 13)).all()
    assert cleaning.repeats([wrapped, "别的话", f"{asked}吗？", "别的问题"]).tolist() == [
        False, False, True, False
    ]  # fmt: skip


def test_characters_other_than_letters_and_marks_are_in_no_word() -> None:
    assert cleaning.words("❤️ 1️⃣ a\ufe0fb\u0301_c\u200dd") == ["1", "a", "b\u0301", "c", "d"]


@given(st.text(st.characters(codec="latin-1")))
def test_words_of_western_texts_are_runs_of_letters_and_digits(text: str) -> None:
    plain = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(one if one.isalnum() else " " for one in plain)
    assert cleaning.words(text) == letters.split()


def test_split_positions_are_uniform_and_stable() -> None:
    # Pinned: another hash would move texts from the held-out side to the training side.
    assert cleaning.split_hash("apollo 11") == pytest.approx(0.9148305796131532, abs=1e-15)
    places = np.array([cleaning.split_hash(str(number)) for number in range(4000)])
    counts, _ = np.histogram(places, bins=10, range=(0, 1))
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand.
    assert ((counts - 400) ** 2 / 400).sum() < 27.9


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(1, 4))
def test_shingles_are_equal_for_equal_words(sequence: list[str], size: int) -> None:
    hashes = cleaning.shingles(sequence, size).tolist()
    grams = [tuple(sequence[i : i + size]) for i in range(len(sequence) - size + 1)]
    assert len(hashes) == len(grams)
    assert len(set(hashes)) == len(set(grams))
    assert len(set(zip(hashes, grams, strict=True))) == len(set(grams))


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=6),
    st.integers(1, 4),
)
def test_shingles_of_all_equal_those_of_each(texts: list[list[str]], size: int) -> None:
    hashes, owner = cleaning.shingles_of_all(texts, size)
    of_each = [(h, place) for place, t in enumerate(texts) for h in cleaning.shingles(t, size)]
    assert list(zip(hashes.tolist(), owner.tolist(), strict=True)) == of_each


def test_repeats_finds_exact_and_near_duplicates() -> None:
    base = " ".join(f"word{number}" for number in range(60))
    near = base.replace("word30", "other").upper()
    half_new = base[: len(base) // 4] + " ".join(f"new{number}" for number in range(60))
    texts = [base, near, half_new, base, "a b", "A, b!", "b a", ""]
    found = cleaning.repeats(texts).tolist()
    assert found == [False, True, False, True, False, True, False, False]


def test_sentences_of_hard_prose() -> None:
    text = 'Dr. J. R. Smith (c. 1900) came from St. Louis. "Why?" he asked. It grew!\n1. A b.'
    assert cleaning.sentences(text) == [
        "Dr. J. R. Smith (c. 1900) came from St. Louis.",
        '"Why?" he asked.',
        "It grew!",
        "1. A b.",
    ]


@given(st.text(), st.integers(1, 50))
def test_cut_to_sentences_is_a_prefix_within_the_limit(text: str, limit: int) -> None:
    short = cleaning.cut_to_sentences(text, limit)
    assert text.startswith(short) and len(short) <= max(limit, 0)


def test_cut_to_sentences_ends_with_a_sentence_if_possible() -> None:
    assert cleaning.cut_to_sentences("One two. Three four. Five six.", 24) == "One two. Three four."
    assert cleaning.cut_to_sentences("One two three four", 9) == "One two"


@pytest.mark.parametrize(
    "rest", ["\n\nThen more came.", ' "Why?" he asked.', " (In fact she ran.)", "   He stayed."]
)
def test_cut_to_sentences_keeps_the_last_that_fits(rest: str) -> None:
    text = "It rained. She left."
    for limit in (len(text), len(text) + 1, len(text) + 3):
        assert cleaning.cut_to_sentences(text + rest, limit) == text
