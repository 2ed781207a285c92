"""Data of one's own, to fine-tune on: read from wherever it lies, and split.

    talks.jsonl, talks.csv, talks.parquet     conversations in any known layout, or {text} documents
    notes.txt, notes.md                       documents, cut at blank lines
    folder                                    all such files in it
    runs/data                                 the folder of a data stage: its conversations
    pack:chitchat                             a data set of the Python package index
    hub:owner/name                            a data set of Hugging Face's hub

What comes with a split keeps it: a data stage's folder, a pack, and a folder whose files are called
train, validation and test, as the hub's are. All else is split by hash, and rows that say the same
again are taken out of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from groundup.data.layouts import check_columns
from groundup.data.locations import HUB, PACK, SUFFIXES, Part, Reader, Row, is_stage
from groundup.data.packs.manifest import GeneratedSet, find_set, generated_set
from groundup.data.records import OWN_HELDOUT
from groundup.data.split import content, hold_out
from groundup.errors import UserError
from groundup.text.rows import BadLine

# Of fewer rows than this a twentieth is too few to judge by, and each may be a fact that nothing
# else says: all are trained on.
LEAST_TO_SPLIT = 200


@dataclass(frozen=True)
class OwnData:
    """The two sides, the lines that were set aside, and how many rows said the same again."""

    train: tuple[Row, ...]
    heldout: tuple[Row, ...]
    bad: tuple[BadLine, ...]
    duplicates: int
    # The share that was held out by hash, where no split came with the data.
    share: float = 0.0


def read_own(
    sources: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    validation: float | None = OWN_HELDOUT,
    refuse: bool = True,
) -> OwnData:
    """The conversations and documents of all `sources`, about `validation` of them held out.

    `columns` maps our names of columns to those of the files. Each row's `source` is one name for
    each source given, its file's or folder's; a data stage's folder and a generated set keep the
    names of their parts. Two answers to one question (or of one `group`) are on one side.
    Validation 0 holds nothing out but what comes held out, None nothing of fewer than
    `LEAST_TO_SPLIT` rows. With `refuse` False files are read to be looked at, however many of their
    lines are bad.

    Raises UserError: a source that is not there, cannot be read or holds nothing to train on, an
    unknown layout, a column that no file has, more than a tenth of a file's lines bad.
    """
    parts = read_each(sources, columns=columns, validation=validation, refuse=refuse)
    return OwnData(
        train=tuple(row for part in parts for row in part.train),
        heldout=tuple(row for part in parts for row in part.heldout),
        bad=tuple(line for part in parts for line in part.bad),
        duplicates=sum(part.duplicates for part in parts),
        share=max((part.share for part in parts), default=0.0),
    )


def read_each(
    sources: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    validation: float | None = OWN_HELDOUT,
    refuse: bool = True,
) -> list[OwnData]:
    """What `read_own` reads, source by source, in the order given.

    They are read together: what one source says that is held out of another, or that one before it
    says, is taken out of it. Raises UserError as `read_own` does.
    """
    check_columns(columns)
    if validation is not None and not 0 <= validation < 1:
        raise UserError(f"validation={validation} must be at least 0 and less than 1; try 0.05")
    given = [one if isinstance(one, str) else one.as_posix() for one in sources]
    for one in given:
        if given.count(one) > 1:
            raise UserError(f"{one!r} is given twice; give each source once, with its weight")
    reader = Reader(columns, refuse)
    parts = [reader.read(one) for one in given]
    reader.check_columns_were_there()
    sides = _sides(_named(given, parts), validation)
    for one, part in zip(given, sides, strict=True):
        if refuse and not part.train:
            raise UserError(_nothing(one, part))
    return sides


def _nothing(source: str, part: OwnData) -> str:
    if part.duplicates:
        why = "says nothing that another source does not say, or that is not held out"
    elif part.heldout:
        why = "is only to be tested by: all of it is held out"
    else:
        why = "holds no conversation and no document"
    return f"{source!r} {why}, so there is nothing to train on; leave it out, or give other data"


def _sides(parts: Sequence[Part], validation: float | None) -> list[OwnData]:
    """Every part's two sides, without what is said again."""
    known: set[Hashable] = set()
    heldout: set[Hashable] = set()
    for part in parts:
        if part.heldout is not None:
            heldout.update(map(content, part.heldout))
            known.update(map(content, part.train))
    known |= heldout
    new = [_new(part.train, known) if part.heldout is None else [] for part in parts]
    # One decision for all sources: a row is on the same side wherever it stands.
    undivided = [row for rows in new for row in rows]
    share = share_held_out(validation, len(undivided))
    chosen = set(map(content, hold_out(undivided, share)[1]))
    read = []
    for part, rows in zip(parts, new, strict=True):
        if part.heldout is None:
            train = [row for row in rows if content(row) not in chosen]
            held: Sequence[Row] = [row for row in rows if content(row) in chosen]
        else:
            # What a stage or a pack says twice, or on both sides, it says so on purpose; of what
            # others hold out, nothing is kept.
            others = heldout - set(map(content, part.heldout))
            train = [row for row in part.train if content(row) not in others]
            held, rows = part.heldout, train
        again = len(part.train) - len(rows)
        read.append(OwnData(tuple(train), tuple(held), tuple(part.bad), again, share))
    return read


def share_held_out(validation: float | None, rows: int) -> float:
    """The share of `rows` that is held out: as asked, else the usual one, or none of a few."""
    if validation is not None:
        return validation
    return OWN_HELDOUT if rows >= LEAST_TO_SPLIT else 0.0


def _new(rows: Iterable[Row], known: set[Hashable]) -> list[Row]:
    """The rows that are not known yet; they are from now on."""
    new = []
    for row in rows:
        if (said := content(row)) not in known:
            known.add(said)
            new.append(row)
    return new


def _named(given: Sequence[str], parts: Sequence[Part]) -> list[Part]:
    """The parts with their rows called by one name each, and no two parts by the same."""
    kept = {
        one: {row.source for row in part.train}
        for one, part in zip(given, parts, strict=True)
        if is_stage(Path(one)) or _is_generated(one)
    }
    taken = set[str]().union(*kept.values())
    named = []
    for one, part in zip(given, parts, strict=True):
        if one in kept:
            named.append(part)
            continue
        # A file of a person's own may be called as a part of the small world is.
        free = (name for name in _names(one) if name not in taken and generated_set(name) is None)
        taken.add(name := next(free, one))
        heldout = part.heldout and [replace(row, source=name) for row in part.heldout]
        named.append(Part([replace(row, source=name) for row in part.train], heldout, part.bad))
    return named


def _is_generated(source: str) -> bool:
    return source.startswith(PACK) and isinstance(find_set(source.removeprefix(PACK)), GeneratedSet)


def _names(source: str) -> tuple[str, str]:
    """What to call a source: as its file, folder, pack or repository, or with what that is in."""
    is_named = source.startswith((PACK, HUB))
    path = Path(source.partition(":")[2]) if is_named else Path(source).resolve()
    name = path.stem if path.suffix in SUFFIXES else path.name
    return name, f"{path.parent.name}/{name}"
