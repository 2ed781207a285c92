"""The domain suite: its questions, its measures against their definitions, and whole runs."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.dataset import Dataset
from groundup.data.packs.manifest import find_set
from groundup.errors import UserError
from groundup.evals.answers import assistant_loss, ready_conversations
from groundup.evals.benchmarks import ALL, Answers, seen_before
from groundup.evals.cards.card import write_card
from groundup.evals.config import TuningReportConfig
from groundup.evals.contamination import Contamination
from groundup.evals.domain import measures
from groundup.evals.domain.claims import claims, notes
from groundup.evals.domain.costs import costs
from groundup.evals.domain.material import (
    Prompt,
    domain_of,
    pieces,
    read_domain,
    replies,
    said_in_training,
    validation_of,
)
from groundup.evals.domain.measures import (
    MEASURES,
    answered_replies,
    continued,
    informative_measures,
    perplexity,
    reply_pair,
    too_few,
    training_costs,
)
from groundup.evals.domain.report import run
from groundup.evals.measure import Evaluated
from groundup.evals.perplexity import Bits
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.report.claim import mark_of
from groundup.report.estimate import Estimate
from groundup.report.history import History
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.cleaning import words
from groundup.text.example import Example
from groundup.text.rows import Choice, Conversation, Document, Message
from groundup.text.tokenizer import Tokenizer
from groundup.tune import sft
from groundup.tune.config import SFTConfig
from pages import assert_self_contained

Alone = Callable[[CausalLM, Example, int], list[float]]
OF = {measure.name: measure for measure in MEASURES}


def talk(number: int, *said: str) -> Conversation:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(said))
    return Conversation(messages, "talks", f"line {number}")


TALKS = [
    talk(1, "Where does the ship sail?", "Over the sea.", "And then?", "To the island."),
    talk(2, "Is the sea deep?", "The sea is deep."),
    talk(3, "Is it wide?", "It is wide, and the ship is on it."),
    talk(4, "What sails?", "The ship sails."),
]


@pytest.fixture(scope="module")
def model() -> CausalLM:
    """With room for a conversation: the session's has a context of 64."""
    return roomy(0)


