"""How a model would read a user's own data: counts, and the first rows token by token.

Nothing here trains. Before a run it shows which rows are too long or teach nothing, and whether the
chat template marks the right words as the assistant's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from groundup.data.dataset import Dataset
from groundup.data.records import UNKNOWN, too_many_bad
from groundup.errors import UserError
from groundup.runs.console import counted
from groundup.text.chat import (
    NEVER_STOPS,
    NO_TOOLS,
    SPLIT_CONVERSATIONS,
    never_stops,
    omits_tools,
)
from groundup.text.example import Example, cut_to, encode_each, is_split
from groundup.text.rows import BadLine, Conversation, Document
from groundup.text.token_view import Token, view_tokens
from groundup.text.tokenizer import Tokenizer

# A histogram with more lines is hard to read.
_MAX_BINS = 12


@dataclass(frozen=True)
class InspectedRow:
    """A training row, counted from 1; of a row in several `pieces` the first is shown."""

    number: int
    kind: str
    source: str
    pieces: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class SourceCounts:
    """The rows of one kind from one source, and the tokens of its training rows."""

    source: str
    kind: str
    rows: int
    heldout: int
    tokens: int
    trained: int


@dataclass(frozen=True)
class Bin:
    """The number of rows with `low` to `high` tokens (None: no end), and how many are truncated."""

    low: int
    high: int | None
    rows: int
    cut: int


@dataclass(frozen=True)
class Inspection:
    """Statistics of a user's own data for a given tokenizer and context.

    All except `heldout` (`hashed` of them by hash), `duplicates` and `bad` count training rows, of
    which none needs more than `most` tokens of context. `refused` lists rows that the template or
    the tokenizer refuses, with reasons; the arrays cover the others: `lengths` in tokens before
    truncation, `is_cut` marks conversations longer than `context`, `has_no_target` those without a
    trained token within it. Documents are not truncated but split into several items. `apart`
    conversations are split into one item per answer; the longest item gives such a row's length. Of
    the `tokens` read in an epoch, `trained` have a trained target; `look_alikes` are rows that
    contain a control token's name as text. `unread` are sentences about unread files and columns;
    with `never_stops` the conversations' template does not end answers with a control token.
    """

    context: int
    rows: int
    heldout: int
    duplicates: int
    bad: tuple[BadLine, ...]
    refused: tuple[tuple[int, str], ...]
    lengths: Int[np.ndarray, " rows"]
    is_cut: Bool[np.ndarray, " rows"]
    has_no_target: Bool[np.ndarray, " rows"]
    tokens: int
    trained: int
    look_alikes: int
    sources: tuple[SourceCounts, ...]
    examples: tuple[InspectedRow, ...]
    unread: tuple[str, ...] = ()
    hashed: int = 0
    never_stops: bool = False
    apart: int = 0
    most: int = 0

    @property
    def usable(self) -> int:
        """The number of rows that train: neither refused nor without a target."""
        return len(self.lengths) - int(self.has_no_target.sum())


def inspect(
    data: Dataset,
    tokenizer: Tokenizer,
    *,
    context: int,
    examples: int = 3,
    progress: Callable[[int], None] = lambda done: None,
) -> Inspection:
    """Measure `data` as encoded by `tokenizer` and truncated to `context`.

    `progress` receives the number of finished training rows. Raises `UserError` if the tokenizer
    can encode none of them, such as conversations without a chat template.
    """
    refused, shown, pieces = list[tuple[int, str]](), list[tuple[int, Example]](), list[int]()
    counted_items, apart = list[tuple[int, int, int, int]](), set[int]()
    # Only token counts are kept: the tokens of a whole file would take memory.
    for place, items in enumerate(encode_each(tokenizer, data.train, context)):
        if isinstance(items, UserError):
            refused.append((place, str(items)))
            continue
        if len(shown) < examples:
            shown.append((place, items[0]))
            pieces.append(len(items))
        if is_split(data.train[place], items):
            apart.add(place)
        for item in items:
            within = cut_to(item, context)
            trains = sum(within.loss_mask[1:])
            counted_items.append((place, item.inputs, within.inputs, trains))
        progress(place + 1)
    row, whole, read, trained = np.array(counted_items, np.int64).reshape(-1, 4).T
    usable, begins = np.unique(row, return_index=True)
    # Pieces of a document add up to it; a conversation's items repeat the turns before each answer.
    longest = np.maximum.reduceat(whole, begins) if len(begins) else whole
    pieced = np.bincount(row, whole, len(data.train))[usable].astype(np.int64)
    inputs = read * (trained > 0)
    return Inspection(
        context=context,
        rows=len(data.train),
        heldout=len(data.heldout),
        duplicates=data.duplicates,
        bad=data.bad,
        refused=tuple(refused),
        lengths=np.where(np.isin(usable, [*apart]), longest, pieced),
        is_cut=longest > context,
        has_no_target=np.bincount(row, trained, len(data.train))[usable] == 0,
        tokens=int(inputs.sum()),
        trained=int(trained.sum()),
        look_alikes=sum(_holds_control(tokenizer, one) for one in data.train),
        sources=tuple(_by_source(data, row, inputs, trained)),
        examples=tuple(
            _example(tokenizer, data.train[place], place, first, context, count)
            for (place, first), count in zip(shown, pieces, strict=True)
        ),
        unread=(*data.remarks, *([NO_TOOLS] if omits_tools(tokenizer, data.train) else [])),
        hashed=data.hashed,
        never_stops=any(isinstance(one, Conversation) for one in data.train)
        and never_stops(tokenizer),
        apart=len(apart),
        most=int(read.max(initial=0)),
    )


def kind_of(row: Conversation | Document) -> str:
    return "document" if isinstance(row, Document) else "conversation"


def _by_source(
    data: Dataset,
    row: Int[np.ndarray, " items"],
    inputs: Int[np.ndarray, " items"],
    trained: Int[np.ndarray, " items"],
) -> Iterator[SourceCounts]:
    """Counts per source, in the order of first appearance."""
    names = [(one.source, kind_of(one)) for one in data.train]
    held = [(one.source, kind_of(one)) for one in data.heldout]
    for source, kind in dict.fromkeys([*names, *held]):
        is_of = np.array([name == (source, kind) for name in names], bool)
        mine = is_of[row]
        yield SourceCounts(
            source,
            kind,
            rows=int(is_of.sum()),
            heldout=held.count((source, kind)),
            tokens=int(inputs[mine].sum()),
            trained=int(trained[mine].sum()),
        )


def _holds_control(tokenizer: Tokenizer, row: Conversation | Document) -> bool:
    """Whether the row's text contains the name of a control token."""
    if isinstance(row, Document):
        return any(token in row.text for token in tokenizer.special_tokens)
    hidden = tokenizer.special_tokens.keys() - set(tokenizer.spoken_tokens)
    return any(
        token in one.content
        for one in row.messages
        for token in (hidden if one.role == "assistant" else tokenizer.special_tokens)
    )


