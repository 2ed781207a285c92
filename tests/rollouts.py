"""Reinforcement learning without files: a small policy, prompts of token ids, rewards of ids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from groundup.align.config import GRPOConfig, PPOConfig, RolloutConfig
from groundup.align.grpo import grpo_job
from groundup.align.online import Online
from groundup.align.ppo import ppo_job
from groundup.align.prompts import Prompt
from groundup.align.rollout import Reference, Rollout, RolloutReward
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer
from groundup.train.plan import Trained
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel

T = TypeVar("T")
VOCAB, CONTEXT = 64, 64
# A sixth of the tokens end an answer, so that answers are of many lengths.
ENDS = tuple(range(10))
PROMPTS = tuple(Prompt(ids) for ids in ((15,), (16, 17, 18), (19, 20), (21, 22, 23, 24, 25)))
MAKE: dict[type[RolloutConfig], Callable[..., Job[Any, Any]]] = {
    PPOConfig: ppo_job,
    GRPOConfig: grpo_job,
}


def small_policy(seed: int = 0, *, ends: Sequence[int] = ENDS, spread: float = 0.2) -> CausalLM:
    """One layer with every weight random; these tokens end an answer.

    `spread` is the deviation of the embeddings: the larger, the surer is the model.
    """
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        eos_token_ids=tuple(ends),
        pad_token_id=0,
    )
    model = CausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = spread if name.startswith("model.embed") else 0.2
            parameter.normal_(1.0 if "norm" in name else 0.0, size, generator=generator)
    return model.eval()


def copied(model: CausalLM) -> CausalLM:
    copy = CausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def small_config(kind: type[RolloutConfig], out: Path, **changes: Any) -> Any:
    """Settings for a run of seconds, in float32 and without a compiler; keywords change them."""
    settings: dict[str, Any] = {
        "out": out,
        "model": Path("policy"),
        "prompts": Path("prompts"),
        "reward": "a function",
        "max_new_tokens": 8,
        "episodes": 16,
        "minibatches": 2,
        "iterations": 2,
        "learning_rate": 0.003,
        "embedding_learning_rate": 0.003,
        "evaluations": 1,
        "heldout_prompts": 4,
        "threads": 1,
        "dtype": "float32",
        "compile": "off",
    }
    return kind(**(settings | changes))


@functools.lru_cache
def byte_tokenizer() -> Tokenizer:
    """Its first 64 tokens, which the policy has, are control tokens and bytes."""
    return Tokenizer.from_bpe(train_bpe(["a tale of the sea"], 259))


def online(
    config: RolloutConfig,
    policy: CausalLM,
    reward: RolloutReward,
    *,
    reference: CausalLM | None = None,
    prompts: Sequence[Prompt] = PROMPTS,
    run: Run | None = None,
    context: int = 32,
) -> Online:
    """The parts of a run; the reference is the current policy unless another is given."""
    frozen = copied(policy if reference is None else reference)
    prepared = PreparedModel(
        policy,
        byte_tokenizer(),
        context,
        Trained.whole(policy.config, context, (0.003, 0.003), "as for small models"),
        lambda folder, tokenizer, card: None,
        "",
    )
    copy = Reference(lambda: frozen)
    return Online(config, "test", run, prepared, prompts, prompts, reward, None, copy, context)


def train(
    config: RolloutConfig, policy: CausalLM, reward: RolloutReward, **parts: Any
) -> list[dict[str, Any]]:
    """Train the policy by its stage's job; return the lines of metrics.jsonl."""

    def job(run: Run) -> Job[Any, Any]:
        return MAKE[type(config)](config, online(config, policy, reward, run=run, **parts))

    run_stage(config, "test", {}, job)
    return read_lines(config.out / "metrics.jsonl")


def length_reward(rollouts: Sequence[Rollout], /) -> list[float]:
    """Longer answers have higher rewards, and some tokens too: no two rewards are equal."""
    return [len(one.ids) + 0.01 * sum(one.ids) for one in rollouts]


def concatenated(parts: Sequence[Sequence[T]]) -> list[T]:
    """The items of several lists in one list."""
    return [one for part in parts for one in part]
