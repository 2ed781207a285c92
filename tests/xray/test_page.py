"""The page contains the arrays' numbers, is self-contained, and escapes texts."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import groundup.report
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.xray.heads import KINDS
from groundup.xray.look import XRay, token_text, xray
from groundup.xray.page import TEMPERATURES, View, xray_html

HOSTILE = "</script><script>alert(1)</script> <b>sea</b> <!-- é & \u2028"


class Page(HTMLParser):
    """Anything that a browser would run or fetch, and the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.shown = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert tag not in ("link", "iframe", "object", "img")

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.shown += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def written(views: list[View], tokenizer: Tokenizer | None, title: str = "sea") -> Page:
    page = xray_html(title, views, lambda id: token_text(tokenizer, id))
    assert not re.search(r"url\(|@import|http-equiv|https?://(?!www\.w3\.org/2000/svg)", page)
    return Page(page)


@pytest.fixture
def model(tiny_model) -> CausalLM:  # type: ignore[no-untyped-def]
    made: CausalLM = tiny_model()
    return made


@pytest.fixture
def seen(model: CausalLM, tokenizer: Tokenizer) -> XRay:
    return xray(model, HOSTILE, tokenizer)


def test_the_page_is_self_contained_and_a_text_is_only_text(
    seen: XRay, tokenizer: Tokenizer
) -> None:
    page = written([View(HOSTILE, seen)], tokenizer, HOSTILE)
    assert len(page.scripts) == 2 and page.fetched == []
    assert len(set(page.ids)) == len(page.ids)
    assert "".join(page.data["tokens"]) == "".join(seen.tokens)
    assert page.data["views"][0]["name"] == HOSTILE.replace("\u2028", " ")
    assert HOSTILE.replace("\u2028", " ").strip() in page.shown.replace("\u2028", " ")
    # Everything that the script asks the page for is there.
    asked = set(re.findall(r'(?:byId|fill)\("([\w-]+)"', page.scripts[1]))
    assert asked - {"time", "step", "by-step", "from-the-start"} <= set(page.ids)
    assert not {"time", "step", "by-step"} & set(page.ids)


def test_numbers_equal_the_arrays(seen: XRay, tokenizer: Tokenizer) -> None:
    [view] = written([View("sea", seen)], tokenizer).data["views"]
    time = len(seen.tokens)
    layers, heads = seen.attention.shape[:2]
    bytes_ = np.frombuffer(base64.b64decode(view["attention"]), np.uint8)
    triangles = bytes_.reshape(layers, heads, -1) / 255
    # As the script finds the place of a query and a key.
    for query, key in ((0, 0), (time - 1, 0), (time - 1, time - 1), (3, 2)):
        found = triangles[..., query * (query + 1) // 2 + key]
        assert_allclose(found, seen.attention[..., query, key], atol=0.5 / 255 + 1e-6)
    assert view["losses"][0] is None
    assert_allclose(view["losses"][1:], seen.losses[1:], atol=6e-4)
    parts = view["contributions"]
    whole = np.asarray(parts["heads"]).sum((0, 1)) + np.asarray(parts["mlps"]).sum(0)
    whole += np.asarray(parts["embedding"]) + np.asarray(parts["bias"])
    logits = seen.logits[np.arange(time), seen.answers]
    assert_allclose(whole, logits, atol=0.1)  # twelve parts of two decimals
    assert_allclose(parts["sum"], logits, atol=6e-3)
    assert_allclose(view["scores"], seen.head_scores, atol=6e-4)
    assert_allclose(view["norms"], seen.residual_norms, atol=6e-3)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.0])
def test_probabilities_are_right_at_every_temperature(
    seen: XRay, tokenizer: Tokenizer, temperature: float
) -> None:
    next_ = written([View("sea", seen)], tokenizer).data["views"][0]["next"]
    at = TEMPERATURES.index(temperature)
    for place in range(len(seen.tokens)):
        named = np.exp(np.asarray(next_["logprobs"][place]) / temperature)
        others = np.exp(next_["tails"][place][at])
        exact = torch.as_tensor(seen.logits[place]).double().div(temperature).softmax(-1).numpy()
        found = named / (named.sum() + others)
        assert_allclose(found, exact[next_["ids"][place]], atol=0.01)


