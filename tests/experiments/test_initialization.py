"""The initialization experiment: measurements agree with the theory for each layer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from groundup.experiments.config import InitializationConfig
from groundup.experiments.initialization import (
    INITIALIZATIONS,
    LAYERS,
    LayerResults,
    _change,
    measure,
    run,
)

WIDTH = 128


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LayerResults]:
    config = InitializationConfig(out=tmp_path_factory.mktemp("initialization"))
    return {
        one.name: LayerResults(one, [measure(one, WIDTH, config, turn) for turn in range(2)])
        for one in INITIALIZATIONS
    }


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("ReLU, too small", 0.01**2),
        ("ReLU, too large", 1.0),
        ("ReLU, Xavier", 1 / WIDTH),
        ("ReLU, He", 2 / WIDTH),
    ],
)
def test_each_relu_layer_multiplies_by_the_theoretical_factor(
    measured: dict[str, LayerResults], name: str, variance: float
) -> None:
    # fan_in · Var(weight) · 1/2 in the square, both ways (He et al. 2015, equations 10 and 14).
    expected = np.sqrt(WIDTH * variance / 2)
    found = measured[name]
    growth = (found.of("std", -1).estimate / found.of("std", 0).estimate) ** (1 / (LAYERS - 1))
    back = found.of("gradient_std", 0).estimate ** (1 / (LAYERS - 1))
    assert growth == pytest.approx(expected, rel=0.07)
    assert back == pytest.approx(expected, rel=0.07)


def test_good_weights_preserve_signal_and_gradient(measured: dict[str, LayerResults]) -> None:
    for name in ("Tanh, Xavier", "ReLU, He"):
        assert (
            "the signal is stable, and on the way back the gradient is stable."
            in measured[name].remark()
        )


def test_bad_weights_are_reported(measured: dict[str, LayerResults]) -> None:
    assert measured["Tanh, too small"].remark().count("shrinks") == 2
    assert measured["ReLU, too large"].remark().count("grows") == 2
    assert "of the last layer's outputs are saturated" in measured["Tanh, too large"].remark()
    assert "saturated" not in measured["ReLU, too large"].remark()


def test_a_remark_names_the_layers_that_it_compares(measured: dict[str, LayerResults]) -> None:
    """Between 20 layers are 19 steps."""
    assert f": from layer 1 to layer {LAYERS} the signal" in measured["ReLU, He"].remark()


def test_changes() -> None:
    assert _change(2.0) == _change(0.5) == "is stable"
    assert _change(1e4) == "grows by a factor of 1.0e+04"
    assert _change(1e-4) == "shrinks by a factor of 1.0e+04"


def test_the_miniature_is_complete(tmp_path: Path) -> None:
    run(InitializationConfig(out=tmp_path, quick=True, seeds=1))
    found = json.loads((tmp_path / "result.json").read_text())
    assert all((tmp_path / file).stat().st_size for file in found["files"])
    assert len(found["tables"][0]["rows"]) == len(found["remarks"]) == len(INITIALIZATIONS)


def test_the_same_seed_gives_the_same_numbers() -> None:
    he, config = INITIALIZATIONS[-1], InitializationConfig(out=Path("unused"))
    assert measure(he, 32, config, 0) == measure(he, 32, config, 0)
    assert measure(he, 32, config, 0) != measure(he, 32, config, 1)
