"""Fine-tuning data in another stage (ptx): its gradient and its benefit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from conftest import TinyModel
from groundup.align.config import DPOConfig
from groundup.align.ptx import PtxBatch, PtxStream, ptx_sources, ptx_stream, with_ptx
from groundup.data.dataset import load_dataset
from groundup.errors import UserError
from groundup.formats.load import load, load_tokenizer
from groundup.text.batches import ConversationStream
from groundup.text.example import Example
from groundup.text.rows import Conversation
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss
from groundup.tune.sft import heldout_loss


def examples(count: int, seed: int) -> list[Example]:
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 20, count)
    return [
        Example(random.integers(3, 300, length).tolist(), [i > 2 for i in range(length)])
        for length in lengths
    ]


def rows_of(seed: int) -> ConversationStream:
    return ConversationStream(examples(30, seed), context=24, rows=6, micro_rows=4, seed=seed)


class Rollouts:
    """A stream with a state, like that of a live policy."""

    def __init__(self) -> None:
        self.inner, self.rolled = rows_of(1), torch.zeros(1)

    def at(self, step: int, model: torch.nn.Module) -> list[Batch]:
        self.rolled += 1
        return self.inner.at(step, model)

    def can_save(self, step: int) -> bool:
        return step % 2 == 0

    def state(self) -> dict[str, Tensor]:
        return {"rolled": self.rolled}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.rolled = state["rolled"]


def gradients(model: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_a_step_has_the_gradient_of_both_means(tiny_model: TinyModel) -> None:
    """For any token counts: the mean of one plus `ptx` times the mean of the other."""
    model, stream = tiny_model(), PtxStream(rows_of(1), rows_of(2), 0.3)
    loss = with_ptx(next_token_loss)
    batches = stream.at(5, model)
    weight = sum(batch.weight for batch in batches)
    found = gradients(model, sum(loss(model, batch).total for batch in batches) / weight)
    means = []
    for seed in (1, 2):
        alone = [next_token_loss(model, batch) for batch in rows_of(seed).at(5, model)]
        means.append(sum(one.total for one in alone) / sum(one.weight for one in alone))
    expected = gradients(model, means[0] + 0.3 * means[1])
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)
    sums = [loss(model, batch).metrics.get("ptx_loss", (0.0, 0.0)) for batch in batches]
    total, count = (sum(one[i] for one in sums) for i in (0, 1))
    assert total / count == pytest.approx(float(means[1].detach()), rel=1e-5)


def test_ptx_rows_are_a_function_of_seed_and_step() -> None:
    model = torch.nn.Identity()
    stream, again = (PtxStream(Rollouts(), rows_of(2), 1.0) for _ in range(2))
    forwards = {step: stream.at(step, model) for step in range(6)}
    for step in reversed(range(6)):
        for one, other in zip(again.at(step, model), forwards[step], strict=True):
            assert type(one) is type(other)
            if isinstance(one, PtxBatch) and isinstance(other, PtxBatch):
                assert torch.equal(one.rows.input_ids, other.rows.input_ids)
                assert one.scale == other.scale and one.weight == 0 and one.tokens > 0
    assert stream.can_save(2) and not stream.can_save(3)
    assert stream.state()["rolled"].item() == 6
    again.restore({"rolled": torch.tensor([2.0])})
    assert again.state()["rolled"].item() == 2


def test_a_step_with_weight_0_has_no_ptx(tiny_model: TinyModel) -> None:
    """Rollouts with equal rewards have no gradient; the step is skipped as before."""

    class Nothing(Rollouts):
        def at(self, step: int, model: torch.nn.Module) -> list[Batch]:
            return []

    batches = PtxStream(Nothing(), rows_of(2), 1.0).at(0, tiny_model())
    assert [batch.scale for batch in batches if isinstance(batch, PtxBatch)] == [0.0, 0.0]


def test_it_preserves_fine_tuning(workshop: Any, tmp_path: Path) -> None:
    """Preferences for the wrong colors undo the fine-tuning; with ptx, less of it is undone."""
    asked = read_pairs(workshop.data / "preferences" / "train.jsonl")
    turned = [one | {"chosen": one["rejected"], "rejected": one["chosen"]} for one in asked]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(one) + "\n" for one in turned))
    lost = {}
    before = held(workshop, workshop.finished("sft"))
    for ptx in (None, 1.0):
        out = tmp_path / f"out-{ptx}"
        data = {"ptx": ptx, "ptx_data": ptx and workshop.data}
        code, said = workshop.run_here(workshop.command("dpo", out, data=pairs, steps=16, **data))
        assert code == 0, said
        lost[ptx] = held(workshop, out) - before
    assert lost[None] > 0.1 and lost[1.0] < 0.5 * lost[None], lost
    parents = json.loads((out / "run.json").read_text())["parents"]
    assert set(parents) == {"model", "data", "ptx"}
    assert "CC BY-SA 4.0" in (out / "README.md").read_text()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["ptx_loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == 16 and all(0 < loss < 3 for loss in losses)


def read_pairs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def held(workshop: Any, folder: Path) -> float:
    """The held-out loss of the fine-tuning data."""
    from groundup.data.records import read_conversations
    from groundup.text.example import encode_rows

    model, tokenizer = load(folder)
    rows = read_conversations(workshop.data / "conversations" / "heldout.jsonl").rows
    found = heldout_loss(model, encode_rows(tokenizer, rows, 64).items, 64)
    assert found is not None
    return found


def test_ptx_data_locations(workshop: Any, tmp_path: Path) -> None:
    common = {"out": tmp_path, "model": tmp_path, "data": workshop.data}
    assert ptx_sources(DPOConfig(**common), workshop.data) == ()
    assert ptx_sources(DPOConfig(ptx=0.1, **common), workshop.data) == (workshop.data,)
    own = DPOConfig(ptx=0.1, ptx_data=Path("talks.jsonl"), **common)
    assert ptx_sources(own, workshop.data) == (Path("talks.jsonl"),)
    with pytest.raises(UserError, match=r"ptx=0.1 needs fine-tuning data.*--ptx-data"):
        ptx_sources(DPOConfig(ptx=0.1, **common), tmp_path / "pairs.jsonl")


def test_rows_that_do_not_fit_are_counted(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, talks = load_tokenizer(workshop.finished("sft")), tmp_path / "talks.jsonl"
    # Too long are the prompts of the first ten and the answers of the next ten.
    rows = [
        {"prompt": f"What is {n}?" * (60 if n < 10 else 1), "completion": "Blue. " * 60}
        if n < 20
        else {"prompt": f"What is {n}?", "completion": "Blue."}
        for n in range(40)
    ]
    talks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = [one.messages for one in load_dataset((talks,)).train if isinstance(one, Conversation)]
    empty = sum(len(asked.content) > 100 for asked, _ in kept)
    cut = sum(len(said.content) > 100 for _, said in kept)
    assert 5 < empty < cut - 5
    common = {"out": tmp_path, "model": tmp_path, "data": workshop.data, "rows": 2}
    config = DPOConfig(ptx=0.1, ptx_data=(talks,), **common)
    ptx_stream(config, workshop.data, tokenizer, rows_of(1), 64)
    told = capsys.readouterr().out
    assert f"  {empty} items without a word to learn within the 64 tokens of a row" in told
    assert f"  {cut} items cut at the 64 tokens of a row" in told


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_unreadable_ptx_data_is_reported_before_the_reference_runs(
    workshop: Any, tmp_path: Path, stage: str
) -> None:
    pairs = workshop.data / "preferences" / "train.jsonl"
    out = tmp_path / "out"
    code, said = workshop.run_here(workshop.command(stage, out, ptx=0.5, ptx_data=pairs))
    assert code == 2 and "groundup dpo learns from" in said
    assert not (out / "reference.safetensors").exists()


def test_identical_pairs_are_set_aside_and_the_run_continues(workshop: Any, tmp_path: Path) -> None:
    rows = read_pairs(workshop.data / "preferences" / "train.jsonl")
    same = rows[0] | {"rejected": rows[0]["chosen"]}
    empty = rows[1] | {"chosen": " "}
    # The answers begin to differ where the context of 64 tokens ends.
    late = rows[2] | {"chosen": "Blue. " * 60, "rejected": "Blue. " * 59 + "No."}
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(one) + "\n" for one in [*rows, same, empty, late]))
    code, said = workshop.run_here(workshop.command("dpo", tmp_path / "out", data=pairs, steps=2))
    assert code == 0, said
    assert "line 41: 'chosen' and 'rejected' are the same" in said
    assert "line 42: the answer, 'chosen', is empty" in said
    assert "2 bad lines set aside" in said
    assert "1 pair without a difference within the context" in said


def test_rollouts_can_use_it_too(workshop: Any, tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text("What is the colour of the sea?\n")
    for stage in ("ppo", "grpo"):
        out = tmp_path / stage
        data = {"prompts": asked, "ptx_data": workshop.data}
        code, said = workshop.run_here(workshop.command(stage, out, ptx=0.5, **data))
        assert code == 0, said
        assert "on 1 prompt of the training, as none is held out" in said
        # The prompts' license is unknown, that of the data is reported.
        assert "CC BY-SA 4.0" in (out / "README.md").read_text()
        lines = read_pairs(out / "metrics.jsonl")
        losses = [line["ptx_loss"] for line in lines if "ptx_loss" in line]
        assert losses and all(0 < loss < 3 for loss in losses)


def test_the_number_of_rows_per_pass_does_not_change_training(
    workshop: Any, tmp_path: Path
) -> None:
    """A step reads as many tokens of fine-tuning data as of its own, for any micro-batch."""
    asked = tmp_path / "asked.txt"
    asked.write_text("What is the colour of the sea?\nWhat is the colour of coal?\n")
    norms = []
    for rows in (1, 16):
        out = tmp_path / str(rows)
        given = {"prompts": asked, "ptx_data": workshop.data, "micro_rows": rows, "steps": 1}
        command = workshop.command("grpo", out, ptx=0.5, dtype="float32", **given)
        code, said = workshop.run_here(command)
        assert code == 0, said
        lines = read_pairs(out / "metrics.jsonl")
        (step,) = [line for line in lines if line["kind"] == "train"]
        norms.append((step["tokens"], step["gradient_norm"]))
    assert norms[0][0] == norms[1][0]
    assert norms[0][1] == pytest.approx(norms[1][1], rel=1e-3)


def test_ptx_changes_nothing_during_the_critics_warmup(workshop: Any, tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text("What is the colour of the sea?\nWhat is the colour of coal?\n")
    settings = {"prompts": asked, "ptx_data": workshop.data, "critic_warmup": 1}
    code, said = workshop.run_here(workshop.command("ppo", tmp_path / "out", ptx=5.0, **settings))
    assert code == 0, said
    lines = read_pairs(tmp_path / "out" / "metrics.jsonl")
    apart = [line["exact_kl"] for line in lines if line["kind"] == "rollout"]
    assert apart[:2] == [0, 0] and apart[-1] > 0
