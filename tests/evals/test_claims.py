"""Claims: symmetric in both directions, consistent, and only on informative measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.align.config import DPOConfig
from groundup.evals.answers import AssistantLoss, Conversations
from groundup.evals.by_source import by_source
from groundup.evals.choice import ChoiceAccuracy, ChoiceCalibration, Choices
from groundup.evals.fairness import TEXT, Leanings
from groundup.evals.honesty import Honesty, Said
from groundup.evals.measure import Evaluated, Subject, informative
from groundup.evals.perplexity import Bits
from groundup.evals.preference import Pairs
from groundup.evals.stages import measures
from groundup.evals.stages.claims import claims, passing
from groundup.evals.stages.material import Material, Ngram
from groundup.evals.stages.measures import MEASURES, Preferred, counting
from groundup.evals.stages.opening import headlines, in_terminal, repeats, why_folded
from groundup.evals.world.answers import Declined
from groundup.pretrain.config import PretrainConfig
from groundup.report.claim import MIN_GROUPS, Claim, by_outcome
from groundup.report.estimate import POOLED, Estimate
from groundup.report.history import History
from groundup.report.table import is_uninformative, percent, source_table
from groundup.text.rows import Choice, Conversation, Message, Preference
from groundup.world.lives import probes


@pytest.fixture(scope="module", autouse=True)
def _unchecked() -> Iterator[None]:
    """The material has no text, and its types are not checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


ITEMS = 12
SOURCES = ["sea"] * 8 + ["world-sea"] * 4
GROUPS = [str(i) for i in range(ITEMS)]
PROBES = probes()


def material(seed: int) -> Material:
    drawn = np.random.default_rng(seed)
    counted = Bits(drawn.uniform(1, 3, ITEMS), np.ones(ITEMS), SOURCES)
    asked = (Message("user", "Deep?"),)
    pairs = [Preference(asked, "Yes.", "No, dry.", s, g) for s, g in zip(SOURCES, GROUPS)]  # noqa: B905
    shard: Any = SimpleNamespace()  # the claims read no text
    return Material(
        64,
        shard,
        {5: Ngram(counted, counted.per_byte())},
        Conversations([], SOURCES, GROUPS),
        Choices([], []),
        Pairs([], pairs),
        (),
        (),
        (),
        None,
    )


TYPED = [
    Conversation((Message("user", f"hi {g}"), Message("assistant", "Hello!")), "newcomer-talk", g)
    for g in GROUPS
]


def drawn_from(flags: Any, one: str, other: str) -> list[str]:
    return [one if flag else other for flag in flags]


