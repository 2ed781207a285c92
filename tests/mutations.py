"""Files as strangers or failing disks leave them: real ones with a few changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

# JSON values of the wrong kind.
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**400, -1e308, 0.5, float("nan"), float("inf"),
    "", "a", "\ud800", "<|im_end|>", "x" * 10_000, "../../etc/passwd", [], [[]], [None] * 5, {},
    {"a": {}}, [[[[[]]]]],
)  # fmt: skip


def mutated_bytes(source: random.Random, whole: bytes) -> bytes:
    """A few bytes changed, removed, duplicated or inserted; or the end cut off."""
    changed = bytearray(whole)
    for _ in range(source.choice([1, 1, 2, 5])):
        # Damage to headers, at the start of a file, is the most interesting.
        at = source.randrange(min(len(changed), source.choice([16, 200, 4_000, len(changed)])) or 1)
        size = source.choice([1, 1, 4, 8, 100])
        way = source.randrange(5)
        if way == 0:
            changed[at : at + size] = source.randbytes(size)
        elif way == 1:
            del changed[at : at + size]
        elif way == 2:
            changed[at:at] = changed[at : at + size]
        elif way == 3:
            changed[at : at + 8] = source.choice([0, 1, 2**31, 2**62, 2**64 - 1]).to_bytes(
                8, "little"
            )
        else:
            del changed[source.randrange(len(changed) or 1) :]
    return bytes(changed)


def mutated_json(source: random.Random, whole: bytes) -> bytes:
    """A few values of a JSON file replaced, removed or moved."""
    contents = json.loads(whole)
    for _ in range(source.choice([1, 1, 2, 4])):
        contents = _changed(source, contents)
    return json.dumps(contents).encode()


def _changed(source: random.Random, value: Any) -> Any:
    inside: list[Any] = (
        list(value) if isinstance(value, dict) else list(range(len(value)))
        if isinstance(value, list) else []
    )  # fmt: skip
    if not inside or source.random() < 0.15:
        return source.choice(_VALUES)
    key = source.choice(inside)
    copy = dict(value) if isinstance(value, dict) else list(value)
    way = source.random()
    if way < 0.15:
        del copy[key]
    elif way < 0.25:
        copy[key] = value[source.choice(inside)]
    else:
        copy[key] = _changed(source, value[key])
    return copy


def mutation_for(name: str, source: random.Random) -> Callable[[random.Random, bytes], bytes]:
    """The mutation for a file of that name: of its values if it is JSON, else of its bytes."""
    return mutated_json if name.endswith(".json") and source.random() < 0.8 else mutated_bytes
