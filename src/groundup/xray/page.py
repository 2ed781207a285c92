"""An X-ray as one page: all numbers inside it, drawn by JavaScript (`report/xray.js`).

A page shows one *view* at a time: the model, the model without a head, another model, or the same
run after so many steps. All of them read the same tokens and are asked for the same answers, so
that any two can be compared. Numbers are rounded to what an eye tells apart; attention is a byte
each, of the places that may be seen.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from groundup.report.page import drawn_html, is_made_by
from groundup.runs.console import counted
from groundup.runs.files import write_bytes
from groundup.xray.heads import KINDS, THRESHOLD
from groundup.xray.look import XRay

# By which a page is known again.
_GENERATOR = "groundup xray"
# The likeliest tokens after each place that a page knows by name. All others are one bar, whose
# share is right at each of the temperatures that the slider has.
_TOP = 50
TEMPERATURES = tuple(step / 10 for step in range(1, 21))


@dataclass(frozen=True)
class View:
    """What is shown at a time: its name, and the step of the run that it is of, if any."""

    name: str
    seen: XRay
    step: int | None = None


def write_xray(path: Path, title: str, views: Sequence[View], text_of: Callable[[int], str]) -> int:
    """Write the page and return its bytes; a reader sees the old one or the whole new one.

    The first view is the one to begin with. `text_of` a token's id is its text.
    """
    page = xray_html(title, views, text_of).encode("utf-8", errors="replace")
    write_bytes(path, page)
    return len(page)


def is_xray(path: Path) -> bool:
    """Whether a file is such a page, and may be written anew."""
    return is_made_by(path, _GENERATOR)


def xray_html(
    title: str,
    views: Sequence[View],
    text_of: Callable[[int], str],
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The page: whole in itself, and nothing of a text in it but as text.

    All views must be of the same tokens and answers (see `xray`). `links` are words and where they
    lead, for the page of a server.
    """
    seen = views[0].seen
    for view in views:
        assert np.array_equal(view.seen.ids, seen.ids), view.name
        assert np.array_equal(view.seen.answers, seen.answers), view.name
    drawn = [_view(view) for view in views]
    data = {
        "tokens": seen.tokens,
        "kinds": KINDS,
        "threshold": THRESHOLD,
        "temperatures": TEMPERATURES,
        "views": drawn,
        "vocabulary": {str(id): text_of(id) for id in _named(drawn)},
    }
    return drawn_html(
        "xray.html.jinja",
        data,
        generator=_GENERATOR,
        title=title,
        links=links,
        seen=seen,
        tokens=counted(len(seen.tokens), "token"),
        more=counted(seen.cut, "more token"),
        context=min(view.seen.context for view in views),
        layers=counted(seen.attention.shape[0], "layer"),
        heads=counted(seen.attention.shape[1], "head"),
        names=[view.name for view in views],
        threshold=THRESHOLD,
        are_known=not np.isnan(seen.head_scores).all(),
        has_steps=any(view.step is not None for view in views),
        ablations=_ablations(views),
    )


def _ablations(views: Sequence[View]) -> list[tuple[str, str, float, float]]:
    """Each view of the first model without some heads: its name, they, its loss, the loss before.

    None of a single token, which has no loss.
    """
    whole = views[0].seen.loss
    found = [view for view in views if view.seen.without and not math.isnan(whole)]
    named = [", ".join(f"{i}.{j}" for i, j in view.seen.without) for view in found]
    return [(v.name, heads, v.seen.loss, whole) for v, heads in zip(found, named, strict=True)]


def _view(view: View) -> dict[str, Any]:
    seen = view.seen
    ids, logprobs, tails = _next_tokens(seen.logits)
    parts = seen.contributions
    return {
        "name": view.name,
        "step": view.step,
        # Unrounded, as it is rounded where it is shown.
        "loss": seen.loss if math.isfinite(seen.loss) else None,
        "losses": _rounded(seen.losses, 3),
        "next": {"ids": ids.tolist(), "logprobs": _rounded(logprobs, 3), "tails": tails},
        "answers": seen.answers.tolist(),
        "attention": _triangles(seen.attention),
        "scores": _rounded(seen.head_scores, 3),
        "lens": {
            "ids": seen.lens.ids.tolist(),
            "probabilities": _rounded(seen.lens.probabilities, 3),
            "answers": _rounded(np.exp(seen.lens.answer_logprobs), 4),
        },
        "contributions": {
            "embedding": _rounded(parts.embedding, 2),
            "bias": _rounded(parts.bias, 2),
            "heads": _rounded(parts.heads, 2),
            "mlps": _rounded(parts.mlps, 2),
            # Of many parts the rounded ones would add up to something else.
            "sum": _rounded(parts.sum, 2),
        },
        "norms": _rounded(seen.residual_norms, 2),
        "gradients": _significant(seen.residual_gradients),
        "weights": _significant(seen.weight_gradients),
    }


def _next_tokens(
    logits: Float[np.ndarray, "time vocab"],
) -> tuple[Int[np.ndarray, "time top"], Float[np.ndarray, "time top"], list[Any]]:
    """The likeliest next tokens, their log-probabilities, and what is left to all others.

    The third is, for each place and each temperature, the logarithm of the sum of
    exp(log-probability / temperature) over the tokens that are not named.
    """
    logits = logits.astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    order = np.argsort(-logprobs, axis=-1, kind="stable")
    ids = order[:, :_TOP]
    named = np.take_along_axis(logprobs, ids, axis=-1)
    others = np.take_along_axis(logprobs, order[:, _TOP:], axis=-1)
    if not others.shape[1]:
        return ids, named, [None] * len(ids)
    sums = [np.logaddexp.reduce(others / one, axis=-1) for one in TEMPERATURES]
    return ids, named, _rounded(np.stack(sums, axis=-1), 2)


def _triangles(attention: Float[np.ndarray, "layers heads time time"]) -> str:
    """What each query gives to itself and the keys before it, a byte each, as base64."""
    rows, columns = np.tril_indices(attention.shape[-1])
    bytes_ = np.rint(255 * attention[..., rows, columns]).astype(np.uint8)
    return base64.b64encode(bytes_.tobytes()).decode("ascii")


def _named(views: Sequence[dict[str, Any]]) -> list[int]:
    """Every token that a view names."""
    found = set[int]()
    for view in views:
        for ids in (view["next"]["ids"], view["lens"]["ids"], view["answers"]):
            found.update(np.asarray(ids).ravel().tolist())
    return sorted(found)


def _rounded(numbers: Any, digits: int) -> Any:
    """Lists of numbers with so many decimals, as short as they go; None where there is none."""
    return _listed(np.round(np.asarray(numbers, np.float64), digits))


def _significant(numbers: Any) -> Any:
    """Lists of numbers with three digits, for what spans orders of magnitude."""
    array = np.asarray(numbers, np.float64)
    # Powers of ten that leave three digits before the point.
    scale = 10.0 ** (2 - np.floor(np.log10(np.where(array == 0, 1.0, np.abs(array)))))
    return _listed(np.round(array * scale) / scale)


def _listed(numbers: Any) -> Any:
    """An array, or lists of its numbers, as JSON has them."""
    if isinstance(numbers, np.ndarray):
        numbers = numbers.tolist()
    if isinstance(numbers, list):
        return [_listed(one) for one in numbers]
    if not math.isfinite(numbers):
        return None
    return int(numbers) if numbers.is_integer() else float(f"{numbers:.6g}")
