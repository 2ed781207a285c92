"""Rotary position embedding: a query meets a key rotated by how far apart they stand.

Each pair of features (i, i + d/2) is a point in the plane, turned by the angle
position * theta^(-2i/d). The inner product of a turned query and a turned key depends on the
difference of their positions alone (Su et al. 2021, RoFormer, section 3.2). The pairing of halves,
and not of neighbours, is Hugging Face's.
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.lm.config import Rope

Rotation = tuple[Float[Tensor, "rows time head_dim"], Float[Tensor, "rows time head_dim"]]


@functools.cache
def inverse_frequencies(rope: Rope, head_dim: int, device: torch.device) -> Float[Tensor, " half"]:
    """Radians per position of each pair of features, after stretching.

    Kept here in float32 and not as a buffer of the model, which a cast to bf16 would ruin.
    """
    return _frequencies(rope, head_dim).to(device)


def _frequencies(rope: Rope, head_dim: int) -> Float[Tensor, " half"]:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / rope.theta**exponents
    if rope.type == "linear":
        return frequencies / rope.factor
    if rope.type == "llama3":
        return _llama3_frequencies(rope, frequencies)
    return frequencies


def _llama3_frequencies(rope: Rope, frequencies: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position_embeddings / wavelengths
    # 0 where a pair turns too seldom in the original context (stretch it), 1 where often (keep it).
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = keep.clamp(0.0, 1.0)
    return (1 - keep) * frequencies / rope.factor + keep * frequencies


def rotation(
    frequencies: Float[Tensor, " half"], position_ids: Int[Tensor, "rows time"], dtype: torch.dtype
) -> Rotation:
    """Cosines and sines for every position; computed in float32, since angles grow large."""
    angles = position_ids[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x: Float[Tensor, "rows heads time head_dim"], turn: Rotation
) -> Float[Tensor, "rows heads time head_dim"]:
    cos, sin = turn[0][:, None], turn[1][:, None]
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