def roomy(seed: int) -> CausalLM:
    """Every weight random: new output projections would hide batching errors."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=320, context=256))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    return model


# Questions.


def test_questions_are_true_replies_among_others_of_similar_length() -> None:
    talks = [talk(i, f"Question {i}?", "x" * (5 + i), "More?", "y" * (40 + i)) for i in range(20)]
    found = replies(talks, 30, seed=1)
    assert found == replies(talks, 30, seed=1) != replies(talks, 30, seed=2)
    assert len(found) == 30
    # As many conversations as there are have a question before any has a second one.
    assert Counter(Counter(reply.choice.group for reply in found).values()) == {2: 10, 1: 10}
    own = {row.group: {m.content for m in row.messages} for row in talks}
    for reply in found:
        choice = reply.choice
        truth = choice.options[choice.answer]
        row = next(row for row in talks if row.group == choice.group)
        assert row.messages[len(reply.prompt)].content == truth
        assert row.messages[: len(reply.prompt)] == reply.prompt
        assert len(set(choice.options)) == 4
        wrong = [one for one in choice.options if one != truth]
        assert not own[choice.group].intersection(wrong)
        assert all(abs(len(one) - len(truth)) <= 12 for one in wrong)
    assert len({reply.choice.answer for reply in found}) == 4


def test_few_labels_give_fewer_options_and_a_single_one_no_question() -> None:
    labels = [talk(i, f"Text {i}", ("good", "bad")[i % 2]) for i in range(10)]
    assert {reply.choice.options for reply in replies(labels, 10, 0)} == {
        ("good", "bad"),
        ("bad", "good"),
    }
    assert replies([talk(i, f"Text {i}", "Yes.") for i in range(10)], 10, 0) == []
    assert replies([], 10, 0) == []


def test_a_late_answer_in_a_long_conversation_is_used_only_if_it_is_the_first() -> None:
    long = [talk(i, "a" * 700, f"first {i}", "b" * 400, f"second {i}") for i in range(6)]
    late = [talk(i, "a" * 3000, f"only {i}") for i in range(6, 12)]
    found = replies([*long, *late], 30, 0)
    assert len(found) == 12 and all(len(reply.prompt) == 1 for reply in found)


def test_spelling_variants_are_the_same_reply() -> None:
    rows = [talk(i, f"Text {i}", said) for i, said in enumerate(("Yes", "yes", " YES ", "no"))]
    assert all(len(reply.choice.options) == 2 for reply in replies(rows, 4, 0))


def config(data: Path, **settings: Any) -> TuningReportConfig:
    return TuningReportConfig(out=data.parent / "report", models=("m",), data=(data,), **settings)


def test_conversations_are_cut_at_turns_and_keep_an_answer(tmp_path: Path) -> None:
    long = talk(1, "a" * 900, "b" * 900, "c" * 300, "d")
    longer = talk(2, "a" * 3000, "b", "c", "d")
    others = [replace(row, source="others") for row in (long, longer)]
    own = Dataset((), (*others, *TALKS, Document("e f", "texts", "1")), (), 3)
    domain = domain_of(own, config(tmp_path / "x"))
    assert [len(row.messages) for row in domain.conversations] == [2, 2, 4, 2, 2, 2]
    assert domain.rows == 7 and domain.duplicates == 3
    # A group of the held-out split is one here, in two files as in one.
    groups = Counter(row.group for row in domain.conversations)
    assert groups == {"line 1": 2, "line 2": 2, "line 3": 1, "line 4": 1}
    first = domain.prompts[0]
    assert first.messages == long.messages[:1] and first.truth == long.messages[1].content
    assert len(domain_of(own, config(tmp_path / "x", conversations=2)).conversations) == 2


@given(st.text(alphabet="abc \n", max_size=9000))
def test_pieces_lose_only_blanks(text: str) -> None:
    parts = [one.text for one in pieces([Document(text, "texts", "1")])]
    assert all(0 < len(part) <= 2000 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_the_smallest_held_out_share_of_the_runs_is_used_for_all(tmp_path: Path) -> None:
    for name, share in (("a", 0.1), ("b", 0.02)):
        write_run(tmp_path / name, {"validation": share})
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "elsewhere"]
    assert validation_of(config(tmp_path), paths) == 0.02
    assert validation_of(config(tmp_path), paths[2:]) == 0.05
    assert validation_of(config(tmp_path, validation=0.3), paths) == 0.3


# Measures.


def tuned(
    name: str = "model",
    *,
    loss: Any = None,
    answers: Answers | None = None,
    bits: Sequence[float] = (1.0, 2.0, 3.0) * 7,
    replies: Answers | None = None,
    contamination: Sequence[Contamination] = (),
) -> Evaluated:
    """A model with made-up texts and questions."""
    rows = [Choice("?", ("a", "b"), 0, "piqa", str(i)) for i in range(4)]
    found = {
        measures.answers: loss,
        measures.true_replies: replies,
        measures.documents: None,
        measures.general_text: blocks(bits),
        measures.general_questions: answers or Answers(rows, [np.array([-1.0, -2.0])] * 4),
        measures.samples: (),
        seen_before: contamination,
        measures.training_costs: costs(Path("nowhere")),
    }
    return Evaluated(name, name, Path("nowhere"), None, 100, 256, None, found)


def blocks(bits: Sequence[float]) -> Bits:
    """The loss of blocks of text, one byte each."""
    return Bits(np.array(bits), np.ones(len(bits)), ["wiki"] * len(bits))


def but(model: Evaluated, name: str | None = None, **found: Any) -> Evaluated:
    """The same model with other results, by the names of the measuring functions."""
    changed = {getattr(measures, measuring): one for measuring, one in found.items()}
    return replace(model, name=name or model.name, found=model.found | changed)  # type: ignore[operator]


@pytest.fixture(scope="module")
def read(tokenizer: Tokenizer) -> Callable[[CausalLM], Evaluated]:
    talks = ready_conversations(TALKS, tokenizer, 256)

    def measured(model: CausalLM) -> Evaluated:
        return tuned(loss=assistant_loss(model, talks, tokenizer, context=256))

    return measured


def of(key: str, model: Evaluated) -> Estimate:
    found = OF[key].estimate(model)
    assert found is not None
    return found


def test_loss_and_perplexity_equal_those_of_the_full_logits(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone, read: Callable[[CausalLM], Evaluated]
) -> None:
    """Each conversation separately; bytes are those of the text, for any tokens."""
    nats, words, size = [], [], 0
    for row in TALKS:
        chat = encode_chat(tokenizer, [vars(message) for message in row.messages])
        found = alone(model, Example(chat.ids, chat.assistant), 256)
        spoken = [token for token, own in zip(chat.ids, chat.assistant, strict=True) if own]
        nats += found
        words += [
            value
            for token, value in zip(spoken, found, strict=True)
            if token not in tokenizer.special_ids
        ]
        size += sum(len(m.content.encode()) for m in row.messages if m.role == "assistant")
    one = read(model)
    loss = of("loss", one)
    assert loss.estimate == pytest.approx(-np.mean(nats), rel=1e-5)
    assert loss.low < loss.estimate < loss.high and loss.groups == len(TALKS)
    assert perplexity(loss).estimate == pytest.approx(math.exp(-np.mean(nats)), rel=1e-5)
    bits = -sum(words) / math.log(2) / size
    assert of("bits_per_byte", one).estimate == pytest.approx(bits, rel=1e-5)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(
    read: Callable[[CausalLM], Evaluated],
) -> None:
    uniform = roomy(1)
    with torch.no_grad():
        uniform.head.zero_()
    assert perplexity(of("loss", read(uniform))).estimate == pytest.approx(320, rel=1e-4)


def test_differences_are_taken_on_equal_items(read: Callable[[CausalLM], Evaluated]) -> None:
    one, other = read(roomy(3)), read(roomy(4))
    loss, others = one(measures.answers), other(measures.answers)
    assert loss is not None and others is not None
    for key in ("loss", "bits_per_byte"):
        minus = OF[key].change(one, other)
        assert minus is not None
        expected = of(key, one).estimate - of(key, other).estimate
        assert minus.estimate == pytest.approx(expected, abs=1e-9)
        assert OF[key].change(one, one) == replace(minus, estimate=0, low=0, high=0)
    # An interval by hand: resampling the conversations' differences with the same generator.
    difference = loss.nats - others.nats
    drawn = np.random.default_rng(0).integers(4, size=(2000, 4))
    ratios = difference[drawn].sum(1) / loss.tokens[drawn].sum(1)
    minus = OF["loss"].change(one, other)
    assert minus is not None
    # For four conversations, as wide as Student's t with 3 degrees of freedom (3.182).
    tail = NormalDist().cdf(-math.sqrt(4 / 3) * 3.182446)
    assert (minus.low, minus.high) == pytest.approx(tuple(np.quantile(ratios, [tail, 1 - tail])))


def test_models_with_other_tokenizers_are_compared_by_bytes(
    model: CausalLM, read: Callable[[CausalLM], Evaluated]
) -> None:
    one = read(model)
    loss = one(measures.answers)
    assert loss is not None
    other = but(one, answers=replace(loss, tokens=loss.tokens + 1))
    assert OF["loss"].change(other, one) is None
    assert OF["bits_per_byte"].change(other, one) is not None
    text = one(measures.general_text)
    cut = but(one, general_text=replace(text, bytes=text.bytes + 1))
    assert OF["text_bits_per_byte"].change(cut, one) is None
    assert OF["text_bits_per_byte"].change(tuned(bits=(2.0, 2, 4) * 7), one) is not None


def test_replies_are_scored_in_the_chat_format(
    model: CausalLM, tokenizer: Tokenizer, alone: Alone
) -> None:
    """Each by itself from the full logits: the words of the last answer, no control token."""
    asked = replies(TALKS, 5, seed=0)
    found = answered_replies(model, tokenizer, asked, context=256)
    credits = []
    for reply, sums in zip(asked, found.sums, strict=True):
        expected = []
        for option in reply.choice.options:
            pair = reply_pair(tokenizer, reply.prompt, option)
            assert tokenizer.decode(list(pair.continuation)) == option
            messages = [vars(message) for message in reply.prompt]
            start = encode_chat(tokenizer, messages, generation_prompt=True).ids
            assert list(pair.prompt) == start
            trained = [False] * len(start) + [True] * len(pair.continuation)
            expected.append(sum(alone(model, Example([*start, *pair.continuation], trained), 256)))
        assert sums == pytest.approx(np.array(expected), abs=1e-4)
        means = [s / len(o) for s, o in zip(expected, reply.choice.options, strict=True)]
        credits.append(float(np.argmax(means) == reply.choice.answer))
    measured = of("reply_accuracy", tuned(replies=found))
    assert measured.estimate == pytest.approx(np.mean(credits))
    assert measured.chance == pytest.approx(1 / 4)


def test_unavailable_questions_are_reported_without_failing(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    asked = [
        Prompt((Message("user", "Is it wide?"),), "It is.", True),
        Prompt((Message("user", "the sea " * 300),), "", True),
        Prompt((Message("user", "The sea"),), "is wide", False),
    ]
    said = continued(model, tokenizer, asked)
    assert len(said) == 3 and "context of 256" in said[1]
    bare = Tokenizer.from_bpe(train_bpe(["The sea is wide. "] * 4, 300), chat_template=None)
    assert "template" in continued(model, bare, asked)[0]


# The records of a folder.


def write_run(folder: Path, settings: dict[str, Any], **files: dict[str, Any]) -> Path:
    """A fine-tuning run's records."""
    folder.mkdir(parents=True)
    parents = {"model": {"path": str(folder.parent / "base"), "sha256": "ab"}}
    content = {"stage": "sft", "parents": parents, "config": {"seed": 0} | settings}
    (folder / "run.json").write_text(json.dumps(content))
    plan = {"parameters": 1000, "flops_per_token": 1.0} | files.pop("plan", {})
    (folder / "plan.json").write_text(json.dumps(plan))
    steps = [
        {
            "kind": "train",
            "step": i + 1,
            "tokens": 100 * (i + 1),
            "loss": 3.0 - i,
            "seconds": 1.0,
            "tokens_per_second": 10.0 * (i + 1),
            "peak_share": 0.1,
        }
        for i in range(3)
    ]
    held = {"kind": "evaluation", "step": 3, "seconds": 0.5, "heldout_loss": 2.5}
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [*steps, held])
    )
    for name, facts in files.items():
        (folder / f"{name}.json").write_text(json.dumps(facts))
    return folder


