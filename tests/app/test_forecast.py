"""Forecasts of a run's time and memory use the run's own plan."""

from __future__ import annotations

import inspect
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.conftest import Workshop

from groundup.app.cli import main
from groundup.app.commands import machine
from groundup.app.forecast import PlanRequest, _by_set, _named, plan_run, read_law
from groundup.errors import UserError
from groundup.kernels.library import best_kernels
from groundup.lm.config import ModelConfig
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.scaling.law import Law
from groundup.runs.files import read_json_object
from groundup.text.shards import Shard
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute, compute_dtype
from groundup.train.plan import Trained, run_memory, training_disk, training_memory
from groundup.tune.config import SFTConfig

EAGER = Compute("cpu", "bfloat16", "matmul", False, 2, "")
KERNELS = Compute("cpu", "bfloat16", "matmul", False, 2, "", kernels="amx")


def gpt(depth: int, context: int, width: int = 256, **switches: Any) -> ModelConfig:
    return ModelConfig.of(width=width, depth=depth, vocab_size=4_096, context=context, **switches)


def recurrent(cell: Literal["lstm", "gru"], width: int, depth: int = 2) -> ModelConfig:
    return ModelConfig.recurrent(cell, width=width, depth=depth, vocab_size=4_096, context=256)


@pytest.mark.parametrize(
    ("compute", "depth", "width", "context", "micro_rows", "megabytes"),
    [
        # Peak of a process that trains it, measured with two threads.
        (KERNELS, 2, 128, 128, 4, 393),
        (KERNELS, 4, 256, 256, 16, 616),
        (KERNELS, 4, 256, 256, 32, 832),
        (KERNELS, 6, 384, 1_024, 4, 923),
        (KERNELS, 10, 256, 256, 16, 936),
        (KERNELS, 8, 512, 256, 16, 1_353),
        (EAGER, 4, 256, 256, 16, 858),
        (EAGER, 4, 256, 1_024, 4, 930),
        (EAGER, 6, 384, 256, 16, 1_381),
    ],
)
def test_memory_equals_the_measured_one(
    compute: Compute, depth: int, width: int, context: int, micro_rows: int, megabytes: float
) -> None:
    shape = ModelConfig.of(width=width, depth=depth, vocab_size=4_096, context=context)
    config = TrainingConfig(out=Path("x"), rows=32, micro_rows=micro_rows)
    trained = Trained.whole(shape, context, (0.02, 0.006), "")
    estimate = training_memory(config, trained, compute, context) / 1e6
    assert estimate == pytest.approx(megabytes, rel=0.2)


@pytest.mark.parametrize(
    ("shape", "context", "micro_rows", "megabytes"),
    [
        # Of what the kernels leave to PyTorch, or want beside: measured with one thread.
        (gpt(4, 1_024, position_embedding_type="alibi"), 1_024, 4, 800),
        (gpt(4, 1_024, heads=16), 1_024, 4, 1_101),
        (gpt(2, 8_192), 8_192, 1, 665),
        (recurrent("lstm", 512), 256, 16, 644),
        (recurrent("gru", 256), 256, 16, 491),
    ],
)
def test_memory_with_kernels_is_that_of_their_computation(
    shape: ModelConfig, context: int, micro_rows: int, megabytes: float
) -> None:
    config = TrainingConfig(out=Path("x"), rows=32, micro_rows=micro_rows)
    trained = Trained.whole(shape, context, (0.02, 0.006), "")
    estimate = training_memory(config, trained, replace(KERNELS, threads=1), context) / 1e6
    assert estimate == pytest.approx(megabytes, rel=0.1)


