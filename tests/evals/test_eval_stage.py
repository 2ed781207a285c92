"""The whole stage on three tiny trained models: numbers, page, behavior."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.evals.cards.card import write_card
from groundup.evals.config import EvalConfig
from groundup.evals.perplexity import bits_per_byte
from groundup.evals.stages.material import _fitting, limit_per_source
from groundup.evals.stages.measures import MEASURES
from groundup.evals.stages.page import _runs, passed_in_words
from groundup.evals.stages.report import run
from groundup.evals.stages.tables import costs
from groundup.evals.world.answers import World
from groundup.formats.load import load
from groundup.report.claim import Claim
from groundup.report.estimate import Estimate
from groundup.report.history import History, lineage
from groundup.report.page import Listing
from groundup.report.table import Row
from groundup.text.rows import RefusalPrompt
from groundup.text.shards import Shard
from groundup.text.tokenizer import Tokenizer
from pages import assert_self_contained
from preloaded import Process

# In every harmful text of the data below; must appear nowhere else.
HARM = "vile deed"
MARKUP = "<script>alert('pwned')</script>"
STAGES = ("pretrain", "sft", "dpo")


@pytest.fixture(scope="module")
def world(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workshop's data, with questions, refusals and some harmful prompts."""
    folder = tmp_path_factory.mktemp("evals")
    data = folder / "data"
    shutil.copytree(workshop.data, data)
    things = {"sea": "blue", "grass": "green", "snow": "white", "coal": "black", "sun": "yellow"}
    colours = list(things.values())
    choices = [
        {
            "prompt": f"What is the colour of the {thing}?",
            "options": [f"The {thing} is {c}." for c in colours],
            "answer": colours.index(colour),
            "source": "siqa",
        }
        for thing, colour in things.items()
    ]
    refusals = [{"prompt": f"A {HARM} {i}.", "kind": "harmful"} for i in range(4)]
    refusals += [{"prompt": f"The {t} is what colour?", "kind": "benign"} for t in things]
    harmful = {"prompt": f"A {HARM}.", "chosen": "No.", "rejected": f"The {HARM}."}
    _write(data / "choices", choices)
    _write(data / "refusals", refusals)
    with (data / "preferences" / "heldout.jsonl").open("a") as file:
        file.write(json.dumps(harmful | {"source": "harm"}) + "\n")
    packs = [{"name": MARKUP, "license": "CC BY-SA 4.0", "citation": f"A & B {MARKUP}"}]
    (data / "data.json").write_text(json.dumps({"packs": packs}))
    return folder


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir()
    (folder / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def config(world: Path, workshop: Any) -> EvalConfig:
    models = tuple(workshop.finished(stage) for stage in STAGES)
    return EvalConfig(
        out=world / "report", models=models, data=world / "data", dtype="float32", threads=1
    )


@pytest.fixture(scope="module")
def said(config: EvalConfig) -> str:
    """The stage, run once in a separate process; its output."""
    words = [sys.executable, "-m", "groundup", "eval", "report"]
    words += [str(model) for model in config.models]
    words += ["--data", str(config.data), "--out", str(config.out), "--dtype", "float32"]
    code, said = Process([*words, "--threads", "1"]).communicate()
    assert code == 0, said
    return said


@pytest.fixture(scope="module")
def report(config: EvalConfig, said: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((config.out / "report.json").read_text())
    return content


@pytest.fixture(scope="module")
def page(config: EvalConfig, said: str) -> str:
    return (config.out / "report.html").read_text()


def test_every_model_has_every_number_with_its_interval(report: dict[str, Any]) -> None:
    assert list(report["models"]) == list(STAGES)
    for model in report["models"].values():
        for key in (
            "bits_per_byte",
            "assistant_loss",
            "assistant_bits_per_byte",
            "choice_accuracy",
            "choice_accuracy_by_sum",
            "preference_accuracy",
        ):
            measured = model[key]["pooled"]
            assert measured["low"] <= measured["estimate"] <= measured["high"], key
        calibration = model["choice_calibration"]["pooled"]
        assert calibration["brier"]["chance"] == pytest.approx(1 - 1 / 5)
        assert 0 <= calibration["error"] <= 1
        assert 0 <= calibration["error_by_chance"] <= 1
        assert sum(one["count"] for one in calibration["curve"]) == calibration["brier"]["items"]
        assert set(model["refusal_rate"]) == {"harmful", "benign"}
        assert model["stops_by_itself"]["items"] > 0
        assert model["costs"]["tokens"] > 0
        assert model["costs"]["flops"] > model["costs"]["tokens"]
        assert len(model["samples"]) == 15
    assert report["models"]["dpo"]["implicit_reward_accuracy"]["pooled"]["chance"] == 0.5
    assert report["models"]["sft"]["implicit_reward_accuracy"] == {}
    assert report["schema"] == 2
    assert set(report["baselines"]["ngrams"]["pretrain"]) == {"3-gram", "5-gram"}


def test_the_largest_changes_are_shown_for_each_stage_and_its_parent(
    report: dict[str, Any], page: str
) -> None:
    pairs = [(one["model"], one["other"]) for one in report["changes"]]
    assert pairs == [("sft", "pretrain"), ("dpo", "sft")]
    questions = {f"What is the colour of the {one}?" for one in ("sea", "grass", "snow", "coal")}
    learned, _ = report["changes"]
    found = [one for one in learned["items"] if one["task"] == "multiple choice"]
    assert found and {one["text"] for one in found} <= questions | {
        "What is the colour of the sun?"
    }
    for one in found:
        for chosen in one["fields"].get("answer", ()):
            assert chosen.startswith(f"The {one['text'].split()[-1].rstrip('?')} is ")
    assert "sft against pretrain: multiple choice" in page
    assert found[0]["text"] in page.partition('id="changed"')[2]


def test_every_model_was_measured_in_two_ways(report: dict[str, Any], page: str) -> None:
    for model in report["models"].values():
        found = {check["name"]: check["status"] for check in model["verified"]}
        assert set(found.values()) == {"same"}, model["verified"]
        assert {"logits through the KV cache", "GGUF Q8_0: logits"} < set(found)
    assert "The same answer, however it is asked" in page
    assert page.count(">same<") == 3 * len(report["models"]["sft"]["verified"])


def test_training_improves_the_numbers(report: dict[str, Any]) -> None:
    """Five facts in short sentences: fine-tuning learns them, and learns to stop."""
    base, sft = report["models"]["pretrain"], report["models"]["sft"]
    loss = {n: m["assistant_loss"]["pooled"]["estimate"] for n, m in report["models"].items()}
    assert loss["sft"] < loss["pretrain"] / 2
    assert base["stops_by_itself"]["estimate"] == 0
    assert sft["stops_by_itself"]["estimate"] > 0.5
    verdicts = {finding["claim"]: finding["verdict"] for finding in report["findings"]}
    assert verdicts["sft predicts the assistant's answers better than pretrain"] == "yes"
    assert "dpo's implicit reward prefers better than sft's log-probability" in verdicts


def test_bits_equal_those_of_the_model_on_its_heldout_text(
    report: dict[str, Any], config: EvalConfig
) -> None:
    model, tokenizer = load(config.models[0])
    heldout = Shard.open(config.models[0] / "tokens" / "heldout")
    found = bits_per_byte(model, heldout, tokenizer, context=64, bytes_per_source=10**9)
    in_report = report["models"]["pretrain"]["bits_per_byte"]["pooled"]["estimate"]
    assert in_report == pytest.approx(found.per_byte(), rel=1e-5)
    assert not (config.out / "tokens").exists()  # encoded once, by the base's run


def test_the_recipe_of_the_models_is_the_command_to_copy(tmp_path: Path) -> None:
    found = {"run": {}, "folder": str(tmp_path / "my journey" / "base"), "stage": "pretrain"}
    content = {"models": {"base": found}}
    assert _runs(content) == []
    journey = tmp_path / "my journey"
    journey.mkdir()
    (journey / "recipe.toml").touch()
    command = "groundup run 'my journey/recipe.toml' --out 'my journey-again'"
    assert _runs(content) == [Listing(command)]
    (journey / "plan.json").write_text('{"minutes": 15.0}')
    [block] = _runs(content)
    assert isinstance(block, Listing)
    words = shlex.split(block.text)
    assert words[2:5] == ["my journey/recipe.toml", "--minutes", "15"]


def test_the_page_reports_the_calibration_of_choices(page: str, report: dict[str, Any]) -> None:
    assert "calibration error ↓" in page
    for model in report["models"].values():
        assert f">{model['choice_calibration']['siqa']['error']:.3f}<span" in page
        assert f">{model['choice_calibration']['siqa']['brier']['estimate']:.3f}<span" in page
    assert "<figcaption>Calibration: accuracy over confidence" in page


def test_harmful_text_is_counted_but_not_shown(
    config: EvalConfig, said: str, page: str, report: dict[str, Any]
) -> None:
    assert report["models"]["dpo"]["preference_accuracy"]["harm"]["items"] == 1
    for text in (said, page, *(path.read_text() for path in config.out.glob("*.json*"))):
        assert HARM not in text


def test_the_page_is_self_contained_and_escapes_foreign_text(page: str) -> None:
    assert_self_contained(page)
    assert "&lt;script&gt;alert" in page


def test_a_card_includes_the_report_next_to_the_model(
    config: EvalConfig, report: dict[str, Any], tmp_path: Path, workshop: Any
) -> None:
    """Found by the model's weights, wherever both are; reports of other models are ignored."""
    for name, folder in (("mine", config.models[2]), ("measured", config.out)):
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "notes").mkdir()
    card = write_card(tmp_path / "mine").read_text()
    for one in report["measures"]:
        if not one["says_something"] or "dpo" not in one["models"]:
            continue
        found, is_share = one["models"]["dpo"], one["unit"].startswith("share")
        what = one["what"] if is_share else f"{one['what']}, {one['unit']}"
        ends = [
            f"{100 * found[end]:.1f} %" if is_share else f"{found[end]:z.3f}"
            for end in ("low", "high")
        ]
        # A single text gives no information on how texts differ.
        interval = (
            "–" if found["groups"] == 1 and found["low"] == found["high"] else " to ".join(ends)
        )
        [line] = [line for line in card.splitlines() if line.startswith(f"| {what} |")]
        assert f" | {interval} | " in line and line.endswith(f" {found['items']:,} |")
    claims = [one for one in report["findings"] if one["model"] == "dpo"]
    worse = [one for one in claims if one["outcome"] == "worse"]
    assert claims and f"Worse than what it is compared with ({len(worse)}):" in card
    assert (
        card.index("### By groundup eval report") < card.index("Worse than") < card.index("| what")
    )
    # Of the small world there was nothing, and of other commands no report.
    left = card.partition("## What was not measured")[2]
    assert "- right answers in the small world: " in left
    assert "- groundup redteam: no report was given" in left and "eval report: no" not in left
    assert "a list of phrases" in card.partition("## The judges")[2]
    # It can also be given by its file; with other weights, or none, nothing is written.
    assert write_card(tmp_path / "mine", [config.out / "report.json"]).read_text() == card
    other = tmp_path / "other" / "model"
    shutil.copytree(workshop.finished("reward"), other)
    with pytest.raises(UserError, match="measured other weights"):
        write_card(other, [config.out])
    shutil.copytree(config.out, other.parent / "measured")
    with pytest.raises(UserError, match=r"no report next to .*--reports$"):
        write_card(other)


def test_a_share_is_identified_by_its_unit() -> None:
    """As readers of report.json can identify it."""
    assert all(one.share is one.unit.startswith("share") for one in MEASURES)


def test_a_finished_report_does_not_change(config: EvalConfig, said: str) -> None:
    before = (config.out / "report.html").stat().st_mtime_ns
    assert run(config) == config.out
    assert (config.out / "report.html").stat().st_mtime_ns == before


def test_a_text_alone_gives_bits_per_byte(config: EvalConfig, tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(f"The sea is blue, said ship {i}. " * 9 for i in range(40)))
    settings = {"out": tmp_path / "out", "models": config.models[1:2], "data": text}
    folder = run(EvalConfig.model_validate(settings | {"threads": 1, "ngram_orders": (2,)}))
    report = json.loads((folder / "report.json").read_text())
    model = report["models"]["sft"]
    assert model["bits_per_byte"]["own"]["estimate"] > 0
    assert model["choice_accuracy"] == model["preference_accuracy"] == model["refusal_rate"] == {}
    assert model["choice_calibration"] == {}
    assert report["data"] is None
    assert "Multiple choice</h2>" not in (folder / "report.html").read_text()


def test_counting_is_shown_only_with_a_curve_on_the_same_text(
    config: EvalConfig, report: dict[str, Any], tmp_path: Path
) -> None:
    """On another text the run has no intermediate measurements."""
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(f"The sea is blue, said ship {i}. " * 9 for i in range(40)))
    settings = {"out": tmp_path / "out", "models": config.models[:1], "data": text, "threads": 1}
    folder = run(EvalConfig.model_validate(settings | {"ngram_orders": (2,)}))
    other = json.loads((folder / "report.json").read_text())
    assert set(report["passed_counting"]) == {"pretrain"} and other["passed_counting"] == {}
    for content, out, named in ((report, config.out, True), (other, folder, False)):
        assert "held-out bits per byte" in content["models"]["pretrain"]["curves"]
        page = (out / "report.html").read_text()
        course = next(alt for alt in re.findall('alt="([^"]*)"', page) if "held-out text:" in alt)
        assert ("-gram" in course) == named
        assert ("counting in this run" in page or "passed 3-gram" in page) <= named


