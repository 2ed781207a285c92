"""Penalties make tokens that occurred before less likely or, with the opposite sign, more likely.

    repetition    z / r  where z > 0,  else  z r       tokens of the prompt and the completion
    frequency     z - f count(token)                   tokens of the completion alone
    presence      z - p  where count(token) > 0        tokens of the completion alone

They change the logits z in this order, as in vLLM. The first is CTRL's (Keskar et al. 2019, section
4.1) and Hugging Face's, with 1 for none; the others are OpenAI's, with 0 for none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Logits = Float[Tensor, "rows vocab"]
PerRow = Float[Tensor, " rows"]
R = TypeVar("R")


def penalized(logits: Logits, seen: Bool[Tensor, "rows vocab"], penalty: float | PerRow) -> Logits:
    """The logits with the repetition penalty on the tokens in `seen`."""
    if isinstance(penalty, Tensor):
        penalty = penalty[:, None]
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def penalized_by_count(
    logits: Logits, counts: Int[Tensor, "rows vocab"], frequency: PerRow, presence: PerRow
) -> Logits:
    """The logits with the frequency and presence penalties on the tokens counted."""
    return logits - frequency[:, None] * counts - presence[:, None] * (counts > 0)


@dataclass
class SeenTokens:
    """The tokens that the rows of a batch have seen, in a table for each kind of penalty.

    `anywhere` marks those of prompt and completion, `counts` counts those of the completion; a
    table that no row's penalty needs is None.
    """

    anywhere: Bool[Tensor, "rows vocab"] | None = None
    counts: Int[Tensor, "rows vocab"] | None = None

    def updated(
        self,
        rows: Sequence[R],
        like: Logits,
        *,
        anywhere: Callable[[R], list[int]] | None,
        counts: Callable[[R], list[int]] | None,
    ) -> SeenTokens:
        """The tables of these rows, filled with the tokens that `anywhere` and `counts` return.

        The callables are called only for new rows, which come last.
        """
        return SeenTokens(
            _table(self.anywhere, rows, anywhere, like, torch.bool),
            _table(self.counts, rows, counts, like, torch.int32),
        )

    def add(self, tokens: Int[Tensor, " rows"]) -> None:
        """Add the token that each row has sampled."""
        if self.anywhere is not None:
            self.anywhere.scatter_(-1, tokens[:, None], True)
        if self.counts is not None:
            one = torch.ones_like(tokens[:, None], dtype=self.counts.dtype)
            self.counts.scatter_add_(-1, tokens[:, None], one)

    def move(self, source: int, target: int) -> None:
        """Copy what one row has seen to the place of another."""
        for table in self._tables():
            table[target] = table[source]

    def keep(self, rows: int) -> SeenTokens:
        """The tables of the first rows."""
        anywhere, counts = (
            None if table is None else table[:rows] for table in (self.anywhere, self.counts)
        )
        return SeenTokens(anywhere, counts)

    def _tables(self) -> list[Tensor]:
        return [table for table in (self.anywhere, self.counts) if table is not None]


def _table(
    known: Tensor | None,
    rows: Sequence[R],
    tokens: Callable[[R], list[int]] | None,
    like: Logits,
    dtype: torch.dtype,
) -> Tensor | None:
    if tokens is None:
        return None
    known = like.new_zeros(0, like.shape[-1], dtype=dtype) if known is None else known
    fresh = torch.zeros(len(rows) - len(known), like.shape[-1], dtype=dtype)
    for seen, row in zip(fresh, rows[len(known) :], strict=True):
        ids = torch.tensor(tokens(row), dtype=torch.int64)
        seen.index_add_(0, ids, torch.ones(len(ids), dtype=dtype))
    return torch.cat([known, fresh.to(like.device)])
