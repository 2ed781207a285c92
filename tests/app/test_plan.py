"""The amount of small-world text in a plan: what the minutes can read, within bounds."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from groundup.app.cli import app
from groundup.app.plan import first, plan_recipe, replan, values
from groundup.app.recipe import Recipe, Table, read_recipe
from groundup.data.config import DataConfig
from groundup.errors import UserError
from groundup.runs.files import read_sealed, write_sealed
from groundup.train.device import Machine
from groundup.train.pace import Pace
from miniature import write_miniature
from rollouts import byte_tokenizer

WORLD = ("world_megabytes", "world_conversations", "world_preferences")


def set_speed(monkeypatch: pytest.MonkeyPatch, tokens_per_second: float) -> None:
    """Let every timed model train at this speed."""
    pace = Pace(1 / tokens_per_second, 0.0)
    monkeypatch.setattr(values, "measure_pace", lambda *given, **settings: pace)


def planned(folder: Path, minutes: float, settings: str = "") -> dict[str, Any]:
    """The data stage's settings for a number of minutes."""
    (folder / "mine.toml").write_text(f"[data]\npacks = ['world']\n{settings}\n")
    folder.joinpath("out").mkdir()
    recipe = plan_recipe(read_recipe(folder / "mine.toml"), folder / "out", minutes)
    assert json.loads((folder / "out" / "plan.json").read_text())["minutes"] == minutes
    return recipe.tables[0].config(folder / "out").model_dump()


@pytest.mark.parametrize(
    ("minutes", "wanted"),
    [
        (0.1, [0.5, 1_000, 300]),
        (15, [12.0, 45_000, 19_500]),
        (480, [120.0, 300_000, 60_000]),
        (100_000, [120.0, 300_000, 60_000]),
    ],
)
def test_the_world_grows_with_the_minutes_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, wanted: list[float]
) -> None:
    monkeypatch.setattr(first, "measure", lambda seconds: Machine(2, 2**34, 1e11, 1e12))
    found = planned(tmp_path, minutes)
    assert [found[name] for name in WORLD] == wanted


def test_a_slower_machine_generates_less_of_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "measure", lambda seconds: Machine(2, 2**34, 2.5e11, 1e9))
    found = planned(tmp_path, 15)
    assert [found[name] for name in WORLD] == [6.0, 22_500, 9_750]


def test_the_recipes_own_settings_of_the_world_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "measure", lambda seconds: Machine(2, 2**34, 1e11, 1e12))
    found = planned(tmp_path, 15, "world_megabytes = 500")
    assert DataConfig.model_validate(found).world_megabytes == 500
    assert found["world_conversations"] == 45_000


TUNE = """
[tune]
stage = "sft"
from = "pack:smollm2"
data = "data"
"""
# A second of measuring is enough to see which table is planned by what.
FROM_NOTHING = """
[data]
packs = ["world"]

[tokenizer]
vocab_size = 320

[base]
stage = "pretrain"
data = "data"
context = 32

[sft]
data = "data"
"""
PRETRAINED = (
    FROM_NOTHING
    + """
[own]
stage = "dpo"
from = "sft"
data = "data"

[other]
stage = "dpo"
from = "pack:smollm2"
data = "data"
epochs = 2
"""
    + TUNE
    + """
[ppo]
from = "sft"
prompts = "data"
reward = "sum"
"""
)


def lengths(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, minutes: float
) -> dict[str, dict[str, Any]]:
    """The time settings that each table of a recipe gets."""
    monkeypatch.setattr(first, "measure", lambda seconds: Machine(2, 2**34, 1e9, 1e9))
    (folder / "mine.toml").write_text(text)
    folder.joinpath("out").mkdir()
    recipe = plan_recipe(read_recipe(folder / "mine.toml"), folder / "out", minutes)
    for table in recipe.tables:
        table.config(folder / "out")
    names = ("steps", "minutes", "rows")
    return {
        table.name: {name: table.settings[name] for name in names if name in table.settings}
        for table in recipe.tables
    }


