"""Data sets of Hugging Face's hub: fetched whole into its own cache, data files alone."""

from __future__ import annotations

from pathlib import Path

from groundup.errors import UserError
from groundup.text.row_files import ROW_SUFFIXES, TEXT_SUFFIXES


def pull_dataset(name: str) -> Path:
    """The folder in which the data set `owner/name` lies, without code and without pickles.

    Raises UserError: the extra `hub` is not installed, no such name, no network.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise UserError(
            f"hub:{name} needs the hub's client; run pip install 'groundup[hub]'"
        ) from None
    wanted = [f"*{suffix}" for suffix in (*ROW_SUFFIXES, *TEXT_SUFFIXES)]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except HFValidationError:
        raise UserError(f"hub:{name} is no name on the hub; write hub:owner/name") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"hub:{name} cannot be had ({why}); check its name and the network, "
            "or give a folder in which it lies"
        ) from None
