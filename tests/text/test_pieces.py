"""Encoding with control tokens, and of text streams: the same ids as of the whole text."""

from __future__ import annotations

import itertools
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Fast
from transformers import AutoTokenizer

from groundup.errors import UserError
from groundup.formats.gguf.pretokenizers import PRE_TOKENIZERS, to_hf
from groundup.text.bpe import BPE, GPT2_PATTERN, train_bpe
from groundup.text.pieces import CHUNK
from groundup.text.tokenizer import Tokenizer

TEXT = (
    "It was the best of times, it was the worst of times; 1859 and 2024. Don't they'll we've I'm.\n"
    "Crème brûlée, naïve café — e\u0301a\u0300 — Straße, Москва, 東京は大きい。 🙂\n\n \n"
    "   three  spaces\t\ttabs\r\n\r\n<|endoftext|>x <|im_end|>\n"
)
# Boundaries at which tokenizers split texts, and ones where they must not.
SNIPPETS = [
    "a", "b", " the", " of", "'", "'ll", "'s", " ", "  ", "\n", "\n\n", "\r\n", " \n", "\t", ".",
    "。", "東京", "é", "e\u0301", "\u0301", "🙂", "👩‍👧", "1", "23", "4567", "<|endoftext|>",
    "<|im_end|>", "<|endo", "ftext|>", "<|", "|>", "\ud800", "\u00a0", "camelCase", "HTTPServer",
    "!?...", "-",
]  # fmt: skip
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|endoftext|><|endoftext|>")


def trained(pattern: str | None = None) -> Tokenizer:
    settings = {} if pattern is None else {"pattern": pattern}
    words = TEXT.replace("<|", "").replace("|>", "")  # or one may be learned, in a long piece
    return Tokenizer.from_bpe(train_bpe([words] * 3, 420, special_tokens=SPECIALS, **settings))


def with_content(tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    return Tokenizer({**tokenizer.content, **changes}, {})


def with_added(tokenizer: Tokenizer) -> Tokenizer:
    """With tokens of several words, as in reasoning and code models."""
    fast = Fast.from_str(json.dumps(tokenizer.content))
    fast.add_tokens([AddedToken(text, normalized=False) for text in ("<th k>", "    ", "e 1")])
    fast.add_tokens([AddedToken("sea", normalized=False, lstrip=True, rstrip=True)])
    return Tokenizer(json.loads(fast.to_str()), {})


def sentencepiece_like() -> Tokenizer:
    """Llama 2's kind: blanks become "▁", no pre-tokenizer, one more "▁" before a text."""
    letters = sorted({*TEXT.replace(" ", "▁"), "▁"})
    words = ["▁t", "he", "▁the", "▁o", "f", "▁of", "▁▁"]
    vocab: dict[str, int] = {"<unk>": 0}
    for token in [*(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words]:
        vocab.setdefault(token, len(vocab))
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "o"), ("▁o", "f"), ("▁", "▁")]
    fast = Fast(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fast.decoder = decoders.Fuse()
    fast.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    return Tokenizer(json.loads(fast.to_str()), {})


def metaspace() -> Tokenizer:
    content = dict(sentencepiece_like().content)
    content["normalizer"] = None
    content["pre_tokenizer"] = json.loads(
        pre_tokenizers.Metaspace(prepend_scheme="first").__getstate__()
    )
    return Tokenizer(content, {})


KINDS = {
    "ours": lambda: trained(),
    "gpt2": lambda: trained(GPT2_PATTERN),
    "any text at once": lambda: trained(r"[\s\S]+"),
    "pairs of words": lambda: trained(r"\S+\s+\S+|\s+|\S+"),
    "nfc": lambda: with_content(trained(), normalizer={"type": "NFC"}),
    "lower case": lambda: with_content(trained(), normalizer={"type": "Lowercase"}),
    "strips": lambda: with_content(
        trained(), normalizer={"type": "Strip", "strip_left": True, "strip_right": True}
    ),
    "added tokens": lambda: with_added(trained()),
    "prefix space": lambda: with_content(
        trained(),
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                       "use_regex": True},
    ),
    "sentencepiece": sentencepiece_like,
    "metaspace": metaspace,
    **{
        name: (lambda name=name: with_content(trained(), pre_tokenizer=to_hf(PRE_TOKENIZERS[name])))
        for name in ("llama-bpe", "smollm", "tekken", "falcon", "qwen35", "default")
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Tokenizer:
    tokenizer: Tokenizer = KINDS[request.param]()
    return tokenizer


def random_text(rng: random.Random, snippets: int) -> str:
    """Some runs of one kind, otherwise hardly any text would be long without a boundary."""
    return "".join(rng.choice(SNIPPETS) * rng.choice((1, 1, 1, 2, 9)) for _ in range(snippets))


def parted(rng: random.Random, text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        size = rng.choice((0, 1, 2, 7, 100, 5000))
        yield text[place : place + size]
        place += size


def test_a_stream_has_the_ids_of_the_whole_text_for_any_split(kind: Tokenizer) -> None:
    for seed in range(2):
        rng = random.Random(seed)
        text = random_text(rng, 4000)
        assert len(text) > 3 * CHUNK
        for allowed in ((), "all", {"<|im_end|>"}):
            stream = kind.encode_iterable(parted(rng, text), allowed)
            assert list(stream) == kind.encode(text, allowed), (seed, allowed)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=5), max_size=30))
def test_short_streams_too(texts: list[str]) -> None:
    tokenizer = _ours()
    assert list(tokenizer.encode_iterable(texts)) == tokenizer.encode("".join(texts))
    everything = tokenizer.encode("".join(texts), allowed_special="all")
    assert list(tokenizer.encode_iterable(texts, "all")) == everything


