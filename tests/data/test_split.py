"""Splits of few groups: the held-out ones, and the remarks about them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from groundup.data.config import LABELED_COLUMNS, PAIR_COLUMNS, Columns, TokenizerConfig
from groundup.data.corpus import documents
from groundup.data.dataset import load_dataset
from groundup.data.files import write_json_lines
from groundup.data.records import read_preferences, read_unpaired_preferences
from groundup.data.split import hold_out, on_disk, split
from groundup.data.tokenizer import run as train
from groundup.errors import UserError
from groundup.text.cleaning import split_hash
from groundup.text.rows import Message, Preference, UnpairedPreference


def pairs(sizes: dict[str, int]) -> list[Preference]:
    return [
        Preference((Message("user", name),), f"good {n}", f"bad {n}", "s", name)
        for name, size in sizes.items()
        for n in range(size)
    ]


def labels(answers: Sequence[tuple[str, bool]]) -> list[UnpairedPreference]:
    return [
        UnpairedPreference((Message("user", name),), f"answer {n}", label, "s", name)
        for n, (name, label) in enumerate(answers)
    ]


def names_of_hash(below: float, many: int) -> list[str]:
    """Names of groups whose hashes are below the usual share, and which are usually held out."""
    names = (f"group {n}" for n in itertools.count())
    return list(itertools.islice((name for name in names if split_hash(name) < below), many))


@pytest.mark.parametrize("main", [[f"main {n}" for n in range(40)], names_of_hash(0.05, 10)])
def test_of_a_large_and_a_small_group_the_small_one_is_held_out(main: list[str]) -> None:
    for name in main:
        found = hold_out(pairs({name: 99, "other": 1}), 0.05)
        assert {row.group for row in found.heldout} == {"other"} and len(found.train) == 99
        assert not found.remark


def test_a_large_group_is_not_held_out_even_with_a_low_hash() -> None:
    [low] = names_of_hash(0.001, 1)
    found = hold_out(pairs({low: 60, **{f"other {n}": 1 for n in range(200)}}), 0.05)
    assert low not in {row.group for row in found.heldout}
    assert 0 < len(found.heldout) < 30


def test_many_groups_are_split_by_hash_alone() -> None:
    rng = random.Random(0)
    rows = pairs({f"question {n}": rng.randint(1, 5) for n in range(400)})
    for share in (0.05, 0.2, 0.5):
        found = hold_out(rows, share)
        assert found.heldout == [row for row in rows if split_hash(row.group) < share]
        assert found.train == [row for row in rows if split_hash(row.group) >= share]
        assert not found.remark


def test_a_larger_share_includes_a_smaller_one() -> None:
    rng = random.Random(1)
    for trial in range(200):
        sizes = {f"{trial} {n}": rng.choice((1, 2, 9, 40)) for n in range(rng.randint(2, 12))}
        out = [
            {row.group for row in hold_out(pairs(sizes), share).heldout} for share in (0.05, 0.2)
        ]
        assert out[0] and out[0] <= out[1] and len(out[1]) < len(sizes)


def test_a_half_held_out_is_reported(tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "chosen": f"a {n}", "rejected": "b"}
        for prompt in "pq"
        for n in range(50)
    ]
    path = tmp_path / "a.jsonl"
    write_json_lines(path, rows)
    train, heldout = split(path, "-", read_preferences)
    assert len(train.rows) == len(heldout.rows) == 50
    assert "50 of 100 rows are held out" in train.remark and "2 of these" in train.remark
    # Fine-tuning says so too, of conversations by the same groups.
    talks = load_dataset([path], columns={"completion": "chosen"})
    assert len(talks.heldout) == 50 and "50 of 100 rows are held out" in talks.remarks[-1]


@pytest.mark.parametrize("group", [None, "one"])
def test_pairs_and_labels_of_one_group_stay_together(tmp_path: Path, group: str | None) -> None:
    answers = ["great", "good", "meh", "bad"]
    rows = [
        {"prompt": "Why?", "chosen": better, "rejected": worse, "group": group}
        for place, better in enumerate(answers)
        for worse in answers[place + 1 :]
    ]
    for count in (6, 1):
        path = tmp_path / f"{count}.jsonl"
        write_json_lines(path, rows[:count])
        for read in (read_preferences, read_unpaired_preferences):
            train, heldout = split(path, "-", read)
            assert len(train.rows) >= count and not heldout.rows
            assert "no row is held out" in train.remark and "one prompt" in train.remark


def test_each_label_keeps_an_answer_for_training() -> None:
    rare = [*names_of_hash(0.05, 10), *(f"rare {n}" for n in range(40))]
    for name in rare:
        for others in (2, 60):
            rows = labels([(name, False), *((f"{name} {n}", True) for n in range(others))])
            found = hold_out(rows, 0.05)
            assert {row.label for row in found.train} == {True, False} and found.heldout
        # With one prompt per label none can be held out.
        found = hold_out(labels([(name, False), ("other", True)]), 0.05)
        assert not found.heldout and "each label" in found.remark
        # Nor is most of the data held out because the rest cannot be.
        found = hold_out(labels([(name, False), (name, True), *[("main", True)] * 99]), 0.05)
        assert not found.heldout and len(found.train) == 101


def test_pairs_and_their_labeled_answers_are_split_alike(tmp_path: Path) -> None:
    rng = random.Random(2)
    for trial in range(100):
        groups = [f"{trial} {n}" for n in range(rng.randint(2, 8))]
        rows = [
            {"prompt": group, "chosen": f"a {n}", "rejected": f"b {n}"}
            for group in groups
            for n in range(rng.choice((1, 1, 3, 20)))
        ]
        path = tmp_path / "a.jsonl"
        write_json_lines(path, rows)
        sides = [
            {row.group for row in split(path, "-", read)[1].rows}
            for read in (read_preferences, read_unpaired_preferences)
        ]
        assert sides[0] and sides[0] == sides[1]


# Pairs in folders of files.


def pair(number: int, **more: object) -> dict[str, object]:
    return {"prompt": f"question {number}", "chosen": "yes", "rejected": "no", **more}


def asked(rows: Sequence[Preference]) -> list[str]:
    return [row.prompt[-1].content for row in rows]


def test_names_of_files_hold_pairs_out(tmp_path: Path) -> None:
    """As in fine-tuning; what is held out is not trained on, and equal pairs count once."""
    (tmp_path / "data").mkdir()
    rows = list(map(pair, [0, 1, 2, 1]))
    write_json_lines(tmp_path / "data" / "train_prefs-0.jsonl", [{**rows[0], "margin": 2}, *rows])
    write_json_lines(tmp_path / "data" / "train_prefs-1.jsonl", map(pair, [3, 4, 2]))
    write_json_lines(tmp_path / "data" / "test_prefs.jsonl", map(pair, [4, 5, 5]))
    (tmp_path / "README.md").write_text("About the data.")
    (tmp_path / "notes.bin").write_bytes(b"x")
    train, heldout = split(tmp_path, "preferences", read_preferences)
    assert asked(train.rows) == [f"question {n}" for n in range(4)]
    assert asked(heldout.rows) == ["question 4", "question 5"]
    assert train.unread == ("margin",)
    assert train.remark.splitlines() == [
        f"{tmp_path}: 1 file not read: notes.bin",
        f"{tmp_path}: 5 duplicates removed",
    ]


def test_no_vote_trains_that_is_held_out_and_bad_lines_of_both_sides_are_told(
    tmp_path: Path,
) -> None:
    """Repeated votes of one side are of different people."""
    votes = [{"prompt": f"question {n}", "a": "x", "b": "y", "choice": "a"} for n in range(30)]
    write_json_lines(tmp_path / "train.jsonl", [*votes[:20], votes[1], {"prompt": "no pair"}])
    write_json_lines(tmp_path / "test.jsonl", [*votes[15:], {"prompt": "no pair"}])
    train, heldout = split(tmp_path, "preferences", read_preferences)
    assert not set(asked(train.rows)) & set(asked(heldout.rows))
    assert (len(set(asked(train.rows))), len(heldout.rows)) == (15, 15)
    assert [Path(line.file).name for line in train.bad] == ["train.jsonl", "test.jsonl"]
    assert train.remark.count(" votes") == 2


def test_other_files_of_a_folder_are_one_source(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "all.jsonl", map(pair, range(60)))
    whole = split(tmp_path / "all.jsonl", "preferences", read_preferences)
    (tmp_path / "folder").mkdir()
    write_json_lines(tmp_path / "folder" / "a.jsonl", map(pair, range(30)))
    write_json_lines(tmp_path / "folder" / "b.jsonl", map(pair, range(30, 60)))
    sides = split(tmp_path / "folder", "preferences", read_preferences)
    assert [asked(side.rows) for side in sides] == [asked(side.rows) for side in whole]
    assert [len(side.rows) for side in sides] == [59, 1]


COMMIT = "1a" * 20


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of hub:owner/pairs in a cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "datasets--owner--pairs"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT / "main").mkdir(parents=True)
    return folder / "snapshots" / COMMIT


def test_pairs_of_the_hub_are_read_from_its_cache(cached: Path, tmp_path: Path) -> None:
    write_json_lines(cached / "train.jsonl", map(pair, range(3)))
    write_json_lines(cached / "test.jsonl", map(pair, range(3, 5)))
    source = Path("hub:owner/pairs")
    assert [len(side.rows) for side in split(source, "preferences", read_preferences)] == [3, 2]
    # A run records the files that it read, so it does not continue on others.
    assert on_disk(source) == cached and on_disk(tmp_path) == tmp_path


def test_a_part_of_a_data_set_on_the_hub(cached: Path) -> None:
    write_json_lines(cached / "other.jsonl", [{"text": "elsewhere"}])
    texts = [{"text": f"text {n}"} for n in range(4)]
    write_json_lines(cached / "main" / "train.jsonl", texts[:3])
    write_json_lines(cached / "main" / "test.jsonl", texts[3:])
    for inside, sides in (
        ("main", [3, 1]),
        ("main/", [3, 1]),
        ("main/train.jsonl", [2, 1]),
        ("", [3, 1]),
    ):
        found = documents(Path(f"hub:owner/pairs/{inside}"))
        assert [len(found.train), len(found.heldout)] == sides, inside
    read = load_dataset(["hub:owner/pairs/main"])
    assert (len(read.train), len(read.heldout)) == (3, 1)
    with pytest.raises(UserError, match=r"hub:owner/pairs/mian has no data at 'mian'; .* for all"):
        documents(Path("hub:owner/pairs/mian"))


def test_a_data_stage_on_the_hub_is_one(cached: Path) -> None:
    (cached / "preferences").mkdir()
    write_json_lines(cached / "preferences" / "train.jsonl", map(pair, range(3)))
    write_json_lines(cached / "preferences" / "heldout.jsonl", map(pair, range(3, 5)))
    sides = split(Path("hub:owner/pairs"), "preferences", read_preferences)
    assert [len(side.rows) for side in sides] == [3, 2]
    with pytest.raises(UserError, match=r"hub:owner/pairs' has no conversations/train\.jsonl"):
        split(Path("hub:owner/pairs"), "conversations", read_preferences)


def test_a_run_does_not_continue_on_other_files_of_the_hub(cached: Path, tmp_path: Path) -> None:
    write_json_lines(cached / "train.jsonl", [{"text": f"text {n} of the sea"} for n in range(4)])
    config = TokenizerConfig(out=tmp_path / "out", data=Path("hub:owner/pairs"), vocab_size=320)
    assert train(config) == train(config)
    write_json_lines(cached / "train.jsonl", [{"text": f"text {n} of the moon"} for n in range(4)])
    with pytest.raises(UserError, match="begun from another data than"):
        train(config)


def test_columns_of_pairs_get_our_names(tmp_path: Path) -> None:
    path = tmp_path / "orca.jsonl"
    theirs = {"question": "Where?", "chosen": "prompt", "rejected": "No.", "prompt": "a better one"}
    write_json_lines(path, [theirs])
    columns = Columns(
        {"prompt": "question", "rejected": "chosen", "chosen": "prompt"}, PAIR_COLUMNS
    )
    [row] = read_preferences(path, columns).rows
    columns.check()
    assert (asked([row]), row.chosen, row.rejected) == (["Where?"], "a better one", "prompt")
    # The mapping takes precedence over another layout of the row.
    theirs = {"q": "Where?", "chosen": "a", "rejected": "b", "instruction": "No.", "prompt": "No."}
    write_json_lines(tmp_path / "two.jsonl", [theirs])
    columns = Columns({"prompt": "q"}, PAIR_COLUMNS)
    assert asked(read_preferences(tmp_path / "two.jsonl", columns).rows) == ["Where?"]
    labeled = {"q": "Where?", "a": "There.", "label": True, "conversations": [], "messages": []}
    labeled["messages"] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    write_json_lines(tmp_path / "labels.jsonl", [labeled])
    columns = Columns({"prompt": "q", "completion": "a"}, LABELED_COLUMNS)
    [answer] = read_unpaired_preferences(tmp_path / "labels.jsonl", columns).rows
    assert (answer.prompt[-1].content, answer.completion) == ("Where?", "There.")
    with pytest.raises(UserError, match=r"--columns prompt=quest: no row has .* 'question'"):
        missing = Columns({"prompt": "quest"}, PAIR_COLUMNS)
        read_preferences(path, missing)
        missing.check()
    with pytest.raises(UserError, match="'better' is not one of the columns that are read: prompt"):
        Columns({"better": "chosen"}, PAIR_COLUMNS)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Name it.", "input": "A ship."},
        {"prompt": "Name it.\n\nA ship."},
        {"conversations": [{"from": "human", "value": "Name it.\n\nA ship."}]},
        {"prompt": None, "instruction": "Name it.\n\nA ship.", "input": "", "system": None},
    ],
)
@pytest.mark.parametrize("as_turn", [False, True])
def test_prompts_of_pairs_may_have_the_layouts_of_conversations(
    tmp_path: Path, row: dict[str, object], as_turn: bool
) -> None:
    """LLaMA-Factory's ranking data have Alpaca's or ShareGPT's columns."""
    answers = {"chosen": "Anna", "rejected": "ship"}
    given = {
        name: {"from": "gpt", "value": said} if as_turn else said for name, said in answers.items()
    }
    write_json_lines(tmp_path / "pairs.jsonl", [{**row, **given}])
    found = read_preferences(tmp_path / "pairs.jsonl")
    [pair] = found.rows
    assert pair.prompt == (Message("user", "Name it.\n\nA ship."),)
    assert {"chosen": pair.chosen, "rejected": pair.rejected} == answers
    assert found.unread == ()
    # Whole conversations say what was asked, whatever else a row has.
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Anna"}]
    whole = {"chosen": turns, "rejected": [turns[0], {"from": "gpt", "value": "ship"}]}
    write_json_lines(tmp_path / "whole.jsonl", [{"conversations": turns, **whole}])
    assert asked(read_preferences(tmp_path / "whole.jsonl").rows) == ["Who?"]
    labels = read_unpaired_preferences(tmp_path / "pairs.jsonl").rows
    assert [(one.completion, one.label) for one in labels] == [("Anna", True), ("ship", False)]


