"""Six ideas of steps 1 and 2 as animated pages whose numbers the product computes.

A page is self-contained HTML with sliders and pictures. `data` names the drawing of
report/moving.js that it uses (`kind`), its `sliders`, and the data to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.learn.exercise import Exercise
from groundup.learn.road import find
from groundup.maths import Tensor, animate, linalg
from groundup.maths.optimize import GradientDescent, HeavyBall, minimize
from groundup.nn import Adam, Linear, Sequential, Tanh, binary_cross_entropy_with_logits
from groundup.report.page import script_page


def moving(exercise: Exercise) -> str:
    """The page of an exercise, as HTML; `UserError` if it has none."""
    if exercise.name not in PAGES:
        known = ", ".join(str(find(name)) for name in PAGES)
        raise UserError(f"{exercise} has no moving page; these have one: {known}")
    return PAGES[exercise.name]()


def _chain_rule() -> str:
    x, w = Tensor(3.0), Tensor(2.0)
    u = x * w
    y = u * u + x
    return str(animate(y, names={"x": x, "w": w, "u": u, "y": y}))


def _gradient_descent() -> str:
    curvatures, start, steps, momentum = np.array([1.0, 8.0]), [-3.0, 1.2], 40, 0.7
    rates = np.round(np.arange(0.01, 0.2651, 0.005), 3)

    def valley(x: Tensor) -> Tensor:
        return (x * x * curvatures).sum() / 2

    def walk(method: Any) -> list[list[float]]:
        points = minimize(valley, start, method, steps=steps, tolerance=-1.0).points
        found: list[list[float]] = np.clip(points, -1e3, 1e3).round(4).tolist()
        return found + [found[-1]] * (steps + 1 - len(found))

    data = {
        "kind": "gradient_descent",
        "sliders": [
            _slider("rate", "step size η", len(rates) - 1, 18, labels=[f"{r:.3f}" for r in rates]),
            _slider("step", "steps", steps, steps, plays=True),
            _slider("momentum", "momentum", 1, 0, labels=["none", str(momentum)]),
        ],
        "curvatures": [1, 8],
        "rates": rates.tolist(),
        "momentum": momentum,
        "steps": steps,
        "window": {"left": -3.6, "right": 3.6, "bottom": -2.9, "top": 2.9},
        "walks": [
            [walk(GradientDescent(rate)) for rate in rates.tolist()],
            [walk(HeavyBall(rate, momentum)) for rate in rates.tolist()],
        ],
    }
    return _page(
        "Gradient descent in a valley",
        "f(x, y) = ½ (x² + 8 y²): a valley, eight times as steep across as along. Change the "
        "step size and watch the walk.",
        data,
        (
            "Find the largest step size that still converges. What is 2 / 8?",
            "Find the one that converges fastest. Compare with 2 / (1 + 8).",
            "Turn momentum on at a small step size, and at a large one.",
        ),
    )


def _layer() -> str:
    rng = np.random.default_rng(1)
    labels = (np.arange(120) % 2).astype(np.float32)
    t = np.pi * rng.uniform(-0.05, 1.05, size=120)
    arch = 1.5 * np.stack([np.cos(t), np.sin(t)], axis=1) + 0.12 * rng.normal(size=(120, 2))
    heap = np.array([0.0, 0.1]) + np.array([0.35, 0.3]) * rng.normal(size=(120, 2))
    x = np.where(labels[:, None] == 0, arch, heap) - np.array([0.0, 0.5])
    x = x.astype(np.float32)
    hidden, out = Linear(2, 2, rng=0), Linear(2, 1, rng=1)
    model = Sequential(hidden, Tanh(), out)
    optimizer = Adam(model.parameters(), lr=0.03)
    at = [0, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 400]
    snapshots = []
    for step in range(max(at) + 1):
        logits = model(Tensor(x, requires_grad=False)).reshape(-1)
        loss = binary_cross_entropy_with_logits(logits, Tensor(labels, requires_grad=False))
        if step in at:
            assert hidden.bias is not None and out.bias is not None
            snapshots.append(
                {
                    "W": _rounded(hidden.weight.data),
                    "b": _rounded(hidden.bias.data),
                    "v": _rounded(out.weight.data[0]),
                    "c": float(out.bias.data[0]),
                    "loss": loss.item(),
                    "right": float(((logits.data > 0) == (labels > 0.5)).mean()),
                }
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    data = {
        "kind": "layer",
        "sliders": [
            _slider("step", "training", len(at) - 1, len(at) - 1, labels=list(map(str, at)))
            | {"plays": True, "pause": 250},
            {"name": "bend", "label": "bend", "min": 0, "max": 1, "step": 0.02, "value": 1},
        ],
        "steps": at,
        "points": np.column_stack([x.round(3), labels]).tolist(),
        "snapshots": snapshots,
    }
    return _page(
        "A layer bends the plane",
        "A heap under an arch: no straight line separates them. A hidden layer of two neurons "
        "rotates, stretches and shifts the plane and bends it with tanh; then one straight line, "
        "that of the last neuron, is enough. A network of step 2 learned the weights.",
        data,
        (
            "Play the training. When does the line first separate the two, and why does the loss "
            "keep falling after that?",
            "Move the bend to 0.5: only W x + b. Could a straight line separate them there?",
        ),
    )


def _softmax() -> str:
    temperatures = [float(10 ** (power / 20)) for power in range(-20, 21)]
    labels = [f"{temperature:.2f}" for temperature in temperatures]
    data = {
        "kind": "likelihood",
        "sliders": [
            _slider("first", "logit of “sea”", 8, 2, least=-4, step=0.1),
            _slider("temperature", "temperature", 40, 20, labels=labels, plays=True),
        ],
        "temperatures": temperatures,
        "tokens": ["sea", "sky", "land", "soup", "xylo"],
        "logits": [2.0, 1.5, 0.5, -1.0, -3.0],
    }
    return _page(
        "Softmax and its temperature",
        "A model gives every token a logit; the temperature divides the logits, and the softmax "
        "turns them into probabilities.",
        data,
        (
            "At which temperature do all five become equally likely? At which does one dominate?",
            "Raise the logit of sea by 1: by which factor do its odds against sky change?",
            "What is the loss if the most likely token comes? And if the least likely one comes?",
        ),
    )


def _svd() -> str:
    picture = _picture(48)
    u, s, vt = linalg.svd(picture)
    data = {
        "kind": "low_rank",
        "sliders": [_slider("rank", "rank", 48, 3, least=1, plays=True) | {"pause": 180}],
        "u": _rounded(u),
        "s": _rounded(s),
        "vt": _rounded(vt),
    }
    return _page(
        "A picture as a sum of simple ones",
        "48 × 48 gray values form a matrix. Its singular value decomposition is a sum of terms of "
        "rank 1, the largest first; the picture shows the sum of the first few.",
        data,
        (
            "From which rank on can you recognize the picture? How many numbers is that?",
            "Which parts come last: edges along the axes, or slanted and round ones? Why?",
        ),
    )


def _overfitting() -> str:
    rng = np.random.default_rng(3)
    grid = np.linspace(-1, 1, 161)

    def truth(x: np.ndarray) -> np.ndarray:
        y: np.ndarray = np.sin(3.5 * x) + 0.3 * x
        return y

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.sort(rng.uniform(-1, 1, size=n))
        return x, truth(x) + 0.3 * rng.normal(size=n)

    x, y = drawn(16)
    new_x, new_y = drawn(60)
    degrees, penalties = range(16), (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

    def fit(degree: int, penalty: float) -> dict[str, Any]:
        def basis(at: np.ndarray) -> np.ndarray:
            return np.polynomial.chebyshev.chebvander(at, degree)

        # A penalty λ |w|² equals additional rows √λ w = 0.
        rows = np.vstack([basis(x), np.sqrt(penalty) * np.eye(degree + 1)])
        weights = linalg.lstsq(rows, np.concatenate([y, np.zeros(degree + 1)]))
        return {
            "curve": np.clip(basis(grid) @ weights, -99, 99).round(3).tolist(),
            "train": float(((basis(x) @ weights - y) ** 2).mean()),
            "heldout": float(((basis(new_x) @ weights - new_y) ** 2).mean()),
        }

    data = {
        "kind": "regularization",
        "sliders": [
            _slider("degree", "degree", 15, 3, plays=True) | {"pause": 500},
            _slider("penalty", "weight decay λ", 5, 0, labels=[f"{p:g}" for p in penalties]),
        ],
        "x": grid.round(4).tolist(),
        "truth": truth(grid).round(4).tolist(),
        "train": np.column_stack([x, y]).round(4).tolist(),
        "heldout": np.column_stack([new_x, new_y]).round(4).tolist(),
        "fits": [[fit(degree, penalty) for degree in degrees] for penalty in penalties],
    }
    return _page(
        "Overfitting",
        "A polynomial is fitted to sixteen noisy points. Each degree adds one weight; with "
        "sixteen weights it goes through every point.",
        data,
        (
            "Play the degrees, and watch both errors. From which degree on do they diverge?",
            "Choose degree 15 and raise the weight decay: what does it do to the curve?",
        ),
    )


PAGES: dict[str, Callable[[], str]] = {
    "chain_rule": _chain_rule,
    "gradient_descent": _gradient_descent,
    "low_rank": _svd,
    "likelihood": _softmax,
    "layer": _layer,
    "regularization": _overfitting,
}
"""The pages by exercise."""


def _page(title: str, lead: str, data: Mapping[str, Any], questions: Sequence[str]) -> str:
    """A page with a title, a lead, the sliders with the pictures, and questions to try."""
    return script_page("moving.html.jinja", data, title=title, lead=lead, questions=questions)


def _picture(side: int) -> np.ndarray:
    """A house by the sea under the sun, in gray values from 0 to 1."""
    y, x = np.mgrid[0:side, 0:side] / side
    gray = 0.75 - 0.25 * y  # the sky
    gray[np.hypot(x - 0.76, y - 0.2) < 0.11] = 1.0  # the sun
    sea = y > 0.72
    gray[sea] = 0.3 + 0.12 * np.sin(28 * x + 40 * y)[sea]
    gray[(np.abs(x - 0.32) < 0.17) & (y > 0.48) & (y < 0.78)] = 0.12  # the house
    gray[(y > 0.28) & (y <= 0.48) & (np.abs(x - 0.32) < (y - 0.28) * 1.15)] = 0.22  # its roof
    gray[(np.abs(x - 0.32) < 0.045) & (y > 0.6) & (y < 0.78)] = 0.85  # the door
    return gray


def _slider(
    name: str,
    label: str,
    most: float,
    value: float,
    *,
    least: float = 0,
    step: float = 1,
    labels: list[str] | None = None,
    plays: bool = False,
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "label": label, "min": least, "max": most}
    found |= {"step": step, "value": value, "digits": 0 if step == 1 else 1}
    return found | ({"labels": labels} if labels else {}) | ({"plays": True} if plays else {})


def _rounded(numbers: np.ndarray) -> Any:
    return np.asarray(numbers, dtype=float).round(4).tolist()
