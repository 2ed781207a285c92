"""The computation graph below a tensor, and how its parts are called.

`Graph` collects what a tensor was computed from and names it, `Step` is one moment of
backpropagation through it, and the functions at the end write values in few letters. `draw` makes
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

MAX_NODES = 400  # more are a wall of boxes that nobody reads
SIGNS = {"add": "+", "sub": "-", "mul": "·", "div": "/", "pow": "^", "matmul": "@"}


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """All tensors that a root was computed from and the root, oldest first.

    `names` and `place`, the index in `tensors`, are by `Tensor.number`.
    """

    tensors: tuple[Tensor, ...]
    names: Mapping[int, str]
    place: Mapping[int, int]

    @classmethod
    def below(
        cls, root: Tensor, names: Mapping[str, object] | None, most: int = MAX_NODES
    ) -> Graph:
        """The graph of a root; an error if it has more than `most` nodes or was freed in part."""
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
        """What all others were made for: the newest."""
        return self.tensors[-1]

    @property
    def title(self) -> str:
        return f"The computation of {self.label(self.root)}"

    def label(self, tensor: Tensor) -> str:
        """The tensor's name, or else what it is and its number in the picture."""
        name = self.names.get(tensor.number)
        return name or f"{kind_of(tensor)} {self.place[tensor.number] + 1}"

    def formula(self, tensor: Tensor) -> str:
        """The operation and its operands, such as "w · x"; small numbers stand for themselves."""
        operands = []
        for parent in parents_of(tensor):
            named = parent.ndim or parent.number in self.names or kind_of(parent) != "constant"
            operands.append(self.label(parent) if named else short(parent.data))
        return _formula(kind_of(tensor), operands)

    def computed(self, tensor: Tensor) -> str:
        """Its value and where it came from in a sentence: "mul 3 is w · x = -3 · 2 = -6."."""
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
        """Parent and child by their places, and which operand the parent is."""
        for child, tensor in enumerate(self.tensors):
            for operand, parent in enumerate(parents_of(tensor)):
                yield (self.place[parent.number], child), operand

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each tensor with the root's gradient by it, newest first; none if none requires one.

        No `.grad` is touched and the tape stays. A root of many numbers stands for their sum.
        """
        if self.root.requires_grad:
            yield from self.root.sweep(Tensor.from_numpy(np.ones_like(self.root.data)), retain=True)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One tensor's turn: forward it gets its value, backward it hands its gradient on.

    `rule` is the operation's name, "leaf" or "constant". `shares` has what flows back to each
    parent, by its place among the operands. `gradients` has the gradients so far, after this
    step, by `Tensor.number`; those of tensors that have had their turn are complete.
    """

    direction: Literal["forward", "backward"]
    tensor: Tensor
    rule: str
    shares: Mapping[int, Tensor]
    gradients: Mapping[int, Tensor]
    explanation: str

    def knows(self, tensor: Tensor) -> bool:
        """Whether this tensor has its value by now."""
        return self.direction == "backward" or tensor.number <= self.tensor.number

    def uses(self, child: Tensor, operand: int) -> bool:
        """Whether something flows in this step between a tensor and one of its operands."""
        return child is self.tensor and (self.direction == "forward" or operand in self.shares)


def parents_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """The operands that a tensor was computed from; a leaf has none."""
    return tensor.node.parents if tensor.node else ()


def kind_of(tensor: Tensor) -> str:
    """The name of the operation that made it, or "leaf" or "constant"."""
    if tensor.node:
        return tensor.node.name
    return "leaf" if tensor.requires_grad else "constant"


def _formula(operation: str, operands: list[str]) -> str:
    sign = SIGNS.get(operation)
    return f" {sign} ".join(operands) if sign else f"{operation}({', '.join(operands)})"


# Numbers in few letters


def value_rows(tensor: Tensor) -> list[str]:
    """The numbers of a small tensor, a line for each row, or the shape of a large one."""
    return _number_rows(tensor.data) if is_small(tensor) else [str(tensor.shape)]


def gradient_rows(gradient: Tensor) -> list[str]:
    """The numbers of a small gradient, a line for each row, or the norm of a large one."""
    if is_small(gradient):
        return _number_rows(gradient.data)
    with np.errstate(all="ignore"):
        return [f"norm {short(np.sqrt(np.square(gradient.data).sum()))}"]


def is_small(tensor: Tensor) -> bool:
    """Whether its numbers are shown: up to 2 x 2, and not empty."""
    return tensor.ndim <= 2 and all(1 <= n <= 2 for n in tensor.shape)


def _number_rows(array: Array) -> list[str]:
    if not array.ndim:
        return [short(array)]
    if array.ndim == 1:
        return [f"[{', '.join(short(x) for x in array)}]"]
    first, *second = (_number_rows(row)[0] for row in array)
    return [f"[{first},", f"{second[0]}]"] if second else [f"[{first}]"]


def short(value: Array | np.generic) -> str:
    """Four significant digits, or the whole of a whole number, in about ten letters."""
    exact = str(value)
    return exact if value.dtype.kind != "f" and len(exact) <= 10 else f"{float(value):.4g}"
