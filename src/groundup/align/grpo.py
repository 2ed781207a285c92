"""Group-relative policy optimization (Shao et al. 2024, DeepSeekMath, section 4.1).

Each prompt is answered G times. An answer's advantage says how much better it is than its group, so
no critic is needed:

    A_i = (r_i - mean(r)) / std(r)                 the same at every token of answer i
    L   = mean max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps'))  +  beta mean KL
    KL  = ref/pi - log(ref/pi) - 1                 at each token, never below 0 (equation 4)

Later papers found flaws; each correction is a setting. Dividing by the deviation favors prompts
that are nearly always or nearly never answered correctly, and the mean over each answer's own
tokens favors long wrong answers: `scale_rewards` off and `loss_type` dr_grpo are Liu et al. 2025
(Dr. GRPO). `loss_type` dapo is one mean over all tokens, and `clip_range_high` lets rare tokens
rise further (Yu et al. 2025, DAPO). The ratio of one token is noise, since it was sampled once:
with `importance_sampling_level` sequence each answer has one ratio, the geometric mean of its
tokens' (Zheng et al. 2025, GSPO). A group whose rewards are all equal teaches nothing; the share of
groups that teach is logged.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.align.config import GRPOConfig
from groundup.align.online import Online, inputs, open_online
from groundup.align.ppo import MAX_NATS, clipped_policy_loss
from groundup.align.rollout import (
    PackedRollouts,
    PerToken,
    RolloutBatch,
    RolloutStream,
    TokenFacts,
    flat,
    sampled_logprobs,
)
from groundup.lm.model import CausalLM
from groundup.maths.kl import kl_k3
from groundup.train.batch import Batch, Loss
from groundup.train.stage import Job, run_stage

# Peak learning rates for full training of a small model: matrices; embeddings and gains.
RATES = (0.0001, 0.0001)
# Added to a group's deviation.
_EPS = 1e-4


# The algorithm.


def group_advantages(
    rewards: Float[np.ndarray, " rollouts"], group_size: int, scale: bool = True, eps: float = _EPS
) -> Float[np.ndarray, " rollouts"]:
    """The advantage of each answer over its group; the answers of a group are adjacent.

    `eps` is added to a group's deviation, so that equal rewards give 0 instead of NaN.
    """
    if group_size < 2:
        raise ValueError(f"group_size={group_size} leaves an answer none to compare with; give 2")
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    # Otherwise the mean's rounding error, divided by a tiny deviation, would count.
    apart[groups.max(1) == groups.min(1)] = 0.0
    if scale:
        # The sample deviation, as in the authors' code.
        apart = apart / (groups.std(1, ddof=1, keepdims=True) + eps)
    found: Float[np.ndarray, " rollouts"] = apart.ravel()
    return found


def kl_estimate(
    logprobs: Float[Tensor, " tokens"], reference_logprobs: Float[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """ref/pi - log(ref/pi) - 1 of each token: unbiased and never negative (Schulman 2020, k3).

    ref/pi is clamped at e^80, beyond which the estimate and its gradient would be infinite.
    """
    return kl_k3((reference_logprobs - logprobs).clamp(max=MAX_NATS))


def token_weights(lengths: Sequence[int], loss_type: str, longest: int) -> list[PerToken]:
    """The weight of every token in the mean, from the answers' lengths; see `loss_type`."""
    lengths_counted = {
        "dapo": [1] * len(lengths),
        "grpo": lengths,
        "dr_grpo": [longest] * len(lengths),
    }[loss_type]
    return [np.full(n, 1 / by) for n, by in zip(lengths, lengths_counted, strict=True)]


def answer_means(values: Float[Tensor, " sampled"], rows: Batch) -> Float[Tensor, " sampled"]:
    """Each sampled token's value replaced by the mean over its answer."""
    row, place = rows.weights.nonzero(as_tuple=True)
    # A row's answers are different segments.
    answer = row * (int(rows.segment_ids.max()) + 1) + rows.segment_ids[row, place]
    lengths = answer.bincount().clamp(min=1).to(values.dtype)
    return (torch.zeros_like(lengths).index_add(0, answer, values) / lengths)[answer]


