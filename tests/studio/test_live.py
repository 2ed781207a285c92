"""The script of a live page: it updates what has changed and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any, NamedTuple

import pytest

from groundup.report.page import live_script

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs node")
# As much of a browser as the script asks for. A page is a list: its name, attributes, children.
BROWSER = r"""
const [script, pages] = JSON.parse(require("fs").readFileSync(0, "utf8"));
globalThis.Node = { ELEMENT_NODE: 1, TEXT_NODE: 3 };
let focused = null, beside = null;
class Any {
  constructor(name, attributes = {}, children = []) {
    Object.assign(this, { nodeName: name, nodeType: 1, held: { ...attributes }, childNodes: [] });
    this.append(...children);
  }
  get id() { return this.held.id ?? ""; }
  get attributes() { return Object.entries(this.held).map(([name, value]) => ({ name, value })); }
  get dataset() { return { seconds: 0 }; }
  get children() { return this.childNodes.filter(one => one.nodeType === 1); }
  get firstChild() { return this.childNodes[0] ?? null; }
  get nextSibling() {
    const all = this.parent.childNodes;
    return all[all.indexOf(this) + 1] ?? null;
  }
  get textContent() { return this.childNodes.map(one => one.textContent).join(""); }
  set textContent(text) { this.childNodes = []; this.append(new Words(text)); }
  getAttribute(name) { return this.held[name] ?? null; }
  hasAttribute(name) { return name in this.held; }
  setAttribute(name, value) { this.held[name] = value; }
  removeAttribute(name) { delete this.held[name]; }
  append(...more) { for (const one of more) this.insertBefore(one, null); }
  insertBefore(one, next) {
    one.remove();
    one.parent = this;
    this.childNodes.splice(next ? this.childNodes.indexOf(next) : this.childNodes.length, 0, one);
  }
  after(one) { beside = one; } focus() { focused = this; }
  matches(names) { return names.split(", ").includes(this.nodeName); }
  all() { return [this, ...this.childNodes.flatMap(one => one.all())]; }
  querySelector(selector) {
    const [, name, key, value] = selector.match(/^(\w*)(?:\[(\w+)="(.*)"\])?/);
    const is = one => one.nodeName === name && (!key || one.held[key] === value);
    return this.all().slice(1).find(is) ?? null;
  }
  // What leaves its place has no focus any more.
  remove() {
    if (!this.parent) return;
    if (this.all().includes(focused)) focused = null;
    this.parent.childNodes = this.parent.childNodes.filter(one => one !== this);
    this.parent = null;
  }
  isEqualNode(other) { return JSON.stringify(this.said()) === JSON.stringify(other.said()); }
  said() { return [this.nodeName, this.held, this.childNodes.map(one => one.said())]; }
}
class Words extends Any {
  constructor(text) { super("#text"); Object.assign(this, { nodeType: 3, nodeValue: text }); }
  get textContent() { return this.nodeValue; }
  said() { return this.nodeValue; }
}
const made = one =>
  typeof one === "string" ? new Words(one)
    : typeof one[0] === "number" ? one : new Any(one[0], one[1], one[2].map(made));
