"""Files that a command writes and reads: whole or not at all, checked, and never over another's.

    written_aside   one file: written beside its place, synced, renamed; gone again when that fails
    folder_aside    several files that belong together, likewise
    writable        the one rule about what may be written over
    read_json_object, read_kept, read_lines     the checked readers

Whatever fails on the way is an `OSError` that names the file, whoever found out: Python, NumPy, or
a library in Rust whose own errors say '(os error 28)'. `in_words` is what a person is told.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from groundup.errors import UserError

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")

# Read, a file may take thirty times its size in memory. The largest tokenizer.json in use have some
# 35 MB, the indices of the largest models 15.
_MOST_BYTES = 16 * 2**20
MOST_TOKENIZER_BYTES = 64 * 2**20
# How errors of libraries say what the system answered: Rust's for people and for programmers (as
# safetensors 0.5 has it), Python's in a text.
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+), kind: |\[Errno (\d+)\]")
# What a disk refuses with, and no network.
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_SEAL = "sha256"


# What went wrong.


def os_error(error: BaseException) -> OSError | None:
    """Return the `OSError` behind an error, which a library may have wrapped."""
    if isinstance(error, OSError):
        return error
    found = _SYSTEM_ERROR.search(str(error))
    if found is None:
        return None
    number = int(found[found.lastindex or 0])
    return OSError(number, os.strerror(number))


@contextlib.contextmanager
def naming(path: Path, aside: Path | None = None) -> Iterator[None]:
    """Turn what the system refuses inside the block into an `OSError` that names `path`.

    `aside` is where it is written before it is renamed, of which nobody else knows.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = os_error(error)
        if found is None:
            raise
        if found.errno is None:
            found = OSError(_refusal(aside or path) or errno.EIO, str(error))
        named = found.filename
        inside = aside is not None and named is not None and str(named).startswith(str(aside))
        if named is None or inside:
            found.filename, found.filename2 = str(path), None
        if found is error:
            raise
        raise found from error


def _refusal(path: Path) -> int | None:
    """Return the system's error for one more block; libraries only say that they wrote less."""
    try:
        with open(path if path.is_file() else path / ".probe", "ab", buffering=0) as file:
            file.write(bytes(2**16))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        with contextlib.suppress(OSError):
            (path / ".probe").unlink()
    return None


def in_words(error: OSError) -> str:
    """Return one sentence: what could not be done, why, and the remedy."""
    reason = str(error) if error.errno is None else os.strerror(error.errno)
    if error.filename is None:
        what = "a file" if error.errno is not None else "a file or a stream"
        return f"{what} cannot be used ({reason}); {remedy(error)}"
    return f"{os.fsdecode(error.filename)!r} cannot be used ({reason}); {remedy(error)}"


def remedy(error: OSError) -> str:
    """Return what a person can do against what the system answered."""
    no_locks = "choose a place on a local disk (--out), for this file system gives no locks"
    return {
        errno.ENOLCK: no_locks,
        errno.EOPNOTSUPP: no_locks,
        errno.ENOSPC: "make room on its disk and start the same command again",
        errno.EDQUOT: "make room within your quota and start the same command again",
        errno.EFBIG: "raise the limit on the size of files (ulimit -f) and start it again",
        errno.EIO: "the disk fails or is full; choose a place on another one",
        errno.EROFS: "choose a place that can be written",
        errno.EACCES: "check its permissions or choose another place",
        errno.EPERM: "check its permissions or choose another place",
        errno.ENOENT: "check the path",
        errno.EMFILE: "raise the limit on open files (ulimit -n) and start it again",
    }.get(error.errno or 0, "check the path, its permissions and the space on its disk")


# Writing.


@contextlib.contextmanager
def written_aside(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a path to write to that replaces `path` at the end, never half of it.

    When the block ends, the file is synced and renamed; when it fails, nothing of it stays and what
    was there before is untouched. Raises `OSError` that names `path`.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(path, partial):
            partial.unlink(missing_ok=True)
            # Never through a link that somebody put there, and unread by others until it is whole.
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            yield partial
            _settle(partial, path, sync)
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace `path` as a whole. Raises `OSError` that names it."""
    with written_aside(path, sync=sync) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` as a whole by text in UTF-8. Raises `OSError` that names it."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any], *, sync: bool = True) -> None:
    """Replace `path` as a whole by one JSON object."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Half of a surrogate pair has no bytes in UTF-8 and is written as JSON escapes it.
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), sync=sync)


