"""A training run's plan: all derived values, resolved once, with the reason for each.

The first start writes it to plan.json. Every later start reads it and measures nothing, so a budget
of minutes becomes a fixed number of steps and a resumed run takes exactly the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from groundup.errors import UserError
from groundup.runs.console import counted, duration, say
from groundup.train import checkpoint
from groundup.train.config import DecayShape, TrainingConfig
from groundup.train.device import (
    COMPILE_FROM_MINUTES,
    EXPECTED_PEAK_SHARE,
    RECURRENT_PEAK_SHARE,
    Compute,
    find_compiler,
    matmul_peak,
    products_peak,
    require_memory,
)
from groundup.train.optim import Rates, Schedule

# Training takes this share of a stage's minutes; evaluations, samples and saves take the rest.
TRAINING_SHARE = 0.92
# Seconds between checkpoints, which is the work that a kill may lose.
SAVE_SECONDS = 60.0
# Minimum duration of a step, and of a step with rollouts, where sampling takes many times as long
# as learning.
_MIN_STEP_SECONDS, _MIN_ROLLOUT_SECONDS = 0.02, 1.0
# All tokens of a step are in memory: ids, targets, positions and segments take 8 bytes each,
# weights 4, and everything is held twice while rows become a batch.
_BYTES_PER_TOKEN = 72


# Measured over fifteen shapes, each in a separate process: memory of Python and torch, and (below)
# the measured activations relative to the estimate of a layer's activations.
_PROCESS_BYTES = 370_000_000
# Additional memory of a run: the first steps (kernels and optimizer), the first evaluation, and
# experts of any size.
_STEPS_BYTES, _EVALUATION_BYTES, _EXPERTS_BYTES = 60_000_000, 40_000_000, 60_000_000
# Additional memory of PPO and GRPO in a separate process, with a model of 2 million parameters.
_SAMPLING_BYTES = 300_000_000
_KEPT_BY_KERNELS, _KEPT_EAGERLY = 0.85, 1.6
# Features of a head per tile of the attention kernel (`kernels.attention`), and queries per block
# of attention by PyTorch's products (`lm.attention`).
_TILE, _QUERIES = 32, 128


@runtime_checkable  # the tests' import hook checks arguments
class Shape(Protocol):
    """The sizes of a model that determine memory and time, under Hugging Face's names."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def position(self) -> str: ...
    @property
    def parameters(self) -> int: ...
    @property
    def compiles(self) -> bool: ...
    def flops_per_token(self, context: int) -> float: ...
    def products(self) -> Sequence[tuple[int, int, int]]: ...
    def activations_per_token(self) -> int: ...
    def scores_per_token(self, context: int) -> int: ...


@dataclass(frozen=True)
class Trained:
    """The trained part of a model, and its default learning rates."""

    shape: Shape
    trained_parameters: int
    flops_per_token: float
    # Peak learning rates of matrices and of embeddings and gains.
    rates: tuple[float, float]
    why_rates: str
    adapter: str = "none"
    lora_plus: float = 1.0
    # The peak learning rate of a value head, if there is one.
    head_rate: float | None = None
    # The peak learning rate of a separate critic, if it differs from the policy's.
    critic_rate: float | None = None

    @classmethod
    def whole(
        cls, shape: Shape, context: int, rates: tuple[float, float], why_rates: str
    ) -> Trained:
        """All parameters of a model of this shape are trained."""
        return cls(shape, shape.parameters, shape.flops_per_token(context), rates, why_rates)

    @property
    def head_flops(self) -> float:
        """The head's part of `flops_per_token`; with an adapter the head is frozen."""
        width, vocabulary, times = self.shape.products()[-1]
        return (6.0 if self.adapter == "none" else 4.0) * width * vocabulary * times