def test_a_recipe_without_its_own_model_passes_its_minutes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lengths(tmp_path, monkeypatch, "[data]\npacks = ['world']\n" + TUNE, 5)
    assert set(found["tune"]) == {"minutes"} and 2 < found["tune"]["minutes"] < 5


def test_the_recipes_own_lengths_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[data]\npacks = ['world']\n" + TUNE + "steps = 7\n"
    assert lengths(tmp_path, monkeypatch, text, 5)["tune"] == {"steps": 7}


def test_a_stage_on_another_model_is_not_planned_by_the_pretrained_models_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lengths(tmp_path, monkeypatch, PRETRAINED, 0.5)
    # The model of these tables is the one whose speed was measured.
    assert {"steps", "rows"} == set(found["sft"]) and {"steps"} == set(found["own"])
    assert {"steps"} == set(found["base"])
    # These measure theirs, or what it takes to answer, unless they say how long they take.
    assert {"minutes"} == set(found["tune"]) == set(found["ppo"]) and not found["other"]


COMPARED = (
    FROM_NOTHING
    + """
[labels]
stage = "best-of-n"
from = "sft"
prompts = "data"
reward = "sum"

[dpo]
from = "sft"
data = "labels"
"""
)


ANSWERS = "n = 4\nmax_new_tokens = 96\n"


def pairs_tokens(seconds: Mapping[str, float], speed: float) -> float:
    """The tokens of one prompt's pairs: fewer, the longer `sft` trains at this speed."""
    return 60 + 300 / (1 + (seconds["sft"] - 12) * 0.92 * speed / 1.64e6)


@pytest.mark.parametrize("more", ["", "width = 64\n"])
def test_a_plan_says_how_to_change_it_in_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    """Neither `groundup run` nor `groundup quickstart` has the options of a stage."""
    lengths(tmp_path, monkeypatch, COMPARED.replace("context = 32\n", f"context = 32\n{more}"), 1)
    said = capsys.readouterr().out
    assert "--depth" not in said and "--width" not in said
    assert "set depth in the recipe" in said
    assert ("set width in the recipe" in said) == (not more)
    size = r"measuring how fast this machine trains a model of \d+ layers? of width \d+ "
    assert re.search(size, said)
    recipe = tmp_path / "mine.toml"
    command = f"groundup run {recipe} --minutes 1 --out FOLDER"
    assert f"To change a value, set it in {recipe} and run: {command}\n" in said
    app.parse_args(command.split()[1:], print_error=False, exit_on_error=False)
    told = first._how_to_change(read_recipe("quickstart"), Path("quickstart"), 15)
    assert told.startswith("To change a value, set it in a copy of quickstart/recipe.toml and run:")
    assert told.endswith("groundup run COPY --minutes 15 --out FOLDER")


def test_passes_over_the_runs_own_pairs_take_the_pairs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leave the rest of the minutes to the stages before."""
    set_speed(monkeypatch, 1e6)
    found = {}
    kept = 'epochs = 1\nptx = 1\nptx_data = "data"'
    told_of = {"share": "", "once": "epochs = 1", "thrice": "epochs = 3", "kept": kept}
    few = COMPARED.replace('reward = "sum"\n', f'reward = "sum"\nquestions = 60\n{ANSWERS}')
    for name, told in told_of.items():
        (tmp_path / name).mkdir()
        lengths(tmp_path / name, monkeypatch, few + told, 5)
        found[name] = written(tmp_path / name / "out")
        assert 270 < sum(found[name]["seconds"].values()) <= 300.001
    settings = found["once"]["settings"]
    assert "steps" in found["share"]["settings"]["dpo"] and "steps" not in settings.get("dpo", {})
    once, kept_too, thrice = (found[name]["seconds"]["dpo"] for name in ("once", "kept", "thrice"))
    assert 0 < once < thrice and once < found["share"]["seconds"]["dpo"]
    assert kept_too > 2 * once - 12, "beside the pairs it reads as many rows of conversations"
    assert found["once"]["seconds"]["base"] > found["share"]["seconds"]["base"]


def test_passes_in_a_too_short_plan_take_the_time_of_the_models_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It will take that long, and no other length depends on it: training has its minimum
    anyway."""
    # Wide enough to be slower than the fixed seconds of a pair tell.
    text = COMPARED.replace("context = 32\n", "context = 32\ndepth = 2\nwidth = 128\n")
    text = text.replace('reward = "sum"\n', f'reward = "sum"\n{ANSWERS}')
    lengths(tmp_path, monkeypatch, text + 'epochs = 3\nptx = 1\nptx_data = "data"\n', 1)
    found = written(tmp_path / "out")
    prompts, speed = found["settings"]["labels"]["questions"], found["tokens_per_second"]["dpo"]
    assert prompts == 200 and speed < 100_000
    tokens = 2 * 3 * pairs_tokens(found["seconds"], speed) * prompts
    assert found["seconds"]["dpo"] == pytest.approx(12 + 12 + tokens / speed)
    whole = sum(found["seconds"].values())
    assert found["whole_seconds"] == whole
    assert f"it will take about {whole / 60:.1f} minutes" in capsys.readouterr().out