def write_kept(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object that cannot be made again: sealed with its SHA-256, and a copy beside it.

    `read_kept` finds out whether its bytes changed since, and what they were.
    """
    sealed = {**value, _SEAL: seal(value)}
    write_json(_copy(path), sealed)
    write_json(path, sealed)


def lock(path: Path, busy: str, option: str = "--out") -> FileLock:
    """Lock the file `path`, made for that, for this process alone until it ends or releases it.

    Raises `UserError` where another process has it, which is `busy`; `option` names another place.
    """
    # Of all that read files few lock one, and the rest need not wait for what it loads.
    from filelock import FileLock, Timeout

    found = FileLock(path)
    try:
        found.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another process is {busy}; wait for it to end, or choose another {option}"
        ) from None
    except OSError as error:
        error.filename = str(path)
        raise
    return found


@contextlib.contextmanager
def locked(path: Path, option: str = "--out") -> Iterator[None]:
    """Hold the lock of the file `path`, which is written within the block, as `lock` does."""
    taken = lock(path.with_name(f".{path.name}.lock"), f"writing {path}", option)
    try:
        yield
    finally:
        Path(taken.lock_file).unlink(missing_ok=True)
        taken.release()


@contextlib.contextmanager
def folder_aside(
    folder: Path, *, first: str = "", last: str = "", replaces: Sequence[str] = ()
) -> Iterator[Path]:
    """A folder to write files into that belong together in `folder`; other files there stay.

    When the block ends, all are synced, those in `folder` that a pattern of `replaces` means are
    removed, and the files get their places, `first` before the others, which it makes known, and
    `last` after them, which it seals. When the block
    fails, nothing of them stays, and neither does a `folder` that was not there before.
    """
    new = not folder.is_dir()
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming(folder, partial):
            partial.mkdir(parents=True)
            yield partial
            names = sorted(os.listdir(partial), key=lambda name: (name == last, name != first))
            for name in names:
                _settle(partial / name, folder / name, sync=True)
            for pattern in replaces:
                for stale in folder.glob(pattern):
                    stale.unlink()
            for name in names:
                os.replace(partial / name, folder / name)
            partial.rmdir()
            sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _settle(path: Path, target: Path, sync: bool) -> None:
    """Bytes before names: after a power cut, too, a file that has its name is whole.

    Who may read it stays as it was at `target`, the place it gets.
    """
    if sync:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    try:
        mode = target.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    path.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# What may be written over.


def writable(
    path: Path,
    option: str,
    *,
    inputs: Iterable[Path] = (),
    force: bool = False,
    ours: Callable[[Path], bool] = lambda path: False,
) -> None:
    """Refuse, before any work, to write the file `path` where that would lose or litter anything.

    One of the `inputs` is never written over, by whatever name; a file that is there only with
    `force`, or if it is `ours`: this very command wrote it. No folder is made for it. `option` is
    what the person typed. Raises `UserError`.
    """
    if path.is_dir():
        raise UserError(f"{option}={path} is a folder; name a file in it")
    if any(same_file(path, one) for one in inputs):
        raise UserError(f"{option}={path} is what this command reads; name another file to write")
    if not path.parent.is_dir():
        raise UserError(
            f"{option}={path} lies in a folder that is not there; make it first: "
            f"mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option}={path} lies in a folder that cannot be written; name another")
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        raise UserError(f"{option}={path} is a device and no file; name a file to write")
    if not force and not ours(path):
        raise UserError(
            f"{option}={path} is there already and was not written by this command; "
            "name another file, or pass --force to write over it"
        )


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths mean one file, through links too."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return os.path.realpath(one) == os.path.realpath(other)


def names_apart(paths: Sequence[str]) -> list[str]:
    """Each path by as few of its last parts as no other ends with: its own name, if that will do.

    A path that stands there twice has one name.
    """
    parts = {path: Path(path).parts or (path,) for path in paths}

    def name(path: str) -> str:
        others = [found for other, found in parts.items() if other != path]
        for count in range(1, len(parts[path]) + 1):
            last = parts[path][-count:]
            if all(other[-count:] != last for other in others):
                return str(Path(*last))
        return path

    return [name(path) for path in paths]


def files_of(*paths: Path) -> list[Path]:
    """Return these files and the files in these folders."""
    return [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    ]


# Reading.


def require_file(path: Path) -> None:
    """Raise `UserError` for a pipe, which can be read once, and a device, which may have no end."""
    if not path.is_file():
        raise UserError(
            f"{str(path)!r} is no file but a pipe or a device, and data are read more than once; "
            "write them to a file and give that"
        )


def read_json_object(path: Path, most: int = _MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most so many bytes; `UserError` for whatever else it is."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= most else b""
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); check the path and who may read it"
        ) from None
    if size > most:
        raise UserError(
            f"{path} has {size / 1e6:.0f} MB, and no such file has more than {most / 1e6:.0f}; "
            "download it again"
        )
    try:
        contents = json.loads(content)
    except RecursionError:
        raise UserError(f"{path} is not JSON: nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8 and absurd numbers alike
        raise UserError(f"{path} is not JSON ({error}); download or save it again") from None
    if not isinstance(contents, dict):
        raise UserError(f"{path} is not a JSON object; download or save it again")
    return contents


def read_kept(
    path: Path,
    check: Callable[[dict[str, Any]], T],
    restored: Callable[[str], None] | None = None,
) -> T:
    """What `write_kept` wrote, as `check` makes it, from the copy where the file is damaged.

    With `restored` the file is then put right, and a sentence says so. A file whose seal somebody
    took out, and nothing else, was changed on purpose and is taken as it stands. Raises
    `UserError` when both are damaged.
    """
    copy: dict[str, Any] | None = None
    with contextlib.suppress(UserError):
        copy, _ = _unsealed(_copy(path))
    try:
        value, sealed = _unsealed(path)
        if not sealed and copy is not None and value.keys() != copy.keys():
            raise UserError(f"{path} is damaged: it holds other entries than were written")
        return check(value)
    except UserError:
        if copy is None:
            raise
        found = check(copy)
    if restored is not None:
        write_json(path, {**copy, _SEAL: seal(copy)})
        restored(f"{path} was damaged or gone and is restored from its copy")
    return found


def is_kept(path: Path) -> bool:
    """Whether `write_kept` has written this file, even if it is gone."""
    return os.path.lexists(path) or os.path.isfile(_copy(path))


def seal(value: Mapping[str, Any]) -> str:
    """The SHA-256 of a JSON object."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _unsealed(path: Path) -> tuple[dict[str, Any], bool]:
    """What a file says, and whether it has a seal, which is then whole."""
    value = read_json_object(path)
    if _SEAL not in value:
        return value, False
    said = value.pop(_SEAL)
    if said != seal(value):
        raise UserError(f"{path} is damaged: its bytes are not those that were written")
    return value, True


def _copy(path: Path) -> Path:
    return path.with_name(f".{path.name}.copy")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a .jsonl log, each with the `step` it belongs to.

    A line that is damaged, and a torn last one, the mark of a kill, is left out.
    """
    return [line for line in read_damaged_lines(path) if line is not None]


def read_damaged_lines(path: Path) -> list[dict[str, Any] | None]:
    """The lines of a .jsonl log as `read_lines` gives them, with None for each that is damaged."""
    with naming(path):
        content = path.read_bytes()
    return [log_line(line) for line in content.split(b"\n") if line.strip()]


def log_line(line: bytes) -> dict[str, Any] | None:
    """What a line of a .jsonl log says, with its `step`; None where it is damaged."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict) and is_count(value.get("step")):
            return value
    return None


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a .jsonl log anew, whole or not at all."""
    write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a number that a float can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 10**300  # JSON has whole numbers that no float can hold
    return isinstance(value, float)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON file is a whole number from 0 that 64 bits hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


# Hashes.


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with naming(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
