"""What a person sees while a stage works: a bar on a terminal, a line now and then in a log."""

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

console = Console(stderr=False, highlight=False, soft_wrap=True)
# In a log, a line every so many seconds tells enough.
_LOG_SECONDS = 15.0


def say(text: str) -> None:
    """One line for the person at the terminal; text is shown as it is, never as markup."""
    if ranks.is_first():
        console.print(wrapped(text, console.width) if console.is_terminal else text, markup=False)


def wrapped(text: str, width: int) -> str:
    """The text with no word cut at the terminal's edge; what goes on stands further in.

    As it is for a terminal of no width, which does not say how wide it is.
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
    """The text with U+FFFD for control characters: what a model says must not steer the terminal.

    Line breaks and tabs stay.
    """
    kept = "\n\t"
    return "".join(
        "\ufffd" if unicodedata.category(one) == "Cc" and one not in kept else one for one in text
    )


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 step, 1,200 steps."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def three_digits(value: float) -> str:
    """12.1 or 1,234: three digits, and more where so many stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """So many seconds in the unit that a person would say them in: 42 seconds, 12.5 minutes."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{three_digits(seconds / length)} {unit}"
    return f"{seconds:.2g} seconds"


def progress(*facts: ProgressColumn, on: Console = console, hidden: bool = False) -> Progress:
    """A bar with a name, these facts and the time left, gone at its end; only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        *facts,
        _TimeLeft(),
        console=on,
        disable=hidden or not on.is_terminal,
        transient=True,
    )


class _TimeLeft(ProgressColumn):
    """The time left as a log says it, in the terminal's own ink: rich's is cyan, also on white."""

    max_refresh = 0.5  # so that it does not jump about

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None or task.total is None else f"{_clock(left)} left")


class Bar:
    """A progress bar over optimizer steps, with loss, speed and time left."""

    def __init__(self, name: str, steps: int, start: int) -> None:
        self.name, self.steps, self.start = name, steps, start
        self._begun = self._said = time.monotonic()
        # Since a line was said last: where a step makes batches for the next ones, none is typical.
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
        """`step` steps are done, the last of which read so many tokens in so many seconds."""
        self._tokens, self._seconds = self._tokens + tokens, self._seconds + seconds
        facts = f"loss {loss:.3f}  {self._tokens / self._seconds:,.0f} tok/s"
        self._progress.update(self._task, completed=step, facts=facts)
        now = time.monotonic()
        if now - self._said <= _LOG_SECONDS and step < self.steps:
            return
        self._said, self._tokens, self._seconds = now, 0, 0.0
        if not console.is_terminal:
            left = (now - self._begun) / max(1, step - self.start) * (self.steps - step)
            say(f"{self.name}  {step}/{self.steps}  {facts}  {_clock(left)} left")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
