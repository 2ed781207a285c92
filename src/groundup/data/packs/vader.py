"""The pack `vader`: the lexicon for the sentiment of a text (text.sentiment)."""

from __future__ import annotations

import functools

from groundup.data.packs.fetch import read_set
from groundup.runs.console import say
from groundup.text.sentiment import Sentiment


@functools.cache
def sentiment() -> Sentiment:
    """VADER on its own lexicon. Raises `UserError` if the pack cannot be downloaded."""
    [lexicon] = read_set("vader", say).values()
    return Sentiment.read(lexicon)
