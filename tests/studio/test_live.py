"""The script of a page that looks again: it changes what has changed, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from groundup.report.page import live_script

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs node")
# As much of a browser as the script asks for. A page is a list: its name, attributes, children.
BROWSER = """
const [script, pages] = JSON.parse(require("fs").readFileSync(0, "utf8"));
globalThis.Node = { ELEMENT_NODE: 1, TEXT_NODE: 3 };
class Any {
  constructor(name, attributes = {}, children = []) {
    Object.assign(this, { nodeName: name, nodeType: 1, held: { ...attributes }, childNodes: [] });
    this.append(...children);
  }
  get id() { return this.held.id ?? ""; }
  get attributes() { return Object.entries(this.held).map(([name, value]) => ({ name, value })); }
  get dataset() { return { seconds: 0 }; }
  getAttribute(name) { return this.held[name] ?? null; }
  hasAttribute(name) { return name in this.held; }
  setAttribute(name, value) { this.held[name] = value; }
  removeAttribute(name) { delete this.held[name]; }
  append(...more) { for (const one of more) { one.parent = this; this.childNodes.push(one); } }
  after() {} focus() { focused = this; }
  remove() { this.parent.childNodes = this.parent.childNodes.filter(one => one !== this); }
  replaceWith(fresh) {
    const place = this.parent.childNodes.indexOf(this);
    fresh.parent = this.parent;
    this.parent.childNodes[place] = fresh;
  }
  matches(name) { return this.nodeName === name; }
  all() { return [this, ...this.childNodes.flatMap(one => one.all())]; }
  querySelector(selector) {
    const href = selector.match(/href="(.*)"/)[1];
    return this.all().find(one => one.held?.href === href) ?? null;
  }
  said() { return [this.nodeName, this.held, this.childNodes.map(one => one.said())]; }
  isEqualNode(other) { return JSON.stringify(this.said()) === JSON.stringify(other.said()); }
}
class Words {
  constructor(text) {
    Object.assign(this, { nodeName: "#text", nodeType: 3, nodeValue: text, childNodes: [] });
  }
  all() { return [this]; }
  said() { return this.nodeValue; }
  isEqualNode(other) { return this.said() === other.said?.(); }
  replaceWith(fresh) { Any.prototype.replaceWith.call(this, fresh); }
  remove() { Any.prototype.remove.call(this); }
}
const made = one =>
  typeof one === "string" ? new Words(one) : new Any(one[0], one[1], one[2].map(made));
const [first, ...later] = pages.map(made);
let focused = first.all().find(one => one.held?.focused) ?? null;
globalThis.document = {
  title: "", hidden: false,
  // What is no longer on a page has no focus.
  get activeElement() { return first.all().includes(focused) ? focused : null; },
  querySelector: () => first, createElement: () => new Any("p"), addEventListener: () => {},
};
globalThis.location = { href: "/" };
globalThis.CSS = { escape: text => text };
globalThis.fetch = async () => ({ ok: true, text: async () => "" });
globalThis.DOMParser = class {
  parseFromString() { return { title: "", querySelector: () => later.shift() }; }
};
const before = first.all();
let waits = 0;
globalThis.setTimeout = then => { if (later.length) then(); else if (!waits++) end(); };
function end() {
  const same = first.all().filter(one => before.includes(one));
  const kept = same.map(one => one.held?.id).filter(Boolean);
  console.log(JSON.stringify([first.said(), kept, document.activeElement?.held.href ?? null]));
}
"""


def looked_again(*pages: Any) -> tuple[Any, list[str], str | None]:
    """The page after it was made so, the elements that are still the same, and the focus."""
    run = f"{BROWSER}\n(0, eval)(script);"
    given = json.dumps([live_script(), pages])
    done = subprocess.run(["node", "-e", run], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page, kept, focus = json.loads(done.stdout)
    return page, kept, focus


def page(*children: Any) -> Any:
    return ["main", {}, list(children)]


def row(name: str, steps: str, **more: str) -> Any:
    return ["tr", {"id": name}, [["a", {"href": name, **more}, [name]], ["td", {}, [steps]]]]


def test_only_what_has_changed_is_changed() -> None:
    before = page(row("base", "3 of 40", focused="yes"), row("sft", "–"))
    after = page(row("base", "9 of 40", focused="yes"), row("sft", "–"))
    found, kept, focus = looked_again(before, after)
    assert found == after and kept == ["base", "sft"] and focus == "base"


def test_rows_come_and_go_and_the_focus_goes_with_its_own() -> None:
    before = page(row("base", "3", focused="yes"), row("sft", "–"))
    after = page(row("data", "–"), row("base", "4"))
    found, _, focus = looked_again(before, after, page(row("base", "5")))
    assert found == page(row("base", "5")) and focus == "base"


def test_what_is_folded_open_and_what_is_written_stay() -> None:
    form = ["form", {}, [["textarea", {"id": "text", "typed": "The sea"}, []]]]
    fresh = ["form", {}, [["textarea", {"id": "text"}, []]]]
    before = page(
        ["details", {"id": "plan", "open": ""}, ["1 step"]], form, ["p", {"class": "a"}, []]
    )
    after = page(["details", {"id": "plan"}, ["2 steps"]], fresh, ["p", {}, ["more"]])
    found, kept, _ = looked_again(before, after)
    still = ["details", {"id": "plan", "open": ""}, ["2 steps"]]
    assert found == page(still, form, ["p", {}, ["more"]]) and kept == ["plan", "text"]
