"""GGUF files: llama.cpp's logits for ours, and the `gguf` package's values for any file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType, quants

from gguf_files import F32, STRING, Value, header_of
from groundup.data.packs.fetch import pull_model
from groundup.errors import UserError
from groundup.formats.compare import compared_with_gguf
from groundup.formats.folder import save_model
from groundup.formats.gguf import tensors as gguf_tensors
from groundup.formats.gguf.header import TENSOR_TYPES, read_gguf_header
from groundup.formats.gguf.model import read_gguf
from groundup.formats.gguf.settings import frequency_factors
from groundup.formats.gguf.tensors import (
    as_halves,
    interleaved,
    read_tensor,
    rotated_heads,
    stored_in_gguf,
)
from groundup.formats.gguf.write import GGUF_TYPES, save_gguf
from groundup.formats.hf_config import config_to_hf
from groundup.formats.load import load, load_model
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig, Rope, yarn_scale
from groundup.lm.model import Attention, CausalLM
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from llama_cpp import llama_cpp

Logits = npt.NDArray[np.float32]
MakeModel = Callable[..., CausalLM]

IDS = [0, 5, 7, 100, 200, 299, 3, 4, 8, 11, 44, 250] * 4
YARN = Rope(type="yarn", factor=4.0, original_max_position_embeddings=16)
# Everything that an architecture may be: bias, tied or not, stretched positions, windows.
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3 untied": {"tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "attention_bias": True},
    "qwen2 yarn": {
        "model_type": "qwen2",
        "attention_bias": True,
        "rope": replace(YARN, attention_factor=yarn_scale(4.0)),
    },
    "llama": {"model_type": "llama"},
    "llama biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama linear": {"model_type": "llama", "rope": Rope(type="linear", factor=4.0)},
    "llama yarn": {
        "model_type": "llama",
        "rope": replace(YARN, attention_factor=1.3),
    },
    "llama 3": {
        "model_type": "llama",
        "rope": Rope(5e5, "llama3", factor=8.0, original_max_position_embeddings=32),
    },
    "mistral": {"model_type": "mistral", "sliding_window": 48, "max_position_embeddings": 48},
    "gpt2": {
        "model_type": "gpt2",
        "attention_bias": True,
        "mlp_bias": True,
        "hidden_act": "gelu_new",
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
    },
}
# llama.cpp looks GELU up in a table of float16.
TOLERANCE = {"gpt2": 1e-2}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tiny_model: MakeModel) -> CausalLM:
    return tiny_model(**MODELS[request.param])


def logits(model: CausalLM, ids: list[int]) -> Logits:
    row = torch.tensor([ids])
    weights = torch.ones_like(row, dtype=torch.float32)
    batch = Batch(row, row, weights, torch.arange(len(ids))[None], torch.zeros_like(row))
    with torch.no_grad():
        found: Logits = model.float().logits(batch)[0].numpy()
    return found


def llama_cpps(path: Path, ids: list[int]) -> Logits:
    with llama_cpp(path) as theirs:
        return theirs.logits(ids)


# There and back.


def test_f32_round_trips_bit_for_bit(model: CausalLM, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    back, words = load(tmp_path / "a.gguf")
    assert back.config == model.config
    assert words.content == tokenizer.content
    expected = dict(model.named_parameters())
    assert {name for name, _ in back.named_parameters()} == set(expected)
    for name, parameter in back.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    assert (back.head is back.model.embed_tokens.weight) == model.config.tie_word_embeddings
    save_gguf(tmp_path / "b.gguf", back, words, "f32", name="a")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_llama_cpp_computes_the_same_logits(
    model: CausalLM, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    theirs = llama_cpps(tmp_path / "a.gguf", IDS)
    tolerance = TOLERANCE.get(model.config.model_type, 1e-4)
    np.testing.assert_allclose(logits(model, IDS), theirs, atol=tolerance, rtol=0)


WRITTEN_BY_US = [type for type in GGUF_TYPES if "_k" not in type]
# llama.cpp rounds what flows between the weights, too: to 11, 8 or (in blocks) 8 bits. Of random
# weights this tiny much is left to see.
ROUNDED = {"f32": 1e-3, "f16": 0.01, "bf16": 0.04}


@pytest.mark.parametrize("type", WRITTEN_BY_US)
@pytest.mark.parametrize("kind", ["qwen3", "llama", "qwen2", "gpt2"])
def test_every_type_equals_the_gguf_package_and_is_close_to_llama_cpp(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, kind: str, type: str
) -> None:
    model = tiny_model(**MODELS[kind])
    path = tmp_path / "a.gguf"
    save_gguf(path, model, tokenizer, type)
    for tensor in gguf.GGUFReader(path).tensors:
        whole = [
            interleaved(parameter.detach(), heads) if heads else parameter.detach()
            for name, parameter in model.named_parameters()
            if stored_in_gguf(model.config.model_type, name).name == tensor.name
            for heads in [rotated_heads(model.config, name)]
        ]
        expected = quants.quantize(torch.cat(whole).numpy(), tensor.tensor_type)
        assert tensor.data.tobytes() == expected.tobytes(), tensor.name
        matrix = len(tensor.shape) == 2 and tensor.name != "position_embd.weight"
        finer = type[:2] in ("q4", "q5") and tensor.name == "token_embd.weight"
        wanted = "Q8_0" if finer else type.upper() if matrix else "F32"
        assert tensor.tensor_type.name == wanted, tensor.name
    found = read_gguf(path)
    dtypes = {"f16": torch.float16, "bf16": torch.bfloat16}
    assert found.dtype == dtypes.get(type, torch.float32)
    theirs, ours = llama_cpps(path, IDS), logits(load_model(path), IDS)
    assert np.linalg.norm(theirs - ours) / np.linalg.norm(theirs) < ROUNDED.get(type, 0.06)


@pytest.mark.parametrize("type", [type for type in GGUF_TYPES if "_k" in type])
def test_mixed_types_equal_llama_cpps_and_are_read_back(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, type: str
) -> None:
    """A quarter of the columns are whole blocks of 256, so that formats are really mixed."""
    model = tiny_model(hidden_size=256, intermediate_size=512)
    path = tmp_path / "a.gguf"
    save_gguf(path, model, tokenizer, type)
    assert [one.name for one in tmp_path.iterdir()] == ["a.gguf"]
    types = {tensor.type.name for tensor in read_gguf_header(path).tensors.values()}
    assert any(one.endswith("_K") for one in types)
    checks = compared_with_gguf(model, tokenizer, path)
    assert {check.status for check in checks} == {"same"}, checks
    theirs, ours = llama_cpps(path, IDS), logits(load_model(path), IDS)
    assert np.linalg.norm(theirs - ours) / np.linalg.norm(theirs) < 0.06


def test_without_llama_cpps_binding_the_remedy_is_named(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_tensors, "BINDING", "no_such_binding")
    with pytest.raises(UserError, match=r"llama-cpp.*llama-quantize"):
        save_gguf(tmp_path / "a.gguf", tiny_model(), tokenizer, "q4_k_m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("type", ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1"])
def test_rows_without_whole_blocks_become_f16(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, type: str
) -> None:
    model = tiny_model(intermediate_size=40)
    save_gguf(tmp_path / "a.gguf", model, tokenizer, type)
    tensors = read_gguf_header(tmp_path / "a.gguf").tensors
    assert tensors["blk.0.ffn_down.weight"].type.name == "F16"
    assert tensors["blk.0.ffn_up.weight"].type.name == type.upper()
    llama_cpps(tmp_path / "a.gguf", IDS)


def transformers_logits(path: Path, config: ModelConfig, ids: list[int]) -> Logits:
    """By transformers' GGUF reader; its models load such files only with `accelerate`."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config_to_hf(config)))
    found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=theirs)
    missing, unknown = theirs.load_state_dict(found["tensors"], strict=False)
    assert not unknown and set(missing) <= {"lm_head.weight"}, (missing, unknown)
    with torch.no_grad():
        logits: Logits = theirs.eval().float()(torch.tensor([ids])).logits[0].numpy()
    return logits


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2"])
def test_transformers_reads_the_same_model(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, kind: str
) -> None:
    model = tiny_model(**MODELS[kind])
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    expected = transformers_logits(tmp_path / "a.gguf", model.config, IDS)
    np.testing.assert_allclose(logits(model, IDS), expected, atol=1e-4, rtol=0)