def test_a_missing_model_is_reported_before_measuring(config: EvalConfig, tmp_path: Path) -> None:
    wrong = config.model_copy(update={"models": (tmp_path,), "out": tmp_path / "out"})
    with pytest.raises(UserError, match=re.escape("config.json")):
        run(wrong)
    assert not (tmp_path / "out").exists()


# The run folders' own account.


def test_lineage_needs_only_run_folders(world: Path, workshop: Any) -> None:
    assert [one.stage for one in lineage(workshop.finished("dpo"))] == list(STAGES)
    assert lineage(world) == []


def test_costs_equal_the_metrics(workshop: Any) -> None:
    folder = workshop.finished("pretrain")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    history = History.of(folder)
    assert history is not None
    found = history.costs()
    assert found["steps"] == len(trained)
    assert found["tokens"] == trained[-1]["tokens"]
    seconds = sum(line["seconds"] for line in lines)
    assert found["minutes"] == pytest.approx(seconds / 60)
    curve = history.heldout()
    assert curve is not None
    assert curve.name == "held-out bits per byte"
    assert curve.tokens[-1] == trained[-1]["tokens"]


def test_a_level_passed_at_the_end_is_not_called_stable(report: dict[str, Any]) -> None:
    """No later evaluation exists."""
    tokens = report["models"]["pretrain"]["curves"]["held-out bits per byte"]["tokens"]
    one = Estimate(-0.1, -0.2, -0.05, 10, 10)
    test = Claim("", one, "bits", "below", model="pretrain", other="3-gram counting")
    for when, stayed in ((tokens[0], True), (tokens[-1], False)):
        passed = {"pretrain": {"3-gram": {"step": 1, "tokens": when, "minutes": 0.1}}}
        [said] = passed_in_words(report | {"passed_counting": passed}, [test])
        assert ("from there on it stayed" in said) == stayed
        assert ("at the last measurement only" in said) != stayed


