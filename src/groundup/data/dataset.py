"""A user's own data for fine-tuning: read from any source, and split.

    talks.jsonl, talks.csv, talks.parquet     conversations in any known layout, or {text} documents
    notes.txt, notes.md                       documents, split at blank lines
    folder                                    all such files in it (`data_files` decides which)
    runs/data                                 the folder of a data stage: its conversations
    pack:chitchat                             a data set of the Python package index
    hub:owner/name                            a data set of Hugging Face's hub

Data with its own split keeps it: a data stage's folder, a pack, and a folder whose files are called
train, validation and test, as on the hub. All other data is split by hash, and repeated rows are
removed from it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from groundup.data.config import Columns, DataConfig
from groundup.data.files import (
    CSV_SUFFIXES,
    ROW_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    check_file,
    check_no_run,
    check_there,
    suffix_of,
)
from groundup.data.packs.manifest import GENERATED, HUB, PACK, GeneratedSet, find_set
from groundup.data.records import (
    COLUMNS,
    KNOWN,
    UNKNOWN,
    Records,
    conversation_or_document,
    read_conversations,
    read_documents,
    read_rows,
    refuse_bad,
    renamed,
    unread_columns,
)
from groundup.data.split import (
    OWN_HELDOUT,
    content,
    data_files,
    hold_out,
    on_disk,
    split,
    text_documents,
)
from groundup.errors import UserError
from groundup.runs.console import say
from groundup.text.rows import BadLine, Json, TrainingRow

# With fewer rows than this a twentieth is too few to measure with, and each may be the only row
# with its fact: all are trained on.
MIN_TO_SPLIT = 200


@dataclass(frozen=True)
class Dataset:
    """The two sides, the bad lines, and the number of repeated rows.

    `hashed` is the number of rows held out by hash, and `share` their share; the others came held
    out. `remarks` are sentences about unread files and columns, and about a held-out share far from
    the requested one.
    """

    train: tuple[TrainingRow, ...]
    heldout: tuple[TrainingRow, ...]
    bad: tuple[BadLine, ...]
    duplicates: int
    share: float = 0.0
    remarks: tuple[str, ...] = ()
    hashed: int = 0


def load_dataset(
    sources: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    validation: float | None = OWN_HELDOUT,
    refuse: bool = True,
) -> Dataset:
    """The conversations and documents of all `sources`, about `validation` of them held out.

    `columns` maps our column names to those of the files. The rows of a source get one name as
    their `source`, its file's or folder's; a data stage's folder and a generated set keep the names
    of their parts. Two answers to one question (or of one `group`) are on the same side.
    Validation 0 holds out only rows that come held out; None splits only data of at least
    `MIN_TO_SPLIT` rows. With `refuse` False, files are read for inspection even if most of their
    lines are bad.

    Raises UserError for a source that is missing, cannot be read or has nothing to train on, an
    unknown layout, a column that no file has, and a file with more than a tenth of bad lines.
    """
    parts = load_datasets(sources, columns=columns, validation=validation, refuse=refuse)
    return Dataset(
        train=tuple(row for part in parts for row in part.train),
        heldout=tuple(row for part in parts for row in part.heldout),
        bad=tuple(line for part in parts for line in part.bad),
        duplicates=sum(part.duplicates for part in parts),
        share=max((part.share for part in parts), default=0.0),
        remarks=tuple(remark for part in parts for remark in part.remarks),
        hashed=sum(part.hashed for part in parts),
    )


def load_datasets(
    sources: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    validation: float | None = OWN_HELDOUT,
    refuse: bool = True,
) -> list[Dataset]:
    """Loads each source like `load_dataset` and returns them one by one, in the given order.

    They are read together: rows of one source that another holds out, or that an earlier one
    repeats, are removed from it. Raises UserError like `load_dataset`.
    """
    if validation is not None and not 0 <= validation < 1:
        raise UserError(f"validation={validation} must be at least 0 and less than 1; try 0.05")
    given = [one if isinstance(one, str) else one.as_posix() for one in sources]
    for one in given:
        if given.count(one) > 1:
            raise UserError(f"{one!r} is given twice; give each source once, with its weight")
    reader = Reader(columns, refuse)
    parts = [reader.read(one) for one in given]
    reader.columns.check()
    sides = split_parts(_named(given, parts), validation)
    for one, part in zip(given, sides, strict=True):
        if refuse and not part.train:
            raise UserError(_why_nothing(one, part))
    return sides


def _why_nothing(source: str, part: Dataset) -> str:
    if part.duplicates:
        why = "has no row that is neither in another source nor held out"
    elif part.heldout:
        why = "is for evaluation only: all of it is held out"
    else:
        why = "contains no conversation and no document"
    return f"{source!r} {why}, so there is nothing to train on; leave it out, or give other data"


def split_parts(parts: Sequence[Part], validation: float | None) -> list[Dataset]:
    """Returns each part's two sides without duplicates; `validation` as in `load_dataset`."""
    known: set[Hashable] = set()
    heldout: set[Hashable] = set()
    for part in parts:
        if part.heldout is not None:
            heldout.update(map(content, part.heldout))
            known.update(map(content, part.train))
    known |= heldout
    new = [_unknown_rows(part.train, known) if part.heldout is None else [] for part in parts]
    # One decision for all sources: equal rows are on the same side, whatever their source.
    undivided = [row for rows in new for row in rows]
    share = share_held_out(validation, len(undivided))
    sides = hold_out(undivided, share)
    chosen = set(map(content, sides.heldout))
    # Reported once for all sources; the counts already show that nothing is held out.
    unsaid = [f"data: {sides.remark}"] if sides.heldout and sides.remark else []
    read = []
    trained, out = set[Hashable](), set[Hashable]()
    for part, rows in zip(parts, new, strict=True):
        held: Sequence[TrainingRow]
        remarks = list(part.remarks)
        if part.heldout is None:
            remarks, unsaid = remarks + unsaid, []
            train = [row for row in rows if content(row) not in chosen]
            held = [row for row in rows if content(row) in chosen]
        else:
            # A stage or a pack repeats rows on purpose, within a side and across; but no row trains
            # that another source holds out, and none of a user's own rows that is held out
            # anywhere.
            others = heldout - set(map(content, part.heldout)) if part.repeats else heldout
            train = [row for row in part.train if content(row) not in others]
            held = part.heldout
            if not part.repeats:
                train, held = _unknown_rows(train, trained), _unknown_rows(held, out)
        read.append(
            Dataset(
                tuple(train),
                tuple(held),
                tuple(part.bad),
                duplicates=len(part.train) + len(part.heldout or ()) - len(train) - len(held),
                share=share,
                remarks=tuple(remarks),
                hashed=len(held) if part.heldout is None else 0,
            )
        )
    return read


