"""Repositories of Hugging Face's hub: downloaded to its own cache, without code and pickles.

`owner/name` is the newest version, `owner/name@revision` that of a branch, a tag or a commit.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from groundup.data.files import SUFFIXES
from groundup.errors import UserError, installing
from groundup.runs.files import DISK_ERRORS


def pull_dataset(name: str) -> Path:
    """The local folder of the data set `owner/name`, or of what lies at `owner/name/path` in it.

    `name` may be followed by a revision: `owner/name@revision/path`.

    Raises UserError like `snapshot`, and for a path without data.
    """
    owner, *rest = name.split("/", 2)
    repository, inside = "/".join([owner, *rest[:1]]), "".join(rest[1:]).strip("/")
    everything = [f"*{suffix}" for suffix in SUFFIXES]
    within = [f"{inside}/{pattern}" for pattern in everything]
    if Path(inside).suffix.lower() in SUFFIXES:
        within.append(inside)
    folder = snapshot(repository, "dataset", within if inside else everything)
    if not (folder / inside).exists():
        raise UserError(
            f"hub:{name} has no data at {inside!r}; check the path, or write hub:{repository} for "
            "all of its data"
        )
    return folder / inside


def snapshot(name: str, kind: Literal["model", "dataset"], wanted: Sequence[str]) -> Path:
    """The folder with the files of `owner/name` that match one of the patterns `wanted`.

    `name` may end in `@revision`.

    Raises UserError if the extra `hub` is not installed, the name or the revision is unknown, or
    the network fails.
    """
    repository, at, revision = name.partition("@")
    unnamed = f"hub:{name} is not a name on the hub; write hub:owner/name, or hub:owner/name@tag"
    if "/" not in repository or (at and not revision):
        raise UserError(unnamed)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise UserError(f"hub:{name} needs the hub's client; run {installing('hub')}") from None
    try:
        return Path(
            snapshot_download(
                repository,
                repo_type=kind,
                revision=revision or None,
                allow_patterns=list(wanted),
            )
        )
    except HFValidationError:
        raise UserError(unnamed) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise  # not a network error
        raise UserError(
            f"hub:{name} cannot be downloaded ({shortened(str(error))}); check its name and the "
            "network, or give a folder that contains it"
        ) from None


def shortened(message: str) -> str:
    """The first sentences of a message, up to 200 characters; else its first words.

    A line ends a sentence, too.
    """
    text = textwrap.shorten(re.sub(r"(?<=\w)\s*\n", ". ", message), 200, placeholder=" …")
    sentences, _, rest = text.rpartition(". ")
    return sentences if sentences and rest.endswith("…") else text
