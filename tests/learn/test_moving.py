"""The animated pages contain their data and drawing, and load nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

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


def test_training_separates_nonlinear_classes() -> None:
    snapshots = data_of("layer")["snapshots"]
    assert isinstance(snapshots, list)
    assert snapshots[0]["right"] < 0.8 and snapshots[-1]["right"] > 0.97
    assert snapshots[-1]["loss"] < snapshots[0]["loss"] / 3


def test_descents_diverge_beyond_the_limit() -> None:
    data = data_of("gradient_descent")
    walks, rates = data["walks"], data["rates"]
    assert isinstance(walks, list) and isinstance(rates, list)
    for rate, walk in zip(rates, walks[0], strict=True):
        lengths = np.linalg.norm(np.array(walk), axis=1)
        assert (lengths[-1] < lengths[0]) == (rate <= 0.25), rate


def test_more_weights_fit_training_data_better_and_new_data_worse() -> None:
    fits = data_of("regularization")["fits"]
    assert isinstance(fits, list)
    plain = fits[0]
    assert plain[15]["train"] < 1e-6 < plain[3]["train"]
    assert plain[15]["heldout"] > 10 * plain[3]["heldout"]


# A browser of stubs: the second canvas keeps the corners of its lines and its words.
BROWSER = """
const [data, code] = JSON.parse(require("fs").readFileSync(0));
const drawn = [], made = {};
const context = () => {
  let points = [];
  const known = {
    beginPath() { points = []; }, moveTo(...at) { points.push(at); },
    lineTo(...at) { points.push(at); }, stroke() { mine.lines.push(points); },
    fillText(text) { mine.words.push(text); }, clip() { mine.clips++; },
    clearRect() { Object.assign(mine, { lines: [], words: [], clips: 0 }); },
  };
  const mine = {};
  drawn.push(mine);
  return new Proxy(known, { get: (of, name) => of[name] ?? (() => {}), set: () => true });
};
const element = text => ({
  textContent: text, style: {}, setAttribute() {}, append() {}, addEventListener() {},
  getContext: context,
});
const document = {
  getElementById: id => (made[id] ??= element(id === "data" ? data : "")),
  createElement: () => element(""), documentElement: element(""),
};
const getComputedStyle = () => ({ getPropertyValue: () => "#000" });
const window = {}, matchMedia = () => ({ addEventListener() {} });
const show = eval(code.replace('"use strict";', "") +
  ";(set => { for (const name in set) readers[name](set[name]); draw(); })");
show(SET);
console.log(JSON.stringify(drawn[1]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize(
    ("name", "sliders", "highest"),
    [("regularization", {"degree": 15, "penalty": 0}, 10), ("gradient_descent", {"rate": 51}, 100)],
)
def test_a_line_that_is_too_high_leaves_the_frame(
    name: str, sliders: dict[str, int], highest: float
) -> None:
    page = moving(find(name))
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    ran = subprocess.run(
        ["node", "-e", BROWSER.replace("SET", json.dumps(sliders))],
        input=json.dumps(scripts), capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    ends = [points[-1][1] for points in seen["lines"] if len(points) > 2]
    # y grows downwards and the frame begins at 36.
    assert min(ends) < 36 and seen["clips"] > 0
    numbers = [float(text) for text in seen["words"] if re.fullmatch(r"[\d.]+(e[+-]\d+)?", text)]
    assert max(numbers) > highest


def test_an_exercise_without_a_page() -> None:
    with pytest.raises(UserError, match=r"no moving page; .* 1\.2 The chain rule on a graph"):
        moving(find("matrices"))
