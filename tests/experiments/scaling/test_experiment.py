"""The scaling law's source has its stated entropy, and the experiment predicts before it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.errors import UserError
from groundup.experiments.config import ScalingLawConfig
from groundup.experiments.scaling import experiment
from groundup.experiments.scaling.experiment import (
    fitted,
    left_out,
    on_plateau,
    past_plateau,
    run,
)
from groundup.experiments.scaling.runs import (
    PER_BUDGET,
    SIZES,
    Trial,
    shape,
    sizes_about,
    tokens_of,
    train,
)
from groundup.experiments.scaling.source import (
    CONTEXT,
    VOCABULARY,
    Source,
    SourceStream,
    batch,
    heldout_loss,
)
from groundup.kernels.library import best_kernels
from groundup.maths.intervals import Interval
from groundup.pretrain.scaling.law import Law
from groundup.pretrain.scaling.report import isoflop_plot
from groundup.report.outcome import check_folder
from groundup.train import faithful
from groundup.train.batch import Batch, Loss
from groundup.train.device import compute_dtype
from pages import assert_self_contained

SOURCE = Source.drawn(0)


def test_its_entropy_equals_that_of_its_output() -> None:
    rows = SOURCE.rows(2_000, np.random.default_rng(1))
    assert rows.shape == (2_000, CONTEXT + 1) and rows.max() < VOCABULARY
    assert SOURCE.nats(rows).mean() == pytest.approx(SOURCE.entropy, abs=0.01)
    # Counted, without the chain's own chances: pairs come as often as it says, at every place.
    for place in (0, 60, CONTEXT - 1):
        pairs = rows[:, place] * VOCABULARY + rows[:, place + 1]
        counts = np.bincount(pairs // VOCABULARY, minlength=VOCABULARY) / len(rows)
        expected = SOURCE.pairs.reshape(VOCABULARY, VOCABULARY).sum(1)
        assert np.abs(counts - expected).max() < 0.015
    # The tokens after the most frequent pair.
    pair = int(SOURCE.pairs.argmax())
    found = np.concatenate([row[2:][row[:-2] * VOCABULARY + row[1:-1] == pair] for row in rows])
    counts = np.bincount(found, minlength=VOCABULARY) / len(found)
    assert np.abs(counts - SOURCE.chances[pair]).max() < 4 / len(found) ** 0.5
    assert Source.drawn(1).entropy != SOURCE.entropy


def test_the_chain_is_constant() -> None:
    table = SOURCE.chances.reshape(VOCABULARY, VOCABULARY, VOCABULARY)
    pairs = SOURCE.pairs.reshape(VOCABULARY, VOCABULARY)
    assert SOURCE.chances.sum(1) == pytest.approx(np.ones(len(SOURCE.chances)))
    assert np.einsum("ab,abc->bc", pairs, table) == pytest.approx(pairs, abs=1e-9)
    # Two tokens tell more than one: an entropy of order one is higher.
    of_one = np.einsum("ab,abc->bc", pairs, table) / pairs.sum(1)[:, None]
    single = -(pairs.sum(1) * (of_one * np.log(of_one)).sum(1)).sum()
    assert single > SOURCE.entropy + 0.1
    assert SOURCE.of_one_token == pytest.approx(single)


def test_a_model_that_knows_the_source_has_its_entropy() -> None:
    def knowing(model: Any, some: Batch) -> Loss:
        rows = np.concatenate([some.input_ids.numpy(), some.targets.numpy()[:, -1:]], 1)
        total = SOURCE.nats(rows).sum() * CONTEXT
        return Loss(torch.tensor(total), float(rows.size - len(rows)), {})

    # Exactly, however few rows are read: what they are harder or easier is taken off.
    found = heldout_loss(None, knowing, SOURCE, 8, 3, torch.device("cpu"))
    assert found == pytest.approx(SOURCE.entropy, abs=1e-6)


def test_it_is_measured_on_the_models_device() -> None:
    places = set[str]()

    def told(model: Any, some: Batch) -> Loss:
        tensors = (one for one in vars(some).values() if isinstance(one, torch.Tensor))
        places.update(one.device.type for one in tensors)
        return Loss(torch.tensor(0.0), 1.0, {})

    heldout_loss(None, told, SOURCE, 40, 3, torch.device("meta"))
    assert places == {"meta"}


def test_its_batches_are_a_function_of_seed_and_step() -> None:
    stream = SourceStream(SOURCE, 4, 2, 0)
    model = torch.nn.Identity()
    one, again, other = stream.at(3, model), stream.at(3, model), stream.at(4, model)
    assert [len(some.input_ids) for some in one] == [2, 2]
    assert torch.equal(one[0].input_ids, again[0].input_ids)
    assert not torch.equal(one[0].input_ids, other[0].input_ids)
    whole = batch(SOURCE.rows(2, np.random.default_rng(0)))
    assert torch.equal(whole.input_ids[:, 1:], whole.targets[:, :-1])


def test_sizes_increase_around_the_best_one() -> None:
    parameters = [shape(one).parameters for one in SIZES]
    assert parameters == sorted(parameters)
    flops = 1e13
    chosen = sizes_about(flops, 10.0)
    assert len(chosen) == PER_BUDGET
    ratios = [tokens_of(one, flops) / shape(one).parameters for one in chosen]
    assert ratios[0] > 10 > ratios[-1]
    assert sizes_about(1e6, 10.0) == list(SIZES[:PER_BUDGET])
    assert sizes_about(1e20, 10.0) == list(SIZES[-PER_BUDGET:])


def budgets_by(law: Law) -> list[Trial]:
    """Four budgets with five sizes each, with the losses of a law."""
    found = []
    for flops in (1e12, 2.5e12, 6.25e12, 15.6e12):
        for size in sizes_about(flops, 12.0):
            n, d = shape(size).parameters, tokens_of(size, flops)
            found.append(Trial(*size, n, 1, d, flops, float(law.loss(n, d)), 1.0))
    return found


def test_an_outlier_is_left_out_of_both_fits_and_reported(tmp_path: Path) -> None:
    trials = budgets_by(Law(1.0, 40.0, 300.0, 0.4, 0.45))
    trials[2] = replace(trials[2], loss=1.3 * trials[2].loss)
    fit, isoflop = fitted(ScalingLawConfig(out=tmp_path, quick=True), trials)
    assert np.flatnonzero(~fit.kept).tolist() == [2] and isoflop is not None
    assert sorted(np.concatenate([one.rows for one in isoflop.budgets])) == list(range(19))
    isoflop_plot(fit, isoflop)
    # The page is headed alike, whether what was said beforehand came true or not.
    table = experiment.tests_table(fit, Interval(2.0, 1.9, 2.1), trials[0], SOURCE)
    assert table.title == "Predictions and results"
    one = trials[2]
    [said] = left_out(fit, trials)
    assert f"1 of 20 runs: {one.depth} x {one.width} of 1e+12 FLOPs (+" in said
    # And what its intervals are not of.
    remarks = experiment.remarks(fit, isoflop, Interval(2.0, 1.9, 2.1), trials[0], SOURCE)
    assert any("of one seed and one source" in one for one in remarks)


def test_runs_that_have_not_begun_to_learn_are_left_out_and_reported(tmp_path: Path) -> None:
    trials = budgets_by(Law(SOURCE.entropy, 40.0, 300.0, 0.7, 0.7))
    law, _ = fitted(ScalingLawConfig(out=tmp_path, quick=True), trials)
    waiting = [0, 4, 8]
    for place in waiting:
        trials[place] = replace(trials[place], loss=SOURCE.of_one_token + 0.02)
    used = past_plateau(trials, SOURCE)
    assert [one for one in trials if one not in used] == [trials[place] for place in waiting]
    fit, _ = fitted(ScalingLawConfig(out=tmp_path, quick=True), used)
    assert fit.law.loss(1e6, 1e7) == pytest.approx(law.law.loss(1e6, 1e7), rel=1e-3)
    # A tenth of the way, and not the loss of one token, is what a run has to go.
    limit = SOURCE.of_one_token - 0.1 * (SOURCE.of_one_token - SOURCE.entropy)
    just = [replace(trials[0], loss=limit + by) for by in (-1e-6, 1e-6)]
    assert past_plateau(just, SOURCE) == just[:1] and just[1].loss < SOURCE.of_one_token
    [said] = on_plateau([trials[0]], len(trials), SOURCE)
    assert f"at or above {limit:.3f}, less than 10% of the way" in said
    assert "leaves out 1 of 20 runs that had not found" in said and "at or above" in said
    assert "2 x 32 of 1e+12" in said
    [said] = on_plateau([trials[0]], len(trials), SOURCE, left_out=False)
    assert f"the law is of all 20 runs, 1 of them at or above {limit:.3f}, less than 10%" in said
    assert "2 x 32 of 1e+12" in said
    assert on_plateau([], 20, SOURCE) == on_plateau([], 20, SOURCE, left_out=False) == []


def test_the_last_run_has_the_recorded_size(tmp_path: Path) -> None:
    config = ScalingLawConfig(out=tmp_path, quick=True)
    fit, _ = fitted(config, budgets_by(Law(1.0, 40.0, 300.0, 0.4, 0.45)))
    size, loss = experiment.prediction(config, fit, 6e13)
    assert size == experiment.best_size(fit, 6e13) and loss.low < loss.estimate < loss.high
    # By another law a larger one would be the best.
    later = replace(fit, law=Law(1.0, 400.0, 30.0, 0.4, 0.45), drawn=())
    assert experiment.best_size(later, 6e13) != size
    assert experiment.prediction(config, later, 6e13) == (size, loss)


@pytest.mark.parametrize("content", ["", '{"size": [2', "{}", '{"size": [2, 64]}'])
def test_a_damaged_prediction_is_restored_or_refused(tmp_path: Path, content: str) -> None:
    config = ScalingLawConfig(out=tmp_path, quick=True)
    fit, _ = fitted(config, budgets_by(Law(1.0, 40.0, 300.0, 0.4, 0.45)))
    found = experiment.prediction(config, fit, 6e13)
    path = tmp_path / "prediction.json"
    path.write_text(content)
    assert experiment.prediction(config, fit, 6e13) == found
    path.write_text(content)
    (tmp_path / ".prediction.json.copy").unlink()
    with pytest.raises(UserError, match=r"restore it, or choose another"):
        experiment.prediction(config, fit, 6e13)


@pytest.mark.parametrize(
    "left",
    [[".plan.json.partial"], [".plan.json.copy", "..plan.json.copy.partial"], [".partial.lock"]],
)
def test_an_experiment_killed_while_it_writes_continues(tmp_path: Path, left: list[str]) -> None:
    for name in (".lock", *left):
        (tmp_path / name).touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / ".partial").mkdir()
    assert check_folder(tmp_path, "scaling law", ("plan.json", "runs"))
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="other files"):
        check_folder(tmp_path, "scaling law", ("plan.json", "runs"))


def test_a_run_without_its_held_out_loss_is_named(tmp_path: Path) -> None:
    config = ScalingLawConfig(out=tmp_path, quick=True, threads=1)
    before = train(config, SOURCE, 0, SIZES[0], 1e7)
    assert train(config, SOURCE, 0, SIZES[0], 1e7).loss == before.loss
    (log,) = tmp_path.rglob("metrics.jsonl")
    for damage in (lambda: log.write_text("{"), log.unlink):
        damage()
        with pytest.raises(UserError, match=rf"no held-out loss.*remove {log.parent}"):
            train(config, SOURCE, 0, SIZES[0], 1e7)


@pytest.mark.skipif(
    best_kernels(compute_dtype()) == "none", reason="there are no kernels for this processor"
)
def test_a_runs_kernels_are_compared_with_the_model_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[object, bool] = {}
    monkeypatch.setattr(faithful, "_results", asked)
    train(ScalingLawConfig(out=tmp_path, quick=True, threads=1), SOURCE, 0, SIZES[2], 1e9)
    assert list(asked.values()) == [True]
    # A run that began with a number of threads continues with it.
    with pytest.raises(UserError, match=r"with --threads 1, not with --threads 2; give --"):
        run(ScalingLawConfig(out=tmp_path, quick=True, threads=2))


@pytest.mark.long
def test_the_experiment_in_miniature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ScalingLawConfig(out=tmp_path / "out", quick=True, threads=1)
    folder = run(config)
    result = json.loads((folder / "result.json").read_text())
    data = result["data"]
    assert len(data["runs"]) >= 15 and len(data["budgets"]) == 4
    assert data["last"]["flops"] == pytest.approx(4 * data["budgets"][2], rel=0.1)
    for one in data["runs"]:
        assert data["entropy"] < one["loss"] < 6
        assert min(abs(one["flops"] / budget - 1) for budget in data["budgets"]) < 0.1
    trials = [Trial(**one) for one in data["runs"]]
    has_waited = len(past_plateau(trials, Source.drawn(config.seed))) < len(trials)
    assert any("the loss of one token" in one for one in result["remarks"]) == has_waited
    # More compute, less loss; and what was said beforehand is near.
    best = [min(o["loss"] for o in data["runs"] if abs(o["flops"] / f - 1) < 0.1)
            for f in data["budgets"][:3]]  # fmt: skip
    assert best[0] > best[1] > best[2] > data["last"]["loss"]
    assert data["last"]["loss"] == pytest.approx(data["predicted"]["estimate"], rel=0.2)
    last = next((folder / "runs").glob("3-*"))
    assert (folder / "prediction.json").stat().st_mtime <= (last / "run.json").stat().st_mtime
    assert_self_contained((folder / "report.html").read_text())
    # Again: every run is found as it was.
    capsys.readouterr()
    run(config)
    assert "steps of" not in capsys.readouterr().out
    again = json.loads((folder / "result.json").read_text())["data"]
    assert [one["loss"] for one in again["runs"]] == [one["loss"] for one in data["runs"]]
    # Nothing is left to compute: the number of threads does not matter.
    run(config.model_copy(update={"threads": 2}))
    assert json.loads((folder / "result.json").read_text())["config"]["threads"] == 1
    with pytest.raises(UserError, match="other minutes, seed or quick"):
        run(config.model_copy(update={"minutes": 3.0}))
