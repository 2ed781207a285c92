"""A model small enough to try a part in the product in a moment."""

from __future__ import annotations

from dataclasses import replace

import torch

from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.batches import packed_batch
from groundup.text.example import Example
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss

_VOCABULARY = 32


def small_model() -> CausalLM:
    """A Qwen3 model of two layers, with grouped queries and no zero weights; always the same."""
    config = ModelConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
    )
    model = CausalLM(config)
    model.initialize(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def some_rows(answers: int) -> Batch:
    """A batch of `answers` answers of three tokens to a prompt of two, packed into one row."""
    items = [
        Example(
            [(7 * i + 3 * place) % _VOCABULARY for place in range(5)],
            [place >= 2 for place in range(5)],
        )
        for i in range(answers)
    ]
    return packed_batch([items], 4 * answers)


def replies(model: CausalLM | None = None) -> list[float]:
    """The tokens and log-probabilities of a small model's replies, with four sampling settings."""
    ways = (
        Sampling(temperature=0.0, max_new_tokens=6),
        Sampling(temperature=1.0, max_new_tokens=6, seed=1),
        Sampling(temperature=0.8, top_k=5, max_new_tokens=6, seed=2),
        Sampling(
            temperature=1.2, top_p=0.8, min_p=0.02, repetition_penalty=1.2, max_new_tokens=6, seed=3
        ),
    )
    prompts = ([5, 9, 14], [5, 9, 14, 20, 3, 3, 8], [7], [11, 4])
    requests = [
        Request(prompt_ids=prompt, sampling=replace(way, ignore_eos=True))
        for prompt, way in zip(prompts, ways, strict=True)
    ]
    found = generate(small_model() if model is None else model, requests)
    return [float(one) for reply in found for one in (*reply.ids, *reply.logprobs)]


def losses(model: CausalLM | None = None) -> list[float]:
    """A small model's loss on some packed answers, and the norm of each gradient."""
    model = small_model() if model is None else model
    model.zero_grad()
    loss = next_token_loss(model, some_rows(3)).total
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = (p.grad for p in model.parameters() if p.grad is not None)
    return [float(loss.detach()), *(float(one.norm()) for one in gradients)]
