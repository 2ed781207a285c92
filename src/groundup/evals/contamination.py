"""Which benchmark questions one of our models was trained on.

The data stage splits four benchmarks in half: one half trains, the other is held out. Questions of
a benchmark resemble each other, so a model trained on the other half has an advantage over
published numbers of the whole benchmark. A model's runs name their data folders, and a data folder
names its sources. Nothing is known about models from elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from groundup.data.dataset import is_stage
from groundup.data.packs.manifest import HUB, PACK
from groundup.errors import UserError
from groundup.evals.core_sets import CORE_SETS
from groundup.report.history import History, lineage
from groundup.runs.cache import hub_source
from groundup.runs.files import is_count, read_json_object

# The kinds of rows in a data folder; a training stage that does not declare its kind may read all.
_KINDS = ("documents", "conversations", "preferences")
# Kinds whose prompts are answered by sampling; nothing else of the rows is read.
_ASKING = ("conversations", "preferences")
_TUNING = ("conversations",)
# Parents of a run that are training data; further ones are named "data 2" and so on.
_SOURCES = ("data", "replay", "prompts", "ptx")


@dataclass(frozen=True)
class Contamination:
    """A run that trained on rows of the suite's sets; with empty `rows`, it is not known.

    `called` names the run, `what` says what it was trained on and what follows from that.
    """

    run: str
    stage: str
    rows: dict[str, int]
    called: str
    what: str

    @property
    def message(self) -> str:
        return f"{self.called} was trained on {self.what}"

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("run", "stage", "rows", "message")}


def contamination(model: Path) -> list[Contamination]:
    """What a model's lineage trained on of the core suite, in the order of the runs."""
    return [one for history in lineage(model) for one in _of_run(history)]


def sources_of(history: History) -> Iterator[tuple[str, Path]]:
    """Names and paths of a run's training data that has a folder or file: data, data 2, replay …"""
    for name, described in history.run["parents"].items():
        what = name.split(" ")[0]
        if what in _SOURCES and (what != "replay" or _replayed(history) is not False):
            yield name, history.beside(described["path"])


def _replayed(history: History) -> bool | None:
    """Whether a run replayed text as configured; None if its plan does not say."""
    layout = history.plan.get("layout")
    return bool(layout["replay"]) if isinstance(layout, dict) and "replay" in layout else None


def kinds_of(history: History, name: str) -> tuple[str, ...]:
    """The kinds of rows that a run read of the data folder with this name.

    A kind that is read in two ways is listed twice: PPO takes the prompts of conversations and,
    with ptx, trains on all of them.
    """
    what = name.split(" ")[0]
    if what in ("replay", "ptx"):
        return _TUNING
    kinds: tuple[str, ...] = (history.reads,) if history.reads in _KINDS else _KINDS
    kinds = _ASKING if what == "prompts" else kinds
    config = history.run["config"]
    # Without `ptx_data`, the fine-tuning data is in the same folder.
    return (*kinds, *_TUNING) if config.get("ptx") and not config.get("ptx_data") else kinds


def prompt_only_sources(history: History, name: str) -> tuple[str, ...] | None:
    """Patterns of the sources of which a run read the prompts only; None if it read all."""
    if name.split(" ")[0] != "prompts":
        return None
    return tuple(map(str, history.run["config"].get("sources") or ("*",)))


def sets_of(history: History) -> list[str]:
    """The `pack:` and `hub:` sets that a run trained on and that are not among `sources_of`."""
    config = history.run["config"]
    names = ["data", "prompts", *(["replay_data"] if _replayed(history) else [])]
    names += ["ptx_data"] if config.get("ptx") else []
    given = [config.get(name) for name in names]
    named = [one for some in given for one in (some if isinstance(some, list) else [some])]
    paths = [hub_source("datasets", path) for _, path in sources_of(history)]
    read = {_repository(path) for path in paths if path}
    return [
        one
        for one in named
        if isinstance(one, str) and one.startswith((PACK, HUB)) and _repository(one) not in read
    ]


def _repository(source: str) -> str:
    """hub:owner/name of hub:owner/name@revision/path."""
    return "/".join(source.split("/")[:2]).partition("@")[0]


def called(history: History) -> str:
    """A run by its folder's name, followed by its stage if that differs."""
    name = history.folder.resolve().name
    return name if name == history.stage else f"{name} ({history.stage})"


def _of_run(history: History) -> Iterator[Contamination]:
    """A run may have read several sources: data, data 2, …, replay, prompts and ptx."""
    found = list(sources_of(history))
    for name, path in found:
        yield from _of_source(history, name, path)
    sets = sets_of(history)
    for one in sets:
        # A pack contains only its own rows, so other packs have no rows of the suite.
        if one.startswith(HUB) or one.removeprefix(PACK) in CORE_SETS:
            yield _unknown(history, f"{one}, of which no data folder is left")
    if not found and not sets:
        yield _unknown(history, "data that it does not name")


def _unknown(history: History, what: str) -> Contamination:
    return _found(history, {}, f"{what}: whether questions of the suite are in there is not known")


def _found(history: History, rows: dict[str, int], what: str) -> Contamination:
    name = history.folder.resolve().name
    return Contamination(name, history.stage, rows, called(history), what)


def _of_source(history: History, name: str, path: Path) -> Iterator[Contamination]:
    kinds, patterns = kinds_of(history, name), prompt_only_sources(history, name)
    if path.name == "train.jsonl" and is_stage(path.parent.parent):  # the form that replay records
        path, kinds = path.parent.parent, (path.parent.name,)
    if patterns is None or len(set(kinds)) < len(kinds):  # ptx trains on all rows of the kind
        patterns = ("*",)
    rows = _training_rows(path, tuple(dict.fromkeys(kinds)))
    if rows is None:
        named = hub_source("datasets", path) or path
        yield _unknown(history, f"{named}, which says nothing of its sources")
        return
    # As documents, BoolQ's passages are Wikipedia articles, none of them of a test question.
    found = {
        name: rows[name]
        for name in CORE_SETS
        if rows[name]
        and kinds != ("documents",)
        and any(fnmatch(name, pattern) for pattern in patterns)
    }
    halves = {name: count for name, count in found.items() if name != "boolq"}
    if halves:
        titles = " and ".join(
            ", ".join(CORE_SETS[name].title for name in part)
            for part in (list(halves)[:-1], list(halves)[-1:])
            if part
        )
        what = (
            f"the other half of the test questions of {titles}: not comparable with published "
            "numbers"
        )
        yield _found(history, halves, what)
    if "boolq" in found:
        what = (
            "BoolQ's own training questions: compare with published fine-tuned numbers, not with "
            "zero-shot ones"
        )
        yield _found(history, {"boolq": found["boolq"]}, what)


def _training_rows(data: Path, kinds: tuple[str, ...]) -> Counter[str] | None:
    """The number of training rows of these kinds in a data folder by source; None if unknown."""
    try:
        counts = read_json_object(data / "data.json")["counts"]
        rows: Counter[str] = Counter()
        for kind in kinds:
            found = counts.get(f"{kind}/train", {}).get("by_source", {})
            if not all(map(is_count, found.values())):
                return None
            rows.update(found)
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    return rows
