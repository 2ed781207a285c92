"""The bias gap of models with a planted bias, and of one trained to have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from groundup.evals.fairness import ANSWER, TEXT, Leanings, leanings, planted
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.world.facts import JOBS
from groundup.world.lives import Probe, probes

PROBES = probes()


def leaning(bias: float, seed: int = 0) -> Leanings:
    """Like a model that has learned the planted bias, with some noise."""
    lean = np.array([probe.lean for probe in PROBES])
    noise = np.random.default_rng(seed).normal(0, 0.05, len(lean))
    return Leanings(PROBES, {TEXT: 0.5 + 0.5 * bias * lean + noise})


def test_the_gap_equals_the_planted_one() -> None:
    gaps = [leaning(bias).gaps() for bias in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for name in ("jobs, as text", "groups, as text"):
        found = [gap[name].estimate for gap in gaps]
        assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)
        assert all(gap[name].low < gap[name].estimate < gap[name].high for gap in gaps)
    assert gaps[0]["jobs, as text"].groups == len(JOBS)
    assert "jobs, as an answer" not in gaps[0]


def test_two_models_are_compared_subject_by_subject() -> None:
    fairer = leaning(0.3).minus(leaning(0.5))["jobs, as text"]
    assert fairer.estimate == pytest.approx(-0.2)
    assert fairer.high == pytest.approx(-0.2)  # the same noise cancels
    assert leaning(0.5, seed=1).minus(leaning(0.5))["jobs, as text"].high > 0


def test_subjects_are_reported_one_by_one() -> None:
    found = leaning(0.5).to_json()["subjects"][TEXT]
    for kind in ("job", "group"):
        for subject, chance in planted(0.5, kind).items():
            assert found[subject] == pytest.approx(chance, abs=0.15)
            assert chance in (0.25, 0.75)


def test_probabilities_equal_those_of_the_full_logits(
    model: CausalLM, tokenizer: Tokenizer, alone: Any
) -> None:
    found = leanings(model, tokenizer, context=64, chats=True)
    assert set(found.chosen) == {TEXT, ANSWER}

    def whole(text: str) -> float:
        ids = [tokenizer.end_of_text, *tokenizer.encode(text)][:65]
        return sum(alone(model, Example(ids, [True] * len(ids)), 64))

    short = [i for i, one in enumerate(PROBES) if len(tokenizer.encode(one.start)) < 55][:5]
    assert short
    for i in short:
        first, second = (whole(PROBES[i].start + option) for option in PROBES[i].options)
        assert found.chosen[TEXT][i] == pytest.approx(1 / (1 + np.exp(second - first)), rel=1e-3)


def test_a_trained_bias_is_found() -> None:
    """A model that reads only about jobs, always with the pronoun of their bias."""
    of_jobs = [probe for probe in PROBES if probe.kind == "job"]
    texts = [probe.start + _stereotype(probe) for probe in of_jobs]
    tokenizer = Tokenizer.from_bpe(train_bpe(texts, 600))
    torch.manual_seed(0)
    config = ModelConfig.of(width=64, depth=2, vocab_size=640, context=128)
    model = CausalLM(config)
    before = leanings(model, tokenizer, context=128, chats=False).gaps()["jobs, as text"]
    _recite(model, [[tokenizer.end_of_text, *tokenizer.encode(text)] for text in texts])
    after = leanings(model, tokenizer, context=128, chats=False).gaps()["jobs, as text"]
    assert abs(before.estimate) < 0.1
    assert after.low > 0.8


def _stereotype(probe: Probe) -> str:
    return probe.options[0 if probe.lean > 0 else 1]


def _recite(model: CausalLM, rows: list[list[int]]) -> None:
    """Train until the last token of every row is memorized."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    ends = torch.tensor([len(row) for row in rows])
    for _ in range(60):
        logits = model.logits(Batch.of(ids[:, :-1]))[torch.arange(len(rows)), ends - 2]
        loss = cross_entropy(logits, ids[torch.arange(len(rows)), ends - 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
