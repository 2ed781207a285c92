"""Samples of a set: training or held-out rows of that set, and nothing harmful."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.data.config import DataConfig
from groundup.data.samples import lines, samples
from groundup.text.rows import Choice, Conversation, Document, Preference, RefusalPrompt
from groundup.world.pack import is_heldout_combination


def of(name: str, seed: int = 0) -> DataConfig:
    return DataConfig(out=Path("never written"), packs=(name,), seed=seed)


def test_the_world_shows_some_of_each_kind_reproducibly() -> None:
    shown = samples(of("world"), 7)
    assert [type(row) for row in shown] == [Document, Conversation, Preference] * 2 + [Document]
    assert all(row.source.startswith("world-") for row in shown)
    assert samples(of("world"), 7) == shown != samples(of("world", seed=1), 7)
    held = samples(of("world"), 1, heldout=True)
    assert isinstance(held[0], Document) and is_heldout_combination(held[0].text)
    # Held-out rows do not depend on the training seed.
    held = samples(of("world", seed=1), 60, heldout=True)
    assert held == samples(of("world"), 60, heldout=True)
    # Lives have no held-out side.
    assert not any(row.source == "world-lives" for row in held)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("chatterbot", [Conversation, Conversation]),
        pytest.param("chitchat", [Conversation, Conversation], marks=pytest.mark.long),
        ("piqa", [Conversation, Preference]),
        ("harm-scores", [Conversation, Conversation]),
    ],
)
def test_a_real_set_shows_its_training_rows(name: str, kinds: list[type]) -> None:
    shown = samples(of(name), 2)
    assert [type(row) for row in shown] == kinds
    assert {row.source for row in shown} == {name}


def test_held_out_rows_of_a_real_set() -> None:
    shown = samples(of("openbookqa"), 3, heldout=True)
    assert [type(row) for row in shown] == [Conversation, Preference, Choice]
    labels = [label for label, _ in lines(shown[2])]
    assert labels[0] == "question" and sorted(labels[1:]) == ["right", *["wrong"] * 3]
    kinds = {type(row) for row in samples(of("harm-scores"), 50, heldout=True)}
    assert kinds == {Conversation, RefusalPrompt}


def test_lines_name_the_speaker_and_cut_a_long_document() -> None:
    (label, text), *rest = lines(Document("A word. " * 500, "sotu", "1"))
    assert label == "text" and len(text) < 1000 and text.endswith(" …") and not rest
    pair = samples(of("piqa"), 2)[1]
    assert [label for label, _ in lines(pair)] == ["user", "chosen", "rejected"]
    refused = RefusalPrompt("How can I steal?", "harmful", "x", "g")
    assert lines(refused) == [("to refuse", "How can I steal?")]
