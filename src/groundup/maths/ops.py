"""The operations of a tensor beyond arithmetic, each with its value and the rule of its gradient.

Two kinds of rules cover nearly all. An elementwise function multiplies the gradient by its
derivative: y = exp(x) gives g · y. A linear map y = A x sends the gradient back through its
transpose, Aᵀ g. The transpose of a sum is a repetition, of a slice a padding with zeros, of a
gather an adding scatter, and of a shift the opposite shift.

Functions of one tensor are also methods: `exp(x)` is `x.exp()`. Dimensions count as in torch, from
0, or from -1 at the end.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from math import erf as erf_of_number
from math import pi, prod
from math import sqrt as root
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from groundup.maths.arrays import Array, Shape, ShapeError, array_index, as_array, index_in_steps

if TYPE_CHECKING:  # the module whose methods these are
    from groundup.maths.tensor import Forward, Operand, Rule, Tensor

Dims: TypeAlias = int | Sequence[int] | None
"""One dimension, several, or all."""


# Elementwise functions: g times the derivative


def _elementwise(name: str, x: Tensor, forward: Forward, rule: Rule) -> Tensor:
    return x.apply(name, forward, (_floating(x),), (rule,))


def _floating(x: Tensor) -> Tensor:
    """Convert integers and booleans to float64; NumPy's functions would use float16 for bytes."""
    return x if x.dtype.kind == "f" else double(x)


def _weighted(g: Tensor, weights: Any) -> Tensor:
    """Multiply a gradient by constant weights; a weight of 0 gives 0 even for infinities."""

    def forward(a: Array) -> Any:
        out = a * weights
        if not np.isfinite(out.sum()):  # np.where alone would be several times as slow
            out = np.where(weights == 0, a.dtype.type(0), out)
        return out

    return _linear("weighted", g, forward, lambda h: _weighted(h, weights))


def exp(x: Tensor) -> Tensor:
    """d exp(x) = exp(x) dx."""
    return _elementwise("exp", x, np.exp, lambda g, y: g * y)


def log(x: Tensor) -> Tensor:
    """d log(x) = dx / x."""
    return _elementwise("log", x, np.log, lambda g, _: g / x)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact near 0; d log(1 + x) = dx / (1 + x)."""
    return _elementwise("log1p", x, np.log1p, lambda g, _: g / (1 + x))


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, exact near 0; its derivative is exp(x)."""
    return _elementwise("expm1", x, np.expm1, lambda g, y: g * (y + 1))


def sqrt(x: Tensor) -> Tensor:
    """d √x = dx / 2√x."""
    return _elementwise("sqrt", x, np.sqrt, lambda g, y: g / (2 * y))


def rsqrt(x: Tensor) -> Tensor:
    """y = 1/√x, dy = -y³/2 dx."""
    return _elementwise("rsqrt", x, lambda a: 1 / np.sqrt(a), lambda g, y: g * (y * y * y * -0.5))


def square(x: Tensor) -> Tensor:
    """d x² = 2x dx."""
    return x**2


def reciprocal(x: Tensor) -> Tensor:
    """d 1/x = -dx / x²."""
    return 1 / x


def tanh(x: Tensor) -> Tensor:
    """y = tanh(x), dy = (1 - y²) dx."""
    return _elementwise("tanh", x, np.tanh, lambda g, y: g * (1 - y * y))


def sigmoid(x: Tensor) -> Tensor:
    """y = 1 / (1 + exp(-x)), dy = y (1 - y) dx."""

    def forward(a: Array) -> Array:
        out = np.asarray(np.exp(-a))
        out += 1
        np.divide(1, out, out=out)
        return out

    return _elementwise("sigmoid", x, forward, lambda g, y: g * (y * (1 - y)))


def relu(x: Tensor) -> Tensor:
    """max(x, 0); the derivative at 0 is 0."""
    return x.apply(
        "relu",
        lambda a: np.maximum(a, 0),
        (x,),
        (lambda g, _: _weighted(g, ~(x.data <= 0)),),
    )


