"""The rows that data sets bring, each from a page of its own, asked for by name.

A page beside this one has a function `rows(name, config, rejected, progress)`, which reads or makes
one set and returns its rows by what they are for and by side. To add a set one writes such a page
and an entry of the manifest.
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
# Draws what is held out, whatever seed trains, so that models of other seeds are tested alike.
HELDOUT_SEED = 0


@dataclass(frozen=True)
class Rejected:
    """Rows that could not be used, counted by set and reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, reason: str) -> None:
        self.counts[f"{name}: {reason}"] += 1


@dataclass(frozen=True)
class Rows:
    """The rows of one set, or of several together.

    `never_trained` are texts that are evaluated although no row holds them, and `stock_answers`
    the sentences that are answered to whatever is not known, on both sides alike.
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
    """The page of code of the set `name`, which is imported when it is asked for."""
    page = "own" if name == "own" else find_set(name).page
    return importlib.import_module(f"groundup.data.packs.{page}")


def gather(config: DataConfig, rejected: Rejected, progress: Progress = None) -> Rows:
    """The rows of all chosen sets, without documents that repeat others.

    Beside documents stands what a model says of itself: it is true of one that starts from them.
    Raises UserError as fetching the sets does.
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
    """The sets in the manifest's order; those that it does not order stand first."""
    return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else -1)


def _without_repeats(parts: dict[str, Rows], rejected: Rejected) -> dict[str, Rows]:
    """The parts without documents that say again what another says, on either side."""
    # The held-out side first: what repeats it is taken from the training side.
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
