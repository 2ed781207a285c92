"""Own data: found in files and folders, split stably, without duplicates."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import dataset
from groundup.data import hub as hub_data
from groundup.data.config import DataConfig
from groundup.data.corpus import documents, heldout_documents
from groundup.data.dataset import Dataset, load_dataset, load_datasets
from groundup.data.records import read_conversations
from groundup.data.split import split
from groundup.errors import UserError
from groundup.runs.folder import Run
from groundup.text.cleaning import normal_form
from groundup.text.rows import Conversation, Document


def talk(number: int, answer: str = "b") -> dict[str, str]:
    return {"prompt": f"question {number}", "completion": answer}


def lines(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(rows: Iterable[Conversation | Document]) -> list[str]:
    return [
        row.text if isinstance(row, Document) else " ".join(m.content for m in row.messages)
        for row in rows
    ]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as arrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


# Sides.


def test_the_same_row_is_on_the_same_side_in_every_file(tmp_path: Path) -> None:
    rows = [talk(n, answer) for n in range(300) for answer in ("yes", "no")]
    whole = load_dataset([lines(tmp_path / "a.jsonl", rows)])
    assert whole.duplicates == 0 and 4 <= len(whole.heldout) <= 60
    assert not set(said(whole.train)) & set(said(whole.heldout))
    # Both answers to a question are on one side.
    asked = [
        {line.rsplit(" ", 1)[0] for line in said(side)} for side in (whole.train, whole.heldout)
    ]
    assert not asked[0] & asked[1]
    # Another order, other neighbours, another file: the same sides.
    part = load_dataset([lines(tmp_path / "b.jsonl", rows[::-5])])
    assert set(said(part.heldout)) == set(said(whole.heldout)) & {
        f"{row['prompt']} {row['completion']}" for row in rows[::-5]
    }
    assert load_dataset([tmp_path / "a.jsonl"]) == whole


def test_a_question_with_several_system_prompts_is_on_one_side(tmp_path: Path) -> None:
    rows = [talk(n) | {"system": system} for n in range(300) for system in ("Be brief.", "Teach.")]
    found = load_dataset([lines(tmp_path / "a.jsonl", rows)])
    train, heldout = (
        {row.messages[1].content for row in side if isinstance(row, Conversation)}
        for side in (found.train, found.heldout)
    )
    assert heldout and not train & heldout
    # Where the system prompt is all that differs, there still is something to learn and to test by.
    same = [talk(0) | {"system": f"Speak of {n}."} for n in range(300)]
    found = load_dataset([lines(tmp_path / "b.jsonl", same)])
    assert found.train and found.heldout


@pytest.mark.parametrize("again", ["{}\n", "{}", " {}"])
def test_a_text_in_two_spellings_is_on_one_side(tmp_path: Path, again: str) -> None:
    texts = [f"Caf\u00e9 number {n}, on the sea." for n in range(300)]
    rows = [{"text": one} for text in texts for one in (text, again.format(nfd(text)))]
    path = lines(tmp_path / "a.jsonl", rows)
    for found in (load_dataset([path]), documents(path)):
        train, heldout = (
            {normal_form(text) for text in said(side)} for side in (found.train, found.heldout)
        )
        assert heldout and not train & heldout and len(train | heldout) == 300


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def test_the_held_out_share_is_as_requested(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", map(talk, range(2000)))
    for share in (0.05, 0.2, 0.5):
        count = len(load_dataset([path], validation=share).heldout)
        # Six standard deviations of a binomial.
        assert abs(count - 2000 * share) < 6 * (2000 * share * (1 - share)) ** 0.5
    nothing = load_dataset([path], validation=0)
    assert not nothing.heldout and len(nothing.train) == 2000
    with pytest.raises(UserError, match=r"validation=1\.0 .* try 0\.05"):
        load_dataset([path], validation=1.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_side_has_a_row_if_two_differ(tmp_path: Path, count: int) -> None:
    path = lines(tmp_path / "a.jsonl", [*map(talk, range(count))] * 3)
    for share in (0.01, 0.99):
        found = load_dataset([path], validation=share)
        assert len(found.train) + len(found.heldout) == count and found.duplicates == 2 * count
        assert found.train and bool(found.heldout) == (count > 1)


def test_answers_to_a_single_question_are_split(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [talk(0, f"answer {n}") for n in range(50)])
    found = load_dataset([path])
    assert found.heldout and found.train


def test_duplicates_are_counted_and_removed(tmp_path: Path) -> None:
    rows = [talk(n) for n in range(100)]
    one = lines(tmp_path / "one.jsonl", [*rows, *rows[:7]])
    # The same in another layout, and text besides.
    other = lines(
        tmp_path / "other.jsonl",
        [
            *({"instruction": row["prompt"], "output": row["completion"]} for row in rows[50:]),
            *({"text": f"text {n}"} for n in (1, 2, 2)),
        ],
    )
    found = load_datasets([one, other])
    assert [part.duplicates for part in found] == [7, 51]
    together = load_dataset([one, other])
    everything = said([*together.train, *together.heldout])
    assert len(everything) == len(set(everything)) == 102 and together.duplicates == 58
    assert [row.source for row in found[1].train + found[1].heldout] == ["other"] * 2


# Sources.


def test_conversations_and_documents_of_a_folder_and_its_folders(tmp_path: Path) -> None:
    lines(tmp_path / "own" / "a.jsonl", [talk(1)])
    (tmp_path / "own" / "b.json").write_text(json.dumps([talk(2), talk(3), {"text": "four"}]))
    parquet(tmp_path / "own" / "deep" / "er" / "c.parquet", [talk(5), talk(6)])
    (tmp_path / "own" / "notes.md").write_text("# Notes\n\nOn the sea.\n")
    (tmp_path / "own" / "book.txt").write_text("\n\n".join(f"Paragraph {n}." for n in range(40)))
    # None of these is data.
    (tmp_path / "own" / "README.md").write_text("What these data are.")
    (tmp_path / "own" / "LICENSE.txt").write_text("Yours.")
    (tmp_path / "own" / "picture.png").write_bytes(b"\x00\x01")
    lines(tmp_path / "own" / ".cache" / "d.jsonl", [talk(7)])
    found = load_dataset([tmp_path / "own"])
    everything = [*found.train, *found.heldout]
    talks = [row for row in everything if isinstance(row, Conversation)]
    assert sorted(said(talks)) == [f"question {n} b" for n in (1, 2, 3, 5, 6)]
    texts = said(row for row in everything if isinstance(row, Document))
    assert {"four", "# Notes", "On the sea."} <= set(texts) and len(texts) > 8
    assert "Yours." not in " ".join(texts) and "What these data are." not in texts
    assert {row.source for row in everything} == {"own"}
    # A folder of nothing else holds that.
    readme = tmp_path / "only"
    readme.mkdir()
    (readme / "README.md").write_text("One.\n\nTwo.")
    assert load_dataset([readme]).train


def test_unread_files_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    lines(folder / "A.JSONL", [talk(1) | {"topic": "t"}, talk(2) | {"topic": "u", "mood": "m"}])
    (folder / "NOTES.TXT").write_text("On the sea.")
    for name in ("a.jsonl.gz", "photo.png", "x.pdf", "y.pdf"):
        (folder / name).write_bytes(b"\x00")
    (folder / "empty.txt").write_text("")
    found = load_dataset([folder], validation=0)
    assert len(found.train) == 3
    assert found.remarks == (
        f"{folder}: 5 files not read: a.jsonl.gz, empty.txt, photo.png, …",
        f"{folder}: columns not read: topic, mood",
    )


def test_a_linked_folder_is_reported(tmp_path: Path) -> None:
    lines(tmp_path / "elsewhere" / "b.jsonl", [talk(2)])
    own = lines(tmp_path / "own" / "a.jsonl", [talk(1)]).parent
    (own / "more").symlink_to(tmp_path / "elsewhere")
    (own / "round").symlink_to(own)
    found = load_dataset([own])
    assert said(found.train) == ["question 1 b"]
    links = "more (a link to a folder), round (a link to a folder)"
    assert found.remarks == (f"{own}: 2 files not read: {links}",)


def test_texts_with_names_of_metadata_files_are_read(tmp_path: Path) -> None:
    for name in ("state.txt", "dataset_info.csv", "readme.md"):
        (tmp_path / name).write_text(f"text\n{name}")
    for name in ("state.jsonl", "state.json", "dataset_infos.json"):
        lines(tmp_path / name, [{"text": name}])
    found = load_dataset([tmp_path], validation=0)
    assert set(said(found.train)) == {"text\nstate.txt", "dataset_info.csv", "state.jsonl"}


def test_output_of_save_to_disk_is_reported_in_one_sentence(tmp_path: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        UserError, match=r"holds Arrow files, as written by save_to_disk .* to_parquet or to_j"
    ):
        load_dataset([tmp_path])


def test_bad_lines_are_reported_and_too_many_rejected(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [*map(talk, range(30)), {"prompt": "a", "completion": ""}])
    (bad,) = load_dataset([path]).bad
    assert (bad.file, bad.line) == (str(path), 31) and "answer" in bad.reason
    lines(path, [talk(0), talk(1), *[{"prompt": "a", "completion": ""}] * 5])
    with pytest.raises(UserError, match=r"5 of 7 lines .*line 3: the answer"):
        load_dataset([path])
    # To be looked at, all is read.
    looked = load_dataset([path], refuse=False)
    assert len(looked.bad) == 5 and len(looked.train) + len(looked.heldout) == 2
    lines(path, [{"a": 1}])
    assert len(load_dataset([path], refuse=False).bad) == 1


def test_each_source_has_one_unique_name(tmp_path: Path) -> None:
    rows = [[{**talk(n), "source": "theirs"}, talk(n + 100)] for n in range(4)]
    paths = [
        lines(tmp_path / "one" / "talks.jsonl", rows[0]),
        lines(tmp_path / "two" / "talks.jsonl", rows[1]),
        # Generated rows are identified by their source, which an own file may be named like.
        lines(tmp_path / "world-facts.jsonl", rows[2]),
        lines(tmp_path / "v1.2" / "x.jsonl", rows[3]).parent,
    ]
    found = load_datasets(paths)
    names = [{row.source for row in part.train + part.heldout} for part in found]
    assert names == [{"talks"}, {"two/talks"}, {f"{tmp_path.name}/world-facts"}, {"v1.2"}]
    with pytest.raises(UserError, match="given twice"):
        load_dataset([paths[0], str(paths[0])])


def test_a_data_stage_keeps_its_split_sources_and_repeats(workshop: Any, tmp_path: Path) -> None:
    found = load_dataset([workshop.data])
    files = [workshop.data / "conversations" / f"{side}.jsonl" for side in ("train", "heldout")]
    train, heldout = (read_conversations(file).rows for file in files)
    assert found.heldout == heldout and {row.source for row in found.train} == {"colours"}
    # The split is the stage's own affair; what it says twice, or on both sides, is meant.
    assert found.train == train and found.duplicates == 0
    # Own rows that the stage holds out, or already trains on, are removed too.
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    own = lines(tmp_path / "own.jsonl", [*rows, talk(1), talk(2), talk(3)])
    stage, mine = load_datasets([workshop.data, own])
    assert stage == found and mine.duplicates == len(rows)
    assert len(mine.train) + len(mine.heldout) == 3
    # Own documents as well.
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n\nThree.")
    assert {row.source for row in load_dataset([workshop.data, tmp_path / "a.txt"]).train} == {
        "colours",
        "a",
    }


def test_a_stage_without_conversations_gives_its_documents(tmp_path: Path) -> None:
    for name in ("conversations/train", "conversations/heldout"):
        lines(tmp_path / f"{name}.jsonl", [])
    lines(tmp_path / "documents" / "train.jsonl", [{"text": "a", "source": "sotu"}])
    lines(tmp_path / "documents" / "heldout.jsonl", [{"text": "b", "source": "sotu"}])
    found = load_dataset([tmp_path])
    assert said(found.train) == ["a"] and said(found.heldout) == ["b"]


@pytest.mark.parametrize(
    ("files", "trains", "held"),
    [
        (["train.jsonl", "test.jsonl"], [0], [1]),
        (["train.jsonl", "validation.jsonl", "test.jsonl", "extra.jsonl"], [0], [1]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"], [0, 1], None),
        (["data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"], [0], [1]),
        (["train/0.jsonl", "dev/0.jsonl"], [0], [1]),
        # Without a training file by name these are names as any other.
        (["test.jsonl", "contest.jsonl"], [0, 1], None),
        (["trainers.jsonl", "val.jsonl"], [0, 1], None),
    ],
)
def test_a_folder_with_named_splits_keeps_them(
    tmp_path: Path, files: list[str], trains: list[int], held: list[int] | None
) -> None:
    """As data sets on the hub, whose client returns a folder."""
    for number, name in enumerate(files):
        lines(tmp_path / name, map(talk, range(100 * number, 100 * number + 50)))
    lines(tmp_path / "dataset_infos.json", [{"default": {}}])
    found = dataset.Reader({}, True).read(str(tmp_path))
    numbers = {int(line.split()[1]) // 100 for line in said(found.train)}
    assert numbers == set(trains)
    if held is None:
        assert found.heldout is None
    else:
        assert {int(line.split()[1]) // 100 for line in said(found.heldout or ())} == set(held)
        assert len(load_dataset([tmp_path]).heldout) == 50


def test_no_training_row_is_in_a_held_out_file(tmp_path: Path) -> None:
    """Nor in another folder's held-out file; each is counted."""
    lines(tmp_path / "a" / "train.jsonl", map(talk, range(20)))
    lines(tmp_path / "a" / "validation.jsonl", map(talk, range(15, 30)))
    lines(tmp_path / "b" / "train.jsonl", map(talk, range(25, 40)))
    lines(tmp_path / "b" / "test.jsonl", map(talk, range(38, 50)))
    alone = load_dataset([tmp_path / "a"])
    assert said(alone.train) == [f"question {n} b" for n in range(15)]
    assert len(alone.heldout) == 15 and alone.duplicates == 5
    first, second = load_datasets([tmp_path / "a", tmp_path / "b"])
    assert first == alone
    assert said(second.train) == [f"question {n} b" for n in range(30, 38)]
    assert len(second.heldout) == 12 and second.duplicates == 7
    # Repeated rows of a file count once, on either side, as in pre-training.
    lines(tmp_path / "c" / "train.jsonl", map(talk, [*range(60, 80), 60, 61, 10]))
    lines(tmp_path / "c" / "test.jsonl", map(talk, [90, 91, 90, 15]))
    third = load_datasets([tmp_path / "a", tmp_path / "c"])[1]
    assert (len(third.train), len(third.heldout), third.duplicates) == (20, 2, 5)
    lines(tmp_path / "a" / "train.jsonl", map(talk, range(15, 20)))
    with pytest.raises(UserError, match=r"has no row .* nor held out"):
        load_dataset([tmp_path / "a"])


