"""Prepares a model for training: loaded, quantized and adapted as a stage's settings say.

    --adapter none      W is trained
    --adapter lora      W + B A: W is frozen, the thin matrices B and A are trained
    --adapter qlora     the same, with W in 4 bits

This is the only difference between them in every stage (continued pre-training, fine-tuning,
preferences): the loop, the batches and the loss are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.errors import UserError
from groundup.formats.card import NEEDS_BASE, ON_AN_ADAPTER
from groundup.formats.folder import save_model
from groundup.formats.load import load, require_finite
from groundup.formats.locate import locate, name_of
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.console import say
from groundup.text.chat import end_of_turn
from groundup.text.tokenizer import Tokenizer
from groundup.train.plan import Trained
from groundup.tune.config import TuningConfig

# Longer rows are rare in users' data, and attention costs the square of their length.
LONGEST_ROW = 1024
# Rates that suit small models, trained in an hour, would ruin a larger one, which was trained for
# long. Rates therefore fall with the size, from 0.01 with Muon to 0.0004 at 135 M (where 0.0015
# left SmolLM2 worse than 0.0003 after 30,000 tokens) and 0.000007 at 7 B.
SMALL, FULL_RATE_UP_TO = 20e6, 5e6
# The matrices of an adapter need a tenth of a small model's rates, with AdamW, whatever the model's
# size, if the amount of data is unknown.
ADAPTER_SHARE = 0.1


@dataclass(frozen=True)
class PreparedModel:
    """A model ready for training, with its tokenizer, and the tokens per row.

    `save(folder, tokenizer, card)` writes what was trained; `how` describes it for the card.
    """

    model: CausalLM
    tokenizer: Tokenizer
    context: int
    trained: Trained
    save: Callable[[Path, Tokenizer, str], None]
    how: str


def prepare_model(config: TuningConfig, rates: tuple[float, float]) -> PreparedModel:
    """Load `config.model`, quantize it and add an adapter as the settings say.

    `rates` are the stage's peak learning rates of matrices and embeddings for a small model that
    is trained as a whole. An adapter that the model comes with is merged into it first.

    Raises `UserError` for a folder that cannot be used, and for settings that do not fit it.
    """
    # Imported here, because the settings of a stage must load quickly.
    from groundup.adapters.attach import adapter_names, add_lora, merge
    from groundup.adapters.quantization import dequantize, is_quantized, quantize
    from groundup.formats.adapter import own_sampling

    model, tokenizer = load(config.model)
    if tokenizer.largest_written_id >= model.config.vocab_size:
        raise UserError(
            f"the tokenizer of {config.model} has {tokenizer.vocab_size:,} tokens, but its model "
            f"has rows for {model.config.vocab_size:,}; use the tokenizer that the model was "
            "trained with"
        )
    require_finite(model, config.model)
    end = end_of_turn(tokenizer)
    if end is not None and end not in {*model.config.eos_token_ids, *tokenizer.stop_ids}:
        # The end token of a turn, which is learned, must end the saved model's answers.
        ends = (end, *model.config.eos_token_ids)
        model.config = replace(model.config, eos_token_ids=ends)
    on_an_adapter = bool(adapter_names(model))
    if on_an_adapter:
        merge(model, reversible=False)
        # Layers without the adapter are still in 4 bits.
        dequantize(model, model.head.dtype)
    context, sampling = row_length(config, model.config), own_sampling(locate(config.model))
    if config.adapter == "none":
        if is_quantized(model):
            raise UserError(
                f"{config.model} is stored in 4 bits, which cannot be trained themselves; train "
                "an adapter on them with --adapter lora"
            )
        return _whole(model, tokenizer, context, rates, sampling)
    if config.adapter == "qlora" and not is_quantized(model):
        quantize(
            model,
            "nf4",
            block_size=config.block_size,
            double_quant=config.double_quant,
        )
    add_lora(
        model,
        config.lora_rank,
        config.lora_alpha,
        config.lora_dropout,
        config.lora_targets,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        seed=config.seed,
    )
    prepared = _adapted(config, model, tokenizer, context, rates, sampling)
    if not on_an_adapter:
        return prepared
    upon = ON_AN_ADAPTER.format(base=name_of(config.model))
    say(f"Warning: {upon}")
    return replace(prepared, how=f"{prepared.how} {upon}")


def with_more_tokens(
    config: TuningConfig,
    prepared: PreparedModel,
    tokenizer: Tokenizer,
    rates: tuple[float, float],
) -> PreparedModel:
    """The same model, trained as a whole, with embeddings for the tokens that `tokenizer` adds."""
    from groundup.formats.adapter import own_sampling

    prepared.model.add_tokens(tokenizer.largest_written_id + 1)
    sampling = own_sampling(locate(config.model))
    return _whole(prepared.model, tokenizer, prepared.context, rates, sampling)


def row_length(config: TuningConfig, shape: ModelConfig) -> int:
    """Tokens per row: as set, else the model's context, at most 1,024."""
    most = shape.max_position_embeddings
    if config.context is not None and config.context > most:
        raise UserError(
            f"context={config.context} is longer than the model was made for; "
            f"give at most {most}, or leave it out"
        )
    return config.context or min(most, LONGEST_ROW)


