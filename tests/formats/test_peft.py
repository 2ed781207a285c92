from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from groundup.adapters.attach import adapter_names, add_lora, attach, merge, unmerge, use_adapter
from groundup.adapters.layers import linear_layers
from groundup.adapters.lora import LoRA, lora_layers
from groundup.errors import UserError
from groundup.formats.locate import ADAPTER_CONFIG
from groundup.formats.peft import WEIGHTS, Origin, load_adapter, read_origin, save_adapter
from groundup.formats.peft_config import read_adapter_config
from groundup.lm.model import CausalLM
from peft_oracle import (
    base_folder,
    our_base,
    our_logits,
    their_adapter,
    their_logits,
    theirs,
)

UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
BIASED = {"attention_bias": True, "mlp_bias": True}
ALL_NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GPT2_NAMES = ["c_attn", "c_proj", "c_fc"]

# Of PEFT: the family of the base, changes of its config, and settings of the adapter.
FOLDERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("llama", {}, {}),
    "qwen3": ("qwen3", {}, {"target_modules": ALL_NAMES}),
    "qwen2": ("qwen2", {}, {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}),
    "mistral": ("mistral", {}, {"r": 3, "lora_alpha": 5}),
    "rslora": ("llama", {}, {"use_rslora": True}),
    "dora": ("qwen3", {}, {"use_dora": True}),
    "dora with biases": ("llama", BIASED, {"use_dora": True, "target_modules": ALL_NAMES}),
    "all-linear": ("llama", UNTIED, {"target_modules": "all-linear"}),
    "regex": ("llama", {}, {"target_modules": r".*\.1\.(mlp|self_attn)\.(up|q)_proj"}),
    "excluded": ("llama", {}, {"target_modules": ALL_NAMES, "exclude_modules": ["mlp.up_proj"]}),
    "excluded regex": ("llama", {}, {"target_modules": ALL_NAMES, "exclude_modules": r".*\.0\..*"}),
    "one layer": ("llama", {}, {"layers_to_transform": 1}),
    "layers": (
        "llama",
        {},
        {"layers_to_transform": [0], "layers_pattern": "layers", "target_modules": ["up_proj"]},
    ),
    "no name of a list of layers": (
        "llama",
        {},
        {"layers_to_transform": [0], "layers_pattern": "", "target_modules": ["up_proj"]},
    ),
    "ranks and alphas": (
        "llama",
        {},
        {
            "target_modules": ALL_NAMES,
            "rank_pattern": {"q_proj": 2, r"model\.layers\.1\.mlp\..*": 6, "^model.layers.0": 1},
            "alpha_pattern": {"layers.0.mlp.up_proj": 3, ".*k_proj": 8, "proj": 99},
            "use_rslora": True,
        },
    ),
    "a rank beyond the matrix": ("llama", {}, {"r": 40}),
    "head": ("llama", UNTIED, {"modules_to_save": ["lm_head"]}),
    "head of a tied model": ("llama", TIED, {"modules_to_save": ["lm_head"]}),
    "embeddings": ("llama", UNTIED, {"modules_to_save": ["embed_tokens"]}),
    "embeddings of a tied model": ("llama", TIED, {"modules_to_save": ["embed_tokens"]}),
    "both of a tied model": ("llama", TIED, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "tied embeddings": (
        "llama",
        TIED,
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "norms": ("qwen3", {}, {"modules_to_save": ["norm"]}),
    "a part": ("llama", BIASED, {"modules_to_save": ["mlp"], "target_modules": ALL_NAMES}),
    "all biases": ("qwen2", {}, {"bias": "all"}),
    "biases beside lora": ("llama", BIASED, {"bias": "lora_only"}),
    "biases of what is replaced": ("llama", BIASED, {"bias": "all", "modules_to_save": ["v_proj"]}),
    "biases of a part that is replaced": (
        "llama",
        BIASED,
        {"bias": "all", "modules_to_save": ["mlp"], "target_modules": ["q_proj"]},
    ),
    "no biases to train": ("llama", {}, {"bias": "all"}),
    "gpt2": ("gpt2", {}, {"target_modules": ["c_attn"]}),
    "gpt2 all-linear": ("gpt2", {}, {"target_modules": "all-linear", "fan_in_fan_out": True}),
    "gpt2 regex": ("gpt2", {}, {"target_modules": r".*\.h\.1\..*c_(attn|proj)", "r": 3}),
    "gpt2 rslora": (
        "gpt2",
        {},
        {"target_modules": GPT2_NAMES, "use_rslora": True, "rank_pattern": {"attn.c_attn": 6}},
    ),
    "gpt2 dora": ("gpt2", {}, {"target_modules": GPT2_NAMES, "use_dora": True}),
    "gpt2 one layer": (
        "gpt2",
        {},
        {"target_modules": GPT2_NAMES, "layers_to_transform": [1], "layers_pattern": "h"},
    ),
    "gpt2 biases": ("gpt2", {}, {"target_modules": GPT2_NAMES, "bias": "lora_only"}),
    "gpt2 all biases": ("gpt2", {}, {"target_modules": ["c_fc"], "bias": "all"}),
    "gpt2 a matrix": ("gpt2", {}, {"target_modules": ["c_fc"], "modules_to_save": ["c_attn"]}),
    "gpt2 embeddings": (
        "gpt2",
        {},
        {"target_modules": ["c_attn"], "modules_to_save": ["wte", "wpe", "ln_f", "lm_head"]},
    ),
    "gaussian": ("llama", {}, {"init_lora_weights": "gaussian"}),
    "orthogonal": ("llama", {}, {"init_lora_weights": "orthogonal"}),
    "eva": ("llama", {}, {"init_lora_weights": "eva", "eva_config": peft.tuners.lora.EvaConfig()}),
}


def reloaded(base: Path, adapter: Path) -> Any:
    """PEFT's model after loading."""
    return peft.PeftModel.from_pretrained(theirs(base), adapter).eval()


@pytest.mark.every(2)
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.filterwarnings("ignore:.*tie")
def test_an_adapter_of_peft_gives_pefts_logits(name: str, tmp_path: Path) -> None:
    """Loaded; merged; and once more after we have saved it and PEFT has loaded that."""
    kind, changes, settings = FOLDERS[name]
    base = base_folder(tmp_path / "base", kind, **changes)
    their_adapter(base, **settings).save_pretrained(tmp_path / "theirs")
    expected = their_logits(reloaded(base, tmp_path / "theirs"))
    ours = our_base(base)
    plain = our_logits(ours)
    load_adapter(ours, tmp_path / "theirs")
    assert_close(our_logits(ours), expected, rtol=1e-5, atol=1e-5)
    assert (our_logits(ours) - plain).abs().max() > 0.01

    save_adapter(tmp_path / "ours", ours, base=base)
    again = our_base(base)
    load_adapter(again, tmp_path / "ours", name="other")
    assert torch.equal(our_logits(again), our_logits(ours))
    assert_close(their_logits(reloaded(base, tmp_path / "ours")), expected, rtol=1e-5, atol=1e-5)

    use_adapter(ours, None)
    assert torch.equal(our_logits(ours), plain)
    use_adapter(ours, "default")
    merge(ours)
    assert ours.state_dict().keys() == our_base(base).state_dict().keys()
    assert_close(our_logits(ours), expected, rtol=1e-5, atol=1e-5)
    unmerge(ours)
    use_adapter(ours, None)
    assert torch.equal(our_logits(ours), plain)


@pytest.mark.parametrize("changes", [UNTIED, TIED])
@pytest.mark.filterwarnings("ignore:.*tie")
def test_a_replaced_layer_that_is_also_saved_is_read_once(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    base = base_folder(tmp_path / "base", "llama", **changes)
    model = their_adapter(base, modules_to_save=["embed_tokens", "lm_head"])
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    assert any("original_module" in key for key in load_file(tmp_path / "theirs" / WEIGHTS))
    load_adapter(ours := our_base(base), tmp_path / "theirs")
    assert_close(our_logits(ours), their_logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.filterwarnings("ignore:.*tie")
def test_embeddings_that_peft_saves_with_an_adapter_are_read(tied: bool, tmp_path: Path) -> None:
    """The config does not mention them."""
    base = base_folder(tmp_path / "base", "llama", tie_word_embeddings=tied)
    model = their_adapter(base)
    with torch.no_grad():
        model.get_input_embeddings().weight *= 1.5
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    expected = their_logits(reloaded(base, tmp_path / "theirs"))
    assert_close(expected, their_logits(model))
    ours = our_base(base)
    load_adapter(ours, tmp_path / "theirs")
    assert_close(our_logits(ours), expected, rtol=1e-5, atol=1e-5)
    save_adapter(tmp_path / "ours", ours, base=base)
    assert_close(their_logits(reloaded(base, tmp_path / "ours")), expected, rtol=1e-5, atol=1e-5)
    stored(lambda t: t.pop("base_model.model.lm_head.weight"))(tmp_path / "theirs")
    if tied:
        with pytest.raises(UserError, match=r"lacks lm_head\.weight"):
            load_adapter(our_base(base), tmp_path / "theirs")
    else:
        load_adapter(again := our_base(base), tmp_path / "theirs")
        assert_close(our_logits(again), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whole", [None, ["embed_tokens", "lm_head"]])
def test_another_number_of_tokens_is_reported_with_both_numbers(
    whole: list[str] | None, tmp_path: Path
) -> None:
    base = base_folder(tmp_path / "base", **UNTIED)
    model = theirs(base)
    model.resize_token_embeddings(100)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=whole)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(UserError, match=r"has 100 rows, .* must have 96: .* merge the adapter"):
        load_adapter(our_base(base), tmp_path / "theirs")


# Ours.


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_folder(tmp_path_factory.mktemp("base"), "qwen3")


def ours(base: Path, seed: int = 2, **settings: Any) -> CausalLM:
    model = add_lora(our_base(base), **({"rank": 4, "alpha": 6.0} | settings))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize(
    "settings",
    [{}, {"targets": ["q_proj"], "use_rslora": True}, {"use_dora": True, "dropout": 0.1}],
    ids=["plain", "rslora", "dora"],
)
def test_peft_reads_ours_without_warnings(
    settings: dict[str, Any], base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ours(base, **settings)
    save_adapter(
        tmp_path,
        model,
        base=base,
        base_sha256="ab" * 32,
        quantization={"kind": "nf4", "block_size": 64, "double_quant": True},
    )
    plain = theirs(base)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        # PEFT's own, about a name in transformers.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        read = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
        config = peft.PeftConfig.from_pretrained(tmp_path)
    assert [record.getMessage() for record in caplog.records] == []
    assert_close(their_logits(read), our_logits(model), rtol=1e-5, atol=1e-5)
    assert config.base_model_name_or_path == str(base)
    assert sorted(config.target_modules) == sorted(settings.get("targets", ALL_NAMES))
    if "use_dora" not in settings:  # which transformers alone reads wrongly, also of PEFT
        native = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert_close(their_logits(native), our_logits(model), rtol=1e-5, atol=1e-5)


def test_saved_files_of_an_adapter(base: Path, tmp_path: Path) -> None:
    model = add_lora(ours(base), 2, 3.5, targets=["v_proj"], name="other")
    said = {"kind": "nf4", "block_size": 64, "double_quant": True}
    save_adapter(
        tmp_path / "a", model, name="other", base=base, base_sha256="12", quantization=said
    )
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [ADAPTER_CONFIG, WEIGHTS]
    config = json.loads((tmp_path / "a" / ADAPTER_CONFIG).read_text())
    assert config["peft_type"] == "LORA" and config["task_type"] == "CAUSAL_LM"
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 3.5, ["v_proj"])
    assert config["base_model_name_or_path"] == str(base)
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    assert {name.rpartition("v_proj.")[2] for name in tensors} == {"lora_A.weight", "lora_B.weight"}
    assert read_origin(tmp_path / "a") == Origin(os.path.relpath(base, tmp_path / "a"), "12", said)
    with safe_open(tmp_path / "a" / WEIGHTS, "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["quantisation"])["double_quantisation"] is True
    save_adapter(tmp_path / "b", model, base="hub:owner/name")
    assert read_origin(tmp_path / "b") == Origin("hub:owner/name", None, None)
    assert read_adapter_config(tmp_path / "b").base == "owner/name"
    save_adapter(tmp_path / "c", model, base="hub:owner/name@v1")
    assert read_origin(tmp_path / "c") == Origin("hub:owner/name@v1", None, None)
    described = json.loads((tmp_path / "c" / ADAPTER_CONFIG).read_text())
    assert (described["base_model_name_or_path"], described["revision"]) == ("owner/name", "v1")


@settings(max_examples=12, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 5), min_size=14, max_size=14),
    alphas=st.lists(st.sampled_from([1, 2.5, 8]), min_size=14, max_size=14),
    some=st.sets(st.integers(0, 13), min_size=1),
    dora=st.booleans(),
)
def test_saving_a_loaded_adapter_gives_the_same_bytes(
    ranks: list[int],
    alphas: list[float],
    some: set[int],
    dora: bool,
    base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """For any ranks and alphas of the layers, and any layers with an adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    model = our_base(base)
    paths = list(linear_layers(model))
    loras = {paths[i]: LoRA(ranks[i], alphas[i], 0.0, False, dora) for i in sorted(some)}
    attach(model, loras)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    save_adapter(folder / "one", model, base=base, base_sha256="12", quantization={"kind": "nf4"})
    again = our_base(base)
    load_adapter(again, folder / "one")
    assert {path: layer.adapters["default"] for path, layer in lora_layers(again).items()} == loras
    save_adapter(folder / "two", again, base=base, base_sha256="12", quantization={"kind": "nf4"})
    for name in (ADAPTER_CONFIG, WEIGHTS):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    described = peft.PeftConfig.from_pretrained(folder / "one")
    peft_model = peft.PeftModel.from_pretrained(theirs(base), folder / "one", config=described)
    assert_close(their_logits(peft_model.eval()), our_logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"targets": ["q_proj", "v_proj", "down_proj"], "use_rslora": True},
        {"targets": ["k_proj", "o_proj"], "use_dora": True},
    ],
    ids=["all", "rslora of two parts", "dora of one part"],
)
def test_queries_keys_and_values_of_gpt2_are_one_layer_in_the_file(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """For any of the three with an adapter, each with its own A; further training does not increase
    the file's rank."""
    base = base_folder(tmp_path / "base", "gpt2")
    model = ours(base, **settings)
    for name in ("one", "two"):
        save_adapter(tmp_path / name, model, base=base)
        read = reloaded(base, tmp_path / name)
        assert_close(their_logits(read), our_logits(model), rtol=1e-5, atol=1e-5)
        assert_close(our_logits(model), their_logits(read.merge_and_unload()), rtol=1e-5, atol=1e-5)
        load_adapter(again := our_base(base), tmp_path / name)
        assert_close(our_logits(again), our_logits(model), rtol=1e-5, atol=1e-5)
        ranks = {path: layer.adapters["default"].rank for path, layer in lora_layers(again).items()}
        assert "use_dora" in settings or set(ranks.values()) == {4}
        model = again
        for number, parameter in enumerate(model.parameters()):
            if parameter.requires_grad:
                parameter.data *= 1 + number / 100
    tensors = load_file(tmp_path / "two" / WEIGHTS)
    assert all(key.startswith("base_model.model.transformer.h.") for key in tensors)
    assert peft.PeftConfig.from_pretrained(tmp_path / "two").fan_in_fan_out


def test_several_adapters_with_their_own_parameters(tmp_path: Path) -> None:
    """A trained bias belongs to its adapter, also where another adapter wraps the layer later."""
    base = base_folder(tmp_path / "base", "llama", **BIASED, **TIED)
    ways = {
        "a": {"bias": "all", "target_modules": ["q_proj"]},
        "b": {"modules_to_save": ["lm_head", "norm"], "target_modules": ALL_NAMES[:6]},
        "c": {"target_modules": ["v_proj"]},
    }
    both = our_base(base)
    plain, expected = our_logits(both), {}
    for seed, (name, way) in enumerate(ways.items()):
        their_adapter(base, seed, **way).save_pretrained(tmp_path / name)
        alone = our_base(base)
        load_adapter(alone, tmp_path / name)
        expected[name] = our_logits(alone)
        load_adapter(both, tmp_path / name, name=name)
    assert adapter_names(both) == list(ways)
    for name in ("a", "b", None, "c", "a"):
        use_adapter(both, name)
        assert torch.equal(our_logits(both), plain if name is None else expected[name])
    for name in ways:
        save_adapter(tmp_path / "ours" / name, both, name=name, base=base)
        again = our_base(base)
        load_adapter(again, tmp_path / "ours" / name)
        assert torch.equal(our_logits(again), expected[name])


def test_a_killed_save_leaves_no_config(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ours(base)
    save_adapter(tmp_path, model, base=base)
    before = (tmp_path / WEIGHTS).read_bytes()
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == ADAPTER_CONFIG:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(tmp_path, ours(base, seed=5), base=base)
    assert (tmp_path / WEIGHTS).read_bytes() != before
    with pytest.raises(UserError, match=r"has no adapter_config.json"):
        load_adapter(our_base(base), tmp_path)


# Rejected files.


def described(**changes: Any) -> Callable[[Path], None]:
    """Change words of adapter_config.json."""

    def change(folder: Path) -> None:
        path = folder / ADAPTER_CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def stored(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors."""

    def changed(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return changed


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (
        lambda f: (f / ADAPTER_CONFIG).unlink(),
        r"has no adapter_config.json, so it holds no adapter",
    ),
    "no JSON": (lambda f: (f / ADAPTER_CONFIG).write_text("{"), r"is not JSON"),
    "another kind": (
        described(peft_type="IA3"),
        r"peft_type 'IA3' is not supported; only LORA is",
    ),
    "no kind": (described(peft_type=None), r"peft_type None is not supported"),
    "no targets": (described(target_modules=None), r"names no target_modules"),
    "an empty list": (described(target_modules=[]), r"names no target_modules"),
    "targets of numbers": (described(target_modules=[1]), r"target_modules=\[1\], which must be a"),
    "unknown targets": (
        described(target_modules=["c_attn"]),
        r"changes \('c_attn',\), but the model has no linear layer of that name; it has q_proj, ",
    ),
    "head": (
        described(target_modules=["q_proj", "lm_head"]),
        r"changes lm_head, and here adapters change linear layers of the blocks; .*modules_to_save",
    ),
    "rank": (described(r=0), r"says r=0, which must be a whole number from 1"),
    "rank of another type": (described(r="8"), r"says r='8', which must be"),
    "rank that is true": (described(r=True), r"says r=True, which must be"),
    "alpha": (described(lora_alpha="x"), r"lora_alpha='x', which must be a number"),
    "a huge alpha": (described(lora_alpha=10**400), r"lora_alpha=1000.*…, which must be a number"),
    "dropout": (described(lora_dropout=1), r"lora_dropout=1, which must be a number from 0 to"),
    "bias": (described(bias="some"), r"bias='some', which must be none, all or lora_only"),
    "a flag": (described(use_rslora="yes"), r"use_rslora='yes', which must be true or false"),
    "a pattern": (described(rank_pattern={"q": 0}), r"rank_pattern=\{'q': 0\}, which must give a"),
    "layers": (described(layers_to_transform=["0"]), r"layers_to_transform=\['0'\], which must be"),
    "base": (described(base_model_name_or_path=3), r"base_model_name_or_path=3, which must be"),
    "turned matrices": (described(fan_in_fan_out=True), r"fan_in_fan_out=True, which is not supp"),
    "pissa": (
        described(init_lora_weights="pissa_niter_4"),
        r"init_lora_weights='pissa_niter_4', which changes the base before training.*convers",
    ),
    **{
        name: (described(**{name: value}), rf"says {name}=.*, which is not supported; merge it")
        for name, value in {
            "use_qalora": True,
            "lora_bias": True,
            "layer_replication": [[0, 2]],
            "trainable_token_indices": [1, 2],
            "target_parameters": ["experts"],
            "loftq_config": {"loftq_bits": 4},
            "corda_config": {"x": 1},
            "alora_invocation_tokens": [1],
            "use_bdlora": {"x": 1},
            "arrow_config": {"x": 1},
            "velora_config": {"x": 1},
            "monteclora_config": {"x": 1},
            "kasa_config": {"x": 1},
            "megatron_config": {"x": 1},
            "a_setting_of_tomorrow": True,
        }.items()
    },
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"has no adapter_model.safetensors; download"),
    "a pickle": (
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"),
        r"adapter_model.bin is a pickle, which can run any code.*save it again",
    ),
    "damaged": (lambda f: (f / WEIGHTS).write_bytes(b"\0" * 50), r"safetensors is damaged"),
    "an unknown tensor": (
        stored(lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.ones(2)})),
        r"tensor base_model.model.lm_head.lora_A.weight is not part of the adapter",
    ),
    "the name of an adapter": (
        stored(lambda t: t.update({KEY.replace("A.", "A.default."): t.pop(KEY)})),
        r"lora_A.default.weight is not part of the adapter",
    ),
    "a missing tensor": (
        stored(lambda t: t.pop(KEY)),
        r"lacks model.layers.0.self_attn.q_proj.lora_A.weight, which adapter_config.json requires",
    ),
    "another shape": (
        stored(lambda t: t.update({KEY: t[KEY][:, :-1].contiguous()})),
        rf"{KEY} has shape \[4, 31\], but on this model it must have \[4, 32\]",
    ),
    "another type": (
        stored(lambda t: t.update({KEY: t[KEY].to(torch.int8)})),
        r"is of type I8, but adapters are read as F64, F32, F16, BF16",
    ),
    "not a number": (
        stored(lambda t: t[KEY].view(-1)[3].fill_(torch.nan)),
        rf"{KEY} has numbers that are not finite",
    ),
    "another rank": (described(r=5), r"lora_A.weight has shape \[4, ..\], .* must have \[5, ..\]"),
    "more in the config": (described(use_dora=True), r"lacks .*lora_magnitude_vector and 13 more"),
    "less in the config": (described(target_modules=["k_proj"]), r"is not part of the adapter"),
    "more to save": (described(modules_to_save=["lm_head"]), r"lacks (model.embed_tok|lm_head)"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_rejected_files_do_not_change_the_model(what: str, base: Path, tmp_path: Path) -> None:
    damage, message = BAD[what]
    save_adapter(tmp_path, ours(base), base=base)
    damage(tmp_path)
    model = our_base(base)
    names = list(model.state_dict())
    with pytest.raises(UserError, match=message) as failure:
        load_adapter(model, tmp_path)
    assert "\n" not in str(failure.value)
    assert list(model.state_dict()) == names and not adapter_names(model)


def test_another_base_is_rejected(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_adapter(tmp_path, ours(base), base=base, base_sha256="a" * 64)
    with pytest.raises(UserError, match=r"trained on another model.*aaaaaaaaaaaa….*bbbb"):
        load_adapter(our_base(base), tmp_path, base_sha256="b" * 64)
    monkeypatch.chdir(base.parent)
    with pytest.raises(UserError, match=rf"that it was trained on: {base.name}$"):
        load_adapter(our_base(base), tmp_path, base_sha256="b" * 64)
    load_adapter(our_base(base), tmp_path, base_sha256="a" * 64)
    load_adapter(our_base(base), tmp_path)  # this base is unknown
    save_adapter(tmp_path, ours(base))
    load_adapter(our_base(base), tmp_path, base_sha256="b" * 64)  # a folder as PEFT writes it


def test_an_adapter_name_that_exists_is_rejected(base: Path, tmp_path: Path) -> None:
    model = ours(base)
    save_adapter(tmp_path, model, base=base)
    with pytest.raises(UserError, match=r"already has an adapter called 'default'"):
        load_adapter(model, tmp_path)
    with pytest.raises(UserError, match=r"no adapter called 'x'; it has default"):
        save_adapter(tmp_path, model, name="x")
