"""Progress output of a stage: a progress bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import textwrap
import time
import unicodedata
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

from groundup.runs import ranks

# In a notebook rich would show each line as a page of its own.
console = Console(stderr=False, highlight=False, soft_wrap=True, force_jupyter=False)
# Seconds between progress lines in a log.
_LOG_SECONDS = 15.0


def at_terminal(on: Console = console) -> bool:
    """Whether the console is a terminal; FORCE_COLOR alone asks for colors in a file."""
    return on.is_terminal and on.file.isatty()


def say(text: str) -> None:
    """Print one line. The text is shown literally, never as markup."""
    if ranks.is_first():
        console.print(wrapped(text, console.width) if at_terminal() else text, markup=False)


def wrapped(text: str, width: int) -> str:
    """Wrap the text between words, with continuation lines indented.

    A terminal of width 0 does not report its width; the text then stays unchanged.
    """
    if width < 1:
        return text
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        if len(line) > width
        else line
        for line in text.split("\n")
    )


def printable(text: str) -> str:
    """Replace control characters by U+FFFD, so that a model's output cannot control the terminal.

    Line breaks and tabs stay.
    """
    kept = "\n\t"
    return "".join(
        "\ufffd" if unicodedata.category(char) == "Cc" and char not in kept else char
        for char in text
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 step, 1,200 steps."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def three_digits(value: float) -> str:
    """Format a number with three significant digits, or all of its integer digits: 12.1, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Format seconds in a readable unit: 42 seconds, 12.5 minutes."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{three_digits(seconds / length)} {unit}"
    return f"{seconds:.2g} seconds"


def progress(*columns: ProgressColumn, on: Console = console, hidden: bool = False) -> Progress:
    """Return a progress bar with a name, these columns and the time left.

    It is shown on terminals only and removed when it ends.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        *columns,
        _TimeLeft(),
        console=on,
        disable=hidden or not at_terminal(on),
        transient=True,
    )


class _TimeLeft(ProgressColumn):
    """The time left in the terminal's default color: rich's cyan is hard to read on white."""

    max_refresh = 0.5  # so that it does not flicker

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None or task.total is None else f"{_clock(left)} left")


class Bar:
    """A progress bar over optimizer steps, with loss, speed and time left."""

    def __init__(self, name: str, steps: int, start: int) -> None:
        self.name, self.steps, self.start = name, steps, start
        self._begun = self._last_line = time.monotonic()
        # Totals since the last line: a single step is not typical where it prepares later batches.
        self._tokens, self._seconds = 0, 0.0
        facts = TextColumn("{task.fields[facts]}")
        self._progress = progress(TaskProgressColumn(), facts, hidden=not ranks.is_first())
        self._task = self._progress.add_task(name, total=steps, completed=start, facts="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, step: int, loss: float, tokens: int, seconds: float) -> None:
        """Show that `step` steps are done; the last one read `tokens` tokens in `seconds`."""
        self._tokens, self._seconds = self._tokens + tokens, self._seconds + seconds
        facts = f"loss {loss:.3f}  {self._tokens / self._seconds:,.0f} tok/s"
        self._progress.update(self._task, completed=step, facts=facts)
        now = time.monotonic()
        if now - self._last_line <= _LOG_SECONDS and step < self.steps:
            return
        self._last_line, self._tokens, self._seconds = now, 0, 0.0
        if not at_terminal():
            left = (now - self._begun) / max(1, step - self.start) * (self.steps - step)
            say(f"{self.name}  {step}/{self.steps}  {facts}  {_clock(left)} left")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