def test_costs_equal_the_runs_records(tmp_path: Path) -> None:
    lora = write_run(
        tmp_path / "lora",
        {"adapter": "lora", "seed": 7},
        plan={"trained_parameters": 50, "adapter": "lora"},
        status={"state": "finished", "peak_memory_bytes": 12345},
        data={"rows": 9, "duplicates": 2, "truncated": 1, "note": "x"},
        adapter_config={"r": 16, "lora_alpha": 32.0, "use_dora": True, "use_rslora": False},
    )
    (lora / "adapter_model.safetensors").write_bytes(b"x" * 99)
    found = costs(lora)
    assert found.method == "LoRA" and found.adapter == {"rank": 16, "alpha": 32.0, "DoRA": True}
    assert (found.trained_parameters, found.disk_bytes, found.tokens) == (50, 99, 300)
    assert (found.tokens_per_second, found.peak_memory_bytes, found.seed) == (20.0, 12345, 7)
    assert found.set_aside == {"duplicates": 2, "truncated": 1}
    assert found.minutes == pytest.approx(3.5 / 60)


def test_an_earlier_run_has_fewer_records_and_a_foreign_model_none(tmp_path: Path) -> None:
    full = write_run(tmp_path / "full", {})
    (full / "model.safetensors").write_bytes(b"x" * 10)
    found = costs(full)
    assert (found.method, found.trained_parameters, found.disk_bytes) == (
        "full fine-tuning",
        1000,
        10,
    )
    assert found.peak_memory_bytes is None and found.set_aside == {}
    damaged = {"bad_lines": True, "refused": -1, "duplicates": 2}
    (full / "data.json").write_text(json.dumps(damaged))
    (full / "status.json").write_text(json.dumps({"peak_memory_bytes": True}))
    assert costs(full).set_aside == {"duplicates": 2} and costs(full).peak_memory_bytes is None
    nothing = costs(tmp_path)
    assert nothing.method == "from elsewhere" and nothing.tokens is None
    # The model that others start from has costs of its own, which are not this report's.
    parent = costs(full, is_parent=True)
    assert parent.method == "before" and parent.tokens is None and parent.disk_bytes == 10


