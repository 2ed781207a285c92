"""Log-probabilities of sentences that differ in few words, on which fairness measures are based.

    log p(sentence) = sum over its tokens of log p(token | all tokens before)

The same plain text is scored for every model, chat or not. A common beginning of sentences costs
all of them the same and is read once: tokens are scored from the first difference on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from jaxtyping import Float

from groundup.evals.continuations import (
    Pair,
    Scored,
    continuation_logprobs,
    encode_pair,
    opening_of,
)
from groundup.evals.measure import Subject


@dataclass(frozen=True)
class Tail:
    """A sentence from its first token that others do not share, with log p of each token."""

    ids: tuple[int, ...]
    logprobs: Float[np.ndarray, " tokens"]

    @property
    def total(self) -> float:
        return float(self.logprobs.sum())


def tails(on: Subject, alternatives: Sequence[Sequence[str]]) -> list[list[Tail]]:
    """The tails of every group of alternatives: sentences that differ in some words."""
    tokenizer = on.tokenizer
    opening = [*tokenizer.opening_ids] or [opening_of(on.model, tokenizer)]
    pairs: list[Pair] = []
    for texts in alternatives:
        ids = [[*opening, *tokenizer.encode(text)] for text in texts]
        shared = _shared_start(ids)
        pairs += [Pair(tuple(one[:shared]), tuple(one[shared:])) for one in ids]
    scored = iter(continuation_logprobs(on.model, pairs, context=on.context))
    found, place = [], iter(pairs)
    for texts in alternatives:
        group = [(next(place), next(scored)) for _ in texts]
        found.append([Tail(pair.continuation, one.logprobs) for pair, one in group])
    return found


def continued(on: Subject, asked: Sequence[tuple[str, str]]) -> list[Scored]:
    """log p of each text after the text before it, which may be empty."""
    opening = opening_of(on.model, on.tokenizer)
    pairs = [encode_pair(on.tokenizer, before, text, opening) for before, text in asked]
    return continuation_logprobs(on.model, pairs, context=on.context)


def of_shared_tokens(one: Tail, other: Tail) -> tuple[float, float]:
    """log p, for both tails, of the tokens that they have in common."""
    # Tokens that the context cuts off have no log p.
    first, second = (tail.ids[: len(tail.logprobs)] for tail in (one, other))
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return (
        float(sum(one.logprobs[block.a : block.a + block.size].sum() for block in blocks)),
        float(sum(other.logprobs[block.b : block.b + block.size].sum() for block in blocks)),
    )


def _shared_start(ids: Sequence[Sequence[int]]) -> int:
    """The length of the common prefix, leaving at least one token of each."""
    most = min(map(len, ids)) - 1
    return next((i for i in range(most) if len({one[i] for one in ids}) > 1), most)
