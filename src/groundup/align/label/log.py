"""The log of votes: an append-only file that one process at a time writes.

Each vote is on disk before the next pair of answers is shown; a last line torn by a kill is
dropped.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from groundup.data.files import suffix_of
from groundup.data.records import read_votes
from groundup.data.votes import Vote, valid_votes
from groundup.data.votes import vote as vote_of
from groundup.errors import UserError
from groundup.runs.files import errors_naming, locked, writable
from groundup.text.rows import BadRow

# The beginning of every line of a log, which identifies a torn one.
_BEGINNING = b'{"prompt": '


class VoteLog:
    """The votes in a file, for one process at a time; each is on disk when `append` returns."""

    def __init__(self, path: Path, votes: list[Vote], handle: int, dropped: bool) -> None:
        self.path, self.votes, self._handle = path, votes, handle
        self.dropped = dropped
        """Whether a last line, torn by a kill, was dropped."""

    def append(self, vote: Vote) -> None:
        line = json.dumps(vote.to_json(), ensure_ascii=False) + "\n"
        data = line.encode("utf-8", errors="backslashreplace")
        with errors_naming(self.path):
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
        self.votes.append(vote)


@contextlib.contextmanager
def vote_log(path: Path, inputs: Sequence[Path] = (), option: str = "--out") -> Iterator[VoteLog]:
    """Open or create a log to append to; `option` is the option that named it.

    Raises `UserError` for a file that holds anything but votes, which is left as it is, for one of
    the `inputs`, and while another process writes it.
    """
    if suffix_of(path) != ".jsonl" and not path.exists():
        raise UserError(
            f"{option}={path} must end in .jsonl, as preference data are read from such files"
        )
    writable(path, option, inputs=inputs, force=True)
    with locked(path, option):
        with errors_naming(path):
            is_new = not path.exists()
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            with errors_naming(path):
                dropped = _drop_torn_line(path, handle, option)
            yield VoteLog(path, _votes(path, option), handle, dropped)
        finally:
            os.close(handle)
            if is_new and not path.stat().st_size:
                path.unlink()  # no vote was cast


def votes_in(path: Path, option: str = "--out") -> list[Vote]:
    """The votes of a log that another process may be writing; none if there is no such file.

    An incomplete last line is left out. Raises `UserError` for a line that is not a vote.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    found = list[Vote]()
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n"), 1):
        if not line.strip():
            continue
        if not _is_vote(line):
            raise UserError(
                f"{path}, line {number} is not a vote; correct it, or choose another {option}"
            )
        found.append(vote_of(json.loads(line), path.stem, number))
    return found


def _drop_torn_line(path: Path, handle: int, option: str) -> bool:
    """Remove a torn last line of a log, and say whether there was one; complete a whole one."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    last = content[whole:]
    if not last:
        return False
    if _is_vote(last):
        os.write(handle, b"\n")
        os.fsync(handle)
        return False
    others = [line for line in content[:whole].split(b"\n") if line.strip()]
    begun = last.startswith(_BEGINNING) or _BEGINNING.startswith(last)
    if not begun or _is_json(last) or not all(map(_is_vote, others)):
        raise UserError(f"{path} is not a log of votes; choose another {option}")
    os.ftruncate(handle, whole)
    os.fsync(handle)
    return True


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_vote(line: bytes) -> bool:
    try:
        row = json.loads(line)
        return isinstance(row, dict) and bool(vote_of(row, "", 0))
    except (ValueError, RecursionError, BadRow):
        return False


def _votes(path: Path, option: str) -> list[Vote]:
    if not path.stat().st_size:
        return []
    found = read_votes(path)
    if found.bad:
        raise UserError(f"{found.bad[0]}; correct that line, or choose another {option}")
    return list(found.rows)


def check_models(
    log: VoteLog,
    models: Sequence[str],
    hashes: Sequence[str],
    remedy: str = "choose another --out, or pass --append to put both into one log",
) -> None:
    """Raise `UserError` if the log holds votes on other models than these."""
    for vote in valid_votes(log.votes):
        if set(vote.players) == set(hashes):
            continue
        others = " and ".join(dict.fromkeys(vote.models)) or "models that it does not name"
        again = set(vote.models) == set(models)
        raise UserError(
            f"{log.path} holds votes on {'earlier weights of ' * again}{others}, not on "
            f"{' and '.join(dict.fromkeys(models))}; {remedy}"
        )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def login() -> str:
    """The default name of a voter: the user's name on this machine."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a system without users, or one without their names
        return "somebody"
