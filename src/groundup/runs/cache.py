"""The cache folder for downloads and compiled code that later commands reuse, and the hub's."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Literal

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


def hub_source(kind: Literal["models", "datasets"], path: Path) -> str | None:
    """Return the source hub:owner/name of a path in the hub's cache; None for any other path.

    Its client stores a commit in datasets--owner--name/snapshots/COMMIT. One that is not the newest
    of the cache has a name of its own: hub:owner/name@COMMIT.
    """
    for commit, above in itertools.pairwise((path, *path.parents)):
        repository = above.parent
        its_kind, *owner_and_name = repository.name.split("--")
        if above.name == "snapshots" and its_kind == kind and len(owner_and_name) == 2:
            named, newest = f"hub:{'/'.join(owner_and_name)}", repository / "refs" / "main"
            same = newest.is_file() and newest.read_text(errors="replace").strip() == commit.name
            return named if same else f"{named}@{commit.name}"
    return None
