"""1.2 The chain rule on a graph: your own backpropagation.

The lesson: groundup learn 1.2        Check it: groundup learn check 1.2
"""

from groundup.maths.ops import sum_to
from groundup.maths.tensor import Tensor


def backward(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """Return dL/dt for root and every tensor t it was computed from that requires a gradient.

    root    the last tensor of a computation
    seed    dL/d(root), of root's shape
    returns a dictionary: t.number -> the gradient of t, a Tensor of t's shape
    """
    raise NotImplementedError
