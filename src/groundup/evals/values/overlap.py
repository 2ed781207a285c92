"""Overlap: was a model trained on the items that it is evaluated on?

Every text that its runs trained on is compared with every evaluated item in three ways:

    same      the same words, up to case and punctuation
    near      |a & b| / |a | b| >= 0.8, a and b all sequences of five words  (Jaccard, Broder 1997)
    13 words  13 words in a row in common, or all of an item of 5 to 12 words in a row
                                                             (Brown et al. 2020, appendix C)

A text is a turn of a conversation, an answer of a pair, a prompt, or a paragraph of a document. An
item is given by its texts that training could contain. Texts of fewer than five words are compared
in the first way only, because such short sequences occur in many texts by chance. Items that
training wraps in other words, such as `Question:` and an answer, are found in the third way.
The data stage removes from its training side what leaks into its own held-out side (data.leaks);
this module instead checks what was actually trained on, also against sets that stage never saw.
Nothing is known about models from elsewhere; training data of ours that can no longer be read is
reported.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from groundup.data.corpus import documents
from groundup.data.dataset import Reader, split_parts
from groundup.data.leaks import texts
from groundup.data.records import (
    Records,
    read_conversations,
    read_documents,
    read_preferences,
    read_prompts,
    read_unpaired_preferences,
)
from groundup.data.split import OWN_HELDOUT, split
from groundup.errors import UserError
from groundup.evals.contamination import called, kinds_of, prompt_only_sources, sets_of, sources_of
from groundup.report.history import History, lineage
from groundup.runs.cache import hub_source
from groundup.runs.console import say
from groundup.runs.content import content_hash
from groundup.text.cleaning import shingles, words
from groundup.text.rows import (
    Conversation,
    Document,
    Preference,
    PromptRow,
    TrainingRow,
    UnpairedPreference,
)

_SHORT, _LONG = 5, 13
_NEAR = 0.8
_READERS: Mapping[str, Callable[[Path], Records[Any]]] = {
    "documents": read_documents,
    "conversations": read_conversations,
    "preferences": read_preferences,
}
Row = Document | Conversation | Preference | UnpairedPreference | PromptRow
_Tuned = Callable[[str], Mapping[Path, Sequence[TrainingRow]]]


@dataclass(frozen=True)
class Overlap:
    """The number of a set's items found in training texts, and of items found by source."""

    set: str
    items: int
    same: int
    near: int
    grams: int
    found: int
    sources: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """What was checked: the number of texts, and their folders; `unknown` lists what was not."""

    texts: int
    folders: Sequence[str]
    unknown: Sequence[str]
    overlaps: Sequence[Overlap]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compared(trained: Trained, items: Mapping[str, Sequence[Sequence[str]]]) -> Checked:
    """Compare what the runs that led to a model trained on with the texts of each set's items."""
    counted = _Counted(trained.sources)
    found = overlaps(counted, items) if trained.sources else []
    read = [one for one in trained.sources if one not in counted.unread]
    unread = [
        f"{one.run} was trained on {one.kind} that cannot be read any more "
        f"({hub_source('datasets', one.path) or one.path.name})"
        for one in counted.unread
    ]
    folders = list(dict.fromkeys(str(one.path) for one in read))
    return Checked(counted.count, folders, [*trained.unknown, *unread], found if read else [])


class _Counted:
    """Iterates over all texts with their sources, counts them, and records unreadable sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources, self.count, self.unread = sources, 0, list[Source]()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for one in self.sources:
            try:
                rows = one.rows()
            except UserError as error:
                say(f"overlap: {error}")
                self.unread.append(one)
                continue
            for row in rows:
                source = _source(row, one.path)
                if any(fnmatch(source, pattern) for pattern in one.asked or ("*",)):
                    for text in _texts(row, asked=one.asked is not None):
                        self.count += 1
                        yield source, text


def _source(row: Row, path: Path) -> str:
    return str(row.settings.get("source", path.name)) if isinstance(row, PromptRow) else row.source


def _texts(row: Row, *, asked: bool) -> list[str]:
    """A row's texts, which are compared separately; with `asked`, those of its prompt only."""
    if isinstance(row, Document):
        return row.text.split("\n\n")
    if isinstance(row, PromptRow):
        return [row.text] if row.text is not None else [turn.content for turn in row.messages]
    if asked:
        turns = row.messages[:-1] if isinstance(row, Conversation) else row.prompt
        return [turn.content for turn in turns]
    if isinstance(row, UnpairedPreference):
        return [*(turn.content for turn in row.prompt), row.completion]
    return texts(row)


# Training data.


