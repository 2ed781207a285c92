"""Grades the learner's votes by the files that label, reward, dpo and ppo have written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from groundup.data.records import read_votes
from groundup.data.votes import Vote, valid_votes
from groundup.errors import UserError
from groundup.formats.adapter import model_hash
from groundup.learn.difference import Difference
from groundup.learn.exercise import NotComparable, Trial, calls
from groundup.report.estimate import rate
from groundup.runs.request import read_run

_VOTES = 20


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    counts = [(13, 2, 5), (3, 4, 1), (0, 0, 7), tuple(random.integers(1, 9, 3).tolist())]
    for wins, ties, losses in counts:
        found = rate(np.repeat([1.0, 0.5, 0.0], [wins, ties, losses]))
        yield Trial(
            f"won({wins}, {ties}, {losses})",
            calls("won", wins, ties, losses),
            [found.estimate, found.low, found.high],
            {"wins": wins, "ties": ties, "losses": losses},
            rtol=1e-5,
            atol=1e-6,
        )
    for low, high in ((0.6, 0.8), (0.45, 0.8), (0.1, 0.3), (0.3, 0.6), (0.5, 0.9)):
        expected = "better" if low > 0.5 else "worse" if high < 0.5 else "not significant"
        yield Trial(
            f"verdict({low}, {high})",
            calls("verdict", low, high),
            expected,
            {"low": low, "high": high},
        )
    yield Trial("your files, one by one", _checked, _RIGHT)


_RIGHT: dict[str, Any] = {
    "missing files and folders": "none",
    "decided votes, up to twenty": _VOTES,
    "the reward model was trained on these votes": True,
    "the policy was trained on these votes, or by that reward model": True,
    "the blind votes differ from the first votes": True,
    "blind votes on prompts that were voted on before": 0,
    "blind votes between the policy and another model, up to twenty": _VOTES,
}


def _checked(part: ModuleType) -> dict[str, Any]:
    paths = part.files()
    try:
        return _facts(part, paths)
    except UserError as error:  # in a log or a run.json, which the part's code has not read
        hint = "One of your files cannot be used: the problem is in the file, not in your code."
        raise NotComparable(Difference("", str(error), "files that can be read", hint)) from None


def _facts(part: ModuleType, paths: Mapping[str, str]) -> dict[str, Any]:
    # Relative to the parent of the learner's folder.
    base = Path(str(part.__file__)).resolve().parent.parent
    found = {name: base / path for name, path in paths.items()}
    absent = [name for name, path in found.items() if not path.exists()]
    if absent:
        return _RIGHT | {"missing files and folders": ", ".join(absent)}
    votes, blind = (valid_votes(_read(found[name])) for name in ("votes", "blind"))
    asked = {one.prompt for one in votes}
    reward, tuned = (_parents(found[name], base) for name in ("reward", "policy"))
    policy, called = model_hash(found["policy"])[:16], found["policy"].name
    between = [
        one
        for one in blind
        # Old logs name only the folders.
        if len(set(one.players)) > 1
        and (policy in one.hashes or (not one.hashes and called in _names(one)))
    ]
    values = (
        "none",
        min(_VOTES, sum(one.decided for one in votes)),
        found["votes"].resolve() in reward,
        bool({found["votes"].resolve(), found["reward"].resolve()} & set(tuned)),
        found["votes"].resolve() != found["blind"].resolve(),
        sum(one.prompt in asked for one in blind),
        min(_VOTES, len([one for one in between if one.choice != "skip"])),
    )
    return dict(zip(_RIGHT, values, strict=True))


def _names(vote: Vote) -> set[str]:
    return {Path(name).name for name in vote.models}


def _read(log: Path) -> list[Vote]:
    return list(read_votes(log).rows)


def _parents(folder: Path, base: Path) -> list[Path]:
    """The inputs of a run."""
    parents: Mapping[str, Mapping[str, str]] = read_run(folder)["parents"]
    return [(base / parent["path"]).resolve() for parent in parents.values()]
