"""The pack `chatterbot`: short dialogues whose answers a model learns to give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import yaml

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set
from groundup.data.packs.manifest import find_set
from groundup.data.packs.own import ABOUT_ITSELF
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.text.cleaning import normal_form, split_hash, tidy
from groundup.text.rows import Conversation


@dataclass(frozen=True)
class Dialogue:
    """Turns that alternate between a person and the assistant, the person first."""

    topic: str
    turns: tuple[str, ...]


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """The dialogues; for a model that declines unknown questions, only the small talk."""
    found = dialogues(rejected, progress)
    if config.unknown == "declined":
        found = of_small_talk(found)
    train, heldout = from_dialogues(found)
    return Rows(conversations=train, conversations_heldout=heldout)


# Topics whose lists are one remark and its possible answers, not turns.
_ALTERNATIVES = ("emotion",)
# Answers that make sense only for that corpus's robot, or not at all.
_USELESS = ("it",)


def dialogues(rejected: Rejected, progress: Progress = None) -> list[Dialogue]:
    """The dialogues of `chatterbot`, each ending with an answer."""
    found: dict[tuple[str, ...], Dialogue] = {}
    for path, text in read_set("chatterbot", progress).items():
        topic = PurePosixPath(path).stem
        for turns in _dialogues_of_topic(yaml.safe_load(text)["conversations"], topic, rejected):
            cleaned = tuple(_spoken(turn) for turn in turns)
            # With an odd number of turns the person's last turn has no answer.
            cleaned = cleaned[: len(cleaned) // 2 * 2]
            if len(cleaned) < 2 or cleaned[-1].lower().rstrip(".") in _USELESS:
                rejected.add("chatterbot", "no answer")
            elif normal_form(cleaned[0]) == normal_form(cleaned[1]):
                rejected.add("chatterbot", "the answer repeats the question")
            else:
                found.setdefault(cleaned, Dialogue(topic, cleaned))
    return list(found.values())


def _dialogues_of_topic(
    lists: list[object], topic: str, rejected: Rejected
) -> Iterator[tuple[str, ...]]:
    for turns in lists:
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            rejected.add("chatterbot", "not a list of turns")
        elif topic in _ALTERNATIVES:
            yield from ((turns[0], answer) for answer in turns[1:])
        elif len(turns) > 20:
            rejected.add("chatterbot", "a recitation rather than a dialogue")
        else:
            yield tuple(turns)


def _spoken(turn: str) -> str:
    """A turn in normal writing: one line, a capital, a mark at its end."""
    turn = re.sub(r"\s+", " ", tidy(turn))
    if turn.count("'") == 1:  # a quotation mark whose partner was lost
        turn = turn.rstrip("'")
    turn = re.sub(r"\bi\b(?!\.)", "I", turn)
    turn = turn[:1].upper() + turn[1:]
    if turn[-1:] in ".!?\"”'":
        return turn
    return turn + ("?" if turn.split(" ")[0].lower() in _ASKING else ".")


_ASKING = (
    "what",
    "who",
    "why",
    "how",
    "when",
    "where",
    "which",
    "do",
    "does",
    "can",
    "are",
    "have",
)


# A chat model must be able to greet and to talk about itself, so these are never held out.
_ALWAYS_TRAIN = ("greetings", "conversations")


# Topics whose answers require knowledge of the real world.
_OF_THE_REAL_WORLD = ("science", "trivia", "literature", "history")


def of_small_talk(found: Sequence[Dialogue]) -> list[Dialogue]:
    """Returns the dialogues that need no knowledge of the real world."""
    return [one for one in found if one.topic not in _OF_THE_REAL_WORLD]


def from_dialogues(found: Sequence[Dialogue]) -> tuple[list[Conversation], list[Conversation]]:
    """The dialogues for training and those held out, by a hash of the first turn.

    Dialogues that begin like one of our own about the model itself are left out: the corpus's are
    about a robot and a man in a mask.
    """
    own = {normal_form(asked) for asking, _ in ABOUT_ITSELF for asked in asking}
    train: list[Conversation] = []
    heldout: list[Conversation] = []
    for dialogue in found:
        first = normal_form(dialogue.turns[0])
        if first in own or _OF_A_ROBOT.search(" ".join(dialogue.turns)):
            continue
        is_out = split_hash(first) < find_set("chatterbot").heldout
        side = heldout if is_out and dialogue.topic not in _ALWAYS_TRAIN else train
        side.append(Conversation.of(dialogue.turns, "chatterbot", first))
    return train, heldout


_OF_A_ROBOT = re.compile(r"are you a robot|man in a mask|on the internet|project gutenberg", re.I)
