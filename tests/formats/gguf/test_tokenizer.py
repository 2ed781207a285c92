"""The tokenizer in a GGUF file: llama.cpp's ids, and ours after a round trip."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from gguf_files import write_vocabulary as write
from groundup.data.packs.fetch import pull_model
from groundup.errors import UserError
from groundup.formats.checks import added_texts, same_ids
from groundup.formats.gguf.header import read_gguf_header
from groundup.formats.gguf.pretokenizers import PRE_TOKENIZERS, name_of, to_hf
from groundup.formats.gguf.tokenizer import read_ids, read_tokenizer, tokenizer_entries
from groundup.text.bpe import BPE, SPECIAL_TOKENS
from groundup.text.chat import encode_chat, render_chat
from groundup.text.tokenizer import Tokenizer
from llama_cpp import LlamaCpp, llama_cpp

VOCABULARY = 704
HARD_TEXTS = [
    "The sea is wide, the sea is deep.",
    "don't DON'T I'll we'VE it's 'tis 's",
    "2024 12345678 3.14159 1,000,000 ½ ² ٣٤٥ 七八",
    "x  y   z\t\tq \t r\n\n\n s\r\nt  ",
    "   leading and trailing   ",
    "HTTPServer camelCase snake_case kebab-case /usr/bin #include <a.h>",
    "café cafe\u0301 naïve Ångström Grüße ЖЁ Ωμέγα שלום مرحبا हिन्दी ไทย 日本語 한국어",
    "😀😃 👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 e\u0301\u0302 \u200b\u200d\ufeff\xa0\u3000",
    "<|im_end|> <|endoftext|> <|im_start|>user </s> [PAD300] <think>",
    "$$$ +++ === `code` `` a`` ~~~ ^^^ |||| ... !!! ??? ;;; (((a)))",
    "\x00\x01\x7f\x80",
    "a" * 50 + " " * 30 + "\n" * 9,
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Its merges are learned on unsplit texts, so that every split pattern gives different ids."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([text[at:] for text in HARD_TEXTS for at in (0, 1, 3)], trainer)
    model = json.loads(fast.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    # A word that no merge makes: only where whole words come first is it found.
    vocab = model["vocab"] | {"\u0120leading": VOCABULARY - 1}
    made = Tokenizer.from_bpe(BPE(vocab=vocab, merges=merges))
    assert made.vocab_size == VOCABULARY
    return made


def with_content(tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    """The same tokenizer with other entries in its tokenizer.json."""
    content: dict[str, Any] = copy.deepcopy(dict(tokenizer.content))
    content["model"].update(changes.pop("model", {}))
    return Tokenizer(content | changes, {"chat_template": tokenizer.chat_template})


def entries_of(tokenizer: Tokenizer, **changes: Any) -> dict[str, Any]:
    settings = {"vocab_size": VOCABULARY + 8, "bos_id": 0, "eos_ids": (2, 0), "pad_id": 0}
    return tokenizer_entries(tokenizer, **settings | changes)


def read_back(path: Path, entries: Mapping[str, Any]) -> Tokenizer:
    return read_tokenizer(read_gguf_header(write(path, entries)))


def test_the_tokenizer_round_trips(tokenizer: Tokenizer, tmp_path: Path) -> None:
    back = read_back(tmp_path / "a.gguf", entries_of(tokenizer))
    assert back.content["model"] == tokenizer.content["model"]
    assert back.content["added_tokens"] == tokenizer.content["added_tokens"]
    assert back.special_tokens == tokenizer.special_tokens
    assert back.stop_ids == tokenizer.stop_ids == {0, 2}
    assert back.chat_template == tokenizer.chat_template
    assert back.vocab_size == VOCABULARY, "fillers are no tokens"
    assert back.token_bytes(VOCABULARY + 1) == b""
    for text in HARD_TEXTS:
        assert back.encode(text) == tokenizer.encode(text)
    messages = [{"role": "user", "content": "hello <|im_end|>"}]
    assert encode_chat(back, messages) == encode_chat(tokenizer, messages)
    back.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode(HARD_TEXTS[0]) == tokenizer.encode(
        HARD_TEXTS[0]
    )


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_ids_equal_llama_cpps_for_every_named_pattern(
    tokenizer: Tokenizer, tmp_path: Path, pre: str
) -> None:
    path = write(tmp_path / "a.gguf", entries_of(tokenizer) | {"tokenizer.ggml.pre": pre})
    ours = read_tokenizer(read_gguf_header(path))
    with llama_cpp(path, vocabulary_only=True) as theirs:
        for text in HARD_TEXTS:
            # llama.cpp's tekken takes letters beyond ASCII for large and small at once; we cut as
            # the tokenizer's author does.
            if "\x00" not in text and (pre != "tekken" or text.isascii()):  # C's strings end there
                assert ours.encode(text) == theirs.tokenize(text), text


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    path = tmp_path_factory.mktemp("vocabulary") / "a.gguf"
    return LlamaCpp(write(path, entries_of(tokenizer)), vocabulary_only=True)


# Characters that both editions of Unicode know: llama.cpp's tables and the encoder's differ in age.
OLD = st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"], exclude_characters="\0")


@settings(max_examples=300)
@given(text=st.text(OLD, max_size=40))
def test_any_text_has_llama_cpps_ids(tokenizer: Tokenizer, theirs: LlamaCpp, text: str) -> None:
    assert tokenizer.encode(text) == theirs.tokenize(text)


def test_llama_cpp_stops_at_our_stop_tokens(tokenizer: Tokenizer, theirs: LlamaCpp) -> None:
    stops = {id for id in range(VOCABULARY + 8) if theirs.stops_at(id)}
    assert stops == tokenizer.stop_ids


@pytest.mark.parametrize(
    ("eos", "more"),
    [
        (["<|endoftext|>", "<a>"], ["<|im_end|>"]),
        (["<a>", "<|im_end|>"], ["<|endoftext|>"]),
        (["<a>"], ["<|im_end|>", "<|endoftext|>"]),
        (["<|im_end|>", "<a>", "<b>"], ["<|endoftext|>"]),
        (["<a>", "<|im_end|>", "<b>", "<|endoftext|>", "<c>"], []),
        ([], ["<|endoftext|>", "<|im_end|>"]),
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_all_stop_tokens_survive(
    tokenizer: Tokenizer, tmp_path: Path, eos: list[str], more: list[str], special: bool
) -> None:
    whole = with_ends(tokenizer, "<a>", "<b>", "<c>", special=special)
    ids = {one["content"]: one["id"] for one in whole.content["added_tokens"]}
    entries = entries_of(whole, eos_ids=[ids[token] for token in eos])
    path = write(tmp_path / "a.gguf", entries)
    ends = [whole.decode([id]) for id in read_ids(read_gguf_header(path)).ends]
    assert sorted(ends) == sorted([*eos, *more]) and ends[:1] == (eos or more)[:1]
    with llama_cpp(path, vocabulary_only=True) as theirs:
        stops = {id for id in range(VOCABULARY + 8) if theirs.stops_at(id)}
    assert {whole.decode([id]) for id in stops} == {*eos, *more}


def test_an_ordinary_token_with_the_name_of_an_end_stays_ordinary(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    content = dict(with_ends(tokenizer, "<|eot_id|>", special=False).content)
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] != 2]
    writing = Tokenizer(content, {"chat_template": "x<|eot_id|>"})
    assert "<|eot_id|>" in writing.special_tokens and writing.stop_ids == {0}
    back = read_back(tmp_path / "a.gguf", entries_of(writing, eos_ids=(0,)))
    assert back.stop_ids == {0}


def test_an_end_named_only_by_the_tokenizers_files_survives(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    whole = with_ends(tokenizer, "<a>", "<b>")
    own = Tokenizer(dict(whole.content), {"eos_token": "<a>"}, [VOCABULARY + 1])
    back = read_back(tmp_path / "a.gguf", entries_of(own, eos_ids=(2,)))
    assert back.stop_ids == own.stop_ids == {0, 2, VOCABULARY, VOCABULARY + 1}


def test_more_ends_than_the_file_has_entries_for_are_rejected(tokenizer: Tokenizer) -> None:
    names = ("<a>", "<b>", "<c>", "<d>")
    ids = range(VOCABULARY, VOCABULARY + 4)
    with pytest.raises(
        UserError, match=r"answers at <a>, <b>, <c>, <d>, .* entries for only 3 such"
    ):
        entries_of(with_ends(tokenizer, *names), eos_ids=ids)
    # An id without a token counts for nothing.
    entries_of(with_ends(tokenizer, *names[:3]), eos_ids=ids)


def with_ends(tokenizer: Tokenizer, *names: str, special: bool = True) -> Tokenizer:
    """The tokenizer with added tokens of these names, at which a model may end its answers."""
    plain = tokenizer.content["added_tokens"]
    own = [
        plain[0] | {"id": VOCABULARY + place, "content": name, "special": special}
        for place, name in enumerate(names)
    ]
    return with_content(tokenizer, added_tokens=[*plain, *own])


def test_llama_cpp_adds_nothing_to_a_conversation(tokenizer: Tokenizer, theirs: LlamaCpp) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]
    rendered = render_chat(tokenizer, messages, generation_prompt=True)
    ours = encode_chat(tokenizer, messages, generation_prompt=True).ids
    assert theirs.tokenize(rendered, add_special=True, parse_special=True) == ours


def test_a_model_without_a_template_gets_no_additional_first_token(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    content = dict(tokenizer.content)
    base = Tokenizer(content, {"eos_token": "<|endoftext|>", "chat_template": None})
    path = write(tmp_path / "a.gguf", entries_of(base))
    with llama_cpp(path, vocabulary_only=True) as theirs:
        assert theirs.tokenize("The sea", add_special=True) == tokenizer.encode("The sea")


def test_a_tokenizer_with_a_first_token_records_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As Llama 3's does, whose template writes the token, too."""
    first = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    processor: dict[str, Any] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, text],
    }
    processor["special_tokens"] = {
        "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
    }
    for post in (processor, {"type": "Sequence", "processors": [processor]}):
        entries = entries_of(with_content(tokenizer, post_processor=post), bos_id=1)
        assert entries["tokenizer.ggml.add_bos_token"] is True
        back = read_back(tmp_path / "a.gguf", entries)
        assert back.content["post_processor"]["single"][0] == first
    assert entries_of(tokenizer, bos_id=1)["tokenizer.ggml.add_bos_token"] is False


