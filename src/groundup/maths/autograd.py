"""A tensor that knows how it was computed, and from that the gradient of every number in it.

A program that computes a number is a chain of small steps y = f(x), each with a derivative that is
easy to write down. The chain rule joins them: if L depends on y, and y on x, then

    dL/dx = dL/dy · dy/dx.

So each operation does two things. It computes its value, and it leaves a `Node`: who its parents
are, and for each of them a rule that turns the gradient of the output, g = dL/dy, into that
parent's share of it. `backward` walks the nodes from the newest to the oldest, and where a tensor
was used several times its shares add up. That is all of backpropagation (Rumelhart, Hinton and
Williams 1986); one sweep gives the derivative of one number by all the others.

    x = Tensor(3.0)
    y = x * x + 2 * x
    y.backward()
    x.grad  # 2x + 2 = 8

The rules are themselves written with tensors, so gradients have gradients (`create_graph=True`).

Names and meanings are torch's, with two differences. Python numbers and lists become float64, and
floating-point tensors that a person makes require gradients unless told otherwise. `.grad` is a
Tensor, `.data` the NumPy array, and a scalar is a tensor without dimensions. Where two dtypes meet,
NumPy's rules hold: float32 beside a float64 tensor, even of one number, gives float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from groundup.errors import UserError
from groundup.maths.changes import Changeable, GradientError, is_grad_enabled, no_grad, recording
from groundup.maths.values import Array, Operand, ShapeError, as_array

__all__ = [
    "GradientError",
    "Node",
    "Operation",
    "Tensor",
    "apply",
    "grad",
    "is_grad_enabled",
    "no_grad",
    "observers",
    "recording",
    "sweep",
]

Forward: TypeAlias = Callable[..., Any]
"""Arrays of the parents -> the value, an array or NumPy scalar."""
Rule: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""(gradient of the output, the output) -> one parent's share of it."""

_numbers = count()  # every tensor has one, and a parent's is lower than its children's


@dataclass(slots=True)
class Node:
    """One step on the tape: how a tensor was made, and how gradients go back through it."""

    name: str
    parents: tuple[Tensor, ...]
    rules: tuple[Rule | None, ...]
    linear: bool
    """Linear maps look at no values on the way back, so later changes of those do no harm."""
    changes: tuple[int, ...] = ()
    """How often each parent and the result had been changed in place, unless linear."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What was done, as observers are told: the arguments of `apply`."""

    name: str
    forward: Forward
    parents: tuple[Tensor, ...]
    linear: bool
    dim: int | tuple[int, ...] | None


Observer: TypeAlias = "Callable[[Operation, Tensor], None]"

observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())
"""Who is told of every operation of this thread and its result: forward mode, profilers."""

FREED = Node("freed", (), (), linear=True)


