"""Grades the block by `groundup.lm.model`."""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn

from groundup.learn.exercise import Trial, calls
from groundup.lm.attention import as_bias, document_mask
from groundup.lm.config import ModelConfig
from groundup.lm.model import MLP, Block, RMSNorm

_trial = partial(Trial, rtol=1e-4, atol=1e-5)


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for shape, eps in (((1, 2), 1e-6), ((2, 3, 4), 1e-6), ((2, 4), 0.5)):
        x, weight = 3 * drawn(*shape) + 1, drawn(shape[-1])
        yield _trial(
            f"rms_norm of shape {shape}, eps {eps:g}",
            calls("rms_norm", x, weight, eps),
            _norm(weight, eps)(x),
            {"x": x, "weight": weight, "eps": eps},
        )
    zero, one = torch.zeros(1, 3), torch.ones(3)
    yield _trial(
        "rms_norm of a vector of zeros",
        calls("rms_norm", zero, one, 1e-6),
        _norm(one, 1e-6)(zero),
        {"x": zero, "weight": one},
    )
    x = drawn(1, 2, 16)
    layers = _block(generator)
    mlp = layers.mlp
    assert isinstance(mlp, MLP) and mlp.gate_proj is not None
    bias = as_bias(document_mask(torch.zeros(1, 2, dtype=torch.int64)), torch.float32)
    with torch.no_grad():
        fed, through = mlp(x), layers(x, bias, None, None)
    yield _trial(
        "swiglu",
        lambda part: _without_gradients(part.swiglu, x, mlp.gate_proj, mlp.up_proj, mlp.down_proj),
        fed,
        {"x": x},
    )
    yield _trial(
        "block, with the layers of a model",
        lambda part: _without_gradients(
            part.block,
            x,
            layers.input_layernorm,
            lambda y: layers.self_attn(y, bias, None, None),
            layers.post_attention_layernorm,
            mlp,
        ),
        through,
        {"x": x},
    )
    yield _trial(
        "the gradient of block with respect to x",
        lambda part: _gradient(part, x, layers),
        _gradient(None, x, layers),
        {"x": x},
    )


def _without_gradients(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    with torch.no_grad():
        return function(*arguments)


def _norm(weight: Tensor, eps: float) -> RMSNorm:
    norm = RMSNorm(len(weight), eps)
    norm.weight = nn.Parameter(weight, requires_grad=False)
    return norm


def _block(generator: torch.Generator) -> Block:
    config = ModelConfig(
        model_type="qwen3", vocab_size=8, hidden_size=16, intermediate_size=24,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        max_position_embeddings=8,
    )  # fmt: skip
    block = Block(config, 0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(generator=generator)
            parameter.mul_(0.3)
    return block


def _gradient(part: ModuleType | None, x: Tensor, layers: Block) -> Tensor:
    leaf = x.clone().requires_grad_()
    bias = as_bias(document_mask(torch.zeros(1, 2, dtype=torch.int64)), torch.float32)
    if part is None:
        result = layers(leaf, bias, None, None)
    else:
        result = part.block(
            leaf,
            layers.input_layernorm,
            lambda y: layers.self_attn(y, bias, None, None),
            layers.post_attention_layernorm,
            layers.mlp,
        )
    return torch.autograd.grad(result.square().sum(), leaf)[0]
