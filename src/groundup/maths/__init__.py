"""Step 1: mathematics on NumPy alone. Calculus, linear algebra, probability, optimization.

Calculus        tensor (the tape, backward and arithmetic: start here), ops, einsum, forward,
                gradcheck, derivatives; graph draws a computation
Linear algebra  linalg, transforms
Probability     probability, kl, bayes, intervals, correlation, calibration, roc, ngram, trie
Optimization    optimize, landscapes

This package exports the names of calculus; import the others from their modules.
"""

from groundup.maths.arrays import ShapeError
from groundup.maths.derivatives import hessian, hessian_vector_product, jacobian
from groundup.maths.einsum import einsum
from groundup.maths.forward import jvp
from groundup.maths.gradcheck import gradcheck, gradgradcheck
from groundup.maths.graph import animate, draw, steps
from groundup.maths.ops import cat, gelu, maximum, minimum, silu, stack
from groundup.maths.tensor import GradientError, Tensor, grad, no_grad, where

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
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hessian_vector_product",
    "jacobian",
    "jvp",
    "maximum",
    "minimum",
    "no_grad",
    "silu",
    "stack",
    "steps",
    "where",
]
