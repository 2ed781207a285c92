"""Pairs stay together, occur once per epoch, and only their answers are trained on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.align.config import DPOConfig, KTOConfig, RewardConfig
from groundup.align.preferences import (
    Pair,
    PairBatch,
    PairStream,
    micro_sizes,
    tokenize_pairs,
)
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.errors import UserError
from groundup.text.bpe import train_bpe
from groundup.text.example import Example
from groundup.text.rows import Message, Preference
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import PASS_TOKENS, TrainingConfig

CONTEXT = 24


def side(number: int, length: int) -> Example:
    """Tokens that identify their sequence; the second half is the answer."""
    return Example([number] * length, [i >= length // 2 for i in range(length)])


def random_pairs(lengths: list[tuple[int, int]]) -> list[Pair]:
    return [Pair(side(2 * i, a), side(2 * i + 1, b)) for i, (a, b) in enumerate(lengths)]


def references(count: int) -> np.ndarray:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


def stream(lengths: list[tuple[int, int]], rows: int, micro_rows: int, seed: int = 0) -> PairStream:
    return PairStream(
        random_pairs(lengths),
        references(len(lengths)),
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
def test_both_answers_are_in_one_micro_batch_and_every_pair_occurs_once(
    lengths: list[tuple[int, int]], rows: int, micro_rows: int, seed: int
) -> None:
    pairs = stream(lengths, rows, micro_rows, seed)
    steps = -(-pairs.rows_per_epoch // rows)
    batches = [b for step in range(steps) for b in pairs.at(step, torch.nn.Identity())]
    epoch = batches[: pairs.packing.batches_per_epoch]
    seen: Counter[int] = Counter()
    for batch in epoch:
        assert batch.rows.input_ids.shape[1] == CONTEXT
        assert batch.weight == len(batch.sequences) > 0
        for (chosen, rejected), reference in zip(batch.sequences, batch.reference, strict=True):
            number = check_pair(batch, int(chosen), int(rejected), lengths)
            assert reference.tolist() == references(len(lengths))[number].tolist()
            seen[number] += 1
    assert seen == Counter(range(len(lengths)))


STEPS = [
    *((16, micro_rows) for micro_rows in (16, 12, 10, 9, 8, 6)),
    *((1, 1), (2, 1), (3, 2), (5, 2), (7, 4), (9, 4), (11, 3)),
]


@pytest.mark.every(3)
@pytest.mark.parametrize(("rows", "micro_rows"), STEPS)
@pytest.mark.parametrize("longest", [CONTEXT, CONTEXT // 3])
def test_a_step_has_its_rows_and_one_pass_has_every_pair_once(
    longest: int, rows: int, micro_rows: int
) -> None:
    lengths = [(2 + 7 * i % longest, 2 + 5 * i % longest) for i in range(200)]
    pairs = stream(lengths, rows, micro_rows)
    # As the plan counts them (`train.plan`), with what is left of a last step.
    steps = -(-pairs.rows_per_epoch // rows)
    seen: Counter[int] = Counter()
    for step in range(3 * steps):
        batches = pairs.at(step, torch.nn.Identity())
        assert sum(len(batch.rows.input_ids) for batch in batches) == max(2, rows)
        # One row more than may be is read at once only where one row alone would be left.
        most = max(2, micro_rows) + (micro_rows <= 2 and rows % 2)
        assert all(len(batch.rows.input_ids) <= most for batch in batches)
        read = len(batches) * step
        for batch in batches[: max(0, pairs.packing.batches_per_epoch - read)]:
            seen.update(int(reference[0]) // 2 for reference in batch.reference)
    assert seen == Counter(range(200))
    assert pairs.packing.read_by(steps).tolist() == list(range(200))
    assert len(pairs.packing.read_by(steps - 1)) < 200


def check_pair(batch: PairBatch, chosen: int, rejected: int, lengths: list[tuple[int, int]]) -> int:
    """Both sides are complete and belong together; returns the pair's number."""
    found = []
    for segment in (chosen, rejected):
        place = batch.rows.segment_ids == segment
        [name] = batch.rows.input_ids[place].unique().tolist()
        found.append(name)
        number, which = divmod(name, 2)
        length = lengths[number][which]
        assert int(place.sum()) == length - 1
        assert float(batch.rows.weights[place].sum()) == length - length // 2
    assert found[1] == found[0] + 1 and found[0] % 2 == 0
    return int(found[0] // 2)


def test_steps_are_a_pure_function_of_seed_and_step() -> None:
    lengths = [(3 + i % 20, 4 + i % 15) for i in range(40)]
    model = torch.nn.Identity()
    forwards = {step: stream(lengths, 6, 2).at(step, model) for step in range(15)}
    backwards = stream(lengths, 6, 2)
    for step in reversed(range(15)):
        again = backwards.at(step, model)
        assert len(again) == 3
        for one, other in zip(again, forwards[step], strict=True):
            assert torch.equal(one.rows.input_ids, other.rows.input_ids)
            assert torch.equal(one.sequences, other.sequences)
            assert torch.equal(one.reference, other.reference)
    other_seed = stream(lengths, 6, 2, seed=1).at(0, model)[0]
    assert not torch.equal(other_seed.rows.input_ids, forwards[0][0].rows.input_ids)


@settings(deadline=None, max_examples=30)
@given(Lengths, st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))
def test_the_rows_of_steps_are_known_beforehand(
    lengths: list[tuple[int, int]], rows: int, micro_rows: int, steps: int
) -> None:
    pairs = stream(lengths, rows, micro_rows)
    read = {
        int(reference[0]) // 2
        for step in range(steps)
        for batch in pairs.at(step, torch.nn.Identity())
        for reference in batch.reference
    }
    assert pairs.packing.read_by(steps).tolist() == sorted(read)


