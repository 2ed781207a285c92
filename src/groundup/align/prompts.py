"""Prompts for reinforcement learning: from files, the hub or a data-stage folder to tokens.

Rows may be prompts, conversations (all but their last answer) or preferences (without their
answers). A row's other fields are kept for verifiers that compare with a correct answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeGuard, TypeVar

from groundup.align.rewards.verifiers import unjudged
from groundup.data.config import Columns
from groundup.data.fields import label, opening
from groundup.data.files import rows_of
from groundup.data.records import good_rows, read_conversations, read_preferences, read_prompts
from groundup.data.split import (
    OWN_HELDOUT,
    data_files,
    evenly_spaced,
    held_out_groups,
    is_data_stage,
    on_disk,
)
from groundup.errors import UserError, shorten
from groundup.runs.console import counted, say
from groundup.text.chat import encode_chats, template_of
from groundup.text.pretokens import valid_unicode
from groundup.text.rows import BadRow, Json, Message, PromptRow
from groundup.text.tokenizer import Tokenizer

# More than a run of a day answers; encoding them takes a few seconds.
_MAX = 20_000
_KINDS = ("conversations", "preferences")


@dataclass(frozen=True)
class Prompt:
    """A prompt: its tokens up to where the answer begins, and where it is from.

    `row` holds the other fields of its row, which a verifier may need: the correct `answer`,
    `tests`. `group` is shared with related prompts; without one, the prompt is its own group.
    """

    ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    row: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    group: str = ""


@dataclass(frozen=True)
class Asked:
    """A prompt that is not tokenized yet."""

    messages: tuple[Message, ...]
    row: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    group: str = ""


P = TypeVar("P", "_Row", Prompt)


def load_prompts(
    path: Path,
    tokenizer: Tokenizer,
    *,
    longest: int,
    sources: Sequence[str] = (),
    mixture: Mapping[str, float] | None = None,
    rewards: Sequence[str | None] = (),
    columns: Mapping[str, str] = {},
) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to train on and the held-out ones, each of at most `longest` tokens.

    `path` is a data-stage folder, a file, a folder of files, or hub:owner/name; `columns` maps our
    names of a file's columns to its own.
    `sources` are patterns of the sources to use (default: all); each must match one. Of too many
    prompts some are taken, by `mixture` as in `mixed`. About a twentieth of a file's groups, at
    least one, is held out by hash, unless the names of a folder's files say what is held out;
    prompts without a group are grouped by their opening text.
    Prompts that are too long, or to which one of `rewards` can judge no answer, are left out and
    counted. Raises `UserError` if none is left.
    """
    if longest < 1:
        raise UserError(
            "--max-new-tokens leaves no room for a prompt in the model's context; give fewer"
        )
    template_of(tokenizer)  # without a template, all would seem too long or refused
    if is_data_stage(folder := on_disk(path)):
        Columns(columns).check()  # its rows have our names
        sides = _from_stage(folder)
    else:
        sides = _from_files(path, columns)
    known = sorted({one.source for side in sides for one in side})
    if sources:
        taken = {name for name in known if any(fnmatch(name, one) for one in sources)}
        sides = [[one for one in side if one.source in taken] for side in sides]
        idle = [one for one in sources if not any(fnmatch(name, one) for name in known)]
        if idle or not sides[0]:
            raise UserError(
                f"sources={' '.join(idle or sources)} match no prompt of {path}; there are "
                f"{shorten(', '.join(known))}"
            )
    for reward in dict.fromkeys(filter(None, rewards)):
        sides = _judgeable(sides, reward)
    chosen = [mixed(sides[0], _MAX, mixture or {}), evenly_spaced(sides[1], _MAX)]
    found = [encoded([one.asked() for one in side], tokenizer, longest) for side in chosen]
    left_out = sum(many for _, many in found)
    if left_out:
        say(
            f"{counted(left_out, 'prompt')} left out: longer than {longest:,} tokens, or refused "
            "by the chat template"
        )
    train, heldout = found[0][0], found[1][0]
    if not train:
        raise UserError(
            f"{path} holds no prompt of at most {longest:,} tokens; give shorter prompts, a larger "
            "--context or a smaller --max-new-tokens"
        )
    return train, heldout


