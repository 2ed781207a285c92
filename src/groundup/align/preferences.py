"""Preference pairs: from files to batches.

The two answers of a pair are always in one micro-batch. Sequences are packed into rows of the shape
that pre-training uses, so compiled blocks serve alignment too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.align.config import DPOConfig, KTOConfig, RewardConfig
from groundup.data.config import Columns
from groundup.data.records import Records
from groundup.data.split import split
from groundup.errors import UserError
from groundup.runs.console import counted, say
from groundup.text.batches import packed_batch
from groundup.text.chat import encode_chat
from groundup.text.example import Example, cut_to
from groundup.text.rows import Message, Preference, UnpairedPreference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream, TensorFields

R = TypeVar("R")
T = TypeVar("T")
P = TypeVar("P", Preference, UnpairedPreference)
# The indices of rows that the chat template refuses, with the reasons.
Refused = list[tuple[int, str]]


@dataclass(frozen=True)
class Pair:
    """A prompt with each of its two answers; only the answers' tokens are trained on.

    `group` is shared with related pairs.
    """

    chosen: Example
    rejected: Example
    source: str = ""
    group: str = ""


@dataclass(frozen=True)
class PairBatch(TensorFields):
    """Packed sequences, their pairing, and their log-probabilities under the reference.

    `sequences` holds the segment numbers of each pair's chosen and rejected answer, `reference`
    their log-probabilities in nats, if the loss needs them.
    """

    rows: Batch
    sequences: Int[Tensor, "pairs 2"]
    reference: Float[Tensor, "pairs 2"] | None

    @property
    def weight(self) -> float:
        return float(len(self.sequences))

    @property
    def answer_tokens(self) -> Float[Tensor, "pairs 2"]:
        """The number of tokens of each answer."""
        counts = self.rows.weights.new_zeros(int(self.rows.segment_ids.max()) + 1)
        answered = self.rows.weights > 0
        counts.index_add_(0, self.rows.segment_ids[answered], self.rows.weights[answered])
        return counts[self.sequences]


class PairStream(DataStream):
    """Micro-batches of whole pairs, a pure function of (seed, step).

    `reference` may be filled in later, before the first pair is read.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        reference: Float[np.ndarray, "pairs 2"] | None,
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        if not pairs:
            raise UserError("the data holds no preference pair to train on; give some")
        self.pairs, self.reference, self.context = pairs, reference, context
        # At least two rows: both answers of a pair may be as long as the context.
        self.packing = TwinPacking(
            [(pair.chosen.inputs, pair.rejected.inputs) for pair in pairs],
            context=context,
            sizes=micro_sizes(rows, micro_rows, least=2),
            rows=rows,
            seed=seed,
        )
        self.rows_per_epoch = self.packing.rows_per_epoch

    def at(self, step: int, model: nn.Module) -> list[PairBatch]:
        return [self._batch(rows) for rows in self.packing.at(step)]

    def _sequence(self, number: int) -> Example:
        pair = self.pairs[number // 2]
        return pair.rejected if number % 2 else pair.chosen

    def _batch(self, rows: Sequence[Sequence[int]]) -> PairBatch:
        pairs, sequences = twins(rows)
        return PairBatch(
            packed_batch([[self._sequence(s) for s in row] for row in rows], self.context),
            torch.tensor(sequences),
            None if self.reference is None else torch.from_numpy(self.reference[pairs]),
        )


def micro_sizes(rows: int, micro_rows: int, least: int) -> list[int]:
    """The rows of each micro-batch of a step: as few batches as possible, as even as possible.

    No batch has fewer than `least` rows: a step of fewer has `least`, and if `micro_rows` would
    leave fewer to the last batch, some batches have a row more.
    """
    rows = max(rows, least)
    count = min(-(-rows // max(micro_rows, least)), rows // least)
    return [rows // count + (place < rows % count) for place in range(count)]


class TwinPacking:
    """Packs sequences into micro-batches of rows; each item has two sequences that stay together.

    Item i has the sequences 2i and 2i + 1, which are `inputs[i]` tokens long. A step of `rows` has
    micro-batches of these `sizes` (see `micro_sizes`). With `apart`, the second sequences are in
    rows of their own, as many as the first, after them. The order of an epoch is a pure function of
    (seed, epoch).
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, int]],
        *,
        context: int,
        sizes: Sequence[int],
        rows: int,
        seed: int,
        apart: bool = False,
    ) -> None:
        self.inputs, self.context, self.seed, self.apart = inputs, context, seed, apart
        self.sizes = sizes
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)
        # Every epoch has as many batches as the first, so a step determines its epoch.
        self.batches_per_epoch = 0
        self.batches_per_epoch = len(self._epoch(0))
        self.rows_per_epoch = rows_of_epoch(self.batches_per_epoch, sizes, rows)

    def at(self, step: int) -> list[list[list[int]]]:
        """The micro-batches of a step: lists of rows, which are lists of sequences."""
        batches = []
        for index in range(step * len(self.sizes), (step + 1) * len(self.sizes)):
            epoch, place = divmod(index, self.batches_per_epoch)
            batches.append(self._epoch(epoch)[place])
        return batches

    def read_by(self, steps: int) -> Int[np.ndarray, " items"]:
        """Return the indices of the items that `steps` steps read, ascending."""
        batches = steps * len(self.sizes)
        if batches > len(self._epoch(0)):
            return np.arange(len(self.inputs))
        rows = [row for batch in self._epoch(0)[:batches] for row in batch]
        return np.unique(np.array([s // 2 for row in rows for s in row], int))

    def _packed(self, epoch: int) -> list[list[list[int]]]:
        """This epoch's micro-batches; if one pass makes too few, it starts again."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.inputs)).tolist()
        batches: list[list[list[int]]] = []
        while not batches or len(batches) < self.batches_per_epoch:
            batches.append(self._empty(epoch, len(batches)))
            for index in order:
                if not self._lay(batches[-1], index):
                    batches.append(self._empty(epoch, len(batches)))
                    fits = self._lay(batches[-1], index)
                    assert fits, "the smallest batch holds any item"
        return batches

    def _empty(self, epoch: int, place: int) -> list[list[int]]:
        """Empty rows of a micro-batch; steps continue from one epoch into the next."""
        size = self.sizes[(epoch * self.batches_per_epoch + place) % len(self.sizes)]
        return [[] for _ in range(size * (1 + self.apart))]

    def _lay(self, rows: list[list[int]], index: int) -> bool:
        """Put both sequences of an item into the fullest rows they fit; return whether they fit."""
        places: list[int] = []
        size = len(rows) // (1 + self.apart)
        for which in (0, 1):
            need = self.inputs[index][which]
            first = size * (which and self.apart)
            own = range(first, first + size)
            free = {row: self.context - sum(map(self._inputs, rows[row])) for row in own}
            fitting = [row for row in own if free[row] >= need]
            if not fitting:
                for row in places:
                    rows[row].pop()
                return False
            places.append(min(fitting, key=lambda row: free[row]))
            rows[places[-1]].append(2 * index + which)
        return True

    def _inputs(self, sequence: int) -> int:
        return self.inputs[sequence // 2][sequence % 2]


def rows_of_epoch(batches: int, sizes: Sequence[int], rows: int) -> int:
    """The rows of `batches` micro-batches, whose `sizes` alternate, as a plan counts them.

    A plan counts `rows` per step, but a single row holds no pair, so such a step has two.
    """
    steps, rest = divmod(batches, len(sizes))
    return (steps * sum(sizes) + sum(sizes[:rest])) * rows // sum(sizes)


def twins(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The items in these rows, ascending, and the positions of both sequences of each."""
    place = {sequence: i for i, sequence in enumerate(s for row in rows for s in row)}
    items = sorted({sequence // 2 for sequence in place})
    return items, [[place[2 * item], place[2 * item + 1]] for item in items]


def tokenize_pairs(
    tokenizer: Tokenizer, rows: Sequence[Preference], context: int
) -> tuple[list[Pair], Refused]:
    """Tokenize pairs, cut to the context; also return the rows that the chat template refuses.

    Pairs are left out if the prompt leaves no room, or if the answers are the same within the
    context.
    """

    def pair(row: Preference) -> Pair:
        answers = (row.chosen, row.rejected)
        chosen, rejected = tokenize_answers(tokenizer, row.prompt, answers, context)
        return Pair(chosen, rejected, row.source, row.group)

    pairs, refused = encoded_rows(rows, pair)
    found = [
        pair
        for pair in pairs
        if pair.chosen.teaches and pair.rejected.teaches and pair.chosen.ids != pair.rejected.ids
    ]
    return found, refused


def encoded_rows(rows: Sequence[R], encode: Callable[[R], T]) -> tuple[list[T], Refused]:
    """Encode every row, and set aside those that the chat template refuses.

    Raises `UserError` with the first reason if every row is refused: then the rows are not at
    fault.
    """
    found: list[T] = []
    refused: Refused = []
    for place, row in enumerate(rows):
        try:
            found.append(encode(row))
        except UserError as reason:
            refused.append((place, str(reason)))
    if refused and not found:
        raise UserError(refused[0][1])
    return found, refused


def read_sides(
    config: DPOConfig | KTOConfig | RewardConfig,
    known: Collection[str],
    read: Callable[[Path, Columns], Records[P]],
) -> tuple[Records[P], Records[P]]:
    """Both sides of a stage's data, by `data.split.split`; `known` are our names of its columns.

    Remarks about the data, and the names of columns that are not read, are printed. Raises
    `UserError` for data that cannot be read.
    """
    data, columns = config.data, Columns(config.column_names, known)
    sides = split(data, "preferences", lambda path: read(path, columns))
    columns.check()
    if sides[0].remark:
        say(sides[0].remark)
    if sides[0].unread:
        say(f"{data}: columns not read: {', '.join(sides[0].unread)}")
    return sides


def say_refused(trained: Refused, heldout: Refused) -> None:
    """Print how many rows of each side the chat template refused, and the first reason."""
    for side, refused in (("to train on", trained), ("held out", heldout)):
        if refused:
            place, reason = refused[0]
            say(
                f"  {counted(len(refused), 'row')} {side} set aside, as they cannot be encoded; "
                f"the first is row {place + 1}: {reason}"
            )


def tokenize_answers(
    tokenizer: Tokenizer, prompt: Sequence[Message], answers: Sequence[str], context: int
) -> list[Example]:
    """A prompt with each of several answers, cut to the context; only the answer is trained on."""
    # Earlier turns of the assistant belong to the prompt.
    start = len(encode_chat(tokenizer, prompt, generation_prompt=True).ids)
    items = []
    for answer in answers:
        whole = encode_chat(tokenizer, [*prompt, Message("assistant", answer)])
        learned = [spoken and i >= start for i, spoken in enumerate(whole.assistant)]
        items.append(cut_to(Example(whole.ids, learned), context))
    return items


def tokenize_answer(
    tokenizer: Tokenizer, prompt: Sequence[Message], answer: str, context: int
) -> Example:
    """A prompt with one answer, as `tokenize_answers` encodes it."""
    return tokenize_answers(tokenizer, prompt, [answer], context)[0]
