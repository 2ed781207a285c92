"""Language models that only count: n-grams by maximum likelihood, add-k and Kneser-Ney smoothing.

To predict a token, look up what followed its last few tokens before. Long contexts are sharp but
rare, and `maximum_likelihood` finds impossible whatever they never showed; `AddK` pretends to have
seen everything a little. Short contexts are frequent but blunt; Kneser and Ney (1995) blend all
lengths. Every count gives up a small discount D, and what a context gave up is spread as the next
shorter context says:

    p(w | h) = (a(h w) - D(a(h w))) / a(h) + gamma(h) p(w | h')     h' is h without its first token
    gamma(h) = sum_w D(a(h w)) / a(h)     a(h) = sum_w a(h w)       below no context stands 1 / V

The heart of the method is the count a. At the highest order it is how often the n-gram was seen;
below it is *how many different tokens stood before it*. "Francisco" is frequent, but only ever
after "San": as a guess for an unknown context it is a bad one, and its a of 1 says so.

The discounts are the "modified" ones of Chen and Goodman (1998), "An empirical study of smoothing
techniques for language modeling", section 3, interpolated at every order. This is the honest
baseline that a neural model has to beat.
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
    """What every model that counts can be asked, whatever it makes of the counts."""

    trie: Trie

    @abstractmethod
    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Gives ln p(token | its up to order - 1 predecessors in the same document), in nats.

        The value at a boundary is the price of ending the document before it. The stream's first
        token is not predicted by anything: its value is NaN, so that no sum counts it unnoticed.
        """

    @abstractmethod
    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """Gives p(w | context) for every w; only the last order - 1 tokens matter, and of those
        only what follows the last boundary, itself included.
        """

    def perplexity(self, tokens: Integer[np.ndarray, "n"]) -> float:
        """Gives exp(-mean ln p) over all tokens but the first: among how many equally likely
        tokens the model is left to guess, on average. It is inf where a token is impossible.

        Errors: `UserError` for fewer than 2 tokens, `ValueError` for tokens outside
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
        """Gives - sum log2 p(token) / bytes over all tokens but the first; inf where one is
        impossible.

        `token_bytes` says how many bytes each token of the vocabulary writes; without it that is
        1 for all but the boundary, as in models over bytes. Tokens that write nothing are no text
        and cost nothing (as in `evals.perplexity`).
        Errors: `UserError` for a text of no bytes, `ValueError` for sizes that are not one for
        each token of the vocabulary, or tokens outside it.
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
        """Draws up to `length` tokens after `context` (default: a new document), ending with the
        boundary token where the model ends the document. Errors: as those of `distribution`.
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

    Fields: `trie` numbers the n-grams; of a k-gram h w, `shares[k - 1][its number]` is the first
    term of p(w | h) and `backoffs[k - 1][number of h]` is gamma(h). Both end with an entry for
    number -1, never seen: a share of 0, and a gamma of 1 that lets the shorter context decide.
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
        """Counts a stream of documents, each stored as `boundary` and then its tokens.

        A context never reaches back over the boundary that opens its document, which is the
        context's first token; seen from the document before, the same boundary is the last
        target. n-grams that open a document have nothing to their left, so their a is how often
        they were seen (as in Heafield et al. 2013, section 3). The first token of the stream has
        no past and is not counted as a target. `boundary=None`: one endless document.
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
        """Yields the model of each order as `fit` makes it, of one count for all of them."""
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
        """The model of the counts of all orders up to its own."""
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
    """Estimates what counts of 0, 1, 2 and 3 or more give up, from how many counts n_c equal c.

    D_0 = 0,  D_c = c - (c + 1) Y n_(c+1) / n_c,  Y = n_1 / (n_1 + 2 n_2)

    Source: Chen and Goodman (1998), equation 26. Small texts leave some n_c empty or a D_c
    without meaning; then one D = Y serves all counts (Ney, Essen and Kneser 1994), or, without
    n_1 or n_2 either, one half.
    """
    _, n1, n2, n3, n4 = (float(n) for n in np.bincount(counts[counts <= 4], minlength=5))
    if not (n1 and n2):
        return np.array([0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    if n3:
        modified = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        # A D of nothing would leave unseen words nothing; D_3 = 3 (no n_4) would be too much.
        if n4 and min(modified[1:]) > 0:
            return np.array(modified)
    return np.array([0, y, y, y])


def _discounted(
    contexts: Integer[np.ndarray, "grams"],
    adjusted: Integer[np.ndarray, "grams"],
    number_of_contexts: int,
) -> tuple[Float[np.ndarray, "grams+1"], Float[np.ndarray, "_"]]:
    """Gives the n-grams' discounted shares and the contexts' gammas, both with number -1's."""
    given_up = discounts(adjusted)[np.minimum(adjusted, 3)]
    totals = np.bincount(contexts, weights=adjusted, minlength=number_of_contexts).astype(float)
    gamma = np.bincount(contexts, weights=given_up, minlength=number_of_contexts).astype(float)
    # A context that nothing followed has no opinion: all of its probability comes from below.
    gamma[totals == 0] = totals[totals == 0] = 1
    return (
        np.append((adjusted - given_up) / totals[contexts], 0.0),
        np.append(gamma / totals, 1.0),
    )


@dataclass(frozen=True, eq=False)
class AddK(Ngram):
    """Counting with k added to every count: p(w | h) = (c(h w) + k) / (c(h) + k V).

    k = 1 is Laplace's rule, k = 0 is `maximum_likelihood`. The context h is always the longest
    allowed, up to order - 1 tokens of the same document, seen or not: the comparison shows what
    Kneser-Ney's blending is worth.
    """

    trie: Trie
    counts: tuple[Integer[np.ndarray, "_"], ...]  # both end with the 0 of number -1, never seen
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
            raise ValueError(f"k={k} would make no probabilities; give a number from 0")
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
        for (at, contexts, grams), counts, totals in steps:  # the longest context is the last word
            seen[at], total[at] = counts[grams], totals[contexts]
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.log(seen + self.k) - np.log(total + self.k * size)
        # 0 / 0: maximum likelihood after a context that it has never seen
        logprobs: Float[np.ndarray, "n"] = np.where(np.isnan(result), -np.inf, result)
        logprobs[:1] = np.nan
        return logprobs

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """Gives p(w | context) for every w.

        Errors: `ValueError` with k = 0 after a context that nothing was seen to follow: relative
        frequencies of nothing are none.
        """
        recent = self.trie.recent(context)
        numbers = self.trie.suffix_numbers(context)
        n = len(recent) + 1
        number = numbers[-1] if len(numbers) == n else -1
        total = int(self.totals[n - 1][number])
        if total + self.k == 0:
            raise ValueError(
                f"nothing was seen to follow {recent.tolist()}, so that maximum likelihood says "
                "nothing about it; give k above 0, or use KneserNey"
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

    No model of this order finds the counted text more likely, and none finds new text less so: what
    was never seen is impossible, ln p = -inf, and one such token makes the perplexity inf.
    """
    return AddK.fit(tokens, order, vocab_size, k=0.0, boundary=boundary)


def reference_kneser_ney(
    tokens: Sequence[int], order: int, vocab_size: int, *, boundary: int | None = 0
) -> Callable[[Sequence[int], int], float]:
    """Gives p(context, token) by the definition, with dictionaries: the oracle of `KneserNey`."""
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