@dataclass(frozen=True)
class TrainPlan:
    """The resolved plan that `fit` follows, with reasons."""

    steps: int
    warmup_steps: int
    decay_steps: int
    save_every: int
    evaluate_every: int
    tokens_per_step: int
    rates: Rates
    muon: bool
    gradient_clip: float
    compute: Compute
    parameters: int
    flops_per_token: float
    # Peak FLOP/s of matrix products of the model's shapes; `peak_share` is relative to it.
    peak_flops: float
    tokens_per_second: float | None
    reasons: dict[str, str] = field(default_factory=dict)
    micro_rows: int | None = None
    trained_parameters: int | None = None
    adapter: str = "none"
    # The stage's own decisions about its data layout.
    layout: dict[str, float] | None = None
    # Expected time, memory and disk, which the report compares with the actual ones.
    expected: dict[str, float] | None = None
    # The part of `flops_per_token` that a token which is not trained on saves.
    head_flops: float = 0.0
    decay_shape: DecayShape = "linear"
    decay_to: float = 0.0

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            self.steps, self.warmup_steps, self.decay_steps, self.decay_shape, self.decay_to
        )

    def to_json(self) -> dict[str, Any]:
        plan: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return plan

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> TrainPlan:
        """Returns the plan that `to_json` wrote. Raises `UserError` for an invalid plan."""
        known = {name: plan[name] for name in cls.__dataclass_fields__ if name in plan}
        try:
            found = _ADAPTER.validate_python(known)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"plan.json is not a valid plan ({where}: {first['msg']})") from None
        counts = (found.steps, found.save_every, found.evaluate_every, found.tokens_per_step)
        if min(counts) < 1 or min(found.warmup_steps, found.decay_steps) < 0:
            raise UserError("plan.json is not a valid plan: steps must be at least 1")
        return found


_ADAPTER = TypeAdapter(TrainPlan)


