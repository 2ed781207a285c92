"""Position: five ways to tell attention the order of tokens.

Attention compares a query with keys by inner products, which ignore order: without help, "dog bites
man" and "man bites dog" are the same. RoPE (Su et al. 2021, RoFormer, section 3.2) encodes order by
rotation. The features of a head form pairs, each pair is a point in the plane, and at position p
pair i is rotated by the angle

    p * theta^(-2i/d),        i = 0 … d/2 - 1

With theta 10,000 and heads of 64, the first pair completes a turn in six tokens and the last one in
some fifty thousand, like the hands of a clock, from seconds to days. If two vectors are rotated by
a and b, their inner product depends on a - b alone, so a score depends on the *distance* of two
tokens and not on their positions.

The other four:

    learned       x_p + e_p: a vector for each position, learned like the token embeddings (GPT-2);
                  the model cannot read beyond the last position with a vector
    sinusoidal    the same with sines and cosines of p instead of e_p, with the wavelengths above
                  (Vaswani et al. 2017, section 3.5)
    ALiBi         adds nothing to x; a score is lowered in proportion to the distance, with a slope
                  per head (Press et al. 2022, section 3)
    none          adds nothing at all: because a query sees only earlier tokens, the model can still
                  learn order by counting (Haviv et al. 2022; Kazemnejad et al. 2023, NoPE)

There are two conventions for pairs: i and i + d/2 (`halves`, Hugging Face's and ours) or 2i and
2i + 1 (`interleaved`, the paper's and llama.cpp's). Permuting the rows of the query and key
matrices converts weights from one to the other.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.deprecated import current_value
from groundup.lm.config import Rope

Pairing = Literal["halves", "interleaved"]
Rotation = tuple[Float[Tensor, "... time head_dim"], Float[Tensor, "... time head_dim"]]


def rotate(
    x: Float[Tensor, "rows heads time head_dim"], cos_sin: Rotation
) -> Float[Tensor, "rows heads time head_dim"]:
    """Rotate every pair of features, i with i + d/2: (a, b) → (a, b) cos + (-b, a) sin."""
    cos, sin = cos_sin
    return _rotated(x, cos[:, None], sin[:, None], "halves")


def _rotated(
    x: Float[Tensor, "... time head_dim"],
    cos: Float[Tensor, "... time head_dim"],
    sin: Float[Tensor, "... time head_dim"],
    pairing: Pairing,
) -> Float[Tensor, "... time head_dim"]:
    if pairing == "interleaved":
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
    """Apply RoPE to queries or keys with any number of leading dimensions.

    `position_ids` broadcast to x's dimensions without the last; with one dimension fewer they are
    the same for all heads, the dimension before time. `rope` (default: theta 10,000) may stretch
    the frequencies. `pairing` is `halves` (i with i + d/2: Hugging Face, GPT-NeoX) or
    `interleaved` (2i with 2i + 1: the paper, GPT-J, Meta's Llama, llama.cpp).
    Source: Su et al. 2021, section 3.2. Raises ValueError for an odd `head_dim`.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"head_dim={x.shape[-1]} is odd, but RoPE rotates pairs of features")
    pairing = cast(Pairing, current_value("pairing", pairing, neighbours="interleaved"))
    if pairing not in get_args(Pairing):
        raise ValueError(f"pairing={pairing!r} must be one of {', '.join(get_args(Pairing))}")
    rope = Rope() if rope is None else rope
    if 1 < position_ids.ndim == x.ndim - 2:
        position_ids = position_ids.unsqueeze(-2)
    frequencies = inverse_frequencies(rope, x.shape[-1], x.device)
    cos, sin = rotation(frequencies, position_ids, x.dtype, rope.attention_factor)
    return _rotated(x, cos, sin, pairing)


def _interleaved(both: Float[Tensor, "... head_dim"]) -> Float[Tensor, "... head_dim"]:
    """Repeat each of the d/2 values twice in a row; the input holds them once per half."""
    return both.chunk(2, dim=-1)[0].repeat_interleave(2, dim=-1)