def test_types_of_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    added = [*tokenizer.content["added_tokens"]]
    added[1] = added[1] | {"special": False}
    entries = entries_of(with_content(tokenizer, added_tokens=added))
    types = entries["tokenizer.ggml.token_type"]
    assert types[:4] == [3, 4, 3, 1] and types[-8:] == [5] * 8
    assert entries["tokenizer.ggml.tokens"][-1] == f"[PAD{VOCABULARY + 7}]"
    back = read_back(tmp_path / "a.gguf", entries)
    assert back.content["added_tokens"] == added


def test_padding_tokens_of_old_converters_are_ignored(tokenizer: Tokenizer, tmp_path: Path) -> None:
    entries = entries_of(tokenizer)
    types = [4 if kind == 5 else kind for kind in entries["tokenizer.ggml.token_type"]]
    back = read_back(tmp_path / "a.gguf", entries | {"tokenizer.ggml.token_type": types})
    assert back.vocab_size == VOCABULARY and back.special_tokens == tokenizer.special_tokens


def test_qwens_vocabulary_normalizes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    size = 151_646
    content: dict[str, Any] = copy.deepcopy(dict(tokenizer.content))
    end = content["model"]["vocab"].pop("<|endoftext|>")
    content["model"]["vocab"]["<|endoftext|>"] = 151_643
    content["added_tokens"][end]["id"] = 151_643
    qwen = Tokenizer(content | {"normalizer": {"type": "NFC"}}, {})
    entries = entries_of(qwen, vocab_size=size, bos_id=151_643, eos_ids=(2,), pad_id=151_643)
    back = read_back(tmp_path / "a.gguf", entries)
    assert back.content["normalizer"] == {"type": "NFC"}
    assert back.encode("cafe\u0301") == back.encode("café") == qwen.encode("café")


