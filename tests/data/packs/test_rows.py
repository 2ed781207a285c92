"""Sets read their rows by their own modules; a new one needs a module and a manifest entry."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from groundup.data.config import DataConfig
from groundup.data.packs import manifest, rows
from groundup.data.packs.rows import Progress, Rejected, Rows, gather
from groundup.text.rows import Conversation, Document, RefusalPrompt


def test_every_text_set_has_a_module() -> None:
    for one in manifest.every_set():
        page = importlib.import_module(f"groundup.data.packs.{one.page}")
        assert callable(page.rows) and rows.page_of(one.name) is page
    assert {one.name for one in manifest.every_set()} | {"own"} == set(manifest.ORDER)


@pytest.fixture
def two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two new sets: their manifest entries, and one module that reads both."""
    some = manifest.SETS[0]
    new = tuple(replace(some, name=name, page="toy") for name in ("toy-b", "toy-a"))
    monkeypatch.setattr(manifest, "SETS", new)

    def read(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
        rejected.add(name, "a bad row")
        return Rows(
            documents=[
                Document(" ".join(f"{name[-1]}{word}" for word in range(20)), name, "1"),
                Document("Both say word by word what has nine words here.", name, "2"),
            ],
            conversations=[Conversation.of(("Who?", name), name, "g")],
            refusals=[RefusalPrompt("Hm?", "benign", name, "g")],
        )

    page = ModuleType("groundup.data.packs.toy")
    page.rows = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, page.__name__, page)


def test_a_new_set_is_a_module_and_an_entry(two_sets: None) -> None:
    rejected = Rejected()
    found = gather(DataConfig(out=Path("out"), packs=("toy-b", "toy-a")), rejected)
    # As they are named, where the manifest gives them no order; what both say is said once.
    assert [(one.source, one.id) for one in found.documents] == [
        ("toy-b", "1"), ("toy-b", "2"), ("toy-a", "1"),
    ]  # fmt: skip
    assert rejected.counts["toy-a: repeats an earlier text"] == 1
    assert rejected.counts["toy-a: a bad row"] == rejected.counts["toy-b: a bad row"] == 1
    # Statements of a model about itself belong to documents.
    talks = [one.source for one in found.conversations]
    assert set(talks) == {"toy-a", "toy-b", "own"} and talks.count("own") > 100
    assert [one.source for one in found.refusals] == ["toy-a", "toy-b"]


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        pytest.param("wiki", "answered", marks=pytest.mark.long),
        ("wiki", "declined"),
        ("openbookqa", "answered"),
        ("openbookqa", "declined"),
        # Its rows are the same either way.
        pytest.param("boolq", "answered", marks=pytest.mark.long),
    ],
)
def test_the_seed_does_not_change_held_out_rows(name: str, unknown: str) -> None:
    sides = [
        rows.page_of(name).rows(
            name, DataConfig(out=Path("x"), unknown=unknown, seed=seed), Rejected(), None
        )
        for seed in (0, 1)
    ]
    one, other = (
        {field: value for field, value in vars(side).items() if field.endswith("heldout")}
        for side in sides
    )
    assert one == other and len(one) == 3
    assert sides[0].refusals == sides[1].refusals
    trained = [(*side.conversations, *side.preferences) for side in sides]
    assert (trained[0] != trained[1]) == ((name, unknown) != ("wiki", "declined"))
