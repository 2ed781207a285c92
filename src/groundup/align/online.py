"""What PPO and GRPO share: prompts, a reward, sampling, evaluation, and the job around them.

    iteration:  sample -> score -> lay out -> read with policy and reference -> a method's batches

The results of an iteration are a line of metrics.jsonl of the kind `rollout`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.align.config import PPOConfig, RolloutConfig
from groundup.align.prompts import Prompt, load_prompts
from groundup.align.ptx import policy_saver, ptx_parents, ptx_stream, with_ptx
from groundup.align.rewards.by_name import open_rollout_reward, reward_folders
from groundup.align.rollout import (
    PackedRollouts,
    Reference,
    Rollout,
    RolloutReward,
    RolloutStream,
    TokenFacts,
    Values,
    mismatch,
    pack_rollouts,
    prompts_of,
    rewards_of,
    sample,
    token_facts,
    with_missing_eos_penalty,
)
from groundup.align.watch import Watch
from groundup.data.split import evenly_spaced, on_disk
from groundup.errors import UserError
from groundup.formats.folder import DTYPES
from groundup.formats.hf_config import config_to_hf
from groundup.formats.locate import name_of
from groundup.generation.kernel import kernel_number
from groundup.lm.model import CausalLM
from groundup.report.estimate import Estimate, ratio
from groundup.runs.console import counted, say
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Loss, LossFunction
from groundup.train.config import PASS_TOKENS
from groundup.train.device import resolve_device, use_threads
from groundup.train.loop import step_seed
from groundup.train.stage import Job
from groundup.tune.prepare import PreparedModel, prepare_model

M = TypeVar("M", bound=nn.Module)

# The default number of iterations.
_ITERATIONS = 100
# The shortest row, and the step in which rows grow.
_SHORTEST_ROW, _ROW_STEP = 128, 64
# The iteration number that seeds held-out answers; no iteration has it.
_HELDOUT = -1
# The penalty per unit of held-out cost beyond the limit: more than any reward makes up for.
_BEYOND_LIMIT = 1e9
_SHOWN = 2


@dataclass(frozen=True)
class Sampled:
    """An iteration's rollouts with their rewards, after the missing-EOS penalty."""

    rollouts: list[Rollout]
    rewards: Float[np.ndarray, " rollouts"]
    scores: Float[np.ndarray, " rollouts"]
    gold: Float[np.ndarray, " rollouts"] | None
    costs: Float[np.ndarray, " rollouts"] | None
    sampling_seconds: float
    scoring_seconds: float


