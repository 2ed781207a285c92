"""Pairs of answers, one preferred: from files to batches.

A pair's two answers always travel in one micro-batch. Sequences are packed into rows of the very
shape pre-training uses, so compiled blocks serve alignment too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.text.batches import packed_batch
from groundup.text.chat import encode_chat
from groundup.text.example import Example, cut_to
from groundup.text.rows import Message, Preference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream


@dataclass(frozen=True)
class Pair:
    """A prompt with each of its two answers; only the answers' tokens are trained on."""

    chosen: Example
    rejected: Example
    source: str = ""


@dataclass(frozen=True)
class PairBatch:
    """Packed sequences, which of them belong together, and what the reference thinks of them.

    `sequences` holds the segment numbers of each pair's chosen and rejected answer, `reference`
    their log-probabilities in nats under the reference model.
    """

    rows: Batch
    sequences: Int[Tensor, "pairs 2"]
    reference: Float[Tensor, "pairs 2"]

    @property
    def weight(self) -> float:
        return float(len(self.sequences))

    @property
    def chosen_tokens(self) -> Float[Tensor, " pairs"]:
        """The number of tokens of each chosen answer."""
        counts = self.rows.weights.new_zeros(int(self.rows.segment_ids.max()) + 1)
        answered = self.rows.weights > 0
        counts.index_add_(0, self.rows.segment_ids[answered], self.rows.weights[answered])
        return counts[self.sequences[:, 0]]

    @property
    def tokens(self) -> int:
        return self.rows.tokens

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(self.rows.to(device), self.sequences.to(device), self.reference.to(device))


class PairStream(DataStream):
    """Micro-batches of whole pairs, a pure function of (seed, step).

    `reference` may be filled in later, but before a pair is read.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        reference: Float[np.ndarray, "pairs 2"],
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        if not pairs:
            raise UserError("the data holds no preference pair to train on; give some")
        self.pairs, self.reference = pairs, reference
        self.context, self.seed = context, seed
        # Two rows at least: the two answers of a pair may be as long as the context.
        self.micro_rows = max(2, min(micro_rows, rows))
        self.per_step = max(1, rows // self.micro_rows)
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)
        self.rows_per_epoch = len(self._epoch(0)) * self.micro_rows

    def at(self, step: int, model: nn.Module) -> list[PairBatch]:
        wanted = range(step * self.per_step, (step + 1) * self.per_step)
        batches = []
        for index in wanted:
            epoch, place = divmod(index, self.rows_per_epoch // self.micro_rows)
            packed = self._epoch(epoch)
            batches.append(self._batch(packed[place % len(packed)]))
        return batches

    def read_by(self, steps: int) -> Int[np.ndarray, " pairs"]:
        """Return the indices of the pairs that `steps` steps read, ascending."""
        batches = steps * self.per_step
        if batches > len(self._epoch(0)):
            return np.arange(len(self.pairs))
        rows = [row for batch in self._epoch(0)[:batches] for row in batch]
        return np.unique(np.array([s // 2 for row in rows for s in row], int))

    def _packed(self, epoch: int) -> list[list[list[int]]]:
        """Return this epoch's micro-batches: lists of rows, which are lists of sequences.

        Sequence 2i is the chosen and 2i + 1 the rejected answer of pair i.
        """
        batches: list[list[list[int]]] = []
        for index in np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs)):
            if not batches or not self._lay(batches[-1], int(index)):
                batches.append([[] for _ in range(self.micro_rows)])
                fits = self._lay(batches[-1], int(index))
                assert fits, "two rows hold any pair"
        return batches

    def _lay(self, rows: list[list[int]], index: int) -> bool:
        """Put both answers of a pair into the fullest rows they fit; return whether they fit."""
        places: list[int] = []
        for sequence in (2 * index, 2 * index + 1):
            need = self._sequence(sequence).inputs
            free = [self.context - sum(self._sequence(s).inputs for s in row) for row in rows]
            fitting = [row for row in range(len(rows)) if free[row] >= need]
            if not fitting:
                for row in places:
                    rows[row].pop()
                return False
            places.append(min(fitting, key=lambda row: free[row]))
            rows[places[-1]].append(sequence)
        return True

    def _sequence(self, number: int) -> Example:
        pair = self.pairs[number // 2]
        return pair.rejected if number % 2 else pair.chosen

    def _batch(self, rows: Sequence[Sequence[int]]) -> PairBatch:
        laid = [sequence for row in rows for sequence in row]
        pairs = sorted({sequence // 2 for sequence in laid})
        sequences = [[laid.index(2 * pair), laid.index(2 * pair + 1)] for pair in pairs]
        return PairBatch(
            packed_batch([[self._sequence(s) for s in row] for row in rows], self.context),
            torch.tensor(sequences),
            torch.from_numpy(self.reference[pairs]),
        )


def tokenize_pairs(tokenizer: Tokenizer, rows: Sequence[Preference], context: int) -> list[Pair]:
    """Pairs as tokens, cut to the context; one whose prompt leaves no room is left out."""
    pairs = []
    for row in rows:
        start = len(encode_chat(tokenizer, row.prompt, generation_prompt=True).ids)
        sides: list[Example] = []
        for answer in (row.chosen, row.rejected):
            whole = encode_chat(tokenizer, [*row.prompt, Message("assistant", answer)])
            # Earlier turns of the assistant belong to the prompt.
            trained = [spoken and i >= start for i, spoken in enumerate(whole.assistant)]
            sides.append(cut_to(Example(whole.ids, trained), context))
        if all(any(side.loss_mask[1:]) for side in sides):
            pairs.append(Pair(sides[0], sides[1], row.source))
    return pairs
