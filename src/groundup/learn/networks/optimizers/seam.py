"""Where the part of 2.4 enters the product: AdamW of step 2 and of every training stage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from groundup.learn.exercise import replaced
from groundup.maths.arrays import Array
from groundup.nn import SGD, optim
from groundup.nn.optim import AdamW, State

USED_BY = "AdamW in every stage: pretrain, sft, dpo, reward, ppo … and the networks of step 2"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """The part takes every step of AdamW, on both engines, and of plain SGD with momentum."""
    plain = SGD.update

    def adamw(self: AdamW, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        m, s = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = self.betas
        found = part.adamw_step(w, g, m, s, t, lr, beta1, beta2, self.eps, self.weight_decay)
        for array, new in zip((w, m, s), found, strict=True):
            array[...] = new

    def sgd(self: SGD, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        if not self.momentum or self.dampening or self.nesterov or self.weight_decay:
            plain(self, w, g, state, t, lr)
            return
        v = state["momentum_buffer"]
        new_w, new_v = part.sgd_step(w, g, v, lr, self.momentum)
        w[...], v[...] = new_w, new_v

    class OwnAdamW(torch.optim.AdamW):
        """torch's optimizer with its settings and state; the part computes the step."""

        @torch.no_grad()
        def step(self, closure: Callable[[], float] | None = None) -> Any:
            loss = None if closure is None else closure()
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        _step(part, p, self.state[p], group)
            return loss

    with (
        replaced(optim.AdamW, "update", adamw),
        replaced(optim.SGD, "update", sgd),
        replaced(torch.optim, "AdamW", OwnAdamW),
    ):
        yield


def _step(part: ModuleType, p: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    state["step"] += 1
    beta1, beta2 = group["betas"]
    assert p.grad is not None
    found = part.adamw_step(
        p.detach(),
        p.grad,
        state["exp_avg"],
        state["exp_avg_sq"],
        int(state["step"]),
        float(group["lr"]),
        beta1,
        beta2,
        group["eps"],
        group["weight_decay"],
    )
    for tensor, new in zip((p, state["exp_avg"], state["exp_avg_sq"]), found, strict=True):
        tensor.copy_(new)


def try_it() -> list[float]:
    """Weights after three steps of a training stage's optimizer."""
    from groundup.train.optim import Optimizer, Rates

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    optimizer = Optimizer(model, Rates(0.1, 0.1, 0.1, weight_decay=0.1), muon=False)
    for _ in range(3):
        model(torch.ones(1, 2)).square().sum().backward()
        optimizer.adamw.step()
        optimizer.adamw.zero_grad()
    return [float(x) for p in model.parameters() for x in p.detach().flatten()]
