"""The perceptron and the network on two classes of points in the plane that no line separates.

On moons and spirals, their decision boundaries can be plotted as they move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from groundup.experiments.config import PerceptronConfig
from groundup.experiments.learners import NETWORK, PERCEPTRON, Learner, Network, Perceptron
from groundup.maths.intervals import Interval
from groundup.nn.activations import Tanh
from groundup.nn.layers import Linear
from groundup.nn.module import Sequential
from groundup.nn.optim import Adam
from groundup.report.figure import Plot
from groundup.report.outcome import over_seeds
from groundup.report.plots import COLORS, frame_of_picture, panels
from groundup.report.table import Cell, Table, percent, text_table
from groundup.runs.console import counted, say


@dataclass(frozen=True)
class Points:
    """Points in the plane and their classes, alternating between 0 and 1."""

    x: Float[np.ndarray, "n 2"]
    labels: Integer[np.ndarray, " n"]


def two_moons(n: int, rng: np.random.Generator, noise: float = 0.2) -> Points:
    """Draw from two interleaved half circles of radius 1, plus N(0, noise²).

        class 0:  (cos t, sin t)        class 1:  (1 - cos t, 1/2 - sin t),    t from U(0, π)

    With this much noise they overlap a little, so even the best boundary makes some mistakes.
    """
    labels = np.arange(n) % 2
    t = np.pi * rng.random(n)
    upper = np.stack([np.cos(t), np.sin(t)], axis=1)
    lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=1)
    return _noisy(np.where(labels[:, None] == 0, upper, lower), labels, rng, noise)


def two_spirals(n: int, rng: np.random.Generator, noise: float = 0.03) -> Points:
    """Draw from two arms that wind one and a half times around the center, plus N(0, noise²).

        r (cos φ, sin φ) with φ = 3π r, and φ = 3π r + π for class 1,    r² from U(0, 1)

    Source: the two-spirals problem of Lang and Witbrock (1988), "Learning to tell two spirals
    apart", with fewer turns.
    """
    labels = np.arange(n) % 2
    r = np.sqrt(rng.random(n))
    angle = 3 * np.pi * r + np.pi * labels
    arms = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _noisy(arms, labels, rng, noise)


def _noisy(
    x: Float[np.ndarray, "n 2"],
    labels: Integer[np.ndarray, " n"],
    rng: np.random.Generator,
    noise: float,
) -> Points:
    return Points((x + noise * rng.standard_normal(x.shape)).astype(np.float32), labels)


# Training.

TEST_POINTS = 2000
_CLASS_COLORS = COLORS[1], COLORS[0]
_DOUBT = LinearSegmentedColormap.from_list("doubt", (COLORS[1], "white", COLORS[0]))
Window: TypeAlias = tuple[float, float, float, float]
"""(left, right, bottom, top) of the plotted area."""


@dataclass(frozen=True)
class Schedule:
    """The number of points, the length of training, and the resolution of the plots."""

    points: int
    frames: tuple[int, ...]
    """The numbers of passes after which the boundary is recorded; training ends at the last."""
    grid: int
    """Grid points per side of the plotted area."""


@dataclass(frozen=True)
class Trajectory:
    """One model's accuracies and its map of p(class 1), at every frame of training."""

    train: list[float]
    test: list[float]
    maps: list[Float[np.ndarray, "side side"]]


@dataclass(frozen=True)
class Plane:
    """Both models on points of one kind, once for each seed.

    `points` are the first seed's. `window`, which is (left, right, bottom, top), contains them and
    is the area of the maps.
    """

    name: str
    frames: tuple[int, ...]
    points: Points
    window: Window
    models: dict[str, list[Trajectory]]

    def last(self, model: str, part: Literal["train", "test"]) -> Interval:
        """The final accuracy, over the seeds."""
        return over_seeds([getattr(trajectory, part)[-1] for trajectory in self.models[model]])

    def numbers(self) -> dict[str, list[dict[str, list[float]]]]:
        """The accuracies by model, seed and frame."""
        return {
            model: [{"train": trajectory.train, "test": trajectory.test} for trajectory in turns]
            for model, turns in self.models.items()
        }


def watch(
    name: str,
    draw: Callable[[int, np.random.Generator], Points],
    schedule: Schedule,
    config: PerceptronConfig,
) -> Plane:
    """Train both models on new points for each seed, and record them at every frame."""
    say(f"{name}: {schedule.points} points, {counted(config.seeds, 'seed')}")
    generators = [np.random.default_rng([config.seed, turn, 1]) for turn in range(config.seeds)]
    drawn = [draw(schedule.points, rng) for rng in generators]
    window = _window(drawn[0])
    models: dict[str, list[Trajectory]] = {PERCEPTRON: [], NETWORK: []}
    for points, rng in zip(drawn, generators, strict=True):
        test = draw(TEST_POINTS, rng)
        for model, learner in _learners(points, rng).items():
            models[model].append(follow(learner, points, test, schedule, window))
    return Plane(name, schedule.frames, drawn[0], window, models)


