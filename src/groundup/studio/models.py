"""Models that are loaded when a user needs them, a few at a time."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from groundup.errors import UserError
from groundup.runs.content import bases
from groundup.serve.worker import Served

_MAX = 3
# Memory in sizes of a model's file: weights are read into buffers next to the model's own.
_ROOM = 2


class _Known(NamedTuple):
    folder: Path
    stamp: object
    served: Served


class OnDemand:
    """The models of `folders`, by name, loaded by `open`.

    If too many are loaded, or the next one has no room in memory, the least recently used is
    released; one that is still answering is kept until it has finished.
    """

    def __init__(
        self,
        folders: Callable[[], Mapping[str, Path]],
        open: Callable[[str, Path], Served],
        most: int = _MAX,
    ) -> None:
        self._folders, self._open, self._most = folders, open, most
        self._loaded = OrderedDict[str, _Known]()
        self._loading = asyncio.Lock()

    async def names(self) -> Collection[str]:
        return await asyncio.to_thread(self._folders)

    def loaded(self, name: str) -> Served | None:
        known = self._loaded.get(name)
        # A model that was trained again since is another one.
        return (
            known.served
            if known is not None and known.stamp == weights_stamp(known.folder)
            else None
        )

    async def load(self, name: str) -> Served | None:
        served = self.loaded(name)
        if served is None:
            async with self._loading:
                served = self.loaded(name) or await self._read(name)
        if served is not None:
            self._loaded.move_to_end(name)
        return served

    async def _read(self, name: str) -> Served | None:
        self._loaded.pop(name, None)
        folder = (await asyncio.to_thread(self._folders)).get(name)
        if folder is None:
            return None
        self._make_room(name, folder)
        stamp = weights_stamp(folder)
        served = await asyncio.to_thread(self._open, name, folder)
        # Several threads may compute with it, and none may switch its mode for the others.
        served.model.eval()
        self._loaded[name] = _Known(folder, stamp, served)
        return served

    def _make_room(self, name: str, folder: Path) -> None:
        needed = _ROOM * sum(size for _, size, _ in weights_stamp(folder))
        while self._loaded and (
            len(self._loaded) >= self._most or psutil.virtual_memory().available < needed
        ):
            self._loaded.popitem(last=False)
            gc.collect()
        free = psutil.virtual_memory().available
        if free < needed:
            raise UserError(
                f"{name} takes about {needed / 1e9:,.1f} GB of memory to load, and "
                f"{free / 1e9:,.1f} are free; end other programs first"
            )


def weights_stamp(folder: Path) -> list[tuple[Path, int, int]]:
    """The files of a model's weights, and of an adapter's base: their sizes and times."""
    found = []
    for place in (folder, *bases(folder)):
        for path in [place] if place.is_file() else sorted(place.glob("*.safetensors")):
            with suppress(OSError):  # it is being written
                found.append((path, path.stat().st_size, path.stat().st_mtime_ns))
    return found
