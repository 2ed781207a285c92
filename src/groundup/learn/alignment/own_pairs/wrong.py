"""The commonest mistakes with your own votes."""

import json
import math
import re
from pathlib import Path

from groundup.learn.alignment.own_pairs.solution import files as _files

REPLACES = {
    "same_votes_twice": "files",
    "same_prompts_twice": "files",
    "another_policy": "files",
    "reward_of_others": "files",
    "policy_for_reward": "files",
    "nothing_there": "files",
    "ties_lost": "won",
    "ties_are_wins": "won",
    "ties_left_out": "won",
    "share_of_losses": "won",
    "plain_interval": "won",
    "the_middle_decides": "verdict",
    "anything_above": "verdict",
    "never_worse": "verdict",
    "rounded_z": "won",
}


def same_votes_twice() -> dict[str, str]:
    """The blind votes are the votes that the model was trained on. Vote again, on other prompts,
    between your model and the policy."""
    found = _files()
    return {**found, "blind": found["votes"]}


def same_prompts_twice() -> dict[str, str]:
    """The blind votes are on prompts from your first votes, whose answers trained the policy. Vote
    on new ones: --prompts new.txt."""
    found = _files()
    blind = Path(found["blind"])
    blind.write_text(re.sub(r"Question \d+", lambda one: _earlier(one[0]), blind.read_text()))
    return found


def _earlier(question: str) -> str:
    word, number = question.split()
    return f"{word} {int(number) % 20}"


def another_policy() -> dict[str, str]:
    """The blind votes are about another model than this policy: about another folder of the same
    name, or its earlier contents. Vote between your model and the current policy."""
    found = _files()
    blind = Path(found["blind"])
    votes = [json.loads(line) for line in blind.read_text().splitlines()]
    lines = [json.dumps(vote | {"hashes": ["one", "other"]}) for vote in votes]
    blind.write_text("\n".join(lines))
    return found


def reward_of_others() -> dict[str, str]:
    """The reward model was not trained on your votes: its run.json names other data. Give --data
    the log of your votes."""
    return {**_files(), "votes": _files()["votes"]}


def policy_for_reward() -> dict[str, str]:
    """Reward and policy are the same folder. The reward model is what `groundup reward` wrote,
    the policy what `groundup dpo` or `ppo` did."""
    found = _files()
    return {**found, "reward": found["policy"]}


def nothing_there() -> dict[str, str]:
    """These files do not exist. Paths are relative to the folder that contains my_groundup; see the
    five steps of the lesson."""
    return {name: str(Path("not-there") / name) for name in ("votes", "reward", "policy", "blind")}


def _wilson(points: float, n: float, z: float = 1.959964) -> tuple[float, float, float]:
    center = (points + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * math.sqrt(points * (n - points) / n + z**2 / 4)
    return points / n, max(0.0, center - radius), min(1.0, center + radius)


def ties_lost(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """Ties count as losses. A tie is half a win."""
    return _wilson(wins, wins + ties + losses)


def ties_are_wins(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """Ties count as whole wins. A tie is half a win."""
    return _wilson(wins + ties, wins + ties + losses)


def ties_left_out(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """Ties are left out. They were votes too: each is half a win, and n counts it."""
    return _wilson(wins, wins + losses)


def share_of_losses(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """That is the share that the *old* model won."""
    return _wilson(losses + ties / 2, wins + ties + losses)


def plain_interval(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """That is p ± z σ. Wilson's interval has a different center and stays within 0 … 1."""
    n = wins + ties + losses
    p = (wins + ties / 2) / n
    reach = 1.959964 * math.sqrt(p * (1 - p) / n)
    return p, p - reach, p + reach


def the_middle_decides(low: float, high: float) -> str:
    """The middle of the interval decides, so the verdict is never "not significant". The *whole*
    interval must be on one side of one half."""
    return "better" if (low + high) / 2 > 0.5 else "worse"


def anything_above(low: float, high: float) -> str:
    """Here it is enough that the interval reaches above one half. Its low end must be above."""
    return "better" if high > 0.5 else "worse"


def never_worse(low: float, high: float) -> str:
    """A model that is worse beyond chance is called "not significant". Look at the high end,
    too."""
    return "better" if low > 0.5 else "not significant"


def rounded_z(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """z is rounded to 1.96. Pass the given value to your wilson of 1.8: z=1.959964."""
    return _wilson(wins + ties / 2, wins + ties + losses, z=1.96)
