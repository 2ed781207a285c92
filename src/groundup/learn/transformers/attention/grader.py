"""Grades attention by `groundup.lm.attention`."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from groundup.learn.exercise import Trial, calls
from groundup.lm.attention import document_mask, scaled_dot_product_attention


def trials(seed: int) -> Iterator[Trial]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for rows, time, heads, size in ((1, 2, 2, 1), (2, 3, 2, 4), (2, 4, 4, 2)):
        x = drawn(rows, time, heads * size)
        yield Trial(
            f"split_heads of shape {tuple(x.shape)} into {heads}",
            calls("split_heads", x, heads),
            torch.stack(torch.split(x, size, dim=-1), dim=1),
            {"x": x, "heads": heads},
        )
    for time in (1, 2, 4):
        yield Trial(
            f"causal_mask({time})",
            calls("causal_mask", time),
            _causal(time),
            {"time": time},
        )
    shapes = ((1, 1, 2, 1), (1, 1, 2, 4), (2, 2, 3, 4), (2, 3, 5, 8))
    for rows, heads, time, size in shapes:
        query, key, value = (drawn(rows, heads, time, size) for _ in range(3))
        causal = _causal(time)
        anything = torch.ones(time, time, dtype=torch.bool)
        for name, mask in (("no mask", anything), ("a causal mask", causal)):
            yield _trial(f"attention with {name}", query, key, value, mask)
    query, key, value = drawn(2, 2, 1, 4), drawn(2, 2, 3, 4), drawn(2, 2, 3, 4)
    some = torch.tensor([[[[True, False, True]]], [[[False, True, True]]]])
    yield _trial(
        "attention of one query to three keys, each row its own mask", query, key, value, some
    )
    large = 100 * query.abs()
    yield _trial("attention with scores in the hundreds", large, 10 * key.abs(), value, some)
    # In every draw, the key that the first token may look at scores -20,000 or less, and the others
    # 0 or more: a mask of -100 or -10,000 masks nothing. A mask of -65,504 or less passes: no
    # float16 score is lower, nor is any score of a trained model in any dtype.
    query = 100 + 10 * drawn(1, 1, 3, 4).abs()
    key = torch.tensor([-100.0, 0.0, 100.0])[:, None].expand(1, 1, 3, 4).clone()
    yield _trial(
        "attention whose scores lie far below 0", query, key, drawn(1, 1, 3, 4), _causal(3)
    )
    leaves = [drawn(1, 2, 3, 4) for _ in range(3)]
    mask = _causal(3)
    names = ("query", "key", "value")
    expected = _gradients(scaled_dot_product_attention, leaves, mask)
    for place, name in enumerate(names):
        yield Trial(
            f"the gradient of sum(attention²) with respect to the {name}",
            calls("attention", leaves, mask, at=place, via=_gradients),
            expected[place],
            {**dict(zip(names, leaves, strict=True)), "mask": mask},
            rtol=1e-4,
            atol=1e-5,
        )


def _causal(time: int) -> Tensor:
    return document_mask(torch.zeros(1, time, dtype=torch.int64))[0]


def _trial(about: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Trial:
    return Trial(
        about,
        calls("attention", query, key, value, mask),
        scaled_dot_product_attention(query, key, value, mask),
        {"query": query, "key": key, "value": value, "mask": mask},
        rtol=1e-4,
        atol=1e-5,
    )


def _gradients(
    function: Callable[..., Tensor], leaves: list[Tensor], mask: Tensor
) -> tuple[Tensor, ...]:
    fresh = [leaf.clone().requires_grad_() for leaf in leaves]
    result = function(*fresh, mask)
    return torch.autograd.grad(result.square().sum(), fresh)
