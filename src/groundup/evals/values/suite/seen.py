"""What of the items a model has trained on, as far as its runs tell: checked once, and kept.

Every item is looked for by the texts of it that training could hold, in all texts that the runs of
the model's lineage trained on (`overlap` says how). The words that a task asks in are not searched:
who trains on a question has it bare, and a conversation turn by turn.
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

# Raised whenever the same texts would be found otherwise.
_VERSION = 3


def seeing(cache: RowCache) -> Callable[[Subject], Mapping[str, Any]]:
    """The measuring function of what a model has seen."""

    def measuring(on: Subject) -> Mapping[str, Any]:
        texts = {
            name: [trained_texts(item) for item in items]
            for name, items in on.material.items.items()
        }
        trained = overlap.trained_on(on.folder)
        key = {
            "task": "overlap",
            "version": _VERSION,
            "model": on(hashed),
            # The same weights may lie elsewhere without their story, and data may change.
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


# What training could hold of an item, by what the items of a task are.


@functools.singledispatch
def trained_texts(item: Any) -> Sequence[str]:
    """The texts of an item any of which, found in training, says that it was trained on."""
    raise TypeError(
        f"nothing says what training could hold of an item of type {type(item).__name__}"
    )


_ASKED = re.compile(r"(?:(.+)\n)?(?:Question|Q): (.+)\n(?:Answer|A):", re.DOTALL)


@trained_texts.register(Choice)
def _(item: Choice) -> Sequence[str]:
    """The bare question and, where it has one before it, its passage."""
    asked = _ASKED.fullmatch(item.prompt)
    return [part for part in asked.groups() if part] if asked else [item.prompt]


@trained_texts.register(Conversation)
def _(item: Conversation) -> Sequence[str]:
    """What is asked last: an answer may well be right more than once."""
    return [[turn.content for turn in item.messages if turn.role == "user"][-1]]


@trained_texts.register(instructions.Item)
@trained_texts.register(refusal.RefusalItem)
@trained_texts.register(RefusalPrompt)
def _(item: instructions.Item | refusal.RefusalItem | RefusalPrompt) -> Sequence[str]:
    return [item.prompt]


@trained_texts.register(jailbreak.Attack)
def _(item: jailbreak.Attack) -> Sequence[str]:
    """The request as it is, and as it is dressed up."""
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
    """Both sentences, of which the world tells one or the other, as was planted."""
    return [f"{item.start} {option}" for option in item.options]
