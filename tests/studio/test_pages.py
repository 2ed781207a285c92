"""The contents of the studio's pages, for real folders and constructed runs."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Show
from tests.studio.test_runs import cells, read, rows, step, training

from groundup.app.xray import page as xray_page
from groundup.report.page import Answer, Dialogue, Fold, Note, Section
from groundup.report.table import Part, Row, Table
from groundup.runs.files import read_json_object, write_sealed
from groundup.studio.pages import _spread, home_page, look_links, run_page
from groundup.studio.runs import Runs


def sections(root: Path, path: str, samples: Any = ()) -> dict[str, Section]:
    runs = Runs(root)
    run = runs.get(path)
    assert run is not None
    return {one.anchor: one for one in run_page(runs, run, [], samples).sections}


def tables(section: Section) -> dict[str, dict[str, list[str]]]:
    """The cells of each table, including folded ones, by its title and the row's."""
    blocks = [one for block in section.blocks for one in getattr(block, "blocks", [block])]
    return {
        one.title: {row.title: cells(row) for row in one.rows if isinstance(row, Row)}
        for one in blocks
        if isinstance(one, Table)
    }


# All runs.


def seconds(page: str) -> float:
    [found] = re.findall(r'<main data-seconds="([^"]*)"', page)
    return float(found)


def test_a_page_refreshes_faster_while_something_runs(trained: Path, show: Show) -> None:
    def asked(*paths: str) -> list[float]:
        return [seconds(show(trained).get(path).text) for path in paths]

    still = asked("/", "/runs/journey/sft")
    with training(trained / "live") as run:
        step(run, 1, 2.0)
        moving = asked("/", "/runs/live")
        assert asked("/runs/journey/sft") == still[1:]
    assert 1 <= min(moving) <= max(moving) < min(still)


def test_the_most_recent_folder_comes_first(tmp_path: Path) -> None:
    for number, name in enumerate(("b/one", "a/one", "c/one", "b/two")):
        with training(tmp_path / name) as run:
            described = read_json_object(run.folder / "run.json")
        del described["sha256"]
        described["started"] = f"2026-01-0{number + 1}T00:00:00Z"
        write_sealed(run.folder / "run.json", described)
    [table] = [one for one in home_page(Runs(tmp_path)).opening if isinstance(one, Table)]
    assert [one.title for one in table.rows] == ["b", "one", "two", "c", "one", "a", "one"]
    assert [one.title for one in table.rows if isinstance(one, Part)] == ["b", "c", "a"]


def test_a_parent_in_another_folder_is_named(trained: Path, show: Show) -> None:
    parent = {"model": trained / "journey" / "sft"}
    with training(trained / "other" / "next", parent) as run:
        step(run, 1, 2.0)
    row = rows(trained)["next"]
    assert (row.note, row.depth) == ("pretrain, from journey/sft", 0)
    # Each leads to the other.
    above = tables(sections(trained, "other/next")["lineage"])
    below = tables(sections(trained, "journey/sft")["lineage"])
    assert list(above["Made from"].values()) == [["model"]]
    assert below["Used by"] == {"other/next": ["model"]}
    assert 'href="/runs/journey/sft"' in show(trained).get("/runs/other/next").text


def test_only_chat_models_have_a_link_to_chat(trained: Path, show: Show) -> None:
    links = re.findall(r'<a href="(/talk[^"]*)" aria-label="Talk: (\w+)"', read_raw(show, trained))
    assert links == [
        ("/talk?model=journey%2Fpretrain", "pretrain"),
        ("/talk?model=journey%2Fsft", "sft"),
    ]
    shutil.rmtree(trained / "journey" / "sft")
    shutil.rmtree(trained / "journey" / "pretrain")
    assert "/talk" not in read_raw(show, trained)


def read_raw(show: Show, root: Path) -> str:
    return show(root).get("/").text


def test_a_bar_shows_the_progress_of_a_run(tmp_path: Path, show: Show) -> None:
    with training(tmp_path / "base") as run:
        step(run, 10, 2.0, steps=40)
        for path in ("/", "/runs/base"):
            page = show(tmp_path).get(path).text
            assert re.findall(r'class="bar done".*?width: ([\d.]+)%', page) == ["25.0"]
        for name in ("run.json", ".run.json.copy"):
            (run.folder / name).write_text("{")
        # The rest of a damaged file is uncertain.
        damaged = show(tmp_path).get("/").text
    assert "10 of 40" in damaged and "bar done" not in damaged