# In words.


def change(estimate: float, low: float, high: float) -> Estimate:
    return Estimate(estimate, low, high, 10, 10)


@pytest.mark.parametrize(
    ("key", "found", "kind"),
    [
        ("bits_per_byte", change(-0.2, -0.3, -0.1), "yes"),
        ("bits_per_byte", change(0.2, 0.1, 0.3), "no"),
        ("bits_per_byte", change(-0.2, -0.4, 0.01), "open"),
        ("question_accuracy", change(0.1, 0.01, 0.2), "yes"),
        ("question_accuracy", change(-0.1, -0.2, -0.01), "no"),
        ("question_accuracy", change(0.1, 0.0, 0.2), "open"),
    ],
)
def test_better_is_fewer_bits_and_more_right_answers(key: str, found: Estimate, kind: str) -> None:
    assert mark_of(found, OF[key].better) == kind


def test_verdicts_match_the_data_and_state_the_possible_loss(
    read: Callable[[CausalLM], Evaluated], model: CausalLM
) -> None:
    # Every block costs 0.1 more; or as many blocks cost more as cost less.
    parent = but(read(model), "base")
    forgot = but(parent, "full", general_text=blocks((1.1, 2.1, 3.1) * 7))
    mixed = but(parent, "thin", general_text=blocks((1.6, 2.0, 2.4) * 7))
    said = {
        (one.what, one.claim.split(" costs")[0]): one for one in claims([parent, forgot, mixed])
    }
    general = "a byte of general text"
    loud = said["full (from elsewhere)", general]
    assert (
        loud.mark == "no" and "0.100 bits more (+0.100 to +0.100). That was forgotten" in loud.claim
    )
    quiet = said["thin (from elsewhere)", general]
    assert quiet.mark == "open" and "no forgetting is shown. A loss of up to 0.2" in quiet.claim
    domain = said["thin (from elsewhere)", "a byte of the domain's answers"]
    assert domain.mark == "open" and "no gain is shown" in domain.claim
    assert "Perplexity" in domain.claim
    (between,) = [
        one
        for one in claims([parent, forgot, mixed])
        if one.what == "full against thin" and "general" in one.claim
    ]
    assert between.mark == "open" and "no difference is shown" in between.claim


