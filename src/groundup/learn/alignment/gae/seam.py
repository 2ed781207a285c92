"""Puts the learner's advantages into PPO."""

from contextlib import AbstractContextManager
from types import ModuleType, SimpleNamespace

import numpy as np

from groundup.align import ppo
from groundup.align.rollout import TokenFacts
from groundup.learn.plain import all_replaced

USED_BY = "groundup ppo: the rewards, advantages and returns of every token that it learns from"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The names and arguments are the product's own."""
    return all_replaced((ppo, "gae", part.gae), (ppo, "token_rewards", part.token_rewards))


def try_it() -> list[float]:
    """The credit that PPO gives to the tokens of two answers."""
    random = np.random.default_rng(0)
    logprobs, reference, values = (list(random.normal(size=(2, 4))) for _ in range(3))
    facts = TokenFacts(logprobs, reference, kl=[], entropy=[], values=values)
    config = SimpleNamespace(gamma=0.98, gae_lambda=0.9)
    rollouts = SimpleNamespace(config=config)
    credit = ppo.PPORollouts._credit(rollouts, facts, values, np.array([1.0, -1.0]), 0.1)  # type: ignore[arg-type]
    return [float(one) for kind in credit for answer in kind for one in answer]
