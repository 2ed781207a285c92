"""Tiny models that give the same answer to every prompt."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from groundup.evals.measure import Subject
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

CONTEXT = 1024


def parrot(answer: str) -> Subject:
    """A chat model that says `answer` and stops.

    Its layers write nothing, so that the next token follows from the last one alone, and every
    token that is said has the one before it as its row of the head. No token may occur twice.
    """
    # Repeated so that every word becomes a token.
    tokenizer = Tokenizer.from_bpe(train_bpe([answer] * 8, 600))
    prompt = encode_chat(tokenizer, [{"role": "user", "content": ""}], generation_prompt=True)
    said = [prompt.ids[-1], *tokenizer.encode(answer), tokenizer.im_end]
    assert len(set(said)) == len(said), "a token occurs twice; choose another answer"
    vocab = -(-max(tokenizer.vocab_size, 640) // 64) * 64
    config = ModelConfig.of(width=64, depth=1, vocab_size=vocab, context=CONTEXT)
    model = CausalLM(replace(config, tie_word_embeddings=False))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "o_proj" in name or "down_proj" in name or weights is model.head:
                weights.zero_()
        embeddings = model.model.embed_tokens.weight
        embeddings.copy_(torch.randn(embeddings.shape, generator=random))
        for before, after in pairwise(said):
            model.head[after] = embeddings[before]
    return subject(model, tokenizer)


def subject(model: CausalLM, tokenizer: Tokenizer) -> Subject:
    """A model that is measured only on the items of tasks."""
    context = model.config.max_position_embeddings
    compute = Compute("cpu", "float32", "matmul", False, 1, torch.__version__)
    return Subject(0, Path(), None, model.eval(), tokenizer, context, None, None, compute)


def babbler() -> Subject:
    """A model with random weights."""
    tokenizer = Tokenizer.from_bpe(train_bpe(["The sea is wide and the ship is small. "] * 4, 300))
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=CONTEXT))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=random) * 0.1)
    return subject(model, tokenizer)
