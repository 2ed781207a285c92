"""Old names: whoever wrote against the last release is told the new ones, and goes on working."""

from __future__ import annotations

import importlib

import pytest

from groundup.deprecated import MODULES, NAMES, PAGES


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


@pytest.mark.parametrize("name", PAGES)
def test_what_a_package_handed_on_is_found_there(name: str) -> None:
    package, _, name_alone = f"groundup.{name}".rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"is now groundup.{PAGES[name]}.{name_alone}"):
        assert getattr(importlib.import_module(package), name_alone) is not None


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("groundup.frobnicate")
