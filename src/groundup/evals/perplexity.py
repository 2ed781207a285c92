"""How well a model predicts text it has never seen, in bits per byte.

    bits per byte = - sum log2 p(token | tokens before it in its document) / bytes of the text

Per byte and not per token, because a token is as long as its tokenizer makes it: so models with
other vocabularies, and models that only count, stand in one table. Only the tokens of the text
count; that a document ends is predicted in training but is no text. Documents longer than the
context are read through a window that moves on by half of it, each token scored once, with at
least half a context before it from then on.

Text is compressible unevenly, so an interval comes from drawing blocks of about 2 KB, not tokens.
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
# What a training run reads of each source at its evaluations on the way: some two seconds' work,
# and the report compares n-grams on exactly these bytes when it says when they were passed.
BYTES_ON_THE_WAY = 40_000


@dataclass(frozen=True)
class Bits:
    """What a predictor paid for each block of held-out text, in bits, and how long the block is."""

    bits: Float[np.ndarray, " blocks"]
    bytes: Float[np.ndarray, " blocks"]
    sources: list[str]

    def per_byte(self) -> float:
        """Bits per byte of all blocks together; of the real ones alone where there are any."""
        at = source_groups(self.sources)[POOLED]
        return float(self.bits[at].sum() / self.bytes[at].sum())

    def per_byte_by_source(self) -> dict[str, float]:
        """Bits per byte of each source, for a log; `measured` has the intervals."""
        places = _places(self.sources)
        return {
            name: float(self.bits[at].sum() / self.bytes[at].sum()) for name, at in places.items()
        }

    def measured(self) -> BySource:
        """Bits per byte, pooled and by source, with intervals from drawing blocks."""
        return by_source(self.bits, self.sources, self.bytes)

    def minus(self, other: Bits) -> BySource:
        """How many bits per byte more than `other` it paid for the same blocks."""
        assert np.array_equal(self.bytes, other.bytes), "the blocks are not the same"
        return by_source(self.bits - other.bits, self.sources, self.bytes)


def bits_per_byte(
    model: CausalLM,
    shard: Shard,
    tokenizer: Tokenizer,
    *,
    context: int,
    bytes_per_source: int = BYTES_ON_THE_WAY,
) -> Bits:
    """What the model pays for up to `bytes_per_source` of each source's held-out documents."""
    chosen = heldout_documents(shard, bytes_per_source)
    # The end of a text opens a document in a shard; a foreign model may know another id.
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
    bytes_per_source: int = BYTES_ON_THE_WAY,
) -> Bits:
    """What an n-gram model pays for the very same tokens, in the same blocks."""
    chosen = heldout_documents(shard, bytes_per_source)
    tokens = [_tokens(shard, document) for document in chosen]
    found = counts.logprobs(np.concatenate(tokens).astype(np.int64))
    ends = np.cumsum([len(ids) for ids in tokens])
    # A document's first token is the end of a text that opens it and ends the one before: no text.
    return _blocks([one[1:] for one in np.split(found, ends[:-1])], chosen, shard, tokenizer)


def heldout_documents(shard: Shard, bytes_per_source: int) -> list[int]:
    """Numbers of whole documents, at most `bytes_per_source` of each source but one at least.

    Every so many-th one is taken, so that they spread over the whole source, and the same ones
    whatever the tokenizer.
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
    """Where each source stands, by its name, in the order of names."""
    found: dict[str, list[int]] = {source: [] for source in sorted(set(sources))}
    for place, source in enumerate(sources):
        found[source].append(place)
    return found


def windows(ids: Sequence[int], context: int) -> Iterator[Example]:
    """Cut a document so that every token but the first is scored exactly once.

    The first window scores all of its tokens, each later one its second half alone.
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
    """Lay the documents of a source end to end and cut them every 2 KB, at a token's end."""
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
    """How many bytes of the document each of its tokens is."""
    sizes = lengths[_tokens(shard, document)[1:]]
    # A foreign tokenizer may normalize or add a space; what counts is the text as it is written.
    scaled: Float[np.ndarray, " tokens"] = sizes * (shard.document_bytes[document] / sizes.sum())
    return scaled
