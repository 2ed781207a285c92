"""The commonest mistakes with embeddings and rotary positions."""

import torch
from torch import Tensor

REPLACES = {
    "scaled": "embed",
    "half_exponent": "frequencies",
    "one_pair_fewer": "frequencies",
    "not_inverse": "frequencies",
    "own_theta": "frequencies",
    "side_by_side": "angles",
    "one_half": "angles",
    "positions_rounded": "angles",
    "neighbours": "rotate",
    "neighbors_on_our_tables": "rotate",
    "backwards": "rotate",
    "sign_forgotten": "rotate",
    "cosines_and_sines_exchanged": "angles",
    "halves_not_exchanged": "rotate",
    "tables_exchanged": "rotate",
    "counted_from_one": "angles",
    "counted_beyond": "frequencies",
    "one_for_each_feature": "frequencies",
    "first_half_overwritten": "rotate",
}


def scaled(ids: Tensor, table: Tensor) -> Tensor:
    """The rows are multiplied by sqrt(width), as in the first Transformer. Here a token's row is
    used unchanged."""
    rows: Tensor = table[ids] * table.shape[1] ** 0.5
    return rows


def half_exponent(head_dim: int, theta: float) -> Tensor:
    """The exponent is -2i/d, not -i/d: the frequencies fall too slowly, so the last pair still
    rotates fast. Count 0, 2, 4, … or divide i by d/2."""
    return 1.0 / theta ** (torch.arange(head_dim // 2).float() / head_dim)


def one_pair_fewer(head_dim: int, theta: float) -> Tensor:
    """The exponent is divided by d - 2, so the last frequency is 1 / theta. Divide by d: -2i/d goes
    from 0 to just above -1."""
    return 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / (head_dim - 2))


def not_inverse(head_dim: int, theta: float) -> Tensor:
    """The minus in the exponent is missing: frequencies must fall from 1, and these rise."""
    grown: Tensor = theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return grown


def own_theta(head_dim: int, theta: float) -> Tensor:
    """10000 is fixed in the function. Use the given theta: models have other values."""
    return 1.0 / 10_000.0 ** (torch.arange(0, head_dim, 2).float() / head_dim)


def side_by_side(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Each value is repeated immediately (f0 f0 f1 f1 …), which fits pairs of neighbors. Here the
    whole row of d/2 values comes twice (f0 f1 … f0 f1 …)."""
    whole = (positions[..., None].float() * frequencies).repeat_interleave(2, dim=-1)
    return whole.cos(), whole.sin()


def one_half(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """The tables are d/2 wide. Append the same values once more, for the second halves of the
    pairs."""
    half = positions[..., None].float() * frequencies
    return half.cos(), half.sin()


def positions_rounded(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """The positions became bfloat16, which has eight significant bits: 1001 becomes 1000. Compute
    angles in float32."""
    half = positions[..., None].bfloat16().float() * frequencies
    whole = torch.cat((half, half), dim=-1)
    return whole.cos(), whole.sin()


def neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Features 2i and 2i + 1 are treated as a pair. That is the paper's convention; here feature i
    and feature i + d/2 are a pair."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = (table[..., : x.shape[-1] // 2] for table in (cos, sin))
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


def neighbors_on_our_tables(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Features 2i and 2i + 1 are treated as a pair, but the tables hold the angles for pairs of
    feature i and feature i + d/2. Use these: a, b = x.chunk(2, dim=-1)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return x * cos + torch.stack((-b, a), dim=-1).flatten(-2) * sin


def backwards(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The pairs are rotated in the opposite direction: the minus belongs to the first half, a cos -
    b sin, and the second is b cos + a sin."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((b, -a), dim=-1) * sin


def sign_forgotten(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The minus is missing: a' = a cos - b sin. Without it a vector's length changes, which a
    rotation never does."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((b, a), dim=-1) * sin


def cosines_and_sines_exchanged(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines are exchanged: the cosines come first."""
    half = positions[..., None].float() * frequencies
    whole = torch.cat((half, half), dim=-1)
    return whole.sin(), whole.cos()


def halves_not_exchanged(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each half was multiplied by its own sine. A rotation mixes the two: a cos - b sin, and b cos
    + a sin."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-a, b), dim=-1) * sin


def tables_exchanged(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Cosine and sine are exchanged: x itself is multiplied by cos, so that a rotation by 0 changes
    nothing."""
    a, b = x.chunk(2, dim=-1)
    return x * sin + torch.cat((-b, a), dim=-1) * cos


def counted_from_one(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """The positions were counted from 1. At position 0 nothing is rotated: cosine 1 and sine 0."""
    half = (positions[..., None].float() + 1) * frequencies
    whole = torch.cat((half, half), dim=-1)
    return whole.cos(), whole.sin()


def counted_beyond(head_dim: int, theta: float) -> Tensor:
    """The exponents were counted from i = 1. The first frequency is theta^0 = 1."""
    return 1.0 / theta ** (torch.arange(2, head_dim + 2, 2).float() / head_dim)


def one_for_each_feature(head_dim: int, theta: float) -> Tensor:
    """There are d frequencies. Two features share one: d/2 of them, from 0, 2, 4, … over d."""
    return 1.0 / theta ** (torch.arange(head_dim).float() / head_dim)


def first_half_overwritten(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The second half was computed from the first half's *new* values. Both need the old ones:
    compute both before you write either."""
    a, b = x.chunk(2, dim=-1)
    c, s = (table.chunk(2, dim=-1)[0] for table in (cos, sin))
    turned = a * c - b * s
    return torch.cat((turned, b * c + turned * s), dim=-1)
