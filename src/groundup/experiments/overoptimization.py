"""How far can a reward model be trusted? Proxies of several sizes and labels against the truth.

The small world's truth gives the gold reward of an answer. A proxy is trained on some of its
comparisons, and is then optimized as if it were the truth, in two ways (Gao, Schulman and Hilton
2022): best of n answers by the proxy, and PPO without a KL penalty. The proxy reward rises, and the
gold reward with it, up to a point. The experiment measures where that point is, and whether data
from before it predict it.

As in the paper, labels are gold comparisons without noise, and distance is the square root of the
nats (KL) from the fine-tuned model: computed by the formula for best of n (an upper bound if
answers repeat), measured over whole distributions for PPO. Unlike in the paper, small proxies are
pre-trained on the fine-tuned model's own demonstrations, and the largest has the model's own body.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from groundup.align.best_of_n import Pool
from groundup.align.rewards.by_name import conservative, reward_folders
from groundup.experiments.config import OveroptimizationConfig
from groundup.experiments.overoptimization_laws import by_choice, by_iteration
from groundup.experiments.overoptimization_models import Builder, Proxy
from groundup.experiments.overoptimization_report import NAME, Cell, Found, write_outcome
from groundup.report.outcome import experiment, over_seeds
from groundup.runs.console import say

T = TypeVar("T")


def run(config: OveroptimizationConfig) -> Path:
    """Make all parts that do not exist yet, and write the results. After a stop it resumes.

    Raises `UserError` for settings, data, a gold reward or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": config.data}
    parents |= reward_folders("", config.gold)

    def make() -> None:
        begun = perf_counter()
        write_outcome(config, measured(Builder(config)), perf_counter() - begun)

    return experiment(config.out, NAME, config, make, parents)


def measured(builder: Builder) -> Found:
    """Every proxy, with the results of best of n and of PPO against it.

    Best of n is cheap. PPO is tried on every size with the most labels, and on the middle size with
    every number of labels.
    """
    builder.ask()
    labelled, pool = builder.labels(), builder.pool()
    base = float(np.mean([_gold(one) for one in labelled]))
    middle_size = _middle(builder.bodies)
    cells = [
        _cell(builder, size, labels, pool, base, middle_size)
        for size in builder.bodies
        for labels in builder.sizes.labels
    ]
    middle = next(
        cell
        for cell in cells
        if cell.size == middle_size and cell.labels == _middle(builder.sizes.labels)
    )
    together = None
    if builder.sizes.seeds > 1:
        say(f"{NAME}  PPO against the ensemble of {middle.size}, {middle.labels:,} labels")
        reward = builder.ensemble(middle.size, middle.labels)
        lines = builder.policy(f"{middle.size}-{middle.labels}-ensemble", reward)
        together = by_iteration(lines, base)
    sizes = builder.sizes
    return Found(cells, middle, together, base, len(pool), sizes.seeds, sizes.n, sizes.episodes)


def _middle(some: Sequence[T]) -> T:
    return some[len(some) // 2]


def _cell(
    builder: Builder, size: str, labels: int, pool: Sequence[Pool], base: float, middle_size: str
) -> Cell:
    proxies = [Proxy(size, labels, seed) for seed in range(builder.sizes.seeds)]
    scores = np.stack([builder.scores(one, pool) for one in proxies])
    gold = np.stack([_gold(one) for one in pool])
    groups = [one.group for one in pool]
    accuracy = over_seeds([builder.accuracy(one) for one in proxies])
    say(f"{NAME}  {size}, {labels:,} labels: accuracy {accuracy.estimate:.1%} on held-out pairs")
    first, course = proxies[0], None
    if size == middle_size or labels == builder.sizes.labels[-1]:
        course = by_iteration(builder.policy(first.name, str(builder.proxy(first))), base)
    return Cell(
        size,
        labels,
        builder.parameters(size),
        accuracy,
        by_choice(scores, gold, groups),
        by_choice(conservative(scores)[None], gold, groups),
        course,
    )


def _gold(pool: Pool) -> Float[np.ndarray, " n"]:
    assert pool.gold is not None
    return pool.gold
