"""Averaged weights, against plain arithmetic of tensors and adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from conftest import WithToken
from groundup.adapters import modules_to_save
from groundup.adapters.attach import add_lora, merge
from groundup.app import cli
from groundup.errors import UserError
from groundup.formats.adapter import save_adapted
from groundup.formats.folder import save_model
from groundup.formats.load import load, load_model
from groundup.lm.model import CausalLM
from groundup.runs.request import read_run
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer
from groundup.tune.config import SoupConfig
from groundup.tune.soup import averaged, run, soup

Fresh = Callable[..., CausalLM]


@pytest.fixture
def two(tmp_path: Path, tiny_model: Any, tokenizer: Tokenizer) -> tuple[Path, Path]:
    """Two models of one shape, one with a negative zero, which must be kept."""
    for name, seed in (("a", 0), ("b", 1)):
        model = tiny_model()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.1, generator=generator)
            model.model.norm.weight[0] = -0.0
        save_model(tmp_path / name, model, tokenizer, card="")
    return tmp_path / "a", tmp_path / "b"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one.view(torch.int32) for name, one in tensors(folder).items()}


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7), (0.9, 0.1)])
def test_a_soup_is_the_plain_average_to_the_bit(
    two: tuple[Path, Path], tmp_path: Path, weights: tuple[float, float]
) -> None:
    out = run(SoupConfig(out=tmp_path / "out", models=two, weights=weights))
    a, b = map(tensors, two)
    expected = {name: weights[0] * a[name] + weights[1] * b[name] for name in a}
    found = bits(out)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert torch.equal(found[name], one.view(torch.int32)), name


@pytest.mark.parametrize(("weights", "at"), [((1.0, 0.0), 0), ((0.0, 1.0), 1)])
def test_weight_1_gives_a_model_exactly(
    two: tuple[Path, Path], tmp_path: Path, weights: tuple[float, float], at: int
) -> None:
    out = run(SoupConfig(out=tmp_path / "out", models=two, weights=weights))
    found, expected = bits(out), bits(two[at])
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (two[1 - at] / "model.safetensors").unlink()  # what has no weight is not read
    mixed, _ = soup(two, weights)
    whole = tensors(two[at])
    assert all(torch.equal(one, whole[name]) for name, one in mixed.named_parameters())


def test_an_error_is_reported_once(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = map(str, two)
    assert cli.main(["soup", a, b, "--weights", "-1", "0.5", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("error: ") == 1
    # The suggested weights are accepted.
    weights = ["--weights", "0.3", "0.6", "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert cli.main(["soup", a, b, *weights]) == 2
    weights[1:3] = capsys.readouterr().err.rpartition("try ")[2].split()
    assert weights[1:3] == ["0.333333333", "0.666666667"]
    assert cli.main(["soup", a, b, *weights]) == 0
    capsys.readouterr()
    assert cli.main(["soup", a, a, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: models={a} is named twice; name each model once\n"


def test_three_models_have_equal_weights_by_default(two: tuple[Path, Path], tmp_path: Path) -> None:
    third = run(SoupConfig(out=tmp_path / "third", models=two, weights=(0.25, 0.75)))
    out = run(SoupConfig(out=tmp_path / "out", models=(*two, third)))
    a, b, c = (tensors(one) for one in (*two, third))
    for name, one in tensors(out).items():
        torch.testing.assert_close(one, (a[name] + b[name] + c[name]) / 3)


def test_the_folder_is_a_model_and_records_its_parents(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["soup", *map(str, two), "--weights", "0.25", "0.75", "--out", str(out)]
    assert cli.main(words) == 0, capsys.readouterr().err
    found = read_run(out)
    assert [one["path"] for one in found["parents"].values()] == list(map(str, two))
    assert found["config"]["weights"] == [0.25, 0.75]
    model, tokenizer = load(out)
    assert model.config == load_model(two[0]).config and tokenizer.vocab_size > 0
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert cli.main(words) == 0  # finished before
    assert (out / "model.safetensors").stat().st_mtime_ns == written


def test_the_output_suggests_a_chat_if_the_models_can_chat(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, chat = workshop.finished("pretrain"), workshop.finished("sft")
    bare = shutil.copytree(chat, tmp_path / "from elsewhere")
    for record in (*bare.glob("run.json"), *bare.glob(".run.json*")):
        record.unlink()
    soups = {
        "talks": ([chat, bare], "Talk to it"),
        "again": ([tmp_path / "talks", chat], "Talk to it"),
        "mixed": ([chat, base], "Try it"),
    }
    for name, (models, hint) in soups.items():
        assert cli.main(["soup", *map(str, models), "--out", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith(hint), name


def test_adapters_of_one_base_are_averaged_by_their_products(
    two: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    base = two[0]
    folders = []
    for seed in (3, 4):
        model = add_lora(load_model(base), rank=4, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name or ".B" in name or parameter.requires_grad:
                    parameter.normal_(0, 0.1, generator=generator)
        folders.append(tmp_path / f"adapter-{seed}")
        save_adapted(folders[-1], model, tokenizer, card="", base=base)
    mixed, _ = soup(folders, (0.25, 0.75))
    whole = dict(load_model(base).named_parameters())
    updates = []
    for folder in folders:
        merged = dict(merge(load_model(folder), reversible=False).named_parameters())
        updates.append({name: merged[name] - whole[name] for name in whole})
    assert max(float(one.detach().abs().max()) for one in updates[0].values()) > 0.01
    for name, one in mixed.named_parameters():
        expected = whole[name] + 0.25 * updates[0][name] + 0.75 * updates[1][name]
        torch.testing.assert_close(one, expected)


def test_a_trained_head_on_a_tied_base_is_averaged(
    two: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    base, adapter, other = two[0], tmp_path / "adapter", tmp_path / "other"
    whole = load_model(base).lm_head.weight.detach()
    for folder in (adapter, other):
        model = add_lora(load_model(base), rank=4)
        modules_to_save.add(model, "default", {"lm_head.weight": whole + 1})
        save_adapted(folder, model, tokenizer, card="", base=base)
    for models, share in (((adapter, other), 1.0), ((adapter, base), 0.5), ((base, adapter), 0.5)):
        out = run(SoupConfig(out=tmp_path / f"{models[0].name}-{models[1].name}", models=models))
        mixed = load_model(out)
        torch.testing.assert_close(mixed.lm_head.weight, whole + share)
        torch.testing.assert_close(mixed.model.embed_tokens.weight, whole)


def test_other_shapes_and_tokenizers_are_rejected(
    two: tuple[Path, Path], tmp_path: Path, tiny_model: Any, tokenizer: Tokenizer
) -> None:
    model = load_model(two[0])
    other = CausalLM(replace(model.config, num_hidden_layers=model.config.num_hidden_layers + 1))
    save_model(tmp_path / "deeper", other, tokenizer, card="")
    with pytest.raises(UserError, match="num_hidden_layers"):
        soup([two[0], tmp_path / "deeper"], (0.5, 0.5))
    strange = Tokenizer.from_bpe(train_bpe(["quite another text, on and on and on"] * 4, 300))
    save_model(tmp_path / "strange", model, strange, card="")
    with pytest.raises(UserError, match="other tokens"):
        soup([two[0], tmp_path / "strange"], (0.5, 0.5))


def test_models_that_differ_in_an_added_token_are_not_averaged(
    two: tuple[Path, Path], with_token: WithToken
) -> None:
    zebra, horse = (with_token(*one) for one in zip(two, ("zebra", "horse"), strict=True))
    with pytest.raises(UserError, match="other tokens"):
        soup([zebra, horse], (0.5, 0.5))
    soup([zebra, with_token(two[1], "zebra")], (0.5, 0.5))


def test_weights_must_sum_to_one(tmp_path: Path) -> None:
    given: dict[str, Any] = {"out": tmp_path, "models": ("a", "b")}
    for wrong in ((0.5, 0.6), (0.0, 0.0), (1.0,), (0.2, 0.3, 0.5), (-0.5, 1.5)):
        with pytest.raises(ValidationError):
            SoupConfig(**given, weights=wrong)
    with pytest.raises(ValidationError, match="twice"):
        SoupConfig(out=tmp_path, models=("a", "a"))


def test_half_precision_tensors_are_summed_in_float32() -> None:
    one = {"w": torch.tensor([1.0, 256.0]).bfloat16()}
    other = {"w": torch.tensor([3.0, 2.0]).bfloat16()}
    found = averaged([one, other], (0.5, 0.5))["w"]
    assert found.dtype is torch.bfloat16 and found.tolist() == [2.0, 129.0]


def test_a_downloaded_model_is_called_by_its_name(tmp_path: Path, two: tuple[Path, Path]) -> None:
    fetched = tmp_path / "models--owner--other" / "snapshots" / "revision"
    shutil.copytree(two[1], fetched)
    described = json.loads((fetched / "config.json").read_text())
    (fetched / "config.json").write_text(json.dumps({**described, "rms_norm_eps": 0.1}))
    with pytest.raises(
        UserError, match=rf"in {two[0]} and .* in hub:owner/other@revision, and only"
    ):
        soup([two[0], fetched], [0.5, 0.5])
