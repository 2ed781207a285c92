"""Errors that name a missing extra name one that exists."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

import groundup
from groundup.errors import installing, nearest, shorten

PROJECT = Path(__file__).resolve().parents[1]
SOURCE = Path(groundup.__file__).parent
EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NAMED = {
    name
    for path in SOURCE.rglob("*.py")
    for name in re.findall(r"installing\([\"'](.+?)[\"']\)", path.read_text(encoding="utf-8"))
}


def test_a_value_is_shortened_to_a_hundred_and_twenty_characters() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shorten(deep) == "list without end" and shorten(10**5_000) == "int without end"
    assert shorten("x" * 118) == f"'{'x' * 118}'" and shorten("x" * 119) == f"'{'x' * 118}…"


def test_the_nearest_name_is_preferably_a_completion() -> None:
    commands = ["/system", "/temperature", "/quit"]
    assert nearest("/temp", commands) == nearest("/t", commands) == "/temperature"
    assert nearest("/sistem", commands) == "/system"
    assert nearest("", commands) is None and nearest("/quit", ["/quit"]) is None


def test_every_extra_in_an_error_exists_and_none_is_spelled_by_hand() -> None:
    assert NAMED and set(EXTRAS) >= NAMED
    for path in SOURCE.rglob("*.py"):
        assert "pip install 'groundup[" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("extra", sorted(NAMED))
def test_the_install_command_fits_this_installation(extra: str) -> None:
    python, *words = shlex.split(installing(extra))
    assert python == sys.executable and words[:3] == ["-m", "pip", "install"]
    place = words[-1].removesuffix(f"[{extra}]")
    assert place == "groundup" or (Path(place) / "pyproject.toml").is_file()
