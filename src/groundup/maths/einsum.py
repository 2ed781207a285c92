"""Einstein summation: products of tensors, summed over the letters that are not in the result.

`einsum("ij,jk->ik", a, b)` is the matrix product, "ii->" the trace, "bhqd,bhkd->bhqk" the scores of
attention. It is linear in each operand, and the gradient of an operand is another einsum, of the
output's gradient and the other operands, with the operand's letters as the result:

    y = einsum("ij,jk->ik", a, b):   da = einsum("ik,jk->ij", g, b).

This requires every letter of an operand to occur once in it, and also in the output or in another
operand. `_normalized` brings any expression into this form.
"""

from __future__ import annotations

from string import ascii_letters
from typing import Any

import numpy as np

from groundup.maths.arrays import Array, ShapeError
from groundup.maths.tensor import Operand, Rule, Tensor


def einsum(equation: str, *operands: Operand) -> Tensor:
    """Sum products of operands over all letters that are not in the output.

    As in NumPy and torch, "..." stands for any further dimensions, and without "->" the output
    has the letters that occur once, in alphabetical order. Tensors may be given in one list. Raises
    `ShapeError` for an equation that does not fit the operands.
    """
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        listed = operands[0]
        if any(isinstance(x, Tensor) for x in listed):  # a list of numbers is an operand itself
            operands = tuple(listed)
    tensors = [x if isinstance(x, Tensor) else Tensor(x, requires_grad=False) for x in operands]
    letters, output = _letters(equation, tensors)
    letters, tensors = _normalized(letters, output, tensors)
    joined = f"{','.join(letters)}->{output}"

    def share(i: int) -> Rule:
        """The gradient of operand i, from the gradient g and the other operands."""
        others = [j for j in range(len(tensors)) if j != i]
        backward = f"{','.join([output, *(letters[j] for j in others)])}->{letters[i]}"
        return lambda g, _: einsum(backward, g, *(tensors[j] for j in others))

    def forward(*arrays: Array) -> Any:
        return np.einsum(joined, *arrays, optimize=True)

    rules = tuple(share(i) for i in range(len(tensors)))
    return Tensor.apply("einsum", forward, tuple(tensors), rules)


def _letters(equation: str, tensors: list[Tensor]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the output, with letters in place of "..."."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise ShapeError(f"{equation!r} is for {len(parts)} operands and has {len(tensors)}")
    free = [letter for letter in ascii_letters if letter not in equation]
    extra = [
        tensor.ndim - len(part.replace("...", ""))
        for part, tensor in zip(parts, tensors, strict=True)
    ]
    for part, tensor, more in zip(parts, tensors, extra, strict=True):
        if more < 0 or (more > 0 and "..." not in part):
            raise ShapeError(f"{part!r} in {equation!r} does not fit shape {tensor.shape}")
    dots = "".join(free[: max(extra)])
    letters = [
        part.replace("...", dots[len(dots) - more :] if more else "")
        for part, more in zip(parts, extra, strict=True)
    ]
    named = left.replace("...", "").replace(",", "")
    if not arrow:
        right = "..." + "".join(sorted(c for c in set(named) if named.count(c) == 1))
    output = right.replace("...", "")
    wrong = [c for c in named + output if c not in ascii_letters]
    wrong += [c for c in output if c not in named or output.count(c) > 1]
    if wrong:
        shapes = " and ".join(str(tensor.shape) for tensor in tensors)
        raise ShapeError(
            f"{wrong[0]!r} does not fit in {equation!r} for {shapes}; "
            "give letters, and after '->' each only once and only those of operands"
        )
    return letters, right.replace("...", dots)


def _normalized(
    letters: list[str], output: str, tensors: list[Tensor]
) -> tuple[list[str], list[Tensor]]:
    """Return an equal expression in which no letter occurs twice in, or only in, one operand.

    A repeated letter "ii" is replaced by the diagonal "i". A letter that is only summed over gets
    an operand of ones. Dimensions of length 1 that NumPy would broadcast are expanded.
    """
    lengths = dict.fromkeys("".join(letters), 1)
    for part, tensor in zip(letters, tensors, strict=True):
        for letter, n in zip(part, tensor.shape, strict=True):
            if 1 not in (n, lengths[letter]) and n != lengths[letter]:
                shapes = " and ".join(str(tensor.shape) for tensor in tensors)
                raise ShapeError(f"{letter!r} is {lengths[letter]} and {n} long in {shapes}")
            if n != 1:
                lengths[letter] = n
    letters = list(letters)
    tensors = [
        tensor.expand(*(lengths[letter] for letter in part))
        for part, tensor in zip(letters, tensors, strict=True)
    ]
    for i in range(len(letters)):
        letters[i], tensors[i] = _diagonal(letters[i], tensors[i])
    for i in range(len(letters)):
        for place, letter in enumerate(letters[i]):
            if letter not in output and not any(
                letter in part for j, part in enumerate(letters) if j != i
            ):
                letters.append(letter)
                tensors.append(tensors[i].new_ones(tensors[i].shape[place]))
    return letters, tensors


def _diagonal(letters: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Return the tensor with each letter once, by taking diagonals of repeated letters."""
    for letter in letters:
        while letters.count(letter) > 1:
            first, second = letters.index(letter), letters.rindex(letter)
            rest = [d for d in range(len(letters)) if d not in (first, second)]
            places = np.arange(tensor.shape[first])
            tensor = tensor.permute(first, second, *rest)[places, places]
            letters = letter + "".join(letters[d] for d in rest)
    return letters, tensor
