"""Grades advantages by `groundup.align.ppo`."""

from collections.abc import Iterator

import numpy as np

from groundup.align.ppo import gae, token_rewards
from groundup.learn.exercise import Trial, calls


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    for count, score, beta in ((1, 1.0, 0.1), (3, 2.0, 0.5), (6, -1.0, 0.05)):
        policy, reference = -random.random((2, count)) * 3
        yield Trial(
            f"token_rewards of {count} tokens",
            calls("token_rewards", score, policy, reference, beta),
            token_rewards(score, policy, reference, beta),
            {"score": score, "logprobs": policy, "reference_logprobs": reference, "beta": beta},
        )
    example = (np.array([0.0, 0.0, 1.0]), np.array([0.5, 0.6, 0.8]))
    drawn = (random.normal(size=7), random.normal(size=7))
    for (rewards, values), gamma, lam in (
        (example, 1.0, 1.0),
        (example, 1.0, 0.0),
        (example, 0.9, 0.5),
        ((np.array([2.0]), np.array([0.5])), 1.0, 0.95),
        ((np.array([0, 0, 1]), example[1]), 0.9, 0.5),
        (drawn, 0.97, 0.95),
    ):
        expected = gae(rewards.astype(float), values, gamma, lam)
        for at, name in enumerate(("advantages", "returns")):
            yield Trial(
                f"{name} of {len(rewards)} tokens, gamma {gamma}, lam {lam}"
                f"{', rewards of whole numbers' if rewards.dtype.kind == 'i' else ''}",
                calls("gae", rewards, values, gamma, lam, at=at),
                expected[at],
                {"rewards": rewards, "values": values, "gamma": gamma, "lam": lam},
            )
