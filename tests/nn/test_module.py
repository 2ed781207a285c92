"""Modules: parameter names as in torch, saving and loading, and traversal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import nn
from groundup.errors import UserError
from groundup.maths import Tensor, no_grad


class Block(nn.Module):
    """A block with layers in lists, a constant, and no call of super().__init__()."""

    def __init__(self, width: int = 3) -> None:
        self.layers = [nn.Linear(width, width, rng=i) for i in range(2)]
        self.norm = nn.LayerNorm(width)
        self.scale = Tensor(np.ones(width, np.float32))
        self.plain = Tensor(np.ones(width), requires_grad=False)
        self.seen: Tensor | None = None
        self.register_buffer("steps", Tensor(np.zeros(2), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        self.seen = self.norm(x) * self.scale
        return self.seen


class TorchBlock(torch.nn.Module):
    """The same block in torch."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))
        self.norm = torch.nn.LayerNorm(width)
        self.scale = torch.nn.Parameter(torch.ones(width))
        self.register_buffer("steps", torch.zeros(2, dtype=torch.float64))


def nets() -> tuple[nn.Sequential, torch.nn.Sequential]:
    ours = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Sequential(Block()), nn.GRU(3, 2))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(2, 3),
        torch.nn.Tanh(),
        torch.nn.Sequential(TorchBlock()),
        torch.nn.GRU(3, 2),
    )
    return ours, theirs


def test_parameter_names_equal_torchs() -> None:
    ours, theirs = nets()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    names = [name for name, _ in ours.named_parameters()]
    assert set(names) == {name for name, _ in theirs.named_parameters()}
    assert len(names) == len(set(names)) == len(list(ours.parameters()))
    assert [name for name, _ in ours.named_buffers()] == ["2.0.steps"]


def test_a_computed_tensor_is_not_a_parameter() -> None:
    block = Block()
    before = list(block.state_dict())
    block(Tensor(np.ones((1, 3), np.float32)))  # keeps its output as an attribute
    with no_grad():
        block(Tensor(np.ones((1, 3), np.float32)))
    assert list(block.state_dict()) == before


def test_a_frozen_parameter_remains_a_parameter() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert set(layer.to(np.float64).state_dict()) == {"weight", "bias"}
    assert not layer.weight.requires_grad


def test_a_replaced_parameter_is_not_listed() -> None:
    layer = nn.Linear(2, 2)
    kept = layer.weight
    layer.weight = kept * 2
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    layer.bias = Tensor([0.0, 0.0], requires_grad=False)
    assert not layer.state_dict()
    layer.weight = kept
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    kept.requires_grad_(False)
    layer.weight = kept  # frozen, and given to its own name again
    with no_grad():
        layer.weight *= 2
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_tensor_becomes_a_parameter_when_it_requires_gradients() -> None:
    layer = nn.Linear(2, 2)
    layer.bias = Tensor([0.0, 0.0], requires_grad=False)
    layer.bias.requires_grad_()
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    layer.bias = layer.bias
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_the_state_loads_in_torch_and_back() -> None:
    ours, theirs = nets()
    state = ours.state_dict()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2)
    back = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(back)
    for name, array in ours.state_dict().items():
        doubled = state[name] * (1 if "steps" in name else 2)
        np.testing.assert_array_equal(array, doubled, err_msg=name)
        assert array.dtype == state[name].dtype


def test_a_state_is_a_copy() -> None:
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    state["weight"][:] = 7
    assert not (layer.weight.data == 7).any()
    layer.load_state_dict(state)
    state["weight"][:] = 8
    assert (layer.weight.data == 7).all()


def test_loading_keeps_the_tensors_of_an_optimizer() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight
    layer.load_state_dict(nn.Linear(2, 2).state_dict())
    assert layer.weight is before and layer.weight.requires_grad and layer.weight.is_leaf


def test_a_state_that_does_not_fit_is_described_and_not_loaded() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = net.state_dict()
    wrong = {name: array + 1 for name, array in before.items()}
    wrong["1.weight"] = np.zeros((2, 2))
    wrong["head"] = wrong.pop("0.bias")
    with pytest.raises(UserError) as raised:
        net.load_state_dict(wrong)
    said = str(raised.value)
    assert "1.weight has shape (2, 2) there and (1, 3) here" in said
    assert "missing: 0.bias" in said and "unexpected: head" in said and "strict=False" in said
    with pytest.raises(UserError, match=r"1\.weight has shape"):
        net.load_state_dict(wrong, strict=False)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    del wrong["1.weight"]
    net.load_state_dict(wrong, strict=False)
    np.testing.assert_array_equal(net.state_dict()["0.weight"], before["0.weight"] + 1)
    np.testing.assert_array_equal(net.state_dict()["0.bias"], before["0.bias"])


