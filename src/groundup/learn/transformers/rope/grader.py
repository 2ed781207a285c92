"""Grades embeddings and rotary positions by `groundup.lm.positions`."""

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from groundup.learn.exercise import Trial, calls
from groundup.lm.config import Rope
from groundup.lm.positions import inverse_frequencies, rotation
from groundup.lm.positions import rotate as product_rotate


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    table = drawn(5, 2)
    for ids in (torch.tensor([3, 0]), torch.tensor([[1, 4, 1], [0, 2, 2]])):
        yield Trial(
            f"embed of ids of shape {tuple(ids.shape)}",
            calls("embed", ids, table),
            functional.embedding(ids, table),
            {"ids": ids, "table": table},
        )
    for head_dim, theta in ((8, 100.0), (4, 10_000.0)):
        yield Trial(
            f"frequencies({head_dim}, {theta:g})",
            calls("frequencies", head_dim, theta),
            inverse_frequencies(Rope(theta=theta), head_dim, torch.device("cpu")),
            {"head_dim": head_dim, "theta": theta},
            rtol=1e-5,
        )
    for positions in (torch.tensor([0, 1, 2]), torch.tensor([[0, 5], [3, 1001]])):
        frequencies = inverse_frequencies(Rope(theta=100.0), 4, torch.device("cpu"))
        # bfloat16 cannot represent 1001.
        expected = rotation(frequencies, positions, torch.float32)
        for name, at in (("cosines", 0), ("sines", 1)):
            yield Trial(
                f"{name} of angles at positions of shape {tuple(positions.shape)}",
                calls("angles", positions, frequencies, at=at),
                expected[at],
                {"positions": positions, "frequencies": frequencies},
                rtol=1e-4,
                atol=1e-4,
            )
    for rows, heads, time, width in ((1, 1, 2, 2), (1, 1, 2, 4), (2, 3, 5, 8)):
        x = drawn(rows, heads, time, width)
        turns = inverse_frequencies(Rope(theta=100.0), width, torch.device("cpu"))
        cos, sin = rotation(turns, torch.arange(1, time + 1)[None], torch.float32)
        yield Trial(
            f"rotate x of shape {tuple(x.shape)}",
            calls("rotate", x, cos[:, None], sin[:, None]),
            product_rotate(x, (cos, sin)),
            {"x": x, "cos": cos, "sin": sin},
            rtol=1e-4,
            atol=1e-5,
        )
    q, k = drawn(1, 4), drawn(1, 4)
    yield Trial(
        "scores at positions 3 and 1 minus those at 103 and 101",
        lambda part: _score(part, q, k, 3, 1) - _score(part, q, k, 103, 101),
        torch.zeros(1, 1),
        {"query": q, "key": k},
        atol=1e-3,
    )


def _score(part: ModuleType, q: Tensor, k: Tensor, at: int, other: int) -> Tensor:
    turns = part.frequencies(4, 100.0)
    turned = [
        part.rotate(x, *part.angles(torch.tensor([place]), turns))
        for x, place in ((q, at), (k, other))
    ]
    score: Tensor = turned[0] @ turned[1].T
    return score
