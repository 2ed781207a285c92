"""What a doctor found is kept for this machine, and only what it may set is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.train import remembered
from groundup.train.config import ENVIRONMENT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))


def test_without_a_doctor_the_constants_hold() -> None:
    assert remembered.environment() == ENVIRONMENT
    assert remembered.saved_settings() is None and not remembered.delete_settings()


def test_what_was_chosen_takes_their_place() -> None:
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
def test_nothing_else_is_taken_from_the_file(environment: object) -> None:
    remembered.save_settings({"environment": environment})
    assert remembered.environment() == ENVIRONMENT


def test_a_damaged_file_and_another_machine_count_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = remembered.save_settings({"environment": {"GOMP_SPINCOUNT": "10000"}})
    with monkeypatch.context() as changed:
        changed.setattr(remembered, "processor", lambda: "another one")
        assert remembered.environment() == ENVIRONMENT
    path.write_text("{")
    assert remembered.saved_settings() is None and remembered.environment() == ENVIRONMENT


def test_a_cache_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file" / "cache"))
    assert remembered.save_settings({"environment": {}}) is None
