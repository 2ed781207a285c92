"""Prompts for reinforcement learning: from files or a data-stage folder to tokens.

Any row that asks something will do: prompts, conversations (all but their last answer) and
preferences (without their answers). A row's other fields go along, for
verifiers that compare with a right answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from groundup.data.records import read_conversations, read_preferences, read_prompts
from groundup.data.split import OWN_HELDOUT
from groundup.errors import UserError, shorten
from groundup.lm.logprobs import spread
from groundup.runs.console import say
from groundup.text.chat import encode_chat
from groundup.text.cleaning import split_hash
from groundup.text.rows import Message, PromptRow
from groundup.text.tokenizer import Tokenizer

# More than a run of a day answers; to encode them takes a few seconds.
_MOST = 20_000
_KINDS = ("conversations", "preferences")


@dataclass(frozen=True)
class Prompt:
    """What is to be answered: its tokens, up to where the answer begins, and where it is from.

    `row` are the other fields of its row, which a verifier may need: the right `answer`, `tests`.
    """

    ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    row: Mapping[str, object] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Asked:
    """What is to be answered, before a tokenizer has read it."""

    messages: tuple[Message, ...]
    row: Mapping[str, object] = field(default_factory=dict)
    source: str = ""


def load_prompts(
    path: Path, tokenizer: Tokenizer, *, longest: int, sources: Sequence[str] = ()
) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to train on and the held-out ones, each of at most `longest` tokens.

    `sources` are patterns of the sources that are taken, all if there are none. Of a file about
    every twentieth prompt is held out, by its hash. Longer prompts are left out and counted. Raises
    `UserError` where none is left.
    """
    if longest < 1:
        raise UserError(
            "max_new_tokens leave no room for a prompt in the model's context; give fewer"
        )
    sides = _stage(path) if path.is_dir() else _file(path)
    known = sorted({one.source for side in sides for one in side})
    if sources:
        sides = [[one for one in side if _matches(one.source, sources)] for side in sides]
        if not sides[0]:
            raise UserError(
                f"sources={' '.join(sources)} match no prompt of {path}; there are "
                f"{shorten(', '.join(known))}"
            )
    found = [encoded(spread(side, _MOST), tokenizer, longest) for side in sides]
    left_out = sum(many for _, many in found)
    if left_out:
        say(
            f"{left_out:,} prompts are left out, which have more than {longest:,} tokens or are "
            "refused by the chat template"
        )
    train, heldout = found[0][0], found[1][0]
    if not train:
        raise UserError(
            f"{path} holds no prompt of at most {longest:,} tokens; give shorter prompts, a larger "
            "--context or a smaller --max-new-tokens"
        )
    return train, heldout


def _matches(source: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(source, pattern) for pattern in patterns)


def encoded(asked: Iterable[Asked], tokenizer: Tokenizer, longest: int) -> tuple[list[Prompt], int]:
    """The prompts that are short enough and fit the chat template, and how many are not."""
    kept, left_out = [], 0
    for one in asked:
        try:
            ids = encode_chat(tokenizer, one.messages, generation_prompt=True).ids
        except UserError:
            ids = []
        if not 0 < len(ids) <= longest:
            left_out += 1
        else:
            kept.append(Prompt(tuple(ids), one.messages, one.row, one.source))
    return kept, left_out


def _stage(folder: Path) -> list[list[Asked]]:
    """Both sides of a data-stage folder: what its conversations and preferences ask."""
    sides = []
    for side in ("train", "heldout"):
        found: list[Asked] = []
        talks, pairs = (folder / kind / f"{side}.jsonl" for kind in _KINDS)
        if _holds(talks):
            found += [
                Asked(row.messages[:-1], {"answer": row.messages[-1].content}, row.source)
                for row in read_conversations(talks).rows
                if len(row.messages) > 1
            ]
        if _holds(pairs):
            found += [
                Asked(row.prompt, {"answer": row.chosen}, row.source)
                for row in read_preferences(pairs).rows
            ]
        sides.append(_new(found))
    if not sides[0]:
        raise UserError(
            f"{folder} holds neither conversations nor preferences; give the folder that groundup "
            "data build wrote, or a file of prompts"
        )
    return sides


def _holds(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _file(path: Path) -> list[list[Asked]]:
    records = read_prompts(path)
    for line in records.bad:
        say(str(line))
    found = _new(_of_row(row, path.name) for row in records.rows)
    hashes = [split_hash(repr(one.messages)) for one in found]
    train = [one for one, place in zip(found, hashes, strict=True) if place >= OWN_HELDOUT]
    heldout = [one for one, place in zip(found, hashes, strict=True) if place < OWN_HELDOUT]
    if train and heldout:
        return [train, heldout]
    say(f"{path} has too few prompts to hold any out: what is measured is what is trained on")
    return [found, found]


def _of_row(row: PromptRow, file: str) -> Asked:
    messages = row.messages or (Message("user", row.text or ""),)
    return Asked(messages, row.settings, str(row.settings.get("source", file)))


def _new(found: Iterable[Asked]) -> list[Asked]:
    """Each prompt once, the first of equal ones."""
    return list({one.messages: one for one in reversed(list(found))}.values())[::-1]
