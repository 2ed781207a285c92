"""The doctor describes the machine, and chooses only settings proven to be faster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.app.cli import main
from groundup.app.doctor import advice, conclusions, environment, examine, facts_table
from groundup.pretrain.probe import Setup, Side
from groundup.pretrain.trials import Trial, TrialResult, measure, trials
from groundup.runs.cache import cache_folder
from groundup.train.machine import machine_facts
from groundup.train.remembered import save_settings
from groundup.train.speeds import matrices, products

TINY = Setup(1, 64, vocab_size=320, context=32, rows=4)
SPIN = Trial("spin", {}, {"GOMP_SPINCOUNT": "10000"}, "GOMP_SPINCOUNT=10000")
ROWS = Trial("rows", {"micro_rows": 2}, {}, "--micro-rows 2")


@pytest.mark.parametrize(
    ("trial", "ratios", "busy", "gains", "chosen"),
    [
        (SPIN, (0.85, 0.9, 0.88, 0.9), (1.0, 1.05, 0.9), True, True),
        (SPIN, (0.85, 0.9, 0.88, 0.9), (), True, False),  # not tried next to a busy program
        (SPIN, (0.85, 0.9, 0.88, 0.9), (4.0, 5.0, 0.9), True, False),  # collapses there
        (SPIN, (0.7, 0.9, 1.1, 1.2), (1.0,), False, False),  # by chance
        (SPIN, (0.99, 0.98, 0.99, 0.98), (1.0,), False, False),  # too little
        (ROWS, (0.8, 0.8, 0.8, 0.8), (1.0,), True, False),  # changes the bits of results
        (SPIN, (), (), False, False),
    ],
)
def test_only_proven_and_harmless_settings_are_chosen(
    trial: Trial, ratios: tuple[float, ...], busy: tuple[float, ...], gains: bool, chosen: bool
) -> None:
    found = TrialResult(trial, ratios, busy)
    assert (found.gains, found.proven) == (gains, chosen)
    said = " ".join(conclusions([found], load=0.0))
    assert ("Chosen: spin" in said) == chosen
    # On a busy machine nothing is believed.
    assert "nothing is chosen" in " ".join(conclusions([found], load=1.5))


def test_of_two_values_of_a_variable_the_faster_is_chosen() -> None:
    free = Trial("spin freely", {}, {"GOMP_SPINCOUNT": ""}, "GOMP_SPINCOUNT=")
    pages = Trial("huge pages", {}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, "GLIBC_TUNABLES")
    found = [
        TrialResult(SPIN, (0.8, 0.8, 0.8, 0.8), (1.0,)),
        TrialResult(free, (0.9, 0.9, 0.9, 0.9), (1.0,)),
        TrialResult(pages, (0.95, 0.95, 0.95, 0.95), (1.0,)),
    ]
    wanted = {"GOMP_SPINCOUNT": "10000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert environment(found, load=0.0) == wanted
    said = " ".join(conclusions(found, load=0.0))
    assert "Chosen: spin (" in said and "Chosen: huge pages" in said and "freely" not in said


def test_advice_is_given_for_missing_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GROUNDUP_KERNELS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    facts: dict[str, Any] = {
        **machine_facts(),
        "compiler": "g++",
        "fast_bfloat16": True,
        "kernels": "amx",
        "device": "cpu",
        "free_bytes": 2e10,
        "disk_free_bytes": 1e11,
        "cores": 2,
        "vectors": ["amx_bf16"],
    }
    assert advice(facts) == []
    assert "install g++" in advice({**facts, "compiler": None})[0]
    assert "--micro-rows" in advice({**facts, "free_bytes": 1e9})[0]
    plain = {**facts, "fast_bfloat16": False, "kernels": "none"}
    assert "float32" in advice(plain)[0]
    plain["vectors"] = ["avx2"]
    plain["why_no_kernels"] = "'cc' cannot compile them (exit code 1); set CC to another compiler"
    assert "Kernels in C are not available: 'cc' cannot compile them" in advice(plain)[0]
    for name in ("GROUNDUP_KERNELS", "DNNL_MAX_CPU_ISA"):
        with monkeypatch.context() as inner:
            inner.setenv(name, "AVX")
            assert f"{name}=AVX slows the processor down" in advice(plain)[0]
    monkeypatch.setenv("GROUNDUP_KERNELS", "amx")
    assert advice(facts) == []
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX")
    assert "ONEDNN_MAX_CPU_ISA=AVX slows the processor down" in advice(facts)[0]
    assert "ONEDNN_MAX_CPU_ISA=AVX" in advice({**facts, "compiler": None})[1]


def test_products_have_the_shapes_of_the_model() -> None:
    shapes = matrices(64, 128, (64, 64), 320)
    assert sum(a * b for a, b in shapes) == 4 * 64 * 64 + 3 * 64 * 128 + 64 * 320
    found = products(shapes[:2], 32, torch.float32)
    parts = (found.forward, found.data_gradient, found.weight_gradient)
    assert min(parts) <= found.together <= max(parts)


def test_a_slow_disk_has_a_speed() -> None:
    speeds = {"products": {}, "memory_bandwidth": 1.25e9, "disk_bandwidth": 2.1e7}
    found = dict(facts_table(machine_facts(), speeds).lines)
    assert found["memory, copied"] == "1.2 GB/s" and found["disk, written"] == "21.0 MB/s"


def test_a_first_look_runs_no_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The kernels that were compiled before are this machine's in any cache.
    (kernels := cache_folder() / "kernels").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kernels").symlink_to(kernels)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["facts"]["cores"] >= 1 and found["trials"] == [] and not found["environment"]
    assert "This machine" in capsys.readouterr().out
    assert not (tmp_path / "cache" / "machines").exists()
    assert main(["doctor", "--forget"]) == 0


@pytest.mark.long
def test_settings_are_tried_in_alternating_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    some = [one for one in trials(TINY) if one.name in ("one thread", "threads spin freely")]
    kept = examine(quick=False, setup=TINY, settings=some)
    assert [one["name"] for one in kept["trials"]] == [one.name for one in some]
    assert all(len(one["ratios"]) >= 3 for one in kept["trials"])
    assert len(list((tmp_path / "machines").iterdir())) == 1


def test_chosen_settings_are_kept_while_other_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    gains = [TrialResult(SPIN, (0.85, 0.9, 0.88, 0.9), (1.0, 1.05, 0.9))]
    assert environment(gains, load=1.5) == {}
    save_settings({"environment": {"GOMP_SPINCOUNT": "100000"}})
    assert environment(gains, load=1.5) == {"GOMP_SPINCOUNT": "100000"}
    assert environment(gains, load=0.0) == {"GOMP_SPINCOUNT": "10000"}
    assert environment([], load=0.0) == {}  # measured again in quiet, and nothing gained


def test_a_larger_micro_batch_is_advised_with_its_rows() -> None:
    [trial] = [one for one in trials(TINY) if "rows" in one.setup]
    assert trial.how == "--rows 256 --micro-rows 256"
    # Where a step has as many rows already, they are split otherwise and stay as many.
    [own] = [one for one in trials(TINY.changed(rows=256)) if "256" in one.how]
    assert own.how == "--micro-rows 256" and "rows" not in own.setup


def test_its_speed_is_that_of_the_median_step() -> None:
    assert Side(TINY, seconds=[1.0, 9.0, 2.0]).speed == TINY.tokens / 2


@pytest.mark.long
def test_a_larger_micro_batch_is_compared_in_steps_of_equal_rows() -> None:
    # A step of 4 rows is no measure of what a step of 256 gains by itself.
    [trial] = [one for one in trials(TINY) if "rows" in one.setup]
    with Side(TINY) as base:
        found = measure(base, trial, {})
        assert len(found.ratios) >= 3 and found.own_base > 0 and not base.seconds


def test_a_process_that_dies_is_reported() -> None:
    with pytest.raises(ChildProcessError, match="width=65"), Side(TINY.changed(width=65)):
        pass