def grpo_loss(model: nn.Module, batch: RolloutBatch, config: GRPOConfig) -> Loss:
    """The loss of a micro-batch for `fit`: a sum over its sampled tokens."""
    assert isinstance(model, CausalLM)
    logprobs = sampled_logprobs(model, model(batch.rows), batch.rows)
    new = logprobs
    if config.importance_sampling_level == "sequence":
        new = batch.old_logprobs + answer_means(logprobs - batch.old_logprobs, batch.rows)
    losses, ratio = clipped_policy_loss(
        new,
        batch.old_logprobs,
        batch.advantages,
        config.clip_range,
        config.clip_range_high,
    )
    kl = kl_estimate(logprobs, batch.reference_logprobs)
    if config.kl_coef:
        losses = losses + config.kl_coef * kl
    total, count = (losses * batch.token_weights).sum(), float(len(logprobs))
    high = config.clip_range if config.clip_range_high is None else config.clip_range_high
    outside = (ratio < 1 - config.clip_range) | (ratio > 1 + high)
    metrics = {
        "loss": (float(total.detach()), batch.weight),
        "clipped": (float(outside.sum()), count),
        "reference_kl": (float(kl.detach().sum()), count),
    }
    return Loss(total, batch.weight, metrics)


# An iteration.


class GRPORollouts:
    """Makes an iteration's minibatches from groups of answers of the current policy."""

    def __init__(self, config: GRPOConfig, online: Online) -> None:
        self.config, self.online = config, online

    def stream(self) -> RolloutStream:
        return self.online.stream(self.roll, epochs=self.config.epochs_per_iteration)

    def roll(self, iteration: int, step: int, model: nn.Module) -> list[list[RolloutBatch]]:
        assert isinstance(model, CausalLM)
        config = self.config
        sampled = self.online.sampled(model, iteration, copies=config.group_size)
        minibatches = self.online.minibatches(model, sampled.rollouts)
        facts = self.online.facts(model, sampled, minibatches)
        advantages = group_advantages(sampled.rewards, config.group_size, config.scale_rewards)
        groups = sampled.rewards.reshape(-1, config.group_size)
        taught = groups.max(1) > groups.min(1)
        self.online.log(
            step,
            sampled,
            facts,
            groups_with_signal=float(taught.mean()),
            best_of_group=float(groups.max(1).mean()),
        )
        lengths = [len(one.ids) for one in sampled.rollouts]
        weights = token_weights(lengths, config.loss_type, config.max_new_tokens)
        spread = [np.full(n, value) for n, value in zip(lengths, advantages, strict=True)]
        return [[self._batch(one, facts, spread, weights) for one in part] for part in minibatches]

    def _batch(
        self,
        packed: PackedRollouts,
        facts: TokenFacts,
        advantages: Sequence[PerToken],
        weights: Sequence[PerToken],
    ) -> RolloutBatch:
        old = flat(facts.logprobs, packed)
        of_tokens = self.config.loss_type == "dapo"
        return RolloutBatch(
            packed.rows,
            float(len(old) if of_tokens else len(packed.members)),
            flat(weights, packed),
            flat(advantages, packed),
            old,
            flat(facts.reference_logprobs, packed),
        )


# The run.


def run(config: GRPOConfig) -> Path:
    """Align by `config` and return the run folder: a model's, or an adapter's.

    Raises `UserError` for settings, prompts, a reward or a folder that cannot be used.
    """
    return run_stage(
        config,
        "grpo",
        inputs(config),
        lambda run: grpo_job(config, open_online(config, run, RATES)),
    )


def grpo_job(config: GRPOConfig, online: Online) -> Job[RolloutBatch, CausalLM]:
    """The job that trains the policy of `online` on its own answers."""
    return online.job(
        f"Group-relative policy optimization with {config.group_size} answers to a prompt",
        model=online.prepared.model,
        policy=lambda model: model,
        stream=lambda online, iterations: GRPORollouts(config, online).stream(),
        loss=functools.partial(grpo_loss, config=config),
        epochs=config.epochs_per_iteration,
    )
