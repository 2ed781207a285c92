"""4-bit folders are exchanged with transformers and bitsandbytes; bad ones are rejected."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import BitsAndBytesConfig

from groundup.adapters.nf4 import FourBitKind, NF4Linear
from groundup.adapters.quantization import is_quantized, quantize, quantized_layers
from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.formats.load import load, load_config, load_model
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from mutations import mutated_json

CARD = "---\nlicense: mit\n---\n# A tiny model\n"
IDS = torch.arange(2, 42).reshape(2, 20) * 7
# Rows are whole blocks of 64: with others bitsandbytes 0.50 computes wrongly on AVX512.
SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "llama": transformers.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=6),
}
WAYS: list[tuple[FourBitKind, bool]] = [("nf4", True), ("fp4", False)]


def in_four_bits(folder: Path, kind: str, double: bool, dtype: torch.dtype, **more: Any) -> Any:
    """The model of a folder as transformers with bitsandbytes has it.

    In training mode: for inference on a CPU bitsandbytes computes in bfloat16, whatever is asked.
    """
    setting = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
        **more,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=setting
    )
    return model.train()


@pytest.fixture
def full(tmp_path: Path, randomize: Callable[[nn.Module], None]) -> Callable[[str], Path]:
    """A folder that transformers wrote for a family's model, in full precision."""

    def write(family: str) -> Path:
        model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family])
        randomize(model)
        model.save_pretrained(tmp_path / family)
        return tmp_path / family

    return write


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Any, tokenizer: Tokenizer) -> Path:
    """Our 4-bit folder."""
    save_model(tmp_path / "model", quantize(tiny_model()), tokenizer, card=CARD)
    return tmp_path / "model"


def logits(model: CausalLM) -> Tensor:
    with torch.no_grad():
        return model.logits(Batch.of(IDS))


