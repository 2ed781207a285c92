"""A compiled model is compared with the eager one before a run uses it."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from torch import nn

from groundup.adapters.attach import add_lora
from groundup.kernels.library import best_kernels
from groundup.lm.config import ExpertsConfig, ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.folder import Run
from groundup.train import device
from groundup.train.batch import Batch, DataStream, Loss
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute, compute_dtype, find_compiler
from groundup.train.faithful import agrees_with_plain
from groundup.train.loss import next_token_loss
from groundup.train.pace import random_batches
from groundup.train.plan import Trained
from groundup.train.stage import Job, make_plan

HERE = """
import torch

from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.device import Compute
from groundup.train.faithful import agrees_with_plain
from groundup.train.loss import next_token_loss
from groundup.train.pace import random_batches

config = ModelConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=64, max_position_embeddings=256,
)
model = CausalLM(config)
model.initialize(0)
batch = next(random_batches(256, context=256, rows=2))
for dtype in ("float32", "bfloat16"):
    compute = Compute("cpu", dtype, "matmul", True, 1, torch.__version__)
    print(agrees_with_plain(model, batch, next_token_loss, compute))
"""
COMPUTE = Compute("cpu", "float32", "matmul", True, 1, torch.__version__)


class Compiled(nn.Module):
    """One matrix of zeros, and a compiler that multiplies it by `wrong`."""

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        nn.init.zeros_(self.linear.weight)
        self.wrong, self.scale = wrong, 1.0
        self.config, self.checkpointed = "", False

    def set_attention(self, path: Literal["matmul", "fused"]) -> None: ...

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.checkpointed = on

    def compile_blocks(self) -> None:
        self.scale = self.wrong


def squared(model: nn.Module, batch: Batch) -> Loss:
    assert isinstance(model, Compiled)
    inner = model.linear(batch.input_ids.float())
    total = model.linear(inner * model.scale).square().sum()
    return Loss(total, batch.weight, {})


@pytest.mark.parametrize(
    ("wrong", "expected"), [(1.0, True), (1.001, True), (math.nan, False), (2.0, False)]
)
def test_different_gradients_are_detected(wrong: float, expected: bool) -> None:
    batch = Batch.of(torch.arange(8).view(2, 4))
    model = Compiled(wrong)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        return squared(model, batch)

    loss.__qualname__ = f"loss {wrong}"  # results are cached by configuration
    assert agrees_with_plain(model, batch, loss, COMPUTE) is expected
    assert not model.linear.weight.any(), "a copy is asked"
    assert model.scale == 1.0


def test_a_result_is_for_a_config_and_recomputed_for_another() -> None:
    batch, checkpointed = Batch.of(torch.arange(8).view(2, 4)), list[bool]()

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(model, Compiled)
        checkpointed.append(model.checkpointed)
        return squared(model, batch)

    loss.__qualname__ = "loss of two configs"
    assert agrees_with_plain(Compiled(1.0), batch, loss, COMPUTE)
    assert not any(checkpointed)
    checkpointed.clear()
    assert agrees_with_plain(Compiled(1.0), batch, loss, COMPUTE, gradient_checkpointing=True)
    assert checkpointed and all(checkpointed)
    other = Compiled(2.0)
    other.config = "of the same shapes"
    assert not agrees_with_plain(other, batch, loss, COMPUTE)


def test_experts_with_gradient_checkpointing_are_compared() -> None:
    """Their saved state belongs to a graph, which has no copy."""
    model = CausalLM(
        ModelConfig.of(width=64, depth=1, vocab_size=256, context=32, experts=(4, 2), heads=1)
    )
    model.initialize(0)
    plain = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)
    batch = next(random_batches(256, context=32, rows=2))
    assert agrees_with_plain(model, batch, next_token_loss, plain, gradient_checkpointing=True)


def test_adapter_dropout_is_not_an_error() -> None:
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=256, context=32))
    model.initialize(0)
    add_lora(model, rank=4, dropout=0.5)
    plain = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)
    for rows in range(1, 9):
        batch = next(random_batches(256, context=32, rows=rows))
        assert agrees_with_plain(model, batch, next_token_loss, plain)


class Here(Batch):
    """Stays on the CPU."""

    def to(self, device: torch.device) -> Here:
        return self


def pretend_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that PyTorch finds here, whose work the CPU does."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: None)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10**11)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 0)
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *sizes, device: randn(*sizes))
    monkeypatch.setattr(Compiled, "to", lambda self, **where: self, raising=False)


@pytest.mark.parametrize("machine", ["cpu", pytest.param("mps", marks=pytest.mark.long)])
def test_a_run_with_a_wrong_compiler_continues_eagerly(
    machine: Literal["cpu", "mps"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(compiler))
    if machine == "mps":
        pretend_a_mac(monkeypatch)
    config = TrainingConfig(
        out=tmp_path / "run", steps=2, rows=2, compile="on", device=machine, dtype="float32"
    )
    shape = ModelConfig.of(width=64, depth=1, vocab_size=64, context=4)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        return squared(model, batch)

    loss.__qualname__ = f"loss of a run on {machine}"

    class Rows(DataStream):
        def at(self, step: int, model: nn.Module) -> list[Batch]:
            return [Here.of(torch.arange(8).view(2, 4))]

    job: Job[Batch, nn.Module] = Job(
        config,
        Trained.whole(shape, 4, (0.01, 0.01), ""),
        model=lambda: Compiled(math.nan),
        stream=lambda steps: Rows(),
        loss=loss,
        evaluate=lambda model, step: {},
        save=lambda model, plan: None,
        context=4,
        rows_per_epoch=2,
        model_config={},
    )
    device.tuning.cache_clear()
    try:
        for start in ("first", "second"):
            with Run.open(config.out, "cell", config) as run:
                plan = make_plan(run, job)
            assert not plan.compute.compile, start
            assert "gets the model's gradients wrong" in plan.reasons["compile"]
    finally:
        device.tuning.cache_clear()


@pytest.mark.long
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_a_model_is_compiled_correctly_here() -> None:
    # A separate process, because functions with type checks cannot be compiled.
    done = subprocess.run([sys.executable, "-c", HERE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"], done.stdout


@pytest.mark.skipif(best_kernels(compute_dtype()) == "none", reason="needs kernels")
@pytest.mark.parametrize("rows", range(2, 7))
def test_a_token_that_rounding_routes_to_another_expert_is_not_an_error(rows: int) -> None:
    config = ModelConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=1, num_key_value_heads=1, head_dim=64, max_position_embeddings=128,
        model_type="qwen3_moe", experts=ExpertsConfig(8, 2, 64),
    )  # fmt: skip
    model = CausalLM(config)
    model.initialize(rows)
    batch = next(random_batches(256, context=128, rows=rows))
    kernels = best_kernels(compute_dtype())
    dtype: Literal["float32", "bfloat16"] = "float32" if kernels == "avx2" else "bfloat16"
    compute = Compute("cpu", dtype, "matmul", False, 1, torch.__version__, 1, kernels)
    assert agrees_with_plain(model, batch, next_token_loss, compute)


@pytest.mark.parametrize(
    ("march", "mtune", "expected"),
    [
        ("sapphirerapids", "generic", "native -mtune=sapphirerapids"),
        ("znver4", "znver4", None),
        ("x86-64", "generic", None),
    ],
)
def test_a_generic_compiler_gets_a_tuning_flag(
    march: str, mtune: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text(f"#!/bin/sh\nprintf '  -march=  \\t{march}\\n  -mtune=  \\t{mtune}\\n'\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(compiler))
    device.tuning.cache_clear()
    try:
        assert device.tuning() == expected
        monkeypatch.setenv("CXX", os.fspath(tmp_path / "none"))
        device.tuning.cache_clear()
        assert device.tuning() is None
    finally:
        device.tuning.cache_clear()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),  # as PyTorch 2.9 has them
        ({"march": None}, {"march": "native -mtune=znver9"}),
        ({"march": "znver3"}, {"march": "znver3"}),
    ],
)
def test_pytorch_gets_the_tuning_flag(
    settings: dict[str, str | None],
    expected: dict[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\nprintf '  -march=  \\tznver9\\n  -mtune=  \\tgeneric\\n'\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(compiler))
    cpp = SimpleNamespace(**settings)
    importlib.import_module("torch._inductor.config")
    monkeypatch.setattr(torch._inductor, "config", SimpleNamespace(cpp=cpp))
    device.tuning.cache_clear()
    try:
        device._tune_compiler()
        assert vars(cpp) == expected
    finally:
        device.tuning.cache_clear()
