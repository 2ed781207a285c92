"""Trials of 2.7: against the feed-forward language model of `groundup experiment ladder`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.experiments.ladder_models import FeedForward
from groundup.learn.exercise import Trial
from groundup.maths import Tensor, grad


def trials(seed: int) -> Iterator[Trial]:
    """Windows of two texts, then logits and their gradients."""
    rng = np.random.default_rng(seed)
    yield _windows("the lesson's text", np.array([7, 2, 5, 5, 1]), 3)
    yield _windows("twelve tokens", rng.permutation(12), 4)
    yield _windows("one token back", rng.permutation(5), 1)
    yield _logits("one window", rng, batch=1, gradients=False)
    yield _logits("a batch", rng, batch=4, gradients=False)
    yield _logits("the gradients of Σ logits²", rng, batch=3, gradients=True)


def _windows(about: str, tokens: np.ndarray, reach: int) -> Trial:
    # As the product's network reads a text: everything up to a position, and the next token.
    inputs = np.lib.stride_tricks.sliding_window_view(tokens, reach)[:-1].copy()

    def run(part: ModuleType) -> Any:
        found = part.windows(tokens, reach)
        return dict(zip(("inputs", "targets"), found, strict=True))

    expected = {"inputs": inputs, "targets": tokens[reach:].copy()}
    return Trial(f"windows, {about}", run, expected, {"tokens": tokens, "reach": reach})


def _logits(about: str, rng: np.random.Generator, *, batch: int, gradients: bool) -> Trial:
    vocab, reach, width, hidden = 5, 3, 2, 4
    network = FeedForward(vocab, rng, reach=reach, width=width, hidden=hidden)
    network.shortcut.weight.data[...] = 0  # the lesson's network has none
    names = ("table", "w1", "b1", "w2", "b2")
    weights = [
        Tensor(one.data.astype(float))
        for one in (
            network.embedding.weight,
            network.hidden.weight,
            network.hidden.bias,
            network.out.weight,
            network.out.bias,
        )
        if one is not None
    ]
    ids = rng.integers(vocab, size=(batch, reach))
    expected = network(ids)[:, -1]

    def result(found: Tensor, of: list[Tensor]) -> Any:
        if not gradients:
            return found
        parts = grad((found * found).sum(), of)
        return {f"by {name}": g.data for name, g in zip(names, parts, strict=True)}

    own = [network.embedding.weight, network.hidden.weight, network.hidden.bias]
    own += [network.out.weight, network.out.bias]
    wanted = result(expected, [one for one in own if one is not None])

    def run(part: ModuleType) -> Any:
        return result(part.logits(ids, *weights), weights)

    shown = {"ids": ids, **dict(zip(names, weights, strict=True))}
    # The product's network is float32.
    return Trial(f"logits, {about}", run, wanted, shown, rtol=1e-4, atol=1e-5)
