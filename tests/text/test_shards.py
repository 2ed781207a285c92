"""Token shards round-trip, and damaged ones are rejected."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.text import shards
from groundup.text.rows import Document


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """The smallest real tokenizer: bytes, shifted by three ids."""

    vocab_size: int = 259
    hash: str = "bytes"
    end_of_text: int = 0

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[byte + 3 for byte in text.encode()] for text in texts]


def test_a_shard_round_trips(tmp_path: Path) -> None:
    texts = [Document("añ", "x", "1"), Document("b", "y", "2"), Document("c" * 2000, "x", "3")]
    shard = shards.encode(texts, ByteTokenizer(), tmp_path / "tokens" / "train", split="train")
    assert shard.tokens.dtype == np.uint16 and isinstance(shard.tokens, np.memmap)
    assert shard.offsets.tolist() == [0, 4, 6, 2007]
    assert shard.sources == ["x", "y", "x"] and shard.document_bytes.tolist() == [3, 1, 2000]
    for number, document in enumerate(texts):
        ids = shard.tokens[shard.offsets[number] : shard.offsets[number + 1]]
        assert ids[0] == 0
        assert bytes(int(i) - 3 for i in ids[1:]).decode() == document.text
    assert shards.Shard.open(tmp_path / "tokens" / "train").tokenizer_hash == "bytes"


def test_a_shard_is_reused_only_for_the_same_text_and_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "train"
    texts = [Document("a", "x", "1")]
    shards.encode(texts, ByteTokenizer(), path)
    written = path.with_name("train.npy").stat().st_mtime_ns
    shards.encode(texts, ByteTokenizer(), path)
    assert path.with_name("train.npy").stat().st_mtime_ns == written
    assert shards.encode([Document("bb", "x", "1")], ByteTokenizer(), path).offsets[-1] == 3
    other_end = shards.encode(texts, ByteTokenizer(end_of_text=1), path)
    assert other_end.tokens.tolist() == [1, 100]
    assert shards.encode(texts, ByteTokenizer(end_of_text=1), path).tokens[0] == 1
    wide = shards.encode(texts, ByteTokenizer(vocab_size=70_000, hash="wide"), path)
    assert wide.tokens.dtype == np.uint32 and wide.tokenizer_hash == "wide"


def test_an_equal_shard_of_another_run_is_reused(tmp_path: Path) -> None:
    path, kept = tmp_path / "own" / "heldout", tmp_path / "base" / "heldout"
    texts = [Document("a", "x", "1")]
    shards.encode(texts, ByteTokenizer(), kept, split="heldout")
    found = shards.encode(texts, ByteTokenizer(), path, split="heldout", kept=kept)
    assert found.tokens.tolist() == [0, 100] and not path.parent.exists()
    assert shards.encode(texts, ByteTokenizer(), path, split="train", kept=kept).split == "train"
    other = [Document("b", "x", "1")]
    found = shards.encode(other, ByteTokenizer(), path, split="heldout", kept=kept)
    assert found.tokens.tolist() == [0, 101]
    assert shards.Shard.open(kept).tokens.tolist() == [0, 100]


def test_shards_without_an_end_of_text_id_have_0(tmp_path: Path) -> None:
    path, texts = tmp_path / "train", [Document("a", "x", "1")]
    shards.encode(texts, ByteTokenizer(), path)
    facts = json.loads(path.with_name("train.json").read_text())
    assert facts.pop("end_of_text") == 0
    path.with_name("train.json").write_text(json.dumps(facts))
    shards.encode(texts, ByteTokenizer(), path)
    assert "end_of_text" not in json.loads(path.with_name("train.json").read_text())
    assert shards.encode(texts, ByteTokenizer(end_of_text=1), path).tokens[0] == 1


def test_damaged_shards_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "train"
    with pytest.raises(UserError, match="missing"):
        shards.Shard.open(path)
    shards.encode([Document("abc", "x", "1")], ByteTokenizer(), path)
    np.save(tmp_path / "train.npy", np.zeros(2, np.uint16))
    with pytest.raises(UserError, match="do not belong together"):
        shards.Shard.open(path)
    (tmp_path / "train.npy").write_bytes(b"junk")
    with pytest.raises(UserError, match="damaged"):
        shards.Shard.open(path)
