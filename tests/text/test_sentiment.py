"""VADER: sentences with the scores of the authors' program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.packs.vader import sentiment
from groundup.text.sentiment import Sentiment

# Scores of vaderSentiment 3.3.2; most sentences are those of its README.
SCORES = {
    "VADER is smart, handsome, and funny.": 0.8316,
    "VADER is smart, handsome, and funny!": 0.8439,
    "VADER is very smart, handsome, and funny.": 0.8545,
    "VADER is VERY SMART, handsome, and FUNNY.": 0.9227,
    "VADER is VERY SMART, handsome, and FUNNY!!!": 0.9342,
    "VADER is VERY SMART, uber handsome, and FRIGGIN FUNNY!!!": 0.9469,
    "VADER is not smart, handsome, nor funny.": -0.7424,
    "The book was good.": 0.4404,
    "At least it isn't a horrible book.": 0.431,
    "The book was only kind of good.": 0.3832,
    "The plot was good, but the characters are uncompelling and the dialog is not great.": -0.7042,
    "Today SUX!": -0.5461,
    "Today only kinda sux! But I'll get by, lol": 0.5249,
    "Make sure you :) or :D today!": 0.8633,
    "Not bad at all": 0.431,
    "Sentiment analysis has never been good.": -0.3412,
    "Sentiment analysis has never been this good!": 0.5672,
    "With VADER, sentiment analysis is the shit!": 0.6476,
    "On the other hand, VADER is quite bad ass": 0.802,
    "Without a doubt, an excellent idea.": 0.7013,
    "Roger Dodger is one of the most compelling variations on this theme.": 0.2944,
    "Roger Dodger is at least compelling as a variation on the theme.": 0.2263,
    "Roger Dodger is one of the least compelling variations on this theme.": -0.1695,
    "Not such a badass after all.": -0.2584,
    "There is no fun or joy here.": -0.6979,
    "No problem, it is all right?? Really???": 0.497,
    "I have NEVER been so happy": 0.6948,
    "The train leaves at nine.": 0.0,
    "": 0.0,
}


@pytest.mark.parametrize(("text", "score"), SCORES.items())
def test_scores_equal_the_authors_program(text: str, score: float) -> None:
    assert sentiment().compound(text) == pytest.approx(score, abs=5.1e-5)


def test_each_rule_by_hand() -> None:
    """A lexicon of one word, so that the paper's numbers are visible."""
    vader = Sentiment.read("good\t2.0\t0.5\t[2, 2]\n")

    def total(text: str) -> float:
        compound = vader.compound(text)
        return compound * (15 / (1 - compound**2)) ** 0.5

    sums = {
        "good": 2.0,
        "a good day": 2.0,
        "very good": 2.293,
        "barely good": 1.707,
        "very odd good": 2 + 0.95 * 0.293,
        "very odd grey good": 2 + 0.9 * 0.293,
        "very odd grey old good": 2.0,
        "not good": -1.48,
        "not very good": -0.74 * 2.293,
        "isn't a good": -1.48,
        "GOOD day": 2.733,
        "GOOD": 2.0,
        "good, but old": 1.0,
        "old but good": 3.0,
        "good!!": 2.584,
        "good!!!!!!": 3.168,
        "good?": 2.0,
        "good???": 2.54,
        "not good!": -1.48 - 0.292,
        "never so good": 2.293 * 1.25,
    }
    for text, expected in sums.items():
        assert total(text) == pytest.approx(expected), text


WORDS = st.lists(st.sampled_from(["good", "not", "but", "very", "so", "!", "BAD"])).map(" ".join)


@given(st.text(max_size=200) | WORDS)
def test_any_text_has_a_sentiment_within_the_bounds(text: str) -> None:
    assert -1 < sentiment().compound(text) < 1
