"""Grades the scaling law with known laws, and a prediction by the run itself."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from groundup.errors import UserError
from groundup.learn.difference import Difference
from groundup.learn.exercise import NotComparable, StepMissing, Trial, calls
from groundup.runs.folder import is_finished
from groundup.runs.request import read_run

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
        # Without noise the law is known: the fit must return it.
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
    # For the second losses each error measure chooses another floor: squared differences, absolute
    # differences, those of logarithms, and the correlation of logarithms.
    for noisy, tried in (
        (np.array([3.02, 2.48, 2.27, 2.11]), floors),
        (np.array([4.03, 3.56, 3.45, 3.18, 2.97]), floors),
        # A floor above a loss gives NaN, of which `min` keeps the first.
        (np.array([3.02, 2.48, 2.27, 2.11]), floors[::-1]),
    ):
        sizes = 2.0 ** np.arange(len(noisy))
        yield Trial(
            "fit_law of losses with noise",
            calls("fit_law", sizes, noisy, tried),
            _solved(sizes, noisy, tried),
            {"compute": sizes, "losses": noisy, "floors": tried},
            rtol=1e-6,
        )
    yield Trial("your PREDICTION against your RUN", _miss, 0.0)


def _solved(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> list[float]:
    """The same fit by the normal equations."""
    found = []
    for floor in (one for one in floors if one < losses.min()):
        columns = np.stack([np.ones_like(compute), -np.log(compute)], axis=1)
        above, b = np.linalg.solve(columns.T @ columns, columns.T @ np.log(losses - floor))
        error = float(((losses - floor - np.exp(above) * compute**-b) ** 2).sum())
        found.append([error, floor, float(np.exp(above)), float(b)])
    return min(found)[1:]


def _miss(part: ModuleType) -> float:
    """0 if the run matches the prediction."""
    run, prediction = getattr(part, "RUN", None), getattr(part, "PREDICTION", None)
    if run is None:
        raise StepMissing("the run is still to come: write PREDICTION down, train, and name RUN")
    if prediction is None:
        hint = "RUN is set but PREDICTION is None: write down your prediction."
        raise NotComparable(Difference("", "PREDICTION = None", "a number of bits per byte", hint))
    is_number = isinstance(prediction, int | float | np.number) and prediction is not True
    if not is_number or not 0 < prediction < math.inf:
        hint = "Bits per byte are a number above 0: write down your prediction."
        found = f"PREDICTION = {prediction!r}"
        raise NotComparable(Difference("", found, "a number of bits per byte", hint))
    reached = _reached(part, run)
    off = prediction / reached - 1
    if abs(off) > _NEAR:
        hint = (
            f"{abs(off):.1%} too {'high' if off > 0 else 'low'}. Fit the law to more runs and "
            "predict another one: a number fitted to this run predicts nothing."
        )
        yours, expected = f"{prediction:.4g} bits per byte predicted", f"{reached:.4g} reached"
        raise NotComparable(Difference("", yours, f"{expected}, within {_NEAR:.0%}", hint))
    return 0.0


def _reached(part: ModuleType, run: str) -> float:
    """The final bits per byte of a finished pretrain run."""
    # Relative to the parent of the learner's folder.
    folder = Path(str(part.__file__)).resolve().parent.parent / run
    try:
        measure = read_run(folder)["traits"].get("measure")
        log = (folder / "metrics.jsonl").read_text(encoding="utf-8")
        found = [json.loads(line).get("bits_per_byte") for line in log.splitlines()]
    except (UserError, OSError, ValueError):
        measure, found = None, []
    reached = [one for one in found if one is not None]
    if measure != "bits_per_byte" or not reached:
        hint = f"RUN names no folder of a pretrain run: {folder} "
        hint += "is not one." if folder.is_dir() else "is not there."
        raise NotComparable(Difference("", f"RUN = {run!r}", "the folder of a pretrain run", hint))
    if not is_finished(folder):
        hint = f"The run in {folder} is not finished: the same command as before resumes it."
        raise NotComparable(Difference("", f"RUN = {run!r}", "a finished pretrain run", hint))
    return float(reached[-1])