def test_only_data_is_downloaded_from_the_hub_and_errors_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="not a name on the hub; write hub:owner/name"):
        load_dataset(["hub:a b/c"])
    with pytest.raises(UserError, match="hub:groundup-tests/none cannot be downloaded") as caught:
        hub_data.pull_dataset("groundup-tests/none")
    assert "\n" not in str(caught.value)
    reason = re.findall(r"cannot be downloaded \((.*)\); check", str(caught.value))[0]
    # The client's message has more details for developers: the report ends after a sentence.
    assert reason in str(caught.value.__context__) and not reason.endswith(" …")
    assert str(caught.value.__context__).partition(reason)[2][:1] in (".", "\n", "")


def test_a_long_reason_is_cut_between_sentences_or_words() -> None:
    assert hub_data.shortened("It failed.\n See it.") == "It failed. See it."
    assert hub_data.shortened(f"It failed\nThen {'the rest ' * 30}failed.") == "It failed"
    assert hub_data.shortened(f"It failed. Then {'the rest ' * 30}failed.") == "It failed"
    cut = hub_data.shortened("the rest " * 30)
    assert 180 < len(cut) <= 200 and cut.endswith(("the …", "rest …"))


# Packs.


def test_a_pack_gives_its_conversations_with_its_own_split() -> None:
    found = load_dataset(["pack:chatterbot"])
    assert {row.source for row in found.train + found.heldout} == {"chatterbot"}
    assert all(isinstance(row, Conversation) for row in found.train)
    # Its split is the pack's, whatever share is requested.
    assert load_dataset([Path("pack:chatterbot")], validation=0.5).train == found.train
    assert not set(said(found.train)) & set(said(found.heldout))