@pytest.mark.parametrize("right", [0.0, 0.5])
def test_without_changed_answers_a_loss_may_still_exist(right: float) -> None:
    """This many questions cannot detect a model that forgot one in a hundred."""
    rows = [Choice("?", ("a", "b"), 0, "piqa", str(i)) for i in range(40)]
    sums = [np.array([-1.0, -2.0] if i < 40 * right else [-2.0, -1.0]) for i in range(40)]
    parent, same = (tuned(name, answers=Answers(rows, sums)) for name in ("base", "thin"))
    found = OF["question_accuracy"].change(same, parent)
    assert found is not None and found.estimate == 0 and found.low < -0.05 and found.high > 0.05
    replies = (tuned(name, replies=Answers(rows, sums)) for name in ("base", "thin"))
    between = OF["reply_accuracy"].change(*replies)
    assert between is not None and between.low < 0 < between.high
    core = Answers(rows, sums).minus(Answers(rows, sums))
    assert {one.low < 0 < one.high for one in core.values()} == {True}
    if right:
        (said,) = [one for one in claims([parent, same]) if "questions" in one.claim]
        assert said.mark == "open" and "is not excluded" in said.claim
        assert "up to 0.0 points" not in said.claim


@pytest.mark.parametrize(("rows", "mark"), [(19, "open"), (20, "no")])
def test_few_general_rows_show_no_forgetting(rows: int, mark: str) -> None:
    parent, worse = (tuned(name, bits=[bits] * rows) for name, bits in (("a", 1.0), ("b", 2.0)))
    (said,) = claims([parent, worse])
    assert said.mark == mark and ("19 rows prove nothing" in said.claim) == (rows == 19)


@pytest.mark.parametrize(("rows", "proven"), [(2, False), (19, False), (20, True), (100, True)])
@pytest.mark.parametrize("better", [True, False])
def test_few_held_out_rows_are_not_significant(
    tmp_path: Path, rows: int, proven: bool, better: bool
) -> None:
    talks = [talk(i, f"Question {i}?", f"Answer {i}.") for i in range(rows)]
    domain = domain_of(Dataset((), tuple(talks), (), 0), config(tmp_path / "x"))
    found = too_few(OF["bits_per_byte"], Estimate(-1, -2, -0.5, rows, rows), domain)
    assert (found is None) == proven
    assert too_few(OF["text_bits_per_byte"], Estimate(1, 1, 1, 20, 20), domain) is None
    said = notes([tuned("base")], {}, domain)
    assert any("fewer than 20" in one for one in said) != proven
    # Many blocks of two long texts are two texts.
    texts = [Document("sea " * 9000, "texts", str(i)) for i in range(2)]
    domain = domain_of(Dataset((), tuple(texts), (), 0), config(tmp_path / "x"))
    assert too_few(OF["document_bits_per_byte"], Estimate(-1, -2, -1, 30, 30), domain) == 2
    # The same test for better and for worse, in words.
    parent = but(tuned("base"), documents=blocks([1.0] * rows))
    moved = but(tuned("thin"), documents=blocks([0.5 if better else 1.5] * rows))
    (one,) = [v for v in claims([parent, moved]) if "domain's texts" in v.claim]
    assert one.mark == (("yes" if better else "no") if proven else "open")


