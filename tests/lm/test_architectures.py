"""Properties of every architecture."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.testing import assert_close

from architectures import CONTEXT, VOCAB, Shape, architectures, transformers, with_random_weights
from groundup.formats.folder import save_model
from groundup.formats.hf_config import config_from_hf, config_to_hf
from groundup.formats.load import load
from groundup.generation.generate import generate, reference_generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.attention import AttentionPath
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss
from groundup.xray.look import xray

EXAMPLES = settings(max_examples=20)


def ids(rows: int, time: int) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, time), generator=torch.Generator().manual_seed(rows * time))


def packed(lengths: list[int], padding: int) -> Batch:
    """One row of packed documents."""
    time = sum(lengths) + padding
    tokens = ids(1, time)
    positions = [p for length in (*lengths, padding) for p in range(length)]
    segments = [i for i, length in enumerate(lengths) for _ in range(length)] + [-1] * padding
    weights = torch.tensor([[float(segment >= 0) for segment in segments]])
    return Batch(
        tokens, tokens.roll(-1), weights, torch.tensor([positions]), torch.tensor([segments])
    )


@EXAMPLES
@given(architectures(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3))
@torch.no_grad()
def test_packed_documents_have_the_logits_of_single_ones(
    shape: Shape, lengths: list[int], padding: int
) -> None:
    model, batch = with_random_weights(shape()), packed(lengths, padding)
    together, start = model.logits(batch)[0], 0
    assert together.isfinite().all()
    for length in lengths:
        part = slice(start, start + length)
        alone = model.logits(Batch.of(batch.input_ids[:, part]))[0]
        assert_close(together[part], alone, rtol=1e-4, atol=1e-4)
        start += length


@EXAMPLES
@given(architectures(), st.lists(st.integers(1, 19), max_size=4))
@torch.no_grad()
def test_reading_in_chunks_equals_reading_at_once(shape: Shape, cuts: list[int]) -> None:
    model, tokens = with_random_weights(shape()), ids(3, 20)
    whole = model.logits(Batch.of(tokens))
    cache = model.empty_cache(rows=3, slots=20)
    for start, end in pairwise(sorted({0, *cuts, 20})):
        positions = torch.arange(start, end).expand(3, -1)
        piece = model.logits(Batch.at(tokens[:, start:end], positions), cache)
        assert_close(piece, whole[:, start:end], rtol=1e-4, atol=1e-4)


@pytest.mark.long
@settings(max_examples=6)
@given(architectures())
def test_batched_generation_equals_token_by_token(shape: Shape) -> None:
    """Rows of many lengths, more than run at once, equal and similar ones, and some that end."""
    model = with_random_weights(replace(shape(), eos_token_ids=tuple(range(0, VOCAB, 16))))
    prompts = [ids(1, length)[0].tolist() for length in (1, 4, 22, 17, 3)]
    prompts += [prompts[2], [*prompts[2][:18], 5, 6]]
    requests = [
        Request(prompt_ids=prompt, sampling=Sampling(temperature=1.0, seed=n, max_new_tokens=4 + n))
        for n, prompt in enumerate(prompts)
    ]
    expected = reference_generate(model, requests)
    for batch_size in (1, 3, 32):
        found = generate(model, requests, batch_size=batch_size)
        assert [one.ids for one in found] == [one.ids for one in expected]
        for one, other in zip(found, expected, strict=True):
            logprobs = (torch.tensor(each.logprobs) for each in (one, other))
            assert_close(*logprobs, rtol=0, atol=2e-4)


@EXAMPLES
@given(transformers(), st.sampled_from(["matmul", "fused"]))
def test_no_token_attends_to_later_ones(shape: Shape, path: AttentionPath) -> None:
    model, tokens = with_random_weights(shape()), ids(1, 12)
    model.set_attention(path)
    changed = tokens.clone()
    changed[0, 7] = (tokens[0, 7] + 1) % VOCAB
    before, after = (model.logits(Batch.of(one))[0] for one in (tokens, changed))
    assert_close(before[:7], after[:7], rtol=1e-5, atol=1e-5)
    assert (before[7] != after[7]).any()


@EXAMPLES
@given(transformers())
def test_both_attention_paths_have_the_same_gradients(shape: Shape) -> None:
    model, batch = with_random_weights(shape()).train(), packed([5, 14, 3], 2)
    gradients = []
    for path in ("matmul", "fused"):
        model.set_attention(path)
        model.zero_grad()
        next_token_loss(model, batch).total.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4)


@EXAMPLES
@given(architectures())
def test_gradient_checkpointing_changes_nothing(shape: Shape) -> None:
    model, batch = with_random_weights(shape()).train(), packed([5, 14, 3], 2)
    gradients = []
    for on in (False, True):
        model.set_gradient_checkpointing(on)
        model.zero_grad()
        loss = next_token_loss(model, batch)
        loss.total.backward()
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@EXAMPLES
@given(architectures())
def test_parameter_count_equals_the_models(shape: Shape) -> None:
    config = shape()
    model = CausalLM(config)
    assert config.parameters == sum(p.numel() for p in model.parameters())
    idle = 0
    if config.experts is not None:
        unused = config.experts.num_experts - config.experts.num_experts_per_tok
        one = sum(p.numel() for p in model.blocks[0].mlp.experts[0].parameters())
        idle = config.num_hidden_layers * unused * one
    assert config.active_parameters == config.parameters - idle


@EXAMPLES
@given(architectures())
def test_a_saved_model_loads_unchanged(shape: Shape) -> None:
    config = replace(shape(), eos_token_ids=(2,))  # generation_config.json has the others
    assert config_from_hf(config_to_hf(config)) == config
    tokenizer = Tokenizer.from_bpe(_BPE)
    model = with_random_weights(replace(config, vocab_size=320))
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, tokenizer, card="")
        again, _ = load(Path(folder))
    assert again.config == model.config
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    batch = Batch.of(ids(2, 9))
    with torch.no_grad():
        # The same weights, bit by bit, elsewhere in memory: some processors sum in another order.
        assert_close(model.logits(batch), again.logits(batch), rtol=1e-5, atol=1e-5)


@EXAMPLES
@given(transformers())
def test_xray_decomposes_every_logit(shape: Shape) -> None:
    model, tokens = with_random_weights(shape()), ids(1, 10)
    seen = xray(model, tokens[0].tolist())
    with torch.no_grad():
        logits = model.logits(Batch.of(tokens))[0]
    answers = torch.as_tensor(seen.answers)[:, None]
    assert_allclose(seen.contributions.sum, logits.gather(1, answers)[:, 0].numpy(), atol=1e-3)
    assert_allclose(seen.attention.sum(-1), 1, atol=1e-5)
    silent = xray(model, tokens[0].tolist(), without=[(0, 1)])
    assert not (silent.logits == seen.logits).all()


@EXAMPLES
@given(transformers())
def test_bf16_is_close_to_float32(shape: Shape) -> None:
    """Without experts, between which a rounding error may choose differently."""
    config = replace(shape(), experts=None, model_type="qwen3")
    model, batch = with_random_weights(config), Batch.of(ids(1, CONTEXT))
    with torch.no_grad():
        exact = model.logits(batch).softmax(-1)
        rounded = model.to(torch.bfloat16).logits(batch).softmax(-1)
    assert (rounded - exact).abs().sum(-1).mean() < 0.2


def _bpe() -> object:
    from groundup.text.bpe import train_bpe

    return train_bpe(["The sea is wide, the sea is deep. "] * 4, 300)


_BPE = _bpe()
