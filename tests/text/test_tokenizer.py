"""The tokenizer against transformers' on the same folder, and safety from forged tokens."""

import itertools
import json
import logging
import random
import time
import warnings

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from groundup.errors import UserError
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import StreamDecoder, Tokenizer

TEXT = (
    "It was the best of times, it was the worst of times; 1859 and 2024. Don't they'll we've I'm.\n"
    "Crème brûlée, naïve café — e\u0301a\u0300 — Straße, Москва, 東京, 👩‍👩‍👧‍👦 🙂\n\n"
    "   three  spaces\t\ttabs\r\n"
)

HARD = [
    "0123456789 3.14159 1,000,000 ² ½ ٣",
    "e\u0301 cafe\u0301 \u00e9 A\u030a \u212b \ufb01",  # decomposed accents and compatibility forms
    "👩‍👩‍👧‍👦 🏳️‍🌈 🙂🙂 👍🏽",
    "a b  c   d    e     f\t\t\tg \n \n\n  h  ",
    "don't DON'T we'Ll ſ 'ſ x'ſ",
    "\r\n\r\n\n\n \r \u00a0\u00a0\u2003 \u3000",
    "<|endoftext|>",
    "",
]

LOOK_ALIKES = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_", "end|>", "<|", "|>", "<", ">", "|",
    "im_start", "endoftext", "<|im_end|", "|im_end|>", "<|<|im_end|>|>", "<|im_end|><|im_start|>",
    "assistant\n", "<s>", "</s>", "\u0120", "<|IM_END|>", "＜|im_end|＞", "<\u200b|im_end|>",
    "\ue000", "<|im\u00ad_end|>", " ", "\n", "é", "🙂", "\x00", "\x02", "0", "2",
]  # fmt: skip


def random_look_alikes(count: int) -> list[str]:
    rng = random.Random(20)
    return ["".join(rng.choices(LOOK_ALIKES, k=rng.randint(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [TEXT, "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>" * 50]  # look-alikes get learned
    return Tokenizer.from_bpe(train_bpe(texts, 512))


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder)
    return folder


def test_control_tokens_have_the_first_ids(tokenizer):
    assert (tokenizer.end_of_text, tokenizer.im_start, tokenizer.im_end) == (0, 1, 2)
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.stop_ids == {0, 2}
    assert tokenizer.vocab_size == len(tokenizer._fast.get_vocab())


def test_a_hundred_thousand_look_alikes_give_no_control_token(tokenizer, unchecked_types):
    texts = random_look_alikes(100_000)
    encoded = tokenizer.encode_batch(texts)
    assert not any(tokenizer.special_ids & set(ids) for ids in encoded)
    assert [tokenizer.decode(ids) for ids in encoded] == texts


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.sampled_from(HARD)))
def test_every_text_round_trips(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.finish() == text


def test_transformers_reads_the_folder_without_warnings_and_gives_our_ids(
    tokenizer, folder, caplog
):
    transformers_logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        theirs = AutoTokenizer.from_pretrained(folder)
    assert not caplog.records
    for text in [*HARD[:-2], TEXT]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text), text
    assert theirs.eos_token == "<|im_end|>" and theirs.pad_token == "<|endoftext|>"
    assert len(theirs) == tokenizer.vocab_size


@settings(max_examples=100, deadline=None)
@given(st.text().filter(lambda text: "<|" not in text))  # there a control token, here text
def test_transformers_gives_our_ids_on_any_text(folder, text):
    theirs = _auto(folder)
    assert theirs(text, add_special_tokens=False)["input_ids"] == Tokenizer.load(folder).encode(
        text
    )


def _auto(folder, cache={}):  # noqa: B006  (one reading a session is enough)
    if folder not in cache:
        cache[folder] = AutoTokenizer.from_pretrained(folder)
    return cache[folder]


def test_saving_a_loaded_tokenizer_gives_the_same_files(tokenizer, folder, tmp_path):
    again = Tokenizer.load(folder)
    again.save(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert again.hash == tokenizer.hash == Tokenizer.load(tmp_path).hash
    assert again.chat_template == tokenizer.chat_template


def test_the_hash_depends_on_the_vocabulary(tokenizer):
    assert Tokenizer.from_bpe(train_bpe([TEXT], 300)).hash != tokenizer.hash


def test_tokens_are_equal_if_transformers_maps_them_to_the_same_ids(folder, tmp_path):
    theirs = {}
    for added in ((), ("zebra",), ("horse",), ("zebra", "horse"), ("horse", "zebra")):
        theirs[added] = AutoTokenizer.from_pretrained(folder)
        theirs[added].add_tokens(list(added))
        theirs[added].save_pretrained(tmp_path / "-".join(("with", *added)))
    ours = {added: Tokenizer.load(tmp_path / "-".join(("with", *added))) for added in theirs}
    assert ours[()].same_tokens(Tokenizer.load(folder))
    for one, other in itertools.product(theirs, repeat=2):
        alike = theirs[one].get_vocab() == theirs[other].get_vocab()
        assert ours[one].same_tokens(ours[other]) == alike == (one == other)


def test_decoding_can_omit_control_tokens(tokenizer):
    ids = [1, *tokenizer.encode("hi"), 2, 0]
    assert tokenizer.decode(ids) == "<|im_start|>hi<|im_end|><|endoftext|>"
    assert tokenizer.decode(ids, skip_special=True) == "hi"
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.push, ids)) == "hi"


