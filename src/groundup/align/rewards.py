"""Where a reward comes from: a reward model's folder, or a function of anybody's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from groundup.align.reward import load_reward_model, score_rollouts
from groundup.align.rollout import Reward, Rollout
from groundup.errors import UserError
from groundup.text.tokenizer import Tokenizer

T = TypeVar("T")


def open_reward(spec: str, tokenizer: Tokenizer) -> Reward:
    """The reward that is meant; see above. Raises `UserError` for one that cannot be used."""
    if Path(spec).is_dir():
        model = load_reward_model(Path(spec), tokenizer)
        return lambda rollouts: score_rollouts(model, rollouts)
    module, colon, name = spec.partition(":")
    if not (colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        raise UserError(f"{spec!r} is no reward; give a reward model's folder, or module:function")
    function = _tried(spec, lambda: getattr(importlib.import_module(module), name))

    def reward(rollouts: Sequence[Rollout], /) -> list[float]:
        prompts, texts = [one.prompt.messages for one in rollouts], [one.text for one in rollouts]
        found: list[float] = _tried(spec, lambda: [float(v) for v in function(prompts, texts)])
        return found

    return reward


def _tried(spec: str, call: Callable[[], T]) -> T:
    """What the call gives; whatever is wrong with a person's own code is told in one line."""
    try:
        return call()
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"the reward {spec} failed ({told}); call it on its own to mend it"
        ) from error
