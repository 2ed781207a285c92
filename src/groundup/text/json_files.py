"""The JSON files of a model folder, which may come from a stranger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.errors import UserError

# The largest tokenizer.json in use have some 35 MB.
_MOST_BYTES = 256 * 2**20


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `UserError` for whatever else is in there."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise UserError(
            f"{path} has {size / 1e6:.0f} MB, and no such file has more than "
            f"{_MOST_BYTES >> 20}; download it again"
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