# Theirs and ours are the same.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "double"), WAYS)
def test_their_folders_equal_ours(
    family: str,
    kind: FourBitKind,
    double: bool,
    full: Callable[[str], Path],
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    theirs = in_four_bits(full(family), kind, double, torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = theirs(IDS).logits.detach()
    assert_close(logits(load_model(tmp_path / "theirs")), expected, rtol=1e-5, atol=1e-5)

    ours = quantize(load_model(tmp_path / family), kind, double_quant=double)
    save_model(tmp_path / "ours", ours, tokenizer, card=CARD)
    same_tensors(tmp_path / "ours", tmp_path / "theirs")
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").train()
    assert torch.equal(read(IDS).logits, expected)


def same_tensors(one: Path, other: Path) -> None:
    """The files have the same names, dtypes and bytes."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def test_the_same_in_bfloat16(
    full: Callable[[str], Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    theirs = in_four_bits(full("llama"), "nf4", True, torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    assert ours.model.norm.weight.dtype == torch.bfloat16
    # Norms and rotations are rounded at other places, to 8 bits each time.
    expected = theirs(IDS).logits.float()
    assert (logits(ours) - expected).norm() < 0.02 * expected.norm()
    save_model(tmp_path / "ours", ours, tokenizer, card=CARD, dtype=torch.bfloat16)
    same_tensors(tmp_path / "ours", tmp_path / "theirs")


def test_unquantized_layers_are_the_same_for_both(
    full: Callable[[str], Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    left = ["lm_head", "v_proj", "model.layers.0.mlp"]
    source = full("llama")
    theirs = in_four_bits(source, "nf4", True, torch.float32, llm_int8_skip_modules=left)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    assert len(quantized_layers(ours)) == 2 * 3 + 3
    assert_close(logits(ours), theirs(IDS).logits.detach(), rtol=1e-5, atol=1e-5)
    save_model(tmp_path / "ours", ours, tokenizer, card=CARD)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").train()
    assert torch.equal(read(IDS).logits, theirs(IDS).logits)


def test_bytes_may_be_stored_as_another_dtype(full: Callable[[str], Path], tmp_path: Path) -> None:
    """As for FSDP, which communicates a single dtype."""
    theirs = in_four_bits(
        full("llama"), "nf4", True, torch.float32, bnb_4bit_quant_storage=torch.bfloat16
    )
    theirs.save_pretrained(tmp_path / "theirs")
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    assert stored["model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    ours = load_model(tmp_path / "theirs")
    assert_close(logits(ours), theirs(IDS).logits.detach(), rtol=1e-5, atol=1e-5)


# Ours.


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("block_size", [64, 128])
def test_a_saved_model_loads_unchanged_and_saves_identically(
    double: bool, block_size: int, tmp_path: Path, tiny_model: Any, tokenizer: Tokenizer
) -> None:
    model = quantize(tiny_model(attention_bias=True), block_size=block_size, double_quant=double)
    for name, shard in (("a", 10**9), ("b", 10**9), ("c", 40_000)):
        save_model(tmp_path / name, model, tokenizer, card=CARD, max_shard_bytes=shard)
        before = logits(model)
        model = load_model(tmp_path / name)
        assert all(isinstance(one, NF4Linear) for one in quantized_layers(model).values())
        assert torch.equal(logits(model), before)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    shards = sorted((tmp_path / "c").glob("model-*.safetensors"))
    assert len(shards) > 2 and sum(path.stat().st_size > 50_000 for path in shards) == 1
    assert load_config(tmp_path / "c") == model.config


def test_a_folder_has_the_size_of_4_bits(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    parts = (".weight", ".absmax", ".nested_absmax")
    held = sum(t.nbytes for name, t in stored.items() if "proj" in name and name.endswith(parts))
    model = load_model(folder)
    numbers = sum(one.in_features * one.out_features for one in quantized_layers(model).values())
    assert 8 * held / numbers < 4.2


def test_it_generates_and_the_dtype_applies_to_other_layers(folder: Path) -> None:
    model, tokenizer = load(folder)
    request = Request(prompt="The sea", sampling=Sampling(max_new_tokens=3, temperature=0.0))
    assert generate(model, [request], tokenizer)
    half = load_model(folder, dtype=torch.bfloat16)
    assert half.model.norm.weight.dtype == torch.bfloat16
    for ours, same in zip(
        quantized_layers(half).values(), quantized_layers(model).values(), strict=True
    ):
        assert all(map(torch.equal, ours.packed_tensors, same.packed_tensors))


def test_unsupported_formats_are_rejected(
    tmp_path: Path, tiny_model: Any, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match="an int8 model is for comparison"):
        save_model(tmp_path, quantize(tiny_model(), "int8"), tokenizer, card=CARD)
    gpt2 = tiny_model(model_type="gpt2", hidden_act="gelu_new", num_key_value_heads=4, head_dim=16)
    with pytest.raises(UserError, match="the files of a gpt2 keep matrices"):
        save_model(tmp_path, quantize(gpt2), tokenizer, card=CARD)


# Folders that cannot be read.


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "in 'gptq', which is not supported"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "in 8 bits of 'bitsandbytes'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": "yes"}, "in 'bitsandbytes', which"),
        ("awq", "in 'awq', which is not supported"),
        ([1], r"in \[1\], which is not supported"),
    ],
)
def test_other_quantizations_are_named(folder: Path, setting: Any, message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": setting}))
    for read in (load_model, load_config):
        with pytest.raises(UserError, match=message):
            read(folder)


LAYER = "model.layers.1.mlp.up_proj.weight"
STATE = f"{LAYER}.quant_state.bitsandbytes__nf4"


def changed(folder: Path, **tensors: Tensor | None) -> None:
    state = load_file(folder / "model.safetensors") | tensors
    kept = {name: tensor.clone() for name, tensor in state.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")


def state_of(folder: Path, **changes: Any) -> Tensor:
    said = json.loads(bytes(load_file(folder / "model.safetensors")[STATE].tolist()))
    kept = {name: value for name, value in (said | changes).items() if value is not None}
    return torch.tensor(list(json.dumps(kept).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("", "up_proj.weight is missing"),
        (".absmax", "weight.absmax is missing"),
        (".quant_map", "weight.quant_map is missing"),
        (".nested_absmax", "weight.nested_absmax is missing"),
        (".nested_quant_map", "weight.nested_quant_map is missing"),
        (".quant_state.bitsandbytes__nf4", "has 0 tensors .quant_state"),
    ],
)
def test_a_missing_part_is_named(folder: Path, part: str, message: str) -> None:
    changed(folder, **{LAYER + part: None})
    with pytest.raises(UserError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("", torch.zeros(7, 1, dtype=torch.uint8), "holds 7 numbers of torch.uint8, where 6144"),
        ("", torch.zeros(6144, 1, dtype=torch.int64), "holds 6144 numbers of torch.int64"),
        (".absmax", torch.zeros(192), "absmax holds 192 numbers of torch.float32, where 192 of"),
        (".absmax", torch.zeros(5, dtype=torch.uint8), "absmax holds 5 numbers"),
        (".nested_absmax", torch.zeros(2), "nested_absmax holds 2 numbers"),
        (".quant_map", torch.zeros(16), "quant_map has other values"),
        (".quant_map", torch.zeros(15), "quant_map holds 15 numbers"),
        (".nested_quant_map", torch.linspace(-1, 1, 256), "nested_quant_map has other values"),
        (".quant_state.bitsandbytes__fp4", torch.zeros(1), "has 2 tensors .quant_state"),
        (".quant_state.bitsandbytes__nf4", torch.zeros(9), "nf4 cannot be used"),
        (".quant_state.bitsandbytes__nf4", torch.ones(9).byte(), "nf4 cannot be used"),
        (".quant_state.bitsandbytes__nf4", torch.ones(9999).byte(), "it has 9999 bytes"),
    ],
)
def test_a_damaged_part_is_named(folder: Path, part: str, tensor: Tensor, message: str) -> None:
    changed(folder, **{LAYER + part: tensor})
    with pytest.raises(UserError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [64, 192]}, r"its shape is \[64, 192\], not \[192, 64\]"),
        ({"shape": None}, "its shape is None"),
        ({"blocksize": 63}, "its blocksize is 63"),
        ({"blocksize": "64"}, "its blocksize is '64'"),
        ({"quant_type": "fp4"}, "its quant_type is 'fp4'"),
        ({"nested_blocksize": 4096}, "its nested_blocksize is 4096"),
        ({"nested_offset": None}, "its nested_offset is None"),
        ({"nested_offset": float("nan")}, "its nested_offset is nan"),
        ({"nested_offset": 10**400}, "cannot be used"),
        ({"blocksize": 128}, "absmax holds 192 numbers .* where 96"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    changed(folder, **{STATE: state_of(folder, **changes)})
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_only_layers_of_the_blocks_may_be_in_4_bits(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    layer = {name: tensor for name, tensor in state.items() if name.startswith(LAYER)}
    for path in ("model.embed_tokens", "adapter", "lm_head"):
        extra = {name.replace(LAYER, f"{path}.weight"): t.clone() for name, t in layer.items()}
        save_file(state | extra, folder / "model.safetensors")
        with pytest.raises(UserError, match=f"'{path}' is stored in 4 bits, but only linear"):
            load_model(folder)


def damaged(source: random.Random, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One part of one layer missing, cut, of another dtype, another layer's, or with other
    bytes."""
    name = source.choice([name for name in state if "proj" in name])
    tensor = state[name]
    ways: list[Callable[[], Tensor | None]] = [
        lambda: None,
        lambda: tensor[: source.randrange(len(tensor))],
        lambda: tensor.to(source.choice([torch.int8, torch.bool, torch.complex64, torch.float64])),
        lambda: state[source.choice(list(state))],
        lambda: tensor[None],
        lambda: tensor.flatten()[0],
    ]
    if "quant_state" in name:
        changed = mutated_json(source, bytes(tensor.tolist()))
        ways += [lambda: torch.tensor(list(changed), dtype=torch.uint8)] * 6
    new = source.choice(ways)()
    rest = {other: t for other, t in state.items() if other != name}
    return rest if new is None else rest | {name: new.clone().contiguous()}


@pytest.mark.usefixtures("unchecked_types")
def test_damaged_layers_are_rejected_in_a_sentence_or_work(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    refused = 0
    for number in range(120):
        save_file(damaged(random.Random(number), state), folder / "model.safetensors")
        try:
            logits(load_model(folder))
        except UserError as error:
            assert 20 < len(str(error)) < 600
            refused += 1
    assert 60 < refused < 120


def test_an_unquantized_model_is_read_as_before(
    tmp_path: Path, tiny_model: Any, tokenizer: Tokenizer
) -> None:
    save_model(tmp_path, tiny_model(), tokenizer, card=CARD)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert not is_quantized(load_model(tmp_path))
