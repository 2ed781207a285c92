"""Grades ratings by `groundup.align.bradley_terry`."""

import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np

from groundup.align.bradley_terry import bradley_terry
from groundup.learn.exercise import Trial, calls


def trials(seed: int) -> Iterator[Trial]:
    random = np.random.default_rng(seed)
    drawn = random.normal(size=(2, 3))
    for one, other in (
        (np.array(1.0), np.array(0.0)),
        (np.array([2.0, -1.0]), np.array([2.0, 1.0])),
    ):
        yield _chance("beats", one, other)
    yield _chance("beats of drawn ratings", drawn[0], drawn[1])
    yield _chance(
        "beats of ratings a thousand apart", np.array([1000.0, 0.0]), np.array([0.0, 1000.0])
    )
    chain = np.array([[0.0, 3.0, 0.0], [1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    some = random.integers(1, 9, (4, 4)).astype(float)
    np.fill_diagonal(some, 0.0)
    for name, wins in (
        ("two players, 3 to 1", np.array([[0.0, 3.0], [1.0, 0.0]])),
        ("A beats B, B beats C", chain),
        ("players of different strength that met unequally often", _unequal()),
        ("four players", some),
        ("players far apart", np.array([[0.0, 1.0, 0.0], [20.0, 0.0, 1.0], [0.0, 30.0, 0.0]])),
    ):
        yield Trial(
            f"ratings of {name}",
            calls("ratings", wins),
            bradley_terry(wins),
            {"wins": wins},
            rtol=1e-3,
            atol=1e-3,
        )


def _unequal() -> np.ndarray:
    return np.array([[0.0, 8.0, 1.0], [2.0, 0.0, 6.0], [0.5, 3.0, 0.0]])


def _chance(about: str, one: np.ndarray, other: np.ndarray) -> Trial:
    return Trial(
        about,
        lambda part: _strictly(part, one, other),
        0.5 * (1 + np.tanh((one - other) / 2)),
        {"one": one, "other": other},
    )


def _strictly(part: ModuleType, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The part's result, with warnings as errors."""
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise"):
        warnings.simplefilter("error")
        return np.asarray(part.beats(one, other))