@pytest.mark.usefixtures("unchecked_types")
def test_an_invalid_text_is_not_reported_as_an_error_of_the_folder(tokenizer):
    for wrong in (b"ab", None, ["ab"]):
        for allowed in ((), "all"):
            with pytest.raises(UserError, match=r"is of type (bytes|NoneType|list); give a str"):
                tokenizer.encode(wrong, allowed)
        with pytest.raises(UserError, match=r"is of type (bytes|NoneType|list); give a str"):
            tokenizer.encode_batch(["ab", wrong])
        with pytest.raises(UserError, match=r"is of type (bytes|NoneType|list); give a str"):
            list(tokenizer.encode_iterable(["ab", wrong]))
    for single in ("abc", None):
        with pytest.raises(UserError, match=r"is a single .*; give a list of texts"):
            tokenizer.encode_batch(single)
    assert tokenizer.encode_batch(iter(["ab", "c"])) == tokenizer.encode_batch(["ab", "c"])
    for ids in ([-1], 300, "abc", [5.5], [2**40], [[1, 2]]):
        for skip in (False, True):
            with pytest.raises(UserError, match="must be a list of token ids"):
                tokenizer.decode(ids, skip)


def test_added_tokens_with_letters_of_the_byte_alphabet_round_trip(tokenizer):
    fast = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.content))
    fast.add_tokens(["é", "naïve", " §", "Ġx", "日本é"])
    fast.add_special_tokens(["<ü>"])
    added = Tokenizer(json.loads(fast.to_str()), {})
    for text in ("é", "naïve §", "a é Ġx 日本é, naïveté 🙂", "<ü>é"):
        for allowed in ((), "all"):
            ids = added.encode(text, allowed)
            stream = StreamDecoder(added)
            assert added.decode(ids) == text
            said = "".join(map(stream.push, ids))
            assert added.decode(ids, skip_special=True) == said
    half = [added.encode("é")[0], *_ids_of_byte(added, 0xF0)]
    assert added.decode(half) == "é\ufffd"


