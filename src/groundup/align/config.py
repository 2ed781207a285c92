"""Settings of the alignment stages, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from groundup.data.config import ColumnsConfig, as_tuple
from groundup.data.files import ROW_KINDS
from groundup.train.config import DEVICE, OPTIMIZER, THREADS, Device, Traits
from groundup.train.ranges import (
    AnswersEach,
    Beta,
    Bound,
    ClipRange,
    Episodes,
    GroupSize,
    LabelSmoothing,
    LearningRate,
    LossWeight,
    Margin,
    Minibatches,
    Minutes,
    Multiplier,
    MultiplierRate,
    Nats,
    NewTokens,
    Questions,
    Rows,
    Share,
    ShareBelowOne,
    SomeIterations,
    Steps,
    Threads,
    check_mixture,
)
from groundup.tune.config import TuningConfig, require_distinct


def _by_name(reward: Any) -> Any:
    if callable(reward):
        raise ValueError(
            "a reward is given by its name, because it runs in a separate process; put the "
            "function into a file and name it module:function"
        )
    return reward


RewardName = Annotated[str, BeforeValidator(_by_name)]


class PtxConfig(TuningConfig):
    """Settings of the alignment stages that can also train on fine-tuning data (PPO-ptx)."""

    ptx: LossWeight = Field(
        0.0,
        description="weight of the loss on fine-tuning data next to the stage's own, which "
        "preserves knowledge (PPO-ptx of InstructGPT); 0 reads none",
    )
    ptx_data: tuple[Path, ...] | None = Field(
        None,
        min_length=1,
        description="the fine-tuning data of --ptx: anything that groundup sft reads (default: the "
        "conversations of the data-stage folder that the stage reads)",
    )

    _one_is_enough = field_validator("ptx_data", mode="before")(as_tuple)

    @model_validator(mode="after")
    def _data_are_read(self) -> Self:
        if self.ptx_data is not None and not self.ptx:
            raise ValueError(
                f"ptx_data={str(self.ptx_data[0])!r} is not read with ptx=0; give ptx a weight, "
                "such as 0.3, or leave ptx_data out"
            )
        return self


class PreferenceConfig(PtxConfig, ColumnsConfig):
    """Settings of the stages that learn from preferences without a reward model."""

    model: Path = Field(
        description="the folder of the fine-tuned model, which is start and reference"
    )
    # Muon moves equally far in every direction of a gradient, so a model forgets how to speak while
    # it learns to prefer; AdamW at a small rate does not.
    optimizer: Literal["muon", "adamw"] = Field("adamw", description=OPTIMIZER)
    warmup: Share = Field(0.1, description="share of the steps spent warming up")


# The settings of each loss, with its paper's values. The papers of IPO and SLiC give none for
# language models, so these have DPO's. DPO's `nll` is from experience: without it, small models
# forget to end their turns.
LOSSES: dict[str, dict[str, float]] = {
    "sigmoid": {"beta": 0.1, "nll": 1.0, "label_smoothing": 0.0},
    "ipo": {"beta": 0.1, "nll": 0.0},
    "hinge": {"beta": 0.1, "nll": 0.0},
    "simpo": {"beta": 2.0, "nll": 0.0, "gamma": 1.0},
    "orpo": {"beta": 0.1, "nll": 1.0},
}


def _defaults(name: str) -> str:
    """A setting's value for each loss, for --help."""
    return ", ".join(f"{loss} {own[name]:g}" for loss, own in LOSSES.items())


