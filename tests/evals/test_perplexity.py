"""Bits per byte against closed forms, a token-by-token definition, and the reference n-gram."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.evals.perplexity import (
    BLOCK_BYTES,
    bits_per_byte,
    heldout_documents,
    ngram_bits,
    windows,
)
from groundup.lm.model import CausalLM
from groundup.maths.ngram import KneserNey, reference_kneser_ney
from groundup.text.example import Example
from groundup.text.rows import Document
from groundup.text.shards import Shard, encode
from groundup.text.tokenizer import Tokenizer

VOCAB = 320
Alone = Callable[[CausalLM, Example, int], list[float]]


@pytest.fixture(scope="module")
def shard(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shard:
    """Short and long documents of two sources, with characters of several bytes."""
    texts = [Document(f"The ship {i} sails — and sails.", "sea", f"s{i}") for i in range(30)]
    texts += [Document("Die Insel über dem Meer. " * (20 * i), "land", f"l{i}") for i in (1, 5, 9)]
    return encode(texts, tokenizer, tmp_path_factory.mktemp("tokens") / "heldout", split="heldout")


@given(st.integers(2, 200), st.integers(1, 40))
def test_windows_score_each_token_once_with_half_a_context_before_it(
    length: int, context: int
) -> None:
    ids = list(range(length))
    scored = []
    for window in windows(ids, context):
        assert window.inputs <= context
        for place, trained in enumerate(window.loss_mask):
            if trained:
                scored.append(window.ids[place])
                assert place >= min(window.ids[place], (context + 1) // 2)
    assert scored == ids[1:]


def test_a_uniform_model_has_the_same_loss_for_every_token(
    uniform: CausalLM, tokenizer: Tokenizer, shard: Shard
) -> None:
    found = bits_per_byte(uniform, shard, tokenizer, context=32, bytes_per_source=10**9)
    text_tokens = len(shard.tokens) - len(shard.sources)
    assert found.bits.sum() == pytest.approx(text_tokens * math.log2(VOCAB), rel=1e-5)
    assert found.bytes.sum() == pytest.approx(shard.document_bytes.sum())
    assert found.per_byte() == pytest.approx(found.measured()["pooled"].estimate)
    by_source = found.per_byte_by_source()
    assert {n: m.estimate for n, m in found.measured().items() if n != "pooled"} == by_source


def test_bits_equal_the_definition_token_by_token(
    model: CausalLM, tokenizer: Tokenizer, shard: Shard, alone: Alone
) -> None:
    """Each token separately, after the part of its window before it, by an independent formula."""
    context, half, expected = 32, 16, 0.0
    short = _first(shard, 28, 92)
    for document in range(len(short.sources)):
        ids = short.tokens[short.offsets[document] : short.offsets[document + 1]].tolist()
        for target in range(1, len(ids)):
            moved = max(0, -(-(target - context) // half))
            end = min(len(ids) - 1, context + moved * half)
            before = ids[max(0, end - context) : target]
            item = Example([*before, ids[target]], [False] * len(before) + [True])
            expected -= alone(model, item, context)[0] / math.log(2)
    found = bits_per_byte(model, short, tokenizer, context=context, bytes_per_source=10**9)
    assert found.bits.sum() == pytest.approx(expected, rel=1e-4)


def _first(shard: Shard, start: int, length: int) -> Shard:
    """The documents from `start` on, each cut to `length` tokens."""
    cut = [
        shard.tokens[shard.offsets[d] : shard.offsets[d + 1]][:length]
        for d in range(start, len(shard.sources))
    ]
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in cut])))
    bytes_ = np.array([1000] * len(cut))
    return Shard(np.concatenate(cut), offsets, shard.sources[start:], bytes_, "", "heldout")


def test_blocks_have_about_2_kb_of_one_source(
    uniform: CausalLM, tokenizer: Tokenizer, shard: Shard
) -> None:
    found = bits_per_byte(uniform, shard, tokenizer, context=32, bytes_per_source=10**9)
    for source in ("sea", "land"):
        sizes = found.bytes[np.array(found.sources) == source]
        assert sizes.sum() == shard.document_bytes[np.array(shard.sources) == source].sum()
        assert (np.abs(sizes[:-1] - BLOCK_BYTES) < 20).all()


def test_ngram_bits_equal_the_reference_models(tokenizer: Tokenizer, shard: Shard) -> None:
    train = np.array([0, *tokenizer.encode("The sea sails. Die Insel sails — über"), 0])
    found = ngram_bits(KneserNey.fit(train, 3, VOCAB), shard, tokenizer, bytes_per_source=10**9)
    p, expected = reference_kneser_ney(train.tolist(), 3, VOCAB), 0.0
    for document in range(len(shard.sources)):
        ids = shard.tokens[shard.offsets[document] : shard.offsets[document + 1]].tolist()
        expected -= sum(math.log2(p(ids[:t], ids[t])) for t in range(1, len(ids)))
    assert found.bits.sum() == pytest.approx(expected)


def test_models_and_counts_are_compared_on_the_same_blocks(
    uniform: CausalLM, tokenizer: Tokenizer, shard: Shard
) -> None:
    counts = KneserNey.fit(np.asarray(shard.tokens), 2, VOCAB)
    model = bits_per_byte(uniform, shard, tokenizer, context=32, bytes_per_source=2_000)
    counted = ngram_bits(counts, shard, tokenizer, bytes_per_source=2_000)
    difference = counted.minus(model)["pooled"]
    assert difference.estimate == pytest.approx(counted.per_byte() - model.per_byte())
    assert difference.high < 0  # it has seen these very tokens


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=60), st.integers(1, 5_000))
def test_documents_are_whole_and_within_the_limit(sizes: list[int], limit: int) -> None:
    names = ["even" if i % 2 else "odd" for i in range(len(sizes))]
    empty = np.zeros(0, np.uint16)
    shard = Shard(empty, np.zeros(len(sizes) + 1, int), names, np.array(sizes), "", "heldout")
    chosen = heldout_documents(shard, limit)
    assert len(set(chosen)) == len(chosen)
    for name in set(names):
        mine = [i for i in chosen if names[i] == name]
        assert mine
        assert len(mine) == 1 or sum(sizes[i] for i in mine) <= limit
        if sum(s for s, n in zip(sizes, names, strict=True) if n == name) <= limit:
            assert len(mine) == names.count(name)


def test_an_end_of_document_does_not_count(
    uniform: CausalLM, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    one = encode([Document("sea", "sea", "1")], tokenizer, tmp_path / "one")
    found = bits_per_byte(uniform, one, tokenizer, context=32)
    tokens = len(tokenizer.encode("sea"))
    assert found.per_byte() == pytest.approx(tokens * math.log2(VOCAB) / 3, rel=1e-5)
