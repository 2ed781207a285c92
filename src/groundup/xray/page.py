"""An X-ray as one page, which contains all numbers and is drawn by JavaScript (`report/xray.js`).

A page shows one *view* at a time: the model, the model without a head, another model, or the same
run at another step. All views read the same tokens and predict the same answers, so that any two
can be compared. Numbers are rounded to what is visible; attention is one byte for each query and
key, without the masked part.
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

from groundup.report.page import is_made_by, script_page
from groundup.runs.console import counted
from groundup.runs.files import write_bytes
from groundup.xray.heads import KINDS, THRESHOLD
from groundup.xray.look import XRay

# Identifies the page's generator.
_GENERATOR = "groundup xray"
# The number of most likely tokens at each position that a page lists. All others are one bar, whose
# share is exact at each temperature of the slider.
_TOP = 50
TEMPERATURES = tuple(step / 10 for step in range(1, 21))


@dataclass(frozen=True)
class View:
    """A view: its name, the X-ray, and its step if it is a snapshot of a run."""

    name: str
    seen: XRay
    step: int | None = None


def write_xray(path: Path, title: str, views: Sequence[View], text_of: Callable[[int], str]) -> int:
    """Write the page atomically and return its size in bytes.

    The page opens with the first view. `text_of` maps a token id to its text.
    """
    page = xray_html(title, views, text_of).encode("utf-8", errors="replace")
    write_bytes(path, page)
    return len(page)


def is_xray(path: Path) -> bool:
    """Whether a file is such a page, and may therefore be overwritten."""
    return is_made_by(path, _GENERATOR)


def xray_html(
    title: str,
    views: Sequence[View],
    text_of: Callable[[int], str],
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The self-contained page, in which all model text is escaped.

    All views must have the same tokens and answers (see `xray`). `links` are pairs of text and
    address, for the page of a server.
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
        "vocabulary": {str(id): text_of(id) for id in _token_ids(drawn)},
    }
    return script_page(
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
    """For each view without some heads: its name, the heads, its loss, and the first view's loss.

    Empty for a single token, which has no loss.
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
        # Not rounded here, because it is rounded for display.
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
            # The sum of rounded parts would differ.
            "sum": _rounded(parts.sum, 2),
        },
        "norms": _rounded(seen.residual_norms, 2),
        "gradients": _significant(seen.residual_gradients),
        "weights": _significant(seen.weight_gradients),
    }


def _next_tokens(
    logits: Float[np.ndarray, "time vocab"],
) -> tuple[Int[np.ndarray, "time top"], Float[np.ndarray, "time top"], list[Any]]:
    """The most likely next tokens, their log-probabilities, and the mass of all others.

    The third value is, for each position and temperature, the logarithm of the sum of
    exp(log-probability / temperature) over the tokens that are not listed.
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
    """The attention of each query to itself and earlier keys, one byte each, as base64."""
    rows, columns = np.tril_indices(attention.shape[-1])
    bytes_ = np.rint(255 * attention[..., rows, columns]).astype(np.uint8)
    return base64.b64encode(bytes_.tobytes()).decode("ascii")


def _token_ids(views: Sequence[dict[str, Any]]) -> list[int]:
    """Every token id that occurs in a view."""
    found = set[int]()
    for view in views:
        for ids in (view["next"]["ids"], view["lens"]["ids"], view["answers"]):
            found.update(np.asarray(ids).ravel().tolist())
    return sorted(found)


def _rounded(numbers: Any, digits: int) -> Any:
    """Nested lists of numbers with `digits` decimals; None for NaN and infinity."""
    return _listed(np.round(np.asarray(numbers, np.float64), digits))


def _significant(numbers: Any) -> Any:
    """Nested lists of numbers with three significant digits, for values of varying magnitude."""
    array = np.asarray(numbers, np.float64)
    # Scales each number to three digits before the point.
    scale = 10.0 ** (2 - np.floor(np.log10(np.where(array == 0, 1.0, np.abs(array)))))
    return _listed(np.round(array * scale) / scale)


def _listed(numbers: Any) -> Any:
    """An array or nested lists as JSON values."""
    if isinstance(numbers, np.ndarray):
        numbers = numbers.tolist()
    if isinstance(numbers, list):
        return [_listed(one) for one in numbers]
    if not math.isfinite(numbers):
        return None
    return int(numbers) if numbers.is_integer() else float(f"{numbers:.6g}")
