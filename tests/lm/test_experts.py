from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from architectures import VOCAB, transformer, with_random_weights
from groundup.errors import UserError
from groundup.formats.hf_config import config_from_hf, config_to_hf
from groundup.lm.config import ExpertsConfig, ModelConfig
from groundup.lm.experts import MixtureOfExperts, Routing, balance, reference_mixture
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss

SHAPE = transformer(2, (5, 2))


def mixture(**changes: object) -> MixtureOfExperts:
    assert SHAPE.experts is not None
    config = replace(SHAPE, experts=replace(SHAPE.experts, **changes))  # type: ignore[arg-type]
    found = with_random_weights(config).blocks[0].mlp
    assert isinstance(found, MixtureOfExperts)
    return found


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("chosen", [1, 2, 5])
def test_output_equals_the_equation_token_by_token(normed: bool, chosen: int) -> None:
    layer = mixture(norm_topk_prob=normed, num_experts_per_tok=chosen)
    x = torch.randn(2, 7, 64)
    upstream = torch.randn(2, 7, 64)
    gradients = []
    for outputs in (layer(x), reference_mixture(layer, x)):
        layer.zero_grad()
        (outputs * upstream).sum().backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in layer.parameters()])
    assert_close(layer(x), reference_mixture(layer, x), rtol=1e-4, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_balance_of_one_layer_equals_transformers() -> None:
    logits = torch.randn(40, 6)
    chosen = logits.softmax(-1).topk(2, dim=-1).indices
    real = torch.arange(40) % 5 != 0
    found = balance(Routing(logits.softmax(-1), chosen), real)
    theirs = load_balancing_loss_func((logits,), 6, 2, attention_mask=real[None].float())
    assert_close(found, theirs)


def test_balance_is_lowest_for_uniform_routing() -> None:
    even = torch.full((12, 4), 0.25)
    shared = torch.stack([torch.arange(12) % 4, (torch.arange(12) + 1) % 4], dim=1)
    assert float(balance(Routing(even, shared))) == pytest.approx(2.0)  # k
    one_sided = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(12, 4)
    both = torch.tensor([[0, 1]]).expand(12, 2)
    assert float(balance(Routing(one_sided, both))) == pytest.approx(4.0)  # E


def test_the_balance_does_not_depend_on_torch_s_default_dtype() -> None:
    chosen = torch.tensor([[0], [0], [2]])  # thirds, which no type of few bits holds
    routing = Routing(torch.rand(3, 4).softmax(-1), chosen)
    expected = balance(routing)
    try:
        for default in (torch.bfloat16, torch.float64):
            torch.set_default_dtype(default)
            found = balance(routing)
            assert found.dtype == torch.float32 and torch.equal(found, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_balance_is_part_of_the_loss_and_logged() -> None:
    assert SHAPE.experts is not None
    config = replace(SHAPE, experts=replace(SHAPE.experts, router_aux_loss_coef=0.5))
    model = with_random_weights(config).train()
    ids = torch.randint(VOCAB, (2, 11))
    plain = Batch.of(ids[:, :-1], lengths=[10, 7])
    weights = (plain.segment_ids >= 0).float()
    batch = Batch(plain.input_ids, ids[:, 1:], weights, plain.position_ids, plain.segment_ids)

    loss = next_token_loss(model, batch)
    with torch.no_grad():
        model.train()
        logprobs = model.logits(batch).log_softmax(-1)
        nats = -(logprobs.gather(-1, batch.targets[..., None])[..., 0] * weights).sum()
    total, count = loss.metrics["balance"]
    assert count == 17 and loss.metrics["loss"][0] == pytest.approx(float(nats), rel=1e-4)
    mean = total / count
    assert 2.0 <= mean < 5.0
    assert float(loss.total.detach()) == pytest.approx(float(nats) + 17 * 0.5 * mean, rel=1e-4)

    # By transformers' function, one layer at a time, without padding.
    layers = []
    for block in model.blocks:
        block.mlp.gate.register_forward_hook(lambda _, args, out: layers.append(out.detach()))
    with torch.no_grad():
        model(batch)
    mask = plain.segment_ids >= 0
    theirs = [load_balancing_loss_func((one,), 5, 2, attention_mask=mask.float()) for one in layers]
    assert mean == pytest.approx(float(torch.stack(theirs).mean()), rel=1e-4)


def test_a_model_can_be_copied_during_training() -> None:
    model = with_random_weights(SHAPE).train()
    batch = Batch.of(torch.randint(VOCAB, (1, 8)))
    hidden = model(batch)
    assert torch.equal(copy.deepcopy(model)(batch), hidden)


def test_evaluation_adds_no_balance_loss() -> None:
    model = with_random_weights(SHAPE)
    batch = Batch.of(torch.randint(VOCAB, (1, 8)))
    assert "balance" not in next_token_loss(model.eval(), batch).metrics
    with torch.no_grad():
        assert "balance" not in next_token_loss(model.train(), batch).metrics
    assert (
        "balance"
        not in next_token_loss(with_random_weights(transformer(2, None)).train(), batch).metrics
    )


def test_training_balances_a_router_that_sends_everything_to_one_expert() -> None:
    assert SHAPE.experts is not None
    config = replace(SHAPE, experts=replace(SHAPE.experts, router_aux_loss_coef=1.0))
    model = with_random_weights(config).train()
    with torch.no_grad():
        model.head[:, 0] += 8  # all tokens have something in common, which two experts like
        for block in model.blocks:
            block.mlp.gate.weight[:, 0] = torch.tensor([2.0, 2.0, 0.0, 0.0, 0.0])
    ids = torch.randint(VOCAB, (4, 20), generator=torch.Generator().manual_seed(0))
    batch = replace(Batch.of(ids), weights=torch.ones(4, 20))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    found = []
    for _ in range(40):
        loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
        total, count = loss.metrics["balance"]
        found.append(total / count)
    assert found[-1] < 2.3 < 2.8 < found[0]


def test_all_experts_and_the_router_learn() -> None:
    model = with_random_weights(SHAPE).train()
    batch = Batch.of(torch.randint(VOCAB, (4, 30)))
    batch = replace(batch, weights=torch.ones_like(batch.weights))
    next_token_loss(model, batch).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# Qwen3-MoE.


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("window", [None, 4])
def test_transformers_reads_our_folder_as_qwen3_moe(
    normed: bool, window: int | None, tmp_path, tokenizer
) -> None:  # type: ignore[no-untyped-def]
    """In double precision: between two nearly equal experts a rounding error would decide."""
    from groundup.formats.folder import save_model
    from groundup.formats.load import load

    assert SHAPE.experts is not None
    experts = replace(SHAPE.experts, norm_topk_prob=normed)
    model = with_random_weights(
        replace(SHAPE, experts=experts, vocab_size=320, sliding_window=window)
    )
    save_model(tmp_path / "ours", model, tokenizer, card="")
    theirs = Qwen3MoeForCausalLM.from_pretrained(
        tmp_path / "ours", experts_implementation="eager"
    ).eval()
    ids = torch.randint(320, (2, 24))
    with torch.no_grad():
        expected = theirs.double()(ids).logits.float()
        assert_close(model.double().logits(Batch.of(ids)), expected, rtol=1e-5, atol=1e-5)
    # And back, as transformers writes it.
    theirs.float().save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    again, _ = load(tmp_path / "theirs")
    assert again.config.experts == experts
    assert again.config.sliding_window == window
    with torch.no_grad():
        assert_close(again.double().logits(Batch.of(ids)), expected, rtol=1e-5, atol=1e-5)


def test_missing_config_fields_mean_qwen3_moes_defaults() -> None:
    sizes = {
        "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }  # fmt: skip
    config, meant = config_from_hf({"model_type": "qwen3_moe", **sizes}), Qwen3MoeConfig(**sizes)
    assert config.experts is not None
    for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
                 "router_aux_loss_coef"):  # fmt: skip
        assert getattr(config.experts, name) == getattr(meant, name), name
    assert config_from_hf(meant.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_only_layers": [0]}, "layers without experts"),
        ({"decoder_sparse_step": 2}, "layers without experts"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok=9 of num_experts=5"),
        ({"num_experts": "many"}, "num_experts='many'"),
        ({"num_experts": 10**9}, "num_experts=1000000000"),
        ({"num_experts": 2**14, "num_hidden_layers": 3}, "3 with num_experts=16384 each"),
    ],
)
def test_unsupported_configs_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_from_hf({**config_to_hf(SHAPE), **changes})


def test_impossible_experts_name_value_and_remedy() -> None:
    with pytest.raises(UserError, match="num_experts_per_tok=3 of num_experts=2"):
        ExpertsConfig(2, 3, 64)
    with pytest.raises(UserError, match="a qwen3_moe has experts"):
        replace(SHAPE, experts=None)


def test_the_selected_experts_are_together_as_wide_as_one_mlp() -> None:
    sizes = {"width": 384, "depth": 2, "vocab_size": 512, "context": 64}
    dense = ModelConfig.of(**sizes)
    sparse = ModelConfig.of(**sizes, experts=(8, 2))
    assert sparse.experts is not None
    assert sparse.experts.moe_intermediate_size * 2 == dense.intermediate_size
    assert sparse.parameters > 2 * dense.parameters
    assert sparse.active_parameters < 1.01 * dense.parameters
    assert CausalLM(sparse).blocks[0].mlp.experts[7].up_proj.weight.shape == (512, 384)
