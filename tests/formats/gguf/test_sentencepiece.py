"""SentencePiece tokenizers in GGUF: llama.cpp's ids, and ours after a round trip."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, trainers
from torch.testing import assert_close
from transformers.convert_slow_tokenizer import generate_merges

from gguf_files import write_vocabulary
from groundup.errors import UserError
from groundup.formats.export import export
from groundup.formats.folder import save_model
from groundup.formats.gguf.header import read_gguf_header
from groundup.formats.gguf.tokenizer import read_tokenizer, tokenizer_entries
from groundup.formats.verify import verify
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.chat import encode_chat, render_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from llama_cpp import LlamaCpp, llama_cpp

REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Llama 2's, which puts a blank before every text; Gemma's, which puts none.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {
        "normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]},
        "pre_tokenizer": None,
    },
    "gemma": {
        "normalizer": REPLACE,
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
            "invert": False,
        },
    },
    "metaspace": {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False,
        },
    },
}  # fmt: skip
TEXTS = [
    "The sea is wide, the sea is deep, and the ship sails over the sea to the island.",
    "  two blanks,   three;\n\na line\tand a tab \n",
    "naïve café 🙂🙂 über straße ▁ ▁▁",
    "<s>no</s> control <unk> tokens <0x41> <0x0A> here",
    "日本語 のテキスト e\u0301 👩‍👩‍👧",
    "aaaa aaaaa abababab banana bananas",
    "x",
    " ",
    "   ",
    "\n",
    "",
]


def words() -> dict[str, int]:
    """A vocabulary of merges, with the special tokens and bytes first, as in SentencePiece."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False)
    fast.train_from_iterator([*TEXTS[:3], *TEXTS[5:6]] * 3, trainer)
    learned = json.loads(fast.to_str())["model"]["vocab"]
    # SentencePiece has single characters last.
    ordered = sorted(learned, key=lambda word: (len(word) == 1, learned[word]))
    # Some letters are no tokens, and become bytes.
    kept = [word for word in ordered if not {"🙂", "ß", "\t"} & {*word}]
    return {word: id for id, word in enumerate([*SPECIAL, *BYTES, *kept])}


def tokenizer_of(kind: str, merges: list[tuple[str, str]] | None = None, **model: Any) -> Tokenizer:
    vocab = words()
    scores = {word: -float(id) for word, id in vocab.items() if id >= 259}
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if kind == "llama":
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    found = generate_merges(scores, scores) if merges is None else merges
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for id, token in enumerate(SPECIAL)
        ],
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
            "byte_fallback": True, "ignore_merges": False, "vocab": vocab,
            "merges": [list(pair) for pair in found], "continuing_subword_prefix": None,
            "end_of_word_suffix": None, **model,
        },
        **copy.deepcopy(KINDS[kind]),
    }  # fmt: skip
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return Tokenizer(content, config)


def entries_of(tokenizer: Tokenizer) -> dict[str, Any]:
    size = tokenizer.vocab_size + 5
    return tokenizer_entries(tokenizer, vocab_size=size, bos_id=1, eos_ids=(2,), pad_id=None)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def theirs(kind: str, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    path = tmp_path_factory.mktemp("vocabulary") / "a.gguf"
    return LlamaCpp(write_vocabulary(path, entries_of(tokenizer_of(kind))), vocabulary_only=True)


def test_ids_equal_llama_cpps(kind: str, theirs: LlamaCpp) -> None:
    ours = tokenizer_of(kind)
    seen = set[int]()
    for text in TEXTS:
        assert ours.encode(text) == theirs.tokenize(text), text
        seen |= {*ours.encode(text)}
    vocab = ours.content["model"]["vocab"]
    assert {vocab[f"<0x{byte:02X}>"] for byte in "🙂".encode()} <= seen
    assert any(len(word) > 4 for word, id in vocab.items() if id in seen)
    assert seen.isdisjoint(range(3))


LETTERS = st.sampled_from("thesaipndb ab▁\n\tß🙂é<>/x0A")


@settings(max_examples=200)
@given(text=st.text(LETTERS, max_size=30))
def test_any_text_has_llama_cpps_ids(kind: str, theirs: LlamaCpp, text: str) -> None:
    assert tokenizer_of_kind(kind).encode(text) == theirs.tokenize(text)


@functools.cache
def tokenizer_of_kind(kind: str) -> Tokenizer:
    return tokenizer_of(kind)


def test_the_tokenizer_round_trips(kind: str, tmp_path: Path) -> None:
    ours = tokenizer_of(kind)
    path = write_vocabulary(tmp_path / "a.gguf", entries_of(ours))
    back = read_tokenizer(read_gguf_header(path))
    assert back.content["model"] == ours.content["model"]
    assert back.special_tokens == ours.special_tokens and back.stop_ids == ours.stop_ids
    for text in TEXTS:
        assert back.encode(text) == ours.encode(text)
        assert back.decode(back.encode(text)) == ours.decode(ours.encode(text))


def test_a_token_that_begins_texts_is_recorded(tmp_path: Path) -> None:
    content = dict(tokenizer_of("llama").content)
    ids = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": [first, text], "pair": [first, text, text],
        "special_tokens": ids,
    }  # fmt: skip
    begins = Tokenizer(content, {"bos_token": "<s>", "eos_token": "</s>"})
    for one in (begins, tokenizer_of("llama")):
        path = write_vocabulary(tmp_path / "a.gguf", entries_of(one))
        back = read_tokenizer(read_gguf_header(path))
        assert back.opening_ids == one.opening_ids
        model = LlamaCpp(path, vocabulary_only=True)
        expected = one.opening_ids + one.encode("the sea")
        assert model.tokenize("the sea", add_special=True) == expected
        model.close()


