"""What goes wrong without good initial weights? Signals and gradients through a deep network.

Each layer multiplies the variance of its input by fan_in · Var(weight) and by a factor of its
activation. Over twenty layers any factor that is not near 1 is fatal: the signal vanishes or
explodes, and so does the gradient on its way back (see `nn.init`). Nothing is trained here: one
batch makes one forward and one backward pass through an untrained network.

Sources: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural
networks"; He et al. (2015), "Delving deep into rectifiers".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from groundup.experiments.config import InitializationConfig
from groundup.maths.intervals import Interval
from groundup.maths.tensor import Tensor
from groundup.nn import init
from groundup.nn.activations import Activation, ReLU, Tanh
from groundup.nn.init import LayerStatistics, activation_statistics
from groundup.nn.layers import Linear
from groundup.nn.module import Module, Sequential
from groundup.report.figure import Plot
from groundup.report.outcome import over_seeds, working_in, write
from groundup.report.plots import BASELINE, look, panels
from groundup.report.table import Table, text_table
from groundup.runs.console import counted

NAME = "initialization"
QUESTION = (
    "What goes wrong without good initial weights? One batch makes a forward and a backward pass "
    "through a deep, untrained network."
)
LAYERS, WIDTH, ROWS = 20, 256, 256
QUICK_WIDTH = 64
STABLE = 10.0  # a signal that grows or shrinks by less than this factor counts as stable
SATURATED = 0.5  # tanh counts as saturated if more than this share of its outputs is on a flat part


@dataclass(frozen=True)
class Initialization:
    """An initialization: an activation, and the function that fills the weights before it."""

    activation: type[Activation]
    weights: str
    fill: Callable[..., Tensor]

    @property
    def name(self) -> str:
        return f"{self.activation.__name__}, {self.weights}"


INITIALIZATIONS = (
    Initialization(Tanh, "too small", partial(init.normal_, std=0.01)),
    Initialization(Tanh, "too large", partial(init.normal_, std=1.0)),
    Initialization(Tanh, "Xavier", partial(init.xavier_normal_, gain=init.calculate_gain("tanh"))),
    Initialization(ReLU, "too small", partial(init.normal_, std=0.01)),
    Initialization(ReLU, "too large", partial(init.normal_, std=1.0)),
    Initialization(ReLU, "Xavier", init.xavier_normal_),
    Initialization(ReLU, "He", partial(init.kaiming_normal_, nonlinearity="relu")),
)


def run(config: InitializationConfig) -> Path:
    """Measure activations and gradients, layer by layer, for each initialization, and write them.

    Raises `UserError` for a folder with other files.
    """
    with working_in(config.out, NAME):
        begun, width = perf_counter(), QUICK_WIDTH if config.quick else WIDTH
        measured = [
            LayerResults(
                initialization,
                [measure(initialization, width, config, turn) for turn in range(config.seeds)],
            )
            for initialization in INITIALIZATIONS
        ]
        return write(
            config,
            NAME,
            QUESTION,
            tables=[table(measured, width)],
            plots=[plot(measured)],
            remarks=[one.remark() for one in measured],
            data={one.initialization.name: one.numbers() for one in measured},
            seconds=perf_counter() - begun,
        )


def measure(
    initialization: Initialization, width: int, config: InitializationConfig, turn: int
) -> list[LayerStatistics]:
    """Statistics of each activation of a new network on standard normal inputs."""
    rng = np.random.default_rng([config.seed, turn])
    layers: list[Module] = []
    for _ in range(LAYERS):
        # In float64, so that explosions can be followed to the end.
        layer = Linear(width, width, bias=False, rng=rng, dtype=np.float64)
        initialization.fill(layer.weight, rng=rng)
        layers += [layer, initialization.activation()]
    x = Tensor(rng.standard_normal((ROWS, width)), requires_grad=False)
    found = activation_statistics(Sequential(*layers), x, rng)
    return [one for one in found if one.kind == initialization.activation.__name__]


@dataclass(frozen=True)
class LayerResults:
    """The statistics of one initialization, by seed and layer."""

    initialization: Initialization
    seeds: list[list[LayerStatistics]]

    def of(self, what: str, layer: int) -> Interval:
        """One statistic of one layer, over the seeds."""
        return over_seeds([getattr(layers[layer], what) for layers in self.seeds])

    def profile(self, what: str) -> list[float]:
        """The mean of one statistic over the seeds, layer by layer."""
        return [self.of(what, layer).estimate for layer in range(LAYERS)]

    def remark(self) -> str:
        """A sentence about the signal and the gradient."""
        signal = self.of("std", -1).estimate / self.of("std", 0).estimate
        gradient = self.of("gradient_std", 0).estimate / self.of("gradient_std", -1).estimate
        flat = self.of("saturated", -1).estimate
        full = self.initialization.activation is Tanh and flat > SATURATED
        return (
            f"{self.initialization.name}: from layer 1 to layer {LAYERS} the signal "
            f"{_change(signal)}, and on the way back the gradient {_change(gradient)}"
            + (f"; {100 * flat:.0f} % of the last layer's outputs are saturated." if full else ".")
        )

    def numbers(self) -> dict[str, Any]:
        names = ("mean", "std", "gradient_std", "saturated", "dead")
        return {name: self.profile(name) for name in names}


def _change(factor: float) -> str:
    """A factor over all layers, in words."""
    if factor > STABLE:
        return f"grows by a factor of {factor:.1e}"
    return f"shrinks by a factor of {1 / factor:.1e}" if factor < 1 / STABLE else "is stable"


def table(measured: Sequence[LayerResults], width: int) -> Table:
    """The signal at the network's output, and the gradient at its input."""
    rows = tuple(
        (
            one.initialization.name,
            _scientific(one.of("std", 0)),
            _scientific(one.of("std", -1)),
            _scientific(one.of("gradient_std", 0)),
            f"{100 * one.of('saturated', -1).estimate:.0f} %",
            f"{100 * one.of('dead', -1).estimate:.0f} %",
        )
        for one in measured
    )
    return text_table(
        "Through the network and back",
        (
            "activation, weights",
            "std after layer 1",
            f"std after layer {LAYERS}",
            "gradient std at layer 1",
            "flat outputs",
            "dead units",
        ),
        rows,
        (
            f"{LAYERS} layers of width {width}, {ROWS} standard normal inputs. The mean over "
            f"{counted(len(measured[0].seeds), 'seed')}, with the minimum and maximum. The "
            "gradient has standard deviation 1 at the output.",
            "Too small is N(0, 0.01²) and too large N(0, 1). Flat: the share of the last layer's "
            f"outputs where the activation's slope is below {init.FLAT:g}, which for ReLU is half "
            "by design. Dead: the share of its units that are flat for every input.",
        ),
    )


