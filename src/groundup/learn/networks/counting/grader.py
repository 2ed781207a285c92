"""Trials of 2.6: tables against those of `maths.ngram.AddK`."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths.ngram import AddK


def trials(seed: int) -> Iterator[Trial]:
    """The lesson's text, longer ones, contexts of all lengths up to a 5-gram's."""
    rng = np.random.default_rng(seed)
    tiny = np.array([0, 1, 0, 1, 1, 0])
    text = _text(rng, 60, 4)
    yield _bigram("the lesson's text", tiny, 2, 1.0)
    yield _bigram("sixty tokens", text, 4, 0.5)
    yield _bigram("a token that never comes", tiny, 3, 0.1)
    # If a text starts and ends with the same token, rows and columns have equal sums.
    yield _bigram("first and last token differ", np.array([0, 1, 1, 2]), 3, 1.0)
    yield _next("one token of context", tiny, [1], 2, 1.0)
    yield _next("two tokens of context", text, list(text[20:22]), 4, 0.5)
    yield _next("a 5-gram's four tokens", text, list(text[30:34]), 4, 0.5)
    runs = np.array([0, 0, 0, 0, 1, 0, 0, 0])
    yield _next("overlapping occurrences", runs, [0, 0], 2, 1.0)
    yield _next("the end of the text", text, list(text[-3:-1]), 4, 0.5)
    yield _next("no context at all", tiny, [], 2, 1.0)
    yield _next("a context that was never seen", tiny, [0, 0, 0], 2, 1.0)
    digits = np.array([1, 12, 3, 11, 2, 4, 1, 12, 3])
    yield _next("tokens of two digits", digits, [1, 12], 13, 1.0)
    yield _perplexity("the lesson's text", tiny, tiny, 2, 1.0)
    yield _perplexity("a new text", text, _text(rng, 30, 4), 4, 0.5)


def _text(rng: np.random.Generator, length: int, vocab_size: int) -> np.ndarray:
    """A text with repeated contexts: each token is mostly one more than the one before."""
    tokens = [0]
    while len(tokens) < length:
        jumps = rng.random() < 0.3
        tokens.append(int(rng.integers(vocab_size)) if jumps else (tokens[-1] + 1) % vocab_size)
    return np.array(tokens)


def _bigram(about: str, tokens: np.ndarray, size: int, k: float) -> Trial:
    model = AddK.fit(tokens, 2, size, k=k, boundary=None)
    expected = np.stack([model.distribution([h]) for h in range(size)])

    def run(part: ModuleType) -> Any:
        return part.bigram(tokens, size, k)

    shown = {"tokens": tokens, "vocab_size": size, "k": k}
    return Trial(f"bigram, {about}", run, expected, shown)


def _next(about: str, tokens: np.ndarray, context: Sequence[int], size: int, k: float) -> Trial:
    given = [int(token) for token in context]
    model = AddK.fit(tokens, len(given) + 1, size, k=k, boundary=None)
    expected = model.distribution(given)

    def run(part: ModuleType) -> Any:
        return part.next_token(tokens, given, size, k)

    shown = {"tokens": tokens, "context": given, "vocab_size": size, "k": k}
    return Trial(f"next_token, {about}", run, expected, shown)


def _perplexity(about: str, counted: np.ndarray, tokens: np.ndarray, size: int, k: float) -> Trial:
    model = AddK.fit(counted, 2, size, k=k, boundary=None)
    table = np.stack([model.distribution([h]) for h in range(size)])

    def run(part: ModuleType) -> Any:
        return part.perplexity(tokens, table)

    shown = {"tokens": tokens, "table": table}
    return Trial(f"perplexity, {about}", run, model.perplexity(tokens), shown)
