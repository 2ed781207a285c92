"""Language models that only count: n-grams with Kneser-Ney smoothing.

To predict a token, look up what followed its last few tokens before. Long contexts are sharp but
rare, short ones frequent but blunt; Kneser and Ney (1995) blend them. Every count gives up a small
discount D, and what a context gave up is spread as the next shorter context says:

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

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from groundup.errors import UserError


@dataclass(frozen=True, eq=False)
class KneserNey:
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
        Errors: `UserError` for an order below 1 or tokens outside 0 ... vocab_size - 1.
        """
        trie, levels = _count(tokens, order, vocab_size, boundary)
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
        """Gives ln p(token | its up to order - 1 predecessors in the same document), in nats.

        The value at a boundary is the price of ending the document before it. The stream's first
        token is not predicted by anything: its value is NaN, so that no sum counts it unnoticed.
        """
        tokens = _checked(tokens, self.trie.vocab_size)
        result = np.full(len(tokens), 1 / self.trie.vocab_size)
        steps = zip(self.trie.walk(tokens), self.shares, self.backoffs, strict=True)
        for (at, contexts, grams), share, gamma in steps:
            result[at] = share[grams] + gamma[contexts] * result[at]
        result[:1] = np.nan
        logprobs: Float[np.ndarray, "n"] = np.log(result)
        return logprobs

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """Gives p(w | context) for every w; only the last order - 1 tokens matter, and of those
        only what follows the last boundary, itself included.
        """
        size = self.trie.vocab_size
        result = np.full(size, 1 / size)
        for k, number in enumerate(self.trie.suffix_numbers(context), start=1):
            followers = self.trie.followers(k, number)
            result *= self.backoffs[k - 1][number]
            words = self.trie.keys[k][followers] - number * size
            result[words] += self.shares[k - 1][followers]
        return result

    def sample(self, length: int, *, context: Sequence[int] = (), seed: int = 0) -> list[int]:
        """Draws up to `length` tokens after `context` (default: a new document), ending with the
        boundary token where the model ends the document.
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
class AddK:
    """Counting with k added to every count: p(w | h) = (c(h w) + k) / (c(h) + k V).

    k = 1 is Laplace's rule, k = 0 maximum likelihood, which calls impossible (ln p = -inf) all
    that it has not seen. The context h is always the longest allowed, up to order - 1 tokens of
    the same document, seen or not: the comparison shows what Kneser-Ney's blending is worth.
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
        if k < 0:
            raise UserError(f"k={k} would make probabilities negative; give 0 or more")
        trie, levels = _count(tokens, order, vocab_size, boundary)
        totals = []
        for n, level in enumerate(levels, start=1):
            total = np.zeros(len(trie.keys[n - 1]) + 1, dtype=np.int64)
            np.add.at(total, trie.keys[n] // vocab_size, level.counts)
            totals.append(total)
        counts = [np.append(level.counts, 0) for level in levels]
        return AddK(trie, tuple(counts), tuple(totals), k)

    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Gives ln p(token | its context) in nats; NaN for the first token of the stream."""
        size = self.trie.vocab_size
        tokens = _checked(tokens, size)
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


@dataclass(frozen=True, eq=False)
class Trie:
    """The n-grams of a text as one sorted array per order, where an n-gram's place is its number.

    `keys[k]` holds the k-grams, each as number_of_its_first_(k-1)_tokens * vocab_size + its last
    token. Numbers stay below the length of the text, so the key fits 64 bits at any order, and a
    whole text is looked up order by order with binary searches. The empty 0-gram has number 0;
    all 1-grams are present, so that a token is its own number. -1 stands for "never seen".
    """

    keys: tuple[Integer[np.ndarray, "_"], ...]
    vocab_size: int
    boundary: int | None

    def walk(
        self, tokens: Integer[np.ndarray, "n"]
    ) -> Iterator[
        tuple[Integer[np.ndarray, "at"], Integer[np.ndarray, "at"], Integer[np.ndarray, "at"]]
    ]:
        """Yields, for k = 1, 2, ..., the positions with at least k - 1 tokens of context, and at
        each the number of this context and of the k-gram that the token makes of it.
        """
        reach = context_lengths(tokens, self.boundary)
        numbers = np.zeros(len(tokens) + 1, dtype=np.int64)  # entry i: of the (k-1)-gram before i
        for k in range(1, len(self.keys)):
            at = np.flatnonzero(reach >= k - 1)
            contexts = numbers[at]
            grams = self.find(k, contexts, tokens[at])
            yield at, contexts, grams
            numbers = np.full(len(tokens) + 1, -1)
            numbers[at + 1] = grams

    def find(
        self, k: int, contexts: Integer[np.ndarray, "n"], tokens: Integer[np.ndarray, "n"]
    ) -> Integer[np.ndarray, "n"]:
        """Gives the numbers of the k-grams (context, token), -1 for those never seen."""
        keys = self.keys[k]
        result = np.full(len(contexts), -1, dtype=np.int64)
        known = np.flatnonzero(contexts >= 0)
        if len(keys) and len(known):
            wanted = contexts[known] * self.vocab_size + tokens[known]
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            result[known] = np.where(keys[place] == wanted, place, -1)
        return result

    def followers(self, k: int, context: int) -> slice:
        """Gives the numbers of all k-grams that begin with a context: they stand in a row."""
        ends = [context * self.vocab_size, (context + 1) * self.vocab_size]
        return slice(*np.searchsorted(self.keys[k], ends).tolist())

    def suffix_numbers(self, context: Sequence[int]) -> list[int]:
        """Gives the numbers of the context's last 0, 1, 2, ... tokens, as far as they were seen."""
        longest = len(self.keys) - 2
        recent = _checked(np.array(context[max(0, len(context) - longest) :], int), self.vocab_size)
        recent = recent[np.flatnonzero(recent == self.boundary).max(initial=0) :]
        result: list[int] = []
        for length in range(len(recent) + 1):
            number = np.zeros(1, dtype=np.int64)
            for k, token in enumerate(recent[len(recent) - length :], start=1):
                number = self.find(k, number, token[None])
            if number[0] < 0:
                break
            result.append(int(number[0]))
        return result


@dataclass(frozen=True, eq=False)
class _Level:
    """For every k-gram of one order: how often it occurs, and its last k-1 tokens' number."""

    counts: Integer[np.ndarray, "grams"]
    suffixes: Integer[np.ndarray, "grams"]


def _count(
    tokens: Integer[np.ndarray, "n"], order: int, vocab_size: int, boundary: int | None
) -> tuple[Trie, list[_Level]]:
    """Numbers and counts all n-grams up to an order, each order with one sort."""
    if order < 1:
        raise UserError(f"order={order} is no n-gram; give 1 or more")
    tokens = _checked(tokens, vocab_size)
    reach = context_lengths(tokens, boundary)
    numbers = tokens  # entry i: of the k-gram that ends at i
    keys = [np.zeros(1, dtype=np.int64), np.arange(vocab_size)]
    counts = np.bincount(tokens[1:], minlength=vocab_size)
    levels = [_Level(counts, np.zeros(vocab_size, dtype=np.int64))]
    for k in range(2, order + 1):
        at = np.flatnonzero(reach >= k - 1)
        found, inverse, counts = np.unique(
            numbers[at - 1] * vocab_size + tokens[at], return_inverse=True, return_counts=True
        )
        suffixes = np.empty(len(found), dtype=np.int64)
        suffixes[inverse] = numbers[at]
        numbers = np.full(len(tokens), -1)
        numbers[at] = inverse
        keys.append(found)
        levels.append(_Level(counts, suffixes))
    return Trie(tuple(keys), vocab_size, boundary), levels


def context_lengths(
    tokens: Integer[np.ndarray, "n"], boundary: int | None
) -> Integer[np.ndarray, "n"]:
    """Counts, for every position, the tokens before it back to the boundary that opens its
    document (included); for a boundary these are all tokens of the document that it ends.
    """
    positions = np.arange(len(tokens))
    opens = np.equal(tokens, -1 if boundary is None else boundary)
    latest = np.maximum.accumulate(np.where(opens, positions, 0))
    positions[1:] -= latest[:-1]
    return positions


def _checked(tokens: Integer[np.ndarray, "n"], vocab_size: int) -> Integer[np.ndarray, "n"]:
    """Gives the tokens as int64, or says which one is none of the vocabulary's."""
    least, most = (int(tokens.min()), int(tokens.max())) if len(tokens) else (0, 0)
    if least < 0 or most >= vocab_size:
        wrong = least if least < 0 else most
        raise UserError(
            f"token {wrong} is outside 0 ... {vocab_size - 1}; "
            "give the vocabulary size of the tokenizer that made the tokens"
        )
    return tokens.astype(np.int64)


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
