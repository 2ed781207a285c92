from __future__ import annotations

import dataclasses
import gc
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from groundup.align.config import DPOConfig
from groundup.errors import UserError
from groundup.kernels.library import VARIABLE, best_kernels
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.folder import Run
from groundup.train import device
from groundup.train.batch import Batch, DataStream
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute, find_compiler, refuse_inexact, require_memory, resolve
from groundup.train.loss import next_token_loss
from groundup.train.machine import machine_facts
from groundup.train.optim import Schedule
from groundup.train.plan import (
    Trained,
    TrainPlan,
    expected_minutes,
    require_resources,
    resolve_plan,
)
from groundup.train.stage import Job, make_plan

# FLOP/s that distinguish units (a billion of them is 1, a thousandth of a second is 1,000) even on
# the busiest machine: the time of a product there does not matter to these tests.
SLOWEST, FASTEST = 10**5, 10**16


def config(**settings: Any) -> TrainingConfig:
    return TrainingConfig(out=Path("run"), **settings)


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH without a compiler; returns its only folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


def program(path: Path) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_the_compiler_is_found_on_the_path_or_in_cxx(
    no_compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_compiler() is None
    program(no_compiler / "my-c++")
    assert find_compiler() is None
    monkeypatch.setenv("CXX", "my-c++")
    assert find_compiler() == "my-c++" == machine_facts()["compiler"]
    monkeypatch.delenv("CXX")
    program(no_compiler / "clang++")
    assert find_compiler() == "clang++"


def test_without_a_compiler_auto_is_eager_and_on_is_rejected(no_compiler: Path) -> None:
    assert not resolve(config(), compile_by_default=True).compile
    with pytest.raises(UserError, match=r"compile='on'.*C\+\+ compiler"):
        resolve(config(compile="on"), compile_by_default=True)


def test_with_a_compiler_settings_come_before_the_default(
    no_compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "none")
    program(no_compiler / "g++")
    assert resolve(config(), compile_by_default=True).compile
    assert not resolve(config(), compile_by_default=False).compile
    assert resolve(config(compile="on"), compile_by_default=False).compile
    assert not resolve(config(compile="off"), compile_by_default=True).compile


def test_a_run_continues_with_its_plan_not_its_settings(no_compiler: Path) -> None:
    eager = dataclasses.replace(PLANNED, compile=False)
    # Without a compiler too: there is nothing to compile.
    assert not resolve(config(compile="on"), compile_by_default=True, planned=eager).compile
    program(no_compiler / "g++")
    assert not resolve(config(compile="on"), compile_by_default=True, planned=eager).compile
    compiled = dataclasses.replace(PLANNED, compile=True)
    assert resolve(config(compile="on"), compile_by_default=True, planned=compiled).compile
    assert not resolve(config(compile="off"), compile_by_default=True, planned=compiled).compile


def test_a_run_continues_with_its_threads_on_fewer_cores() -> None:
    now = resolve(config(device="cpu"), compile_by_default=False)
    planned = dataclasses.replace(now, threads=7)
    for settings, threads in (
        ({}, 7),
        ({"threads": 3}, 3),
        ({"allow_inexact_resume": True}, now.threads),
    ):
        found = resolve(config(device="cpu", **settings), compile_by_default=False, planned=planned)
        assert found.threads == threads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_replace_compiling(dtype: torch.dtype) -> None:
    kernels = best_kernels(dtype)
    if kernels == "none":
        pytest.skip("needs kernels")
    settings: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "device": "cpu"}
    found = resolve(config(**settings), compile_by_default=True)
    assert found.kernels == kernels and (found.compile is False)
    assert resolve(config(**settings, compile="on"), compile_by_default=True).kernels == "none"


def test_all_other_settings_are_resolved() -> None:
    found = resolve(config(device="cpu"), compile_by_default=False)
    assert found.device == "cpu" and found.attention == "matmul"
    assert found.threads == device.usable_cores() and found.torch_version == torch.__version__
    assert found.torch_dtype in (torch.float32, torch.bfloat16)
    given = resolve(config(threads=3, dtype="bfloat16", device="cpu"), compile_by_default=False)
    assert given.threads == 3 and given.torch_dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_a_missing_device_is_rejected() -> None:
    with pytest.raises(UserError, match="device='cuda' is not available"):
        resolve(config(device="cuda"), compile_by_default=False)


