"""Every loss on pairs: its paper's formula in float64, its gradient, and training."""

from __future__ import annotations

import decimal
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from conftest import TinyModel
from groundup.align.config import LOSSES, DPOConfig
from groundup.align.dpo import _METHODS, pair_logprobs, pair_loss, preference_loss
from groundup.align.pair_losses import log_complement
from groundup.align.preferences import Pair, PairBatch, PairStream, tokenize_pairs
from groundup.app.settings import configured
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.errors import UserError
from groundup.evals.config import REFERENCE_FREE
from groundup.formats.load import load
from groundup.runs.files import read_lines
from groundup.text.batches import packed_batch
from groundup.text.example import Example

# The settings with which each loss is compared; the losses of `LOSSES`, and conservative DPO.
SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss": "sigmoid", "beta": 0.1},
    "cdpo": {"loss": "sigmoid", "beta": 0.3, "label_smoothing": 0.15},
    "ipo": {"loss": "ipo", "beta": 0.4},
    "hinge": {"loss": "hinge", "beta": 0.07},
    "simpo": {"loss": "simpo", "beta": 2.5, "gamma": 1.4},
    "orpo": {"loss": "orpo", "beta": 0.25},
}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def paper(
    name: str, policy: np.ndarray, reference: np.ndarray, tokens: np.ndarray, **changes: float
) -> tuple[np.ndarray, np.ndarray]:
    """The papers' equations term by term: the losses, and the rewards of both answers."""
    settings = SETTINGS[name] | changes
    beta = settings["beta"]
    per_token = policy / tokens
    if name in ("sigmoid", "cdpo", "hinge"):
        rewards = beta * (policy - reference)
        won = rewards[:, 0] - rewards[:, 1]
        if name == "hinge":
            return np.maximum(0, 1 - won), rewards
        wrong = settings.get("label_smoothing", 0.0)
        return -(1 - wrong) * np.log(sigmoid(won)) - wrong * np.log(sigmoid(-won)), rewards
    if name == "ipo":
        ratios = per_token - reference / tokens
        return (ratios[:, 0] - ratios[:, 1] - 1 / (2 * beta)) ** 2, beta * ratios
    if name == "simpo":
        rewards = beta * per_token
        return -np.log(sigmoid(rewards[:, 0] - rewards[:, 1] - settings["gamma"])), rewards
    odds = np.exp(per_token) / (1 - np.exp(per_token))
    return -beta * np.log(sigmoid(np.log(odds[:, 0] / odds[:, 1]))), beta * per_token


