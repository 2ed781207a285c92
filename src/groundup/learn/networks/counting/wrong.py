"""The commonest wrong answers to 2.6, each with the hint that names it."""

from collections.abc import Sequence

import numpy as np

REPLACES = {
    "pairs_counted_once": "bigram",
    "turned_around": "bigram",
    "over_the_whole_table": "bigram",
    "over_columns": "bigram",
    "smoothing_not_in_the_sum": "bigram",
    "not_smoothed": "bigram",
    "what_stands_before": "next_token",
    "context_itself": "next_token",
    "last_token_alone": "next_token",
    "first_token_counted": "next_token",
    "last_place_forgotten": "next_token",
    "counts_alone": "next_token",
    "overlaps_skipped": "next_token",
    "digits_joined": "next_token",
    "mean_of_probabilities": "perplexity",
    "loss_alone": "perplexity",
    "summed": "perplexity",
    "two_to_the_nats": "perplexity",
    "first_token_charged": "perplexity",
    "table_of_counts": "bigram",
    "smoothed_once_below": "bigram",
    "last_pair_forgotten": "bigram",
    "k_forgotten": "next_token",
    "bits_and_e": "perplexity",
    "mean_of_inverses": "perplexity",
    "sums_in_a_row": "bigram",
    "column_for_row": "perplexity",
}


