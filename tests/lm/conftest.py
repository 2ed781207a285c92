"""Tiny real models with every weight random: fresh ones would have blocks that do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer

TinyModel = Callable[..., CausalLM]


def fill(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shift = 1.0 if "norm" in name else 0.0
            parameter.normal_(shift, 0.2, generator=generator)


@pytest.fixture
def randomise() -> Callable[[torch.nn.Module], None]:
    """Fill a model of whatever library with random weights."""
    return fill


@pytest.fixture
def tiny_model() -> TinyModel:
    """A Qwen3 with two layers and grouped queries; keywords change fields of its config."""

    def make(**changes: Any) -> CausalLM:
        config = ModelConfig.of(width=64, depth=2, vocab_size=320, context=64, heads=4, kv_heads=2)
        model = CausalLM(replace(config, **changes))
        fill(model)
        return model

    return make


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "The sea is wide, the sea is deep, and the ship sails over the sea to the island. "
    return Tokenizer.from_bpe(train_bpe([text] * 4, 300))
