"""What an earlier release computed and wrote: `unchanged/make.py` made it, this code must agree.

Floats agree to about a thousandth, as other processors round differently.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from groundup.app.cli import main

HERE = Path(__file__).parent / "unchanged"
EXPECTED = json.loads((HERE / "expected.json").read_text())
_spec = importlib.util.spec_from_file_location("unchanged_make", HERE / "make.py")
assert _spec is not None and _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def near(value: Any) -> Any:
    return pytest.approx(value, rel=2e-3, abs=2e-3)


def said_in(folder: Path, arguments: list[str]) -> str:
    """The output of `make.groundup`, for a command in this process."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(arguments) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage once more, from the same data and tokenizer."""
    folder = tmp_path_factory.mktemp("journey")
    for name in ("data", "tokenizer"):
        shutil.copytree(HERE / name, folder / name)
    for stage, words in make.STAGES.items():
        said_in(folder, [*words.split(), *make.TRAINING, "--out", stage])
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folders of the earlier release."""
    folder = shutil.copytree(HERE, tmp_path / "old")
    config = folder / "lora" / "adapter_config.json"
    config.write_text(config.read_text().replace("BASE", str(folder / "base")))
    return folder


@pytest.mark.parametrize("stage", make.STAGES)
def test_losses(journey: Path, stage: str) -> None:
    assert make.losses(journey / stage) == near(EXPECTED["losses"][stage])


@pytest.mark.parametrize("stage", make.STAGES)
def test_logits_and_greedy_answers(journey: Path, stage: str) -> None:
    found, expected = make.answers(journey / stage), EXPECTED["answers"][stage]
    assert found["ids"] == expected["ids"]
    assert found["logits"] == pytest.approx(expected["logits"], rel=0.02, abs=0.02)


def test_tokens_of_hard_strings() -> None:
    assert make.tokens(HERE / "base") == EXPECTED["tokens"]


def test_every_number_of_the_report(journey: Path) -> None:
    make.groundup(
        ["eval", "base", "sft", "dpo", "--data", "data", "--out", "report", "--threads", "1"],
        journey,
    )
    found = make.figures(journey / "report" / "report.json")
    assert EXPECTED["report"].keys() <= found.keys()
    assert {name: found[name] for name in EXPECTED["report"]} == near(EXPECTED["report"])


@pytest.mark.parametrize("name", ["base", "lora"])
def test_old_models_and_adapters_load_and_verify(old: Path, name: str) -> None:
    found = make.answers(old / name)
    assert found["ids"] == EXPECTED["answers"][name]["ids"]
    assert found["logits"] == pytest.approx(EXPECTED["answers"][name]["logits"], abs=1e-3)
    said_in(old, ["verify", name])


def test_an_old_run_is_resumed(old: Path) -> None:
    """From its checkpoint at step 10 it reaches the losses of the uninterrupted run."""
    stage = make.STAGES["base"].split()
    resumed = ["--out", "interrupted", "--allow-inexact-resume"]
    said = said_in(old, [*stage, *make.TRAINING, *resumed])
    assert "step 10" in said, said
    assert make.losses(old / "interrupted") == near(EXPECTED["losses"]["base"])
