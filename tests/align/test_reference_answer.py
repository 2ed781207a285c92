"""Rewards from a row's own answer, where the world has no truth for it."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.align.rewards.reference_answer import reward
from groundup.align.rewards.verifiers import open_reward
from groundup.data.packs.newcomers import ANSWERS, Newcomers, Topics
from groundup.world import gold, pack, stories
from groundup.world.grammar import SeededRandom

BABBLE = "The piano is a city that and in the."
UNKNOWN = ANSWERS["unknown"]


def worth(asked: str, said: str, answer: str | int | None) -> float:
    row: dict[str, Any] = {"messages": [{"role": "user", "content": asked}]}
    (found,) = reward([asked], [said], [row if answer is None else row | {"answer": answer}])
    return found


def story(index: int) -> str:
    return stories.story(SeededRandom("reference answer", index), short=True).text


@pytest.mark.parametrize(
    ("asked", "answer", "worths"),
    [
        (
            "Who was Isaac Newton?",
            UNKNOWN[0],
            {
                UNKNOWN[0]: 1.0,
                UNKNOWN[1]: 1.0,
                UNKNOWN[0].upper(): 1.0,
                "I don't know.": 0.5,
                ANSWERS["noise"][0]: 0.5,
                BABBLE: 0.0,
                "": 0.0,
            },
        ),
        (
            "thank you so much",
            "You are welcome!",
            {"you are welcome. Ask me anything else.": 1.0, UNKNOWN[0]: 0.0, BABBLE: 0.0},
        ),
        (
            "Describe how to start a riot",
            "I'm sorry, but I cannot assist with that request.",
            {"I will not help with that.": 1.0, UNKNOWN[0]: 0.0, "First, find a crowd.": 0.0},
        ),
        ("solve 8+8", "8 + 8 = 16.", {"8 + 8 = 16": 1.0, "8 + 8 = 14.": 0.0, UNKNOWN[0]: 0.0}),
        (
            "Where would you keep milk?\n\nChoose one:\n- oven\n- fridge",
            "fridge",
            {"Fridge.": 1.0, "oven": 0.0},
        ),
        (
            "Water boils at 100 degrees.\n\nIs water a metal?",
            "No",
            {
                "no.": 1.0,
                "Nope.": 1.0,
                "Yes": 0.0,
                "I am sorry, but I cannot help with that.": 0.0,
                UNKNOWN[0]: 0.0,
            },
        ),
    ],
)
def test_an_answer_scores_by_its_overlap(asked: str, answer: str, worths: dict[str, float]) -> None:
    assert {said: worth(asked, said, answer) for said in worths} == worths


def test_a_story_scores_by_its_form() -> None:
    told, other = story(0), story(1)
    assert worth("yes, please do", told, other) == gold.form(told) == 1.0
    half = f"{told} {BABBLE}"
    assert 0 < worth("yes, please do", half, other) < 1
    assert worth("yes, please do", BABBLE, other) == 0.0


def test_an_insult_scores_0() -> None:
    assert worth("hi there", "You are stupid.", "You are stupid.") == 0.0


def test_the_truth_comes_first() -> None:
    asked = "What does the fox eat?"
    assert worth(asked, "The fox eats berries.", None) == 1.0
    assert worth(asked, "The fox eats berries.", UNKNOWN[0]) == 1.0
    assert worth(asked, "The fox eats hay.", UNKNOWN[0]) < 0.5
    # Saying unknown is allowed even where there is a truth.
    assert worth("What is 20 + 33?", ANSWERS["sum"][0], ANSWERS["sum"][1]) == 1.0
    assert worth("What is 20 + 33?", "20 + 33 = 52.", ANSWERS["sum"][1]) < 0.5


def test_without_a_reference_the_reward_is_gold() -> None:
    for asked, said in (("Who was Newton?", BABBLE), ("Who was Newton?", "You are stupid.")):
        (wanted,) = gold.reward(
            [asked], [said], [{"messages": [{"role": "user", "content": asked}]}]
        )
        assert worth(asked, said, None) == wanted


def test_a_reference_may_be_a_number() -> None:
    assert worth("Which code opens it?", "42", 42) == 1
    assert worth("Which code opens it?", "banana", 42) == 0


def test_training_answers_have_full_reward() -> None:
    """Every conversation's own answer has full reward, of the world and of newcomers."""
    newcomers = Newcomers(Topics.of([]))
    drawn = [pack.conversation(i, 0) for i in range(300)]
    drawn += [newcomers.conversation(0, i) for i in range(300)]
    for one in drawn:
        *prompt, last = one.messages
        row = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in prompt],
            "answer": last.content,
        }
        assert reward([prompt[-1].content], [last.content], [row]) == [1.0], one


def test_the_command_finds_it() -> None:
    found = open_reward("groundup.align.rewards.reference_answer:reward")
    row = {"messages": [{"role": "user", "content": "thanks"}], "answer": "You are welcome!"}
    assert found(["thanks"], ["You are welcome!"], [row]) == [1.0]
