"""The tokenizer inside a GGUF file, converted to Hugging Face's tokenizer.json and back.

Byte-level BPE, which GGUF calls "gpt2" after its first user: tokens in the byte alphabet, the
merges, a type for each token, the name of the split pattern, the special ids, and the chat
template. For SentencePiece's BPE (Llama 2, Mistral 7B) see `sentencepiece`; vocabularies of other
kinds are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import Keys, TokenType

from groundup.errors import UserError
from groundup.formats.gguf import sentencepiece
from groundup.formats.gguf.header import GGUFFile
from groundup.formats.gguf.pretokenizers import PRE_TOKENIZERS, name_of, to_hf
from groundup.text.tokenizer import END_OF_TEXT, Tokenizer, tokenizer_errors

_KEYS = Keys.Tokenizer
_OTHER_MODELS = {
    "t5": "a Unigram vocabulary",
    "bert": "a WordPiece vocabulary",
    "rwkv": "RWKV's vocabulary",
    "plamo2": "PLaMo's vocabulary",
    "gemma4": "Gemma's vocabulary",
}
# Control tokens at which llama.cpp stops because of their names.
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
# The entries for further end tokens.
_MORE_ENDS = (_KEYS.EOT_ID, _KEYS.EOM_ID)
# Qwen's own vocabulary normalizes text to NFC before splitting, which a GGUF file cannot express
# and llama.cpp does not do. Its end token identifies it; ours has the same split and no normalizer.
_QWEN_END = ("<|endoftext|>", 151_643)


# Reading.


def read_tokenizer(file: GGUFFile) -> Tokenizer:
    """The tokenizer of a GGUF file, encoding as llama.cpp does.

    Raises `UserError` for another kind of vocabulary, an unknown split pattern, and inconsistent
    tokens or merges.
    """
    tokens, types = _tokens(file)
    added = [
        {
            "id": id,
            "content": tokens[id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": types[id] != TokenType.USER_DEFINED,
        }
        for id in tokens
        if types[id] in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED)
    ]
    parts = _sentencepiece if file.str_(_KEYS.MODEL) == sentencepiece.NAME else _byte_level
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **parts(file, tokens, types),
    }
    with tokenizer_errors(f"{file.path} holds a tokenizer that cannot be read"):
        return Tokenizer(content, _config(file, tokens), _ends(file, tokens, types))


def _byte_level(file: GGUFFile, tokens: Mapping[int, str], types: Sequence[int]) -> dict[str, Any]:
    pre = _pre_tokenizer_name(file)
    nfc = pre == "qwen2" and tokens.get(_QWEN_END[1]) == _QWEN_END[0]
    return {
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


def _sentencepiece(
    file: GGUFFile, tokens: Mapping[int, str], types: Sequence[int]
) -> dict[str, Any]:
    given = file.metadata.get(_KEYS.SCORES)
    if not isinstance(given, np.ndarray) or given.dtype.kind != "f" or len(given) != len(types):
        raise UserError(
            f"{file.path} holds a SentencePiece vocabulary without a score for each token "
            f"({_KEYS.SCORES}); download it again"
        )
    words = [id for id in tokens if types[id] == TokenType.NORMAL]
    scores = {tokens[id]: float(given[id]) for id in words}
    unknown = next((token for id, token in tokens.items() if types[id] == TokenType.UNKNOWN), None)
    return {
        **sentencepiece.to_hf(
            {token: id for id, token in tokens.items()},
            scores,
            unknown,
            file.bool_(_KEYS.ADD_PREFIX, True),
        ),
        "post_processor": _first_token(file, tokens, begins=True),
    }


@dataclass(frozen=True)
class TokenIds:
    """The special ids. `ends` are all ids at which llama.cpp stops, the end of a turn first."""

    begin: int | None
    ends: tuple[int, ...]
    padding: int | None


def read_ids(file: GGUFFile) -> TokenIds:
    """The ids that a GGUF file names, and the end tokens that it has but does not name."""
    tokens, types = _tokens(file)
    begin, padding = (_id(file, key, tokens) for key in (_KEYS.BOS_ID, _KEYS.PAD_ID))
    return TokenIds(begin, _ends(file, tokens, types), padding)


def _ends(file: GGUFFile, tokens: Mapping[int, str], types: Sequence[int]) -> tuple[int, ...]:
    named = [_id(file, key, tokens) for key in (_KEYS.EOS_ID, *_MORE_ENDS)]
    ids = {token: id for id, token in tokens.items() if types[id] == TokenType.CONTROL}
    found = [*named, *(ids.get(token) for token in _ENDS)]
    return tuple(dict.fromkeys(id for id in found if id is not None))


def ends_by_name(tokenizer: Tokenizer) -> frozenset[int]:
    """The control tokens at which llama.cpp stops because of their names, whatever a file says."""
    tokens = tokenizer.special_tokens
    return frozenset(tokens[name] for name in _ENDS if name in tokens) & tokenizer.hidden_ids


def _pre_tokenizer_name(file: GGUFFile) -> str:
    model = file.str_(_KEYS.MODEL)
    if model != "gpt2":
        kind = _OTHER_MODELS.get(model, "a vocabulary")
        raise UserError(
            f"{file.path} holds {kind} ({_KEYS.MODEL}={model[:80]!r}); only byte-level BPE "
            "('gpt2') and SentencePiece's ('llama') are supported: use the Hugging Face folder"
        )
    pre = file.str_(_KEYS.PRE, "default")
    if pre not in PRE_TOKENIZERS:
        raise UserError(
            f"{file.path} splits text by the pattern {pre[:80]!r} ({_KEYS.PRE}), which is "
            f"unknown; known are: {', '.join(PRE_TOKENIZERS)}"
        )
    return pre


def _tokens(file: GGUFFile) -> tuple[dict[int, str], Sequence[int]]:
    """The tokens by id, without those that only pad the vocabulary; and every id's type."""
    texts = file.str_list(_KEYS.LIST)
    kinds = file.metadata.get(_KEYS.TOKEN_TYPE, np.full(len(texts), TokenType.NORMAL))
    if not isinstance(kinds, np.ndarray) or kinds.dtype.kind not in "iu":
        file.refuse(_KEYS.TOKEN_TYPE, kinds, "a list of whole numbers")
    types = kinds.tolist()
    if len(types) != len(texts):
        raise UserError(
            f"{file.path} has {len(texts):,} tokens and {len(types):,} types for them; "
            "download it again"
        )
    tokens = {
        id: text
        for id, text in enumerate(texts)
        # Before there was a type for padding, converters called it [PAD7] and user-defined.
        if text and types[id] != TokenType.UNUSED and text != f"[PAD{id}]"
    }
    if len(set(tokens.values())) != len(tokens):
        raise UserError(f"{file.path} has the same token twice; download it again")
    return tokens, types