def test_a_run_has_its_steps_and_an_ablation_its_sentence(
    model: CausalLM, seen: XRay, tokenizer: Tokenizer
) -> None:
    ids = seen.ids.tolist()
    answer = int(seen.answers[-1])
    removed = xray(model, ids, tokenizer, without=[(0, 1)], answer=answer)
    views = [View("sea", seen), View("without 0.1", removed), View("step 4", seen, 4)]
    page = written(views, tokenizer)
    assert {"time", "step", "by-step"} <= set(page.ids)
    assert [view["step"] for view in page.data["views"]] == [None, None, 4]
    assert f"from {seen.loss:.3f} to {removed.loss:.3f}" in page.shown
    named = {int(id) for id in page.data["vocabulary"]}
    assert set(removed.lens.ids.ravel().tolist()) <= named


# As much of a browser as the script asks for: any element, and a canvas that draws nothing.
BROWSER = """
const fs = require("fs"), [data, code] = JSON.parse(fs.readFileSync(0, "utf8")), made = {};
const image = (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) });
const canvas = { createImageData: image, measureText: () => ({ width: 5 }) };
const context = new Proxy(canvas, { get: (o, k) => o[k] ?? (() => {}), set: () => true });
const element = text => ({
  children: [], style: { setProperty() {} }, textContent: text, clientWidth: 300,
  nextElementSibling: {}, append(...more) { this.children.push(...more); },
  replaceChildren(...all) { this.children = all; }, addEventListener() {},
  setAttribute(name, value) { this[name] = value; }, focus() { document.activeElement = this; },
  remove() {}, getContext: () => context,
});
const document = {
  getElementById: id => (made[id] ??= element(id === "data" ? data : "")),
  createElement: () => element(""), createElementNS: () => element(""),
  createTextNode: element, body: element(""), documentElement: element(""),
};
const getComputedStyle = () => ({ color: "rgb(1, 2, 3)", getPropertyValue: () => "#000" });
const location = { hash: "" }, matchMedia = () => ({ addEventListener() {} });
const addEventListener = () => {}, devicePixelRatio = 1, innerWidth = 800;
const requestAnimationFrame = draw => draw();
const choose = eval(code.replace('"use strict";', "") + ";choose");
const charts = () => made["by-step"].children.map(chart => chart.children.length > 0);
for (const [view, head] of [[0, 0], [1, 1]]) {
  choose({ view, layer: head, head });
  console.log(JSON.stringify(charts()));
}
"""


