"""Subjects of the values suite's tasks: tiny real models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.evals.measure import Subject
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

ToSubject = Callable[[CausalLM], Subject]
CONTEXT = 512


@pytest.fixture(scope="session")
def subject(tokenizer: Tokenizer) -> ToSubject:
    def of(model: CausalLM) -> Subject:
        return Subject(
            place=0,
            folder=Path("tiny"),
            history=None,
            model=model.eval(),
            tokenizer=tokenizer,
            context=model.config.max_position_embeddings,
            material=None,
            config=None,
            compute=Compute("cpu", "float32", "matmul", False, 1, torch.__version__),
        )

    return of


@pytest.fixture(scope="session")
def chaotic() -> Callable[[int], CausalLM]:
    """A model of large random weights, whose every token depends wildly on all before it.

    One of small random weights has tastes: it finds one wording likelier whatever stands before.
    """

    def of(seed: int) -> CausalLM:
        config = ModelConfig.of(width=64, depth=3, vocab_size=320, context=CONTEXT)
        model = CausalLM(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(1.0 if "norm" in name else 0.0, 1.0, generator=generator)
        return model

    return of


@pytest.fixture(scope="session")
def narrow() -> CausalLM:
    """A model with a context of 96 tokens."""
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=96))
    model.initialize(0)
    return model


@pytest.fixture(scope="session")
def constant() -> CausalLM:
    """A model that finds every token equally likely in any context."""
    config = ModelConfig.of(width=64, depth=1, vocab_size=320, context=CONTEXT)
    model = CausalLM(config)
    with torch.no_grad():
        model.head.zero_()
    return model