class DPOConfig(PreferenceConfig):
    """Direct preference optimization: make preferred answers likelier than rejected ones."""

    # The reference's log-probabilities take time, but pairs are shorter than the rows that a
    # machine's speed is measured with: the two cancel out.
    traits: ClassVar[Traits] = Traits("preferences", True, "preference_loss", 0.1)
    fewest_micro_rows: ClassVar[int] = 2

    data: Path = Field(
        description=f"a data-stage folder, that of groundup best-of-n, {ROW_KINDS} files of pairs "
        "(a file, a folder or hub:OWNER/NAME), or the votes of groundup label"
    )
    loss: Literal["sigmoid", "ipo", "hinge", "simpo", "orpo"] = Field(
        "sigmoid",
        description="sigmoid: DPO; ipo: a target margin; hinge: SLiC's, no gradient beyond a "
        "margin; simpo, orpo: mean per token, without a reference. For answers with labels "
        "instead of pairs: groundup kto",
    )
    beta: Beta | None = Field(
        None,
        description="strength of the penalty for leaving the reference; simpo: scale of the "
        "reward; orpo: weight of the odds ratio (default: " + _defaults("beta") + ")",
    )
    nll: LossWeight | None = Field(
        None,
        description="weight of the chosen answer's own loss, a mean over its tokens; 0 is the "
        "plain loss (default: " + _defaults("nll") + ")",
    )
    label_smoothing: LabelSmoothing = Field(
        0.0,
        description="for sigmoid: share of the pairs whose labels may be swapped "
        "(conservative DPO)",
    )
    gamma: Margin | None = Field(
        None,
        description="for simpo: target margin between the rewards (default: "
        f"{LOSSES['simpo']['gamma']:g})",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, given: Any) -> Any:
        """Set unset fields to the loss's own defaults."""
        if not isinstance(given, dict):
            return given
        own = LOSSES.get(str(given.get("loss", "sigmoid")), LOSSES["sigmoid"])
        unset = (name for name in own if cls.model_fields[name].default is None)
        return given | {name: own[name] for name in unset if given.get(name) is None}

    @property
    def loss_settings(self) -> dict[str, Any]:
        """The keyword arguments of `pair_loss`."""
        return {
            "loss": self.loss,
            "beta": self.beta,
            "label_smoothing": self.label_smoothing,
            "gamma": self.gamma or 0.0,
        }

    @model_validator(mode="after")
    def _settings_are_of_the_loss(self) -> Self:
        """Refuse a setting of another loss, which would be ignored silently."""
        for name in ("label_smoothing", "gamma"):
            unset = type(self).model_fields[name].default
            if name not in LOSSES[self.loss] and getattr(self, name) != unset:
                having = " or ".join(repr(loss) for loss, own in LOSSES.items() if name in own)
                raise ValueError(
                    f"{name}={getattr(self, name):g} has no meaning with loss={self.loss!r}; "
                    f"choose loss={having}, or leave {name} out"
                )
        return self