def whole_share(parameters: int) -> float:
    """The share of a small model's rates for a whole model of `parameters` parameters."""
    return 1.0 if parameters <= SMALL else FULL_RATE_UP_TO / parameters


def _whole(
    model: CausalLM,
    tokenizer: Tokenizer,
    context: int,
    rates: tuple[float, float],
    sampling: dict[str, Any] | None,
) -> PreparedModel:
    # Trained in float32, as in the checkpoints, and stored in the original dtype, so that a model
    # in bfloat16 does not become a file twice as large.
    dtype = model.head.dtype
    name = str(dtype).removeprefix("torch.")
    stored = "" if dtype == torch.float32 else f" They are stored in {name}, as in the base model."
    share = whole_share(model.config.parameters)
    why = "as for small models" if share == 1 else f"{share:.2g} of a small model's, for its size"
    trained = Trained.whole(
        model.config,
        context,
        (rates[0] * share, rates[1] * share),
        f"{why}; change with --learning-rate",
    )
    return PreparedModel(
        model,
        tokenizer,
        context,
        trained,
        lambda folder, tokenizer, card: save_model(
            folder, model, tokenizer, card=card, dtype=dtype, sampling=sampling
        ),
        f"All weights were trained.{stored}",
    )


def _adapted(
    config: TuningConfig,
    model: CausalLM,
    tokenizer: Tokenizer,
    context: int,
    rates: tuple[float, float],
    sampling: dict[str, Any] | None,
) -> PreparedModel:
    from groundup.formats.adapter import save_adapted

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = Trained.whole(model.config, context, rates, "")
    frozen = sum(inputs * outputs * times for inputs, outputs, times in model.config.products())
    trained = replace(
        whole,
        trained_parameters=parameters,
        # The frozen matrices have no weight gradients: one of three products is not needed.
        # Attention scores have no weights.
        flops_per_token=whole.flops_per_token - 2 * frozen + 6 * parameters,
        rates=(rates[0] * ADAPTER_SHARE, rates[1] * ADAPTER_SHARE),
        why_rates=f"{ADAPTER_SHARE:g} of a small model's rates, with AdamW; "
        "change with --learning-rate",
        adapter=config.adapter,
        lora_plus=config.lora_plus,
    )
    return PreparedModel(
        model,
        tokenizer,
        context,
        trained,
        lambda folder, tokenizer, card: save_adapted(
            folder, model, tokenizer, card=card, base=name_of(config.model), sampling=sampling
        ),
        f"An adapter of rank {config.lora_rank} was trained on the frozen weights"
        f"{', kept in 4 bits (NF4)' if config.adapter == 'qlora' else ''}; {NEEDS_BASE}",
    )
