"""A tensor that records how it was computed, and computes gradients from that record.

A program that computes a number is a chain of small steps y = f(x), each with a derivative that is
easy to write down. The chain rule joins them: if L depends on y, and y on x, then

    dL/dx = dL/dy · dy/dx.

So each operation does two things. It computes its value, and it records a `Node` with its parents
and, for each parent, a rule that turns the gradient of the output, g = dL/dy, into that parent's
share of it. `backward` visits the nodes from the newest to the oldest. If a tensor was used several
times, its shares add up. This is all of backpropagation (Rumelhart, Hinton and Williams 1986): one
sweep gives the derivatives of one number with respect to all others.

    x = Tensor(3.0)
    y = x * x + 2 * x
    y.backward()
    x.grad  # 2x + 2 = 8

The rules are written with tensors themselves, so gradients have gradients (`create_graph=True`).

The file reads from top to bottom: the data of a tensor, recording an operation, addition and
multiplication with their rules, the backward pass. Then come the rest of arithmetic, the interface
to Python and NumPy, and in-place changes. All other operations, from `exp` to `softmax`, are in
`ops` with their rules.

Names and meanings are torch's, with three differences. Python numbers and lists become float64, and
floating-point tensors made directly require gradients by default. `.grad` is a Tensor, `.data` the
NumPy array, and a scalar is a tensor without dimensions. Mixed dtypes follow NumPy's rules: float32
with a float64 tensor, even of one number, gives float64. Some of torch's keywords are missing: the
tensor argument and sizes (`reshape`, `expand`, `repeat`, `new_ones`, …) are positional, only
`new_ones` and `new_zeros` take `dtype=`, and NumPy's `axis=` and `keepdims=`, which torch accepts,
are not supported.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any, Self, TypeAlias

import numpy as np

from groundup.maths import ops
from groundup.maths.arrays import Array, Shape, ShapeError, array_index, as_array, index_in_steps

Forward: TypeAlias = Callable[..., Any]
"""Arrays of the parents -> the value, as an array or NumPy scalar."""
Rule: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""(gradient of the output, the output) -> one parent's share of it."""
Operand: TypeAlias = "Tensor | Array | np.generic | float | Sequence[Any]"
"""The other operand of a tensor in arithmetic and comparisons."""


class GradientError(RuntimeError):
    """A gradient does not exist or would be wrong."""


@dataclass(slots=True)
class Node:
    """One step on the tape: how a tensor was computed, and the rules of its gradients."""

    name: str
    parents: tuple[Tensor, ...]
    rules: tuple[Rule | None, ...]
    """One per parent: from the gradient of the output to the parent's share."""
    linear: bool
    """Whether it is a linear map, whose rules do not read values that may change later."""
    versions: tuple[int, ...] = ()
    """The versions (numbers of in-place changes) of the parents and the result, unless linear."""


FREED = Node("freed", (), (), linear=True)
_numbers = count()