@pytest.mark.long
def test_a_pack_without_conversations_gives_its_documents() -> None:
    found = load_dataset(["pack:sotu"])
    assert all(isinstance(row, Document) for row in found.train)
    assert len(found.heldout) == 14 and {row.source for row in found.train} == {"sotu"}


def test_packs_without_training_data_are_rejected() -> None:
    with pytest.raises(UserError, match="'smollm2' is a model, not a data set"):
        load_dataset(["pack:smollm2"])
    with pytest.raises(UserError, match="'pack:mmlu' is for evaluation only"):
        load_dataset(["pack:mmlu"])
    with pytest.raises(UserError, match="did you mean 'chitchat'"):
        load_dataset(["pack:chitchatt"])


# Rejected input.


def test_columns(tmp_path: Path) -> None:
    rows = [{"question": f"q {n}", "reply": "a", "topic": "t"} for n in range(5)]
    path = lines(tmp_path / "a.jsonl", rows)
    columns = {"prompt": "question", "completion": "reply"}
    found = load_dataset([path], columns=columns)
    assert len(found.train) + len(found.heldout) == 5
    with pytest.raises(UserError, match=r"has the columns question, reply, topic,.*--columns"):
        load_dataset([path])
    wrong = {"prompt": "qestion", "completion": "reply"}
    with pytest.raises(
        UserError, match=r"'qestion'; did you mean 'question'.*There are: question, reply, topic"
    ):
        load_dataset([path], columns=wrong)
    with pytest.raises(UserError, match="'answer' is not one of the columns"):
        load_dataset([path], columns={"answer": "reply"})
    # A mapping need fit one source only, and one that fits none is told of all the same.
    native = lines(tmp_path / "b.jsonl", [talk(n) for n in range(5)])
    both = load_dataset([path, native], columns=columns)
    assert len(both.train) + len(both.heldout) == 10
    with pytest.raises(UserError, match="no row has a column 'persona'; there are: prompt, compl"):
        load_dataset([native], columns={"system": "persona"})


