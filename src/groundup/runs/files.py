"""Files that a command writes and reads: atomic writes, checked reads, no overwriting by accident.

    atomic_write        one file: written to a temporary name, synced, renamed; removed on failure
    temporary_folder    the same for several files that belong together
    writable            the rule for which files may be overwritten
    read_json_object, read_sealed, read_lines   the checked readers

Every failure is an `OSError` that names the file, whether Python, NumPy or a Rust library (whose
errors say '(os error 28)') detected it. `describe_os_error` makes the user's message from it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from groundup.errors import UserError

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")

# A parsed file may take thirty times its size in memory. The largest tokenizer.json files in use
# have some 35 MB, the indices of the largest models 15.
_MAX_BYTES = 16 * 2**20
MAX_TOKENIZER_BYTES = 64 * 2**20
# How library errors state the system's error number: Rust's Display and Debug formats (safetensors
# 0.5 uses the latter), and Python's in a text.
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+), kind: |\[Errno (\d+)\]")
# Errors of disks, never of networks.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_SEAL = "sha256"
# The files of `temporary_folder` while it writes; they remain if it is killed.
_PARTIAL, _PARTIAL_LOCK = ".partial", ".partial.lock"
LOCK = ".lock"
"""The file in a folder whose lock the process that works there holds."""


# Errors.


def os_error(error: BaseException) -> OSError | None:
    """Return the `OSError` behind an error that a library may have wrapped."""
    if isinstance(error, OSError):
        return error
    found = _SYSTEM_ERROR.search(str(error))
    if found is None:
        return None
    number = int(found[found.lastindex or 0])
    return OSError(number, os.strerror(number))


@contextlib.contextmanager
def errors_naming(path: Path, aside: Path | None = None) -> Iterator[None]:
    """Turn system errors inside the block into an `OSError` that names `path`.

    `aside` is the temporary name that is written before the rename; errors never show it.
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
            found = OSError(_write_error(aside or path) or errno.EIO, str(error))
        named = found.filename
        inside = aside is not None and named is not None and str(named).startswith(str(aside))
        if named is None or inside:
            found.filename, found.filename2 = str(path), None
        if found is error:
            raise
        raise found from error


def _write_error(path: Path) -> int | None:
    """Return the system's error for writing one more block: libraries only report a short write."""
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


def describe_os_error(error: OSError) -> str:
    """Return one sentence: what failed, why, and the remedy."""
    reason = str(error) if error.errno is None else os.strerror(error.errno)
    if error.filename is None:
        what = "a file" if error.errno is not None else "a file or a stream"
        return f"{what} cannot be used ({reason}); {remedy(error)}"
    return f"{os.fsdecode(error.filename)!r} cannot be used ({reason}); {remedy(error)}"


def remedy(error: OSError) -> str:
    """Return what the user can do about a system error."""
    no_locks = "choose a place on a local disk (--out): this file system does not support locks"
    return {
        errno.ENOLCK: no_locks,
        errno.EOPNOTSUPP: no_locks,
        errno.ENOSPC: "make room on its disk and start the same command again",
        errno.EDQUOT: "make room within your quota and start the same command again",
        errno.EFBIG: "raise the limit on the size of files (ulimit -f) and start it again",
        errno.EIO: "the disk fails or is full; choose a place on another disk",
        errno.EROFS: "choose a place that is writable",
        errno.EACCES: "check its permissions or choose another place",
        errno.EPERM: "check its permissions or choose another place",
        errno.ENOENT: "check the path",
        errno.EMFILE: "raise the limit on open files (ulimit -n) and start it again",
    }.get(error.errno or 0, "check the path, its permissions and the space on its disk")


# Writing.


