"""The law is found again in tables that were made by it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.maths.intervals import student_quantile
from groundup.pretrain.scaling import law as law_page
from groundup.pretrain.scaling.flops import kaplan_flops
from groundup.pretrain.scaling.isoflop import fit_isoflop
from groundup.pretrain.scaling.law import (
    Law,
    LawFit,
    _nearest_start,
    _Table,
    fit_law,
    predicted,
)
from groundup.pretrain.scaling.report import findings, frontier_plot, isoflop_plot, law_table
from groundup.pretrain.scaling.table import Runs

# Besiroglu et al. (2024), table 1.
TRUE = Law(1.817, 482.0, 2085.0, 0.348, 0.366)


def table(noise: float, seed: int = 0, runs: int = 240) -> Runs:
    generator = np.random.default_rng(seed)
    n = 10 ** generator.uniform(7.6, 10.2, runs)
    d = 10 ** generator.uniform(18.5, 21.5, runs) / (6 * n)
    losses = TRUE.loss(n, d) * np.exp(generator.laplace(0, noise, runs))
    return Runs.of(n.tolist(), d.tolist(), losses.tolist())


def grid(noise: float = 0.0, seed: int = 0) -> Runs:
    """Five budgets of nine sizes each, about the best one."""
    generator = np.random.default_rng(seed)
    n, d = [], []
    for flops in np.geomspace(1e18, 1e21, 5):
        best, _ = TRUE.optimum(flops)
        sizes = best * np.geomspace(0.25, 4, 9)
        n += sizes.tolist()
        d += (flops / (6 * sizes)).tolist()
    losses = TRUE.loss(np.array(n), np.array(d)) * np.exp(generator.normal(0, noise, len(n)))
    return Runs.of(n, d, losses.tolist())


def test_without_noise_the_law_is_found_exactly() -> None:
    law = fit_law(table(0.0), bootstraps=0).law
    assert (law.E, law.alpha, law.beta) == pytest.approx((1.817, 0.348, 0.366), rel=1e-3)
    assert pytest.approx([482, 2085], rel=0.02) == [law.A, law.B]


def test_intervals_hold_the_truth_and_shrink_with_the_noise() -> None:
    widths = []
    for noise in (0.002, 0.008):
        fit = fit_law(table(noise), bootstraps=40)
        for name in ("E", "alpha", "beta", "a", "b"):
            found = fit.interval(name)
            # A little room: of five intervals of 95 % one in four misses.
            room = 0.3 * (found.high - found.low)
            assert found.low - room <= getattr(TRUE, name) <= found.high + room, name
        widths.append(fit.interval("alpha").high - fit.interval("alpha").low)
        assert fit.deviation == pytest.approx(noise * 2**0.5, rel=0.25)
    assert widths[0] < widths[1]


def test_the_optimum_is_the_least_loss_of_a_budget() -> None:
    n, d = TRUE.optimum(1e20)
    assert 6 * n * d == pytest.approx(1e20)
    for factor in (0.9, 1.1):
        assert TRUE.loss(n * factor, d / factor) > TRUE.loss(n, d)
    more, _ = TRUE.optimum(1e22)
    assert np.log(more / n) / np.log(100) == pytest.approx(TRUE.a)


def test_where_size_does_not_matter_the_best_model_is_none() -> None:
    assert Law(E=1.0, A=0.0, B=2.0, alpha=0.3, beta=0.3).optimum(1e18) == (0, math.inf)


@pytest.mark.parametrize(
    ("law", "name"),
    [
        (Law(1.8, 0.0, 2085.0, 0.348, 0.366), "size"),
        (Law(1.8, 482.0, 0.0, 0.348, 0.366), "data"),
        (Law(1.8, 482.0, 1e-300, 0.348, 0.366), "data"),
        # What all losses have alike, of a size that does nothing.
        (Law(1.8, 0.1, 2085.0, 1e-9, 0.366), "size"),
    ],
)
def test_what_does_not_matter_is_said_and_no_size_is_best(law: Law, name: str) -> None:
    runs = grid()
    fit = LawFit(law, (law,), runs, np.ones(len(runs), bool), np.zeros(len(runs)))
    said = " ".join(findings(fit, None))
    assert f"{name} does not matter" in said and "the best model has" not in said
    frontier_plot(fit, None)
    # Rows that are drawn anew are fitted from there on.
    assert np.isfinite(_nearest_start(runs, law)).all()
    assert np.isfinite(_Table.of(runs).theta(law)).all()


def test_exponents_may_be_too_flat_to_tell_a_best_size() -> None:
    runs, law = grid(), Law(1.8, 0.1, 1.0, 0.001, 0.001)
    fit = LawFit(law, (law,), runs, np.ones(len(runs), bool), np.zeros(len(runs)))
    assert "The exponents are too flat" in " ".join(findings(fit, None))


def test_runs_far_off_are_left_out_and_do_no_harm() -> None:
    runs = table(0.002, runs=80)
    runs.losses[[3, 17]] *= (1.4, 1.2)
    fit = fit_law(runs, bootstraps=0)
    assert np.flatnonzero(~fit.kept).tolist() == [3, 17]
    assert fit.law.alpha == pytest.approx(TRUE.alpha, abs=0.02)
    # The way of Besiroglu et al.: the highest losses, wherever they lie.
    highest = fit_law(runs, bootstraps=0, highest_left_out=4)
    assert (~highest.kept).sum() == 4
    assert highest.runs.losses[~highest.kept].min() >= highest.runs.losses[highest.kept].max()


def test_a_run_that_was_left_out_is_not_the_largest() -> None:
    runs = table(0.002, runs=80)
    row = int(runs.parameters.argmin())
    for values in (runs.parameters, runs.flops):
        values[row] *= 1e6
    fit = LawFit(TRUE, (TRUE,), runs, np.arange(80) != row, np.zeros(80))
    largest = float(np.delete(runs.flops, row).max())
    said = " ".join(findings(fit, None))
    assert f"At {largest:.2g} FLOPs, the most here, the best model by the law" in said
    assert frontier_plot(fit, None).figure.axes[0].get_xlim()[1] < 100 * largest


def test_small_losses_have_digits_that_tell_something() -> None:
    runs, law = grid(), Law(1.817e-4, 0.0482, 0.2085, 0.348, 0.366)
    runs.losses[:] *= 1e-4
    drawn = tuple(replace(law, E=E) for E in (1.8e-4, 1.83e-4))
    fit = LawFit(law, drawn, runs, np.ones(len(runs), bool), np.zeros(len(runs)))
    said = " ".join(findings(fit, None))
    assert "L = 0.000182 + " in said and "for a loss of 0.0002" in said
    assert law_table(fit, None).lines[0][1] == "0.000182\n0.000180 to 0.000183"


def test_what_runs_are_about_the_law_is_called_their_noise() -> None:
    """Of few runs it is much more than they lie off on average, for the law follows them."""
    fit = fit_law(table(0.01, runs=8), bootstraps=0)
    off = float(np.abs(fit.residuals[fit.kept]).mean())
    assert fit.deviation > 1.5 * off
    assert f"the noise of a run is estimated at {fit.deviation:.1%}" in findings(fit, None)[0]


def test_a_prediction_covers_what_runs_come_to() -> None:
    fit = fit_law(table(0.005), bootstraps=40)
    n, d = TRUE.optimum(1e22)
    found = fit.predicted(n, d)
    assert found.low < TRUE.loss(n, d) < found.high
    assert 0.01 < (found.high - found.low) / found.estimate < 0.1


def test_a_law_keeps_the_range_of_the_runs_that_it_was_fitted_to() -> None:
    runs = grid()
    kept = runs.tokens < runs.tokens.max()
    told = LawFit(TRUE, (), runs, kept, np.zeros(len(runs))).to_json()["range"]
    assert told["parameters"] == [runs.parameters.min(), runs.parameters[kept].max()]
    assert told["tokens"][1] < runs.tokens.max() and sorted(told) == [
        "flops",
        "parameters",
        "tokens",
    ]


def test_a_prediction_knows_that_few_runs_hardly_tell_their_noise() -> None:
    generator, held = np.random.default_rng(0), []
    for seed in range(1_000):
        # Of eight runs, five of them for the numbers of the law.
        deviation = 0.01 * float(np.sqrt(generator.chisquare(3) / 3))
        found = predicted(TRUE, (), deviation, 8, 1e9, 2e10, seed=seed)
        run = TRUE.loss(1e9, 2e10) * np.exp(generator.normal(0, 0.01))
        held.append(found.low < run < found.high)
    assert 0.93 < np.mean(held) < 0.97
    fit = fit_law(table(0.005, runs=8), bootstraps=0)
    found = fit.predicted(1e9, 2e10)
    radius = student_quantile(0.95, 3) * fit.deviation
    assert np.log(found.high / found.low) == pytest.approx(2 * radius, rel=0.15)


def test_too_little_to_tell_five_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is refused does not depend on where the fit starts.
    monkeypatch.setattr(law_page, "_EXPONENTS", (0.25, 0.4))
    with pytest.raises(UserError, match="3 sizes"):
        fit_law(
            Runs.of([1e6, 2e6] * 4, np.geomspace(1e7, 1e8, 8).tolist(), [3.0] * 8), bootstraps=0
        )
    # The same where a run that diverged was the only one of its size.
    n, d = np.repeat([1e6, 1e7, 1e8], [10, 10, 1]), [*np.geomspace(1e8, 1e10, 10)] * 2 + [1e9]
    runs = Runs.of(n.tolist(), d, TRUE.loss(n, np.array(d)).tolist())
    assert fit_law(runs, bootstraps=1).kept.all()
    runs.losses[-1] *= 4
    for highest in (None, 1):
        with pytest.raises(UserError, match=r"20 runs of 2 sizes .*N=1e\+08, .* --drop 0$"):
            fit_law(runs, bootstraps=0, highest_left_out=highest)
    assert fit_law(runs, bootstraps=1, highest_left_out=0).kept.all()


# IsoFLOP.


def test_optima_of_budgets_give_the_same_exponents() -> None:
    found = fit_isoflop(grid(), bootstraps=50)
    assert found is not None and found.a is not None and found.b is not None
    assert found.a.estimate == pytest.approx(TRUE.a, abs=0.01)
    assert found.b.estimate == pytest.approx(TRUE.b, abs=0.01)
    best, tokens = TRUE.optimum(found.budgets[2].flops)
    assert found.budgets[2].parameters == pytest.approx(best, rel=0.1)
    assert found.budgets[2].tokens == pytest.approx(tokens, rel=0.1)
    noisy = fit_isoflop(grid(0.004), bootstraps=50)
    assert noisy is not None and noisy.a is not None
    assert noisy.a.low - 0.02 < TRUE.a < noisy.a.high + 0.02
    assert noisy.a.high - noisy.a.low > 2 * (found.a.high - found.a.low)


def test_a_legend_names_each_budget_by_itself() -> None:
    n, d = [], []
    for flops in (1.1e18, 1.4e18):
        sizes = TRUE.optimum(flops)[0] * np.geomspace(0.25, 4, 9)
        n += sizes.tolist()
        d += (flops / (6 * sizes)).tolist()
    runs = Runs.of(n, d, TRUE.loss(np.array(n), np.array(d)).tolist())
    found = fit_isoflop(runs, bootstraps=10)
    assert found is not None
    fit = LawFit(TRUE, (), runs, np.ones(len(runs), bool), np.zeros(len(runs)))
    [legend] = isoflop_plot(fit, found).figure.legends
    assert [text.get_text() for text in legend.texts] == ["1.1e+18 FLOPs", "1.4e+18 FLOPs"]


def test_a_budget_that_is_best_at_its_edge_has_no_optimum() -> None:
    runs = grid()
    # Of the largest budget only sizes below the best one.
    kept = np.ones(len(runs), bool)
    kept[-4:] = False
    found = fit_isoflop(runs.chosen(kept), bootstraps=10)
    assert found is not None and [one.why for one in found.budgets][:4] == [""] * 4
    assert found.budgets[4].why == "is best at its largest size"
    assert found.a is not None and found.a.estimate == pytest.approx(TRUE.a, abs=0.02)


def test_budgets_of_few_sizes_are_drawn_without_parabolas() -> None:
    runs = grid().chosen(np.arange(45) % 9 < 3)
    found = fit_isoflop(runs, bootstraps=10)
    assert found is not None and {one.why for one in found.budgets} == {"has fewer than 4 sizes"}
    fit = LawFit(TRUE, (), runs, np.ones(len(runs), bool), np.zeros(len(runs)))
    assert not isoflop_plot(fit, found).figure.legends


def test_runs_of_any_compute_have_no_budgets() -> None:
    assert fit_isoflop(table(0.0, runs=200), bootstraps=0) is None


# FLOPs.


@pytest.mark.parametrize("kv_heads", [4, 1])
def test_flops_without_head_and_scores_are_six_for_every_weight_of_the_layers(
    kv_heads: int,
) -> None:
    shape = ModelConfig.of(width=256, depth=4, vocab_size=1_024, context=128, kv_heads=kv_heads)
    attention = 2 * 256 * 256 + 2 * 256 * 64 * kv_heads
    assert kaplan_flops(shape) == 6 * 4 * (attention + 3 * 256 * shape.intermediate_size)
