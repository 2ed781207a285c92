"""Puts the learner's attention into the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from groundup.learn.plain import all_replaced, plain_path
from groundup.learn.small import losses, replies
from groundup.lm import model
from groundup.lm.attention import attention as product_attention
from groundup.lm.attention import document_mask as product_mask

USED_BY = "the attention of every layer of every transformer, and its causal mask"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """Heads that share keys get a copy each; ALiBi, which lowers scores, stays the product's."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        path: str,
        window: int | None = None,
    ) -> Tensor:
        if bias.ndim == 4:
            return product_attention(query, key, value, bias, "matmul", window)
        group = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
        found: Tensor = part.attention(query, key, value, (bias > -torch.inf)[:, None])
        return found

    def document_mask(segment_ids: Tensor, window: int | None = None) -> Tensor:
        seen: Tensor = part.causal_mask(segment_ids.shape[1]).to(segment_ids.device)
        return seen & product_mask(segment_ids, window)

    with (
        plain_path(),
        all_replaced((model, "attention", attention), (model, "document_mask", document_mask)),
    ):
        yield


def try_it() -> list[float]:
    """Replies of a small model, and its loss and gradients."""
    return [*replies(), *losses()]
