"""Blind comparison: which of two answers does a person prefer, without knowing whose they are?

The answers' sides are drawn by chance, since judges favor a side, people and models alike (Zheng et
al. 2023, "Judging LLM-as-a-judge", section 3.3). Each vote is a line of an append-only log
(`data.votes`), on disk before the next pair is shown; the pairs that it makes are what DPO and a
reward model learn from, and Bradley and Terry's model makes ratings of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf, log
from pathlib import Path

import numpy as np

from groundup.align.bradley_terry import ELO, compared, rate
from groundup.data.records import read_votes
from groundup.data.votes import DECIDED, Vote, names_of, standing
from groundup.data.votes import vote as vote_of
from groundup.errors import UserError
from groundup.maths.intervals import Interval
from groundup.report.estimate import Estimate, share
from groundup.report.estimate import rate as win_share
from groundup.report.table import Cell, Column, Row, Table, percent
from groundup.runs.files import locked, naming, writable
from groundup.text.rows import BadRow, Message

# How every line of a log begins, by which a torn one is known.
_BEGINNING = b'{"prompt": '


@dataclass(frozen=True)
class Comparison:
    """Two answers to compare: which of them stands on the left, and the seeds that draw them.

    All follows from the log's `seed` and from what is compared, so that it is the same again when
    the same command goes on.
    """

    prompt: tuple[Message, ...]
    id: str
    left: str
    seeds: tuple[int, int]


def comparisons(
    prompts: Sequence[tuple[Message, ...]], settings: Mapping[str, object], seed: int
) -> list[Comparison]:
    """One for each prompt, in order; `settings` is all that the answers depend on beside it."""
    found: list[Comparison] = []
    times: dict[str, int] = {}  # a prompt that is there twice is asked twice
    for prompt in prompts:
        turns = [(turn.role, turn.content) for turn in prompt]
        said = json.dumps([turns, settings, seed], sort_keys=True)
        times[said] = times.get(said, -1) + 1
        id = hashlib.sha256(f"{times[said]} {said}".encode()).hexdigest()[:16]
        dice = random.Random(id)
        left = dice.choice(DECIDED)
        found.append(Comparison(prompt, id, left, (dice.getrandbits(32), dice.getrandbits(32))))
    return found


# The log.


class VoteLog:
    """The votes in a file, of one process at a time; each is on disk when `append` returns."""

    def __init__(self, path: Path, votes: list[Vote], handle: int, dropped: bool) -> None:
        self.path, self.votes, self._handle = path, votes, handle
        self.dropped = dropped
        """Whether a last line, which a kill had torn, was dropped."""

    def append(self, vote: Vote) -> None:
        line = json.dumps(vote.to_json(), ensure_ascii=False) + "\n"
        data = line.encode("utf-8", errors="backslashreplace")
        with naming(self.path):
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
        self.votes.append(vote)


@contextlib.contextmanager
def vote_log(path: Path, inputs: Sequence[Path] = ()) -> Iterator[VoteLog]:
    """Open a log to go on with, or begin it.

    Raises `UserError` for a file that holds anything but votes, which stays as it is, for one of
    the `inputs`, and while another process writes it.
    """
    writable(path, "--out", inputs=inputs, force=True)
    with locked(path):
        with naming(path):
            is_new = not path.exists()
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            with naming(path):
                dropped = _drop_torn_line(path, handle)
            yield VoteLog(path, _votes(path), handle, dropped)
        finally:
            os.close(handle)
            if is_new and not path.stat().st_size:
                path.unlink()  # nothing was said


def _drop_torn_line(path: Path, handle: int) -> bool:
    """Cut off a torn last line of a log, and say whether there was one; end a whole one."""
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
        raise UserError(f"{path} is no log of votes; choose another --out")
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


def _votes(path: Path) -> list[Vote]:
    if not path.stat().st_size:
        return []
    found = read_votes(path)
    if found.bad:
        raise UserError(f"{found.bad[0]}; mend that line, or choose another --out")
    return list(found.rows)


def check_models(log: VoteLog, models: Sequence[str], hashes: Sequence[str]) -> None:
    """Raise `UserError` where the log holds votes on other models than these."""
    for vote in standing(log.votes):
        if set(vote.players) == set(hashes):
            continue
        others = " and ".join(dict.fromkeys(vote.models)) or "models that it does not name"
        again = set(vote.models) == set(models)
        raise UserError(
            f"{log.path} holds votes on {'earlier weights of ' * again}{others}, not on "
            f"{' and '.join(dict.fromkeys(models))}; choose another --out, or pass --append to "
            "put both into one log"
        )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# What the votes say.


@dataclass(frozen=True)
class Standing:
    """A model's votes, the share of them that it won with ties as halves, and its rating in Elo.

    `rating` is None for the first model, which the others are compared with, and for one that no
    vote compares with it.
    """

    model: str
    wins: int
    ties: int
    losses: int
    share: Estimate
    rating: Interval | None


@dataclass(frozen=True)
class Result:
    """What a log says: each model's standing, and how often the left answer was chosen."""

    votes: int
    skipped: int
    models: tuple[Standing, ...]
    left: Estimate | None


