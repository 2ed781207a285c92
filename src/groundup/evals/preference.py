"""Preferences: does the model find the better of two answers likelier?

    own preference:     log p(chosen | prompt) > log p(rejected | prompt)
    implicit reward:    log p(chosen) - log p_ref(chosen) > log p(rejected) - log p_ref(rejected)

DPO trains the second: its reward is beta times log p / p_ref (Rafailov et al. 2023, section 4),
where the reference is the model that DPO started from. Log-probabilities are sums over the answer,
including its end; IPO's reward uses their means over tokens. A tie counts half, so guessing reaches
0.5. Two baselines need no training: the longer answer, and the preference of the reference itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from groundup.evals.answers import tokenize_answer
from groundup.evals.by_source import by_source
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.report.estimate import BySource
from groundup.text.example import Example
from groundup.text.rows import Preference
from groundup.text.tokenizer import Tokenizer

Margins = Float[np.ndarray, " pairs"]


@dataclass(frozen=True)
class Pairs:
    """Preferences tokenized for one model: all chosen answers, then all rejected ones."""

    items: list[Example]
    rows: list[Preference]


def ready_pairs(rows: Sequence[Preference], tokenizer: Tokenizer, context: int) -> Pairs:
    """Tokenize both answers of every pair."""
    answers = [row.chosen for row in rows] + [row.rejected for row in rows]
    items = [
        tokenize_answer(tokenizer, row.prompt, answer, context)
        for row, answer in zip([*rows, *rows], answers, strict=True)
    ]
    return Pairs(items, list(rows))


def margins(model: CausalLM, pairs: Pairs, *, context: int) -> tuple[Margins, Margins]:
    """log p(chosen) - log p(rejected) of every pair, in nats: of whole answers and per token."""
    scores = score(model, pairs.items, context=context)
    sums = np.array([values.sum() for values in scores])
    means = sums / np.array([max(1, len(values)) for values in scores])
    whole, per_token = (np.subtract(*np.split(one, 2)) for one in (sums, means))
    return whole, per_token


def length_margins(pairs: Pairs) -> Margins:
    """By how many characters the chosen answer is longer: a baseline that needs no model."""
    return np.array([len(row.chosen) - len(row.rejected) for row in pairs.rows], float)


def preference_accuracy(margins: Margins, pairs: Pairs) -> BySource:
    """The share of pairs whose chosen answer has the higher score; a tie counts half."""
    return _by_source(_hits(margins), pairs, chance=0.5)


def preference_gain(margins: Margins, baseline: Margins, pairs: Pairs) -> BySource:
    """The difference in accuracy to a baseline, computed pair by pair."""
    return _by_source(_hits(margins) - _hits(baseline), pairs, chance=None)


def _hits(margins: Margins) -> Float[np.ndarray, " pairs"]:
    found: Float[np.ndarray, " pairs"] = (np.sign(margins) + 1) / 2
    return found


def _by_source(values: np.ndarray, pairs: Pairs, chance: float | None) -> BySource:
    return by_source(
        values,
        [row.source for row in pairs.rows],
        groups=[row.group for row in pairs.rows],
        chances=None if chance is None else np.full(len(values), chance),
        share=chance is not None,
    )
