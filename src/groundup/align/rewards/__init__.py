"""Rewards: a function of prompt and completion that says how good the completion is.

`by_name` opens what a person means: a reward model's folder (`model`), a check (`verifiers`), or
anybody's function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.deprecated import renamed

if not TYPE_CHECKING:  # what stands in `by_name` today

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