def _model(file: GGUFFile, tokens: Mapping[int, str], whole_words: bool) -> dict[str, Any]:
    vocab = {token: id for id, token in tokens.items()}
    merges = []
    for line in file.str_list(_KEYS.MERGES):
        left, _, right = line.partition(" ")
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise UserError(
                f"{file.path} merges {line[:80]!r}, which is not two tokens that form a third; "
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
    """The corresponding `tokenizer_config.json`."""
    keys = {
        "bos_token": _KEYS.BOS_ID,
        "eos_token": _KEYS.EOS_ID,
        "pad_token": _KEYS.PAD_ID,
        "unk_token": _KEYS.UNK_ID,
    }
    ids = {name: _id(file, key, tokens) for name, key in keys.items()}
    has_template = _KEYS.CHAT_TEMPLATE in file.metadata
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: None if id is None else tokens[id] for name, id in ids.items()},
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": file.str_(_KEYS.CHAT_TEMPLATE) if has_template else None,
    }


def _first_token(file: GGUFFile, tokens: Mapping[int, str], begins: bool) -> dict[str, Any] | None:
    """A post-processor that prepends the beginning-of-sequence token, if texts begin with it."""
    bos = _id(file, _KEYS.BOS_ID, tokens)
    if bos is None or not file.bool_(_KEYS.ADD_BOS, begins):
        return None
    first = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    text, second = ({"Sequence": {"id": which, "type_id": n}} for n, which in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}},
    }


def _id(file: GGUFFile, key: str, tokens: Mapping[int, str]) -> int | None:
    """A special id; one outside the vocabulary means none, as in llama.cpp."""
    id = file.metadata.get(key)
    return id if isinstance(id, int) and not isinstance(id, bool) and id in tokens else None


# Writing.


def tokenizer_entries(
    tokenizer: Tokenizer,
    *,
    vocab_size: int,
    bos_id: int | None,
    eos_ids: Sequence[int],
    pad_id: int | None,
) -> dict[str, Any]:
    """The metadata entries for `tokenizer`, padded to the model's `vocab_size`.

    Raises `UserError` for a tokenizer that llama.cpp cannot reproduce: neither byte-level nor
    SentencePiece's BPE, an unnamed split pattern, a normalizer, added tokens that depend on their
    neighbors, or more end tokens than a file has entries for.
    """
    content = tokenizer.content
    if sentencepiece.is_sentencepiece(content):
        sentencepiece.refuse_unknown(content)
        spelled = sentencepiece.entries(content, *_padded_vocabulary(content, vocab_size))
    else:
        pre = _split_name(content)
        merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
        tokens, types = _padded_vocabulary(content, vocab_size)
        spelled = {
            _KEYS.MODEL: "gpt2",
            _KEYS.PRE: pre,
            _KEYS.LIST: tokens,
            _KEYS.TOKEN_TYPE: types,
            _KEYS.MERGES: merges,
        }
    _refuse_context_dependent(tokenizer)
    # If an entry is missing, llama.cpp uses token 11, whatever it is.
    end, *more_ends = _ends_written(tokenizer, eos_ids)
    begin = bos_id
    if begin is None:
        # A token that nothing begins with: <|endoftext|> here would open every text of ours.
        others = (id for name, id in tokenizer.special_tokens.items() if name != END_OF_TEXT)
        begin = end if end != tokenizer.special_tokens.get(END_OF_TEXT) else next(others, end)
    entries = {
        **spelled,
        _KEYS.BOS_ID: begin,
        _KEYS.EOS_ID: end,
        **dict(zip(_MORE_ENDS, more_ends, strict=False)),
        _KEYS.PAD_ID: pad_id,
        # llama.cpp and Ollama have one switch for conversations and plain texts. If the tokenizer
        # itself prepends the token (Llama 3), they should, too; they handle templates that also
        # write it. Otherwise nothing is prepended, as in transformers: ChatML begins with
        # <|im_start|>, and a token before it would give another prompt than in training.
        _KEYS.ADD_BOS: bos_id is not None and tokenizer.opening_ids[:1] == [bos_id],
        _KEYS.CHAT_TEMPLATE: tokenizer.chat_template or None,
    }
    return {name: value for name, value in entries.items() if value is not None}