def erf(x: Tensor) -> Tensor:
    """The error function, by `math.erf` for each element; d erf(x) = 2/√π exp(-x²) dx."""

    def forward(a: Array) -> Array:
        values = np.fromiter(map(erf_of_number, a.ravel().tolist()), np.float64, a.size)
        return values.reshape(a.shape).astype(a.dtype)

    return _elementwise("erf", x, forward, lambda g, _: g * (exp(-x * x) * (2 / root(pi))))


def sin(x: Tensor) -> Tensor:
    """d sin(x) = cos(x) dx."""
    return _elementwise("sin", x, np.sin, lambda g, _: g * cos(x))


def cos(x: Tensor) -> Tensor:
    """d cos(x) = -sin(x) dx."""
    return _elementwise("cos", x, np.cos, lambda g, _: -g * sin(x))


def abs(x: Tensor) -> Tensor:
    """d |x| = sign(x) dx, 0 at 0."""
    return x.apply("abs", np.abs, (x,), (lambda g, _: g * np.sign(x.data),))


def clip(x: Tensor, min: builtins.float | None = None, max: builtins.float | None = None) -> Tensor:
    """x limited to constant bounds; the derivative is 0 beyond them, and 1 at a bound.

    So it is in torch before 2.15; later its derivative is 0 at a bound, too.
    """
    low = None if min is None else x.as_operand(min).data
    high = None if max is None else x.as_operand(max).data

    def inside(g: Tensor, _: Tensor) -> Tensor:
        above = True if low is None else x.data >= low
        below = True if high is None else x.data <= high
        return _weighted(g, np.logical_and(above, below))

    return x.apply("clip", lambda a: np.clip(a, low, high), (x,), (inside,))


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x) (Elfwing, Uchibe and Doya 2017; also called swish)."""
    return x * sigmoid(x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x Φ(x), with Φ the normal cumulative distribution function (Hendrycks and Gimpel 2016).

    `approximate="tanh"` is that paper's x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))). Raises
    `ValueError` for another approximation.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r} must be 'none' or 'tanh'")
    if x.dtype == np.float16:  # its cubes soon exceed the largest float16, 65,504
        return to(gelu(float(x), approximate), x.dtype)
    if approximate == "tanh":
        return 0.5 * x * (1 + tanh((x + 0.044715 * x**3) * root(2 / pi)))
    return 0.5 * x * (1 + erf(x * root(0.5)))


def maximum(a: Tensor, b: Operand) -> Tensor:
    """The elementwise maximum of two tensors; equal elements share the gradient."""
    return _extremum_of_two("maximum", np.maximum, np.less, a, a.as_operand(b))


def minimum(a: Tensor, b: Operand) -> Tensor:
    """The elementwise minimum of two tensors; equal elements share the gradient."""
    return _extremum_of_two("minimum", np.minimum, np.greater, a, a.as_operand(b))


def _extremum_of_two(name: str, forward: Forward, loses: np.ufunc, a: Tensor, b: Tensor) -> Tensor:
    def share(mine: Tensor, theirs: Tensor) -> Rule:
        def rule(g: Tensor, _: Tensor) -> Tensor:
            wins = ~loses(mine.data, theirs.data)
            weights = np.where(mine.data == theirs.data, 0.5, wins)
            return _weighted(g, weights.astype(g.dtype))

        return rule

    return a.apply(name, forward, (a, b), (share(a, b), share(b, a)))


def logaddexp(a: Tensor, b: Operand) -> Tensor:
    """log(exp(a) + exp(b)), without overflow and exact if one of the two is far larger."""
    other = a.as_operand(b)
    rules = (
        lambda g, _: g * sigmoid(a - other),
        lambda g, _: g * sigmoid(other - a),
    )
    return a.apply("logaddexp", np.logaddexp, (_floating(a), _floating(other)), rules)


# Reductions


def _given(dim: Dims, empty: Shape | None = None) -> int | tuple[int, ...] | None:
    """Return the dimensions; an empty list means all, as in torch, or `empty` if given."""
    return tuple(dim) or empty if isinstance(dim, Sequence) else dim


def _axes(x: Tensor, dim: Dims, empty: Shape | None = None) -> int | tuple[int, ...] | None:
    """Return axes for NumPy, which accepts no list of axes for a 0-dimensional array."""
    axes = _given(dim, empty)
    return axes if x.ndim or not isinstance(axes, tuple) else _axes_of_a_number(axes)


def _axes_of_a_number(dims: Sequence[int]) -> Shape:
    """Return no axes; raise `ShapeError` for more than one, or one that is not 0 or -1."""
    if len([_dim(dim, 0) for dim in dims]) > 1:
        raise ShapeError(f"dimensions {tuple(dims)} of a number are one; give it once")
    return ()


def _dim(dim: int, ndim: int) -> int:
    """Return a dimension counted from 0; a tensor without dimensions counts as having one."""
    n = builtins.max(ndim, 1)
    if not -n <= dim < n:
        raise ShapeError(f"dimension {dim} is not one of {ndim}; give {-n} to {n - 1}")
    return dim % n


def _dims(x: Tensor, dim: Dims, empty: Shape | None = None) -> set[int]:
    dims = _given(dim, empty)
    listed = range(x.ndim) if dims is None else dims if isinstance(dims, tuple) else (dims,)
    return {_dim(d, x.ndim) for d in listed}


def _with_dims(y: Tensor, x: Tensor, dim: Dims) -> Tensor:
    """Return a reduced tensor with the reduced dimensions restored, with length 1."""
    reduced = _dims(x, dim)
    return y.reshape(*(1 if d in reduced else n for d, n in enumerate(x.shape)))


def sum(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Σ x over some or all dimensions; every element gets the gradient of its sum."""
    return x.apply(
        "sum",
        lambda a: a.sum(axis=_axes(x, dim), keepdims=keepdim),
        (x,),
        (lambda g, _: _with_dims(g, x, dim).expand(*x.shape),),
        linear=True,
    )


