"""Repositories of Hugging Face's hub: fetched into its own cache, without code and pickles."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from groundup.data.files import SUFFIXES
from groundup.errors import UserError, installing
from groundup.runs.files import OF_DISKS


def pull_dataset(name: str) -> Path:
    """The folder in which the data set `owner/name` lies. Raises UserError as `snapshot` does."""
    return snapshot(name, "dataset", [f"*{suffix}" for suffix in SUFFIXES])


def snapshot(name: str, kind: Literal["model", "dataset"], wanted: Sequence[str]) -> Path:
    """The folder with those files of `owner/name` that one of the patterns `wanted` means.

    Raises UserError: the extra `hub` is not installed, no such name, no network.
    """
    if "/" not in name:
        raise UserError(f"hub:{name} is no name on the hub; write hub:owner/name")
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
        return Path(snapshot_download(name, repo_type=kind, allow_patterns=list(wanted)))
    except HFValidationError:
        raise UserError(f"hub:{name} is no name on the hub; write hub:owner/name") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.errno in OF_DISKS:
            raise  # the network has no part in it
        raise UserError(
            f"hub:{name} cannot be had ({shortened(str(error))}); check its name and the network, "
            "or give a folder in which it lies"
        ) from None


def shortened(message: str) -> str:
    """The first sentences of a message, as many as fit in 200 letters; else its first words.

    A line ends a sentence, too.
    """
    text = textwrap.shorten(re.sub(r"(?<=\w)\s*\n", ". ", message), 200, placeholder=" …")
    sentences, _, rest = text.rpartition(". ")
    return sentences if sentences and rest.endswith("…") else text
