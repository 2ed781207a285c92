"""Where things are kept that any command may want again: downloads, and what was compiled here."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the cache folder: GROUNDUP_CACHE, else the user's cache directory."""
    if chosen := os.environ.get("GROUNDUP_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("groundup", appauthor=False)