class Tensor:
    """A NumPy array with the history of its computation.

    `data` is an array, a number or a list of numbers, which become float64. Floating-point tensors
    require gradients by default: `Tensor(data, requires_grad=False)` is a constant. Integers and
    booleans have no gradients.
    """

    # Data

    __slots__ = (
        "__weakref__",
        "_array",
        "_versions",
        "grad",
        "node",
        "number",
        "requires_grad",
        "retains_grad",
    )

    def __init__(self, data: Operand, requires_grad: bool | None = None) -> None:
        array = np.array(as_array(data))  # a copy, so that nothing else can change it
        if array.dtype.kind not in "biuf":
            raise TypeError(f"a tensor holds real numbers or booleans, not {array.dtype}")
        floating = array.dtype.kind == "f"
        if requires_grad and not floating:
            raise GradientError(f"a tensor of {array.dtype} has no gradients")
        self._array = array
        self.requires_grad = floating if requires_grad is None else requires_grad
        self.grad: Tensor | None = None
        """dL/d(this tensor), to which every L.backward() adds."""
        self.node: Node | None = None
        """The operation that computed it; None for a leaf, which was made directly."""
        self.number = next(_numbers)
        """Counts tensors in order of creation, so parents come before their children."""
        self._versions = [0]
        """The number of in-place changes, in a list that views of the same memory share."""
        self.retains_grad = False

    @classmethod
    def from_numpy(cls, array: Any, versions: list[int] | None = None) -> Self:
        """Return a constant that wraps an array without copying it."""
        tensor = cls.__new__(cls)
        tensor._array = np.asarray(array)
        tensor.requires_grad = tensor.retains_grad = False
        tensor.grad = tensor.node = None
        tensor.number = next(_numbers)
        tensor._versions = [0] if versions is None else versions
        return tensor

    # Recording an operation

    @staticmethod
    def apply(
        name: str,
        forward: Forward,
        parents: tuple[Tensor, ...],
        rules: tuple[Rule | None, ...],
        *,
        linear: bool = False,
        dim: int | tuple[int, ...] | None = None,
    ) -> Tensor:
        """Compute `forward(*arrays)` and, if a parent requires gradients, record it on the tape.

        `rules` has one entry per parent. `linear` says that `forward` is linear in all parents
        together, and `dim` names the dimensions that it reduces or normalizes over. Infinities and
        NaN are computed as in torch, without warnings. Raises `ShapeError` if shapes do not fit.
        """
        try:
            with np.errstate(all="ignore"):
                array = np.asarray(forward(*[parent._array for parent in parents]))
        except ValueError as error:
            shapes = " and ".join(str(parent.shape) for parent in parents)
            raise ShapeError(f"{name} cannot take {shapes}: {error}") from None
        # The result can be a view of the first parent only, and then it shares its versions.
        viewed = array.base is not None and np.may_share_memory(array, parents[0]._array)
        out = Tensor.from_numpy(array, parents[0]._versions if viewed else None)
        if is_grad_enabled() and any(parent.requires_grad for parent in parents):
            out.requires_grad = True
            versions = () if linear else tuple(t._versions[0] for t in (*parents, out))
            out.node = Node(name, parents, rules, linear, versions)
        for observer in observers.get():
            observer(Operation(name, forward, parents, linear, dim), out)
        return out

    # Two operations with their rules, from g = dL/d(output) to the share of each parent

    def __add__(self, other: Operand) -> Tensor:
        """d(a + b) = da + db."""
        a, b = self, self.as_operand(other)
        return Tensor.apply("add", np.add, (a, b), (lambda g, _: g, lambda g, _: g), linear=True)

    def __mul__(self, other: Operand) -> Tensor:
        """d(a b) = b da + a db."""
        a, b = self, self.as_operand(other)
        return Tensor.apply("mul", np.multiply, (a, b), (lambda g, _: g * b, lambda g, _: g * a))

    # The backward pass

    def backward(
        self,
        gradient: Operand | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient d(self)/dx to `.grad` of every leaf x that this tensor depends on.

        `gradient` is dL/d(self) in this tensor's shape; for a single number it defaults to 1. The
        tape is freed during the pass unless `retain_graph`. With `create_graph` the gradients are
        recorded on the tape themselves. Raises `GradientError` if nothing requires a gradient, if
        the tape was freed, or if a value that it needs was changed.
        """
        seed = self._seed(gradient)
        retain = create_graph if retain_graph is None else retain_graph
        for tensor, found in self.sweep(seed, retain=retain, record=create_graph):
            if tensor.is_leaf or tensor.retains_grad:
                # A copy, since two leaves may receive the same gradient tensor.
                tensor.grad = found.clone() if tensor.grad is None else tensor.grad + found

    def sweep(
        self,
        seed: Tensor,
        *,
        inputs: Iterable[Tensor] | None = None,
        retain: bool = False,
        record: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every tensor that this one depends on with its full gradient, newest first.

        A tensor is visited after everything computed from it, so all shares of its gradient have
        arrived. `seed` is the gradient to start from. With `inputs`, only tensors that depend on
        one of them are visited.
        """
        tape = self._tape(inputs)
        wanted = {tensor.number for tensor in tape}
        gradients = {self.number: seed if record else seed.detach()}
        while tape:
            tensor = tape.pop()
            gradient = gradients.pop(tensor.number)
            if tensor.node is not None:
                with set_grad_enabled(record), np.errstate(all="ignore"):
                    for parent, share in tensor._shares(tensor.node, gradient, wanted):
                        if parent.number in gradients:
                            share = gradients[parent.number] + share
                        gradients[parent.number] = share
                if not retain:
                    tensor.node = FREED  # frees its memory unless something else refers to it
            yield tensor, gradient

    def _shares(
        self, node: Node, gradient: Tensor, wanted: set[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each wanted parent's share of the gradient, in the parent's shape and dtype."""
        self._refuse_changes(node)
        for parent, rule in zip(node.parents, node.rules, strict=True):
            if rule is not None and parent.number in wanted:
                share = rule(gradient, self)
                # Dimensions broadcast in the forward pass are summed in the backward pass.
                yield parent, ops.sum_to(share, parent.shape).to(parent.dtype)

    def _tape(self, inputs: Iterable[Tensor] | None) -> list[Tensor]:
        """Return the tensors that gradients flow through from this one, oldest first."""
        found, open_ends = {self.number: self}, [self]
        while open_ends:  # no recursion, for graphs of any depth
            node = open_ends.pop().node
            if node is FREED:
                raise GradientError(
                    "this part of the graph was freed by a backward without retain_graph=True"
                )
            for parent in node.parents if node else ():
                if parent.requires_grad and parent.number not in found:
                    found[parent.number] = parent
                    open_ends.append(parent)
        tape = sorted(found.values(), key=lambda tensor: tensor.number)
        if inputs is None:
            return tape
        leading = {tensor.number for tensor in inputs}
        for tensor in tape:
            if tensor.node and any(parent.number in leading for parent in tensor.node.parents):
                leading.add(tensor.number)
        return [tensor for tensor in tape if tensor.number in leading]

    def _seed(self, gradient: Operand | None) -> Tensor:
        """Return the gradient that a sweep starts from: the given one, or 1."""
        if not self.requires_grad:
            raise GradientError("no gradient: nothing that it was computed from has requires_grad")
        if gradient is None:
            if self.numel() != 1:
                raise GradientError(f"backward starts from one number; this has shape {self.shape}")
            return Tensor.from_numpy(np.ones_like(self._array))
        seed = self.as_operand(gradient)
        if seed.shape != self.shape:
            raise ShapeError(f"a gradient of shape {seed.shape} is not one for shape {self.shape}")
        return seed.to(self.dtype)

    # The rest of arithmetic

    def __sub__(self, other: Operand) -> Tensor:
        """d(a - b) = da - db."""
        a, b = self, self.as_operand(other)
        rules = (lambda g, _: g, lambda g, _: -g)
        return Tensor.apply("sub", np.subtract, (a, b), rules, linear=True)

    def __neg__(self) -> Tensor:
        """d(-a) = -da."""
        return Tensor.apply("neg", np.negative, (self,), (lambda g, _: -g,), linear=True)

    def __truediv__(self, other: Operand) -> Tensor:
        """d(a / b) = da / b - (a / b) db / b."""
        a, b = self, self.as_operand(other)
        rules = (lambda g, _: g / b, lambda g, y: -g * y / b)
        return Tensor.apply("div", np.true_divide, (a, b), rules)

    def __pow__(self, exponent: Operand) -> Tensor:
        """d(a^p) = p a^(p-1) da + a^p log(a) dp, where 0^0 is constant and 0^p is constant in p.

        At p = 0 the mixed second derivative is 1/a in both orders; torch has 0 in one of them.
        """
        a, p = self, self.as_operand(exponent)
        number = exponent if isinstance(exponent, (int, float)) else None
        if isinstance(number, float):
            number = float(number)  # NumPy's own float64 would widen float32

        def by_base(g: Tensor, y: Tensor) -> Tensor:
            if number is None:
                # p = 0 where 1/a or log(a) is infinite, since 0 times infinity is not 0.
                size = np.abs(a._array)
                flat = (p == 0) & ~((size >= np.finfo(y.dtype).tiny) & (size < np.inf))
                return g * where(flat, 0.0, p * where(flat, 1.0, a) ** (p - 1))
            if number == 0:
                return g * 0.0
            return g * (number * (a if number == 2 else a ** (number - 1)))

        def by_exponent(g: Tensor, y: Tensor) -> Tensor:
            flat = (a == 0) & (p >= 0)
            return g * where(flat, 0.0, y * where(flat, 1.0, a).log())

        def power(base: Array, powers: Array) -> Any:
            # NumPy is ten times as fast for a plain 2 or 0.5 as for an array that holds it.
            return base ** (powers if number is None else number)

        return Tensor.apply("pow", power, (a, p), (by_base, by_exponent))

    def __matmul__(self, other: Operand) -> Tensor:
        """d(A B) = dA B + A dB, so A's share is g Bᵀ and B's is Aᵀ g; any ranks, as NumPy's @."""
        a, b = self, self.as_operand(other)
        if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            raise ShapeError(f"shapes {a.shape} and {b.shape} do not match for @")
        if a.ndim == 1:
            return (a.unsqueeze(0) @ b).squeeze(-2 if b.ndim > 1 else 0)
        if b.ndim == 1:
            return (a @ b.unsqueeze(-1)).squeeze(-1)
        if a.ndim > 2 and b.ndim == 2:  # one large product instead of many small ones
            return (a.flatten(0, -2) @ b).reshape(*a.shape[:-1], b.shape[-1])
        return Tensor.apply(
            "matmul", np.matmul, (a, b), (lambda g, _: g @ b.mT, lambda g, _: a.mT @ g)
        )

    # On and off the tape

    @property
    def is_leaf(self) -> bool:
        """Whether it was made directly rather than by an operation on the tape."""
        return self.node is None

    def detach(self) -> Tensor:
        """Return a constant with the same memory, detached from the tape."""
        return Tensor.from_numpy(self._array, self._versions)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if requires_grad and self.dtype.kind != "f":
            raise GradientError(f"a tensor of {self.dtype} has no gradients")
        if not requires_grad and self.node is not None:
            raise GradientError("a computed tensor has a history; detach() removes it")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep `.grad` after backward although this tensor is not a leaf."""
        self.retains_grad = True

    # Other operands, and reflected operators

    def as_operand(self, other: Operand) -> Tensor:
        """Return `other` as a tensor; a plain number takes this tensor's floating dtype."""
        if isinstance(other, Tensor):
            return other
        if isinstance(other, (int, float, np.generic)) and self.dtype.kind == "f":
            if -65_504 <= float(other) <= 65_504:  # in float16's range: no float dtype overflows
                return Tensor.from_numpy(np.asarray(other, dtype=self.dtype))
            return Tensor.from_numpy(as_array(other)).to(self.dtype)
        if type(other) is int and self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            if limits.min <= other <= limits.max:
                return Tensor.from_numpy(np.asarray(other, dtype=self.dtype))
        if isinstance(other, int) and not -(2**63) <= other < 2**64:
            raise OverflowError(f"{other} is larger than 64 bits hold; give a float")
        # With integers NumPy's own rules apply: 2 stays an integer and 2.5 gives a float.
        return Tensor.from_numpy(other if isinstance(other, int) else as_array(other))

    def __radd__(self, other: Operand) -> Tensor:
        return self.as_operand(other) + self

    def __rsub__(self, other: Operand) -> Tensor:
        return self.as_operand(other) - self

    def __rmul__(self, other: Operand) -> Tensor:
        return self.as_operand(other) * self

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.as_operand(other) / self

    def __rpow__(self, other: Operand) -> Tensor:
        return self.as_operand(other) ** self

    def __rmatmul__(self, other: Operand) -> Tensor:
        return self.as_operand(other) @ self

    def __pos__(self) -> Tensor:
        return self

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Array, ...] = ()
    ) -> Any:
        """Compute `array * tensor` as a tensor operation; `array -= tensor` changes the array.

        NumPy's other ufuncs would lose the gradient, so they raise TypeError.
        """
        if method != "__call__" or ufunc not in OPERATORS:
            return NotImplemented
        if out:
            return ufunc(*(as_array(x) for x in inputs), out=out)
        return OPERATORS[ufunc](self.as_operand(inputs[0]), inputs[1])

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """NumPy's array functions compute with the numbers only and lose the gradient.

        So a function with a counterpart here raises TypeError if a gradient would be lost. Other
        functions work as without this method, as NEP 18 describes.
        """
        counterpart = COUNTERPARTS.get(function)
        if counterpart and is_grad_enabled() and _needs_gradient((*args, *kwargs.values())):
            raise TypeError(
                f"numpy.{function.__name__} would lose the gradient; use {counterpart}, or give it "
                "only the numbers: tensor.data"
            )
        return function._implementation(*args, **kwargs)  # type: ignore[attr-defined]

    # Indexing and comparing

    def __getitem__(self, index: Any) -> Tensor:
        """The gradient flows back to the indexed elements; repeated indices add up."""
        return ops.select(self, index)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def where(self, condition: Operand, other: Operand) -> Tensor:
        """Return this tensor where the condition holds, and `other` elsewhere."""
        return where(condition, self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # one truth per element
        if not isinstance(other, (Tensor, np.ndarray, np.generic, int, float, list, tuple)):
            return NotImplemented
        return self._compare(np.equal, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        if not isinstance(other, (Tensor, np.ndarray, np.generic, int, float, list, tuple)):
            return NotImplemented
        return self._compare(np.not_equal, other)

    __hash__ = object.__hash__

    def __lt__(self, other: Operand) -> Tensor:
        return self._compare(np.less, other)

    def __le__(self, other: Operand) -> Tensor:
        return self._compare(np.less_equal, other)

    def __gt__(self, other: Operand) -> Tensor:
        return self._compare(np.greater, other)

    def __ge__(self, other: Operand) -> Tensor:
        return self._compare(np.greater_equal, other)

    def __and__(self, other: Operand) -> Tensor:
        return self._compare(np.bitwise_and, other)

    def __or__(self, other: Operand) -> Tensor:
        return self._compare(np.bitwise_or, other)

    def __invert__(self) -> Tensor:
        return Tensor.from_numpy(~self._array)

    def _compare(self, ufunc: np.ufunc, other: Operand) -> Tensor:
        operand = self.as_operand(other)
        try:
            return Tensor.from_numpy(ufunc(self._array, operand._array))
        except ValueError:
            raise ShapeError(
                f"shapes {self.shape} and {operand.shape} cannot be compared"
            ) from None

    # Interface to Python and NumPy

    @property
    def data(self) -> Array:
        """The array itself, without history. Assigning to it counts as an in-place change.

        Writing into the array (`x.data[0] = 1`) is not checked, as in torch; `x[0] = 1` is.
        """
        return self._array

    @data.setter
    def data(self, value: Operand) -> None:
        self._array = self.as_operand(value).to(self.dtype)._array
        self.increment_version()

    @property
    def shape(self) -> Shape:
        shape: Shape = self._array.shape
        return shape

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return int(self._array.size)

    def item(self) -> Any:
        """Return the only element as a Python number."""
        if self._array.size != 1:
            raise ShapeError(f"a tensor of shape {self.shape} is not one number")
        return self._array.item()

    def numpy(self) -> Array:
        return self._array

    def tolist(self) -> Any:
        return self._array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._array, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without dimensions has no length")
        return self.shape[0]

    def __float__(self) -> builtins.float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self._array.__index__()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.shape else format(str(self), spec)

    def __repr__(self) -> str:
        kind = "" if self.dtype == np.float64 else f", {self.dtype}"
        history = f", {self.node.name}" if self.node and self.node is not FREED else ""
        numbers = np.array2string(self._array, separator=", ", prefix="Tensor(", threshold=100)
        return f"Tensor({numbers}{kind}{history})"

    def __copy__(self) -> Tensor:
        """Return a new leaf with the same numbers; `clone` is the copy that stays on the tape."""
        if self.node is not None:
            raise GradientError("only a tensor without history can be copied; detach() it first")
        return Tensor(self._array, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.__copy__()

    def __reduce__(self) -> Any:
        """Not supported: loading a pickle can run any code."""
        raise TypeError("a tensor cannot be pickled; save its .data by safetensors or np.save")

    # In-place changes
    #
    # An optimizer writes new numbers into its parameters. That is never recorded, and a gradient
    # that still needs the old numbers would be wrong. So in-place changes are allowed only where
    # nothing is recorded, and they are counted: the tape stores the version of every value that it
    # needs, and `backward` raises an error if the version has changed.

    @property
    def _version(self) -> int:
        """The number of in-place changes of this tensor and of views that share its memory."""
        return self._versions[0]

    def increment_version(self) -> None:
        """Count a change that was written directly into `.data`."""
        self._versions[0] += 1

    def __setitem__(self, index: Any, value: Operand) -> None:
        self._change(array_index(index), value, lambda _, new: new)

    def copy_(self, other: Operand) -> Self:
        return self._change(..., other, lambda _, new: new)

    def zero_(self) -> Self:
        return self.copy_(0.0)

    def add_(self, other: Operand) -> Self:
        return self._change(..., other, np.add)

    def sub_(self, other: Operand) -> Self:
        return self._change(..., other, np.subtract)

    def mul_(self, other: Operand) -> Self:
        return self._change(..., other, np.multiply)

    def div_(self, other: Operand) -> Self:
        return self._change(..., other, np.true_divide)

    # Where nothing is recorded, w -= rate * w.grad changes w in place, as optimizers need it.
    # Otherwise Python falls back to w = w - ..., a new tensor.

    def __iadd__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.add_(other)

    def __isub__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.sub_(other)

    def __imul__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.mul_(other)

    def __itruediv__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.div_(other)

    def _change(self, index: Any, other: Operand, update: Callable[[Array, Array], Any]) -> Self:
        """Replace the elements at `index` by `update(old, other)`."""
        new = self.as_operand(other)
        if (self.requires_grad or new.requires_grad) and is_grad_enabled():
            raise GradientError(
                f"an in-place change of a tensor of shape {self.shape} is not recorded; "
                "compute a new tensor, or change it within no_grad()"
            )
        *first, at = index_in_steps(index)
        try:
            with np.errstate(all="ignore"):
                array = self._array[first[0]] if first else self._array  # a view of the elements
                array[at] = update(array[at], new._array)
        except ValueError as error:
            raise ShapeError(f"{new.shape} cannot go into shape {self.shape}: {error}") from None
        self.increment_version()
        return self

    def _refuse_changes(self, node: Node) -> None:
        """Raise `GradientError` if a value that the rules read has changed since it was used."""
        if node.linear or node.versions == tuple(t._versions[0] for t in (*node.parents, self)):
            return
        raise GradientError(
            f"a value that the gradient of {node.name} needs was changed in place after it was "
            f"used (shapes {[parent.shape for parent in node.parents]}, result {self.shape})"
        )

    # Functions of `ops` as methods

    @property
    def T(self) -> Tensor:
        """The tensor with its dimensions reversed; for a matrix its transpose."""
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:
        """The transpose of a matrix, or of each matrix in a batch."""
        return self.transpose(-1, -2)

    exp = ops.exp
    log = ops.log
    log1p = ops.log1p
    expm1 = ops.expm1
    sqrt = ops.sqrt
    rsqrt = ops.rsqrt
    square = ops.square
    reciprocal = ops.reciprocal
    tanh = ops.tanh
    sigmoid = ops.sigmoid
    relu = ops.relu
    erf = ops.erf
    sin = ops.sin
    cos = ops.cos
    abs = __abs__ = ops.abs
    clip = clamp = ops.clip
    max = ops.max
    min = ops.min
    amax = ops.amax
    amin = ops.amin
    sum = ops.sum
    mean = ops.mean
    var = ops.var
    std = ops.std
    logsumexp = ops.logsumexp
    logaddexp = ops.logaddexp
    softmax = ops.softmax
    log_softmax = ops.log_softmax
    cumsum = ops.cumsum
    reshape = view = ops.reshape
    flatten = ops.flatten
    unsqueeze = ops.unsqueeze
    squeeze = ops.squeeze
    transpose = ops.transpose
    permute = ops.permute
    expand = ops.expand
    repeat = ops.repeat
    roll = ops.roll
    flip = ops.flip
    gather = ops.gather
    masked_fill = ops.masked_fill
    tril = ops.tril
    triu = ops.triu
    new_ones = ops.new_ones
    new_zeros = ops.new_zeros
    new_tensor = ops.new_tensor
    to = ops.to
    double = ops.double
    float = ops.float
    long = ops.long
    clone = ops.clone
    all = ops.all
    any = ops.any
    argmax = ops.argmax
    argmin = ops.argmin
    pow = __pow__
    matmul = __matmul__


OPERATORS: dict[np.ufunc, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.power: operator.pow,
    np.matmul: operator.matmul,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
}
"""NumPy's ufuncs for an array on the left of a tensor, as operators."""
COUNTERPARTS: dict[Callable[..., Any], str] = {
    np.concatenate: "groundup.maths.cat",
    np.hstack: "groundup.maths.cat",
    np.vstack: "groundup.maths.cat",
    np.stack: "groundup.maths.stack",
    np.where: "groundup.maths.where",
    np.einsum: "groundup.maths.einsum",
    np.dot: "@",
    np.inner: "@",
    np.outer: "groundup.maths.einsum",
    np.clip: "tensor.clip",
    np.sum: "tensor.sum",
    np.mean: "tensor.mean",
}
"""Replacements for NumPy functions that would lose the gradient."""


def _needs_gradient(values: Iterable[Any]) -> bool:
    return builtins.any(
        value.requires_grad
        if isinstance(value, Tensor)
        else isinstance(value, (list, tuple)) and _needs_gradient(value)
        for value in values
    )


def where(condition: Operand, a: Operand, b: Operand) -> Tensor:
    """Return a where the condition holds and b elsewhere; gradients go only to the chosen side."""
    chosen = np.array(as_array(condition))  # a copy, since the backward pass needs it unchanged
    if not isinstance(a, Tensor):
        a = b.as_operand(a) if isinstance(b, Tensor) else Tensor(a, requires_grad=False)
    rules = (lambda g, _: where(chosen, g, 0.0), lambda g, _: where(chosen, 0.0, g))
    parents = (a, a.as_operand(b))
    return Tensor.apply("where", lambda x, y: np.where(chosen, x, y), parents, rules, linear=True)


def grad(
    output: Tensor,
    inputs: Tensor | Sequence[Tensor],
    gradient: Operand | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """Return the gradients of `output` with respect to each of `inputs`; no `.grad` changes.

    An input that the output does not depend on gets zeros. The other arguments and the errors
    are those of `backward`.
    """
    wanted = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    for number, tensor in enumerate(wanted):
        if not tensor.requires_grad:
            raise GradientError(f"input {number} of shape {tensor.shape} has no requires_grad=True")
    seed = output._seed(gradient)
    found = {tensor.number: Tensor.from_numpy(np.zeros_like(tensor._array)) for tensor in wanted}
    retain = create_graph if retain_graph is None else retain_graph
    for tensor, full in output.sweep(seed, inputs=wanted, retain=retain, record=create_graph):
        if tensor.number in found:
            found[tensor.number] = full
    return tuple(found[tensor.number] for tensor in wanted)


# Recording, and observers of all operations

_recording = ContextVar("recording", default=True)


@contextmanager
def set_grad_enabled(mode: bool) -> Iterator[None]:
    """Turn recording on or off within the block or the decorated function."""
    before = _recording.set(mode)
    try:
        yield
    finally:
        _recording.reset(before)


@contextmanager
def no_grad() -> Iterator[None]:
    """Turn recording off: `with no_grad():` or `@no_grad()`."""
    with set_grad_enabled(False):
        yield


def is_grad_enabled() -> bool:
    return _recording.get()


@dataclass(frozen=True, slots=True)
class Operation:
    """The arguments of `apply`, for observers."""

    name: str
    forward: Forward
    parents: tuple[Tensor, ...]
    linear: bool
    dim: int | tuple[int, ...] | None


observers: ContextVar[tuple[Callable[[Operation, Tensor], None], ...]] = ContextVar(
    "observers", default=()
)
"""Functions called with every operation of this thread and its result, as by forward mode."""
