"""Overlap: has a model trained on what it is evaluated on?

Three questions, put to every text that its runs trained on against every evaluated item:

    same      the same words, up to case and punctuation
    near      |a & b| / |a | b| >= 0.8, a and b all five words in a row      (Jaccard, Broder 1997)
    13 words  13 words in a row in common                    (Brown et al. 2020, appendix C)

A text is a turn of a conversation, an answer of a pair, or a paragraph of a document. An item of
fewer than five words is found by the first question alone, one of fewer than 13 by the first two.
The data stage takes out of its training side what leaks into its own held-out side (data.leaks);
this looks from the other end, at what was in fact trained on and at sets that stage never saw.
Of a model from elsewhere nothing is known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from groundup.data.leaks import texts
from groundup.data.records import Records, read_conversations, read_documents, read_preferences
from groundup.report.history import History, lineage
from groundup.text.cleaning import shingles, words
from groundup.text.rows import Document

_SHORT, _LONG = 5, 13
_NEAR = 0.8
_READERS: Mapping[str, Callable[[Path], Records[Any]]] = {
    "documents": read_documents,
    "conversations": read_conversations,
    "preferences": read_preferences,
}


@dataclass(frozen=True)
class Overlap:
    """How many items of a set are found in training texts, and in which sources, by items."""

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
    """What was checked: so many texts of these data folders; `unknown` says what could not be."""

    texts: int
    folders: Sequence[str]
    unknown: Sequence[str]
    overlaps: Sequence[Overlap]

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        return found | {"overlaps": [one.to_json() for one in self.overlaps]}


def of_model(model: Path, items: Mapping[str, Sequence[str]]) -> Checked:
    """What the runs that led to a model trained on, against the evaluated items of each set."""
    known, unknown = _data_folders(model)
    counted = _Counted(texts_of_folders(known))
    found = overlaps(counted, items) if known else []
    return Checked(counted.count, [str(path) for path, _ in known], unknown, found)


class _Counted:
    """Passes on what it is given and counts it."""

    def __init__(self, given: Iterable[tuple[str, str]]) -> None:
        self.given, self.count = given, 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for one in self.given:
            self.count += 1
            yield one


# What was trained on.


def _data_folders(model: Path) -> tuple[list[tuple[Path, tuple[str, ...]]], list[str]]:
    """The data folders that a model's runs read with the kinds of rows, and what is not known."""
    known: dict[tuple[Path, tuple[str, ...]], None] = {}
    unknown = []
    histories = lineage(model)
    if not histories:
        unknown.append(f"{model.name} comes from elsewhere: what it was trained on is not known")
    for history in histories:
        for name, described in history.run["parents"].items():
            if name.startswith(("data", "replay")):
                path = history.beside(described["path"])
                if any((path / kind / "train.jsonl").is_file() for kind in _READERS):
                    known[path.resolve(), _kinds(history)] = None
                else:
                    unknown.append(f"{history.folder.name} was trained on {path}, which is gone")
    return list(known), unknown


def _kinds(history: History) -> tuple[str, ...]:
    reads = history.reads
    return (reads,) if reads is not None and reads in _READERS else tuple(_READERS)


def texts_of_folders(
    folders: Sequence[tuple[Path, tuple[str, ...]]],
) -> Iterator[tuple[str, str]]:
    """Source and text of everything in the training side of data folders."""
    for kind, read in _READERS.items():
        for folder in dict.fromkeys(path for path, kinds in folders if kind in kinds):
            path = folder / kind / "train.jsonl"
            # A data stage leaves an empty file where its sets have no such rows.
            if path.is_file() and path.stat().st_size:
                for row in read(path).rows:
                    parts = row.text.split("\n\n") if isinstance(row, Document) else texts(row)
                    yield from ((row.source, part) for part in parts)


# The comparison.


def overlaps(
    trained: Iterable[tuple[str, str]], items: Mapping[str, Sequence[str]]
) -> list[Overlap]:
    """Which items of each set stand in texts, given as pairs of their source and themselves."""
    index = _Index.of([(name, text) for name, of_set in items.items() for text in of_set])
    for source, text in trained:
        index.look(source, text)
    return [index.overlap(name) for name in items]


@dataclass
class _Index:
    """The items by their words, and by the hashes of five in a row; what was found of each."""

    sets: Sequence[str]
    parts: Sequence[UInt64[np.ndarray, " _"]]
    grams: Sequence[frozenset[int]]
    by_words: Mapping[str, Sequence[int]]
    hashes: UInt64[np.ndarray, " m"]
    holders: Mapping[int, Sequence[int]]
    same: dict[int, set[str]]
    near: dict[int, set[str]]
    long: dict[int, set[str]]

    @classmethod
    def of(cls, items: Sequence[tuple[str, str]]) -> _Index:
        said = [words(text) for _, text in items]
        parts = [np.unique(shingles(one, _SHORT)) for one in said]
        by_words: dict[str, list[int]] = defaultdict(list)
        holders: dict[int, list[int]] = defaultdict(list)
        for place, (one, part) in enumerate(zip(said, parts, strict=True)):
            by_words[" ".join(one)].append(place)
            for value in part.tolist():
                holders[value].append(place)
        return cls(
            [name for name, _ in items],
            parts,
            [frozenset(shingles(one, _LONG).tolist()) for one in said],
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
            self.same[place].add(source)
        own = shingles(said, _SHORT)
        # What shares 13 words in a row, or is nearly the same, shares five: few texts do.
        if not own.size or not self.hashes.size:
            return
        nearest = np.minimum(np.searchsorted(self.hashes, own), self.hashes.size - 1)
        shared = np.unique(own[self.hashes[nearest] == own]).tolist()
        if not shared:
            return
        meeting = Counter(place for value in shared for place in self.holders[value])
        size = np.unique(own).size
        long = frozenset(shingles(said, _LONG).tolist())
        for place, common in meeting.items():
            if common >= _NEAR * (size + self.parts[place].size - common):
                self.near[place].add(source)
            if long & self.grams[place]:
                self.long[place].add(source)

    def overlap(self, name: str) -> Overlap:
        places = [place for place, of in enumerate(self.sets) if of == name]
        same, near, long = (
            {place: of_kind[place] for place in places if place in of_kind}
            for of_kind in (self.same, self.near, self.long)
        )
        sources = Counter[str]()
        found = 0
        for place in places:
            where = same.get(place, set()) | near.get(place, set()) | long.get(place, set())
            sources.update(where)
            found += bool(where)
        return Overlap(
            name, len(places), len(same), len(near), len(long), found, dict(sorted(sources.items()))
        )
