"""The cache folder for downloads and compiled code that later commands reuse."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from groundup.errors import UserError


def cache_folder() -> Path:
    """Return the cache folder: GROUNDUP_CACHE, else the user's cache directory.

    Raises `UserError` if it starts with an unknown user's home, or this user has no home.
    """
    if chosen := os.environ.get("GROUNDUP_CACHE"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise UserError(
                f"GROUNDUP_CACHE={chosen!r} starts with an unknown user's home; give a full path"
            ) from None
    try:
        found = platformdirs.user_cache_path("groundup", appauthor=False)
    except RuntimeError:
        found = Path("~")
    # Older versions of platformdirs leave '~' in the path, which would create a folder named '~'.
    if not found.is_absolute():
        raise UserError(
            "this user has no home folder to keep downloads in, as HOME is not set or not a full "
            "path; set GROUNDUP_CACHE to a writable folder"
        )
    return found