class KTOConfig(PreferenceConfig):
    """Kahneman-Tversky optimization: raise answers labeled good and lower those labeled bad."""

    # The reference takes a quarter of the time. Every answer is read twice, the second time with
    # another prompt.
    traits: ClassVar[Traits] = Traits("preferences", True, "preference_loss", 0.12, in_steps=0.75)

    data: Path = Field(
        description=f"a data-stage folder, {ROW_KINDS} files of answers with a label, true or "
        "false, or of pairs (a file, a folder or hub:OWNER/NAME), or the votes of groundup label"
    )
    beta: Beta = Field(0.1, description="strength of the penalty for leaving the reference")
    desirable_weight: LossWeight = Field(
        1.0, description="weight of answers that are labeled true, or chosen in a pair"
    )
    undesirable_weight: LossWeight = Field(
        1.0, description="weight of answers that are labeled false, or rejected in a pair"
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not self.desirable_weight and not self.undesirable_weight:
            raise ValueError(
                "desirable_weight=0 and undesirable_weight=0 leave nothing to learn; give one of "
                "them a weight, such as 1"
            )
        return self


class RewardConfig(TuningConfig, ColumnsConfig):
    """A reward model: it predicts which of two answers people prefer, by one number per answer."""

    traits: ClassVar[Traits] = Traits("preferences", False, "preference_loss", 0.1)
    fewest_micro_rows: ClassVar[int] = 2

    model: Path = Field(description="the folder of the fine-tuned model that training starts from")
    data: Path = Field(
        description=f"a data-stage folder, that of groundup best-of-n, {ROW_KINDS} files of pairs "
        "(a file, a folder or hub:OWNER/NAME), or the votes of groundup label"
    )
    optimizer: Literal["muon", "adamw"] = Field("adamw", description=OPTIMIZER)
    warmup: Share = Field(0.05, description="share of the steps spent warming up")
    decay: Share = Field(0.9, description="share of the steps spent decaying")
    margin: LossWeight = Field(
        0.0, description="by how much a preferred answer's reward must exceed the other's"
    )
    centering: LossWeight = Field(
        0.0, description="weight of the squared sum of a pair's rewards, which keeps them around 0"
    )
    samples: Episodes = Field(
        256,
        description="answers sampled from the initial model, by which rewards are scaled to mean 0 "
        "and deviation 1",
    )
    max_new_tokens: NewTokens = Field(64, description="maximum number of tokens of such an answer")
    policy: Path | None = Field(
        None,
        description="the folder of the model that samples these answers, if it is not the "
        "initial model",
    )


class RolloutConfig(PtxConfig, ColumnsConfig):
    """Settings shared by PPO and GRPO: prompts, a reward, and the answers per iteration."""

    model: Path = Field(
        description="the folder of the fine-tuned model, which is start and reference"
    )
    reward: RewardName = Field(
        description="the reward to raise: a reward model's folder, a verifier (sum, unit-test, "
        "sentiment, json, json:KEY,KEY, length:WORDS, format:PATTERN), module:function, or several "
        "reward models that must agree (ensemble:FOLDER,FOLDER)"
    )
    prompts: Path = Field(
        description="the prompts: a data-stage folder, or a file, a folder or hub:OWNER/NAME of "
        f"prompts or of conversations, whose last answers are left out (.txt, {ROW_KINDS})"
    )
    sources: tuple[str, ...] = Field(
        (), description="use only prompts of these sources, such as world-tell (default: all)"
    )
    gold: RewardName | None = Field(
        None,
        description="another reward, measured at every iteration and never trained on",
    )
    max_new_tokens: NewTokens = Field(64, description="maximum number of tokens of an answer")
    episodes: Episodes = Field(256, description="answers sampled per iteration")
    minibatches: Minibatches = Field(4, description="optimizer steps per pass over them")
    iterations: Steps | None = Field(
        None,
        description="how often new answers are sampled (default: from minutes or steps, else 100)",
    )
    missing_eos_penalty: LossWeight = Field(
        1.0,
        description="the reward of an answer that does not end is min(score, 0) minus this",
    )
    heldout_prompts: Questions = Field(
        128, description="held-out prompts answered at each evaluation"
    )
    rows: Rows | None = Field(  # type: ignore[assignment]  # None until the prompts are read
        None, description="rows of one context in an optimizer step: as many as its answers fill"
    )
    optimizer: Literal["muon", "adamw"] = Field("adamw", description=OPTIMIZER)
    warmup: Share = Field(0.05, description="share of the steps spent warming up")

    minutes: Minutes | None = Field(
        None,
        description="minutes that training may take here, instead of iterations or steps "
        "(default: no limit)",
    )
    steps: Steps | None = Field(None, description="optimizer steps (default: from the iterations)")
    unused: ClassVar[frozenset[str]] = frozenset(("rows", "epochs", "lora_dropout"))

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        if self.rows is not None:
            raise ValueError(
                f"rows={self.rows} cannot be set, as rows follow from the sampled answers; give "
                "episodes and minibatches instead"
            )
        if self.epochs != type(self).model_fields["epochs"].default:
            raise ValueError(
                f"epochs={self.epochs:g} has no meaning where new answers are sampled; give "
                "iterations, minutes or steps"
            )
        if self.lora_dropout:
            raise ValueError(
                f"lora_dropout={self.lora_dropout:g} would train another policy than was sampled; "
                "leave it out"
            )
        if self.minibatches > self.episodes:
            raise ValueError(
                f"minibatches={self.minibatches} is more than episodes={self.episodes}; give fewer"
            )
        given = [n for n in ("iterations", "steps", "minutes") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} each set the length of the run; give one of them"
            )
        return self


