"""What checks types and shapes in tests: beartype, where an int may stand for a float (PEP 484)."""

from __future__ import annotations

from typing import TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

T = TypeVar("T")

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checker(thing: T) -> T:
    """`thing` with its types checked; beartype cannot check a method that gives back `Self`."""
    try:
        return _checked(thing)
    except BeartypeDecorHintPep673Exception:
        return thing
