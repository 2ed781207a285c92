"""Blind comparison: which of two answers does a person prefer, without knowing the models?

The sides of the answers are random, because judges favor a side, people and models alike (Zheng et
al. 2023, "Judging LLM-as-a-judge", section 3.3). `comparison` samples the answers, `log` stores the
votes (`data.votes`), and `ratings` evaluates them; DPO and reward models learn from the pairs that
votes make. People vote in the terminal or on the studio's page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.deprecated import renamed

if not TYPE_CHECKING:  # names that have moved to its modules

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
