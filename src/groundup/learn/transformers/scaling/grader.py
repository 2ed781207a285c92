"""Grades the scaling law by laws that are known, and a prediction by the run itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from groundup.learn.exercise import StillToCome, Trial, calls

_NEAR = 0.05


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    yield Trial("law(8, 2, 1, 1)", calls("law", 8.0, 2.0, 1.0, 1.0), 2.125)
    several = np.array([1.0, 10.0, 1000.0])
    yield Trial(
        "law of an array",
        calls("law", several, 1.5, 2.0, 0.3),
        1.5 + 2.0 / several**0.3,
        {"compute": several, "floor": 1.5, "a": 2.0, "b": 0.3},
    )
    floors = [1.0, 1.5, 2.0, 2.5]
    for compute, floor, a, b in (
        (np.array([1.0, 2.0, 4.0]), 2.0, 1.0, 1.0),
        (np.array([1.0, 3.0, 10.0, 30.0]), 1.5, random.uniform(2, 4), random.uniform(0.2, 0.5)),
        (np.array([2.0, 8.0, 32.0]), 1.0, random.uniform(2, 4), random.uniform(0.05, 0.1)),
    ):
        # No noise, so that the law is known: what is fitted must be what was drawn.
        losses = floor + a / compute**b
        shown = {"compute": compute, "losses": losses, "floors": floors}
        yield Trial(
            "fit_law: floor, a, b",
            calls("fit_law", compute, losses, floors),
            [floor, a, b],
            shown,
            rtol=1e-6,
        )
        yield Trial(
            "predict, four times as far",
            calls("predict", compute, losses, floors, float(4 * compute[-1])),
            float(floor + a / (4 * compute[-1]) ** b),
            {**shown, "at": float(4 * compute[-1])},
            rtol=1e-6,
        )
    noisy = np.array([3.02, 2.48, 2.27, 2.11])
    sizes = np.array([1.0, 2.0, 4.0, 8.0])
    yield Trial(
        "fit_law of losses with noise",
        calls("fit_law", sizes, noisy, floors),
        _solved(sizes, noisy, floors),
        {"compute": sizes, "losses": noisy, "floors": floors},
        rtol=1e-6,
    )
    yield Trial("your PREDICTION against your RUN: its error, where within 5 % counts", _miss, 0.0)


def _solved(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> list[float]:
    """The same by the normal equations."""
    found = []
    for floor in (one for one in floors if one < losses.min()):
        columns = np.stack([np.ones_like(compute), -np.log(compute)], axis=1)
        above, b = np.linalg.solve(columns.T @ columns, columns.T @ np.log(losses - floor))
        error = float(((losses - floor - np.exp(above) * compute**-b) ** 2).sum())
        found.append([error, floor, float(np.exp(above)), float(b)])
    return min(found)[1:]


def _miss(part: ModuleType) -> float:
    """How far the run was from the prediction, as a share; 0 where near enough."""
    run, prediction = getattr(part, "RUN", None), getattr(part, "PREDICTION", None)
    if run is None:
        raise StillToCome("the run is still to come: write PREDICTION down, train, and name RUN")
    if prediction is None:
        raise ValueError("RUN is named, and PREDICTION is None: say what you foretold")
    # As seen from where the learner's folder lies.
    log = Path(str(part.__file__)).resolve().parent.parent / run / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    reached = [line["bits_per_byte"] for line in lines if line.get("bits_per_byte") is not None]
    if not reached:
        raise ValueError(f"{log} holds no bits_per_byte: name the folder of a pretrain run")
    off = abs(reached[-1] - prediction) / reached[-1]
    return 0.0 if off <= _NEAR else float(off)