def test_training_rows_prove_nothing_and_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    domain = read_domain(config(path), 0.0)
    assert domain.trained and domain.rows == 60
    assert too_few(OF["bits_per_byte"], Estimate(-1, -2, -0.5, 60, 60), domain) == 0
    assert any("nothing is held out" in one for one in notes([tuned("base")], {}, domain))
    half = read_domain(config(path), 0.5)
    assert not half.trained and half.rows + half.left == 60
    for name, share in (("a", 0.1), ("b", 0)):
        write_run(tmp_path / name, {"validation": share})
    assert validation_of(config(path), [tmp_path / "a", tmp_path / "b"]) == 0
    # The run's resolved settings count, not the unset options.
    write_run(tmp_path / "c", {"validation": None})
    (tmp_path / "c" / "data.json").write_text(json.dumps({"validation": 0.0}))
    assert validation_of(config(path), [tmp_path / "c"]) == 0


def test_rows_that_no_model_saw_are_all_measured(tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    rows = [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = config(path, validation=1)
    domain = read_domain(asked, validation_of(asked, []))
    assert (domain.rows, domain.left, domain.trained) == (60, 0, False)


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("The ship sails over the wide green sea today.", True),
        ("the ship, sails over THE wide green sea today!", True),
        ("Indeed: the ship sails over the wide green sea today, they say.", True),
        ("The ship lies at the bottom of a lake in winter.", False),
        ("Sea.", False),
    ],
)
def test_held_out_answers_that_occur_in_training_are_counted(answer: str, known: bool) -> None:
    held = [talk(1, "Where?", "The ship sails over the wide green sea today."), TALKS[1]]
    train = [talk(9, "Whither?", answer), talk(10, "?", "Nothing of the kind.")]
    assert said_in_training(held, train) == known
    document = Document("The ship sails over the wide green sea today.", "t", "1")
    assert said_in_training([document], train) == known


def test_held_out_near_duplicates_of_training_rows_are_counted() -> None:
    """As counted by comparing every pair of answers."""
    rng = np.random.default_rng(0)
    answers = [" ".join(rng.choice(list("abc"), rng.integers(2, 14))) for _ in range(120)]
    answers += [f"The answer is {word}, as was said." for word in "abab"]
    held, train = ([talk(i, "?", one) for i, one in enumerate(answers[k::2])] for k in (0, 1))

    def triples(text: str) -> set[tuple[str, ...]]:
        said = words(text)
        return set(zip(said, said[1:], said[2:], strict=False))

    def stands(one: str) -> bool:
        own = triples(one)
        return any(
            words(one) == words(other)
            or (bool(own) and len(own & triples(other)) >= 0.8 * len(own))
            for other in answers[1::2]
        )

    expected = sum(map(stands, answers[0::2]))
    assert said_in_training(held, train) == expected and 10 < expected < 50


def test_what_got_worse_comes_first_and_uninformative_measures_are_left_out() -> None:
    parent = but(tuned("base"), documents=blocks([1.0] * 30))
    # It gains on the domain, loses general text; all questions are right before and after.
    moved = but(tuned("thin", bits=(1.1, 2.1, 3.1) * 7), documents=blocks([0.5] * 30))
    assert [one.mark for one in claims([parent, moved])] == ["no", "yes"]
    assert OF["question_accuracy"] not in informative_measures([parent, moved])
    rows = moved(measures.general_questions).rows
    wrong = Answers(rows, [np.array([-2.0, -1.0])] * len(rows))
    some = tuned("some", answers=wrong)
    assert OF["question_accuracy"] in informative_measures([parent, some])
    assert OF["question_accuracy"] not in informative_measures([some, some])


def test_quantization_is_not_called_forgetting(read: Callable[[CausalLM], Evaluated]) -> None:
    parent = read(roomy(0))
    made = replace(parent(training_costs), method="QLoRA")
    model = but(parent, training_costs=made, general_text=blocks((1.1, 2.1, 3.1) * 7))
    (said,) = [one for one in claims([parent, model]) if "general text" in one.claim]
    assert said.mark == "no" and "to the 4 bits of its base or by forgetting" in said.claim


