"""Puts the learner's block into the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import Tensor
from torch.nn.functional import silu

from groundup.learn.plain import all_replaced, plain_path
from groundup.learn.small import losses, replies
from groundup.lm import model
from groundup.lm.attention import Bias
from groundup.lm.cache import Write
from groundup.lm.positions import Rotation

USED_BY = "every layer of every transformer: its wiring, its norms, and its SwiGLU if it has one"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """Other kinds of blocks (norms after the addition, no gate) stay the product's."""
    product = (model.MLP.forward, model.Block.forward)

    def norm(self: model.RMSNorm, x: Tensor) -> Tensor:
        # In float32, whatever dtype the model uses.
        normed: Tensor = part.rms_norm(x.float(), self.weight.float(), self.eps)
        return normed.to(x.dtype)

    def mlp(self: model.MLP, x: Tensor) -> Tensor:
        if self.gate_proj is None or self.activation is not silu:
            return product[0](self, x)
        found: Tensor = part.swiglu(x, self.gate_proj, self.up_proj, self.down_proj)
        return found

    def block(
        self: model.Block,
        x: Tensor,
        seen: Bias,
        cos_sin: Rotation | None,
        write: Write | None,
    ) -> Tensor:
        if not self.norms_before:
            return product[1](self, x, seen, cos_sin, write)
        stream: Tensor = part.block(
            x,
            self.input_layernorm,
            lambda y: self.self_attn(y, seen, cos_sin, write),
            self.post_attention_layernorm,
            self.mlp,
        )
        return stream

    with (
        plain_path(),
        all_replaced(
            (model.RMSNorm, "forward", norm),
            (model.MLP, "forward", mlp),
            (model.Block, "forward", block),
        ),
    ):
        yield


def try_it() -> list[float]:
    """Replies of a small model, and its loss and gradients."""
    return [*replies(), *losses()]
