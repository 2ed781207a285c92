"""The perceptron experiment: its data, its two models, and its claims on real images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestCentroid

from groundup.experiments import digits
from groundup.experiments.config import PerceptronConfig
from groundup.experiments.digits import Images
from groundup.experiments.learners import NETWORK, PERCEPTRON, Network, Perceptron
from groundup.experiments.perceptron import FULL, QUICK, run
from groundup.experiments.plane import (
    Plane,
    Points,
    Trajectory,
    plane_remark,
    two_moons,
    two_spirals,
    watch,
)
from groundup.experiments.reading import (
    GOAL,
    Reading,
    confusion,
    digit_remarks,
    majority,
    misread_plot,
    nearest_centroid,
    read,
)
from groundup.nn.activations import Tanh
from groundup.nn.layers import Linear
from groundup.nn.module import Sequential
from groundup.nn.optim import Adam

seeds = st.integers(0, 2**32 - 1)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# The data.


@given(seed=seeds, n=st.integers(2, 200))
def test_moons_lie_on_their_circles(seed: int, n: int) -> None:
    moons = two_moons(n, generator(seed), noise=0.0)
    centres = np.where(moons.labels[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    np.testing.assert_allclose(np.linalg.norm(moons.x - centres, axis=1), 1, atol=1e-6)
    height = (moons.x - centres)[:, 1]
    assert (height[moons.labels == 0] >= -1e-6).all()
    assert (height[moons.labels == 1] <= 1e-6).all()
    assert abs(int((moons.labels == 0).sum()) - int((moons.labels == 1).sum())) <= 1


@given(seed=seeds, n=st.integers(2, 200))
def test_spirals_wind_one_and_a_half_times_and_mirror_each_other(seed: int, n: int) -> None:
    spirals = two_spirals(n, generator(seed), noise=0.0)
    # Rotated by half a turn, the second arm equals the first.
    x = np.where(spirals.labels[:, None] == 0, spirals.x, -spirals.x).astype(float)
    r = np.linalg.norm(x, axis=1)
    assert (r <= 1 + 1e-6).all()
    turned = x @ np.array([1, 1j]) * np.exp(-3j * np.pi * r)
    np.testing.assert_allclose(turned, r, atol=1e-4)


def test_noise_has_the_requested_size() -> None:
    clean = two_spirals(20_000, generator(), noise=0.0)
    noisy = two_spirals(20_000, generator(), noise=0.1)
    assert (noisy.x - clean.x).std() == pytest.approx(0.1, rel=0.02)


def test_digits_equal_scikit_learns_and_each_is_in_one_part() -> None:
    data = digits.load(0)
    pixels, labels = load_digits(return_X_y=True)
    parts = [data.train, data.validation, data.test]
    assert [len(part.labels) for part in parts] == [1167, 270, 360]

    def sorted_rows(x: Any, labels: Any) -> Any:
        rows = np.column_stack([16 * x, labels])
        return rows[np.lexsort(rows.T)]

    x = np.concatenate([part.x for part in parts])
    drawn = np.concatenate([part.labels for part in parts])
    np.testing.assert_array_equal(sorted_rows(x, drawn), sorted_rows(pixels / 16, labels))


def test_the_split_depends_on_the_seed() -> None:
    one, same, other = digits.load(1), digits.load(1), digits.load(2)
    np.testing.assert_array_equal(one.test.x, same.test.x)
    assert (one.test.labels != other.test.labels).any()


def test_digits_need_only_groundups_dependencies() -> None:
    """In a process where scikit-learn cannot be imported, they are read all the same."""
    code = "import sys; sys.modules['sklearn'] = None\n"
    code += "from groundup.experiments import digits; print(len(digits.load(0).train.labels))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[-1] == "1167", done.stderr


# The models.


@given(seed=seeds, dimensions=st.integers(1, 5))
def test_a_perceptron_converges_within_novikoffs_bound(seed: int, dimensions: int) -> None:
    rng = generator(seed)
    truth = rng.standard_normal(dimensions + 1)
    truth /= np.linalg.norm(truth)
    x = rng.standard_normal((60, dimensions))
    margins = np.column_stack([x, np.ones(60)]) @ truth
    x, margins = x[np.abs(margins) > 0.1], margins[np.abs(margins) > 0.1]
    labels = (margins > 0).astype(int)
    perceptron = Perceptron(x, labels, 2, rng)
    radius = (x**2).sum(axis=1).max(initial=0) + 1
    # A pass without a mistake is the last, so there are at most as many others as mistakes.
    for _ in range(int(radius / 0.1**2) + 1):
        before = perceptron.weights.copy()
        perceptron.learn(1)
        if (perceptron.weights == before).all():
            break
    assert (perceptron.weights == before).all()
    np.testing.assert_array_equal(perceptron.probabilities(x).argmax(axis=1), labels)


def test_exclusive_or_needs_a_hidden_layer() -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    labels, rng = np.array([0, 1, 1, 0]), generator()
    line = Perceptron(x, labels, 2, rng)
    for _ in range(50):
        line.learn(1)
        assert (line.probabilities(x).argmax(axis=1) == labels).sum() < 4
    model = Sequential(Linear(2, 8, rng=rng), Tanh(), Linear(8, 2, rng=rng))
    bent = Network(model, Adam(model.parameters(), lr=0.05), x, labels, rng, batch=4)
    bent.learn(200)
    assert (bent.probabilities(x).argmax(axis=1) == labels).all()


def test_a_networks_probabilities_sum_to_one() -> None:
    data = digits.load(0)
    model = digits.network(generator(), dropout=0.5)
    network = Network(
        model, Adam(model.parameters()), data.test.x, data.test.labels, generator(), batch=10
    )
    probs = network.probabilities(data.test.x)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    # In use dropout lets everything pass: the same again.
    np.testing.assert_array_equal(probs, network.probabilities(data.test.x))


@pytest.mark.filterwarnings("ignore:.*standard deviation:UserWarning")  # pixels always blank
def test_baselines_against_scikit_learn() -> None:
    data = digits.load(0)
    x, labels, test = data.train.x, data.train.labels, data.test
    expected = NearestCentroid().fit(x, labels).predict(test.x)
    np.testing.assert_array_equal(nearest_centroid(x, labels, test.x).argmax(axis=1), expected)
    answers = majority(np.array([3, 1, 3]), test.x).argmax(axis=1)
    assert (answers == 3).all() and len(answers) == len(test.labels)


def test_confusion_against_scikit_learn() -> None:
    rng = generator()
    test = Images(np.zeros((50, 64), np.float32), rng.integers(0, 10, 50))
    probs = [rng.dirichlet(np.ones(10), 50) for _ in range(2)]
    expected = sum(confusion_matrix(test.labels, p.argmax(axis=1), labels=range(10)) for p in probs)
    np.testing.assert_array_equal(confusion(Reading("", probs, True), test), expected)


# Remarks.


def reading(name: str, right: int, n: int = 100) -> Reading:
    """A model that is right on the first `right` of n zeros and takes the others for ones."""
    return Reading(name, [np.eye(10)[[0] * right + [1] * (n - right)]], learned=True)


@pytest.mark.parametrize(("right", "said"), [(97, "is reached"), (96, "is not reached")])
def test_the_goal_is_judged_by_the_numbers(right: int, said: str) -> None:
    test = Images(np.zeros((100, 64), np.float32), np.zeros(100, int))
    first, *rest = digit_remarks([reading(PERCEPTRON, 98), reading(NETWORK, right)], test)
    assert said in first and f"{98 - right:.1f} points less than the perceptron" in first
    assert rest == [
        f"Its most common mistake is to read a 0 as a 1: {100 - right} of {100 - right} "
        "mistakes over all seeds."
    ]


@pytest.mark.parametrize(
    ("perceptron", "network", "said"),
    [
        # Both models of a seed learn the same points: seeds differ by more than models do.
        ([0.50, 0.62, 0.55], [0.60, 0.66, 0.63], "is right more often with every seed, on 63.0 %"),
        ([0.50, 0.67, 0.55], [0.60, 0.66, 0.63], "is not right more often with every seed"),
        ([0.50, 0.66, 0.55], [0.60, 0.66, 0.63], "is not right more often with every seed"),
    ],
)
def test_models_are_compared_seed_by_seed(
    perceptron: list[float], network: list[float], said: str
) -> None:
    models = {
        name: [Trajectory([0.5, right], [0.5, right], []) for right in of_seeds]
        for name, of_seeds in ((PERCEPTRON, perceptron), (NETWORK, network))
    }
    points = Points(np.zeros((2, 2), np.float32), np.array([0, 1]))
    assert said in plane_remark(Plane("moons", (1, 2), points, (0.0, 1.0, 0.0, 1.0), models))


def test_a_perfect_network_has_no_most_common_mistake() -> None:
    test = Images(np.zeros((100, 64), np.float32), np.zeros(100, int))
    assert len(digit_remarks([reading(PERCEPTRON, 90), reading(NETWORK, 100)], test)) == 1


def test_misread_images_are_listed_with_their_predictions() -> None:
    test = Images(np.zeros((3, 64), np.float32), np.array([0, 1, 2]))
    answers = np.array([[0, 7, 2], [0, 7, 2], [0, 1, 4]])
    plot = misread_plot(answers, test)
    titles = [axes.get_title() for axes in plot.figure.axes if axes.get_title()]
    assert titles == ["1, read as 7\nby 2 of 3", "2, read as 4\nby 1 of 3"]


# The whole.


MINIATURE = PerceptronConfig(out=Path("unused"), quick=True, seeds=1)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = run(MINIATURE.model_copy(update={"out": tmp_path_factory.mktemp("perceptron")}))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    assert all((folder / file).stat().st_size for file in found["files"])
    return found


def test_the_miniature_learns(outcome: dict[str, Any]) -> None:
    assert {"boundary-moons.png", "boundary-spirals.svg", "digits.png"} < set(outcome["files"])
    readings = outcome["data"]["digits"]
    guessing = readings["always the commonest digit"]["accuracies"][0]
    assert 0.05 < guessing < 0.2
    for model in (PERCEPTRON, NETWORK):
        assert readings[model]["accuracies"][0] > 0.85
        interval = readings[model]["interval"]
        assert interval["low"] < readings[model]["accuracies"][0] < interval["high"]
    moons = outcome["data"]["planes"]["moons"]
    assert moons[NETWORK][0]["test"][-1] > 0.8
    assert len(moons[PERCEPTRON][0]["train"]) == len(moons[NETWORK][0]["test"]) > 2


def test_every_row_of_its_tables_is_complete(outcome: dict[str, Any]) -> None:
    points, images = (table["rows"] for table in outcome["tables"])
    assert [row[0] for row in points] == ["guessing", PERCEPTRON, NETWORK]
    assert [row[0] for row in images][2:] == [PERCEPTRON, NETWORK]
    assert all(points[2]) and all(images[3])


def test_the_same_seed_gives_the_same_numbers(outcome: dict[str, Any]) -> None:
    data = digits.load(0)
    for reading in read(data, QUICK.passes, MINIATURE):
        found = outcome["data"]["digits"][reading.name]
        assert found["accuracies"] == reading.accuracies(data.test)
        assert found["calibration_errors"] == reading.calibration_errors(data.test)
    moons = watch("moons", two_moons, QUICK.schedule, MINIATURE)
    assert outcome["data"]["planes"]["moons"] == moons.numbers()


def test_a_network_reads_97_percent_after_a_third_of_the_training() -> None:
    data = digits.load(0)
    readings = read(data, 22, PerceptronConfig(out=Path("unused"), seeds=1))
    assert readings[-1].accuracies(data.test)[0] >= GOAL


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_three_networks_read_97_percent_of_any_split(seed: int) -> None:
    data = digits.load(seed)
    readings = read(data, FULL.passes, PerceptronConfig(out=Path("unused"), seed=seed))
    assert min(readings[-1].accuracies(data.test)) >= GOAL


@pytest.mark.long
def test_the_network_separates_the_spirals(tmp_path: Path) -> None:
    run(PerceptronConfig(out=tmp_path))
    planes = json.loads((tmp_path / "result.json").read_text())["data"]["planes"]
    assert min(seed["test"][-1] for seed in planes["spirals"][NETWORK]) > 0.95
    assert max(seed["test"][-1] for seed in planes["spirals"][PERCEPTRON]) < 0.75
