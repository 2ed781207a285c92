"""The product on its plain code path, where every equation is a function that can be replaced.

Fast paths compute the same differently: kernels in C, decoding layer by layer, compiled blocks.
They bypass these functions, so a replaced function takes effect only if they are off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from groundup.kernels import library as kernels
from groundup.learn.exercise import replaced

Place = tuple[object, str, object]


@contextmanager
def all_replaced(*places: Place) -> Iterator[None]:
    """Within the context, replace each attribute given as (module or class, name, new value)."""
    with ExitStack() as stack:
        for owner, name, new in places:
            stack.enter_context(replaced(owner, name, new))
        yield


@contextmanager
def plain_path() -> Iterator[None]:
    """Within the context, use no kernels, no compiled blocks and no separate decoder layers."""
    from groundup.generation import decode
    from groundup.lm.model import CausalLM
    from groundup.train import device

    with ExitStack() as stack:
        # A stage that starts within the context chooses its kernels by this variable.
        before = os.environ.get(kernels.VARIABLE)
        os.environ[kernels.VARIABLE] = "none"
        stack.callback(_set, kernels.VARIABLE, before)
        stack.enter_context(kernels.plain())
        stack.enter_context(
            all_replaced(
                (decode, "is_plain", lambda config: False),
                (decode, "Kernel", _NoKernel),
                (CausalLM, "compile_blocks", lambda model: None),
                (device, "compile_chunks", lambda on: None),
            )
        )
        yield


def _set(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


class _NoKernel:
    @classmethod
    def of(cls, model: object) -> None:
        return None