@pytest.mark.parametrize(("kind", "least"), [(DPOConfig, 2), (RewardConfig, 2), (KTOConfig, 1)])
@pytest.mark.parametrize("micro_rows", [1, 2, 3, None])
@pytest.mark.parametrize("context", [256, PASS_TOKENS, 2 * PASS_TOKENS])
def test_memory_is_planned_for_the_rows_of_a_pass_of_pairs(
    kind: type[TrainingConfig], least: int, micro_rows: int | None, context: int
) -> None:
    config = kind.model_validate(
        {"out": "o", "model": "m", "data": "d", "rows": 6, "micro_rows": micro_rows}
    )
    micro = config.micro(context)
    assert micro == max(micro_sizes(config.rows, micro, least))
    assert micro == max(least, micro_rows or min(6, PASS_TOKENS // context))


def test_no_pairs_are_rejected() -> None:
    with pytest.raises(UserError, match="no preference pair"):
        stream([], 4, 2)


@pytest.fixture(scope="module")
def tokenizer(workshop: Any) -> Tokenizer:
    return Tokenizer.load(workshop.tokenizer)


def test_only_the_answer_is_trained_on(tokenizer: Tokenizer) -> None:
    prompt = (
        Message("user", "Is it?"),
        Message("assistant", "It may be."),
        Message("user", "Truly?"),
    )
    [pair], _ = tokenize_pairs(tokenizer, [Preference(prompt, "Yes.", "No way.", "s", "g")], 256)
    for marked, said in ((pair.chosen, "Yes."), (pair.rejected, "No way.")):
        ids = np.array(marked.ids)[np.array(marked.loss_mask)].tolist()
        assert tokenizer.decode(ids) == f"{said}<|im_end|>"
        assert tokenizer.decode(list(marked.ids)).count("It may be.") == 1


def test_long_answers_are_cut_and_prompts_that_leave_no_room_are_left_out(
    tokenizer: Tokenizer,
) -> None:
    short, long = (Message("user", "Is it?"),), (Message("user", "Is it? " * 50),)
    rows = [Preference(p, "Yes. " * 60, "No.", "s", "g") for p in (short, long)]
    [pair], _ = tokenize_pairs(tokenizer, rows, 100)
    assert pair.chosen.inputs == 100 and any(pair.chosen.loss_mask)


@pytest.mark.parametrize("stage", ["dpo", "kto", "reward"])
def test_rows_that_the_template_rejects_are_set_aside_and_counted(
    workshop: Any, tmp_path: Path, stage: str
) -> None:
    model = Path(shutil.copytree(workshop.finished("sft"), tmp_path / "sft"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
    config["chat_template"] = strict + config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    rows = [
        {"prompt": f"The sea {n}?", "chosen": "blue", "rejected": "red", "group": f"g{n}"}
        for n in range(30)
    ]
    trained = tmp_path / "data" / "preferences" / "train.jsonl"
    trained.parent.mkdir(parents=True)
    for number in (3, 20):
        talk = [{"role": "system", "content": "Hm."}, {"role": "user", "content": f"{number}?"}]
        rows[number]["prompt"] = talk
    trained.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (trained.parent / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"model": model, "data": tmp_path / "data", "steps": 1}
    code, said = workshop.run_here(workshop.command(stage, tmp_path / "out", **changes))
    said = " ".join(said.split())
    assert code == 0, said
    first, count = (7, 4) if stage == "kto" else (4, 2)
    for side in ("to train on", "held out"):
        told = (
            f"{count} rows {side} set aside, as they cannot be encoded; the first is row {first}:"
        )
        assert told in said and "No system!" in said
    assert "28 pairs" in said or "28 desirable and 28 undesirable" in said
    assert "0 without a difference" in said or "within the context" not in said


def test_if_all_rows_are_rejected_the_reason_is_given(tokenizer: Tokenizer) -> None:
    bare = Tokenizer.from_bpe(train_bpe(["The sea is wide. "] * 4, 300), chat_template=None)
    row = Preference((Message("user", "Is it?"),), "Yes.", "No.", "s", "g")
    with pytest.raises(UserError, match="template"):
        tokenize_pairs(bare, [row] * 3, 100)


def test_own_files_are_split_and_folders_keep_their_split(workshop: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
    rows = [row | {"prompt": f"Is it {number}?"} for number in range(41)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "bad\n")
    trained, held = split(path, "preferences", read_preferences)
    assert len(trained.rows) + len(held.rows) == 41 and 1 <= len(held.rows) <= 6
    assert "own.jsonl" in str(trained.bad[0])
    trained, held = split(workshop.data, "preferences", read_preferences)
    assert (len(trained.rows), len(held.rows)) == (40, 10)
