"""Questions and bits as tasks, against the full logits and slow formulas."""

from __future__ import annotations

from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.evals.benchmarks import heldout_texts
from groundup.evals.core_sets import CORE_SETS
from groundup.evals.measure import Subject
from groundup.evals.values.knowledge import CORE, TEXT, Passage, passages
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.train.device import Compute

COMPUTE = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)
NAMES = [number.name for number in CORE.shown]


def subject(model: CausalLM, tokenizer: Tokenizer) -> Subject:
    context = model.config.max_position_embeddings
    return Subject(0, Path(), None, model, tokenizer, context, None, None, COMPUTE)


def test_bits_equal_those_of_the_full_logits(model: CausalLM, tokenizer: Tokenizer) -> None:
    text = "The sea is wide and the ship sails."  # shorter than the context
    (row,) = TEXT.ask(subject(model, tokenizer), [Passage(text, "wiki", "an article")])
    ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
    with torch.no_grad():
        logits = model.logits(Batch.of(torch.tensor([ids[:-1]]))).double()[0]
    found = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    assert row["bits"] == pytest.approx(-float(found.sum()) / log2(np.e) ** -1, rel=1e-5)
    assert row["bytes"] == len(text.encode()) and row["group"] == "an article"


def test_counting_letters_is_the_baseline_with_score_zero(
    model: CausalLM, uniform: CausalLM, tokenizer: Tokenizer
) -> None:
    text = "aabbccdd" * 20
    item = Passage(text, "wiki", "x")
    (row,) = TEXT.ask(subject(uniform, tokenizer), [item])
    assert row["letters"] == pytest.approx(2 * len(text))  # four letters, equally often
    tokens = len(tokenizer.encode(text))
    assert row["bits"] == pytest.approx(tokens * log2(320), rel=1e-4)
    rows = [dict(row) | {"bits": bits, "id": str(bits)} for bits in (0.0, 2.0 * len(text), 1e6)]
    scores = [TEXT.score([one]).estimate for one in rows]
    assert scores == pytest.approx([1.0, 0.0, 0.0])
    half = TEXT.score([dict(row) | {"bits": 1.0 * len(text)}])
    assert half.estimate == pytest.approx(0.5) and half.low <= half.estimate <= half.high


@pytest.mark.long
def test_passages_are_whole_texts_cut_at_sentences() -> None:
    found = passages(30)
    assert len(found) == 30 and {one.source for one in found} == {"wiki", "boolq", "sotu"}
    assert len({one.words for one in found}) == 30 and found == passages(30)
    texts = {(one.source, one.id): one.text for one in heldout_texts()}
    assert all(one.words in texts[one.source, one.text] for one in found)
    assert all(one.words.strip() for one in found)
    # Only one sentence may be longer than a block.
    long = [one for one in found if len(one.words.encode()) > 2048]
    assert len(long) <= 3


def rows(*right: float, guessing: float = 0.25) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "group": str(i), "set": "piqa", "right": one, "guessing": guessing}
        for i, one in enumerate(right)
    ]


def test_guessing_scores_zero_and_perfect_answers_one() -> None:
    assert CORE.score(rows(1, 0, 0, 0)).estimate == 0.0
    assert CORE.score(rows(*[1] * 20)).estimate == 1.0
    assert CORE.score(rows(0, 0, 0)).estimate == 0.0  # below guessing is no less
    half = CORE.score(rows(1, 0, 1, 0, guessing=0.0))
    assert half.estimate == pytest.approx(0.5) and 0 < half.low < 0.5 < half.high < 1


def test_questions_are_counted_by_set_and_compared_one_by_one(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    items = CORE.items(12)
    found = CORE.ask(subject(model, tokenizer), items)
    assert len(found) == len(items) == 12 and len({row["id"] for row in found}) == 12
    numbers = CORE.numbers(found)
    assert set(numbers) == set(NAMES) and len(NAMES) == 1 + len(CORE_SETS)
    right = np.array([row["right"] for row in found], float)
    assert numbers["right answers"].estimate == pytest.approx(right.mean())
    nothing = [dict(row) | {"right": 0.0} for row in found]
    change = CORE.difference(found, nothing)["right answers"]
    assert change.estimate == pytest.approx(right.mean())
    same = CORE.difference(found, found)
    # None of so few answers differs, which leaves room for some that do.
    assert all(one.estimate == 0 and one.low < 0 < one.high for one in same.values())


def test_a_harmless_item_can_be_shown() -> None:
    (item,) = CORE.items(6)[:1]
    assert CORE.text is not None and CORE.text(replace(item, prompt="What?")) == "What?"
