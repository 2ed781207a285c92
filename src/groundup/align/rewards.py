"""Where a reward comes from: a reward model's folder, or a function of anybody's."""

from __future__ import annotations

import importlib
from pathlib import Path

from groundup.align.reward import load_reward_model, score_rollouts
from groundup.align.rollout import Reward
from groundup.text.tokenizer import Tokenizer


def open_reward(spec: str, tokenizer: Tokenizer) -> Reward:
    """The reward that is meant; see above. Raises `UserError` for one that cannot be used."""
    if Path(spec).is_dir():
        model = load_reward_model(Path(spec), tokenizer)
        return lambda rollouts: score_rollouts(model, rollouts)
    module, _, name = spec.partition(":")
    function = getattr(importlib.import_module(module), name)
    return lambda rollouts: function(
        [one.prompt.messages for one in rollouts], [one.text for one in rollouts]
    )