class Tensor(Changeable):
    """A NumPy array with the history of its computation.

    `data` is an array, or numbers and lists of them, which become float64. Floating-point tensors
    require gradients by default: `Tensor(data, requires_grad=False)` is a constant. Integers and
    truth values have no gradients.
    """

    __slots__ = ("__weakref__", "grad", "keeps_grad", "node", "number")

    def __init__(self, data: Operand, requires_grad: bool | None = None) -> None:
        self._array, self.changes = np.array(as_array(data)), [0]  # nobody else's memory
        if self.dtype.kind not in "biuf":
            raise UserError(
                f"a tensor holds real numbers or truth values, and not {self.dtype}; "
                "give numbers, an array, or lists of equal lengths"
            )
        self._begin()
        floating = self.dtype.kind == "f"
        if requires_grad and not floating:
            raise GradientError(
                f"a tensor of {self.dtype} has no gradients; give floating-point numbers"
            )
        self.requires_grad = floating if requires_grad is None else requires_grad

    def _begin(self) -> None:
        self.requires_grad = False
        self.grad: Tensor | None = None
        self.keeps_grad = False
        self.node: Node | None = None
        self.number = next(_numbers)

    @classmethod
    def made(cls, array: Any, changes: list[int] | None = None) -> Self:
        """A constant around an array that is ours, without a copy."""
        tensor = super().made(array, changes)
        tensor._begin()
        return tensor

    def __copy__(self) -> Tensor:
        """A new leaf with the same numbers; `clone` is the copy that stays on the tape."""
        if self.node is not None:
            raise GradientError("only a tensor without history can be copied; detach() it first")
        return Tensor(self._array, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.__copy__()

    def __reduce__(self) -> Any:
        """Never: reading such a file can run any code."""
        raise TypeError("a tensor is not pickled; save its .data by safetensors or np.save")

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by a person rather than by an operation on the tape."""
        return self.node is None

    def detach(self) -> Tensor:
        """The same numbers in the same memory as a constant, cut off from the tape."""
        return Tensor.made(self.data, self.changes)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if requires_grad and self.dtype.kind != "f":
            raise GradientError(f"a tensor of {self.dtype} has no gradients; make it double()")
        if not requires_grad and self.node is not None:
            raise GradientError("this tensor was computed and has a history; detach() cuts it off")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep `.grad` after backward although this tensor is no leaf."""
        self.keeps_grad = True

    def __repr__(self) -> str:
        kind = "" if self.dtype == np.float64 else f", {self.dtype}"
        history = f", {self.node.name}" if self.node and self.node is not FREED else ""
        numbers = np.array2string(self.data, separator=", ", prefix="Tensor(", threshold=100)
        return f"Tensor({numbers}{kind}{history})"

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Arithmetic, each with the derivative that its rules say

    def __add__(self, other: Operand) -> Tensor:
        """d(a + b) = da + db."""
        return apply("add", np.add, (self, self.like(other)), (_same, _same), linear=True)

    def __sub__(self, other: Operand) -> Tensor:
        """d(a - b) = da - db."""
        parents = (self, self.like(other))
        return apply("sub", np.subtract, parents, (_same, lambda g, _: -g), linear=True)

    def __neg__(self) -> Tensor:
        """d(-a) = -da."""
        return apply("neg", np.negative, (self,), (lambda g, _: -g,), linear=True)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __mul__(self, other: Operand) -> Tensor:
        """d(a b) = b da + a db."""
        a, b = self, self.like(other)
        return apply("mul", np.multiply, (a, b), (lambda g, _: g * b, lambda g, _: g * a))

    def __truediv__(self, other: Operand) -> Tensor:
        """d(a / b) = da / b - (a / b) db / b."""
        a, b = self, self.like(other)
        return apply("div", np.true_divide, (a, b), (lambda g, _: g / b, lambda g, y: -g * y / b))

    def __pow__(self, exponent: Operand) -> Tensor:
        """d(a^p) = p a^(p-1) da + a^p log(a) dp; where p = 0, or a = 0 for dp, the term is 0."""
        a, p = self, self.like(exponent)
        if isinstance(exponent, float):
            exponent = float(exponent)  # NumPy's own float64 would widen float32

        def by_base(g: Tensor, _: Tensor) -> Tensor:
            if isinstance(exponent, (int, float)):
                power = a if exponent == 2 else a ** (exponent - 1)
                return g * (exponent * power) if exponent else g * 0.0
            return g * ops.where(p == 0, 0.0, p * a ** (p - 1))

        def by_exponent(g: Tensor, y: Tensor) -> Tensor:
            flat = (a == 0) & (p >= 0)
            return g * ops.where(flat, 0.0, y * ops.log(ops.where(flat, 1.0, a)))

        def power(base: Array, powers: Array) -> Array:
            # NumPy is ten times as fast for a plain 2 or 0.5 as for an array that holds it.
            return np.asarray(
                base**exponent if isinstance(exponent, (int, float)) else base**powers
            )

        return apply("pow", power, (a, p), (by_base, by_exponent))

    def __matmul__(self, other: Operand) -> Tensor:
        """d(A B) = dA B + A dB, so A's share is g Bᵀ and B's is Aᵀ g; any ranks, as NumPy's @."""
        a, b = self, self.like(other)
        if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            raise ShapeError(
                f"shapes {a.shape} and {b.shape} do not match for @; "
                "the last length of the first must be the last but one of the second"
            )
        if a.ndim == 1:
            return (a.unsqueeze(0) @ b).squeeze(-2 if b.ndim > 1 else 0)
        if b.ndim == 1:
            return (a @ b.unsqueeze(-1)).squeeze(-1)
        if a.ndim > 2 and b.ndim == 2:  # one large product instead of many small ones
            return (a.flatten(0, -2) @ b).reshape(*a.shape[:-1], b.shape[-1])
        rules = (lambda g, _: g @ b.mT, lambda g, _: a.mT @ g)
        return apply("matmul", np.matmul, (a, b), rules)

    def __getitem__(self, index: Any) -> Tensor:
        """The gradient goes back to the places it was read from; what was read twice adds up."""
        return ops.select(self, index)

    def __radd__(self, other: Operand) -> Tensor:
        return self.like(other) + self

    def __rsub__(self, other: Operand) -> Tensor:
        return self.like(other) - self

    def __rmul__(self, other: Operand) -> Tensor:
        return self.like(other) * self

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.like(other) / self

    def __rpow__(self, other: Operand) -> Tensor:
        return self.like(other) ** self

    def __rmatmul__(self, other: Operand) -> Tensor:
        return self.like(other) @ self

    # Backpropagation

    def backward(
        self,
        gradient: Operand | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add to `.grad` of every leaf x below this tensor the gradient d(self)/dx.

        `gradient` is dL/d(self), of this tensor's shape; a single number needs none and starts
        from 1. The tape is freed on the way unless `retain_graph`; with `create_graph` the
        gradients are on the tape themselves. Raises `GradientError` where there is no gradient,
        no tape any more, or a changed value on it.
        """
        seed = _seed(self, gradient)
        retain = create_graph if retain_graph is None else retain_graph
        for tensor, gradient in sweep(self, seed, retain=retain, record=create_graph):
            if tensor.is_leaf or tensor.keeps_grad:
                # A copy, since two leaves may get the very same gradient.
                tensor.grad = gradient.clone() if tensor.grad is None else tensor.grad + gradient

    # The other operations, by their torch names; `ops` has them, each with its rule

    @property
    def T(self) -> Tensor:
        """The dimensions in reverse order; for a matrix its transpose."""
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:
        """The transpose of a matrix, or of each in a stack of them."""
        return self.transpose(-1, -2)

    def where(self, condition: Operand, other: Operand) -> Tensor:
        """This tensor where the condition holds, and `other` elsewhere."""
        return ops.where(condition, self, other)

    if TYPE_CHECKING:  # functions of ops.py that are methods as well; `ops.method` adds them
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
        abs = ops.abs
        clip = ops.clip
        clamp = ops.clamp
        max = ops.max
        min = ops.min
        amax = ops.amax
        amin = ops.amin
        sum = ops.sum
        mean = ops.mean
        var = ops.var
        std = ops.std
        logsumexp = ops.logsumexp
        softmax = ops.softmax
        log_softmax = ops.log_softmax
        cumsum = ops.cumsum
        reshape = ops.reshape
        view = ops.view
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
        pow = ops.pow
        matmul = ops.matmul


def apply(
    name: str,
    forward: Forward,
    parents: tuple[Tensor, ...],
    rules: tuple[Rule | None, ...],
    linear: bool = False,
    dim: int | tuple[int, ...] | None = None,
) -> Tensor:
    """Compute `forward(*arrays)` and, where a parent requires gradients, put the step on the tape.

    `rules` has one entry per parent. `linear` says that `forward` is linear in all parents
    together, `dim` along which dimensions it looks at several numbers at once. Infinities and NaN
    come out as they do in torch, without warnings. Raises `ShapeError` where NumPy cannot fit the
    shapes.
    """
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(forward(*[parent._array for parent in parents]))
    except ValueError as error:
        shapes = " and ".join(str(parent.shape) for parent in parents)
        raise ShapeError(f"{name} cannot take {shapes}: {error}") from None
    # A view of memory can only be one of the first parent's, and then counts its changes with it.
    viewed = array.base is not None and np.may_share_memory(array, parents[0]._array)
    out = Tensor.made(array, parents[0].changes if viewed else None)
    if is_grad_enabled() and any(parent.requires_grad for parent in parents):
        out.requires_grad = True
        changes = () if linear else tuple(tensor.changes[0] for tensor in (*parents, out))
        out.node = Node(name, parents, rules, linear, changes)
    for observer in observers.get():
        observer(Operation(name, forward, parents, linear, dim), out)
    return out


def sweep(
    root: Tensor,
    seed: Tensor,
    *,
    inputs: Iterable[Tensor] | None = None,
    retain: bool = False,
    record: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every tensor below `root` with its whole gradient, newest first: the reverse sweep.

    By the time a tensor comes up all that was made from it is done, so its gradient is complete.
    Without a recursion, for graphs of any depth. `inputs` leaves out what none of them leads to.
    """
    order = _tape(root, inputs)
    needed = {tensor.number for tensor in order}
    pending = {root.number: seed if record else seed.detach()}
    while order:
        tensor = order.pop()
        gradient = pending.pop(tensor.number)
        if tensor.node is not None:
            with recording(record), np.errstate(all="ignore"):
                for parent, share in _shares(tensor, tensor.node, gradient, needed):
                    so_far = pending.get(parent.number)
                    pending[parent.number] = share if so_far is None else so_far + share
            if not retain:
                tensor.node = FREED  # its memory goes as soon as nobody else holds it
        yield tensor, gradient


def _tape(root: Tensor, inputs: Iterable[Tensor] | None) -> list[Tensor]:
    """The tensors that gradients pass through on their way from `root`, oldest first."""
    found, open_ends = {root.number: root}, [root]
    while open_ends:
        tensor = open_ends.pop()
        if tensor.node is FREED:
            raise GradientError(
                "this part of the graph was freed by an earlier backward; "
                "give that one retain_graph=True, or compute the value anew"
            )
        for parent in tensor.node.parents if tensor.node else ():
            if parent.requires_grad and parent.number not in found:
                found[parent.number] = parent
                open_ends.append(parent)
    order = sorted(found.values(), key=lambda tensor: tensor.number)
    if inputs is None:
        return order
    leading = {tensor.number for tensor in inputs}
    for tensor in order:
        if tensor.node and any(parent.number in leading for parent in tensor.node.parents):
            leading.add(tensor.number)
    return [tensor for tensor in order if tensor.number in leading]


def _shares(
    tensor: Tensor, node: Node, gradient: Tensor, needed: set[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parent's part of a gradient, in the parent's shape and dtype."""
    changes = tuple(value.changes[0] for value in (*node.parents, tensor))
    if not node.linear and node.changes != changes:
        raise GradientError(
            f"a value that the gradient of {node.name} needs was changed in place after it was "
            f"used (shapes {[parent.shape for parent in node.parents]}, result {tensor.shape}); "
            "change a copy, or call backward first"
        )
    for parent, rule in zip(node.parents, node.rules, strict=True):
        if rule is not None and parent.number in needed:
            yield parent, ops.sum_to(rule(gradient, tensor), parent.shape).to(parent.dtype)


def grad(
    output: Tensor,
    inputs: Tensor | Sequence[Tensor],
    gradient: Operand | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of `output` by each of `inputs`, without touching anybody's `.grad`.

    An input that the output does not depend on gets zeros. The other arguments and the errors
    are those of `backward`.
    """
    wanted = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    for number, tensor in enumerate(wanted):
        if not tensor.requires_grad:
            raise GradientError(
                f"input {number} of shape {tensor.shape} is a constant and has no gradient; "
                "make it with requires_grad=True before the output is computed from it"
            )
    retain = create_graph if retain_graph is None else retain_graph
    found = {tensor.number: Tensor.made(np.zeros_like(tensor.data)) for tensor in wanted}
    seed = _seed(output, gradient)
    for tensor, share in sweep(output, seed, inputs=wanted, retain=retain, record=create_graph):
        if tensor.number in found:
            found[tensor.number] = share
    return tuple(found[tensor.number] for tensor in wanted)


def _seed(root: Tensor, gradient: Operand | None) -> Tensor:
    """The gradient that a sweep starts from."""
    if not root.requires_grad:
        raise GradientError(
            "there is no gradient: nothing that this tensor was computed from requires one; "
            "make its inputs with requires_grad=True, outside no_grad()"
        )
    if gradient is None:
        if root.numel() != 1:
            raise GradientError(
                f"backward starts from one number and this tensor has shape {root.shape}; "
                "sum it up, or give the gradient of that shape"
            )
        return Tensor.made(np.ones_like(root.data))
    seed = root.like(gradient)
    if seed.shape != root.shape:
        raise ShapeError(f"a gradient of shape {seed.shape} is not one for shape {root.shape}")
    return seed.to(root.dtype)


def _same(gradient: Tensor, _: Tensor) -> Tensor:
    return gradient


from groundup.maths import ops  # noqa: E402  # the operations are built on Tensor
