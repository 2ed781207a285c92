"""Text to compare language models on: encoded once, read in windows of any length.

Documents are concatenated, each starting with token 0, and a window is read as one text. So windows
can be longer than documents, and every model sees the same tokens. The small world's stories name
the same people and things repeatedly; the pack `wiki` is real text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import nn

from groundup.data import build
from groundup.data import tokenizer as vocabulary
from groundup.data.config import DataConfig, TokenizerConfig
from groundup.data.corpus import documents
from groundup.experiments.transformers.tasks import weighted
from groundup.lm.model import CausalLM
from groundup.text.shards import encode
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream

Text = Literal["world", "wiki"]
Tokens = Integer[np.ndarray, " tokens"]
# Tokens scored at a time, about as many as in a training step.
_AT_ONCE = 4_096


@dataclass(frozen=True)
class Material:
    """The training and held-out tokens of a text."""

    train: Tokens
    heldout: Tokens
    vocab_size: int


def material(folder: Path, text: Text, *, vocab_size: int, megabytes: float) -> Material:
    """Build the data and a tokenizer in `folder` unless they exist, and encode the text.

    Raises `UserError` if the text cannot be downloaded.
    """
    data = build.run(
        DataConfig(
            out=folder / f"{text}-data",
            packs=(text,),
            world_megabytes=megabytes,
            world_conversations=1,
            world_preferences=1,
        )
    )
    made = vocabulary.run(
        TokenizerConfig(out=folder / f"{text}-tokenizer", data=data, vocab_size=vocab_size)
    )
    tokenizer, texts = Tokenizer.load(made), documents(data)
    sides = [
        encode(side, tokenizer, folder / f"{text}-tokens" / name, split=name)
        for name, side in (("train", texts.train), ("heldout", texts.heldout))
    ]
    train, heldout = (np.asarray(side.tokens, np.int64) for side in sides)
    return Material(train, heldout, -(-tokenizer.vocab_size // 64) * 64)


class WindowStream(DataStream):
    """Random windows of the training tokens, a pure function of (seed, step)."""

    def __init__(self, tokens: Tokens, context: int, rows: int, seed: int) -> None:
        self._tokens, self._context, self._rows, self._seed = tokens, context, rows, seed

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        rng = np.random.default_rng((self._seed, step))
        starts = rng.integers(len(self._tokens) - self._context, size=self._rows)
        return [windows(self._tokens, starts, self._context)]


def windows(tokens: Tokens, starts: Integer[np.ndarray, " rows"], context: int) -> Batch:
    """The windows of `context` tokens at `starts`, with every token trained on."""
    ids = tokens[starts[:, None] + np.arange(context + 1)]
    return weighted(ids[:, :-1].copy(), ids[:, 1:].copy(), np.ones((len(starts), context), int))


@torch.no_grad()
def losses(
    model: CausalLM, tokens: Tokens, starts: Integer[np.ndarray, " windows"], context: int
) -> Float[np.ndarray, "windows context"]:
    """Nats of each token in the windows at `starts`, computed a few windows at a time."""
    found, rows = [], max(1, _AT_ONCE // context)
    for first in range(0, len(starts), rows):
        batch = windows(tokens, starts[first : first + rows], context)
        logits = model.logits(batch)
        log_p = logits.log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0]
        found.append(-log_p.numpy())
    return np.concatenate(found)


def non_overlapping(tokens: Tokens, context: int, count: int) -> Integer[np.ndarray, " windows"]:
    """The starts of adjacent windows in the first `count` tokens."""
    end = min(count, len(tokens) - 1) - context
    return np.arange(0, end + 1, context)


def heldout_loss(model: CausalLM, text: Material, context: int, count: int) -> float:
    """Nats per token of the first `count` held-out tokens."""
    starts = non_overlapping(text.heldout, context, count)
    return float(losses(model, text.heldout, starts, context).mean())


def sliding(
    tokens: Tokens, context: int, count: int, stride: int, longest: int
) -> Integer[np.ndarray, " windows"]:
    """The starts of windows that advance by `stride` in the first `count` tokens.

    Only the last `stride` tokens of each are scored, since they have a long context. The same
    tokens are scored for every `context` up to `longest`.
    """
    end = min(count, len(tokens) - 1)
    return np.arange(longest, end + 1, stride) - context
