"""Our trainer against the `tokenizers` library's and against a naive one that recounts."""

import json
import random
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers

from groundup.data.packs import fetch as packs
from groundup.errors import UserError
from groundup.text import bpe as bpe_page
from groundup.text.bpe import (
    BPE,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    draw_bytes,
    drawn_to_bytes,
    reference_encode,
    reference_train_bpe,
    split_text,
    train_bpe,
)
from groundup.text.tokenizer import Tokenizer

START = 256 + len(SPECIAL_TOKENS)

# Few letters, so that pairs tie and overlap, and some for each branch of the split pattern.
few_letters = st.text(alphabet="ab cß'é1\n ", max_size=60)
any_text = st.text(max_size=40)


# GPT-2's, as its authors and most courses write it.
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def library_bpe(
    texts: list[str], vocab_size: int, special_tokens=SPECIAL_TOKENS, pattern=SPLIT_PATTERN
) -> BPE:
    """The same training by `tokenizers`."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return BPE(model["vocab"], merges, tuple(special_tokens), pattern)


@pytest.fixture(scope="module")
def speeches() -> list[str]:
    return list(packs.read_set("sotu").values())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(few_letters, any_text), max_size=6), st.integers(0, 60))
def test_merges_equal_the_librarys(texts, merges):
    assert train_bpe(texts, START + merges) == library_bpe(texts, START + merges)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(few_letters, max_size=6), st.integers(0, 40), st.sampled_from(["smallest", "greatest"])
)
def test_merges_equal_naive_recounting(texts, merges, tie):
    fast = train_bpe(texts, START + merges, tie=tie)
    assert fast == reference_train_bpe(texts, START + merges, tie=tie)


@pytest.mark.parametrize("train", [train_bpe, reference_train_bpe])
def test_special_tokens_in_a_text_are_not_learned_from(train):
    tales = ["the cat sat", " on the mat", "the hat"]
    whole = train(["<|endoftext|>".join(tales)], START + 9, tie="greatest")
    assert whole == train(tales, START + 9, tie="greatest") and len(whole.merges) == 9
    assert not any("|" in left + right for left, right in whole.merges)


def test_real_speeches_give_the_librarys_merges(speeches):
    fast = train_bpe(speeches, 2048)
    assert fast == library_bpe(speeches, 2048)
    assert len(fast.vocab) == 2048


def test_a_custom_pattern_applies_to_training_and_encoding(speeches):
    texts = [speeches[0], "In 1984 and 2001, it's 12345."]
    bpe = train_bpe(texts, 600, pattern=GPT2_PATTERN)
    assert bpe == library_bpe(texts, 600, pattern=GPT2_PATTERN)
    assert bpe.merges != train_bpe(texts, 600).merges
    tokenizer = Tokenizer.from_bpe(bpe)
    for text in ("It's 1984!", texts[0][:2000]):
        assert tokenizer.encode(text) == reference_encode(bpe, text)
    assert split_text("It's 1984!", GPT2_PATTERN) == ["It", "'s", " 1984", "!"]
    with pytest.raises(UserError, match="not a regular expression"):
        train_bpe(texts, 600, pattern="(")


def test_a_merge_that_yields_a_special_token_has_its_id():
    texts = ["hehehe the then"] * 3
    special = ("<|endoftext|>", "Ġthe")  # a blank is drawn as Ġ
    bpe = train_bpe(texts, 270, special_tokens=special)
    assert bpe == library_bpe(texts, 270, special)
    assert ("Ġ", "the") in bpe.merges and bpe.vocab["Ġthe"] == 1
    assert len(bpe.merges) == len(bpe.vocab) - (256 + 2) + 1


def test_ties():
    # "ab", "bc" and "cd" occur once each; "a" has the smallest id, "cd" is the greatest string.
    assert train_bpe(["abcd"], START + 1).merges == [("a", "b")]
    assert train_bpe(["abcd"], START + 1, tie="greatest").merges == [("c", "d")]
    # Greatest by bytes, not by drawn characters: é is C3 A9 and ß C3 9F, and A9 is drawn below Ł.
    assert train_bpe(["ßé"], START + 1, tie="greatest").merges == [
        (draw_bytes("é")[0], draw_bytes("é")[1])
    ]
    # A longer string is greater than its own beginning: ("ab", "x") before ("a", "x") on one count.
    texts = ["ab"] * 9 + ["abx", "ax"]
    assert train_bpe(texts, START + 2, tie="greatest").merges[1] == ("ab", "x")


def test_ids_are_specials_then_bytes_then_merges():
    bpe = train_bpe(["low low low lower"], START + 2)
    by_id = sorted(bpe.vocab, key=bpe.vocab.__getitem__)
    assert by_id[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert by_id[3:START] == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert [left + right for left, right in bpe.merges] == by_id[START:]


def test_training_ends_when_no_pair_is_left():
    assert len(train_bpe(["abc"], 1000).merges) == 2
    assert train_bpe([], 1000).merges == []


def test_progress_is_reported_for_every_token():
    calls: list[tuple[int, int]] = []
    train_bpe(
        ["to be or not to be"], START + 3, progress=lambda done, goal: calls.append((done, goal))
    )
    assert calls == [(START + 1, START + 3), (START + 2, START + 3), (START + 3, START + 3)]


@given(any_text)
def test_pieces_join_to_the_text_and_bytes_round_trip(text):
    assert "".join(split_text(text)) == text
    assert drawn_to_bytes(draw_bytes(text)) == text.encode()


@settings(max_examples=100, deadline=None)
@given(st.one_of(few_letters, any_text))
def test_the_fast_encoder_equals_naive_merging(text):
    bpe = train_bpe(["a banana bandana, a cab's ßßß 11 22\n\n  aéé"] * 2, START + 25)
    assert Tokenizer.from_bpe(bpe).encode(text) == reference_encode(bpe, text)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": "one text", "vocab_size": 300}, "single string"),
        ({"texts": ["a"], "vocab_size": 258}, "vocab_size=258"),
        ({"texts": ["a"], "vocab_size": 300, "special_tokens": ("x", "x")}, "repeated"),
        ({"texts": ["a"], "vocab_size": 300, "tie": "largest"}, "tie='largest'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        train_bpe(**arguments)


def test_a_merge_visits_only_its_occurrences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pre-token may be a whole book, in Chinese or DNA: a merge must not scan all of it."""
    book = "".join(random.Random(0).choices("ACGT", k=20_000))
    assert train_bpe([book], START + 40) == library_bpe([book], START + 40)
    seen = 0

    def counted(parts: Iterable[str]) -> Iterator[tuple[str, str]]:
        nonlocal seen
        for pair in pairwise(parts):
            seen += 1
            yield pair

    monkeypatch.setattr(bpe_page, "pairwise", counted)
    # One pair that occurs once, after another: of the whole word it is one place.
    rare = book + "xy"
    found = train_bpe([rare, *["xy"] * 10_000], START + 1)
    assert found.merges == [("x", "y")]
    assert seen < len(rare) + 10


@pytest.mark.long
def test_twenty_megabytes_within_a_minute(speeches):
    """20 MB: speeches, then invented words, as many as in real text."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 12))) for _ in range(100_000)]
    texts, size = list(speeches), sum(len(text) for text in speeches)
    while size < 20_000_000:
        texts.append(" ".join(rng.choices(words, k=2000)))
        size += len(texts[-1])
    start = time.process_time()
    assert len(train_bpe(texts, 8192).vocab) == 8192
    assert time.process_time() - start < 60
