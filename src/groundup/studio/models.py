"""Models that are loaded when somebody talks to them, a few at a time."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from groundup.serve.worker import Served

_MOST = 3
# Of a model's file: weights are read beside what they become.
_ROOM = 2


class _Known(NamedTuple):
    folder: Path
    stamp: object
    served: Served


class OnDemand:
    """The models of `folders`, by name, as `open` loads them.

    Of those that are loaded the least recently used is given back where there are too many, or
    where the next one has no room in memory; one that answers still is kept until it has.
    """

    def __init__(
        self,
        folders: Callable[[], Mapping[str, Path]],
        open: Callable[[str, Path], Served],
        most: int = _MOST,
    ) -> None:
        self._folders, self._open, self._most = folders, open, most
        self._loaded = OrderedDict[str, _Known]()
        self._loading = asyncio.Lock()

    def names(self) -> Collection[str]:
        return self._folders()

    def loaded(self, name: str) -> Served | None:
        known = self._loaded.get(name)
        # A model that was trained anew since is another one.
        return known.served if known is not None and known.stamp == _stamp(known.folder) else None

    async def load(self, name: str) -> Served:
        async with self._loading:
            served = self.loaded(name)
            if served is None:
                self._loaded.pop(name, None)
                folder = self._folders()[name]
                self._make_room(folder)
                stamp = _stamp(folder)
                served = await asyncio.to_thread(self._open, name, folder)
                self._loaded[name] = _Known(folder, stamp, served)
            self._loaded.move_to_end(name)
            return served

    def _make_room(self, folder: Path) -> None:
        needed = _ROOM * sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        while self._loaded and (
            len(self._loaded) >= self._most or psutil.virtual_memory().available < needed
        ):
            self._loaded.popitem(last=False)
            gc.collect()


def _stamp(folder: Path) -> object:
    files = sorted(folder.glob("*.safetensors"))
    return [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
