"""Old names: whoever wrote against the last release is told the new ones, and goes on working."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from groundup.app.settings import configured
from groundup.deprecated import MODULES, NAMES
from groundup.errors import UserError
from groundup.pretrain.config import PretrainConfig
from groundup.runs.files import write_kept
from groundup.runs.folder import read_run
from groundup.tune.config import SFTConfig


@pytest.mark.parametrize("page", MODULES)
def test_a_page_that_moved_is_found_at_its_old_place(page: str) -> None:
    old = importlib.import_module(f"groundup.{page}")
    for home in MODULES[page]:
        new = importlib.import_module(f"groundup.{home}")
        own = [n for n, v in vars(new).items() if getattr(v, "__module__", "") == new.__name__]
        for name in (n for n in own if not n.startswith("_")):
            with pytest.warns(DeprecationWarning, match=f"is now groundup.*{name}"):
                assert getattr(old, name) is not None
            break


@pytest.mark.parametrize("name", NAMES)
def test_a_new_name_is_not_an_old_one(name: str) -> None:
    assert NAMES[name] not in NAMES


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("groundup.frobnicate")


def test_settings_of_earlier_releases_are_read_by_todays_names(tmp_path: Path) -> None:
    """In recipes, and in the run.json of runs that were begun with them."""
    base = {"out": "x", "data": "d", "tokenizer": "t", "world_first": 0.5}
    found = configured(PretrainConfig, base)
    assert found.mixture == {"world": (0.5, 0.15)}
    chat = {"out": "x", "model": "m", "data": "d", "chained": 0.7, "world": 0.9}
    tuned = configured(SFTConfig, chat)
    assert (tuned.multi_turn, tuned.mixture) == (0.7, {"world": 0.9})
    write_kept(tmp_path / "run.json", {"stage": "sft", "config": chat})
    config = read_run(tmp_path)["config"]
    assert config == {
        "out": "x", "model": "m", "data": "d", "multi_turn": 0.7, "mixture": {"world": 0.9},
    }  # fmt: skip
    # Who gives both is told that the old one is no setting.
    with pytest.raises(UserError, match="world is not a setting"):
        configured(SFTConfig, chat | {"mixture": {"world": 0.5}})