def test_comparing_takes_a_third_of_the_training_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = COMPARED.replace('reward = "sum"\n', f'reward = "sum"\n{ANSWERS}') + "epochs = 2\n"
    found = {}
    for speed in (300.0, 1e6):
        set_speed(monkeypatch, speed)
        out = tmp_path / f"{speed:.0f}"
        out.mkdir()
        lengths(out, monkeypatch, text, 60)
        found[speed] = written(out / "out")
    slow, fast = (
        {name: one - 12 for name, one in each["seconds"].items()} for each in found.values()
    )
    prompts, most = (each["settings"]["labels"]["questions"] for each in found.values())
    # 300 a minute, times the square root of this machine's speed relative to 1 TFLOP/s.
    assert most == round(300 * 60 * 0.001**0.5)
    assert fast["labels"] + fast["dpo"] < 0.1 * (fast["base"] + fast["sft"])
    assert 200 < prompts < most
    # To within the time of one prompt.
    comparing = slow["labels"] + slow["dpo"]
    assert abs(2 * comparing - slow["base"] - slow["sft"]) <= 2 * comparing / prompts


def test_answers_and_pairs_take_longer_with_a_slow_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they take is taken from the other stages, and the plan keeps its minutes."""
    text = COMPARED.replace('reward = "sum"\n', f'reward = "sum"\nquestions = 500\n{ANSWERS}')
    found = {}
    for speed in (4_000.0, 8_000.0, 1e6):
        set_speed(monkeypatch, speed)
        out = tmp_path / f"{speed:.0f}"
        out.mkdir()
        lengths(out, monkeypatch, text + "epochs = 2\n", 10)
        found[speed] = written(out / "out")["seconds"]
        assert sum(found[speed].values()) == pytest.approx(600)
    slow, faster, fast = found.values()
    for name in ("labels", "dpo"):
        assert slow[name] > faster[name] > fast[name]
    assert slow["labels"] - 12 == pytest.approx(2 * (faster["labels"] - 12))
    # A model that trains on half as many tokens needs more pairs as well.
    assert slow["dpo"] - 12 > 2.2 * (faster["dpo"] - 12)
    tokens = 2 * 500 * pairs_tokens(slow, 4_000)
    assert slow["dpo"] == pytest.approx(12 + tokens / 4_000)
    assert slow["base"] < faster["base"] < fast["base"]


def test_a_model_is_planned_for_its_vocabulary(tmp_path: Path) -> None:
    write_miniature(tmp_path)
    (tmp_path / "made").mkdir()
    byte_tokenizer().save(tmp_path / "made")
    tokenizer = '[{0}]\nstage = "tokenizer"\ndata = "sea.txt"\nvocab_size = {1}\n'
    model = '[{0}]\nstage = "pretrain"\nfrom = "{1}"\ndata = "sea.txt"\n'
    text = tokenizer.format("small", 320) + tokenizer.format("large", 30_000)
    text += "".join(model.format(f"of-{one}", one) for one in ("small", "large", "made"))
    text += '[sft]\nfrom = "of-large"\ndata = "talks.jsonl"\n'
    text += "".join(model.format(f"of-{one}", one) for one in ("sft", "of-made"))
    (tmp_path / "mine.toml").write_text(text)
    recipe = read_recipe(tmp_path / "mine.toml")
    found = {
        table.name: values.vocab_size_of(recipe, tmp_path / "out", table.inputs["tokenizer"])
        for table in recipe.tables
        if table.stage.name == "pretrain"
    }
    own = byte_tokenizer().vocab_size
    assert found == {
        "of-small": 320,
        "of-large": 30_000,
        "of-made": own,
        "of-sft": 30_000,
        "of-of-made": own,
    }


# Replanned during the run.

JOURNEY = (
    FROM_NOTHING
    + """
