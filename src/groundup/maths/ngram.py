"""n-gram language models: maximum likelihood, add-k and Kneser-Ney smoothing.

An n-gram model predicts a token from what followed the last few tokens before. Long contexts are
informative but rare: `maximum_likelihood` gives unseen continuations probability 0, and `AddK` adds
a constant to every count. Short contexts are frequent but less informative. Kneser and Ney (1995)
combine all lengths: every count gives up a small discount D, and the discounts of a context are
distributed by the next shorter context:

    p(w | h) = (a(h w) - D(a(h w))) / a(h) + gamma(h) p(w | h')     h' is h without its first token
    gamma(h) = sum_w D(a(h w)) / a(h)     a(h) = sum_w a(h w)       the empty h backs off to 1 / V

The key of the method is the count a. At the highest order it is the number of occurrences of the
n-gram; at lower orders it is *the number of different tokens that precede it*. "Francisco" is
frequent, but only after "San", so it is a bad guess in an unknown context, and its a is 1.

The discounts are the "modified" ones of Chen and Goodman (1998), "An empirical study of smoothing
techniques for language modeling", section 3, interpolated at every order. A neural model should
beat this baseline.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from groundup.errors import UserError
from groundup.maths.trie import Level, Trie, checked_tokens, count_ngrams


class Ngram(ABC):
    """The interface of all n-gram models."""

    trie: Trie

    @abstractmethod
    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Gives ln p(token | its up to order - 1 predecessors in the same document), in nats.

        The value at a boundary is the log-probability of ending the document before it. The first
        token of the stream is not predicted: its value is NaN, so that no sum includes it silently.
        """

    @abstractmethod
    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """Gives p(w | context) for every w.

        Only the last order - 1 tokens matter, and of those only the last boundary and what follows.
        """

    def perplexity(self, tokens: Integer[np.ndarray, "n"]) -> float:
        """Gives exp(-mean ln p) over all tokens except the first.

        This is the number of equally likely tokens with the same mean uncertainty; inf if a token
        is impossible. Errors: `UserError` for fewer than 2 tokens, `ValueError` for tokens outside
        0 ... vocab_size - 1.
        """
        if len(tokens) < 2:
            raise UserError(f"{len(tokens)} tokens leave nothing to predict; give 2 or more")
        with np.errstate(over="ignore"):
            return float(np.exp(-self.logprobs(tokens)[1:].mean()))

    def bits_per_byte(
        self,
        tokens: Integer[np.ndarray, "n"],
        token_bytes: Integer[np.ndarray, "vocab"] | None = None,
    ) -> float:
        """Gives - sum log2 p(token) / bytes over all tokens except the first.

        It is inf if a token is impossible. `token_bytes` has the number of bytes of each token of
        the vocabulary; by default 1 for all except the boundary, as in models over bytes. Tokens
        of 0 bytes are not text and cost nothing (as in `evals.perplexity`).
        Errors: `UserError` for a text of no bytes, `ValueError` unless there is one size for each
        token of the vocabulary, or for tokens outside it.
        """
        if token_bytes is None:
            token_bytes = (np.arange(self.trie.vocab_size) != self.trie.boundary).astype(np.int64)
        if len(token_bytes) != self.trie.vocab_size:
            raise ValueError(f"{len(token_bytes)} sizes for a vocabulary of {self.trie.vocab_size}")
        logprobs = self.logprobs(tokens)[1:]
        sizes = token_bytes[tokens[1:]]
        if sizes.sum() == 0:
            raise UserError(f"the {len(tokens)} tokens predict no byte of text; give longer text")
        return float(-logprobs[sizes > 0].sum() / np.log(2) / sizes.sum())

    def sample(self, length: int, *, context: Sequence[int] = (), seed: int = 0) -> list[int]:
        """Samples up to `length` tokens after `context` (default: a new document).

        It ends early with the boundary token if the model ends the document. Errors: as
        `distribution`.
        """
        boundary = self.trie.boundary
        history = list(context) or ([] if boundary is None else [boundary])
        start, random = len(history), np.random.default_rng(seed)
        while len(history) - start < length:
            p = self.distribution(history)
            history.append(int(random.choice(len(p), p=p / p.sum())))
            if history[-1] == boundary:
                break
        return history[start:]


