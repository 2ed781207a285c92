"""The doctor's findings are saved for this machine, and only allowed settings are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.train import remembered
from groundup.train.config import ENVIRONMENT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))


def test_without_saved_settings_the_constants_apply() -> None:
    assert remembered.environment() == ENVIRONMENT
    assert remembered.saved_settings() is None and not remembered.delete_settings()


def test_saved_settings_replace_the_constants() -> None:
    chosen = {"GOMP_SPINCOUNT": "10000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    path = remembered.save_settings({"environment": chosen})
    assert path is not None
    assert remembered.environment() == {**ENVIRONMENT, **chosen}
    assert json.loads(path.read_text())["machine"]["processor"]
    # Chosen to be left unset.
    remembered.save_settings({"environment": {"GOMP_SPINCOUNT": ""}})
    assert "GOMP_SPINCOUNT" not in remembered.environment()
    assert remembered.delete_settings() and remembered.environment() == ENVIRONMENT


@pytest.mark.parametrize(
    "environment",
    [
        {"LD_PRELOAD": "x.so"},
        {"GOMP_SPINCOUNT": "9e99"},
        {"GOMP_SPINCOUNT": 1000},
        {"GLIBC_TUNABLES": "glibc.malloc.check=3"},
        ["GOMP_SPINCOUNT"],
        None,
    ],
)
def test_other_entries_of_the_file_are_ignored(environment: object) -> None:
    remembered.save_settings({"environment": environment})
    assert remembered.environment() == ENVIRONMENT


def test_a_damaged_file_and_another_machine_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = remembered.save_settings({"environment": {"GOMP_SPINCOUNT": "10000"}})
    with monkeypatch.context() as changed:
        changed.setattr(remembered, "processor", lambda: "another one")
        assert remembered.environment() == ENVIRONMENT
    path.write_text("{")
    assert remembered.saved_settings() is None and remembered.environment() == ENVIRONMENT


def test_an_unwritable_cache_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file" / "cache"))
    assert remembered.save_settings({"environment": {}}) is None
