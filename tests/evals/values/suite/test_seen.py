"""Evaluation items in a model's training data, searched once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from groundup.data.packs.questions import choice_prompt, questions
from groundup.data.packs.rows import Rejected
from groundup.evals.core_sets import core_questions
from groundup.evals.measure import Subject
from groundup.evals.values import refusal, world
from groundup.evals.values.overlap import overlaps
from groundup.evals.values.suite.asking import hashed
from groundup.evals.values.suite.cache import RowCache
from groundup.evals.values.suite.seen import seeing, trained_texts
from groundup.evals.values.suite.tasks import TASKS
from groundup.evals.values.task import Task
from groundup.lm.model import CausalLM
from groundup.text.rows import Choice, Conversation, RefusalPrompt
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_it_is_searched_once(
    tmp_path: Path,
    tiny_model: object,
    tokenizer: Tokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    documents = tmp_path / "data" / "documents" / "train.jsonl"
    documents.parent.mkdir(parents=True)
    documents.write_text(json.dumps({"text": f"A title\n\nSo: {ITEM}.", "source": "wiki"}) + "\n")
    run = {
        "schema": 1,
        "stage": "pretrain",
        "parents": {"data": {"path": str(tmp_path / "data")}},
        "traits": {"reads": "documents"},
    }
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "plan.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    model = tiny_model()  # type: ignore[operator]
    assert isinstance(model, CausalLM)
    compute = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)

    def found(*items: str, weights: str = "a", at: Path = folder) -> dict[str, int] | None:
        asked = [RefusalPrompt(one, "benign", "s", "g") for one in items]
        subject = Subject(
            0, at, None, model, tokenizer, 64, {"task": asked}, None, compute,
            {hashed: weights},
        )  # fmt: skip
        overlaps = subject(seeing(RowCache(tmp_path / "cache")))["overlaps"]
        if not overlaps:
            return None
        [task] = overlaps
        return {name: task[name] for name in ("items", "same", "grams")}

    def read() -> int:
        return capsys.readouterr().out.count("training texts read")

    before = {"items": 2, "same": 0, "grams": 1}
    # The same weights without their story come first, and say nothing of those with it.
    assert found(ITEM, "never read", at=tmp_path / "copy") is None
    assert found(ITEM, "never read") == before and read() == 2
    assert found(ITEM, "never read") == before and read() == 0
    assert found(ITEM, "never read", weights="b") == before and read() == 1
    assert found(ITEM) == {"items": 1, "same": 0, "grams": 1} and read() == 1
    # Other data of the same name are different data; deleted data are missing.
    kept = documents.read_text()
    documents.write_text("")
    assert found(ITEM, "never read") == {"items": 2, "same": 0, "grams": 0} and read() == 1
    documents.unlink()
    assert found(ITEM, "never read") is None and read() == 1
    documents.parent.rmdir()
    assert found(ITEM, "never read") is None and read() == 0
    documents.parent.mkdir()
    documents.write_text(kept)
    assert found(ITEM, "never read") == before and read() == 0


def test_a_question_is_found_by_its_own_words() -> None:
    """As the data stage writes it in the training half."""
    asked = [q for name in ("piqa", "siqa", "mmlu") for q in questions(name, Rejected())]
    trained = [("s", choice_prompt(q.question, q.passage)) for q in asked]
    items = [item for item in core_questions(120) if item.source in ("piqa", "siqa", "mmlu")]
    [found] = overlaps(trained, {"core": [trained_texts(item) for item in items]})
    assert found.found == len(items) == 60


def test_a_passage_is_searched_with_its_question() -> None:
    item = Choice(
        "Sea -- It is deep.\nQuestion: is it deep\nAnswer:", ("yes", "no"), 0, "boolq", ""
    )
    assert list(trained_texts(item)) == ["Sea -- It is deep.", "is it deep"]
    assert list(trained_texts(Choice("A stem is", ("a", "b"), 0, "s", ""))) == ["A stem is"]


def test_a_conversation_is_found_turn_by_turn() -> None:
    items = world.questions(66)
    assert any(len(item.messages) > 2 for item in items)
    turns = [("world", turn.content) for item in items for turn in item.messages]
    [found] = overlaps(turns, {"world": [trained_texts(item) for item in items]})
    assert found.found == len(items)
    several = Conversation.of(["What sails?", "The ship.", "And where?", "At sea."], "s", "g")
    assert list(trained_texts(several)) == ["And where?"]


# Calibration asks what core asks, and passages are read with the whole of Wikipedia.
@pytest.mark.parametrize("task", [one for one in TASKS if one.name not in ("calibration", "bits")])
def test_every_task_lists_the_texts_that_training_could_contain(task: Task) -> None:
    items = task.items(20)
    texts = [trained_texts(item) for item in items]
    assert texts and all(own and all(one.strip() for one in own) for own in texts)
    names = {str(getattr(item, "id", None)) for item in items}
    assert not names.intersection(text for own in texts for text in own)
    if isinstance(items[0], refusal.RefusalItem):
        assert texts == [[item.prompt] for item in items]


def test_undeclared_items_are_an_error() -> None:
    with pytest.raises(TypeError, match="int"):
        trained_texts(1)
