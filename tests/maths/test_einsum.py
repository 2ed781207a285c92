"""Einstein summation against torch, in value and all derivatives, for random and known
equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths import ShapeError, Tensor, einsum, grad
from torch_oracle import agree

LENGTHS = {"a": 2, "b": 3, "c": 1, "d": 4, "e": 2}


def operands(inputs: list[str], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=[LENGTHS[c] for c in letters])) for letters in inputs]


@settings(max_examples=60)
@given(st.data())
def test_random_equations(data: Any):
    """Any letters in any operand and output; torch does not accept a letter twice in one
    operand."""
    letters = st.lists(st.sampled_from("abcde"), unique=True, max_size=3).map("".join)
    inputs = data.draw(st.lists(letters, min_size=1, max_size=3))
    used = sorted(set("".join(inputs)))
    output = data.draw(st.permutations(used).map(lambda s: "".join(s)[: len(s) // 2 + 1]))
    equation = ",".join(inputs) + data.draw(st.sampled_from([f"->{output}", ""]))
    agree(lambda on, *xs: on.einsum(equation, *xs), operands(inputs))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("ii,i->i", [(3, 3), (3,)]),
        ("iij->j", [(2, 2, 3)]),
        ("aabb->ab", [(2, 2, 3, 3)]),
        ("i->", [(3,)]),
        ("ij->ji", [(2, 3)]),
        ("ba", [(2, 3)]),
        ("bA,Ac", [(2, 3), (3, 2)]),
        ("...ij,jk->...ik", [(2, 5, 2, 3), (3, 4)]),
        ("...i,...i->...", [(2, 1, 3), (4, 3)]),
        ("...i,...i", [(2, 3), (2, 3)]),
        ("i...,i...->...", [(3, 2), (3, 2)]),
        ("i...->...", [(3,)]),
        (",i->i", [(), (3,)]),
        (",->", [(), ()]),
        ("ij,ij->j", [(1, 3), (2, 3)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
        ("a,ab,bc,c->", [(2,), (2, 3), (3, 2), (2,)]),
        (" i j , j k -> i k ", [(2, 3), (3, 4)]),
        ("ij,jk->ik", [(0, 3), (3, 4)]),
        ("ij,jk->ik", [(2, 0), (0, 4)]),
        ("i,i->i", [(1,), (0,)]),
    ],
)
def test_known_equations(equation: str, shapes: list[tuple[int, ...]]):
    rng = np.random.default_rng(0)
    agree(
        lambda on, *xs: on.einsum(equation, *xs), [np.asarray(rng.normal(size=s)) for s in shapes]
    )


def test_a_letter_three_times_is_a_diagonal_of_a_cube():
    x = Tensor(np.arange(27.0).reshape(3, 3, 3))
    y = einsum("iii->i", x)
    assert y.tolist() == [0, 13, 26]
    (g,) = grad(y.sum(), x)
    assert g.data[[0, 1, 2], [0, 1, 2], [0, 1, 2]].tolist() == [1, 1, 1] and g.sum() == 3


@pytest.mark.parametrize("equation", ["ii->", "ii->i", "iji->j", "ijij->ij", "iijj->ij", "aab->ba"])
def test_a_diagonal_keeps_the_other_dimensions(equation: str):
    shape = (3,) * len(equation.partition("->")[0])
    values = np.arange(float(np.prod(shape))).reshape(shape)
    agree(lambda on, x: on.einsum(equation, x), [values.copy()])
    masked = np.full((2, 2), -np.inf)
    masked[[0, 1], [0, 1]] = [1.0, 3.0]
    assert einsum("ii->", Tensor(masked)).item() == 4 and einsum("ii->i", masked).tolist() == [1, 3]


def test_one_tensor_as_two_operands():
    agree(
        lambda on, x: on.einsum("ij,kj->ik", x, x), [np.random.default_rng(0).normal(size=(2, 3))]
    )


def test_arrays_and_numbers_are_constants():
    x = Tensor([1.0, 2.0])
    y = einsum("i,,ij->j", x, 3.0, np.eye(2))
    assert y.tolist() == [3, 6] and grad(y.sum(), x)[0].tolist() == [3, 3]


def test_float32_stays_float32():
    arrays = [a.astype(np.float32) for a in operands(["ab", "bd", "d"])]
    agree(lambda on, *xs: on.einsum("ab,bd,d->a", *xs), arrays, tolerance=1e-5)
    agree(lambda on, x: on.einsum("aa->", x), [np.ones((2, 2), np.float32)], tolerance=1e-5)


@pytest.mark.parametrize(
    ("equation", "shapes", "parts"),
    [
        ("ij,jk->ik", [(2, 3), (4, 5)], ["(2, 3)", "(4, 5)", "'j'", "3", "4"]),
        ("ii->i", [(2, 3)], ["(2, 3)", "'i'"]),
        ("ij", [(2,)], ["'ij'", "(2,)"]),
        ("i", [(2, 3)], ["'i'", "(2, 3)"]),
        ("i,j", [(2,)], ["2 operands", "has 1"]),
        ("i->j", [(2,)], ["'j'", "'i->j'", "(2,)"]),
        ("ij->k", [(2, 3)], ["'k'", "'ij->k'", "for (2, 3);"]),
        ("i->ii", [(2,)], ["'i'", "'i->ii'", "for (2,);"]),
        ("ij,jk->ii", [(2, 3), (3, 2)], ["'i'", "'ij,jk->ii'", "for (2, 3) and (3, 2);"]),
        ("i1->i", [(2, 2)], ["'1'", "'i1->i'", "for (2, 2);"]),
        ("i1", [(2, 2)], ["'1'", "'i1'", "for (2, 2);"]),
        ("i.j->i", [(2, 2, 2)], ["'.'", "'i.j->i'", "for (2, 2, 2);"]),
    ],
)
def test_rejects_equations_that_do_not_fit(
    equation: str, shapes: list[tuple[int, ...]], parts: list[str]
):
    with pytest.raises(ShapeError) as caught:
        einsum(equation, *(Tensor(np.ones(shape)) for shape in shapes))
    for part in parts:
        assert part in str(caught.value)
    with pytest.raises(RuntimeError):  # and torch refuses them too
        torch.einsum(equation, *(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("kind", [list, tuple])
def test_tensors_may_be_passed_in_one_list(kind: type):
    agree(lambda on, *xs: on.einsum("ij,jk->ik", kind(xs)), operands(["ab", "bd"]))
    agree(lambda on, x: on.einsum("ij->j", kind([x])), operands(["ab"]))
    assert einsum("i->", kind([1.0, 2.0])).item() == 3
