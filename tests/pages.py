"""Requirements of every page: self-contained, and without markup from foreign text."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class _Tags(HTMLParser):
    """Every tag of the page, and everything that a browser would fetch for it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.fetched: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        named = [value or "" for name, value in attrs if name in ("src", "href")]
        self.anchors += [value for value in named if value.startswith("#")]
        self.fetched += [value for value in named if not value.startswith("#")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def assert_self_contained(page: str) -> None:
    """Well-formed, with embedded pictures, and nothing that a browser would run or fetch."""
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.names & {"script", "link", "iframe", "object"}
    assert len(set(tags.ids)) == len(tags.ids)
    assert {anchor.removeprefix("#") for anchor in tags.anchors} <= set(tags.ids)
    assert tags.fetched
    assert all(source.startswith("data:image/svg+xml;base64,") for source in tags.fetched)
    assert not re.search(r"url\(|@import|http-equiv", page)
