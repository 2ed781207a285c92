"""Where a reward of rollouts comes from: a reward model's folder, a verifier, anybody's function.

A reward model scores the very tokens that were sampled; all others read text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundup.align.rewards.model import load_reward_model, score_rollouts
from groundup.align.rewards.verifiers import Reward, open_reward, rewards
from groundup.align.rollout import Rollout, RolloutReward
from groundup.text.tokenizer import Tokenizer


def open_rollout_reward(spec: str, tokenizer: Tokenizer, device: str = "cpu") -> RolloutReward:
    """The reward that is meant, for answers in tokens of `tokenizer`; a model is put on `device`.

    Raises `UserError` for what is no reward, and for a reward model that reads other tokens.
    """
    if Path(spec).is_dir():
        model = load_reward_model(Path(spec), tokenizer).to(device)
        return lambda rollouts: score_rollouts(model, rollouts).tolist()
    reward = open_reward(spec)
    return lambda rollouts: _of_texts(reward, rollouts)


def reward_folders(reward: str, gold: str | None, judge: str | None = None) -> dict[str, Path]:
    """The rewards that are folders, as a run remembers its parents."""
    given = {"reward": reward, "gold": gold, "judge": judge}
    return {name: Path(spec) for name, spec in given.items() if spec and Path(spec).is_dir()}


def _of_texts(reward: Reward, rollouts: Sequence[Rollout]) -> list[float]:
    """The reward of what was said; a row holds all turns of its prompt as `messages`."""
    prompts = [one.prompt.messages for one in rollouts]
    rows = [
        {
            **one.prompt.row,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        }
        for one, turns in zip(rollouts, prompts, strict=True)
    ]
    asked = [turns[-1].content if turns else "" for turns in prompts]
    return rewards(reward, asked, [one.text for one in rollouts], rows)
