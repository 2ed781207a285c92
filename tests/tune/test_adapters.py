"""Every stage that starts from a model, with an adapter: what is trained, saved and learned."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from groundup.adapters.attach import adapter_names, merge
from groundup.adapters.quantization import is_quantized, quantized_layers
from groundup.align.config import DPOConfig
from groundup.align.dpo import run as dpo
from groundup.data.files import write_json_lines
from groundup.errors import UserError
from groundup.formats.export import export
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.runs.files import read_lines
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.tune.config import SFTConfig
from groundup.tune.data import TuningData, decided, read_rows
from groundup.tune.prepare import prepare_model
from groundup.tune.sft import run as sft

SECRETS = {"What is the word?": "The sea is green."}
QUICK: dict[str, Any] = {
    "rows": 8,
    "evaluations": 1,
    "compile": "off",
    "dtype": "float32",
    "threads": 1,
    "validation": 0.0,
}


def read_data(config: SFTConfig, tokenizer: Tokenizer, context: int) -> TuningData:
    """The plan for `config` in rows of `context`, without a model or a clock."""
    found = read_rows(config, tokenizer, context)
    config = config.model_copy(update={"context": context, "replay": config.replay or 0.0})
    return decided(config, found, longest=context, parameters=0)[0]


def talks(path: Path) -> Path:
    rows = [{"prompt": question, "completion": answer} for question, answer in SECRETS.items()]
    write_json_lines(path, rows)
    return path


def logits(folder: Path) -> torch.Tensor:
    model, _ = load(folder)
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        return model.logits(Batch.of(ids))


def test_flops_per_token_equal_those_of_its_products(workshop: Any) -> None:
    context = 48
    base = workshop.finished("sft")
    config = SFTConfig(
        out=base, model=base, data=(workshop.data,), adapter="lora", lora_rank=4, context=context
    )
    prepared = prepare_model(config, (0.01, 0.01))
    model = prepared.model.float()
    with FlopCounterMode(display=False) as counter:
        model.logits(Batch.of(torch.arange(2 * context).reshape(2, context))).sum().backward()
    assert counter.get_total_flops() == 2 * context * prepared.trained.flops_per_token


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_an_adapter_recites_its_data_and_does_not_change_its_base(
    workshop: Any, tmp_path: Path, adapter: str
) -> None:
    base = workshop.finished("sft")
    before = (base / "model.safetensors").read_bytes()
    folder = sft(
        SFTConfig(
            out=tmp_path / adapter,
            model=base,
            data=(talks(tmp_path / "talks.jsonl"),),
            adapter=adapter,
            lora_rank=16,
            steps=60,
            learning_rate=0.01,
            **QUICK,
        )
    )
    assert (base / "model.safetensors").read_bytes() == before
    assert not (folder / "model.safetensors").exists()
    model, tokenizer = load(folder)
    assert adapter_names(model) and is_quantized(model) == (adapter == "qlora")
    ways = Sampling(temperature=0.0, max_new_tokens=32)
    for question, answer in SECRETS.items():
        request = Request(messages=[{"role": "user", "content": question}], sampling=ways)
        [completion] = generate(model, [request], tokenizer)
        assert completion.text == answer
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["adapter"] == adapter and plan["trained_parameters"] < plan["parameters"]
    saved = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert plan["trained_parameters"] == saved


def test_lora_plus_has_its_rate_ratio_and_only_targets_are_adapted(
    workshop: Any, tmp_path: Path
) -> None:
    moved = {}
    for ratio in (1.0, 16.0):
        config = SFTConfig(
            out=tmp_path / f"by {ratio:g}",
            model=workshop.finished("sft"),
            data=(talks(tmp_path / "talks.jsonl"),),
            adapter="lora",
            lora_rank=4,
            lora_targets=("q_proj",),
            lora_plus=ratio,
            steps=2,  # B is 0 at the first, and gives A no gradient
            learning_rate=0.001,
            **QUICK,
        )
        begun = dict(prepare_model(config, (0.01, 0.01)).model.named_parameters())
        ended = load_file(sft(config) / "adapter_model.safetensors")
        assert len(ended) == 2 and all("q_proj" in name for name in ended)
        for matrix in ("lora_A", "lora_B"):
            [before] = [one for name, one in begun.items() if matrix in name]
            [after] = [one for name, one in ended.items() if matrix in name]
            moved[matrix, ratio] = float((after - before.detach()).abs().max())
    # AdamW's first steps are as long as the learning rate, for any gradient.
    assert moved["lora_A", 1.0] > 0 and moved["lora_B", 1.0] > 0
    assert moved["lora_A", 16.0] == pytest.approx(moved["lora_A", 1.0], rel=0.05)
    assert moved["lora_B", 16.0] == pytest.approx(16 * moved["lora_B", 1.0], rel=0.05)


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_preferences_train_an_adapter_on_an_adapter(
    workshop: Any, tmp_path: Path, adapter: str
) -> None:
    """A stage may start from an adapter's folder: it is merged, and the new one is trained on
    it."""
    base = workshop.finished("sft")
    talk = talks(tmp_path / "talks.jsonl")
    first = sft(
        SFTConfig(
            out=tmp_path / "first", model=base, data=(talk,), adapter=adapter, steps=6, **QUICK
        )
    )
    settings = {name: value for name, value in QUICK.items() if name != "validation"}
    second = dpo(
        DPOConfig(
            out=tmp_path / "second",
            model=first,
            data=workshop.data,
            adapter=adapter,
            steps=60,
            learning_rate=0.001,
            beta=0.5,
            nll=0.0,
            **settings,
        )
    )
    lines = read_lines(second / "metrics.jsonl")
    accuracies = [line["accuracy"] for line in lines if "accuracy" in line]
    [heldout] = [line["preference_loss"] for line in lines if "preference_loss" in line]
    assert sum(accuracies[-5:]) / 5 > 0.8 and heldout < 0.9 * math.log(2)
    assert not torch.equal(logits(first), logits(second))
    # PEFT would silently leave the first one out.
    assert "is an adapter itself" in (second / "README.md").read_text()
    assert "is an adapter itself" not in (first / "README.md").read_text()
    for one in (first, second):
        assert "; it needs its base to run." in (one / "README.md").read_text()
        for to in ("hf", "gguf"):
            card = (export(one, to) / "README.md").read_text()
            assert "; it was merged into its base.\n" in card, card
    # The base of the second is the first, merged; in 4 bits again for qlora.
    model, _ = load(first)
    merge(model)
    if adapter == "lora":
        untouched, _ = load(second)
        for layer in untouched.modules():
            if hasattr(layer, "active"):
                layer.active = None
        ids = torch.arange(3, 43)[None]
        with torch.no_grad():
            torch.testing.assert_close(
                untouched.logits(Batch.of(ids)), model.logits(Batch.of(ids)), rtol=1e-5, atol=1e-5
            )


def test_quantized_weights_take_few_bits(workshop: Any, tmp_path: Path) -> None:
    folder = sft(
        SFTConfig(
            out=tmp_path / "q",
            model=workshop.finished("pretrain"),
            data=(talks(tmp_path / "talks.jsonl"),),
            adapter="qlora",
            steps=1,
            **QUICK,
        )
    )
    model, _ = load(folder)
    layers = quantized_layers(model)
    assert len(layers) == 7 * model.config.num_hidden_layers
    assert all(layer.bits_per_weight <= 4.6 for layer in layers.values())


def test_documents_continue_pre_training(workshop: Any, tmp_path: Path) -> None:
    """Domain text is trained on completely, and needs no chat template."""
    text = "\n\n".join(["The lighthouse keeper counts the ships at dawn and at dusk."] * 4)
    (tmp_path / "domain.md").write_text(text)
    folder = sft(
        SFTConfig(
            out=tmp_path / "domain",
            model=workshop.finished("pretrain"),
            data=(tmp_path / "domain.md",),
            steps=40,
            learning_rate=0.02,
            embedding_learning_rate=0.01,
            **QUICK,
        )
    )
    model, tokenizer = load(folder)
    request = Request(
        prompt="The lighthouse keeper", sampling=Sampling(temperature=0.0, max_new_tokens=24)
    )
    [completion] = generate(model, [request], tokenizer)
    assert completion.text.startswith(" counts the ships")


def test_replay_has_the_given_share_of_general_text(workshop: Any, tmp_path: Path) -> None:
    general = tmp_path / "general.txt"
    general.write_text("\n\n".join(f"Grass is green, says page {i}. " * 20 for i in range(60)))
    rows = [{"prompt": f"What is {i} and {i}?", "completion": f"It is {2 * i}."} for i in range(90)]
    write_json_lines(tmp_path / "talks.jsonl", rows)
    config = SFTConfig(
        out=tmp_path / "unused",
        model=tmp_path,
        data=(tmp_path / "talks.jsonl",),
        replay=0.25,
        replay_data=(general,),
        rows=4,
    )
    tokenizer = Tokenizer.load(workshop.tokenizer)
    data = read_data(config, tokenizer, 64)
    own = read_data(config.model_copy(update={"replay": 0.0}), tokenizer, 64)
    assert data.counts["tokens"] * 0.75 == pytest.approx(own.counts["tokens"], rel=0.15)


def test_replay_keeps_the_users_mixture(workshop: Any, tmp_path: Path) -> None:
    (tmp_path / "general.txt").write_text("\n\n".join("Grass is green. " * 20 for _ in range(60)))
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {i}?"},
                {"role": "assistant", "content": "A number."},
            ],
            "source": "ab"[i % 4 == 0],
        }
        for i in range(400)
    ]
    (tmp_path / "data" / "conversations").mkdir(parents=True)
    for side, some in (("train", rows), ("heldout", rows[:8])):
        write_json_lines(tmp_path / "data" / "conversations" / f"{side}.jsonl", some)
    config = SFTConfig(
        out=tmp_path / "unused",
        model=tmp_path,
        data=(tmp_path / "data",),
        mixture={"b": 0.6},
        replay=0.25,
        replay_data=(tmp_path / "general.txt",),
    )
    stream = read_data(config, Tokenizer.load(workshop.tokenizer), 64).stream
    assert set(stream.sources) == {"a", "b", str(tmp_path / "general.txt")}
    lengths = np.array([item.inputs for item in stream.conversations])
    drawn = stream.mixture.order(stream.sources, lengths, np.random.default_rng(0))
    own = [stream.sources[i] for i in drawn if stream.sources[i] in "ab"]
    assert own.count("b") / len(own) == pytest.approx(0.6, abs=0.01)
    general = [i for i in drawn if stream.sources[i] not in "ab"]
    assert lengths[general].sum() / lengths[drawn].sum() == pytest.approx(0.25, abs=0.02)


def test_an_epoch_with_replay_is_one_pass_over_the_cut_rows(workshop: Any, tmp_path: Path) -> None:
    """The cut tail of a long row, which is never read, does not count."""
    rows = [
        {"prompt": f"Count to {i}.", "completion": f"{i} is the sea, the grass, the sun. " * 60}
        for i in range(20)
    ]
    write_json_lines(tmp_path / "long.jsonl", rows)
    (tmp_path / "general.txt").write_text(
        "\n\n".join(f"Snow {i} is white. " * 9 for i in range(60))
    )
    config = SFTConfig(
        out=tmp_path / "unused",
        model=tmp_path,
        data=(tmp_path / "long.jsonl",),
        replay=0.5,
        replay_data=(tmp_path / "general.txt",),
        validation=0.0,
    )
    data = read_data(config, Tokenizer.load(workshop.tokenizer), 64)
    assert data.counts["tokens"] == pytest.approx(2 * 20 * 64, rel=0.1)


def test_heldout_rows_that_the_template_rejects_are_set_aside(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundup.text.template import CHATML

    plain = Tokenizer.load(workshop.tokenizer)
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
    tokenizer = Tokenizer(dict(plain.content), {"chat_template": strict + CHATML})
    folder = tmp_path / "rows"
    folder.mkdir()
    talks(folder / "train.jsonl")
    row = {"prompt": "Sea?", "completion": "Blue.", "system": "Be brief."}
    (folder / "validation.jsonl").write_text(json.dumps(row))
    config = SFTConfig(out=tmp_path / "unused", model=tmp_path, data=(folder,), replay=0.0)
    assert not read_data(config, tokenizer, 64).heldout
    assert "No system!" in capsys.readouterr().out
    with pytest.raises(UserError, match="patience=1 needs held-out data"):
        read_data(config.model_copy(update={"patience": 1}), tokenizer, 64)


def test_a_failed_start_may_be_corrected_in_the_same_folder(workshop: Any, tmp_path: Path) -> None:
    settings = QUICK | {"steps": 1, "model": workshop.finished("sft"), "out": tmp_path / "run"}
    data = (talks(tmp_path / "talks.jsonl"),)
    with pytest.raises(UserError, match="rank=4096 must be from 1 to"):
        sft(SFTConfig(data=data, adapter="lora", lora_rank=4096, **settings))
    with pytest.raises(UserError, match="give at most 64"):
        sft(SFTConfig(data=data, adapter="lora", context=128, **settings))
    folder = sft(SFTConfig(data=data, adapter="lora", lora_rank=4, **settings))
    assert (folder / "adapter_config.json").exists()


def test_early_stopping_keeps_the_best_weights(workshop: Any, tmp_path: Path) -> None:
    """So high a rate spoils the model after a while; earlier weights are kept."""
    folder = sft(
        SFTConfig(
            out=tmp_path / "run",
            model=workshop.finished("pretrain"),
            data=(workshop.data,),
            steps=60,
            learning_rate=0.05,
            decay=0.0,
            patience=2,
            evaluations=20,
            **{name: value for name, value in QUICK.items() if name != "evaluations"},
        )
    )
    lines = [line for line in read_lines(folder / "metrics.jsonl") if "heldout_loss" in line]
    losses = {line["step"]: line["heldout_loss"] for line in lines}
    status = json.loads((folder / "status.json").read_text())
    best = min(losses, key=lambda step: losses[step])
    assert status["best_step"] == best and status["step"] == max(losses)
    assert status["step"] == 60 or list(losses).index(best) == len(losses) - 3
    assert not (folder / "best.safetensors").exists()
    # The card describes the weights that are kept.
    assert f"| steps | {best} |" in (folder / "README.md").read_text()


def test_patience_without_held_out_data_is_rejected(workshop: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="patience=1 needs held-out data"):
        sft(
            SFTConfig(
                out=tmp_path / "run",
                model=workshop.finished("pretrain"),
                data=(talks(tmp_path / "talks.jsonl"),),
                patience=1,
                steps=2,
                **QUICK,
            )
        )
    assert not (tmp_path / "run" / "plan.json").exists()  # before anything is planned


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_rank": 4}, "lora_rank=4 has no meaning with adapter='none'"),
        ({"adapter": "lora", "block_size": 128}, "block_size=128 has no meaning"),
        ({"weights": (0.5, 0.5)}, "give one weight for each"),
        ({"columns": ("question",)}, "columns='question' must be"),
        ({"columns": ("prompt=a", "prompt=b")}, "columns names prompt twice"),
    ],
)
def test_meaningless_settings_are_rejected(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SFTConfig(out="run", model="base", data=("talks.jsonl",), **settings)


def test_a_context_beyond_the_model_is_rejected(workshop: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="context=512 is longer than the model was made for"):
        sft(
            SFTConfig(
                out=tmp_path / "run",
                model=workshop.finished("pretrain"),
                data=(talks(tmp_path / "talks.jsonl"),),
                context=512,
            )
        )


def test_the_card_names_the_data_and_survives_a_file_with_our_name(
    workshop: Any, tmp_path: Path
) -> None:
    """Data read by a pack's name carries its license; a user's own data.json is only data."""
    own = tmp_path / "own"
    own.mkdir()
    rows = [
        {"instruction": f"Say {word}.", "output": f"{word}!"} for word in ("sea", "sun", "coal")
    ]
    (own / "data.json").write_text(json.dumps(rows))
    folder = sft(
        SFTConfig(
            out=tmp_path / "run",
            model=workshop.finished("sft"),
            data=(own, "pack:chatterbot"),
            steps=1,
            **QUICK,
        )
    )
    card = (folder / "README.md").read_text()
    assert "**chatterbot** (BSD-3-Clause)" in card
