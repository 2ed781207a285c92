"""SentencePiece's BPE (Llama 2, Mistral 7B, Gemma), which GGUF calls "llama" after its first user.

Such a file has no merges but a score for each token. Of all neighbors that form a token, llama.cpp
first merges those whose token has the highest score; characters without a token become bytes. A
tokenizer.json expresses the same by merges, as transformers writes them: tokens in the order of
their scores, and for each token all pairs of tokens that form it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gguf import Keys, TokenType

from groundup.errors import UserError

NAME = "llama"
BLANK = "▁"
# Their tokens have up to 16 characters, runs of blanks some more; longer ones could take hours.
_LONGEST = 256
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
_PREPEND = {"type": "Prepend", "prepend": BLANK}
# Gemma's pattern, which never matches, because blanks have been replaced.
_IDLE_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
_REMEDY = "convert the model's Hugging Face folder with llama.cpp's convert_hf_to_gguf.py"


# Reading.


def to_hf(
    vocab: Mapping[str, int], scores: Mapping[str, float], unknown: str | None, prefix: bool
) -> dict[str, Any]:
    """The model, normalizer and decoder of a tokenizer.json. The tokens in `scores` are words."""
    steps: list[dict[str, Any]] = [_PREPEND, _REPLACE] if prefix else [_REPLACE]
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [*back, strip] if prefix else back},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [
                pair
                for word in sorted(scores, key=scores.__getitem__, reverse=True)
                for pair in _pairs(word, scores)
            ],
        },
    }


def _pairs(word: str, tokens: Mapping[str, Any]) -> list[list[str]]:
    """The pairs of tokens that form a word, in transformers' order."""
    return [[a, b] for a, b in reversed(_cuts(word)) if a in tokens and b in tokens]


def _cuts(word: str) -> list[tuple[str, str]]:
    if len(word) > _LONGEST:
        raise UserError(
            f"the token {word[:20]!r}… has {len(word):,} characters, but SentencePiece's tokens "
            f"have at most {_LONGEST}; download the model again"
        )
    return [(word[:cut], word[cut:]) for cut in range(1, len(word))]


# Writing.


def is_sentencepiece(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is of SentencePiece's kind, BPE or Unigram."""
    model = content.get("model") or {}
    return bool(model.get("byte_fallback")) or content.get("pre_tokenizer") is None


def refuse_unknown(content: Mapping[str, Any]) -> None:
    """Raise `UserError` for a SentencePiece tokenizer that llama.cpp does not support."""
    model = content.get("model") or {}
    if model.get("type") != "BPE" or not model.get("byte_fallback") or model.get("ignore_merges"):
        raise UserError(
            "this tokenizer is a SentencePiece vocabulary that llama.cpp does not support (it "
            f"supports BPE that falls back to bytes); {_REMEDY}"
        )
    if _prefix(content) is None:
        raise UserError(
            "this tokenizer is a SentencePiece vocabulary that prepends a blank to a text in "
            "another way than llama.cpp, which prepends one to every text and after every control "
            f"token, or none; {_REMEDY}"
        )
    for one in content.get("added_tokens") or []:
        if not one["special"] and one.get("normalized"):
            raise UserError(
                f"the added token {one['content']!r} has normalized=true, which a GGUF file cannot "
                f"express and llama.cpp would not do; {_REMEDY}"
            )


def entries(
    content: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> dict[str, Any]:
    """The metadata entries for these tokens.

    Raises `UserError` if no scores of tokens have the same effect as the merges.
    """
    model = content["model"]
    merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or []]
    order = _order([(left, right) for left, right in merges], tokens)
    scores = {word: -float(place) for place, word in enumerate(order)}
    unknown = model.get("unk_token")
    kinds = [
        TokenType.UNKNOWN
        if token == unknown
        else TokenType.BYTE
        if _BYTE.fullmatch(token) and type == TokenType.NORMAL
        else type
        for token, type in zip(tokens, types, strict=True)
    ]
    return {
        Keys.Tokenizer.MODEL: NAME,
        Keys.Tokenizer.PRE: "default",
        Keys.Tokenizer.LIST: list(tokens),
        Keys.Tokenizer.SCORES: [scores.get(token, 0.0) for token in tokens],
        Keys.Tokenizer.TOKEN_TYPE: kinds,
        Keys.Tokenizer.UNK_ID: model["vocab"].get(str(unknown)),
        Keys.Tokenizer.ADD_PREFIX: _prefix(content),
    }


def _prefix(content: Mapping[str, Any]) -> bool | None:
    """Whether a blank is prepended to a text; None if differently from llama.cpp."""
    normalizer, cut = content.get("normalizer"), content.get("pre_tokenizer")
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if cut in (None, _IDLE_SPLIT) and steps[-1:] == [_REPLACE]:
        return False if len(steps) == 1 else True if steps == [_PREPEND, _REPLACE] else None
    never = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "never", "split": False}
    return False if not steps and cut == never else None


def _order(merges: Sequence[tuple[str, str]], tokens: Collection[str]) -> list[str]:
    """The words that merges form, in that order.

    Raises `UserError` if scores of these words would form different ones.
    """
    order = [word for word, _ in itertools.groupby(left + right for left, right in merges)]
    twice = [word for word, count in Counter(order).items() if count > 1]
    known, alone = set(merges), set(tokens)
    for word in (*twice, *tokens):
        # A letter is merged with others whether or not it is a token.
        joined = {
            cut for cut in _cuts(word) if all(len(part) == 1 or part in alone for part in cut)
        }
        if word in twice or joined - known:
            raise UserError(
                f"this tokenizer forms the token {word!r} from some pairs of tokens later than "
                "from others, or never, but llama.cpp, which has a score for each token and no "
                f"merges, would treat all pairs alike; {_REMEDY}"
            )
    return order
