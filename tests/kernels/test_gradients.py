"""Gradients of matrices: exact products in float32, for the optimizer's sums or for autograd."""

from __future__ import annotations

import pytest
import torch
from tests.kernels.conftest import HOOKS, error, normal, number, within
from torch import Tensor, nn

from groundup.kernels.gradients import add_product, sum_into
from groundup.kernels.library import Kernels
from groundup.kernels.linear import linears
from groundup.train.optim import Optimizer, Rates


@pytest.mark.parametrize("tokens", [1, 31, 256, 700])
@pytest.mark.parametrize("sizes", [(32, 32), (96, 64), (64, 416)])
def test_products_are_summed_in_float32(
    kernels: Kernels, tokens: int, sizes: tuple[int, int]
) -> None:
    out, width = sizes
    dy, x = normal(0, tokens, out), normal(1, tokens, width)
    total = torch.ones(out, width)
    add_product(total, dy, x)
    expected = dy.double().T @ x.double() + 1
    assert error(total, expected) < 2e-6  # in bfloat16 it would be 1e-3


def test_a_sum_does_not_depend_on_the_number_of_threads(kernels: Kernels) -> None:
    if number() == torch.float32:
        pytest.skip("the product of float32 is PyTorch's")
    dy, x = normal(0, 300, 64), normal(1, 300, 96)
    found = []
    for threads in (1, 2, 5):  # with five, some have no part of the 3 x 2 blocks
        torch.set_num_threads(threads)
        found.append(torch.zeros(64, 96))
        add_product(found[-1], dy, x)
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_layers_with_the_same_input(kernels: Kernels) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, out, bias=False).to(number()) for out in (32, 96)]
    masters = [layer.weight.detach().float().requires_grad_() for layer in layers]
    x, dys = normal(2, 3, 50, 64), [normal(3, 3, 50, 32), normal(4, 3, 50, 96)]
    x32 = x.double().requires_grad_()
    products = [x32 @ layer.weight.double().T for layer in layers]
    weights = [layer.weight for layer in layers]
    true = torch.autograd.grad(products, [x32, *weights], [dy.double() for dy in dys])

    x.requires_grad_()
    ys = linears(x, *layers)
    for y, product in zip(ys, products, strict=True):
        assert error(y, product) < within(0.003)
    found = torch.autograd.grad(ys, [x, *weights], dys)
    for mine, theirs in zip(found, true, strict=True):
        assert error(mine, theirs) < within(0.004)

    for weight, master in zip(weights, masters, strict=True):
        sum_into(weight, master)
    for times in (1, 2):  # the second time it is added to the first
        torch.autograd.backward(linears(x, *layers), dys)
        for weight, master, dy in zip(weights, masters, dys, strict=True):
            assert weight.grad is None and master.grad is not None
            product = dy.double().flatten(0, 1).T @ x.detach().double().flatten(0, 1)
            assert error(master.grad, times * product) < 2e-6


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_on_a_layer_is_called(kernels: Kernels, hook: str) -> None:
    layer = nn.Linear(64, 64, bias=False).to(number())
    heard = list[bool]()
    getattr(layer, f"register_{hook}_hook")(lambda *_: heard.append(True))
    [y] = linears(normal(0, 4, 64).requires_grad_(), layer)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert heard


def test_a_hook_on_a_weight_gets_its_gradient(kernels: Kernels) -> None:
    layer = nn.Linear(64, 64, bias=False).to(number())
    sum_into(layer.weight, layer.weight.detach().float().requires_grad_())
    heard = list[Tensor]()
    layer.weight.register_hook(heard.append)
    [y] = linears(normal(0, 4, 64), layer)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None and torch.equal(heard[0], layer.weight.grad)


def test_an_earlier_hook_on_a_weight_gets_its_gradient(
    kernels: Kernels,
) -> None:
    layer = nn.Linear(64, 64, bias=False).to(number())
    seen = list[bool]()
    layer.weight.register_post_accumulate_grad_hook(lambda one: seen.append(one.grad is not None))
    optimizer = Optimizer(layer, Rates(0.0, 0.0, 0.0))
    [y] = linears(normal(0, 4, 64), layer)
    y.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.release()
    assert seen == [True]


def test_the_gradient_of_no_tokens_is_zero(kernels: Kernels) -> None:
    layer = nn.Linear(64, 64, bias=False).to(number())
    torch.use_deterministic_algorithms(True)  # uninitialized memory may be NaN
    try:
        [y] = linears(normal(0, 0, 64), layer)
        y.sum().backward()  # type: ignore[no-untyped-call]
    finally:
        torch.use_deterministic_algorithms(False)
    assert layer.weight.grad is not None and not layer.weight.grad.any()
