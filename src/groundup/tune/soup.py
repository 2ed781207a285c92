"""Model soups: the weights of several fine-tuned models, averaged (Wortsman et al. 2022).

    theta = sum over i of w_i theta_i            the w_i sum to 1

Models that were fine-tuned from one parent lie in one basin of the loss, and a straight line
between them stays in it. A policy trained to be helpful and one trained to be harmless therefore
need not be trained together: between their weights lies a whole curve of policies, and one can be
chosen afterwards at no cost (rewarded soups, Ramé et al. 2023, equation 1). The weights of models
with different parents do not correspond, and their mean is noise.

An adapter is merged into its base first. For adapters on one base this equals the base with the
mean of their updates, since the w_i sum to 1:  sum w_i (W + s B_i A_i)  =  W + sum w_i s B_i A_i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from groundup.adapters.quantization import merge_and_dequantize
from groundup.errors import UserError
from groundup.formats.adapter import own_sampling
from groundup.formats.card import model_card
from groundup.formats.folder import save_model
from groundup.formats.load import open_model
from groundup.formats.locate import locate, name_of
from groundup.formats.weights import model_of
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.runs.request import read_run
from groundup.text.tokenizer import Tokenizer
from groundup.tune.config import SoupConfig

# Fields that may differ between models with corresponding weights: end tokens and context.
_APART = ("bos_token_id", "eos_token_ids", "pad_token_id", "max_position_embeddings")


# Averaging.


def averaged(
    tensors: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """The weighted mean of each tensor; summed in float32, in the given order.

    Models of weight 0 are not read: a soup with one weight of 1 is that model, bit for bit.
    """
    taken = [(one, weight) for one, weight in zip(tensors, weights, strict=True) if weight]
    found: dict[str, Tensor] = {}
    for name, first in tensors[0].items():
        if len(taken) == 1:
            found[name] = taken[0][0][name]
            continue
        total, *more = (weight * one[name].float() for one, weight in taken)
        for part in more:
            total = total + part
        found[name] = total.to(first.dtype)
    return found


def soup(sources: Sequence[Path | str], weights: Sequence[float]) -> tuple[CausalLM, Tokenizer]:
    """The model with the weighted mean of these models' weights, and the first one's tokenizer.

    Raises `UserError` for models with different shapes or tokenizers.
    """
    first, *others = models = [open_model(source) for source in sources]
    tokenizer = first.tokenizer
    name, *names = (name_of(Path(source)) for source in sources)
    for its_name, other in zip(names, others, strict=True):
        _require_alike(name, its_name, first.config, other.config)
        if not other.tokenizer.same_tokens(tokenizer):
            raise UserError(
                f"{its_name} reads other tokens than {name}, so their embeddings mean different "
                "things; average models that were fine-tuned from one parent"
            )
    taken = [(one, weight) for one, weight in zip(models, weights, strict=True) if weight]
    merged = [merge_and_dequantize(one.model(), torch.float32) for one, _ in taken]
    # If an adapter gave one of them its own head, the tied heads are averaged with it.
    tied = all(one.lm_head.weight is one.model.embed_tokens.weight for one in merged)
    tensors = [dict(one.named_parameters(remove_duplicate=tied)) for one in merged]
    with torch.no_grad():
        mean = averaged(tensors, [weight for _, weight in taken])
    return model_of(first.config, {name: t.detach() for name, t in mean.items()}), tokenizer


def _require_alike(first: str, second: str, one: ModelConfig, other: ModelConfig) -> None:
    for field in fields(ModelConfig):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if field.name not in _APART and here != there:
            raise UserError(
                f"{field.name} is {here} in {first} and {there} in {second}, and only weights of "
                "one shape can be averaged; give models that were fine-tuned from one parent"
            )


# The run.


def run(config: SoupConfig) -> Path:
    """Write the soup as a model folder and return it.

    Raises `UserError` for models that cannot be averaged, and for a folder with other files.
    """
    parents = {"model" if i == 0 else f"model-{i + 1}": one for i, one in enumerate(config.models)}
    traits = {"chats": all(map(_chats, config.models))}
    with Run.open(config.out, "soup", config, parents, traits) as run:
        if run.finished:
            return run.folder
        model, tokenizer = soup(config.models, config.shares)
        parts = [
            f"{weight:g} of {name_of(one)}"
            for one, weight in zip(config.models, config.shares, strict=True)
        ]
        card = model_card(
            "A soup of models, made by groundup",
            how=f"Its weights are a mean: {', '.join(parts)}. Nothing was trained.",
            facts={"parameters": f"{model.config.parameters:,}"},
            data=(),
            parents=config.models,
        )
        save_model(
            run.folder,
            model,
            tokenizer,
            card=card,
            dtype=next(model.parameters()).dtype,
            sampling=own_sampling(locate(config.models[0])),
        )
        run.finish()
        say(f"soup: {', '.join(parts)}")
        return run.folder


def _chats(model: Path) -> bool:
    """Whether a model was trained to answer; unknown ones count if they have a chat template."""
    try:
        said = read_run(model)["traits"].get("chats")
    except UserError:
        said = None
    return open_model(model).tokenizer.chat_template is not None if said is None else bool(said)
