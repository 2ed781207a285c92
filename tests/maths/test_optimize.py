"""Methods against their theoretical rates, and landscapes against their known properties."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.arrays import ShapeError
from groundup.maths.derivatives import hessian, value_and_gradient
from groundup.maths.landscapes import (
    BEALE,
    HIMMELBLAU,
    RASTRIGIN,
    ROSENBROCK,
    Landscape,
    plot_trajectories,
    quadratic,
    rosenbrock,
)
from groundup.maths.optimize import (
    GradientDescent,
    HeavyBall,
    LineSearch,
    Nesterov,
    Newton,
    Trajectory,
    minimize,
)
from groundup.maths.tensor import Tensor

TUNED = [GradientDescent, HeavyBall, Nesterov]
FAMOUS = [ROSENBROCK, HIMMELBLAU, BEALE, RASTRIGIN]
ORIGIN = np.zeros(2)
conditions = st.floats(1.5, 200)


# Rates on quadratics.


@given(conditions)
def test_theory_at_the_optimal_settings(kappa: float) -> None:
    spectrum, root = np.array([1.0, kappa]), sqrt(kappa)
    wanted = {
        GradientDescent: (kappa - 1) / (kappa + 1),
        HeavyBall: (root - 1) / (root + 1),
        Nesterov: 1 - 1 / root,
    }
    for kind, rate in wanted.items():
        # Double roots are known to the square root of the rounding only.
        assert kind.tuned(1.0, kappa).contraction(spectrum) == pytest.approx(rate, abs=1e-7)
        assert kind.tuned(3.0, 3 * kappa).contraction(3 * spectrum) == pytest.approx(rate, abs=1e-7)


@given(st.floats(0.01, 1.5), st.floats(0, 0.95), st.lists(st.floats(0.1, 2), min_size=1))
def test_theory_equals_the_spectral_radius(
    rate: float, momentum: float, spectrum: list[float]
) -> None:
    """The error of two successive points is multiplied by a matrix; NumPy computes its
    eigenvalues."""

    def radius(by_now: float, by_before: float) -> float:
        return float(np.abs(np.linalg.eigvals([[by_now, by_before], [1, 0]])).max())

    values = np.array(spectrum)
    ball = max(radius(1 + momentum - rate * v, -momentum) for v in spectrum)
    ahead = max(radius((1 + momentum) * (1 - rate * v), -momentum * (1 - rate * v)) for v in values)
    assert HeavyBall(rate, momentum).contraction(values) == pytest.approx(ball, abs=1e-6)
    assert Nesterov(rate, momentum).contraction(values) == pytest.approx(ahead, abs=1e-6)
    assert HeavyBall(rate, 0.0).contraction(values) == pytest.approx(
        GradientDescent(rate).contraction(values), abs=1e-6
    )


@pytest.mark.parametrize("kind", TUNED)
@pytest.mark.parametrize("kappa", [4.0, 30.0, 100.0])
def test_measured_rates_agree_with_theory(kind: type[GradientDescent], kappa: float) -> None:
    bowl, method = quadratic(kappa), kind.tuned(1.0, kappa)
    steps = 200
    way = minimize(bowl, bowl.start, method, steps=steps, tolerance=0.0)
    theory = method.contraction(np.array([1.0, kappa]))
    # For a double root, errors fall as t r^t: averaged over the last half of the steps, this is an
    # additional factor of 2^(2 / steps).
    assert theory - 1e-6 <= way.contraction(ORIGIN) <= theory * 2 ** (2 / steps) + 1e-6


@given(conditions, st.floats(0.1, 0.99), st.floats(0, 0.9))
@settings(max_examples=6, deadline=None)
def test_measured_rates_agree_with_theory_at_other_settings(
    kappa: float, share: float, momentum: float
) -> None:
    spectrum, bowl = np.array([1.0, kappa]), quadratic(kappa, angle=1.0)
    for method in (GradientDescent(share * 2 / kappa), HeavyBall(share * 2 / kappa, momentum)):
        way = minimize(bowl, bowl.start, method, steps=120, tolerance=0.0)
        assert way.contraction(ORIGIN) == pytest.approx(method.contraction(spectrum), rel=0.06)


def test_too_large_steps_diverge_as_in_theory() -> None:
    bowl, method = quadratic(10.0), GradientDescent(0.21)
    assert method.contraction(np.array([1.0, 10.0])) == pytest.approx(1.1)
    way = minimize(bowl, bowl.start, method, steps=100)
    assert not way.converged
    assert way.contraction(ORIGIN) == pytest.approx(1.1, rel=1e-6)
    way = minimize(bowl, bowl.start, GradientDescent(1e6), steps=1000)
    assert not way.converged and len(way.points) < 60  # it ends where numbers do


@given(conditions, st.floats(0.05, 0.45), st.floats(0.01, 4))
@settings(max_examples=6, deadline=None)
def test_line_search_satisfies_its_bound(kappa: float, sufficient: float, first: float) -> None:
    bowl, method = quadratic(kappa), LineSearch(first, sufficient)
    way = minimize(bowl, bowl.start, method, steps=25, tolerance=0.0)
    bound = method.contraction(np.array([1.0, kappa]))
    assert (way.values[1:] <= bound**2 * way.values[:-1] * (1 + 1e-12)).all()


@given(conditions, st.floats(-pi, pi))
@settings(max_examples=10, deadline=None)
def test_newton_needs_one_step_on_a_quadratic(kappa: float, angle: float) -> None:
    bowl = quadratic(kappa, angle)
    way = minimize(bowl, bowl.start, Newton())
    assert way.converged and len(way.points) == 2
    assert way.contraction(ORIGIN) < 1e-12 and Newton().contraction(np.array([1.0])) == 0.0


# Elsewhere.


@pytest.mark.parametrize("place", FAMOUS, ids=lambda place: place.name)
def test_known_minima_are_minima(place: Landscape) -> None:
    for minimum in place.minima:
        value, gradient = value_and_gradient(place, minimum)
        assert value.item() < 1e-20
        assert np.abs(gradient.data).max() < 1e-10
        assert np.linalg.eigvalsh(hessian(place, minimum).data).min() > 0.1


@pytest.mark.parametrize("place", FAMOUS, ids=lambda place: place.name)
def test_newton_is_quadratic_near_minima(place: Landscape) -> None:
    for minimum in place.minima:
        way = minimize(place, minimum + np.array([0.06, 0.04]), Newton(), tolerance=1e-12)
        assert way.converged
        errors = way.errors(minimum)
        assert (errors[1:] <= 40 * errors[:-1] ** 2 + 1e-14).all()


def test_the_order_of_newton_is_two_or_three() -> None:
    for minimum in HIMMELBLAU.minima:
        way = minimize(HIMMELBLAU, minimum + np.array([0.06, 0.04]), Newton(), tolerance=1e-12)
        assert way.order(minimum) == pytest.approx(2, abs=0.05)
    # A function that is even about its minimum has no cubic term there.
    way = minimize(RASTRIGIN, [0.03, -0.02], Newton(), tolerance=1e-12)
    assert way.order(RASTRIGIN.minima[0]) == pytest.approx(3, abs=0.15)


def test_gradient_descent_is_linear_near_minima() -> None:
    minimum = HIMMELBLAU.minima[0]
    way = minimize(HIMMELBLAU, [3.2, 1.8], GradientDescent(0.01), tolerance=1e-10)
    assert way.order(minimum) == pytest.approx(1, abs=0.01)
    spectrum = np.linalg.eigvalsh(hessian(HIMMELBLAU, minimum).data)
    theory = GradientDescent(0.01).contraction(spectrum)
    assert way.contraction(minimum) == pytest.approx(theory, abs=0.01)


@pytest.mark.parametrize("place", FAMOUS, ids=lambda place: place.name)
def test_searches_always_descend(place: Landscape) -> None:
    for method in (LineSearch(), Newton()):
        way = minimize(place, place.start, method, steps=12)
        assert (np.diff(way.values) <= 1e-12).all()


@pytest.mark.parametrize("place", FAMOUS, ids=lambda place: place.name)
def test_newton_converges(place: Landscape) -> None:
    way = minimize(place, place.start, Newton(), steps=40)
    assert way.converged
    if place is not RASTRIGIN:  # where it stays in the minimum next to the start
        assert np.linalg.norm(place.minima - way.points[-1], axis=1).min() < 1e-7


def test_a_rounded_value_does_not_stop_the_search() -> None:
    """At 1 + x², differences of the value vanish below |x| = 1e-8; the slope is more precise."""
    for method in (LineSearch(), Newton()):
        way = minimize(lambda x: 1 + (x**2 + x**4).sum(), [1.3, -0.4], method, tolerance=1e-12)
        assert way.converged


def test_newton_leaves_saddles_and_maxima_downhill() -> None:
    way = minimize(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4, [1.0, 1e-3], Newton())
    assert way.converged
    assert np.abs(way.points[-1]) == pytest.approx([0.0, sqrt(0.5)], abs=1e-8)
    way = minimize(lambda x: -x.cos().sum(), [3.0, -3.0], Newton(), tolerance=1e-9)
    assert way.converged and way.values[-1] == pytest.approx(-2.0)


def test_newton_descends_a_plane() -> None:
    way = minimize(lambda x: 2 * x.sum(), [1.0, 1.0], Newton(), steps=3)
    assert (np.diff(way.values) < 0).all() and not way.converged


def test_rosenbrock_has_any_number_of_dimensions() -> None:
    way = minimize(rosenbrock, [-1.2, 1.0, 0.5], Newton())
    assert way.points[-1] == pytest.approx(np.ones(3), abs=1e-8)


def test_momentum_beats_gradient_descent_on_a_narrow_valley() -> None:
    bowl = quadratic(30.0)
    steps = [
        len(minimize(bowl, bowl.start, method, tolerance=1e-6).points)
        for method in (*(kind.tuned(1.0, 30.0) for kind in TUNED), Newton())
    ]
    descent, ball, nesterov, newton = steps
    assert descent > 2 * nesterov > 2 * ball > 2 * newton


# Trajectories and rejected input.


def test_a_trajectory_has_every_point_and_slope() -> None:
    way = minimize(BEALE, BEALE.start, LineSearch(), steps=5)
    assert way.points.shape == (6, 2) and not way.converged
    assert way.points[0] == pytest.approx(BEALE.start)
    for x, value, norm in zip(way.points, way.values, way.gradient_norms, strict=True):
        wanted, gradient = value_and_gradient(BEALE, x)
        assert value == wanted.item()
        assert norm == pytest.approx(np.linalg.norm(gradient.data))
    assert way.errors(BEALE.minima[0])[0] == pytest.approx(np.hypot(2.0, 0.5))


def test_starting_at_a_minimum_takes_no_steps() -> None:
    way = minimize(BEALE, [3.0, 0.5], Newton())
    assert way.converged and len(way.points) == 1
    with pytest.raises(ValueError, match="a rate needs a step"):
        way.contraction(BEALE.minima[0])
    with pytest.raises(ValueError, match="an order needs three errors"):
        way.order(BEALE.minima[0])


def test_rejects_bad_starts_and_functions(unchecked_types: None) -> None:
    for start in ([np.nan, 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="must be a list of finite numbers"):
            minimize(BEALE, np.array(start), Newton())
    with pytest.raises(ShapeError, match=r"f gives shape \(2,\)"):
        minimize(lambda x: x * 2, [1.0, 2.0], Newton())
    with pytest.raises(ValueError, match=r"condition=0.5 must be at least 1"):
        quadratic(0.5)


def test_trajectories_are_drawn_over_contours() -> None:
    ways = {
        "gradient descent": minimize(HIMMELBLAU, [0.0, 0.0], GradientDescent(0.01), steps=5),
        "Newton": minimize(HIMMELBLAU, [0.0, 0.0], Newton()),
    }
    figure = plot_trajectories(HIMMELBLAU, ways)
    (axes,) = figure.axes
    assert axes.get_title() == "Himmelblau"
    assert (*axes.get_xlim(), *axes.get_ylim()) == HIMMELBLAU.window
    said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    steps = len(ways["Newton"].points) - 1
    assert said == ["gradient descent: 5 steps, not converged", f"Newton: {steps} steps"]
    drawn = [np.column_stack([line.get_xdata(), line.get_ydata()]) for line in axes.lines]
    assert any(np.array_equal(line, ways["Newton"].points) for line in drawn)


def test_the_window_fits_the_points_by_default() -> None:
    def bowl(x: Tensor) -> Tensor:
        return (x**2).sum(0)

    ways = {"down": minimize(bowl, [3.0, 4.0], GradientDescent(0.1))}
    axes = plot_trajectories(bowl, ways).axes[0]
    assert axes.get_xlim()[0] < 0 and axes.get_xlim()[1] > 3 and axes.get_ylim()[1] > 4
    axes = plot_trajectories(bowl, ways, (-1.0, 2.0, -3.0, 4.0)).axes[0]
    assert axes.get_xlim() == (-1, 2) and axes.get_ylim() == (-3, 4)


def test_only_two_dimensions_are_drawn() -> None:
    space = minimize(rosenbrock, [0.0, 0.0, 0.0], Newton(), steps=1)
    for ways in ({}, {"in space": space}):
        with pytest.raises(ValueError, match="paths in the plane"):
            plot_trajectories(rosenbrock, ways)
    flat = minimize(rosenbrock, [0.0, 0.0], Newton(), steps=1)
    with pytest.raises(ValueError, match=r"gives shape \(\).*sum\(0\)"):
        plot_trajectories(lambda x: (x**2).sum(), {"flat": flat})


def test_the_order_is_estimated_from_the_last_errors() -> None:
    errors = 0.1 ** (1.5 ** np.arange(6))
    points = np.column_stack([errors, np.zeros(6)])
    way = Trajectory(points, errors, errors, True)
    assert way.order(ORIGIN) == pytest.approx(1.5)


def test_constant_errors_have_no_order() -> None:
    way = minimize(lambda x: (x**2).sum(), [1.0], GradientDescent(1.0), steps=5)
    assert way.errors(np.zeros(1)).tolist() == [1] * 6
    with pytest.raises(ValueError, match=r"an order needs errors that change, .* are 1;"):
        way.order(np.zeros(1))
    errors = np.array([4.0, 2.0, 2.0])
    with pytest.raises(ValueError, match="two in a row are 2;"):
        Trajectory(errors[:, None], errors, errors, True).order(np.zeros(1))
