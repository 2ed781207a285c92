"""The pack `chitchat`: chats of two people, from which a model learns to be the second one.

The Chit-Chat Challenge (Brigham Young University 2018) paired students with strangers and gave them
an opening question, such as "What if pigs could fly?". The person who begins is the user here, the
other the assistant. The messages of one person before the other's reply form one turn, one message
per line: three in five messages have no final mark, so on one line they would run together, and
where people end a message is part of how they chat.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set
from groundup.data.packs.manifest import find_set
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.text.cleaning import split_hash, tidy
from groundup.text.rows import Conversation

NAME = "chitchat"
# A greeting and its reply are no conversation.
_MIN_TURNS = 4
# About 360 tokens: 93 % of all words fit into a context of 512.
_MAX_TURNS = 16
# The site split messages at 175 characters, at a space if there was one: the text after such a
# piece continues its sentence.
_CUT_FROM = 168
# Contact data: an e-mail address, a user name, a telephone number; and web addresses, which a model
# would start to make up.
_CONTACT = re.compile(
    r"\w@\w+\.\w|(?<!\w)@\w{3,}|\(?(?<!\d)\d{3}\)?[ .-]{0,2}\d{3}[ .-]?\d{4}(?!\d)"
    r"|https?://|\bwww\.\w|\w\.(?:com|org|net|edu|io)/"
)
# There was a prize for the most active participants. Some sent single letters, repeated messages,
# or random keystrokes.
_LONGEST_WORD = re.compile(r"\S{40}")
_MAX_LETTERS, _MAX_SAID_AGAIN = 0.1, 0.25


@dataclass(frozen=True)
class Chat:
    """Turns that alternate between two people, ending with the second's."""

    id: str
    turns: tuple[str, ...]


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    train, heldout = conversations(chats(rejected, progress))
    return Rows(conversations=train, conversations_heldout=heldout)


def chats(rejected: Rejected, progress: Progress = None) -> list[Chat]:
    """Chats with enough turns to learn from, without repeats, contact data and noise."""
    (text,) = read_set(NAME, progress).values()
    found: dict[tuple[str, ...], Chat] = {}
    for id, row in json.loads(text).items():
        messages = [message for turn in row["messages"] for message in turn]
        turns = _turns(messages)
        if (reason := _rejection_reason(messages, turns)) is not None:
            rejected.add(NAME, reason)
        elif turns in found:
            rejected.add(NAME, "repeats an earlier conversation")
        else:
            found[turns] = Chat(id, turns)
    return list(found.values())


def _turns(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Joins each person's messages until the other replies, and drops an unanswered end."""
    turns: list[str] = []
    speaker, before = None, ""
    for message in messages:
        said = tidy(message["text"]).replace("\n", " ")
        if not said:
            continue
        if message["sender"] == speaker:
            goes_on = len(before) >= _CUT_FROM and before[-1] not in ".!?"
            turns[-1] += (" " if goes_on else "\n") + said
        else:
            turns.append(said)
        speaker, before = message["sender"], said
    return tuple(turns[: len(turns) // 2 * 2])


def _rejection_reason(messages: Sequence[Mapping[str, Any]], turns: Sequence[str]) -> str | None:
    """Returns the reason why a conversation cannot be learned from, if there is one."""
    speakers = len({message["sender"] for message in messages})
    if speakers != 2:
        return f"{speakers} {'speaker' if speakers == 1 else 'speakers'}"
    if len(turns) < _MIN_TURNS:
        return f"fewer than {_MIN_TURNS} turns"
    said = [line for turn in turns for line in turn.split("\n")]
    if any(_CONTACT.search(line) for line in said):
        return "an address, a telephone number or a link"
    letters = sum(len(line) == 1 and line.isalpha() for line in said)
    again = len(said) - len({line.casefold() for line in said})
    if letters > _MAX_LETTERS * len(said) or again >= _MAX_SAID_AGAIN * len(said):
        return "the same again and again"
    return "garbled" if any(_LONGEST_WORD.search(line) for line in said) else None


def conversations(found: Sequence[Chat]) -> tuple[list[Conversation], list[Conversation]]:
    """The chats for training and those held out, by a hash of their id."""
    one = find_set(NAME)
    train: list[Conversation] = []
    heldout: list[Conversation] = []
    for chat in found:
        side = heldout if split_hash(chat.id) < one.heldout else train
        side += (Conversation.of(turns, NAME, chat.id) for turns in pieces(chat.turns))
    return train, heldout


def pieces(turns: Sequence[str]) -> list[Sequence[str]]:
    """Split a long chat into parts of similar length, each of whole exchanges.

    Some chats have hundreds of turns, of which a context would only contain the greetings.
    """
    exchanges = len(turns) // 2
    count = -(-len(turns) // _MAX_TURNS)
    bounds = [2 * (exchanges * part // count) for part in range(count + 1)]
    return [turns[start:end] for start, end in itertools.pairwise(bounds)]
