"""How well a model predicts unseen text, in bits per byte.

    bits per byte = - sum log2 p(token | tokens before it in its document) / bytes of the text

Per byte and not per token, because the length of a token depends on the tokenizer: bytes make
models with different vocabularies, and n-gram counts, comparable. Only the tokens of the text
count; the end of a document is predicted in training but is not text. Documents longer than the
context are read through a window that advances by half of it. Each token is scored once, and after
the first window with at least half a context before it.

Text is unevenly compressible, so intervals resample blocks of about 2 KB instead of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from groundup.evals.by_source import by_source, source_groups
from groundup.evals.continuations import opening_of
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.maths.ngram import KneserNey
from groundup.report.estimate import POOLED, BySource
from groundup.text.example import Example
from groundup.text.shards import Shard
from groundup.text.tokenizer import Tokenizer

BLOCK_BYTES = 2048
# Bytes per source that a training run reads at its intermediate evaluations: about two seconds of
# work. The report compares n-grams on exactly these bytes to say when they were passed.
INTERMEDIATE_BYTES = 40_000


@dataclass(frozen=True)
class Bits:
    """A predictor's cost of each block of held-out text in bits, and the block's length."""

    bits: Float[np.ndarray, " blocks"]
    bytes: Float[np.ndarray, " blocks"]
    sources: list[str]

    def per_byte(self) -> float:
        """Bits per byte of all blocks together, or of human text alone if there is any."""
        at = source_groups(self.sources)[POOLED]
        return float(self.bits[at].sum() / self.bytes[at].sum())

    def per_byte_by_source(self) -> dict[str, float]:
        """Bits per byte of each source, for a log; `measured` has the intervals."""
        places = _places(self.sources)
        return {
            name: float(self.bits[at].sum() / self.bytes[at].sum()) for name, at in places.items()
        }

    def measured(self) -> BySource:
        """Bits per byte, pooled and by source, with intervals from resampling blocks."""
        return by_source(self.bits, self.sources, self.bytes)

    def minus(self, other: Bits) -> BySource:
        """The difference to `other` in bits per byte on the same blocks."""
        assert np.array_equal(self.bytes, other.bytes), "the blocks are not the same"
        return by_source(self.bits - other.bits, self.sources, self.bytes)


def bits_per_byte(
    model: CausalLM,
    shard: Shard,
    tokenizer: Tokenizer,
    *,
    context: int,
    bytes_per_source: int = INTERMEDIATE_BYTES,
) -> Bits:
    """The model's cost of up to `bytes_per_source` of each source's held-out documents."""
    chosen = heldout_documents(shard, bytes_per_source)
    # In a shard a document begins after the end-of-text token; other models use another id.
    opening = opening_of(model, tokenizer)
    items: list[Example] = []
    lengths = []
    for document in chosen:
        ids = [opening, *_tokens(shard, document)[1:].tolist()]
        items += windows(ids, context)
        lengths.append(len(ids) - 1)
    scores = score(model, items, context=context)
    flat = np.concatenate([np.empty(0), *scores])
    return _blocks(np.split(flat, np.cumsum(lengths)[:-1]), chosen, shard, tokenizer)


def ngram_bits(
    counts: KneserNey,
    shard: Shard,
    tokenizer: Tokenizer,
    *,
    bytes_per_source: int = INTERMEDIATE_BYTES,
) -> Bits:
    """The cost of the very same tokens for an n-gram model, in the same blocks."""
    chosen = heldout_documents(shard, bytes_per_source)
    tokens = [_tokens(shard, document) for document in chosen]
    found = counts.logprobs(np.concatenate(tokens).astype(np.int64))
    ends = np.cumsum([len(ids) for ids in tokens])
    # A document's first token is the end-of-text token before it, which is not text.
    return _blocks([one[1:] for one in np.split(found, ends[:-1])], chosen, shard, tokenizer)


def heldout_documents(shard: Shard, bytes_per_source: int) -> list[int]:
    """Indices of whole documents: at most `bytes_per_source` per source, but at least one document.

    They are spaced evenly over the source, and do not depend on the tokenizer.
    """
    chosen: list[int] = []
    for documents in _places(shard.sources).values():
        sizes = shard.document_bytes[documents]
        stride = max(1, -(-int(sizes.sum()) // bytes_per_source))
        while stride < len(documents) and sizes[::stride].sum() > bytes_per_source:
            stride += 1
        chosen += documents[::stride]
    return chosen


def _places(sources: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each source's items, sorted by source."""
    found: dict[str, list[int]] = {source: [] for source in sorted(set(sources))}
    for place, source in enumerate(sources):
        found[source].append(place)
    return found


def windows(ids: Sequence[int], context: int) -> Iterator[Example]:
    """Cut a document so that every token except the first is scored exactly once.

    The first window scores all of its tokens, each later one only its second half.
    """
    done, last = 0, len(ids) - 1
    while done < last:
        end = min(last, context if done == 0 else done + max(1, context // 2))
        start = max(0, end - context)
        trained = [False] * (done - start + 1) + [True] * (end - done)
        yield Example(ids[start : end + 1], trained)
        done = end


def _tokens(shard: Shard, document: int) -> Integer[np.ndarray, " tokens"]:
    found: Integer[np.ndarray, " tokens"] = shard.tokens[
        shard.offsets[document] : shard.offsets[document + 1]
    ]
    return found


def _blocks(
    logprobs: Sequence[Float[np.ndarray, " _"]],
    documents: Sequence[int],
    shard: Shard,
    tokenizer: Tokenizer,
) -> Bits:
    """Concatenate the documents of a source and cut them about every 2 KB, between tokens."""
    lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)], float)
    bits: list[float] = []
    sizes: list[float] = []
    sources: list[str] = []
    for source, mine in _places([shard.sources[document] for document in documents]).items():
        cost = np.concatenate([logprobs[n] for n in mine]) / -np.log(2)
        size = np.concatenate([_sizes(shard, documents[n], lengths) for n in mine])
        block = ((np.cumsum(size) - size) // BLOCK_BYTES).astype(np.int64)
        bits += np.bincount(block, weights=cost).tolist()
        sizes += np.bincount(block, weights=size).tolist()
        sources += [source] * (int(block.max(initial=-1)) + 1)
    return Bits(np.array(bits), np.array(sizes), sources)


def _sizes(
    shard: Shard, document: int, lengths: Float[np.ndarray, " vocab"]
) -> Float[np.ndarray, " tokens"]:
    """The number of the document's bytes in each of its tokens."""
    sizes = lengths[_tokens(shard, document)[1:]]
    # A tokenizer may normalize or add a space; what counts is the text as it is written.
    scaled: Float[np.ndarray, " tokens"] = sizes * (shard.document_bytes[document] / sizes.sum())
    return scaled
