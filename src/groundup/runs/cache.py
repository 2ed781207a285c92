"""Where things are kept that any command may want again: downloads, and what was compiled here."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from groundup.errors import UserError


def cache_folder() -> Path:
    """Return the cache folder: GROUNDUP_CACHE, else the user's cache directory.

    Raises `UserError` where that begins with the home of nobody.
    """
    if chosen := os.environ.get("GROUNDUP_CACHE"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise UserError(
                f"GROUNDUP_CACHE={chosen!r} begins with the home of nobody; write it in full"
            ) from None
    return platformdirs.user_cache_path("groundup", appauthor=False)
