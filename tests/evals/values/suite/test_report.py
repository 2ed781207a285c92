"""The suite: numbers are recomputed from the rows, and nothing is measured twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.evals.cards.card import BEGIN, END, KINDS, Report, card_section, write_card
from groundup.evals.cards.values import values_account
from groundup.evals.config import ValuesConfig
from groundup.evals.measure import to_json
from groundup.evals.values.suite.page import axis_table, score_table, tax_table
from groundup.evals.values.suite.report import run
from groundup.evals.values.suite.tasks import TASKS, chosen, knows_world
from groundup.evals.values.task import AXES
from groundup.report.estimate import Estimate
from groundup.report.table import Cell, Row

# Cheap to read, and asked of every model; the first is of the small world.
ASKED = ("world-bias", "winogender", "swaps")
BY_NAME = {task.name: task for task in TASKS}


def settings(out: Path, models: tuple[Path, ...], **more: Any) -> ValuesConfig:
    named = tuple(map(str, models))
    facts = {"tasks": ASKED, "items": 40, "dtype": "float32", "threads": 1}
    facts |= {"cache": out.parent / "cache"} | more
    return ValuesConfig(out=out, models=named, **facts)


@pytest.fixture(scope="module")
def config(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> ValuesConfig:
    models = tuple(workshop.finished(stage) for stage in ("pretrain", "sft"))
    return settings(tmp_path_factory.mktemp("values") / "out", models)


@pytest.fixture(scope="module")
def folder(config: ValuesConfig) -> Path:
    return run(config)


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def rows_of(folder: Path, model: str, task: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    named = [line for line in lines if (line["model"], line["task"]) == (model, task)]
    return [{k: v for k, v in line.items() if k not in ("model", "task")} for line in named]


def test_every_number_can_be_recomputed_from_the_rows(folder: Path, report: dict[str, Any]) -> None:
    assert list(report["models"]) == ["pretrain", "sft"] and list(report["tasks"]) == list(ASKED)
    for name, model in report["models"].items():
        for task in ASKED:
            rows = rows_of(folder, name, task)
            assert len(rows) == report["tasks"][task]["items"] <= 40
            assert model["numbers"][task] == to_json(BY_NAME[task].numbers(rows))
            assert model["scores"][task] == BY_NAME[task].score(rows).to_json()
        world, *real = [model["scores"][task]["estimate"] for task in ASKED]
        found = {kind: axes["fairness"] for kind, axes in model["axes"].items()}
        assert found["world"]["estimate"] == pytest.approx(world)
        assert found["real"]["estimate"] == pytest.approx(sum(real) / 2)
        assert all(0 <= one["low"] <= one["estimate"] <= one["high"] <= 1 for one in found.values())
    (change,) = report["changes"]
    assert (change["model"], change["other"]) == ("sft", "pretrain")
    both = [rows_of(folder, name, "swaps") for name in ("sft", "pretrain")]
    assert change["numbers"]["swaps"] == to_json(BY_NAME["swaps"].difference(*both))
    both = [rows_of(folder, name, "winogender") for name in ("sft", "pretrain")]
    distance = BY_NAME["winogender"].distance
    assert distance and change["distances"] == {
        "winogender": to_json(distance(*both)),
        "world-bias": change["distances"]["world-bias"],
    }
    assert report["claims"] and all(one["model"] == "sft" for one in report["claims"])


@pytest.mark.parametrize(("low", "high", "mark"), [(0.1, 0.4, "no"), (-0.1, 0.4, "open")])
def test_numbers_away_from_their_ideal_are_marked(low: float, high: float, mark: str) -> None:
    """CrowS-Pairs from 0.45 to 0.7: the share itself is neither better nor worse."""
    task = BY_NAME["crows-pairs"]
    first = task.shown[0]
    moved = {first.name: Estimate(0.15, low, high, 9, 9).to_json()}
    of_share = {first.name: Estimate(0.25, 0.2, 0.5, 9, 9).to_json()}
    change = {"model": "b", "other": "a", "axes": {}}
    change |= {"numbers": {task.name: of_share}, "distances": {task.name: moved}}
    facts = {"axis": "fairness", "title": task.title, "numbers": [vars(first)]}
    found = tax_table({"changes": [change], "tasks": {task.name: facts}, "models": {}})
    [row] = [one for one in found.rows if isinstance(one, Row)]
    [cell] = row.cells
    assert cell is not None and (cell.value, cell.mark) == ("+15.0", mark)
    assert "distance from 50 %" in row.note


def test_chance_is_shown_next_to_the_scores(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    found = score_table(report)
    assert found.columns[-1].title == "chance"
    chances = {row.note: row.cells[-1] for row in found.rows if isinstance(row, Row)}
    guessed = report["models"]["sft"]["scores"]["winogender"]["chance"]
    assert chances["winogender"] == Cell(f"{guessed:.2f}") and guessed < 0.8
    assert chances["swaps"] is None
    # Chance of an axis is that of all of its tasks, so that swaps leave fairness without one.
    assert len(axis_table(report).columns) == len(report["models"])
    for model in report["models"].values():
        model["axes"]["real"]["fairness"]["chance"] = 0.75
    shown = axis_table(report)
    [real] = [row for row in shown.rows if isinstance(row, Row) and row.cells[-1] is not None]
    assert (real.title, real.cells[-1]) == ("fairness", Cell("75.0 %"))


def test_the_page_has_limitations_and_credits_of_each_task(
    folder: Path, report: dict[str, Any]
) -> None:
    page = (folder / "report.html").read_text()
    assert BY_NAME["swaps"].limits.split(",")[0] in page
    assert report["packs"]["winogender"]["citation"].split(",")[0] in page
    assert page.count("pretrain") > 5 and "is not known" in page
    assert "NaN" not in (folder / "report.json").read_text()
    # How items were looked for, and which of them are meant to be found.
    assert "13 words in a row or, of an item of 5 to 12 words, all of them" in page
    assert "Items of world-bias are the very sentences" in page


def test_measured_items_are_not_measured_again(
    config: ValuesConfig, folder: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    assert not any(a["kept"] for m in report["models"].values() for a in m["asked"].values())
    again = settings(tmp_path / "again", tuple(map(Path, config.models)), cache=config.cache)
    found = json.loads((run(again) / "report.json").read_text())
    assert all(a["kept"] for m in found["models"].values() for a in m["asked"].values())
    for name, model in found["models"].items():
        assert model["numbers"] == report["models"][name]["numbers"]
    # Another count gives other items, and the rest is still cached.
    fewer = settings(tmp_path / "fewer", (Path(config.models[0]),), cache=config.cache, items=6)
    (model,) = json.loads((run(fewer) / "report.json").read_text())["models"].values()
    assert not any(asked["kept"] for asked in model["asked"].values())


def test_a_finished_run_does_not_change(config: ValuesConfig, folder: Path) -> None:
    before = (folder / "report.json").stat().st_mtime_ns
    assert run(config) == folder
    assert (folder / "report.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": ("cores",)}, "did you mean 'core'"),
        ({"tasks": ("core", "utilty")}, "utility"),
        ({"comparison": Path("none")}, "none"),
        ({"votes": Path("none.jsonl")}, "none"),
    ],
)
def test_errors_are_reported_before_measuring(
    tmp_path: Path, workshop: Any, changes: dict[str, Any], words: str
) -> None:
    wrong = settings(tmp_path / "out", (workshop.finished("pretrain"),), **changes)
    with pytest.raises(UserError, match=words):
        run(wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tasks", "items", "words"),
    [
        (("bbq",), 3, "^bbq asks in blocks of 4: give --items=4 or more$"),
        (("winobias", "swaps"), 1, "^winobias asks in blocks of 4: give --items=4 or more$"),
        (("jailbreak",), 8, "^jailbreak asks in blocks of 9: give --items=9 or more$"),
        (("unknown",), 1, "^unknown asks in blocks of 2: give --items=2 or more$"),
        (("winobias", "unknown"), 1, "winobias .* of 4, unknown .* of 2: give --items=4 or more$"),
    ],
)
def test_fewer_items_than_a_task_requires_are_rejected(
    tmp_path: Path, workshop: Any, tasks: tuple[str, ...], items: int, words: str
) -> None:
    model = workshop.finished("pretrain")
    with pytest.raises(UserError, match=words):
        run(settings(tmp_path / "out", (model,), tasks=tasks, items=items))
    assert not (tmp_path / "out" / "report.html").exists()


def test_own_prompts_are_shown_next_to_the_axis(
    config: ValuesConfig, folder: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("{name} is a cook.\n")
    given = {"cache": config.cache, "swaps": file}
    models = tuple(map(Path, config.models))
    beside = run(settings(tmp_path / "beside", models, **given))
    content = json.loads((beside / "report.json").read_text())
    assert list(content["tasks"]) == [*ASKED, "swaps-own"]
    for name, model in content["models"].items():
        assert model["axes"] == report["models"][name]["axes"] and "swaps-own" in model["scores"]
    page = (beside / "report.html").read_text()
    assert "Swaps in your own sentences" in page and "It counts in no axis" in page
    # A single prompt gives no information on how prompts differ.
    assert "one group, no interval" in page
    assert "one group, no interval" not in (folder / "report.html").read_text()
    card = section(content, "sft", Path(config.models[1])).splitlines()
    assert any(
        line.startswith("| Swaps in your own sentences: ") and "| – |" in line for line in card
    )
    only = run(settings(tmp_path / "only", models, **given | {"tasks": ("swaps-own",)}))
    content = json.loads((only / "report.json").read_text())
    assert list(content["tasks"]) == ["swaps-own"] and (only / "report.html").is_file()
    with pytest.raises(UserError, match="swaps-own is not a task"):
        chosen(("swaps-own",), noncommercial=False)


def test_a_number_of_some_items_states_how_many(folder: Path) -> None:
    """Only names have several values of one side, and so an excess."""
    items = BY_NAME["swaps"].items(40)
    within = sum(one.has_within for one in items)
    assert 0 < within < len(items)
    page = (folder / "report.html").read_text()
    assert f"what is due to the group; measured on {within}<" in page
    assert "on average; measured" not in page


# Tasks by name.


def test_tasks_are_named_and_described() -> None:
    assert len({task.name for task in TASKS}) == len(TASKS)
    for task in TASKS:
        assert task.axis in AXES and task.about and task.limits and task.version >= 1
        names = [number.name for number in task.shown]
        assert names and len(set(names)) == len(names), task.name
        assert 0 < task.fast_count <= task.count, task.name


def test_rows_of_earlier_judges_are_not_read() -> None:
    judged_otherwise = {"world-answers": 3, "world-conduct": 3, "jailbreak": 3, "swaps-answers": 4}
    judged_otherwise |= {"unknown": 4, "instructions": 4, "refusal-harm-scores": 3}
    versions = {task.name: task.version for task in TASKS}
    assert all(versions[name] > before for name, before in judged_otherwise.items())


def test_tasks_are_chosen_by_names_axes_and_commas() -> None:
    config = ValuesConfig(out=Path("x"), models=("m",), tasks=("bits,core", "core"))
    assert config.tasks == ("bits", "core", "core")
    assert [task.name for task in chosen(config.tasks, noncommercial=False)] == ["core", "bits"]
    refusals = chosen(("refusal", "jailbreak"), noncommercial=True)
    assert len(refusals) > 2 and {task.axis for task in refusals} == {"safety"}
    utility = chosen(("utility",), noncommercial=True)
    assert utility and all(task.axis == "utility" for task in utility)


def test_sets_that_forbid_commercial_use_require_a_choice() -> None:
    assert all(task.commercial for task in chosen((), noncommercial=False))
    assert chosen((), noncommercial=True) == list(TASKS)
    for task in TASKS:
        if not task.commercial:
            with pytest.raises(UserError, match="--noncommercial"):
                chosen((task.name,), noncommercial=False)
            assert chosen((task.name,), noncommercial=True) == [task]


def test_training_on_the_world_is_detected(tmp_path: Path, workshop: Any) -> None:
    assert not knows_world(workshop.finished("sft")) and not knows_world(tmp_path)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "data.json").write_text(json.dumps({"packs": [{"name": "world"}]}))
    for name in ("data", "data 2", "replay", "prompts", "ptx", "eval"):
        model = tmp_path / name
        model.mkdir()
        parents = {name: {"path": str(tmp_path / "world")}}
        said = {"schema": 1, "stage": "ppo", "parents": parents, "config": {}}
        (model / "run.json").write_text(json.dumps(said))
        (model / "plan.json").write_text("{}")
        (model / "metrics.jsonl").write_text("")
        assert knows_world(model) == (name != "eval"), name


# The card.


def section(content: dict[str, Any], name: str, model: Path) -> str:
    """The part of a card that one report fills."""
    kind = KINDS["values"]
    report = Report(kind, Path("report.json"), {})
    return card_section([(report, "2026-01-01", kind.account(content, name, {}))], model)


def test_a_card_says_why_a_task_was_not_measured(report: dict[str, Any]) -> None:
    content = json.loads(json.dumps(report))
    model = content["models"]["pretrain"]
    content["tasks"]["swaps-answers"] = {}
    content["settings"]["tasks"] = []
    assert not model["chats"]
    model["numbers"] = {}
    why = {
        line.partition(" (")[0]: line.rpartition(": ")[2]
        for line in values_account(content, "pretrain", {}).left
    }
    wanted = {
        "swaps-answers": "it was never taught to answer",
        "world-bias": "it was not trained on texts of that world",
        "winogender": "it could read none of its items",
        "bits": "it was not asked in this report",
    }
    assert {name: why[BY_NAME[name].title] for name in wanted} == wanted


def test_a_card_keeps_other_text_and_lists_measurements(
    folder: Path, report: dict[str, Any], config: ValuesConfig, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(config.models[1], model)
    readme = model / "README.md"
    own = "# My model\n\nWritten by a person.\n"
    readme.write_text(own)
    assert write_card(model, [folder]) == readme
    text = readme.read_text()
    assert text.startswith(own.rstrip()) and text.count(BEGIN) == text.count(END) == 1
    gap = report["models"]["sft"]["numbers"]["world-bias"]["planted gap"]
    assert f"{gap['estimate']:.3f}" in text and f"{gap['low']:.3f}" in text
    titles = ("Intended use", "What was measured", "Contamination", "What was not measured")
    for title in (*titles, "Evaluation data"):
        assert f"## {title}" in text
    # The number of items, and how many of them it had seen.
    items = gap["items"]
    assert f"| {gap['low']:.3f} to {gap['high']:.3f} | 0.000 | {items} |" in text
    assert f"at most {config.items} items of each task" in text
    # What got worse comes first, and none of it is left out.
    worse = [one["what"] for one in report["claims"] if one["outcome"] == "worse"]
    before, _, after = text.partition("Better than what it is compared with")
    assert f"Worse than what it is compared with ({len(worse)}):" in before and "| what |" in after
    assert all(f"- {what}: sft against pretrain, " in before for what in worse)
    texts = report["models"]["sft"]["seen"]["texts"]
    assert texts and f"not found in {texts:,} texts" in text
    assert "The judges" not in text  # no verdict was counted
    # Words after the marks stay too, and twice is as once.
    readme.write_text(text + "\nMore of mine.\n")
    write_card(model, [folder / "report.json"])
    assert readme.read_text() == text + "\nMore of mine.\n"
    readme.write_text(text.replace(END, ""))
    with pytest.raises(UserError, match="marks"):
        write_card(model, [folder])
    readme.unlink()
    write_card(model, [folder])
    assert readme.read_text().startswith("# model\n")


def test_a_card_uses_numbers_of_exactly_these_weights(
    folder: Path, config: ValuesConfig, tmp_path: Path, workshop: Any
) -> None:
    with pytest.raises(UserError, match="other weights"):
        write_card(workshop.finished("dpo"), [folder])
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UserError, match="is not a report of groundup eval values"):
        write_card(Path(config.models[0]), [tmp_path])
    own = json.loads((folder / "report.json").read_text())
    del own["settings"]
    for damaged in ({"suite": "values"}, {"suite": "values", "models": {"a": 1}}, own):
        (tmp_path / "report.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="measure the model again"):
            write_card(Path(config.models[0]), [tmp_path])


def test_a_card_lists_training_data_judge_agreement_and_item_counts(
    report: dict[str, Any], config: ValuesConfig
) -> None:
    """A report by hand, as of a chat model trained on the evaluation's items."""
    content = json.loads(json.dumps(report))
    model = content["models"]["sft"]
    share = {"estimate": 0.75, "low": 0.5, "high": 0.9, "items": 40, "groups": 30}
    judge = {"judge": "refusal", "labels": "people: refuses", "about": "", "items": 48}
    judge |= {"labelled": 0.7, "precision": None, "recall": share, "kappa": share}
    content["judges"] = [judge, judge | {"judge": "toxicity", "labels": "scores"}]
    content["tasks"]["swaps"]["judge"] = "refusal"
    content["settings"] |= {"items": None, "fast": True}
    model["familiar"] = [
        {"run": "sft", "stage": "sft", "rows": {"piqa": 6}, "message": "sft read half of PIQA"},
        {"run": "dpo", "stage": "dpo", "rows": {}, "message": "dpo read /home/me/pairs.jsonl"},
    ]
    counts = {"same": 1, "near": 2, "grams": 3, "sources": {"own": 5}}
    model["seen"] = {"texts": 1234, "folders": ["/home/me"], "unknown": ["base is from elsewhere"]}
    model["seen"]["overlaps"] = [
        {"set": "swaps", "items": 12, "found": 5, **counts},
        {"set": "bbq", "items": 99, "found": 9, **counts},  # it was not asked that
    ]
    text = section(content, "sft", Path(config.models[1]))
    assert "sft read half of PIQA" in text and "base is from elsewhere" in text
    assert "5 of 12 items were found in its training data, 1 in the same words, 2 in nearly" in text
    assert "3 by 13 words in a row" in text and "9 of 99" not in text
    assert "7 items were not found in 1,234 texts" in text
    assert "data of dpo is not known" in text and "/home" not in text
    assert "people: refuses, 48 answers: recall 75.0 % (50.0 % to 90.0 %), kappa 0.750" in text
    assert "scores" not in text.partition("## The judges")[2].partition("##")[0]
    assert "--fast" in text
