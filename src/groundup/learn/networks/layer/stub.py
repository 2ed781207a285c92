"""2.1 A neuron, a layer.

The lesson: groundup learn 2.1        Check it: groundup learn check 2.1
"""

from groundup.maths import Tensor


def neuron(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return sigmoid(w · x + b), one number, for x (n,), w (n,) and one number b."""
    raise NotImplementedError


def layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b, (…, out), for x (…, in), weight (out, in), and bias (out,) or None."""
    raise NotImplementedError
