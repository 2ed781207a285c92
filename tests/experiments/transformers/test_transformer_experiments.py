"""The experiments in miniature, their cells, and their measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from conftest import forget_finished
from groundup.app.stages import EXPERIMENTS
from groundup.errors import UserError
from groundup.experiments.transformers import attention_cost, copying, induction, recall
from groundup.experiments.transformers.cells import Cell, History, trained, trainings
from groundup.experiments.transformers.config import CopyingConfig, InductionConfig, RecallConfig
from groundup.experiments.transformers.induction import scores
from groundup.experiments.transformers.language import losses, non_overlapping, sliding, windows
from groundup.experiments.transformers.models import Architecture, attention_only, transformer
from groundup.experiments.transformers.optimizers import Tuned, reached, sooner
from groundup.experiments.transformers.tasks import (
    END,
    TEST_SEED,
    Recall,
    Repetition,
    TaskStream,
)
from groundup.lm.model import CausalLM
from pages import assert_self_contained


def tiny(vocab_size: int = 64, context: int = 48) -> Architecture:
    return attention_only(width=16, depth=2, heads=2, vocab_size=vocab_size, context=context)


def test_a_cell_is_trained_once(tmp_path: Path) -> None:
    config = RecallConfig(out=tmp_path, threads=1)
    task, asked = Recall(64, (1, 2)), list[int]()

    def measure(model: CausalLM, step: int) -> dict[str, Any]:
        asked.append(step)
        return {"step_again": step}

    cell = Cell("one", tiny(), TaskStream(task, 4, 0), 0, 6, 4, 6, 0.01, measure, evaluations=3)
    history = trained(config, cell)
    assert asked == [2, 4, 6] and [line["step"] for line in history.measured] == asked
    assert history.end["step_again"] == 6 and len(history.steps) == 6
    assert trained(config, cell) == history and asked == [2, 4, 6]
    # Its measures make their rows on the CPU, whatever else this machine has.
    said = json.loads((tmp_path / "cells" / "one" / "run.json").read_text())
    assert said["config"]["device"] == "cpu"


def test_scores_of_heads_are_mean_attention_weights() -> None:
    task = Repetition(vocab_size=64, shortest=4, longest=9, context=24)
    batch, lengths = task.parts(np.random.default_rng(0), 3)
    model = tiny()(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "o_proj" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    previous, found, maps = scores(model, batch, lengths.tolist())
    assert np.shape(maps) == (2, 2, 24, 24)
    # The first row alone, place by place.
    length, pattern = int(lengths[0]), np.array(maps)
    by_hand = np.mean([pattern[..., t, t - 1] for t in range(1, 24)], axis=0)
    again = np.mean([pattern[..., t, t - length + 1] for t in range(length, 2 * length)], axis=0)
    alone = scores(model, batch_row(batch, 0), [length])
    assert alone[0] == pytest.approx(by_hand, abs=2e-3)
    assert alone[1] == pytest.approx(again, abs=2e-3)
    assert previous.shape == found.shape == (2, 2)


def batch_row(batch: Any, row: int) -> Any:
    parts = (getattr(batch, name)[row : row + 1] for name in batch.__dataclass_fields__)
    return type(batch)(*parts)


def test_windows_score_the_same_tokens_for_every_length() -> None:
    tokens = np.arange(200) % 50
    for context in (16, 32, 64):
        starts = sliding(tokens, context, 150, 4, 64)
        scored = [start + context - 3 + n for start in starts for n in range(4)]
        assert scored == list(range(61, 61 + len(scored))) and len(scored) == 88
        whole = non_overlapping(tokens, context, 128)
        assert len(whole) * context == 128
    model = Architecture(transformer(width=16, depth=1, heads=2, vocab_size=64, context=64))(0)
    found = losses(model, tokens, np.array([3, 90]), 32)
    logits = model.logits(windows(tokens, np.array([90]), 32))
    assert found[1, 5] == pytest.approx(
        -float(logits[0, 5].log_softmax(-1)[tokens[96]].detach()), abs=1e-5
    )


def test_the_step_at_which_a_curve_reaches_a_loss() -> None:
    measured = [{"step": 0, "loss": 4.0}, {"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}]
    history = History(measured, [])
    assert reached(history, 3.0) == 5.0 and reached(history, 1.5) == 15.0
    assert reached(history, 0.5) == float("inf")


def test_a_lead_is_reported_only_up_to_the_last_evaluation() -> None:
    def tuned(name: Literal["adamw", "muon"], ends: tuple[float, ...]) -> Tuned:
        histories = [
            History([{"step": 0, "loss": 4.0}, {"step": 10, "loss": end}], [{"seconds": 0.1}])
            for end in ends
        ]
        return Tuned(name, {0.01: 1.0}, histories)

    # Muon ends lower in the mean; with the second seed AdamW does, and reaches Muon's loss.
    said = sooner(tuned("adamw", (3.0, 1.9)), tuned("muon", (1.0, 2.0)))
    assert (
        said == "Muon ends lower on average, but does not reach AdamW's final loss with every seed."
    )

    # Of one seed, whoever is ahead.
    alone = [
        Tuned(one.name, one.tried, one.histories[:1])
        for one in (tuned("adamw", (3.0, 1.9)), tuned("muon", (1.0, 2.0)))
    ]
    assert sooner(*alone).startswith("One seed allows no conclusion")

    # Muon has AdamW's last losses after half, all and three quarters of its steps.
    adamw = tuned("adamw", (3.0, 2.0, 2.5))
    said = sooner(adamw, tuned("muon", (2.0, 2.0, 2.0)))
    assert said == (
        "Muon ends lower on average, but the difference of the final losses is not significant, so "
        "it is open which of the two is sooner."
    )
    # Lower by 0.2 to 0.3 with every seed, after shares of 10/12, 4/10 and 20/22.5 of the steps.
    muon = tuned("muon", (2.8, 3.5, 1.75))
    slow = [History(one.measured, [{"seconds": 0.2}]) for one in muon.histories]
    said = sooner(tuned("adamw", (3.0, 3.8, 2.0)), Tuned("muon", muon.tried, slow))
    assert "after 71% of its steps (4% to 100%)" in said
    assert "2.00 times as long here, 141% of its time (8% to 274%)." in said


def test_equally_many_heads_of_both_kinds_are_ablated() -> None:
    # Three of four look at the token before by the usual rule: two of them are compared with two.
    most, least = induction.halves(np.array([0.55, 0.47, 0.6, 0.39]))
    assert (most, least) == ([(0, 0), (0, 2)], [(0, 1), (0, 3)])
    # An odd one in the middle is left alone, and of equal ones no head is in both.
    assert induction.halves(np.array([0.1, 0.9, 0.5])) == ([(0, 1)], [(0, 0)])
    assert induction.halves(np.full(4, 0.5)) == ([(0, 0), (0, 1)], [(0, 2), (0, 3)])


def test_losses_without_heads_are_those_with_them_ablated() -> None:
    model = attention_only(width=32, depth=2, heads=4, vocab_size=128, context=96)(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "o_proj" in name:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    found = induction.measured(model, last=True)
    previous = np.array(found["previous_token"][0])
    most, least = found["without_previous"], found["without_other"]
    assert sorted(most["heads"] + least["heads"]) == [0, 1, 2, 3] and len(most["heads"]) == 2
    assert previous[most["heads"]].min() >= previous[least["heads"]].max()
    batch, _ = induction.TASK.parts(np.random.default_rng(TEST_SEED), 48)
    for one in (most, least):
        heads = [(0, head) for head in one["heads"]]
        assert one["loss"] == pytest.approx(induction.loss(model, batch, heads))
    assert len({found["loss"], most["loss"], least["loss"]}) == 3


def ablated(most: Sequence[float], least: Sequence[float]) -> dict[int, list[History]]:
    """One layer at 4.2 nats and two at 0.1, with losses of each seed without either half."""

    def history(loss: float, **without: Any) -> History:
        end = {"loss": loss, "previous_token": [[0.6]], "induction": [[0.9]], **without}
        return History([end], [])

    return {
        1: [history(4.2 + n / 100) for n in range(len(most))],
        2: [
            history(
                0.1,
                heads_before=3,
                without_previous={"loss": a, "induction": 0.3},
                without_other={"loss": b, "induction": 0.8},
            )
            for a, b in zip(most, least, strict=True)
        ],
    }


def test_previous_token_heads_are_compared_with_equally_many_others() -> None:
    def marks(most: Sequence[float], least: Sequence[float]) -> list[str]:
        return [one.mark for one in induction.tested(ablated(most, least))]

    # More than with all heads, less than one layer loses, and more than without the others.
    assert marks([3.0, 3.1, 2.9], [0.2, 0.3, 0.2]) == ["yes", "yes", "no", "yes", "yes"]
    # Without the others as much, or more.
    assert marks([3.0, 3.1, 2.9], [2.9, 3.2, 2.8])[-1] == "open"
    assert marks([3.0, 3.1, 2.9], [6.0, 6.2, 5.9])[-1] == "no"
    # Worse than one layer, or nobody knows.
    assert marks([8.0, 8.1, 7.9], [0.2, 0.3, 0.2])[2] == "yes"
    assert marks([2.0, 8.1, 3.0], [0.2, 0.3, 0.2])[2] == "open"


def test_losses_of_ablations_are_next_to_one_layer_and_chance() -> None:
    table = induction.ablations(ablated([9.3, 9.4, 9.2], [0.2, 0.3, 0.2]))
    losses = {row.title: row.cells[0].value for row in table.rows if row.cells[0]}
    assert list(losses.values()) == ["0.100", "9.300", "0.233", "4.210", "4.852"]
    assert list(losses)[3:] == ["one layer", "guessing"]
    assert "3, 3, 3 heads by seed" in table.remarks[0]


def test_the_induction_test_is_not_in_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor] = []
    real = induction.scores

    def seen(model: CausalLM, batch: Any, *more: Any) -> Any:
        asked.append(batch.input_ids)
        return real(model, batch, *more)

    monkeypatch.setattr(induction, "scores", seen)
    induction.measured(tiny(vocab_size=128, context=96)(0), last=False)
    first = TaskStream(induction.TASK, 16, 0).at(0, torch.nn.Identity())[0].input_ids
    [tested] = asked
    assert len(first) == 16 and not any((row == tested).all(1).any() for row in first)
    blocks = {tuple(row[at : at + 6].tolist()) for row in first for at in range(90)}
    found = [tuple(row[at : at + 6].tolist()) in blocks for row in tested for at in range(90)]
    assert not any(found)


def test_the_miniature_has_one_seed_and_says_so(tmp_path: Path) -> None:
    assert CopyingConfig(out=tmp_path).all_seeds == [0, 1, 2]
    quick = CopyingConfig(out=tmp_path, quick=True, seed=5)
    assert (quick.seeds, quick.all_seeds) == (1, [5])
    assert CopyingConfig(out=tmp_path, quick=True, seeds=3).seeds == 1


def test_copying_reports_the_number_of_tested_strings() -> None:
    end = {str(n): 0.5 for n in copying.LENGTHS}
    found = {"RoPE": [History([{"letters": end, "strings": end}], [])]}
    [remark] = copying.table(found, "letters", 10).remarks
    assert "tested on 10 strings" in remark and "Student" not in remark


def test_the_end_of_a_string_is_not_a_letter() -> None:
    """Always predicting the end gets no letter right, and never predicting it no whole string."""

    def says(token: int, length: int) -> tuple[float, float]:
        model = Architecture(transformer(width=16, depth=1, heads=2, vocab_size=64, context=33))(0)
        with torch.no_grad():
            # All tokens point the same way, and `token` the furthest, so that it is always said.
            embeddings = model.model.embed_tokens.weight.zero_()
            embeddings[:, 0] = 1
            embeddings[token, 0] = 2
        found = copying.measured(model, 0, rows=200, lengths=(length,))
        return found["letters"][str(length)], found["strings"][str(length)]

    assert [says(END, length) for length in (1, 4, 16)] == [(0.0, 0.0)] * 3
    # A letter is the right one now and then, and of strings of one letter they would be whole.
    letters, strings = says(2, 1)
    assert 0 < letters < 0.1 and strings == 0


def test_recall_splits_a_name_from_its_number() -> None:
    end = {"accuracy": {str(n): 1.0 if n < 4 else 0.0 for n in recall.TASK.pairs}}
    found = [
        recall.ModelKind(name, make, [History([end], [])])
        for name, make in recall.architectures().items()
    ]
    [said] = recall.remarks(found, [])
    assert said.startswith("The most pairs of which 90% are answered")
    assert "attention 32: 2; LSTM 32: 2; " in said


def test_the_legend_of_the_cost_of_attention_covers_no_points() -> None:
    found = {name: [History([{"loss": 4.0}], [])] for name in attention_cost.architectures(512)}
    figure = attention_cost.plot(found, 512).figure
    figure.draw_without_rendering()
    [legend], [axes] = figure.legends, figure.axes
    assert axes.get_legend() is None
    frame = legend.get_window_extent()
    assert frame.y1 < axes.get_window_extent().y0
    assert 0 <= frame.x0 < frame.x1 <= figure.bbox.width


def check(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert found["experiment"] == name and found["claims"] and found["remarks"]
    assert_self_contained((out / "report.html").read_text(encoding="utf-8"))
    return found


def test_induction_in_miniature(tmp_path: Path) -> None:
    config = InductionConfig(out=tmp_path / "out", quick=True, threads=1)
    out = induction.run(config)
    found = check(out, "induction")
    assert found["data"]["1 layers"][0][-1]["loss"] < 5.5
    assert found["config"]["seeds"] == len(found["data"]["1 layers"]) == 1
    # Finished, it is left alone; of other settings it is refused.
    before = (out / "result.json").stat().st_mtime_ns
    assert induction.run(config) == out and (out / "result.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="steps"):
        induction.run(config.model_copy(update={"steps": 7}))


def test_a_stopped_experiment_resumes_with_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = InductionConfig(out=tmp_path / "out", quick=True, threads=1)
    real = induction._cell

    def stops(config: InductionConfig, depth: int, seed: int) -> Cell:
        if depth == 2:
            raise KeyboardInterrupt
        return real(config, depth, seed)

    monkeypatch.setattr(induction, "_cell", stops)
    with pytest.raises(KeyboardInterrupt):
        induction.run(config)
    first = tmp_path / "out" / "cells" / "layers-1-0" / "metrics.jsonl"
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(induction, "_cell", real)
    assert check(induction.run(config), "induction")["seconds"] is None
    assert first.stat().st_mtime_ns == before


def test_training_settings_are_shown_and_saved(tmp_path: Path) -> None:
    config = RecallConfig(out=tmp_path, steps=1_500, attention_steps=600)
    cells = {name: recall._cell(config, name, 0) for name in recall.architectures()}
    said = trainings(cells)
    assert said.startswith(
        "Trained by AdamW at 0.003 for 600 steps: attention 32; Muon at 0.02 for 1,500 steps: "
        "LSTM 32, LSTM 64, LSTM 128, GRU 32, "
    )
    assert "fixed" in said
    kept = cells["GRU 64"].training
    assert kept.pop("rate_choice") == "fixed"
    assert kept == {"optimizer": "muon", "rate": 0.02, "embedding_rate": 0.01, "steps": 1_500}


@pytest.mark.long
@pytest.mark.parametrize("name", ["recall", "copying"])
def test_pages_with_two_optimizers_say_which_trained_what(name: str, tmp_path: Path) -> None:
    stage = EXPERIMENTS[name]
    out = stage.run(stage.config(out=tmp_path / "out", quick=True, threads=1))
    found = check(out, name)
    [said] = [one for one in found["remarks"] if one.startswith("Trained by")]
    assert "AdamW at 0.003 for 20 steps" in said and "Muon at 0.02 for 20 steps" in said
    data = found["data"].get("training", found["data"])
    assert {one["optimizer"] for one in data.values()} == {"adamw", "muon"}
    assert {one["steps"] for one in data.values()} == {20}


@pytest.mark.long
@pytest.mark.parametrize("name", ["recall", "copying", "positions", "optimizers"])
def test_the_others_in_miniature(name: str, tmp_path: Path) -> None:
    stage = EXPERIMENTS[name]
    out = stage.run(stage.config(out=tmp_path / "out", quick=True, threads=1))
    check(out, name)


@pytest.mark.long
def test_attention_cost_in_miniature_keeps_its_threads_after_a_resume(
    tmp_path: Path,
) -> None:
    stage, before = EXPERIMENTS["attention-cost"], torch.get_num_threads()
    config = stage.config(out=tmp_path / "out", quick=True, threads=1)
    check(stage.run(config), "attention-cost")
    forget_finished(tmp_path / "out")
    try:
        torch.set_num_threads(2)
        check(stage.run(config), "attention-cost")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.long
def test_attention_learns_recall(tmp_path: Path) -> None:
    """The experiment's own cell: every pair of sixteen is answered."""
    config = RecallConfig(out=tmp_path, threads=1)
    history = trained(config, recall._cell(config, recall.ATTENTION, 0))
    assert history.end["accuracy"]["16"] > 0.99
