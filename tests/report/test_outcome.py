"""The output of an experiment: complete, readable, safe, and never overwriting other work."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401 (as experiments with models have it)

from full_disks import may_mount, read_only, small_disk
from groundup.app.stages import EXPERIMENTS
from groundup.errors import UserError
from groundup.experiments.config import ExperimentConfig
from groundup.maths.intervals import Interval
from groundup.report.claim import Claim
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot, image
from groundup.report.outcome import begin, check_folder, over_seeds, working_in, write
from groundup.report.plots import panels
from groundup.report.table import markdown, number, percent, text_table

TABLE = text_table(
    "Heights",
    ("who", "metres"),
    (("guess", "1.5"), ("<b>tall</b>", "1.9\n1.8 to 2.0")),
    ("Measured | twice.",),
    ("guess",),
)


def line_plot(name: str = "line") -> Plot:
    figure, ((axes,),) = panels(width=3, height=2)
    axes.plot([0, 1], [0, 1])
    return Plot(name, "A line <going> up.", figure)


def outcome(folder: Path, name: str = "heights", **changes: Any) -> Path:
    content: dict[str, Any] = {
        "tables": [TABLE],
        "plots": [line_plot()],
        "remarks": ["Tall & short."],
        "data": {"mean": 1.7, "lost": float("nan"), "far": [float("inf"), Interval(1, 0, 2)]},
        "texts": {"poet": "<script>alert(1)</script>"},
        "seconds": 2.0,
    }
    return write(ExperimentConfig(out=folder, seed=3), name, "How tall?", **(content | changes))


def result(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (folder / "result.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def test_the_folder_is_complete(tmp_path: Path) -> None:
    folder = outcome(tmp_path / "deep" / "out")
    found = result(folder)
    assert sorted(found["files"]) == sorted(path.name for path in folder.iterdir())
    assert {"line.png", "line.svg", "report.html", "table.md"} < set(found["files"])
    assert found["config"] == {"out": str(folder), "seed": 3, "quick": False}
    # Torch where it computed something: the experiments on NumPy alone do not load it.
    assert found["versions"].keys() == {"python", "groundup", "numpy", "torch"}
    assert found["versions"]["torch"] == version("torch")
    assert found["tables"][0]["rows"][1] == ["<b>tall</b>", "1.9\n1.8 to 2.0"]
    far = {"estimate": 1, "low": 0, "high": 2}
    assert found["data"] == {"mean": 1.7, "lost": None, "far": [None, far]}


def test_pictures_are_pictures(tmp_path: Path) -> None:
    folder = outcome(tmp_path)
    assert (folder / "line.png").read_bytes().startswith(b"\x89PNG\r\n")
    root = ElementTree.parse(folder / "line.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("format", ["png", "svg"])
def test_the_same_figure_gives_the_same_file(format: str) -> None:
    assert image(line_plot().figure, format) == image(line_plot().figure, format)


def test_the_page_is_self_contained_and_runs_no_script(tmp_path: Path) -> None:
    page = (outcome(tmp_path) / "report.html").read_text(encoding="utf-8")
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', page))
    assert "<link" not in page and "<script" not in page and "@import" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;tall&lt;/b&gt;" in page and "Tall &amp; short." in page
    assert '<tr class="base"><th scope="row">guess</th>' in page
    assert '1.9<span class="i">1.8 to 2.0</span>' in page


def test_the_miniature_is_marked_as_such(tmp_path: Path) -> None:
    config = ExperimentConfig(out=tmp_path / "quick", quick=True)
    write(config, "a", "?", tables=[], plots=[], remarks=[], data={}, seconds=0.1)
    assert "miniature" in (tmp_path / "quick" / "report.html").read_text(encoding="utf-8")
    page = (outcome(tmp_path / "full") / "report.html").read_text(encoding="utf-8")
    assert "miniature" not in page


def test_clock_based_settings_are_not_promised_again(tmp_path: Path) -> None:
    promise, clock = "give the same numbers, except times", "The machine's speed decided"
    for planned in (False, True):
        folder = outcome(tmp_path / str(planned), planned_by_clock=planned)
        page = (folder / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")
        assert (promise in page, clock in page) == (not planned, planned)
        assert result(folder)["planned_by_clock"] is planned


def test_a_claim_that_holds_is_not_a_better_model(tmp_path: Path) -> None:
    changes = [Estimate(mean, mean - 0.1, mean + 0.1, 9, 9) for mean in (0.5, -0.5, 0.0)]
    claims = [Claim("a window predicts worse", one, "nats", "above") for one in changes]
    folder = outcome(tmp_path / "out", claims=claims)
    page = (folder / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<(?:h3|summary)[^>]*>(\w[^<(]*) \(1\)", page)
    assert titles == ["Holds", "Does not hold", "Not significant"]
    outcomes = [one["outcome"] for one in result(folder)["claims"]]
    assert outcomes == ["holds", "does not hold", "not significant"]


def test_no_time_is_reported_if_an_earlier_start_did_part_of_it(tmp_path: Path) -> None:
    for starts in (1, 2):
        folder = tmp_path / str(starts)
        folder.mkdir()
        for _ in range(starts):
            begin(folder, "heights")
        outcome(folder)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert result(folder)["seconds"] == (2.0 if starts == 1 else None)
        assert ("2 seconds" in page, "in more than one start" in page) == (starts == 1, starts == 2)
        # Killed behind the result, before the run was finished.
        begin(folder, "heights")
        outcome(folder)
        assert result(folder)["seconds"] is None
    # What is shown again took what it took, unless something was added.
    again = outcome(tmp_path / "again")
    outcome(again, seconds=None)
    assert result(again)["seconds"] == 2.0
    more = ExperimentConfig(out=again, seed=4)
    facts: dict[str, Any] = {"tables": [TABLE], "plots": [], "remarks": [], "data": {}}
    write(more, "heights", "How tall?", **facts, seconds=None)
    assert result(again)["seconds"] is None
    assert check_folder(folder, "heights") and not check_folder(tmp_path / "new", "heights")
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "cells").mkdir()
    assert check_folder(tmp_path / "left", "heights", ["cells"])
    (tmp_path / "killed" / ".partial").mkdir(parents=True)
    assert not check_folder(tmp_path / "killed", "heights")


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with working_in(folder, "heights", ["cells"]) as resumed:
        assert not resumed
        with (
            pytest.raises(UserError, match=r"another process is working in .*out; wait"),
            working_in(folder, "heights"),
        ):
            pytest.fail("both work in one folder")
        (folder / "cells").mkdir()
        outcome(folder, pieces=["cells"])
    assert not (folder / ".lock").exists()
    with working_in(folder, "heights") as resumed:
        assert resumed
    with pytest.raises(ValueError), working_in(tmp_path / "new", "heights"):
        raise ValueError
    assert not (tmp_path / "new").exists()
    # A killed process leaves the lock's file.
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").touch()
    with working_in(tmp_path / "killed", "heights") as resumed:
        assert not resumed


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_refuses_a_folder_in_use(tmp_path: Path, name: str) -> None:
    config = EXPERIMENTS[name].config
    parents = {n: tmp_path for n, one in config.model_fields.items() if one.is_required()}
    with (
        working_in(tmp_path / "out", name),
        pytest.raises(UserError, match=r"another process is working in .*out; wait"),
    ):
        EXPERIMENTS[name].run(config(**parents | {"out": tmp_path / "out", "quick": True}))


def test_markdown_rows_have_a_cell_for_each_column() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[0] == "## Heights"
    assert lines[2:6] == [
        "| who | metres |",
        "| --- | --- |",
        "| guess | 1.5 |",
        "| <b>tall</b> | 1.9 (1.8 to 2.0) |",
    ]
    piped = markdown(text_table("t", ("a", "b"), (("x | y", "1"),)))
    assert r"| x \| y | 1 |" in piped


def test_a_second_run_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    folder = outcome(tmp_path, plots=[line_plot("old"), line_plot("line")])
    (folder / "my notes.txt").write_text("mine")
    outcome(tmp_path, data={"mean": 1.8})
    assert result(folder)["data"] == {"mean": 1.8}
    assert not (folder / "old.png").exists() and not (folder / "old.svg").exists()
    assert (folder / "line.png").exists()
    assert (folder / "my notes.txt").read_text() == "mine"


def test_a_foreign_list_of_files_removes_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    folder = outcome(tmp_path / "out")
    forged = result(folder) | {"files": ["../outside.txt", str(outside)]}
    (folder / "result.json").write_text(json.dumps(forged))
    outcome(folder)
    assert outside.read_text() == "mine"


def test_another_experiments_folder_is_rejected(tmp_path: Path) -> None:
    folder = outcome(tmp_path)
    with pytest.raises(UserError, match="holds the experiment 'heights', not 'weights'"):
        check_folder(folder, "weights")
    with pytest.raises(UserError, match="choose another out"):
        outcome(folder, name="weights")
    assert result(folder)["experiment"] == "heights"


@pytest.mark.parametrize("content", ["not JSON", "[]", "{}", None])
def test_a_folder_of_other_files_is_rejected(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match="already holds other files"):
        check_folder(tmp_path, "heights")


def test_a_file_is_rejected_and_a_new_or_empty_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "file", "heights")
    check_folder(tmp_path / "new", "heights")
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty", "heights")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not may_mount(), reason="root may write anywhere else")
@pytest.mark.parametrize("inside", ["", "new", "new/deeper"])
def test_a_place_that_is_not_writable_is_refused_before_any_work(
    tmp_path: Path, inside: str
) -> None:
    with (
        read_only(tmp_path / "disk") as disk,
        pytest.raises(UserError, match=rf"cannot be written: {re.escape(str(disk))} is read-only"),
    ):
        check_folder(disk / inside, "heights")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_below_what_is_none_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"needs a folder, but .*{kind} is none"):
        check_folder(tmp_path / kind / "new", "heights")


def test_cells() -> None:
    assert percent(Interval(0.9712, 0.95, 0.98)).text == "97.1 %\n95.0 to 98.0"
    assert number(Interval(2.0, 1.0, 3.0), 1).text == "2.0\n1.0 to 3.0"
    assert over_seeds([3.0, 1.0, 2.0]) == Interval(2.0, 1.0, 3.0)


@pytest.mark.parametrize("room", [0, 4_096, 20_000])
def test_an_earlier_outcome_is_kept_if_there_is_no_room(tmp_path: Path, room: int) -> None:
    with small_disk(tmp_path / "disk", 2**22) as disk:
        folder = disk.folder / "out"
        with disk.left(room), pytest.raises(OSError) as error:
            outcome(folder)
        assert str(folder) in str(error.value.filename) and not folder.exists()
        outcome(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with disk.left(room), pytest.raises(OSError):
            outcome(folder, remarks=["another"])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
