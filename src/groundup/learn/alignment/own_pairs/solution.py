"""Your own votes, your own reward model, your own policy."""

import json
import math
import random
import tempfile
from pathlib import Path


def files() -> dict[str, str]:
    """Where your files are: "votes", "reward", "policy" and "blind" (see the lesson).

    No solution can contain your taste: these files have the right form, with random votes.
    """
    folder = Path(tempfile.mkdtemp())
    paths = {
        "votes": folder / "votes.jsonl",
        "reward": folder / "my-reward",
        "policy": folder / "my-policy",
        "blind": folder / "blind.jsonl",
    }
    _toss(paths["votes"], range(20), ["my-model", "my-model"])
    _toss(paths["blind"], range(20, 40), ["my-model", str(paths["policy"])])
    parents = {"reward": ("data", paths["votes"]), "policy": ("reward", paths["reward"])}
    for run, (name, parent) in parents.items():
        paths[run].mkdir()
        said = {"stage": run, "parents": {name: {"path": str(parent), "sha256": ""}}}
        (paths[run] / "run.json").write_text(json.dumps(said))
    return {name: str(path) for name, path in paths.items()}


def _toss(log: Path, numbers: range, models: list[str]) -> None:
    with log.open("w") as out:
        for number in numbers:
            vote = {
                "prompt": f"Question {number}?", "a": "This.", "b": "That.", "models": models,
                "choice": random.choice("ab"), "who": "coin", "when": "", "id": str(number),
            }  # fmt: skip
            out.write(json.dumps(vote) + "\n")


def won(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """The share of the votes, ties as halves, and the ends of its 95 % interval."""
    n, points, z = wins + ties + losses, wins + ties / 2, 1.959964
    center = (points + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * math.sqrt(points * (n - points) / n + z**2 / 4)
    return points / n, max(0.0, center - radius), min(1.0, center + radius)


def verdict(low: float, high: float) -> str:
    """ "better", "worse", or "not significant"."""
    if low > 0.5:
        return "better"
    return "worse" if high < 0.5 else "not significant"
