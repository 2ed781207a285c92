"""Open a model from any source: `groundup.load`.

    runs/sft                a model folder (`folder`)
    runs/lora               an adapter's folder (`adapter`): its base with the adapter
    SmolLM2-Q4_1.gguf       one GGUF file (`gguf`)
    pack:smollm2, hub:…     a name of a model that is downloaded first (`locate`)

`open_model` resolves a source once; its result gives the config, the tokenizer and the model.
"""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.errors import UserError, shorten
from groundup.formats.folder import ModelFolder, StoredModel
from groundup.formats.locate import TOKENIZER, is_adapter, is_gguf, locate
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer


def open_model(source: Path | str) -> StoredModel:
    """The model folder, adapter folder or GGUF file of a source, not read yet.

    Raises `UserError` for a name that is unknown or cannot be downloaded.
    """
    path = locate(source)
    if is_gguf(path):
        from groundup.formats.gguf.model import read_gguf  # rarely needed

        return read_gguf(path)
    if is_adapter(path):
        from groundup.formats.adapter import AdapterFolder

        return AdapterFolder(path, open_model)  # its base may be an adapter's folder itself
    return ModelFolder(path)


def load(
    source: Path | str,
    *,
    keep_quantized: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> tuple[CausalLM, Tokenizer]:
    """The model and the tokenizer of a folder, a GGUF file, `pack:NAME` or `hub:OWNER/NAME`.

    A folder may be a model's, a run's or any Hugging Face folder of a supported family.
    With `keep_quantized` the weights of a GGUF file keep their blocks of 4 or 8 bits (`q8_0`,
    `q4_0`, `q4_1`): such a model takes the memory of its file and generates several times as fast,
    but cannot be trained or saved. It computes in bfloat16 if the processor supports it. On a
    `device` other than the CPU (cuda, mps) the blocks are dequantized to a dtype that the device is
    fast in. `dtype`, if given, sets the dtype of the computation, whatever the stored one is.
    The model is in evaluation mode: call `model.train()` for dropout, as `fit` does.
    Raises `UserError` for anything missing, damaged or not supported, and for an unavailable
    device.
    """
    _require_device(device)
    found = open_model(source)
    read = found.model_in_blocks if keep_quantized else found.model
    model = read(dtype, device)
    if torch.device(device).type != "cpu":
        model.set_attention("fused")  # the other path is faster only on CPUs
    return model.eval(), found.tokenizer


def _require_device(device: torch.device | str) -> None:
    try:
        torch.zeros(1, device=torch.device(device))
    # Builds of PyTorch without CUDA assert that they have it.
    except (RuntimeError, AssertionError, TypeError):
        raise UserError(
            f"device={shorten(str(device))} is not available on this machine; try 'cpu'"
        ) from None


def load_model(
    source: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> CausalLM:
    """The model in its own dtype, or in `dtype`, in evaluation mode.

    Raises `UserError` when files or tensors are missing, unknown or of another shape.
    """
    return open_model(source).model(dtype, device).eval()


def require_finite(model: CausalLM, source: Path | str) -> None:
    """Raises `UserError` for weights that are not finite. Otherwise a later error would seem to
    come from the compiler, the learning rate or the data."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.detach().isfinite().all()):
            raise UserError(
                f"weights of {name} in {source} are infinite or not numbers: the model is damaged, "
                "or its training diverged; download it again, or start from another model"
            )


def require_weights(source: Path | str) -> None:
    """Raise `UserError` for a model whose config or weights are missing; no weight is read.

    For callers that load the model only after other work.
    """
    found = open_model(source)
    _ = found.config
    found.require_weights()


def load_tokenizer(source: Path | str) -> Tokenizer:
    """The tokenizer of a model from any source."""
    return open_model(source).tokenizer


def load_config(source: Path | str) -> ModelConfig:
    """The shape of a model, with every id that ends a completion."""
    return open_model(source).config


def tokenizer_with(adapter: Path | str, base: Path | str) -> Tokenizer:
    """The tokenizer for an adapter on a base: the adapter's own, or else the base's."""
    own = (path := locate(adapter)) / TOKENIZER
    return load_tokenizer(path if own.is_file() else base)
