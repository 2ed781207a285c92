"""Recurrent language models: steps as in `nn`, and no state that leaks between documents."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from architectures import CONTEXT, VOCAB, recurrent, with_random_weights
from groundup import nn as numpy_nn
from groundup.errors import UserError
from groundup.formats.export import export
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.formats.verify import verify
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.lm.rnn import sequences
from groundup.maths import Tensor
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss
from groundup.xray.look import xray

CELLS = ["lstm", "gru"]


def steps(model: CausalLM, ids: list[int]) -> np.ndarray:
    """The last layer's h after each token, by `nn`'s cells with the same weights, step by step."""
    config = model.config
    kind = {"lstm": numpy_nn.LSTMCell, "gru": numpy_nn.GRUCell}[config.model_type]
    cells = []
    for layer in model.model.layers:
        cell = kind(config.hidden_size, config.hidden_size, dtype=np.float64)
        weights = {n.removesuffix("_l0"): p.double().numpy() for n, p in layer.state_dict().items()}
        cell.load_state_dict(weights)
        cells.append(cell)
    embeddings = model.head.detach().double().numpy()
    states: list[Any] = [None] * len(cells)
    outputs = []
    for token in ids:
        x = Tensor(embeddings[token][None])
        for number, cell in enumerate(cells):
            states[number] = cell(x, states[number])
            x = states[number][0] if config.model_type == "lstm" else states[number]
        outputs.append(x.numpy()[0])
    return np.stack(outputs)


@pytest.mark.parametrize("cell", CELLS)
def test_steps_equal_those_of_nn_with_the_same_weights(cell: str) -> None:
    model = with_random_weights(recurrent(cell))
    ids = torch.randint(VOCAB, (3, 12))
    states = []
    model.model.norm.register_forward_pre_hook(lambda _, args: states.append(args[0].detach()))
    model(Batch.of(ids))
    for row in range(3):
        expected = torch.as_tensor(steps(model, ids[row].tolist())).float()
        assert_close(states[0][row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_stay_inside_their_document(cell: str) -> None:
    """Nothing before a document's first token affects its predictions, in any row."""
    model = with_random_weights(recurrent(cell))
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, -1], [3, 3, 3, 3, 3, 4, 4]])
    ids, kept = torch.randint(VOCAB, (2, 7)), []
    model.model.embed_tokens.register_forward_hook(lambda _, args, out: kept.append(out))
    plain = Batch.of(ids)
    hidden = model(Batch(ids, ids, plain.weights, plain.position_ids, segments))
    for row in range(2):
        for place in range(7):
            [gradient] = torch.autograd.grad(hidden[row, place].sum(), kept, retain_graph=True)
            reaching = gradient.abs().sum(-1) > 0
            same = segments == segments[row, place]
            same[:, place + 1 :] = False
            if segments[row, place] < 0:
                same[:] = False
            assert torch.equal(reaching, same)


@given(st.lists(st.lists(st.integers(-1, 2), min_size=12, max_size=12), min_size=1, max_size=4))
def test_documents_are_batched_with_others_of_similar_length(rows: list[list[int]]) -> None:
    runs, place = [], 0
    for row, segments in enumerate(rows):
        for segment, run in groupby(segments):
            length = len(list(run))
            if segment >= 0:
                runs.append((row, list(range(place, place + length))))
            place += length
    for equal_lengths in (False, True):
        found = []
        for group in sequences(torch.tensor(rows), equal_lengths=equal_lengths):
            lengths = group.real.sum(1)
            if equal_lengths:
                assert (lengths == group.places.shape[1]).all()
            else:
                assert len(lengths) % 4 == 0 and group.places.shape[1] % 16 == 0
                assert 2 * lengths[lengths > 0].min() > lengths.max()
            found += [
                (int(row), places[real].tolist())
                for row, places, real in zip(group.rows, group.places, group.real, strict=True)
                if real.any()
            ]
        assert sorted(found) == sorted(runs)


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_has_the_same_size_after_ten_and_a_thousand_tokens(cell: str) -> None:
    model = with_random_weights(recurrent(cell))
    short, long = (model.empty_cache(rows=1, slots=slots) for slots in (10, 1000))
    sizes = [sum(one.numel() for layer in cache.states for one in layer) for cache in (short, long)]
    assert sizes == [2 * 64 * (2 if cell == "lstm" else 1)] * 2
    # The context is what it was trained on, and no bound of what it can read.
    with torch.no_grad():
        assert model.logits(Batch.of(torch.randint(VOCAB, (1, 3 * CONTEXT)))).isfinite().all()


