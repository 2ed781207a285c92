"""The page to talk in: whole in itself, and a conversation that outgrows the model's context."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.conftest import TinyModel
from tests.serve.conftest import GREEDY, Running, Serve

from groundup.serve.worker import Served
from groundup.text.tokenizer import Tokenizer

# As much of a browser as the page asks for.
BROWSER = """
const [script, address] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const elements = new Map(), shown = [];
class Element {
  constructor() {
    Object.assign(this, { children: [], value: "", style: {}, heard: {}, attributes: {} });
  }
  classList = { add: name => { this.failed ||= name === "failed"; }, toggle: () => {} };
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name]; }
  append(...more) { this.children.push(...more); }
  prepend(...more) { this.children.unshift(...more); }
  replaceChildren(...more) {
    this.children = more;
    this.value ||= more[0]?.attributes?.value ?? "";
  }
  addEventListener(name, heard) { this.heard[name] = heard; }
  querySelector() { return this.children.find(one => one.attributes?.class === "words"); }
  scrollIntoView() {} focus() {} remove() {}
}
globalThis.document = {
  getElementById: id => elements.get(id) ?? elements.set(id, new Element()).get(id),
  createElement: () => new Element(), body: new Element(), querySelectorAll: () => [],
};
globalThis.window = { innerHeight: 0, scrollY: 0 };
globalThis.sessionStorage = { getItem: () => null };
const fetched = fetch;
globalThis.fetch = (path, ...more) => fetched(address + path, ...more);
"""
# Says so many things and tells what the page then knows; `ready` is when the models are there.
TALK = """
(async () => {
  while (!state.models.length) await new Promise(done => setTimeout(done, 10));
  byId("max_tokens").value = "6";
  for (const text of SAID) {
    send(text);
    do await new Promise(done => setTimeout(done, 5)); while (state.running);
  }
  const failed = byId("talk").children.filter(one => one.failed).length;
  const words = byId("talk").children.at(-1).querySelector().children;
  const drawn = words.map(one => one.children ? one.children[0] : one).filter(one => one);
  const { messages, seen, tokens } = state, left = byId("said").value;
  console.log(JSON.stringify({ messages, seen, tokens, failed, drawn, left }));
})();
"""


def scripts(running: Running) -> tuple[str, str]:
    page = httpx.get(running.address).text
    [script] = re.findall(r"<script>(.*)</script>", page, re.DOTALL)
    return page, script


def talk(running: Running, *said: str, before: str = "") -> dict[str, Any]:
    _, script = scripts(running)
    program = BROWSER + script.replace('"use strict";', "") + before
    program += TALK.replace("SAID", json.dumps(said))
    found = subprocess.run(
        ["node", "-e", program],
        input=json.dumps([script, running.address]), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def test_the_page_is_whole_and_may_fetch_nothing_else(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    page, script = scripts(running)
    ids = re.findall(r' id="([\w-]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:byId|fill)\("([\w-]+)"', script)) <= set(ids)
    assert not re.search(r"url\(|@import|http-equiv|https?://|<img|<iframe| src=", page)
    policy = httpx.get(running.address).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy


def test_the_page_is_told_what_the_model_is(serve: Serve, tiny: Served) -> None:
    running = serve(replace(tiny, about=("Two layers.",), suggestions=("the sea?",)))
    [found] = httpx.get(f"{running.address}/v1/models").json()["data"]
    assert found["about"] == ["Two layers."] and found["suggestions"] == ["the sea?"]


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_what_is_said_is_answered_token_by_token(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    asked = [{"role": "user", "content": "the sea"}]
    expected = running.client.chat.completions.create(
        model="tiny", messages=asked, max_tokens=6  # type: ignore[arg-type]
    ).choices[0].message.content  # fmt: skip
    found = talk(running, "the sea")
    assert found["messages"] == [*asked, {"role": "assistant", "content": expected}]
    assert len(found["drawn"]) >= 5 and "".join(found["drawn"]) == expected
    assert found["failed"] == 0


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_long_conversation_goes_on_without_its_oldest_turns(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    longer = Served("tiny", tiny_model(max_position_embeddings=128), tokenizer, GREEDY)
    found = talk(serve(longer), *["the ship sails over the sea"] * 12)
    assert found["failed"] == 0 and len(found["messages"]) == 24
    assert 2 <= found["seen"] <= 22 and found["tokens"] <= 128


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_what_failed_can_be_sent_again(serve: Serve, tiny: Served) -> None:
    found = talk(serve(tiny), "the sea", before='byId("temperature").value = "-1";\n')
    assert (found["failed"], found["messages"], found["left"]) == (1, [], "the sea")
