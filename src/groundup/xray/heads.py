"""Detectors of four kinds of heads, each the mean attention to one position.

    previous token      attention from t to t - 1
    first token         attention from t to 0
    duplicate token     attention from t to the earlier occurrence of the same token
    induction           attention from t to the token after that occurrence

An *induction head* continues what it has seen: in "A B … A" it attends from the second A to B and
predicts B again. It needs an earlier head that tells each token which one precedes it, a previous
token head; when both have formed, the loss on repeated text drops sharply (Olsson et al. 2022,
In-context Learning and Induction Heads).

All four are measured on random tokens repeated once, where nothing but the repetition can be known:
with a block of L tokens, position t of the second block has its duplicate at t - L and the token
after that at t - L + 1. On ordinary text a score would depend on the length: with two tokens, a
head with uniform attention gives half to the previous one, which is the first one as well.

A head with a score above 0.4 counts as of that kind, by the usual rule (TransformerLens's head
detectors).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch
from groundup.xray.trace import Head, traced

Kind = Literal["previous token", "first token", "duplicate token", "induction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
THRESHOLD = 0.4
# Random sequences, and the maximum number of tokens in their blocks: 4 * 50 positions to average
# over, which makes the error of a score about 0.02.
_ROWS, _BLOCK = 4, 50
# Minimum number of tokens in a block. With fewer, uniform attention scores near 0.4.
_MIN = 4
_SEED = 0


def head_scores(
    model: CausalLM,
    opening: Sequence[int] = (),
    without: Sequence[Head] = (),
    special: frozenset[int] = frozenset(),
) -> Float[np.ndarray, "kinds layers heads"]:
    """The scores of every head, in the order of `KINDS`, each from 0 to 1.

    Random sequences begin with `opening` and contain none of the `special` ids. Scores are NaN if
    the context or the smallest window has no room for two blocks of a few tokens.
    """
    config = model.config
    repeated, block = repeated_sequence(model, opening, special)
    if block < _MIN:
        shape = (len(KINDS), config.num_hidden_layers, config.num_attention_heads)
        return np.full(shape, np.nan, np.float32)
    with torch.no_grad(), traced(model, without) as trace:
        model(Batch.of(repeated))
    attention = torch.stack([one.mean(0) for one in trace.attention]).cpu().numpy()
    # The second block's tokens come right after the first block's.
    second = attention[..., -block:, :]
    found = (
        on_diagonal(attention, 1),
        # Beyond the smallest window no query can see the first token.
        attention[..., 1 : min(_windows(config), default=None), 0].mean(-1),
        on_diagonal(second, block),
        on_diagonal(second, block - 1),
    )
    return np.stack(found).astype(np.float32)


def on_diagonal(
    attention: Float[np.ndarray, "layers heads queries keys"], back: int
) -> Float[np.ndarray, "layers heads"]:
    """Mean attention to the token `back` positions before; queries are the last keys' positions.

    Queries that have no such token do not count; without any the mean is 0.
    """
    queries, keys = attention.shape[-2:]
    places = np.arange(keys - queries, keys)
    places = places[places >= back]
    if not len(places):
        return np.zeros(attention.shape[:2], attention.dtype)
    found = attention[..., places - (keys - queries), places - back].mean(-1)
    return np.asarray(found)


def repeated_sequence(
    model: CausalLM, opening: Sequence[int], special: frozenset[int]
) -> tuple[Int[Tensor, "rows time"], int]:
    """Random tokens of the vocabulary, repeated once, and the block's length; always the same.

    A query of the second block sees its duplicate in the first one, whatever the windows.
    """
    config, device = model.config, model.head.device
    room = max(0, config.max_position_embeddings - len(opening))
    block = min(_BLOCK, room // 2, *(window - 1 for window in _windows(config)))
    generator = torch.Generator().manual_seed(_SEED)
    allowed = torch.tensor([id for id in range(config.vocab_size) if id not in special])
    drawn = torch.randint(len(allowed), (_ROWS, block), generator=generator)
    once = allowed[drawn]
    start = torch.tensor([list(opening)] * _ROWS, dtype=torch.int64).view(_ROWS, -1)
    return torch.cat((start, once, once), dim=1).to(device), block


def _windows(config: ModelConfig) -> list[int]:
    """The windows of the layers that have one, in tokens."""
    return [window for window in config.windows if window is not None]
