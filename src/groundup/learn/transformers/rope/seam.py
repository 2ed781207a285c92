"""Puts the learner's embeddings and rotary positions into the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from groundup.learn.plain import all_replaced, plain_path
from groundup.learn.small import losses, replies
from groundup.lm import model
from groundup.lm.config import Rope
from groundup.lm.positions import Rotation
from groundup.lm.positions import inverse_frequencies as product_frequencies
from groundup.xray import trace

USED_BY = "every transformer with rotary positions: its embeddings, and its queries and keys"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """Scaled frequencies and position vectors stay the product's."""
    product_embed = model.Decoder.embed

    def inverse_frequencies(rope: Rope, head_dim: int, device: torch.device) -> Tensor:
        if rope.type != "default":
            return product_frequencies(rope, head_dim, device)
        found: Tensor = part.frequencies(head_dim, rope.theta)
        return found.to(device)

    def rotation(
        frequencies: Tensor, position_ids: Tensor, dtype: torch.dtype, scale: float = 1.0
    ) -> Rotation:
        cos, sin = part.angles(position_ids, frequencies)
        return (cos * scale).to(dtype), (sin * scale).to(dtype)

    def rotate(x: Tensor, cos_sin: Rotation) -> Tensor:
        cos, sin = cos_sin
        turned: Tensor = part.rotate(x, cos[:, None], sin[:, None])
        return turned

    def embed(decoder: model.Decoder, ids: Tensor, position_ids: Tensor) -> Tensor:
        if decoder.config.position in ("learned", "sinusoidal"):
            return product_embed(decoder, ids, position_ids)
        rows: Tensor = part.embed(ids, decoder.embed_tokens.weight)
        return rows

    with (
        plain_path(),
        all_replaced(
            (model, "inverse_frequencies", inverse_frequencies),
            (model, "rotation", rotation),
            (model, "rotate", rotate),
            (trace, "rotate", rotate),
            (model.Decoder, "embed", embed),
        ),
    ):
        yield


def try_it() -> list[float]:
    """Replies of a small model, and its loss and gradients."""
    return [*replies(), *losses()]
