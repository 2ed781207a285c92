"""Opens rewards of rollouts: a reward model's folder, a verifier, or a user's function.

A reward model scores exactly the tokens that were sampled; all others read text. Models that were
trained on the same labels with different seeds agree where they know, and what one of them likes by
accident the others do not. An ensemble subtracts their disagreement (Coste et al. 2024, "Reward
model ensembles help mitigate overoptimization", uncertainty-weighted optimization).

    ensemble:FOLDER,FOLDER,…          mean of their scores - lambda * their variance
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from groundup.align.rewards.model import RewardModel, load_reward_model, score_rollouts
from groundup.align.rewards.verifiers import (
    Reward,
    is_verifier,
    modules_of,
    open_reward,
    source_of,
)
from groundup.align.rollout import Rollout, RolloutReward
from groundup.errors import UserError
from groundup.text.rows import as_dicts
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import compute_dtype

ENSEMBLE = "ensemble:"
# The lambda: scores have deviation 1, so members that differ by 1 cost half a deviation.
_DOUBT = 0.5


def open_rollout_reward(
    spec: str, tokenizer: Tokenizer, device: str = "cpu", dtype: torch.dtype | None = None
) -> RolloutReward:
    """The reward named `spec`, for answers in tokens of `tokenizer`.

    A model is moved to `device` and computes in `dtype`, by default the fastest one there. Raises
    `UserError` for an unknown reward, and for a reward model with another tokenizer.
    """

    def opened(folder: Path) -> RewardModel:
        model = load_reward_model(folder, tokenizer).to(device)
        model.lm.to(dtype or compute_dtype(device))  # the head stays in float32
        return model

    if _is_folder(spec):
        model = opened(Path(spec))
        return lambda rollouts: score_rollouts(model, rollouts).tolist()
    if spec.startswith(ENSEMBLE):
        models = [opened(one) for one in members(spec)]
        return lambda rollouts: conservative(
            np.stack([score_rollouts(one, rollouts) for one in models])
        ).tolist()
    reward = open_reward(spec)
    return lambda rollouts: _of_texts(reward, rollouts)


def members(spec: str) -> list[Path]:
    """The folders of an ensemble. Raises `UserError` for fewer than two."""
    folders = [Path(one) for one in spec.removeprefix(ENSEMBLE).split(",") if one]
    if len(folders) < 2:
        raise UserError(
            f"reward={spec} names {len(folders)} reward models; give two or more with commas "
            "between them, such as ensemble:runs/reward-0,runs/reward-1"
        )
    return folders


def conservative(scores: Float[np.ndarray, "models *answers"]) -> Float[np.ndarray, "*answers"]:
    """The members' mean, minus a penalty for disagreement: mean - lambda * variance."""
    found: Float[np.ndarray, "*answers"] = scores.mean(0) - _DOUBT * scores.var(0)
    return found


def reward_folders(
    reward: str, gold: str | None, judge: str | None = None, cost: str | None = None
) -> dict[str, Path]:
    """The rewards that are folders or a user's files, by their names in a run's lineage."""
    found: dict[str, Path] = {}
    for name, spec in (("reward", reward), ("gold", gold), ("judge", judge), ("cost", cost)):
        if spec and _is_folder(spec):
            found[name] = Path(spec)
        elif spec and spec.startswith(ENSEMBLE):
            found |= {f"{name}-{i}": one for i, one in enumerate(members(spec))}
        elif spec and (source := source_of(spec)) is not None:
            found[name] = source
            found |= {f"{name} module {one}": file for one, file in modules_of(spec).items()}
    return found


def _is_folder(spec: str) -> bool:
    # The path of an empty name is the current folder.
    return bool(spec) and not is_verifier(spec) and Path(spec).is_dir()


def _of_texts(reward: Reward, rollouts: Sequence[Rollout]) -> list[float]:
    """The reward of the texts; a row holds all turns of its prompt as `messages`."""
    prompts = [one.prompt.messages for one in rollouts]
    rows = [
        {**one.prompt.row, "messages": as_dicts(turns)}
        for one, turns in zip(rollouts, prompts, strict=True)
    ]
    asked = [turns[-1].content if turns else "" for turns in prompts]
    return reward(asked, [one.text for one in rollouts], rows)
