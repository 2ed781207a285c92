"""Grades LoRA by `groundup.adapters.lora`."""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from groundup.adapters.lora import LoRA, LoRALinear
from groundup.learn.exercise import Trial, calls

_trial = partial(Trial, rtol=1e-4, atol=1e-5)


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for rank, inputs, outputs, leading in ((1, 1, 1, (1,)), (1, 2, 3, (1,)), (2, 6, 5, (2, 3))):
        weight, down, up = drawn(outputs, inputs), drawn(rank, inputs), drawn(outputs, rank)
        x, alpha = drawn(*leading, inputs), 3.0 * rank
        layer = _layer(weight, down, up, alpha)
        base, scale = (x @ weight.T).detach(), alpha / rank
        about = f"x of shape {tuple(x.shape)}, rank {rank}, {outputs} outputs"
        yield _trial(
            f"lora of {about}",
            calls("lora", x, base, down, up, scale),
            layer(x),
            {"x": x, "base": base, "down": down, "up": up, "scale": scale},
        )
        yield _trial(
            f"merged, {inputs} inputs, rank {rank}, {outputs} outputs",
            calls("merged", weight, down, up, scale),
            layer._sum("one"),
            {"weight": weight, "down": down, "up": up, "scale": scale},
        )
    x, base, down, up = drawn(2, 4), drawn(2, 3), drawn(2, 4), drawn(3, 2)
    layer = _layer(torch.zeros(3, 4), down, up, 1.0)
    layer(x).square().sum().backward()
    wanted = [p.grad for p in (layer.lora_A["one"].weight, layer.lora_B["one"].weight)]
    for place, name in enumerate(("A", "B")):
        expected = wanted[place]
        assert isinstance(expected, Tensor)
        yield _trial(
            f"the gradient of sum(y²) with respect to {name}, where W is zero",
            calls("lora", x, down, up, at=place, via=_gradients),
            expected,
            {"x": x, "down": down, "up": up, "scale": 0.5},
        )
    y = base + 0.5 * x @ down.T @ up.T
    for place, name, expected in ((0, "x", y @ up @ down), (1, "base", 2 * y)):
        yield _trial(
            f"the gradient of sum(y²) with respect to {name}",
            calls("lora", x, base, down, up, at=place, via=_gradients_of_inputs),
            expected,
            {"x": x, "base": base, "down": down, "up": up, "scale": 0.5},
        )
    x, base, down, up = drawn(3, 40), drawn(3, 50), drawn(2, 40), drawn(50, 2)
    yield Trial(
        "does lora make a matrix as large as W, of shape (50, 40)",
        calls("lora", x, base, down, up, 0.5, via=_makes_a_whole_matrix),
        False,
        {"x": x, "base": base, "down": down, "up": up, "scale": 0.5},
    )
    rank, inputs, outputs = 4, 64, 8
    facts: dict[str, Callable[[Tensor, Tensor], object]] = {
        "A's shape": lambda down, up: list(down.shape),
        "B's shape": lambda down, up: list(up.shape),
        "is B zero everywhere": lambda down, up: not bool(up.any()),
        "is A zero everywhere": lambda down, up: not bool(down.any()),
        "is A within 1/√inputs": lambda down, up: bool(down.abs().max() <= 0.125 + 1e-6),
        "is A spread over all of that": lambda down, up: bool(
            down.min() < -0.1 and down.max() > 0.1
        ),
        "does A have many different numbers": lambda down, up: (
            len(set(down.flatten().tolist())) > 200
        ),
        "A's type": lambda down, up: str(down.dtype),
        "B's type": lambda down, up: str(up.dtype),
    }
    down, up = _started(rank, inputs, outputs)
    for name, fact in facts.items():
        yield Trial(
            f"start({rank}, {inputs}, {outputs}): {name}",
            _fact(fact, rank, inputs, outputs),
            fact(down, up),
            {"rank": rank, "inputs": inputs, "outputs": outputs},
        )
    yield Trial(
        f"start({rank}, {inputs}, {outputs}), twice: is A the same",
        calls("start", rank, inputs, outputs, via=_starts_alike),
        False,
        {"rank": rank, "inputs": inputs, "outputs": outputs},
    )


def _fact(fact: Callable[[Tensor, Tensor], object], *sizes: int) -> Callable[[ModuleType], object]:
    return lambda part: fact(*part.start(*sizes))


def _starts_alike(start: Callable[..., tuple[Tensor, Tensor]], *sizes: int) -> bool:
    return torch.equal(start(*sizes)[0], start(*sizes)[0])


class _Sizes(TorchFunctionMode):
    """Records the size of the largest tensor that an operation returns."""

    largest = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.largest = max(self.largest, found.numel())
        return found


def _makes_a_whole_matrix(
    lora: Callable[..., Tensor], x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float
) -> bool:
    with _Sizes() as sizes:
        lora(x, base, down, up, scale)
    return sizes.largest >= len(up) * down.shape[1]


def _layer(weight: Tensor, down: Tensor, up: Tensor, alpha: float) -> LoRALinear:
    base = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    base.weight = nn.Parameter(weight, requires_grad=False)
    layer = LoRALinear(base)
    layer.add("one", LoRA(len(down), alpha), torch.Generator().manual_seed(0))
    layer.lora_A["one"].weight = nn.Parameter(down.clone())
    layer.lora_B["one"].weight = nn.Parameter(up.clone())
    layer.active = "one"
    return layer


def _started(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    layer = LoRALinear(nn.Linear(inputs, outputs, bias=False))
    layer.add("one", LoRA(rank, 1.0), torch.Generator().manual_seed(0))
    down, up = layer.factors("one", torch.float32)
    return down.detach(), up.detach()


def _gradients(
    lora: Callable[..., Tensor], x: Tensor, down: Tensor, up: Tensor
) -> tuple[Tensor, ...]:
    leaves = [down.clone().requires_grad_(), up.clone().requires_grad_()]
    result = lora(x, torch.zeros(2, 3), *leaves, 0.5)
    return torch.autograd.grad(result.square().sum(), leaves)


def _gradients_of_inputs(
    lora: Callable[..., Tensor], x: Tensor, base: Tensor, down: Tensor, up: Tensor
) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_(), base.clone().requires_grad_()]
    # The factors need gradients too, as they do in training.
    factors = [down.clone().requires_grad_(), up.clone().requires_grad_()]
    total = lora(*leaves, *factors, 0.5).square().sum()
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return tuple(
        torch.zeros_like(leaf) if one is None else one
        for leaf, one in zip(leaves, found, strict=True)
    )
