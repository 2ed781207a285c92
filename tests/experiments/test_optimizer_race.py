"""The race of the optimizers: equal starts, selection by validation, and correct remarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from groundup.experiments import digits
from groundup.experiments.config import OptimizerRaceConfig
from groundup.experiments.optimizer_race import (
    GUESSING,
    OPTIMIZERS,
    QUICK,
    Rate,
    Sweep,
    Training,
    course_plot,
    remarks,
    run,
    sweep_plot,
    table,
    trainings,
)
from groundup.report.table import Cell


def trained(validation_loss: float, accuracy: float = 0.9, train_loss: float = 0.5) -> Training:
    correct = np.arange(100) < 100 * accuracy
    return Training(np.full(5, 1.0), train_loss, validation_loss, accuracy, correct, 0.001)


def sweep(name: str = "SGD", **changes: list[float]) -> Sweep:
    """Four rates, of which the third is the best and the second equally good."""
    losses = changes.get("losses", [2.0, 0.4, 0.3, 1.0])
    accuracies = changes.get("accuracies", [0.5, 0.89, 0.9, 0.8])
    pairs = zip((0.01, 0.1, 1.0, 10.0), losses, accuracies, strict=True)
    return Sweep(name, [Rate(rate, [trained(loss, a)] * 2) for rate, loss, a in pairs])


def test_the_best_rate_has_the_highest_validation_accuracy_over_all_seeds() -> None:
    lucky_once = Rate(0.1, [trained(0.1, 0.99), trained(0.1, 0.8)])
    steady = Rate(1.0, [trained(0.4, 0.9), trained(0.4, 0.9)])
    assert Sweep("SGD", [lucky_once, steady]).best is steady


def test_for_equal_accuracies_the_lowest_loss_decides() -> None:
    surer = Rate(0.1, [trained(0.5, 0.9), trained(0.5, 0.8), trained(0.5, 0.7)])
    wiser = Rate(1.0, [trained(0.4, 0.7), trained(0.4, 0.8), trained(0.4, 0.9)])
    assert Sweep("SGD", [surer, wiser]).best is wiser
    assert Sweep("SGD", [wiser, surer]).best is wiser


def test_a_single_good_rate_is_no_range() -> None:
    found = table([sweep(), sweep("Adam", accuracies=[0.9, 0.5, 0.9, 0.8])], QUICK)
    assert [row.cells[4] for row in found.rows[1:]] == [Cell("10 times", "0.1 to 1"), Cell("1")]


def test_good_rates_are_the_range_around_the_best() -> None:
    assert sweep().good == (0.1, 1.0) and not sweep().at_the_edge
    # A good rate beyond a bad one does not belong to the range.
    assert sweep(accuracies=[0.9, 0.5, 0.9, 0.8]).good == (1.0, 1.0)


def test_a_best_rate_at_the_edge_is_reported() -> None:
    at_the_edge = sweep("Adam", losses=[0.1, 0.4, 0.3, 1.0], accuracies=[0.9] * 4)
    assert at_the_edge.at_the_edge
    assert remarks([sweep(), at_the_edge])[-1].endswith("a better rate may exist: Adam.")
    assert "edge" not in " ".join(remarks([sweep()]))


def test_equals_are_not_ranked() -> None:
    first, second = remarks([sweep("SGD"), sweep("Adam")])
    assert "by the spread of the seeds, it is not significantly different from Adam" in first
    assert "no significant difference for this number of images" in second


def test_the_widest_range_of_good_rates_is_reported_if_they_differ() -> None:
    narrow = sweep("Lion", accuracies=[0.5, 0.5, 0.9, 0.8])
    third = remarks([sweep("SGD"), sweep("Adam"), narrow])[2]
    assert "a factor of 10: SGD and Adam. The narrowest covers 1." in third


def test_significant_differences_are_ranked() -> None:
    good = Sweep("Adam", [Rate(0.1, [trained(0.1, 0.95, 0.01), trained(0.1, 0.95, 0.02)])])
    poor = Sweep("SGD", [Rate(0.1, [trained(0.5, 0.5, 0.4), trained(0.5, 0.5, 0.6)])])
    first, second, *_ = remarks([poor, good])
    assert "Adam reaches the lowest" in first and "not significantly" not in first
    assert "+45.0 points" in second and "a significant difference for this number" in second


def test_with_one_seed_nothing_is_significant() -> None:
    good = Sweep("Adam", [Rate(0.1, [trained(0.1, 0.95, 0.01)])])
    poor = Sweep("SGD", [Rate(0.1, [trained(0.5, 0.5, 0.4)])])
    first, *_ = remarks([poor, good])
    assert "loss, 0.0100; with one seed, no difference is significant. SGD" in first


def one_training(name: str, rate: float) -> Training:
    config = OptimizerRaceConfig(out=Path("unused"), seeds=1)
    (only,) = trainings(OPTIMIZERS[name], rate, digits.load(0), QUICK, config)
    return only


def test_all_optimizers_start_from_the_same_weights_and_batches() -> None:
    # With a rate of zero no weight changes, so the losses are those of the batches alone.
    courses = [one_training(name, 0.0).course for name in OPTIMIZERS]
    assert len(np.unique(courses[0])) > 10
    for course in courses[1:]:
        np.testing.assert_array_equal(course, courses[0])


def test_divergence_ranks_last_and_can_be_drawn() -> None:
    exploded = one_training("SGD", 1e12)
    assert np.isinf(exploded.course[-1]) and np.isinf(exploded.validation_loss)
    both = [Sweep("SGD", [Rate(0.1, [trained(0.3)]), Rate(1e12, [exploded])])]
    assert both[0].best.rate == 0.1
    sweep_plot(both)
    course_plot([Sweep("SGD", [Rate(1e12, [exploded])])])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("race")
    run(OptimizerRaceConfig(out=folder, quick=True, seeds=1))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    assert all((folder / file).stat().st_size for file in found["files"])
    return found


def test_all_optimizers_run_and_learn(outcome: dict[str, Any]) -> None:
    assert outcome["data"].keys() == OPTIMIZERS.keys()
    for name, numbers in outcome["data"].items():
        assert numbers["test_accuracy"]["low"] > 0.1, name
        assert numbers["rates"][f"{numbers['best_rate']:.2g}"]["train_loss"][0] < GUESSING
    assert [row[0] for row in outcome["tables"][0]["rows"]] == ["guessing", *OPTIMIZERS]


def test_the_same_seed_gives_the_same_numbers(outcome: dict[str, Any]) -> None:
    numbers = outcome["data"]["Adam"]
    again = one_training("Adam", numbers["best_rate"])
    assert numbers["course"] == [again.course.tolist()]
    assert numbers["test_accuracy"]["estimate"] == again.correct.mean()


def falling(name: str) -> Sweep:
    """A loss that falls throughout, like a curve on a logarithmic axis."""
    course = 2 * np.exp(-np.arange(200) / 40)
    one = Training(course, float(course[-1]), 0.3, 0.9, np.ones(100), 0.001)
    return Sweep(name, [Rate(rate, [one] * 2) for rate in (0.01, 0.1, 1.0)])


def test_a_curve_has_no_lag_and_is_distinguishable_without_color() -> None:
    sweeps = [falling(name) for name in OPTIMIZERS]
    for plot in (course_plot(sweeps), sweep_plot(sweeps)):
        [axes] = plot.figure.axes
        lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert len(lines) == len(OPTIMIZERS)
        looks = {(line.get_marker(), to_hex(line.get_markerfacecolor())) for line in lines}
        assert len({(mark, face == "#ffffff") for mark, face in looks}) == len(OPTIMIZERS)
    for line in course_plot(sweeps).figure.axes[0].lines[: len(OPTIMIZERS)]:
        shown = np.asarray(line.get_ydata())
        assert np.abs(np.log(shown / sweeps[0].best.trainings[0].course))[10:-10].max() < 0.02