@dataclass(frozen=True)
class Source:
    """Rows that a run trained on: a data folder's file of one `kind`, or a user's file or folder.

    If `asked` is given, only prompts were read, and only of sources that match these patterns.
    `rows` reads the rows and raises `UserError` if it cannot.
    """

    run: str
    path: Path
    kind: str
    asked: tuple[str, ...] | None
    rows: Callable[[], Sequence[Row]] = field(compare=False)

    def sha256(self) -> str | None:
        """The hash of the file or folder; None if it is gone."""
        if not self.path.exists():
            return None
        return content_hash(self.path)

    def to_json(self) -> dict[str, Any]:
        """Everything that its texts depend on."""
        return {
            "run": self.run,
            "path": str(self.path),
            "kind": self.kind,
            "asked": None if self.asked is None else list(self.asked),
            "sha256": self.sha256(),
        }


@dataclass(frozen=True)
class Trained:
    """What the runs that led to a model trained on, and what is not known about that."""

    sources: Sequence[Source]
    unknown: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Everything that the comparison depends on."""
        return {
            "sources": [one.to_json() for one in self.sources],
            "unknown": list(self.unknown),
        }


def trained_on(model: Path) -> Trained:
    """The training data of a model's lineage, each source once, and every run's unknown data."""
    known: dict[tuple[Path, str, tuple[str, ...] | None], Source] = {}
    unknown = []
    histories = lineage(model)
    if not histories:
        unknown.append(f"{model.name} comes from elsewhere: what it was trained on is not known")
    elif (first := histories[0].parent) is not None:
        unknown.append(
            f"{called(histories[0])} began from {first.name}, which comes from elsewhere: what "
            "that was trained on is not known"
        )
    for history in histories:
        run, named, sets = called(history), list(sources_of(history)), sets_of(history)
        tuned = functools.cache(functools.partial(_tuned, history))
        for name, path in named:
            found = _sources(history, name, path, tuned)
            for one in found:
                known.setdefault((one.path.resolve(), one.kind, one.asked), one)
            if not found:
                why = "was not compared" if path.exists() else "is gone"
                source = hub_source("datasets", path) or path.name
                unknown.append(f"{run} was trained on {source}, which {why}")
        unknown += [f"{run} was trained on {one}, which was not compared" for one in sets]
        if not named and not sets:
            unknown.append(f"{run} does not name what it was trained on")
    return Trained(list(known.values()), unknown)


def _sources(history: History, name: str, path: Path, tuned: _Tuned) -> list[Source]:
    """What a run reads of a parent with this name; empty if it is gone."""
    run, what, asked = called(history), name.split(" ")[0], prompt_only_sources(history, name)
    if any(_file(path, kind).is_file() for kind in _READERS):
        kinds = kinds_of(history, name)
        talks = _file(path, "conversations")
        if kinds == ("conversations",) and not (talks.is_file() and talks.stat().st_size):
            kinds = ("documents",)  # fine-tuning reads these if there are no conversations
        # A kind listed twice: its prompts are used and, with ptx, its answers are trained on.
        return [
            Source(
                run,
                _file(path, kind),
                kind,
                asked if kinds.count(kind) == 1 else None,
                functools.partial(_rows, _file(path, kind), kind),
            )
            for kind in dict.fromkeys(kinds)
            if _file(path, kind).is_file()
        ]
    read = _reader(history, what, tuned)
    if not path.exists() or read is None:
        return []
    return [Source(run, path, history.reads or what, asked, lambda: read(path))]


def _file(folder: Path, kind: str) -> Path:
    return folder / kind / "train.jsonl"


def _rows(file: Path, kind: str) -> Sequence[Row]:
    """The rows of a data folder's file, which is empty if its sets have no such rows."""
    return _READERS[kind](file).rows if file.stat().st_size else ()


def _reader(history: History, what: str, tuned: _Tuned) -> Callable[[Path], Sequence[Row]] | None:
    """A function that reads a user's file or folder as the run did; None if the run reads it in its
    own way. Of prompts, the few that a run holds out are read as well."""
    if what == "prompts":
        return lambda path: read_prompts(path, answered=True).rows
    if history.reads == "conversations" or what in ("replay", "ptx"):
        return lambda path: tuned(what)[path]
    if history.reads == "documents":
        return lambda path: documents(path).train
    if history.reads == "preferences":
        return _preferred
    return None


def _preferred(path: Path) -> Sequence[Preference | UnpairedPreference]:
    """Pairs and votes or, if the file has none, labeled answers."""
    try:
        return split(path, "preferences", read_preferences)[0].rows
    except UserError:
        return split(path, "preferences", read_unpaired_preferences)[0].rows


