"""Forward and backward against the equation in float64, over shapes, documents and windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.kernels.conftest import error, leaves, normal, number, within

from groundup.kernels.attention import attention, first_seen
from groundup.kernels.library import Kernels
from groundup.lm.attention import document_mask, scaled_dot_product_attention

# For bfloat16 inputs and outputs; probabilities and their gradients are rounded to it as well.
FORWARD, BACKWARD = 0.004, 0.006


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (4, 1)]),
    time=st.integers(1, 150),
    size=st.sampled_from([32, 64, 96, 128]),
    window=st.none() | st.integers(1, 70),
    documents=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@example(rows=1, heads=(2, 1), time=256, size=64, window=None, documents=1, seed=0)
@example(rows=2, heads=(2, 2), time=256, size=64, window=33, documents=40, seed=0)
def test_it_equals_the_equation(
    kernels: Kernels,
    rows: int,
    heads: tuple[int, int],
    time: int,
    size: int,
    window: int | None,
    documents: int,
    seed: int,
) -> None:
    several, few = heads
    shapes = ((several, seed), (few, seed + 1), (few, seed + 2), (several, seed + 3))
    *inputs, upstream = (normal(s, rows, time, h, size).transpose(1, 2) for h, s in shapes)
    generator = torch.manual_seed(seed)
    segments = torch.randint(documents, (rows, time), generator=generator).sort(1).values
    mask = document_mask(segments, window)

    own = leaves(*inputs, dtype=number())
    out = attention(own[0], own[1], own[2], first_seen(segments, window))
    found = torch.autograd.grad(out, own, upstream)
    true = leaves(*inputs, dtype=torch.float64)
    expected = scaled_dot_product_attention(true[0], true[1], true[2], mask[:, None])
    # Backward takes D = dO O of the output as it was rounded, which moves every dS = P (dP - D): as
    # the gradient of a sum of logarithms of sums of e^S does.
    moved = ((out.double() - expected).detach() * upstream.double()).sum(-1)
    keys = true[1].repeat_interleave(several // few, 1).transpose(-1, -2)
    scores = (true[0] @ keys / size**0.5).masked_fill(~mask[:, None], -torch.inf)
    total = (expected * upstream.double()).sum() - (moved * scores.logsumexp(-1)).sum()
    gradients = torch.autograd.grad(total, true)

    assert error(out, expected) < within(FORWARD)
    largest = max(float(gradient.norm()) for gradient in gradients)
    for mine, theirs in zip(found, gradients, strict=True):
        # Where every query sees one key, the gradients of queries and keys are zero.
        assert float((mine.double() - theirs).norm()) < within(BACKWARD) * max(
            float(theirs.norm()), largest / 10
        )


def test_the_first_key_of_each_query() -> None:
    segments = torch.tensor([[4, 4, 4, 7, 7, -1, -1]])
    assert first_seen(segments).tolist() == [[0, 0, 0, 3, 3, 5, 5]]
    assert first_seen(segments, 2).tolist() == [[0, 0, 1, 3, 3, 5, 5]]


def test_nan_stays_nan(kernels: Kernels) -> None:
    query, key, value = (normal(s, 1, 2, 40, 32) for s in range(3))
    query[0, 1, 35, 3] = torch.nan
    out = attention(query, key, value, first_seen(torch.zeros(1, 40, dtype=torch.int64)))
    assert bool(out[0, 1, 35].isnan().all()) and int(out.isnan().sum()) == 32


@pytest.mark.parametrize("which", [0, 1, 2])
def test_tensors_of_several_dtypes_are_rejected(kernels: Kernels, which: int) -> None:
    """The kernel would read memory as another dtype, and beyond its end."""
    other = torch.float32 if number() == torch.bfloat16 else torch.bfloat16
    tensors = [normal(seed, 1, 2, 5, 32) for seed in range(3)]
    tensors[which] = tensors[which].to(other)
    first = first_seen(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"torch\.bfloat16.*convert the model's parts"):
        attention(*tensors, first)
