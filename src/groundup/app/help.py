"""Format `--help` in plain columns, as wide as the terminal.

The parser's own formatter draws boxes and styles, which takes as long as the rest of `--help`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing these would slow --help down
    from typing import Any

    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

# Longer names get a line of their own.
_LONGEST_NAME = 26
_MAX_WIDTH, _MIN_WIDTH = 100, 40
# The title of one command to copy, and of several, each on a line of its own.
EXAMPLES = ("Example", "Examples")


class Columns:
    """Formats help for cyclopts: the usage, the description, and a list of names per group."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Write one group of commands or settings."""
        rows = [(_names(one), _description(one)) for one in panel.entries]
        if not rows:
            return
        column = min(_LONGEST_NAME, max(len(name) for name, _ in rows))
        lines = [_bold(console, line) for line in _wrapped(_plain(panel.title), _width(console))]
        for name, description in rows:
            indent = " " * (column + 4)
            wrapped = _wrapped(description, _width(console), indent) or [indent]
            if len(name) <= column:
                wrapped[0] = f"  {name.ljust(column)}  {wrapped[0].lstrip()}"
            else:
                wrapped.insert(0, f"  {name}")
            lines += [line.rstrip() for line in wrapped]
        _write(console, "\n".join(lines))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Write the usage line."""
        if text := _plain(usage):
            _write(console, text if text.startswith("Usage:") else f"Usage: {text}")

    def render_description(self, console: Console, options: ConsoleOptions, said: Any) -> None:
        """Write the command's description, one paragraph at a time, with examples to copy."""
        for paragraph in filter(None, _plain(said).split("\n\n")):
            title, *commands = paragraph.splitlines()
            if title in EXAMPLES:
                lines = [_bold(console, title), *(f"  {one}" for one in commands)]
            else:
                lines = _wrapped(" ".join(paragraph.split()), _width(console))
            _write(console, "\n".join(lines))


def _names(entry: HelpEntry) -> str:
    return ("* " if entry.required else "") + ", ".join(entry.display_labels_with_metavar)


def _description(entry: HelpEntry) -> str:
    parts = [_plain(entry.description)]
    if entry.choices:
        parts.append(f"[choices: {', '.join(entry.choices)}]")
    if entry.default is not None:
        parts.append(f"[default: {entry.default}]")
    if entry.required:
        parts.append("[required]")
    return " ".join(part for part in parts if part)


def _plain(thing: Any) -> str:
    """The plain text of a rich text, or of a cyclopts object that wraps one."""
    if thing is None or isinstance(thing, str):
        return (thing or "").strip()
    within = getattr(thing, "primary_renderable", None)
    parts = [thing] if within is None else [within, *thing.texts]
    # A command without a docstring, such as a renamed experiment, has an object without text.
    return "".join(
        one if isinstance(one, str) else getattr(one, "plain", "") for one in parts
    ).strip()


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    # Option names contain hyphens and must stay whole to be copied.
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _width(console: Console) -> int:
    return max(_MIN_WIDTH, min(_MAX_WIDTH, console.width))


def _bold(console: Console, text: str) -> str:
    return f"\033[1m{text}\033[0m" if console.is_terminal and not console.no_color else text


def _write(console: Console, text: str) -> None:
    console.file.write(f"{text}\n\n")
