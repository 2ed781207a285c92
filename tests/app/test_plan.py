"""What a plan takes of the small world: as much as the minutes read, within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.app import plan
from groundup.app.plan import plan_recipe
from groundup.app.recipe import read_recipe
from groundup.data.config import DataConfig
from groundup.train.device import Machine

WORLD = ("world_megabytes", "world_conversations", "world_preferences")


def planned(folder: Path, minutes: float, settings: str = "") -> dict[str, Any]:
    """The data stage's settings for so many minutes."""
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
    monkeypatch.setattr(plan, "measure", lambda seconds: Machine(2, 2**34, 1e11, 1e12))
    found = planned(tmp_path, minutes)
    assert [found[name] for name in WORLD] == wanted


def test_a_slower_machine_makes_less_of_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "measure", lambda seconds: Machine(2, 2**34, 2.5e11, 1e9))
    found = planned(tmp_path, 15)
    assert [found[name] for name in WORLD] == [6.0, 22_500, 9_750]


def test_what_the_recipe_says_of_the_world_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "measure", lambda seconds: Machine(2, 2**34, 1e11, 1e12))
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
PRETRAINED = (
    """
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
    """What each table of a recipe is given of how long it takes."""
    monkeypatch.setattr(plan, "measure", lambda seconds: Machine(2, 2**34, 1e9, 1e9))
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


def test_without_a_model_of_its_own_a_recipe_hands_its_minutes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lengths(tmp_path, monkeypatch, "[data]\npacks = ['world']\n" + TUNE, 5)
    assert set(found["tune"]) == {"minutes"} and 2 < found["tune"]["minutes"] < 5


def test_what_the_recipe_says_of_its_length_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[data]\npacks = ['world']\n" + TUNE + "steps = 7\n"
    assert lengths(tmp_path, monkeypatch, text, 5)["tune"] == {"steps": 7}


def test_a_stage_on_another_model_is_not_planned_by_the_speed_of_the_pretrained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lengths(tmp_path, monkeypatch, PRETRAINED, 0.5)
    # The model of these tables is the one whose speed was measured.
    assert {"steps", "rows"} == set(found["sft"]) and {"steps"} == set(found["own"])
    assert {"steps"} == set(found["base"])
    # These measure theirs, or what it takes to answer, unless they say how long they take.
    assert {"minutes"} == set(found["tune"]) == set(found["ppo"]) and not found["other"]