[dpo]
data = "data"
steps = 5

[report]
stage = "eval"
models = ["base", "sft"]
data = "data"
questions = 77
"""
)


@pytest.fixture(scope="module")
def first_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's folder when it is planned."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "mine.toml").write_text(JOURNEY)
    (folder / "out").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "measure", lambda seconds: Machine(2, 2**34, 1e9, 1e9))
        set_speed(patch, 100_000.0)  # a busy machine is too slow for five minutes
        plan_recipe(read_recipe(folder / "mine.toml"), folder / "out", 5)
    timed_as(folder / "out", 1e12)  # so that no chance makes the second timing faster
    return folder / "out"


@pytest.fixture
def journey(
    first_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Recipe, Path]:
    monkeypatch.setattr(first, "measure", lambda seconds: Machine(2, 2**34, 1e9, 1e9))
    (tmp_path / "mine.toml").write_text(JOURNEY)
    out = Path(shutil.copytree(first_plan, tmp_path / "out"))
    return plan_recipe(read_recipe(tmp_path / "mine.toml"), out, 5), out


def timed_as(out: Path, tokens_per_second: float, name: str = "base") -> None:
    found = read_sealed(out / "plan.json", lambda plan: plan)
    write_sealed(out / "plan.json", found | {"tokens_per_second": {name: tokens_per_second}})


def written(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "plan.json").read_text())
    return found


def named(recipe: Recipe, name: str) -> Table:
    return next(table for table in recipe.tables if table.name == name)


def as_planned(out: Path, *names: str) -> float:
    return float(sum(written(out)["seconds"][name] for name in names))


def finish(out: Path, name: str, seconds: float) -> None:
    (out / name).mkdir()
    (out / name / "status.json").write_text(json.dumps({"state": "finished", "seconds": seconds}))


def test_the_seconds_of_all_tables_sum_to_the_minutes(journey: tuple[Recipe, Path]) -> None:
    _, out = journey
    seconds = written(out)["seconds"]
    assert list(seconds) == ["data", "tokenizer", "base", "sft", "dpo", "report"]
    assert 270 < sum(seconds.values()) <= 300.001


def test_a_run_on_schedule_is_not_replanned(journey: tuple[Recipe, Path]) -> None:
    recipe, out = journey
    before = written(out)
    spare = 300 - sum(before["seconds"].values())
    elapsed = spare + as_planned(out, "data", "tokenizer")
    again = replan(recipe, out, named(recipe, "base"), elapsed)
    assert again == named(recipe, "base")
    assert written(out)["settings"] == before["settings"]
    assert replan(recipe, out, named(recipe, "data"), 1000.0) == named(recipe, "data")
    assert replan(recipe, out, named(recipe, "dpo"), 1000.0) == named(recipe, "dpo")


@pytest.mark.parametrize(("faster", "wanted"), [(1.2, 1.0), (1.44, 1.2), (100.0, 2.0)])
def test_a_model_timed_on_a_busy_machine_is_timed_again(
    journey: tuple[Recipe, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    faster: float,
    wanted: float,
) -> None:
    """And trained for the same seconds, at the mean of both speeds if the second is much higher;
    the next stage gets the speed as usual."""
    recipe, out = journey
    set_speed(monkeypatch, faster * 1e12)
    before = written(out)
    assert before["tokens_per_second"]["base"] == 1e12
    elapsed = 300 - sum(before["seconds"].values()) + as_planned(out, "data", "tokenizer")
    table = replan(recipe, out, named(recipe, "base"), elapsed)
    first = named(recipe, "base").settings["steps"]
    assert table.settings["steps"] == pytest.approx(wanted * first, abs=1)
    said = f"a second timing was {faster:.2f} times as fast as the first"
    assert (said in " ".join(capsys.readouterr().out.split())) == (wanted > 1)
    seconds = as_planned(out, "base") - 12
    assert seconds == pytest.approx(wanted * (before["seconds"]["base"] - 12), rel=1e-3)


@pytest.mark.parametrize(("share", "wanted"), [(0.9, 1 / 0.9), (1.1, 1 / 1.1), (9, 1 / 2)])
def test_a_stage_uses_the_speed_of_the_last_one(
    journey: tuple[Recipe, Path], share: float, wanted: float
) -> None:
    """With everything as planned, each step took `share` of its planned time."""
    recipe, out = journey
    before = written(out)
    training = before["seconds"]["base"] - 12
    finish(out, "base", training * share)
    spare = 300 - sum(before["seconds"].values())
    elapsed = spare + as_planned(out, "data", "tokenizer", "base")
    table = replan(recipe, out, named(recipe, "sft"), elapsed)
    first = named(recipe, "sft").settings["steps"]
    assert table.settings["steps"] == pytest.approx(first * wanted, abs=1)
    after = written(out)
    assert after["settings"]["sft"]["steps"] == table.settings["steps"]
    # On a busy machine there are so few that their number may stay.
    is_new = table.settings["steps"] != first
    assert (f"{first:,} in the first plan" in after["reasons"]["sft.steps"]) == is_new
    # A later start reads what was planned last.
    again = plan_recipe(read_recipe(out.parent / "mine.toml"), out, 5)
    assert named(again, "sft").settings == table.settings


def test_a_slower_model_needs_more_time_for_answers_and_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which fine-tuning gives up, since they come after it."""
    text = COMPARED.replace('reward = "sum"\n', f'reward = "sum"\nquestions = 500\n{ANSWERS}')
    set_speed(monkeypatch, 4_000.0)
    lengths(tmp_path, monkeypatch, text + "epochs = 2\n", 10)
    out = tmp_path / "out"
    recipe = plan_recipe(read_recipe(tmp_path / "mine.toml"), out, 10)
    planned = written(out)["seconds"]
    finish(out, "base", (planned["base"] - 12) / 0.8)
    elapsed = 600 - sum(planned.values()) + as_planned(out, "data", "tokenizer", "base")
    table = replan(recipe, out, named(recipe, "sft"), elapsed)
    more = (planned["labels"] - 12) * 0.25
    more += 2 * 500 * pairs_tokens(planned, 0.8 * 4_000) / (0.8 * 4_000) - (planned["dpo"] - 12)
    left = (planned["sft"] - 12 - more) / (planned["sft"] - 12)
    first = named(recipe, "sft").settings["steps"]
    assert 0.5 < 0.8 * left < 0.79
    assert table.settings["steps"] == pytest.approx(0.8 * left * first, abs=1)


