"""Conversions and comparisons of tensors in Python and NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from groundup.maths import ShapeError, Tensor


def test_a_single_number_converts_to_python():
    x = Tensor(2.5)
    assert float(x) == x.item() == 2.5 and int(x) == 2 and bool(x) and not bool(Tensor(0.0))
    assert Tensor([[2.5]]).item() == 2.5 and math.sqrt(Tensor(4.0)) == 2
    assert [10, 20, 30][Tensor(np.array(1))] == 20
    assert f"{x:.3f} and {x}" == "2.500 and Tensor(2.5)"
    assert f"{Tensor([1.0])}" == "Tensor([1.])"
    for many in (Tensor([1.0, 2.0]), Tensor([])):
        for ask in (float, int, bool, Tensor.item):
            with pytest.raises(ShapeError, match="one number"):
                ask(many)


def test_shape_attributes_have_torchs_names():
    x = Tensor(np.zeros((2, 0, 3)))
    assert x.shape == x.size() == (2, 0, 3) and x.size(-1) == 3
    assert x.ndim == x.dim() == 3 and x.numel() == 0 and len(x) == 2
    assert [row.shape for row in x] == [(0, 3), (0, 3)]
    for ask in (len, list):
        with pytest.raises(TypeError, match="without dimensions"):
            ask(Tensor(1.0))


def test_comparisons_are_element_by_element():
    x = Tensor([1.0, 2.0, 3.0])
    for other in (2, 2.0, np.float32(2), np.array([2, 2, 2]), [2, 2, 2], Tensor(2.0)):
        assert (x < other).tolist() == [True, False, False]
        assert (x <= other).tolist() == [True, True, False]
        assert (x > other).tolist() == [False, False, True]
        assert (x >= other).tolist() == [False, True, True]
        assert (x == other).tolist() == [False, True, False]
        assert (x != other).tolist() == [True, False, True]
    assert ((x > 1) & (x < 3)).tolist() == [False, True, False]
    assert ((x < 2) | ~(x < 3)).tolist() == [True, False, True]
    assert (x > 0).all() and not (x > 1).all() and (x > 2).any() and not (x > 3).any()


def test_comparison_with_other_types_is_unequal():
    x = Tensor(1.0)
    assert x != None and x != "1" and x in [x] and x in {x}  # noqa: E711
    assert len({x, Tensor(1.0)}) == 2


def test_converts_to_arrays_and_lists():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.asarray(x) is x.numpy() is x.data
    assert np.array(x, dtype=np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(x), x.data)
    assert x.tolist() == [[1, 2], [3, 4]]


def test_an_array_can_be_assigned_from_a_tensor():
    array = total = np.array([1.0, 2.0])
    array -= 0.5 * Tensor([2.0, 2.0])
    array *= Tensor(2.0)
    assert array is total and total.tolist() == [0, 2]


@pytest.mark.parametrize("data", ["1", ["a"], [None], [1j], [[1], [2, 3]], np.array([object()])])
def test_rejects_non_numeric_arrays(data: Any):
    with pytest.raises((TypeError, ValueError), match=r"real numbers|equal lengths"):
        Tensor(data)


def test_assigning_to_data_keeps_the_dtype():
    x = Tensor(np.ones(2, np.float32))
    x.data = [3, 4]
    assert x.dtype == np.float32 and x.tolist() == [3, 4] and x.requires_grad
