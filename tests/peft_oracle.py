"""Tiny models of transformers with random PEFT adapters, and the same models in groundup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor

from groundup.formats.load import load_model
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch

IDS = torch.arange(2, 34).reshape(2, 16) * 5 % 96
_SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def base_folder(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A model of that family, saved by transformers."""
    gpt2 = {"num_key_value_heads": 4, "n_inner": 48} if kind == "gpt2" else {}
    config = transformers.AutoConfig.for_model(kind, **(_SIZES | gpt2 | changes))
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, 0)
    model.save_pretrained(folder)
    return folder


def randomize(model: torch.nn.Module, seed: int, only: str = "") -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only in name:
                shift = 1.0 if "norm" in name or "magnitude" in name else 0.0
                parameter.normal_(shift, 0.2, generator=generator)


def theirs(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def their_adapter(folder: Path, seed: int = 1, **settings: Any) -> peft.PeftModel:
    """A PEFT adapter on that base with random weights, as if trained."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | settings
    torch.manual_seed(seed)  # for what PEFT draws itself
    model = peft.get_peft_model(theirs(folder), peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def our_base(folder: Path) -> CausalLM:
    return load_model(folder).eval()


@torch.no_grad()
def their_logits(model: Any) -> Tensor:
    return model(IDS).logits


@torch.no_grad()
def our_logits(model: CausalLM) -> Tensor:
    return model.logits(Batch.of(IDS))


def peft_name(name: str) -> str:
    """PEFT's name for a parameter."""
    return f"base_model.model.{name}"
