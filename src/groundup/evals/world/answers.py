"""The small world: its truth is known, so a model's answers can be judged.

A model that chats answers held-out conversations greedily, and the world's own gold reward judges
each answer. Of the world's harmful requests and benign look-alikes, the declined ones are counted.
Every model also tells stories (see `stories.py`).

Judging a text and generating it are separate functions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from groundup.data.split import evenly_spaced
from groundup.evals.measure import to_json
from groundup.evals.safety import refused
from groundup.evals.world.stories import STORIES, STORY_TOKENS, Stories, continued, told
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.report.estimate import POOLED, BySource, Estimate, rate, ratio
from groundup.text.rows import Conversation, RefusalPrompt, as_dicts
from groundup.text.tokenizer import Tokenizer
from groundup.world import conduct, gold
from groundup.world.questions import parse
from groundup.world.reading import read

TELL, CONDUCT = "world-tell", "world-conduct"
PARTS = ("total", "correct", "instruction", "kindness", "harmless")
_MISTAKES = 3  # examples kept per source


@dataclass(frozen=True)
class World:
    """The small world's side of the held-out material.

    `majority` is each source's most frequent answer, `beginnings` are first sentences of stories,
    `bias` is the strength of the planted prejudice.
    """

    rows: Sequence[Conversation]
    majority: Mapping[str, str]
    beginnings: Sequence[str]
    requests: Sequence[RefusalPrompt]
    bias: float


def majority_answers(rows: Sequence[Conversation]) -> dict[str, str]:
    """The most frequent last answer of each source."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row.source, Counter())[row.messages[-1].content] += 1
    return {source: counts.most_common(1)[0][0] for source, counts in sorted(found.items())}


# Answers.


@dataclass(frozen=True)
class Judged:
    """Answers to held-out conversations with their gold rewards, item by item."""

    rows: Sequence[Conversation]
    answers: Sequence[str]
    rewards: Sequence[gold.Reward]

    def right(self) -> Float[np.ndarray, " items"]:
        """1 for a right answer, else 0; without a single right answer, the instruction reward.

        A story told on request is right if everything named is in it. The value is nan where
        nothing applies, and for requests, for which `Declined` counts what was declined.
        """
        found = np.full(len(self.rows), np.nan)
        for i, (row, reward) in enumerate(zip(self.rows, self.rewards, strict=True)):
            if row.source == TELL:
                found[i] = _has_all_named(row, self.answers[i])
            elif reward.correct is not None:
                found[i] = reward.correct == 1
            elif reward.instruction is not None and row.source != CONDUCT:
                found[i] = reward.instruction
        return found

    def accuracy(self) -> BySource:
        """The mean of `right` where it applies, pooled and by source."""
        return self._means(self.right())

    def reward(self, part: str) -> BySource:
        """The mean of one of the `PARTS` of the reward, pooled and by source."""
        return self._means(self.worth(part))

    def worth(self, part: str) -> Float[np.ndarray, " items"]:
        """One part of each answer's reward; nan where it does not apply."""
        values = [getattr(reward, part) for reward in self.rewards]
        return np.array([np.nan if value is None else value for value in values], float)

    def change(self, difference: Float[np.ndarray, " items"]) -> BySource:
        """The mean difference of two models, pooled and by source, where both were judged."""
        return self._means(difference, ratio)

    def mistakes(self) -> dict[str, list[dict[str, str]]]:
        """Some wrong answers per source, with the question and the right answer."""
        right, found = self.right(), dict[str, list[dict[str, str]]]()
        for i in np.flatnonzero(right < 1):
            row, wrong = self.rows[int(i)], found.setdefault(self.rows[int(i)].source, [])
            if len(wrong) < _MISTAKES:
                asked, wanted = row.messages[-2].content, row.messages[-1].content
                wrong.append({"asked": asked, "wanted": wanted, "said": self.answers[int(i)]})
        return found

    def _means(
        self, values: Float[np.ndarray, " items"], mean: Callable[..., Estimate] = rate
    ) -> BySource:
        found = {}
        for source in (POOLED, *sorted({row.source for row in self.rows})):
            asked = np.array([source in (POOLED, row.source) for row in self.rows], bool)
            at = np.flatnonzero(asked & ~np.isnan(values))
            if len(at):
                found[source] = mean(values[at], groups=[self.rows[int(i)].group for i in at])
        return found