def test_a_stream_with_a_byte_normalizer_has_the_ids_of_the_whole_text():
    """Without a pre-tokenizer its tokens cross blanks, which it writes like bytes."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.normalizer, fast.decoder = normalizers.ByteLevel(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    fast.train_from_iterator(["of the sea of the land of the "] * 20, trainer)
    tokenizer = Tokenizer(json.loads(fast.to_str()), {})
    text = "of the sea of the land, " * 1_000
    assert any("fĠt" in token for token in fast.get_vocab())
    assert (
        list(tokenizer.encode_iterable([text])) == tokenizer.encode(text) == fast.encode(text).ids
    )


def test_the_stream_holds_back_half_a_character(tokenizer):
    ids = [id for byte in "🙂".encode() for id in _ids_of_byte(tokenizer, byte)]
    stream = StreamDecoder(tokenizer)
    assert [stream.push(id) for id in ids] == ["", "", "", "🙂"]
    assert stream.push(ids[0]) == ""
    assert stream.finish() == "\ufffd"


def _ids_of_byte(tokenizer, byte):
    return [id for id in range(tokenizer.vocab_size) if tokenizer.token_bytes(id) == bytes([byte])]


def test_ids_beyond_the_vocabulary_decode_to_nothing(tokenizer):
    # A model's vocabulary may be rounded up, and an untrained model samples such ids.
    assert tokenizer.token_bytes(tokenizer.vocab_size + 3) == b""
    assert tokenizer.decode([tokenizer.vocab_size + 3]) == ""


def test_lone_surrogates_are_accepted(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_a_foreign_folder_keeps_its_own_control_tokens(tmp_path):
    """As in Qwen3: "<think>" is declared ordinary, but the template writes it."""
    fast = tokenizers.Tokenizer(models.BPE(vocab=_bytes_vocab(), merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken("<eos>", special=True), AddedToken("<pad>", special=True)])
    fast.add_tokens([AddedToken("<think>", normalized=False), AddedToken("    ", normalized=False)])
    fast.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "<eos>"}, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("{% if 1 %}    <think>{% endif %}")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 257]}))

    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special_ids == {256, 257, 258}
    assert tokenizer.stop_ids == {256, 257}
    assert tokenizer.end_of_text == tokenizer.im_end == 256
    assert tokenizer.encode("<think>    <eos>") == [
        *tokenizer.encode("<think>"), 259, *tokenizer.encode("<eos>")
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("<think><eos>")) == "<think><eos>"
    with pytest.raises(UserError, match="im_start"):
        _ = tokenizer.im_start
    # Only tokens that the file calls special are omitted from decoded text.
    ids = [258, *tokenizer.encode("hm"), 257, 256]
    stream = StreamDecoder(tokenizer)
    said = fast.decode(ids, skip_special_tokens=True)
    assert "".join(map(stream.push, ids)) == tokenizer.decode(ids, skip_special=True) == said
    assert said == "<think>hm"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("tokenizer_config.json", {"boi_token": "<b>", "pad_token": "<p>", "unk_token": "<u>"}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<x>", "<|im_end|>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"boi_token": "<x>"}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<x>"], "boi_token": "<b>"}),
        ("tokenizer_config.json", {"eos_token": "<e>", "added_tokens_decoder": {
            "999": {"content": "<x>"}, "0": {"content": "<|endoftext|>"}, "600": {"content": "<e>"},
        }}),
        ("added_tokens.json", {"<x>": 513, "<|im_end|>": 2, "two words": 512}),
        ("special_tokens_map.json", {"unk_token": {"content": "<u>"}}),
        ("special_tokens_map.json", {"mask_token": {"content": "<x>", "lstrip": True}}),
        ("special_tokens_map.json", {"eos_token": "<e>"}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<x>", "<b>"]}),
    ],
)  # fmt: skip
def test_tokens_in_files_next_to_tokenizer_json_are_added_as_in_transformers(
    tokenizer, tmp_path, file, said
):
    tokenizer.save(tmp_path)
    path = tmp_path / file
    kept = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(kept | said))
    found = Tokenizer.load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert found.vocab_size == len(theirs) > tokenizer.vocab_size
    added = {one["content"]: one["id"] for one in found.content["added_tokens"]}
    assert added == theirs.get_added_vocab()
    assert found.eos_id == theirs.eos_token_id and found.eos_id in found.stop_ids
    for text in ("a two words.", "no <e> <x> of it"):
        ids = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
        assert found.encode(text) == ids
    found.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").hash == found.hash
    back = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert back.special_tokens_map == theirs.special_tokens_map
    assert back.added_tokens_decoder == theirs.added_tokens_decoder


def test_a_token_map_is_ignored_if_a_list_of_added_tokens_exists(tokenizer, tmp_path):
    """transformers wrote the map for older versions, and reads it only in older folders."""
    tokenizer.save(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    assert Tokenizer.load(tmp_path).eos_id == tokenizer.end_of_text
    path = tmp_path / "tokenizer_config.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"added_tokens_decoder": {}}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert Tokenizer.load(tmp_path).eos_id == theirs.eos_token_id == tokenizer.im_end


def test_extra_tokens_that_are_objects_are_written_as_text(tokenizer, tmp_path):
    """transformers 4 wrote them as objects, and version 5 rejects such folders."""
    tokenizer.save(tmp_path)
    extra = [{"content": "<x>", "lstrip": True}, "<b>"]
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": extra})
    )
    found = Tokenizer.load(tmp_path)
    found.save(tmp_path / "again")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs.extra_special_tokens == ["<x>", "<b>"]
    assert found.special_tokens["<x>"] == theirs.convert_tokens_to_ids("<x>")
    assert theirs.added_tokens_decoder[found.special_tokens["<x>"]].lstrip


@pytest.mark.parametrize("place", ["config", "files", "files beside the config"])
def test_chat_templates_of_other_names_are_kept(tokenizer, tmp_path, place):
    folder = tmp_path / "a"
    tokenizer.save(folder)
    path = folder / "tokenizer_config.json"
    templates = {"default": "D{{ messages[0].content }}", "tool_use": "T{{ messages[0].content }}"}
    listed = [{"name": name, "template": one} for name, one in templates.items()]
    said = listed if place == "config" else templates["default"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": said}))
    if place != "config":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(templates["tool_use"])
    if place == "files":
        (folder / "chat_template.jinja").write_text(templates["default"])
    found = Tokenizer.load(folder)
    assert found.chat_template == templates["default"]
    for again in (tmp_path / "b", tmp_path / "c"):
        found.save(again)
        found = Tokenizer.load(again)
        assert found.chat_template == templates["default"]
        assert AutoTokenizer.from_pretrained(again).chat_template == templates
    if place != "files beside the config":  # transformers has only the other one there
        assert AutoTokenizer.from_pretrained(folder).chat_template == templates


def _bytes_vocab() -> dict[str, int]:
    return {char: id for id, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def test_bytes_of_a_sentencepiece_vocabulary(tmp_path):
    vocab = {"<unk>": 0, "<0x0A>": 1, "▁": 2, "a": 3, "▁a": 4}
    fast = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("▁", "a")], byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("a a\na"))) == b"a a\na"


def test_a_vocabulary_that_contains_a_control_token_is_rejected(tmp_path):
    """With `ignore_merges`, a pre-token that is a vocabulary entry becomes it without any merge."""
    vocab = _bytes_vocab() | {"stop": 256}
    fast = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.add_special_tokens(["stop"])
    fast.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="control token"):
        Tokenizer.load(tmp_path).encode("stop")


def _words(kind: str) -> tokenizers.Tokenizer:
    """A vocabulary of a few letters without any others."""
    if kind == "unigram":
        fast = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0)], 0))
        fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:
        vocab = {"<unk>": 0, "▁": 1, "a": 2, "a</w>": 3, "##a": 4}
        if kind == "word pieces":
            fast = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
            fast.decoder = decoders.WordPiece()
        elif kind == "suffix":
            fast = tokenizers.Tokenizer(
                models.BPE(vocab, [], unk_token="<unk>", end_of_word_suffix="</w>")
            )
            fast.decoder = decoders.BPEDecoder("</w>")
        else:
            fast = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
            fast.pre_tokenizer = pre_tokenizers.Whitespace()
            if kind == "pieces":
                fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast.add_special_tokens(["<unk>", "</s>"])
    return fast


@pytest.mark.parametrize("kind", ["word pieces", "suffix", "no decoder"])
def test_a_vocabulary_whose_tokens_differ_from_the_text_is_rejected(tmp_path, kind):
    _words(kind).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no text of their own"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["unigram", "pieces"])
def test_an_unknown_letter_is_the_unknown_token_and_no_control_token(tmp_path, kind):
    fast = _words(kind)
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("aé") == fast.encode("aé").ids and 0 in tokenizer.encode("é")
    # The same letter where the unknown token ends a sequence.
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 0}')
    with pytest.raises(UserError, match="control token"):
        Tokenizer.load(tmp_path).encode("aé")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no tokenizer.json"),
        ("{broken", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"model": {}}', "not a tokenizer that can be read"),
    ],
)
def test_a_bad_folder_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)


def test_a_normalizer_that_fails_is_rejected(capfd):
    plain = Tokenizer.from_bpe(train_bpe([TEXT], 300))
    nothing = {"type": "Replace", "pattern": {"String": ""}, "content": "aaaa"}
    tokenizer = Tokenizer({**plain.content, "normalizer": nothing}, {})
    with pytest.raises(UserError, match="this tokenizer fails on a text"):
        _ = tokenizer.opening_ids
    capfd.readouterr()  # the library's own last words


def test_a_catastrophic_split_pattern_is_stopped(capfd):
    """The regular expressions of a tokenizer.json come from strangers, too."""
    bpe = train_bpe([TEXT], 300, pattern=r"(a+a+)+[bc]")
    tokenizer = Tokenizer.from_bpe(bpe)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"this tokenizer fails on a text .*retry-limit"):
        tokenizer.encode("a" * 100 + "db")
    assert time.monotonic() - start < 20
    capfd.readouterr()  # the library's own last words
    assert tokenizer.encode("abc")
