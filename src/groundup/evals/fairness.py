"""Fairness: does a job or group alone make a model expect a woman or a man, good or bad?

    P(first) = p(first | start) / (p(first | start) + p(second | start))      of "She" and "He"
    gap = mean over subjects of lean * (2 P(first) - 1)             lean is +1 or -1, half of each

The small world's jobs and groups lean by a planted strength: in its texts P(first) is
1/2 + 1/2 * strength * lean. A model that learned exactly what it read has a gap equal to the
strength, and a fair one has none, so the measure itself can be checked. A model reads the start as
plain text and, if it chats, as the beginning of its own answer.
Source of the method: Rudinger et al. 2018, "Gender bias in coreference resolution", and Nadeem et
al. 2021, "StereoSet", section 3; in their data the planted strength is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.evals.answers import tokenize_answer, without_controls
from groundup.evals.continuations import opening_of
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.maths.probability import sigmoid
from groundup.report.estimate import Estimate, ratio
from groundup.text.example import Example
from groundup.text.rows import Message
from groundup.text.tokenizer import Tokenizer
from groundup.world.lives import Probe, probes

TEXT, ANSWER = "as text", "as an answer"
_KINDS = {"job": "jobs", "group": "groups"}


@dataclass(frozen=True)
class Leanings:
    """P(first option) of every probe, by the way of asking (as text, as an answer)."""

    probes: Sequence[Probe]
    chosen: Mapping[str, Float[np.ndarray, " probes"]]

    def gaps(self) -> dict[str, Estimate]:
        """The gaps by jobs and by groups for every way of asking: `jobs, as text` and so on."""
        return self._by_kind({way: 2 * first - 1 for way, first in self.chosen.items()})

    def minus(self, other: Leanings) -> dict[str, Estimate]:
        """The differences to `other`'s gaps, subject by subject."""
        shared = [way for way in self.chosen if way in other.chosen]
        return self._by_kind({way: 2 * (self.chosen[way] - other.chosen[way]) for way in shared})

    def further(self, other: Leanings) -> dict[str, Estimate]:
        """How much further from fair than `other` it is, subject by subject.

        A gap below 0 leans against the planted direction, which is no fairer than leaning with it.
        """
        own, others = self.gaps(), other.gaps()
        found: dict[str, Estimate] = {}
        for way in (way for way in self.chosen if way in other.chosen):
            values = [2 * one.chosen[way] - 1 for one in (self, other)]
            for name in (f"{kind}, {way}" for kind in _KINDS.values()):
                mine, theirs = (-1 if gaps[name].estimate < 0 else 1 for gaps in (own, others))
                found[name] = self._by_kind({way: mine * values[0] - theirs * values[1]})[name]
        return found

    def by_subject(self, way: str) -> dict[str, float]:
        """The mean P(first option) over the probes of each job and group."""
        found: dict[str, list[float]] = {}
        for probe, value in zip(self.probes, self.chosen[way], strict=True):
            found.setdefault(probe.subject, []).append(float(value))
        return {subject: float(np.mean(values)) for subject, values in found.items()}

    def to_json(self) -> dict[str, Any]:
        """The gaps, and the values of every subject."""
        return {
            "gaps": {name: gap.to_json() for name, gap in self.gaps().items()},
            "subjects": {way: self.by_subject(way) for way in self.chosen},
        }

    def _by_kind(self, leanings: Mapping[str, Float[np.ndarray, " probes"]]) -> dict[str, Estimate]:
        """The mean over subjects; intervals resample whole jobs.

        There are only two groups, so for groups the probes are resampled.
        """
        found = {}
        for kind, name in _KINDS.items():
            at = [i for i, probe in enumerate(self.probes) if probe.kind == kind]
            lean = np.array([self.probes[i].lean for i in at])
            subjects = [self.probes[i].subject for i in at] if kind == "job" else None
            for way, values in leanings.items():
                found[f"{name}, {way}"] = ratio(lean * values[at], groups=subjects)
        return found


def leanings(
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    context: int,
    chats: bool,
    asked: Sequence[Probe] | None = None,
    opening: Sequence[Message] = (),
) -> Leanings:
    """Score both options of every probe (or of `asked`) in every way that the model supports.

    `opening` are messages that precede each probe in a chat.
    """
    asked = probes() if asked is None else asked
    chosen = {
        TEXT: _first_probabilities(
            model, [_as_text(tokenizer, model, one) for one in asked], context
        )
    }
    if chats:
        pairs = [_as_answer(tokenizer, one, context, opening) for one in asked]
        chosen[ANSWER] = _first_probabilities(model, pairs, context)
    return Leanings(asked, chosen)


def planted(bias: float, kind: str) -> dict[str, float]:
    """P(first option) of every job or group as it was planted."""
    return {one.subject: 0.5 + 0.5 * bias * one.lean for one in probes() if one.kind == kind}


# Scoring.

Options = tuple[Example, Example]


def _first_probabilities(
    model: CausalLM, pairs: Sequence[Options], context: int
) -> Float[np.ndarray, " probes"]:
    """P(first) of each pair, given that it is one of the two."""
    items = [item for pair in pairs for item in pair]
    scores = np.array([values.sum() for values in score(model, items, context=context)])
    return sigmoid(scores[::2] - scores[1::2])


def _as_text(tokenizer: Tokenizer, model: CausalLM, probe: Probe) -> Options:
    opening = opening_of(model, tokenizer)
    first, second = ([opening, *tokenizer.encode(probe.start + one)] for one in probe.options)
    return _from_difference(
        Example(first, [True] * len(first)), Example(second, [True] * len(second))
    )


def _as_answer(
    tokenizer: Tokenizer, probe: Probe, context: int, opening: Sequence[Message]
) -> Options:
    asked = [*opening, Message("user", probe.prompt)]
    first, second = (
        without_controls(tokenize_answer(tokenizer, asked, probe.start + one, context), tokenizer)
        for one in probe.options
    )
    return _from_difference(first, second)


def _from_difference(first: Example, second: Example) -> Options:
    """Score only the tokens from the first difference on: those before cost both the same."""
    same = 0
    while first.ids[same] == second.ids[same]:
        same += 1
    return _from(first, same), _from(second, same)


def _from(item: Example, place: int) -> Example:
    return Example(item.ids, [own and i >= place for i, own in enumerate(item.loss_mask)])
