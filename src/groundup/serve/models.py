"""The models that a server answers with, by the names that clients request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from groundup.serve.worker import Served


@runtime_checkable
class Models(Protocol):
    """Models by name, each of which may be loaded when it is first requested."""

    async def names(self) -> Collection[str]:
        """All names that can be requested."""

    def loaded(self, name: str) -> Served | None:
        """A loaded model; None if it would have to be loaded first."""

    async def load(self, name: str) -> Served | None:
        """The model with this name; None if there is none."""


class Loaded:
    """Models that are all loaded from the beginning."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = {one.name: one for one in models}

    async def names(self) -> Collection[str]:
        return self._models

    def loaded(self, name: str) -> Served | None:
        return self._models.get(name)

    async def load(self, name: str) -> Served | None:
        return self._models.get(name)