def result(votes: Sequence[Vote]) -> Result:
    """Count the votes that stand. A tie, and both bad, is half a win for each."""
    counted = standing(votes)
    said = [vote for vote in counted if vote.choice != "skip"]
    sides = [vote.choice == vote.left for vote in said if vote.decided and vote.left]
    return Result(
        len(said),
        len(counted) - len(said),
        _standings([vote for vote in said if len(set(vote.players)) == 2]),
        share(sum(sides), len(sides)) if sides else None,
    )


def _standings(votes: Sequence[Vote]) -> tuple[Standing, ...]:
    """The models in the order in which they first appear."""
    if not votes:
        return ()
    players = list(dict.fromkeys(player for vote in votes for player in vote.players))
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(v.prompt for v in votes))}
    matches = np.zeros((len(prompts), len(players), len(players)))
    points: list[list[float]] = [[] for _ in players]
    on: list[list[int]] = [[] for _ in players]  # the prompts of those votes
    for vote in votes:
        a, b = map(players.index, vote.players)
        won = {"a": 1.0, "b": 0.0}.get(vote.choice, 0.5)
        matches[prompts[vote.prompt], [a, b], [b, a]] += won, 1 - won
        for player, own in ((a, won), (b, 1 - won)):
            points[player].append(own)
            on[player].append(prompts[vote.prompt])
    ratings = rate(matches)
    shares = [
        win_share(np.array(own), groups=asked, chance=0.5)
        for own, asked in zip(points, on, strict=True)
    ]
    if len(players) == 2:  # the share has ends also where all votes agree
        ratings[1] = replace(
            ratings[1], low=_log_odds(shares[1].low), high=_log_odds(shares[1].high)
        )
    met = compared(matches.sum(0))
    return tuple(
        Standing(
            name,
            own.count(1.0),
            own.count(0.5),
            own.count(0.0),
            share_of_votes,
            _in_elo(rating) if place and met[place] else None,
        )
        for place, (name, own, share_of_votes, rating) in enumerate(
            zip(names_of(votes, players), points, shares, ratings, strict=True)
        )
    )


def _log_odds(share: float) -> float:
    """The rating of one of two players, the other's being 0, by its share of wins."""
    return inf if share == 1 else log(share / (1 - share)) if share else -inf


def _in_elo(rating: Interval) -> Interval:
    return Interval(rating.estimate * ELO, rating.low * ELO, rating.high * ELO)


def result_table(found: Result) -> Table:
    """A row for each model, with its share of the votes and its rating against the first."""
    columns = [Column(name) for name in ("won", "tied", "lost", "share of votes", "rating")]
    rows = [
        Row(
            one.model,
            [
                *(Cell(str(count)) for count in (one.wins, one.ties, one.losses)),
                percent(one.share),
                _elo(one.rating) if one.rating is not None else Cell("0") if not place else None,
            ],
        )
        for place, one in enumerate(found.models)
    ]
    return Table(columns, rows)


def _elo(rating: Interval) -> Cell:
    estimate, low, high = (
        f"{end:+.0f}" if np.isfinite(end) else "+∞" if end > 0 else "-∞"
        for end in (rating.estimate, rating.low, rating.high)
    )
    return Cell(estimate, f"{low} to {high}")