PLANNED = Compute("cpu", "float32", "matmul", False, 2, "2.9.0")


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 4},
        {"dtype": "bfloat16"},
        {"compile": True},
        {"torch_version": "2.10.0"},
        {"device": "cuda"},
        {"attention": "fused"},
        {"kernels": "amx"},
        {"accelerator": "NVIDIA H100"},
    ],
)
def test_a_different_computation_is_rejected_unless_allowed(
    change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    now = dataclasses.replace(PLANNED, **change)
    [(name, value)] = change.items()
    was = getattr(PLANNED, name)
    message = f"{name}={was} and would continue with {name}={value}"
    with pytest.raises(UserError, match=f"{message}.*--allow-inexact-resume"):
        refuse_inexact(PLANNED, now, allowed=False)
    assert not capsys.readouterr().out
    refuse_inexact(PLANNED, now, allowed=True)
    assert message in capsys.readouterr().out


def test_a_run_on_a_gpu_is_planned_for_that_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = list[Compute]()
    for name in ("NVIDIA A100", "NVIDIA H100"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        found.append(resolve(config(), compile_by_default=False))
    with pytest.raises(UserError, match="accelerator=NVIDIA A100 and would continue with"):
        refuse_inexact(*found, allowed=False)
    assert resolve(config(device="cpu"), compile_by_default=False).accelerator == ""


def test_help_names_all_settings_whose_change_is_rejected() -> None:
    told = TrainingConfig.model_fields["allow_inexact_resume"].description
    assert told is not None
    for field in dataclasses.fields(PLANNED):
        if field.name != "attention":  # which follows from the device
            assert field.name.removesuffix("_version") in told


def test_the_same_computation_continues_silently(capsys: pytest.CaptureFixture[str]) -> None:
    refuse_inexact(PLANNED, dataclasses.replace(PLANNED), allowed=False)
    assert not capsys.readouterr().out


def test_too_little_memory_is_rejected_with_the_remedy() -> None:
    free = device.available_memory()
    assert 10**7 < free < 10**14
    require_memory(10**6, "a crumb", "eat less")
    with pytest.raises(UserError, match=r"a mountain needs about .* GB .* are free; climb less"):
        require_memory(10**15, "a mountain", "climb less")


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    whole = device.available_memory()
    (tmp_path / "memory.current").write_text("100000000\n")
    (tmp_path / "memory.stat").write_text("anon 60000000\ninactive_file 30000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert device.available_memory() > 0.5 * whole
    (tmp_path / "memory.max").write_text("150000000\n")
    assert device.available_memory() == 80_000_000


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("150000 100000", 2), ("20000 100000", 1), ("99900000 100000", None),
     ("", None)],
)  # fmt: skip
def test_threads_are_as_many_as_free_cores(
    quota: str, cores: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    alone = device.usable_cores()
    monkeypatch.setattr(os, "cpu_count", lambda: max(alone, 64))
    assert device.usable_cores() == alone  # of the 64, by affinity
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    expected = alone if cores is None else min(alone, cores)
    assert device.usable_cores() == expected
    assert resolve(config(device="cpu"), compile_by_default=False).threads == expected


OF_V2 = {
    "cpu.max": "250000 100000",
    "memory.max": "150000000",
    "memory.current": "100000000",
    "memory.stat": "anon 60000000\ninactive_file 30000000",
}
OF_V1 = {
    "cpu.cfs_quota_us": "250000",
    "cpu.cfs_period_us": "100000",
    "memory.limit_in_bytes": "150000000",
    "memory.usage_in_bytes": "100000000",
    "memory.stat": "inactive_file 0\ntotal_inactive_file 30000000",
}
NO_LIMIT = {
    "cpu.max": "max 100000",
    "cpu.cfs_quota_us": "-1",
    "memory.max": "max",
    "memory.limit_in_bytes": "9223372036854771712",
}
HYBRID = "5:cpu,cpuacct:/job/step\n4:memory:/job/step\n1:name=systemd:/other\n0::/job/step\n"


@pytest.mark.parametrize(
    ("own", "tree"),
    [
        ("0::/job/step\n", "job/step"),
        ("0::/job/step\n", "job"),  # the parent's limit applies, too
        ("0::/job/step\n", ""),  # a container sees its own as the root
        (HYBRID, "unified/job"),
        (HYBRID, "v1/job/step"),
        (HYBRID, "v1/job"),
        (HYBRID, "v1"),
        ("0::/job\n", "job/step"),  # of another process
        (HYBRID, "v1/other"),
    ],
)
def test_limits_apply_from_the_own_cgroup_up_to_the_root(
    own: str, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    monkeypatch.setattr(device, "OWN_CGROUP", tmp_path / "self")
    (tmp_path / "self").write_text(own)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    files = OF_V1 if tree.startswith("v1") else OF_V2
    for controller in ("cpu", "memory"):
        folder = tmp_path / tree.replace("v1", controller)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if name.startswith(controller):
                (folder / name).write_text(f"{text}\n")
    is_ours = "other" not in tree and not (own == "0::/job\n" and tree == "job/step")
    expected = (3, 80_000_000) if is_ours else (8, 10**12)
    assert (device.usable_cores(), device.available_memory()) == expected
    for name, text in NO_LIMIT.items():
        for file in tmp_path.rglob(name):
            file.write_text(f"{text}\n")
    assert (device.usable_cores(), device.available_memory()) == (8, 10**12)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_a_process_on_one_core_has_one_thread() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert device.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_plan_too_large_for_this_machine_is_rejected() -> None:
    shape = ModelConfig.of(width=64 * 400, depth=400, vocab_size=8192, context=256)
    with pytest.raises(UserError, match=r"M parameters with micro_rows=8 .*--depth"):
        trained = Trained.whole(shape, 256, (1, 1), "")
        require_resources(TrainingConfig(out="x", rows=8, micro_rows=8), trained, PLANNED, 256)


def test_fewer_than_two_rows_are_not_suggested_for_pairs() -> None:
    shape = ModelConfig.of(width=64 * 400, depth=400, vocab_size=8192, context=256)
    trained = Trained.whole(shape, 256, (1, 1), "")
    for micro_rows, lower in ((1, "--context"), (2, "--context"), (3, "--micro-rows")):
        config = DPOConfig(out="x", model="m", data="d", rows=8, micro_rows=micro_rows)
        with pytest.raises(
            UserError, match=f"micro_rows={max(2, micro_rows)} .*; lower {lower}"
        ) as told:
            require_resources(config, trained, PLANNED, 256)
        assert "take a smaller model, or add --gradient-checkpointing" in str(told.value)


def leave_free(size: int, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This many bytes are free on this machine, whose container has no limit."""
    monkeypatch.setattr(device, "CGROUP", nowhere)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=size))


@pytest.mark.parametrize("on_host", [10**9, 10**13])
def test_a_plan_for_a_gpu_is_compared_with_the_gpus_memory(
    on_host: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card of 24 GB, of which torch reserves 3 and uses 1, on any machine."""
    leave_free(on_host, tmp_path, monkeypatch)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 10**9)
    gpu = dataclasses.replace(PLANNED, device="cuda", dtype="bfloat16", attention="fused")
    settings = TrainingConfig(out="x", rows=4)
    for width, depth, fits in ((2048, 12, True), (4096, 32, False)):
        shape = ModelConfig.of(width=width, depth=depth, vocab_size=32_000, context=1024)
        trained = Trained.whole(shape, 1024, (1, 1), "")
        if fits:
            require_resources(settings, trained, gpu, 1024)
            continue
        with pytest.raises(UserError, match=r"memory on device='cuda' and 22\.0 GB are free; low"):
            require_resources(settings, trained, gpu, 1024)


def test_free_memory_of_mps_is_that_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * 10**9)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 2 * 10**9)
    for on_machine, free in ((16, 10), (8, 8)):
        leave_free(on_machine * 10**9, tmp_path, monkeypatch)
        assert device.free_memory("mps") == free * 10**9


def planned(settings: TrainingConfig, flops: float = 1e6, *, replays: bool = True) -> TrainPlan:
    shape = ModelConfig.of(width=64, depth=1, vocab_size=64, context=8)
    return resolve_plan(
        settings,
        PLANNED,
        Trained(shape, shape.parameters, flops / 16, (0.01, 0.01), ""),
        context=8,
        rows_per_epoch=2,
        tokens_per_step=16,
        tokens_per_second=None,
        replays=replays,
        reasons={},
    )


@pytest.mark.parametrize(
    ("flops", "replays", "steps"),
    [
        (1e11, True, 3_000),  # a minute at half of the peak, which such a step reaches
        (1e3, True, 3_000),  # even the smallest step takes some milliseconds
        (1e3, False, 60),  # and waits for what is sampled
    ],
)
def test_a_run_is_saved_about_once_a_minute(flops: float, replays: bool, steps: int) -> None:
    plan = planned(config(steps=10_000, rows=2), flops, replays=replays)
    peak = device.matmul_peak("cpu", torch.float32)
    assert plan.save_every == max(1, min(steps, round(60 * 0.5 * peak / flops)))


def test_a_plan_has_the_schedule_and_the_betas_of_the_settings() -> None:
    plan = planned(config(steps=100))
    assert plan.schedule == Schedule(100, 2, 50) and plan.rates.betas == (0.9, 0.95)
    others = config(steps=100, decay=0.98, decay_shape="cosine", decay_to=0.1, adam_beta2=0.99)
    plan = TrainPlan.from_json(planned(others).to_json())
    assert plan.schedule == Schedule(100, 2, 98, "cosine", 0.1)
    assert plan.rates.betas == (0.9, 0.99)
    # A plan of an earlier version has neither.
    old = {key: value for key, value in plan.to_json().items() if not key.startswith("decay_")}
    assert TrainPlan.from_json(old | {"decay_steps": 98}).schedule == Schedule(100, 2, 98)


class Nothing(DataStream):
    def at(self, step: int, model: nn.Module) -> list[Batch]:
        return []


def job_of_nothing(
    settings: TrainingConfig, trained: Trained, shape: ModelConfig, *, replays: bool
) -> Job[Batch, CausalLM]:
    return Job(
        settings,
        trained,
        model=lambda: CausalLM(shape),
        stream=lambda steps: Nothing(),
        loss=next_token_loss,
        evaluate=lambda model, step: {},
        save=lambda model, plan: None,
        context=8,
        rows_per_epoch=2,
        model_config={},
        snapshots=True,
        replays=replays,
    )


def test_a_run_of_given_steps_plans_its_time_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_KERNELS", "none")  # with kernels they are tried on a batch
    shape = ModelConfig.of(width=64, depth=1, vocab_size=64, context=8)
    trained = Trained(shape, shape.parameters, 1e6, (0.01, 0.01), "")
    settings = TrainingConfig(
        out=tmp_path / "run", steps=2, rows=2, device="cpu", dtype="float32", compile="off"
    )
    job = job_of_nothing(settings, trained, shape, replays=True)
    data = torch.ones(50_000_000)  # so that it holds more than any process does
    gc.collect()
    device.reset_peak_memory("cpu")  # otherwise memory that earlier tests freed would count
    held = psutil.Process().memory_info().rss
    with Run.open(settings.out, "cell", settings) as run:
        plan = make_plan(run, job)
    assert plan.expected is not None and data.all()
    # The model is tiny: kernels, optimizer and what evaluates it are not.
    assert plan.expected["peak_memory_bytes"] > held + 50e6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_time_and_disk_depend_on_the_requested_dtype(dtype: Any, tmp_path: Path) -> None:
    shape = ModelConfig.of(width=64, depth=1, vocab_size=64, context=8)
    trained = Trained(shape, shape.parameters, 1e6, (0.01, 0.01), "")
    settings = TrainingConfig(out=tmp_path / "run", steps=2, rows=2, device="cpu", dtype=dtype)
    job = job_of_nothing(settings, trained, shape, replays=False)
    with Run.open(settings.out, "cell", settings) as run:
        (settings.out / "tokens.npy").write_bytes(bytes(10_000))
        there = sum(one.stat().st_size for one in settings.out.iterdir())
        plan = make_plan(run, job)
    kind = plan.compute.torch_dtype
    assert str(kind) == f"torch.{dtype}" and plan.expected is not None
    # The prepared data, snapshots of the two steps and the model; no save occurs between them.
    assert plan.expected["disk_bytes"] == there + (2 * kind.itemsize + 4) * shape.parameters
    minutes = expected_minutes(trained, 10**9, plan.compute)
    assert minutes == pytest.approx(10**15 / (0.5 * device.matmul_peak("cpu", kind)) / 60)


def test_the_peak_of_a_gpu_excludes_launch_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 700 TFLOP/s, 5 microseconds for a launch and 10 for synchronization."""
    now = done = 0.0

    class Matrix:
        def __init__(self, *sizes: int, device: str) -> None:
            self.sizes = sizes

        def to(self, dtype: torch.dtype) -> Matrix:
            return self

        def __matmul__(self, other: Matrix) -> None:
            nonlocal now, done
            now += 5e-6
            done = max(done, now) + 2 * self.sizes[0] * self.sizes[1] * other.sizes[1] / 7e14

    def synchronize() -> None:
        nonlocal now
        now = max(now, done) + 1e-5

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(torch, "randn", Matrix)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert device.matmul_peak("cuda", torch.bfloat16, 0.123) == pytest.approx(7e14, rel=0.02)
    # A small model's products take less than their launch.
    small = device.products_peak("cuda", torch.bfloat16, [(384, 384, 1)], 4096)
    assert small == pytest.approx(2 * 384 * 384 * 4096 / 5e-6, rel=0.05)


def test_the_peak_of_a_model_lies_between_those_of_its_products() -> None:
    few, wide = (64, 64, 3), (64, 512, 1)
    peaks = [device.products_peak("cpu", torch.float32, [one], 32) for one in (few, wide)]
    both = device.products_peak("cpu", torch.float32, [few, wide], 32)
    # Three small ones are 3 / 11 of the operations, and what adds up are seconds.
    assert both == pytest.approx(11 / (3 / peaks[0] + 8 / peaks[1]), rel=1e-6)
    assert SLOWEST < both < FASTEST
    # A head of very many tokens is tried with as many rows as memory is no matter for.
    assert device.products_peak("cpu", torch.float32, [(64, 64, 1)], 10**12) > SLOWEST


def test_peaks_are_measured_in_plausible_units() -> None:
    machine = device.measure(seconds=0.02, size=256)
    assert machine.cores == device.usable_cores()
    for dtype in ("float32", "bfloat16"):
        assert SLOWEST < machine.peak(dtype) < FASTEST