def test_llama_cpp_stops_at_the_end_of_a_turn(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_gguf(tmp_path / "a.gguf", tiny_model(), tokenizer)
    with llama_cpp(tmp_path / "a.gguf") as theirs:
        assert theirs.stops_at(tokenizer.im_end) and theirs.stops_at(tokenizer.end_of_text)
        assert not theirs.stops_at(tokenizer.im_start)


# Numbers.


def block_bytes(kind: GGMLQuantizationType, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Rows of that type: quantized where the `gguf` package can, else random bytes."""
    draw = np.random.default_rng(kind.value)
    values = draw.normal(size=(rows, columns)).astype(np.float32)
    try:
        return quants.quantize(values, kind).view(np.uint8)
    except NotImplementedError:
        shape = quants.quant_shape_to_byte_shape((rows, columns), kind)
        return draw.integers(0, 256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", TENSOR_TYPES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of bytes by chance
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_every_type_equals_the_gguf_package(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    data = block_bytes(kind, 40, 512)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("other", np.ones(3, np.float32))
    writer.add_tensor("a", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf_header(tmp_path / "a.gguf")
    ours = read_tensor(file, file.tensors["a"])
    expected = quants.dequantize(data, kind)
    assert ours.shape == (40, 512)
    assert ours.float().numpy().tobytes() == expected.tobytes()


def test_rows_are_permuted_as_llama_cpps_converter_does() -> None:
    rows = torch.arange(4 * 6 * 3.0).reshape(24, 3)
    theirs = rows.reshape(4, 2, 3, 3).swapaxes(1, 2).reshape(24, 3)  # LlamaModel.permute
    assert torch.equal(interleaved(rows, 4), theirs)
    assert torch.equal(as_halves(interleaved(rows, 4), 4), rows)
    assert torch.equal(as_halves(interleaved(rows[:, 0], 4), 4), rows[:, 0])


def test_integer_tensors_are_not_copied(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_gguf(tmp_path / "a.gguf", tiny_model(), tokenizer, "f32")
    found = read_gguf(tmp_path / "a.gguf")
    stored = found.file.stored_bytes(found.file.tensors["blk.0.ffn_up.weight"])
    ours = found.state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert ours.data_ptr() == stored.ctypes.data


# RoPE.


def converters_factors(
    base: float, dim: int, factor: float, low: float, high: float, original: int
) -> list[float]:
    """`rope_freqs.weight` after llama.cpp's convert_hf_to_gguf.py."""
    factors = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * base ** (i / dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


@pytest.mark.parametrize(
    ("base", "dim", "factor", "low", "high", "original"),
    [
        (5e5, 128, 8.0, 1.0, 4.0, 8192),  # Llama 3.1
        (5e5, 64, 32.0, 1.0, 4.0, 8192),  # Llama 3.2 1B
        (1e4, 64, 16.0, 1.0, 8.0, 2048),
    ],
)
def test_llama3s_settings_are_derived_from_its_factors(
    tiny_model: MakeModel,
    tokenizer: Tokenizer,
    tmp_path: Path,
    base: float,
    dim: int,
    factor: float,
    low: float,
    high: float,
    original: int,
) -> None:
    rope = Rope(base, "llama3", factor, low, high, original)
    expected = converters_factors(base, dim, factor, low, high, original)
    np.testing.assert_allclose(frequency_factors(rope, dim), expected, rtol=1e-5)
    model = tiny_model(model_type="llama", head_dim=dim, rope=rope)
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    # As llama.cpp's converter leaves it: the tensor, and no word of the settings.
    header = header_of(read_gguf_header(tmp_path / "a.gguf"))
    written = ("llama3_factor", "low_freq_factor", "high_freq_factor", "original_context_length")
    for name in written:
        header = header.changed(f"llama.rope.scaling.{name}", None)
    (tmp_path / "b.gguf").write_bytes(header.to_bytes())
    found = read_gguf(tmp_path / "b.gguf").config.rope
    assert (found.type, found.theta, found.factor) == ("llama3", base, factor)
    np.testing.assert_allclose(frequency_factors(found, dim), expected, rtol=1e-4)


def test_llama3s_factor_is_read_where_no_pair_has_it_fully(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rope = Rope(1e4, "llama3", 8.0, 0.25, 4.0, 8192)
    factors = frequency_factors(rope, 16)
    np.testing.assert_allclose(factors, converters_factors(1e4, 16, 8.0, 0.25, 4.0, 8192), 1e-5)
    assert 1.0 < factors.max() < 7.0, "the tensor alone does not tell the factor"
    model = tiny_model(model_type="llama", head_dim=16, rope=rope)
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    assert read_gguf(tmp_path / "a.gguf").config.rope == rope
    # llama.cpp uses only the tensor, whatever else the file says.
    np.testing.assert_allclose(
        llama_cpps(tmp_path / "a.gguf", IDS), logits(model, IDS), atol=1e-4, rtol=0
    )


def test_llama3s_factor_is_derived_for_files_without_it(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """As written by earlier versions, with bounds that no fit finds."""
    rope = Rope(5e5, "llama3", 8.0, 0.5, 4.0, 32)
    model = tiny_model(model_type="llama", rope=rope)
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    header = header_of(read_gguf_header(tmp_path / "a.gguf"))
    header = header.changed("llama.rope.scaling.llama3_factor", None)
    (tmp_path / "b.gguf").write_bytes(header.to_bytes())
    assert read_gguf(tmp_path / "b.gguf").config.rope == rope


def test_yarns_bounds_are_read_from_the_file(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_gguf(tmp_path / "a.gguf", tiny_model(**MODELS["llama yarn"]), tokenizer, "f32")
    header = header_of(read_gguf_header(tmp_path / "a.gguf"))
    for name, value in (("fast", 16.0), ("slow", 2.0)):
        header = header.changed(f"llama.rope.scaling.yarn_beta_{name}", Value(F32, value))
    (tmp_path / "b.gguf").write_bytes(header.to_bytes())
    found = read_gguf(tmp_path / "b.gguf").config.rope
    assert found == replace(MODELS["llama yarn"]["rope"], beta_fast=16.0, beta_slow=2.0)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -1.0, 7.0])
def test_other_factors_are_rejected(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, value: float
) -> None:
    save_gguf(tmp_path / "a.gguf", tiny_model(**MODELS["llama 3"]), tokenizer, "f32")
    file = read_gguf_header(tmp_path / "a.gguf")
    start = file.tensors["rope_freqs.weight"].start
    whole = bytearray(file.path.read_bytes())
    whole[start + 8 : start + 12] = np.float32(value).tobytes()
    (tmp_path / "b.gguf").write_bytes(whole)
    with pytest.raises(UserError, match="is not Llama 3's"):
        read_gguf(tmp_path / "b.gguf")


LINEAR = {"type": Value(STRING, "linear"), "factor": Value(F32, 4.0)}
YARNED = {"type": Value(STRING, "yarn"), "factor": Value(F32, 4.0)}
MORE = {"attn_factor": Value(F32, 1.5)}


def scaled_file(folder: Path, model: CausalLM, tokenizer: Tokenizer, **entries: Value) -> Path:
    """A file of the model with these rope.scaling entries."""
    save_gguf(folder / "a.gguf", model, tokenizer, "f32")
    header = header_of(read_gguf_header(folder / "a.gguf"))
    for name, value in entries.items():
        header = header.changed(f"llama.rope.scaling.{name}", value)
    (folder / "b.gguf").write_bytes(header.to_bytes())
    return folder / "b.gguf"


@pytest.mark.parametrize("scaling", [LINEAR, YARNED, {**YARNED, **MORE}, {}])
def test_factors_of_one_keep_the_scaling_of_the_entries(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, scaling: dict[str, Value]
) -> None:
    model = tiny_model(**MODELS["llama 3"])
    file = scaled_file(tmp_path, model, tokenizer, **scaling)
    tensor = read_gguf_header(file).tensors["rope_freqs.weight"]
    ones, whole = np.ones(tensor.shape, np.float32).tobytes(), bytearray(file.read_bytes())
    whole[tensor.start : tensor.start + len(ones)] = ones
    file.write_bytes(whole)
    found = read_gguf(file)
    theirs = llama_cpps(file, IDS[:40])
    np.testing.assert_allclose(logits(found.model(), IDS[:40]), theirs, atol=1e-4, rtol=0)
    assert (found.config.rope.type == "default") == (not scaling)


@pytest.mark.parametrize("scaling", [LINEAR, YARNED])
def test_llama3s_factors_with_another_scaling_are_rejected(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, scaling: dict[str, Value]
) -> None:
    model = tiny_model(**MODELS["llama 3"])
    rope = read_gguf(scaled_file(tmp_path, model, tokenizer, type=Value(STRING, "none")))
    assert rope.config.rope == model.config.rope
    file = scaled_file(tmp_path, model, tokenizer, **scaling)
    # What llama.cpp computes of it is what no model of ours does.
    assert not np.allclose(llama_cpps(file, IDS), logits(model, IDS), atol=1e-2)
    with pytest.raises(UserError, match=r"both by the tensor rope_freqs\.weight and by the"):
        read_gguf(file)


@pytest.mark.parametrize("name", ["llama", "llama linear", "llama 3"])
def test_an_attention_factor_without_yarn_is_rejected(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, name: str
) -> None:
    model = tiny_model(**MODELS[name])
    file = scaled_file(tmp_path, model, tokenizer, **MORE)
    assert not np.allclose(llama_cpps(file, IDS), logits(model, IDS), atol=1e-2)
    with pytest.raises(UserError, match=r"rope\.scaling\.attn_factor=1\.5, which must be 1"):
        read_gguf(file)
    once = scaled_file(tmp_path, model, tokenizer, attn_factor=Value(F32, 1.0))
    assert read_gguf(once).config.rope == model.config.rope


# Windows.


@pytest.mark.parametrize("layers", [None, (1,)])
def test_a_window_limits_the_exported_context(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, layers: tuple[int, ...] | None
) -> None:
    kind = "qwen2" if layers else "mistral"
    model = tiny_model(
        model_type=kind, attention_bias=bool(layers), sliding_window=24, windowed_layers=layers
    )
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    found = read_gguf(tmp_path / "a.gguf").config
    assert found.max_position_embeddings == 24
    assert found.model_type == kind
    assert found.sliding_window == (24 if kind == "mistral" else None)
    theirs = llama_cpps(tmp_path / "a.gguf", IDS[:24])
    np.testing.assert_allclose(logits(model, IDS[:24]), theirs, atol=1e-4, rtol=0)


# Rejected models.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rope": Rope(type="llama3", factor=8.0)}, "no llama3 RoPE for a qwen3"),
        (
            {"model_type": "llama", "rope": Rope(8.0, "llama3", 8.0, 4.0, 1.0)},
            "low_freq_factor=4 is not less than high_freq_factor=1",
        ),
        (
            {"model_type": "llama", "rope": Rope(type="llama3", factor=0.5)},
            "factor=0.5 is not 1 or more",
        ),
        ({"rope": replace(YARN, truncate=False)}, "truncate=False"),
        ({"rope": replace(YARN, beta_fast=16.0)}, "beta_fast=16, beta_slow=1"),
        ({"model_type": "llama", "rope": replace(YARN, beta_slow=2.0)}, "beta_slow=2"),
        ({**MODELS["gpt2"], "hidden_act": "relu"}, "hidden_act='relu'"),
        ({"attention_bias": True}, "no biases for a qwen3"),
        ({**MODELS["qwen2"], "mlp_bias": True}, "biases in its feed-forward part"),
        ({"vocab_size": 256}, "the model's vocabulary has 256"),
    ],
)
def test_models_without_a_gguf_architecture_are_rejected(
    tiny_model: MakeModel,
    tokenizer: Tokenizer,
    tmp_path: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    with pytest.raises(UserError) as error:
        save_gguf(tmp_path / "a.gguf", tiny_model(**changes), tokenizer)
    assert told in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "type"), [(1e5, "f16"), (math.nan, "f32"), (math.inf, "q8_0"), (-math.inf, "bf16")]
)
def test_weights_that_overflow_the_type_are_rejected(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path, value: float, type: str
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value  # type: ignore[union-attr, index]
    with pytest.raises(UserError, match=r"tensor blk\.1\.ffn_up\.weight"):
        save_gguf(tmp_path / "a.gguf", model, tokenizer, type)
    assert not list(tmp_path.iterdir())


def test_an_unknown_type_is_rejected(
    tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="q8_0, q4_0"):
        save_gguf(tmp_path / "a.gguf", tiny_model(), tokenizer, "q4_k")


# SmolLM2.


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return pull_model("smollm2")


def divergence(theirs: Logits, ours: Logits) -> npt.NDArray[np.float64]:
    """KL(theirs, ours) at each position, in nats."""
    p, q = (torch.from_numpy(one).double().log_softmax(-1) for one in (theirs, ours))
    found: npt.NDArray[np.float64] = (p.exp() * (p - q)).sum(-1).numpy()
    return found


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_smollm2_knows_the_capital_of_france_and_agrees_with_llama_cpp(
    smollm2: Path, tmp_path: Path
) -> None:
    model, words = load(smollm2)
    assert model.config.parameters == 134_515_008
    greedy = Sampling(temperature=0.0, max_new_tokens=20)
    [answers] = generate(model, [Request(messages=QUESTION, sampling=greedy)], words)
    assert "Paris" in str(answers)
    ids = encode_chat(words, QUESTION, generation_prompt=True).ids
    ours = logits(model, ids)
    # llama.cpp rounds what flows between quantized weights to 8 bits, and this much remains …
    assert divergence(llama_cpps(smollm2, ids), ours).mean() < 0.02
    # … while of the very same numbers in float32 it makes the very same logits.
    save_gguf(tmp_path / "whole.gguf", model, words, "f32")
    whole = llama_cpps(tmp_path / "whole.gguf", ids)
    (tmp_path / "whole.gguf").unlink()  # half a gigabyte
    np.testing.assert_allclose(ours, whole, atol=1e-3, rtol=0)


@pytest.mark.long  # transformers takes half a minute to read it
def test_smollm2s_logits_equal_transformers(smollm2: Path) -> None:
    model, words = load(smollm2)
    ids = encode_chat(words, QUESTION, generation_prompt=True).ids
    theirs = transformers_logits(smollm2, model.config, ids)
    np.testing.assert_allclose(logits(model, ids), theirs, atol=1e-3, rtol=0)


# Every kind with every model, and each of both once with its embeddings tied and once without.
KEPT = [
    pytest.param(kind, name, tied, marks=() if tied == (place % 2 == 0) else pytest.mark.long)
    for place, (kind, name) in enumerate(
        product(("q8_0", "q4_0", "q4_1"), ("llama biased", "qwen3", "gpt2"))
    )
    for tied in (True, False)
]


@pytest.mark.parametrize(("kind", "name", "tied"), KEPT)
def test_a_model_that_keeps_its_blocks(
    kind: str, name: str, tied: bool, tiny_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """It answers like the same model with dequantized weights, token by token and at once."""
    file = tmp_path / "model.gguf"
    save_gguf(file, tiny_model(**MODELS[name], tie_word_embeddings=tied), tokenizer, type=kind)
    stored = read_gguf(file)
    whole, kept = stored.model(torch.float32), stored.model_in_blocks(torch.float32)
    held = sum(one.nbytes for one in kept.buffers()) + sum(one.nbytes for one in kept.parameters())
    assert held < 0.6 * sum(one.nbytes for one in whole.parameters())
    for device, path in (("cpu", "matmul"), ("meta", "fused")):  # no kernel multiplies blocks there
        there, _ = load(file, keep_quantized=True, device=device)
        assert {p.device.type for p in there.parameters()} == {device}
        assert {one.path for one in there.modules() if isinstance(one, Attention)} == {path}
        assert (len(list(there.parameters())) == len(list(whole.parameters()))) == (path == "fused")
    with pytest.raises(UserError, match="keep_quantized"):
        save_model(tmp_path / "saved", kept, tokenizer, card="")
    with pytest.raises(UserError, match="keep_quantized"):
        save_gguf(tmp_path / "saved.gguf", kept, tokenizer)
    batch = Batch.of(torch.tensor([IDS]))
    with torch.inference_mode():
        torch.testing.assert_close(kept.logits(batch), whole.logits(batch), rtol=0, atol=1e-4)
    greedy = Sampling(temperature=0, max_new_tokens=12, ignore_eos=True)
    for rows in (1, 3, 20):
        requests = [Request(prompt_ids=IDS[n : n + 9], sampling=greedy) for n in range(rows)]
        pairs = zip(generate(kept, requests), generate(whole, requests), strict=True)
        for one, other in pairs:
            assert one.ids == other.ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
