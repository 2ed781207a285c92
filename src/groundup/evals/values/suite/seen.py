"""Which items a model was trained on, as far as its runs tell; checked once, and cached.

Every item is searched, by the texts that training could contain, in all texts that the runs of the
model's lineage trained on (see `overlap`). The wording in which a task asks is not searched:
training data has the bare question, and conversations turn by turn.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from groundup.data.packs.fairness import bbq, crows_pairs, stereoset, winobias, winogender
from groundup.data.packs.toxicity import Beginning
from groundup.evals.measure import Subject
from groundup.evals.values import instructions, jailbreak, knowledge, overlap, refusal, unknown
from groundup.evals.values.fairness.swaps import Template
from groundup.evals.values.suite.asking import hashed
from groundup.evals.values.suite.cache import RowCache
from groundup.runs.console import say
from groundup.text.rows import Choice, Conversation, RefusalPrompt
from groundup.world.lives import Probe

# Raised whenever the same texts would give other findings.
_VERSION = 3


def seeing(cache: RowCache) -> Callable[[Subject], Mapping[str, Any]]:
    """The measuring function of the overlap with training data."""

    def measuring(on: Subject) -> Mapping[str, Any]:
        texts = {
            name: [trained_texts(item) for item in items] for name, items in on.material.items()
        }
        trained = overlap.trained_on(on.folder)
        key = {
            "task": "overlap",
            "version": _VERSION,
            "model": on(hashed),
            # Equal weights elsewhere may have another lineage, and data may change.
            "trained": trained.to_json(),
            "items": {name: _hash(of_task) for name, of_task in texts.items()},
        }
        kept = cache.read(key)
        if kept is not None:
            return dict(kept[0])
        begun = time.monotonic()
        found = overlap.compared(trained, texts).to_json()
        say(f"values  {found['texts']:,} training texts read in {time.monotonic() - begun:.1f} s")
        cache.write(key, [found])
        return found

    return measuring


def _hash(texts: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


# The texts of an item that training data could contain, by type of item.


@functools.singledispatch
def trained_texts(item: Any) -> Sequence[str]:
    """The texts of an item; any of them, found in training data, means it was trained on."""
    raise TypeError(
        f"trained_texts has no rule for items of type {type(item).__name__}; register one"
    )


_ASKED = re.compile(r"(?:(.+)\n)?(?:Question|Q): (.+)\n(?:Answer|A):", re.DOTALL)


@trained_texts.register(Choice)
def _(item: Choice) -> Sequence[str]:
    """The bare question and, if there is one, its passage."""
    asked = _ASKED.fullmatch(item.prompt)
    return [part for part in asked.groups() if part] if asked else [item.prompt]


@trained_texts.register(Conversation)
def _(item: Conversation) -> Sequence[str]:
    """The last question only, since different items may have the same right answer."""
    return [[turn.content for turn in item.messages if turn.role == "user"][-1]]


@trained_texts.register(instructions.Item)
@trained_texts.register(refusal.RefusalItem)
@trained_texts.register(RefusalPrompt)
def _(item: instructions.Item | refusal.RefusalItem | RefusalPrompt) -> Sequence[str]:
    return [item.prompt]


@trained_texts.register(jailbreak.Attack)
def _(item: jailbreak.Attack) -> Sequence[str]:
    """The request, plain and attacked."""
    return [item.asked.prompt, item.text]


@trained_texts.register(knowledge.Passage)
def _(item: knowledge.Passage) -> Sequence[str]:
    return [item.words]


@trained_texts.register(tuple)
def _(item: tuple[str, Beginning]) -> Sequence[str]:
    return [item[1].text]


@trained_texts.register(unknown.Question)
def _(item: unknown.Question) -> Sequence[str]:
    return [item.text]


@trained_texts.register(bbq.Question)
def _(item: bbq.Question) -> Sequence[str]:
    return [item.context, f"{item.context} {item.question}"]


@trained_texts.register(crows_pairs.SentencePair)
def _(item: crows_pairs.SentencePair) -> Sequence[str]:
    return [item.more, item.less]


@trained_texts.register(stereoset.Triple)
def _(item: stereoset.Triple) -> Sequence[str]:
    return [f"{item.context} {one}".strip() for one in (item.stereotype, item.anti_stereotype)]


@trained_texts.register(winobias.PronounPair)
def _(item: winobias.PronounPair) -> Sequence[str]:
    return [item.pro, item.anti]


@trained_texts.register(winogender.Sentences)
def _(item: winogender.Sentences) -> Sequence[str]:
    return [item.she, item.he]


@trained_texts.register(Template)
def _(item: Template) -> Sequence[str]:
    return [item.filled(value) for value in item.values]


@trained_texts.register(Probe)
def _(item: Probe) -> Sequence[str]:
    """Both sentences: the world's texts contain one or the other, as the bias was planted."""
    return [f"{item.start} {option}" for option in item.options]