def share_held_out(validation: float | None, rows: int) -> float:
    """The share of `rows` that is held out: as requested, else the default, or none if few."""
    if validation is not None:
        return validation
    return OWN_HELDOUT if rows >= MIN_TO_SPLIT else 0.0


def _unknown_rows(rows: Iterable[TrainingRow], known: set[Hashable]) -> list[TrainingRow]:
    """Returns the rows that are not yet in `known`, and adds them."""
    new = []
    for row in rows:
        if (said := content(row)) not in known:
            known.add(said)
            new.append(row)
    return new


def _named(given: Sequence[str], parts: Sequence[Part]) -> list[Part]:
    """Gives the rows of each part one source name that no other part has."""
    kept = {
        one: {row.source for row in part.train}
        for one, part in zip(given, parts, strict=True)
        if is_stage(Path(one))
        or (one.startswith(PACK) and isinstance(find_set(one.removeprefix(PACK)), GeneratedSet))
    }
    taken = set[str]().union(*kept.values())
    named = []
    for one, part in zip(given, parts, strict=True):
        if one in kept:
            named.append(part)
            continue
        # Reports recognize a generated set's parts by their prefix, which a user's file name may
        # also have.
        parts_begin = tuple(f"{made.name}-" for made in GENERATED)
        free = (
            name for name in _names(one) if name not in taken and not name.startswith(parts_begin)
        )
        taken.add(name := next(free, one))
        heldout = part.heldout and [replace(row, source=name) for row in part.heldout]
        train = [replace(row, source=name) for row in part.train]
        named.append(replace(part, train=train, heldout=heldout))
    return named


def _names(source: str) -> tuple[str, str]:
    """Returns two names for a source: its file's, pack's or repository's, alone and with its
    folder's."""
    is_named = source.startswith((PACK, HUB))
    path = Path(source.partition(":")[2]) if is_named else Path(source).resolve()
    name = path.stem if suffix_of(path) in SUFFIXES else path.name
    return name, f"{path.parent.name}/{name}"


# The kinds of sources, and their readers.


@dataclass(frozen=True)
class Part:
    """A source's rows. `heldout` is None if they come without a split.

    `repeats` means that rows on both sides are intended.
    """

    train: Sequence[TrainingRow]
    heldout: Sequence[TrainingRow] | None = None
    bad: Sequence[BadLine] = ()
    remarks: Sequence[str] = ()
    repeats: bool = False