STRIPS = """
for (const children of [made.strip.children, made.large.children.at(-1).children]) {
  console.log(JSON.stringify(children.slice(0, 8).map(one => one.children ?? one)));
}
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_head_missing_in_the_run_has_no_chart(tiny_model) -> None:  # type: ignore[no-untyped-def]
    ids = [5, 6, 7, 8, 5, 6, 7, 8, 9]
    own = xray(tiny_model(num_hidden_layers=1), ids)
    larger = xray(tiny_model(num_hidden_layers=3), ids, answer=int(own.answers[-1]))
    views = [View("run", own), View("larger", larger), View("step 1", own, 1)]
    page = written([*views, View("step 2", own, 2)], None)
    said = subprocess.run(
        ["node", "-e", BROWSER], input=json.dumps(page.scripts), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    shown, without = map(json.loads, said.stdout.splitlines())
    assert shown == [True] * 4 and without == [True, True, False, True]


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_line_breaks_after_the_button_of_its_token(seen: XRay, tokenizer: Tokenizer) -> None:
    """Within the button a break would lift it out of its line."""
    texts = ("Sea", ".\n\n", " \n", "\nx")
    few = replace(seen, tokens=(*texts, *seen.tokens[len(texts) :]))
    page = written([View("sea", few)], tokenizer)
    said = subprocess.run(
        ["node", "-e", BROWSER.split("const charts")[0] + STRIPS],
        input=json.dumps(page.scripts), capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    expected = [["Sea"], "", [".↵↵"], "\n\n", [" ↵"], "\n", ["↵x"], "\n"]
    assert [json.loads(line) for line in said.stdout.splitlines()] == 2 * [expected]


TICKS = """
const logs = [[3, 2000, true], [0.9, 7, true], [101, 103, true]];
for (const ends of [[0, 1, false], ...logs, [-3, 8, false]])
  console.log(JSON.stringify(choose(...ends)));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_chart_has_readable_ticks(seen: XRay, tokenizer: Tokenizer) -> None:
    page = written([View("sea", seen)], tokenizer)
    script = BROWSER.split("const charts")[0].replace(";choose", ";ticksOf") + TICKS
    said = subprocess.run(
        ["node", "-e", script], input=json.dumps(page.scripts), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert [json.loads(line) for line in said.stdout.splitlines()] == [
        [0, pytest.approx(0.2), pytest.approx(0.4), pytest.approx(0.6), pytest.approx(0.8), 1],
        [10, 100, 1000],
        [1, 2, 5],
        [101, 101.5, 102, 102.5, 103],
        [-2, 0, 2, 4, 6, 8],
    ]


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize("score", [1.0, 0.3])
def test_an_initial_previous_token_head_is_named(
    seen: XRay, tokenizer: Tokenizer, score: float
) -> None:
    scores = np.zeros_like(seen.head_scores)
    scores[KINDS.index("previous token"), 0, 1] = score
    views = [View("run", seen), View("step 1", replace(seen, head_scores=scores), 1)]
    page = written(views, tokenizer)
    script = BROWSER.split("const charts")[0]
    script += 'console.log(JSON.stringify(made["from-the-start"].children));'
    said = subprocess.run(
        ["node", "-e", script], input=json.dumps(page.scripts), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    [sentence] = json.loads(said.stdout)
    assert sentence.startswith("Head 0.1 looked") if score == 1.0 else sentence == ""


# The focused head is chosen again: all redrawn elements replace the old ones.
FOCUS = """
const buttons = () => made.heads.children.filter(one => one.type === "button");
made.heads.id = "heads";
made.heads.querySelectorAll = () => buttons();
console.log(JSON.stringify(buttons().map(one => [one.title, one["aria-label"]])));
const had = buttons()[1];
Object.assign(had, { parentElement: { closest: () => made.heads }, tagName: "BUTTON" });
had.focus();
choose({ layer: 0, head: 1 });
const has = document.activeElement;
console.log(JSON.stringify([has !== had, has["aria-label"], has["aria-pressed"]]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_choice_keeps_the_keyboard_focus(seen: XRay, tokenizer: Tokenizer) -> None:
    scores = np.zeros_like(seen.head_scores)
    scores[KINDS.index("previous token"), 0, 1] = 1.0
    page = written([View("sea", replace(seen, head_scores=scores))], tokenizer)
    said = subprocess.run(
        ["node", "-e", BROWSER.split("const charts")[0] + FOCUS],
        input=json.dumps(page.scripts), capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    names, focused = map(json.loads, said.stdout.splitlines())
    assert names[:2] == [["0.0", "head 0.0"], ["0.1 previous token", "head 0.1 previous token"]]
    assert focused == [True, "head 0.1 previous token", True]


# Six units per letter, so that eleven fit next to a picture of 300.
CUT = """
const texts = [];
canvas.measureText = text => ({ width: 6 * [...text].length });
canvas.fillText = text => texts.push(text);
choose({});
console.log(JSON.stringify(texts));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("elevenwords", "elevenwords"),
        ("twelve words", "twelve wor…"),
        ("\U0001f30a" * 12, "\U0001f30a" * 10 + "…"),
    ],
)
def test_a_shortened_name_says_so(seen: XRay, tokenizer: Tokenizer, text: str, shown: str) -> None:
    page = written([View("sea", replace(seen, tokens=(text,) * len(seen.tokens)))], tokenizer)
    said = subprocess.run(
        ["node", "-e", BROWSER.split("const charts")[0] + CUT],
        input=json.dumps(page.scripts), capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert set(json.loads(said.stdout)) == {shown}


HEARD = """
const flat = one => typeof one === "string" ? [one] : [...(one.children ?? []).flatMap(flat)];
console.log(JSON.stringify(made["by-layer"].children.map(one => flat(one))));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_chart_states_its_scale_and_numbers(seen: XRay, tokenizer: Tokenizer) -> None:
    page = written([View("sea", seen)], tokenizer)
    script = BROWSER.split("const charts")[0] + HEARD
    said = subprocess.run(
        ["node", "-e", script], input=json.dumps(page.scripts), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    length, chance, *_ = json.loads(said.stdout)
    assert length[0] == "Length of the residual stream (log scale)"
    assert chance[0] == "Probability of what follows the chosen token"
    first = seen.residual_norms[0].mean()
    heard = length[length.index("Length of the residual stream") :]
    assert float(heard[heard.index("mean") + 1]) == pytest.approx(first, rel=0.05)


def test_a_single_token_has_a_page(model: CausalLM) -> None:
    whole = xray(model, [7])
    less = xray(model, [7], without=[(0, 1)], answer=int(whole.answers[-1]))
    page = written([View("one", whole), View("without 0.1", less)], None)
    view = page.data["views"][0]
    assert view["loss"] is None and view["losses"] == [None]
    assert "1 token through" in page.shown and "nan" not in page.shown


def test_a_loss_is_rounded_when_it_is_shown(seen: XRay) -> None:
    """8.5946 would be shown as 8.595 in one place and as 8.594 in the other."""
    losses = np.array([math.nan, *[8.59446] * (len(seen.tokens) - 1)])
    [view] = written([View("sea", replace(seen, losses=losses))], None).data["views"]
    assert f"{view['loss']:.3f}" == "8.594"


def test_unmeasured_kinds_have_no_numbers(tiny_model) -> None:  # type: ignore[no-untyped-def]
    page = written([View("short", xray(tiny_model(max_position_embeddings=4), [7, 8]))], None)
    assert set(np.ravel(page.data["views"][0]["scores"])) == {None}
    assert "Not measured: the context or a window is too short" in page.shown


def test_the_limit_that_cut_the_text_is_named(model: CausalLM) -> None:
    ids = list(range(5, 80))
    by_choice = written([View("one", xray(model, ids, most_tokens=9))], None).shown
    assert "66 more tokens, left out here; groundup xray --tokens sets" in by_choice
    by_context = written([View("one", xray(model, ids))], None).shown
    assert "the context of the model is 64 tokens" in by_context and "--tokens" not in by_context


REPORT = Path(groundup.report.__path__[0])
# Every ground that the script gives to a text.
WASHES = re.findall(r"wash\((x < 0.*?|\"var.*?),", (REPORT / "xray.js").read_text())
COLOR = r"#[0-9a-f]{3}(?:[0-9a-f]{3})?"


def colors(dark: bool) -> dict[str, np.ndarray]:
    """The colors of the style sheets, as red, green and blue from 0 to 1."""
    sheet = "".join((REPORT / name).read_text() for name in ("style.css", "xray.css"))
    night = re.findall(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", sheet, re.S)
    day = re.findall(r"^  :root \{(.*?)\}", sheet, re.S | re.M)
    found: dict[str, np.ndarray] = {}
    for rules in [*day, *(night if dark else [])]:
        for name, digits in re.findall(rf"--([\w-]+): ({COLOR})", rules):
            digits = digits[1:] if len(digits) == 7 else "".join(2 * one for one in digits[1:])
            found[name] = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return found


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """The ratio of WCAG 2.2 (1.4.3), from 1 to 21."""
    lights = []
    for color in (one, other):
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast_on_every_background(dark: bool) -> None:
    named = colors(dark)
    grounds = set(re.findall(r"var\(--([\w-]+)\)", "".join(WASHES)))
    assert grounds == {"heat-accent", "heat-bad"}
    for ground in grounds:
        for share in np.linspace(0, 1, 11):
            mixed = share * named[ground] + (1 - share) * named["paper"]
            assert contrast(named["ink"], mixed) >= 4.5, (ground, share)
