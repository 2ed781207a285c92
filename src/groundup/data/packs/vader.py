"""The pack `vader`: the lexicon by which the sentiment of a text is told (text.sentiment)."""

from __future__ import annotations

import functools

from groundup.data.packs.fetch import read_set
from groundup.runs.console import say
from groundup.text.sentiment import Sentiment


@functools.cache
def sentiment() -> Sentiment:
    """VADER on its own lexicon. Raises `UserError` where the pack cannot be downloaded."""
    [lexicon] = read_set("vader", say).values()
    return Sentiment.read(lexicon)
