"""The guarantees of the training loop, on a tiny real model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from groundup.align.kto import KTOBatch
from groundup.align.preferences import PairBatch
from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.text.batches import ConversationStream
from groundup.text.example import Example
from groundup.train.batch import Batch, Loss, LossFunction, trained_tokens
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute
from groundup.train.loop import BAD_STEPS_ALLOWED, _flops, fit, step_seed
from groundup.train.loss import next_token_loss
from groundup.train.optim import Optimizer, Rates
from groundup.train.plan import TrainPlan

CONTEXT, ROWS = 24, 6
RATES = Rates(matrices=0.01, embeddings=0.005, gains=0.005)


def tiny() -> CausalLM:
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=64, context=CONTEXT))
    model.initialize(0)
    return model


def conversations() -> list[Example]:
    """Of different lengths, and with very different shares of trained tokens."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(4, CONTEXT, (40,), generator=generator).tolist()
    return [
        Example(
            torch.randint(3, 64, (n,), generator=generator).tolist(),
            [i >= n - max(1, n // (1 + number % 7)) for i in range(n)],
        )
        for number, n in enumerate(lengths)
    ]


def stream(micro_rows: int = 2) -> ConversationStream:
    return ConversationStream(
        conversations(), context=CONTEXT, rows=ROWS, micro_rows=micro_rows, seed=0
    )


def train(
    folder: Path,
    model: CausalLM,
    loss: LossFunction[Batch] = next_token_loss,
    *,
    steps: int = 8,
    micro_rows: int = 2,
    save_every: int = 100,
    clip: float = 1.0,
    callback: Callable[[int, bool], None] = lambda step, last: None,
) -> list[dict[str, Any]]:
    """Run `fit` in `folder` and return the logged lines."""
    plan = plan_of(steps, clip, save_every)
    with Run.open(folder, "test", TrainingConfig(out=folder)) as run:
        optimizer = Optimizer(model, RATES)
        fit(model, stream(micro_rows), loss, optimizer, run, plan, callback)
    return read_lines(folder / "metrics.jsonl")


def plan_of(steps: int, clip: float, save_every: int) -> TrainPlan:
    compute = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)
    return TrainPlan(
        steps=steps,
        warmup_steps=2,
        decay_steps=4,
        save_every=save_every,
        evaluate_every=100,
        tokens_per_step=ROWS * CONTEXT,
        rates=RATES,
        muon=True,
        gradient_clip=clip,
        compute=compute,
        parameters=1,
        flops_per_token=1e6,
        peak_flops=1e12,
        tokens_per_second=None,
    )


def test_only_trained_tokens_use_the_head(tmp_path: Path) -> None:
    plan = replace(plan_of(4, 1.0, 100), head_flops=4e5)
    with Run.open(tmp_path, "test", TrainingConfig(out=tmp_path)) as run:
        model = tiny()
        fit(model, stream(), next_token_loss, Optimizer(model, RATES), run, plan)
    for step, line in enumerate(read_lines(tmp_path / "metrics.jsonl")):
        batches = stream().at(step, model)
        read = sum(batch.tokens for batch in batches)
        trained = sum(int((batch.weights > 0).sum()) for batch in batches)
        assert 0 < trained < read
        flops = line["flops_per_second"] * line["seconds"]
        assert flops == pytest.approx(read * 6e5 + trained * 4e5)
        assert line["peak_share"] == pytest.approx(line["flops_per_second"] / 1e12)
    rows = stream().at(0, model)[0]
    pairs = PairBatch(rows, torch.tensor([[0, 1]]), None)
    assert trained_tokens(pairs) == trained_tokens(rows) == int((rows.weights > 0).sum())
    # Passes without gradients have no backward: two thirds, or half for an adapter.
    nothing = torch.zeros(1, 2)
    answers = KTOBatch(rows, rows, nothing[0, :1] > 0, nothing.long(), nothing)
    whole = rows.tokens * 6e5 + trained_tokens(rows) * 4e5
    assert _flops(rows, plan) == pytest.approx(whole)
    assert _flops(answers, plan) == pytest.approx(whole * 4 / 3)
    assert _flops(answers, replace(plan, adapter="lora")) == pytest.approx(whole * 3 / 2)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def nan_loss(found: Loss, model: nn.Module) -> Loss:
    return replace(found, total=found.total * torch.nan)


def infinite_gradient(found: Loss, model: nn.Module) -> Loss:
    """The loss itself stays finite: the root of zero has an infinite slope."""
    zero = next(model.parameters()).sum() * 0
    return replace(found, total=found.total + zero.sqrt())


class HarmedSteps:
    """A loss that is NaN in the last micro-batch of the given steps."""

    def __init__(self, spoil: Callable[[Loss, nn.Module], Loss], steps: range) -> None:
        self.spoil, self.steps, self.calls = spoil, steps, 0

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        step, micro_batch = divmod(self.calls, ROWS // 2)
        found = next_token_loss(model, batch)
        last = micro_batch == ROWS // 2 - 1
        # A spoilt step ends with its last micro-batch, so that counting calls counts steps.
        self.calls += 1
        return self.spoil(found, model) if last and step in self.steps else found


@pytest.mark.parametrize("spoil", [nan_loss, infinite_gradient])
def test_a_bad_step_does_not_change_the_weights_and_training_continues(
    tmp_path: Path, spoil: Callable[[Loss, nn.Module], Loss]
) -> None:
    model, after = tiny(), {}
    lines = train(
        tmp_path,
        model,
        HarmedSteps(spoil, range(3, 4)),
        callback=lambda step, last: after.update({step: weights(model)}),
    )
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert "skipped" in lines[3] and "loss" not in lines[3]
    assert all("loss" in line for line in lines if line["step"] != 4)
    for name, parameter in after[3].items():
        assert torch.equal(parameter, after[4][name])
        assert torch.isfinite(after[8][name]).all()
    assert not all(torch.equal(p, after[5][n]) for n, p in after[4].items())


@pytest.mark.parametrize("spoil", [nan_loss, infinite_gradient])
def test_successive_bad_steps_end_the_run_with_an_explanation(
    tmp_path: Path, spoil: Callable[[Loss, nn.Module], Loss]
) -> None:
    model, after = tiny(), {}
    with pytest.raises(UserError, match=r"nan|inf") as told:
        train(
            tmp_path,
            model,
            HarmedSteps(spoil, range(2, 100)),
            steps=20,
            callback=lambda step, last: after.update({step: weights(model)}),
        )
    assert f"{BAD_STEPS_ALLOWED} times in a row" in str(told.value)
    assert "learning rate" in str(told.value)
    # The last of them is in the log, by the number that the message gives.
    last = read_lines(tmp_path / "metrics.jsonl")[-1]
    assert last["step"] == 2 + BAD_STEPS_ALLOWED and "skipped" in last
    assert f"diverged at step {last['step']}:" in str(told.value)
    assert max(after) < 2 + BAD_STEPS_ALLOWED
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, after[2][name])


def test_bad_steps_that_are_not_successive_do_not_add_up(tmp_path: Path) -> None:
    every_other = range(0, 100, 2)
    lines = train(tmp_path, tiny(), HarmedSteps(nan_loss, every_other), steps=14)
    assert sum("skipped" in line for line in lines) == 7


def expected_update(batches: list[Batch]) -> tuple[float, float]:
    """Mean loss over all trained tokens and its gradient's norm, by plain torch in one piece."""
    model = tiny()
    total, weight = torch.zeros(()), 0.0
    for batch in batches:
        each = cross_entropy(model.logits(batch).transpose(1, 2), batch.targets, reduction="none")
        total, weight = total + (each * batch.weights).sum(), weight + float(batch.weights.sum())
    (total / weight).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return total.item() / weight, float(torch.nn.utils.get_total_norm(gradients))


@pytest.mark.parametrize("micro_rows", [1, 2, 4, 8])
def test_micro_batches_give_one_mean_over_all_tokens(tmp_path: Path, micro_rows: int) -> None:
    batches = stream(micro_rows).at(0, tiny())
    per_batch = {batch.weight for batch in batches}
    assert len(batches) == -(-ROWS // micro_rows) and len(per_batch) == len(batches), "unequal"
    loss, norm = expected_update(batches)
    [line] = train(tmp_path, tiny(), steps=1, micro_rows=micro_rows, clip=1e9)
    assert line["loss"] == pytest.approx(loss, rel=1e-5)
    assert line["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_the_size_of_micro_batches_does_not_change_the_update(tmp_path: Path) -> None:
    small, large = tiny(), tiny()
    train(tmp_path / "small", small, steps=3, micro_rows=1)
    train(tmp_path / "large", large, steps=3, micro_rows=ROWS)
    start = tiny()
    for name, parameter in small.named_parameters():
        moved = (parameter - start.get_parameter(name)).norm()
        apart = (parameter - large.get_parameter(name)).norm()
        # Muon computes directions in bf16, whose rounding enlarges differences of float32 sums.
        assert apart <= 0.05 * moved, name


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    through = tiny()
    expected = train(tmp_path / "through", through, steps=9, save_every=2)

    def stop(step: int, last: bool) -> None:
        if step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        train(tmp_path / "cut", tiny(), steps=9, save_every=2, callback=stop)
    other = tiny()
    other.initialize(99)
    lines = train(tmp_path / "cut", other, steps=9, save_every=2)
    exact = ("step", "tokens", "loss", "learning_rate", "gradient_norm")
    assert [[line[key] for key in exact] for line in lines] == [
        [line[key] for key in exact] for line in expected
    ]
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, through.get_parameter(name))


def test_bad_steps_before_a_save_are_counted_after_it(tmp_path: Path) -> None:
    def stop(step: int, last: bool) -> None:
        if step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        train(
            tmp_path,
            tiny(),
            HarmedSteps(nan_loss, range(1, 99)),
            steps=20,
            save_every=4,
            callback=stop,
        )
    # Three bad ones were saved with step 4, so two more are too many.
    with pytest.raises(UserError, match="step 6"):
        train(tmp_path, tiny(), HarmedSteps(nan_loss, range(99)), steps=20, save_every=4)


def test_damaged_checkpoints_are_reported_and_the_previous_one_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    through = tiny()
    train(tmp_path, through, steps=8, save_every=3)
    newest = tmp_path / "checkpoints" / "step-6" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    again = tiny()
    train(tmp_path, again, steps=8, save_every=3)
    said = capsys.readouterr().out
    assert "step-6" in said and "damaged" in said and "continuing from step 3" in said
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, through.get_parameter(name))


def test_a_checkpoint_beyond_the_plan_is_rejected(tmp_path: Path) -> None:
    train(tmp_path, tiny(), steps=8, save_every=6)
    with pytest.raises(UserError, match=r"holds step 6, but .* has 4 steps"):
        train(tmp_path, tiny(), steps=4)


def test_randomness_in_a_step_depends_on_seed_and_step_only(tmp_path: Path) -> None:
    drawn: dict[int, float] = {}

    def callback(step: int, last: bool) -> None:
        if step == 0:  # no random numbers yet
            return
        drawn[step] = float(torch.rand(()))
        torch.rand(step)  # earlier random numbers must not matter

    train(tmp_path, tiny(), steps=4, callback=callback)
    for step, value in drawn.items():
        torch.manual_seed(step_seed(0, step - 1))
        assert value == float(torch.rand(()))
    assert len(set(drawn.values())) == 4


def test_it_overfits_one_batch(tmp_path: Path) -> None:
    model = tiny()
    [batch, *_] = stream().at(0, model)

    def loss(model: nn.Module, ignored: Batch) -> Loss:
        return next_token_loss(model, batch)

    lines = train(tmp_path, model, loss, steps=80)
    # The loop divides by the stream's weights; what counts here is the model's own loss.
    final = next_token_loss(model, batch)
    assert lines[0]["loss"] > 3.5
    assert final.total.item() / final.weight < 0.1


def test_metrics_describe_every_step(workshop: Any) -> None:
    folder = workshop.finished("pretrain")
    lines = [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]
    plan = json.loads((folder / "plan.json").read_text())
    assert [line["step"] for line in lines] == list(range(1, plan["steps"] + 1))
    for line in lines:
        assert line["schema"] == 1 and line["loss"] > 0 and line["gradient_norm"] > 0
        assert line["tokens"] == line["step"] * plan["tokens_per_step"]
        assert 0 < line["learning_rate"] <= plan["rates"]["matrices"]
        flops = line["tokens_per_second"] * plan["flops_per_token"]
        assert line["flops_per_second"] == pytest.approx(flops)
        assert line["peak_share"] == pytest.approx(flops / plan["peak_flops"])
    # The processor time may increase between the two measurements, but not by this much.
    assert all(0 < line["peak_share"] < 1.2 for line in lines)


def test_a_full_disk_is_refused_when_planning(
    tmp_path: Path, workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.pretrain.config import PretrainConfig
    from groundup.pretrain.stage import run

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    config = PretrainConfig(
        out=tmp_path / "run",
        data=workshop.data,
        tokenizer=workshop.tokenizer,
        depth=1,
        steps=3,
        context=64,
    )
    with pytest.raises(UserError, match=r"training 0\.1 M parameters needs .* MB"):
        run(config)
