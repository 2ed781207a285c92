"""The JSON files of a model folder, which may come from a stranger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.errors import UserError

# Read, a file may take thirty times its size in memory. The largest tokenizer.json in use have some
# 35 MB, the indices of the largest models 15.
_MOST_BYTES = 16 * 2**20
MOST_TOKENIZER_BYTES = 64 * 2**20


def read_json_object(path: Path, most: int = _MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most so many bytes; `UserError` for whatever else it is."""
    size = path.stat().st_size
    if size > most:
        raise UserError(
            f"{path} has {size / 1e6:.0f} MB, and no such file has more than {most / 1e6:.0f}; "
            "download it again"
        )
    try:
        contents = json.loads(path.read_bytes())
    except RecursionError:
        raise UserError(f"{path} is not JSON: nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8 and absurd numbers alike
        raise UserError(f"{path} is not JSON ({error}); download or save it again") from None
    if not isinstance(contents, dict):
        raise UserError(f"{path} is not a JSON object; download or save it again")
    return contents