@dataclass
class Online:
    """The parts of a run that learns from its own answers."""

    config: RolloutConfig
    stage: str
    # None while the speed is measured: then nothing is logged.
    run: Run | None
    prepared: PreparedModel
    prompts: Sequence[Prompt]
    heldout: Sequence[Prompt]
    reward: RolloutReward
    gold: RolloutReward | None
    reference: Reference
    context: int
    # Answers are continuations of a given length, so no missing-EOS penalty applies.
    continues: bool = False
    # The cost of answers, for a method that limits it.
    cost: RolloutReward | None = None
    # Seconds of the last sampling and scoring.
    seconds: float = 0.0
    # Set by `job`, which knows how often answers are read.
    watch: Watch | None = None

    @property
    def holds_out(self) -> bool:
        """Whether any held-out prompt is not trained on."""
        trained = {prompt.ids for prompt in self.prompts}
        return any(prompt.ids not in trained for prompt in self.heldout)

    @property
    def tokens_per_step(self) -> int:
        """About the maximum number of tokens of a minibatch, with prompts of mean length."""
        asked = float(np.mean([len(prompt.ids) for prompt in self.prompts]))
        answers = self.config.episodes / self.config.minibatches
        return math.ceil(answers * (asked + self.config.max_new_tokens))

    @property
    def micro_rows(self) -> int:
        """Rows per pass: as in other stages, but no more than a minibatch fills."""
        most = max(1, PASS_TOKENS // self.context)
        return self.config.micro_rows or min(most, -(-self.tokens_per_step // self.context))

    def sampled(self, policy: CausalLM, iteration: int, copies: int = 1) -> Sampled:
        """Sample and score the answers of an iteration, `copies` per prompt."""
        seed, count = self.config.seed, self.config.episodes
        prompts = prompts_of(self.prompts, count, iteration, seed=seed, copies=copies)
        return self._answered(policy, prompts, step_seed(seed, iteration))

    def _answered(self, policy: CausalLM, prompts: Sequence[Prompt], seed: int) -> Sampled:
        begun = time.perf_counter()
        rollouts = sample(
            policy,
            prompts,
            self.prepared.tokenizer,
            max_new_tokens=self.config.max_new_tokens,
            seed=seed,
        )
        sampled_at = time.perf_counter()
        scores = rewards_of(self.reward, rollouts)
        ended = np.array([one.ended or self.continues for one in rollouts])
        rewards = with_missing_eos_penalty(scores, ended, self.config.missing_eos_penalty)
        gold = None if self.gold is None else rewards_of(self.gold, rollouts)
        costs = None if self.cost is None else rewards_of(self.cost, rollouts)
        scored = time.perf_counter()
        self.seconds = scored - begun
        return Sampled(
            rollouts, rewards, scores, gold, costs, sampled_at - begun, scored - sampled_at
        )

    def minibatches(
        self, policy: CausalLM, rollouts: Sequence[Rollout]
    ) -> list[list[PackedRollouts]]:
        """The rollouts in minibatches, in the order of sampling."""
        return [
            pack_rollouts(
                rollouts,
                part.tolist(),
                context=self.context,
                micro_rows=self.micro_rows,
                one_shape=policy.compiled,
            )
            for part in np.array_split(np.arange(len(rollouts)), self.config.minibatches)
        ]

    def facts(
        self,
        policy: CausalLM,
        sampled: Sampled,
        minibatches: Sequence[Sequence[PackedRollouts]],
        values: Values | None = None,
    ) -> TokenFacts:
        """Read all rollouts with policy and reference."""
        flat = [one for minibatch in minibatches for one in minibatch]
        return token_facts(policy, self.reference.of(policy), sampled.rollouts, flat, values)

    def log(self, step: int, sampled: Sampled, facts: TokenFacts, **more: float) -> None:
        """Log an iteration's results, and warn about what goes wrong."""
        if self.run is None:
            return
        rollouts = sampled.rollouts
        kl = facts.sampled_kl()
        entropy = facts.mean_entropy()
        ended = float(np.mean([one.ended for one in rollouts]))
        prompts = len({one.prompt.ids for one in rollouts})
        apart = mismatch(rollouts, facts.logprobs)
        also = {
            name: float(found.mean())
            for name, found in (("gold", sampled.gold), ("cost", sampled.costs))
            if found is not None
        }
        self.run.log(
            "metrics.jsonl",
            kind="rollout",
            step=step + 1,
            reward=float(sampled.rewards.mean()),
            reward_deviation=float(sampled.rewards.std()),
            score=float(sampled.scores.mean()),
            **also,
            kl=kl,
            exact_kl=facts.exact_kl(),
            entropy=entropy,
            length=float(np.mean([len(one.ids) for one in rollouts])),
            ended=ended,
            prompts=prompts,
            mismatch=apart[0],
            largest_mismatch=apart[1],
            sampling_seconds=sampled.sampling_seconds,
            scoring_seconds=sampled.scoring_seconds,
            **more,
        )
        for one, reward in list(zip(rollouts, sampled.rewards, strict=True))[:_SHOWN]:
            asked = one.prompt.messages[-1].content if one.prompt.messages else ""
            self.run.log(
                "samples.jsonl", step=step + 1, prompt=asked, text=one.text, reward=float(reward)
            )
        if self.watch is not None:
            # The deviation would not do: rounding keeps it above 0.
            told_apart = more.get("groups_with_signal", float(np.ptp(sampled.rewards)))
            self.watch.iteration(
                kl=kl, entropy=entropy, ended=ended, prompts=prompts, told_apart=told_apart > 0
            )

    def stream(
        self,
        roll: Callable[[int, int, nn.Module], Sequence[Sequence[Any]]],
        *,
        epochs: int,
        ended: Callable[[], bool] = lambda: False,
        state: Callable[[], dict[str, Tensor]] = dict,
        restore: Callable[[Mapping[str, Tensor]], None] = lambda state: None,
    ) -> RolloutStream:
        """A method's rollouts; a resumed run must sample with the kernel that it began with."""

        def restored(saved: Mapping[str, Tensor]) -> None:
            now = kernel_number(self.prepared.model)
            if int(saved.get("kernel", torch.tensor(now))) != now:
                changed = (
                    "this run was sampled with another kernel than the current one (another "
                    "processor, compiler, kernel cache or version of groundup), which does not "
                    "give the same bits"
                )
                if not self.config.allow_inexact_resume:
                    raise UserError(f"{changed}; restore it or pass --allow-inexact-resume")
                say(f"{changed}; it continues, as --allow-inexact-resume says")
            restore(saved)

        return RolloutStream(
            roll,
            epochs=epochs,
            seed=self.config.seed,
            ended=ended,
            state=lambda: {
                "kernel": torch.tensor(kernel_number(self.prepared.model)),
                **state(),
            },
            restore=restored,
        )

    def evaluate(self, policy: CausalLM, step: int) -> dict[str, Any]:
        """The mean reward of held-out prompts, each answered once, with its interval.

        `patience` minimizes `negative_reward`. Weights beyond the cost limit rank below all that
        are within it, whatever they earn, and among each other by how far they are beyond.
        """
        if not self.heldout:
            return {"negative_reward": None}
        found = self._answered(policy, self.heldout, step_seed(self.config.seed, _HELDOUT))
        groups = [one.group or place for place, one in enumerate(self.heldout)]
        measured = {"heldout_reward": ratio(found.rewards, groups=groups)}
        negative_reward = -measured["heldout_reward"].estimate
        if found.gold is not None:
            measured["heldout_gold"] = ratio(found.gold, groups=groups)
        if found.costs is not None:
            measured["heldout_cost"] = ratio(found.costs, groups=groups)
            assert isinstance(self.config, PPOConfig) and self.config.cost_limit is not None
            beyond = measured["heldout_cost"].estimate - self.config.cost_limit
            negative_reward += _BEYOND_LIMIT * max(0.0, beyond)
        words = ", ".join(
            f"{name.replace('_', ' ')} {one.estimate:.3f} {_interval(one)}"
            for name, one in measured.items()
        )
        asked = counted(len(self.heldout), "prompt")
        asked += "" if self.holds_out else " of the training, as none is held out"
        say(f"{self.stage}  step {step}  {words} on {asked}")
        # While the critic warms up, the policy does not move, so patience must not run out.
        waits = {"counts": False} if self.watch and not self.watch.policy_trains else {}
        return waits | {
            "negative_reward": negative_reward,
            "heldout_ended": float(np.mean([one.ended for one in found.rollouts])),
            **{name: one.to_json() for name, one in measured.items()},
        }

    def job(
        self,
        how: str,
        *,
        model: M,
        policy: Callable[[M], CausalLM],
        stream: Callable[[Online, int | None], RolloutStream],
        loss: LossFunction[Any],
        epochs: int,
        head_rate: float | None = None,
        critic_rate: float | None = None,
    ) -> Job[Any, M]:
        """The job of a method that makes `epochs` passes over the answers of each iteration.

        `stream` makes the rollouts of a number of iterations (None while the speed is measured).
        """
        config, prepared, run = self.config, self.prepared, self.run
        assert run is not None
        planning = replace(self, run=None)
        per_iteration = epochs * config.minibatches
        self.watch = watch = _watch(run, repeats=per_iteration > 1)
        tokens = self.tokens_per_step
        steps = config.steps
        if steps is None and config.minutes is None:
            steps = (config.iterations or _ITERATIONS) * per_iteration
        rows = math.ceil(tokens / self.context)
        settled = config.model_copy(
            update={"steps": steps, "rows": rows, "micro_rows": self.micro_rows}
        )
        critic_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        critic_parameters -= sum(p.numel() for p in policy(model).parameters() if p.requires_grad)
        trained = replace(
            prepared.trained,
            trained_parameters=prepared.trained.trained_parameters + critic_parameters,
            head_rate=head_rate,
            critic_rate=critic_rate,
        )

        how = f"{how}, of {name_of(config.model)}, to raise {config.reward}"
        return Job(
            settled,
            trained,
            model=lambda: model,
            stream=lambda steps: ptx_stream(
                settled,
                config.prompts,
                prepared.tokenizer,
                stream(planning, None)
                if steps is None
                else stream(self, max(1, steps // per_iteration)),
                self.context,
            ),
            loss=_watched(
                self.watch,
                with_ptx(loss, policy, lambda: watch.policy_trains) if config.ptx else loss,
            ),
            evaluate=lambda model, step: self.evaluate(policy(model), step),
            save=policy_saver(config, config.prompts, run, prepared, how),
            context=self.context,
            rows_per_epoch=max(1, len(self.prompts) * rows // config.episodes),
            model_config=config_to_hf(policy(model).config),
            tokens_per_step=tokens + (rows * self.context if config.ptx else 0),
            evaluates_first=True,
            replays=False,
            # Reading with policy and reference takes two of the three products of a training pass.
            making=lambda seconds: (
                (planning.seconds + 2 / 3 * seconds * tokens * config.minibatches) / per_iteration
            ),
            reasons={
                "iteration": f"{config.episodes} answers, then "
                + counted(per_iteration, "optimizer step")
                + ("" if per_iteration > 1 else "; with one step, no ratio is ever clipped")
            },
        )


def _interval(found: Estimate) -> str:
    """The ends of an interval, unless all values were equal."""
    if found.low == found.high:
        return "(all equal)"
    return f"({found.low:.3f} to {found.high:.3f})"


def _watch(run: Run, *, repeats: bool) -> Watch:
    """A watch that, in a resumed run, knows the earlier iterations."""
    watch = Watch(run.stage, say, repeats=repeats)
    path = run.folder / "metrics.jsonl"
    lines = read_lines(path) if path.is_file() else []
    begun = [line for line in lines if line.get("kind") == "rollout"]
    if begun:
        # Earlier versions did not log the number of prompts; such an iteration counts as one.
        ends = [(line["ended"], line.get("prompts", 1)) for line in begun]
        watch.begin(begun[0]["entropy"], ends)
    return watch


def _watched(watch: Watch, loss: LossFunction[Any]) -> LossFunction[Any]:
    def watched(model: nn.Module, batch: Any) -> Loss:
        found = loss(model, batch)
        watch.step(found)
        return found

    return watched


def open_online(config: RolloutConfig, run: Run, rates: tuple[float, float]) -> Online:
    """Load what a run needs. Raises `UserError` for anything that cannot be used."""
    prepared = prepare_model(config, rates)
    use_threads(config)
    most = prepared.context
    if config.max_new_tokens >= most:
        raise UserError(
            f"max_new_tokens={config.max_new_tokens} leaves no room for a prompt in a context of "
            f"{most}; give fewer"
        )
    prompts, heldout = load_prompts(
        config.prompts,
        prepared.tokenizer,
        longest=most - config.max_new_tokens,
        sources=config.sources,
        rewards=(config.reward, config.gold),
        columns=config.column_names,
    )
    longest = max(len(prompt.ids) for prompt in prompts) + config.max_new_tokens
    context = max(_SHORTEST_ROW, -(-longest // _ROW_STEP) * _ROW_STEP)
    if config.context is not None:
        context = most
    return Online(
        config,
        run.stage,
        run,
        prepared,
        prompts,
        evenly_spaced(heldout, config.heldout_prompts),
        opened_reward(config, config.reward, prepared.tokenizer),
        None if config.gold is None else opened_reward(config, config.gold, prepared.tokenizer),
        Reference(lambda: prepare_model(config, rates).model),
        min(context, most),
    )


def opened_reward(config: RolloutConfig, spec: str, tokenizer: Tokenizer) -> RolloutReward:
    """A reward that computes on the run's device and in its dtype."""
    device = resolve_device(config.device)
    return open_rollout_reward(spec, tokenizer, device, DTYPES.get(config.dtype))  # else its own


def inputs(config: RolloutConfig, cost: str | None = None) -> dict[str, Path]:
    """The folders that a run reads, by role, for its lineage."""
    found = {"model": config.model, "prompts": on_disk(config.prompts)}
    rewards = reward_folders(config.reward, config.gold, cost=cost)
    return found | rewards | ptx_parents(config, config.prompts)
