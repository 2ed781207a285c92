"""Overlap of training and evaluation data, by hand and on a data folder of a real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from groundup.data.dataset import load_dataset, load_datasets
from groundup.evals.contamination import contamination
from groundup.evals.values.overlap import Overlap, compared, overlaps, trained_on

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def look(trained: list[tuple[str, str]], *items: str) -> Overlap:
    (found,) = overlaps(trained, {"set": [(one,) for one in items]})
    return found


def test_equal_words_match_in_any_case_and_punctuation() -> None:
    found = look([("wiki", "How? do THEY, grow!")], "How do they grow", "How do they eat")
    assert (found.items, found.same, found.near, found.grams, found.found) == (2, 1, 0, 0, 1)
    assert found.sources == {"wiki": 1}


def grams(text: str) -> set[str]:
    said = text.split()
    return {" ".join(said[i : i + 5]) for i in range(len(said) - 4)}


@pytest.mark.parametrize("changed", range(14))
def test_near_duplicates_have_a_jaccard_of_four_fifths(changed: int) -> None:
    """With one word changed, and with words added, by the definition on sets of strings."""
    for more in ("", " fifteen", " fifteen sixteen", " fifteen sixteen seventeen"):
        said = ITEM.split()
        said[changed] = "other"
        for text in (" ".join(said), ITEM + more):
            a, b = grams(ITEM), grams(text)
            jaccard = len(a & b) / len(a | b)
            assert (look([("s", text)], ITEM).near == 1) == (jaccard >= 0.8), (jaccard, text)


def test_thirteen_words_in_a_row() -> None:
    start = " ".join(ITEM.split()[:13])
    inside = f"And then came many other words that nobody asked for: {start} And so on it went."
    found = look([("a", inside), ("b", inside), ("b", "Nothing of it.")], ITEM, "Something else.")
    assert (found.same, found.near, found.grams, found.found) == (0, 0, 1, 1)
    assert found.sources == {"a": 1, "b": 1}
    twelve = " ".join(ITEM.split()[:12])
    assert look([("a", inside.replace(start, twelve))], ITEM).grams == 0


SHORT = "What is the capital of the country that won the war?"


@pytest.mark.parametrize(
    ("item", "text", "found"),
    [
        (SHORT, f"Question: {SHORT}\nAnswer: Rome", 1),
        (SHORT, f"Please answer: {SHORT.upper()}", 1),
        (SHORT, f"{SHORT} It is Rome, as everybody knows.", 1),
        (SHORT, "the capital of the country that won the war " * 9 + SHORT, 1),
        ("What do most bees make?", "Q: What do most bees make? A: honey", 1),
        (ITEM.partition(" thirteen")[0], f"So: {ITEM}", 1),
        # A word is another one, or all fives of its words stand there and not in a row.
        (SHORT, "Question: What is the capital of the country that lost the war?\nAnswer: Rome", 0),
        (SHORT, "The war that won the country: what is the capital of the country? Rome.", 0),
        ("a b c d e f g h", "a b c d e f x b c d e f g y c d e f g h z d e f g h", 0),
        # Runs of fewer than five words occur in many texts.
        ("What do bees make?", "Q: What do bees make? A: honey", 0),
        ("", SHORT, 0),
    ],
)
def test_a_short_item_is_found_as_a_run_of_words(item: str, text: str, found: int) -> None:
    one = look([("mine", text)], item)
    assert (one.same, one.near, one.grams, one.found) == (0, 0, found, found)
    # Beside others, and whichever of them is longer.
    assert look([("mine", "Nothing of it."), ("mine", text)], ITEM + " more", item).found == (
        found + (ITEM in text)
    )


def test_sets_are_separate_and_empty_texts_match_nothing() -> None:
    one, two = overlaps([("s", "a b c")], {"one": [["a b c"]], "two": [["d e f"]]})
    assert (one.set, one.found, two.set, two.found) == ("one", 1, "two", 0)
    assert look([], ITEM).found == 0 and look([("s", "")], ITEM).found == 0
    assert overlaps([("s", "a")], {}) == []
    assert json.loads(json.dumps(one.to_json()))["sources"] == {"s": 1}


def write(
    folder: Path, reads: str | None, data: Path | None, model: Path | None = None, **run: Any
) -> Path:
    """A run's records, as a training stage leaves them."""
    folder.mkdir(parents=True)
    parents = run.pop("parents", {}) | ({"data": data} if data else {})
    parents |= {"model": model} if model else {}
    named = {name: {"path": str(path)} for name, path in parents.items()}
    plan = run.pop("plan", {})
    said = {"schema": 1, "stage": "sft", "parents": named, "traits": {"reads": reads}, **run}
    (folder / "run.json").write_text(json.dumps(said))
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "metrics.jsonl").write_text("")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = {
        "documents": {"text": f"A title\n\nSome words. {ITEM} And more.", "source": "wiki"},
        "conversations": {
            "messages": [
                {"role": "user", "content": "How do they grow?"},
                {"role": "assistant", "content": "Slowly."},
            ],
            "source": "talk",
            "group": "g",
        },
    }
    for kind, row in rows.items():
        (tmp_path / "data" / kind).mkdir(parents=True)
        (tmp_path / "data" / kind / "train.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "data"


def test_a_model_is_checked_against_the_data_of_its_runs(tmp_path: Path, data: Path) -> None:
    items = {"set": [["how do they grow"], [ITEM]]}
    write(tmp_path / "base", "documents", data)
    write(tmp_path / "sft", "conversations", data, tmp_path / "base")
    base = compared(trained_on(tmp_path / "base"), items)
    # Title and paragraph; of the conversations nothing was read.
    assert (base.texts, base.overlaps[0].grams, base.overlaps[0].same) == (2, 1, 0)
    sft = compared(trained_on(tmp_path / "sft"), items)
    assert (sft.texts, sft.overlaps[0].grams, sft.overlaps[0].same) == (4, 1, 1)
    assert sft.overlaps[0].sources == {"talk": 1, "wiki": 1} and not sft.unknown
    assert json.loads(json.dumps(sft.to_json()))["overlaps"][0]["found"] == 2


def test_unknown_overlap_is_reported(tmp_path: Path, data: Path) -> None:
    elsewhere = compared(trained_on(tmp_path / "elsewhere"), {"set": [[ITEM]]})
    assert elsewhere.overlaps == [] and "elsewhere" in elsewhere.unknown[0]
    write(tmp_path / "base", "documents", data)
    shutil.rmtree(data)
    gone = compared(trained_on(tmp_path / "base"), {"set": [[ITEM]]})
    assert gone.texts == 0 and gone.overlaps == [] and "gone" in gone.unknown[0]


def test_an_item_is_found_by_any_of_its_texts_and_counted_once() -> None:
    items = {"one": [["never said", "how do they grow"], ["how do they grow"], ["", "nor this"]]}
    [found] = overlaps([("s", "How do they grow?"), ("t", "How do they grow"), ("s", "")], items)
    assert (found.items, found.same, found.found) == (3, 2, 2)
    assert found.sources == {"s": 2, "t": 2}


def test_prompts_of_reinforcement_learning_count_as_training_data(
    tmp_path: Path, data: Path
) -> None:
    """A file of prompts; and of a data folder the prompts, without the answers."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": ITEM}) + "\n")
    traits: dict[str, Any] = {"stage": "ppo"}
    traits["parents"] = {"prompts": prompts, "reward": tmp_path / "rm"}
    found = compared(
        trained_on(write(tmp_path / "ppo", "prompts", None, **traits)), {"set": [[ITEM]]}
    )
    assert (found.overlaps[0].same, found.texts, found.unknown) == (1, 1, [])
    assert found.overlaps[0].sources == {"prompts.jsonl": 1}
    # Rows may have their answer, which is not read.
    talks = tmp_path / "talks.jsonl"
    asked, said = {"role": "user", "content": ITEM}, {"role": "assistant", "content": "So it is."}
    talks.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {"messages": [asked, said]},
                {"instruction": "Ask.", "output": "So it is."},
                {"chosen": [asked, said], "rejected": [asked, said | {"content": "No."}]},
            )
        )
    )
    traits["parents"] = {"prompts": talks}
    answered = write(tmp_path / "grpo", "prompts", None, **traits)
    items = {"set": [[ITEM], ["Ask."], ["So it is."]]}
    found = compared(trained_on(answered), items)
    assert (found.overlaps[0].same, found.texts, found.unknown) == (2, 3, [])
    of_folder: dict[str, Any] = {"stage": "ppo", "parents": {"prompts": data}}
    model = write(tmp_path / "ppo-2", "prompts", None, **of_folder)
    items = {"set": [["How do they grow?"], ["Slowly."]]}
    found = compared(trained_on(model), items)
    assert (found.overlaps[0].same, found.texts, found.unknown) == (1, 1, [])
    for patterns, count in ((["world-*"], 0), (["world-*", "tal?"], 1)):
        of_folder["config"] = {"sources": patterns}
        some = compared(
            trained_on(write(tmp_path / f"ppo {count}", "prompts", None, **of_folder)), items
        )
        assert (some.overlaps[0].same, some.texts, some.unknown) == (count, count, [])
    said = trained_on(tmp_path / "ppo 1").to_json()
    assert json.loads(json.dumps(said)) == said  # as a key of what is kept
    # With ptx and no data for it named, conversations of the same folder are learned as well.
    of_folder["config"] = {"ptx": 0.3}
    found = compared(trained_on(write(tmp_path / "ptx", "prompts", None, **of_folder)), items)
    assert (found.overlaps[0].same, found.texts) == (2, 2)


def test_users_files_count_as_training_data(tmp_path: Path) -> None:
    """Each as its stage reads it, without its held-out rows."""
    user = [{"role": "user", "content": ITEM}]
    talks = tmp_path / "talks.jsonl"
    talks.write_text(json.dumps({"messages": [*user, {"role": "assistant", "content": "So."}]}))
    mapped = tmp_path / "mapped.csv"
    mapped.write_text(f"question,reply\n{ITEM},So.\n")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": ITEM, "chosen": "So.", "rejected": "No."}))
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"prompt": ITEM, "completion": "So.", "label": True}))
    book = tmp_path / "book.txt"
    book.write_text(f"First: {ITEM}\n\nAgain: {ITEM}\n")  # one of the two is held out
    columns = {"config": {"columns": ["prompt=question", "completion=reply"]}}
    read: list[tuple[str, Path, dict[str, Any]]] = [
        ("conversations", talks, {}),
        ("conversations", mapped, columns),
        ("preferences", pairs, {"stage": "dpo"}),
        ("preferences", labels, {"stage": "kto"}),
        ("documents", book, {"stage": "pretrain"}),
    ]
    for place, (reads, path, more) in enumerate(read):
        found = compared(
            trained_on(write(tmp_path / f"run-{place}", reads, path, **more)), {"set": [[ITEM]]}
        )
        assert found.overlaps[0].found == 1 and found.unknown == [], path
        assert found.folders == [str(path)]
    # A folder's test split was not trained on; data next to a moved run is found.
    (tmp_path / "own").mkdir()
    talks.rename(tmp_path / "own" / "test.jsonl")
    pair = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "So."}]
    (tmp_path / "own" / "train.jsonl").write_text(json.dumps({"messages": pair}))
    model = write(tmp_path / "split", "conversations", Path("/elsewhere/own"))
    found = compared(trained_on(model), {"set": [[ITEM], ["Hm?"]]})
    assert (found.texts, found.overlaps[0].same, found.unknown) == (2, 1, [])


def test_held_out_rows_of_several_fine_tuning_files_do_not_count(tmp_path: Path) -> None:
    """Training splits all its data at once, and each replay source separately."""
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for place, file in enumerate(files):
        rows = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(place * 100, 240)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[: 120 + 20 * place]))

    def checked(name: str, **parents: Path) -> tuple[int, list[str]]:
        found = compared(
            trained_on(write(tmp_path / name, "conversations", None, parents=parents)), {}
        )
        return found.texts, list(found.unknown)

    whole = load_datasets(files)
    assert sum(len(part.heldout) for part in whole) > 0 < whole[1].duplicates
    trained = sum(len(part.train) for part in whole)
    assert checked("data", **{"data": files[0], "data 2": files[1]}) == (2 * trained, [])
    alone = sum(len(load_dataset([file]).train) for file in files)
    assert alone > trained
    assert checked("replay", **{"replay": files[0], "replay 2": files[1]}) == (2 * alone, [])


def test_documents_are_fine_tuned_on_if_there_are_no_conversations(
    tmp_path: Path, data: Path
) -> None:
    (data / "conversations" / "train.jsonl").write_text("")
    found = compared(trained_on(write(tmp_path / "sft", "conversations", data)), {"set": [[ITEM]]})
    assert (found.texts, found.overlaps[0].grams, found.unknown) == (2, 1, [])


def test_every_run_without_a_readable_source_is_reported(tmp_path: Path, data: Path) -> None:
    base = write(tmp_path / "base", "documents", data)
    sets = {"config": {"data": ["hub:owner/talks", "pack:piqa"], "replay_data": ["pack:wiki"]}}
    first = write(tmp_path / "first", "conversations", None, base, **sets)
    found = compared(trained_on(first), {"set": [[ITEM]]})
    assert found.texts == 2 and len(found.unknown) == 2
    assert "hub:owner/talks" in found.unknown[0] and "pack:piqa" in found.unknown[1]
    # Replay is a setting that the plan may have decided against.
    replayed = write(
        tmp_path / "replayed", "conversations", None, base, plan={"layout": {"replay": 0.1}}, **sets
    )
    assert "pack:wiki" in compared(trained_on(replayed), {}).unknown[2]
    # A set of the hub that the run records as a folder of its cache is told once, by its name.
    cache = tmp_path / "datasets--owner--talks" / "snapshots" / "1a"
    cache.mkdir(parents=True)
    cached = write(tmp_path / "cached", "conversations", cache, base, **sets)
    told = compared(trained_on(cached), {"set": [[ITEM]]}).unknown
    assert len(told) == 2 and "pack:piqa" in told[0] and "(hub:owner/talks@1a)" in told[1]
    told = [one.message for one in contamination(cached)]
    assert [("hub:owner/talks@1a" in one, "pack:piqa" in one) for one in told[1:]] == [
        (True, False),
        (False, True),
    ]
    bare = write(tmp_path / "bare", None, None, stage="own")
    assert "does not name" in compared(trained_on(bare), {}).unknown[0]
    bad = tmp_path / "bad.jsonl"
    bad.write_text("no json\n")
    unread = compared(trained_on(write(tmp_path / "unread", "preferences", bad)), {"set": [[ITEM]]})
    assert unread.folders == unread.overlaps == [] and "bad.jsonl" in unread.unknown[0]
    # A start from elsewhere, too.
    tuned = write(tmp_path / "tuned", "conversations", data, tmp_path / "smollm")
    found = compared(trained_on(tuned), {"set": [[ITEM]]})
    assert found.texts == 2 and "smollm" in found.unknown[0]
    # And so it is where the suite's other halves are looked for.
    told = [one.message for one in contamination(first)]
    assert len(told) == 3 and all("not known" in one for one in told)
    assert "hub:owner/talks" in told[1] and "pack:piqa" in told[2]
    assert "was trained on data that it does not name" in contamination(bare)[0].message
