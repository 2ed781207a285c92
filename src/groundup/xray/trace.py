"""The inside of one forward pass: residual stream, attention patterns, and what each head adds.

A transformer only adds. The *residual stream* of a token starts as its embedding, and every head
and every MLP adds a vector to it (Elhage et al. 2021, A Mathematical Framework for Transformer
Circuits):

    x_0 = embed(token)
    x_{l+1} = x_l + sum_h head_{l,h} + mlp_l         once per layer
    logits = head(norm(x_L))

With norms after, the stream is normalized after each addition.

Everything is recorded by PyTorch hooks, which exist only while a text is traced: they cost nothing
otherwise. Attention patterns are recomputed from queries and keys, since no implementation of
`attention` keeps them.

A head is ablated by setting its output, the input of the output projection, to zero.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.kernels.library import plain
from groundup.lm.attention import Bias
from groundup.lm.config import ModelConfig
from groundup.lm.model import Block, CausalLM, in_eval_mode, uncompiled
from groundup.lm.positions import rotate

# A layer and a head in it, both counted from 0.
Head = tuple[int, int]


@dataclass
class Trace:
    """What the hooks recorded of one forward pass, with a list entry for each layer.

    `residual` has one more entry: the stream before each layer and after the last. `mixed` is the
    concatenated output of the heads, before the matrix that writes it into the stream.
    """

    residual: list[Float[Tensor, "rows time width"]] = field(default_factory=list)
    attention: list[Float[Tensor, "rows heads time time"]] = field(default_factory=list)
    mixed: list[Float[Tensor, "rows time features"]] = field(default_factory=list)
    attended: list[Float[Tensor, "rows time width"]] = field(default_factory=list)
    fed_forward: list[Float[Tensor, "rows time width"]] = field(default_factory=list)


_inspecting = threading.RLock()


@contextmanager
def traced(model: CausalLM, without: Collection[Head] = ()) -> Iterator[Trace]:
    """Fill a `Trace` from the one forward pass inside the block; the heads `without` are ablated.

    Raises `UserError` for a head that the model does not have.
    """
    require_transformer(model.config)
    check_heads(model.config, without)
    trace, handles = Trace(), list[Any]()
    with evaluating(model), uncompiled(model), plain():
        try:
            for layer, block in enumerate(model.blocks):
                ablated = [head for at, head in without if at == layer]
                handles += _hooks(block, trace, ablated)
            before_norm = model.model.norm.register_forward_pre_hook(_input_into(trace.residual))
            handles.append(before_norm)
            yield trace
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def evaluating(model: CausalLM) -> Iterator[None]:
    """Disable dropout, and gradient checkpointing, whose backward pass would run hooks again.

    The modes and the hooks are the model's, so one thread at a time inspects; others wait.
    """
    with _inspecting:
        checkpointed = model.model.gradient_checkpointing
        model.set_gradient_checkpointing(False)
        try:
            with in_eval_mode(model):
                yield
        finally:
            model.set_gradient_checkpointing(checkpointed)


def _hooks(block: Block, trace: Trace, ablated: list[int]) -> list[Any]:
    attention, head_dim = block.self_attn, block.self_attn.head_dim
    queries, keys = list[Tensor](), list[Tensor]()

    def ablate(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        mixed = args[0]
        if ablated:
            mixed = mixed.clone()
            for head in ablated:
                mixed[..., head * head_dim : (head + 1) * head_dim] = 0
        trace.mixed.append(mixed)
        return (mixed,)

    def keep_pattern(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        _, bias, cos_sin, _ = args
        query, key = queries.pop(), keys.pop()
        if cos_sin is not None:
            query, key = rotate(query, cos_sin), rotate(key, cos_sin)
        trace.attention.append(_pattern(query, key, bias))
        trace.attended.append(output)

    return [
        block.register_forward_pre_hook(_input_into(trace.residual)),
        attention.q_norm.register_forward_hook(_output_into(queries)),
        attention.k_norm.register_forward_hook(_output_into(keys)),
        attention.o_proj.register_forward_pre_hook(ablate),
        attention.register_forward_hook(keep_pattern),
        block.mlp.register_forward_hook(_output_into(trace.fed_forward)),
    ]


@torch.no_grad()
def _pattern(
    query: Float[Tensor, "rows heads time head_dim"],
    key: Float[Tensor, "rows kv_heads time head_dim"],
    bias: Bias,
) -> Float[Tensor, "rows heads time time"]:
    """softmax(Q K^T / sqrt(d) + mask), in float32 whatever the model computes in."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores + (bias[:, None] if bias.ndim == 3 else bias)).softmax(-1)


def _input_into(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    return lambda module, args: kept.append(args[0])


def _output_into(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    return lambda module, args, output: kept.append(output)


def require_transformer(config: ModelConfig) -> None:
    """Raise `UserError` for a model without attention."""
    if config.family.recurrent:
        raise UserError(
            f"the model is of the type {config.model_type}, but an X-ray shows the heads and the "
            "residual stream of transformers; give a transformer"
        )


def check_heads(config: ModelConfig, heads: Collection[Head]) -> None:
    """Raise `UserError` for a head that a model of this shape does not have."""
    layers, each = config.num_hidden_layers, config.num_attention_heads
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < each):
            raise UserError(
                f"without={layer}.{head} names no head of this model; LAYER.HEAD goes from 0.0 "
                f"to {layers - 1}.{each - 1}"
            )