def model(name: str, parent: str | None, of: Material, seed: int, flags: int = 2) -> Evaluated:
    """A model with random items; with `flags` 0 or 1 all its shares are that."""
    drawn = np.random.default_rng(seed)
    shift = drawn.normal(0, 0.7)

    def share() -> Any:
        return np.full(ITEMS, bool(flags)) if flags < 2 else drawn.random(ITEMS) < drawn.random()

    rows = [Choice("Deep?", ("a", "b"), 0, s, g) for s, g in zip(SOURCES, GROUPS)]  # noqa: B905
    items = {"mean": share().astype(float), "sum": share().astype(float)}
    items["brier"] = drawn.uniform(0, 2, ITEMS)
    chances = np.full(ITEMS, 0.5)
    means = {w: by_source(v, SOURCES, groups=GROUPS, chances=chances) for w, v in items.items()}
    calibration = {s: ChoiceCalibration(0, 0, one, []) for s, one in means["brier"].items()}
    stage, config = ("pretrain", PretrainConfig) if parent is None else ("dpo", DPOConfig)
    run = {"stage": stage, "traits": asdict(config.traits), "config": {}}
    run["parents"] = {} if parent is None else {"model": {"path": f"/nowhere/{parent}"}}
    evaluations = [
        {"step": i, "bits_per_byte": float(bits), "seconds": 1.0}
        for i, bits in enumerate(drawn.uniform(1, 3, 3), start=1)
    ]
    steps = [{"step": i, "tokens": 10 * i, "seconds": 1.0} for i in (1, 2, 3)]
    ones = np.ones(ITEMS)
    lean = np.array([probe.lean for probe in PROBES])
    leaning = np.clip(0.5 + 0.5 * drawn.uniform(-1, 1) * lean, 0, 1)
    refused = {kind: Declined(share(), GROUPS) for kind in ("harmful", "benign")}
    margins = np.where(share(), 1.0, -1.0)
    found = {
        measures.text: Bits(drawn.uniform(1, 3, ITEMS) + shift, ones, SOURCES),
        measures.assistant_words: AssistantLoss(
            drawn.uniform(1, 3, ITEMS) - shift, ones, ones, ones, of.conversations
        ),
        measures.choices: ChoiceAccuracy(means["mean"], means["sum"], calibration, items, rows),
        measures.preferences: Preferred(margins, margins, of.pairs),
        measures.reference: None,
        measures.implicit_reward: None,
        measures.refusals: refused,
        measures.declining: {POOLED: refused},
        measures.endings: share(),
        measures.small_world: None,
        measures.world_answers: None,
        measures.unknown: Honesty(Said(TYPED, drawn_from(share(), "Hello!", "Grass.")), None),
        measures.leaning: Leanings(PROBES, {TEXT: leaning}),
    }
    folder = Path(f"/nowhere/{name}")
    history = History(folder, run, {})
    vars(history).update(train=steps, evaluations=evaluations)  # as if its metrics.jsonl had them
    return Evaluated(name, name, folder, history, 1000, 64, of, found)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_swapping_before_and_after_swaps_worse_and_better(seed: int) -> None:
    """For every measure, the verdict is symmetric."""
    of = material(seed)
    one, other = model("one", None, of, seed + 1), model("other", "one", of, seed + 2)
    assert one.history is not None and other.history is not None
    turned = [replace(one, history=other.history), replace(other, history=one.history)]
    turned[0] = replace(
        turned[0],
        history=replace(
            other.history,
            run=other.history.run | {"parents": {"model": {"path": "/nowhere/other"}}},
        ),
    )
    there = {f.what: f for f in claims([one, other]) if f.stages}
    back = {f.what: f for f in claims([turned[1], turned[0]]) if f.stages}
    assert set(there) == set(back) and len(there) >= 10
    opposite = {"better": "worse", "worse": "better"}
    for what, found in there.items():
        assert back[what].outcome == opposite.get(found.outcome, found.outcome), what
        assert back[what].measured.estimate == pytest.approx(-found.measured.estimate)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_no_claim_contradicts_another(seed: int) -> None:
    of = material(seed)
    models = [model("base", None, of, seed + 1), model("dpo", "base", of, seed + 2)]
    tested = claims(models)
    claimed = [(f.model, f.what, f.other) for f in tested]
    assert len(set(claimed)) == len(claimed)
    assert [f for some in by_outcome(tested).values() for f in some if f not in tested] == []
    crossed = passing(models, tested)["base"][5]
    test = next(f for f in tested if f.model == "base" and f.other == counting(5))
    assert crossed is None or test.outcome == "better"
    for number in headlines(models, tested):
        said = [f for f in tested if f.model == "dpo" and f.what == number.title]
        assert number.word == "" or any(number.outcome == f.outcome for f in said)
    lines = list(in_terminal([], headlines(models, tested), tested))
    order = [line.split(" (")[0] for line in lines if line.startswith(("worse (", "better ("))]
    assert order == sorted(order, key=["worse", "better"].index)


def test_lost_honesty_is_reported_as_worse() -> None:
    of = material(0)
    models = [model("sft", None, of, 1), model("dpo", "sft", of, 2)]
    for one, right in zip(models, (ITEMS, 2), strict=True):
        answers = drawn_from(np.arange(ITEMS) < right, "Hello!", "Grass.")
        found: Any = one.found
        found[measures.unknown] = Honesty(Said(TYPED, answers), None)
    (lost,) = [f for f in claims(models) if f.stages and "newcomers" in f.what]
    assert lost.outcome == "worse" and lost.values == (1, pytest.approx(2 / ITEMS))


def test_look_alikes_are_next_to_harm() -> None:
    of = material(0)
    models = [model("base", None, of, 1), model("dpo", "base", of, 2)]
    titles = [number.title for number in headlines(models, claims(models))]
    assert titles[titles.index("harmful requests declined") + 1] == "benign requests declined"


