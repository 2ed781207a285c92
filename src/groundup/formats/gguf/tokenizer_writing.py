"""A tokenizer as the entries of a GGUF file: `gguf_tokenizer` the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.errors import UserError
from groundup.formats.gguf.pretokenizers import name_of
from groundup.formats.gguf.tokenizer import CONTROL, NORMAL, PREFIX, UNUSED, USER_DEFINED
from groundup.text.tokenizer import Tokenizer


def tokenizer_entries(
    tokenizer: Tokenizer,
    *,
    vocab_size: int,
    bos_id: int | None,
    eos_ids: Sequence[int],
    pad_id: int | None,
) -> dict[str, Any]:
    """The metadata entries that hold `tokenizer`, filled up to the model's `vocab_size`.

    Raises `UserError` for a tokenizer that llama.cpp could not follow: not byte-level BPE, cut by
    a pattern it has no name for, or changed by a normaliser.
    """
    content = tokenizer.content
    model = content.get("model") or {}
    pre = name_of(content.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    if model.get("type") != "BPE" or model.get("byte_fallback") or pre is None:
        raise UserError(
            "this tokenizer cannot be written to GGUF: llama.cpp knows byte-level BPE by the name "
            "of its split pattern, and has none for this one; export to the Hugging Face format"
        )
    _refuse_normaliser(content.get("normalizer"), pre)
    if not model.get("merges"):
        raise UserError("this tokenizer has no merges, which llama.cpp needs; train a larger one")
    tokens, types = _filled(content, vocab_size)
    # llama.cpp takes token 11, whatever it is, for both where no entry names another.
    end = next(iter(eos_ids), tokenizer.end_of_text)
    begin = end if bos_id is None else bos_id
    turn_end = tokenizer.special_tokens.get(
        "<|im_end|>", tokenizer.special_tokens.get("<|eot_id|>")
    )
    entries = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": types,
        "merges": [m if isinstance(m, str) else " ".join(m) for m in model.get("merges", [])],
        "bos_token_id": begin,
        "eos_token_id": end,
        "eot_token_id": turn_end,
        "padding_token_id": pad_id,
        "add_bos_token": bos_id is not None and _begins_with(tokenizer, bos_id),
    }
    written = {f"{PREFIX}{name}": value for name, value in entries.items() if value is not None}
    if tokenizer.chat_template:
        written["tokenizer.chat_template"] = tokenizer.chat_template
    return written


def _begins_with(tokenizer: Tokenizer, bos_id: int) -> bool:
    """Whether llama.cpp shall put the beginning-of-sequence token before what it is given.

    llama.cpp and Ollama have one switch for conversations and bare texts alike. Where the tokenizer
    itself puts the token first (Llama 3), so shall they, and they know of templates that write it
    as well. Else they leave texts alone, as transformers does: ChatML begins with <|im_start|>, and
    a token before it would make another prompt than in training.
    """
    return tokenizer.opening_ids[:1] == [bos_id]


def _refuse_normaliser(normaliser: Any, pre: str) -> None:
    nothing = normaliser is None or normaliser == {"type": "Sequence", "normalizers": []}
    # Qwen's NFC is left out by llama.cpp's own converter, too.
    if nothing or (pre == "qwen2" and normaliser == {"type": "NFC"}):
        return
    kind = normaliser.get("type") if isinstance(normaliser, dict) else normaliser
    raise UserError(
        f"this tokenizer normalises text ({kind}), which llama.cpp would not do; "
        "export to the Hugging Face format"
    )


def _filled(content: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Every id's token and type; an id without a token gets a filler, as llama.cpp's converter."""
    tokens = [f"[PAD{id}]" for id in range(vocab_size)]
    types = [UNUSED] * vocab_size
    added = [
        (one["content"], one["id"], CONTROL if one["special"] else USER_DEFINED)
        for one in content.get("added_tokens") or []
    ]
    for token, id, type in (
        *((token, id, NORMAL) for token, id in content["model"]["vocab"].items()),
        *added,
    ):
        if not 0 <= id < vocab_size:
            raise UserError(
                f"token {token!r} has the id {id}, but the model's vocabulary has {vocab_size:,}; "
                "use the tokenizer that belongs to the model"
            )
        tokens[id], types[id] = token, type
    return tokens, types
