"""Rewards: functions of prompt and completion that say how good the completion is.

`by_name` opens a reward by its name: a reward model's folder (`model`), a verifier (`verifiers`),
or a user's function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.deprecated import renamed

if not TYPE_CHECKING:  # names that have moved to `by_name`

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
