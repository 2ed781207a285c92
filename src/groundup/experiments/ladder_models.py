"""The neural rungs of the ladder: networks from ids (b, t) to next-token logits (b, t, vocab).

    feed-forward   a tanh layer on the embeddings of the last few tokens      Bengio et al. 2003
    RNN            a state that each token changes                            Elman 1990
    LSTM           a state that gates protect from being overwritten          Hochreiter 1997
    GPT            each position reads from all before it                     Radford et al. 2018

Recurrent networks can in principle remember everything, but must carry it through every step; the
feed-forward network and the GPT read their context directly, all positions at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.lib.stride_tricks import sliding_window_view

from groundup.experiments.ladder_text import BOUNDARY
from groundup.maths.tensor import Tensor, no_grad
from groundup.nn.gpt import GPT, GPTConfig
from groundup.nn.layers import Embedding, Linear
from groundup.nn.module import Module
from groundup.nn.recurrent import LSTM, RNN

Ids: TypeAlias = Integer[np.ndarray, "b t"]
# Tokens scored in one pass: more gain nothing and take memory.
_AT_ONCE = 2048


class FeedForward(Module):
    """Bengio's network: the last n embeddings concatenated, one hidden layer, and a shortcut.

        x = (C(w_t), C(w_t-1), …, C(w_t-n+1))        y = b + W x + U tanh(d + H x)

    Source: Bengio, Ducharme, Vincent and Jauvin (2003), "A neural probabilistic language model",
    section 2, equation 1, with the direct connections W.
    """

    def __init__(
        self, vocab_size: int, rng: np.random.Generator, *, reach: int, width: int, hidden: int
    ) -> None:
        self.reach = reach
        self.embedding = Embedding(vocab_size, width, rng=rng)
        self.hidden = Linear(reach * width, hidden, rng=rng)
        self.out = Linear(hidden, vocab_size, rng=rng)
        self.shortcut = Linear(reach * width, vocab_size, bias=False, rng=rng)

    def forward(self, ids: Ids) -> Float[Tensor, "b t vocab"]:
        # Positions before the window are treated as the beginning of a document.
        padded = np.pad(ids, ((0, 0), (self.reach - 1, 0)), constant_values=BOUNDARY)
        x = self.embedding(sliding_window_view(padded, self.reach, axis=1)).flatten(2, 3)
        logits: Tensor = self.out(self.hidden(x).tanh()) + self.shortcut(x)
        return logits


class Recurrent(Module):
    """An embedding, a recurrent layer, and logits from its state at each position.

    The state begins at 0 in every window. Sources: Elman (1990), "Finding structure in time";
    Hochreiter and Schmidhuber (1997), "Long short-term memory"; as language models Mikolov et al.
    (2010), "Recurrent neural network based language model".
    """

    def __init__(
        self,
        vocab_size: int,
        rng: np.random.Generator,
        *,
        cell: Literal["RNN", "LSTM"],
        width: int,
        hidden: int,
    ) -> None:
        self.embedding = Embedding(vocab_size, width, rng=rng)
        layer = RNN if cell == "RNN" else LSTM
        self.recurrent = layer(width, hidden, batch_first=True, rng=rng)
        self.out = Linear(hidden, vocab_size, rng=rng)

    def forward(self, ids: Ids) -> Float[Tensor, "b t vocab"]:
        states, _ = self.recurrent(self.embedding(ids))
        logits: Tensor = self.out(states)
        return logits


def gpt(vocab_size: int, rng: np.random.Generator, *, width: int, layers: int) -> GPT:
    """The GPT of `nn.gpt`, with heads of size 32 and a feed-forward layer three times as wide."""
    config = GPTConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        intermediate_size=3 * width,
        head_dim=32,
    )
    return GPT(config, rng=rng)


@dataclass(frozen=True)
class Windowed:
    """A network as a `LanguageModel` that reads documents in windows of `context` tokens.

    Windows advance by half their length, and every token is scored once, with at least half a
    context before it except at the start of a document.
    """

    network: Module
    context: int

    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """ln p of every token of every document; NaN for the boundaries before them."""
        result = np.full(len(tokens), np.nan)
        places, scored = self._windows(tokens)
        rows = max(1, _AT_ONCE // self.context)
        with no_grad():
            for first in range(0, len(places), rows):
                at, counts = places[first : first + rows], scored[first : first + rows]
                found = self.network(tokens[at - 1]).log_softmax(-1).data
                own = np.take_along_axis(found, tokens[at][..., None], axis=-1)[..., 0]
                result[at[counts]] = own[counts]
        return result

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """p(w | the last tokens of the context) for every w."""
        recent = np.array(context[-self.context :])
        with no_grad():
            logits: Float[np.ndarray, "vocab"] = self.network(recent[None]).data[0, -1]
        weights = np.exp(logits.astype(float) - logits.max())
        p: Float[np.ndarray, "vocab"] = weights / weights.sum()
        return p

    def _windows(
        self, tokens: Integer[np.ndarray, "n"]
    ) -> tuple[Integer[np.ndarray, "rows t"], Bool[np.ndarray, "rows t"]]:
        """The positions of the tokens to predict, row by row, and which of them are scored."""
        openings = np.flatnonzero(tokens == BOUNDARY)
        half = self.context // 2
        rows, scored = [], []
        for opening, end in zip(openings, [*openings[1:], len(tokens)], strict=True):
            for start in range(opening, max(end - 1 - half, opening + 1), half):
                places = start + 1 + np.arange(self.context)
                new = (places > start + half) | (start == opening)
                scored.append(new & (places < end))
                rows.append(np.minimum(places, len(tokens) - 1))
        return np.array(rows), np.array(scored)