def rotation(
    frequencies: Float[Tensor, " half"],
    position_ids: Int[Tensor, "... time"],
    dtype: torch.dtype,
    scale: float = 1.0,
) -> Rotation:
    """Cosine and sine of every pair's angle at every position, times `scale` (YaRN's).

    Both halves of the last dimension hold the d/2 values. Computed in float32, because angles grow
    large and bf16 would lose their fractions.
    """
    angles = position_ids[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


@functools.cache
def inverse_frequencies(rope: Rope, head_dim: int, device: torch.device) -> Float[Tensor, " half"]:
    """Radians per position of each pair of features, after stretching.

    Cached here in float32 instead of in a buffer of the model, which a cast to bf16 would ruin.
    """
    return _frequencies(rope, head_dim).to(device)


def _frequencies(rope: Rope, head_dim: int) -> Float[Tensor, " half"]:
    exponents = torch.arange(0, head_dim, 2, device="cpu").float() / head_dim
    frequencies = 1.0 / rope.theta**exponents
    if rope.type == "default":
        return frequencies
    # Slowing the rotation extends the context: `factor` times the distance then looks like a
    # distance seen in training. Slowing all pairs blurs neighbors, so the better methods slow the
    # slow pairs, whose full turn was never seen, and keep the fast ones.
    keep = {"linear": _keep_none, "llama3": _keep_by_turns, "yarn": _keep_by_pair}[rope.type]
    kept = keep(rope, frequencies)
    return kept * frequencies + (1 - kept) * frequencies / rope.factor


Kept = Float[Tensor, " half"]
"""For each pair 1 to keep its frequency, 0 to divide it by the factor, or a value between."""


def _keep_none(rope: Rope, frequencies: Float[Tensor, " half"]) -> Kept:
    """Position interpolation (Chen et al. 2023): divides all frequencies."""
    return torch.zeros_like(frequencies)


def _keep_by_turns(rope: Rope, frequencies: Float[Tensor, " half"]) -> Kept:
    """Llama 3: by the number of turns of a pair within the original context."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position_embeddings / wavelengths
    # Equal bounds mean a step, which a division by almost zero gives.
    width = max(rope.high_freq_factor - rope.low_freq_factor, 1e-9)
    return ((turns - rope.low_freq_factor) / width).clamp(0.0, 1.0)


def _keep_by_pair(rope: Rope, frequencies: Float[Tensor, " half"]) -> Kept:
    """YaRN (Peng et al. 2023, section 3.2): linear between the pairs that turn `beta_fast` and
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


# Sinusoidal: added to the embeddings.


def sinusoidal_embedding(
    position_ids: Int[Tensor, "*tokens"], width: int, dtype: torch.dtype
) -> Float[Tensor, "*tokens width"]:
    """PE(p, 2i) = sin(p / 10000^(2i/width)), PE(p, 2i + 1) = the cosine of the same.

    Source: Vaswani et al. 2017, section 3.5. Defined for any position, also beyond training's.
    """
    frequencies = inverse_frequencies(Rope(), width, position_ids.device)
    angles = position_ids[..., None].float() * frequencies
    pairs = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
    return pairs[..., :width].to(dtype)


# ALiBi: added to the scores.


def alibi_slopes(heads: int) -> Float[Tensor, " heads"]:
    """A slope for each head: 2^(-8/n), 2^(-16/n) … 2^(-8) of n heads.

    If the number of heads is no power of 2, the first heads take the slopes of the next smaller
    power, and the rest every other slope of the next larger one (the paper's own code).
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * power, 2)]
    return torch.tensor([*slopes, *between][:heads])


def alibi_bias(
    bias: Float[Tensor, "rows time keys"],
    query_positions: Int[Tensor, "rows time"],
    key_positions: Int[Tensor, "rows keys"],
    heads: int,
) -> Float[Tensor, "rows heads time keys"]:
    """The mask's bias, lowered by slope * (position of the query - position of the key)."""
    distance = (query_positions[:, :, None] - key_positions[:, None, :])[:, None].float()
    slopes = alibi_slopes(heads).to(bias.device)[:, None, None]
    return bias[:, None] - (slopes * distance).to(bias.dtype)
