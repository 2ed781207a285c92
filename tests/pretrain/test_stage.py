"""The pre-training stage from own text to a folder that transformers reads."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.testing import assert_close

from conftest import forget_finished
from groundup.data.config import TokenizerConfig
from groundup.data.corpus import documents
from groundup.data.tokenizer import run as train_tokenizer
from groundup.errors import UserError
from groundup.formats.load import load
from groundup.generation.request import opening_ids
from groundup.pretrain import stage
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.stage import run
from groundup.report.history import History
from groundup.runs.files import read_lines
from groundup.text.bpe import BPE, train_bpe
from groundup.text.document_stream import DocumentStream
from groundup.text.shards import Shard
from groundup.text.tokenizer import END_OF_TEXT, Tokenizer
from groundup.train.batch import Batch
from groundup.train.stage import forecast
from groundup.xray.snapshots import load_snapshot


def config(workshop: Any, out: Path, **settings: Any) -> PretrainConfig:
    small: dict[str, Any] = {
        "data": workshop.data,
        "tokenizer": workshop.tokenizer,
        "depth": 1,
        "context": 64,
        "steps": 3,
        "rows": 2,
        "micro_rows": 2,
        "evaluations": 1,
        "compile": "off",
        "dtype": "float32",
        "threads": 1,
    }
    return PretrainConfig(out=out, **small | settings)


def test_one_thread_trains_at_a_time(workshop: Any, tmp_path: Path) -> None:
    long = threading.Thread(target=run, args=[config(workshop, tmp_path / "long", steps=1000)])
    long.start()
    while long.is_alive() and not (tmp_path / "long" / "metrics.jsonl").is_file():
        time.sleep(0.01)
    with pytest.raises(UserError, match="pretrain cannot begin, because another thread of this pr"):
        run(config(workshop, tmp_path / "short"))
    long.join()
    assert (
        sum(line["kind"] == "train" for line in read_lines(tmp_path / "long" / "metrics.jsonl"))
        == 1000
    )
    assert run(config(workshop, tmp_path / "short")) == tmp_path / "short"


def test_the_folder_loads_in_transformers_with_equal_logits(workshop: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = workshop.finished("pretrain")
    ours, tokenizer = load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.encode("The sea is blue. The grass is")
    assert AutoTokenizer.from_pretrained(folder).encode("The sea is blue. The grass is") == ids
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits
        assert_close(ours.logits(Batch.of(torch.tensor([ids]))), logits, rtol=1e-5, atol=1e-5)


def test_it_learns_and_reports_it(workshop: Any) -> None:
    folder = workshop.finished("pretrain")
    lines = read_lines(folder / "metrics.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[0] > 5 and losses[-1] < 1
    first, last = (line for line in lines if line["kind"] == "evaluation")
    assert last["bits_per_byte"] < first["bits_per_byte"] < 8
    assert set(last["by_source"]) == {"colours"}
    samples = read_lines(folder / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [first["step"], last["step"]]
    assert all(sample["text"] for sample in samples)


def test_the_plan_is_shown_before_it_starts(workshop: Any) -> None:
    said = workshop.said("pretrain")
    plan = json.loads((workshop.finished("pretrain") / "plan.json").read_text())
    assert f"{plan['steps']} steps of {plan['tokens_per_step']} tokens" in said
    kernels = plan["compute"]["kernels"]
    how = "eager" if kernels == "none" else f"by our kernels for {kernels}"
    assert f"float32 on cpu with 1 thread, {how}" in said
    for name, reason in plan["reasons"].items():
        assert f"{name}: {reason}" in said
    assert said.index("steps of") < said.index("bits per byte")


def test_one_and_two_previous_token_heads() -> None:
    said = [stage._why_previous_heads(heads) for heads in (1, 2)]
    assert said[0].startswith("1 head of the first layer begins by looking one token back")
    assert said[1].startswith("2 heads of the first layer begin by looking one and two tokens")


def test_a_changing_mixture_explains_a_rising_loss(
    workshop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(workshop.data, data)
    [file] = (data / "documents").glob("train.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"source": "sky"} if n % 2 else row for n, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixture = {"sky": (0.7, 0.15), "colours": (0.1, 0.1), "world": (0.1, 0.05)}
    out = run(config(workshop, tmp_path / "run", data=data, mixture=mixture))
    history = History.of(out)
    assert history is not None
    said = history.reason("mixture")
    assert said.startswith("sky from 70 % to 15 % of the rows") and "loss may rise" in said
    captured = capfd.readouterr()
    assert f"mixture: {said}" in " ".join((captured.out + captured.err).split())
    other = History.of(workshop.finished("pretrain"))
    assert other is not None and other.reason("mixture") == ""


def test_passes_are_reported_for_each_part_of_the_mixture(
    workshop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "notes.txt").write_text("\n\n".join(f"Note {n}: the sky is blue." for n in range(40)))
    (data / "big.txt").write_text("\n\n".join(f"Line {n} of a book." for n in range(4_000)))
    mixture = {"notes": (0.9, 0.9)}
    settings = config(workshop, tmp_path / "run", data=data, mixture=mixture, steps=60, rows=4)
    run(settings)
    captured = capfd.readouterr()
    said = " ".join((captured.out + captured.err).split())
    [(other, notes)] = re.findall(
        r"passes: the other text is read about (\S+) times and notes is read about (\d+) times",
        said,
    )
    assert float(other) < 1 and float(notes) > 4
    assert f"Warning: notes is read about {notes} times" in said
    settings = settings.model_copy(update={"out": tmp_path / "planned"})
    assert forecast(lambda: run(settings)).passes == pytest.approx(float(notes), abs=0.5)


def test_the_folder_records_its_lineage(workshop: Any) -> None:
    folder = workshop.finished("pretrain")
    story = json.loads((folder / "run.json").read_text())
    assert story["stage"] == "pretrain" and story["config"]["steps"] == 24
    assert set(story["parents"]) == {"data", "tokenizer"}
    card = (folder / "README.md").read_text()
    assert "CC BY-SA 4.0" in card and "A Box of Paints." in card
    assert "license: cc-by-sa-4.0" in card
    snapshots = {path.parent.name for path in (folder / "snapshots").glob("*/*.safetensors")}
    assert snapshots == {f"step-{step}" for step in (1, 2, 4, 8, 16)}


def test_a_later_start_reads_the_plan_and_measures_nothing(workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config(workshop, out))
    whole = (out / "model.safetensors").read_bytes()
    # As a kill right after planning leaves it; two steps are now the plan, whatever the settings.
    plan = json.loads((out / "plan.json").read_text()) | {"steps": 2, "peak_flops": 1.0}
    del plan["sha256"]  # as a user does who changes it on purpose
    (out / "plan.json").write_text(json.dumps(plan))
    forget_finished(out)
    for name in ("metrics.jsonl", "model.safetensors", "config.json"):
        (out / name).unlink()
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    run(config(workshop, out))
    lines = [line for line in read_lines(out / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["peak_share"] == line["flops_per_second"] for line in lines)
    assert (out / "model.safetensors").read_bytes() != whole


def test_documents_end_with_the_tokenizers_end_of_text(workshop: Any, tmp_path: Path) -> None:
    """GPT-2 and similar tokenizers have <|endoftext|> last; id 0 is "!"."""
    texts = documents(workshop.data).train
    vocab, merges = train_bpe([one.text for one in texts], 300, special_tokens=()).to_bytes()
    foreign = BPE.from_bytes(vocab, merges, [END_OF_TEXT])
    tokenizer = Tokenizer.from_bpe(foreign, chat_template=None)
    end = tokenizer.end_of_text
    assert end == tokenizer.vocab_size - 1 and tokenizer.decode([0]) == "!"
    tokenizer.save(tmp_path / "tokenizer")
    folder = run(config(workshop, tmp_path / "run", tokenizer=tmp_path / "tokenizer"))
    shard = Shard.open(folder / "tokens" / "train")
    assert (shard.tokens[shard.offsets[:-1]] == end).all() and (shard.tokens == 0).sum() == 0
    shape = load(folder)[0].config
    assert (shape.bos_token_id, shape.eos_token_ids, shape.pad_token_id) == (end, (end,), end)
    # Each document is a separate segment.
    stream = DocumentStream(shard, context=64, rows=2, micro_rows=2, seed=0)
    [batch] = stream.at(0, load(folder)[0])
    starts = batch.input_ids[:, 1:] == end
    assert starts.any() and torch.equal(batch.segment_ids.diff() == 1, starts)


def test_a_tokenizer_with_different_start_and_end_tokens_is_rejected(
    workshop: Any, tmp_path: Path
) -> None:
    content = json.loads((workshop.tokenizer / "tokenizer.json").read_text())
    begin = {"id": "<|im_start|>", "type_id": 0}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": begin}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {begin["id"]: {"id": begin["id"], "ids": [1], "tokens": [begin["id"]]}},
    }
    shutil.copytree(workshop.tokenizer, tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="different tokens for the beginning"):
        run(config(workshop, tmp_path / "run", tokenizer=tmp_path / "tokenizer"))


def test_an_end_token_of_another_name_works(workshop: Any, tmp_path: Path) -> None:
    shutil.copytree(workshop.tokenizer, tmp_path / "tokenizer")
    for path in (tmp_path / "tokenizer").glob("tokenizer*.json"):
        path.write_text(path.read_text().replace("<|endoftext|>", "</s>"))
    path = tmp_path / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "</s>"}))
    folder = run(config(workshop, tmp_path / "run", tokenizer=tmp_path / "tokenizer", steps=1))
    model, tokenizer = load(folder)
    assert opening_ids(model.config, tokenizer) == [tokenizer.end_of_text] == [tokenizer.eos_id]


def test_master_weights_are_stored_for_every_compute_dtype(workshop: Any, tmp_path: Path) -> None:
    run(config(workshop, tmp_path / "run", dtype="bfloat16"))
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    embedding = weights["model.embed_tokens.weight"]
    assert not torch.equal(embedding, embedding.bfloat16().float())
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["dtype"] == "float32"


@pytest.mark.parametrize("compiler", [True, False])
def test_a_short_run_is_eager_with_a_reason(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: bool
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("GROUNDUP_KERNELS", "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    if compiler:
        (tmp_path / "g++").touch(0o755)
    run(config(workshop, tmp_path / "run", compile="auto", steps=1))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert not plan["compute"]["compile"]
    assert ("5 minutes" if compiler else "C++ compiler") in plan["reasons"]["compile"]


def test_minutes_become_steps_with_a_reason(workshop: Any, tmp_path: Path) -> None:
    run(config(workshop, tmp_path / "run", steps=None, minutes=0.004))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["tokens_per_second"] > 0
    assert "tokens per second measured here" in plan["reasons"]["steps"]
    affordable = 0.92 * 0.24 * plan["tokens_per_second"] / plan["tokens_per_step"]
    assert plan["steps"] == max(1, round(affordable))


def test_a_tiny_own_text_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "rhyme.txt"
    lines = [f"Verse {n}: the sea is blue, and {n} is a number." for n in range(60)]
    text.write_text("\n\n".join(lines), encoding="utf-8")
    # So little text gives fewer tokens than are asked for, and no multiple of 64.
    tokenizer = train_tokenizer(
        TokenizerConfig(out=tmp_path / "tokenizer", data=text, vocab_size=1024)
    )
    assert "fewer than the 1,024 requested" in capsys.readouterr().out
    folder = run(
        PretrainConfig(
            out=tmp_path / "run",
            data=text,
            tokenizer=tokenizer,
            depth=1,
            context=32,
            steps=20,
            compile="off",
            threads=1,
        )
    )
    said = capsys.readouterr().out
    tokens = len(Shard.open(folder / "tokens" / "train").tokens)
    assert f"documents of {tokens:,} tokens to train on" in said
    # So few rows are repeated many times, which is reported before the first step.
    times = 20 * PretrainConfig.model_fields["rows"].default / ((tokens - 1) // 32)
    warning = f"Warning: the text is read about {times:.0f} times; up to about 4 passes"
    assert times > 10 and warning in said and said.index(warning) < said.index("bits per byte")
    model, loaded = load(folder)
    assert model.config.vocab_size % 64 == 0
    assert loaded.vocab_size <= model.config.vocab_size < loaded.vocab_size + 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100}, "width=100 is not a multiple of 64"),
        ({"width": 256, "heads": 6}, "heads=6 does not divide width=256"),
        ({"context": 20_000}, "fewer than one row of context=20000"),
    ],
)
def test_impossible_settings_are_rejected(
    workshop: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(config(workshop, tmp_path / "run", **settings))


def test_a_prompt_longer_than_the_context_is_rejected_before_training(
    workshop: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"--prompt: .* more than the model's context of 64"):
        run(config(workshop, out, prompt="The sea. " * 60))
    assert not (out / "plan.json").exists()
    run(config(workshop, out))  # as a start that failed before its first work may be corrected


def test_with_patience_the_card_describes_the_kept_weights(workshop: Any, tmp_path: Path) -> None:
    settings = {"steps": 40, "evaluations": 20, "patience": 2, "learning_rate": 1.0, "decay": 0.0}
    folder = run(config(workshop, tmp_path / "run", **settings))
    status = json.loads((folder / "status.json").read_text())
    assert status["best_step"] < 40
    read = status["best_step"] * 2 * 64
    assert f"| tokens read | {read:,} |" in (folder / "README.md").read_text()


# Other architectures, by the same stage.

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "lstm": {"arch": "lstm", "width": 64},
    "gru": {"arch": "gru", "width": 64, "depth": 2},
    "experts": {"experts": 3, "experts_per_token": 2},
    "alibi, norms after": {"position": "alibi", "norm": "after", "activation": "relu2"},
    "multi-query in a window": {"width": 128, "kv_heads": 1, "attention_window": 16},
    "learned": {"position": "learned", "activation": "gelu"},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_trained_and_saved(workshop: Any, tmp_path: Path, name: str) -> None:
    settings = config(workshop, tmp_path / "run", steps=8, **ARCHITECTURES[name])
    folder = run(settings)
    model, _ = load(folder)
    shape = settings.shape(
        width=model.config.hidden_size,
        depth=model.config.num_hidden_layers,
        vocab_size=model.config.vocab_size,
    )
    assert replace(model.config, eos_token_ids=shape.eos_token_ids) == shape
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["parameters"] == sum(p.numel() for p in model.parameters())
    lines = read_lines(folder / "metrics.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.5
    balances = [line["balance"] for line in lines if "balance" in line]
    assert len(balances) == (8 if name == "experts" else 0)
    assert all(2 <= balance <= 3 for balance in balances)
    assert all(sample["text"] for sample in read_lines(folder / "samples.jsonl"))
    # A snapshot is a model of that shape as well.
    assert load_snapshot(folder, 4, model.config).config == model.config
    # It continues from its plan without measuring anything again.
    forget_finished(folder)
    assert run(settings) == folder


def test_a_recurrent_network_is_planned_in_minutes_and_stays_eager(
    workshop: Any, tmp_path: Path
) -> None:
    settings = {"arch": "lstm", "minutes": 0.004, "steps": None, "depth": None, "compile": "on"}
    folder = run(config(workshop, tmp_path / "run", **settings))
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["model"]["model_type"] == "lstm" and plan["model"]["num_hidden_layers"] == 2
    assert "widest" in plan["reasons"]["width"] and not plan["compute"]["compile"]
    assert "tokens per second measured here" in plan["reasons"]["steps"]
    assert "eager" in plan["reasons"]["compile"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "lstm", "heads": 2}, "heads=2 has no meaning with arch=lstm"),
        ({"arch": "gru", "position": "alibi"}, "position=alibi has no meaning with arch=gru"),
        ({"arch": "gru", "experts": 4}, "experts=4 has no meaning with arch=gru"),
        ({"experts_per_token": 1}, "experts_per_token=1 has no meaning with no experts"),
        ({"experts": 2, "experts_per_token": 3}, "num_experts_per_tok=3 of num_experts=2"),
        ({"arch": "lstm", "width": 100}, "width=100 is not a multiple of 64"),
    ],
)
def test_ignored_settings_are_rejected(
    workshop: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((UserError, ValidationError), match=message):
        config(workshop, tmp_path / "run", **settings)