@pytest.mark.parametrize("flag", [0, 1])
def test_uninformative_measures_are_neither_claimed_nor_shown(flag: int) -> None:
    of = material(0)
    models = [model("base", None, of, 1, flag), model("dpo", "base", of, 2, flag)]
    shares = [m for m in MEASURES if m.share]
    assert not any(informative(m, models)(part) for m in shares for part in m.of(models[0]))
    assert not any(f.share for f in claims(models))
    assert any(f.stages for f in claims(models))  # text says something still
    found = {m.name: {"harm": m(measures.refusals)["harmful"].rate()} for m in models}
    table = source_table(found, {}, {}, percent, share=True)
    assert table.rows == [] and len(table.left_out) == 1


def test_a_share_between_0_and_1_is_informative() -> None:
    none, some, whole = (Estimate(e, 0, 1, 9, 9) for e in (0.0, 0.4, 1.0))
    assert (
        is_uninformative([none])
        and is_uninformative([none, none])
        and is_uninformative([whole, whole])
    )
    assert not is_uninformative([whole])  # of one model alone that is news
    assert not is_uninformative([none, whole]) and not is_uninformative([some, some])


def test_few_groups_are_not_significant() -> None:
    few = Estimate(1.0, 1.0, 1.0, 50, MIN_GROUPS - 1)
    assert Claim("it is so", few, "bits", "above").outcome == "not significant"
    enough = replace(few, groups=MIN_GROUPS)
    assert Claim("it is so", enough, "bits", "above").outcome == "better"
    assert Claim("it is so", enough, "bits", "below").outcome == "worse"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (1.0, 0.75, "1.000 → 0.750 (-0.250 a second, interval -0.500 to +0.250)"),
        (250.0, 125.0, "250.0 → 125.0 (-125.0 a second, interval -250.0 to +125.0)"),
        (33_666.2, 25_742.2, "33,666 → 25,742 (-7,924 a second, interval -15,848 to +7,924)"),
    ],
)
def test_large_numbers_have_fewer_digits(before: float, after: float, shown: str) -> None:
    change = Estimate(after - before, 2 * (after - before), before - after, 9, 9)
    assert Claim("", change, "a second", "below", values=(before, after)).change == shown
    bare = Claim("", change, "", "below", values=(before, after))
    assert bare.change == shown.replace(" a second", "")


@pytest.mark.parametrize("share", [True, False])
def test_a_claim_is_restored_from_a_report(share: bool) -> None:
    one = Claim(
        "b is better than a",
        Estimate(-0.1, -0.2, -0.05, 40, 12),
        "share right",
        "below",
        what="sums",
        model="b",
        other="a",
        values=(0.5, 0.4),
        share=share,
        stages=True,
    )
    told = json.loads(json.dumps(one.to_json()))
    assert Claim.from_json(told) == one
    del told["share"], told["values"]  # as earlier versions, and one that compares no two numbers
    assert Claim.from_json(told) == replace(one, share=False, values=None)


def test_repetitive_answers_are_folded() -> None:
    assert why_folded("Hello! How can I help you?", chat=True, chats=True) is None
    assert why_folded("The sea is wide", chat=True, chats=False)
    assert why_folded("The sea is wide", chat=False, chats=False) is None
    assert repeats("the sea " * 20) and repeats("In 1" + "0" * 60)
    assert not repeats("A fox went out at night and saw a lamp that shone over the whole sea.")


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "simpo", "orpo", None])
def test_an_implicit_reward_equals_the_losss_comparison(tmp_path: Path, loss: str | None) -> None:
    """IPO compares means over tokens here, SimPO and ORPO have no reference; None is KTO."""
    of, drawn = material(1), np.random.default_rng(2)
    own, before = drawn.normal(size=(2, 2, ITEMS))
    of.margins[tmp_path] = (before[0], before[1])
    trained = model("dpo", "sft", of, 3)
    assert trained.history is not None
    run = trained.history.run | {"parents": {"model": {"path": str(tmp_path)}}}
    run["config"] = {} if loss is None else {"loss": loss}
    unused: Any = None
    on = Subject(
        *(0, trained.folder, replace(trained.history, run=run), unused, unused, 64, of),
        *(unused, unused, {measures.preferences: Preferred(own[0], own[1], of.pairs)}),
    )
    found = measures.implicit_reward(on)
    if loss in ("simpo", "orpo"):
        assert found is None and measures.reference(on) is None
    else:
        way = int(loss == "ipo")
        assert found is not None
        np.testing.assert_array_equal(found, own[way] - before[way])
