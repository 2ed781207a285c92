"""Models stored in 4 bits, in the files that transformers writes with bitsandbytes.

`config.json` then has a `quantization_config`, and these tensors replace `X.weight`:

    X.weight                                 the packed indices: uint8, (bytes, 1)
    X.weight.absmax                          scales: float32, or uint8 when quantized themselves
    X.weight.quant_map                       the sixteen values
    X.weight.quant_state.bitsandbytes__nf4   JSON in bytes: block size, shape, mean of the scales
    X.weight.nested_absmax                   with double quantization: the scales of the scales
    X.weight.nested_quant_map                and the 256 values that encode the scales

Each layer thus has its own description, which is read and checked instead of the config's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from groundup.adapters.blockwise_8bit import BLOCK, dynamic_code
from groundup.adapters.layers import linear_layers
from groundup.adapters.nf4 import BLOCK_SIZES, CODES, FourBitKind, NF4Linear
from groundup.adapters.quantization import quantized_layers
from groundup.errors import UserError, shorten
from groundup.lm.model import CausalLM

SETTING = "quantization_config"

_STATE = ".quant_state.bitsandbytes__"
_PART = re.compile(
    r"(?P<weight>.+\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|"
    r"quant_state\.bitsandbytes__\w+)"
)
# The JSON of a layer takes 170 bytes.
_MAX_STATE_BYTES = 4_096
# bitsandbytes can store the bytes with another dtype, because FSDP moves groups of one dtype.
_STORAGE = (torch.int8, torch.bfloat16, torch.float16, torch.float32, torch.float64)
# The largest allowed difference between a file's values and ours: the last digit, which differs if
# another program computed them.
_CODE_TOLERANCE = 1e-6


# Reading.


def without_quantization_config(described: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `config.json` without the setting for 4-bit weights.

    Raises `UserError` for every other quantization method.
    """
    rest = {name: value for name, value in described.items() if name != SETTING}
    setting = described.get(SETTING)
    if setting is None:
        return rest
    said = setting if isinstance(setting, dict) else {"quant_method": setting}
    four = said.get("load_in_4bit", said.get("_load_in_4bit"))
    if said.get("quant_method", "bitsandbytes") != "bitsandbytes" or four is not True:
        eight = "8 bits of " if said.get("load_in_8bit") is True else ""
        raise UserError(
            f"config.json says that the weights are in {eight}"
            f"{shorten(said.get('quant_method'))}, which is not supported; use the full model, "
            "or 4 bits of bitsandbytes"
        )
    return rest


def four_bit_names(names: Iterable[str]) -> frozenset[str]:
    """The names, among those of a file, of tensors of 4-bit layers."""
    parts = [match for match in map(_PART.fullmatch, names) if match]
    return frozenset(match[0] for match in parts) | {match["weight"] for match in parts}


