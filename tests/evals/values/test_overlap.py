"""What was trained on against what is evaluated, by hand and on a data folder of a real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from groundup.evals.values.overlap import (
    Overlap,
    of_model,
    overlaps,
)

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def look(trained: list[tuple[str, str]], *items: str) -> Overlap:
    (found,) = overlaps(trained, {"set": items})
    return found


def test_the_same_words_whatever_the_case_and_the_marks() -> None:
    found = look([("wiki", "How? do THEY, grow!")], "How do they grow", "How do they eat")
    assert (found.items, found.same, found.near, found.grams, found.found) == (2, 1, 0, 0, 1)
    assert found.sources == {"wiki": 1}


def grams(text: str) -> set[str]:
    said = text.split()
    return {" ".join(said[i : i + 5]) for i in range(len(said) - 4)}


@pytest.mark.parametrize("changed", range(14))
def test_nearly_the_same_is_a_jaccard_of_four_fifths(changed: int) -> None:
    """With one word changed, and with words added, by the definition over sets of strings."""
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


def test_sets_are_told_apart_and_nothing_is_found_in_nothing() -> None:
    one, two = overlaps([("s", "a b c")], {"one": ["a b c"], "two": ["d e f"]})
    assert (one.set, one.found, two.set, two.found) == ("one", 1, "two", 0)
    assert look([], ITEM).found == 0 and look([("s", "")], ITEM).found == 0
    assert overlaps([("s", "a")], {}) == []
    assert json.loads(json.dumps(one.to_json()))["sources"] == {"s": 1}


def write(folder: Path, reads: str | None, data: Path, model: Path | None = None) -> None:
    """A run's own records, as a training stage leaves them."""
    folder.mkdir(parents=True)
    parents = {"data": {"path": str(data)}}
    parents |= {"model": {"path": str(model)}} if model else {}
    run = {"schema": 1, "stage": "sft", "parents": parents, "traits": {"reads": reads}}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "plan.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")


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


def test_a_model_is_asked_for_what_its_runs_read(tmp_path: Path, data: Path) -> None:
    items = {"set": ["how do they grow", ITEM]}
    write(tmp_path / "base", "documents", data)
    write(tmp_path / "sft", "conversations", data, tmp_path / "base")
    base = of_model(tmp_path / "base", items)
    # Title and paragraph; of the conversations nothing was read.
    assert (base.texts, base.overlaps[0].grams, base.overlaps[0].same) == (2, 1, 0)
    sft = of_model(tmp_path / "sft", items)
    assert (sft.texts, sft.overlaps[0].grams, sft.overlaps[0].same) == (4, 1, 1)
    assert sft.overlaps[0].sources == {"talk": 1, "wiki": 1} and not sft.unknown
    assert json.loads(json.dumps(sft.to_json()))["overlaps"][0]["found"] == 2


def test_what_cannot_be_known_is_said(tmp_path: Path, data: Path) -> None:
    elsewhere = of_model(tmp_path / "elsewhere", {"set": [ITEM]})
    assert elsewhere.overlaps == [] and "elsewhere" in elsewhere.unknown[0]
    write(tmp_path / "base", "documents", data)
    shutil.rmtree(data)
    gone = of_model(tmp_path / "base", {"set": [ITEM]})
    assert gone.texts == 0 and gone.overlaps == [] and "gone" in gone.unknown[0]