@pytest.mark.parametrize("cell", CELLS)
def test_it_memorizes_a_text(cell: str) -> None:
    model = CausalLM(replace(recurrent(cell, depth=1), eos_token_ids=()))
    model.initialize(0)
    model.train()
    ids = torch.randint(VOCAB, (2, 17), generator=torch.Generator().manual_seed(1))
    plain = Batch.of(ids[:, :-1])
    batch = Batch(
        plain.input_ids, ids[:, 1:], torch.ones(2, 16), plain.position_ids, plain.segment_ids
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(120):
        loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
        losses.append(float(loss.total.detach()) / loss.weight)
    assert losses[0] > 3.9 and losses[-1] < 0.2
    greedy = Sampling(temperature=0, max_new_tokens=12)
    prompt = ids[0, :4].tolist()
    assert (
        generate(model.eval(), [Request(prompt, sampling=greedy)])[0].ids == ids[0, 4:16].tolist()
    )


def test_new_weights_follow_from_the_seed_and_gates_start_open() -> None:
    first, again, other = (CausalLM(recurrent("lstm")) for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        model.initialize(seed)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.head, other.head)
    layer = first.model.layers[0]
    gates = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().view(4, 64)
    assert gates[1].eq(1).all() and gates[[0, 2, 3]].eq(0).all()


# On disk.


@pytest.mark.parametrize("cell", CELLS)
def test_a_folder_is_readable_by_groundup_only(
    cell: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = ModelConfig.recurrent(cell, width=64, depth=2, vocab_size=320, context=64)
    model = with_random_weights(config)
    card = "---\nlibrary_name: transformers\n---\n"
    save_model(tmp_path / "model", model, tokenizer, card=card)
    assert "library_name: groundup" in (tmp_path / "model" / "README.md").read_text()
    again, _ = load(tmp_path / "model")
    assert again.config == config
    ids = torch.randint(320, (2, 9))
    assert torch.equal(again.logits(Batch.of(ids)), model.logits(Batch.of(ids)))
    checks = verify(tmp_path / "model")
    assert [check.name for check in checks if check.status == "differs"] == []
    for to in ("hf", "gguf"):
        with pytest.raises(UserError, match=f"no recurrent language model such as {cell}"):
            export(tmp_path / "model", to, out=tmp_path / to)
        assert not (tmp_path / to).exists()
    from transformers import AutoModelForCausalLM

    with pytest.raises(ValueError, match=cell):
        AutoModelForCausalLM.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_xray_rejects_a_model_without_heads(cell: str) -> None:
    with pytest.raises(UserError, match=f"the model is of the type {cell},"):
        xray(with_random_weights(recurrent(cell)), [1, 2, 3])


def test_adapters_are_rejected() -> None:
    from groundup.adapters.attach import add_lora

    with pytest.raises(UserError, match="linear layer"):
        add_lora(with_random_weights(recurrent("gru")), rank=4)


def test_impossible_shapes_are_rejected() -> None:
    with pytest.raises(UserError, match="width=100 is not a multiple of 64"):
        ModelConfig.recurrent("lstm", width=100, depth=1, vocab_size=64, context=32)
    with pytest.raises(UserError, match="depth=0"):
        ModelConfig.recurrent("lstm", width=64, depth=0, vocab_size=64, context=32)
