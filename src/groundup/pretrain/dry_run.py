"""Plans and times pre-training without text, on random tokens.

The computation does not depend on the values of the tokens, so a few random micro-batches take the
same time and memory as real ones. `groundup plan` uses the plan and discards the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.errors import UserError
from groundup.formats.hf_config import config_to_hf
from groundup.lm.model import CausalLM
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import TOKENS_PER_PARAMETER, model_shape
from groundup.pretrain.stage import RATES, new_model
from groundup.runs.folder import Run
from groundup.train.batch import Batch, DataStream, Stream
from groundup.train.device import matmul_peak, resolve
from groundup.train.loss import next_token_loss
from groundup.train.pace import random_batches
from groundup.train.plan import Trained
from groundup.train.stage import Job, run_stage

# Layers of a transformer, and multiples of 64 features of a recurrent network, that are tried: up
# to about 176 billion and 1 billion parameters.
_DEEPEST, _WIDEST = 160, 128
# Evaluations during pre-training write samples and read about this many tokens of held-out text.
_HELDOUT_TOKENS = 20_000


def sized(
    config: PretrainConfig,
    *,
    vocab_size: int,
    parameters: float | None = None,
    tokens: float | None = None,
) -> PretrainConfig:
    """The config with about `parameters` parameters, and with the steps for about `tokens` tokens.

    A transformer gets deeper, a recurrent network wider. Without a length, the number of tokens
    follows from the model's size. Raises `UserError` if there is no size either, and for a size
    outside the range that is tried.
    """
    if parameters is not None:
        wanted = parameters
        if config.arch == "gpt" or config.width is not None:
            sizes = [{"depth": depth} for depth in range(1, _DEEPEST + 1)]
        else:
            sizes = [{"width": 64 * number} for number in range(1, _WIDEST + 1)]
        tried = [config.model_copy(update=size) for size in sizes]
        counts = [model_shape(one, vocab_size, 1.0)[0].parameters for one in tried]
        if wanted < counts[0]:
            raise UserError(
                f"--params={wanted:g} must be at least {counts[0]:,}, the smallest that is tried; "
                "give more, or a smaller vocabulary or --width"
            )
        if wanted > counts[-1]:
            raise UserError(
                f"--params={wanted:g} must be at most {counts[-1]:,}, the largest that is tried; "
                "give fewer, or the size itself with --width and --depth"
            )
        config = min(zip(counts, tried, strict=True), key=lambda one: abs(one[0] - wanted))[1]
    if config.steps is not None or config.minutes is not None:
        return config
    if tokens is None:
        # The depth of a recurrent network does not determine its width.
        dials = ("depth", "width") if config.arch == "gpt" else ("width",)
        if all(getattr(config, dial) is None for dial in dials):
            raise UserError(
                f"there is nothing to plan by; say how long (--minutes) or how large (--{dials[0]},"
                " --params)"
            )
        shape, _ = model_shape(config, vocab_size, 1.0)
        tokens = TOKENS_PER_PARAMETER * shape.active_parameters
    steps = max(1, round(tokens / (config.rows * config.context)))
    return config.model_copy(update={"steps": steps})


@dataclass(frozen=True)
class _RandomStream(DataStream):
    """A stream of random tokens: the computation does not depend on their values."""

    vocab_size: int
    context: int
    rows: int
    micro_rows: int

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        batches = random_batches(self.vocab_size, context=self.context, rows=self.micro_rows)
        return [next(batches) for _ in range(-(-self.rows // self.micro_rows))]


def pretrain_on_noise(config: PretrainConfig, vocab_size: int) -> Path:
    """Plan and time pre-training on random tokens, with the stage's own functions."""
    compute = resolve(config, compile_by_default=False)
    shape, reasons = model_shape(
        config, vocab_size, matmul_peak(compute.device, compute.torch_dtype)
    )
    stream: Stream[Batch] = _RandomStream(
        shape.vocab_size, config.context, config.rows, config.micro(config.context)
    )

    def evaluate(model: CausalLM, step: int) -> dict[str, Any]:
        rows = max(1, _HELDOUT_TOKENS // config.context)
        batches = random_batches(shape.vocab_size, context=config.context, rows=rows)
        with torch.no_grad():
            next_token_loss(model, next(batches).to(torch.device(compute.device)))
        return {}

    def job(run: Run) -> Job[Batch, CausalLM]:
        return Job(
            config,
            Trained.whole(shape, config.context, RATES, "which suits small models"),
            model=lambda: new_model(shape, config.seed),
            stream=lambda steps: stream,
            loss=next_token_loss,
            evaluate=evaluate,
            save=lambda model, plan: None,
            context=config.context,
            rows_per_epoch=config.rows,
            model_config=config_to_hf(shape),
            reasons=reasons,
            snapshots=True,
        )

    return run_stage(config, "pretrain", {}, job)
