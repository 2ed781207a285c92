"""The computation graph of a tensor, with names for its parts.

`Graph` collects and names the tensors that a tensor was computed from, `Step` is one step of
backpropagation through it, and the functions at the end format values briefly. `draw` makes
pictures of them and `steps` sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from groundup.maths.arrays import Array
from groundup.maths.graph.layout import Edge
from groundup.maths.tensor import FREED, GradientError, Tensor

MAX_NODES = 400  # larger pictures are unreadable
SIGNS = {"add": "+", "sub": "-", "mul": "·", "div": "/", "pow": "^", "matmul": "@"}


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A root and all tensors that it was computed from, oldest first.

    `names` and `place`, the index in `tensors`, are keyed by `Tensor.number`.
    """

    tensors: tuple[Tensor, ...]
    names: Mapping[int, str]
    place: Mapping[int, int]

    @classmethod
    def below(
        cls, root: Tensor, names: Mapping[str, object] | None, most: int = MAX_NODES
    ) -> Graph:
        """Return the graph of a root; an error if it has more than `most` nodes or was freed."""
        found, open_ends = {root.number: root}, [root]
        while open_ends:
            tensor = open_ends.pop()
            if tensor.node is FREED:
                raise GradientError(
                    "this part of the graph was freed by an earlier backward; "
                    "draw it before, or give that backward retain_graph=True"
                )
            for parent in parents_of(tensor):
                if parent.number not in found:
                    found[parent.number] = parent
                    open_ends.append(parent)
        if len(found) > most:
            raise ValueError(
                f"the graph has {len(found)} nodes and a picture at most {most}; draw a smaller "
                "example, or a part that is computed from detach()ed inputs"
            )
        numbers = sorted(found)
        return cls(
            tuple(found[number] for number in numbers),
            {t.number: name for name, t in (names or {}).items() if isinstance(t, Tensor)},
            {number: i for i, number in enumerate(numbers)},
        )

    @property
    def root(self) -> Tensor:
        """The newest tensor, which the others were computed for."""
        return self.tensors[-1]

    @property
    def title(self) -> str:
        return f"The computation of {self.label(self.root)}"

    def label(self, tensor: Tensor) -> str:
        """Return the tensor's name, or its kind and its number in the picture."""
        name = self.names.get(tensor.number)
        return name or f"{kind_of(tensor)} {self.place[tensor.number] + 1}"

    def formula(self, tensor: Tensor) -> str:
        """Return the operation with its operands, such as "w · x"; unnamed constants as numbers."""
        operands = []
        for parent in parents_of(tensor):
            named = parent.ndim or parent.number in self.names or kind_of(parent) != "constant"
            operands.append(self.label(parent) if named else short(parent.data))
        return _formula(kind_of(tensor), operands)

    def computed(self, tensor: Tensor) -> str:
        """Describe its value and its computation: "mul 3 is w · x = -3 · 2 = -6."."""
        label, value = self.label(tensor), " ".join(value_rows(tensor))
        if not is_small(tensor):
            value = f"shape {value}"
        if not tensor.node:
            return f"{label} is given: {value}."
        formula = self.formula(tensor)
        if any(part.ndim for part in (tensor, *tensor.node.parents)):
            return f"{label} is {formula}: {value}."
        numbers = _formula(kind_of(tensor), [short(parent.data) for parent in tensor.node.parents])
        known = "" if numbers == formula else f"{numbers} = "
        return f"{label} is {formula} = {known}{value}."

    def edges(self) -> Iterator[tuple[Edge, int]]:
        """Yield the places of parent and child, and which operand the parent is."""
        for child, tensor in enumerate(self.tensors):
            for operand, parent in enumerate(parents_of(tensor)):
                yield (self.place[parent.number], child), operand

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each tensor that requires one with the root's gradient, newest first.

        No `.grad` changes and the tape is kept. For a root of several numbers it is the gradient
        of their sum.
        """
        if self.root.requires_grad:
            yield from self.root.sweep(Tensor.from_numpy(np.ones_like(self.root.data)), retain=True)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step: forward a tensor gets its value, backward it passes its gradient to its parents.

    `rule` is the operation's name, "leaf" or "constant". `shares` has the gradient that flows back
    to each parent, by the operand's index. `gradients` has the gradients after this step, by
    `Tensor.number`; those of tensors already visited are complete.
    """

    direction: Literal["forward", "backward"]
    tensor: Tensor
    rule: str
    shares: Mapping[int, Tensor]
    gradients: Mapping[int, Tensor]
    explanation: str

    def knows(self, tensor: Tensor) -> bool:
        """Whether this tensor's value is known in this step."""
        return self.direction == "backward" or tensor.number <= self.tensor.number

    def uses(self, child: Tensor, operand: int) -> bool:
        """Whether a value or gradient flows in this step between a tensor and an operand."""
        return child is self.tensor and (self.direction == "forward" or operand in self.shares)


def parents_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the operands that a tensor was computed from; a leaf has none."""
    return tensor.node.parents if tensor.node else ()


def kind_of(tensor: Tensor) -> str:
    """Return the name of the operation that computed it, or "leaf" or "constant"."""
    if tensor.node:
        return tensor.node.name
    return "leaf" if tensor.requires_grad else "constant"


def _formula(operation: str, operands: list[str]) -> str:
    sign = SIGNS.get(operation)
    return f" {sign} ".join(operands) if sign else f"{operation}({', '.join(operands)})"


# Short number formats


def value_rows(tensor: Tensor) -> list[str]:
    """Format the numbers of a small tensor, a line per row, or the shape of a large one."""
    return _number_rows(tensor.data) if is_small(tensor) else [str(tensor.shape)]


def gradient_rows(gradient: Tensor) -> list[str]:
    """Format the numbers of a small gradient, a line per row, or the norm of a large one."""
    if is_small(gradient):
        return _number_rows(gradient.data)
    with np.errstate(all="ignore"):
        return [f"norm {short(np.sqrt(np.square(gradient.data).sum()))}"]


def is_small(tensor: Tensor) -> bool:
    """Whether its numbers are shown: at most 2 x 2, and not empty."""
    return tensor.ndim <= 2 and all(1 <= n <= 2 for n in tensor.shape)


def _number_rows(array: Array) -> list[str]:
    if not array.ndim:
        return [short(array)]
    if array.ndim == 1:
        return [f"[{', '.join(short(x) for x in array)}]"]
    first, *second = (_number_rows(row)[0] for row in array)
    return [f"[{first},", f"{second[0]}]"] if second else [f"[{first}]"]


def short(value: Array | np.generic) -> str:
    """Format with four significant digits, integers in full, in about ten characters."""
    exact = str(value)
    return exact if value.dtype.kind != "f" and len(exact) <= 10 else f"{float(value):.4g}"