def mean(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """sum(x) / n."""
    if x.dtype == np.float16:  # its sums soon exceed the largest float16, 65,504
        return to(mean(float(x), dim, keepdim), x.dtype)
    total = sum(x, dim, keepdim)
    return total / (x.numel() // total.numel() if total.numel() else 0)


def var(
    x: Tensor,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: int | None = None,
) -> Tensor:
    """Σ (x - mean)² / (n - correction); the correction is 1, and 0 unless `unbiased`."""
    if x.dtype == np.float16:  # as in `mean`
        return to(var(float(x), dim, unbiased, keepdim, correction=correction), x.dtype)
    center = mean(x, dim, keepdim=True)
    n = x.numel() // center.numel() if center.numel() else 0
    free = n - (int(unbiased) if correction is None else correction)
    return sum((x - center) ** 2, dim, keepdim) / builtins.max(free, 0)


def std(
    x: Tensor,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: int | None = None,
) -> Tensor:
    """The square root of `var`; where it is 0 the derivative is 0."""
    if x.dtype == np.float16:  # as in `mean`
        return to(std(float(x), dim, unbiased, keepdim, correction=correction), x.dtype)
    spread = var(x, dim, unbiased, keepdim, correction=correction)
    none = spread.data == 0
    return sqrt(spread.masked_fill(none, 1.0)).masked_fill(none, 0.0)


def amax(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest value; several equal largest values share the gradient equally."""
    return _extremum("amax", np.max, x, dim, keepdim)


def amin(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest value; several equal smallest values share the gradient equally."""
    return _extremum("amin", np.min, x, dim, keepdim)


def _extremum(
    name: str,
    best: Callable[..., Any],
    x: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    nans_are_equal: bool = False,
) -> Tensor:
    def shared(g: Tensor, y: Tensor) -> Tensor:
        value = _with_dims(y, x, dim).data
        equal = x.data == value
        if nans_are_equal:
            equal |= np.isnan(x.data) & np.isnan(value)
        share: Array = equal / equal.sum(axis=_axes(x, dim), keepdims=True)
        return _with_dims(g, x, dim) * share.astype(x.dtype)

    def forward(a: Array) -> Any:
        return best(a, axis=_axes(x, dim), keepdims=keepdim)

    return x.apply(name, forward, (x,), (shared,), dim=_axes(x, dim))


class Extreme(NamedTuple):
    """The result of `max` and `min` along a dimension."""

    values: Tensor
    indices: Tensor


def max(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The largest value, or along `dim` the values and their indices, of equal ones the first.

    Without `dim`, equal values share the gradient equally, and so do NaNs, unlike those of `amax`.
    """
    if dim is None:
        return _extremum("amax", np.max, x, nans_are_equal=True)
    return _extreme("max", argmax, x, dim, keepdim)


def min(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest value, or along `dim` the values and their indices, of equal ones the first.

    Without `dim`, equal values share the gradient equally, and so do NaNs, unlike those of `amin`.
    """
    if dim is None:
        return _extremum("amin", np.min, x, nans_are_equal=True)
    return _extreme("min", argmin, x, dim, keepdim)


def _extreme(
    name: str, place: Callable[..., Tensor], x: Tensor, dim: int, keepdim: bool
) -> Extreme:
    _refuse_dims(name, dim, f"a{name} takes several, and {name}imum compares two tensors")
    indices = place(x, dim, keepdim=True)
    values = gather(x, dim, indices)
    return Extreme(
        *((values, indices) if keepdim else (squeeze(values, dim), squeeze(indices, dim)))
    )


def _refuse_dims(name: str, dim: object, remedy: str) -> None:
    """Raise `TypeError` for several dimensions, or none."""
    if not isinstance(dim, (int, np.integer)):
        raise TypeError(
            f"{name} is taken along one dimension, a whole number, not {dim!r}; {remedy}"
        )


def _peak(a: Array, axis: int | tuple[int, ...] | None) -> Any:
    """The largest value, to subtract so that no exponential overflows."""
    return np.max(a, axis=axis, keepdims=True, initial=-np.inf)


def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log Σ exp(x), without overflow; its derivative is the softmax."""

    def forward(a: Array) -> Any:
        peak = _peak(a, _axes(x, dim))
        peak = np.where(np.isinf(peak), a.dtype.type(0), peak)
        total = np.log(np.exp(a - peak).sum(axis=_axes(x, dim), keepdims=True)) + peak
        return total if keepdim else total.squeeze(axis=_axes(x, dim))

    def rule(g: Tensor, y: Tensor) -> Tensor:
        return _with_dims(g, x, dim) * exp(x - _with_dims(y, x, dim))

    return x.apply("logsumexp", forward, (_floating(x),), (rule,), dim=_axes(x, dim))


def softmax(x: Tensor, dim: int) -> Tensor:
    """y = exp(x) / Σ exp(x), dy = y (dx - Σ y dx)."""
    _refuse_dims("softmax", dim, "several are first flattened to one")

    def forward(a: Array) -> Array:
        powers = np.asarray(np.exp(a - _peak(a, dim)))
        powers /= powers.sum(axis=dim, keepdims=True)
        return powers

    def rule(g: Tensor, y: Tensor) -> Tensor:
        return y * (g - sum(g * y, dim, keepdim=True))

    return x.apply("softmax", forward, (_floating(x),), (rule,), dim=dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """y = x - log Σ exp(x), dy = dx - Σ exp(y) dx."""
    _refuse_dims("log_softmax", dim, "several are first flattened to one")

    def forward(a: Array) -> Array:
        below = np.asarray(a - _peak(a, dim))
        below -= np.log(np.exp(below).sum(axis=dim, keepdims=True))
        return below

    def rule(g: Tensor, y: Tensor) -> Tensor:
        return g - exp(y) * sum(g, dim, keepdim=True)

    return x.apply("log_softmax", forward, (_floating(x),), (rule,), dim=dim)


def _constant(
    name: str, forward: Callable[..., Any], x: Tensor, axes: Any, keepdim: bool
) -> Tensor:
    """An operation whose result, booleans or indices, has no gradient."""
    return x.apply(name, lambda a: forward(a, axis=axes, keepdims=keepdim), (x.detach(),), (None,))


def all(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true; an empty list of dimensions reduces none, as in torch."""
    return _constant("all", np.all, x, _axes(x, dim, ()), keepdim)


def any(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is true; an empty list of dimensions reduces none, as in torch."""
    return _constant("any", np.any, x, _axes(x, dim, ()), keepdim)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest value, in the flattened tensor or along `dim`."""
    return _constant("argmax", np.argmax, x, dim, keepdim)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the smallest value, in the flattened tensor or along `dim`."""
    return _constant("argmin", np.argmin, x, dim, keepdim)


def cumsum(x: Tensor, dim: int) -> Tensor:
    """The cumulative sum; its gradient is the cumulative sum from the other end."""
    if not x.ndim:
        return reshape(cumsum(reshape(x, 1), dim), ())
    return _linear(
        "cumsum",
        x,
        lambda a: np.cumsum(a, axis=dim),
        lambda g: flip(cumsum(flip(g, dim), dim), dim),
    )


# Shapes: linear maps that only rearrange elements


def _linear(
    name: str, x: Tensor, forward: Forward, transposed: Callable[[Tensor], Tensor]
) -> Tensor:
    return x.apply(name, forward, (x,), (lambda g, _: transposed(g),), linear=True)


def _sizes(sizes: tuple[Any, ...]) -> Shape:
    """(2, 3) from either f(2, 3) or f((2, 3))."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in row-major order in another shape; one length may be -1."""
    return _linear("reshape", x, lambda a: a.reshape(_sizes(shape)), lambda g: g.reshape(x.shape))


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the dimensions from `start_dim` to `end_dim` into one."""
    if not x.ndim:
        return reshape(x, 1)
    first, last = _dim(start_dim, x.ndim), _dim(end_dim, x.ndim)
    if first > last:
        raise ShapeError(f"start_dim={start_dim} comes after end_dim={end_dim} in shape {x.shape}")
    return reshape(x, *x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :])


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """Insert a dimension of length 1 at `dim`."""
    at = _dim(dim, x.ndim + 1)
    return reshape(x, *x.shape[:at], 1, *x.shape[at:])


def squeeze(x: Tensor, dim: Dims = None) -> Tensor:
    """Remove all dimensions of length 1, or those of `dim` that have length 1."""
    dims = _dims(x, dim, ())
    return reshape(x, *(n for d, n in enumerate(x.shape) if n != 1 or d not in dims))


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two dimensions."""

    def forward(a: Array) -> Array:
        if a.ndim:
            return a.swapaxes(dim0, dim1)
        return a.reshape(1).swapaxes(dim0, dim1).reshape(())

    return _linear("transpose", x, forward, lambda g: transpose(g, dim0, dim1))


def permute(x: Tensor, *order: Any, dims: Sequence[int] | None = None) -> Tensor:
    """Reorder the dimensions: permute(1, 0), permute((1, 0)) or permute(dims=(1, 0))."""
    order = _sizes(order if dims is None else (*order, dims))
    back = [int(d) for d in np.argsort([d % builtins.max(x.ndim, 1) for d in order])]
    return _linear("permute", x, lambda a: a.transpose(order), lambda g: permute(g, *back))


def expand(x: Tensor, *sizes: Any) -> Tensor:
    """Repeat dimensions of length 1, or new ones in front, without a copy; -1 keeps a length."""
    wanted = _sizes(sizes)
    own = (1,) * (len(wanted) - x.ndim) + x.shape
    shape = tuple(n if size == -1 else size for n, size in zip(own, wanted, strict=False))
    return _linear("expand", x, lambda a: np.broadcast_to(a, shape), lambda g: sum_to(g, x.shape))


def sum_to(x: Tensor, shape: Shape) -> Tensor:
    """Undo a broadcast: sum over the dimensions that `shape` lacks or has with length 1."""
    if x.shape == shape:
        return x
    new = x.ndim - len(shape)
    repeated = [d for d, n in enumerate(x.shape) if d < new or (n != 1 and shape[d - new] == 1)]
    return reshape(sum(x, repeated) if repeated else x, *shape)


def repeat(x: Tensor, *sizes: Any) -> Tensor:
    """Repeat the tensor `sizes` times along each dimension."""
    times = _sizes(sizes)
    if len(times) < x.ndim:
        raise ShapeError(f"repeats {times} do not name every dimension of shape {x.shape}")
    shape = (1,) * (len(times) - x.ndim) + x.shape
    pairs = [n for pair in zip(times, shape, strict=True) for n in pair]

    def gathered(g: Tensor) -> Tensor:
        return sum(g.reshape(*pairs), list(range(0, len(pairs), 2))).reshape(x.shape)

    return _linear("repeat", x, lambda a: np.tile(a, times), gathered if pairs else lambda g: g)


def roll(x: Tensor, shifts: int | tuple[int, ...], dims: Dims = None) -> Tensor:
    """Shift elements cyclically along dimensions, or through the flattened tensor."""
    back = -shifts if isinstance(shifts, int) else tuple(-shift for shift in shifts)
    axes = _given(dims)
    return _linear(
        "roll", x, lambda a: np.roll(a, shifts, axis=axes), lambda g: roll(g, back, dims)
    )


def flip(x: Tensor, *axes: Any, dims: Sequence[int] | None = None) -> Tensor:
    """Reverse the order along dimensions: flip(0, 1), flip((0, 1)) or flip(dims=(0, 1))."""
    axes = _sizes(axes if dims is None else (*axes, dims))
    if not x.ndim:
        axes = _axes_of_a_number(axes)
    return _linear("flip", x, lambda a: np.flip(a, axes), lambda g: flip(g, *axes))


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix, and 0 elsewhere."""
    return _triangle(np.tril, x, diagonal)


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix, and 0 elsewhere."""
    return _triangle(np.triu, x, diagonal)


def _triangle(cut: Callable[[Array, int], Array], x: Tensor, diagonal: int) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"only a matrix has triangles, and this tensor has shape {x.shape}")
    return _linear(
        cut.__name__, x, lambda a: cut(a, diagonal), lambda g: _triangle(cut, g, diagonal)
    )


def clone(x: Tensor) -> Tensor:
    """A copy; gradients pass through."""
    return _linear("clone", x, np.copy, lambda g: g)


def to(x: Tensor, dtype: Any) -> Tensor:
    """Convert to another NumPy dtype; integers and booleans are constants."""
    if x.dtype == dtype:
        return x
    source = x if np.dtype(dtype).kind == "f" else x.detach()
    return _linear("to", source, lambda a: a.astype(dtype), lambda g: to(g, x.dtype))


def double(x: Tensor) -> Tensor:
    """Convert to float64."""
    return to(x, np.float64)


def float(x: Tensor) -> Tensor:
    """Convert to float32."""
    return to(x, np.float32)


def long(x: Tensor) -> Tensor:
    """Convert to int64, rounding towards 0."""
    return to(x, np.int64)


def new_ones(x: Tensor, *shape: Any, dtype: Any = None) -> Tensor:
    """A constant of ones, by default with this tensor's dtype."""
    return x.from_numpy(np.ones(_sizes(shape), x.dtype if dtype is None else dtype))


def new_zeros(x: Tensor, *shape: Any, dtype: Any = None) -> Tensor:
    """A constant of zeros, by default with this tensor's dtype."""
    return x.from_numpy(np.zeros(_sizes(shape), x.dtype if dtype is None else dtype))


def new_tensor(x: Tensor, data: Operand) -> Tensor:
    """A constant with this tensor's dtype."""
    with np.errstate(all="ignore"):
        return x.from_numpy(np.array(as_array(data), dtype=x.dtype))


# Indexing: the transpose adds the gradients of repeated indices


def select(x: Tensor, index: Any) -> Tensor:
    """x[index] with any NumPy index; integers next to arrays are applied first."""
    *first, at = index_in_steps(array_index(index))
    if first:
        return select(select(x, *first), at)
    parts = at if isinstance(at, tuple) else (at,)
    if builtins.all(isinstance(part, (int, np.integer)) for part in parts):
        at = (*parts, ...)  # gives a view, also for a single number
    return _linear("index", x, lambda a: a[at], lambda g: scatter(g, at, x.shape))


def scatter(x: Tensor, index: Any, shape: Shape) -> Tensor:
    """Zeros of `shape` with x added at `index`: the transpose of `select`."""
    return _linear("scatter", x, lambda a: _added_at(a, index, shape), lambda g: select(g, index))


def _added_at(values: Array, index: Any, shape: Shape) -> Array:
    out = np.zeros(shape, values.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if not builtins.any(array.dtype.kind in "iu" for array in arrays):
        out[index] = values  # slices and masks never repeat an index
    elif len(parts) == 1 and len(shape) > 1 and values.size:
        # Rows of a table, as in an embedding: summing runs of equal rows is many times as fast.
        rows = arrays[0].reshape(-1).astype(np.intp) % shape[0]
        order = np.argsort(rows, kind="stable")
        starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
        runs = values.reshape(len(rows), *shape[1:])[order]
        out[rows[order][starts]] = np.add.reduceat(runs, starts, axis=0)
    else:
        np.add.at(out, index, values)
    return out


def gather(x: Tensor, dim: int, index: Operand) -> Tensor:
    """y[i, j, …] = x[i, index[i, j, …], …] with the index in place of dimension `dim`.

    Raises `IndexError` for an index out of bounds, and for a negative one, like torch.
    """
    places = array_index(index)
    if places.ndim != x.ndim:
        raise ShapeError(f"an index of shape {places.shape} does not fit shape {x.shape}")
    if not x.ndim:
        return reshape(gather(reshape(x, 1), dim, places.reshape(1)), ())
    grid: list[Any] = list(np.ogrid[tuple(slice(n) for n in places.shape)])
    at = _dim(dim, x.ndim)
    grid[at] = places
    outside = places[(places < 0) | (places >= x.shape[at])]
    if outside.size:
        raise IndexError(
            f"index {outside[0]} is out of bounds for dimension {at} with size {x.shape[at]}"
        )
    return select(x, tuple(grid))


def masked_fill(x: Tensor, mask: Operand, value: Operand) -> Tensor:
    """Replace elements by `value` where the mask holds; they get no gradient."""
    return x.as_operand(value).where(mask, x)


# Several tensors


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors along a dimension; each gets its slice of the gradient."""
    if not tensors:
        raise ShapeError("cat needs at least one tensor; the list is empty")
    # NumPy rejects a tensor without this dimension before any rule is used.
    lengths = [tensor.shape[dim] for tensor in tensors if -tensor.ndim <= dim < tensor.ndim]
    ends = np.cumsum(lengths, dtype=int).tolist()

    def slice_of(start: int, end: int) -> Rule:
        return lambda g, _: g[(slice(None),) * (dim % g.ndim) + (slice(start, end),)]

    rules = tuple(slice_of(start, end) for start, end in zip([0, *ends], ends, strict=False))
    return tensors[0].apply(
        "cat", lambda *arrays: np.concatenate(arrays, axis=dim), tuple(tensors), rules, linear=True
    )


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of equal shapes along a new dimension."""
    return cat([unsqueeze(tensor, dim) for tensor in tensors], dim)
