"""n-gram models against a reference with dictionaries, worked examples and known sources."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.maths import ngram
from groundup.maths.ngram import (
    AddK,
    KneserNey,
    discounts,
    maximum_likelihood,
    reference_kneser_ney,
)
from groundup.maths.trie import context_lengths, count_ngrams

streams = st.integers(2, 6).flatmap(
    lambda vocab: st.tuples(st.just(vocab), st.lists(st.integers(0, vocab - 1), max_size=80))
)
orders = st.integers(1, 5)
boundaries = st.sampled_from([0, 1, None])


def documents(rng: np.random.Generator, count: int, vocab: int) -> list[list[int]]:
    """Random documents of tokens 1 ... vocab - 1 from a skewed chain, so that counts vary."""
    rows = rng.dirichlet(np.full(vocab - 1, 0.3), size=vocab)
    result = []
    for _ in range(count):
        document = [0]
        for _ in range(rng.integers(0, 30)):
            document.append(1 + int(rng.choice(vocab - 1, p=rows[document[-1]])))
        result.append(document)
    return result


def reference_context(tokens: list[int], end: int, boundary: int | None) -> list[int]:
    """The tokens of the same document before position `end`, by walking back."""
    context: list[int] = []
    for token in reversed(tokens[:end]):
        context.insert(0, token)
        if token == boundary:
            break
    return context


@given(streams, streams, orders, boundaries)
@settings(max_examples=150, deadline=None)
def test_equals_the_reference_at_every_position(train, test, order, boundary):
    vocab = max(train[0], test[0])
    model = KneserNey.fit(np.array(train[1], int), order, vocab, boundary=boundary)
    oracle = reference_kneser_ney(train[1], order, vocab, boundary=boundary)
    logprobs = model.logprobs(np.array(test[1], int))
    assert np.isnan(logprobs[:1]).all()
    for i in range(1, len(test[1])):
        context = reference_context(test[1], i, boundary)
        assert np.exp(logprobs[i]) == pytest.approx(oracle(context, test[1][i]), rel=1e-12)


@given(streams, st.lists(st.integers(0, 5), max_size=6), orders, boundaries)
@settings(max_examples=150, deadline=None)
def test_every_distribution_sums_to_one(train, context, order, boundary):
    vocab, tokens = 6, train[1]
    model = KneserNey.fit(np.array(tokens, int), order, vocab, boundary=boundary)
    oracle = reference_kneser_ney(tokens, order, vocab, boundary=boundary)
    distribution = model.distribution(context)
    assert distribution.min() > 0
    assert distribution.sum() == pytest.approx(1, abs=1e-12)
    assert distribution == pytest.approx([oracle(context, w) for w in range(vocab)], rel=1e-12)


def test_equals_the_reference_with_modified_discounts():
    """Enough text that all three discounts come from counts of counts at some orders."""
    tokens = [t for d in documents(np.random.default_rng(0), 150, 30) for t in d]
    held_out = [t for d in documents(np.random.default_rng(1), 10, 30) for t in d]
    model = KneserNey.fit(np.array(tokens, np.uint16), 4, 30)
    oracle = reference_kneser_ney(tokens, 4, 30)
    wanted = [
        np.log(oracle(reference_context(held_out, i, 0), held_out[i]))
        for i in range(1, len(held_out))
    ]
    assert model.logprobs(np.array(held_out, np.uint16))[1:] == pytest.approx(wanted, rel=1e-10)


@given(streams, st.lists(orders, max_size=3), boundaries)
@settings(max_examples=60, deadline=None)
def test_orders_counted_together_equal_orders_counted_separately(train, several, boundary):
    tokens = np.array(train[1], int)
    together = list(KneserNey.fit_orders(tokens, several, train[0], boundary=boundary))
    assert len(together) == len(several)
    for order, model in zip(several, together, strict=True):
        alone = KneserNey.fit(tokens, order, train[0], boundary=boundary)
        for name in ("shares", "backoffs"):
            mine, other = getattr(model, name), getattr(alone, name)
            assert all(map(np.array_equal, mine, other)) and len(mine) == len(other) == order
        assert all(map(np.array_equal, model.trie.keys, alone.trie.keys))
        assert len(model.trie.keys) == len(alone.trie.keys)


def test_counting_takes_few_bytes_per_token_and_counts_several_orders_at_once(calls_of):
    tokens = np.minimum(np.random.default_rng(0).zipf(1.3, 200_000), 4095).astype(np.uint16)
    tracemalloc.start()
    try:
        count_ngrams(tokens, 5, 4096, 0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 100 * len(tokens)
    counted = calls_of(ngram, "count_ngrams")
    assert len(list(KneserNey.fit_orders(tokens[:1000], [3, 5], 4096))) == 2
    assert len(counted) == 1


def test_large_vocabulary_at_order_five_does_not_overflow():
    rng = np.random.default_rng(0)
    words = np.append(rng.integers(1, 1 << 16, size=20), (1 << 16) - 1)
    tokens = rng.choice(words, size=400).astype(np.uint16)
    model = KneserNey.fit(tokens, 5, 1 << 16)
    oracle = reference_kneser_ney(tokens.tolist(), 5, 1 << 16)
    logprobs = model.logprobs(tokens)
    for i in range(380, 400):
        assert np.exp(logprobs[i]) == pytest.approx(oracle(tokens[:i].tolist(), int(tokens[i])))


def test_a_worked_bigram():
    """Tokens a=1, b=2 in two documents, [a b] and [b]; the numbers are worked out by hand.

    Bigrams: 0a 1, ab 1, b0 1, 0b 1 (the last document's end is not in the stream). All counts
    are 1, so D = 1/2. Different tokens before: of 0 {b}, of a {0}, of b {a, 0}: n1 = 2, n2 = 1,
    so D = 2 / (2 + 2) = 1/2 there too.
    """
    model = KneserNey.fit(np.array([0, 1, 2, 0, 2]), 2, 4)
    unigram = np.array([0.5, 0.5, 1.5, 0]) / 4 + (1.5 / 4) / 4
    assert model.distribution([3]) == pytest.approx(unigram)
    assert model.distribution([2]) == pytest.approx(np.array([0.5, 0, 0, 0]) + 0.5 * unigram)
    assert model.distribution([0]) == pytest.approx(np.array([0, 0.25, 0.25, 0]) + 0.5 * unigram)


def test_a_word_with_one_context_is_unlikely_elsewhere():
    """'Francisco' (2) follows 'San' (1) fifty times, token 3 follows ten different tokens once."""
    tokens = [0] + [1, 2] * 50 + [t for left in range(4, 14) for t in (left, 3)]
    model = KneserNey.fit(np.array(tokens), 2, 15)
    unknown = model.distribution([14])
    assert tokens.count(2) > tokens.count(3)
    assert unknown[3] > 4 * unknown[2]
    assert model.distribution([1])[2] > 0.9


def test_discounts_by_hand():
    # n1 = 4, n2 = 3, n3 = 2, n4 = 1: Y = 4 / 10
    counts = np.repeat([1, 2, 3, 4, 9, 0], [4, 3, 2, 1, 5, 7])
    wanted = [0, 1 - 0.8 * 3 / 4, 2 - 1.2 * 2 / 3, 3 - 1.6 * 1 / 2]
    assert discounts(counts) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("counts", "discount"),
    [
        ([], 0.5),
        ([1, 1, 1], 0.5),
        ([2, 2, 5], 0.5),
        ([1, 1, 2], 2 / (2 + 2)),
        ([1, 1, 1, 2, 3], 3 / (3 + 2)),
        ([1, 2, 3, 3, 3, 4], 1 / (1 + 2)),  # D_2 = 2 - 3 Y 3 / 1 would be below 0
    ],
)
def test_discounts_of_small_texts(counts, discount):
    assert discounts(np.array(counts, int)) == pytest.approx([0, discount, discount, discount])


def test_contexts_do_not_cross_documents():
    rng = np.random.default_rng(3)
    parts = documents(rng, 40, 12)
    shuffled = [parts[i] for i in rng.permutation(len(parts))]
    one, other = (
        KneserNey.fit(np.array([t for d in order for t in d] + [0]), 4, 12)
        for order in (parts, shuffled)
    )
    text = np.array([t for d in parts for t in d])
    assert np.array_equal(one.logprobs(text), other.logprobs(text), equal_nan=True)
    alone = np.concatenate([one.logprobs(np.array(d))[1:] for d in parts])
    assert np.array_equal(one.logprobs(text)[text != 0], alone)


def test_context_lengths():
    tokens = np.array([0, 5, 6, 0, 0, 7])
    assert context_lengths(tokens, 0).tolist() == [0, 1, 2, 3, 1, 1]
    assert context_lengths(tokens, None).tolist() == [0, 1, 2, 3, 4, 5]


def test_reaches_the_entropy_of_a_known_source():
    """On a second-order chain the trigram comes near the entropy rate; other orders do not."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(8, 0.2), size=(8, 8))
    thresholds = table.cumsum(axis=-1)
    tokens = [1, 2]
    for u in rng.random(60_000):
        tokens.append(min(7, int(np.searchsorted(thresholds[tokens[-2], tokens[-1]], u))))
    train, test = np.array(tokens[:50_000]), np.array(tokens[50_000:])
    truth = -np.log(table[test[:-2], test[1:-1], test[2:]]).mean()
    loss = [
        -KneserNey.fit(train, order, 8, boundary=None).logprobs(test)[2:].mean()
        for order in range(1, 6)
    ]
    assert truth < loss[2] < truth + 0.01
    assert loss[0] > loss[1] > loss[2] + 0.2
    assert loss[4] < loss[2] + 0.05  # longer contexts than needed cost little


def test_samples_follow_the_text():
    tokens = np.array([0, 1, 2, 3] * 4000)
    model = KneserNey.fit(tokens, 3, 4)
    assert model.sample(10, seed=1) == model.sample(10, seed=1)
    assert [model.sample(10, seed=s) for s in range(20)].count([1, 2, 3, 0]) >= 18
    assert model.sample(1, context=[0, 1], seed=0) == [2]


def test_add_k_by_hand():
    model = AddK.fit(np.array([0, 1, 1, 2, 0, 1, 2]), 2, 4, k=0.5)
    p = np.exp(model.logprobs(np.array([0, 1, 1, 3, 3])))
    # after 0: 1 twice of 2; after 1: 1 once, 2 twice; after 3: never seen
    assert p[1:] == pytest.approx([2.5 / 4, 1.5 / 5, 0.5 / 5, 0.25])


contexts = st.lists(st.integers(0, 5), max_size=6)


@given(streams, contexts, orders, boundaries, st.sampled_from([0.1, 1.0]))
@settings(max_examples=100, deadline=None)
def test_add_k_sums_to_one(train, context, order, boundary, k):
    model = AddK.fit(np.array(train[1], int), order, 6, k=k, boundary=boundary)
    distribution = model.distribution(context)
    assert distribution.sum() == pytest.approx(1, abs=1e-12)
    for w in range(6) if context else ():
        paid = model.logprobs(np.array([*context, w]))[-1]
        assert distribution[w] == pytest.approx(np.exp(paid), rel=1e-12)


@given(streams, contexts, orders, boundaries)
@settings(max_examples=100, deadline=None)
def test_maximum_likelihood_sums_to_one_for_seen_contexts(train, context, order, boundary):
    model = maximum_likelihood(np.array(train[1], int), order, 6, boundary=boundary)
    seen = [np.exp(model.logprobs(np.array([*context, w]))[-1]) for w in range(6)]
    try:
        distribution = model.distribution(context)
    except ValueError:
        assert not context or sum(seen) == 0
    else:
        assert distribution.sum() == pytest.approx(1, abs=1e-12)
        assert not context or distribution == pytest.approx(seen, rel=1e-12)


def test_maximum_likelihood_is_relative_frequency():
    tokens = np.array([0, 1, 1, 2, 0, 1, 2])
    model = maximum_likelihood(tokens, 3, 4)
    p = np.exp(model.logprobs(np.array([0, 1, 2, 0, 2, 1, 3])))
    assert p[1:] == pytest.approx([1, 1 / 2, 1, 0, 0, 0])
    # no other model of its order gives the counted text a higher likelihood
    best = model.logprobs(tokens)[1:].sum()
    assert best > AddK.fit(tokens, 3, 4, k=0.01).logprobs(tokens)[1:].sum()
    assert best > KneserNey.fit(tokens, 3, 4).logprobs(tokens)[1:].sum()


def test_unseen_tokens_give_maximum_likelihood_infinite_perplexity():
    model = maximum_likelihood(np.array([0, 1, 1, 2, 0, 1, 2]), 2, 4)
    assert model.perplexity(np.array([0, 1, 1, 2])) == pytest.approx((1 * 3 * 3 / 2) ** (1 / 3))
    for unseen in ([0, 1, 3], [0, 2, 2], [3, 3, 3]):
        assert model.perplexity(np.array(unseen)) == np.inf
        assert model.bits_per_byte(np.array(unseen)) == np.inf


def test_perplexity_of_dice():
    """With equally likely faces, the perplexity is their number for every sequence."""
    tokens = np.random.default_rng(0).integers(6, size=60_000)
    for model in (
        AddK.fit(tokens, 1, 6, boundary=None),
        KneserNey.fit(tokens, 2, 6, boundary=None),
        maximum_likelihood(tokens, 1, 6, boundary=None),
    ):
        assert model.perplexity(tokens[:1000]) == pytest.approx(6, rel=0.01)
        assert model.bits_per_byte(tokens[:1000]) == pytest.approx(np.log2(6), rel=0.01)


def test_bits_per_byte_excludes_boundaries():
    """The boundary has no bytes; tokens 1, 2, 3 have 1, 4 and 2 bytes."""
    model = AddK.fit(np.array([0, 1, 2, 3, 0, 2, 2]), 2, 4)
    text = np.array([0, 1, 3, 0, 2])
    paid = -model.logprobs(text) / np.log(2)
    sizes = np.array([0, 1, 4, 2])
    assert model.bits_per_byte(text, sizes) == pytest.approx((paid[1] + paid[2] + paid[4]) / 7)
    assert model.bits_per_byte(text) == pytest.approx((paid[1] + paid[2] + paid[4]) / 3)
    with pytest.raises(UserError, match="no byte of text"):
        model.bits_per_byte(np.array([2, 0]))
    with pytest.raises(ValueError, match="3 sizes for a vocabulary of 4"):
        model.bits_per_byte(text, np.array([0, 1, 4]))
    with pytest.raises(UserError, match="1 tokens leave nothing"):
        model.perplexity(np.array([0]))


def test_bits_do_not_depend_on_the_grouping_of_bytes():
    """The same text in pairs of bytes: half the tokens, a different perplexity, nearly the same
    bits."""
    rng = np.random.default_rng(0)
    text = rng.choice(4, size=80_000, p=[0.5, 0.3, 0.15, 0.05])
    pairs = text[::2] * 4 + text[1::2]
    single = AddK.fit(text, 1, 4, boundary=None)
    double = AddK.fit(pairs, 1, 16, boundary=None)
    bits = single.bits_per_byte(text)
    assert double.bits_per_byte(pairs, np.full(16, 2)) == pytest.approx(bits, rel=1e-3)
    assert double.perplexity(pairs) == pytest.approx(single.perplexity(text) ** 2, rel=1e-3)


@pytest.mark.parametrize("k", [0.0, 0.001])
def test_samples_follow_the_counts(k):
    model = AddK.fit(np.array([0, 1, 2, 3] * 500), 3, 4, k=k)
    assert model.sample(10, seed=1) == [1, 2, 3, 0]


def test_rejects_bad_input():
    with pytest.raises(ValueError, match="order=0"):
        KneserNey.fit(np.array([0, 1]), 0, 4)
    with pytest.raises(ValueError, match=r"token 4 is outside 0 \.\.\. 3"):
        KneserNey.fit(np.array([0, 4]), 2, 4)
    with pytest.raises(ValueError, match="token -1"):
        KneserNey.fit(np.array([0, 1]), 2, 4).logprobs(np.array([-1]))
    with pytest.raises(ValueError, match="k=-1"):
        AddK.fit(np.array([0, 1]), 2, 4, k=-1.0)
    with pytest.raises(ValueError, match=r"nothing was seen to follow \[3\]"):
        maximum_likelihood(np.array([0, 1]), 2, 4).distribution([3])
