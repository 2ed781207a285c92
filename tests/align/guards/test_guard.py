"""Guards: thresholds with a guaranteed false-positive rate, training on a toy, and bad folders."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.test_resume import kill_until_done
from torch.nn.functional import binary_cross_entropy_with_logits

from groundup.align.guards import stage
from groundup.align.guards.config import GuardConfig
from groundup.align.guards.examples import Labeled, Sides, labeled, read_examples
from groundup.align.guards.model import hard_benign, load_guard, threshold
from groundup.align.guards.ngrams import fitted
from groundup.align.guards.report import Filter, by_use, opening_words
from groundup.align.guards.stage import LabeledBatch, LabeledStream, guard_loss, weights_by_kind
from groundup.align.rewards.model import RewardModel, load_reward_model, read_at_end
from groundup.app.cli import main
from groundup.data.files import write_json_lines
from groundup.errors import UserError
from groundup.formats.load import load, load_tokenizer
from groundup.generation.generate import generate
from groundup.generation.guarded import SENTENCE, Guard
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.report.estimate import share
from groundup.text.batches import packed_batch
from groundup.text.bpe import train_bpe
from groundup.text.rows import BadRow
from groundup.text.saying_no import is_refusal
from groundup.text.tokenizer import Tokenizer
from groundup.world import conduct
from groundup.world.pack import conversation, preference
from rollouts import small_policy

THINGS = ("sea", "grass", "snow", "coal", "sun")


def toy(folder: Path, count: int = 400) -> Path:
    """Prompts about colors, of which those about coal are harmful, and answers that say black."""
    source, rows = random.Random(0), list[dict[str, Any]]()
    for number in range(count):
        thing, other = source.choice(THINGS), source.choice(("blue", "green", "black"))
        prompt = f"{number} Is the {thing} {source.choice(('wide', 'deep'))}?"
        rows.append({"prompt": prompt, "label": thing == "coal"})
        rows.append({"prompt": prompt, "answer": f"It is {other}.", "label": other == "black"})
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SETTINGS: dict[str, Any] = {
    "steps": 200,
    "rows": 16,
    "micro_rows": 16,
    "learning_rate": 0.003,
    "embedding_learning_rate": 0.003,
    "save_every": 3,
    "evaluations": 2,
    "compile": "off",
    "dtype": "float32",
    "threads": 1,
}


def command(workshop: Any, data: Path, out: Path, **changes: Any) -> list[str]:
    settings = SETTINGS | {"model": workshop.finished("sft"), "data": data, "out": out} | changes
    words = [w for k, v in settings.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    return [sys.executable, "-m", "groundup", "guard", *words]


@pytest.fixture(scope="module")
def trained(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard of the toy."""
    folder = tmp_path_factory.mktemp("guard")
    settings = SETTINGS | {"model": workshop.finished("sft"), "data": toy(folder)}
    return stage.run(GuardConfig(out=folder / "guard", **settings))


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, for changes."""
    return Path(shutil.copytree(trained, tmp_path / "guard"))


# Thresholds.


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (40, 0.05), (99, 0.1), (250, 0.02)])
def test_the_false_positive_rate_holds_for_a_new_benign_row(count: int, rate: float) -> None:
    rng = np.random.default_rng(count)
    stopped = []
    for _ in range(4000):
        scores = rng.normal(size=count + 1)
        stopped.append(scores[-1] > threshold(scores[:-1], rate))
    # Exactly 1 - k / (n + 1), which the promise bounds.
    exact = 1 - math.ceil((count + 1) * (1 - rate)) / (count + 1)
    assert exact <= rate + 1e-9
    assert np.mean(stopped) == pytest.approx(exact, abs=4 * math.sqrt(rate / 4000))


def test_the_guarantee_holds_for_groups_of_many_rows() -> None:
    """Rows of a group have similar scores: ranked one by one, those of few groups would stop far
    more."""
    rng, stopped, one_by_one = np.random.default_rng(0), [], []
    for _ in range(1500):
        groups = [str(i) for i in range(20) for _ in range(1 + 30 * (i < 2))]
        rows = [Labeled(f"{n}", None, False, "a", group) for n, group in enumerate(groups)]
        level = rng.normal(size=21)
        scores = np.array([level[int(group)] for group in groups])
        ranked = hard_benign([*rows, Labeled("x", None, True, "a", "harm")], "message")
        assert [rows[i].group for i in ranked] == [str(i) for i in range(20)]
        stopped.append(level[-1] > threshold(scores[ranked], 0.1))
        one_by_one.append(level[-1] > threshold(scores, 0.1))
    assert np.mean(stopped) <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1500)
    assert np.mean(one_by_one) > 0.2


def test_groups_are_counted_before_any_work() -> None:
    def sides(groups: int) -> Sides:
        rows = [Labeled(f"{i}", None, False, "a", f"{i % groups}") for i in range(100)]
        harm = Labeled("harm", None, True, "a", "harm")
        return Sides([harm], [*rows, harm], [])

    stage.require_calibration(sides(19), 0.05)
    with pytest.raises(UserError, match=r"19 groups .* 18 from .* are set aside"):
        stage.require_calibration(sides(18), 0.05)


def test_too_few_benign_rows_give_no_guarantee() -> None:
    assert threshold(np.zeros(18), 0.05) == math.inf
    assert threshold(np.zeros(19), 0.05) == 0


def test_thresholds_are_set_by_benign_look_alikes() -> None:
    rows = [
        Labeled("a", None, False, "easy", "a"),
        Labeled("b", None, False, "hard", "b"),
        Labeled("c", None, True, "hard", "c"),
        Labeled("d", "said", False, "hard", "d"),
    ]
    assert hard_benign(rows, "message") == [1] and hard_benign(rows, "answer") == []


# The loss and the stream.


def test_the_loss_is_logistic_on_scores_at_the_ends() -> None:
    model = RewardModel(small_policy())
    model.initialize(0)
    model.eval()
    ids = [[15, 16, 17, 3], [15, 16, 18, 19, 3], [20, 21, 3], [30, 3]]
    harmful, weights = torch.tensor([1.0, 0, 0, 1]), torch.tensor([0.5, 1.5, 2, 1])
    items = [read_at_end(one, 64) for one in ids]
    batch = LabeledBatch(packed_batch([items[:2], items[2:]], 16), harmful, weights)
    found = guard_loss(model, batch)
    alone = [model(packed_batch([[one]], 8))[0] for one in items]
    each = binary_cross_entropy_with_logits(torch.stack(alone), harmful, reduction="none")
    expected = float((each * weights).sum().detach())
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-4)
    assert found.weight == 5


def test_all_kinds_have_equal_weight() -> None:
    rows = [
        Labeled(str(i), "said" if i % 5 == 0 else None, i % 7 == 0, "a", str(i)) for i in range(90)
    ]
    weights = weights_by_kind(rows)
    sums = {}
    for row, weight in zip(rows, weights, strict=True):
        sums[row.use, row.harmful] = sums.get((row.use, row.harmful), 0) + weight
    assert list(sums.values()) == pytest.approx([90 / 4] * 4)


def test_an_epoch_reads_every_row_once() -> None:
    items = [read_at_end([9 + i, 3], 64) for i in range(23)]
    stream = LabeledStream(
        items, [i % 2 == 0 for i in range(23)], np.ones(23), context=8, rows=2, micro_rows=1, seed=0
    )
    read = []
    for step in range(-(-stream.rows_per_epoch // 2)):
        for batch in stream.at(step, torch.nn.Identity()):
            at = batch.rows.weights.nonzero()
            first = batch.rows.input_ids[at[:, 0], at[:, 1] - 1] - 9
            assert ((first % 2 == 0).float() == batch.harmful).all()
            read += first.tolist()
    assert {*read} == {*range(23)}


# The data.


def test_labels_of_a_data_stage_folder(tmp_path: Path) -> None:
    talks = [conversation(0, i) for i in range(1500)]
    pairs = [preference(0, i) for i in range(300)]
    for kind, found in (("conversations", talks), ("preferences", pairs)):
        (tmp_path / kind).mkdir()
        write_json_lines(tmp_path / kind / "train.jsonl", found)
    (tmp_path / "refusals").mkdir()
    write_json_lines(tmp_path / "refusals" / "heldout.jsonl", conduct.prompts())
    sides = read_examples(tmp_path, 1000)
    assert sides.calibration
    for row in (*sides.train, *sides.calibration):
        if row.use == "message":
            assert row.harmful == (conduct.is_harmful(row.message) is True)
        elif row.harmful:
            assert conduct.is_harmful(row.message) and not conduct.declines(row.answer or "")
    heldout = {row.prompt for row in conduct.prompts()}
    assert not heldout & {row.message for row in (*sides.train, *sides.calibration)}
    # Groups are on one side.
    assert not {row.group for row in sides.train} & {row.group for row in sides.calibration}
    kinds_found = {(row.use, row.harmful) for row in sides.train}
    assert len(kinds_found) == 4


@pytest.mark.parametrize("label", [True, "true", "harmful", 1, "1", 1.0, "1.0"])
def test_labels_in_a_users_file(label: object) -> None:
    found = labeled({"text": "Hello", "label": label}, "file", 1)
    assert found == Labeled("Hello", None, True, "file", "Hello")


@pytest.mark.parametrize("row", [{"label": True}, {"prompt": "a"}, {"prompt": "a", "label": "x"}])
def test_rejects_invalid_rows(row: dict[str, Any]) -> None:
    with pytest.raises(BadRow):
        labeled(row, "file", 1)


def test_a_row_without_a_message_names_the_expected_column() -> None:
    with pytest.raises(BadRow, match=r"^no 'prompt'; it has \['label', 'messages'\]"):
        labeled({"messages": [], "label": True}, "file", 1)


def test_rejects_a_single_class(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"prompt": f"p{i}", "label": False}) for i in range(50)]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="only benign rows"):
        read_examples(path, 100)


def test_the_kinds_of_a_file_are_those_of_all_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "a1", "label": True}))
    with pytest.raises(UserError, match="holds only harmful rows"):
        read_examples(path, 100)
    folder = tmp_path / "data"
    (folder / "conversations").mkdir(parents=True)
    with pytest.raises(UserError, match="holds nothing to learn from"):
        read_examples(folder, 100)


@pytest.mark.parametrize("harmful", [1, 2])
@pytest.mark.parametrize("answer", [None, "So."])
def test_few_harmful_rows_keep_one_for_training(
    tmp_path: Path, harmful: int, answer: str | None
) -> None:
    path = tmp_path / "a.jsonl"
    for k in range(40):
        rows: list[dict[str, object]] = [
            {"prompt": f"hurt {k} {i}", "answer": answer, "label": True} for i in range(harmful)
        ]
        # Beside messages alone, which are another use.
        for use in (answer, None):
            rows += [{"prompt": f"bake {k} {i}", "answer": use, "label": False} for i in range(60)]
        rows += [{"prompt": f"harm {k} {i}", "label": True} for i in range(60) if answer]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sides = read_examples(path, 1000)
        use = "message" if answer is None else "answer"
        assert any(row.harmful and row.use == use for row in sides.train)
        assert 3 < len({row.group for row in sides.calibration}) < 60
        groups = [
            {row.group for row in side} for side in (sides.train, sides.calibration, sides.heldout)
        ]
        assert groups[0].isdisjoint(groups[1] | groups[2]) and groups[1].isdisjoint(groups[2])


# N-grams.


def test_n_grams_learn_words_and_their_order() -> None:
    rng = random.Random(0)
    rows = []
    for i in range(400):
        first, then = rng.choice(("cut", "hit", "see")), rng.choice(("cake", "king", "tree"))
        rows.append(Labeled(f"{first} the {then} {i}", None, first == "hit", "a", str(i)))
        said = rng.choice(("no way", "way no"))
        rows.append(Labeled(f"{first} {i}", said, said == "way no", "a", str(i)))
    for use in ("message", "answer"):
        some = [row for row in rows if row.use == use]
        model = fitted(some[:300], weights_by_kind(some[:300]))
        scores = model.scores(some[300:])
        assert ((scores > 0) == np.array([row.harmful for row in some[300:]])).all()


# It learns and resumes.


def test_it_learns_the_toy_and_keeps_its_guarantee(trained: Path) -> None:
    guard = load_guard(trained)
    assert isinstance(guard, Guard)
    asked = [f"{number} Is the {thing} deep?" for number in range(1000, 1040) for thing in THINGS]
    harmful = np.array(["coal" in one for one in asked])
    stopped = guard.stops(asked)
    assert stopped[harmful].mean() >= 0.9 and stopped[~harmful].mean() <= 0.25
    said = [f"It is {('blue', 'green', 'black')[i % 3]}." for i in range(len(asked))]
    stopped, black = guard.stops(asked, said), np.array(["black" in one for one in said])
    assert stopped[black].mean() >= 0.9 and stopped[~black].mean() <= 0.25
    told = json.loads((trained / "result.json").read_text())["uses"]["message"]["guard"]["all"]
    assert told["ROC-AUC"]["estimate"] > 0.95
    assert (trained / "report.html").stat().st_size > 2000
    assert guard.stops([]).tolist() == []


def test_its_card_describes_a_model_that_returns_numbers(trained: Path) -> None:
    card = (trained / "README.md").read_text()
    assert "pipeline_tag: text-classification\n" in card and "It writes no text" in card


def test_thresholds_keep_the_rate_on_the_rows_that_set_them(trained: Path) -> None:
    guard, sides = load_guard(trained), read_examples(trained.parent / "labels.jsonl", 1000)
    for use in ("message", "answer"):
        rows = [row for row in sides.calibration if row.use == use and not row.harmful]
        said = None if use == "message" else [row.answer or "" for row in rows]
        asked, left = [row.message for row in rows], len(rows) - math.ceil(0.95 * (len(rows) + 1))
        stopped = guard.stops(asked, said)
        # The threshold is above the score that sets it by the possible rounding error.
        scores = guard.scores(asked, said)
        sets, rounding = np.sort(scores)[-left - 1], stage.ROUNDING
        assert guard.thresholds[use] == pytest.approx(sets + rounding, abs=rounding)
        # As many as the guarantee allows, and no fewer: otherwise more harm would pass. Only scores
        # within rounding error may pass.
        near = (scores > sets) & (scores <= sets + 2 * rounding)
        assert left - near.sum() <= stopped.sum() <= left


def test_measured_decisions_equal_those_of_the_folder(trained: Path) -> None:
    """The same rows through the folder, one by one."""
    guard, told = load_guard(trained), json.loads((trained / "result.json").read_text())
    sides = read_examples(trained.parent / "labels.jsonl", 1000)
    for use, of in (("message", None), ("answer", True)):
        rows = [row for row in sides.heldout if row.use == use]
        stops = np.concatenate(
            [guard.stops([row.message], of and [row.answer or ""]) for row in rows]
        )
        harmful = np.array([row.harmful for row in rows])
        measured = told["uses"][use]["guard"]["all"]
        assert stops[harmful].mean() == pytest.approx(measured["stopped, harmful"]["estimate"])
        assert stops[~harmful].mean() == pytest.approx(measured["stopped, benign"]["estimate"])


def test_rows_longer_than_in_training_are_measured_as_in_use(workshop: Any, tmp_path: Path) -> None:
    data = toy(tmp_path, 100)
    changes = {"steps": 4, "context": 16, "false_positives": 0.2}
    settings = SETTINGS | changes | {"model": workshop.finished("sft"), "data": data}
    guard = load_guard(stage.run(GuardConfig(out=tmp_path / "guard", **settings)))
    calibration = read_examples(data, 1000).calibration
    for use in ("message", "answer"):
        rows = [calibration[i] for i in hard_benign(calibration, use)]
        asked, said = [row.message for row in rows], [row.answer or "" for row in rows]
        scores = guard.scores(asked, None if use == "message" else said)
        sets, rounding = threshold(scores, 0.2), stage.ROUNDING
        assert guard.thresholds[use] == pytest.approx(sets + rounding, abs=rounding)


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_bits(workshop: Any, tmp_path: Path) -> None:
    data, whole = toy(tmp_path, 100), tmp_path / "whole"
    changes = {"steps": 12, "rows": 4, "micro_rows": 4, "false_positives": 0.2}
    stage.run(
        GuardConfig(**(SETTINGS | changes), model=workshop.finished("sft"), data=data, out=whole)
    )
    # On a busy machine the kill may come after the end: then once more.
    for seed in range(5):
        out = tmp_path / f"out-{seed}"
        met, _ = kill_until_done(workshop, command(workshop, data, out, **changes), out, 1, seed)
        for name in ("model.safetensors", "guard.json", "result.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
        if met:
            return
    pytest.fail("no attempt had its kill meet a living run")


# Before a model.


def test_a_file_of_prompts_with_a_guard(workshop: Any, trained: Path, tmp_path: Path) -> None:
    chat, asked = workshop.finished("sft"), ["Is the coal deep?", "Is the sea deep?", "The sun"]
    (tmp_path / "asked.txt").write_text("\n".join(asked))
    words = ["generate", str(chat), "--chat", "--guard", str(trained), "--temperature", "0"]
    words += ["--max-new-tokens", "8"]
    out = tmp_path / "out.jsonl"
    assert main([*words, "--prompts", str(tmp_path / "asked.txt"), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    found = {row["prompt"]: (row["text"], row["finish_reason"]) for row in rows}
    model, tokenizer = load(chat)
    requests = [
        Request(
            messages=[{"role": "user", "content": text}],
            sampling=Sampling(temperature=0, max_new_tokens=8),
        )
        for text in asked
    ]
    expected = generate(model, requests, tokenizer, guard=load_guard(trained))
    assert found == {
        text: (one.text, one.finish_reason) for text, one in zip(asked, expected, strict=True)
    }
    assert found["Is the coal deep?"] == (SENTENCE, "content_filter")


def test_the_chat_says_that_a_guard_is_on(
    workshop: Any, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Is the coal deep?\n"))
    assert main(["chat", str(workshop.finished("sft")), "--guard", str(trained)]) == 0
    said = capsys.readouterr().out
    assert "guard is on" in said and SENTENCE in said
    assert main(["chat", str(workshop.finished("sft")), "--guard", "nowhere"]) == 2
    assert "holds no guard" in capsys.readouterr().err


# In words of a report.


def test_shares_and_precision_of_an_example_by_hand() -> None:
    rows = [Labeled(str(i), None, i < 4, "ab"[i % 2], str(i)) for i in range(10)]
    scores = np.array([3.0, 2, 1, -1, 2, 0, 0, 0, 0, 0])
    [found] = by_use(
        rows,
        [
            Filter("guard", scores, {"message": 0.5}),
            Filter("n-grams", -scores, {"message": 0.5}),
        ],
    )
    told = {name: one.estimate for name, one in found.measures("guard").items()}
    assert told["stopped, harmful"] == 3 / 4 and told["stopped, benign"] == 1 / 6
    assert told["right when it stops"] == 3 / 4
    # 24 pairs: 3 beats five and loses to none, and so on; one tie at 2.
    assert told["ROC-AUC"] == pytest.approx((6 + 5.5 + 5 + 0) / 24)
    apart = found.apart(found.harmful)
    assert apart is not None and apart.estimate == pytest.approx(3 / 4 - 1 / 4)


def test_the_summary_names_the_source_with_most_false_positives() -> None:
    """Of a hundred benign rows of one source it stops none, of thirty of another a third."""
    rows = [Labeled(f"plain {i}", None, False, "plain", f"plain {i}") for i in range(100)]
    rows += [Labeled(f"near {i}", None, i >= 30, "near", f"near {i}") for i in range(60)]
    rows += [Labeled("alone", None, False, "alone", "alone")]
    stopped = np.array([0.0] * 100 + [1.0] * 10 + [0.0] * 20 + [1.0] * 31)
    filters = [Filter(name, stopped, {"message": 0.5}) for name in ("guard", "n-grams")]
    found = by_use(rows, filters)
    wrongly = share(10, 30)
    assert found[0].worst("guard") == ("near", wrongly)
    told = opening_words(found, {})
    assert f"near it stops 33% ({wrongly.low:.0%} to {wrongly.high:.0%})" in told
    one_source = by_use(rows[:100], [Filter(f.name, stopped[:100], f.thresholds) for f in filters])
    assert one_source[0].worst("guard") is None


def test_the_sentence_counts_as_a_refusal() -> None:
    assert is_refusal(SENTENCE) and conduct.declines(SENTENCE)


# Invalid folders.


def said_of(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_guard(folder)
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_a_guard_is_not_a_reward_and_a_reward_is_not_a_guard(workshop: Any, folder: Path) -> None:
    assert "holds no guard" in said_of(workshop.finished("sft"))
    assert "no guard" in said_of(workshop.finished("reward"))
    with pytest.raises(UserError, match="holds a guard"):
        load_reward_model(folder)
    with pytest.raises(UserError, match="holds a guard"):
        load(folder)


def test_another_tokenizer_in_its_folder(folder: Path) -> None:
    other = Tokenizer.from_bpe(train_bpe(["quite another text about quails"] * 4, 300))
    other.save(folder)
    assert "another tokenizer" in said_of(folder)


def test_it_works_with_a_model_of_another_tokenizer(workshop: Any, trained: Path) -> None:
    """It reads text with its own tokenizer and is independent of the model."""
    guard = load_guard(trained)
    assert guard.tokenizer.hash == load_tokenizer(workshop.finished("sft")).hash
    assert guard.stops(["7 Is the coal deep?"]).dtype == bool


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("gone", "guard.json' cannot be read"),
        ("torn weights", "model.safetensors is damaged"),
        ("no tokenizer", "tokenizer.json is not there"),
        ("changed", "guard.json is damaged"),
        ("odd", "guard.json has no thresholds"),
    ],
)
def test_damaged_folders(folder: Path, damage: str, told: str) -> None:
    weights, kept = folder / "model.safetensors", folder / "guard.json"
    content = json.loads(kept.read_text())
    if damage == "torn weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    else:
        (folder / ".guard.json.copy").unlink()
        assert load_guard(folder).thresholds == content["thresholds"]  # that alone is no damage
        if damage == "gone":
            kept.unlink()
        elif damage == "changed":
            kept.write_text(json.dumps(content | {"thresholds": {"message": -99.0}}))
        else:
            del content["sha256"]
            kept.write_text(json.dumps(content | {"thresholds": "low"}))
    assert told in said_of(folder)


def test_a_damaged_threshold_is_restored_from_its_copy(folder: Path) -> None:
    before = load_guard(folder).thresholds
    (folder / "guard.json").write_text("{")
    assert load_guard(folder).thresholds == before


def test_too_few_benign_rows_are_rejected_before_any_work(
    workshop: Any, trained: Path, tmp_path: Path
) -> None:
    data, out = trained.parent / "labels.jsonl", tmp_path / "out"
    code, said = workshop.run_here(command(workshop, data, out, false_positives=0.001))
    assert code == 2 and "needs benign rows of 999 groups" in said and "Traceback" not in said
