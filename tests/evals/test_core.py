"""The core suite: its questions, measures and warnings, and a whole run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.packs.manifest import find_set
from groundup.errors import UserError
from groundup.evals.benchmarks import ALL, Answers, answered, guessing
from groundup.evals.cards.card import write_card
from groundup.evals.config import CoreConfig
from groundup.evals.contamination import contamination
from groundup.evals.core import run
from groundup.evals.core_sets import CORE_SETS, core_questions, even_shares
from groundup.evals.models import model_names
from groundup.formats.load import load
from groundup.lm.model import CausalLM
from groundup.text.cleaning import split_hash
from groundup.text.example import Example
from groundup.text.rows import Choice
from groundup.text.tokenizer import Tokenizer
from pages import assert_self_contained

Alone = Callable[[CausalLM, Example, int], list[float]]

ROWS = [
    Choice("What is deep?", ("the sea", "a ship on the sea", "an island"), 0, "piqa", "a"),
    Choice("What sails?", ("the deep sea", "the ship"), 1, "piqa", "b"),
    Choice("Where does it sail?", ("over the sea to the island", "in it"), 0, "openbookqa", "c"),
    Choice("Is the sea wide?\nAnswer:", ("yes", "no"), 0, "boolq", "d"),
    Choice("Is the ship wide?\nAnswer:", ("yes", "no"), 1, "boolq", "e"),
    Choice("Is the island deep?\nAnswer:", ("yes", "no"), 1, "boolq", "f"),
]

# Questions.


def test_a_thousand_held_out_questions_are_spread_and_stable() -> None:
    rows = core_questions(1000)
    counts = Counter(row.source for row in rows)
    assert list(counts) == list(CORE_SETS)
    assert sorted(counts.values()) == [166, 166, 167, 167, 167, 167]
    assert all(split_hash(row.group) < find_set(row.source).heldout for row in rows)
    # In every process, on every machine.
    found = hashlib.sha256(repr(rows).encode()).hexdigest()
    assert found == "4ba4d49652923a982582245c50df747d9107600698cd7b81760c70524628a713"
    assert len({(row.prompt, row.options) for row in rows}) == 1000


def test_each_set_has_the_wording_of_its_task() -> None:
    of = {row.source: row for row in core_questions(6)}
    for name in ("commonsenseqa", "piqa", "mmlu"):
        assert of[name].prompt.startswith("Question: ") and of[name].prompt.endswith("\nAnswer:")
    assert of["siqa"].prompt.startswith("Q: ") and of["siqa"].prompt.endswith("?\nA:")
    assert "Answer" not in of["openbookqa"].prompt
    passage, question, answer = of["boolq"].prompt.rsplit("\n", 2)
    assert " -- " in passage and answer == "Answer:" and of["boolq"].options == ("yes", "no")
    assert question.startswith("Question: ") and question[10].islower() and question[-1] == "?"


@given(st.integers(0, 400), st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_shares_are_even_and_limited_by_the_data(count: int, sizes: list[int]) -> None:
    shares = even_shares(count, sizes)
    assert sum(shares) == min(count, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    # Who has not given all it has gives as much as anybody, but for what cannot be halved.
    left = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert all(max(shares) - share <= 1 for share in left)


# Measures.


def test_sums_and_measures_equal_the_definition(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone
) -> None:
    """Each option of each question separately, from the full logits."""
    found = answered(model, tokenizer, ROWS, context=64)
    acc, acc_norm = [], []
    for row, sums in zip(ROWS, found.sums, strict=True):
        expected = []
        for option in row.options:
            prompt = tokenizer.encode(row.prompt)
            ids = tokenizer.encode(f"{row.prompt} {option}")
            assert ids[: len(prompt)] == prompt
            trained = [False] * len(prompt) + [True] * (len(ids) - len(prompt))
            expected.append(sum(alone(model, Example(ids, trained), 64)))
        assert sums == pytest.approx(np.array(expected), abs=1e-4)
        acc.append(np.argmax(expected) == row.answer)
        norm = [total / len(option) for total, option in zip(expected, row.options, strict=True)]
        acc_norm.append(np.argmax(norm) == row.answer)
    assert found.credit("acc").tolist() == acc
    assert found.credit("acc_norm").tolist() == acc_norm
    assert acc != acc_norm  # otherwise this test could not distinguish them
    # BoolQ counts by acc, all others by acc_norm.
    assert found.main().tolist() == acc_norm[:3] + acc[3:]
    accuracy = found.accuracy(found.main())
    assert accuracy["piqa"].estimate == pytest.approx(np.mean(acc_norm[:2]))
    assert accuracy[ALL].items == len(ROWS)
    assert list(accuracy) == ["openbookqa", "piqa", "boolq", ALL]


def test_equally_likely_options_share_the_credit() -> None:
    row = Choice("?", ("aa", "bb", "cc"), 1, "piqa", "g")
    answers = Answers(
        [row] * 3, [np.array(s) for s in ([-1.0, -1, -2], [-1.0, -2, -1], [-1.0] * 3)]
    )
    assert answers.credit("acc_norm").tolist() == [1 / 2, 0, pytest.approx(1 / 3)]


def test_chance_is_uniform_or_the_most_common_answer() -> None:
    found = guessing(ROWS)
    assert found["piqa"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["boolq"] == pytest.approx(2 / 3)
    assert found[ALL] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 2) / 6)


def test_two_models_are_compared_question_by_question() -> None:
    rows = [Choice("?", ("a", "b"), 0, "piqa", str(i)) for i in range(100)]
    right, wrong = np.array([-1.0, -2.0]), np.array([-2.0, -1.0])
    first = Answers(rows, [right if i % 2 else wrong for i in range(100)])
    better = Answers(rows, [right if i % 2 or i < 20 else wrong for i in range(100)])
    gain = better.minus(first)["piqa"]
    assert gain.estimate == pytest.approx(0.1)
    # Each alone is known to within 0.1; what one has more, much better.
    assert 0 < gain.low < gain.high < 0.2


# What a model has seen before.


def write_run(folder: Path, stage: str, data: Path | None, model: Path | None = None) -> Path:
    """A training run's records, as far as lineage needs them."""
    folder.mkdir(parents=True)
    named = {"data": data, "model": model}
    parents = {name: {"path": str(path)} for name, path in named.items() if path is not None}
    (folder / "run.json").write_text(json.dumps({"stage": stage, "parents": parents, "config": {}}))
    (folder / "plan.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    return folder


def write_data(folder: Path) -> Path:
    folder.mkdir(parents=True)
    counts = {
        "documents/train": {"by_source": {"wiki": 9, "boolq": 8}},
        "conversations/train": {"by_source": {"wiki": 9, "boolq": 7, "openbookqa": 6}},
        "preferences/train": {"by_source": {"openbookqa": 5, "siqa": 4, "harm": 3}},
    }
    (folder / "data.json").write_text(json.dumps({"counts": counts}))
    return folder


def test_the_training_half_is_found_in_the_lineage(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    base = write_run(tmp_path / "base", "pretrain", data)
    chat = write_run(tmp_path / "chat", "sft", data, base)
    aligned = write_run(tmp_path / "aligned", "dpo", data, chat)
    assert contamination(base) == []  # passages to read, none of a test question
    assert [(one.run, one.rows) for one in contamination(aligned)] == [
        ("chat", {"openbookqa": 6}),
        ("chat", {"boolq": 7}),
        ("aligned", {"openbookqa": 5, "siqa": 4}),
    ]
    messages = [one.message for one in contamination(aligned)]
    assert messages[2] == (
        "aligned (dpo) was trained on the other half of the test questions of OpenBookQA and "
        "SIQA: not comparable with published numbers"
    )
    assert "not with zero-shot ones" in messages[1]


def test_prompts_count_as_training_data_as_far_as_they_were_used(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for sources, found in (([], ["openbookqa", "siqa"]), (["world-*"], []), (["si*"], ["siqa"])):
        model = write_run(tmp_path / f"ppo-{'-'.join(sources)}", "ppo", None)
        said = {"stage": "ppo", "traits": {"reads": "prompts"}, "config": {"sources": sources}}
        said["parents"] = {"prompts": {"path": str(data)}}
        (model / "run.json").write_text(json.dumps(said))
        halves = [one.rows for one in contamination(model) if "boolq" not in one.rows]
        assert [list(rows) for rows in halves] == ([found] if found else [])


def test_missing_or_own_data_is_reported_as_unknown(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("{}\n")
    for data in (own, tmp_path / "gone"):
        model = write_run(tmp_path / f"of-{data.stem}", "sft", data)
        (one,) = contamination(model)
        assert one.rows == {} and str(data) in one.message and "not known" in one.message


def test_replayed_text_is_identified_by_its_folder(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for kind in ("documents", "conversations"):
        (data / kind).mkdir()
        (data / kind / "train.jsonl").write_text("{}\n")
    said = {"stage": "sft", "traits": {"reads": "conversations"}, "config": {}}
    for kind, found in (("documents", []), ("conversations", ["openbookqa", "boolq"])):
        model = write_run(tmp_path / f"of-{kind}", "sft", None)
        parents = {"replay": {"path": str(data / kind / "train.jsonl")}}
        (model / "run.json").write_text(json.dumps({**said, "parents": parents}))
        assert [name for one in contamination(model) for name in one.rows] == found
        assert all(one.rows for one in contamination(model))
        # Data that the plan left out was not read.
        (model / "plan.json").write_text(json.dumps({"layout": {"replay": 0.0}}))
        assert [one.rows for one in contamination(model)] == [{}]


def test_a_moved_recipe_folder_is_still_read(tmp_path: Path) -> None:
    data = write_data(tmp_path / "before" / "data")
    write_run(tmp_path / "before" / "chat", "sft", data)
    (tmp_path / "before").rename(tmp_path / "after")
    found = contamination(tmp_path / "after" / "chat")
    assert [list(one.rows) for one in found] == [["openbookqa"], ["boolq"]]


def test_nothing_is_claimed_about_a_foreign_model(tmp_path: Path) -> None:
    assert contamination(tmp_path) == []


# A run.


@pytest.fixture(scope="module")
def config(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> CoreConfig:
    return CoreConfig(
        out=tmp_path_factory.mktemp("core") / "out",
        models=tuple(str(workshop.finished(stage)) for stage in ("pretrain", "sft")),
        questions=30,
        bytes_per_source=4096,
        dtype="float32",
        threads=1,
    )


@pytest.fixture(scope="module")
def folder(config: CoreConfig) -> Path:
    return run(config)


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "core.json").read_text())
    return content


def test_a_card_includes_the_benchmarks(
    config: CoreConfig, folder: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(config.models[1], tmp_path / "model")
    card = write_card(tmp_path / "model", [folder]).read_text()
    found = report["models"]["sft"]["accuracy"][ALL]
    ends = f"{100 * found['low']:.1f} % to {100 * found['high']:.1f} %"
    assert f"{ends} | {100 * found['chance']:.1f} % | {found['items']} |" in card
    bits = report["models"]["sft"]["bits_per_byte"]["pooled"]
    assert f"{bits['low']:.3f} to {bits['high']:.3f} |  | {bits['items']} |" in card
    # Every set is held against the first model's, question by question.
    changes = report["against_first"]["sft"]
    told = card.count("sft against pretrain, ")
    untold = re.search(r"(\d+) more comparison", card)
    assert told + (int(untold[1]) if untold else 0) == len(changes)
    assert all(one["citation"] in card for one in report["sets"].values())
    assert "groundup eval core: questions: by the most likely option" in card


def test_every_number_has_its_interval_and_chance(report: dict[str, Any]) -> None:
    assert list(report["models"]) == ["pretrain", "sft"]
    for model in report["models"].values():
        for measure in ("accuracy", "acc", "acc_norm"):
            assert list(model[measure]) == [*CORE_SETS, ALL]
            for found in model[measure].values():
                assert 0 <= found["low"] <= found["estimate"] <= found["high"] <= 1
                assert 0 < found["chance"] < 1
        assert list(model["bits_per_byte"]) == ["pooled", "boolq", "sotu", "wiki"]
        assert all(one["estimate"] > 0 for one in model["bits_per_byte"].values())
        assert model["accuracy"][ALL]["items"] == 30
    assert report["schema"] == 2 and report["sets"]["mmlu"]["license"] == "MIT"
    assert report["sets"]["mmlu"]["heldout"] == "all of it"
    assert set(report["against_first"]) == {"sft"}


def test_single_answers_can_be_looked_up(
    config: CoreConfig, folder: Path, report: dict[str, Any]
) -> None:
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [row.prompt for row in core_questions(30)]
    of_set = [line for line in lines if line["set"] == "boolq"]
    right = [np.argmax(line["logprobs"]["sft"]) == line["answer"] for line in of_set]
    assert report["models"]["sft"]["acc"]["boolq"]["estimate"] == pytest.approx(np.mean(right))
    model, tokenizer = load(config.models[1])
    rows = core_questions(30)
    again = answered(model, tokenizer, rows, context=model.config.max_position_embeddings)
    assert lines[7]["logprobs"]["sft"] == pytest.approx(again.sums[7].tolist(), abs=1e-4)


def test_the_page_reports_unknowns_and_is_self_contained(
    folder: Path, report: dict[str, Any], workshop: Any
) -> None:
    page = (folder / "report.html").read_text()
    assert_self_contained(page)
    (one,) = report["models"]["pretrain"]["familiar"]
    assert one["rows"] == {} and "not known" in one["message"]
    assert page.count("is not known") >= 2 and "Read this first" in page


def test_a_finished_run_does_not_change(config: CoreConfig, folder: Path) -> None:
    before = (folder / "core.json").stat().st_mtime_ns
    assert run(config) == folder
    assert (folder / "core.json").stat().st_mtime_ns == before


def test_a_missing_model_is_reported_before_measuring(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none"), "pack:none"):
        with pytest.raises(UserError, match="none"):
            run(CoreConfig(out=tmp_path / "out", models=(source,)))
    assert not (tmp_path / "out").exists()


def test_models_are_called_by_their_last_name() -> None:
    def named(*sources: str) -> Sequence[str]:
        return model_names(sources, [Path(source) for source in sources])

    assert named("runs/base", "pack:smollm2", "hub:Qwen/Qwen3-0.6B", "x/tiny.gguf") == [
        "base",
        "smollm2",
        "Qwen3-0.6B",
        "tiny",
    ]
    assert named("a/base", "b/base") == ["a/base", "b/base"]
    assert named("base", "base") == ["base (1)", "base (2)"]
