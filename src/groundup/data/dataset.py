"""Data of one's own, to fine-tune on: read from wherever it lies, and split.

    talks.jsonl, talks.csv, talks.parquet     conversations in any known layout, or {text} documents
    notes.txt, notes.md                       documents, cut at blank lines
    folder                                    all such files in it (`data_files` says which)
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

from groundup.data.config import DataConfig
from groundup.data.files import (
    CSV_SUFFIXES,
    ROW_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    check_no_run,
    check_there,
    suffix_of,
)
from groundup.data.packs.manifest import GENERATED, HUB, PACK, GeneratedSet, find_set
from groundup.data.records import (
    KNOWN,
    UNKNOWN,
    Records,
    check_columns,
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
    split,
    text_documents,
)
from groundup.errors import UserError, known_names
from groundup.runs.console import say
from groundup.runs.files import require_file
from groundup.text.rows import BadLine, Json, TrainingRow

# Of fewer rows than this a twentieth is too few to judge by, and each may be a fact that nothing
# else says: all are trained on.
LEAST_TO_SPLIT = 200


@dataclass(frozen=True)
class Dataset:
    """The two sides, the lines that were set aside, and how many rows said the same again.

    `hashed` are the rows held out by hash, and `share` is the share of them; the others came held
    out. `remarks` are sentences on what was not read, files of a folder and columns of rows, and on
    a share held out that is far from the one asked.
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

    `columns` maps our names of columns to those of the files. Each row's `source` is one name for
    each source given, its file's or folder's; a data stage's folder and a generated set keep the
    names of their parts. Two answers to one question (or of one `group`) are on one side.
    Validation 0 holds nothing out but what comes held out, None nothing of fewer than
    `LEAST_TO_SPLIT` rows. With `refuse` False files are read to be looked at, however many of their
    lines are bad.

    Raises UserError: a source that is not there, cannot be read or holds nothing to train on, an
    unknown layout, a column that no file has, more than a tenth of a file's lines bad.
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
    """Loads each source as `load_dataset` does and returns them one by one, in the order given.

    They are read together: what one source says that is held out of another, or that one before it
    says, is taken out of it. Raises UserError as `load_dataset` does.
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
    sides = divided(_named(given, parts), validation)
    for one, part in zip(given, sides, strict=True):
        if refuse and not part.train:
            raise UserError(_nothing(one, part))
    return sides


def _nothing(source: str, part: Dataset) -> str:
    if part.duplicates:
        why = "says nothing that another source does not say, or that is not held out"
    elif part.heldout:
        why = "is only to be tested by: all of it is held out"
    else:
        why = "holds no conversation and no document"
    return f"{source!r} {why}, so there is nothing to train on; leave it out, or give other data"


def divided(parts: Sequence[Part], validation: float | None) -> list[Dataset]:
    """Returns each part's two sides without duplicates, with `validation` as `load_dataset` has."""
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
    sides = hold_out(undivided, share)
    chosen = set(map(content, sides.heldout))
    # Said once of all sources; that nothing is held out, the counts say.
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
            # that another source holds out, and none of a person's own that is held out at all.
            others = heldout - set(map(content, part.heldout)) if part.repeats else heldout
            train = [row for row in part.train if content(row) not in others]
            held = part.heldout
            if not part.repeats:
                train, held = _new(train, trained), _new(held, out)
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
    """The share of `rows` that is held out: as asked, else the usual one, or none of a few."""
    if validation is not None:
        return validation
    return OWN_HELDOUT if rows >= LEAST_TO_SPLIT else 0.0


def _new(rows: Iterable[TrainingRow], known: set[Hashable]) -> list[TrainingRow]:
    """Returns the rows that are not `known` yet, and adds them to it."""
    new = []
    for row in rows:
        if (said := content(row)) not in known:
            known.add(said)
            new.append(row)
    return new


def _named(given: Sequence[str], parts: Sequence[Part]) -> list[Part]:
    """Gives the rows of each part one source name, which no other part has."""
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
        # Reports know a generated set's parts by how they begin, and a person's own file may be
        # called so.
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
    """Returns two names for a source: its file's, pack's or repository's, and with its folder's."""
    is_named = source.startswith((PACK, HUB))
    path = Path(source.partition(":")[2]) if is_named else Path(source).resolve()
    name = path.stem if suffix_of(path) in SUFFIXES else path.name
    return name, f"{path.parent.name}/{name}"


# Where data lies, and how each place is read.


