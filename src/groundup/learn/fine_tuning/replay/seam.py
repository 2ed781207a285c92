"""Puts the learner's shares into fine-tuning."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import ModuleType

from groundup.learn.plain import all_replaced
from groundup.tune import data

USED_BY = "sft with --weights or --replay: how many tokens each source gives"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    def shares(own: Mapping[str, float], general: Sequence[str], replay: float) -> dict[str, float]:
        found: dict[str, float] = part.token_shares(dict(own), list(general), replay)
        return found

    return all_replaced((data, "token_shares", shares))


def try_it() -> list[float]:
    """The shares of two sources of one's own and one of general text."""
    shares = data.token_shares({"letters": 3.0, "notes": 1.0}, ["web"], 0.1)
    return [shares[name] for name in sorted(shares)]
