"""Terminal input and output of a conversation: word wrap of streamed text, typed lines and keys.

Without a terminal, nothing is wrapped and every line is a message.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator

from rich.cells import cell_len

from groundup.runs.console import printable
from groundup.runs.resumable_jsonl import write

# For a terminal that does not report its width.
_WIDTH = 80
# Lines of one paste follow one another faster than a person types.
_PASTE_SECONDS = 0.05
_JOINER = "\u200d"
# No line may begin with these.
_CLOSING = frozenset("、。，．！？：；」』）】〉》〕｝］ー々…")
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))


def width() -> int | None:
    """The width of the terminal in cells; None if output is not a terminal.

    COLUMNS can make it narrower, but not wider.
    """
    if not sys.stdout.isatty():
        return None
    try:
        real = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        real = 0
    given = 0
    with contextlib.suppress(ValueError):
        given = int(os.environ.get("COLUMNS", ""))
    return min((one for one in (real, given) if one > 0), default=_WIDTH)


def tell(text: str) -> None:
    """Write a whole text and end its last line."""
    out = Wrapped()
    out.push(text)
    out.finish()
    write("\n")


class Wrapped:
    """Writes a text that arrives in pieces, without cutting words at the edge of the terminal.

    A word is held back until its end is known; only a word wider than a line is cut. Chinese and
    Japanese may break between any two characters. Continuation lines of an indented line are
    indented too. `width` is called again for every word, since a window may change; if it returns
    None, everything is written at once, unchanged.
    """

    def __init__(
        self, write: Callable[[str], None] = write, width: Callable[[], int | None] = width
    ) -> None:
        self._write, self._width = write, width
        self._column = 0
        self._indent = ""
        self._blank = ""  # between the last word and the next one
        self._word = ""
        self._cutting = False  # within a word that is wider than a line

    def push(self, text: str) -> None:
        """Add the next piece of the text."""
        if self._width() is None:
            self._write(text)
            return
        for character in text:
            self._take(character)

    def finish(self) -> None:
        """Write the text that is held back, at the end."""
        self._end_word()
        self._blank = ""

    def _take(self, character: str) -> None:
        if character == "\n":
            self.finish()
            self._write("\n")
            self._column, self._indent = 0, ""
        elif character in " \t":
            self._end_word()
            stop = 8 - (self._column + len(self._blank)) % 8
            self._blank += " " if character == " " else " " * stop
        elif character != "\r":
            self._add(printable(character))

    def _add(self, character: str) -> None:
        if self._word and _may_break(self._word[-1], character):
            self._end_word()
        self._word += character
        if self._cutting or cell_len(self._word) > self._line():
            self._cut_word()

    def _line(self) -> int:
        return max(1, self._width() or _WIDTH)

    def _end_word(self) -> None:
        """Write the word, on a new line if it does not fit on this one."""
        if self._word and not self._cutting:
            if self._column == 0:
                self._indent = self._blank if 2 * len(self._blank) <= self._line() else ""
                self._blank = self._indent
            taken = len(self._blank) + cell_len(self._word)
            if self._column > len(self._indent) and self._column + taken > self._line():
                self._break()
            if len(self._blank) + cell_len(self._word) > self._line() - self._column:
                self._cut_word()  # too wide with its indentation
            else:
                self._write(self._blank + self._word)
                self._column += len(self._blank) + cell_len(self._word)
            self._blank = self._word = ""
        self._cutting = False

    def _break(self) -> None:
        self._write("\n" + self._indent)
        self._column, self._blank = len(self._indent), ""

    def _cut_word(self) -> None:
        """Write the word so far, which is wider than a line, over the full width."""
        if not self._cutting and self._column:
            self._write("\n")
            self._column = 0
        self._cutting, self._blank = True, ""
        for character in self._word:
            cells = cell_len(character)
            if self._column and self._column + cells > self._line():
                self._write("\n")
                self._column = 0
            self._write(character)
            self._column += cells
        self._word = ""


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two adjacent characters."""
    if after in _CLOSING | _SKIN_TONES or before == _JOINER or not cell_len(after):
        return False
    return _is_sign(before) or _is_sign(after)


def _is_sign(character: str) -> bool:
    """Whether a character is a word by itself, as wide ones are, except Korean."""
    return cell_len(character) == 2 and not "\uac00" <= character <= "\ud7a3"


# Input.


def messages(is_command: Callable[[str], bool]) -> Iterator[str]:
    """Yield the user's messages, without empty ones; echo them if stdin is not a terminal.

    At a terminal, lines that are pasted together are one message: the terminal marks a paste for
    readline, and input that is already waiting when a line ends belongs to it too. A line for which
    `is_command` is true is always a message of its own.
    """
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        _edit_lines()
    if hasattr(sys.stdin, "reconfigure"):
        encoding = {} if at_terminal else {"encoding": "utf-8"}
        sys.stdin.reconfigure(errors="replace", **encoding)
    while True:
        try:
            lines = [input("> ")]
            while at_terminal and not is_command(lines[-1]) and _more_waits():
                lines.append(input())
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):  # pressed twice
                write("\n(Ctrl-D or /quit quits)\n")
            continue
        if not at_terminal and not any(line.strip() for line in lines):
            write("\n")
        last = lines.pop() if is_command(lines[-1]) else ""
        for message in ("\n".join(lines).strip(), last.strip()):
            if not message:
                continue
            if not at_terminal:
                write(f"{message}\n")
            yield message


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """Within the block, the terminal delivers each key at once, for `key`, without an echo."""
    try:
        import termios
        import tty
    except ImportError:  # Windows: keys come as whole lines
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def key() -> str | None:
    """The next key, or without a terminal the next nonempty line; None at the end of input.

    An arrow key is `left` or `right`, any other a lower-case letter.
    """
    if not sys.stdin.isatty() or os.name != "posix":
        return _line()
    terminal = sys.stdin.fileno()
    typed = os.read(terminal, 32)
    # Over a slow connection an arrow key may arrive in two parts.
    if typed == b"\x1b" and select.select([terminal], [], [], _PASTE_SECONDS)[0]:
        typed += os.read(terminal, 32)
    if typed in (b"", _END_OF_INPUT):
        return None
    return _ARROWS.get(typed[:3]) or typed.decode("utf-8", errors="replace")[0].lower()


def forget_typed() -> None:
    """Discard the keys that were pressed so far."""
    with contextlib.suppress(ImportError):
        import termios

        if sys.stdin.isatty():
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


# The sequences of both cursor-key modes.
_ARROWS = {b"\x1b[D": "left", b"\x1bOD": "left", b"\x1b[C": "right", b"\x1bOC": "right"}
_END_OF_INPUT = b"\x04"  # Ctrl-D


def _line() -> str | None:
    # Bytes, because the stream's encoding depends on the locale.
    while line := sys.stdin.buffer.readline().decode("utf-8", errors="replace"):
        if said := line.strip():
            return said.lower()
    return None


def _edit_lines() -> None:
    """Turn on line editing, history and bracketed paste, which Python turns off in readline."""
    with contextlib.suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")


def _more_waits() -> bool:
    """Whether more input, even an incomplete line, was sent together with the line just read."""
    try:
        import termios
    except ImportError:
        return False
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    # In canonical mode, a terminal does not deliver incomplete lines.
    at_once = [*before[:3], before[3] & ~termios.ICANON, *before[4:]]
    termios.tcsetattr(terminal, termios.TCSANOW, at_once)
    try:
        return bool(select.select([terminal], [], [], _PASTE_SECONDS)[0])
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
