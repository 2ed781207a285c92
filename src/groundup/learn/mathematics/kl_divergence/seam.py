"""Where the part of 1.7 enters the product: GRPO's penalty for leaving the reference."""

from contextlib import AbstractContextManager
from types import ModuleType

from torch import Tensor, tensor

from groundup.align import grpo
from groundup.learn.exercise import replaced

USED_BY = "groundup grpo: your k3 is its penalty for leaving the reference model"
# The part of `grpo` replaces the same function, with a gradient.
GIVES_WAY_TO = "grpo"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part estimates KL(policy ‖ reference), token by token."""

    def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
        found: Tensor = part.k3(reference_logprobs - logprobs)
        return found

    return replaced(grpo, "kl_estimate", kl_estimate)


def try_it() -> list[float]:
    """The estimates of three tokens."""
    policy, reference = tensor([-0.5, -2.0, -0.1]), tensor([-0.7, -1.0, -0.1])
    found: list[float] = grpo.kl_estimate(policy, reference).tolist()
    return found