def drawn(count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of answers of 3 to 40 tokens, at about a nat per token."""
    random = np.random.default_rng(3)
    tokens = random.integers(3, 41, (count, 2)).astype(float)
    policy, reference = (-tokens * random.uniform(0.2, 2.0, (count, 2)) for _ in range(2))
    return policy, reference, tokens


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_equals_the_papers(name: str) -> None:
    policy, reference, tokens = drawn()
    given = (torch.from_numpy(one) for one in (policy, reference, tokens))
    losses, margin = pair_loss(*given, **SETTINGS[name])
    expected, rewards = paper(name, policy, reference, tokens)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(margin.numpy(), rewards[:, 0] - rewards[:, 1], rtol=1e-9)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_gradient_equals_the_slope(name: str) -> None:
    policy, reference, tokens = (torch.from_numpy(one) for one in drawn(12))

    def losses(policy: torch.Tensor) -> torch.Tensor:
        return pair_loss(policy, reference, tokens, **SETTINGS[name])[0]

    assert torch.autograd.gradcheck(losses, policy.requires_grad_())


@pytest.mark.parametrize("name", SETTINGS)
def test_far_margins_stay_finite(name: str) -> None:
    far = torch.tensor([[-1e4, -1e-9], [-1e-9, -1e4], [0.0, -1e4]], requires_grad=True)
    losses, _ = pair_loss(far, torch.zeros(3, 2), torch.ones(3, 2), **SETTINGS[name])
    [gradient] = torch.autograd.grad(losses.sum(), far)
    assert bool(losses.isfinite().all()) and bool(gradient.isfinite().all())


def test_ipo_has_a_target_and_hinge_a_maximum() -> None:
    """At the target and beyond the maximum the gradient is zero; DPO's is not."""

    def slope(gained: float, **settings: Any) -> float:
        policy = torch.tensor([[gained, 0.0]], requires_grad=True)
        losses, _ = pair_loss(policy, torch.zeros(1, 2), torch.ones(1, 2), **settings)
        [gradient] = torch.autograd.grad(losses.sum(), policy)
        return float(gradient[0, 0])

    goal = 1 / (2 * 0.1)
    assert slope(goal, loss="ipo", beta=0.1) == pytest.approx(0, abs=1e-5)
    assert slope(goal - 1, loss="ipo", beta=0.1) < 0 < slope(goal + 1, loss="ipo", beta=0.1)
    assert slope(9.9, loss="hinge", beta=0.1) < 0 == slope(10.1, loss="hinge", beta=0.1)
    assert slope(10.1, loss="sigmoid", beta=0.1) < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_complement_of_a_probability_is_exact(dtype: torch.dtype) -> None:
    logp = torch.tensor([-50.0, -5.0, -0.7, -0.69, -0.1, -1e-3, -1e-6], dtype=dtype)
    with decimal.localcontext(prec=60):
        exact = [float((1 - decimal.Decimal(one).exp()).ln()) for one in logp.tolist()]
    assert_close(
        log_complement(logp), torch.tensor(exact, dtype=dtype), rtol=4e-6, atol=0, check_dtype=True
    )


# Batches.


def batches(model_context: int = 32) -> tuple[PairBatch, PairBatch]:
    """The same pairs, packed, and padded with one per row."""
    random = np.random.default_rng(0)

    def example() -> Example:
        length = int(random.integers(6, 20))
        return Example(random.integers(3, 300, length).tolist(), [i >= 4 for i in range(length)])

    pairs = [Pair(example(), example()) for _ in range(5)]
    reference = random.normal(-40, 5, (5, 2)).astype(np.float32)
    rows = {"context": model_context, "rows": 8, "micro_rows": 8, "seed": 0}
    [packed] = PairStream(pairs, reference, **rows).at(0, torch.nn.Identity())
    alone = [[side] for pair in pairs for side in (pair.chosen, pair.rejected)]
    padded = PairBatch(
        packed_batch(alone, model_context),
        torch.arange(10).view(5, 2),
        torch.from_numpy(reference),
    )
    return packed, padded


@pytest.mark.parametrize("name", SETTINGS)
def test_packed_equals_padded_with_any_padding(name: str, tiny_model: TinyModel) -> None:
    model, (packed, padded) = tiny_model(), batches()
    found, expected = (
        preference_loss(model, batch, nll=0.3, **SETTINGS[name]) for batch in (packed, padded)
    )
    assert found.weight == expected.weight == 5
    assert_close(found.total, expected.total, rtol=1e-5, atol=1e-5)
    for metric, (total, count) in expected.metrics.items():
        assert found.metrics[metric] == (pytest.approx(total, rel=1e-4, abs=1e-4), count)
    empty = padded.rows.segment_ids < 0
    assert int(empty.sum()) > 50
    noise = torch.randint(3, 300, padded.rows.input_ids.shape)
    rows = replace(
        padded.rows,
        input_ids=torch.where(empty, noise, padded.rows.input_ids),
        targets=torch.where(empty, noise, padded.rows.targets),
    )
    other = preference_loss(model, replace(padded, rows=rows), nll=0.3, **SETTINGS[name])
    assert other.total.item() == expected.total.item()
    assert other.metrics == expected.metrics


def test_answers_are_counted_in_tokens() -> None:
    _, padded = batches()
    counts = [int(row.sum()) for row in padded.rows.weights]
    assert padded.answer_tokens.flatten().tolist() == counts


# Runs.


@pytest.mark.every(2)
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_it_learns_to_prefer(workshop: Any, tmp_path: Path, loss: str) -> None:
    # Steps of several pairs, and small ones: others pull a model this small to and fro.
    out = tmp_path / "out"
    more = {"steps": 24, "rows": 16, "micro_rows": 4}
    more |= {"learning_rate": 0.001, "embedding_learning_rate": 0.001}
    settings = {"beta": None, "nll": None} if loss != "sigmoid" else {"label_smoothing": 0.1}
    if loss == "orpo":  # which has no reference that would hold it
        settings |= {"learning_rate": 0.002}
    code, said = workshop.run_here(workshop.command("dpo", out, loss=loss, **(more | settings)))
    assert code == 0, said
    lines = read_lines(out / "metrics.jsonl")
    trained = [line for line in lines if line["kind"] == "train"]
    assert np.mean([line["accuracy"] for line in trained[-8:]]) > 0.7
    # The margin, on the same pairs before and after.
    sft, after = load(workshop.finished("sft")), load(out)
    sides = split(workshop.data, "preferences", read_preferences)
    pairs, heldout = (tokenize_pairs(sft[1], side.rows, 64)[0] for side in sides)
    before, now = (np.diff(pair_logprobs(model, pairs, 64)) for model, _ in (sft, after))
    assert np.mean(before - now) > 1, np.mean(before - now)
    # The final measurement equals the paper's equation for the saved weights.
    reference, policy = (pair_logprobs(one, heldout, 64).astype(float) for one, _ in (sft, after))
    sizes = [[sum(side.loss_mask[1:]) for side in (one.chosen, one.rejected)] for one in heldout]
    own = {name: value for name, value in LOSSES[loss].items() if name in ("beta", "gamma")}
    name = loss
    if loss == "sigmoid":
        name, own = "cdpo", {"beta": 0.5, "label_smoothing": 0.1}
    losses, rewards = paper(name, policy, reference, np.array(sizes, float), **own)
    measured = [line for line in lines if line["kind"] == "evaluation"]
    assert measured[-1]["preference_loss"] == pytest.approx(losses.mean(), rel=1e-3)
    assert measured[-1]["heldout_accuracy"] == np.mean(rewards[:, 0] > rewards[:, 1])
    assert (out / "reference.safetensors").exists() == (loss not in REFERENCE_FREE)
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["beta"] == own["beta"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gamma": 1.0}, ["gamma=1", "loss='sigmoid'", "'simpo'"]),
        ({"gamma": 0.0, "loss": "orpo"}, ["gamma=0", "loss='orpo'"]),
        ({"loss": "ipo", "label_smoothing": 0.1}, ["label_smoothing=0.1", "loss='ipo'"]),
        ({"label_smoothing": 0.5}, ["label_smoothing=0.5", "less than 0.5"]),
        ({"loss": "kto"}, ['loss="kto"', "must be one of"]),
        ({"ptx_data": "talks.jsonl"}, ["talks.jsonl", "ptx=0"]),
    ],
)
def test_a_setting_without_effect_is_rejected(settings: dict[str, Any], told: list[str]) -> None:
    needed = {"out": "x", "model": "m", "data": "d"}
    with pytest.raises(UserError) as refused:
        configured(DPOConfig, needed | settings)
    said = str(refused.value)
    assert "\n" not in said
    for words in told:
        assert words in said, said


def test_defaults_are_the_losses_own() -> None:
    needed = {"out": "x", "model": "m", "data": "d"}
    for loss, own in LOSSES.items():
        config = configured(DPOConfig, needed | {"loss": loss, "beta": None})
        assert {name: getattr(config, name) for name in own} == own
    given = configured(DPOConfig, needed | {"loss": "simpo", "beta": 10.0, "gamma": 5.0})
    assert (given.beta, given.gamma) == (10.0, 5.0)
    again = DPOConfig.model_validate(given.model_dump())
    assert again == given


def test_every_table_has_every_loss() -> None:
    choices = get_args(DPOConfig.model_fields["loss"].annotation)
    assert set(choices) == set(LOSSES) == set(_METHODS) == {s["loss"] for s in SETTINGS.values()}
    assert set(REFERENCE_FREE) < set(LOSSES)


def test_an_unknown_loss_is_rejected() -> None:
    ones = torch.ones(1, 2)
    with pytest.raises(ValueError, match="loss='nonsense' is not one of sigmoid, ipo"):
        pair_loss(-ones, -ones, ones, beta=0.1, loss="nonsense")