def resolve_plan(
    config: TrainingConfig,
    compute: Compute,
    trained: Trained,
    *,
    context: int,
    rows_per_epoch: int,
    tokens_per_step: int,
    tokens_per_second: float | None,
    most_passes: float | None = None,
    layout: dict[str, float] | None = None,
    peak_memory: int | None = None,
    snapshots: int = 0,
    written: int = 0,
    replays: bool = True,
    reasons: dict[str, str],
) -> TrainPlan:
    """Derive all values from the settings and the measured speed.

    A stage without `replays` samples its data, so its steps also wait for sampling. Three values
    are for the run's report: `peak_memory` in bytes, measured or estimated, `snapshots`, the bytes
    per weight of a snapshot (0 without snapshots), and `written`, the bytes in its folder so far.
    """
    steps, why = _steps(config, tokens_per_step, rows_per_epoch, tokens_per_second, most_passes)
    reasons = _why_eager(config, compute, trained.shape) | reasons | {"steps": why}
    peak_flops = products_peak(
        compute.device,
        compute.torch_dtype,
        trained.shape.products(),
        config.micro(context) * context,
    )
    save_every = config.save_every
    if save_every is None:
        if tokens_per_second is None:
            minimum = _MIN_STEP_SECONDS if replays else _MIN_ROLLOUT_SECONDS
            peak = matmul_peak(compute.device, compute.torch_dtype)
            speed = _expected_speed(trained, peak) * compute.processes
            seconds_per_step = max(minimum, tokens_per_step / speed)
        else:
            seconds_per_step = tokens_per_step / tokens_per_second
        save_every = steps_between_saves(seconds_per_step)
        reasons |= {"save_every": "about once a minute; change with --save-every"}
    matrices, embeddings = trained.rates
    if config.learning_rate is None:
        reasons |= {"learning_rate": f"{matrices:.2g}, {trained.why_rates}"}
    return TrainPlan(
        steps=steps,
        warmup_steps=round(steps * config.warmup),
        decay_steps=round(steps * config.decay),
        decay_shape=config.decay_shape,
        decay_to=config.decay_to,
        save_every=save_every,
        evaluate_every=max(1, -(-steps // config.evaluations)),
        tokens_per_step=tokens_per_step,
        rates=Rates(
            matrices=config.learning_rate or matrices,
            embeddings=config.embedding_learning_rate or embeddings,
            gains=config.embedding_learning_rate or embeddings,
            weight_decay=config.weight_decay,
            lora_plus=trained.lora_plus,
            head=trained.head_rate,
            critic=trained.critic_rate,
            betas=(config.adam_beta1, config.adam_beta2),
        ),
        muon=uses_muon(config, trained),
        gradient_clip=config.gradient_clip,
        compute=compute,
        parameters=trained.shape.parameters,
        flops_per_token=trained.flops_per_token,
        peak_flops=peak_flops * compute.processes,
        tokens_per_second=tokens_per_second,
        reasons=reasons,
        micro_rows=config.micro(context),
        trained_parameters=trained.trained_parameters,
        adapter=trained.adapter,
        layout=layout,
        head_flops=trained.head_flops,
        expected=_expected(
            steps * tokens_per_step,
            tokens_per_second,
            peak_memory or training_memory(config, trained, compute, context),
            written
            + training_disk(trained, snapshots=snapshots, steps=steps, save_every=save_every),
        ),
    )


def steps_between_saves(seconds_per_step: float) -> int:
    """Returns the default number of steps between checkpoints."""
    return max(1, round(SAVE_SECONDS / seconds_per_step))


def _expected(
    tokens: int, tokens_per_second: float | None, peak_memory: int, disk: int
) -> dict[str, float]:
    """Returns the expected seconds of training, and bytes of memory and of disk."""
    expected = {"peak_memory_bytes": float(peak_memory), "disk_bytes": float(disk)}
    if tokens_per_second is not None:
        expected["seconds"] = tokens / tokens_per_second / TRAINING_SHARE
    return expected


def print_plan(stage: str, plan: TrainPlan) -> None:
    """Print the plan and its reasons."""
    trained, threads = "", plan.compute.threads
    if plan.adapter != "none" and plan.trained_parameters is not None:
        trained = f"{plan.trained_parameters / 1e6:.2f} M of them trained ({plan.adapter}), "
    say(
        f"{stage}: {plan.parameters / 1e6:.1f} M parameters, {trained}"
        f"{counted(plan.steps, 'step')} of {plan.tokens_per_step:,} tokens, "
        f"{plan.compute.dtype} on {plan.compute.device} with "
        f"{counted(threads, 'thread')}, {how_computed(plan.compute)}"
    )
    for name, reason in plan.reasons.items():
        say(f"  {name}: {reason}")


def print_outcome(stage: str, plan: TrainPlan, seconds: float, peak_memory: int | None) -> None:
    """Print the time and memory that a run took, next to the planned ones."""
    expected = plan.expected or {}
    took = f"{stage}: took {duration(seconds)}"
    if (planned := expected.get("seconds")) is not None:
        took += f" ({duration(planned)} planned)"
    if peak_memory is not None:
        took += f", {peak_memory / 1e9:.2f} GB of memory at most"
        if (planned := expected.get("peak_memory_bytes")) is not None:
            took += f" ({planned / 1e9:.2f} planned)"
    say(took)


def how_computed(compute: Compute) -> str:
    """Describe how the operations between matrix products are computed."""
    if compute.kernels != "none":
        return f"by our kernels for {compute.kernels}"
    return "compiled" if compute.compile else "eager"


def uses_muon(config: TrainingConfig, trained: Trained) -> bool:
    """Whether Muon trains the matrices; the thin matrices of an adapter use AdamW."""
    return config.optimizer == "muon" and trained.adapter == "none"


def expected_minutes(trained: Trained, tokens: int, compute: Compute) -> float:
    """Estimate the minutes of training on `tokens` tokens, to decide whether to compile."""
    peak = matmul_peak(compute.device, compute.torch_dtype)
    return tokens / (_expected_speed(trained, peak) * compute.processes) / 60


def _expected_speed(trained: Trained, peak_flops: float) -> float:
    """Estimate the tokens per second of training from the peak of matrix products."""
    recurrent = trained.shape.scores_per_token(1) == 0
    share = RECURRENT_PEAK_SHARE if recurrent else EXPECTED_PEAK_SHARE
    return peak_flops * share / trained.flops_per_token


def require_resources(
    config: TrainingConfig,
    trained: Trained,
    compute: Compute,
    context: int,
    *,
    only_planned: bool = False,
) -> None:
    """Raise `UserError` if training would not fit into memory, before anything is allocated.

    With `only_planned`, the message names the options of `groundup plan`.
    """
    micro_rows = config.micro(context)
    fewer = "--set micro_rows" if only_planned else "--micro-rows"
    saving = "--set gradient_checkpointing=true" if only_planned else "--gradient-checkpointing"
    remedies = [
        f"lower {fewer} or --context"
        if micro_rows > config.fewest_micro_rows
        else "lower --context",
        # A model that a stage starts from has its depth.
        f"take a smaller model{' (--depth)' * ('model' not in type(config).model_fields)}",
        *([] if config.gradient_checkpointing else [f"add {saving}"]),
    ]
    require_memory(
        training_memory(config, trained, compute, context),
        f"training {trained.shape.parameters / 1e6:.1f} M parameters with "
        f"micro_rows={micro_rows} of context={context}",
        f"{', '.join(remedies[:-1])}, or {remedies[-1]}",
        compute.device,
    )
    require_memory(
        config.rows * context * _BYTES_PER_TOKEN,
        f"a step of rows={config.rows} of context={context}",
        "lower --context" if "rows" in config.unused else "lower --rows or --context",
    )


def training_memory(
    config: TrainingConfig,
    trained: Trained,
    compute: Compute,
    context: int,
    held: int | None = None,
) -> int:
    """Estimate the peak bytes of training: weights, optimizer state, activations.

    `held` are the bytes that the process already uses: data, the model, leftovers of earlier
    stages.
    """
    shape, width = trained.shape, 2 if compute.dtype == "bfloat16" else 4
    # A trained parameter has a master and two moments in float32. Gradients are not counted: they
    # appear while activations are freed.
    stored = 1 if trained.adapter == "qlora" else width
    state = trained.trained_parameters * 3 * 4 + shape.parameters * stored
    # The memory of a CUDA device holds only tensors.
    process = 0 if compute.device == "cuda" else _PROCESS_BYTES
    if held is not None:  # includes the weights, unless a new model is created later
        process = max(min(process, held), held - shape.parameters * stored)
    return round(state + _activations(config, trained, compute, context) + process)


def _activations(config: TrainingConfig, trained: Trained, compute: Compute, context: int) -> float:
    """Estimate the peak bytes of activations of a micro-batch."""
    shape, width = trained.shape, 2 if compute.dtype == "bfloat16" else 4
    # Attention computes blocks of the causal triangle of scores.
    scores = shape.scores_per_token(context) * min(1.0, (context + _QUERIES) / (2 * context))
    by_kernels = compute.kernels != "none" and scores > 0  # PyTorch computes recurrent networks
    kept = _KEPT_BY_KERNELS if by_kernels else _KEPT_EAGERLY
    block, beside, scratch = kept * shape.activations_per_token(), 0.0, 0
    if by_kernels and shape.position != "alibi" and shape.head_dim % _TILE == 0:
        # The kernel recomputes scores in backward, one head at a time in each thread.
        scratch = compute.threads * context * (width * context + (7 * width + 8) * shape.head_dim)
    elif compute.attention == "matmul":
        block += scores
        if shape.position == "alibi":  # the bias of the scores differs between heads
            beside = shape.scores_per_token(context) / 2
    per_token = block * shape.num_hidden_layers + beside
    if config.gradient_checkpointing:
        per_token = shape.hidden_size * shape.num_hidden_layers + block + beside
    return config.micro(context) * context * per_token * width + scratch


def run_memory(config: TrainingConfig, trained: Trained, compute: Compute, context: int) -> int:
    """Estimate the bytes of a run's process in addition to `training_memory`; none on a GPU.

    Kernels and optimizer allocate in the first steps. Evaluation allocates when it first runs,
    after the activations of training are freed.
    """
    if compute.device == "cuda":
        return 0
    shape = trained.shape
    has_experts = not shape.compiles and shape.scores_per_token(1) > 0  # not recurrent
    measuring = max(0.0, _EVALUATION_BYTES - _activations(config, trained, compute, context))
    return round(_STEPS_BYTES + _EXPERTS_BYTES * has_experts + measuring)


def sampling_memory(trained: Trained, compute: Compute) -> int:
    """Estimate the bytes of learning from sampled answers in addition to training.

    The reference is a copy of the policy, or the policy without its adapter. Generation keeps a
    cache and compiled products, and the reward model is loaded on first use.
    """
    width = 2 if compute.dtype == "bfloat16" else 4
    reference = trained.shape.parameters * width if trained.adapter == "none" else 0
    return reference + _SAMPLING_BYTES


def training_disk(
    trained: Trained, *, snapshots: int = 0, steps: int | None = None, save_every: int | None = None
) -> int:
    """Estimate the bytes that a run writes: checkpoints, snapshots and the model.

    While a checkpoint is written, there is one more than are kept; a short run has fewer.
    `snapshots` are the bytes per weight of a snapshot. Snapshots are kept after steps 1, 2, 4, …:
    sixteen in a run of 33,000 steps, which is assumed while `steps` is unknown.
    """
    masters_and_moments = 3 * 4
    checkpoints = checkpoint.KEPT + 1
    if steps is not None and save_every is not None:  # the last step writes only the model
        checkpoints = min(checkpoints, (steps - 1) // save_every)
    snapshot_count = 16 if steps is None else steps.bit_length()
    per_weight = masters_and_moments * checkpoints + snapshot_count * snapshots + 4
    return trained.trained_parameters * per_weight


def _why_eager(config: TrainingConfig, compute: Compute, shape: Shape) -> dict[str, str]:
    """Return the reason if a run that could be compiled is not."""
    if compute.compile or compute.kernels != "none" or config.compile == "off":
        return {}
    if not shape.compiles:
        return {"compile": "eager, as the work of such layers depends on their input"}
    if find_compiler() is None:
        return {"compile": "eager, as no C++ compiler is on the PATH; install g++ or clang"}
    why = f"eager, as compiling pays off from {COMPILE_FROM_MINUTES:g} minutes on"
    return {"compile": f"{why}; change with --compile on"}


def _steps(
    config: TrainingConfig,
    tokens_per_step: int,
    rows_per_epoch: int,
    tokens_per_second: float | None,
    most_passes: float | None,
) -> tuple[int, str]:
    """Return the number of optimizer steps and the reason for it."""
    if config.steps is not None:
        return config.steps, "as given"
    if config.minutes is not None and tokens_per_second is not None:
        seconds = config.minutes * 60 * TRAINING_SHARE
        steps = max(1, round(seconds * tokens_per_second / tokens_per_step))
        why = (
            f"{duration(60 * config.minutes)} at {tokens_per_second:,.0f} tokens per second "
            f"measured here, {tokens_per_step:,} tokens a step; change with --minutes or --steps"
        )
        most = (
            steps if most_passes is None else math.ceil(most_passes * rows_per_epoch / config.rows)
        )
        if most < steps:
            return max(1, most), (
                f"{most_passes:g} passes over the data are enough, so not all of the "
                f"{duration(60 * config.minutes)} are used; change with --steps"
            )
        return steps, why
    return max(1, round(config.epochs * rows_per_epoch / config.rows)), (
        f"{config.epochs:g} pass{'es' * (config.epochs != 1)} over "
        f"{counted(rows_per_epoch, 'row')}; change with --epochs or --steps"
    )
