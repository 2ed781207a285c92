"""Grades cache and sampling by `groundup.lm.cache` and `groundup.generation.sampling`."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from groundup.generation.sampling import Sampling, _pick, filtered
from groundup.learn.exercise import Trial, calls
from groundup.lm.cache import KVCache

_trial = partial(Trial, rtol=1e-4, atol=1e-5)


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for places in ([[0]], [[1], [3]], [[2, 3], [0, 1]], [[3, 1]]):
        positions = torch.tensor(places)
        rows, time = positions.shape
        stored, new = drawn(rows, 2, 5, 2), drawn(rows, 2, time, 2)
        cache = KVCache([stored.clone()], [stored.clone()])
        seen, _ = cache.view(positions).write(0, new, new)
        shown = {"stored": stored, "new": new, "positions": positions}
        for name, at, expected in (("returns", 0, seen), ("leaves in stored", 1, cache.keys[0])):
            yield _trial(
                f"what remember {name}, at positions {places}",
                calls("remember", stored, new, positions, at=at, via=_remembered),
                expected,
                shown,
            )
    few = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    settings: list[tuple[Tensor, float, int, float]] = [
        (torch.tensor([2.0, 1.0, 0.0]), 1.0, 0, 1.0),
        (torch.tensor([2.0, 1.0, 0.0]), 0.5, 0, 1.0),
        (torch.tensor([1.0, 3.0, 2.0]), 0.0, 0, 1.0),
        (few, 1.0, 2, 1.0),
        (few, 1.0, 0, 0.7),
        (few, 1.0, 3, 0.51),
        (few, 1.0, 0, 0.01),
        (few, 2.0, 0, 0.7),
        (torch.tensor([0.5, 0.25, 0.25]).log(), 1.0, 0, 0.5),
    ]
    settings += [
        (drawn(12), t, k, p) for t, k, p in ((0.7, 5, 0.9), (1.5, 0, 0.6), (1.0, 20, 0.95))
    ]
    for logits, temperature, top_k, top_p in settings:
        how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        yield _trial(
            f"probabilities at temperature {temperature}, top_k {top_k}, top_p {top_p}",
            calls("probabilities", logits, temperature, top_k, top_p),
            filtered(logits[None], how)[0].exp(),
            {"logits": logits, "temperature": temperature, "top_k": top_k, "top_p": top_p},
        )
    # Either of two equal tokens may be taken, so compare the sorted values.
    equals = torch.tensor([0.0, 2.0, 2.0])
    yield _trial(
        "probabilities, largest first, of two equal logits at temperature 0",
        calls("probabilities", equals, 0.0, 0, 1.0, via=_largest_first),
        torch.tensor([1.0, 0.0, 0.0]),
        {"logits": equals, "temperature": 0.0, "top_k": 0, "top_p": 1.0},
    )
    four = torch.tensor([0.5, 0.25, 0.125, 0.125])
    for given, u in (
        (four, 0.0), (four, 0.6), (four, 0.99), (four, 0.5),
        (torch.tensor([0.0, 0.5, 0.5]), 0.0),
        (torch.tensor([0.25, 0.25, 0.0, 0.5]), 0.5),
    ):  # fmt: skip
        yield Trial(
            f"pick with u = {u}",
            calls("pick", given, u),
            int(_pick(given[None], torch.tensor([u]))[0]),
            {"probabilities": given, "u": u},
        )
    short = torch.tensor([0.5, 0.4999, 0.0])
    yield Trial(
        "pick where the sum ends a little below u",
        calls("pick", short, 0.99995),
        1,
        {"probabilities": short, "u": 0.99995},
    )


def _largest_first(probabilities: Callable[..., Tensor], *given: object) -> Tensor:
    return probabilities(*given).sort(descending=True).values


def _remembered(
    remember: Callable[..., Tensor], stored: Tensor, new: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    mine = stored.clone()  # cloned, since the part changes it in place
    seen = remember(mine, new, positions)
    return seen, mine
