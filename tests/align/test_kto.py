"""KTO against its paper's formula, its batches and rows, and on a tiny model."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from conftest import TinyModel
from groundup.align.config import KTOConfig
from groundup.align.dpo import in_words
from groundup.align.kto import (
    KTOBatch,
    KTOStream,
    LabeledAnswer,
    kto_loss,
    labeled_loss,
    mismatch,
    reference_point,
    tokenize_labeled,
)
from groundup.app.settings import configured
from groundup.data.records import read_unpaired_preferences
from groundup.errors import UserError
from groundup.lm.model import CausalLM
from groundup.report.estimate import rate
from groundup.runs.files import read_lines
from groundup.runs.request import read_run
from groundup.text.batches import packed_batch
from groundup.text.example import Example
from groundup.text.rows import Message, UnpairedPreference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

CONTEXT = 24


def paper(
    gained: np.ndarray, desirable: np.ndarray, z0: float, beta: float, weights: tuple[float, float]
) -> np.ndarray:
    """Ethayarajh et al. 2024, equations 7 and 8: lambda_y - v(x, y), answer by answer."""
    losses = []
    for ratio, good in zip(gained, desirable, strict=True):
        reach = beta * (ratio - z0) if good else beta * (z0 - ratio)
        weight = weights[0] if good else weights[1]
        losses.append(weight - weight / (1 + np.exp(-reach)))
    return np.array(losses)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 1.5), (0.0, 2.0)])
@pytest.mark.parametrize("z0", [0.0, 3.5])
def test_the_loss_equals_the_papers(z0: float, weights: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    gained, desirable = random.normal(0, 8, 60), random.random(60) < 0.6
    given = torch.from_numpy(gained).requires_grad_()
    point, labels = torch.tensor(z0).double(), torch.from_numpy(desirable)
    losses = kto_loss(given, labels, point, 0.2, *weights)
    expected = paper(gained, desirable, z0, 0.2, weights)
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: kto_loss(x, labels, point, 0.2, *weights), given)


def test_the_reference_point_is_a_nonnegative_mean_without_gradient() -> None:
    gained = torch.tensor([1.0, -2.0, 7.0], requires_grad=True)
    assert reference_point(gained).item() == 2 and not reference_point(gained).requires_grad
    assert reference_point(-gained).item() == 0


# Batches.


def side(number: int, length: int) -> Example:
    """Tokens that identify their sequence; the second half is the answer."""
    return Example([number] * length, [i >= length // 2 for i in range(length)])


def stream(lengths: list[tuple[int, int]], rows: int, micro_rows: int, seed: int = 0) -> KTOStream:
    answers = [
        LabeledAnswer(side(2 * i, a), side(2 * i + 1, b), i % 3 > 0)
        for i, (a, b) in enumerate(lengths)
    ]
    return KTOStream(
        answers,
        np.arange(2 * len(lengths), dtype=np.float32).reshape(-1, 2),
        context=CONTEXT,
        rows=rows,
        micro_rows=micro_rows,
        seed=seed,
    )


Lengths = st.lists(
    st.tuples(st.integers(2, CONTEXT + 1), st.integers(2, CONTEXT + 1)), min_size=1, max_size=30
)


@settings(deadline=None, max_examples=40)
@given(Lengths, st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_an_answer_is_batched_with_its_mismatched_one_and_occurs_once(
    lengths: list[tuple[int, int]], rows: int, micro_rows: int, seed: int
) -> None:
    answers = stream(lengths, rows, micro_rows, seed)
    count = answers.packing.batches_per_epoch
    model = torch.nn.Identity()
    steps = -(-answers.rows_per_epoch // rows)
    epoch = [batch for step in range(steps) for batch in answers.at(step, model)][:count]
    seen: Counter[int] = Counter()
    for batch in epoch:
        assert batch.answers.input_ids.shape == batch.mismatched.input_ids.shape
        assert batch.weight == len(batch.desirable) > 0
        for places, good, reference in zip(
            batch.sequences.tolist(), batch.desirable, batch.reference, strict=True
        ):
            names = []
            for rows_of, place in zip((batch.answers, batch.mismatched), places, strict=True):
                [name] = rows_of.input_ids[rows_of.segment_ids == place].unique().tolist()
                names.append(name)
            number = names[0] // 2
            assert names == [2 * number, 2 * number + 1] == reference.int().tolist()
            assert bool(good) == (number % 3 > 0)
            seen[number] += 1
    assert seen == Counter(range(len(lengths)))


@pytest.mark.parametrize(("rows", "micro_rows"), [(16, 12), (16, 9), (1, 1), (3, 2), (7, 4)])
def test_a_step_has_its_rows_and_one_pass_has_every_answer_once(rows: int, micro_rows: int) -> None:
    answers = stream([(2 + 7 * i % 24, 2 + 5 * i % 24) for i in range(200)], rows, micro_rows)
    steps = -(-answers.rows_per_epoch // rows)
    for step in range(2 * steps):
        batches = answers.at(step, torch.nn.Identity())
        for kind in ("answers", "mismatched"):
            assert sum(len(getattr(batch, kind).input_ids) for batch in batches) == rows
        assert all(len(batch.answers.input_ids) <= micro_rows for batch in batches)
    assert answers.packing.read_by(steps).tolist() == list(range(200))
    assert len(answers.packing.read_by(steps - 1)) < 200


def slow_logprob(model: CausalLM, item: Example) -> float:
    """log p of an answer from the full logits of its sequence alone."""
    with torch.no_grad():
        logits = model.logits(Batch.of(torch.tensor([item.ids]))).double()
    logprobs = logits.log_softmax(-1)[0]
    places = [i for i in range(1, len(item.ids)) if item.loss_mask[i]]
    return sum(float(logprobs[i - 1, item.ids[i]]) for i in places)


def small_batch(model: CausalLM) -> tuple[KTOBatch, list[LabeledAnswer], np.ndarray]:
    random = np.random.default_rng(1)

    def example() -> Example:
        length = int(random.integers(4, 15))
        return Example(random.integers(3, 300, length).tolist(), [i >= 2 for i in range(length)])

    answers = [LabeledAnswer(example(), example(), i % 2 > 0) for i in range(7)]
    policy = np.array([[slow_logprob(model, s) for s in (a.answer, a.mismatched)] for a in answers])
    # Mismatched answers have gained on the whole, so that z0 is above 0.
    reference = (policy + random.normal(0, 2, policy.shape) - [0.0, 1.5]).astype(np.float32)
    sizes = {"context": CONTEXT, "rows": 8, "micro_rows": 8, "seed": 0}
    [batch] = KTOStream(answers, reference, **sizes).at(0, torch.nn.Identity())
    assert batch.weight == 7
    return batch, answers, policy - reference


def test_a_packed_batch_gives_the_papers_loss(tiny_model: TinyModel) -> None:
    model = tiny_model()
    batch, answers, gained = small_batch(model)
    z0 = gained[:, 1].mean()
    assert z0 > 0.5
    found = labeled_loss(model, batch, 0.3, 1.0, 2.0)
    labels = np.array([one.desirable for one in answers])
    expected = paper(gained[:, 0], labels, z0, 0.3, (1.0, 2.0))
    assert found.total.item() == pytest.approx(expected.sum(), rel=1e-5)
    assert found.metrics["kl"] == (pytest.approx(7 * z0, rel=1e-4), 7)
    right = ((gained[:, 0] > z0) == labels).sum()
    assert found.metrics["accuracy"] == (right, 7)
    rewards = 0.3 * gained[:, 0]
    for name, which in (("chosen_reward", labels), ("rejected_reward", ~labels)):
        total, count = found.metrics[name]
        assert (total, count) == (pytest.approx(rewards[which].sum(), rel=1e-4), which.sum())
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_packed_equals_padded_with_any_padding(tiny_model: TinyModel) -> None:
    model = tiny_model()
    batch, answers, _ = small_batch(model)
    found = labeled_loss(model, batch, 0.3)
    padded = KTOBatch(
        packed_batch([[one.answer] for one in answers], CONTEXT),
        packed_batch([[one.mismatched] for one in answers], CONTEXT),
        torch.tensor([one.desirable for one in answers]),
        torch.arange(7)[:, None].expand(7, 2).contiguous(),
        batch.reference,
    )
    expected = labeled_loss(model, padded, 0.3)
    assert_close(found.total, expected.total, rtol=1e-5, atol=1e-5)

    def noisy(rows: Batch) -> Batch:
        noise, empty = torch.randint(3, 300, rows.input_ids.shape), rows.segment_ids < 0
        assert bool(empty.any())
        return replace(
            rows,
            input_ids=torch.where(empty, noise, rows.input_ids),
            targets=torch.where(empty, noise, rows.targets),
        )

    other = replace(padded, answers=noisy(padded.answers), mismatched=noisy(padded.mismatched))
    assert labeled_loss(model, other, 0.3).total.item() == expected.total.item()


# Rows.


def row(asked: str, said: str, label: bool) -> UnpairedPreference:
    return UnpairedPreference((Message("user", asked),), said, label, "s", asked)


def test_mismatched_answers_are_of_other_prompts_and_used_about_once() -> None:
    rows = [row(f"Is it {i // 2}?", f"Yes {i}.", i % 2 > 0) for i in range(40)]
    found = mismatch(rows, seed=3)
    assert all(rows[i].prompt != rows[j].prompt for i, j in enumerate(found))
    assert max(Counter(found).values()) <= 3 and found == mismatch(rows, seed=3)
    assert found != mismatch(rows, seed=4)
    one_prompt = [row("Is it?", f"Yes {i}.", i % 2 > 0) for i in range(4)]
    assert sorted(mismatch(one_prompt, seed=0)) == [0, 1, 2, 3]
    assert all(i != j for i, j in enumerate(mismatch(one_prompt, seed=0)))
    assert mismatch(rows[:1], seed=0) == [0]


def test_one_prompt_with_most_of_the_answers_takes_no_longer() -> None:
    rows = [row("Is it?", f"Yes {i}.", i % 2 > 0) for i in range(100_000)]
    found = mismatch([*rows, row("Why so?", "Never.", False)], seed=0)
    assert found[:-1] == [len(rows)] * len(rows) and found[-1] < len(rows)


def test_the_mismatched_answer_follows_the_own_prompt(workshop: Any) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    rows = [row("Is it?", "Yes.", True), row("Why so?", "Never.", False)]
    found, _ = tokenize_labeled(tokenizer, rows, 256, seed=0)
    assert [one.desirable for one in found] == [True, False]
    for one, asked, own, other in zip(
        found, ("Is it?", "Why so?"), ("Yes.", "Never."), ("Never.", "Yes."), strict=True
    ):
        for example, said in ((one.answer, own), (one.mismatched, other)):
            ids = np.array(example.ids)[np.array(example.loss_mask)].tolist()
            assert tokenizer.decode(ids) == f"{said}<|im_end|>"
            assert asked in tokenizer.decode(list(example.ids))


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_every_layout_is_read(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": "Maybe."},
        {"role": "user", "content": "Truly?"},
        {"role": "assistant", "content": "Yes."},
    ]
    rows = [
        {"prompt": "Is it?", "completion": "Yes.", "label": True},
        {"messages": talk, "label": False},
        {"prompt": talk[:3], "completion": [talk[3]], "label": True, "group": "g"},
        {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No.", "label": None},
    ]
    found = read_unpaired_preferences(written(tmp_path / "rows.jsonl", rows)).rows
    assert [(one.completion, one.label) for one in found] == [
        ("Yes.", True),
        ("Yes.", False),
        ("Yes.", True),
        ("Yes.", True),
        ("No.", False),
    ]
    assert [len(one.prompt) for one in found] == [1, 3, 3, 1, 1]
    assert found[0].group == found[3].group == found[4].group and found[2].group == "g"
    for label in (1, 1.0, "True", " true ", "1", "1.0"):
        rows = [{"prompt": "Is it?", "completion": "Yes.", "label": label}]
        assert read_unpaired_preferences(written(tmp_path / "one.jsonl", rows)).rows[0].label
    table = tmp_path / "rows.csv"
    table.write_text("prompt,completion,label\nIs it?,Yes.,True\nIs it?,No.,false\n")
    assert [one.label for one in read_unpaired_preferences(table).rows] == [True, False]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"label": "yes"}, "'label' must be true or false, or 1 or 0, not 'yes'"),
        ({"label": 2}, "'label' must be true or false, or 1 or 0, not 2"),
        ({"label": None}, "'label' must be true or false, or 1 or 0, not None"),
        ({"completion": " "}, "the answer, 'completion', is empty"),
        ({"chosen": "Yes.", "rejected": "Yes."}, "'chosen' and 'rejected' are the same"),
        ({"prompt": ""}, "'prompt' is empty"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason(
    tmp_path: Path, bad: dict[str, Any], told: str
) -> None:
    good = {"prompt": "Is it?", "completion": "Yes.", "label": True}
    rows = [good | {"prompt": f"Is it {i}?"} for i in range(5)] + [good | bad]
    found = read_unpaired_preferences(written(tmp_path / "rows.jsonl", rows))
    assert len(found.rows) == 5
    [line] = found.bad
    assert line.line == 6 and told in line.reason and "\n" not in line.reason
    del good["label"]
    with pytest.raises(UserError, match="no 'label', which says true or false"):
        read_unpaired_preferences(written(tmp_path / "rows.jsonl", [good] * 3))


# Runs.


def test_it_learns_to_prefer(workshop: Any) -> None:
    out = workshop.finished("kto")
    lines = read_lines(out / "metrics.jsonl")
    trained = [line for line in lines if line["kind"] == "train"]
    margins = [line["chosen_reward"] - line["rejected_reward"] for line in trained]
    assert margins[0] == pytest.approx(0, abs=1e-3) and np.mean(margins[-4:]) > 0.5
    # Every step has both labels, or a margin would say nothing.
    assert trained[0]["loss"] == pytest.approx(0.5, abs=1e-3)
    assert np.mean([line["loss"] for line in trained[-4:]]) < 0.45
    measured = [line for line in lines if line["kind"] == "evaluation"]
    assert len(measured) == 2
    assert measured[-1]["preference_loss"] < measured[0]["preference_loss"]
    assert read_run(out)["traits"]["reads"] == "preferences"
    assert "KTO" in (out / "README.md").read_text()
    assert "40 desirable and 40 undesirable" in workshop.said("kto")


def test_labeled_files_are_trained_on_and_bad_lines_counted(workshop: Any, tmp_path: Path) -> None:
    colours = {"sea": ("blue", "red"), "grass": ("green", "pink"), "snow": ("white", "black")}
    rows = [
        {
            "prompt": f"{i}: the {thing}?",
            "completion": f"The {thing} is {said[wrong]}.",
            "label": not wrong,
        }
        for i in range(8)
        for thing, said in colours.items()
        for wrong in (0, 1)
    ]
    path = written(tmp_path / "rows.jsonl", [*rows, rows[0] | {"label": "good"}])
    code, said = workshop.run_here(workshop.command("kto", tmp_path / "out", data=path, steps=4))
    assert code == 0, said
    assert "rows.jsonl, line 49: 'label' must be true or false, or 1 or 0, not 'good'" in said
    assert "1 bad line set aside" in said and "held out" in said


def test_votes_are_read_as_in_dpo(workshop: Any, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"{i}: the sea?",
            "a": f"It is blue {i}.",
            "b": f"It is red {i}.",
            "choice": "tie" if not i else "ab"[i % 2],
            "who": "me",
            "id": str(i),
        }
        for i in range(24)
    ]
    path = written(tmp_path / "votes.jsonl", [*rows, rows[3] | {"choice": "undo"}])
    told = {}
    for stage in ("kto", "dpo"):
        command = workshop.command(stage, tmp_path / stage, data=path, steps=2)
        code, told[stage] = workshop.run_here(command)
        assert code == 0, told[stage]
        assert "22 pairs of 23 votes; left out: tie: 1" in " ".join(told[stage].split())
    [pairs, heldout] = re.search(r"(\d+) pairs to train on, (\d+) held out", told["dpo"]).groups()
    kto = f"{pairs} desirable and {pairs} undesirable answers to train on, {2 * int(heldout)} held"
    assert kto in told["kto"]


def test_labels_of_one_class_are_rejected(workshop: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"Is it {i}?", "completion": "Yes.", "label": True} for i in range(9)]
    path = written(tmp_path / "rows.jsonl", rows)
    code, said = workshop.run_here(workshop.command("kto", tmp_path / "out", data=path))
    assert code == 2 and "Traceback" not in said
    [error] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "label=true" in error and "add answers with label=false" in error


def test_all_zero_weights_are_rejected() -> None:
    with pytest.raises(UserError, match="leave nothing to learn"):
        configured(
            KTOConfig,
            {
                "out": "x",
                "model": "m",
                "data": "d",
                "desirable_weight": 0.0,
                "undesirable_weight": 0.0,
            },
        )


@pytest.mark.parametrize("stage", ["kto", "dpo", "reward"])
def test_a_single_pair_is_not_held_out_and_this_is_reported(
    workshop: Any, tmp_path: Path, stage: str
) -> None:
    path = written(tmp_path / "a.jsonl", [{"prompt": "Why?", "chosen": "So.", "rejected": "No."}])
    more = {"samples": 2, "max_new_tokens": 4} if stage == "reward" else {}
    command = workshop.command(stage, tmp_path / "out", data=path, steps=1, evaluations=1, **more)
    code, said = workshop.run_here(command)
    said = " ".join(said.split())
    assert code == 0 and "no row is held out" in said, said
    assert "better than guessing" not in said and not re.search(r"\b1 [a-z-]*(pair|prompt)s", said)
    if stage == "reward":
        assert "Not measured: accuracy" in said and "held out measured on" not in said
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "Trained on 1 pair." in page and "Not measured" in page and "<table" not in page
    if stage == "kto":
        assert "1 desirable and 1 undesirable answers to train on, 0 held out" in said


def test_both_classes_remain_in_training(workshop: Any, tmp_path: Path) -> None:
    """Of three prompts one has the only undesirable answer; many answers to a prompt count as
    one."""
    for k in range(6):
        rows = [{"prompt": f"{k} {n}", "completion": "Yes.", "label": n != 1} for n in range(3)]
        path = written(tmp_path / f"{k}.jsonl", rows)
        command = workshop.command("kto", tmp_path / f"out{k}", data=path, steps=1, evaluations=1)
        code, said = workshop.run_here(command)
        assert code == 0 and "1 desirable and 1 undesirable answers to train on, 1 held" in said
        assert "measured on 1 held-out answer:" in said and "of 1 held-out answer (" in said


def test_answers_to_one_held_out_prompt_are_not_significant(workshop: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n % 3}", "completion": f"c{n}", "label": n % 2 == 0} for n in range(30)]
    path = written(tmp_path / "a.jsonl", rows)
    command = workshop.command("kto", tmp_path / "out", data=path, steps=1, evaluations=1)
    code, said = workshop.run_here(command)
    assert code == 0 and "10 of 30 rows are held out" in " ".join(said.split()), said
    [line] = [
        one for one in read_lines(tmp_path / "out" / "metrics.jsonl") if "heldout_by_source" in one
    ]
    for found in line["heldout_by_source"].values():
        assert (found["items"], found["groups"]) == (10, 1) and found["low"] < 0.5 < found["high"]
        assert found["high"] - found["low"] > 0.75  # ten trials would have 0.53 at most
    assert "not significantly different from guessing" in said


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_fewer_than_six_prompts_are_not_significant(right: float) -> None:
    """Four of four occurs in one of eight guesses, whatever Wilson's interval."""
    for prompts in (4, 8):
        found = rate([right] * prompts)
        assert not found.low <= 0.5 <= found.high
        said = in_words(found, "{share} of {items}", "pair", "", [])
        assert ("not significantly different from guessing" in said) == (prompts == 4), said