def test_save_and_load(tmp_path: Path) -> None:
    ours, theirs = nets()
    ours.save(tmp_path / "net.safetensors")
    (tmp_path / "usual").touch()
    modes = {file.name: file.stat().st_mode for file in tmp_path.iterdir()}
    assert modes["net.safetensors"] == modes["usual"] and len(modes) == 2
    other, _ = nets()
    other.load(tmp_path / "net.safetensors")
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, ours.state_dict()[name])
    from safetensors.torch import load_file

    theirs.load_state_dict(load_file(tmp_path / "net.safetensors"))


def test_an_invalid_file_is_named(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(UserError, match="absent"):
        net.load(tmp_path / "absent")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        net.load(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2, 2, dtype=torch.bfloat16)}, tmp_path / "bf16")
    with pytest.raises(UserError, match="bf16"):
        net.load(tmp_path / "bf16")


class Tied(nn.Module):
    """An output layer that shares the embedding, and a layer that is used twice."""

    def __init__(self) -> None:
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.first = nn.Linear(4, 4)
        self.again = self.first

    def forward(self, ids: np.ndarray) -> Tensor:
        logits: Tensor = self.head(self.again(self.first(self.embed(ids))))
        return logits


def test_shared_parameters_are_listed_once_and_saved_under_all_names(tmp_path: Path) -> None:
    net = Tied()
    assert [name for name, _ in net.named_parameters()] == [
        "embed.weight",
        "first.weight",
        "first.bias",
    ]
    assert {"embed.weight", "head.weight", "first.bias", "again.bias"} <= set(net.state_dict())
    assert len(list(net.modules())) == 4
    net.to(np.float64)
    assert net.head.weight is net.embed.weight and net.head.weight.dtype == np.float64
    net.save(tmp_path / "tied")
    other = Tied()
    other.load(tmp_path / "tied")
    np.testing.assert_array_equal(other(np.arange(5)).dtype, np.float32)
    net(np.arange(5)).sum().backward()
    assert net.embed.weight.grad is not None


def test_training_mode_reaches_all_modules() -> None:
    net, _ = nets()
    assert all(not module.training for module in net.eval().modules())
    assert all(module.training for module in net.train().modules())


def test_zero_grad_clears_gradients() -> None:
    block = Block()
    block(Tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    for parameter in block.parameters():
        parameter.grad = parameter * np.nan
    block.zero_grad(set_to_none=False)
    for parameter in block.parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape
        assert not parameter.grad.data.any() and parameter.grad.dtype == parameter.dtype
    block.zero_grad()
    assert all(parameter.grad is None for parameter in block.parameters())


def test_apply_calls_children_before_parents() -> None:
    ours, theirs = nets()
    names: list[str] = []
    true_names: list[str] = []
    ours.apply(lambda module: names.append(type(module).__name__))
    theirs.apply(lambda module: true_names.append(type(module).__name__))
    kinds = {"ModuleList", "TorchBlock", "Block"}
    assert [n for n in names if n not in kinds] == [n for n in true_names if n not in kinds]
    assert names[-1] == "Sequential"


def test_a_copy_has_its_own_parameters() -> None:
    net, _ = nets()
    other = copy.deepcopy(net)
    assert set(other.state_dict()) == set(net.state_dict())
    ours = {id(parameter) for parameter in net.parameters()}
    assert ours.isdisjoint(id(parameter) for parameter in other.parameters())


def test_sequential_behaves_like_a_list() -> None:
    net = nn.Sequential(nn.Linear(2, 3)).append(nn.ReLU())
    assert len(net) == 2 and isinstance(net[1], nn.ReLU) and next(iter(net)) is net[0]
    x = Tensor(np.ones((1, 2), np.float32))
    assert nn.Sequential()(x) is x


def test_repr_shows_the_tree() -> None:
    def tree(n: Any) -> Any:
        return n.Sequential(
            n.Linear(2, 3), n.Sequential(n.ReLU(), n.Embedding(4, 2)), n.Dropout(0.1)
        )

    ours = repr(tree(nn))
    assert ours == repr(tree(torch.nn)).replace(", inplace=False", "")
    assert repr(nn.CausalSelfAttention(4, 2)).startswith(
        "CausalSelfAttention(\n  heads=2\n  (q_proj): Linear(in_features=4, "
    )
    assert "(layers.1): Linear" in repr(Block())


def test_mistakes_are_named() -> None:
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)
    with pytest.raises(ValueError, match="buffer b requires gradients"):
        nn.Module().register_buffer("b", Tensor([1.0]))