# Names of cuts.


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pattern_is_recognized(pre: str) -> None:
    kind = PRE_TOKENIZERS[pre]
    name = name_of(to_hf(kind), kind.whole_words)
    assert name is not None and PRE_TOKENIZERS[name] == PRE_TOKENIZERS[pre]


def test_every_pattern_gives_different_ids(tokenizer: Tokenizer) -> None:
    """Otherwise the comparison with llama.cpp would prove nothing."""
    kinds = set(PRE_TOKENIZERS.values())
    made = {
        str(
            with_content(
                tokenizer, pre_tokenizer=to_hf(kind), model={"ignore_merges": kind.whole_words}
            ).encode_batch(HARD_TEXTS)
        )
        for kind in kinds
    }
    assert len(made) == len(kinds), made


def test_patterns_in_other_spellings(tokenizer: Tokenizer) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False}
    digits = {"type": "Digits", "individual_digits": True}
    [split, _] = tokenizer.content["pre_tokenizer"]["pretokenizers"]
    removed = split | {"behavior": "Removed", "invert": True}
    assert name_of(gpt2, False) == "gpt-2"
    assert name_of({"type": "Sequence", "pretokenizers": [digits, gpt2]}, False) == "smollm"
    assert name_of({"type": "Sequence", "pretokenizers": [removed, byte_level]}, False) == "qwen2"


