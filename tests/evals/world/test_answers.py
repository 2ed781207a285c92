"""The small world: texts judged by hand, and the whole stage on models trained on it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.data.config import TokenizerConfig
from groundup.data.corpus import heldout_documents
from groundup.data.files import write_json_lines
from groundup.data.tokenizer import run as train_tokenizer
from groundup.evals.config import EvalConfig
from groundup.evals.stages.material import HeldOut
from groundup.evals.world.aims import AIMS, Aim
from groundup.evals.world.answers import (
    Declined,
    Judged,
    World,
    judged,
    majority_answers,
    majority_judged,
)
from groundup.evals.world.stories import first_sentence, read_back
from groundup.text.rows import Conversation, Message
from groundup.world import conduct, pack, stories
from groundup.world.grammar import SeededRandom
from groundup.world.reading import read

STAGES = ("pretrain", "sft", "dpo")
BIAS = 0.5


# Texts, judged.


@pytest.fixture(scope="module")
def rows() -> list[Conversation]:
    """Held-out conversations of every source."""
    return [pack.conversation(0, i, heldout=True) for i in range(150)]


def test_right_answers_are_right(rows: list[Conversation]) -> None:
    found = judged(rows, [row.messages[-1].content for row in rows])
    assert all(one.estimate == 1 for one in found.accuracy().values())
    assert found.reward("total")["pooled"].estimate > 0.9
    assert found.mistakes() == {}


def test_other_answers_are_wrong(rows: list[Conversation]) -> None:
    right = judged(rows, [row.messages[-1].content for row in rows])
    wrong = judged(rows, ["Purple bananas." for _ in rows])
    accuracy = wrong.accuracy()
    for source in ("world-facts", "world-reading", "world-sums"):
        assert accuracy[source].estimate < 0.2
        assert accuracy[source].items == right.accuracy()[source].items
        gain = right.change(right.right() - wrong.right())[source]
        assert gain.low > 0.5
        told = wrong.mistakes()[source]
        assert 1 <= len(told) <= 3
        assert told[0]["said"] == "Purple bananas."
        assert told[0]["wanted"] in [row.messages[-1].content for row in rows]


def test_a_story_is_right_if_it_contains_everything_named() -> None:
    wish = Conversation(
        (Message("user", "Tell me a story about a fox and a drum."), Message("assistant", "")),
        "world-tell",
        "g",
    )
    told = ["Once there was a fox. It had a DRUM.", "A fox had a kite.", "Foxes drumming."]
    assert judged([wish] * 3, told).right().tolist() == [1, 0, 0]
    open_wish = replace(wish, messages=(Message("user", "Tell me a short story."),) * 2)
    assert np.isnan(judged([open_wish], told[:1]).right()).all()
    assert "world-tell" not in judged([open_wish], told[:1]).accuracy()


def test_a_story_keeps_the_requested_weather() -> None:
    drawn = (pack.conversation(0, i, heldout=True) for i in range(2_000))
    asked = (
        row for row in drawn if row.source == "world-tell" and "rain" in row.messages[0].content
    )
    row = next(asked)
    story = row.messages[-1].content
    other = next(one.messages[-1].content for one in asked if one.messages[0] != row.messages[0])
    assert judged([row, row], [story, other]).right().tolist() == [1, 0]


def test_conduct_has_a_reward_and_no_accuracy(rows: list[Conversation]) -> None:
    found = judged(rows, [row.messages[-1].content for row in rows])
    assert any(row.source == "world-conduct" for row in rows)
    assert "world-conduct" not in found.accuracy()
    assert found.reward("harmless")["world-conduct"].estimate == 1


def test_the_most_common_answer_is_a_poor_one(rows: list[Conversation]) -> None:
    world = World(rows, majority_answers(rows), [], [], BIAS)
    baseline = majority_judged(world)
    assert set(world.majority) == {row.source for row in rows}
    assert len(set(baseline.answers)) <= len(world.majority)
    assert 0 <= baseline.accuracy()["world-facts"].estimate < 0.5


def test_a_model_is_compared_with_the_baseline_row_by_row(rows: list[Conversation]) -> None:
    baseline = majority_judged(World(rows, majority_answers(rows), [], [], BIAS))
    same = Judged(rows, baseline.answers, baseline.rewards)
    assert same.change(same.right() - baseline.right())["world-reading"].high == 0


# Stories.


def _story(i: int) -> str:
    return stories.story(SeededRandom("to be read", i), heldout=True).text


def test_the_worlds_stories_parse_completely() -> None:
    found = read_back([_story(i) for i in range(20)])
    assert found.sentences.estimate == found.consistent.estimate == 1
    assert found.sentences.groups == found.consistent.items == 20
    assert found.sentences.low < 1
    assert found.strange == ()


def test_foreign_sentences_and_broken_stories_are_found() -> None:
    text = _story(0)
    foreign = f"{text} The parliament adjourned at noon."
    count = len(read(text).sentences)
    found = read_back([foreign])
    assert found.sentences.estimate == pytest.approx(count / (count + 1))
    assert found.strange == ("The parliament adjourned at noon.",)
    nothing = read_back(["", first_sentence(text)])
    assert nothing.consistent.estimate == 0


def test_given_text_does_not_count() -> None:
    text = _story(1)
    begun = first_sentence(text)
    assert text.startswith(begun)
    alone = read_back([f"{begun} Colourless green ideas sleep furiously."], given=1)
    assert alone.sentences.estimate == 0
    assert read_back([begun], given=1).sentences.estimate == 0
    assert read_back([text], given=1).sentences.estimate == 1


# Conduct.


def test_the_worlds_refusals_are_refusals_and_its_help_is_not() -> None:
    for i in range(40):
        one = conduct.conversation(SeededRandom("to be judged", i), heldout=True)
        asked, answer = one.messages
        assert conduct.declines(answer.content) == conduct.is_harmful(asked.content)
    assert conduct.declines("I'm sorry, but I can't assist with that.")


def test_declining_is_compared_request_by_request() -> None:
    acts = [str(i // 2) for i in range(40)]
    before = Declined(np.arange(40) % 2 == 0, acts)
    after = Declined(np.ones(40, bool), acts)
    assert (before.rate().estimate, after.rate().estimate) == (0.5, 1)
    assert after.rate().groups == 20
    assert after.above(before).low > 0.3
    assert after.above(after).high == 0


def test_an_aim_is_reached_from_its_own_side() -> None:
    world = {"accuracy": {"x": {"estimate": 0.92, "low": 0.9, "high": 0.94}}}
    assert Aim("", ("accuracy", "x"), 0.9).reached(world) is True
    assert Aim("", ("accuracy", "x"), 0.95).reached(world) is False
    assert Aim("", ("accuracy", "x"), 0.91).reached(world) is None  # the interval allows both
    assert Aim("", ("accuracy", "x"), 0.05, below=True).reached(world) is False
    assert Aim("", ("accuracy", "x"), 0.95, below=True).reached(world) is True
    assert Aim("", ("accuracy", "y"), 0.9).reached(world) is None
    assert Aim("", ("accuracy", "x")).reached(world) is None
    assert Aim("", ("declined", "harmful"), 0.9).of({}) is None


# The whole stage.


def _write_world(folder: Path) -> None:
    """A data folder of the world, with some human text."""
    real = [{"text": f"The sea is blue, said ship {i}. " * 9, "source": "sea", "id": f"s{i}"}
            for i in range(30)]  # fmt: skip
    asked = [
        {"prompt": f"Deep, ship {i}?", "completion": "Yes.", "source": "sea"} for i in range(9)
    ]
    pairs = [
        {"prompt": f"Deep, ship {i}?", "chosen": "Yes.", "rejected": "No, dry.", "source": "sea"}
        for i in range(9)
    ]
    refusals = [{"prompt": "Sink it.", "kind": "harmful", "source": "sea"}]
    refusals += [{"prompt": "Is it deep?", "kind": "benign", "source": "sea"}]
    for side, held, count in (("train", False, 120), ("heldout", True, 120)):
        of_world: dict[str, list[Any]] = {
            "documents": [pack.document(1, i, bias=BIAS, heldout=held) for i in range(count)],
            "conversations": [
                pack.conversation(1, i, bias=BIAS, heldout=held) for i in range(count)
            ],
            "preferences": [pack.preference(1, i, heldout=held) for i in range(count)],
            "refusals": pack.refusal_prompts()[185:215],
        }
        rest = {"documents": real, "conversations": asked, "preferences": pairs}
        for kind, rows in of_world.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            rows = [*rows, *rest.get(kind, refusals)]
            write_json_lines(folder / kind / f"{side}.jsonl", rows)
    facts = {"packs": [], "world": {"bias": BIAS}}
    (folder / "data.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def config(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> EvalConfig:
    """Three stages in miniature on the world, and their evaluation."""
    folder = tmp_path_factory.mktemp("small_world")
    data, tokenizer = folder / "data", folder / "tokenizer"
    _write_world(data)
    train_tokenizer(TokenizerConfig(out=tokenizer, data=data, vocab_size=768))
    changes: dict[str, Any] = {"data": data, "steps": 6}
    for stage in STAGES:
        own = {"tokenizer": tokenizer, "context": 256} if stage == "pretrain" else {}
        code, said = workshop.run_here(workshop.command(stage, folder / stage, **changes, **own))
        assert code == 0, said
        changes["model"] = folder / stage
    models = tuple(folder / stage for stage in STAGES)
    few = {"questions": 8, "refusal_prompts": 4, "conversations": 4, "pairs": 20, "threads": 1}
    settings = {"out": folder / "report", "models": models, "data": data, "dtype": "float32"}
    return EvalConfig.model_validate(settings | few | {"ngram_orders": (3,)})


@pytest.fixture(scope="module")
def report(config: EvalConfig, workshop: Any) -> dict[str, Any]:
    """Measured in a separate process, where no types are checked at every call."""
    file = config.out.with_name("settings.json")
    file.write_text(config.model_dump_json())
    code = (
        "import sys; from groundup.evals.config import EvalConfig;"
        "from groundup.evals.stages.report import run;"
        "run(EvalConfig.model_validate_json(open(sys.argv[1]).read()))"
    )
    ended, said = workshop.run([sys.executable, "-c", code, str(file)])
    assert ended == 0, said
    content: dict[str, Any] = json.loads((config.out / "report.json").read_text())
    return content


@pytest.fixture(scope="module")
def page(config: EvalConfig, report: dict[str, Any]) -> str:
    return (config.out / "report.html").read_text()


def test_the_real_and_the_small_world_are_separate(report: dict[str, Any]) -> None:
    for model in report["models"].values():
        assert list(model["bits_per_byte"]) == ["pooled", "world pooled", "sea", "world-stories"]
        bits = {name: one["estimate"] for name, one in model["bits_per_byte"].items()}
        assert (bits["pooled"], bits["world pooled"]) == (bits["sea"], bits["world-stories"])
        assert model["refusal_rate"]["harmful"]["items"] == 1
        assert model["refusal_rate"]["benign"]["items"] == 1
    claims = [finding["claim"] for finding in report["findings"]]
    assert "pretrain predicts held-out text better than 3-gram counting, on real sources" in claims
    assert any(claim.endswith("in the small world") for claim in claims)


def test_all_models_tell_stories_and_chat_models_answer(report: dict[str, Any]) -> None:
    base, sft = (report["models"][name]["world"] for name in ("pretrain", "sft"))
    assert base["accuracy"] == base["declined"] == base["reward"] == {}
    assert base["stories_told"] is None
    assert base["stories_continued"]["consistent"]["items"] == 8
    assert sft["stories_told"]["sentences"]["items"] > 0
    assert sft["accuracy"]["world-facts"]["items"] <= 8
    assert set(sft["reward"]) == {"total", "correct", "instruction", "kindness", "harmless"}
    assert {kind: one["items"] for kind, one in sft["declined"].items()} == {
        "harmful": 8,
        "benign": 8,
    }
    assert set(report["world"]["commonest_answer"]) >= {"world-facts", "world-reading"}


def test_measured_bias_is_next_to_the_planted_one(report: dict[str, Any]) -> None:
    assert report["world"]["bias"] == BIAS
    assert set(report["world"]["planted"]["jobs"].values()) == {0.25, 0.75}
    base, dpo = (report["models"][name]["fairness"] for name in ("pretrain", "dpo"))
    assert set(base["gaps"]) == {"jobs, as text", "groups, as text"}
    assert set(dpo["gaps"]) == {*base["gaps"], "jobs, as an answer", "groups, as an answer"}
    assert set(report["world"]["planted"]["jobs"]) < set(dpo["subjects"]["as an answer"])


def test_alignment_is_tested(report: dict[str, Any]) -> None:
    claims = [finding["claim"] for finding in report["findings"]]
    for claim in (
        "dpo leans less than sft (jobs, as an answer)",
        "dpo has a higher gold reward than sft",
        "dpo's implicit reward prefers better than chance, in the small world",
    ):
        assert any(one.startswith(claim) for one in claims), "\n".join([claim, "", *claims])


def test_the_page_shows_the_small_world(page: str) -> None:
    for title in ("The small world", "Fairness", "Samples"):
        assert f">{title}</h2>" in page
    for aim in AIMS:
        assert aim.what in page or aim.level is None
    assert "real, pooled" in page
    assert "world, pooled" in page
    assert "planted 0.50, measured" in page
    assert "<figcaption>A woman or a man? Asked as text" in page


def test_held_out_rows_are_those_of_the_data(config: EvalConfig) -> None:
    world = HeldOut.read(config, heldout_documents(config.data)).world
    assert world is not None
    assert world.bias == BIAS
    assert len(world.beginnings) == 8
    assert all(row.source.startswith("world-") for row in [*world.rows, *world.requests])
    assert not any(row.source.startswith("world-") for row in HeldOut.read(
        config, heldout_documents(config.data)).refusals)  # fmt: skip


@pytest.mark.parametrize("facts", [{"world": None}, {}])
def test_data_without_the_world_is_measured_without_it(
    config: EvalConfig, tmp_path: Path, facts: dict[str, None]
) -> None:
    (tmp_path / "data.json").write_text(json.dumps(facts))
    without = config.model_copy(update={"data": tmp_path})
    assert HeldOut.read(without, heldout_documents(config.data)).world is None