def _partial(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path` atomically at the end.

    When the block ends, the file is synced and renamed. When it fails, the temporary file is
    removed and `path` stays as it was. Raises `OSError` that names `path`.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    partial = _partial(path)
    try:
        with errors_naming(path, partial):
            partial.unlink(missing_ok=True)
            # Never through a planted link, and unreadable for other users until it is complete.
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            yield partial
            _sync_and_set_mode(partial, path, sync)
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace `path` atomically. Raises `OSError` that names it."""
    with atomic_write(path, sync=sync) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically by text in UTF-8. Raises `OSError` that names it."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any], *, sync: bool = True) -> None:
    """Replace `path` atomically by one JSON object."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # A lone surrogate has no UTF-8 encoding and is written as a JSON escape.
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), sync=sync)


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object that cannot be recomputed, with its SHA-256 as a seal, and a copy.

    `read_sealed` detects changed bytes and restores them from the copy.
    """
    sealed = {**value, _SEAL: seal(value)}
    write_json(_copy(path), sealed)
    write_json(path, sealed)


def lock(path: Path, busy: str, option: str = "--out") -> FileLock:
    """Lock the lock file `path` for this process until it ends or releases the lock.

    Raises `UserError` if another process holds it: `busy` says what that process is doing, and
    `option` is the option that chooses another place.
    """
    # Imported here because few callers of this module need a lock.
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
    """Hold the lock of the file `path` while the block writes it. Errors are those of `lock`."""
    taken = lock(path.with_name(f".{path.name}.lock"), f"writing {path}", option)
    try:
        yield
    finally:
        release(taken)


def release(taken: FileLock) -> None:
    """Release a lock and remove its file."""
    Path(taken.lock_file).unlink(missing_ok=True)
    taken.release()


@contextlib.contextmanager
def temporary_folder(
    folder: Path, *, first: str = "", last: str = "", replaces: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` together; other files there stay.

    When the block ends, all files are synced, files in `folder` that match a pattern of `replaces`
    are removed, and the new files are renamed into place: `first` before the others, because it
    announces them, and `last` after them, because it completes them. When the block fails, the new
    files are removed, and `folder` too if it did not exist before. Raises `UserError` while another
    process does the same in `folder`.
    """
    new = not folder.is_dir()
    partial = folder / _PARTIAL
    with errors_naming(folder, partial):
        folder.mkdir(parents=True, exist_ok=True)
        taken = lock(folder / _PARTIAL_LOCK, f"writing to {folder}")
    try:
        with errors_naming(folder, partial):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            names = sorted(os.listdir(partial), key=lambda name: (name == last, name != first))
            for name in names:
                _sync_and_set_mode(partial / name, folder / name, sync=True)
            for pattern in replaces:
                for stale in folder.glob(pattern):
                    stale.unlink()
            for name in names:
                os.replace(partial / name, folder / name)
            partial.rmdir()
            sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        release(taken)
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    release(taken)


def is_unused(folder: Path) -> bool:
    """Whether a folder is missing, empty, or has only a lock or what a killed `temporary_folder`
    left."""
    return not folder.is_dir() or holds_only(folder)


def holds_only(folder: Path, names: Collection[str] = ()) -> bool:
    """Whether a folder has only these files, their copies, a lock and what killed writers left."""
    found = {*os.listdir(folder)} - {_PARTIAL, _PARTIAL_LOCK, LOCK}
    written = {*names, *(_copy(Path(name)).name for name in names)}
    return found <= written | {_partial(Path(name)).name for name in written}


def _sync_and_set_mode(path: Path, target: Path, sync: bool) -> None:
    """Sync a file before its rename, so that a named file is complete even after a power cut.

    Its permissions become those of `target`, the path it will get.
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
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Overwriting.


def writable(
    path: Path,
    option: str,
    *,
    inputs: Iterable[Path] = (),
    force: bool = False,
    ours: Callable[[Path], bool] = lambda path: False,
) -> None:
    """Check, before any work, that writing the file `path` loses nothing; raise `UserError` if not.

    None of the `inputs` is ever overwritten, under any name. An existing file is overwritten only
    with `force` or if it is `ours`, written by this command. The parent folder must exist. `option`
    is the option that the user typed.
    """
    if path.is_dir():
        raise UserError(f"{option}={path} is a folder; name a file in it")
    if any(same_file(path, one) for one in inputs):
        raise UserError(f"{option}={path} is what this command reads; name another file to write")
    if not path.parent.is_dir():
        raise UserError(
            f"{option}={path} is in a folder that does not exist; create it first: "
            f"mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option}={path} is in a folder that is not writable; name another one")
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        raise UserError(f"{option}={path} is a device, not a file; name a file to write")
    if not force and not ours(path):
        raise UserError(
            f"{option}={path} already exists and was not written by this command; "
            "name another file, or pass --force to overwrite it"
        )


def require_writable_folder(folder: Path) -> None:
    """Check, before any work, that `folder` can be written, or created where it does not exist.

    Creates nothing. Raises `UserError` if it cannot: a file or a link to nowhere is in the way, or
    the folder, or the nearest one above it, is not writable.
    """
    existing = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not existing.is_dir():
        raise UserError(f"--out={folder} needs a folder, but {existing} is none; name another")
    if not os.access(existing, os.W_OK):
        raise UserError(f"--out={folder} cannot be written: {existing} is read-only; name another")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths name the same file, links included."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist
        return os.path.realpath(one) == os.path.realpath(other)


def unique_names(paths: Sequence[str]) -> list[str]:
    """Return the shortest suffix of each path that no other path ends with: its name if possible.

    Equal paths get the same name.
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
    """Raise `UserError` for a pipe, which can be read only once, or a device, which may not end."""
    if not path.is_file():
        raise UserError(
            f"{str(path)!r} is a pipe or a device, not a file, and data is read more than once; "
            "write it to a file and give that"
        )


def read_json_object(
    path: Path, most: int = _MAX_BYTES, *, remedy: str = "download or save it again"
) -> dict[str, Any]:
    """Return the JSON object in a file of at most `most` bytes. Raises `UserError` for others."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= most else b""
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    if size > most:
        raise UserError(
            f"{path} has {size / 1e6:.0f} MB, and such files have at most {most / 1e6:.0f}; "
            "download it again"
        )
    try:
        contents = json.loads(content)
    except RecursionError:
        raise UserError(f"{path} is not JSON: nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8 and absurd numbers alike
        raise UserError(f"{path} is not JSON ({error}); {remedy}") from None
    if not isinstance(contents, dict):
        raise UserError(f"{path} is not a JSON object; {remedy}")
    return contents


def read_sealed(
    path: Path,
    check: Callable[[dict[str, Any]], T],
    restored: Callable[[str], None] | None = None,
) -> T:
    """Return `check` of what `write_sealed` wrote, from the copy if the file is damaged.

    With `restored`, a damaged file is then rewritten and `restored` gets a sentence that says so. A
    file without a seal but with the same entries was edited on purpose and is accepted. Raises
    `UserError` when both are damaged.
    """
    copy: dict[str, Any] | None = None
    with contextlib.suppress(UserError):
        copy, _ = _unsealed(_copy(path))
    try:
        value, sealed = _unsealed(path)
        if not sealed and copy is not None and value.keys() != copy.keys():
            raise UserError(f"{path} is damaged: its entries are not those that were written")
        return check(value)
    except UserError:
        if copy is None:
            raise
        found = check(copy)
    if restored is not None:
        write_json(path, {**copy, _SEAL: seal(copy)})
        restored(f"{path} was damaged or missing and is restored from its copy")
    return found


def is_sealed(path: Path) -> bool:
    """Whether `write_sealed` has written this file, even if it was deleted since."""
    return os.path.lexists(path) or os.path.isfile(_copy(path))


def seal(value: Mapping[str, Any]) -> str:
    """The SHA-256 of a JSON object."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _unsealed(path: Path) -> tuple[dict[str, Any], bool]:
    """Return a file's JSON object and whether it has a seal. Raises `UserError` for a wrong one."""
    value = read_json_object(path, remedy="restore it, or choose another folder")
    if _SEAL not in value:
        return value, False
    stated = value.pop(_SEAL)
    if stated != seal(value):
        raise UserError(f"{path} is damaged: its bytes are not those that were written")
    return value, True


def _copy(path: Path) -> Path:
    return path.with_name(f".{path.name}.copy")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a .jsonl log, each with the `step` it belongs to.

    Damaged lines are left out, such as a last line that a kill cut off.
    """
    return [line for line in read_damaged_lines(path) if line is not None]


def read_damaged_lines(path: Path) -> list[dict[str, Any] | None]:
    """Return the lines of a .jsonl log like `read_lines`, with None for each damaged one."""
    with errors_naming(path):
        content = path.read_bytes()
    return [log_line(line) for line in content.split(b"\n") if line.strip()]


def log_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line of a .jsonl log, which has a `step`; None if it is damaged."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict) and is_count(value.get("step")):
            return value
    return None


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a .jsonl log atomically."""
    write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a number that a float can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 10**300  # JSON allows integers that no float can hold
    return isinstance(value, float)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON file is a non-negative integer below 2^63."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


# Hashes.


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with errors_naming(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
