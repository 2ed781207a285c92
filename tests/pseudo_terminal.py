"""A pseudo-terminal: what a user sees there, and the keys they press."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
import time

from preloaded import Process


class Screen(io.StringIO):
    """A file that says of itself that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Terminal:
    """A `groundup` command at a pseudo-terminal, and all that it has shown.

    What is waited for is what the program shows when it is ready, never a time.
    """

    def __init__(self, *words: str, columns: int, **environment: str) -> None:
        self.seen = ""
        # Kept open here until the program has opened it, for without it there is nothing to read.
        self.end, begun = pty.openpty()
        self._begun: int | None = begun
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "groundup", *words]
        at = os.ttyname(begun)
        self.process = Process(command, terminal=at, **{"TERM": "xterm"} | environment)

    def read(self, seconds: float) -> str:
        """The program's next output, or nothing. Raises `OSError` after its end."""
        if not select.select([self.end], [], [], seconds)[0]:
            if self.process.poll() is not None:
                raise OSError("it has ended")
            return ""
        found = os.read(self.end, 4096).decode(errors="replace")
        if self._begun is not None:
            os.close(self._begun)
            self._begun = None
        return found

    def wait_for(self, pattern: str, seconds: float = 240) -> str:
        """The output up to the first match of the pattern, which is removed from the pending
        output."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, self.seen
            try:
                self.seen += self.read(1)
            except OSError:  # it has left
                raise AssertionError(self.seen) from None
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def prompt(self) -> str:
        """The output up to the next input prompt."""
        return self.wait_for(r"\x1b\[\?2004h> ")

    def send(self, text: str) -> None:
        os.write(self.end, text.encode())

    def leave(self) -> int:
        """End the input; return the exit code."""
        self.send("\x04")
        while True:
            try:
                self.read(1)
            except OSError:
                break
        os.close(self.end)
        return self.process.communicate()[0]
