"""What of the items a model has trained on, as far as its runs tell: checked once, and kept.

Every item is looked for by its longest text, of a conversation all that stands before its answer,
in all texts that the runs of the model's lineage trained on (`overlap` says how).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from groundup.evals.measure import Subject
from groundup.evals.values import overlap
from groundup.evals.values.suite.asking import hashed
from groundup.evals.values.suite.cache import RowCache
from groundup.runs.console import say
from groundup.text.rows import Conversation

# Raised whenever the same texts would be found otherwise.
_VERSION = 1


def seeing(cache: RowCache) -> Callable[[Subject], Mapping[str, Any]]:
    """The measuring function of what a model has seen."""

    def measuring(on: Subject) -> Mapping[str, Any]:
        texts = {name: words_of(items) for name, items in on.material.items.items()}
        key = {
            "task": "overlap",
            "version": _VERSION,
            "model": on(hashed),
            "items": {name: _hash(of_task) for name, of_task in texts.items()},
        }
        kept = cache.read(key)
        if kept is not None:
            return dict(kept[0])
        begun = time.monotonic()
        found = overlap.of_model(
            on.folder, {name: [[text] for text in of_task] for name, of_task in texts.items()}
        ).to_json()
        say(f"values  {found['texts']:,} training texts read in {time.monotonic() - begun:.1f} s")
        cache.write(key, [found])
        return found

    return measuring


def words_of(items: Sequence[Any]) -> list[str]:
    """The longest text of every item, whatever it is made of."""
    return [max(_texts(item), key=len, default="") for item in items]


def _texts(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    elif isinstance(item, list | tuple):
        for part in item:
            yield from _texts(part)
    elif isinstance(item, Conversation):  # an answer may well be right more than once
        yield "\n".join(turn.content for turn in item.messages[:-1])
    elif is_dataclass(item):
        for one in fields(item):
            yield from _texts(getattr(item, one.name))


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="replace")).hexdigest()[:16]
