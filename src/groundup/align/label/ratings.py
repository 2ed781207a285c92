"""The results of votes: each model's share of them, and its Bradley-Terry rating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log

import numpy as np

from groundup.align.bradley_terry import ELO, compared, rate
from groundup.data.votes import CUT, Vote, names_of, preferences, valid_votes
from groundup.maths.intervals import Interval
from groundup.report.estimate import Estimate, share
from groundup.report.estimate import rate as win_share
from groundup.report.table import Cell, Column, Row, Table, percent
from groundup.runs.console import counted


@dataclass(frozen=True)
class Standing:
    """A model's votes, the share of them that it won with ties as halves, and its rating in Elo.

    `rating` is None for the first model, which the others are compared with, and for a model that
    no vote compares with it.
    """

    model: str
    wins: int
    ties: int
    losses: int
    share: Estimate
    rating: Interval | None


@dataclass(frozen=True)
class Result:
    """The results of a log: each model's standing, and how often the left answer was chosen."""

    votes: int
    skipped: int
    models: tuple[Standing, ...]
    left: Estimate | None


def result(votes: Sequence[Vote]) -> Result:
    """Count the votes that stand. A tie, or both bad, is half a win for each."""
    counted = valid_votes(votes)
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
    if len(players) == 2:  # the share has an interval even if all votes agree
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
    """The rating of one of two players, with the other's at 0, from its share of wins."""
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


@dataclass(frozen=True)
class Summary:
    """A log in words, before its table and after it, and the number of pairs that it makes."""

    votes: int
    before: Sequence[str]
    table: Table | None
    after: Sequence[str]
    pairs: int


def summary(votes: Sequence[Vote], log: str, names: Sequence[str], longer: str) -> Summary:
    """The summary of the votes in a `log`, for a person.

    `names` are the two models that were compared; `longer` says how to allow longer answers.
    """
    found = result(votes)
    if not found.votes:
        return Summary(0, ["No votes yet."], None, [], 0)
    skipped = f" ({found.skipped} skipped)" if found.skipped else ""
    before, after = [f"In {log}: {counted(found.votes, 'vote')}{skipped}."], list[str]()
    if len(set(names)) == 1:
        before.append(f"All answers are {names[0]}'s.")
    if found.models:
        after.append(
            "Share of votes: a tie, or both bad, is half a vote for each. Rating: Bradley-Terry, "
            f"in Elo points above {found.models[0].model}; 100 more points win 64 % of the votes. "
            "Below is the 95 % interval; an infinite one means too few votes, or votes that are "
            "all for one model."
        )
    if (side := found.left) is not None:
        bias = "" if side.low <= 0.5 <= side.high else ": a side seems to be favored"
        after.append(
            f"Left was chosen in {side.estimate:.0%} of {counted(side.items, 'vote')} for a side "
            f"({side.low:.0%} to {side.high:.0%}{bias})."
        )
    pairs, left_out = preferences(votes, log)
    if cut := left_out.get(CUT):
        after.append(
            f"{counted(cut, 'vote')} on an answer that was cut make no pair, as no model should "
            f"learn to end there; {longer}."
        )
    table = result_table(found) if found.models else None
    return Summary(found.votes, before, table, after, len(pairs))
