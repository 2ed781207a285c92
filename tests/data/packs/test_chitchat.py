"""The chat pack: complete turns, alternating speakers, and no other messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from groundup.data.packs import chitchat
from groundup.data.packs.fetch import read_set
from groundup.data.packs.rows import Rejected

REJECTED = Rejected()
# Parts of chats; a few of those that train quote what is held out, and are left out at the end.
TRAIN, HELDOUT = 8430, 1037


@pytest.fixture(scope="module")
def found() -> list[chitchat.Chat]:
    return chitchat.chats(REJECTED)


@pytest.fixture(scope="module")
def raw() -> dict[str, list[tuple[str, str]]]:
    """Every conversation as (sender, text), parsed independently here."""
    (text,) = read_set("chitchat").values()
    return {
        id: [(message["sender"], message["text"]) for turn in row["messages"] for message in turn]
        for id, row in json.loads(text).items()
    }


def test_rejected_messages_are_counted(
    found: list[chitchat.Chat], raw: dict[str, list[tuple[str, str]]]
) -> None:
    assert len(raw) == 7168 == len(found) + sum(REJECTED.counts.values()) and len(found) > 3000
    alone = sum(len({sender for sender, _ in messages}) == 1 for messages in raw.values())
    assert REJECTED.counts["chitchat: 1 speaker"] == alone == 3150
    assert sum("link" in reason for reason in REJECTED.counts) == 1


def test_a_turn_joins_all_messages_of_a_speaker(
    found: list[chitchat.Chat], raw: dict[str, list[tuple[str, str]]]
) -> None:
    def letters(text: str) -> str:
        return "".join(text.split())

    for chat in found:
        assert len(chat.turns) >= 4 and len(chat.turns) % 2 == 0
        assert all(turn == turn.strip() and "\n\n" not in turn for turn in chat.turns)
        sides = ["", ""]
        for place, turn in enumerate(chat.turns):
            sides[place % 2] += letters(turn)
        first = raw[chat.id][0][0]
        of_first = "".join(letters(text) for sender, text in raw[chat.id] if sender == first)
        of_second = "".join(letters(text) for sender, text in raw[chat.id] if sender != first)
        # Unanswered messages are left out, which only the first speaker can have written.
        assert of_first.startswith(sides[0]) and of_second == sides[1]


def test_contact_details_are_removed(found: list[chitchat.Chat]) -> None:
    said = "\n".join(turn for chat in found for turn in chat.turns)
    for sought in (
        r"\w@\w+\.",
        r"(^|\s)@\w{3}",
        r"\d{3}[ )-]+\d{3}[ -]\d{4}",
        "https?:",
        r"\.com/",
    ):
        assert not re.search(sought, said), sought


def test_conversations_do_not_repeat_one_line(found: list[chitchat.Chat]) -> None:
    for chat in found:
        lines = [line.lower() for turn in chat.turns for line in turn.split("\n")]
        (_, often), *_ = Counter(lines).most_common(1)
        assert often <= max(2, 0.3 * len(lines)), chat.id


def test_a_message_with_a_line_break_is_joined() -> None:
    cut, whole = "word " * 34 + "and", "word " * 34 + "and."
    messages = [
        {"sender": "1", "text": f" {cut}"},
        {"sender": "1", "text": "so on"},
        {"sender": "1", "text": " \t"},
        {"sender": "1", "text": "Done"},
        {"sender": "2", "text": whole},
        {"sender": "2", "text": "New"},
        {"sender": "1", "text": "nobody answered this"},
    ]
    assert chitchat._turns(messages) == (f"{cut} so on\nDone", f"{whole}\nNew")


def test_the_split_is_by_conversation_and_stable(found: list[chitchat.Chat]) -> None:
    train, heldout = chitchat.conversations(found)
    assert {row.group for row in train}.isdisjoint(row.group for row in heldout)
    chats = [len({row.group for row in side}) for side in (train, heldout)]
    assert chats == [2852, 327] and sum(chats) == len(found)
    assert (len(train), len(heldout)) == (TRAIN, HELDOUT)
    again = chitchat.conversations(found[::-1])
    assert {row.group for row in again[1]} == {row.group for row in heldout}


def test_long_chats_are_cut_into_parts_of_similar_length(found: list[chitchat.Chat]) -> None:
    assert max(len(chat.turns) for chat in found) > 500
    for chat in found:
        parts = chitchat.pieces(chat.turns)
        assert [turn for part in parts for turn in part] == list(chat.turns)
        sizes = [len(part) for part in parts]
        assert all(size % 2 == 0 and 4 <= size <= 16 for size in sizes)
        assert max(sizes) - min(sizes) <= 2 and (len(parts) > 1) == (len(chat.turns) > 16)


READ = """
from groundup.data.dataset import load_dataset
found = load_dataset(["pack:chitchat"])
rows = found.train + found.heldout
assert {row.source for row in rows} == {"chitchat"} and not found.bad and not found.duplicates
for row in rows:
    roles = [message.role for message in row.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
print(len(found.train), len(found.heldout))
"""


@pytest.mark.long
def test_its_file_can_be_trained_on_as_own_data() -> None:
    """In a separate process, where no types are checked and leaks are found fast.

    The data stage finds the same leaks in it (test_build.py), and test_dataset.py loads a pack.
    """
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A few training chats quote what is held out.
    train, heldout = map(int, done.stdout.split()[-2:])
    assert 0.99 * TRAIN < train < TRAIN and heldout == HELDOUT
