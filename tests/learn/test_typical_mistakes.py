"""Mistakes of one kind are found whatever is drawn, and named in whatever form they come."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from groundup.learn.exercise import module_of
from groundup.learn.judge import judge
from groundup.learn.road import find


def part(exercise: str, **functions: object) -> ModuleType:
    """The shipped solution with some functions of another make."""
    found = module_of(find(exercise).folder / "solution.py", exercise)
    for name, function in functions.items():
        setattr(found, name, function)
    return found


@pytest.mark.parametrize("low", [-20.0, -100.0, -1000.0, -10_000.0])
def test_a_mask_of_a_number_is_found_whatever_is_drawn(low: float) -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return torch.where(mask, scores, low).softmax(-1) @ value

    for seed in range(20):
        verdict = judge(find("attention"), part("attention", attention=attention), seed)
        assert verdict.named == "masked_to_a_number", (seed, verdict.lines)


@pytest.mark.parametrize("low", [-1e9, -1e30, torch.finfo(torch.float32).min])
def test_a_mask_below_every_score_passes_whatever_is_drawn(low: float) -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return torch.where(mask, scores, low).softmax(-1) @ value

    for seed in range(20):
        verdict = judge(find("attention"), part("attention", attention=attention), seed)
        assert verdict.passed, (seed, verdict.lines)


def test_a_mask_that_lowers_scores_by_a_hundred_is_found_whatever_is_drawn() -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return (scores + (~mask).float() * -100.0).softmax(-1) @ value

    for seed in range(20):
        verdict = judge(find("attention"), part("attention", attention=attention), seed)
        assert verdict.named == "lowered_by_100", (seed, verdict.lines)


Wilson = Callable[..., tuple[float, float]]


def by_shares(
    *, below: bool = True, halved: float = 2, quartered: float = 4, n_squared: bool = True
) -> Wilson:
    """Wilson's interval as encyclopedias print it, of shares, with a mistake if any."""

    def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
        p, square = successes / n, z * z
        scale = 1 / (1 + square / n) if below else 1.0
        center = scale * (p + square / (halved * n))
        last = square / (quartered * n * (n if n_squared else 1))
        radius = scale * z * math.sqrt(p * (1 - p) / n + last)
        return center - radius, center + radius

    return wilson


def cut(wilson: Wilson) -> Wilson:
    def found(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
        low, high = wilson(successes, n, z)
        return max(0.0, low), min(1.0, high)

    return found


@pytest.mark.parametrize(
    ("wilson", "named"),
    [
        (by_shares(below=False), "n_below_the_line"),
        (by_shares(halved=1), "not_halved"),
        (by_shares(quartered=1), "not_quartered"),
        (by_shares(n_squared=False), "n_not_squared"),
    ],
)
@pytest.mark.parametrize("are_cut", [False, True])
def test_a_mistake_in_wilsons_interval_of_shares_is_named(
    wilson: Wilson, named: str, are_cut: bool
) -> None:
    assert judge(find("intervals"), part("intervals", wilson=cut(by_shares()))).passed
    verdict = judge(find("intervals"), part("intervals", wilson=cut(wilson) if are_cut else wilson))
    assert verdict.named == named, verdict.lines