def test_notes_report_unequal_budgets_other_parents_and_training_rows(tmp_path: Path) -> None:
    def child(name: str, tokens: int, **settings: Any) -> Evaluated:
        path = write_run(tmp_path / name, settings)
        seen = Contamination(name, "sft", {}, f"{name} (sft)", "own.jsonl, unknown")
        made = but(
            tuned(name, contamination=[seen]), training_costs=replace(costs(path), tokens=tokens)
        )
        return replace(made, history=History.of(path))

    full, lora = child("full", 1000, validation=0), child("lora", 2000, replay=0.25, patience=2)
    said = "\n".join(notes([tuned("base"), full, lora], {"full": True, "lora": False}))
    assert "lora was not trained from base" in said and "full was not trained" not in said
    assert "full 1,000, lora 2,000" in said
    assert "full held nothing out" in said and "lora replayed general text (25 %" in said
    assert "lora kept the weights that did best" in said and "full kept" not in said
    assert "trained once (seed 0)" in said
    assert "full (sft), lora (sft) were trained on own.jsonl, unknown" in said
    equal = notes([tuned("base"), full, replace(full, name="same")], {"full": None})
    assert not any("budgets" in one or "not trained from" in one for one in equal)
    assert "full (sft) was trained on own.jsonl, unknown" in equal


# Runs.

_THINGS = {"sea": "blue", "grass": "green", "snow": "white", "coal": "black", "sun": "yellow"}


def write_domain(folder: Path) -> tuple[Path, Path]:
    """Distinct questions about colors, and a text about them."""
    rows = [
        {"prompt": f"Number {i}: and the {thing}?", "completion": f"The {thing} is {colour}!"}
        for i in range(16)
        for thing, colour in _THINGS.items()
    ]
    talks, notes = folder / "colours.jsonl", folder / "notes.md"
    talks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [
        f"{i}. The {thing} is {colour}." for i in range(60) for thing, colour in _THINGS.items()
    ]
    notes.write_text("\n\n".join(said))
    return talks, notes


