"""A page that moves: sliders and pictures of one idea, as HTML that loads nothing.

`data` says which of the pages in moving.js it is (`kind`), its `sliders`, and what is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.report.page import drawn_html


def moving_html(title: str, lead: str, data: Mapping[str, Any], questions: Sequence[str]) -> str:
    """The page: a title, what is to be seen, the sliders with the pictures, what to try."""
    return drawn_html("moving.html.jinja", dict(data), title=title, lead=lead, questions=questions)