def test_kernels_store_no_attention_scores() -> None:
    def memory(compute: Compute, context: int) -> int:
        shape = ModelConfig.of(width=256, depth=4, vocab_size=1_024, context=context)
        config = TrainingConfig(out=Path("x"), rows=16, micro_rows=4_096 // context)
        trained = Trained.whole(shape, context, (0.02, 0.006), "")
        return training_memory(config, trained, compute, context)

    # But for what two threads make of them at a time.
    assert memory(KERNELS, 2_048) - memory(KERNELS, 256) < 2 * 2_048 * (2 * 2_048 + 22 * 64)
    # Measured: 1,002 MB and 776 MB.
    assert memory(EAGER, 2_048) - memory(EAGER, 256) == pytest.approx(226e6, rel=0.1)


def test_memory_already_in_use_is_counted() -> None:
    """Data and remains of earlier stages; the weights among it are in the estimate already."""
    shape = ModelConfig.of(width=512, depth=8, vocab_size=4_096, context=256)
    config = TrainingConfig(out=Path("x"), rows=16)
    trained = Trained.whole(shape, 256, (0.02, 0.006), "")
    fresh = training_memory(config, trained, KERNELS, 256)
    weights = 2 * shape.parameters
    for held, more in ((3e8, -7e7), (37e7 + weights, 0), (1e9 + weights, 63e7)):
        found = training_memory(config, trained, KERNELS, 256, round(held))
        assert found - fresh == pytest.approx(more, abs=1)


def test_disk_is_that_of_the_steps() -> None:
    shape = gpt(2, 128)
    trained = Trained.whole(shape, 128, (0.02, 0.006), "")
    for steps, save_every, bytes_a_weight in (
        (1, 5, 2 + 4),  # a snapshot after the first step, and the model
        (40, 100, 6 * 2 + 4),  # after steps 1, 2, 4, 8, 16 and 32
        (40, 20, 6 * 2 + 12 + 4),  # saved once on the way, not again at the end
        (40, 3, 6 * 2 + 3 * 12 + 4),  # one more than the two that are kept, while it is written
        (33_000, 3, 16 * 2 + 3 * 12 + 4),
        (None, None, 16 * 2 + 3 * 12 + 4),
    ):
        found = training_disk(trained, snapshots=2, steps=steps, save_every=save_every)
        assert found == bytes_a_weight * shape.parameters


@pytest.mark.parametrize(
    ("shape", "context", "rows", "megabytes"),
    [
        # Peak of `groundup pretrain` with its steps given, on 30 MB of documents.
        (gpt(2, 128, width=128), 128, 8, 510),
        (recurrent("lstm", 256, depth=1), 64, 16, 509),
        (
            gpt(3, 512, width=64, position_embedding_type="alibi", experts=(4, 2)),
            *(512, 4, 607),
        ),
    ],
)
def test_memory_of_a_whole_run_equals_the_measured_one(
    shape: ModelConfig, context: int, rows: int, megabytes: float
) -> None:
    config = TrainingConfig(out=Path("x"), rows=rows)
    trained = Trained.whole(shape, context, (0.02, 0.006), "")
    held = 371_000_000  # before the first step
    estimate = training_memory(config, trained, KERNELS, context, held)
    estimate += run_memory(config, trained, KERNELS, context)
    assert estimate / 1e6 == pytest.approx(megabytes, rel=0.15)
    on_gpu = replace(KERNELS, device="cuda")
    assert run_memory(config, trained, on_gpu, context) == 0


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_a_run_of_given_steps_takes_the_planned_memory(workshop: Workshop, stage: str) -> None:
    """Including data, kernels, optimizer and evaluations, which were not measured before."""
    folder = workshop.finished(stage)
    plan = read_json_object(folder / "plan.json")
    took = read_json_object(folder / "status.json")["peak_memory_bytes"]
    assert plan["expected"]["peak_memory_bytes"] == pytest.approx(took, rel=0.2)


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "reward", "guard"])
def test_every_stage_is_planned_with_its_data(
    workshop: Workshop, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its speed is timed on more micro-batches than a few steps have, and than are prepared."""
    data, file = workshop.data, tmp_path / "plan.json"
    if stage == "guard":
        data = tmp_path / "labels.jsonl"
        rows = [{"prompt": f"{n} Is the coal wide?", "label": n % 3 == 0} for n in range(200)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["plan", "--stage", stage, "--model", str(workshop.finished("sft"))]
    words += ["--data", str(data), "--steps", "2", "--rows", "4", "--json", str(file)]
    assert main([*words, "--set", "micro_rows=4", "threads=1", "compile=off"]) == 0
    assert json.loads(file.read_text())["steps"] == 2
    assert_options_exist(capsys.readouterr().out)


def assert_options_exist(said: str) -> None:
    """Every named option exists in `groundup plan`."""
    named = set(re.findall(r"--([a-z-]+)", said))
    known = {name.replace("_", "-") for name in inspect.signature(machine.plan).parameters}
    assert named and named <= known


def test_a_plan_names_its_own_options_for_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", "--depth", "1", "--context", "32", "--steps", "3", "--rows", "4"]
    settings = ["threads=1", "dtype=float32", "compile=auto"]
    assert main([*words, "--vocab-size", "320", "--set", *settings]) == 0
    said = capsys.readouterr().out
    assert_options_exist(said)
    assert "change with --set save_every=…" in said and "change with --width" in said


def test_a_stage_error_names_the_options_of_the_plan(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(workshop.data), "--tokenizer", str(workshop.tokenizer), "--depth", "1"]
    settings = ["--context", "32", "--steps", "3", "--set", "previous_token_heads=99"]
    assert main(["plan", *words, *settings]) == 2
    assert "error: --set previous_token_heads=99 must be at most" in capsys.readouterr().err


def test_an_option_of_a_stage_is_spelled_as_a_setting() -> None:
    for said, meant in {
        "change with --compile on": "change with --set compile=on",
        "change with --replay, 0 turns it off": "change with --set replay=…, 0 turns it off",
        "change with --epochs or --steps": "change with --set epochs=… or --steps",
        "--lora-rank=7 must be even": "--set lora_rank=7 must be even",
        "beside them with --adapter lora": "beside them with --set adapter=lora",
        "add --gradient-checkpointing": "add --set gradient_checkpointing=true",
        "lower --set micro_rows or --context": "lower --set micro_rows or --context",
        "give another --out, or --law": "give another --out, or --law",
    }.items():
        assert _by_set(SFTConfig, said) == meant


# Where kernels are missing it is compiled, and checks of types cannot be.
@pytest.mark.usefixtures("unchecked_types")
def test_a_model_without_data_is_timed(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    request = PlanRequest("pretrain", steps=10, depth=1, vocab_size=320, context=32, rows=4)
    estimate = plan_run(request, machine=None, law=None, json=file)
    assert (estimate.steps, estimate.tokens) == (10, 10 * 4 * 32)
    assert estimate.seconds > estimate.training_seconds > 0
    shape = ModelConfig.of(width=64, depth=1, vocab_size=320, context=32)
    assert estimate.parameters == shape.parameters
    assert estimate.flops == shape.flops_per_token(32) * estimate.tokens
    assert estimate.kaplan_flops is not None and estimate.kaplan_flops < estimate.flops
    assert json.loads(file.read_text())["loss"] is None
    assert estimate.passes is None  # over a text that is not there
    # Twice the parameters' size is given by number, and tokens by the dial.
    sized = plan_run(
        PlanRequest("pretrain", parameters=1.2e6, vocab_size=1_024, context=32, rows=4),
        machine=None, law=None,
    )  # fmt: skip
    assert sized.parameters == pytest.approx(1.2e6, rel=0.5)
    assert sized.tokens == pytest.approx(1.5 * sized.parameters, rel=0.01)


def test_the_loss_is_predicted_by_a_law(tmp_path: Path) -> None:
    drawn = [[2.0, 400.0, 1200.0, 0.3, 0.3], [2.1, 400.0, 1200.0, 0.3, 0.3]]
    law = {"E": 2.05, "A": 400.0, "B": 1200.0, "alpha": 0.3, "beta": 0.3}
    fit = {"law": law, "drawn": drawn, "deviation": 0.005, "runs": 20, "left_out": [3]}
    result = {"fit": fit}
    (tmp_path / "result.json").write_text(json.dumps(result))
    request = PlanRequest("pretrain", steps=10, depth=1, vocab_size=320, context=32, rows=4)
    estimate = plan_run(request, machine=None, law=tmp_path)
    assert estimate.loss is not None
    n, d = estimate.parameters, estimate.tokens
    assert estimate.loss.estimate == pytest.approx(2.05 + 400 * n**-0.3 + 1200 * d**-0.3)
    assert estimate.loss.low < estimate.loss.estimate < estimate.loss.high
    # The experiment keeps it among its data.
    (tmp_path / "result.json").write_text(json.dumps({"experiment": "scaling-law", "data": result}))
    assert read_law(tmp_path)[0] == Law(**law) and read_law(tmp_path)[2:] == (0.005, 19, {})
    contents: list[dict[str, Any]] = [{}, {"fit": None}, {"data": []}, {"data": {"fit": 3}}]
    for content in contents:
        (tmp_path / "result.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="contains no law"):
            read_law(tmp_path)


def test_a_run_far_outside_a_law_is_reported(tmp_path: Path) -> None:
    machine, law = tmp_path / "machine.json", tmp_path / "result.json"
    facts = {"fast_bfloat16": False, "cores": 8, "kernels": "none", "processor": "an old one"}
    machine.write_text(json.dumps({"facts": facts, "trial_flops": 1e11}))

    def doubt(e: float, deviation: float = 0.0, **ranges: list[float]) -> str | None:
        fit = {"law": {"E": e, "A": 0.0, "B": 0.0, "alpha": 0.3, "beta": 0.3}, "drawn": []}
        fit |= {"deviation": deviation, "runs": 20, "left_out": [], "range": near | ranges}
        law.write_text(json.dumps({"fit": fit}))
        planned = plan_run(request, machine=machine, law=law, json=tmp_path / "plan.json")
        told = json.loads((tmp_path / "plan.json").read_text())["reasons"].get("loss")
        assert told == planned.reasons.get("loss")
        return told

    request = PlanRequest("pretrain", steps=100, depth=2)
    found = plan_run(request, machine=machine, law=None)
    sizes = {name: getattr(found, name) for name in ("parameters", "tokens", "flops")}
    near = {name: [size / 9, size / 8] for name, size in sizes.items()}
    assert doubt(3.0) is None
    n = found.parameters
    told = doubt(3.0, parameters=[11 * n, 12 * n], flops=[1e3, 2e3])
    assert (
        told is not None and " parameters (here " in told and "and 1e+03 to 2e+03 FLOPs (" in told
    )
    assert "tokens" not in told and "guessing" not in told
    told = doubt(26.7)
    assert told == "doubtful, because guessing costs ln 4,096 = 8.32 nats per token, below the loss"
    told = doubt(8.0, deviation=0.1)
    assert told is not None and told.endswith("below the end of its interval")


def test_another_machine_has_the_speed_of_its_trial(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    facts = {"fast_bfloat16": False, "cores": 8, "kernels": "none", "processor": "an old one"}
    file.write_text(json.dumps({"facts": facts, "trial_flops": 1e11}))
    request = PlanRequest("pretrain", steps=100, depth=2)
    estimate = plan_run(request, machine=file, law=None)
    assert estimate.training_seconds == pytest.approx(estimate.flops / 1e11)
    assert estimate.kaplan_flops is not None and 0 < estimate.kaplan_flops < estimate.flops
    # The blocks are computed once more, the head is not.
    checkpointed = replace(request, settings=("gradient_checkpointing=true",))
    slower = plan_run(checkpointed, machine=file, law=None)
    head = 6 * 4_096 * 128 * estimate.tokens
    again = (estimate.flops - head) / 3
    assert slower.flops == estimate.flops and slower.peak_memory < estimate.peak_memory
    assert slower.training_seconds == pytest.approx((estimate.flops + again) / 1e11)
    # Only what its trial did is known of it.
    own = {"threads": "8", "dtype": "float32", "compile": "off", "device": "cpu"}
    same = replace(request, settings=tuple(f"{name}={value}" for name, value in own.items()))
    assert plan_run(same, machine=file, law=None) == estimate
    other = {"threads": "1", "dtype": "bfloat16", "compile": "on", "device": "cuda"}
    for name, value in other.items():
        asked = replace(request, settings=(f"{name}={value}",))
        with pytest.raises(UserError, match=f"--set {name}={value} must be {own[name]} with --mac"):
            plan_run(asked, machine=file, law=None)
    timed = plan_run(PlanRequest("pretrain", minutes=5), machine=file, law=None)
    assert "GFLOP/s (50% of the machine's peak)" in timed.reasons["depth"]
    # A recurrent network is sequential in its tokens, and its width is given.
    request = PlanRequest("pretrain", parameters=1e7, settings=("arch=lstm",))
    estimate = plan_run(request, machine=file, law=None)
    assert estimate.parameters == pytest.approx(1e7, rel=0.1)
    assert estimate.reasons["parameters"].startswith(f"{estimate.parameters:,}, the nearest")
    assert estimate.tokens == pytest.approx(1.5 * estimate.parameters, rel=0.001)
    assert estimate.training_seconds == pytest.approx(estimate.flops / 0.3e11)
    # As groundup doctor --quick writes it, and what no doctor wrote.
    file.write_text(json.dumps({"facts": facts | {"cores": None}, "trial_flops": 1e11}))
    with pytest.raises(UserError, match="cores=None, which is not a number of cores"):
        plan_run(request, machine=file, law=None)
    for content in ({"facts": facts, "trial_flops": None}, {}):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"does not say how fast .* without --quick"):
            plan_run(request, machine=file, law=None)


def test_dotted_settings_are_one_table() -> None:
    found = _named(
        ["mixture.world-conduct=[0.5, 0.1]", "mixture.speeches=[0.2,0.2]", "lora-rank=4"]
    )
    shares = {"world-conduct": [0.5, 0.1], "speeches": [0.2, 0.2]}
    assert found == {"mixture": shares, "lora_rank": 4}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing to plan by"),
        (["--stage", "data"], "not a stage that trains on rows; give one of pretrain, sft"),
        (["--stage", "soup"], "not a stage that trains on rows"),
        (["--stage", "ppo", "--data", "x"], "answers that its model generates"),
        (["--minutes", "5", "--tokens", "1e6"], "--minutes and --tokens set the same value"),
        (["--steps", "5", "--tokens", "1e6"], "--steps and --tokens set"),
        (["--stage", "sft", "--minutes", "5", "--set", "steps=3"], "--minutes and --steps set"),
        (["--params", "1e6", "--depth", "2"], "--params and --depth set"),
        (["--stage", "sft", "--law", "scaling"], "--law predicts the loss of pre-training"),
        (["--stage", "sft", "--steps", "3"], "model is missing"),
        (["--depth", "2", "--set", "heads=7"], "heads"),
        (["--depth", "2", "--set", "foo=1"], "--set foo is not a setting of this stage"),
        (["--depth", "2", "--set", "arch=gru"], "how large (--width, --params)"),
        (["--machine", "nowhere.json", "--depth", "2"], "nowhere.json"),
        (
            ["--depth", "2", "--rows", "16", "--set", "rows=7"],
            "--set rows=…: give it once, as --rows",
        ),
        (["--depth", "2", "--set", "data=/nowhere"], "give it once, as --data"),
        (["--depth", "2", "--set", "out=there"], "--set out=…: a plan writes no run folder"),
        (["--depth", "2", "--set", f"rows={'9' * 5_000}"], "rows"),
        (["--depth", "2", "--tokenizer", "/nowhere"], "/nowhere"),
        (["--params", "1e12"], "--params=1e+12 must be at most 1"),
        (["--params", "1e4"], "--params=10000 must be at least 3"),
        (["--params", "1e4", "--set", "arch=lstm"], "--params=10000 must be at least 3"),
        (["--params", "1e10", "--set", "arch=lstm"], "must be at most 1,"),
        (["--depth", "2", "--set", "rows=4", "rows=8"], "--set rows=… is given twice"),
        (["--set", "mixture.a=[1,1]", "mixture.a=[0,1]"], "--set mixture.a=… is given twice"),
    ],
)
def test_runs_that_cannot_be_planned(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == 2
    said = capsys.readouterr().err
    assert why in said
    # Suggested commands can be planned.
    assert not {"ppo,", "grpo,", "soup,"} & set(said.partition("give one of")[2].split())


@pytest.mark.parametrize("words", [["--stage", "sft"], ["--set", "foo"]])
def test_a_run_that_cannot_start_is_not_timed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and not said.out


def test_a_folder_without_a_law_is_reported(tmp_path: Path) -> None:
    message = "contains no law; give a folder that groundup scaling fit"
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=message):
            read_law(place)


@pytest.mark.parametrize("size", [["--params", "1e11"], ["--depth", "100", "--width", "8192"]])
def test_a_too_large_run_is_reported_without_measuring(
    size: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", *size, "--tokens", "2e12", "--context", "4096", "--set", "device=cpu"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "2 T tokens" in said.out, said.out
    assert "FLOPs" in said.out and "of disk" in said.out
    assert "--set gradient_checkpointing=true" in said.err
    assert "--micro-rows" not in said.err and "lower --context" in said.err  # it is 1 already
    assert main([*words, "gradient_checkpointing=true", "micro_rows=2"]) == 2
    said = capsys.readouterr()
    assert "lower --set micro_rows or --context" in said.err
    assert "gradient_checkpointing" not in said.err


def test_the_benchmark_without_kernels_runs_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "planner.py"))
    [run] = [one for one in planner["RUNS"] if "no kernels" in one.name]
    for name, value in run.environment.items():
        monkeypatch.setenv(name, value)
    assert best_kernels(compute_dtype()) == "none" and "--compile" not in run.options


@pytest.mark.long
def test_a_run_on_own_data_is_planned_as_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    lines = [f"The sea is wide and number {n} is a number." for n in range(400)]
    text.write_text("\n\n".join(lines))
    out, tokenizer = tmp_path / "run", tmp_path / "tokenizer"
    assert main(["tokenizer", str(text), "--vocab-size", "320", "--out", str(tokenizer)]) == 0
    run = ["--data", str(text), "--tokenizer", str(tokenizer), "--depth", "1", "--context", "32"]
    file = tmp_path / "plan.json"
    assert main(["plan", *run, "--steps", "8", "--json", str(file)]) == 0
    estimate = json.loads(file.read_text())
    assert main(["pretrain", *run, "--steps", "8", "--out", str(out)]) == 0
    plan = json.loads((out / "plan.json").read_text())
    status = json.loads((out / "status.json").read_text())
    assert (estimate["steps"], estimate["parameters"]) == (plan["steps"], plan["parameters"])
    tokens = len(Shard.open(out / "tokens" / "train").tokens)
    rows = PretrainConfig.model_fields["rows"].default
    assert estimate["passes"] == pytest.approx(8 * rows / ((tokens - 1) // 32))
    assert plan["expected"]["peak_memory_bytes"] > 0 and plan["expected"]["disk_bytes"] > 0
    assert status["seconds"] > 0
    assert not list(tmp_path.glob("groundup-plan-*"))
    # Fine-tuning of the trained model, by its own command.
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "The sea", "completion": " is wide."}\n' * 40)
    words = ["--stage", "sft", "--model", str(out), "--data", str(rows), "--steps", "4"]
    told = capsys.readouterr().out
    assert "The loss is unknown" in told and "FLOPs are counted as if" not in told
    assert main(["plan", *words, "--set", "adapter=lora", "--json", str(file), "--force"]) == 0
    estimate = json.loads(file.read_text())
    assert estimate["trained_parameters"] < estimate["parameters"]
    told = capsys.readouterr().out  # a law is of the loss of a new model
    assert "FLOPs are counted as if every token were trained on" in told
    assert "What it would take" in told and "The loss is unknown" not in told