@pytest.fixture(scope="module")
def folder(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a tiny model before and after full fine-tuning and with an adapter."""
    at = tmp_path_factory.mktemp("tuning")
    parent, data = workshop.finished("pretrain"), write_domain(at)
    made = {
        adapter: sft.run(
            SFTConfig(
                out=at / adapter,
                model=parent,
                data=data,
                validation=0.3,
                adapter=adapter,
                steps=60,
                rows=4,
                learning_rate=rate,
                evaluations=1,
                compile="off",
                dtype="float32",
                threads=1,
            )
        )
        for adapter, rate in (("none", 0.01), ("lora", 0.01))
    }
    return run(
        TuningReportConfig(
            out=at / "report",
            models=tuple(map(str, (parent, *made.values()))),
            data=data,
            questions=24,
            bytes_per_source=2048,
            dtype="float32",
            threads=1,
        )
    )


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def test_a_card_includes_gains_and_costs_of_tuning(
    folder: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(folder.parent / "none", tmp_path / "none")
    card = write_card(tmp_path / "none", [folder]).read_text()
    model, domain = report["models"]["none"], report["domain"]
    assert "### By groundup eval tuning" in card
    assert f"{domain['heldout_rows']} held-out rows of the domain, 12 general questions" in card
    shown = {OF[name].title: OF[name].share for name in report["shown"]}
    for name in report["shown"]:
        found, share = model["measures"][name], OF[name].share
        scale, digits, unit = (100, 1, " %") if share else (1, 3, "")
        low, value, high = (
            f"{scale * found[end]:z.{digits}f}{unit}" for end in ("low", "estimate", "high")
        )
        is_one = found["low"] == found["high"]
        ends = "–" if is_one else f"{low} to {high}"
        assert f"| {OF[name].title} | {value} | {ends} |" in card
    # The gain on the domain is reported once, in bits and not again in nats.
    better = card.partition("Better than what")[2].partition("|")[0]
    assert f"- {OF['bits_per_byte'].title}: none against pretrain, " in better
    assert OF["loss"].title in shown and f"- {OF['loss'].title}" not in better
    for name in report["unproven"]:
        assert f"- {OF[name].title}, whether it changed: too few rows to tell" in card
        assert f"- {OF[name].title}: none against" not in card
    assert all(find_set(one).citation in card for one in model["question_accuracy"] if one != ALL)
    # The first of a report has nothing to be compared with.
    shutil.copytree(report["settings"]["models"][0], tmp_path / "pretrain")
    assert (
        " against "
        not in write_card(tmp_path / "pretrain", [folder])
        .read_text()
        .partition("## What was not measured")[0]
        .partition("### By")[2]
    )


def test_a_model_tuned_on_a_domain_is_better_there(report: dict[str, Any]) -> None:
    assert list(report["models"]) == ["pretrain", "none", "lora"]
    assert report["domain"]["heldout_rows"] > 10 and report["domain"]["reply_questions"] == 12
    methods = {name: one["costs"]["method"] for name, one in report["models"].items()}
    assert methods == {"pretrain": "before", "none": "full fine-tuning", "lora": "LoRA"}
    for name in ("none", "lora"):
        gain = report["against_parent"][name]["bits_per_byte"]
        assert gain["high"] < 0
        after, before = (report["models"][n]["measures"] for n in (name, "pretrain"))
        assert gain["estimate"] == pytest.approx(
            after["bits_per_byte"]["estimate"] - before["bits_per_byte"]["estimate"]
        )
        said = [v for v in report["verdicts"] if v["about"].startswith(f"{name} (")]
        assert any(v["kind"] == "yes" and "It learned the domain" in v["text"] for v in said)
        assert after["perplexity"]["estimate"] < before["perplexity"]["estimate"]
        assert after["perplexity"]["estimate"] == pytest.approx(math.exp(after["loss"]["estimate"]))
    costs = report["models"]["lora"]["costs"]
    assert costs["trained_parameters"] < report["models"]["none"]["costs"]["trained_parameters"]
    assert costs["disk_bytes"] < report["models"]["none"]["costs"]["disk_bytes"]
    assert list(report["between"]) == ["none against lora"]
    keys = set(report["models"]["none"]["measures"])
    assert keys == {measure.name for measure in MEASURES} | {"perplexity"}


def test_the_runs_held_out_rows_are_measured_and_their_parent_is_found(
    folder: Path, report: dict[str, Any]
) -> None:
    assert json.loads((folder / "plan.json").read_text())["validation"] == 0.3
    assert not any("not trained from" in note for note in report["notes"])


def test_the_page_shows_everything_and_is_self_contained(
    folder: Path, report: dict[str, Any]
) -> None:
    page = (folder / "report.html").read_text()
    assert_self_contained(page)
    assert page.count("data:image/svg+xml") == 4
    assert "guessing reaches 25.0 %" in page and "It learned the domain." in page
    assert len(report["prompts"]) == 4
    for prompt in report["prompts"]:
        assert prompt["messages"][0]["content"] in page
    for model in report["models"].values():
        assert len(model["samples"]) == 4


def test_a_finished_report_does_not_change(folder: Path, report: dict[str, Any]) -> None:
    again = TuningReportConfig.model_validate(
        report["settings"] | {"out": folder, "models": tuple(report["settings"]["models"])}
    )
    before = (folder / "report.json").stat().st_mtime_ns
    assert run(again) == folder
    assert (folder / "report.json").stat().st_mtime_ns == before


def test_no_held_out_rows_is_one_message(workshop: Any, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    with pytest.raises(UserError, match="holds nothing out"):
        run(
            TuningReportConfig(
                out=tmp_path / "out",
                models=(str(workshop.finished("pretrain")),),
                data=(tmp_path / "one.jsonl",),
            )
        )


def test_the_page_does_not_call_training_rows_held_out(folder: Path, tmp_path: Path) -> None:
    assert (
        "held-out conversations, each up to its last answer" in (folder / "report.html").read_text()
    )
    tuned = json.loads((folder.parent / "none" / "run.json").read_text())["config"]
    settings = {"out": str(tmp_path / "all"), "validation": 0.0, "steps": 1}
    whole = sft.run(SFTConfig(**tuned | settings))
    report = json.loads((folder / "run.json").read_text())["config"]
    asked = {"out": str(tmp_path / "page"), "models": [str(whole)], "questions": 12}
    page = (run(TuningReportConfig(**report | asked)) / "report.html").read_text()
    assert "all of them trained on" in page and "conversations, each up to its last answer" in page
    assert "held-out conversations" not in page and "held-out answers" not in page
