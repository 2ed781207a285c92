"""Puts the learner's LoRA into adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from groundup.adapters.attach import add_lora, merge
from groundup.adapters.layers import dense
from groundup.adapters.lora import LoRA, LoRALinear
from groundup.learn.plain import all_replaced, plain_path
from groundup.learn.small import losses, replies, small_model

USED_BY = "adapters in training (--adapter lora and qlora), in chat, and when they are merged"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """DoRA, which trains magnitudes separately, and the saving of adapters stay the product's."""
    product = (LoRALinear.forward, LoRALinear._sum, LoRALinear.add)

    def forward(self: LoRALinear, x: Tensor) -> Tensor:
        if self.active is None or self.adapters[self.active].use_dora:
            return product[0](self, x)
        setting = self.adapters[self.active]
        seen = dropout(x, setting.dropout) if self.training and setting.dropout else x
        down, up = self.factors(self.active, x.dtype)
        y: Tensor = part.lora(seen, self.base_layer(x), down, up, setting.scale)
        return y

    def add(self: LoRALinear, name: str, setting: LoRA, generator: torch.Generator) -> None:
        state = generator.get_state()
        product[2](self, name, setting, generator)
        # The learner's function uses torch's global generator, set here to the adapter's state.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            down, up = part.start(setting.rank, self.in_features, self.out_features)
        for parts, new in ((self.lora_A, down), (self.lora_B, up)):
            parts[name].weight = nn.Parameter(new.to(parts[name].weight.device))

    def whole(self: LoRALinear, name: str) -> Tensor:
        setting = self.adapters[name]
        down, up = self.factors(name, torch.float32)
        if setting.use_dora:
            return product[1](self, name)
        found: Tensor = part.merged(dense(self.base_layer), down, up, setting.scale)
        return found

    with (
        plain_path(),
        all_replaced(
            (LoRALinear, "forward", forward), (LoRALinear, "add", add), (LoRALinear, "_sum", whole)
        ),
    ):
        yield


def try_it() -> list[float]:
    """Replies of a small model with an adapter, its gradients, and a matrix after merging."""
    model = add_lora(small_model(), rank=2, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:  # A as well, whose numbers may be drawn in any order
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    found = [*replies(model), *losses(model)]
    whole: Tensor = merge(model).get_submodule("model.layers.0.mlp.up_proj").weight  # type: ignore[assignment]
    return [*found, *whole[0].tolist()]
