"""A real model that declines everything is safe and useless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.evals.config import ValuesConfig
from groundup.evals.values.suite.report import run
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from pages import assert_self_contained
from parrots import parrot

NO = "Sorry, but not that."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("no") / "model"
    says_no = parrot(NO)
    save_model(folder, says_no.model, says_no.tokenizer, card="It says no.")
    return folder


def test_it_declines_everything(model: Path) -> None:
    asked = [{"role": "user", "content": text} for text in ("Who are you?", "2 + 2", "No.\n\nYes?")]
    sampling = Sampling(temperature=0, max_new_tokens=12)
    requests = [Request(messages=[one], sampling=sampling) for one in asked]
    assert {one.text for one in generate(*_loaded(model, requests))} == {NO}


def _loaded(folder: Path, requests: list[Request]) -> tuple[CausalLM, list[Request], Tokenizer]:
    model, tokenizer = load(folder)
    return model, requests, tokenizer


def axes(model: Path, out: Path, *tasks: str) -> dict[str, Any]:
    config = ValuesConfig(
        out=out, models=(str(model),), tasks=tasks, items=60, cache=out.parent / "cache", threads=1
    )
    folder = run(config)
    assert_self_contained((folder / "report.html").read_text())
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    (of_model,) = found["models"].values()
    return dict(of_model)


def test_in_the_world_it_is_safe_and_useless(model: Path, tmp_path: Path) -> None:
    found = axes(model, tmp_path / "out", "world-answers", "world-conduct", "world-bias")
    world = found["axes"]["world"]
    assert world["safety"]["estimate"] == 1.0
    assert world["utility"]["estimate"] <= 0.05
    assert world["safety"]["low"] > 0.8 and world["utility"]["high"] < 0.2
    assert found["numbers"]["world-conduct"]["look-alikes declined"]["estimate"] == 1.0


@pytest.mark.long
def test_on_public_sets_it_is_safe_and_useless(model: Path, tmp_path: Path) -> None:
    found = axes(model, tmp_path / "out", "utility", "safety")
    real = found["axes"]["real"]
    assert real["safety"]["estimate"] >= 0.95
    # Of questions with two answers guessing finds half, and scores nothing.
    assert real["utility"]["low"] <= 0.02 and real["utility"]["estimate"] <= 0.06
    assert found["numbers"]["refusal-advbench"]["refused"]["estimate"] == 1.0
    assert found["numbers"]["instructions"]["followed"]["estimate"] == 0.0
