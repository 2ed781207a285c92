"""The small world's rows in the data stage: the requested amount, without repeats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from groundup.data.config import DataConfig
from groundup.data.packs import world
from groundup.data.packs.rows import Rejected, Rows
from groundup.world import pack


@pytest.fixture(autouse=True)
def _few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "_HELDOUT_BYTES", 5_000)
    monkeypatch.setattr(world, "_HELDOUT_CONVERSATIONS", 5)
    monkeypatch.setattr(world, "_CONVERSATIONS_DRAWN", 120)
    monkeypatch.setattr(world, "_HELDOUT_PREFERENCES", 4)
    monkeypatch.setattr(world, "_PREFERENCES_DRAWN", 40)


def little(**changes: object) -> Rows:
    settings: dict[str, object] = {"out": Path("never written"), "world_megabytes": 0.02}
    settings |= {"world_conversations": 12, "world_preferences": 8, **changes}
    return world.rows("world", DataConfig.model_validate(settings), Rejected(), None)


def test_amounts_are_as_requested() -> None:
    found = little(seed=3)
    size = sum(len(document.text.encode()) for document in found.documents)
    assert 0.02e6 <= size < 0.023e6
    assert list(found.conversations) == [pack.conversation(3, i) for i in range(12)]
    assert list(found.preferences) == [pack.preference(3, i) for i in range(8)]
    assert found.refusals == pack.refusal_prompts()
    nothing = little(world_megabytes=0, world_conversations=0, world_preferences=0)
    assert not nothing.documents and not nothing.conversations and not nothing.preferences


def test_the_held_out_side_has_a_few_of_each_source_but_no_lives() -> None:
    found = little()
    of_source = Counter(talk.source for talk in found.conversations_heldout)
    assert max(of_source.values()) == 5 and len(of_source) > 5
    assert Counter(p.source for p in found.preferences_heldout).most_common(1)[0][1] == 4
    assert "world-lives" not in of_source | Counter(p.source for p in found.preferences_heldout)
    prompts = [talk.messages[:-1] for talk in found.conversations_heldout]
    assert len(set(prompts)) == len(prompts)


def test_the_seed_changes_training_rows_but_not_held_out_ones() -> None:
    one, other = little(), little(seed=1)
    assert one == little()
    assert one.documents != other.documents and one.conversations != other.conversations
    assert one.documents_heldout == other.documents_heldout
    assert one.conversations_heldout == other.conversations_heldout
    assert one.preferences_heldout == other.preferences_heldout


def test_the_bias_is_in_the_lives() -> None:
    def lives(bias: float) -> list[str]:
        found = little(bias=bias, world_megabytes=0.08).documents
        return [document.text for document in found if document.source == "world-lives"]

    assert len(lives(0)) > 10 and lives(0) != lives(1) and lives(1) == lives(1)


def test_a_document_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pack.document

    def twice(seed: int, index: int, **settings: Any) -> object:
        return made(seed, index // 2, **settings)

    monkeypatch.setattr(pack, "document", twice)
    texts = [document.text for document in little().documents]
    assert len(set(texts)) == len(texts) > 5