class PPOConfig(RolloutConfig):
    """Proximal policy optimization: raise a reward, with a penalty for leaving the reference."""

    traits: ClassVar[Traits] = Traits("prompts", True, "negative_reward", 0.2, in_steps=0.75)

    ppo_epochs: Steps = Field(2, description="passes over the answers of an iteration")
    kl_coef: LossWeight = Field(
        0.05,
        description="KL coefficient: penalty for each nat (1.44 bits) between policy and "
        "reference, subtracted from the reward",
    )
    kl_target: Nats | None = Field(
        None,
        description="nats per answer to which the penalty adapts (default: a fixed penalty)",
    )
    kl_horizon: Episodes = Field(2000, description="answers over which the penalty adapts")
    kl_stop: Nats | None = Field(
        None,
        description="end an iteration early, and sample new answers, once the policy has moved "
        "this many nats per token; the number of steps stays the same (default: never)",
    )
    clip_range: ClipRange = Field(
        0.2, description="the ratio of new to old probability is clipped to 1 ± this"
    )
    value_clip_range: ClipRange = Field(
        0.2, description="a value estimate's change from the old one is clipped to ± this"
    )
    value_coef: LossWeight = Field(0.1, description="weight of the value loss")
    entropy_coef: LossWeight = Field(0.0, description="weight of the policy's entropy bonus")
    gamma: Share = Field(1.0, description="discount factor of later rewards")
    gae_lambda: Share = Field(0.95, description="lambda of generalized advantage estimation (GAE)")
    critic: Path | None = Field(
        None,
        description="a reward model's folder that the critic starts from (default: the critic is a "
        "second head on the policy)",
    )
    value_learning_rate: LearningRate = Field(
        1e-3, description="peak learning rate of the value head"
    )
    critic_learning_rate: LearningRate | None = Field(
        None,
        description="peak learning rate of a separate critic (default: the policy's; with an "
        "adapter, that of full training)",
    )
    cost: RewardName | None = Field(
        None,
        description="a cost, named like --reward: an adaptive multiplier keeps its mean below "
        "--cost-limit (Safe RLHF); --patience keeps weights within the limit, if there are any",
    )
    cost_limit: Bound | None = Field(
        None,
        description="limit of the answers' mean cost; goes with --cost (a reward model's usual "
        "answer costs 0, so less than usual is below 0)",
    )
    cost_multiplier: Multiplier = Field(1.0, description="initial multiplier of the cost (lambda)")
    cost_rate: MultiplierRate = Field(
        1.0, description="how fast lambda follows the cost of an iteration (alpha)"
    )
    critic_warmup: SomeIterations | None = Field(
        None,
        description="iterations in which only the critic learns (default: 5, but at most a quarter "
        "of all); fewer than all",
    )

    @model_validator(mode="after")
    def _check_critic_rate(self) -> Self:
        if self.critic_learning_rate is not None and self.critic is None:
            raise ValueError(
                f"critic_learning_rate={self.critic_learning_rate:g} needs a separate critic, and "
                "there is none; give critic a reward model, or value_learning_rate the rate of "
                "the value head"
            )
        return self

    @model_validator(mode="after")
    def _check_cost_limit(self) -> Self:
        if self.cost is not None and self.cost_limit is None:
            raise ValueError(
                f"cost={self.cost!r} has no limit; give cost_limit what its mean may be, such as "
                "0.05 for a share of harmful answers"
            )
        for name in ("cost_limit", "cost_multiplier", "cost_rate"):
            value = getattr(self, name)
            if self.cost is None and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}={value:g} has no meaning without a cost; give cost, or leave {name} "
                    "out"
                )
        return self

    @model_validator(mode="after")
    def _check_kl_target(self) -> Self:
        if self.kl_target is not None and not self.kl_coef:
            raise ValueError(
                f"kl_target={self.kl_target:g} adapts the penalty, but kl_coef=0 stays 0; give "
                "kl_coef an initial value, such as 0.05"
            )
        if (
            self.kl_target is None
            and self.kl_horizon != type(self).model_fields["kl_horizon"].default
        ):
            raise ValueError(
                f"kl_horizon={self.kl_horizon} has no meaning without kl_target; give that, or "
                "leave kl_horizon out"
            )
        return self


class GRPOConfig(RolloutConfig):
    """Group-relative policy optimization: raise answers above others to the same prompt."""

    traits: ClassVar[Traits] = Traits("prompts", True, "negative_reward", 0.2, in_steps=0.75)

    group_size: GroupSize = Field(8, description="answers per prompt")
    minibatches: Minibatches = Field(1, description="optimizer steps per pass over the answers")
    epochs_per_iteration: Steps = Field(1, description="passes over the answers of an iteration")
    kl_coef: LossWeight = Field(
        0.0,
        description="KL coefficient: penalty for each nat (1.44 bits) between policy and "
        "reference, in the loss",
    )
    clip_range: ClipRange = Field(
        0.2, description="the ratio of new to old probability is clipped to 1 ± this"
    )
    clip_range_high: ClipRange | None = Field(
        None, description="the upper clip range, if larger; DAPO uses 0.28 (default: the same)"
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        "token",
        description="what has a ratio of new to old probability: token, each token; sequence, each "
        "answer, the geometric mean of its tokens' (GSPO, whose clip ranges are 0.0003 and 0.0004)",
    )
    scale_rewards: bool = Field(
        True,
        description="divide a group's advantages by their deviation (off: Dr. GRPO)",
    )
    loss_type: Literal["dapo", "grpo", "dr_grpo"] = Field(
        "dapo",
        description="what the mean is taken over: dapo, all tokens; grpo, each answer's own "
        "tokens; dr_grpo, the maximum number of tokens of an answer",
    )

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        if self.episodes % self.group_size:
            raise ValueError(
                f"episodes={self.episodes} is not a multiple of group_size={self.group_size}; "
                f"try episodes={max(1, self.episodes // self.group_size) * self.group_size}"
            )
        if self.clip_range_high is not None and self.clip_range_high < self.clip_range:
            raise ValueError(
                f"clip_range_high={self.clip_range_high:g} is less than clip_range="
                f"{self.clip_range:g}; give at least as much"
            )
        return self


