"""Prefill: prompts are read into the cache before a completion's first token can be sampled.

Prompts are read in a small cache of their own, a piece at a time, so that running completions do
not wait for a long prompt. Nothing is computed twice: equal prompts are read once, and a prefix
that a row of the running batch has already read is copied.

    shared      what is copied
    ├──────────────┤──────────────────┤
    0            start             len(prompt)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.generation.request import SequenceState
from groundup.lm.cache import Cache
from groundup.lm.model import CausalLM, uncompiled
from groundup.train.batch import Batch

# Computing shorter prefixes, such as the opening of every chat, is cheaper than looking them up.
MIN_SHARED = 16
# Tokens in one forward pass over prompts. More are not faster per token and take more memory.
TOKENS_AT_ONCE = 2_048
# Prompts up to this length are read together whatever their lengths are.
_SHORT = 32


@dataclass
class Prompt:
    """A prompt to be read, for one or several equal requests.

    `source` is the row of the running cache whose first `shared` tokens are the same.
    """

    rows: list[SequenceState]
    source: int = 0
    shared: int = 0

    @property
    def ids(self) -> list[int]:
        return self.rows[0].prompt

    @property
    def left(self) -> int:
        return len(self.ids) - self.shared


def schedule(
    waiting: Iterable[SequenceState], resident: Sequence[SequenceState], places: int, *, share: bool
) -> list[Prompt]:
    """The prompts to read next: the first in the queue, and others of like length with it.

    A prompt that shares a long prefix with a chosen one keeps waiting: in the next round its prefix
    is in the running cache.
    """
    held = [row.tokens[: row.read] for row in resident] if share else []
    chosen: list[Prompt] = []
    for row in waiting:
        if places == 0:
            break
        equal = [one for one in chosen if share and one.ids == row.prompt]
        if equal:
            equal[0].rows.append(row)
            places -= 1
        if equal or not _has_room(chosen):
            continue
        prompt = _with_prefix(row, held)
        if chosen and (not _fits(prompt, chosen) or (share and _can_share_later(prompt, chosen))):
            continue
        chosen.append(prompt)
        places -= 1
    return chosen


def _with_prefix(row: SequenceState, held: Sequence[list[int]]) -> Prompt:
    """A prompt with its longest prefix in the running cache."""
    found = Prompt([row])
    # The last token is always read: its hidden state predicts the next one.
    wanted = row.prompt[:-1]
    for place, tokens in enumerate(held):
        shared = shared_length(wanted, tokens)
        if shared >= max(MIN_SHARED, found.shared + 1):
            found.source, found.shared = place, shared
    return found


def _has_room(chosen: Sequence[Prompt]) -> bool:
    longest = max((one.left for one in chosen), default=0)
    return longest * (len(chosen) + 1) <= TOKENS_AT_ONCE


def _fits(prompt: Prompt, chosen: Sequence[Prompt]) -> bool:
    lengths = [prompt.left, *(one.left for one in chosen)]
    longest, shortest = max(lengths), min(lengths)
    alike = longest <= max(_SHORT, 2 * shortest)
    return alike and longest * len(lengths) <= TOKENS_AT_ONCE


def _can_share_later(prompt: Prompt, chosen: Sequence[Prompt]) -> bool:
    worth_it = prompt.shared + MIN_SHARED
    return any(shared_length(prompt.ids[:-1], one.ids) >= worth_it for one in chosen)


def shared_length(one: list[int], other: list[int]) -> int:
    """The length of the common prefix of two sequences; 0 below `MIN_SHARED`."""
    if one[:MIN_SHARED] != other[:MIN_SHARED]:
        return 0
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Prefill:
    """Prompts that are being read, in a cache of their own."""

    def __init__(self, model: CausalLM, prompts: Sequence[Prompt], running: Cache) -> None:
        self.prompts, self._model = prompts, model
        self.width = max(prompt.left for prompt in prompts)
        # A row whose remainder is shorter than the widest starts earlier and recomputes a part of
        # its prefix instead of being padded; only a short prompt without a prefix is padded.
        self._starts = [max(0, len(prompt.ids) - self.width) for prompt in prompts]
        slots = max(self.width, *(len(prompt.ids) for prompt in prompts))
        self.cache = model.empty_cache(len(prompts), slots)
        for row, prompt in enumerate(prompts):
            if prompt.shared:
                self.cache.copy_rows(row, running, [prompt.source], prompt.shared)
        self._hidden = model.like.new_zeros(len(prompts), model.config.hidden_size)
        self._columns = 0

    @property
    def rows(self) -> list[SequenceState]:
        return [row for prompt in self.prompts for row in prompt.rows]

    @property
    def done(self) -> bool:
        return self._columns == self.width

    @property
    def tokens_left(self) -> int:
        return len(self.prompts) * (self.width - self._columns)

    @property
    def hidden(self) -> Float[Tensor, "prompts width"]:
        """The state after each prompt, from which its first token is sampled."""
        assert self.done
        return self._hidden

    def advance(self, tokens: int) -> int:
        """Read about `tokens` tokens, at least one per row; returns the number read."""
        begin = self._columns
        end = min(self.width, begin + max(1, tokens // len(self.prompts)))
        ids = torch.zeros(len(self.prompts), end - begin, dtype=torch.int64)
        lengths = []
        for row, (prompt, start) in enumerate(zip(self.prompts, self._starts, strict=True)):
            piece = prompt.ids[start + begin : start + end]
            ids[row, : len(piece)] = torch.tensor(piece, dtype=torch.int64)
            lengths.append(len(piece))
        positions = torch.tensor(self._starts)[:, None] + torch.arange(begin, end)
        hidden = read(self._model, Batch.at(ids, positions, lengths), self.cache)
        for row, (prompt, start) in enumerate(zip(self.prompts, self._starts, strict=True)):
            last = len(prompt.ids) - 1 - start
            if begin <= last < end:
                self._hidden[row] = hidden[row, last - begin]
        self._columns = end
        return ids.numel()


def read(model: CausalLM, batch: Batch, cache: Cache) -> Float[Tensor, "rows time width"]:
    """Run tokens through the model, continuing the cache's first rows."""
    with uncompiled(model):
        hidden: Tensor = model(batch.to(model.like.device), cache)
    return hidden
