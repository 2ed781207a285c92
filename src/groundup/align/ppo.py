"""Proximal policy optimization (Schulman et al. 2017) as in InstructGPT (Ouyang et al. 2022).

An answer is a sequence of actions, one per token, and its reward comes at the end. Every token pays
a penalty for leaving the reference (section 3.5, equation 2):

    r_t = -beta (log pi_old(y_t) - log ref(y_t))  +  [t is the last] r(x, y)

A token's advantage says how much better it was than the critic's values V predicted (generalized
advantage estimation, Schulman et al. 2016, equation 16), whitened over all tokens of the batch:

    delta_t = r_t + gamma V_(t+1) - V_t          A_t = sum_k (gamma lambda)^k delta_(t+k)

The policy follows the advantages while it stays near the policy that sampled (equation 7). The
critic learns the returns R_t = A_t + V_t, clipped in the same way:

    ratio_t = pi(y_t) / pi_old(y_t)
    L = mean max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps))
        + c/2 mean max((V - R)^2, (clip(V, V_old - eps', V_old + eps') - R)^2)  -  d mean H(pi)

With `cost`, a multiplier keeps a second reward below a limit (see `lagrange`); it has its own
critic head and advantages.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.align.config import PPOConfig
from groundup.align.lagrange import Multiplier
from groundup.align.online import Online, inputs, open_online, opened_reward
from groundup.align.rewards.model import RewardModel, load_reward_model
from groundup.align.rollout import (
    PackedRollouts,
    PerToken,
    RolloutBatch,
    RolloutStream,
    TokenFacts,
    flat,
    sampled_logprobs,
)
from groundup.errors import UserError
from groundup.lm.logprobs import entropy
from groundup.lm.model import CausalLM
from groundup.maths.kl import kl_k3
from groundup.runs import ranks
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.train.batch import Batch, Loss
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import whole_share

# Peak learning rates for full training of a small model: matrices; embeddings and gains. They are
# a sixth of DPO's, because the gradients come from samples.
RATES = (0.0001, 0.0001)
# The default number of iterations in which only the critic learns.
_CRITIC_WARMUP = 5
# With fewer answers, the mean and deviation of the advantages are mostly noise.
_MIN_WHITENED = 8
# Prevents division by zero if all advantages are equal.
_EPS = 1e-8
# The limit of log-ratios: float32 overflows at e^88.
MAX_NATS = 80.0


# The algorithm.


def token_rewards(
    score: float,
    logprobs: Float[np.ndarray, " tokens"],
    reference_logprobs: Float[np.ndarray, " tokens"],
    kl_coef: float,
) -> Float[np.ndarray, " tokens"]:
    """Each token's KL penalty, plus the answer's score at the last token."""
    rewards: Float[np.ndarray, " tokens"] = -kl_coef * (logprobs - reference_logprobs)
    rewards[-1] += score
    return rewards


def gae(
    rewards: Float[np.ndarray, " tokens"],
    values: Float[np.ndarray, " tokens"],
    gamma: float,
    lam: float,
) -> tuple[Float[np.ndarray, " tokens"], Float[np.ndarray, " tokens"]]:
    """Advantages and returns of one answer's tokens; no value follows the last token."""
    advantages = np.zeros(len(rewards))
    following, ahead = 0.0, 0.0
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * following - values[t]
        ahead = delta + gamma * lam * ahead
        advantages[t], following = ahead, values[t]
    return advantages, advantages + values


def whiten(advantages: Sequence[Float[np.ndarray, " _"]]) -> list[Float[np.ndarray, " _"]]:
    """Advantages with mean 0 and deviation 1 over all tokens of all answers together."""
    joined = np.concatenate(advantages)
    mean, deviation = joined.mean(), joined.std()
    return [(one - mean) / (deviation + _EPS) for one in advantages]