def place_four_bit(model: CausalLM, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Replace each layer described by `tensors` with a 4-bit layer.

    Raises `UserError`, naming the folder `where`, for missing, damaged or foreign tensors.
    """
    layers = linear_layers(model)
    for weight in sorted({name.partition(".weight")[0] + ".weight" for name in tensors}):
        path = weight.removesuffix(".weight")
        plain = layers.get(path)
        if not isinstance(plain, nn.Linear):
            raise UserError(
                f"{where}: {shorten(path)} is stored in 4 bits, but only linear layers of the "
                "blocks are read in 4 bits; quantize the model again without it"
            )
        parts = {key[len(weight) :]: t for key, t in tensors.items() if key.startswith(weight)}
        model.set_submodule(path, _layer(plain, parts, f"{where}: {weight}"))


def _layer(plain: nn.Linear, parts: Mapping[str, Tensor], whose: str) -> NF4Linear:
    shape = (plain.out_features, plain.in_features)
    kind, block_size, offset = _state(parts, shape, whose)
    blocks = -(-math.prod(shape) // block_size)
    _check_code(parts, ".quant_map", CODES[kind], whose)
    packed = _part(parts, "", -(-math.prod(shape) // 2), torch.uint8, whose)
    if offset is None:
        scales = [_part(parts, ".absmax", blocks, torch.float32, whose)]
    else:
        _check_code(parts, ".nested_quant_map", dynamic_code(torch.device("cpu")), whose)
        scales = [
            _part(parts, ".absmax", blocks, torch.uint8, whose),
            _part(parts, ".nested_absmax", -(-blocks // BLOCK), torch.float32, whose),
            torch.tensor(offset, dtype=torch.float32, device=packed.device),
        ]
    return NF4Linear(shape, packed, *scales, kind=kind, block_size=block_size, bias=plain.bias)


def _state(
    parts: Mapping[str, Tensor], shape: tuple[int, int], whose: str
) -> tuple[FourBitKind, int, float | None]:
    """Kind, block size and offset, which is None without double quantization."""
    kinds = [kind for kind in get_args(FourBitKind) if _STATE + kind in parts]
    if len(kinds) != 1:
        raise UserError(
            f"{whose} has {len(kinds)} tensors {_STATE}nf4 or fp4, where one is needed; "
            "download or save the folder again"
        )
    [kind] = kinds
    try:
        return (kind, *_read_state(parts[_STATE + kind], kind, shape, parts))
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UserError(
            f"{whose}{_STATE}{kind} cannot be used ({error}); download or save the folder again"
        ) from None


def _read_state(
    stored: Tensor, kind: FourBitKind, shape: tuple[int, int], parts: Mapping[str, Tensor]
) -> tuple[int, float | None]:
    """Block size and offset; raises `ValueError` for an invalid description."""
    if stored.numel() > _MAX_STATE_BYTES:
        raise ValueError(f"it has {stored.numel()} bytes")
    said = json.loads(bytes(stored.flatten().tolist()))
    if not isinstance(said, dict):
        raise ValueError("it is not a JSON object")
    expected: dict[str, Any] = {"quant_type": kind, "shape": list(shape)}
    if nested := "nested_offset" in said or ".nested_absmax" in parts:
        expected["nested_blocksize"] = BLOCK
    for name, value in expected.items():
        if said.get(name) != value:
            raise ValueError(f"its {name} is {shorten(said.get(name))}, not {value}")
    size, offset = said.get("blocksize"), said.get("nested_offset")
    if size not in BLOCK_SIZES:
        raise ValueError(f"its blocksize is {shorten(size)}, none of {BLOCK_SIZES}")
    if not nested:
        return int(size), None
    if not isinstance(offset, int | float) or not math.isfinite(offset):
        raise ValueError(f"its nested_offset is {shorten(offset)}")
    return int(size), float(offset)


def _part(
    parts: Mapping[str, Tensor], name: str, count: int, dtype: torch.dtype, whose: str
) -> Tensor:
    if name not in parts:
        raise UserError(f"{whose}{name} is missing; download or save the folder again")
    found = parts[name].flatten()
    if not name and found.dtype in _STORAGE:
        found = found.view(torch.uint8)
    if (len(found), found.dtype) != (count, dtype):
        raise UserError(
            f"{whose}{name} holds {len(found)} numbers of {found.dtype}, where {count} of {dtype} "
            "are needed; download or save the folder again"
        )
    return found


def _check_code(parts: Mapping[str, Tensor], name: str, ours: Tensor, whose: str) -> None:
    theirs = _part(parts, name, len(ours), torch.float32, whose)
    if not torch.allclose(theirs.cpu(), ours, rtol=0, atol=_CODE_TOLERANCE):
        raise UserError(
            f"{whose}{name} has other values than bitsandbytes', so every index would mean "
            "another number; quantize the model again"
        )


# Writing.


def four_bit_tensors(model: CausalLM, dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors for 4-bit weights; empty for a model without them.

    `dtype` is the dtype to which bitsandbytes dequantizes them.

    Raises `UserError` for int8, and for families whose files combine our matrices.
    """
    tensors: dict[str, Tensor] = {}
    for path, layer in quantized_layers(model).items():
        if not isinstance(layer, NF4Linear):
            raise UserError(
                "an int8 model is for comparison only and has no file format; quantize it to "
                "nf4, or save it in full"
            )
        if model.config.family.weights:
            raise UserError(
                f"the files of a {model.config.model_type} keep matrices in another order, which "
                "cannot be stored in 4 bits; save the model in full"
            )
        tensors |= {f"{path}.weight{name}": t.cpu() for name, t in _parts(layer, dtype).items()}
    return tensors


def _parts(layer: NF4Linear, dtype: torch.dtype) -> dict[str, Tensor]:
    state: dict[str, Any] = {
        "quant_type": layer.kind,
        "blocksize": layer.block_size,
        "dtype": _name(dtype),
        "shape": [layer.out_features, layer.in_features],
    }
    packed, absmax, *nested = layer.packed_tensors
    parts = {"": packed[:, None], ".absmax": absmax, ".quant_map": CODES[layer.kind].clone()}
    if nested:
        nested_absmax, offset = nested
        parts[".nested_absmax"] = nested_absmax
        parts[".nested_quant_map"] = dynamic_code(torch.device("cpu")).clone()
        state |= {
            "nested_blocksize": BLOCK,
            "nested_dtype": _name(torch.float32),
            "nested_offset": offset.item(),
        }
    parts[_STATE + layer.kind] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return parts


def quantization_config(model: CausalLM, dtype: torch.dtype) -> dict[str, Any]:
    """The `quantization_config` of `config.json` if the model is in 4 bits, else nothing."""
    layers = [layer for layer in quantized_layers(model).values() if isinstance(layer, NF4Linear)]
    if not layers:
        return {}
    plain = [path for path, one in linear_layers(model).items() if isinstance(one, nn.Linear)]
    return {
        SETTING: {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": layers[0].kind,
            "bnb_4bit_use_double_quant": layers[0].double_quant,
            "bnb_4bit_compute_dtype": _name(dtype),
            "bnb_4bit_quant_storage": "uint8",
            # transformers quantizes every other linear layer except the head.
            "llm_int8_skip_modules": [*plain, "lm_head"] if plain else None,
        }
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
