"""The run-time shape checks find errors."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from groundup.align.dpo import dpo_loss
from typecheck import check_shapes

PAGE = """
from __future__ import annotations
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "rows width"]


@dataclass(frozen=True)
class Pair:
    left: Float[Tensor, " n"]
    right: Float[Tensor, " n"]


def width(rows: Rows) -> int:
    return rows.shape[-1]


def twice(number: int) -> int:
    return 2 * number
"""


def test_a_shape_that_would_broadcast_is_rejected() -> None:
    three, one = torch.zeros(3), torch.zeros(1)
    dpo_loss(three, three, three, three, 0.1)
    with pytest.raises(TypeCheckError):
        dpo_loss(three, three, three, one, 0.1)


def test_aliases_and_dataclasses_are_checked_but_other_functions_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shaped_page.py").write_text(PAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    others = [one for one in sys.meta_path if not type(one).__module__.startswith("jaxtyping.")]
    monkeypatch.setattr(sys, "meta_path", others)
    check_shapes("shaped_page")
    page = importlib.import_module("shaped_page")
    monkeypatch.delitem(sys.modules, "shaped_page")
    assert page.width(torch.zeros(2, 3)) == 3
    with pytest.raises(TypeCheckError):
        page.width(torch.zeros(3))
    page.Pair(torch.zeros(2), torch.zeros(2))
    with pytest.raises(TypeCheckError):
        page.Pair(torch.zeros(2), torch.zeros(3))
    assert page.twice("a") == "aa"  # mypy checks their types
