"""The forms that began votes, kept in the cache, so that a later studio can continue them.

The votes themselves are in their log. A record is a filled-in form, with the prompts that were
typed, and the comparisons whose models have been revealed since.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import UserError
from groundup.runs.cache import cache_folder
from groundup.runs.files import read_json_object, write_json

# Beyond this number the oldest are dropped, some of which strangers may have made.
_MAX_RECORDS = 200
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class VoteRecord:
    """The values of a form that began votes, and the ids of those that are final."""

    values: Mapping[str, str]
    revealed: Collection[str]


class VoteRecords:
    """The records of votes below the folder `root`, by their keys."""

    def __init__(self, root: Path) -> None:
        self._name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]

    def all(self) -> dict[str, VoteRecord]:
        """Every record that can be read, the last written first."""
        found = ((file.stem, self.read(file.stem)) for file in self._files())
        return {key: record for key, record in found if record is not None}

    def read(self, key: str) -> VoteRecord | None:
        if not _KEY.fullmatch(key):
            return None
        try:
            known = read_json_object(self._folder / f"{key}.json")
        except (OSError, UserError):  # there is none, or it is damaged
            return None
        values, revealed = known.get("values"), known.get("revealed")
        if not isinstance(values, dict) or not isinstance(revealed, list):
            return None
        texts = {str(name): str(value) for name, value in values.items()}
        return VoteRecord(texts, frozenset(map(str, revealed)))

    def write(self, key: str, record: VoteRecord) -> None:
        """Write a record; without room for it, votes continue nevertheless."""
        line = {"values": dict(record.values), "revealed": sorted(record.revealed)}
        with suppress(OSError, UserError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self._folder / f"{key}.json", line, sync=False)
            for file in self._files()[_MAX_RECORDS:]:
                file.unlink()

    @property
    def _folder(self) -> Path:
        return cache_folder() / "studio" / "votes" / self._name

    def _files(self) -> list[Path]:
        """The files of the records, the last written first."""
        with suppress(OSError, UserError):
            with os.scandir(self._folder) as found:
                files = [(one.stat().st_mtime_ns, one.path) for one in found]
            return [Path(path) for _, path in sorted(files, reverse=True) if path.endswith(".json")]
        return []
