from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from conftest import TinyModel
from groundup.errors import UserError
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch


def packed(*lengths: int, padding: int = 0) -> Batch:
    """One row of packed documents with random tokens."""
    time = sum(lengths) + padding
    positions = [p for length in (*lengths, padding) for p in range(length)]
    segments = [i for i, length in enumerate(lengths) for _ in range(length)] + [-1] * padding
    ids, zeros = torch.randint(320, (1, time)), torch.zeros(1, time)
    return Batch(ids, ids, zeros, torch.tensor([positions]), torch.tensor([segments]))


def test_packed_documents_have_the_logits_of_single_ones(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, batch = tiny_model(), packed(5, 1, 9, padding=3)
    together = model.logits(batch)[0]
    for start, length in ((0, 5), (5, 1), (6, 9)):
        part = slice(start, start + length)
        alone = model.logits(Batch.of(batch.input_ids[:, part]))[0]
        assert_close(together[part], alone, rtol=1e-5, atol=1e-5)
    assert together.isfinite().all(), "padding must not breed NaNs"


def test_no_token_attends_to_later_ones(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    ids = torch.randint(320, (1, 12))
    changed = ids.clone()
    changed[0, 7] = (ids[0, 7] + 1) % 320
    before, after = model.logits(Batch.of(ids))[0], model.logits(Batch.of(changed))[0]
    assert torch.equal(before[:7], after[:7])
    assert (before[7:] != after[7:]).any(dim=-1).all()


def test_both_attention_paths_agree(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, batch = tiny_model(), packed(5, 9)
    by_matmul = model.logits(batch)
    model.set_attention("fused")
    assert_close(model.logits(batch), by_matmul, rtol=1e-4, atol=1e-4)


def test_new_weights_follow_from_the_seed_and_blocks_start_as_identity() -> None:
    config = ModelConfig.of(width=64, depth=2, vocab_size=128, context=32)
    first, again, other = CausalLM(config), CausalLM(config), CausalLM(config)
    first.initialize(seed=1)
    again.initialize(seed=1)
    other.initialize(seed=2)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.head, other.head)
    # Identity blocks: the hidden state is the normalized embedding, whatever precedes it.
    ids = torch.tensor([[3, 5, 3]])
    hidden = first(Batch.of(ids))[0]
    assert_close(hidden[0], hidden[2])
    assert first.head is first.model.embed_tokens.weight


def test_every_parameter_learns_once_blocks_are_not_identities(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(tie_word_embeddings=False)
    model.logits(packed(6, 4)).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_bf16_is_close_to_float32(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, batch = tiny_model(), packed(12)
    exact = model.logits(batch).log_softmax(-1)
    rounded = model.to(torch.bfloat16).logits(batch)
    assert rounded.dtype == torch.float32
    # A mean of 0.05 nats: 8 bits of mantissa through two layers.
    assert (rounded.log_softmax(-1) - exact).abs().mean() < 0.05


def test_a_compiled_model_alternates_between_generation_and_training(tiny_model) -> None:  # type: ignore[no-untyped-def]
    """Samples are generated during training: neither may affect the other."""
    model, batch = tiny_model(), packed(8)
    request = Request(prompt_ids=[5, 6, 7], sampling=Sampling(temperature=0.0, max_new_tokens=12))
    expected = generate(model, [request])[0].ids
    model.logits(batch).sum().backward()
    gradient = model.head.grad.clone()
    model.zero_grad()
    model.compile_blocks()
    assert generate(model, [request])[0].ids == expected
    # With or without a compiler, generation has not used it; training continues eagerly here.
    with torch.compiler.set_stance("force_eager"):
        model.logits(batch).sum().backward()
    assert_close(model.head.grad, gradient)


def test_gradient_checkpointing_changes_no_bit() -> None:
    """Backward runs every block again, with the same dropout."""
    from groundup.adapters.attach import add_lora
    from groundup.train.loss import next_token_loss

    def gradients(on: bool) -> list[torch.Tensor]:
        model = CausalLM(ModelConfig.of(width=64, depth=3, vocab_size=64, context=16))
        model.initialize(0)
        add_lora(model, 4, dropout=0.2)
        model.set_gradient_checkpointing(on)
        model.train()
        ids = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(1))
        plain = Batch.of(ids[:, :-1])
        ones = torch.ones(2, 16)
        batch = Batch(plain.input_ids, ids[:, 1:], ones, plain.position_ids, plain.segment_ids)
        torch.manual_seed(5)
        next_token_loss(model, batch).total.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    kept, computed_again = gradients(False), gradients(True)
    assert len(kept) == len(computed_again) == 2 * 7 * 3
    assert all(torch.equal(one, other) for one, other in zip(kept, computed_again, strict=True))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 320]], "token id 320 is outside the model's vocabulary of 320"),
        ([[1, -1]], "token id -1 is below 0"),
        ([[1] * 65], "position 64 is out of range: the model has 64 position embeddings"),
    ],
)
def test_ids_without_an_embedding_are_rejected(
    tiny_model: TinyModel, device: str, ids: list[list[int]], message: str
) -> None:
    """The meta device does not look up ids, as a GPU reports an error late or never."""
    where = torch.device(device)
    model = tiny_model(position_embedding_type="learned").to(where)
    assert model(Batch.of(torch.tensor([[0, 319] * 32])).to(where)).shape == (1, 64, 64)
    with pytest.raises(UserError, match=message):
        model(Batch.of(torch.tensor(ids)).to(where))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_an_empty_batch_has_empty_logits(tiny_model: TinyModel, shape: tuple[int, int]) -> None:
    batch = Batch.of(torch.zeros(shape, dtype=torch.int64))
    assert tiny_model().logits(batch).shape == (*shape, 320)


def test_rotary_positions_are_unlimited(tiny_model: TinyModel) -> None:
    model = tiny_model().to("meta")
    assert model(Batch.of(torch.ones(1, 65, dtype=torch.int64)).to(torch.device("meta"))).numel()