def an_hour_with_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, Path]:
    """A recipe whose model trains on 4,000 tokens per second and learns from pairs of its answers,
    and its folder."""
    set_speed(monkeypatch, 4_000.0)
    text = COMPARED.replace('reward = "sum"\n', f'reward = "sum"\n{ANSWERS}') + "epochs = 2\n"
    lengths(folder, monkeypatch, text, 60)
    return plan_recipe(read_recipe(folder / "mine.toml"), folder / "out", 60), folder / "out"


@pytest.mark.parametrize("lost", [500.0, 0.0, -300.0])
def test_answers_and_pairs_share_what_fine_tuning_loses_and_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: float
) -> None:
    """Unless the recipe sets their number; pre-training took `lost` seconds more than planned."""
    recipe, out = an_hour_with_answers(tmp_path, monkeypatch)
    planned = written(out)["seconds"]
    finish(out, "base", planned["base"] - 12)
    elapsed = 3_600 - planned["sft"] - planned["labels"] - planned["dpo"] + lost
    table = replan(recipe, out, named(recipe, "sft"), elapsed)
    flexible = sum(planned[name] - 12 for name in ("sft", "labels", "dpo"))
    first = named(recipe, "sft").settings["steps"]
    assert table.settings["steps"] == pytest.approx(first * (1 - lost / flexible), abs=1)
    alone = first * (1 - lost / (planned["sft"] - 12))
    assert not lost or abs(table.settings["steps"] - alone) > 8


