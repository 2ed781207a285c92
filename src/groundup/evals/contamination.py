"""What of a benchmark a model of ours has trained on, and so knows from elsewhere than the world.

The data stage cuts four benchmarks in half: one half trains, the other is held out. Questions of
one benchmark are much alike, so a model that was taught the other half has an advantage that a
published number of the whole benchmark does not have. The runs that led to a model name their data
folders, and a data folder names its sources. Of a model from elsewhere nothing is known.
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
from groundup.runs.files import is_count, read_json_object

# What a training stage may read of a data folder; of one that does not say it, that is all.
_KINDS = ("documents", "conversations", "preferences")
# Answers are drawn to what these ask, and nothing else of them is read.
_ASKING = ("conversations", "preferences")
_TUNING = ("conversations",)
# What a run calls that which it trains on, among its parents; the second is "data 2".
_SOURCES = ("data", "replay", "prompts", "ptx")


@dataclass(frozen=True)
class Contamination:
    """A run that trained on rows of sets of the suite, by set; without any, what is not known.

    `called` is the run in words, `what` it was trained on with what follows from that.
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
    """What a run trained on that lies somewhere, with what it calls it: data, data 2, replay …"""
    for name, described in history.run["parents"].items():
        what = name.split(" ")[0]
        if what in _SOURCES and (what != "replay" or _replayed(history) is not False):
            yield name, history.beside(described["path"])


def _replayed(history: History) -> bool | None:
    """Whether a run replayed what its settings let it; None where its plan does not say."""
    layout = history.plan.get("layout")
    return bool(layout["replay"]) if isinstance(layout, dict) and "replay" in layout else None


def kinds_of(history: History, name: str) -> tuple[str, ...]:
    """The kinds of rows that a run read of the data folder which it calls so.

    One that is read in two ways is named twice: conversations of which PPO takes the prompts and,
    with ptx, learns all.
    """
    what = name.split(" ")[0]
    if what in ("replay", "ptx"):
        return _TUNING
    kinds: tuple[str, ...] = (history.reads,) if history.reads in _KINDS else _KINDS
    kinds = _ASKING if what == "prompts" else kinds
    config = history.run["config"]
    # Fine-tuning data are those of the same folder where no others are named.
    return (*kinds, *_TUNING) if config.get("ptx") and not config.get("ptx_data") else kinds


def asked_of(history: History, name: str) -> tuple[str, ...] | None:
    """Patterns of the sources of which a run took the prompts alone; None where it read all."""
    if name.split(" ")[0] != "prompts":
        return None
    return tuple(map(str, history.run["config"].get("sources") or ("*",)))


def sets_of(history: History) -> list[str]:
    """The `pack:` and `hub:` sets that a run trained on, which leave nothing beside it."""
    config = history.run["config"]
    names = ["data", "prompts", *(["replay_data"] if _replayed(history) else [])]
    names += ["ptx_data"] if config.get("ptx") else []
    given = [config.get(name) for name in names]
    named = [one for some in given for one in (some if isinstance(some, list) else [some])]
    return [one for one in named if isinstance(one, str) and one.startswith((PACK, HUB))]


def called(history: History) -> str:
    """A run by its folder's name, with its stage where that is another."""
    name = history.folder.resolve().name
    return name if name == history.stage else f"{name} ({history.stage})"


def _of_run(history: History) -> Iterator[Contamination]:
    """A run may have read several sources: data, data 2, …, replay, prompts and ptx."""
    found = list(sources_of(history))
    for name, path in found:
        yield from _of_source(history, name, path)
    sets = sets_of(history)
    for one in sets:
        # A pack's rows are its own: of one that is no set of the suite none is in it.
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
    kinds, patterns = kinds_of(history, name), asked_of(history, name)
    if path.name == "train.jsonl" and is_stage(path.parent.parent):  # as replay names its text
        path, kinds = path.parent.parent, (path.parent.name,)
    if patterns is None or len(set(kinds)) < len(kinds):  # with ptx, all of a kind is learned
        patterns = ("*",)
    rows = _training_rows(path, tuple(dict.fromkeys(kinds)))
    if rows is None:
        yield _unknown(history, f"{path}, which says nothing of its sources")
        return
    # As documents, BoolQ's passages are articles of Wikipedia; none is of a test question.
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
    """How many rows of these kinds a data folder has for training, by source; None where it does
    not say."""
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