class BestOfNConfig(ColumnsConfig):
    """Sample several answers per prompt, score them, keep the best and make data of them."""

    model: Path = Field(description="the folder of the model that answers")
    reward: RewardName = Field(
        description="the reward that ranks the answers: anything --reward of groundup ppo takes"
    )
    prompts: Path = Field(description="the prompts: a data-stage folder, or a file of prompts")
    sources: tuple[str, ...] = Field(
        (), description="use only prompts of these sources, such as world-tell (default: all)"
    )
    mixture: dict[str, ShareBelowOne] = Field(
        {},
        description="a source's share of the prompts, if it has enough: --mixture.world-conduct "
        "0.2, in a recipe mixture = {world-conduct = 0.2} (default: its share of all prompts)",
    )
    gold: RewardName | None = Field(
        None, description="another reward, by which the chosen answers are judged"
    )
    exclude: Path | None = Field(
        None,
        description="a folder that groundup best-of-n wrote: its prompts are skipped, so that the "
        "data of both share none",
    )
    n: GroupSize = Field(16, description="answers per prompt")
    questions: Questions = Field(256, description="number of prompts, spread over all available")
    max_new_tokens: NewTokens = Field(64, description="maximum number of tokens of an answer")
    missing_eos_penalty: LossWeight = Field(
        1.0,
        description="the reward of an answer that does not end is min(score, 0) minus this",
    )
    reference_answers: bool = Field(
        False,
        description="learn from the answer that came with a prompt if it scores higher than all of "
        "the model's, which otherwise teach nothing about the right answer",
    )
    across_prompts: bool = Field(
        False,
        description="also pair answers of different prompts: if the worse answer of a pair is the "
        "best to another prompt, it is preferred there over the better one, until it is chosen as "
        "often as rejected, so that what is wrong here is not unlearned everywhere",
    )
    across_prompts_except: tuple[str, ...] = Field(
        (),
        description="prompts of these sources, such as harm-*, and pairs of their answers take no "
        "part in --across-prompts",
    )
    min_reward: Bound | None = Field(
        None,
        description="prompts whose best answer scores less give no conversation (default: every "
        "prompt gives one)",
    )
    heldout: ShareBelowOne = Field(
        0.1, description="share of the prompts whose answers are held out"
    )
    device: Device = Field("auto", description=DEVICE)
    threads: Threads | None = Field(None, description=THREADS)

    @model_validator(mode="after")
    def _check_mixture(self) -> Self:
        check_mixture(self.mixture)
        return self

    @model_validator(mode="after")
    def _check_exceptions(self) -> Self:
        if self.across_prompts_except and not self.across_prompts:
            raise ValueError(
                f"across_prompts_except={' '.join(self.across_prompts_except)} needs "
                "across_prompts; give it as well, or leave it out"
            )
        return self


class ComparisonConfig(ColumnsConfig):
    """Compare the answers of several models by a reward, a second one, and the ground truth."""

    models: tuple[Path, ...] = Field(
        min_length=1, description="folders of the models; the others are compared with the first"
    )
    reward: RewardName = Field(
        description="the reward that scores answers: anything --reward of groundup ppo takes"
    )
    gold: RewardName | None = Field(None, description="another reward, such as the ground truth")
    judge: RewardName | None = Field(
        None,
        description="a second reward that no model was trained on, such as a reward model of other "
        "labels",
    )
    best_of: GroupSize | None = Field(
        None,
        description="also evaluate the best of this many answers of the first model, chosen by the "
        "reward (default: none)",
    )
    prompts: Path = Field(description="the prompts: a data-stage folder, or a file of prompts")
    sources: tuple[str, ...] = Field(
        (), description="use only prompts of these sources, such as world-tell (default: all)"
    )
    questions: Questions = Field(400, description="held-out prompts, spread over all available")
    samples: AnswersEach = Field(
        1,
        description="answers per prompt; from 8 on, the best of 8 is reported as well (pass@8 for "
        "a verifier of 0 or 1)",
    )
    max_new_tokens: NewTokens = Field(64, description="maximum number of tokens of an answer")
    missing_eos_penalty: LossWeight = Field(
        1.0,
        description="the reward of an answer that does not end is min(score, 0) minus this",
    )
    device: Device = Field("auto", description=DEVICE)
    threads: Threads | None = Field(None, description=THREADS)

    _are_different = field_validator("models")(require_distinct)
