"""Step 1: mathematics on NumPy alone. Calculus, linear algebra, probability, optimisation."""

from groundup.maths.autograd import GradientError, Tensor, grad, no_grad
from groundup.maths.draw import draw
from groundup.maths.einsum import einsum
from groundup.maths.ops import cat, gelu, maximum, minimum, silu, stack, where
from groundup.maths.steps import animate, steps
from groundup.maths.values import ShapeError

__all__ = [
    "GradientError",
    "ShapeError",
    "Tensor",
    "animate",
    "cat",
    "draw",
    "einsum",
    "gelu",
    "grad",
    "maximum",
    "minimum",
    "no_grad",
    "silu",
    "stack",
    "steps",
    "where",
]