@dataclass(frozen=True, eq=False)
class KneserNey(Ngram):
    """An interpolated, modified Kneser-Ney model of one order over integer tokens.

    Fields: `trie` numbers the n-grams. For a k-gram h w, `shares[k - 1][its number]` is the first
    term of p(w | h) and `backoffs[k - 1][number of h]` is gamma(h). Both end with an entry for
    number -1, never seen: a share of 0, and a gamma of 1, which uses the shorter context.
    """

    trie: Trie
    shares: tuple[Float[np.ndarray, "_"], ...]
    backoffs: tuple[Float[np.ndarray, "_"], ...]

    @staticmethod
    def fit(
        tokens: Integer[np.ndarray, "n"],
        order: int,
        vocab_size: int,
        *,
        boundary: int | None = 0,
    ) -> KneserNey:
        """Counts a stream of documents, each stored as `boundary` followed by its tokens.

        A context never extends beyond the boundary that opens its document, which may be its first
        token; for the document before, the same boundary is the last target. n-grams that open a
        document have no token to their left, so their a is their number of occurrences (as in
        Heafield et al. 2013, section 3). The first token of the stream has no context and is not
        counted as a target. `boundary=None`: one endless document.
        Errors: `ValueError` for an order below 1 or tokens outside 0 ... vocab_size - 1.
        """
        return next(KneserNey.fit_orders(tokens, [order], vocab_size, boundary=boundary))

    @staticmethod
    def fit_orders(
        tokens: Integer[np.ndarray, "n"],
        orders: Sequence[int],
        vocab_size: int,
        *,
        boundary: int | None = 0,
    ) -> Iterator[KneserNey]:
        """Yields the model of each order as `fit` returns it, counting the text only once."""
        if not orders:
            return
        if min(orders) < 1:
            raise ValueError(f"order={min(orders)} is no n-gram; give 1 or more")
        trie, levels = count_ngrams(tokens, max(orders), vocab_size, boundary)
        for order in orders:
            keys = Trie(trie.keys[: order + 1], vocab_size, boundary)
            yield KneserNey._of(keys, levels[:order])

    @staticmethod
    def _of(trie: Trie, levels: Sequence[Level]) -> KneserNey:
        """Returns the model from the counts of all orders up to its own."""
        vocab_size, boundary, order = trie.vocab_size, trie.boundary, len(levels)
        shares, backoffs = [], []
        opening = np.zeros(vocab_size, dtype=bool)
        for k, level in enumerate(levels, start=1):
            contexts = trie.keys[k] // vocab_size
            if k > 1:
                opening = contexts == boundary if k == 2 else opening[contexts]
            adjusted = level.counts
            if k < order:
                lefts = np.bincount(levels[k].suffixes, minlength=len(contexts))
                adjusted = np.where(opening, level.counts, lefts)
            share, gamma = _discounted(contexts, adjusted, len(trie.keys[k - 1]))
            shares.append(share)
            backoffs.append(gamma)
        return KneserNey(trie, tuple(shares), tuple(backoffs))

    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Gives ln p in nats, as `Ngram.logprobs` says: the formula, order by order."""
        tokens = checked_tokens(tokens, self.trie.vocab_size)
        result = np.full(len(tokens), 1 / self.trie.vocab_size)
        steps = zip(self.trie.walk(tokens), self.shares, self.backoffs, strict=True)
        for (at, contexts, grams), share, gamma in steps:
            result[at] = share[grams] + gamma[contexts] * result[at]
        result[:1] = np.nan
        logprobs: Float[np.ndarray, "n"] = np.log(result)
        return logprobs

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """Gives p(w | context) for every w, above 0 whatever the context."""
        size = self.trie.vocab_size
        result = np.full(size, 1 / size)
        for k, number in enumerate(self.trie.suffix_numbers(context), start=1):
            followers = self.trie.followers(k, number)
            result *= self.backoffs[k - 1][number]
            words = self.trie.keys[k][followers] - number * size
            result[words] += self.shares[k - 1][followers]
        return result


def discounts(counts: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "4"]:
    """Estimates the discounts of counts 0, 1, 2 and 3 or more; n_c is the number of counts c.

    D_0 = 0,  D_c = c - (c + 1) Y n_(c+1) / n_c,  Y = n_1 / (n_1 + 2 n_2)

    Source: Chen and Goodman (1998), equation 26. In small texts some n_c may be 0 or a D_c invalid.
    Then all counts use one D = Y (Ney, Essen and Kneser 1994), or one half if n_1 or n_2 is 0.
    """
    _, n1, n2, n3, n4 = (float(n) for n in np.bincount(counts[counts <= 4], minlength=5))
    if not (n1 and n2):
        return np.array([0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    if n3:
        modified = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        # With a D of 0 unseen words would get no probability; D_3 = 3 (no n_4) would be too much.
        if n4 and min(modified[1:]) > 0:
            return np.array(modified)
    return np.array([0, y, y, y])


def _discounted(
    contexts: Integer[np.ndarray, "grams"],
    adjusted: Integer[np.ndarray, "grams"],
    number_of_contexts: int,
) -> tuple[Float[np.ndarray, "grams+1"], Float[np.ndarray, "_"]]:
    """Gives the n-grams' discounted shares and the contexts' gammas, both with an entry for -1."""
    given_up = discounts(adjusted)[np.minimum(adjusted, 3)]
    totals = np.bincount(contexts, weights=adjusted, minlength=number_of_contexts).astype(float)
    gamma = np.bincount(contexts, weights=given_up, minlength=number_of_contexts).astype(float)
    # A context without continuations takes all of its probability from the shorter context.
    gamma[totals == 0] = totals[totals == 0] = 1
    return (
        np.append((adjusted - given_up) / totals[contexts], 0.0),
        np.append(gamma / totals, 1.0),
    )


@dataclass(frozen=True, eq=False)
class AddK(Ngram):
    """Add-k smoothing: p(w | h) = (c(h w) + k) / (c(h) + k V).

    k = 1 is Laplace's rule, k = 0 is `maximum_likelihood`. The context h is always the longest
    allowed, up to order - 1 tokens of the same document, whether seen or not. The comparison with
    Kneser-Ney shows the gain of interpolation.
    """

    trie: Trie
    counts: tuple[Integer[np.ndarray, "_"], ...]  # both end with a 0 for number -1, never seen
    totals: tuple[Integer[np.ndarray, "_"], ...]
    k: float

    @staticmethod
    def fit(
        tokens: Integer[np.ndarray, "n"],
        order: int,
        vocab_size: int,
        *,
        k: float = 1.0,
        boundary: int | None = 0,
    ) -> AddK:
        """Counts a stream of documents under the same rules as `KneserNey.fit`."""
        if not 0 <= k < math.inf:
            raise ValueError(f"k={k} does not give probabilities; give a number from 0")
        trie, levels = count_ngrams(tokens, order, vocab_size, boundary)
        totals = []
        for n, level in enumerate(levels, start=1):
            contexts = trie.keys[n] // vocab_size
            total = np.bincount(contexts, weights=level.counts, minlength=len(trie.keys[n - 1]))
            totals.append(np.append(total, 0).astype(np.int64))
        counts = [np.append(level.counts, 0) for level in levels]
        return AddK(trie, tuple(counts), tuple(totals), k)

    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Gives ln p(token | its context) in nats; NaN for the first token of the stream."""
        size = self.trie.vocab_size
        tokens = checked_tokens(tokens, size)
        seen, total = np.zeros(len(tokens)), np.zeros(len(tokens))
        steps = zip(self.trie.walk(tokens), self.counts, self.totals, strict=True)
        for (at, contexts, grams), counts, totals in steps:  # the longest context overwrites others
            seen[at], total[at] = counts[grams], totals[contexts]
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.log(seen + self.k) - np.log(total + self.k * size)
        # 0 / 0: maximum likelihood after an unseen context
        logprobs: Float[np.ndarray, "n"] = np.where(np.isnan(result), -np.inf, result)
        logprobs[:1] = np.nan
        return logprobs

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """Gives p(w | context) for every w.

        Errors: `ValueError` with k = 0 after a context without continuations, which has no relative
        frequencies.
        """
        recent = self.trie.recent(context)
        numbers = self.trie.suffix_numbers(context)
        n = len(recent) + 1
        number = numbers[-1] if len(numbers) == n else -1
        total = int(self.totals[n - 1][number])
        if total + self.k == 0:
            raise ValueError(
                f"nothing was seen to follow {recent.tolist()}, so maximum likelihood is undefined "
                "there; give k above 0, or use KneserNey"
            )
        seen = np.zeros(self.trie.vocab_size)
        if number >= 0:
            followers = self.trie.followers(n, number)
            seen[self.trie.keys[n][followers] % self.trie.vocab_size] = self.counts[n - 1][
                followers
            ]
        result: Float[np.ndarray, "vocab"] = (seen + self.k) / (total + self.k * len(seen))
        return result