def _ours(cache: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006
    if not cache:
        cache.append(trained())
    return cache[0]


@pytest.mark.parametrize("name", ["ours", "nfc", "gpt2", "sentencepiece", "metaspace"])
@pytest.mark.parametrize(
    "line", ["It was the best of times.\n", "東京は大きい。", "x" * 9 + "\n\n"]
)
def test_a_stream_is_read_incrementally(name: str, line: str) -> None:
    """An endless one: requested ids come, and only a few chunks are kept in memory."""
    tokenizer = KINDS[name]()
    if name in ("sentencepiece", "metaspace") and " " not in line:
        line = f"x {line}"  # they split texts only at blanks after words
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += len(line)
            yield line

    stream = tokenizer.encode_iterable(endless())
    first = list(itertools.islice(stream, 2000))
    assert tokenizer.encode(line * 4000)[:2000] == first
    letters = read
    tracemalloc.start()
    for _ in itertools.islice(stream, 30_000):
        pass
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read > letters + 15_000 and held < 2_000_000


def test_a_file_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(TEXT * 200, encoding="utf-8", newline="")
    with open(tmp_path / "text", encoding="utf-8", newline="") as file:
        found = list(_ours().encode_iterable(file, {"<|endoftext|>"}))
    assert found == _ours().encode(TEXT * 200, {"<|endoftext|>"})
    assert found.count(_ours().end_of_text) == 200


# Control tokens on request.


def test_all_control_tokens_equal_transformers(kind: Tokenizer, tmp_path: Path) -> None:
    kind.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["<|im_start|>user\nhi<|im_end|>\n", " a <|endoftext|> b", "<|im_end|><|im_end|>", TEXT,
             "no control token", "<|im_end", "", "<|endoftext|><|endoftext|>"]  # fmt: skip
    for text in texts:
        wanted = theirs(text, add_special_tokens=False)["input_ids"]
        assert kind.encode(text, allowed_special="all") == wanted, text


def test_selected_ones_are_ids_and_the_others_text() -> None:
    tokenizer = _ours()
    end, stop = tokenizer.end_of_text, tokenizer.im_end
    text = "a<|endoftext|>b<|im_end|>c"
    for nothing in ((), set(), []):
        assert tokenizer.encode(text, nothing) == tokenizer.encode(text)
    assert not {end, stop} & set(tokenizer.encode(text))
    some = tokenizer.encode(text, allowed_special={"<|im_end|>"})
    assert some == [*tokenizer.encode("a<|endoftext|>b"), stop, *tokenizer.encode("c")]
    for allowed in ("all", ["<|im_end|>", "<|endoftext|>"]):
        assert [i for i in tokenizer.encode(text, allowed) if i in (end, stop)] == [end, stop]
        assert tokenizer.decode(tokenizer.encode(text, allowed)) == text


@pytest.mark.parametrize("text", ["don'tfoo.", "|>_foo", "x foo1", "x)_foo ", "1foo ", "foo-"])
def test_no_stream_is_split_next_to_a_token_that_must_be_a_single_word(text: str) -> None:
    fast = Fast.from_str(json.dumps(trained().content))
    fast.add_tokens([AddedToken("foo", single_word=True)])
    tokenizer = Tokenizer(json.loads(fast.to_str()), {})
    for _ in range(len(text)):
        whole = text * 3_000
        assert list(tokenizer.encode_iterable([whole])) == tokenizer.encode(whole)
        text = text[1:] + text[:1]


def test_of_two_with_a_common_prefix_the_longer_matches() -> None:
    tokenizer = _ours()
    double = tokenizer.special_tokens["<|endoftext|><|endoftext|>"]
    assert tokenizer.encode("<|endoftext|>" * 3, "all") == [double, tokenizer.end_of_text]
    assert list(tokenizer.encode_iterable(["<|endoftext|>", "<|endoftext|>"], "all")) == [double]


@pytest.mark.parametrize("allowed", ["<|im_end|>", {"<|nonsense|>"}, ["<|im_end|>", "the"]])
def test_an_unknown_name_is_rejected(allowed: Any) -> None:
    with pytest.raises(UserError, match="allowed_special"):
        _ours().encode("text", allowed)
    with pytest.raises(UserError, match="allowed_special"):
        _ours().encode_iterable(["text"], allowed)


# Vocabularies of bytes, as tiktoken and courses have them.


def test_a_vocabulary_of_bytes_round_trips() -> None:
    learned = train_bpe([TEXT], 380, special_tokens=("<|endoftext|>",), pattern=GPT2_PATTERN)
    vocab, merges = learned.to_bytes()
    assert sorted(vocab) == list(range(380)) and all(type(v) is bytes for v in vocab.values())
    assert {bytes([byte]) for byte in range(256)} <= set(vocab.values())
    assert all(left + right in vocab.values() for left, right in merges)
    again = BPE.from_bytes(vocab, merges, ["<|endoftext|>"])
    assert (again.vocab, again.merges) == (learned.vocab, learned.merges)
    one, other = (Tokenizer.from_bpe(bpe, None) for bpe in (learned, again))
    assert one.encode(TEXT, "all") == other.encode(TEXT, "all")


def test_special_tokens_missing_from_a_vocabulary_are_appended() -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)}
    tokenizer = Tokenizer.from_bpe(BPE.from_bytes(vocab, [], ["<a>", "<b>"]), None)
    assert tokenizer.encode("<b>é<a>", "all") == [257, *"é".encode(), 256]
    with pytest.raises(UserError, match="twice"):
        BPE.from_bytes({**vocab, 256: b"a"}, [])