const [first, ...later] = pages.map(made);
focused = first.all().find(one => one.held.focused) ?? null;
globalThis.document = {
  title: "", hidden: false,
  get activeElement() { return focused; },
  querySelector: () => first, createElement: () => new Any("p"), addEventListener: () => {},
};
globalThis.location = { href: "/" };
globalThis.CSS = { escape: text => text };
// What is no page is a status, with what the server says of it; 0 where it does not answer.
globalThis.fetch = async () => {
  const [status, why] = Number.isInteger(later[0]?.[0]) ? later.shift() : [200];
  if (!status) throw new TypeError("Failed to fetch");
  const box = why && new Any("div", {}, [new Words(why)]);
  const page = { title: "", querySelector: name => name === "main" ? later.shift() : box };
  return { ok: status === 200, status, text: async () => page };
};
globalThis.DOMParser = class { parseFromString(page) { return page; } };
const before = first.all();
let waits = 0;
globalThis.setTimeout = then => { if (later.length) then(); else if (!waits++) end(); };
function end() {
  const same = first.all().filter(one => before.includes(one));
  const kept = same.map(one => one.held.id).filter(Boolean);
  const focus = focused && (focused.held.href ?? focused.held.id);
  console.log(JSON.stringify([first.said(), kept, focus, beside.textContent]));
}
"""


class Looked(NamedTuple):
    page: Any
    kept: list[str]
    """The elements that are still the same, by their ids."""
    focus: str | None
    trouble: str


def looked_again(*pages: Any) -> Looked:
    """The page after these updates."""
    run = f"{BROWSER}\n(0, eval)(script);"
    given = json.dumps([live_script(), pages])
    done = subprocess.run(["node", "-e", run], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Looked(*json.loads(done.stdout))


def page(*children: Any) -> Any:
    return ["main", {}, list(children)]


def row(name: str, steps: str, **more: str) -> Any:
    return ["tr", {"id": name}, [["a", {"href": name, **more}, [name]], ["td", {}, [steps]]]]


def test_only_changed_elements_are_updated() -> None:
    before = page(row("base", "3 of 40", focused="yes"), row("sft", "–"))
    after = page(row("base", "9 of 40", focused="yes"), row("sft", "–"))
    found, kept, focus, _ = looked_again(before, after)
    assert found == after and kept == ["base", "sft"] and focus == "base"


def test_rows_are_added_and_removed_and_keep_the_focus() -> None:
    before = page(row("base", "3", focused="yes"), row("sft", "–"))
    after = page(row("data", "–"), row("base", "4"))
    found, _, focus, _ = looked_again(before, after, page(row("base", "5")))
    assert found == page(row("base", "5")) and focus == "base"


def test_open_folds_and_typed_text_are_kept() -> None:
    form = ["form", {}, [["textarea", {"id": "text", "typed": "The sea"}, []]]]
    fresh = ["form", {}, [["textarea", {"id": "text"}, []]]]
    before = page(
        ["details", {"id": "plan", "open": ""}, [["summary", {}, ["Plan"]], "1 step"]],
        form,
        ["p", {"class": "a"}, []],
    )
    folded = ["details", {"id": "plan"}, [["summary", {}, ["Plan"]], "2 steps"]]
    after = page(folded, fresh, ["p", {}, ["more"]])
    found, kept, *_ = looked_again(before, after)
    still = ["details", {"id": "plan", "open": ""}, folded[2]]
    assert found == page(still, form, ["p", {}, ["more"]]) and kept == ["plan", "text"]


def section(name: str, *children: Any) -> Any:
    return ["section", {"id": name}, ["\n", ["h2", {}, [name]], "\n", *children, "\n"]]


def fold(title: str, *children: Any, **more: str) -> Any:
    return ["details", more, ["\n", ["summary", {"id": title}, [title]], *children]]


@pytest.mark.parametrize("moves", [1, -1])
def test_updates_above_do_not_scroll_the_reader(moves: int) -> None:
    form = ["form", {}, [["textarea", {"id": "text", "typed": "The sea", "focused": "yes"}, []]]]
    fresh = ["form", {}, [["textarea", {"id": "text"}, []]]]
    few = page(
        *("\n", row("base", "1"), "\n", section("inside", form), "\n"),
        section("settings", fold("Settings", open=""), fold("Machine", open="")),
    )
    many = page(
        *("\n", ["div", {}, ["It was stopped."]], "\n", row("data", "–"), "\n", row("base", "2")),
        *("\n", section("curves", ["img", {}, []]), "\n", section("inside", fresh), "\n"),
        section("plan", fold("All of it")),
        section("settings", fold("Settings"), fold("More"), fold("Machine")),
    )
    found = looked_again(few, many, *((few, many)[::moves]))
    assert found.focus == "text" and "The sea" in json.dumps(found.page)
    kept = {"text", "inside", "settings", "Settings", "Machine", "base"}
    assert kept <= set(found.kept)
    # Nothing but what the reader opened and wrote is otherwise than the server made it.
    settings = section(
        "settings", fold("Settings", open=""), fold("More"), fold("Machine", open="")
    )
    expected = [*many[2][:-1], settings] if moves > 0 else few[2]
    expected = [
        section("inside", form) if one[1:2] == [{"id": "inside"}] else one for one in expected
    ]
    assert found.page == page(*expected)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([0, ""], "The server does not answer."),
        ([500, None], "The server answers 500."),
        ([404, "There is no run 'base'."], "There is no run 'base'."),
    ],
)
def test_a_failed_update_is_explained(answer: Any, why: str) -> None:
    before = page(row("base", "3"))
    found = looked_again(before, answer)
    assert found.page == before and found.trouble.startswith(f"{why} The page shows")
    again = looked_again(before, answer, page(row("base", "4")))
    assert again.page == page(row("base", "4")) and not again.trouble