@dataclass(frozen=True)
class Part:
    """A source's rows. `heldout` is None where they come without a split.

    `repeats` says that rows which stand on both sides do so on purpose.
    """

    train: Sequence[TrainingRow]
    heldout: Sequence[TrainingRow] | None = None
    bad: Sequence[BadLine] = ()
    remarks: Sequence[str] = ()
    repeats: bool = False


class Reader:
    """Reads sources, and remembers which columns their files had.

    `columns` maps our names of columns to the files' own. Unless `refuse` is False, files with too
    many bad lines raise UserError.
    """

    def __init__(self, columns: Mapping[str, str], refuse: bool) -> None:
        self.columns, self.refuse = columns, refuse
        self._seen: dict[str, None] = {}

    def read(self, source: str) -> Part:
        """One source. Raises UserError for what is not there or cannot be read."""
        if source.startswith(PACK):
            return _pack(source.removeprefix(PACK))
        if source.startswith(HUB):
            from groundup.data.hub import pull_dataset

            return self._own(pull_dataset(source.removeprefix(HUB)), source)
        path = Path(source)
        check_there(path)
        check_no_run(path)
        if is_stage(path):
            return _stage(path)
        return self._own(path, source)

    def check_columns_were_there(self) -> None:
        """Raises UserError for a mapping to a column that no file had."""
        for ours, theirs in self.columns.items():
            if theirs not in self._seen:
                known = known_names(theirs, self._seen, "there are:")
                raise UserError(
                    f"--columns {ours}={theirs}: no row has a column {theirs!r}; {known}"
                )

    def _own(self, path: Path, source: str) -> Part:
        """A file, or all data files of a folder, some of which its names may hold out."""
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
                require_file(path)  # a device's name says nothing of what is wrong with it
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
            ours = renamed(row, self.columns)
            found = conversation_or_document(ours, file, line)
            unread.update(dict.fromkeys(sorted(unread_columns(ours))))
            return found

        found: Records[TrainingRow] = read_rows(path, parse, refuse=False)
        self._seen |= here
        if self.refuse:
            if not found.rows:
                self._explain(path, found.bad, here)
            refuse_bad(path, len(found.rows), found.bad)
        return found

    def _explain(self, path: Path, bad: Sequence[BadLine], columns: Mapping[str, None]) -> None:
        """Raises UserError where every line is bad because its columns are not understood."""
        self.check_columns_were_there()
        is_csv = suffix_of(path) in CSV_SUFFIXES
        named = f"the columns {', '.join(columns)}" if columns else "no columns"
        if all(line.reason.startswith(UNKNOWN) for line in bad):
            raise UserError(
                f"{str(path)!r} has {named}, and no layout that is known: known are {KNOWN}; say "
                "which column is which with --columns, as in --columns prompt=question "
                "completion=answer"
                f"{'. A CSV file names its columns in its first line' * is_csv}"
            )


def is_stage(path: Path) -> bool:
    """Whether a data stage wrote this folder."""
    return (path / "conversations" / "train.jsonl").is_file()


def text_beside(folder: Path) -> Path | None:
    """The documents of a data stage that lie beside its conversations, where it has both."""
    conversations, text = (folder / kind / "train.jsonl" for kind in ("conversations", "documents"))
    both = all(one.is_file() and one.stat().st_size for one in (conversations, text))
    return text if both else None


def _stage(folder: Path) -> Part:
    """A data stage's conversations, or its documents where it has no conversations."""
    has_texts = (folder / "documents" / "train.jsonl").is_file()
    if (folder / "conversations" / "train.jsonl").stat().st_size or not has_texts:
        train, heldout = split(folder, "conversations", read_conversations)
        return Part(train.rows, heldout.rows, train.bad + heldout.bad, repeats=True)
    texts, texts_heldout = split(folder, "documents", read_documents)
    return Part(texts.rows, texts_heldout.rows, texts.bad + texts_heldout.bad, repeats=True)


def _pack(name: str) -> Part:
    """A set's conversations, or its documents where it has no conversations, as the stage has them.

    What the stage has a model say of itself goes with every data folder and is left out here: it is
    true of a model that was trained from scratch, and not of one that somebody brings.
    """
    # Sets are read by pages of their own, which are only loaded where one is named.
    from groundup.data.leaks import without_leaks
    from groundup.data.packs.rows import Rejected, gather

    one = find_set(name)
    config = DataConfig(out=Path(), packs=(one.name,), world_megabytes=0, world_preferences=0)
    data, _ = without_leaks(gather(config, Rejected(), say))
    talks = [row for row in data.conversations if row.source != "own"]
    if talks or data.conversations_heldout:
        return Part(talks, data.conversations_heldout, repeats=True)
    return Part(data.documents, data.documents_heldout, repeats=True)