READERS = [
    documents,
    heldout_documents,
    lambda folder: load_dataset([folder]),
    lambda folder: split(folder, "conversations", read_conversations),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("written", [0, 1, 2])
def test_unfinished_data_is_not_read(tmp_path: Path, read: Any, written: int) -> None:
    """Regardless of its size: the row files are not even opened."""
    folder = tmp_path / "data"
    with Run.open(folder, "data", DataConfig(out=folder)):
        for name in ("documents/train.jsonl", "conversations/train.jsonl")[:written]:
            (folder / name).parent.mkdir()
            (folder / name).write_text("no row")
    message = r"^the data run in '.*data' was not finished; start its command again, or give other"
    with pytest.raises(UserError, match=message):
        read(folder)
    with Run.open(folder, "data", DataConfig(out=folder)) as run:
        for side in ("train", "heldout"):
            for kind, row in (("documents", {"text": "a"}), ("conversations", talk(1))):
                (folder / kind).mkdir(exist_ok=True)
                lines(folder / kind / f"{side}.jsonl", [row])
        (folder / "data.json").write_text("{}")
        run.finish()
    read(folder)


@pytest.mark.parametrize("read", READERS)
def test_the_folder_of_a_model_is_not_read_as_data(tmp_path: Path, read: Any) -> None:
    lines(tmp_path / "checkpoints" / "step-1" / "manifest.json", [{"schema": 1}])
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is a model's folder, not data; give the folder of"):
        read(tmp_path)
    (tmp_path / "config.json").unlink()
    for traits, stage, message in (
        ({"reads": "documents"}, "pretrain", "is a model's folder, not data"),
        ({}, "tokenizer", "^the tokenizer run in '.*' made no data; give data of"),
    ):
        out = tmp_path / stage
        with Run.open(out, stage, DataConfig(out=out), traits=traits) as run:
            (out / "tokenizer.json").write_text("{}")
            run.finish()
        with pytest.raises(UserError, match=message):
            read(out)


def test_a_file_with_the_name_of_a_run_file_is_data(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps([talk(1), talk(2)]))
    assert len(load_dataset([tmp_path], validation=0).train) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("noext", "a,b\n1,2\n", r"noext' has no ending; data is read from \.jsonl"),
        ("a.xml", "a,b\n1,2\n", r"ends in '\.xml'; data is read from \.jsonl"),
        ("a.jsonl", "{}\n", "has no columns, so its layout is unknown"),
        (
            "a.csv",
            "a,b\n1,2\n",
            "columns a, b, so its layout is unknown.* --columns .*first line",
        ),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "\n\n", "holds no lines"),
        ("a.json", "[", "is not JSON"),
        ("a.txt", " \n", "white space"),
        ("a.jsonl", '{"text": 1}\n', "1 of 1 lines .*'text' must be a string"),
    ],
)
def test_an_unusable_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_dataset([tmp_path / name])