@pytest.mark.parametrize(
    "pre",
    [
        None,
        "ByteLevel",
        {"type": "ByteLevel"},  # which puts a space before the text
        {"type": "Whitespace"},
        {"type": "Sequence", "pretokenizers": []},
        {"type": "Sequence", "pretokenizers": [7]},
        {"type": "Sequence", "pretokenizers": {"a": 1}},
        {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated"},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        },
    ],
)
def test_an_unknown_pattern_has_no_name(pre: Any) -> None:
    assert name_of(pre, False) is None


# Rejected tokenizers.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "split pattern"),
        ({"model": {"ignore_merges": True}}, "split pattern"),
        ({"model": {"byte_fallback": True}}, "a SentencePiece vocabulary"),
        ({"pre_tokenizer": None}, "convert_hf_to_gguf.py"),
        ({"model": {"merges": []}}, "no merges"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizes text (Lowercase)"),
    ],
)
def test_tokenizers_that_llama_cpp_cannot_express_are_rejected(
    tokenizer: Tokenizer, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError) as error:
        entries_of(with_content(tokenizer, **changes))
    assert told in str(error.value)


def test_a_tokenizer_larger_than_the_model_is_rejected(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the model's vocabulary has 700"):
        entries_of(tokenizer, vocab_size=700)


# Rejected files.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "llama"}, "a SentencePiece vocabulary without a score for each token"),
        ({"model": "llama", "scores": [0.5, 1.0]}, "a SentencePiece vocabulary without a score"),
        ({"model": "bert"}, "a WordPiece vocabulary"),
        ({"model": "t5"}, "a Unigram vocabulary"),
        ({"model": "other\n"}, "'other\\n'"),
        ({"pre": "nobody-knows"}, "known are: qwen2"),
        ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, "the same token twice"),
        ({"token_type": [1, 2]}, "712 tokens and 2 types"),
        ({"token_type": [0.5] * 712}, "a list of whole numbers"),
        ({"merges": ["a b c"]}, "which is not two tokens"),
        ({"merges": ["aa"]}, "which is not two tokens"),
        ({"merges": [1, 2]}, "a list of texts"),
        ({"tokens": [1, 2]}, "a list of texts"),
    ],
)
def test_unsupported_vocabularies(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    entries = entries_of(tokenizer)
    entries |= {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    with pytest.raises(UserError) as error:
        read_back(tmp_path / "a.gguf", entries)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model", "tokens", "merges"])
def test_missing_parts_are_named(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    entries = entries_of(tokenizer)
    del entries[f"tokenizer.ggml.{name}"]
    with pytest.raises(UserError, match=f"lacks the metadata entry 'tokenizer.ggml.{name}'"):
        read_back(tmp_path / "a.gguf", entries)


def test_ids_outside_the_vocabulary_mean_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lies = {"bos": 2**32 - 1, "eos": 10**6, "padding": VOCABULARY + 3}
    entries = entries_of(tokenizer) | {f"tokenizer.ggml.{k}_token_id": v for k, v in lies.items()}
    file = read_gguf_header(write(tmp_path / "a.gguf", entries))
    ids = read_ids(file)
    assert (ids.begin, ids.ends, ids.padding) == (None, (2, 0), None)  # by what they are called
    assert read_tokenizer(file).template_variables == {}


# SmolLM2 as it is.


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return pull_model("smollm2")


def test_smollm2s_tokenizer(smollm2: Path) -> None:
    tokenizer = read_tokenizer(read_gguf_header(smollm2))
    assert tokenizer.vocab_size == 49_152 and tokenizer.stop_ids == {0, 2}
    ids = tokenizer.encode("In 2024")
    assert [tokenizer.token_bytes(id) for id in ids] == [b"In", b" ", b"2", b"0", b"2", b"4"]
    with llama_cpp(smollm2, vocabulary_only=True) as theirs:
        for text in HARD_TEXTS:
            if "\x00" not in text:
                assert tokenizer.encode(text) == theirs.tokenize(text), text
        messages = [{"role": "user", "content": "What is 2 + 2?"}]
        rendered = render_chat(tokenizer, messages, generation_prompt=True)
        assert rendered.startswith(
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"
        )
        ours = encode_chat(tokenizer, messages, generation_prompt=True).ids
        assert theirs.tokenize(rendered, add_special=True, parse_special=True) == ours


def test_smollm2s_vocabulary_round_trips(smollm2: Path, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(read_gguf_header(smollm2))
    settings: Any = {"vocab_size": 49_152, "bos_id": 1, "eos_ids": (2, 0), "pad_id": 2}
    back = read_back(tmp_path / "a.gguf", tokenizer_entries(tokenizer, **settings))
    assert back.content == tokenizer.content
    assert back.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("setting", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_with_context_conditions_are_rejected(
    tokenizer: Tokenizer, setting: str
) -> None:
    plain = tokenizer.content["added_tokens"]
    tag = plain[0] | {"id": VOCABULARY, "content": "<tag>", "special": False}
    size = {"vocab_size": VOCABULARY + 8}
    entries_of(with_content(tokenizer, added_tokens=[*plain, tag]), **size)
    with pytest.raises(UserError, match=f"'<tag>' has {setting}=true.*Hugging Face format"):
        entries_of(with_content(tokenizer, added_tokens=[*plain, tag | {setting: True}]), **size)
    # A control token is written by the template, or occurs in no text of the model.
    mask = tag | {setting: True, "special": True}
    entries_of(with_content(tokenizer, added_tokens=[*plain, mask]), **size)
    content = dict(with_content(tokenizer, added_tokens=[*plain, mask]).content)
    writing = Tokenizer(content, {"chat_template": "<tag>{{ messages[0].content }}"})
    with pytest.raises(UserError, match=f"'<tag>' has {setting}=true"):
        entries_of(writing, **size)


def test_the_comparison_of_ids_has_every_added_token(tokenizer: Tokenizer) -> None:
    """So a copy that lost one, or its treatment of neighbors, is detected."""
    plain = tokenizer.content["added_tokens"]
    tag = plain[0] | {"id": VOCABULARY, "content": "qxq", "special": False}
    whole = with_content(tokenizer, added_tokens=[*plain, tag])
    texts = added_texts(whole)
    assert same_ids("ids", whole, whole, texts).status == "same"
    others = [tag | {setting: True} for setting in ("lstrip", "rstrip", "single_word")]
    copies = [with_content(tokenizer, added_tokens=[*plain, other]) for other in others]
    for copy_ in (tokenizer, *copies):
        assert same_ids("ids", copy_, whole, texts).status == "differs"
