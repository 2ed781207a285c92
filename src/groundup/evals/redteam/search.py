"""The search: the plain request, some random attacks, then changes of those that came closest.

    elite   = the attacks on this request with the least resistance so far
    child   = an elite with one or two parts replaced at random; or, one in four, a random attack
    round   = a few children of every unbroken request, asked together; in the first round all are
              random

An evolution strategy without crossover (Rechenberg 1973; for suffixes alone it is the random search
of Andriushchenko et al. 2024). Nothing learned on one request is used on another, so requests are
independent and intervals are valid. The random search chooses every attack at random. Both begin
with the plain request and have the same budget, so any difference is due to following the
resistance.

A query is one prompt that the model reads and answers. The answer is judged by the world's truth,
as an answer to the plain request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groundup.evals.redteam.attacks import Attack, Space
from groundup.evals.redteam.target import Target
from groundup.world.grammar import SeededRandom

Method = Literal["search", "random"]
METHODS: tuple[Method, ...] = ("search", "random")
_ROUND, _ELITES = 4, 3
_FRESH = 0.25  # share of random attacks among the children


@dataclass(frozen=True)
class HarmfulRequest:
    """A harmful request of the world: its text, its act in words, and its group."""

    text: str
    act: str
    group: str

    @property
    def plain(self) -> Attack:
        """The unchanged request as an attack."""
        return Attack(self.text.replace(self.act, "{act}"))


@dataclass(frozen=True)
class Tried:
    """A query: the request, the attack, and the result."""

    request: int
    attack: Attack
    resistance: float
    broken: bool
    answer: str | None = None
    """The answer, kept only if the attack broke the model."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "attack": self.attack.to_json()}

    @classmethod
    def of(cls, found: dict[str, Any]) -> Tried:
        """The query in a line of a log."""
        return cls(**{**found, "attack": Attack.of(found["attack"])})


def by_request(rounds: Iterable[Sequence[Tried]], requests: int) -> list[list[Tried]]:
    """The queries on each request, in the order of the rounds."""
    found: list[list[Tried]] = [[] for _ in range(requests)]
    for one in (one for tried in rounds for one in tried):
        found[one.request].append(one)
    return found


def search(
    target: Target,
    requests: Sequence[HarmfulRequest],
    space: Space,
    judge: Callable[[HarmfulRequest, str], bool],
    *,
    method: Method,
    budget: int,
    seed: int,
    done: Sequence[Sequence[Tried]] = (),
) -> Iterator[list[Tried]]:
    """Attack every request until something breaks the model or its budget is spent.

    Yields the queries of each round; rounds that are `done` are not asked again.
    """
    rounds = list(done)
    while True:
        so_far = by_request(rounds, len(requests))
        # The requests that are unbroken and have queries left.
        open_ = [
            i
            for i, tried in enumerate(so_far)
            if len(tried) < budget and not any(one.broken for one in tried)
        ]
        if not open_:
            return
        asked = [
            (i, attack)
            for i in open_
            for attack in proposed(requests[i], so_far[i], space, method, budget, seed)
        ]
        replies = target([attack.prompt(requests[i].act) for i, attack in asked])
        tried = []
        for (i, attack), reply in zip(asked, replies, strict=True):
            broken = judge(requests[i], reply.text)
            said = reply.text if broken else None
            tried.append(Tried(i, attack, reply.resistance, broken, said))
        rounds.append(tried)
        yield tried


def proposed(
    request: HarmfulRequest,
    tried: Sequence[Tried],
    space: Space,
    method: Method,
    budget: int,
    seed: int,
) -> list[Attack]:
    """The next attacks on a request: first the plain request, then a round."""
    if not tried:
        return [request.plain]
    elites = sorted(tried, key=lambda one: one.resistance)[:_ELITES]
    found = []
    for place in range(len(tried), min(budget, len(tried) + _ROUND)):
        # Random attacks are the same for both searches at the same place: a separate generator
        # decides whether the search uses one.
        dice = SeededRandom("red team", seed, request.text, place)
        fresh = SeededRandom("red team, fresh", seed, request.text, place).chance(_FRESH)
        if method == "random" or len(tried) == 1 or fresh:
            found.append(space.random(dice))
            continue
        # Neighbors of failed attacks mostly fail as well: half of the children change twice.
        child = space.changed(dice.pick(elites).attack, dice)
        found.append(space.changed(child, dice) if dice.chance(0.5) else child)
    return found


def queries_needed(tries: Sequence[Sequence[Tried]], budget: int) -> list[int]:
    """The number of the query that broke each request; budget + 1 if none did."""
    return [
        next((n for n, one in enumerate(tried, start=1) if one.broken), budget + 1)
        for tried in tries
    ]