def _judgeable(sides: Sequence[Sequence[_Row]], reward: str) -> list[list[_Row]]:
    """The rows whose answers a verifier can judge.

    Otherwise the first of the others to be sampled would end a run, after however many hours.
    """
    found = [[(one, unjudged(reward, _last_text(one), one.rest)) for one in side] for side in sides]
    faults = [why for side in found for _, why in side if why is not None]
    kept = [[one for one, why in side if why is None] for side in found]
    if faults and not kept[0]:
        raise faults[0]
    if faults:
        say(f"{counted(len(faults), 'prompt')} left out that cannot be judged: {faults[0]}")
    return kept


def mixed(prompts: Sequence[P], most: int, mixture: Mapping[str, float]) -> list[P]:
    """At most `most` prompts, spread over all there are, with fixed shares for some sources.

    Raises `UserError` if the mixture names a source without prompts.
    """
    rest, taken = list(enumerate(prompts)), list[tuple[int, P]]()
    for name, share in mixture.items():
        own = [one for one in rest if fnmatch(one[1].source, name)]
        if not own:
            raise without_prompt("mixture", name, prompts)
        rest = [one for one in rest if not fnmatch(one[1].source, name)]
        taken += evenly_spaced(own, min(round(share * most), most - len(taken)))
    taken += evenly_spaced(rest, most - len(taken))
    return [one for _, one in sorted(taken, key=lambda one: one[0])]


def without_prompt(setting: str, name: str, prompts: Sequence[P]) -> UserError:
    """The error for a setting that names a source without prompts."""
    known = shorten(", ".join(sorted({one.source for one in prompts})))
    return UserError(f"{setting} names {name}, which has no prompt; there are {known}")


def encoded(asked: Iterable[Asked], tokenizer: Tokenizer, longest: int) -> tuple[list[Prompt], int]:
    """The prompts that are short enough and fit the chat template, and the number of others."""
    asked, kept, left_out = list(asked), [], 0
    messages = [one.messages for one in asked]
    found = encode_chats(tokenizer, messages, generation_prompt=True)
    for one, tokens in zip(asked, found, strict=True):
        ids = [] if isinstance(tokens, UserError) else tokens.ids
        if not 0 < len(ids) <= longest:
            left_out += 1
        else:
            kept.append(Prompt(tuple(ids), one.messages, one.row, one.source, one.group))
    return kept, left_out


def _last_text(row: _Row) -> str:
    return row.turns[-1][1] if row.turns else ""


# The rows to choose from. A data stage holds far more than a run asks, so its rows become messages
# only when they are chosen.

# The roles and texts of a prompt's messages; messages with tools or tool calls have every field.
Turns = tuple[tuple[str, str] | tuple[str, str, int, int, str, str], ...]


class _Row(NamedTuple):
    """A row with a prompt: the prompt's turns, its other fields, its source and group."""

    turns: Turns
    rest: Mapping[str, object]
    source: str
    group: str

    def asked(self) -> Asked:
        messages = tuple(Message(*turn) for turn in self.turns)
        return Asked(messages, self.rest, self.source, self.group)


def has_sides(path: Path) -> bool:
    """Whether these prompts come with a held-out side: a data stage's, or files named so."""
    folder = on_disk(path)
    return is_data_stage(folder) or bool(data_files(folder, str(path)).heldout)


def _from_stage(folder: Path) -> list[list[_Row]]:
    """Both sides of a data-stage folder: the prompts of its conversations and preferences."""
    sides = []
    for side in ("train", "heldout"):
        talks, pairs = (folder / kind / f"{side}.jsonl" for kind in _KINDS)
        found = _rows(talks, _of_conversation, _read_conversations) if _has_rows(talks) else []
        found += _rows(pairs, _of_preference, _read_preferences) if _has_rows(pairs) else []
        sides.append(_distinct(found))
    if not sides[0]:
        raise UserError(
            f"{folder} holds neither conversations nor preferences; give the folder that groundup "
            "data build wrote, or a file of prompts"
        )
    return sides


def _rows(
    path: Path, plain: Callable[[Json, str], _Row | None], read: Callable[[Path], list[_Row]]
) -> list[_Row]:
    """The rows of a file: directly if all are as groundup writes them, else by its reader."""
    found: list[_Row] = []
    for _, row in rows_of(path):
        one = None if isinstance(row, BadRow) else plain(row, path.stem)
        if one is None:
            return read(path)
        found.append(one)
    return found


