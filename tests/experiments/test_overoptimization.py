"""Overoptimization: known laws are recovered, and remarks follow from the numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import forget_finished
from groundup.align.best_of_n import kl_bound
from groundup.align.prompts import load_prompts
from groundup.app.cli import main
from groundup.errors import UserError
from groundup.experiments.config import (
    OveroptimizationConfig,
    SentimentConfig,
    ShortestPathsConfig,
)
from groundup.experiments.overoptimization_laws import (
    BEST_OF_N,
    RL,
    Curve,
    Law,
    block_length,
    by_choice,
    by_iteration,
    counts,
    fit,
    fitted,
    predict,
)
from groundup.experiments.overoptimization_models import Builder, Proxy
from groundup.experiments.overoptimization_report import (
    METHODS,
    Cell,
    Found,
    ensemble_plot,
    plot,
    remarks,
    table,
)
from groundup.formats.folder import save_model
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.maths.intervals import Interval
from groundup.runs.files import read_lines
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer

# The paper's equations, written out once more.
EQUATIONS: dict[str, Callable[[Any, float, float], Any]] = {
    "best of n": lambda d, alpha, beta: alpha * d - beta * d**2,
    "RL": lambda d, alpha, beta: alpha * d - beta * d * np.log(d),
}
LAWS = pytest.mark.parametrize("law", [BEST_OF_N, RL], ids=lambda law: law.name)
D = np.linspace(0.2, 5, 25)
HALF = 2.5


def noisy(law: Law, alpha: float, beta: float, d: Any, noise: float, seed: int = 0) -> Any:
    error = noise * np.random.default_rng(seed).standard_normal(len(d))
    return EQUATIONS[law.name](d, alpha, beta) + error


# The laws.


@LAWS
@given(alpha=st.floats(-3, 3), beta=st.floats(-3, 3))
def test_a_law_is_recovered(law: Law, alpha: float, beta: float) -> None:
    found = fit(law, D, EQUATIONS[law.name](D, alpha, beta))
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=1e-6)
    assert found(D) == pytest.approx(EQUATIONS[law.name](D, alpha, beta), abs=1e-5)
    assert found(np.zeros(1)) == pytest.approx([0])


@LAWS
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.1), (0.08, 0.05), (0.5, 0.3)])
def test_the_peak_is_where_the_law_is_highest(law: Law, alpha: float, beta: float) -> None:
    grid = np.linspace(1e-3, 60, 600_001)
    highest = grid[EQUATIONS[law.name](grid, alpha, beta).argmax()]
    assert law.peak(alpha, beta) == pytest.approx(highest, abs=1e-3)


@LAWS
def test_a_law_without_a_decline_has_no_peak(law: Law) -> None:
    assert law.peak(0.1, 0.0) == law.peak(0.1, -0.2) == np.inf
    assert law.peak(-0.1, 0.0) == 0
    assert law.peak(1.0, 1e-9) > 1e8  # and no overflow


@LAWS
def test_intervals_have_about_their_stated_coverage(law: Law) -> None:
    alpha, beta, inside = 0.3, 0.1, []
    for seed in range(40):
        gains = noisy(law, alpha, beta, D, 0.05, seed)

        def redraw(rng: np.random.Generator, gains: Any = gains) -> Any:
            some = rng.integers(0, len(D), len(D))
            return D[some], gains[some]

        found = fitted(law, D, gains, redraw)
        assert found.alpha.low <= found.best.alpha <= found.alpha.high
        inside.append(found.alpha.low <= alpha <= found.alpha.high)
    assert 0.8 <= np.mean(inside) <= 1


@LAWS
def test_a_prediction_uses_only_the_nearer_half(law: Law) -> None:
    gains = noisy(law, 0.4, 0.15, D, 0.01)
    told = predict(law, D, gains)
    assert told is not None
    near = D <= HALF
    assert (told.seen, told.unseen) == (near.sum(), (~near).sum())
    # More distant points are scored, and do not change the remarks.
    changed = predict(law, D, np.where(near, gains, gains + 7))
    assert changed is not None and changed.fit == told.fit
    assert changed.error == pytest.approx(7, abs=0.5) and told.error < 0.2
    expected = EQUATIONS[law.name](D[~near], told.fit.alpha, told.fit.beta)
    assert told.error == pytest.approx(np.sqrt(np.mean((gains[~near] - expected) ** 2)))
    level = gains[near & (D > HALF / 2)].mean()
    assert told.constant == pytest.approx(np.sqrt(np.mean((gains[~near] - level) ** 2)))


def test_too_few_points_give_no_prediction() -> None:
    assert predict(RL, np.array([0.0, 1.0, 5.0]), np.array([0.0, 1.0, 1.0])) is None
    assert predict(RL, np.zeros(5), np.zeros(5)) is None


# The two ways.


def test_the_best_by_gold_gains_as_much_as_its_proxy() -> None:
    gold = np.random.default_rng(0).random((6, 16))
    curve = by_choice(gold[None], gold)
    assert counts(16) == [1, 2, 3, 4, 6, 8, 12, 16] and counts(5) == [1, 2, 3, 4, 5]
    assert curve.d == pytest.approx([np.sqrt(kl_bound(n)) for n in counts(16)])
    assert curve.gold == pytest.approx(curve.proxy) and curve.gold[0] == 0
    assert curve.reached == pytest.approx((gold.max(1) - gold.mean(1)).mean())


def test_an_uninformative_proxy_gains_nothing_and_its_opposite_loses() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random((200, 16))
    by_chance = by_choice(rng.random((2, 200, 16)), gold)
    assert abs(by_chance.reached) < 0.05 and by_chance.proxy[-1] > 0.3
    assert by_choice(-gold[None], gold).reached == pytest.approx(
        (gold.min(1) - gold.mean(1)).mean()
    )


def test_prompts_of_one_group_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    scores, gold = rng.random((2, 10, 16)), rng.random((10, 16))
    # Five copies of each prompt say no more than one.
    copies = np.repeat(scores, 5, axis=1), np.repeat(gold, 5, axis=0)
    groups = [f"group {i // 5}" for i in range(50)]
    once, grouped, alone = by_choice(scores, gold), by_choice(*copies, groups), by_choice(*copies)
    for name in ("alpha", "beta", "peak", "rise"):
        truth, found = getattr(once.fitted, name), getattr(grouped.fitted, name)
        assert (found.low, found.high) == pytest.approx((truth.low, truth.high))
    wide, narrow = once.fitted.alpha, alone.fitted.alpha
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    # A single group cannot be resampled.
    assert by_choice(*copies, ["all"] * 50).fitted.alpha == alone.fitted.alpha


def rollout(kl: float, gold: float, reward: float) -> dict[str, Any]:
    return {"exact_kl": kl, "gold": gold, "reward": reward}


def test_a_policys_points_are_its_iterations_by_distance() -> None:
    lines = [
        rollout(0, 0.8, 0.1),
        rollout(0, 0.82, 0.3),
        rollout(9, 0.7, 2.2),
        rollout(4, 0.9, 1.2),
    ]
    curve = by_iteration(lines, base=0.8)
    assert curve.d == pytest.approx([0, 0, 2, 3])
    assert curve.gold == pytest.approx([0, 0.02, 0.1, -0.1])
    assert curve.proxy == pytest.approx([-0.1, 0.1, 1.0, 2.0])
    assert curve.reached == pytest.approx(np.mean([0.02, 0.1, -0.1]))


def course(alpha: float, beta: float, noise: float = 0.001) -> Curve:
    gains = noisy(RL, alpha, beta, D, noise)
    return by_iteration(
        [rollout(d**2, 0.8 + gain, d) for d, gain in zip(D, gains, strict=True)], base=0.8
    )


def test_a_curve_turns_if_its_peak_is_significantly_inside() -> None:
    turning, rising = course(0.1, 0.08), course(0.1, 0.01)
    assert turning.turns and turning.fitted.peak.estimate == pytest.approx(np.exp(0.25), abs=0.1)
    assert turning.highest == pytest.approx(0.08 * np.exp(0.25), abs=0.005)
    assert not rising.turns
    assert rising.highest == pytest.approx(EQUATIONS["RL"](5.0, 0.1, 0.01), abs=0.005)


def falling() -> Curve:
    """Gold that never rises: from +0.01 to -1.05 in 14 iterations, accelerating."""
    d = np.linspace(0, 4, 14)
    gold = 0.8 + 0.01 - 1.06 * (d / 4) ** 2
    lines = [rollout(x**2, gain, x) for x, gain in zip(d, gold, strict=True)]
    return by_iteration(lines, base=0.8)


def test_a_falling_curve_does_not_turn() -> None:
    curve = falling()
    # The law has a peak before the first points, and a gain there.
    assert 0 < curve.fitted.peak.high < curve.d[-1] and curve.highest > 0
    assert curve.fitted.rise.low <= 0 and not curve.turns


def test_successive_iterations_are_resampled_together() -> None:
    """A drift has wider intervals than the same points if independent."""
    assert [block_length(points) for points in (1, 8, 14, 27)] == [1, 2, 3, 3]
    d = np.linspace(0.2, 5, 40)
    drift = np.cumsum(np.random.default_rng(0).standard_normal(40)) * 0.02
    gains = EQUATIONS["RL"](d, 0.3, 0.1) + drift

    def alone(rng: np.random.Generator) -> Any:
        some = rng.integers(0, 40, 40)
        return d[some], gains[some]

    curve = by_iteration([rollout(x**2, y, x) for x, y in zip(d, gains, strict=True)], base=0.0)
    apart = fitted(RL, d, gains, alone)
    for wide, narrow in ((curve.fitted.alpha, apart.alpha), (curve.fitted.beta, apart.beta)):
        assert wide.high - wide.low > 1.1 * (narrow.high - narrow.low)


# Remarks.


def cell(size: str, labels: int, alpha: float, beta: float, *, tried: bool = True) -> Cell:
    curve = course(alpha, beta)
    ppo = curve if tried else None
    return Cell(size, labels, 1000, Interval(0.7, 0.65, 0.75), curve, curve, ppo)


CELLS = [
    cell("1x64", 10, 0.02, 0.08, tried=False),
    cell("1x64", 20, 0.05, 0.08),
    cell("2x128", 10, 0.1, 0.08),
    cell("2x128", 20, 0.1, 0.01),
]
FOUND = Found(CELLS, CELLS[2], course(0.1, 0.02), 0.8, 12, 3, 16, 64)


def test_remarks_follow_from_the_numbers() -> None:
    said = " ".join(remarks(FOUND))
    assert "Best of n: gold rises and falls again in 3 of 4 cells" in said
    assert "PPO: gold rises and falls again in 2 of 3 cells" in said
    assert "no overoptimization is seen up to 5.0 √nats" in said
    assert "than with the smallest at 2 of 2 numbers of labels" in said  # best of n
    assert "than with the smallest at 1 of 1 numbers of labels" in said  # PPO
    assert "than with the fewest at 2 of 2 sizes" in said and "at 1 of 1 sizes" in said
    assert "at gold +0." in said
    # Of one size, or one number of labels, the other is compared; of one cell nothing.
    of_size, of_labels = "than with the smallest at", "than with the fewest at"
    for cells, by in (
        (CELLS[2:], of_labels),
        ([CELLS[1], CELLS[3]], of_size),
        ([CELLS[2]], None),
    ):
        said = " ".join(remarks(replace(FOUND, cells=cells)))
        assert [one for one in (of_size, of_labels) if one in said] == ([by] if by else [])
        assert "of 0" not in said and ("which all reached" in said) == (by is not None)
    turned = replace(FOUND, cells=[*CELLS[:3], cell("2x128", 20, 0.1, 0.08)])
    assert "no overoptimization" not in " ".join(remarks(turned))
    fallen = replace(FOUND, cells=[*CELLS[:3], replace(CELLS[3], ppo=falling())])
    said = " ".join(remarks(fallen))
    assert "PPO: gold rises and falls again in 2 of 3 cells" in said
    assert "gold has fallen by" in said and "without a certain rise before" in said
    [_, policies] = (table(FOUND, method) for method in METHODS)
    assert any(
        "blocks of 3 successive iterations of that one seed" in one for one in policies.remarks
    )


def test_a_table_has_a_row_for_each_cell_and_the_ensemble() -> None:
    choice, policies = (table(FOUND, method) for method in METHODS)
    assert len(choice.lines) == 4 and len(policies.lines) == 3 + 1
    assert choice.lines[3][5] == "–" and choice.lines[0][5] != "–"
    assert "ensemble of 3" in policies.lines[-1][0]
    alone = replace(FOUND, ppo_ensemble=None, seeds=1)
    assert len(table(alone, METHODS[1]).lines) == 3
    assert "together" not in " ".join(remarks(alone))


def test_plots_have_a_column_for_each_size_with_the_raw_points() -> None:
    for method, drawn in ((method, plot(FOUND, method).figure) for method in METHODS):
        assert [axes.get_title()[:5].rstrip(",") for axes in drawn.axes[:2]] == ["1×64", "2×128"]
        dots = [
            line for axes in drawn.axes for line in axes.get_lines() if line.get_marker() == "o"
        ]
        assert len(dots) == 2 * len(method.tried(FOUND))
        assert all(len(line.get_xdata()) == len(D) for line in dots)
    assert len(ensemble_plot(FOUND).figure.axes) == 2


# The experiment.


def test_prompts_are_stored_with_their_answers_and_groups(workshop: Any, tmp_path: Path) -> None:
    builder = Builder(
        OveroptimizationConfig(
            out=tmp_path,
            model=workshop.finished("sft"),
            data=workshop.data,
            sources=("colours",),
            max_new_tokens=8,
        )
    )
    builder.ask()
    sides = load_prompts(workshop.data, builder.tokenizer, longest=builder.longest)
    for name, side in zip(("asked.jsonl", "heldout.jsonl"), sides, strict=True):
        read = load_prompts(tmp_path / name, builder.tokenizer, longest=builder.longest)
        found = {one.ids: one for some in read for one in some}
        assert len(found) == len(side) and all(one.row["answer"] for one in side)
        for one in side:
            kept = found[one.ids]
            assert (kept.messages, kept.source, kept.group) == (
                one.messages,
                one.source,
                one.group,
            )
            assert kept.row["answer"] == one.row["answer"]
    # An earlier version stored none of these.
    last = tmp_path / "heldout.jsonl"
    kept_rows = map(json.loads, last.read_text().splitlines())
    rows = [{"messages": row["messages"], "source": row["source"]} for row in kept_rows]
    last.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"is from an earlier version .* choose another --out"):
        builder.ask()


def test_a_proxys_sample_of_the_labels(workshop: Any, tmp_path: Path) -> None:
    """The requested number, smaller samples within larger ones, and different ones by seed."""
    builder = Builder(
        OveroptimizationConfig(
            out=tmp_path, model=workshop.finished("sft"), data=workshop.data, max_new_tokens=8
        )
    )
    made = tmp_path / "labels" / "preferences"
    made.mkdir(parents=True)
    rows = [
        {"prompt": f"{i // 3}?", "chosen": "yes" * (1 + i % 3), "rejected": "no"} for i in range(60)
    ]
    (made / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    heldout = made / "heldout.jsonl"
    heldout.write_text("")

    def drawn(labels: int, seed: int) -> list[Any]:
        folder = builder.comparisons(Proxy("1x64", labels, seed))
        text = (folder / "preferences" / "train.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    with pytest.raises(UserError, match="all answers to held-out prompts the same"):
        drawn(6, 0)
    heldout.write_text(json.dumps(rows[0] | {"prompt": "held out?"}) + "\n")
    small, large, other = drawn(6, 0), drawn(30, 0), drawn(6, 1)
    assert len(small) == 6 and len(large) == 30 and large[:6] == small and other != small
    with pytest.raises(UserError, match="1000 is more than the 60"):
        drawn(1000, 0)


@pytest.mark.parametrize(
    ("depth", "width", "sizes"),
    [(1, 64, ["1x64"]), (2, 128, ["1x64", "2x128"]), (3, 128, ["1x64", "2x128", "3x128"])],
)
def test_proxies_are_smaller_than_the_model_with_their_own_body(
    tmp_path: Path, depth: int, width: int, sizes: list[str]
) -> None:
    model = CausalLM(ModelConfig.of(width=width, depth=depth, vocab_size=320, context=64))
    model.initialize(0)
    tokenizer = Tokenizer.from_bpe(train_bpe(["a tale of the sea"], 320))
    save_model(tmp_path / "model", model, tokenizer, card="")
    config = OveroptimizationConfig(
        out=tmp_path / "out", model=tmp_path / "model", data=tmp_path, max_new_tokens=8
    )
    builder = Builder(config)
    assert builder.bodies == sizes
    parameters = [builder.parameters(one) for one in sizes]
    assert parameters == sorted(set(parameters))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["overoptimization", "m", "--data", "d", "--episodes", "2"], "4 minibatches of PPO"),
        (["frontier", "m", "--episodes", "3"], "episodes=3 must be at least 4, to fill the 4 mini"),
        (["shortest-paths", "--episodes", "100"], "try episodes=96"),
        (["sentiment", "--kl-coef", "0"], "invalid for DPO: it must be at least 1e-06"),
    ],
    ids=lambda value: value[0],
)
def test_settings_that_a_later_stage_would_reject_are_rejected_at_once(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "d").mkdir()
    assert main(words if words[0] == "frontier" else ["experiment", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and told in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "m"]


def test_settings_that_all_stages_accept_are_accepted() -> None:
    out = Path("out")
    assert ShortestPathsConfig(out=out, episodes=100, methods=("ppo",)).episodes == 100
    assert SentimentConfig(out=out, kl_coef=0.0, methods=("ppo", "grpo")).kl_coef == 0


@pytest.mark.long
def test_the_experiment_in_miniature(workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "groundup", "experiment", "overoptimization"]
    command += [str(workshop.finished("sft")), "--data", str(workshop.data), "--sources", "*"]
    command += ["--gold", "format:blue|black", "--max-new-tokens", "8", "--quick"]
    command += ["--threads", "1", "--out", str(out)]

    def started() -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    started()
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    # The model is as small as the smallest proxy: there is one size.
    assert len(result["data"]["cells"]) == 2 and result["data"]["ppo_against_ensemble"]
    lines = read_lines(out / "policies" / "1x64-16-0" / "metrics.jsonl")
    kl = [line["exact_kl"] for line in lines if line["kind"] == "rollout"]
    points = next(
        one["ppo"]["d"]
        for one in result["data"]["cells"]
        if (one["size"], one["labels"]) == ("1x64", 16)
    )
    assert points == pytest.approx(sorted(np.sqrt(np.maximum(kl, 0))))
    # Lost files are recreated, and nothing else.
    kept = out / "proxies" / "1x64-8-0" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    forget_finished(out)
    (out / "scores" / "1x64-8-1.json").unlink()
    started()
    assert kept.stat().st_mtime_ns == before
    again = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert again["data"] == result["data"]