def _tuned(history: History, what: str) -> dict[Path, Sequence[TrainingRow]]:
    """What fine-tuning reads of all sources with this name, without what it holds out.

    It holds out of its data as a whole, and so for ptx, but of each replay source separately.
    """
    named = [path for name, path in sources_of(history) if name.split(" ")[0] == what]
    paths = list(dict.fromkeys(path for path in named if path.exists()))
    columns, validation = dict[str, str](), OWN_HELDOUT
    if what == "data":
        config = history.run["config"]
        columns = dict(str(one).partition("=")[::2] for one in config.get("columns") or ())
        validation = config.get("validation")
    parts = [Reader(columns, False).read(str(path)) for path in paths]
    together = [[part] for part in parts] if what == "replay" else [parts]
    sides = [one for some in together for one in split_parts(some, validation)]
    return dict(zip(paths, (one.train for one in sides), strict=True))


# Comparison.


def overlaps(
    trained: Iterable[tuple[str, str]], items: Mapping[str, Sequence[Sequence[str]]]
) -> list[Overlap]:
    """Find the items of each set in texts, which are given as pairs of source and text.

    An item is found if any of its texts is.
    """
    index = _Index.of([(name, own) for name, of_set in items.items() for own in of_set])
    for source, text in trained:
        index.look(source, text)
    return [index.overlap(name) for name in items]


@dataclass
class _Index:
    """The items' texts by their words and by hashes of five consecutive words, and the findings for
    each item. `owners` maps a text to its item, and `sets` an item to its set. A text is found by
    any of its `grams`, hashes of as many consecutive words as its entry in `sizes`."""

    sets: Sequence[str]
    owners: Sequence[int]
    parts: Sequence[UInt64[np.ndarray, " _"]]
    sizes: Sequence[int]
    grams: Sequence[frozenset[int]]
    by_words: Mapping[str, Sequence[int]]
    hashes: UInt64[np.ndarray, " m"]
    holders: Mapping[int, Sequence[int]]
    same: dict[int, set[str]]
    near: dict[int, set[str]]
    long: dict[int, set[str]]

    @classmethod
    def of(cls, items: Sequence[tuple[str, Sequence[str]]]) -> _Index:
        said = [words(text) for _, own in items for text in own]
        parts = [np.unique(shingles(one, _SHORT)) for one in said]
        sizes = [min(len(one), _LONG) for one in said]
        by_words: dict[str, list[int]] = defaultdict(list)
        holders: dict[int, list[int]] = defaultdict(list)
        for place, (one, part) in enumerate(zip(said, parts, strict=True)):
            if one:
                by_words[" ".join(one)].append(place)
            for value in part.tolist():
                holders[value].append(place)
        return cls(
            [name for name, _ in items],
            [item for item, (_, own) in enumerate(items) for _ in own],
            parts,
            sizes,
            [_grams(one, size) for one, size in zip(said, sizes, strict=True)],
            by_words,
            np.unique(np.concatenate([np.empty(0, np.uint64), *parts])),
            holders,
            defaultdict(set),
            defaultdict(set),
            defaultdict(set),
        )

    def look(self, source: str, text: str) -> None:
        """Compare one text with all items."""
        said = words(text)
        for place in self.by_words.get(" ".join(said), ()):
            self.same[self.owners[place]].add(source)
        own = shingles(said, _SHORT)
        # Texts that are nearly the same, or share 13 words in a row, share five: few texts do.
        if not own.size or not self.hashes.size:
            return
        nearest = np.minimum(np.searchsorted(self.hashes, own), self.hashes.size - 1)
        shared = np.unique(own[self.hashes[nearest] == own]).tolist()
        if not shared:
            return
        meeting = Counter(place for value in shared for place in self.holders[value])
        size = np.unique(own).size
        grams = functools.cache(functools.partial(_grams, said))
        for place, common in meeting.items():
            if common >= _NEAR * (size + self.parts[place].size - common):
                self.near[self.owners[place]].add(source)
            if not self.grams[place].isdisjoint(grams(self.sizes[place])):
                self.long[self.owners[place]].add(source)

    def overlap(self, name: str) -> Overlap:
        members = [item for item, of in enumerate(self.sets) if of == name]
        same, near, long = (
            {item: of_kind[item] for item in members if item in of_kind}
            for of_kind in (self.same, self.near, self.long)
        )
        sources = Counter[str]()
        found = 0
        for item in members:
            where = same.get(item, set()) | near.get(item, set()) | long.get(item, set())
            sources.update(where)
            found += bool(where)
        counts = len(same), len(near), len(long), found
        return Overlap(name, len(members), *counts, dict(sorted(sources.items())))


def _grams(said: Sequence[str], size: int) -> frozenset[int]:
    """The hashes of all sequences of `size` words."""
    return frozenset(shingles(said, size).tolist())