def test_costs_have_a_column_for_each_model(report: dict[str, Any]) -> None:
    foreign = {"elsewhere": {"costs": {}}}
    table = costs(report | {"models": report["models"] | foreign})
    assert [one.title for one in table.columns] == [*STAGES, "elsewhere", "this report"]
    share = next(row for row in table.rows if isinstance(row, Row) and "peak" in row.title)
    assert share.cells[3] is None and all(one is not None for one in share.cells[:3])
    lines = {line[0].split("\n")[0]: line[1:] for line in table.lines}
    assert lines["steps"][0] == f"{report['models']['pretrain']['costs']['steps']:,}"
    assert re.fullmatch(r"[\d.]+ [kMGT]", lines["FLOPs"][0])


def test_passing_a_level_is_reported_by_tokens_and_minutes(workshop: Any) -> None:
    history = History.of(workshop.finished("pretrain"))
    assert history is not None
    first, last = (line["bits_per_byte"] for line in history.evaluations)
    assert last < first
    passed = history.passed((first + last) / 2)
    assert passed is not None
    assert passed["step"] == history.evaluations[-1]["step"]
    assert passed["tokens"] == history.tokens[-1]
    assert history.passed(last) is None


# Small parts.


@pytest.mark.parametrize(
    ("low", "high", "wanted", "mark"),
    [
        (-0.2, -0.1, "below", "yes"),
        (0.1, 0.2, "below", "no"),
        (-0.1, 0.1, "below", "open"),
        (0.1, 0.2, "above", "yes"),
        (-0.2, -0.1, "above", "no"),
        (0.0, 0.2, "above", "open"),
    ],
)
def test_a_verdict_requires_the_whole_interval(
    low: float, high: float, wanted: Any, mark: str
) -> None:
    measured = Estimate((low + high) / 2, low, high, 10, 10)
    assert Claim("it is so", measured, "bits", wanted).mark == mark


def test_rows_are_selected_evenly_from_each_source() -> None:
    rows = [RefusalPrompt(str(i), "benign", "many", str(i)) for i in range(100)]
    rows += [RefusalPrompt(str(i), "benign", "few", str(i)) for i in range(3)]
    kept = limit_per_source(rows, 10)
    assert [row.prompt for row in kept if row.source == "few"] == ["0", "1", "2"]
    many = np.array([int(row.prompt) for row in kept if row.source == "many"])
    assert len(many) == 10
    assert (np.diff(many) == 10).all()


def test_a_story_without_room_is_not_continued(tokenizer: Tokenizer) -> None:
    """A model with a short context is measured on what it can read."""
    beginnings = ["The sea is wide.", "Long ago there was a fox. " * 9]
    world = World([], {}, beginnings, [], 0.5)
    assert _fitting(world, True, tokenizer, 64).beginnings == beginnings[:1]
    assert _fitting(world, True, tokenizer, 4096).beginnings == beginnings
