"""Crossings of curves, loss by position, saved state, and the plan of the runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from groundup.app.stages import EXPERIMENTS
from groundup.errors import UserError
from groundup.experiments.transformers.cells import Cell, History, trained
from groundup.experiments.transformers.config import ScalabilityConfig
from groundup.experiments.transformers.findings import conclusions, over
from groundup.experiments.transformers.language import WindowStream
from groundup.experiments.transformers.models import Architecture, recurrent, transformer
from groundup.experiments.transformers.scalability import crossing, positions, runs
from groundup.experiments.transformers.scalability.costs import kept_bytes, settings
from groundup.experiments.transformers.scalability.crossing import Curve, Family, Race, sentence
from groundup.experiments.transformers.scalability.positions import Compared, by_position
from groundup.runs.files import write_sealed
from pages import assert_self_contained

USED = [1.0, 4.0, 16.0, 64.0]


def falling(start: float, slope: float) -> Curve:
    """A loss that falls by `slope` with each factor e of the budget: a line over its logarithm."""
    return Curve(USED, [start - slope * math.log(one) for one in USED])


# Crossings.


def race_of(text: str, unit: str, lstm: Family, gpt: Family) -> Race:
    race = Race.of(text, unit, lstm, gpt)
    assert race is not None
    return race


def test_lines_cross_where_their_equations_say() -> None:
    # 3 - 0.1 ln C = 4 - 0.5 ln C at ln C = 2.5, and with the other seed at ln C = 2.
    race = race_of(
        "text",
        "s",
        [[falling(3.0, 0.1)], [falling(3.2, 0.1)]],
        [[falling(4.0, 0.5)], [falling(4.0, 0.5)]],
    )
    assert race.crossings == pytest.approx([math.exp(2.5), math.exp(2.0)])
    assert race.winners == ["GPT", "GPT"]
    assert (race.budgets[0], race.budgets[-1]) == pytest.approx((1.0, 64.0))
    said = sentence(race)
    assert "9.49 s" in said and "GPT is ahead" in said  # exp(2.25)
    assert "of the best LSTM with every seed, from 9.49 s (" in said
    # Student's t of one degree of freedom on 2 and 2.5.
    assert crossing.where(race).startswith("9.49 s (") and len(crossing.tested(race)) == 2


def test_no_crossing_is_reported_without_one() -> None:
    race = race_of("text", "s", [[falling(3.0, 0.1)]] * 2, [[falling(3.5, 0.1)]] * 2)
    assert race.crossings == [None, None] and race.winners == ["LSTM", "LSTM"]
    assert "no crossing in this budget" in sentence(race) and "LSTM is ahead" in sentence(race)
    assert crossing.table([race]).rows[-1].cells[-1].value == "none"


def test_disagreeing_seeds_give_no_crossing() -> None:
    race = race_of(
        "text",
        "s",
        [[falling(3.0, 0.1)], [falling(3.0, 0.1)]],
        [[falling(4.0, 0.5)], [falling(5.0, 0.5)]],
    )
    assert [one is None for one in race.crossings] == [False, True]
    assert race.winners == ["GPT", "LSTM"]
    assert "is not determined" in sentence(race)


def test_one_seed_shows_no_lead() -> None:
    for start, slope in ((4.0, 0.5), (3.5, 0.1)):  # one that crosses, and one that does not
        race = race_of("text", "s", [[falling(3.0, 0.1)]], [[falling(start, slope)]])
        said = sentence(race)
        assert said.startswith("One seed allows no conclusion") and "ahead" not in said


def test_of_several_crossings_the_last_one_counts() -> None:
    budgets = np.array([1.0, 2.0, 4.0, 8.0])
    assert crossing.last_change(budgets, np.array([1.0, -1.0, -1.0, 1.0])) == pytest.approx(
        math.sqrt(32)
    )
    assert crossing.last_change(budgets, np.array([1.0, 1.0, 0.5, 2.0])) is None


def test_the_frontier_ends_where_a_best_size_ends() -> None:
    small, slow = Curve([1.0, 10.0], [3.0, 2.9]), Curve([5.0, 50.0], [3.5, 2.0])
    race = race_of("text", "s", [[small, slow]], [[small, slow]])
    assert (race.budgets[0], race.budgets[-1]) == pytest.approx((1.0, 10.0))
    assert race.lstm[0, 0] == 3.0 and race.lstm[0, -1] == pytest.approx(2.9)
    # A large one that has overtaken the small one continues alone.
    fast = Curve([5.0, 50.0], [3.5, 1.0])
    race = race_of("text", "s", [[small, fast]], [[small, fast]])
    assert (race.budgets[0], race.budgets[-1]) == pytest.approx((1.0, 50.0))
    assert race.lstm[0, -1] == 1.0 and np.isfinite(race.lstm).all()
    # One that is the best from its first look on might have been so before.
    begun = Curve([5.0, 50.0], [2.0, 1.0])
    assert crossing.reach([small, begun]) == (5.0, 50.0)


def test_sizes_without_a_common_budget_are_not_compared() -> None:
    early, late = Curve([1.0, 2.0], [3.0, 2.9]), Curve([2.0, 4.0], [3.5, 2.0])
    assert Race.of("text", "s", [[early]], [[late]]) is None


# Positions.


def test_bins_double() -> None:
    read = np.array([1, 2, 3, 4, 5, 8, 9, 128, 129, 256])
    assert positions.bin_of(read).tolist() == [0, 1, 2, 2, 3, 3, 4, 7, 8, 8]
    assert positions.edges(256) == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_losses_are_sorted_by_document_and_position() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, size=60)
    tokens[[0, 7, 30, 44]] = 0
    starts, found = np.array([2, 18, 34]), rng.random((3, 16))
    made = by_position(found, tokens, starts)
    sums, counts = np.zeros((4, 5)), np.zeros((4, 5), int)
    for row, start in enumerate(starts):
        for place in range(16):
            target = start + place + 1
            document = int((tokens[: target + 1] == 0).sum()) - 1
            bin_ = next(n for n in range(5) if place + 1 <= 2**n)
            sums[document, bin_] += found[row, place]
            counts[document, bin_] += 1
    assert made["counts"] == counts.tolist()
    assert np.array(made["sums"]) == pytest.approx(sums, abs=1e-4)


def test_the_models_are_compared_document_by_document() -> None:
    rng = np.random.default_rng(1)
    counts = np.full((40, 6), 5)
    hard = rng.random((40, 1)) * 50  # documents differ by far more than models do
    lstm = {"sums": (hard + 5.0 + np.zeros((40, 6))).tolist(), "counts": counts.tolist()}
    gain = np.array([0, 0, 0, 0, 0, 1.0])
    gpt = {"sums": (hard + 5.0 - gain * (1 + 0.1 * rng.random((40, 1)))).tolist()}
    gpt["counts"] = counts.tolist()
    found = Compared("text", [lstm, lstm], [gpt, gpt])
    assert found.title(0) == "1" and found.title(5) == "17–32"
    ahead, gains, *_ = positions.tested(found)
    assert ahead.mark == "yes" and gains.mark == "yes"
    assert ahead.measured.estimate == pytest.approx(
        found.nats("GPT").mean(0)[-1] - found.nats("LSTM").mean(0)[-1]
    )
    assert ahead.measured.groups == 40 and -0.25 < ahead.measured.low < ahead.measured.high < -0.19

    # Another GPT is as far behind: documents agree, and seeds do not.
    behind = {"sums": (2 * np.array(lstm["sums"]) - np.array(gpt["sums"])).tolist()}
    behind["counts"] = counts.tolist()
    mixed = Compared("text", [lstm] * 3, [gpt, gpt, behind])
    ahead, *_ = positions.tested(mixed)
    of_seeds = over((mixed.nats("GPT") - mixed.nats("LSTM"))[:, -1].tolist())
    assert ahead.mark == "open" and ahead.measured.estimate < -0.05
    assert (ahead.measured.low, ahead.measured.high) == pytest.approx((of_seeds.low, of_seeds.high))
    # One model of each kind shows nothing, however many documents agree.
    claims = positions.tested(Compared("text", [lstm], [gpt]))
    assert {one.mark for one in claims} == {"open"}
    [said] = conclusions(claims)
    assert said.startswith("One seed allows no conclusion: on text the largest GPT predicts")


# Memory.


def test_a_cache_grows_with_the_text_and_a_state_does_not() -> None:
    lstm = recurrent("lstm", width=32, depth=2, vocab_size=64, context=48)
    gpt = Architecture(transformer(width=32, depth=2, heads=2, vocab_size=64, context=48))
    assert [kept_bytes(lstm, n) for n in (1, 48)] == [2 * 2 * 32 * 4] * 2
    assert [kept_bytes(gpt, n) for n in (1, 48)] == [2 * 2 * 32 * 4 * n for n in (1, 48)]


# Runs.


def test_sizes_of_both_families_are_similar() -> None:
    both = [
        [runs.inner_parameters(one) for one in runs.architectures(kind, runs.VOCAB, False)]
        for kind in runs.KINDS
    ]
    for lstm, gpt, about in zip(*both, (2.6e4, 1e5, 3.2e5, 1e6), strict=True):
        assert 0.8 < lstm / gpt < 1.25 and 0.9 < lstm / about < 1.25
    make = runs.architectures("GPT", runs.VOCAB, True)[0]
    embeddings = make(0).model.embed_tokens.weight.numel()
    assert runs.inner_parameters(make) == make.parameters - embeddings


def test_steps_are_saved_and_checked(tmp_path: Path) -> None:
    config = ScalabilityConfig(out=tmp_path)
    steps = {"LSTM": [400, 300, 200, 100], "GPT": [500, 400, 300, 200]}
    write_sealed(tmp_path / runs.STEPS_FILE, {"steps": steps})
    text = runs.Material(np.arange(9), np.arange(9), 64)
    assert runs.planned(config, text) == steps
    write_sealed(tmp_path / runs.STEPS_FILE, {"steps": {"LSTM": [0], "GPT": []}})
    with pytest.raises(UserError, match="steps"):
        runs.planned(config, text)


def test_everything_is_timed_on_the_cpu(tmp_path: Path) -> None:
    assert settings(tmp_path, 1).device == "cpu"


def test_an_evaluation_equals_the_end_of_a_shorter_run(tmp_path: Path) -> None:
    """The rate is constant after warmup, so one run gives the loss of all shorter ones."""
    config = ScalabilityConfig(out=tmp_path, threads=1)
    tokens = np.random.default_rng(0).integers(64, size=500)
    text = runs.Material(tokens, tokens, 64)
    make = recurrent("lstm", width=16, depth=1, vocab_size=64, context=8)

    def cell(name: str, steps: int, looks: tuple[int, ...]) -> Cell:
        return Cell(
            name,
            make,
            WindowStream(text.train, 8, 2, 0),
            0,
            steps=steps,
            rows=2,
            context=8,
            rate=0.01,
            measure=lambda model, step: {"weight": float(model.head.detach().sum())},
            measured_at=looks,
            warmup=1 / steps,
            decay=0.0,
        )

    long = trained(config, cell("long", 8, (2, 5)))
    assert [line["step"] for line in long.measured] == [2, 5, 8]
    short = trained(config, cell("short", 5, ()))
    assert short.end["weight"] == long.measured[1]["weight"]


def test_a_slow_minute_of_one_seed_does_not_affect_its_curve() -> None:
    """All seeds of a size have the same seconds per step: the median over all of them."""
    looks = [{"step": 2, "loss": 3.0}, {"step": 4, "loss": 2.0}]
    paces = (0.5, 0.5, 2.0)
    histories = [History(looks, [{"seconds": pace}] * 4) for pace in paces]
    make = recurrent("lstm", width=16, depth=1, vocab_size=64, context=8)
    curves = runs.Run("LSTM", "world", make, histories).curves_by("s")
    assert [curve.used for curve in curves] == [[1.0, 2.0]] * len(paces)


@pytest.mark.long
def test_scalability_in_miniature(tmp_path: Path) -> None:
    stage = EXPERIMENTS["scalability"]
    out = stage.run(stage.config(out=tmp_path / "out", quick=True, threads=1))
    found = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert found["experiment"] == "scalability" and found["claims"] and found["remarks"]
    assert_self_contained((out / "report.html").read_text(encoding="utf-8"))
    assert len(found["data"]["races"]) == 2 and len(found["data"]["runs"]) == 4
    kept = found["data"]["costs"]["bytes"]
    assert len(set(kept["LSTM"].values())) == 1 and kept["GPT"]["32"] == 2 * kept["GPT"]["16"]