def _read_conversations(path: Path) -> list[_Row]:
    """The prompts of any file of conversations: all but the last answer."""
    return [
        _Row(_turns(row.messages[:-1]), {"answer": row.messages[-1].content}, row.source, row.group)
        for row in good_rows(read_conversations(path))
        if len(row.messages) > 1
    ]


def _read_preferences(path: Path) -> list[_Row]:
    """The prompts of any file of preferences."""
    return [
        _Row(_turns(row.prompt), {"answer": row.chosen}, row.source, row.group)
        for row in good_rows(read_preferences(path))
    ]


def _turns(messages: Iterable[Message]) -> Turns:
    return tuple(
        (one.role, one.content, one.weight, one.calls_at_end, one.tools, one.call_ids)
        if one.calls_at_end or one.tools or one.call_ids
        else (one.role, one.content)
        for one in messages
    )


def _of_conversation(row: Json, file: str) -> _Row | None:
    if row.keys() - {"messages", "source", "group"}:
        return None
    turns, source = _plain_turns(row.get("messages")), row.get("source", file)
    if turns is None or turns[-1][0] != "assistant" or not _is_plain(source):
        return None
    return _Row(turns[:-1], {"answer": turns[-1][1]}, source, _group(row, turns))


def _of_preference(row: Json, file: str) -> _Row | None:
    if row.keys() - {"prompt", "chosen", "rejected", "source", "group"}:
        return None
    turns, source = _plain_turns(row.get("prompt")), row.get("source", file)
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if turns is None or turns[-1][0] != "user" or chosen == rejected:
        return None
    if not (_is_plain(source) and _is_plain(chosen) and _is_plain(rejected)):
        return None
    return _Row(turns, {"answer": chosen}, source, _group(row, turns))


def _group(row: Json, turns: Turns) -> str:
    return label(row, "group", "") or opening(tuple(Message(*turn) for turn in turns))


def _plain_turns(messages: object) -> Turns | None:
    """Alternating user and assistant turns, perhaps after a system message; or None."""
    if not isinstance(messages, list) or not messages:
        return None
    found = []
    expected = "user"
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            return None
        role, content = message["role"], message["content"]
        if role == expected:
            expected = "assistant" if role == "user" else "user"
        elif role != "system" or place:
            return None
        if not _is_plain(content):
            return None
        found.append((role, content))
    return tuple(found) if len(found) > 1 or expected == "assistant" else None


def _is_plain(value: object) -> TypeGuard[str]:
    """Whether it is a text that is not blank, without half a surrogate pair."""
    if not isinstance(value, str) or not value or value.isspace():
        return False
    return value == valid_unicode(value)


def _has_rows(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _from_files(path: Path, columns: Mapping[str, str]) -> list[list[_Row]]:
    files, names = data_files(on_disk(path), str(path)), Columns(columns)
    if files.remark:
        say(files.remark)
    rows, heldout = (
        [
            _of_row(row, file.name)
            for file in side
            for row in good_rows(read_prompts(file, answered=True, rename=names))
        ]
        for side in (files.train, files.heldout)
    )
    names.check()
    found = _distinct(rows)
    if files.heldout:
        apart = _distinct(heldout)
        known_turns = {one.turns for one in apart}
        return [[one for one in found if one.turns not in known_turns], apart]
    groups = [one.group for one in found]
    known = set(groups)
    # The groups of the whole file count: stages that read its pairs hold the same ones out.
    sizes = [one.group for one in rows if one.group in known]
    if len(known) < 2:
        sizes = groups = [repr(one.turns) for one in found]  # then every prompt is its own group
    out = held_out_groups(sizes, OWN_HELDOUT)
    if not out:
        say(f"{path} has one prompt and none to hold out: measures are of the training prompt")
        return [found, found]
    sides = [(one, group in out) for one, group in zip(found, groups, strict=True)]
    return [[one for one, is_out in sides if is_out == held] for held in (False, True)]


def _of_row(row: PromptRow, file: str) -> _Row:
    turns = _turns(row.asked)
    source = str(row.settings.get("source", file))
    return _Row(turns, row.settings, source, _group(row.settings, turns))


def _distinct(found: Iterable[_Row]) -> list[_Row]:
    """Each prompt once, the first of equal ones."""
    return list({one.turns: one for one in reversed(list(found))}.values())[::-1]
