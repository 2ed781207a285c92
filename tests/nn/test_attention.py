"""Attention against torch's, and its masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from groundup import nn
from groundup.maths import ShapeError, Tensor
from groundup.nn.attention import attention
from torch_oracle import agree as formulas_agree
from torch_oracle import same

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_attention_equals_torchs(causal: bool, lead: tuple[int, ...]) -> None:
    q, k, v = normal(*lead, 5, 4), normal(*lead, 5, 4), normal(*lead, 5, 3)
    ours = attention(Tensor(q), Tensor(k), Tensor(v), causal)
    theirs = scaled_dot_product_attention(
        torch.tensor(q), torch.tensor(k), torch.tensor(v), is_causal=causal
    )
    same(ours, theirs, "attention")


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_one_formula_for_both_engines(causal: bool) -> None:
    arrays = [normal(2, 4, 3), normal(2, 6, 3), normal(2, 6, 5)]
    formulas_agree(lambda _, q, k, v: attention(q, k, v, causal), arrays)


def test_fewer_queries_are_the_last_positions() -> None:
    q, k, v = (Tensor(normal(6, 4)) for _ in range(3))
    whole = attention(q, k, v)
    np.testing.assert_allclose(attention(q[4:], k, v).data, whole.data[4:], rtol=1e-12)


def test_self_attention_equals_torchs_multihead_attention() -> None:
    ours = nn.CausalSelfAttention(8, 2, dtype=np.float64)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([state[f"{n}_proj.weight"] for n in "qkv"]),
            "in_proj_bias": torch.cat([state[f"{n}_proj.bias"] for n in "qkv"]),
            "out_proj.weight": state["o_proj.weight"],
            "out_proj.bias": state["o_proj.bias"],
        }
    )
    array = normal(3, 5, 8)
    x, y = Tensor(array), torch.tensor(array, requires_grad=True)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    found, (truth, _) = ours(x), theirs(y, y, y, attn_mask=future)
    same(found, truth, "output")
    way = normal(3, 5, 8)
    (found * way).sum().backward()
    (truth * torch.tensor(way)).sum().backward()
    same(x.grad, y.grad, "gradient of the input")
    slopes = [getattr(ours, f"{n}_proj").weight.grad.data for n in "qkv"]
    same(np.concatenate(slopes), theirs.in_proj_weight.grad, "gradient of the projections")
    same(ours.o_proj.weight.grad, theirs.out_proj.weight.grad, "gradient of the last projection")


def test_no_position_attends_to_the_future() -> None:
    layer = nn.CausalSelfAttention(8, 4)
    x = Tensor(normal(1, 6, 8).astype(np.float32))
    layer(x)[:, 2].sum().backward()
    assert x.grad is not None
    moved = np.abs(x.grad.data[0]).max(axis=1)
    assert (moved[:3] > 0).all() and (moved[3:] == 0).all()


def test_heads_that_do_not_divide_the_width_are_named() -> None:
    with pytest.raises(ValueError, match=r"heads=3 does not divide width=8; try one of 1, 2, 4, 8"):
        nn.CausalSelfAttention(8, 3)


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 8), (1, 2, 3, 4)])
def test_a_sequence_has_three_dimensions(shape: tuple[int, ...], unchecked_types: None) -> None:
    with pytest.raises(ShapeError, match=r"does not fit \(n, time, 4\)"):
        nn.CausalSelfAttention(4, 2)(Tensor(normal(*shape)))


def test_a_boolean_mask_selects_visible_positions() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 3, 4)) for _ in range(3))
    mask = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
    truth = scaled_dot_product_attention(
        *map(torch.tensor, (q, k, v)), attn_mask=torch.tensor(mask)
    )
    for on, seen in ((Tensor, Tensor(mask)), (torch.tensor, torch.tensor(mask))):
        np.testing.assert_allclose(attention(on(q), on(k), on(v), mask=seen).detach(), truth)


def test_empty_batches_are_accepted() -> None:
    block = nn.CausalSelfAttention(8, 2)
    assert block(Tensor(np.zeros((0, 5, 8), np.float32))).shape == (0, 5, 8)
