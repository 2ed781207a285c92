from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from groundup.adapters.attach import (
    active_adapter,
    adapter_names,
    add_lora,
    merge,
    train_only,
    unmerge,
    use_adapter,
    using_adapter,
)
from groundup.adapters.lora import LoRA, LoRALinear, lora_layers
from groundup.adapters.quantization import dequantize, quantize
from groundup.errors import UserError
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch
from groundup.train.optim import Optimizer, Rates
from peft_oracle import (
    IDS,
    base_folder,
    our_base,
    our_logits,
    peft_name,
    their_adapter,
    their_logits,
)
from unchecked import run_unchecked

TARGETS = ("q_proj", "down_proj")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dropout": {"dropout": 0.3},
    "dora, dropout": {"use_dora": True, "dropout": 0.3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With biases, which DoRA does not scale."""
    changes = {"attention_bias": True, "mlp_bias": True}
    return base_folder(tmp_path_factory.mktemp("base"), **changes)


def twins(folder: Path, **options: Any) -> tuple[CausalLM, Any]:
    """Ours and PEFT's with the same base and adapter."""
    words = {name.replace("dropout", "lora_dropout"): value for name, value in options.items()}
    theirs = their_adapter(folder, **words)
    ours = add_lora(our_base(folder), 4, 6.0, targets=TARGETS, **options)
    numbers = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(numbers[peft_name(name)])
    return ours, theirs


def downs_and_ups(model: nn.Module) -> tuple[list[str], list[str]]:
    """The names of the parameters with LoRA's rate and of those with LoRA+'s."""
    rates = Rates(0.01, 0.02, 0.03, lora_plus=16.0)
    optimizer = Optimizer(model, rates, muon=False)
    at = {id(p): one["base"] for one in optimizer.adamw.param_groups for p in one["params"]}
    downs, ups = (
        [name for name, master in optimizer.masters.items() if at[id(master)] == rate]
        for rate in (rates.matrices, rates.matrices * rates.lora_plus)
    )
    return downs, ups


def randomized(model: nn.Module, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            shift = 1.0 if "magnitude" in name else 0.0
            parameter.data.normal_(shift, 0.2, generator=generator)


# As in PEFT.


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_logits_gradients_and_training_equal_pefts(options: dict[str, Any], folder: Path) -> None:
    ours, theirs = twins(folder, **options)
    assert_close(our_logits(ours), their_logits(theirs), rtol=1e-5, atol=1e-5)
    ours.train(), theirs.train()
    numbers = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    trained = {peft_name(n): p for n, p in ours.named_parameters() if p.requires_grad}
    assert trained.keys() == numbers.keys()
    steps = [torch.optim.AdamW(p.values(), lr=0.01) for p in (trained, numbers)]
    for step in range(3):
        for model, optimizer in zip((ours, theirs), steps, strict=True):
            optimizer.zero_grad()
            torch.manual_seed(step)  # for the same dropout
            logits = model.logits(Batch.of(IDS)) if model is ours else model(IDS).logits
            cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
        for name, parameter in trained.items():
            assert_close(parameter.grad, numbers[name].grad, rtol=1e-4, atol=1e-5)
        for optimizer in steps:
            optimizer.step()
    for name, parameter in trained.items():
        assert_close(parameter, numbers[name], rtol=1e-4, atol=1e-4)


def test_default_targets_equal_pefts_all_linear(folder: Path) -> None:
    theirs = their_adapter(folder, target_modules="all-linear")
    ours = add_lora(our_base(folder), 4)
    names = {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert {peft_name(n) for n, p in ours.named_parameters() if p.requires_grad} == names
    assert {peft_name(n) for n, _ in ours.named_parameters()} == {
        name for name, _ in theirs.named_parameters()
    }


def test_a_new_adapter_equals_pefts_and_changes_nothing(folder: Path) -> None:
    base = our_base(folder)
    before = our_logits(base)
    ours = add_lora(base, 16, seed=1)
    assert torch.equal(our_logits(ours), before)
    layer = lora_layers(ours)["model.layers.0.mlp.down_proj"]
    theirs = their_adapter(folder, seed=0, r=16)
    theirs.base_model.model.model.layers[0].mlp.down_proj.reset_lora_parameters("default", True)
    for down, up in (
        layer.factors("default", torch.float32),
        (
            theirs.base_model.model.model.layers[0].mlp.down_proj.lora_A.default.weight,
            theirs.base_model.model.model.layers[0].mlp.down_proj.lora_B.default.weight,
        ),
    ):
        limit = 1 / math.sqrt(48)
        assert 0.98 * limit < down.abs().max() <= limit
        assert_close(down.std(), torch.tensor(limit / math.sqrt(3)), rtol=0.05, atol=0)
        assert not up.any()
    add_lora(ours, 16, name="dora", use_dora=True)
    assert_close(our_logits(ours), before, rtol=1e-5, atol=1e-5)


def test_the_seed_determines_the_initial_adapter(folder: Path) -> None:
    one, same, other = (add_lora(our_base(folder), 4, seed=seed) for seed in (1, 1, 2))
    pairs = zip(one.parameters(), same.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    names = [name for name, _ in one.named_parameters() if ".lora_A." in name]
    assert names and not any(
        torch.equal(one.get_parameter(n), other.get_parameter(n)) for n in names
    )


# The product itself.


@settings(max_examples=25)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 64), st.booleans(),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_layer_is_the_sum_of_both_matrices(
    inputs: int, outputs: int, rank: int, alpha: float, bias: bool, rslora: bool, dora: bool
) -> None:
    torch.manual_seed(0)
    base = nn.Linear(inputs, outputs, bias).double()
    layer = LoRALinear(base)
    layer.add("one", LoRA(rank, alpha, 0.0, rslora, dora), torch.Generator().manual_seed(0))
    layer.double().active = "one"
    for parameter in layer.own_parameters("one"):
        parameter.data.normal_()
    x = torch.randn(3, 2, inputs).double()
    down, up = layer.factors("one", torch.float64)
    whole = base.weight + alpha / (math.sqrt(rank) if rslora else rank) * (up @ down)
    if dora:
        whole *= (layer.lora_magnitude_vector["one"].weight / whole.norm(dim=1))[:, None]
    expected = nn.functional.linear(x, whole, base.bias)
    assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    assert_close(layer.merged(torch.float64)(x), expected, rtol=1e-4, atol=1e-4)


def test_a_low_rank_product_learns_a_change_of_low_rank() -> None:
    torch.manual_seed(0)
    base = nn.Linear(24, 20)
    change = torch.randn(20, 2) @ torch.randn(2, 24) / 5
    layer = LoRALinear(base.requires_grad_(False))
    layer.add("one", LoRA(2, 4.0), torch.Generator().manual_seed(0))
    layer.active = "one"
    x = torch.randn(256, 24)
    wanted = base(x) + x @ change.T
    optimizer = torch.optim.Adam(layer.own_parameters("one"), lr=0.03)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (layer(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 1_000


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["plain", "dora"])
def test_products_have_the_dtype_of_the_input(options: dict[str, Any], folder: Path) -> None:
    ours = add_lora(our_base(folder).bfloat16(), 4, **options)
    randomized(ours)
    kinds = {parameter.dtype for parameter in ours.parameters() if parameter.requires_grad}
    assert kinds == {torch.float32}
    out = ours(Batch.of(IDS))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in ours.parameters() if p.requires_grad)
    same = ours.bfloat16()(Batch.of(IDS))
    # Dtypes differ only in the rounding of DoRA's divisor.
    assert_close(same, out, rtol=0.05, atol=0.2 if options else 0.0)


@pytest.mark.long
def test_one_graph_without_breaks_serves_all_blocks() -> None:
    run_unchecked(str(Path(__file__).with_name("one_graph.py")))


# In 4 bits.


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["plain", "dora"])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_adapters_on_a_quantized_base(kind: str, options: dict[str, Any], folder: Path) -> None:
    """Equal to adapters on the dequantized matrices, also after merging."""
    qlora = add_lora(quantize(our_base(folder), kind), 4, **options)
    plain = add_lora(dequantize(quantize(our_base(folder), kind), torch.float32), 4, **options)
    randomized(qlora), randomized(plain)
    assert_close(our_logits(qlora), our_logits(plain), rtol=1e-5, atol=1e-5)
    for model in (qlora, plain):
        model.logits(Batch.of(IDS)).square().sum().backward()
    trained = {name: one for name, one in qlora.named_parameters() if one.requires_grad}
    assert trained.keys() == {n for n, one in plain.named_parameters() if one.requires_grad}
    for name, one in trained.items():
        assert_close(one.grad, plain.get_parameter(name).grad, rtol=1e-4, atol=1e-3)
    expected = our_logits(qlora)
    merge(qlora)
    assert_close(our_logits(qlora), expected, rtol=1e-4, atol=1e-4)
    assert qlora.state_dict().keys() == our_base(folder).state_dict().keys()
    unmerge(qlora)
    assert torch.equal(our_logits(qlora), expected)


# Several adapters.


def test_several_adapters_on_one_base(folder: Path) -> None:
    alone = {}
    both = our_base(folder)
    base = our_logits(both)
    for seed, (name, targets) in enumerate((("a", None), ("b", ["v_proj"]))):
        one = add_lora(our_base(folder), 3 + seed, targets=targets, name=name)
        randomized(one, seed)
        alone[name] = our_logits(one)
        add_lora(both, 3 + seed, targets=targets, name=name)
        assert active_adapter(both) == name
        randomized(both, seed)
    assert adapter_names(both) == ["a", "b"]
    trained = {name for name, p in both.named_parameters() if p.requires_grad}
    assert trained == set().union(*downs_and_ups(both))
    assert all(".b." in name and "v_proj" in name for name in trained)
    assert torch.equal(our_logits(both), alone["b"])
    for name in ("a", None, "b"):
        use_adapter(both, name)
        assert torch.equal(our_logits(both), base if name is None else alone[name])
    with pytest.raises(ZeroDivisionError), using_adapter(both, "a"):
        assert torch.equal(our_logits(both), alone["a"])
        raise ZeroDivisionError
    assert active_adapter(both) == "b"
    train_only(both, "a")
    downs, ups = downs_and_ups(both)
    assert len(downs) == len(ups) == 14
    assert all(name.endswith("lora_A.a.weight") for name in downs)
    assert all(name.endswith("lora_B.a.weight") for name in ups)


def test_magnitudes_have_the_learning_rate_of_a(folder: Path) -> None:
    ours = add_lora(our_base(folder), 4, use_dora=True)
    downs, ups = downs_and_ups(ours)
    assert sum("lora_magnitude_vector.default.weight" in name for name in downs) == 14
    assert len(downs) == 2 * len(ups) == 28


# Merging.


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_merged_equals_unmerged(options: dict[str, Any], folder: Path) -> None:
    ours, theirs = twins(folder, **options)
    names = our_base(folder).state_dict().keys()
    before, state = our_logits(ours), {k: v.clone() for k, v in ours.state_dict().items()}
    flags = [(name, p.requires_grad) for name, p in ours.named_parameters()]
    merge(ours)
    assert adapter_names(ours) == [] and lora_layers(ours) == {}
    assert ours.state_dict().keys() == names
    assert all(parameter.requires_grad for parameter in ours.parameters())
    assert_close(our_logits(ours), before, rtol=1e-5, atol=1e-5)
    merged = theirs.merge_and_unload().state_dict()
    for name, tensor in ours.state_dict().items():
        assert_close(tensor, merged[name], rtol=1e-5, atol=1e-6)
    unmerge(ours)
    assert [(name, p.requires_grad) for name, p in ours.named_parameters()] == flags
    assert ours.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    assert torch.equal(our_logits(ours), before)


def test_unmerging_restores_bfloat16_bit_for_bit(folder: Path) -> None:
    ours = add_lora(our_base(folder).bfloat16(), 4)
    randomized(ours)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    unmerge(merge(ours))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_merging_one_of_several(folder: Path) -> None:
    ours = add_lora(add_lora(our_base(folder), 4, name="a"), 4, targets=["q_proj"], name="b")
    randomized(ours)
    expected = our_logits(ours)
    merge(ours, reversible=False)
    assert_close(our_logits(ours), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=r"nothing to unmerge.*reversible=True"):
        unmerge(ours)


def test_changes_after_merging_are_not_undone(folder: Path) -> None:
    ours = merge(add_lora(our_base(folder), 4, targets=["q_proj"]))
    add_lora(ours, 4, targets=["q_proj"])
    with pytest.raises(UserError, match=r"self_attn.q_proj was replaced after merging; load"):
        unmerge(ours)


def test_a_copy_of_an_adapted_model_is_independent(folder: Path) -> None:
    ours = add_lora(add_lora(our_base(folder), 4, name="a"), 4, name="b")
    other = copy.deepcopy(ours)
    randomized(other)
    use_adapter(other, "a")
    assert active_adapter(ours) == "b"
    assert torch.equal(our_logits(ours), our_logits(our_base(folder)))


# Rejected input.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"rank=0 must be from 1 to 32 for model.layers.0.self_attn.q_proj, whose "
         r"matrix is 32 x 32"),
        ({"rank": 2.5}, r"rank=2.5 must be a whole number; try 16"),
        ({"rank": 2.0}, r"rank=2.0 must be a whole number"),
        ({"rank": True}, r"rank=True must be a whole number"),
        ({"rank": 17}, r"rank=17 must be from 1 to 16 for .*0.self_attn.k_proj, whose matrix is "
         r"16 x 32; choose another rank, or leave this layer out"),
        ({"targets": ["q_proj", "c_attn"]}, r"'c_attn' matches no linear layer of the model's "
         r"blocks; the names are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"),
        ({"targets": ["lm_head"]}, r"'lm_head' matches no linear layer of the model's blocks"),
        ({"targets": "q_proj"}, r"'q_proj' matches no linear layer of the model's blocks; one "
         r"string is a regular expression for whole names: give \['q_proj'\] for the layers of "),
        ({"targets": "self_attn.q_proj"}, r"names: give \['self_attn.q_proj'\] for the layers"),
        ({"targets": ".*c_attn"}, r"'.\*c_attn' matches no linear layer of .* whole names: write "
         r"one, or a list of these names: q_proj, k_proj, v_proj, o_proj, gate_proj"),
        ({"targets": "("}, r"the name '\(' is not a regular expression"),
        ({"targets": []}, r"list of targets is empty"),
        ({"dropout": 1.0}, r"dropout=1.0 must be from 0 to less than 1"),
        ({"dropout": -0.1}, r"dropout=-0.1 must be"),
        ({"alpha": 0.0}, r"alpha=0.0 must be a number greater than 0"),
        ({"alpha": math.inf}, r"alpha=inf must be"),
        ({"name": "there"}, r"already has an adapter called 'there'; .* other than there"),
        ({"name": "v1.5"}, r"'v1.5' cannot be an adapter's name; .*without dots"),
        ({"name": "keys"}, r"'keys' cannot be an adapter's name"),
        ({"name": "training"}, r"'training' cannot be an adapter's name"),
        ({"name": ""}, r"'' cannot be an adapter's name"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_rejected_settings_do_not_change_the_model(
    settings: dict[str, Any], message: str, folder: Path, unchecked_types: None
) -> None:
    model = add_lora(our_base(folder), 4, targets=["o_proj"], name="there")
    names = list(model.state_dict())
    with pytest.raises(UserError, match=message):
        add_lora(model, **({"rank": 4} | settings))
    assert list(model.state_dict()) == names
    assert adapter_names(model) == ["there"]


def test_unknown_adapters_are_rejected(folder: Path) -> None:
    model = our_base(folder)
    with pytest.raises(UserError, match=r"no adapter called 'x'; it has none"):
        use_adapter(model, "x")
    with pytest.raises(UserError, match=r"no adapter is active"):
        merge(model)
    add_lora(add_lora(model, 4, name="a"), 4, name="b")
    with pytest.raises(UserError, match=r"no adapter called 'x'; it has a, b"):
        use_adapter(model, "x")
    with pytest.raises(UserError, match=r"no adapter called 'x'; it has a, b"):
        train_only(model, "x")
    use_adapter(model, None)
    with pytest.raises(UserError, match=r"no adapter is active.*'a', 'b'"):
        merge(model)


def test_targets_are_names_suffixes_or_a_regular_expression(folder: Path) -> None:
    full = "model.layers.1.mlp.up_proj"
    for targets, expected in {
        (full,): [full],
        ("self_attn.v_proj",): [f"model.layers.{i}.self_attn.v_proj" for i in (0, 1)],
        r".*\.0\.mlp\.(up|gate)_proj": [
            f"model.layers.0.mlp.{kind}_proj" for kind in ("gate", "up")
        ],
    }.items():
        assert list(lora_layers(add_lora(our_base(folder), 4, targets=targets))) == expected