def test_a_run_continues_on_an_earlier_revision_of_the_hub(cached: Path, tmp_path: Path) -> None:
    write_json_lines(cached / "train.jsonl", [{"text": f"text {n} of the sea"} for n in range(4)])
    config = TokenizerConfig(out=tmp_path / "out", data=Path("hub:owner/pairs"), vocab_size=320)
    done = train(config)
    newest = cached.parent / "2b"
    newest.mkdir()
    write_json_lines(newest / "train.jsonl", [{"text": f"text {n} of the moon"} for n in range(4)])
    (cached.parents[1] / "refs" / "main").write_text("2b")
    (cached.parents[1] / "refs" / "v1").write_text(COMMIT)
    assert on_disk("hub:owner/pairs") == newest
    assert on_disk("hub:owner/pairs@v1") == on_disk(f"hub:owner/pairs@{COMMIT}") == cached
    with pytest.raises(UserError, match=f"another --out, or give hub:owner/pairs@{COMMIT}$"):
        train(config)
    assert train(config.model_copy(update={"data": Path(f"hub:owner/pairs@{COMMIT}")})) == done
    with pytest.raises(UserError, match="hub:owner/pairs@ is not a name on the hub"):
        on_disk("hub:owner/pairs@")
    with pytest.raises(UserError, match="hub:owner/pairs@3c cannot be downloaded"):
        on_disk("hub:owner/pairs@3c")