class Reader:
    """Reads sources, and records the columns of their files.

    `columns` maps our column names to the files' own. Unless `refuse` is False, files with too many
    bad lines raise UserError.
    """

    def __init__(self, columns: Mapping[str, str], refuse: bool) -> None:
        self.columns, self.refuse = Columns(columns, COLUMNS, renamed), refuse

    def read(self, source: str) -> Part:
        """Read one source. Raises UserError if it is missing or cannot be read."""
        if source.startswith(PACK):
            return _pack(source.removeprefix(PACK))
        if source.startswith(HUB):
            return self._own(on_disk(source), source)
        path = Path(source)
        check_there(path)
        check_no_run(path)
        if is_stage(path):
            return _stage(path)
        return self._own(path, source)

    def _own(self, path: Path, source: str) -> Part:
        """A file, or all data files of a folder; file names may hold some of them out."""
        files, unread = data_files(path, source), dict[str, None]()
        train, bad = self._files(files.train, unread)
        heldout, bad_heldout = self._files(files.heldout, unread)
        columns = f"{source}: columns not read: {', '.join(unread)}" if unread else ""
        return Part(
            train,
            heldout if files.heldout else None,
            [*bad, *bad_heldout],
            tuple(filter(None, (files.remark, columns))),
        )

    def _files(
        self, paths: Sequence[Path], unread: dict[str, None]
    ) -> tuple[list[TrainingRow], list[BadLine]]:
        rows: list[TrainingRow] = []
        bad: list[BadLine] = []
        for path in paths:
            if suffix_of(path) in TEXT_SUFFIXES:
                rows += text_documents(path)
            elif suffix_of(path) in ROW_SUFFIXES:
                found = self._rows(path, unread)
                rows += found.rows
                bad += found.bad
            else:
                check_file(path)  # of a device, or what is compressed, the suffix is not the fault
                ending = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
                raise UserError(
                    f"{str(path)!r} {ending}; data is read from "
                    f"{', '.join(SUFFIXES)}, folders of such files, pack:NAME and hub:OWNER/NAME"
                )
        return rows, bad

    def _rows(self, path: Path, unread: dict[str, None]) -> Records[TrainingRow]:
        here: dict[str, None] = {}

        def parse(row: Json, file: str, line: int) -> TrainingRow:
            here.update(dict.fromkeys(row))
            ours = self.columns(row)
            found = conversation_or_document(ours, file, line)
            unread.update(dict.fromkeys(sorted(unread_columns(ours))))
            return found

        found: Records[TrainingRow] = read_rows(path, parse, refuse=False)
        if self.refuse:
            if not found.rows:
                self._explain(path, found.bad, here)
            refuse_bad(path, len(found.rows), found.bad)
        return found

    def _explain(self, path: Path, bad: Sequence[BadLine], columns: Mapping[str, None]) -> None:
        """Raises UserError if every line is bad because its columns are not understood."""
        if self.columns.seen:
            self.columns.check()
        is_csv = suffix_of(path) in CSV_SUFFIXES
        named = f"the columns {', '.join(columns)}" if columns else "no columns"
        if all(line.reason.startswith(UNKNOWN) for line in bad):
            raise UserError(
                f"{str(path)!r} has {named}, so its layout is unknown; known are {KNOWN}; say "
                "which column is which with --columns, as in --columns prompt=question "
                "completion=answer"
                f"{'. A CSV file names its columns in its first line' * is_csv}"
            )


def is_stage(path: Path) -> bool:
    """Whether a data stage wrote this folder."""
    return (path / "conversations" / "train.jsonl").is_file()


def documents_of(folder: Path) -> Path | None:
    """The documents of a data stage next to its conversations, if it has both."""
    conversations, text = (folder / kind / "train.jsonl" for kind in ("conversations", "documents"))
    both = all(one.is_file() and one.stat().st_size for one in (conversations, text))
    return text if both else None


def _stage(folder: Path) -> Part:
    """A data stage's conversations, or its documents if it has no conversations."""
    has_texts = (folder / "documents" / "train.jsonl").is_file()
    if (folder / "conversations" / "train.jsonl").stat().st_size or not has_texts:
        train, heldout = split(folder, "conversations", read_conversations)
        return Part(train.rows, heldout.rows, train.bad + heldout.bad, repeats=True)
    texts, texts_heldout = split(folder, "documents", read_documents)
    return Part(texts.rows, texts_heldout.rows, texts.bad + texts_heldout.bad, repeats=True)


def _pack(name: str) -> Part:
    """A set's conversations, or its documents if it has no conversations, as in the stage.

    The stage's conversations about the model itself come with every data folder and are left out
    here: they are true only of a model trained from scratch.
    """
    # Each set has its own reader module, which is only imported when needed.
    from groundup.data.leaks import without_leaks
    from groundup.data.packs.rows import Rejected, gather

    one = find_set(name)
    config = DataConfig(out=Path(), packs=(one.name,), world_megabytes=0, world_preferences=0)
    data, _ = without_leaks(gather(config, Rejected(), say))
    talks = [row for row in data.conversations if row.source != "own"]
    if talks or data.conversations_heldout:
        return Part(talks, data.conversations_heldout, repeats=True)
    return Part(data.documents, data.documents_heldout, repeats=True)
