"""The report of a reward model, against scikit-learn and scipy, and with little held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss

from groundup.align.reward import ComparisonStream, comparisons, heldout_pairs
from groundup.align.reward_report import HeldoutPairs, accuracies, measured, plots, table, to_json
from groundup.align.rewards.model import load_reward_model
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.formats.load import load_tokenizer
from groundup.report.page import Page, Plots, Section, html
from groundup.runs.files import read_lines


def pairs_of(
    prompts: int, answers: int = 4, *, seed: int = 0, sources: int = 2, lengths: bool = True
) -> HeldoutPairs:
    """Random rewards of some answers to each prompt; every answer is compared with the next."""
    random = np.random.default_rng(seed)
    count = prompts * answers
    rewards = random.normal(size=count)
    first = np.array([i for i in range(count) if i % answers < answers - 1], dtype=int)
    # In most pairs the higher reward was chosen.
    swap = (rewards[first] < rewards[first + 1]) ^ (random.random(len(first)) < 0.3)
    chosen, rejected = np.where(swap, first + 1, first), np.where(swap, first, first + 1)
    owners = np.repeat(np.arange(prompts), answers)
    return HeldoutPairs(
        rewards=rewards,
        lengths=random.integers(3, 40, count) if lengths else np.full(count, 7),
        answered=owners,
        chosen=chosen,
        rejected=rejected,
        margins=2 * (rewards[chosen] - rewards[rejected]),
        prompts=owners[chosen],
        groups=tuple(map(str, range(prompts))),
        sources=tuple(f"source {owner % sources}" for owner in owners[chosen]),
    )


def test_accuracy_and_loss_equal_scikit_learns() -> None:
    pairs = pairs_of(60)
    found = measured(pairs, [])
    truth = np.ones(len(pairs.margins))
    assert found.accuracy["pooled"].estimate == accuracy_score(truth, pairs.margins > 0)
    assert found.accuracy["pooled"].groups == 60
    sure = 1 / (1 + np.exp(-pairs.margins))
    assert found.loss == pytest.approx(log_loss(truth, sure, labels=[0, 1]))
    for name in ("source 0", "source 1"):
        some = np.array(pairs.sources) == name
        assert found.accuracy[name].estimate == np.mean(pairs.margins[some] > 0)


@pytest.mark.parametrize("prompts", [12, 60])
def test_pairs_of_a_group_are_resampled_together(prompts: int) -> None:
    """As many pairs of fewer groups, all right or all wrong in each, give wider intervals."""
    one = pairs_of(120, 2, sources=1)
    wrong = np.random.default_rng(0).random(12) < 0.3
    together = np.repeat(np.where(wrong, -1.0, 1.0), 10)
    many = HeldoutPairs(
        one.rewards, one.lengths, one.answered, one.chosen, one.rejected, together,
        np.repeat(np.arange(prompts), 120 // prompts),
        tuple(f"group {prompt * 12 // prompts}" for prompt in range(prompts)), one.sources,
    )  # fmt: skip
    found = accuracies(many.right, many)["pooled"]
    assert (found.items, found.groups) == (120, 12)
    alone = stats.binomtest(int((together > 0).sum()), 120).proportion_ci()
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_calibration_equals_the_papers() -> None:
    pairs = pairs_of(200)
    found = measured(pairs, []).calibration
    assert found is not None
    sure = 1 / (1 + np.exp(-np.abs(pairs.margins)))
    right = pairs.margins > 0
    expected = 0.0
    for low in np.arange(15) / 15:  # Guo et al. 2017, equation 3
        inside = (sure > low) & (sure <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found.error == pytest.approx(expected)
    assert sum(one.count for one in found.curve) == len(right)


@pytest.mark.long
def test_a_calibrated_model_has_the_error_of_chance_and_an_overconfident_one_more() -> None:
    random = np.random.default_rng(3)
    apart = random.normal(0, 1.5, 3000)
    first = np.where(random.random(3000) < 1 / (1 + np.exp(-apart)), apart, -apart)
    base = pairs_of(3000, 2)
    for scale, honest in ((1.0, True), (4.0, False)):
        pairs = HeldoutPairs(**(vars(base) | {"margins": scale * first}))
        found = measured(pairs, []).calibration
        assert found is not None
        assert (found.error < 2 * found.by_chance) == honest


def test_a_reward_for_length_is_detected() -> None:
    base = pairs_of(80)
    pairs = HeldoutPairs(**(vars(base) | {"rewards": base.lengths + 0.0}))
    found = measured(pairs, [])
    assert found.over_answers is not None and found.within_prompts is not None
    assert found.over_answers.estimate == pytest.approx(1)
    assert found.within_prompts.estimate == pytest.approx(1)
    # For random rewards it equals scipy's, and its interval contains 0.
    other = measured(base, [])
    assert other.over_answers is not None
    rho = stats.spearmanr(base.rewards, base.lengths)[0]
    assert other.over_answers.estimate == pytest.approx(rho)
    assert other.over_answers.low < 0 < other.over_answers.high


def test_longer_is_better_is_counted_pair_by_pair() -> None:
    pairs = pairs_of(50, sources=3)
    found = measured(pairs, []).longer
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, b in zip(pairs.lengths[pairs.chosen], pairs.lengths[pairs.rejected], strict=True)
    ]
    assert found["pooled"].estimate == pytest.approx(np.mean(won))
    shown = {line[0].split("\n")[0]: line[1] for line in table(measured(pairs, []), 900).lines}
    longer, shorter = (
        float(shown[f"always the {which} answer"].split(" ")[0]) for which in ("longer", "shorter")
    )
    assert longer + shorter == pytest.approx(100, abs=0.11)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(None, id="none"),
        pytest.param(pairs_of(1, 2), id="one pair"),
        pytest.param(pairs_of(9, sources=1), id="one source"),
        pytest.param(pairs_of(9, lengths=False), id="one length"),
        pytest.param(
            HeldoutPairs(**(vars(pairs_of(9)) | {"margins": np.full(27, 3.0)})), id="all right"
        ),
        pytest.param(
            HeldoutPairs(
                **(vars(pairs_of(9)) | {"margins": np.zeros(27), "rewards": np.zeros(36)})
            ),
            id="one reward",
        ),
    ],
)
def test_little_held_out_data(pairs: HeldoutPairs | None) -> None:
    """There are always a page and numbers, and missing parts are reported."""
    found = measured(pairs, [])
    told = json.loads(json.dumps(to_json(found, pairs, 40), allow_nan=False))
    shown = table(found, 40)
    few = pairs is None or len(pairs.lengths) < 6 or len({*pairs.lengths.tolist()}) == 1
    alike = pairs is not None and not pairs.margins.any()
    assert bool(told["not_measured"]) == (few or alike)
    blocks = [shown] if pairs is None else [shown, Plots(plots(found, pairs, 40))]
    assert "<html" in html(Page("t", "h", "l", [], [Section("s", "s", blocks)]))
    if alike:
        assert told["accuracy"]["pooled"]["estimate"] == 0.5


# The run.


def test_the_report_is_of_the_saved_model(workshop: Any) -> None:
    folder = workshop.finished("reward")
    found = json.loads((folder / "result.json").read_text())
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    train, heldout = (
        comparisons(tokenizer, side.rows, 64)[0]
        for side in split(workshop.data, "preferences", read_preferences)
    )
    pairs = heldout_pairs(model, heldout, 64)
    assert pairs is not None
    assert found["accuracy"]["pooled"]["estimate"] == np.mean(pairs.right)
    assert found["pairs"] == {
        "train": sum(len(one.pairs) for one in train),
        "heldout": len(pairs.margins),
    }
    assert found["rewards"]["chosen"]["mean"] == pytest.approx(pairs.rewards[pairs.chosen].mean())
    assert (folder / "report.html").is_file()


def test_lengths_include_the_end_token(workshop: Any) -> None:
    tokenizer = load_tokenizer(workshop.finished("sft"))
    rows = split(workshop.data, "preferences", read_preferences)[0].rows[:5]
    for row in rows:
        [one] = comparisons(tokenizer, [row], 64)[0]
        texts = (row.chosen, row.rejected)
        assert one.lengths == tuple(len(tokenizer.encode(text)) + 1 for text in texts)


def test_it_is_evaluated_from_an_eighth_of_the_labels_on(workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = {"steps": None, "epochs": 2, "rows": 4, "micro_rows": 2, "evaluations": 1}
    code, said = workshop.run_here(workshop.command("reward", out, **changes))
    assert code == 0, said
    course = json.loads((out / "result.json").read_text())["course"]
    whole = json.loads((out / "result.json").read_text())["pairs"]["train"]
    read = [point["labels"] for point in course]
    for share in (1 / 8, 1 / 4, 1 / 2, 1):
        assert min(labels for labels in read if labels >= share * whole) <= share * whole + 20
    assert read[-1] >= 1.8 * whole
    steps = [line["step"] for line in read_lines(out / "metrics.jsonl") if "heldout" in line]
    assert [point["step"] for point in course] == steps


def test_labels_are_counted_as_read(workshop: Any) -> None:
    tokenizer = load_tokenizer(workshop.finished("sft"))
    rows = split(workshop.data, "preferences", read_preferences)[0].rows
    items, _ = comparisons(tokenizer, rows, 64)
    stream = ComparisonStream(items, context=64, rows=4, micro_rows=2, seed=0)
    read = 0
    for step in range(stream.rows_per_epoch // 4):
        assert stream.labels_read(step) == read
        read += sum(len(batch.chosen) for batch in stream.at(step, torch.nn.Identity()))
    assert stream.steps_to(1 / stream.labels) == 1
    first = stream.steps_to(1 / 2)
    assert stream.labels_read(first - 1) < stream.labels / 2 <= stream.labels_read(first)