def _has_all_named(row: Conversation, story: str) -> float:
    """Whether the character, thing and weather asked for are in a story; nan if none was named."""
    asked = parse(row.messages[:-1])
    named = {} if asked is None else asked.values
    words = re.findall(r"[a-z]+", story.lower())
    kept = [named[slot].lower().split()[-1] in words for slot in ("who", "thing") if slot in named]
    if named.get("weather"):
        record = read(story).record
        kept.append(record is not None and record.weather == named["weather"])
    return float(all(kept)) if kept else np.nan


def judged(rows: Sequence[Conversation], answers: Sequence[str]) -> Judged:
    """Judge answers to all but the last message of each conversation by the gold reward."""
    pairs = zip(rows, answers, strict=True)
    return Judged(rows, answers, [gold.judge(row.messages[:-1], text) for row, text in pairs])


def majority_judged(world: World) -> Judged:
    """The baseline that always gives a source's most frequent answer."""
    return judged(world.rows, [world.majority[row.source] for row in world.rows])


def answers(model: CausalLM, tokenizer: Tokenizer, rows: Sequence[Conversation]) -> list[str]:
    """Greedy answers, limited to the longest right one of the source plus a few tokens."""
    lengths: dict[str, int] = {}
    for row in rows:
        length = len(tokenizer.encode(row.messages[-1].content)) + 8
        lengths[row.source] = min(STORY_TOKENS, max(length, lengths.get(row.source, 0)))
    requests = [
        Request(
            messages=as_dicts(row.messages[:-1]),
            sampling=Sampling(temperature=0, max_new_tokens=lengths[row.source]),
        )
        for row in rows
    ]
    return [one.text.strip() for one in generate(model, requests, tokenizer, batch_size=64)]


# Conduct.


@dataclass(frozen=True)
class Declined:
    """Which requests of a kind were declined, and the act that each is about."""

    flags: Bool[np.ndarray, " prompts"]
    acts: Sequence[str]

    def rate(self) -> Estimate:
        """The share declined, with an interval that resamples whole acts."""
        return rate(self.flags.astype(float), groups=self.acts)

    def above(self, other: Declined) -> Estimate:
        """The difference to `other` on the same requests."""
        return ratio(self.flags.astype(float) - other.flags.astype(float), groups=self.acts)


def declined(
    model: CausalLM,
    tokenizer: Tokenizer,
    requests: Sequence[RefusalPrompt],
    says_no: Callable[[str, str], bool] | None = None,
) -> dict[str, Declined]:
    """What the model declines of each kind when it answers greedily."""
    found = refused(model, tokenizer, requests, says_no)
    return {
        kind: Declined(flags, [one.group for one in requests if one.kind == kind])
        for kind, flags in found.items()
    }


# All of it.


@dataclass(frozen=True)
class InWorld:
    """One model's results in the small world; a base model has no answers."""

    continued: Stories | None
    told: Stories | None
    answers: Judged | None
    declined: Mapping[str, Declined]

    def to_json(self) -> dict[str, Any]:
        """Every number, and some of the mistakes."""
        told, said = self.told, self.answers
        return {
            "stories_continued": None if self.continued is None else self.continued.to_json(),
            "stories_told": None if told is None else told.to_json(),
            "accuracy": {} if said is None else to_json(said.accuracy()),
            "reward": {} if said is None else {p: to_json(said.reward(p)) for p in PARTS},
            "declined": to_json({kind: one.rate() for kind, one in self.declined.items()}),
            "mistakes": {} if said is None else said.mistakes(),
        }


def in_world(
    model: CausalLM, tokenizer: Tokenizer, world: World, *, chats: bool, seed: int
) -> InWorld:
    """Measure stories and, for a model that `chats`, answers and conduct."""
    begun = continued(model, tokenizer, world.beginnings, seed=seed)
    if not chats:
        return InWorld(begun, None, None, {})
    asked = [row.messages[:-1] for row in world.rows if row.source == TELL]
    said = answers(model, tokenizer, world.rows)
    return InWorld(
        begun,
        told(model, tokenizer, evenly_spaced(asked, STORIES), seed=seed),
        judged(world.rows, said) if world.rows else None,
        declined(model, tokenizer, world.requests, conduct.declines),
    )
