"""The rows of data sets, each from its own module, requested by name.

A module in this folder has a function `rows(name, config, rejected, progress)`, which reads or
generates one set and returns its rows by purpose and side. To add a set, write such a module and an
entry in the manifest.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from types import ModuleType

from groundup.data.config import DataConfig
from groundup.data.packs.manifest import ORDER, GeneratedSet, find_set
from groundup.text.cleaning import repeats
from groundup.text.rows import Choice, Conversation, Document, Preference, RefusalPrompt

Progress = Callable[[str], None] | None
# Seed of held-out data, independent of the training seed, so that all models have the same tests.
HELDOUT_SEED = 0


@dataclass(frozen=True)
class Rejected:
    """Unusable rows, counted by set and reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, reason: str) -> None:
        self.counts[f"{name}: {reason}"] += 1


@dataclass(frozen=True)
class Rows:
    """The rows of one set, or of several together.

    `never_trained` are evaluated texts that no row contains, and `stock_answers` the standard
    replies to unknown questions, which occur on both sides.
    """

    documents: Sequence[Document] = ()
    documents_heldout: Sequence[Document] = ()
    conversations: Sequence[Conversation] = ()
    conversations_heldout: Sequence[Conversation] = ()
    preferences: Sequence[Preference] = ()
    preferences_heldout: Sequence[Preference] = ()
    choices: Sequence[Choice] = ()
    refusals: Sequence[RefusalPrompt] = ()
    unknown: Sequence[Conversation] = ()
    never_trained: Sequence[str] = ()
    stock_answers: Sequence[str] = ()

    @staticmethod
    def together(parts: Sequence[Rows]) -> Rows:
        """All rows of all parts, in their order."""
        return Rows(
            **{
                one.name: list(itertools.chain.from_iterable(getattr(p, one.name) for p in parts))
                for one in fields(Rows)
            }
        )


@functools.cache
def page_of(name: str) -> ModuleType:
    """The module of the set `name`, imported on demand."""
    page = "own" if name == "own" else find_set(name).page
    return importlib.import_module(f"groundup.data.packs.{page}")


def gather(config: DataConfig, rejected: Rejected, progress: Progress = None) -> Rows:
    """The rows of all chosen sets, without documents that repeat others.

    With documents come the dialogues in which a model describes itself: they are true of a model
    trained on them. Raises UserError like fetching.
    """
    chosen = dict.fromkeys(find_set(name).name for name in config.packs)
    found = {name: page_of(name).rows(name, config, rejected, progress) for name in chosen}
    real = [name for name in _ordered(chosen) if not isinstance(find_set(name), GeneratedSet)]
    found |= _without_repeats({name: found[name] for name in real}, rejected)
    if any(part.documents for part in found.values()):
        found["own"] = page_of("own").rows("own", config, rejected, progress)
    whole = Rows.together([found[name] for name in _ordered(found)])
    return replace(whole, refusals=sorted(whole.refusals, key=attrgetter("source")))


def _ordered(names: Iterable[str]) -> list[str]:
    """The sets in the manifest's order; those without a place in it come first."""
    return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else -1)


def _without_repeats(parts: dict[str, Rows], rejected: Rejected) -> dict[str, Rows]:
    """The parts without documents that repeat another's, on either side."""
    # The held-out side comes first, so repeats are removed from the training side.
    heldout = [one for part in parts.values() for one in part.documents_heldout]
    train = [one for part in parts.values() for one in part.documents]
    gone = set()
    ordered = [*heldout, *train]
    for document, again in zip(ordered, repeats([one.text for one in ordered]), strict=True):
        if again:
            rejected.add(document.source, "repeats an earlier text")
            gone.add(id(document))
    return {
        name: replace(
            part,
            documents=[one for one in part.documents if id(one) not in gone],
            documents_heldout=[one for one in part.documents_heldout if id(one) not in gone],
        )
        for name, part in parts.items()
    }