def _example(
    tokenizer: Tokenizer,
    row: Conversation | Document,
    place: int,
    item: Example,
    context: int,
    pieces: int,
) -> InspectedRow:
    tokens = tuple(view_tokens(tokenizer, item, context))
    return InspectedRow(place + 1, kind_of(row), row.source, pieces, tokens)


# Summaries.


def histogram(found: Inspection) -> list[Bin]:
    """The lengths in bins of equal width; the last bin takes outliers."""
    if not len(found.lengths):
        return []
    longest = int(found.lengths.max())
    width = _bin_width(int(np.quantile(found.lengths, 0.9)))
    last = min(longest // width, _MAX_BINS - 1)
    place = np.minimum(found.lengths // width, last)
    rows = np.bincount(place, minlength=last + 1)
    cut = np.bincount(place[found.is_cut], minlength=last + 1)
    is_open = longest >= (last + 1) * width
    return [
        Bin(
            low=i * width,
            high=None if i == last and is_open else (i + 1) * width - 1,
            rows=int(rows[i]),
            cut=int(cut[i]),
        )
        for i in range(int(place.min()), last + 1)
    ]


def _bin_width(reach: int) -> int:
    """The smallest round width for which all bins but the last cover `reach`."""
    widths = (digit * 10**power for power in range(20) for digit in (1, 2, 5))
    return next(int(width) for width in widths if width * (_MAX_BINS - 1) > reach)


def quantiles(found: Inspection) -> dict[str, float]:
    """Quantiles of the row lengths."""
    shares = {"shortest": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95}
    shares |= {"longest": 1.0}
    return {name: float(np.quantile(found.lengths, share)) for name, share in shares.items()}


def remarks(found: Inspection) -> list[str]:
    """Warnings to read before training on this data, the most important first."""
    said = []
    if not found.usable:
        said.append("There is nothing here to train on.")
    if found.never_stops:
        said.append(f"{NEVER_STOPS[0].upper()}{NEVER_STOPS[1:]}.")
    if found.apart:
        said.append(f"{counted(found.apart, 'conversation')} {SPLIT_CONVERSATIONS}.")
    if empty := int(found.has_no_target.sum()):
        said.append(
            f"{_rows(empty)} without an assistant's word within {found.context:,} tokens: "
            "set aside, because there is nothing to learn from."
        )
    if cut := int(found.is_cut.sum()):
        longest = int(found.lengths[found.is_cut].max())
        said.append(
            f"{_rows(cut)} longer than {found.context:,} tokens: cut there (the longest has "
            f"{longest:,}). A larger --context keeps more of them."
        )
    if found.refused:
        said.append(
            f"{_rows(len(found.refused))} that this tokenizer or its template refuses: set aside."
        )
    if found.look_alikes:
        said.append(
            f"{_rows(found.look_alikes)} with the name of a control token as text: read as plain "
            "characters, never as the control token."
        )
    good = found.rows + found.heldout + found.duplicates
    if too_many_bad(good, len(found.bad)):
        said.append(
            f"{len(found.bad):,} of {good + len(found.bad):,} lines are bad; training refuses a "
            "file with more than a tenth of bad lines."
        )
    if any(line.reason.startswith(UNKNOWN) for line in found.bad):
        said.append(
            "Map columns with other names by --columns, as in --columns "
            "prompt=question completion=answer."
        )
    said += [
        f"{one[0].upper()}{one[1:]}." if one == NO_TOOLS else f"{one}." for one in found.unread
    ]
    if found.rows and not found.heldout:
        said.append("No row is held out, so the progress of training cannot be measured.")
    return said


def _rows(count: int) -> str:
    return counted(count, "row")