def _split_name(content: Mapping[str, Any]) -> str:
    """llama.cpp's name for a byte-level BPE's split, if it also reproduces everything else."""
    model = content.get("model") or {}
    pre = name_of(content.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    if model.get("type") != "BPE" or pre is None:
        raise UserError(
            "this tokenizer cannot be written to GGUF: llama.cpp identifies byte-level BPE by the "
            "name of its split pattern, but has none for this; export to the Hugging Face format"
        )
    _refuse_normalizer(content.get("normalizer"), pre)
    if not model.get("merges"):
        raise UserError("this tokenizer has no merges, which llama.cpp needs; train a larger one")
    return pre


def _ends_written(tokenizer: Tokenizer, eos_ids: Sequence[int]) -> list[int]:
    """The end tokens for entries: the first of `eos_ids`, and those not recognized by name.

    If there is room, the end of a turn has its own entry, too, as in other converters' files.
    """
    first = eos_ids or [tokenizer.end_of_text]
    # A file cannot store ids without a token, which some configs name.
    ends = [id for id in (*first, *sorted(tokenizer.stop_ids)) if tokenizer.token_bytes(id)]
    end, named = ends[0] if ends else tokenizer.end_of_text, ends_by_name(tokenizer)
    unnamed = [*dict.fromkeys(id for id in ends if id not in named and id != end)]
    if len(unnamed) > len(_MORE_ENDS):
        names = ", ".join(tokenizer.decode([id]) for id in (end, *unnamed))
        raise UserError(
            f"this model ends its answers at {names}, but a GGUF file has entries for only "
            f"{len(_MORE_ENDS) + 1} such tokens; leave some out of eos_token_id in "
            "generation_config.json, or export to the Hugging Face format"
        )
    tokens = tokenizer.special_tokens
    turn_end = tokens.get("<|im_end|>", tokens.get("<|eot_id|>"))
    if turn_end is not None and turn_end in named and len(unnamed) < len(_MORE_ENDS):
        return [end, turn_end, *unnamed]
    return [end, *unnamed]


def _refuse_normalizer(normalizer: Any, pre: str) -> None:
    nothing = normalizer is None or normalizer == {"type": "Sequence", "normalizers": []}
    # llama.cpp's own converter drops Qwen's NFC, too.
    if nothing or (pre == "qwen2" and normalizer == {"type": "NFC"}):
        return
    kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
    raise UserError(
        f"this tokenizer normalizes text ({kind}), which llama.cpp would not do; "
        "export to the Hugging Face format"
    )


def _refuse_context_dependent(tokenizer: Tokenizer) -> None:
    """A GGUF file stores only the texts of added tokens. Control tokens that no template writes
    do not matter: they occur in no text and no conversation."""
    for one in tokenizer.content.get("added_tokens") or []:
        settings = [name for name in ("lstrip", "rstrip", "single_word") if one.get(name)]
        idle = one["id"] in tokenizer.special_ids and one["content"] not in (
            tokenizer.chat_template or ""
        )
        if settings and not idle:
            raise UserError(
                f"the added token {one['content']!r} has {settings[0]}=true, which a GGUF file "
                "cannot express and llama.cpp would not do; export to the Hugging Face format"
            )


def _padded_vocabulary(content: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Every id's token and type; ids without a token get fillers, as in llama.cpp's converter."""
    tokens = [f"[PAD{id}]" for id in range(vocab_size)]
    types: list[int] = [TokenType.UNUSED] * vocab_size
    added = [
        (one["content"], one["id"], TokenType.CONTROL if one["special"] else TokenType.USER_DEFINED)
        for one in content.get("added_tokens") or []
    ]
    for token, id, type in (
        *((token, id, TokenType.NORMAL) for token, id in content["model"]["vocab"].items()),
        *added,
    ):
        if not 0 <= id < vocab_size:
            raise UserError(
                f"token {token!r} has the id {id}, but the model's vocabulary has {vocab_size:,}; "
                "use the tokenizer that belongs to the model"
            )
        tokens[id], types[id] = token, type
    return tokens, types
