"""A model that knows nothing, one that knows too much, and a naive way to score either."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.packing import Marked
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

VOCAB = 320

Alone = Callable[[CausalLM, Marked, int], list[float]]
Fresh = Callable[[int], CausalLM]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "The sea is wide, the sea is deep, and the ship sails over the sea to the island. "
    return Tokenizer.from_bpe(train_bpe([text] * 4, 300))


def _random_model(seed: int) -> CausalLM:
    """Every weight random: fresh output projections would hide what batching gets wrong."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=VOCAB, context=64))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    return model


@pytest.fixture(scope="session")
def fresh() -> Fresh:
    return _random_model


@pytest.fixture(scope="session")
def model() -> CausalLM:
    return _random_model(0)


@pytest.fixture(scope="session")
def uniform() -> CausalLM:
    """Gives every token the probability 1 / VOCAB, so that what it pays is known in closed form."""
    model = _random_model(1)
    with torch.no_grad():
        model.head.zero_()
    return model


@pytest.fixture(scope="session")
def alone() -> Alone:
    """log softmax of the full logits of one item by itself, at its trained targets."""

    def score_alone(model: CausalLM, item: Marked, context: int) -> list[float]:
        ids = list(item.ids)[: context + 1]
        if len(ids) < 2:
            return []
        with torch.no_grad():
            logprobs = model.logits(Batch.of(torch.tensor([ids[:-1]]))).log_softmax(-1)[0]
        return [float(logprobs[t - 1, ids[t]]) for t in range(1, len(ids)) if item.trained[t]]

    return score_alone