def test_a_missing_file(tmp_path: Path) -> None:
    lines(tmp_path / "talks.jsonl", [talk(1)])
    with pytest.raises(UserError, match=r"did you mean 'talks\.jsonl'"):
        load_dataset([tmp_path / "talk.jsonl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty' holds no \.jsonl, .* or \.md file"):
        load_dataset([tmp_path / "empty"])
    with pytest.raises(UserError, match="check the path"):
        load_dataset(["x" * 5000])
    # All that one source says another says before it.
    with pytest.raises(UserError, match="has no row that is neither in another source"):
        load_dataset(
            [lines(tmp_path / "a.jsonl", [talk(1)]), lines(tmp_path / "b.jsonl", [talk(1)])]
        )


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.lists(_VALUE | st.just(talk(1)) | st.just({"text": "t"}), max_size=6), st.booleans())
def test_any_json_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], as_list: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / ("any.json" if as_list else "any.jsonl")
    if as_list:
        path.write_text(json.dumps(rows))
    else:
        lines(path, rows)
    try:
        found = load_dataset([path])
    except UserError:
        pass
    else:
        assert isinstance(found, Dataset) and found.train
    try:
        looked = load_dataset([path], refuse=False)
    except UserError:
        assert not rows
    else:
        good = len(looked.train) + len(looked.heldout)
        assert good + looked.duplicates + len(looked.bad) == len(rows)


def test_it_does_not_import_torch() -> None:
    program = "import sys, groundup.data.dataset; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
