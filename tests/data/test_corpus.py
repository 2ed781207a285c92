"""From own text to documents, and from documents to shards."""

from __future__ import annotations

import json
import time
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
    with pytest.raises(UserError, match=r"holds no .*\.txt or \.md file"):
        (tmp_path / "empty").mkdir()
        corpus.documents(tmp_path / "empty")


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "A.JSONL", "a.Csv"])
@pytest.mark.parametrize("in_a_folder", [False, True])
def test_rows_are_read_as_rows_whatever_the_files_name(
    tmp_path: Path, name: str, in_a_folder: bool
) -> None:
    texts = [f"text {n}" for n in range(30)]
    if name == "a.json":
        content = json.dumps([{"text": text} for text in texts])
    elif name == "a.Csv":
        content = "\n".join(["text", *texts])
    else:
        content = "\n".join(json.dumps({"text": text}) for text in texts)
    (tmp_path / name).write_text(content)
    found = corpus.documents(tmp_path if in_a_folder else tmp_path / name)
    assert sorted(d.text for d in (*found.train, *found.heldout)) == sorted(texts)


def test_a_hub_folder_keeps_its_split_by_file_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(name: str, numbers: range) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lines = "\n".join(json.dumps({"text": f"row {n}"}) for n in numbers)
        (tmp_path / name).write_text(lines)

    rows("data/train-00000-of-00001.jsonl", range(50))
    rows("data/test-00000-of-00001.jsonl", range(45, 60))
    rows(".cache/train.jsonl", range(100, 150))
    (tmp_path / "README.md").write_text("What these data are.")
    (tmp_path / "photo.png").write_bytes(b"\x00")
    (tmp_path / "more.jsonl.gz").write_bytes(b"\x00")
    found = corpus.documents(tmp_path)
    # Held-out rows are not trained on, in any file.
    assert {d.text for d in found.train} == {f"row {n}" for n in range(45)}
    assert {d.text for d in found.heldout} == {f"row {n}" for n in range(45, 60)}
    found.say_set_aside()
    said = capsys.readouterr().out
    assert "2 files not read: more.jsonl.gz, photo.png" in said and "5 duplicates" in said


def test_own_texts_with_the_name_of_a_generated_set_are_own_texts(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("world-facts", "river"):
        (folder / f"{name}.txt").write_text(f"About {name}.\n\nMore about {name}.")
    rows = [{"text": f"row {n}", "source": "newcomer-talk"} for n in range(20)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = corpus.documents(folder)
    sources = {one.source for one in (*found.train, *found.heldout)}
    assert sources == {"own/world-facts", "river", "own/newcomer-talk"}


def test_the_heldout_side_is_read_without_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "documents"
    folder.mkdir(parents=True)
    row = {"text": "The sea is deep.", "source": "sea", "id": "1"}
    (folder / "heldout.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "train.jsonl").write_text("not read, or this would be refused\n")
    with pytest.raises(UserError):
        corpus.documents(tmp_path / "data")
    [found] = corpus.heldout_documents(tmp_path / "data")
    assert found.text == "The sea is deep."
    own = tmp_path / "own.txt"
    own.write_text("\n\n".join(f"A paragraph about {n}. {'word ' * 400}" for n in range(60)))
    assert corpus.heldout_documents(own) == corpus.documents(own).heldout


def test_conversations_are_distinguished_from_bad_documents(tmp_path: Path) -> None:
    (tmp_path / "city.txt").write_text("One.\n\nTwo.")
    (tmp_path / "chats.jsonl").write_text('{"prompt": "Hi", "completion": "Hello."}\n' * 2)
    with pytest.raises(UserError, match=r"chats\.jsonl.*conversation, which groundup sft reads"):
        corpus.documents(tmp_path)


def test_a_name_alone_is_not_a_split(tmp_path: Path) -> None:
    """A file called training notes is no training set if there is no test file."""
    for name in ("training plan.md", "garden.md", "kitchen.md"):
        (tmp_path / name).write_text(f"About {name}.\n\nMore about {name}.")
    found = corpus.documents(tmp_path)
    assert {d.source for d in (*found.train, *found.heldout)} == {
        "training plan",
        "garden",
        "kitchen",
    }


def test_pieces_of_one_paragraph_are_rejoined_exactly() -> None:
    for between in (" ", "\n", "", " " * 3_000):
        pieces = split.cut(text := between.join(f"word{n}and" for n in range(8_000)))
        assert all(len(piece) <= 8192 for piece in pieces)
        at = 0  # nothing is lost, repeated or in another order
        for piece in pieces:
            found = text.index(piece, at)
            assert not text[at:found].strip()
            at = found + len(piece)
        assert not text[at:].strip()


@pytest.mark.parametrize(
    "cluster",
    [
        "\u0915\u093f",
        "\u0e01\u0e49\u0e33",
        "e\u0301",
        "👨\u200d👩\u200d👧",
        "👍🏽",
        "❤\ufe0f",
        "🇩🇪",
        "\u1112\u1161\u11ab",
    ],
)
def test_no_piece_ends_within_a_grapheme(cluster: str) -> None:
    for before in ("", "a", "ab", "abc"):
        pieces = split.cut(before + cluster * 6_000)
        assert len(pieces) > 2
        assert all(piece == cluster * (len(piece) // len(cluster)) for piece in pieces[1:])


def test_a_text_without_spaces_is_cut_after_sentences() -> None:
    sentence = "我们去公园。他说：“好！”"
    pieces = split.cut(sentence * 1_000)
    assert len(pieces) > 2 and "".join(pieces) == sentence * 1_000
    assert all(piece.endswith(("。", "”")) for piece in pieces)


def test_a_piece_keeps_the_indentation_of_its_first_line() -> None:
    code = "def f():\n" + "".join(f"    x{n} = {n}\n" for n in range(1_200))
    pieces = split.cut(code)
    assert len(pieces) > 2 and all(piece.startswith("    x") for piece in pieces[1:])
    assert "\n".join(pieces) == code.rstrip("\n")


def test_a_text_without_blank_lines_is_cut_in_linear_time() -> None:
    begun = time.process_time()
    pieces = split.cut("many words " * 1_500_000)
    # Seventeen seconds and more if each piece costs a walk through all that follows it.
    assert time.process_time() - begun < 6 and len(pieces) > 2_000