@pytest.mark.parametrize(
    ("left", "wanted"), [(1.0, 1.0), (1.3, 1.3), (0.8, 0.8), (9.0, 2.0), (-1.0, 0.5)]
)
def test_as_many_prompts_are_compared_as_there_is_time_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: float,
    wanted: float,
) -> None:
    """`left` times the planned seconds of answering and learning from the pairs are left."""
    recipe, out = an_hour_with_answers(tmp_path, monkeypatch)
    planned = written(out)["seconds"]
    finish(out, "sft", planned["sft"] - 12)
    compared = planned["labels"] + planned["dpo"] - 24
    capsys.readouterr()
    table = replan(recipe, out, named(recipe, "labels"), 60 * 60 - 24 - left * compared)
    first = named(recipe, "labels").settings["questions"]
    assert table.settings["questions"] == pytest.approx(wanted * first, abs=1) and first > 400
    assert written(out)["settings"]["labels"]["questions"] == table.settings["questions"]
    said = (
        f"{first:,} in the first plan; {max(0.0, left * compared):.0f} s are left for the answers"
    )
    assert (said in capsys.readouterr().out) == (table.settings["questions"] != first)


def test_prompts_are_compared_at_the_speed_of_the_last_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the planned time a model that is 0.7 times as fast answers 0.7 times as many, unless the
    recipe says how many."""
    recipe, out = an_hour_with_answers(tmp_path, monkeypatch)
    planned = written(out)["seconds"]
    finish(out, "sft", (planned["sft"] - 12) / 0.7)
    elapsed = 60 * 60 - planned["labels"] - planned["dpo"]
    first = named(recipe, "labels").settings["questions"]
    table = replan(recipe, out, named(recipe, "labels"), elapsed)
    assert table.settings["questions"] == pytest.approx(0.7 * first, abs=1)

    text = (tmp_path / "mine.toml").read_text().replace("n = 4\n", "n = 4\nquestions = 300\n")
    (tmp_path / "mine.toml").write_text(text)
    (tmp_path / "own").mkdir()
    recipe = plan_recipe(read_recipe(tmp_path / "mine.toml"), tmp_path / "own", 60)
    table = named(recipe, "labels")
    assert replan(recipe, tmp_path / "own", table, elapsed) == table


def test_lost_time_is_taken_from_later_stages(journey: tuple[Recipe, Path]) -> None:
    recipe, out = journey
    before = written(out)
    late = 300 - as_planned(out, "base", "sft", "dpo", "report") + 10
    table = replan(recipe, out, named(recipe, "base"), late)
    assert table.settings["steps"] < named(recipe, "base").settings["steps"]
    # Both training stages give up a part of the ten seconds.
    lost = before["seconds"]["base"] - as_planned(out, "base")
    assert 1 < lost < 9
    assert written(out)["settings"]["base"]["depth"] == table.settings["depth"]


@pytest.mark.parametrize(("left", "wanted"), [(12 + 85, 1.0), (12 + 59.5, 0.5), (1, 0.1)])
def test_the_report_gets_the_remaining_time(
    journey: tuple[Recipe, Path], left: float, wanted: float, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = journey
    finish(out, "sft", as_planned(out, "sft") - 12)
    table = replan(recipe, out, named(recipe, "report"), 300 - left)
    said = (
        f"plan: report measures {wanted:.0%} of the default size\n      {max(0, left - 12):.0f} s"
    )
    assert said in capsys.readouterr().out
    # Nothing is said of what is measured whole, as by default.
    reasons = [one for one in written(out)["reasons"] if one.startswith("report.")]
    assert {one.removeprefix("report.") for one in reasons} == table.settings.keys() - {"questions"}
    assert table.settings["questions"] == 77
    config: Any = table.config(out)
    default = {name: field.default for name, field in type(config).model_fields.items()}
    for name in ("bytes_per_source", "refusal_prompts", "pairs"):
        whole = getattr(config, name) == default[name]
        assert whole if wanted == 1 else getattr(config, name) < default[name]
    if wanted == 0.5:
        assert config.bytes_per_source == default["bytes_per_source"] // 2


@pytest.mark.parametrize(
    ("dtype", "speed", "whole"),
    [
        ("float32", 1e9, 85.0),
        ("bfloat16", 1e9, 43.0),
        ("float32", 10_000.0, 170.0),
        ("bfloat16", 10_000.0, 170.0),
    ],
)
def test_a_reports_time_depends_on_its_dtype_and_its_models_speed(
    journey: tuple[Recipe, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    speed: float,
    whole: float,
) -> None:
    set_speed(monkeypatch, speed)
    (tmp_path / "other.toml").write_text(f'{JOURNEY}dtype = "{dtype}"\n')
    other = tmp_path / "other"
    other.mkdir()
    recipe = plan_recipe(read_recipe(tmp_path / "other.toml"), other, 5)
    # Two fifths of it at any size, and a fifth of the rest.
    assert as_planned(other, "report") == 12 + whole * 0.52
    finish(other, "sft", written(other)["seconds"]["sft"] - 12)
    table = replan(recipe, other, named(recipe, "report"), 300 - 12 - whole)
    assert not set(table.settings) & {"bytes_per_source", "pairs"}, "measured whole"


@pytest.mark.parametrize(("faster", "scale"), [(1.0, 0.1 / 0.6), (1.25, 0.225 / 0.6), (2.0, 1.0)])
def test_a_report_is_measured_at_the_speed_of_the_last_stage(
    journey: tuple[Recipe, Path], faster: float, scale: float
) -> None:
    """Half of the time that the whole report would take as planned is left, 85 of 170 s."""
    recipe, out = journey
    timed_as(out, 10_000.0, "report")
    finish(out, "sft", (as_planned(out, "sft") - 12) / faster)
    table = replan(recipe, out, named(recipe, "report"), 300 - 12 - 85)
    config: Any = table.config(out)
    assert config.bytes_per_source == pytest.approx(100_000 * scale, abs=1)


def test_a_lost_plan_is_not_recreated_after_stages_have_begun(
    journey: tuple[Recipe, Path], tmp_path: Path
) -> None:
    """A new one would have other numbers than they began with."""
    _, out = journey
    before = written(out)["settings"]
    for name in ("plan.json", ".plan.json.copy"):
        (out / name).unlink()
    recipe = read_recipe(tmp_path / "mine.toml")
    assert plan_recipe(recipe, out, 5) is not recipe and written(out)["settings"].keys() == (
        before.keys()
    ), "nothing has begun"
    finish(out, "data", 1.0)
    for name in ("plan.json", ".plan.json.copy"):
        (out / name).unlink()
    with pytest.raises(UserError, match=r"out/plan\.json does not exist.*out/data has begun"):
        plan_recipe(recipe, out, 5)
    assert [path.name for path in out.iterdir()] == ["data"]


def test_an_earlier_plan_does_not_change(journey: tuple[Recipe, Path]) -> None:
    """It has no seconds."""
    recipe, out = journey
    found = {name: v for name, v in written(out).items() if name not in ("seconds", "sha256")}
    write_sealed(out / "plan.json", found)
    assert replan(recipe, out, named(recipe, "sft"), 1.0) == named(recipe, "sft")