def test_a_model_with_such_a_tokenizer_is_exported(kind: str, tmp_path: Path) -> None:
    """And verified: llama.cpp's ids for the file equal those of our folder."""
    template = "{% for m in messages %}<s>[INST] {{ m.content }} [/INST]{% endfor %}"
    plain = tokenizer_of(kind)
    tokenizer = Tokenizer(plain.content, plain._config | {"chat_template": template})
    shape = ModelConfig.of(width=64, depth=1, vocab_size=704, context=64)
    model = CausalLM(replace(shape, model_type="llama", bos_token_id=1, eos_token_ids=(2,)))
    save_model(tmp_path / "model", model, tokenizer, card="# x\n")
    file = export(tmp_path / "model", type="f32") / "model.f32.gguf"
    assert [one for one in verify(file, tmp_path / "model") if one.status == "differs"] == []
    talk = [{"role": "user", "content": " the sea 🙂"}]
    with llama_cpp(file) as theirs:
        text = render_chat(tokenizer, talk)
        ids = encode_chat(tokenizer, talk).ids
        assert theirs.tokenize(text, parse_special=True) == ids
        with torch.no_grad():
            ours = model.logits(Batch.of(torch.tensor([ids])))[0]
        assert_close(torch.from_numpy(theirs.logits(ids)), ours, rtol=1e-3, atol=1e-3)


# Rejected tokenizers.


def changed(kind: str = "llama", **changes: Any) -> Tokenizer:
    plain = tokenizer_of(kind)
    return Tokenizer({**plain.content, **changes}, {"eos_token": "</s>"})


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
UNIGRAM = {
    "type": "Unigram", "unk_id": 0, "byte_fallback": False,
    "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["a", -1.0], ["▁", -2.0]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("tokenizer", "told"),
    [
        (
            lambda: changed(normalizer=None, pre_tokenizer=METASPACE),
            "in another way than llama.cpp",
        ),
        (lambda: changed(normalizer=PREPEND), "in another way than llama.cpp"),
        (lambda: changed("gemma", normalizer={"type": "NFC"}), "in another way than llama.cpp"),
        (lambda: tokenizer_of("llama", ignore_merges=True), "does not support"),
        (lambda: changed(model=UNIGRAM, pre_tokenizer=None), "does not support"),
        # As the trainer of `tokenizers` leaves it: of each token one pair.
        (lambda: tokenizer_of("llama", merges=one_pair_each()), "from some pairs of tokens later"),
        (lambda: tokenizer_of("llama", merges=one_pair_last()), "from some pairs"),
        (lambda: added("sea", special=True), "forms the token 'sea▁'"),
        (lambda: added("seas", special=False, normalized=True), "'seas' has normalized=true"),
    ],
)
def test_tokenizers_that_llama_cpp_would_handle_differently_are_rejected(
    tokenizer: Callable[[], Tokenizer], told: str
) -> None:
    with pytest.raises(UserError) as error:
        entries_of(tokenizer())
    assert told in str(error.value) and "\n" not in str(error.value)
    assert "convert_hf_to_gguf.py" in str(error.value)


def test_a_token_that_would_take_hours_to_split_is_rejected(tmp_path: Path) -> None:
    entries = entries_of(tokenizer_of("llama"))
    entries["tokenizer.ggml.tokens"][300] = "a" * 1_000_000
    with pytest.raises(UserError, match=r"'a+'… has 1,000,000 characters, but .* at most 256"):
        read_tokenizer(read_gguf_header(write_vocabulary(tmp_path / "a.gguf", entries)))
    with pytest.raises(UserError, match="has 1,000,000 characters"):
        entries_of(added("a" * 1_000_000, special=True))


def all_pairs() -> list[tuple[str, str]]:
    return [(left, right) for left, right in tokenizer_of("llama").content["model"]["merges"]]


def one_pair_each() -> list[tuple[str, str]]:
    return list({left + right: (left, right) for left, right in all_pairs()}.values())


def one_pair_last() -> list[tuple[str, str]]:
    """For a token that two pairs make, one comes after all others."""
    pairs = all_pairs()
    made = [left + right for left, right in pairs]
    first = next(place for place, word in enumerate(made) if made.count(word) > 1)
    return [*pairs[:first], *pairs[first + 1 :], pairs[first]]


def added(token: str, **form: bool) -> Tokenizer:
    """With one more added token, a word of two tokens, which llama.cpp would match in text."""
    content = dict(tokenizer_of("llama").content)
    size = len(content["model"]["vocab"])
    plain = dict(content["added_tokens"][0], id=size, content=token)
    content["added_tokens"] = [*content["added_tokens"], plain | form]
    return Tokenizer(content, {"eos_token": "</s>"})
