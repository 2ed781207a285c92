"""The location of the cache, and users without a home folder."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.runs.cache import cache_folder


@pytest.mark.parametrize("home", [None, "relative"])
def test_a_user_without_a_home_is_asked_for_a_folder(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)  # as of a container started with any number
    for name in ("HOME", "XDG_CACHE_HOME", "GROUNDUP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no home .*; set GROUNDUP_CACHE to a writable folder"):
        cache_folder()
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"


@pytest.mark.parametrize(
    "leaves", [Path("~/.cache/groundup"), RuntimeError("could not determine the home directory")]
)
def test_every_version_of_platformdirs_works(
    leaves: Path | RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(name: str, appauthor: bool) -> Path:
        if isinstance(leaves, RuntimeError):
            raise leaves
        return leaves

    monkeypatch.delenv("GROUNDUP_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", answer)
    with pytest.raises(UserError, match="set GROUNDUP_CACHE to a writable folder"):
        cache_folder()
