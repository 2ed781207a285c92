"""A new training stage is a config, a module and a row of the table."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from pydantic import Field

from conftest import TinyModel
from groundup.app import cli
from groundup.app.stages import STAGES, Stage
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.lm.model import CausalLM
from groundup.runs.files import read_lines
from groundup.runs.folder import Run, is_finished
from groundup.runs.request import read_run
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream
from groundup.train.config import TrainingConfig, Traits
from groundup.train.loss import next_token_loss
from groundup.train.plan import Trained, TrainPlan
from groundup.train.stage import Job, run_stage

STEPS = 6
QUICK = ["--steps", str(STEPS), "--rows", "2", "--compile", "off", "--threads", "1"]


class ParrotConfig(TrainingConfig):
    """Teach a model one memorized sentence."""

    traits: ClassVar[Traits] = Traits("documents", False, "heldout_loss", share=0.1)

    model: Path = Field(description="folder of the model to start from")
    sentence: str = Field("the sea is wide", description="what it is to say")
    stop_at: int | None = Field(None, description="the evaluation in which somebody asks to stop")


class Sentence(DataStream):
    def __init__(self, ids: list[int], rows: int) -> None:
        self.ids, self.rows = torch.tensor([ids] * rows), rows

    def at(self, step: int, model: torch.nn.Module) -> list[Batch]:
        plain = Batch.of(self.ids[:, :-1])
        targets, weights = self.ids[:, 1:].contiguous(), torch.ones(plain.input_ids.shape)
        return [
            Batch(
                plain.input_ids,
                targets,
                weights,
                plain.position_ids.contiguous(),
                plain.segment_ids,
            )
        ]


def run(config: ParrotConfig) -> Path:
    def job(run: Run) -> Job[Batch, CausalLM]:
        model, tokenizer = load(config.model)
        ids = tokenizer.encode(config.sentence)
        stream = Sentence(ids, config.rows)

        def save(model: CausalLM, plan: TrainPlan) -> None:
            save_model(run.folder, model, tokenizer, card="")

        def evaluate(model: CausalLM, step: int) -> dict[str, float]:
            if step == config.stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            [batch] = stream.at(0, model)
            with torch.no_grad():
                loss = next_token_loss(model, batch)
            return {"heldout_loss": float(loss.total) / loss.weight}

        trained = Trained.whole(model.config, len(ids), (0.02, 0.01), "as a toy needs")
        return Job(
            config,
            trained,
            model=lambda: model,
            stream=lambda steps: stream,
            loss=next_token_loss,
            evaluate=evaluate,
            save=save,
            context=len(ids),
            rows_per_epoch=config.rows,
            model_config={},
            evaluates_first=True,
        )

    return run_stage(config, "parrot", {"model": config.model}, job)


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new stage: its module, and one row of the stage table."""
    page = ModuleType("parrot_page")
    page.run, page.ParrotConfig = run, ParrotConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "parrot_page", page)
    row = Stage(
        "parrot",
        "parrot",
        "parrot_page",
        "parrot_page:ParrotConfig",
        makes="model",
        start="model",
        help="Teach a model one sentence by heart.",
        positional="model",
    )
    monkeypatch.setitem(STAGES, "parrot", row)
    monkeypatch.setattr(cli, "app", cli.build_app())


@pytest.fixture
def folder(tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "model", tiny_model(), tokenizer, card="")
    return tmp_path


def check(out: Path) -> None:
    """It learned, its folder is a model's, and it records its stage."""
    lines = [one for one in read_lines(out / "metrics.jsonl") if one["kind"] == "evaluation"]
    losses = [line["heldout_loss"] for line in lines]
    assert losses[-1] < 0.7 * losses[0]
    assert load(out)[0].config.vocab_size == 320
    assert read_run(out)["traits"]["share"] == 0.1


@pytest.mark.usefixtures("parrot")
def test_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "Teach a model one sentence by heart." in capsys.readouterr().out
    words = ["parrot", str(folder / "model"), "--out", str(folder / "out"), *QUICK]
    assert cli.main(words) == 0, capsys.readouterr().err
    check(folder / "out")
    assert cli.main([*words[:-1], "x"]) == 2
    assert "--threads" in capsys.readouterr().err


@pytest.mark.usefixtures("parrot")
def test_from_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = folder / "birds.toml"
    settings = "rows = 2\ncompile = 'off'\nthreads = 1"
    recipe.write_text(f"[parrot]\nfrom = 'model'\nsteps = {STEPS}\n{settings}\n")
    assert cli.main(["run", str(recipe), "--out", str(folder / "runs")]) == 0, (
        capsys.readouterr().err
    )
    check(folder / "runs" / "parrot")


@pytest.mark.usefixtures("parrot")
def test_a_stop_in_the_last_evaluation_ends_a_recipe_when_its_stage_is_finished(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = folder / "birds.toml"
    settings = f"stage = 'parrot'\nsteps = {STEPS}\nrows = 2\ncompile = 'off'\nthreads = 1\n"
    tables = [f"[one]\nfrom = 'model'\nstop_at = {STEPS}\n", "[two]\nfrom = 'one'\n"]
    recipe.write_text("".join(table + settings for table in tables))
    words = ["run", str(recipe), "--out", str(folder / "runs")]
    assert cli.main(words) == 130
    assert "one is finished, and the same command continues" in capsys.readouterr().err
    check(folder / "runs" / "one")
    assert is_finished(folder / "runs" / "one") and not (folder / "runs" / "two").exists()
    assert cli.main(words) == 0, capsys.readouterr().err
    assert is_finished(folder / "runs" / "two")
