"""The tokenizer inside a GGUF file, read as Hugging Face's tokenizer.json.

Byte-level BPE only, which GGUF calls "gpt2" after its first user: tokens in the byte alphabet, the
merges, a type for each token, the name of the split pattern, the ids with a meaning, and the chat
template. SentencePiece vocabularies (Llama 2, Mistral 7B) are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.formats.gguf.header import GGUFFile
from groundup.formats.gguf.pretokenizers import PRE_TOKENIZERS, to_hf
from groundup.text.tokenizer import Tokenizer, faults_named

# `tokenizer.ggml.token_type`: what a token is (llama.h, enum llama_token_type).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5

PREFIX = "tokenizer.ggml."
_OTHER_MODELS = {
    "llama": "a SentencePiece vocabulary",
    "t5": "a Unigram vocabulary",
    "bert": "a WordPiece vocabulary",
    "rwkv": "RWKV's vocabulary",
    "plamo2": "PLaMo's vocabulary",
    "gemma4": "Gemma's vocabulary",
}
# Control tokens at which llama.cpp stops because of what they are called.
_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
)
# Qwen's own vocabulary normalises text to NFC before it cuts it, which no entry of a GGUF file
# says and llama.cpp does not do. It is known by where it ends; ours has the same cut and no
# normaliser.
_QWEN_END = ("<|endoftext|>", 151_643)


def read_tokenizer(file: GGUFFile) -> Tokenizer:
    """The tokenizer of a GGUF file, encoding as llama.cpp does.

    Raises `UserError` for a vocabulary of another kind, an unknown split pattern, and tokens or
    merges that do not fit together.
    """
    pre = _pre_tokenizer_name(file)
    tokens, types = _tokens(file)
    added = [
        {
            "id": id,
            "content": tokens[id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": types[id] != USER_DEFINED,
        }
        for id in tokens
        if types[id] in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    nfc = pre == "qwen2" and tokens.get(_QWEN_END[1]) == _QWEN_END[0]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": to_hf(PRE_TOKENIZERS[pre]),
        "post_processor": _first_token(file, tokens, PRE_TOKENIZERS[pre].begins),
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": _model(file, tokens, PRE_TOKENIZERS[pre].whole_words),
    }
    with faults_named(f"{file.path} holds a tokenizer that cannot be read"):
        return Tokenizer(content, _config(file, tokens), _ends(file, tokens, types))


@dataclass(frozen=True)
class TokenIds:
    """The ids with a meaning. `ends` are all at which llama.cpp stops, the end of a turn first."""

    begin: int | None
    ends: tuple[int, ...]
    padding: int | None


def read_ids(file: GGUFFile) -> TokenIds:
    """The ids that a GGUF file names, and the ends that it has but does not name."""
    tokens, types = _tokens(file)
    return TokenIds(
        _id(file, "bos", tokens), _ends(file, tokens, types), _id(file, "padding", tokens)
    )


def _ends(file: GGUFFile, tokens: Mapping[int, str], types: Sequence[int]) -> tuple[int, ...]:
    named = [_id(file, name, tokens) for name in ("eos", "eot", "eom")]
    ids = {token: id for id, token in tokens.items() if types[id] == CONTROL}
    found = [*named, *(ids.get(token) for token in _ENDS)]
    return tuple(dict.fromkeys(id for id in found if id is not None))


def _pre_tokenizer_name(file: GGUFFile) -> str:
    model = file.text(f"{PREFIX}model")
    if model != "gpt2":
        kind = _OTHER_MODELS.get(model, "a vocabulary")
        raise UserError(
            f"{file.path} holds {kind} ({PREFIX}model={model[:80]!r}); only byte-level BPE "
            "('gpt2') is read: use the model's Hugging Face folder"
        )
    pre = file.text(f"{PREFIX}pre", "default")
    if pre not in PRE_TOKENIZERS:
        raise UserError(
            f"{file.path} cuts text by the pattern {pre[:80]!r} ({PREFIX}pre), which is not "
            f"known; these are: {', '.join(PRE_TOKENIZERS)}"
        )
    return pre


def _tokens(file: GGUFFile) -> tuple[dict[int, str], Sequence[int]]:
    """The tokens by id, without those that only fill the vocabulary up; and every id's type."""
    texts = file.texts(f"{PREFIX}tokens")
    kinds = file.metadata.get(f"{PREFIX}token_type", np.full(len(texts), NORMAL))
    if not isinstance(kinds, np.ndarray) or kinds.dtype.kind not in "iu":
        file.refuse(f"{PREFIX}token_type", kinds, "a list of whole numbers")
    types = kinds.tolist()
    if len(types) != len(texts):
        raise UserError(
            f"{file.path} has {len(texts):,} tokens and {len(types):,} types for them; "
            "download it again"
        )
    tokens = {
        id: text
        for id, text in enumerate(texts)
        # Before there was a type for fillers, converters called them [PAD7] and user-defined.
        if text and types[id] != UNUSED and text != f"[PAD{id}]"
    }
    if len(set(tokens.values())) != len(tokens):
        raise UserError(f"{file.path} has the same token twice; download it again")
    return tokens, types


def _model(file: GGUFFile, tokens: Mapping[int, str], whole_words: bool) -> dict[str, Any]:
    vocab = {token: id for id, token in tokens.items()}
    merges = []
    for line in file.texts(f"{PREFIX}merges"):
        left, _, right = line.partition(" ")
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise UserError(
                f"{file.path} merges {line[:80]!r}, which is not two tokens that make a third; "
                "download it again"
            )
        merges.append([left, right])
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": whole_words,
        "vocab": vocab,
        "merges": merges,
    }


def _config(file: GGUFFile, tokens: Mapping[int, str]) -> dict[str, Any]:
    """The `tokenizer_config.json` that goes with it."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {f"{short}_token": _id(file, name, tokens) for short, name in names.items()}
    has_template = "tokenizer.chat_template" in file.metadata
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: None if id is None else tokens[id] for name, id in ids.items()},
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": file.text("tokenizer.chat_template") if has_template else None,
    }


def _first_token(file: GGUFFile, tokens: Mapping[int, str], begins: bool) -> dict[str, Any] | None:
    """A post-processor that puts the beginning-of-sequence token first, where texts begin so."""
    bos = _id(file, "bos", tokens)
    if bos is None or not file.flag(f"{PREFIX}add_bos_token", begins):
        return None
    first = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    text, second = ({"Sequence": {"id": which, "type_id": n}} for n, which in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}},
    }


def _id(file: GGUFFile, name: str, tokens: Mapping[int, str]) -> int | None:
    """An id with a meaning; one outside the vocabulary means none, to llama.cpp too."""
    id = file.metadata.get(f"{PREFIX}{name}_token_id")
    return id if isinstance(id, int) and not isinstance(id, bool) and id in tokens else None
