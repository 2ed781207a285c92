"""The fast encoder: the C file `encoder.c`, which splits and merges on every core.

It supports byte-level BPE with Qwen2's split pattern and no normalizer, as in our own tokenizers.
The `tokenizers` library remains the oracle. It also handles every other tokenizer, machines without
a compiler, and texts with a pre-token of more than 512 bytes or with a character that Unicode
versions may classify differently.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from ctypes import c_int, c_int64, c_void_p
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from groundup.text.pretokens import BYTE_TO_CHAR, SPLIT_PATTERN, split_text, valid_unicode

# The character classes, numbered as in `encoder.c`.
_OTHER, _LETTER, _NUMBER, _BLANK, _LINE_END, _UNKNOWN = range(6)
# Unicode's White_Space except for the two that end lines.
_BLANKS = "\t\v\f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_NONE = np.uint64(2**64 - 1)


class FastEncoder:
    """The merges of one tokenizer, and a cache of encoded pre-tokens."""

    def __init__(self, library: ctypes.CDLL, model: Mapping[str, Any]) -> None:
        import torch

        self._library = library
        vocab: dict[str, int] = model["vocab"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        self._byte_ids = np.array([vocab[char] for char in BYTE_TO_CHAR], np.int32)
        joined = np.array([vocab[a + b] for a, b in pairs], np.int32)
        self._table = _table(
            np.array([(vocab[a] << 32) | vocab[b] for a, b in pairs], np.uint64), joined
        )
        self.ids = {*self._byte_ids.tolist(), *joined.tolist()}
        self._threads = torch.get_num_threads()
        self._memory = np.zeros(self._threads * library.memory_per_thread(), np.uint8)
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls,
        content: Mapping[str, Any],
        special_ids: frozenset[int] = frozenset(),
        stop_ids: frozenset[int] = frozenset(),
    ) -> FastEncoder | None:
        """The encoder for a tokenizer.json; None for an unsupported one, and without a compiler.

        Also None if merges could produce one of `special_ids` or `stop_ids`, or if the tokenizer
        looks for added tokens other than `special_ids` in a text.
        """
        added = {token["id"] for token in content.get("added_tokens") or []}
        if not _is_supported(content) or not added <= special_ids or (found := _library()) is None:
            return None
        encoder = cls(found, content["model"])
        return encoder if encoder.ids.isdisjoint(special_ids | stop_ids) else None

    def encode(self, texts: Sequence[bytes]) -> list[Int[np.ndarray, " tokens"] | None]:
        """The ids of each text in UTF-8; None for a text that the caller must encode."""
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        whole = b"".join(texts)
        ids = np.empty(len(whole), np.int32)
        counts = np.empty(len(texts), np.int64)
        # One thread is enough for a single message.
        threads = self._threads if len(texts) > 1 and len(whole) > 2**16 else 1
        with self._lock:
            self._library.encode(
                whole, ends.ctypes.data, len(texts), _classes().ctypes.data,
                *(part.ctypes.data for part in self._table), len(self._table[0]) - 1,
                self._byte_ids.ctypes.data, self._memory.ctypes.data, ids.ctypes.data,
                counts.ctypes.data, threads,
            )  # fmt: skip
        starts = ends - np.diff(ends, prepend=0)
        return [
            None if count < 0 else ids[start : start + count]
            for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
        ]


def pre_tokens(text: str, pattern: str) -> Iterator[list[bytes]]:
    """The pre-tokens of a text in UTF-8, as from `split_text`, some thousands at a time."""
    whole, at = valid_unicode(text).encode(), 0
    if pattern == SPLIT_PATTERN and (found := _library()) is not None:
        ends = np.empty(min(len(whole), 2**16), np.int64)
        classes = _classes().ctypes.data
        while count := found.split(whole, at, len(whole), classes, ends.ctypes.data, len(ends)):
            bounds = [at, *ends[:count].tolist()]
            yield [whole[start:end] for start, end in pairwise(bounds)]
            at = bounds[-1]
    if at < len(whole):
        yield [piece.encode() for piece in split_text(whole[at:].decode(), pattern)]


def _is_supported(content: Mapping[str, Any]) -> bool:
    """Whether `encoder.c` splits and merges as this tokenizer does."""
    model, steps = content.get("model") or {}, content.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or content.get("normalizer") is not None:
        return False
    asked = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if any(model.get(name) for name in asked) or not set(BYTE_TO_CHAR) <= set(model["vocab"]):
        return False
    if steps.get("type") != "Sequence" or len(steps["pretokenizers"]) != 2:
        return False
    split, level = steps["pretokenizers"]
    return (
        split.get("type") == "Split"
        and split.get("pattern") == {"Regex": SPLIT_PATTERN}
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and level.get("type") == "ByteLevel"
        and not level.get("add_prefix_space")
        and not level.get("use_regex")
    )


def _table(pairs: np.ndarray, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An open-addressing hash table, a power of two and half empty: pairs, ranks, merged ids."""
    size = 1 << max(4, (2 * len(pairs)).bit_length())
    keys = np.full(size, _NONE, np.uint64)
    ranks, ids = np.zeros(size, np.int32), np.zeros(size, np.int32)
    with np.errstate(over="ignore"):
        mixed = (pairs ^ (pairs >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        slots = ((mixed ^ (mixed >> np.uint64(29))) & np.uint64(size - 1)).tolist()
    taken: dict[int, int] = {}
    for rank, slot in enumerate(slots):
        while slot in taken:
            slot = (slot + 1) & (size - 1)
        taken[slot] = rank
    at, of = np.array(list(taken), np.int64), np.array(list(taken.values()), np.int64)
    keys[at], ranks[at], ids[at] = pairs[of], of, joined[of]
    return keys, ranks, ids


@functools.cache
def _classes() -> UInt8[np.ndarray, " points"]:
    """The class of each code point.

    Python and `tokenizers` may have different Unicode versions. Only characters that have been
    letters or numbers since Unicode 3.2 count as such; later ones may be unknown to one of the two.
    """
    now, old = unicodedata.category, unicodedata.ucd_3_2_0.category
    kinds = {"L": _LETTER, "N": _NUMBER}
    # Code points beyond 0x30000 have no letters yet.
    classes = np.full(sys.maxunicode + 1, _UNKNOWN, np.uint8)
    for point, char in enumerate(map(chr, range(0x30000))):
        kind, before = now(char), old(char)[0]
        if kind[0] in kinds or before in kinds:
            classes[point] = kinds[before] if before == kind[0] else _UNKNOWN
        elif kind != "Cn":
            classes[point] = _OTHER
    classes[[ord(char) for char in _BLANKS]] = _BLANK
    classes[[ord("\r"), ord("\n")]] = _LINE_END
    return classes


@functools.cache
def _library() -> ctypes.CDLL | None:
    from groundup.kernels.compiler import compiled  # imports PyTorch, which config pages never load

    found = compiled([Path(__file__).with_suffix(".c")])
    if found is None:
        return None
    p, n = c_void_p, c_int64
    found.encode.argtypes = (ctypes.c_char_p, p, n, p, p, p, p, n, p, p, p, p, c_int)
    found.encode.restype = None
    found.split.argtypes = (ctypes.c_char_p, n, n, p, p, n)
    found.split.restype = found.memory_per_thread.restype = n
    found.memory_per_thread.argtypes = ()
    return found
