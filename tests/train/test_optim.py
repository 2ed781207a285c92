"""The optimizer against torch's Muon and AdamW, and its master weights against exact sums."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from groundup.lm.model import CausalLM
from groundup.train import optim
from groundup.train.device import has_fast_bfloat16
from groundup.train.optim import Optimizer, Rates, orthogonalize

RATES = Rates(matrices=0.02, embeddings=0.006, gains=0.003, weight_decay=0.1)


class Tiny(nn.Module):
    """The three kinds of parameters that a transformer has."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.embed_tokens = nn.Embedding(32, 16)
        self.embed_tokens.weight = random(32, 16)
        self.wide, self.tall = nn.Linear(16, 8, bias=False), nn.Linear(16, 48, bias=False)
        self.also_tall = nn.Linear(16, 48, bias=False)
        for linear in (self.wide, self.tall, self.also_tall):
            linear.weight = random(*linear.weight.shape)
        self.gain = random(16)


MATRICES = ("wide.weight", "tall.weight", "also_tall.weight")


def gradients(model: nn.Module, step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}


def give(optimizer: Optimizer, found: dict[str, Tensor]) -> None:
    for name, master in optimizer.masters.items():
        master.grad = found[name].clone()


def test_muon_equals_torchs_muon_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch's computes in bf16 on every processor; ours does so for the comparison.
    monkeypatch.setattr(optim, "compute_dtype", lambda device: torch.bfloat16)
    ours, theirs = Tiny(), Tiny()
    optimizer = Optimizer(ours, RATES)
    assert set(optimizer.muon_names) == set(MATRICES)
    parameters = dict(theirs.named_parameters())
    muon = torch.optim.Muon(
        [parameters[name] for name in MATRICES],
        lr=RATES.matrices,
        weight_decay=RATES.weight_decay,
        momentum=RATES.momentum,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    for step in range(12):
        scale = (1.0, 0.5, 0.1)[step % 3]
        found = gradients(ours, step)
        before = {name: parameters[name].detach().clone() for name in MATRICES}
        give(optimizer, found)
        optimizer.step(scale)
        for name in MATRICES:
            parameters[name].grad = found[name].clone()
        muon.param_groups[0]["lr"] = RATES.matrices * scale
        muon.step()
        for name in MATRICES:
            moved = (parameters[name].detach() - before[name]).norm()
            apart = (optimizer.masters[name] - parameters[name]).norm()
            # Both compute directions in bf16 with different products: only rounding may differ.
            assert apart < 0.02 * moved, (step, name)
            # Differences must not accumulate over the steps.
            with torch.no_grad():
                parameters[name].copy_(optimizer.masters[name])


def test_other_parameters_equal_torchs_adamw_to_the_bit() -> None:
    ours, theirs = Tiny(), Tiny()
    optimizer = Optimizer(ours, RATES)
    parameters = dict(theirs.named_parameters())
    adamw = torch.optim.AdamW(
        [
            {"params": [parameters["embed_tokens.weight"]], "lr": RATES.embeddings},
            {"params": [parameters["gain"]], "lr": RATES.gains},
        ],
        betas=RATES.betas,
        weight_decay=RATES.weight_decay,
        fused=True,
    )
    for step in range(10):
        found = gradients(ours, step)
        give(optimizer, found)
        optimizer.step(1.0)
        for name, parameter in parameters.items():
            parameter.grad = found[name].clone()
        adamw.step()
        for name in ("embed_tokens.weight", "gain"):
            assert torch.equal(optimizer.masters[name], parameters[name])


def test_restored_state_is_on_the_masters_device() -> None:
    saved = Optimizer(Tiny(), RATES)
    give(saved, gradients(Tiny(), 0))
    saved.step(1.0)
    # Tensors of the meta device have no numbers, but a device that is not the CPU.
    optimizer = Optimizer(Tiny().to("meta"), RATES)
    optimizer.restore(saved.masters, saved.state())
    restored = optimizer.state()
    assert restored.keys() == saved.state().keys()
    assert {tensor.device.type for tensor in restored.values()} == {"meta"}


@pytest.mark.parametrize(
    ("matrices", "embeddings", "gains"), [(0.03, 0.02, 0.01), (0.01, 0.01, 0.01)]
)
def test_every_parameter_has_its_own_rate_without_muon(
    matrices: float, embeddings: float, gains: float
) -> None:
    model = Tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(model, Rates(matrices, embeddings, gains), muon=False)
    give(optimizer, {name: torch.ones_like(p) for name, p in model.named_parameters()})
    optimizer.step(0.5)
    for name, parameter in model.named_parameters():
        # Adam's first step is the rate itself, against the gradient's sign.
        rate = {"gain": gains, "embed_tokens.weight": embeddings}.get(name, matrices)
        moved = before[name] - parameter.detach()
        assert_close(moved, torch.full_like(moved, 0.5 * rate), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("muon", [True, False])
def test_all_parameters_of_a_critic_have_its_rate(muon: bool) -> None:
    model = Tiny()
    model.critic = Tiny()
    before = {name: p.detach().clone() for name, p in model.critic.named_parameters()}
    optimizer = Optimizer(model, Rates(0.03, 0.02, 0.01, critic=0.004), muon=muon)
    assert set(optimizer.muon_names) == (set(MATRICES) if muon else set())
    give(optimizer, {name: torch.ones_like(p) for name, p in model.named_parameters()})
    optimizer.step(0.5)
    for name, parameter in model.critic.named_parameters():
        moved = before[name] - parameter.detach()
        assert_close(moved, torch.full_like(moved, 0.5 * 0.004), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("muon", [True, False])
def test_parameters_trained_after_the_critic_warm_up_from_there(muon: bool) -> None:
    model = Tiny()
    model.critic = Tiny()
    optimizer = Optimizer(model, Rates(0.03, 0.02, 0.01, critic=0.01), muon=muon)
    rising = {"critic.gain": [0.25, 0.5, 0.75, 1, 1, 1], "gain": [0, 0, 0, 0.25, 0.5, 0.75]}
    rising |= {"critic.embed_tokens.weight": rising["critic.gain"]}
    rates = {"critic.gain": 0.01, "gain": 0.01, "critic.embed_tokens.weight": 0.01}
    parameters = dict(model.named_parameters())
    for step in range(6):
        trains = [name for name in parameters if step >= 3 or name.startswith("critic.")]
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for name in trains:
            optimizer.masters[name].grad = torch.ones_like(parameters[name])
        optimizer.step(min((step + 1) / 4, 1.0), warmup_steps=4)
        for name, scales in rising.items():
            moved = before[name] - parameters[name].detach()
            wanted = torch.full_like(moved, scales[step] * rates[name])
            assert_close(moved, wanted, rtol=1e-3, atol=1e-6)
        moved = torch.stack(
            [(before[name] - parameters[name]).detach().norm() for name in MATRICES]
        )
        if step >= 3:  # Muon's direction and AdamW's are those of the first step throughout
            whole = moved / rising["gain"][step] if step == 3 else whole
            assert_close(moved, whole * rising["gain"][step], rtol=0.05, atol=0)


def test_a_model_of_matrices_only_follows_the_schedule() -> None:
    model = nn.ModuleDict({"wide": nn.Linear(16, 8, bias=False)})
    weight = model["wide"].weight
    optimizer, moved = Optimizer(model, RATES, muon=True), list[Tensor]()
    for step in range(4):
        before = weight.detach().clone()
        optimizer.masters["wide.weight"].grad = torch.ones_like(weight)
        optimizer.step((step + 1) / 4, warmup_steps=4)
        moved.append((before - weight.detach()).norm())
    assert_close(
        torch.stack(moved) / moved[-1], torch.tensor([0.25, 0.5, 0.75, 1]), rtol=0.05, atol=0
    )


def test_orthogonalize_keeps_directions_and_equalizes_singular_values() -> None:
    matrices = torch.randn(5, 24, 64, generator=torch.Generator().manual_seed(1))
    for given in (matrices, matrices.mT):
        found = orthogonalize(given).float()
        sizes = torch.linalg.svdvals(found)
        assert sizes.min() > 0.6 and sizes.max() < 1.3
        u, _, vh = torch.linalg.svd(given, full_matrices=False)
        polar = u @ vh
        cosine = (found * polar).sum((-2, -1)) / (
            found.norm(dim=(-2, -1)) * polar.norm(dim=(-2, -1))
        )
        assert cosine.min() > 0.97


def test_orthogonalize_equalizes_all_but_tiny_singular_values() -> None:
    matrix = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    given = torch.linalg.svdvals(matrix / matrix.norm())
    found = torch.linalg.svdvals(orthogonalize(matrix).float())
    leveled = found[given > 0.003]
    assert leveled.min() > 0.65 and leveled.max() < 1.25
    tiny = given < 5e-4
    assert tiny.any() and found[tiny].max() < 0.3


def test_orthogonalize_computes_in_the_processors_fast_dtype() -> None:
    fast = torch.bfloat16 if has_fast_bfloat16("cpu") else torch.float32
    assert orthogonalize(torch.ones(1, 4, 8)).dtype == fast


def test_orthogonalizing_an_empty_matrix_gives_an_empty_one() -> None:
    assert not orthogonalize(torch.zeros(2, 4, 8)).any()


def test_a_bf16_model_receives_the_rounded_masters() -> None:
    model = Tiny().to(torch.bfloat16)
    exact = Tiny()
    optimizer, reference = Optimizer(model, RATES), Optimizer(exact, RATES)
    for name, master in optimizer.masters.items():
        assert master.dtype == torch.float32
        with torch.no_grad():
            reference.masters[name].copy_(master)
    for step in range(20):
        # Rates so small that bf16 weights without masters would not change.
        for one in (optimizer, reference):
            give(one, gradients(exact, step))
            one.step(0.01)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(optimizer.masters[name], reference.masters[name])
        assert torch.equal(parameter, optimizer.masters[name].bfloat16())
    optimizer.write_back()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, optimizer.masters[name])


def test_gradients_of_micro_batches_are_summed_in_float32() -> None:
    model = nn.Linear(4, 1, bias=False).to(torch.bfloat16)
    optimizer = Optimizer(model, RATES)
    for size in [1.0] + [2.0**-9] * 256:  # in bf16, 1 + 2^-9 is 1
        (model.weight * size).sum().backward()
    assert model.weight.grad is None
    gradient = optimizer.masters["weight"].grad
    assert gradient is not None and torch.equal(gradient, torch.full((1, 4), 1.5))
    assert float(optimizer.gradient_norm()) == pytest.approx(3.0)
    optimizer.clear()
    assert optimizer.masters["weight"].grad is None


def test_clipping_equals_torchs() -> None:
    model = Tiny()
    optimizer = Optimizer(model, RATES)
    give(optimizer, gradients(model, 0))
    other = [nn.Parameter(p.detach()) for p in model.parameters()]
    for parameter, gradient in zip(other, gradients(model, 0).values(), strict=True):
        parameter.grad = gradient
    expected = torch.nn.utils.clip_grad_norm_(other, 2.5)
    norm = optimizer.gradient_norm()
    optimizer.clip(norm, 2.5)
    assert_close(norm, expected)
    for master, parameter in zip(optimizer.masters.values(), other, strict=True):
        assert_close(master.grad, parameter.grad)


@pytest.mark.parametrize("muon", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_is_keyed_by_name_and_continues_to_the_bit(muon: bool, dtype: torch.dtype) -> None:
    def advance(optimizer: Optimizer, steps: range) -> None:
        for step in steps:
            give(optimizer, gradients(Tiny(), step))
            optimizer.step(1 / (step + 1))

    through = Optimizer(Tiny().to(dtype), RATES, muon=muon)
    advance(through, range(3))
    masters = {name: m.detach().clone() for name, m in through.masters.items()}
    state = {key: value.clone() for key, value in through.state().items()}
    names = set(masters)
    assert {key.split("/", 1)[1] for key in state} == names
    advance(through, range(3, 6))

    torch.manual_seed(1)
    model = Tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model = model.to(dtype)
    resumed = Optimizer(model, RATES, muon=muon)
    resumed.restore(masters, state)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, masters[name].to(dtype))
    advance(resumed, range(3, 6))
    for name in names:
        assert torch.equal(resumed.masters[name], through.masters[name])
    for key, value in through.state().items():
        assert torch.equal(resumed.state()[key], value)


def test_a_frozen_parameter_does_not_change() -> None:
    model = Tiny()
    model.tall.weight.requires_grad_(False)
    kept = model.tall.weight.detach().clone()
    optimizer = Optimizer(model, RATES)
    give(optimizer, gradients(model, 0))
    optimizer.step(1.0)
    assert "tall.weight" not in optimizer.masters
    assert torch.equal(model.tall.weight, kept)


def test_learned_positions_count_as_embeddings(tiny_model: Callable[..., CausalLM]) -> None:
    model = tiny_model(position_embedding_type="learned")
    name = "model.embed_positions.weight"
    optimizer = Optimizer(model, RATES)
    assert name in optimizer.masters and name not in optimizer.muon_names
    [group] = [
        group
        for group in optimizer.adamw.param_groups
        if any(one is optimizer.masters[name] for one in group["params"])
    ]
    assert group["base"] == RATES.embeddings
