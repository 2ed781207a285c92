"""llama.cpp's names for the ways in which byte-level tokenizers split text before merging.

A GGUF file does not store the split pattern, only a name (`tokenizer.ggml.pre`); llama.cpp has the
patterns in its code (`src/llama-vocab.cpp`). This module maps names to patterns and back. A split
is a sequence of patterns, each applied to the pieces left whole by those before; matches and the
text between them become separate pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groundup.text.pretokens import GPT2_PATTERN, SPLIT_PATTERN

# As their authors wrote them, in the syntax of the `tokenizers` library.
_DIGIT = r"\p{N}"
_LLAMA3 = SPLIT_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED = (  # a capital starts a new piece (Mistral's "tekken")
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_THREES = "[0-9][0-9][0-9]"


@dataclass(frozen=True)
class PreTokenizer:
    """A way to split text. With `whole_words`, a piece that is a token is not merged further.

    With `begins`, llama.cpp prepends the beginning-of-sequence token if the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False


_QWEN2_LIKE = PreTokenizer((SPLIT_PATTERN,))
_LLAMA3_LIKE = PreTokenizer((_LLAMA3,), whole_words=True, begins=True)
_GPT2_LIKE = PreTokenizer((GPT2_PATTERN,))
_DIGITS_FIRST = PreTokenizer((_DIGIT, GPT2_PATTERN))

# The first name of each kind is the one that we write.
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "qwen2": _QWEN2_LIKE,
    "deepseek-r1-qwen": _QWEN2_LIKE,
    "megrez": _QWEN2_LIKE,
    "stablelm2": _QWEN2_LIKE,
    "hunyuan": _QWEN2_LIKE,
    "qwen35": PreTokenizer((_QWEN35,)),
    "llama-bpe": _LLAMA3_LIKE,
    "llama3": _LLAMA3_LIKE,
    "llama-v3": _LLAMA3_LIKE,
    "falcon3": _LLAMA3_LIKE,
    "pixtral": _LLAMA3_LIKE,
    "lfm2": _LLAMA3_LIKE,
    "dbrx": PreTokenizer((_LLAMA3,)),
    "smaug-bpe": PreTokenizer((_LLAMA3,)),
    "gpt-2": _GPT2_LIKE,
    "phi-2": _GPT2_LIKE,
    "mpt": _GPT2_LIKE,
    "olmo": _GPT2_LIKE,
    "smollm": _DIGITS_FIRST,
    "starcoder": _DIGITS_FIRST,
    "refact": _DIGITS_FIRST,
    "command-r": _DIGITS_FIRST,
    "codeshell": _DIGITS_FIRST,
    "tekken": PreTokenizer((_CASED,), whole_words=True, begins=True),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_PATTERN, _THREES)),
    # llama.cpp's default if a file has no name at all.
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", _THREES)),
}


def to_hf(kind: PreTokenizer) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json that splits this way."""
    own_split = kind.patterns[-1] == GPT2_PATTERN  # ByteLevel contains GPT-2's pattern
    patterns = kind.patterns[:-1] if own_split else kind.patterns
    steps = [
        {"type": "Digits", "individual_digits": True}
        if pattern == _DIGIT
        else {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        for pattern in patterns
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": own_split,
    }
    if not steps:
        return byte_level
    return {"type": "Sequence", "pretokenizers": [*steps, byte_level]}


def name_of(pre_tokenizer: Any, whole_words: bool) -> str | None:
    """llama.cpp's name for the `pre_tokenizer` of a tokenizer.json; None if it has none."""
    patterns = _patterns(pre_tokenizer)
    for name, kind in PRE_TOKENIZERS.items():
        if (kind.patterns, kind.whole_words) == (patterns, whole_words):
            return name
    return None


def _patterns(pre_tokenizer: Any) -> tuple[str, ...] | None:
    """The split as a sequence of patterns; None if it is no byte-level split by patterns."""
    if not isinstance(pre_tokenizer, dict):
        return None
    nested = pre_tokenizer.get("type") == "Sequence"
    steps = pre_tokenizer.get("pretokenizers") if nested else [pre_tokenizer]
    if not isinstance(steps, list) or not steps or not all(isinstance(s, dict) for s in steps):
        return None
    *cuts, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return None
    found = [_pattern(cut) for cut in cuts]
    if last.get("use_regex", True):
        found.append(GPT2_PATTERN)
    known = [pattern for pattern in found if pattern is not None]
    return tuple(known) if len(known) == len(found) else None


def _pattern(step: Mapping[str, Any]) -> str | None:
    if step.get("type") == "Digits":
        return _DIGIT if step.get("individual_digits") else None
    # "Removed" and inverted keeps only the matches, and these patterns leave nothing between them.
    kept = (step.get("behavior"), bool(step.get("invert")))
    if step.get("type") != "Split" or kept not in (("Isolated", False), ("Removed", True)):
        return None
    pattern = step.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    return regex if isinstance(regex, str) else None
