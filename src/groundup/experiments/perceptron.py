"""What does a hidden layer add? A perceptron and a multi-layer network on the same data.

Rosenblatt's perceptron (1958) draws one straight line and moves it after every mistake. If no line
separates the classes (Minsky and Papert 1969), it never converges. A layer of hidden units between
input and output bends the line, and backpropagation trains it (Rumelhart, Hinton and Williams
1986). Both models (`learners`) are trained on points in the plane (`plane`) and on real images
(`reading`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from groundup.experiments import digits
from groundup.experiments.config import PerceptronConfig
from groundup.experiments.plane import (
    Schedule,
    boundary_plot,
    plane_remark,
    plane_table,
    two_moons,
    two_spirals,
    watch,
)
from groundup.experiments.reading import digit_plots, digit_remarks, digits_table, read
from groundup.report.outcome import working_in, write

NAME = "perceptron"
QUESTION = (
    "What does a hidden layer add? A perceptron, which draws straight lines, and a multi-layer "
    "network learn the same points in the plane, and then the same handwritten digits."
)


@dataclass(frozen=True)
class Plan:
    """The schedule for the points, and the number of passes over the digits."""

    schedule: Schedule
    passes: int


FULL = Plan(Schedule(points=400, frames=(1, 5, 20, 70, 200), grid=200), passes=65)
QUICK = Plan(Schedule(points=200, frames=(1, 3, 10), grid=60), passes=10)


def run(config: PerceptronConfig) -> Path:
    """Train both models on moons, spirals and digits, and write the results.

    Raises `UserError` for a folder with other files, and without the pack digits.
    """
    with working_in(config.out, NAME):
        begun, plan = perf_counter(), QUICK if config.quick else FULL
        data = digits.load(config.seed)
        planes = [
            watch("moons", two_moons, plan.schedule, config),
            watch("spirals", two_spirals, plan.schedule, config),
        ]
        readings = read(data, plan.passes, config)
        return write(
            config,
            NAME,
            QUESTION,
            tables=[plane_table(planes), digits_table(readings, data)],
            plots=[*map(boundary_plot, planes), *digit_plots(readings, data.test)],
            remarks=[*map(plane_remark, planes), *digit_remarks(readings, data.test)],
            data={
                "planes": {plane.name: plane.numbers() for plane in planes},
                "digits": {reading.name: reading.numbers(data.test) for reading in readings},
            },
            seconds=perf_counter() - begun,
        )
