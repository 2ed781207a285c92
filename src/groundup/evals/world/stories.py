"""Stories, parsed by the same grammar that generated the training stories.

A base model continues the first sentence of a held-out story; one that chats is also asked for a
story. Measured are the share of sentences in the world's grammar, and the share of consistent
stories: nobody is named before being introduced, pronouns agree, things stay.

Judging a text and generating it are separate functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.data.split import evenly_spaced
from groundup.generation.generate import generate
from groundup.generation.request import Completion, Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.maths.intervals import bootstrap_interval
from groundup.report.estimate import Estimate, rate, ratio
from groundup.text.rows import Message, as_dicts
from groundup.text.tokenizer import Tokenizer
from groundup.world.reading import read

# This many stories tell 95 % from 85 %, and all but a few of the longest fit into the tokens.
STORIES = 100
STORY_TOKENS = 220
# All stories of the world have at least this many sentences.
_SHORTEST = 5
_STRANGE = 6  # example sentences kept


@dataclass(frozen=True)
class Stories:
    """The share of sentences in the world's grammar, and the share of consistent stories.

    `strange` are some of the other sentences. Per story, `of_world` counts the sentences in the
    grammar, `all_sentences` all of them, and `agreeing` is 1 for a consistent story.
    """

    sentences: Estimate
    consistent: Estimate
    strange: tuple[str, ...]
    of_world: Float[np.ndarray, " stories"]
    all_sentences: Float[np.ndarray, " stories"]
    agreeing: Float[np.ndarray, " stories"]

    def minus(self, other: Stories) -> dict[str, Estimate]:
        """The differences of both shares to `other`'s, story by story with the same beginnings."""
        count = len(self.agreeing)

        def larger(drawn: np.ndarray) -> float:
            i = drawn.astype(int)
            own = self.of_world[i].sum() / self.all_sentences[i].sum()
            return float(own - other.of_world[i].sum() / other.all_sentences[i].sum())

        found = bootstrap_interval(np.arange(count), larger)
        return {
            "sentences": Estimate(found.estimate, found.low, found.high, count, count),
            "consistent": ratio(self.agreeing - other.agreeing),
        }

    def to_json(self) -> dict[str, Any]:
        """Both shares, and the strange sentences."""
        return {
            "sentences": self.sentences.to_json(),
            "consistent": self.consistent.to_json(),
            "strange": list(self.strange),
        }


def read_back(texts: Sequence[str], *, given: int = 0) -> Stories:
    """Parse stories by the world's grammar, without the `given` first sentences of each.

    A story without sentences counts as one sentence outside the grammar; one of fewer than five
    sentences is not consistent.
    """
    parsed: list[bool] = []
    number: list[int] = []
    consistent, strange = [], []
    for i, text in enumerate(texts):
        reading = read(text)
        own = reading.parsed[given:] or (False,)
        parsed += own
        number += [i] * len(own)
        consistent.append(reading.consistent and len(reading.sentences) >= _SHORTEST)
        strange += [
            s for s, is_own in zip(reading.sentences, reading.parsed, strict=True) if not is_own
        ]
    return Stories(
        rate(np.array(parsed, float), groups=number),
        rate(np.array(consistent, float)),
        tuple(evenly_spaced(strange, _STRANGE)),
        np.bincount(number, weights=parsed),
        np.bincount(number).astype(float),
        np.array(consistent, float),
    )


def first_sentence(text: str) -> str:
    """The first sentence of a story."""
    return read(text).sentences[0]


def continued(
    model: CausalLM, tokenizer: Tokenizer, begun: Sequence[str], *, seed: int
) -> Stories | None:
    """Continuations of first sentences, sampled at temperature 0.7; None without any."""
    if not begun:
        return None
    requests = [Request(prompt=text, sampling=_warm(seed)) for text in begun]
    drawn = generate(model, requests, tokenizer, batch_size=64)
    texts = [f"{text} {_whole(one)}" for text, one in zip(begun, drawn, strict=True)]
    return read_back(texts, given=1)


def told(
    model: CausalLM, tokenizer: Tokenizer, asked: Sequence[Sequence[Message]], *, seed: int
) -> Stories | None:
    """Stories told on request, sampled at temperature 0.7; None without any."""
    if not asked:
        return None
    requests = [Request(messages=as_dicts(one), sampling=_warm(seed)) for one in asked]
    return read_back([_whole(one) for one in generate(model, requests, tokenizer, batch_size=64)])


def _warm(seed: int) -> Sampling:
    return Sampling(temperature=0.7, max_new_tokens=STORY_TOKENS, seed=seed)


def _whole(story: Completion) -> str:
    """The text without a last sentence that the token limit cut off."""
    text = story.text.strip()
    if story.finish_reason == "stop":
        return text
    ended = re.match(r'.*[.!?]"?(?=\s|$)', text, re.DOTALL)
    return ended[0] if ended else ""
