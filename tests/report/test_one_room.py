"""Only report/ knows HTML and terminal tables."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import groundup

ROOT = Path(groundup.__file__).parent
# Chat templates are Jinja as well, and maths draws its graphs by itself.
OTHERS = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] not in ("report", "maths")
    and path != ROOT / "text" / "template.py"
]


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", OTHERS, ids=where)
def test_only_report_renders(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert not names & {"jinja2", "markupsafe", "rich.table"}
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    tags = re.compile(r"</?(?:html|div|span|td|tr|th|table|figure|article|section|h[1-6])\b[^<]*>")
    assert not [text for text in texts if isinstance(text, str) and tags.search(text)]


KINDS = ("css", "html.jinja", "js")


def test_there_is_one_style_sheet_and_one_template_for_reports() -> None:
    """The X-ray, the page to talk in, and lessons' pages that move draw themselves: they have lines
    of their own, and elements that two of them make alike. Pages that change look
    again by one script, votes are taken by another, and forms stand apart from the template."""
    files = {where(path) for path in ROOT.rglob("*.*") if path.suffix in (".css", ".jinja", ".js")}
    assert files == {
        *("report/style.css", "report/page.html.jinja"),
        *(f"report/{page}.{kind}" for page in ("xray", "moving", "chat") for kind in KINDS),
        *("report/elements.js", "report/live.js", "report/ballot.js"),
        "report/form.html.jinja",
    }