def clipped_policy_loss(
    logprobs: Float[Tensor, " tokens"],
    old_logprobs: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
    clip_range: float,
    clip_range_high: float | None = None,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """Each token's loss (equation 7), and the ratio of new and old probability.

    Gradients flow to `logprobs` only. The ratio is clamped at e^80: an infinite ratio times an
    advantage of 0 would be NaN.
    """
    advantages = advantages.detach()
    ratio = (logprobs - old_logprobs.detach()).clamp(max=MAX_NATS).exp()
    high = clip_range if clip_range_high is None else clip_range_high
    clipped = ratio.clamp(1 - clip_range, 1 + high)
    return torch.maximum(-advantages * ratio, -advantages * clipped), ratio


def clipped_value_loss(
    values: Float[Tensor, " tokens"],
    old_values: Float[Tensor, " tokens"],
    returns: Float[Tensor, " tokens"],
    clip_range: float,
) -> Float[Tensor, " tokens"]:
    """Half the squared error of each token's value, clipped so that a large move gains nothing."""
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


class KLController:
    """The KL coefficient: fixed, or adapted so that the KL stays near a target.

        beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) * min(1, answers / horizon))

    (Ziegler et al. 2019, section 2.2, with the proportional error clipped at a fifth; an update
    with more answers than the horizon counts as one with `horizon` answers).
    """

    def __init__(self, coef: float, target: float | None, horizon: int) -> None:
        self.coef, self.target, self.horizon = coef, target, horizon

    def update(self, kl: float, answers: int) -> None:
        """Adapt to the mean KL of `answers` answers, in nats per answer."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + error * min(1.0, answers / self.horizon)


# Policy and critic.


class ActorCritic(nn.Module):
    """A policy, and a critic that predicts the reward still to come from each state.

    The critic is a second head on the policy's last hidden state or, if `critic` is given, a
    separate model. The head is initialized to zero, so it predicts 0 at first. A critic that starts
    from a reward model predicts the scaled reward of an answer that would end here. The second of
    two `heads` predicts the answer's cost.
    """

    def __init__(self, policy: CausalLM, critic: RewardModel | None = None, heads: int = 1) -> None:
        super().__init__()
        self.policy = policy
        self.critic = None if critic is None else critic.lm.requires_grad_()
        width = (policy if critic is None else critic).config.hidden_size
        self.value_head = nn.Linear(width, heads, bias=False)
        self.origin = 0.0 if critic is None else -critic.mean / critic.deviation
        with torch.no_grad():
            self.value_head.weight.zero_()
            if critic is not None:
                self.value_head.weight[:1] = critic.score.weight / critic.deviation

    def expected(
        self, hidden: Float[Tensor, "rows time width"], rows: Batch
    ) -> Float[Tensor, "sampled heads"]:
        """Each head's prediction in the state before each sampled token: reward, then cost.

        `hidden` is the policy's.
        """
        row, place = rows.weights.nonzero(as_tuple=True)
        states = hidden if self.critic is None else self.critic(rows)
        found: Tensor = self.value_head(states[row, place]).float()
        return torch.cat([found[:, :1] + self.origin, found[:, 1:]], -1)

    # The methods that `prepare` calls on a model.

    def set_attention(self, path: Literal["matmul", "fused"]) -> None:
        self.policy.set_attention(path)
        if self.critic is not None:
            self.critic.set_attention(path)

    def compile_blocks(self) -> None:
        self.policy.compile_blocks()
        if self.critic is not None:
            self.critic.compile_blocks()

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.policy.set_gradient_checkpointing(on)
        if self.critic is not None:
            self.critic.set_gradient_checkpointing(on)


@dataclass(frozen=True)
class PPOBatch(RolloutBatch):
    """Rollouts with the critic's values when they were sampled, and their returns.

    With `policy_weight` 0 only the critic learns from them. Under a constraint, costs have values
    and returns of their own.
    """

    values: Float[Tensor, " sampled"]
    returns: Float[Tensor, " sampled"]
    policy_weight: Float[Tensor, ""]
    cost_values: Float[Tensor, " sampled"] | None = None
    cost_returns: Float[Tensor, " sampled"] | None = None


@dataclass
class Drift:
    """How far the policy has moved since it sampled: `latest` is the last step's mean.

    It is in nats per token; `nats` and `tokens` are sums over the step that `beyond` reads next.
    """

    nats: float = 0.0
    tokens: float = 0.0
    latest: float = 0.0

    def reset(self) -> None:
        self.nats = self.tokens = self.latest = 0.0

    def beyond(self, limit: float | None) -> bool:
        """Whether `latest` exceeds `limit`, over the micro-batches of all processes of a run.

        It is called after each step, and may be called again before the next.
        """
        if limit is None:
            return False
        step = torch.tensor([self.nats, self.tokens], dtype=torch.float64)
        ranks.all_reduce([step])
        nats, tokens = step.tolist()
        if tokens:
            self.nats, self.tokens, self.latest = 0.0, 0.0, nats / tokens
        return bool(self.latest > limit)


def ppo_loss(model: ActorCritic, batch: PPOBatch, config: PPOConfig, drift: Drift) -> Loss:
    """The loss of a micro-batch for `fit`: a sum over its sampled tokens."""
    hidden = model.policy(batch.rows)
    logprobs = sampled_logprobs(model.policy, hidden, batch.rows)
    policy_losses, ratio = clipped_policy_loss(
        logprobs, batch.old_logprobs, batch.advantages, config.clip_range
    )
    trains_policy = bool(batch.policy_weight)
    expected = model.expected(hidden if trains_policy else hidden.detach(), batch.rows)
    clip = config.value_clip_range
    value_losses = clipped_value_loss(expected[:, 0], batch.values, batch.returns, clip)
    if batch.cost_values is not None and batch.cost_returns is not None:
        value_losses = value_losses + clipped_value_loss(
            expected[:, 1], batch.cost_values, batch.cost_returns, clip
        )
    total = config.value_coef * value_losses.sum()
    if trains_policy:
        total = total + policy_losses.sum()
    if config.entropy_coef and trains_policy:
        row, place = batch.rows.weights.nonzero(as_tuple=True)
        total = (
            total - config.entropy_coef * entropy(hidden[row, place] @ model.policy.head.T).sum()
        )
    count = batch.weight
    moved = kl_k3((logprobs - batch.old_logprobs).detach())
    drift.nats, drift.tokens = drift.nats + float(moved.sum()), drift.tokens + count
    outside = (ratio.detach() - 1).abs() > config.clip_range
    metrics = {
        "loss": (float(total.detach()), count),
        "policy_loss": (float(policy_losses.detach().sum()), count),
        "value_loss": (float(value_losses.detach().sum()), count),
        "clipped": (float(outside.sum()), count),
        "moved_kl": (float(moved.sum()), count),
    }
    return Loss(total, count, metrics)


# An iteration.


class PPORollouts:
    """Makes an iteration's minibatches from answers of the current policy."""

    def __init__(
        self, config: PPOConfig, online: Online, drift: Drift, iterations: int | None
    ) -> None:
        self.config, self.online, self.drift = config, online, drift
        if iterations is None:  # a speed measurement trains everything
            self.warmup = 0
        elif config.critic_warmup is None:
            self.warmup = min(_CRITIC_WARMUP, iterations // 4)
        else:
            self.warmup = config.critic_warmup
            if self.warmup >= iterations:
                raise UserError(
                    f"critic_warmup={self.warmup} leaves the policy none of the "
                    f"{iterations} iterations of this run; give fewer, or more iterations"
                )
        self.kl = KLController(config.kl_coef, config.kl_target, config.kl_horizon)
        self.multiplier: Multiplier | None = None
        if config.cost_limit is not None:
            self.multiplier = Multiplier(
                config.cost_multiplier, config.cost_limit, config.cost_rate
            )

    def stream(self) -> RolloutStream:
        return self.online.stream(
            self.roll,
            epochs=self.config.ppo_epochs,
            ended=lambda: self.drift.beyond(self.config.kl_stop),
            state=self._state,
            restore=self._restore,
        )

    def _state(self) -> dict[str, Tensor]:
        found = {"kl_coef": self.kl.coef}
        if self.multiplier is not None:
            found["multiplier"] = self.multiplier.value
        return {name: torch.tensor(one, dtype=torch.float64) for name, one in found.items()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.kl.coef = float(state["kl_coef"])
        if self.multiplier is not None:
            self.multiplier.value = float(state["multiplier"])

    def roll(self, iteration: int, step: int, model: nn.Module) -> list[list[PPOBatch]]:
        assert isinstance(model, ActorCritic)
        self.drift.reset()
        sampled = self.online.sampled(model.policy, iteration)
        minibatches = self.online.minibatches(model.policy, sampled.rollouts)
        facts = self.online.facts(model.policy, sampled, minibatches, model.expected)
        advantages, returns = self._credit(facts, facts.values, sampled.rewards, self.kl.coef)
        cost_returns = None
        if self.multiplier is not None and sampled.costs is not None:
            # The KL penalty is charged to the reward only.
            costly, cost_returns = self._credit(facts, facts.cost_values, sampled.costs, 0.0)
            advantages = self.multiplier.combined(advantages, costly)
        advantages = whiten(advantages)
        is_warming = iteration < self.warmup
        batches = [
            [
                self._batch(one, facts, advantages, returns, cost_returns, is_warming)
                for one in minibatch
            ]
            for minibatch in minibatches
        ]
        self.online.log(
            step,
            sampled,
            facts,
            kl_coef=self.kl.coef,
            explained_variance=explained_variance(facts.values, returns),
            **({} if self.multiplier is None else {"multiplier": self.multiplier.value}),
        )
        if not is_warming:  # during the warmup the policy does not move, so no coefficient adapts
            if self.multiplier is not None and sampled.costs is not None:
                self.multiplier.update(float(sampled.costs.mean()))
            self.kl.update(facts.sampled_kl(), len(sampled.rollouts))
        if self.online.watch is not None:
            self.online.watch.policy_trains = not is_warming
        return batches

    def _credit(
        self,
        facts: TokenFacts,
        expected: Sequence[PerToken],
        scores: Float[np.ndarray, " rollouts"],
        kl_coef: float,
    ) -> tuple[list[PerToken], list[PerToken]]:
        """Advantages and returns of every answer's tokens, given a head's predictions."""
        advantages, returns = [], []
        for i, score in enumerate(scores):
            rewards = token_rewards(
                float(score), facts.logprobs[i].astype(float), facts.reference_logprobs[i], kl_coef
            )
            values = expected[i].astype(float)
            ahead, whole = gae(rewards, values, self.config.gamma, self.config.gae_lambda)
            advantages.append(ahead)
            returns.append(whole)
        return advantages, returns

    def _batch(
        self,
        packed: PackedRollouts,
        facts: TokenFacts,
        advantages: Sequence[PerToken],
        returns: Sequence[PerToken],
        cost_returns: Sequence[PerToken] | None,
        is_warming: bool,
    ) -> PPOBatch:
        old = flat(facts.logprobs, packed)
        return PPOBatch(
            packed.rows,
            float(len(old)),
            torch.ones_like(old),
            flat(advantages, packed),
            old,
            flat(facts.reference_logprobs, packed),
            flat(facts.values, packed),
            flat(returns, packed),
            torch.tensor(0.0 if is_warming else 1.0),
            None if cost_returns is None else flat(facts.cost_values, packed),
            None if cost_returns is None else flat(cost_returns, packed),
        )


def explained_variance(values: Sequence[PerToken], returns: Sequence[PerToken]) -> float:
    """1 - Var(R - V) / Var(R): 1 for a perfect critic, 0 for a constant one."""
    said, true = np.concatenate(values), np.concatenate(returns)
    spread = float(true.var())
    return 1 - float((true - said).var()) / spread if spread > 0 else 0.0


# The run.


def run(config: PPOConfig) -> Path:
    """Align by `config` and return the run folder: a model's, or an adapter's.

    Raises `UserError` for settings, prompts, a reward or a folder that cannot be used.
    """
    parents = inputs(config, config.cost) | ({"critic": config.critic} if config.critic else {})
    return run_stage(
        config, "ppo", parents, lambda run: ppo_job(config, _open_with_cost(config, run))
    )


def _open_with_cost(config: PPOConfig, run: Run) -> Online:
    online = open_online(config, run, RATES)
    if config.cost is None:
        return online
    return replace(online, cost=opened_reward(config, config.cost, online.prepared.tokenizer))


def ppo_job(config: PPOConfig, online: Online) -> Job[PPOBatch, ActorCritic]:
    """The job that trains the policy of `online` on its own answers."""
    if config.episodes < _MIN_WHITENED:
        say(
            f"{online.stage}: advantages are whitened over the answers of an iteration, and with "
            f"fewer than {_MIN_WHITENED} (episodes={config.episodes}) their mean and deviation "
            "are mostly noise; give more episodes"
        )
    model = _actor_critic(config, online)
    drift = Drift()
    limited = "" if config.cost is None else f", {config.cost} kept below {config.cost_limit:g}"
    return online.job(
        f"Proximal policy optimization with a KL coefficient of {config.kl_coef:g}{limited}",
        model=model,
        policy=lambda model: model.policy,
        stream=lambda online, iterations: PPORollouts(config, online, drift, iterations).stream(),
        loss=functools.partial(ppo_loss, config=config, drift=drift),
        epochs=config.ppo_epochs,
        head_rate=config.value_learning_rate,
        critic_rate=_critic_rate(config, model),
    )


def _critic_rate(config: PPOConfig, model: ActorCritic) -> float | None:
    """A separate critic is trained in full, even with an adapter; None is the policy's rate."""
    if model.critic is None or config.critic_learning_rate is not None or config.adapter == "none":
        return config.critic_learning_rate
    return RATES[0] * whole_share(model.critic.config.parameters)


def _actor_critic(config: PPOConfig, online: Online) -> ActorCritic:
    policy, heads = online.prepared.model, 1 if config.cost is None else 2
    if config.critic is None:
        return ActorCritic(policy, heads=heads)
    critic = load_reward_model(config.critic, online.prepared.tokenizer)
    return ActorCritic(policy, critic, heads)
