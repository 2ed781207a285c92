"""Blind comparison: which of two answers does a person prefer, without knowing whose they are?

The answers' sides are drawn by chance, since judges favor a side, people and models alike (Zheng et
al. 2023, "Judging LLM-as-a-judge", section 3.3). `comparison` draws the answers, `log` keeps the
votes (`data.votes`), and `ratings` is what they say; the pairs that votes make are what DPO and a
reward model learn from. The terminal and the page of the studio ask a person to vote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.deprecated import renamed

if not TYPE_CHECKING:  # what stands on its pages today

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
