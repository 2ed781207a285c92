"""Own text to documents, documents to shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import corpus, split
from groundup.errors import UserError


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
    pieces = split.cut(text)
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