def test_problems_of_a_run_come_first_on_its_page(trained: Path, show: Show) -> None:
    (trained / "journey" / "sft" / "model.safetensors").unlink()
    client = show(trained)
    page = client.get("/runs/journey/sft").text
    [box] = re.findall(r'<div class="honest"><p>(.*?)</p>', page)
    assert box.startswith("Damaged: model.safetensors is gone or cut short")
    assert page.index(box) < page.index("<table>")
    assert "<strong>journey/sft</strong>: model.safetensors is gone" in client.get("/").text


# One run.


@pytest.mark.parametrize("count", [1, 8, 9, 60, 3_000])
def test_few_of_many_texts_are_the_first_the_last_and_more_early_ones(count: int) -> None:
    answers = [Answer(str(number), "") for number in range(count)]
    few = [int(one.who) for one in _spread(answers, 8)]
    assert few[0] == 0 and few[-1] == count - 1 and len(few) == len(set(few)) <= 8
    gaps = [after - before for before, after in pairwise(few)]
    assert gaps == sorted(gaps)
    assert len(few) >= min(count, 6)


def test_omitted_samples_are_reported(tmp_path: Path) -> None:
    with training(tmp_path / "base") as run:
        step(run, 1, 2.0)
    samples = [
        {"step": at, "prompt": f"prompt {number}", "text": f"text {at}"}
        for at in range(300)
        for number in range(11)
    ]

    def shown(samples: Any) -> list[Any]:
        return list(sections(tmp_path, "base", samples)["samples"].blocks)

    blocks = shown(samples)
    assert [one.turns[0][1] for one in blocks if isinstance(one, Dialogue)] == [
        f"prompt {number}" for number in range(8)
    ]
    assert isinstance(blocks[-1], Note) and "8 of 11 prompts" in blocks[-1].text
    [fold, *_] = [one for one in blocks if isinstance(one, Fold)]
    [dialogue] = fold.blocks
    assert isinstance(dialogue, Dialogue)
    assert len(dialogue.answers) == 200 and "last 200" in fold.title
    assert dialogue.answers[-1].text == "text 299"
    [_, whole] = shown([one for one in samples[:330] if one["prompt"] == "prompt 0"])
    assert whole.title == "All texts of this prompt" and len(whole.blocks[0].answers) == 30


def test_a_plan_has_the_values_of_its_reasons(tmp_path: Path) -> None:
    plan = {
        "steps": 1,
        "rates": {"matrices": 0.02},
        "layout": {"context": 256.0},
        "model": {"num_attention_heads": 3},
        "reasons": dict.fromkeys(
            ("heads", "learning_rate", "context", "steps", "mixture", "unknown"), "why"
        ),
    }
    with training(tmp_path / "base") as run:
        run.plan(plan)
        described = read_json_object(run.folder / "run.json")
    del described["sha256"]
    described["config"] |= {"mixture": {"world": [0.7, 0.15], "other": 0.1}}
    write_sealed(run.folder / "run.json", described)
    shown = tables(sections(tmp_path, "base")["plan"])["Plan"]
    assert {name: value for name, (value, _) in shown.items()} == {
        "heads": "3",
        "learning_rate": "0.02",
        "context": "256",
        "steps": "1",
        "mixture": "world: 0.7, 0.15; other: 0.1",
        "unknown": "",
    }


def test_pages_have_no_empty_headings(trained: Path, show: Show) -> None:
    """Requirements of assistive technology for tables, and the field's terms."""
    client = show(trained)
    for path in ("/", "/runs/journey/sft", "/runs/journey/pretrain"):
        assert '<th scope="col"></th>' not in client.get(path).text
        assert "begun" not in read(client, path)


# Looking inside.


def test_the_page_of_a_text_links_back(trained: Path) -> None:
    folder = trained / "journey" / "sft"
    links = look_links(trained, "journey/sft", folder)
    page = xray_page(folder, "The sea. " * 60, name="journey/sft", chat=False, links=links)
    assert "<h1>journey/sft</h1>" in page and page.count("<main>") == 1
    found = {words: href for href, words in re.findall(r'<a href="([^"]*)">([^<]*)', page)}
    run = "/runs/journey/sft"
    assert found == {"All runs": "/", "journey/sft": run, "Another text": f"{run}#inside"}
    # Advice that can be followed here: at the terminal.
    assert not re.findall(r"<code>--\w+", page)
    [root] = [href for words, href in look_links(folder, "sft", folder) if words == "sft"]
    assert root == "/runs/"
