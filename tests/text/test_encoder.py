"""The C encoder splits and merges exactly like the `tokenizers` library."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from groundup.errors import UserError
from groundup.text import encoder
from groundup.text.bpe import train_bpe
from groundup.text.encoder import FastEncoder, pre_tokens
from groundup.text.pretokens import GPT2_PATTERN, SPLIT_PATTERN, split_text
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a compiler")

# Cases that the pattern distinguishes, and characters that are easily confused.
TELLING = "'sStTrReEvVmMlLdDſşŧĿ aZ09½１²é中ß_-.!\t\n\r\x0b\x85\u00a0\u200b\u3000\u0301😀𝒜𠀀🏽"
texts = st.one_of(st.text(alphabet=TELLING, max_size=60), st.text(max_size=60))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    text = "It's a banana, we'll see: 12 bandanas\r\n\n  and naïve cafés; 中文 😀 don't!\t"
    return Tokenizer.from_bpe(train_bpe([text * 3, TELLING * 2], 360))


@pytest.fixture(scope="module")
def fast(tokenizer: Tokenizer) -> FastEncoder:
    found = FastEncoder.of(tokenizer.content, tokenizer.special_ids)
    assert found is not None
    return found


def split(text: str) -> list[str]:
    return [piece.decode() for some in pre_tokens(text, SPLIT_PATTERN) for piece in some]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_texts_are_split_like_the_pattern(text: str) -> None:
    assert split(text) == split_text(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=4))
def test_ids_equal_the_librarys(tokenizer: Tokenizer, fast: FastEncoder, some: list[str]) -> None:
    safe = [text.encode("utf-8", "replace") for text in some]
    for text, ids in zip(safe, fast.encode(safe), strict=True):
        assert ids is None or ids.tolist() == tokenizer.encode(text.decode())


@pytest.mark.parametrize(
    ("pattern", "kind"), [(r"\p{L}", 1), (r"\p{N}", 2), (r"[^\S\r\n]", 3), (r"[\r\n]", 4)]
)
def test_every_code_point_is_classified_correctly(pattern: str, kind: int) -> None:
    """Every code point that is not left to the library."""
    whole = "".join(chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000)
    places = pre_tokenizers.Split(Regex(f"{pattern}+"), "isolated").pre_tokenize_str(whole)
    of_library = np.zeros(0x30000, bool)
    for piece, _ in places:
        inside = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(piece[0])
        if not inside:
            of_library[[ord(char) for char in piece]] = True
    classes = encoder._classes()[:0x30000]
    known = classes != encoder._UNKNOWN
    assert known.sum() > 100_000
    assert ((classes == kind) == of_library)[known].all()


def test_a_corpus_is_encoded_like_its_texts(tokenizer: Tokenizer) -> None:
    """With texts that are left to the library: an unassigned character, a very long word."""
    rng = random.Random(0)
    corpus = ["".join(rng.choices(TELLING, k=rng.randint(0, 900))) for _ in range(200)]
    corpus[3:5] = ["a" * 600 + " b", "sign \u0378 here"]
    assert sum(map(len, corpus)) > 2**16
    assert tokenizer.encode_batch(corpus) == [tokenizer.encode(text) for text in corpus]


def test_long_words_and_unknown_characters_are_left_to_the_library(fast: FastEncoder) -> None:
    found = fast.encode(["é".encode() * 256, b"a" * 513, "\u0378".encode(), b""])
    assert [ids is None for ids in found] == [False, True, True, False]
    assert split("one two \u0378three") == split_text("one two \u0378three")


def test_letters_that_resemble_contractions_are_not_contractions() -> None:
    for text in ("O'şehir", "'şey", "'ŧ", "'ſo", "it'Snow", "'re're", "'l'll"):
        assert split(text) == split_text(text), text


def test_a_long_text_is_split_in_parts() -> None:
    parts = list(pre_tokens("a b" * 70_000, SPLIT_PATTERN))
    assert len(parts) > 1 and max(map(len, parts)) <= 2**16
    assert b"".join(piece for part in parts for piece in part) == b"a b" * 70_000


def test_other_patterns_use_the_library() -> None:
    [pieces] = pre_tokens("in 1984", GPT2_PATTERN)
    assert pieces == [b"in", b" 1984"]
    assert split("in 1984") == ["in", " ", "1", "9", "8", "4"]


def test_only_matching_tokenizers_use_the_encoder(tokenizer: Tokenizer) -> None:
    def changed(**parts: object) -> FastEncoder | None:
        content = copy.deepcopy(dict(tokenizer.content)) | parts
        return FastEncoder.of(json.loads(json.dumps(content)), tokenizer.special_ids)

    plain = tokenizer.content
    assert changed() is not None
    assert changed(normalizer={"type": "NFC"}) is None
    assert changed(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False}) is None
    assert changed(pre_tokenizer=None) is None
    assert changed(model=plain["model"] | {"ignore_merges": True}) is None
    assert changed(model=plain["model"] | {"type": "Unigram"}) is None
    joined = next(iter(plain["model"]["merges"]))
    made = plain["model"]["vocab"]["".join(joined)]
    assert FastEncoder.of(plain, tokenizer.special_ids | {made}) is None
    added = {"id": 999, "content": "<custom>", "special": False}
    assert changed(added_tokens=[*plain["added_tokens"], added]) is None


def test_a_corpus_contains_no_token_that_ends_a_turn(tokenizer: Tokenizer) -> None:
    """The end of a sequence may be an ordinary token of the vocabulary."""
    end = "e" if "e" in tokenizer.content["model"]["vocab"] else "!"
    ending = Tokenizer(dict(tokenizer.content), {"eos_token": end, "chat_template": None})
    said = f"{end}! "
    for texts in ([said], [said * 2**16]):
        with pytest.raises(UserError, match="control token"):
            ending.encode_batch(texts)


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CC", os.fspath(tmp_path / "none"))
    monkeypatch.setenv("GROUNDUP_CACHE", os.fspath(tmp_path))
    encoder._library.cache_clear()
    yield
    encoder._library.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_library_is_used(tokenizer: Tokenizer) -> None:
    assert FastEncoder.of(tokenizer.content, tokenizer.special_ids) is None
    assert split("it's 12") == ["it", "'s", " ", "1", "2"]