def pairs_counted_once(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """A pair that comes several times was counted once: counts[a, b] += 1 with whole arrays adds 1
    only once for each entry. Use np.add.at, or a loop."""
    counts = np.full((vocab_size, vocab_size), k, dtype=float)
    counts[tokens[:-1], tokens[1:]] += 1
    return counts / counts.sum(axis=1, keepdims=True)


def turned_around(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """Rows and columns are exchanged: the row is the token before, the column the one after."""
    counts = np.full((vocab_size, vocab_size), k, dtype=float)
    np.add.at(counts, (tokens[1:], tokens[:-1]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def over_the_whole_table(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """The whole table sums to 1: these are p(h and w). Each *row* is a distribution: divide by the
    row's own sum, axis=1, keepdims=True."""
    counts = _counts(tokens, vocab_size) + k
    return counts / counts.sum()


def over_columns(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """Columns sum to 1 instead of rows. Divide each row by its sum, with keepdims=True so that it
    stays a column of sums."""
    counts = _counts(tokens, vocab_size) + k
    return counts / counts.sum(axis=0)


def smoothing_not_in_the_sum(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """k was added to the numerator but not to the denominator: rows sum to more than 1. The
    denominator is the count of h plus k · V."""
    counts = _counts(tokens, vocab_size)
    result: np.ndarray = (counts + k) / counts.sum(axis=1, keepdims=True)
    return result


def not_smoothed(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """k is missing: an unseen pair is impossible, and an unseen row is 0 / 0."""
    counts = _counts(tokens, vocab_size)
    result: np.ndarray = counts / counts.sum(axis=1, keepdims=True)
    return result


def what_stands_before(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """This counts the tokens before the context, not those after it."""
    backwards = tokens[::-1]
    return _next(backwards, list(context)[::-1], vocab_size, k)


def context_itself(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """This counts the last token of the context itself; count the token after it."""
    counts = np.full(vocab_size, k, dtype=float)
    n = len(context)
    for i in range(max(1, n), len(tokens)):
        if list(tokens[i - n : i]) == list(context):
            counts[tokens[i - 1]] += 1
    return counts / counts.sum()


def last_token_alone(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """Only the last token of the context was compared. Compare all of it, in order."""
    return _next(tokens, list(context)[-1:], vocab_size, k)


def first_token_counted(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """With the empty context, the first token was counted, too. Nothing predicts it: start at the
    second."""
    counts = np.full(vocab_size, k, dtype=float)
    n = len(context)
    for i in range(n, len(tokens)):
        if list(tokens[i - n : i]) == list(context):
            counts[tokens[i]] += 1
    return counts / counts.sum()


def last_place_forgotten(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """The last token of the text was not counted: range already ends one before its end."""
    return _next(tokens[:-1], context, vocab_size, k)


def counts_alone(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """These are the counts; divide by their sum to get probabilities."""
    n = len(context)
    places = max(0, len(tokens) - max(1, n))
    found = [i for i in range(max(1, n), len(tokens)) if list(tokens[i - n : i]) == list(context)]
    assert len(found) <= places
    return np.full(vocab_size, k) + np.bincount(tokens[found], minlength=vocab_size)


def overlaps_skipped(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """If the context occurs again before it has ended, the second occurrence was skipped: 0 0 0
    contains 0 0 twice. Advance by one token, not by the length of the context."""
    counts = np.full(vocab_size, k, dtype=float)
    n = len(context)
    i = max(1, n)
    while i < len(tokens):
        found = list(tokens[i - n : i]) == list(context)
        counts[tokens[i]] += found
        i += max(1, n) if found else 1
    return counts / counts.sum()


def digits_joined(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """Contexts were compared as joined digits, but 1, 12 gives the same string as 11, 2. Compare
    the numbers."""
    counts = np.full(vocab_size, k, dtype=float)
    n = len(context)
    for i in range(max(1, n), len(tokens)):
        if "".join(map(str, tokens[i - n : i])) == "".join(map(str, context)):
            counts[tokens[i]] += 1
    return counts / counts.sum()


def mean_of_probabilities(tokens: np.ndarray, table: np.ndarray) -> float:
    """This is one over the mean probability. Take the mean of the logarithms."""
    return float(1 / table[tokens[:-1], tokens[1:]].mean())


def loss_alone(tokens: np.ndarray, table: np.ndarray) -> float:
    """This is the cross-entropy; the perplexity is its exp."""
    return float(-np.log(table[tokens[:-1], tokens[1:]]).mean())


def summed(tokens: np.ndarray, table: np.ndarray) -> float:
    """The logarithms were summed: that is one over the probability of the whole text. Take their
    mean."""
    return float(np.exp(-np.log(table[tokens[:-1], tokens[1:]]).sum()))


def two_to_the_nats(tokens: np.ndarray, table: np.ndarray) -> float:
    """2 to the power of nats: with np.log it is np.exp, with np.log2 it is 2 **."""
    return float(2 ** -np.log(table[tokens[:-1], tokens[1:]]).mean())


def first_token_charged(tokens: np.ndarray, table: np.ndarray) -> float:
    """The sum was divided by the number of tokens. The first one is not predicted, so there is one
    prediction fewer."""
    logprobs = np.log(table[tokens[:-1], tokens[1:]])
    return float(np.exp(-logprobs.sum() / len(tokens)))


def _counts(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return counts


def _next(tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float) -> np.ndarray:
    counts = np.full(vocab_size, k, dtype=float)
    n = len(context)
    for i in range(max(1, n), len(tokens)):
        if list(tokens[i - n : i]) == list(context):
            counts[tokens[i]] += 1
    return counts / counts.sum()


def table_of_counts(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """These are the counts. Divide each row by its sum, axis=1, keepdims=True."""
    return _counts(tokens, vocab_size) + k


def smoothed_once_below(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """k was added to the denominator once. It is added to each of the V counts of a row, so the
    denominator is the count of h plus k · V."""
    counts = _counts(tokens, vocab_size)
    result: np.ndarray = (counts + k) / (counts.sum(axis=1, keepdims=True) + k)
    return result


def last_pair_forgotten(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """The last pair was not counted: N tokens have N - 1 pairs, range(len(tokens) - 1)."""
    counts = _counts(tokens[:-1], vocab_size) + k
    result: np.ndarray = counts / counts.sum(axis=1, keepdims=True)
    return result


def k_forgotten(
    tokens: np.ndarray, context: Sequence[int], vocab_size: int, k: float
) -> np.ndarray:
    """k is missing: an unseen token is impossible, and an unseen context is 0 / 0."""
    return _next(tokens, context, vocab_size, 0.0)


def bits_and_e(tokens: np.ndarray, table: np.ndarray) -> float:
    """e to the power of bits: with np.log2 it is 2 **, with np.log it is np.exp."""
    return float(np.exp(-np.log2(table[tokens[:-1], tokens[1:]]).mean()))


def mean_of_inverses(tokens: np.ndarray, table: np.ndarray) -> float:
    """This is the mean of 1 / p. Take the mean of the logarithms, then exp."""
    return float((1 / table[tokens[:-1], tokens[1:]]).mean())


def sums_in_a_row(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    """The sums of the rows have the shape (V,), so broadcasting divided column w by the sum of row
    w. keepdims=True keeps them a column, (V, 1)."""
    counts = _counts(tokens, vocab_size) + k
    return counts / counts.sum(axis=1)


def column_for_row(tokens: np.ndarray, table: np.ndarray) -> float:
    """The table was indexed in reverse: p(before | after). The row is the token before."""
    return float(np.exp(-np.log(table[tokens[1:], tokens[:-1]]).mean()))
