"""Where things are kept that any command may want again: downloads, and what was compiled here."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from groundup.errors import UserError


def cache_folder() -> Path:
    """Return the cache folder: GROUNDUP_CACHE, else the user's cache directory.

    Raises `UserError` where that begins with the home of nobody, or this user has none.
    """
    if chosen := os.environ.get("GROUNDUP_CACHE"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise UserError(
                f"GROUNDUP_CACHE={chosen!r} begins with the home of nobody; write it in full"
            ) from None
    try:
        found = platformdirs.user_cache_path("groundup", appauthor=False)
    except RuntimeError:
        found = Path("~")
    # Older versions of platformdirs leave '~' in it, which would become a folder of that name here.
    if not found.is_absolute():
        raise UserError(
            "this user has no home to keep downloads in, for HOME is not set or no full path; "
            "set GROUNDUP_CACHE to a folder that can be written"
        )
    return found