def _scientific(value: Interval) -> str:
    return f"{value.estimate:.1e}\n{value.low:.1e} to {value.high:.1e}"


def plot(measured: Sequence[LayerResults]) -> Plot:
    """The forward signal and the backward gradient, with one column per activation."""
    figure, axes = panels(2, 2, width=9.2, height=6.2)
    parts = (("std", "std of activations"), ("gradient_std", "std of gradients"))
    for row, (what, label) in zip(axes, parts, strict=True):
        row[0].set_ylabel(label)
        for place, activation in zip(row, (Tanh, ReLU), strict=True):
            shown = [one for one in measured if one.initialization.activation is activation]
            for number, one in enumerate(shown):
                style = look(number).both | {"markersize": 3, "label": one.initialization.weights}
                place.plot(range(1, LAYERS + 1), one.profile(what), **style)
            place.axhline(1, **BASELINE)
            place.set_yscale("log")
            place.set_xticks(range(5, LAYERS + 1, 5))
            place.legend(frameon=False)
    for above, below, activation in zip(*axes, (Tanh, ReLU), strict=True):
        above.set_title(activation.__name__)
        below.set_xlabel("layer")
    return Plot(
        "through-the-layers",
        "Above, the signal in the forward pass, from left to right; below, the gradient in the "
        "backward pass, from right to left. The mean over the seeds. The dotted line is 1, where "
        "both begin.",
        figure,
    )
