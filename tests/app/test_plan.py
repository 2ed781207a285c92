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
