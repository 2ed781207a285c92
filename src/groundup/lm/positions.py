"""Rotary position embedding: a query meets a key rotated by how far apart they stand.

Attention compares a query with keys by inner products, which know nothing of order: without help,
"dog bites man" and "man bites dog" are the same. RoPE (Su et al. 2021, RoFormer, section 3.2) tells
it apart by turning. The features of a head are taken as pairs, each pair is a point in the plane,
and at position p pair i is turned by the angle

    p * theta^(-2i/d),        i = 0 … d/2 - 1

so that, with theta 10,000 and heads of 64, the first pair goes round once in six tokens and the
last one once in some fifty thousand: the hands of a clock, from seconds to days. Turning two
vectors by a and b leaves an inner product that depends on a - b alone, so a score knows the
*distance* of two tokens and not where they stand. GPT-2 instead adds a learned vector for each
position to the token's own, and so cannot read beyond the last position that it learned.

Which features form a pair is a matter of convention: i and i + d/2 (`halves`, Hugging Face's and
ours) or 2i and 2i + 1 (`neighbours`, the paper's and llama.cpp's). Weights made for one are the
other's with the rows of the query and key matrices in another order.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.lm.config import Rope

Pairing = Literal["halves", "neighbours"]
Rotation = tuple[Float[Tensor, "... time head_dim"], Float[Tensor, "... time head_dim"]]


def rotate(
    x: Float[Tensor, "rows heads time head_dim"], cos_sin: Rotation, pairing: Pairing = "halves"
) -> Float[Tensor, "rows heads time head_dim"]:
    """Turn every pair of features: (a, b) → (a, b) cos + (-b, a) sin."""
    cos, sin = cos_sin
    return _rotated(x, cos[:, None], sin[:, None], pairing)


def _rotated(
    x: Float[Tensor, "... time head_dim"],
    cos: Float[Tensor, "... time head_dim"],
    sin: Float[Tensor, "... time head_dim"],
    pairing: Pairing,
) -> Float[Tensor, "... time head_dim"]:
    if pairing == "neighbours":
        cos, sin = (_interleaved(both) for both in (cos, sin))
        a, b = x[..., 0::2], x[..., 1::2]
        return x * cos + torch.stack((-b, a), dim=-1).flatten(-2) * sin
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def apply_rope(
    x: Float[Tensor, "... time head_dim"],
    position_ids: Int[Tensor, "... time"],
    rope: Rope | None = None,
    pairing: Pairing = "halves",
) -> Float[Tensor, "... time head_dim"]:
    """RoPE of queries or keys with any number of leading dimensions, by itself.

    `position_ids` broadcast to x's dimensions without the last; with one dimension fewer than that
    they are the same for all heads, which stand before time. `rope` (default: theta 10,000) may
    stretch the frequencies. `pairing` is `halves` (i with i + d/2: Hugging Face, GPT-NeoX) or
    `neighbours` (2i with 2i + 1, interleaved: the paper, GPT-J, Meta's Llama, llama.cpp).
    Source: Su et al. 2021, section 3.2. Raises ValueError for an odd `head_dim`.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"head_dim={x.shape[-1]} is odd, but RoPE turns pairs")
    if pairing not in get_args(Pairing):
        raise ValueError(f"pairing={pairing!r} is neither of {', '.join(get_args(Pairing))}")
    rope = Rope() if rope is None else rope
    if 1 < position_ids.ndim == x.ndim - 2:
        position_ids = position_ids.unsqueeze(-2)
    frequencies = inverse_frequencies(rope, x.shape[-1], x.device)
    cos, sin = rotation(frequencies, position_ids, x.dtype, rope.attention_factor)
    return _rotated(x, cos, sin, pairing)


def _interleaved(both: Float[Tensor, "... head_dim"]) -> Float[Tensor, "... head_dim"]:
    """Repeats each of the d/2 values twice in a row, where both halves hold them."""
    return both.chunk(2, dim=-1)[0].repeat_interleave(2, dim=-1)


def rotation(
    frequencies: Float[Tensor, " half"],
    position_ids: Int[Tensor, "... time"],
    dtype: torch.dtype,
    scale: float = 1.0,
) -> Rotation:
    """Cosine and sine of every pair's angle at every position, times `scale` (YaRN's).

    Both halves of the last dimension hold the d/2 values. Computed in float32, since angles grow
    large and bf16 would lose their fractions.
    """
    angles = position_ids[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


@functools.cache
def inverse_frequencies(rope: Rope, head_dim: int, device: torch.device) -> Float[Tensor, " half"]:
    """Radians per position of each pair of features, after stretching.

    Kept here in float32 and not as a buffer of the model, which a cast to bf16 would ruin.
    """
    return _frequencies(rope, head_dim).to(device)


def _frequencies(rope: Rope, head_dim: int) -> Float[Tensor, " half"]:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / rope.theta**exponents
    if rope.type == "default":
        return frequencies
    # A model is made to read further than it was trained by slowing the hands down: `factor` times
    # the distance then looks like a distance it has seen. Slowing all of them blurs neighbours, so
    # the better methods slow the slow ones, whose full circle was never seen, and keep the fast.
    keep = {"linear": _keep_none, "llama3": _keep_by_turns, "yarn": _keep_by_pair}[rope.type]
    kept = keep(rope, frequencies)
    return kept * frequencies + (1 - kept) * frequencies / rope.factor


Kept = Float[Tensor, " half"]
"""For each pair 1 to keep its frequency, 0 to divide it by the factor, or something between."""


def _keep_none(rope: Rope, frequencies: Float[Tensor, " half"]) -> Kept:
    """Position interpolation (Chen et al. 2023): all alike."""
    return torch.zeros_like(frequencies)


def _keep_by_turns(rope: Rope, frequencies: Float[Tensor, " half"]) -> Kept:
    """Llama 3: by how many turns a pair makes within the original context."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position_embeddings / wavelengths
    # Equal bounds mean a step, which dividing by almost nothing is.
    width = max(rope.high_freq_factor - rope.low_freq_factor, 1e-9)
    return ((turns - rope.low_freq_factor) / width).clamp(0.0, 1.0)


def _keep_by_pair(rope: Rope, frequencies: Float[Tensor, " half"]) -> Kept:
    """YaRN (Peng et al. 2023, section 3.2): by a line between the pairs that turn `beta_fast` and
    `beta_slow` times."""
    half = len(frequencies)

    def pair_that_turns(times: float) -> float:
        wavelength = rope.original_max_position_embeddings / times
        return half * math.log(wavelength / (2 * math.pi)) / math.log(rope.theta)

    first, last = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    if first == last:
        last += 0.001  # a step, but a finite one
    line = (torch.arange(half, dtype=torch.float32) - first) / (last - first)
    return 1 - line.clamp(0.0, 1.0)
