"""How likely a model finds sentences that differ in little: what measures of fairness are made of.

    log p(sentence) = sum over its tokens of log p(token | all tokens before)

The same plain text is scored for every model, chat or not. What two sentences share at their
beginning costs both the same and is read once: only tokens from the first that differs are scored.
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
    """A sentence from the first token on that others do not share, with log p of each token."""

    ids: tuple[int, ...]
    logprobs: Float[np.ndarray, " tokens"]

    @property
    def total(self) -> float:
        return float(self.logprobs.sum())


def tails(on: Subject, alternatives: Sequence[Sequence[str]]) -> list[list[Tail]]:
    """The tails of every group of alternatives, which are the same sentence but for some words."""
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
    """log p of each text after the one before it, which may be empty."""
    opening = opening_of(on.model, on.tokenizer)
    pairs = [encode_pair(on.tokenizer, before, text, opening) for before, text in asked]
    return continuation_logprobs(on.model, pairs, context=on.context)


def of_shared_tokens(one: Tail, other: Tail) -> tuple[float, float]:
    """log p of the tokens that both tails have in common, in either."""
    # What the context cuts off has no log p.
    first, second = (tail.ids[: len(tail.logprobs)] for tail in (one, other))
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return (
        float(sum(one.logprobs[block.a : block.a + block.size].sum() for block in blocks)),
        float(sum(other.logprobs[block.b : block.b + block.size].sum() for block in blocks)),
    )


def _shared_start(ids: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with, so that each has one left at least."""
    most = min(map(len, ids)) - 1
    return next((i for i in range(most) if len({one[i] for one in ids}) > 1), most)
