"""Own text to documents, documents to shards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import corpus
from groundup.errors import UserError
from groundup.text.rows import Document


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """The smallest real tokenizer: bytes, three ids further up."""

    vocab_size: int = 259
    hash: str = "bytes"

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[byte + 3 for byte in text.encode()] for text in texts]


def test_a_text_file_is_cut_and_split(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    paragraphs = [f"Paragraph {n}. " + "Some words here. " * 20 for n in range(400)]
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    found = corpus.documents(path)
    everything = sorted((*found.train, *found.heldout), key=lambda d: int(d.id.split("#")[1]))
    assert all(2048 <= len(d.text.encode()) <= 8192 + 400 for d in everything[:-1])
    assert 0 < len(found.heldout) < 0.15 * len(everything)
    assert not {d.text for d in found.train} & {d.text for d in found.heldout}
    joined = "\n\n".join(document.text for document in everything)
    assert joined.split() == path.read_text(encoding="utf-8").split()
    assert found == corpus.documents(path)


def test_a_tiny_text_still_has_two_sides(tmp_path: Path) -> None:
    path = tmp_path / "tiny.txt"
    path.write_text("One line.\n\nTwo lines.\n\nThree lines.")
    found = corpus.documents(path)
    assert found.train and found.heldout
    path.write_text("only one paragraph")
    with pytest.raises(UserError, match="too little text"):
        corpus.documents(path)


@given(st.text(max_size=200).map(lambda text: text * 300))
def test_cutting_loses_no_word_and_keeps_to_the_size(text: str) -> None:
    pieces = corpus.cut(text)
    assert all(len(piece.encode()) <= 8192 + 2048 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("A text about one thing.\n\nAnd another.")
    (tmp_path / "sub" / "b.md").write_text("# Title\n\nBody of it.")
    rows = "\n".join(json.dumps({"text": f"row {n}"}) for n in range(20))
    (tmp_path / "c.jsonl").write_text(rows + "\nbad\n")
    found = corpus.documents(tmp_path)
    assert {d.source for d in (*found.train, *found.heldout)} == {"a", "b", "c"}
    assert [bad.line for bad in found.bad] == [21]
    with pytest.raises(UserError, match=r"no \.txt"):
        (tmp_path / "empty").mkdir()
        corpus.documents(tmp_path / "empty")


def test_a_shard_says_again_what_was_encoded(tmp_path: Path) -> None:
    texts = [Document("añ", "x", "1"), Document("b", "y", "2"), Document("c" * 2000, "x", "3")]
    shard = corpus.encode(texts, ByteTokenizer(), tmp_path / "tokens" / "train", split="train")
    assert shard.tokens.dtype == np.uint16 and isinstance(shard.tokens, np.memmap)
    assert shard.offsets.tolist() == [0, 4, 6, 2007]
    assert shard.sources == ["x", "y", "x"] and shard.document_bytes.tolist() == [3, 1, 2000]
    for number, document in enumerate(texts):
        ids = shard.tokens[shard.offsets[number] : shard.offsets[number + 1]]
        assert ids[0] == 0
        assert bytes(int(i) - 3 for i in ids[1:]).decode() == document.text
    assert corpus.Shard.open(tmp_path / "tokens" / "train").tokenizer_hash == "bytes"


def test_a_shard_is_reused_only_for_the_same_text_and_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "train"
    texts = [Document("a", "x", "1")]
    corpus.encode(texts, ByteTokenizer(), path)
    written = path.with_name("train.npy").stat().st_mtime_ns
    corpus.encode(texts, ByteTokenizer(), path)
    assert path.with_name("train.npy").stat().st_mtime_ns == written
    assert corpus.encode([Document("bb", "x", "1")], ByteTokenizer(), path).offsets[-1] == 3
    wide = corpus.encode(texts, ByteTokenizer(vocab_size=70_000, hash="wide"), path)
    assert wide.tokens.dtype == np.uint32 and wide.tokenizer_hash == "wide"


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train"
    with pytest.raises(UserError, match="missing"):
        corpus.Shard.open(path)
    corpus.encode([Document("abc", "x", "1")], ByteTokenizer(), path)
    np.save(tmp_path / "train.npy", np.zeros(2, np.uint16))
    with pytest.raises(UserError, match="do not belong together"):
        corpus.Shard.open(path)
    (tmp_path / "train.npy").write_bytes(b"junk")
    with pytest.raises(UserError, match="damaged"):
        corpus.Shard.open(path)
