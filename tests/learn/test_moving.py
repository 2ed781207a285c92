"""The pages that move hold their data and their drawing, and load nothing."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.learn.moving import PAGES, moving
from groundup.learn.road import find


def data_of(name: str) -> dict[str, object]:
    text = re.search(r'id="data">(.*?)</script>', moving(find(name)), re.DOTALL)
    assert text is not None
    found: dict[str, object] = json.loads(text[1])
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing(name: str) -> None:
    html = moving(find(name))
    assert not re.search(r"""(src|href)=["']?http|@import|fetch\(""", html)
    assert html.lstrip().lower().startswith("<!doctype html>") and "<title>" in html


def test_the_sum_of_all_terms_is_the_picture() -> None:
    data = data_of("low_rank")
    u, s, vt = (np.array(data[name]) for name in ("u", "s", "vt"))
    picture = (u * s) @ vt
    assert picture.min() > -0.01 and picture.max() < 1.01
    assert abs(picture[3, 3] - 0.75 + 0.25 * 3 / 48) < 0.01  # the sky


def test_training_parts_what_no_line_parts() -> None:
    snapshots = data_of("layer")["snapshots"]
    assert isinstance(snapshots, list)
    assert snapshots[0]["right"] < 0.8 and snapshots[-1]["right"] > 0.97
    assert snapshots[-1]["loss"] < snapshots[0]["loss"] / 3


def test_walks_diverge_beyond_the_edge() -> None:
    data = data_of("gradient_descent")
    walks, rates = data["walks"], data["rates"]
    assert isinstance(walks, list) and isinstance(rates, list)
    for rate, walk in zip(rates, walks[0], strict=True):
        lengths = np.linalg.norm(np.array(walk), axis=1)
        assert (lengths[-1] < lengths[0]) == (rate <= 0.25), rate


def test_more_weights_fit_the_seen_better_and_the_new_worse() -> None:
    fits = data_of("regularization")["fits"]
    assert isinstance(fits, list)
    plain = fits[0]
    assert plain[15]["train"] < 1e-6 < plain[3]["train"]
    assert plain[15]["heldout"] > 10 * plain[3]["heldout"]


def test_an_exercise_without_a_page() -> None:
    with pytest.raises(UserError, match=r"no moving page; .* 1\.2 The chain rule on a graph"):
        moving(find("matrices"))