def maximum_likelihood(
    tokens: Integer[np.ndarray, "n"], order: int, vocab_size: int, *, boundary: int | None = 0
) -> AddK:
    """Counts relative frequencies: p(w | h) = c(h w) / c(h).

    No model of this order gives the counted text a higher probability, and none is worse on new
    text: unseen n-grams are impossible, ln p = -inf, and a single one makes the perplexity inf.
    """
    return AddK.fit(tokens, order, vocab_size, k=0.0, boundary=boundary)


def reference_kneser_ney(
    tokens: Sequence[int], order: int, vocab_size: int, *, boundary: int | None = 0
) -> Callable[[Sequence[int], int], float]:
    """Gives p(context, token) by the definition, with dictionaries, to test `KneserNey`."""
    seen: Counter[tuple[int, ...]] = Counter()
    before: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for end in range(2, len(tokens) + 1):
        for start in range(end - 1, max(end - order, 0) - 1, -1):
            gram = tuple(tokens[start:end])
            if boundary in gram[1:-1]:
                break
            seen[gram] += 1
            before[gram[1:]].add(gram[0])

    followers: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
    for gram, count in seen.items():
        raw = len(gram) == order or (len(gram) > 1 and gram[0] == boundary)
        followers[gram[:-1]][gram[-1]] = count if raw else len(before[gram])
    cut = []
    for length in range(order):
        rows = [row for context, row in followers.items() if len(context) == length]
        cut.append(discounts(np.array([a for row in rows for a in row.values()], int)))

    def blend(context: tuple[int, ...], token: int) -> float:
        lower = blend(context[1:], token) if context else 1 / vocab_size
        row = followers.get(context, {})
        total = sum(row.values())
        if total == 0:
            return lower
        given_up = cut[len(context)]
        own = row.get(token, 0)
        gamma = sum(given_up[min(a, 3)] for a in row.values()) / total
        return float((own - given_up[min(own, 3)]) / total + gamma * lower)

    def probability(context: Sequence[int], token: int) -> float:
        recent = tuple(context)[max(0, len(context) - order + 1) :]
        while boundary in recent[1:]:
            recent = recent[1:]
        return blend(recent, token)

    return probability