def follow(
    learner: Learner, points: Points, test: Points, schedule: Schedule, window: Window
) -> Trajectory:
    """Train a model, and record it at every frame."""
    trajectory, grid = Trajectory([], [], []), _grid(window, schedule.grid)
    for before, after in pairwise((0, *schedule.frames)):
        learner.learn(after - before)
        trajectory.train.append(_accuracy(learner, points))
        trajectory.test.append(_accuracy(learner, test))
        trajectory.maps.append(learner.probabilities(grid)[:, 1].reshape(schedule.grid, -1))
    return trajectory


def _learners(points: Points, rng: np.random.Generator) -> dict[str, Learner]:
    layers = Linear(2, 64, rng=rng), Tanh(), Linear(64, 64, rng=rng), Tanh(), Linear(64, 2, rng=rng)
    model = Sequential(*layers)
    optimizer = Adam(model.parameters(), lr=0.01)
    return {
        PERCEPTRON: Perceptron(points.x, points.labels, 2, rng),
        NETWORK: Network(model, optimizer, points.x, points.labels, rng, batch=40),
    }


def _window(points: Points) -> Window:
    """The area that contains the points, with a margin."""
    (left, bottom), (right, top) = points.x.min(axis=0) - 0.2, points.x.max(axis=0) + 0.2
    return float(left), float(right), float(bottom), float(top)


def _grid(window: Window, side: int) -> Float[np.ndarray, "cells 2"]:
    """A grid of points in the window, row by row from below."""
    left, right, bottom, top = window
    across, up = np.meshgrid(np.linspace(left, right, side), np.linspace(bottom, top, side))
    return np.stack([across.ravel(), up.ravel()], axis=1).astype(np.float32)


def _accuracy(learner: Learner, data: Points) -> float:
    return float((learner.probabilities(data.x).argmax(axis=1) == data.labels).mean())


def plane_table(planes: Sequence[Plane]) -> Table:
    """Accuracy of both models on their training points and on new points."""
    names: tuple[Literal["train", "test"], ...] = ("train", "test")
    parts = [(plane, part) for plane in planes for part in names]
    columns = ["", *(f"{plane.name}, {part}" for plane, part in parts)]
    rows: list[list[str | Cell]] = [["guessing", *("50.0 %" for _ in parts)]]
    for model in (PERCEPTRON, NETWORK):
        rows.append([model, *(percent(plane.last(model, part)) for plane, part in parts)])
    turns = counted(len(planes[0].models[NETWORK]), "seed")
    return text_table(
        "Points in the plane",
        columns,
        rows,
        (
            f"The mean over {turns}, each with its own points and weights, with the minimum and "
            f"maximum. {TEST_POINTS:,} test points.",
        ),
        ("guessing",),
    )


def plane_remark(plane: Plane) -> str:
    """A sentence about the gain of the hidden layers on these points."""
    line, bent = plane.last(PERCEPTRON, "test"), plane.last(NETWORK, "test")
    turns = zip(plane.models[NETWORK], plane.models[PERCEPTRON], strict=True)
    verdict = (
        f"is right more often with every seed, on {100 * bent.estimate:.1f} % of them"
        if all(network.test[-1] > perceptron.test[-1] for network, perceptron in turns)
        else f"is not right more often with every seed ({100 * bent.estimate:.1f} %)"
    )
    return (
        f"On {plane.name} a straight line is right on {100 * line.estimate:.1f} % of new points "
        f"where guessing is right on half; the multi-layer network {verdict}."
    )


def boundary_plot(plane: Plane) -> Plot:
    """Both models' boundaries as they move, one row per model, one column per frame."""
    width, height = 1.9 * len(plane.frames), 4.2
    figure, axes = panels(len(plane.models), len(plane.frames), width=width, height=height)
    for row, (model, (first, *_)) in zip(axes, plane.models.items(), strict=True):
        shown = zip(row, plane.frames, first.test, first.maps, strict=True)
        for frame, passes, accuracy, seen in shown:
            after = "1 pass" if passes == 1 else f"{passes} passes"
            frame.set_title(f"{after}: {100 * accuracy:.0f} %")
            _draw_frame(frame, plane, seen)
        row[0].set_ylabel(model)
    return Plot(
        f"boundary-{plane.name}",
        f"The decision boundary on {plane.name} after each number of passes over the points, with "
        "the accuracy on new points. The color is the predicted class, and is lighter where the "
        "model is less confident; a perceptron is always certain. The first seed.",
        figure,
    )


def _draw_frame(axes: Axes, plane: Plane, seen: Float[np.ndarray, "side side"]) -> None:
    axes.imshow(
        seen, origin="lower", extent=plane.window, cmap=_DOUBT, vmin=0, vmax=1, alpha=0.45,
        aspect="auto", interpolation="bilinear",
    )  # fmt: skip
    for label, color in enumerate(_CLASS_COLORS):
        x, y = plane.points.x[plane.points.labels == label].T
        axes.plot(x, y, ".", color=color, markersize=2.5, rasterized=True)
    left, right, bottom, top = plane.window
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    if seen.min() < 0.5 < seen.max():
        grid = np.linspace(left, right, len(seen)), np.linspace(bottom, top, len(seen))
        axes.contour(*grid, seen, levels=[0.5], colors="black", linewidths=1)
    frame_of_picture(axes)
