"""The commonest mistakes with the best of n."""

import math

import numpy as np

REPLACES = {
    "sorted_by_gold": "best_of_n",
    "best_of_the_pool": "best_of_n",
    "in_blocks": "best_of_n",
    "one_place_off": "best_of_n",
    "with_replacement": "best_of_n",
    "score_returned": "best_of_n",
    "ties_in_order": "best_of_n",
    "lowest_taken": "best_of_n",
    "log_n": "kl_bound",
    "plus_for_minus": "kl_bound",
    "in_bits": "kl_bound",
}


def _chances(pool: int, n: int) -> list[float]:
    return [math.comb(place - 1, n - 1) / math.comb(pool, n) for place in range(1, pool + 1)]


def _shared(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    _, group = np.unique(scores, return_inverse=True)
    shared: np.ndarray = (np.bincount(group, gold) / np.bincount(group))[np.sort(group)]
    return shared


def sorted_by_gold(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The answers are sorted by gold, as an oracle would choose. The *score* decides."""
    return float(np.dot(_chances(len(gold), n), np.sort(gold)))


def best_of_the_pool(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """That is the best of the whole pool, whatever n is. Weight every rank by its probability of
    being the best of n."""
    return float(_shared(scores, gold)[-1])


def in_blocks(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The pool is cut into blocks of n, and the best of each averaged: right on average, but
    noisier than necessary. Take the mean over all subsets with the formula."""
    blocks = [slice(at, at + n) for at in range(0, len(scores) - n + 1, n)]
    return float(np.mean([gold[one][np.argmax(scores[one])] for one in blocks]))


def one_place_off(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The ranks are counted from 0, so the probabilities do not sum to 1: C(i - 1, n - 1) is for
    ranks from 1 to N."""
    pool = len(scores)
    chances = [math.comb(max(place - 1, 0), n - 1) / math.comb(pool, n) for place in range(pool)]
    return float(np.dot(chances, _shared(scores, gold)))


def with_replacement(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The same answer is drawn more than once: (i/N)^n - ((i-1)/N)^n is for drawing with
    replacement, and too low. Use C(i - 1, n - 1) / C(N, n)."""
    pool = len(scores)
    chances = [(i / pool) ** n - ((i - 1) / pool) ** n for i in range(1, pool + 1)]
    return float(np.dot(chances, _shared(scores, gold)))


def score_returned(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """That is the expected *score* of the best of n, which always rises. Return its gold."""
    return float(np.dot(_chances(len(scores), n), np.sort(scores)))


def ties_in_order(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """Among equal scores the later answer always wins. They are equally likely: give each the mean
    gold of all answers with that score."""
    return float(np.dot(_chances(len(scores), n), gold[np.argsort(scores, kind="stable")]))


def lowest_taken(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The order is reversed: that is the *worst* of n. Sort from the lowest score to the
    highest."""
    return float(np.dot(_chances(len(scores), n), _shared(scores, gold)[::-1]))


def log_n(n: int) -> float:
    """(n - 1) / n is not subtracted. With n = 1 both terms are 0; with n = 2 the bound is 0.19, not
    0.69."""
    return math.log(n)


def plus_for_minus(n: int) -> float:
    """(n - 1) / n is added. Subtract it: the bound is *below* log n."""
    return math.log(n) + (n - 1) / n


def in_bits(n: int) -> float:
    """That uses the logarithm of base 2. Nats use the natural logarithm."""
    return math.log2(n) - (n - 1) / n
