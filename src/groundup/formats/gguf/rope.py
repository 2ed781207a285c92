"""How a GGUF file says that RoPE's frequencies are stretched, read and written.

Entries `rope.scaling.*` tell of linear and YaRN stretching. Llama 3's is a tensor, `rope_freqs`:
what each frequency is divided by, with no word of how that was computed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from groundup.errors import UserError
from groundup.formats.gguf.settings import Settings
from groundup.lm.positions import inverse_frequencies
from groundup.lm.reader import MOST
from groundup.lm.rope import Rope, yarn_scale

FREQUENCY_FACTORS = "rope_freqs.weight"
Factors = npt.NDArray[np.float32]

# Of Llama 3.1, 3.2 and 3.3; the factor itself is the largest that the tensor holds.
_LLAMA3 = Rope(
    type="llama3", low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=8192
)


def read_rope(read: Settings, head_dim: int, context: int) -> Rope:
    """RoPE's settings, from entries and from the tensor that Llama 3 files have."""
    file = read.file
    if read.whole("rope.dimension_count", "head_dim", default=head_dim) != head_dim:
        read.refuse("rope.dimension_count", f"the whole head, {head_dim}")
    # At 1 all pairs would turn alike, and YaRN divides by its logarithm.
    theta = file.real(read.name("rope.freq_base"), 1.001, 1e12, 10_000.0)
    plain = Rope(theta=theta)
    if FREQUENCY_FACTORS in file.tensors:
        return _llama3(read, plain, head_dim)
    # Without a type llama.cpp divides positions by the factor, if there is one.
    kind = file.text(read.name("rope.scaling.type"), "linear")
    factor = file.real(read.name("rope.scaling.factor"), 0.0, 1e6, 1.0) or 1.0
    if not read.has("rope.scaling.factor") and read.has("rope.scale_linear"):  # before 2024
        factor = file.real(read.name("rope.scale_linear"), 1e-6, 1e6)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return plain
    if kind == "linear":
        return replace(plain, type="linear", factor=factor)
    if kind != "yarn":
        read.refuse("rope.scaling.type", "none, linear or yarn")
    original = read.name("rope.scaling.original_context_length")
    scale = yarn_scale(factor)
    more = file.real(read.name("rope.scaling.attn_factor"), 1e-6, 1e6, 1.0)
    if more != 1.0:
        # A quotient in float32 when it was written: back to the decimal that it came from.
        scale = float(str(np.float32(scale * more)))
    return replace(
        plain,
        type="yarn",
        factor=factor,
        original_max_position_embeddings=file.whole(original, default=context),
        beta_fast=file.real(read.name("rope.scaling.yarn_beta_fast"), 1e-6, 1e6, 32.0),
        beta_slow=file.real(read.name("rope.scaling.yarn_beta_slow"), 1e-6, 1e6, 1.0),
        attention_factor=scale,
    )


def frequency_factors(rope: Rope, head_dim: int) -> Factors:
    """What Llama 3's stretching divides each frequency by: `rope_freqs.weight`."""
    cpu = torch.device("cpu")
    plain = inverse_frequencies(Rope(theta=rope.theta), head_dim, cpu)
    factors: Factors = (plain / inverse_frequencies(rope, head_dim, cpu)).numpy()
    return factors


def _llama3(read: Settings, plain: Rope, head_dim: int) -> Rope:
    """Find the settings from which the factors in the file were computed, and check them."""
    file = read.file
    tensor = file.tensors[FREQUENCY_FACTORS]
    if tensor.shape != (head_dim // 2,) or tensor.type.name != "F32":
        raise UserError(
            f"{file.path}: tensor {FREQUENCY_FACTORS} must be {head_dim // 2} numbers in F32; "
            "convert or download the model again"
        )
    factors = np.array(file.stored_bytes(tensor).view(np.float32))
    if np.array_equal(factors, np.ones_like(factors)):
        return plain
    if np.isfinite(factors).all() and 1.0 <= factors.min() <= factors.max() <= 1e6:
        for settings in (_written(read), _LLAMA3, _fitted(plain, head_dim, factors)):
            if settings is None:
                continue
            rope = replace(settings, theta=plain.theta, factor=float(factors.max()))
            if np.allclose(frequency_factors(rope, head_dim), factors, rtol=1e-4):
                return rope
    raise UserError(
        f"{file.path} stretches RoPE by the tensor {FREQUENCY_FACTORS} in a way that is not "
        "Llama 3's and not supported; use another model"
    )


def _written(read: Settings) -> Rope | None:
    """The settings as `rope_entries` leaves them, for such as no fit could find again."""
    names = [
        read.name(f"rope.scaling.{name}")
        for name in ("low_freq_factor", "high_freq_factor", "original_context_length")
    ]
    if not all(name in read.file.metadata for name in names):
        return None
    low, high = (read.file.real(name, 1e-6, 1e6) for name in names[:2])
    if not low < high:
        read.refuse("rope.scaling.low_freq_factor", f"less than high_freq_factor, {high:g}")
    original = read.file.whole(names[2])
    return replace(
        _LLAMA3,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=original,
    )


def _fitted(plain: Rope, head_dim: int, factors: Factors) -> Rope | None:
    """The settings of the straight line on which the factors between the bounds lie.

    With t = frequency / 2 pi, the share kept is (original * t - low) / (high - low) between 0
    and 1. Of the three only two can be told from a line; `low` is 1 in every Llama.
    """
    kept = (1 / factors - 1 / factors.max()) / (1 - 1 / factors.max())
    between = (kept > 1e-3) & (kept < 1 - 1e-3)
    turns = inverse_frequencies(plain, head_dim, torch.device("cpu")).numpy() / (2 * math.pi)
    x, y = turns[between].astype(np.float64), kept[between].astype(np.float64)
    if len(x) < 2 or not x.var() > 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())  # least squares
    below = float(y.mean()) - slope * float(x.mean())
    if not (below < 0 < slope):
        return None
    width = -1 / below
    original = round(slope * width)
    if not 1 <= original <= MOST["max_position_embeddings"]:
        return None
    return replace(_LLAMA3, high_freq_factor=1 + width, original_max_position_embeddings=original)


def rope_entries(rope: Rope) -> dict[str, Any]:
    """The entries `rope.scaling.*` that say how frequencies are stretched."""
    if rope.type == "linear":
        return {"type": "linear", "factor": rope.factor}
    if rope.type == "yarn":
        return {
            "type": "yarn",
            "factor": rope.factor,
            "original_context_length": rope.original_max_position_embeddings,
            "yarn_beta_fast": rope.beta_fast,
            "yarn_beta_slow": rope.beta_slow,
            # llama.cpp multiplies by the paper's scale itself; this is what is left.
            "attn_factor": rope.attention_factor / yarn_scale(rope.factor),
        }
    if rope.type == "llama3":
        # llama.cpp goes by the tensor `rope_freqs.weight`; these are for us, who read them again.
        return {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_context_length": rope.original_max_position_embeddings,
        }
    return {}
