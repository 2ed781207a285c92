"""2.4 From SGD to AdamW.

The lesson: groundup learn 2.4        Check it: groundup learn check 2.4
"""

from typing import Any

Array = Any
"""A NumPy array or a torch tensor."""


def sgd_step(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """Return (w, v) after one step of SGD with momentum; g is the gradient of w.

    All arrays have one shape; none is changed.
    """
    raise NotImplementedError


def adamw_step(
    w: Array,
    g: Array,
    m: Array,
    s: Array,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """Return (w, m, s) after step t of AdamW; t = 1 in the first step.

    All arrays have one shape; none is changed.
    """
    raise NotImplementedError
