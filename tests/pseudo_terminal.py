"""A pseudo-terminal: what a user sees there, and the keys they press."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time


class Terminal:
    """A `groundup` command at a pseudo-terminal, and all that it has shown.

    What is waited for is what the program shows when it is ready, never a time.
    """

    def __init__(self, *words: str, columns: int, **environment: str) -> None:
        self.seen = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm"} | environment)
            os.execv(sys.executable, [sys.executable, "-m", "groundup", *words])
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def wait_for(self, pattern: str, seconds: float = 240) -> str:
        """The output up to the first match of the pattern, which is removed from the pending
        output."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, self.seen
            if select.select([self.end], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.end, 4096).decode(errors="replace")
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
        self.send("\x04")
        while True:
            try:
                if not os.read(self.end, 4096):
                    break
            except OSError:
                break
        os.close(self.end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
