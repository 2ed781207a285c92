"""Win rates measured elsewhere: by rewards (`groundup eval rewards`), and by people's votes.

A reward model trained on other labels, or a person, tells what no set of questions does: which of
two answers is better. This module only reads such results, so that the page can show them.
"""

from __future__ import annotations

from collections import defaultdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.records import read_votes
from groundup.data.votes import Vote, names_of, valid_votes
from groundup.errors import UserError
from groundup.report.estimate import Estimate, rate
from groundup.report.outcome import RESULT
from groundup.runs.files import is_number, read_json_object

_WINS = ": wins against "
_ENDS = ("estimate", "low", "high", "items", "groups")


def reward_wins(folder: Path) -> list[dict[str, Any]]:
    """Win rates between models by each reward, from a folder of `groundup eval rewards`.

    Raises `UserError` for other folders.
    """
    content = read_json_object(folder / RESULT)
    found = []
    try:
        for name, one in {**content["models"], **content.get("methods", {})}.items():
            for key, wins in one.items():
                reward, is_wins, other = key.partition(_WINS)
                if is_wins and name != other:
                    ends = {end: wins[end] for end in _ENDS}
                    if not all(is_number(one) and isfinite(one) for one in ends.values()):
                        raise TypeError("an end is not a number")
                    won = Estimate(**ends, chance=0.5)
                    found.append(_row(name, other, f"by its {reward}", won))
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{folder / RESULT} does not say who won; give the folder of groundup eval rewards"
        ) from None
    return found


def vote_wins(log: Path) -> list[dict[str, Any]]:
    """Win rates by the votes of `groundup label`; intervals resample whole prompts.

    A tie counts half, and so do two bad answers.

    Raises `UserError` for a file that cannot be read, and for votes that do not name the models.
    """
    by_pair: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in valid_votes(read_votes(log).rows):
        if vote.models and vote.choice != "skip" and len(set(vote.players)) == 2:
            by_pair[min(vote.players), max(vote.players)].append(vote)
    if not by_pair:
        raise UserError(
            f"{log} holds no vote between two models that it names; groundup label OTHER MODEL "
            "--prompts FILE writes such a log"
        )
    found = []
    for (one, other), votes in sorted(by_pair.items()):
        worth = np.array([_worth(vote, one) for vote in votes])
        prompts = [str([turn.content for turn in vote.prompt]) for vote in votes]
        won = rate(worth, groups=prompts, chance=0.5)
        name, against = names_of(votes, (one, other))
        people = len({vote.who for vote in votes})
        said = f"by {people} {'person' if people == 1 else 'people'}"
        found.append(_row(name, against, said, won))
    return found


def _worth(vote: Vote, player: str) -> float:
    """1 if that model's answer was preferred, 0.5 if neither was."""
    if not vote.decided:
        return 0.5
    return float(vote.players["ab".index(vote.choice)] == player)


def _row(name: str, other: str, judge: str, won: Estimate) -> dict[str, Any]:
    return {"model": name, "other": other, "judge": judge, "wins": won.to_json()}
