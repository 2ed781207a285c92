"""The chat page: self-contained, with conversations that outgrow the model's context."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.conftest import TinyModel
from tests.serve.conftest import GREEDY, Running, Serve

from groundup.data.fields import messages as turns_of
from groundup.serve.worker import Served
from groundup.text.tokenizer import Tokenizer

NODE = pytest.mark.skipif(not shutil.which("node"), reason="needs node")
# As much of a browser as the page asks for.
BROWSER = """
let [script, address, answers] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const elements = new Map(), prompts = [];
class Element {
  constructor() {
    const dataset = {}, style = { setProperty: () => {} }, validity = { badInput: false };
    Object.assign(this, { children: [], value: "", style, dataset, validity, heard: {} });
    this.attributes = {};
  }
  classList = { add: () => {}, toggle: () => {} };
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name]; }
  removeAttribute(name) { delete this.attributes[name]; }
  insert(place, more) {
    for (const one of more) if (one instanceof Element) { one.remove(); one.parentElement = this; }
    this.children.splice(place, 0, ...more);
  }
  append(...more) { this.insert(this.children.length, more); }
  prepend(...more) { this.insert(0, more); }
  before(...more) { this.parentElement.insert(this.parentElement.children.indexOf(this), more); }
  remove() {
    const { parentElement } = this;
    if (!parentElement) return;
    parentElement.children = parentElement.children.filter(one => one !== this);
    this.parentElement = null;
  }
  replaceChildren(...more) {
    for (const one of this.elements()) one.remove();
    this.children = [];
    this.append(...more);
    this.value ||= more[0]?.attributes?.value ?? "";
  }
  elements() { return this.children.filter(one => one instanceof Element); }
  get lastElementChild() { return this.elements().at(-1); }
  get isConnected() { return [...elements.values()].includes(this.parentElement); }
  get textContent() { return this.children.map(one => one.textContent ?? one).join(""); }
  set textContent(text) { this.replaceChildren(text); }
  addEventListener(name, heard) { this.heard[name] = heard; }
  querySelectorAll(selector) {
    const found = this.elements().flatMap(one => [one, ...one.querySelectorAll(selector)]);
    return found.filter(one => one.attributes.class?.split(" ").includes(selector.slice(1)));
  }
  querySelector(selector) { return this.querySelectorAll(selector)[0]; }
  scrollIntoView() {} focus() {}
}
globalThis.document = {
  getElementById: id => elements.get(id) ?? elements.set(id, new Element()).get(id),
  createElement: () => new Element(), body: new Element(), documentElement: new Element(),
  querySelectorAll: () => [],
};
globalThis.location = { search: "" };
globalThis.history = { replaceState: (state, title, search) => { location.search = search; } };
globalThis.window = { innerHeight: 0, scrollY: 0, addEventListener: () => {} };
globalThis.ResizeObserver = class { observe() {} };
globalThis.sessionStorage = { getItem: () => null, setItem: () => {} };
const fetched = fetch;
globalThis.prompt = text => { prompts.push(text); return answers.shift() ?? null; };
globalThis.fetch = (path, ...more) => fetched(address + path, ...more);
"""
# Performs the steps once the models are loaded, and returns the page's text and state.
TALK = """
const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));
const idle = async () => { do await pause(5); while (state.running); };
const say = async text => {
  byId("said").value = text;
  byId("ask").heard.submit({ preventDefault() {} });
  await idle();
};
const press = async name => {
  const button = byId(name);
  if (!button.disabled) { button.heard.click(); await idle(); }
};
// Whose turn, and its text; what is hidden is none, and the note has no words of a turn.
const page = way => byId(`turns-${way}`).elements().filter(one => !one.hidden).map(one => {
  const words = one.querySelector(".words");
  return words ? [one.attributes.class.split(" ")[1], words.textContent] : ["note", ""];
});
(async () => {
  while (!state.models.length) await pause(10);
  byId("max_tokens").value = "6";
STEPS
  const { messages, seen, tokens } = state.talk, left = byId("said").value;
  const last = turns().lastElementChild?.querySelector(".words").children ?? [];
  const drawn = last.map(one => one.textContent ?? one).filter(one => one);
  const buttons = turns().querySelectorAll(".spoken").length;
  const wrong = ["chat", "text"].flatMap(way => byId(`turns-${way}`).querySelectorAll(".wrong"));
  const told = wrong.map(one => one.textContent), trouble = byId("trouble").textContent;
  const saved = withSystem(learnable());
  const shown = page("chat"), texts = page("text"), again = !byId("again").disabled;
  console.log(JSON.stringify({
    messages, seen, tokens, told, trouble, drawn, buttons, left, saved, shown, texts, again,
    prompts,
  }));
})();
"""


def scripts(running: Running, path: str = "/") -> tuple[str, str]:
    page = httpx.get(f"{running.address}{path}").text
    [script] = re.findall(r"<script>(.*)</script>", page, re.DOTALL)
    return page, script


def talk(
    running: Running, steps: str, prompts: Sequence[str] = (), path: str = "/", search: str = ""
) -> dict[str, Any]:
    """The page's text and state after these steps; in a studio it has a path and a query."""
    _, script = scripts(running, path)
    browser = BROWSER.replace('search: ""', f'search: "{search}"')
    program = browser + script.replace('"use strict";', "") + TALK.replace("STEPS", steps)
    found = subprocess.run(
        ["node", "-e", program],
        input=json.dumps([script, running.address, prompts]),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def ending(served: Served) -> Served:
    """A model for which every token ends its answer."""
    ids = tuple(range(served.tokenizer.vocab_size))
    return replace(served, name="ends", sampling=replace(GREEDY, stop_ids=ids))


def roles(turns: list[list[str]]) -> list[str]:
    return [who for who, _ in turns]


def test_the_page_is_self_contained_and_may_fetch_nothing_else(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    page, script = scripts(running)
    ids = re.findall(r' id="([\w-]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:byId|fill)\("([\w-]+)"', script)) <= set(ids)
    assert not re.search(r"url\(|@import|http-equiv|https?://|<img|<iframe| src=", page)
    policy = httpx.get(running.address).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy


def test_the_page_gets_the_models_description(serve: Serve, tiny: Served) -> None:
    running = serve(replace(tiny, about=("Two layers.",), suggestions=("the sea?",)))
    [found] = httpx.get(f"{running.address}/v1/models").json()["data"]
    assert found["about"] == ["Two layers."] and found["suggestions"] == ["the sea?"]


@NODE
def test_a_message_is_answered_token_by_token(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    asked: Any = [{"role": "user", "content": "the sea"}]
    expected = running.client.chat.completions.create(
        model="tiny", messages=asked, max_tokens=6
    ).choices[0].message.content  # fmt: skip
    found = talk(running, 'await say("the sea");')
    assert found["messages"] == [*asked, {"role": "assistant", "content": expected}]
    assert len(found["drawn"]) >= 5 and "".join(found["drawn"]) == expected
    assert not found["told"]


@NODE
def test_a_long_conversation_continues_without_its_oldest_turns(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    longer = Served("tiny", tiny_model(max_position_embeddings=128), tokenizer, GREEDY)
    found = talk(
        serve(longer), 'for (let i = 0; i < 12; i++) await say("the ship sails over the sea");'
    )
    assert not found["told"] and len(found["messages"]) == 24
    assert 2 <= found["seen"] <= 22 and found["tokens"] <= 128
    # The note comes before a question, not between one and its answer.
    place = roles(found["shown"]).index("note")
    assert found["shown"][place + 1][0] == "user"


@NODE
def test_a_failed_message_can_be_sent_again(serve: Serve, tiny: Served) -> None:
    fails = 'byId("temperature").value = "-1"; await say("the sea");'
    found = talk(serve(tiny), fails)
    assert (len(found["told"]), found["messages"], found["left"]) == (1, [], "the sea")
    assert not found["again"]
    found = talk(serve(tiny), fails + 'byId("temperature").value = ""; await say("the ship");')
    assert roles(found["shown"]) == ["user", "assistant"] and found["shown"][0][1] == "the ship"


@NODE
def test_a_new_answer_replaces_the_one_to_its_question(serve: Serve, tiny: Served) -> None:
    fails = 'byId("temperature").value = "-1"; await say("the ship");'
    found = talk(serve(tiny), f'await say("the sea"); {fails} await press("again");')
    # A failed question has none.
    assert [text for _, text in found["shown"][:3:2]] == ["the sea", "the ship"]
    assert roles(found["shown"]) == ["user", "assistant"] * 2 and len(found["messages"]) == 2
    assert found["shown"][1][1] == found["messages"][1]["content"]
    found = talk(serve(tiny), 'await say("the sea"); await press("again");')
    assert roles(found["shown"]) == ["user", "assistant"] and len(found["messages"]) == 2


@NODE
def test_an_answer_is_kept_if_its_replacement_fails(serve: Serve, tiny: Served) -> None:
    fails = 'byId("temperature").value = "-1"; await press("again");'
    found = talk(serve(tiny), f'await say("the sea"); {fails}')
    assert roles(found["shown"]) == ["user", "assistant", "assistant"] and len(found["told"]) == 1
    assert found["shown"][1][1] == found["messages"][1]["content"]
    assert (found["left"], found["again"]) == ("", True)


@NODE
def test_a_new_answer_keeps_the_note_about_hidden_turns(
    serve: Serve, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    short = Served("tiny", tiny_model(max_position_embeddings=64), tokenizer, GREEDY)
    say = 'await say("the ship sails over the sea");'
    until = f'while (!page("chat").some(([who]) => who === "note")) {say}'
    found = talk(serve(short), until + 'await press("again");')
    assert roles(found["shown"])[-3:] == ["note", "user", "assistant"]
    assert roles(found["shown"]).count("assistant") == len(found["messages"]) / 2


@NODE
def test_a_too_long_message_leaves_nothing_behind(serve: Serve, tiny: Served) -> None:
    running = serve(tiny)
    asked = 'await say("the sea"); await say("the ship");'
    found = talk(running, asked + 'await say("the sea ".repeat(300));')
    assert len(found["told"]) == 1 and "context" in found["told"][0]
    assert found["seen"] == 0 and "note" not in roles(found["shown"])
    assert found["messages"] == talk(running, asked)["messages"]
    assert found["left"] == "the sea " * 300


@NODE
def test_an_answer_stopped_before_it_began_is_removed(serve: Serve, tiny: Served) -> None:
    stopped = 'send("the ship"); state.running.abort(); await idle();'
    found = talk(serve(tiny), f'await say("the sea"); {stopped}')
    assert len(found["messages"]) == 2 and found["left"] == "the ship" and not found["told"]


@NODE
def test_a_saved_conversation_is_training_data(serve: Serve, tiny: Served) -> None:
    # A model that ends at once has answered, with nothing to learn.
    found = talk(
        serve(tiny, ending(tiny)),
        """byId("system").value = "Be kind."; await say("the sea");
        byId("model").value = "ends"; await say("the ship");
        byId("model").value = "tiny"; await say("the owl");""",
    )
    assert found["messages"][3] == {"role": "assistant", "content": ""}
    assert [one["content"] for one in found["saved"][:2]] == ["Be kind.", "the sea"]
    assert [one["role"] for one in found["saved"]] == ["system", *["user", "assistant"] * 2]
    assert found["saved"][3]["content"] == "the owl"
    turns_of(found["saved"], "messages", learned=True)


@NODE
def test_another_model_continues_the_chat(serve: Serve, tiny: Served) -> None:
    found = talk(
        serve(tiny, replace(tiny, name="other")),
        """await say("the sea");
        byId("model").value = "other"; byId("model").heard.change(); await say("the ship");
        for (const one of byId("turns-chat").querySelectorAll(".who")) byId("names").append(one);
        byId("trouble").textContent = byId("names").textContent;""",
    )
    assert roles(found["shown"]) == ["user", "assistant"] * 2 and len(found["messages"]) == 4
    assert found["trouble"] == "tinyother"


@NODE
def test_each_mode_keeps_its_turns(serve: Serve, tiny: Served) -> None:
    found = talk(
        serve(tiny),
        """await say("the sea"); await press("text"); await say("the ship");
        await press("chat"); await say("the owl");""",
    )
    assert roles(found["shown"]) == ["user", "assistant"] * 2
    assert len(found["messages"]) == 4 and roles(found["texts"]) == ["text"]


@NODE
def test_an_unreadable_number_is_not_sent(serve: Serve, tiny: Served) -> None:
    found = talk(serve(tiny), 'byId("top_p").validity.badInput = true; await say("the sea");')
    assert found["trouble"].startswith("Top-p is not a number")
    assert found["left"] == "the sea" and not found["shown"]


@NODE
def test_input_is_kept_when_no_server_answers(serve: Serve, tiny: Served) -> None:
    # Nobody listens at port 1.
    gone = 'await say("the sea"); address = "http://127.0.0.1:1"; await say("the ship");'
    found = talk(serve(tiny), gone)
    assert found["told"] == ["the server does not answer; is it still running?"]
    assert found["left"] == "the ship" and found["shown"][-1] == ["assistant", ""]
    found = talk(serve(tiny), 'fill("model"); byId("model").value = ""; ' + gone[22:])
    assert "There is no model yet" in found["trouble"] and found["left"] == "the ship"


@NODE
def test_an_unstreamed_answer_has_no_tokens_to_select(serve: Serve, tiny: Served) -> None:
    say = 'byId("max_tokens").value = "1"; await say("the sea");'
    assert talk(serve(tiny), say)["buttons"] == 1
    found = talk(serve(tiny), f"state.models[0].guarded = true; {say}")
    assert found["buttons"] == 0 and len(found["messages"]) == 2


@NODE
def test_the_end_token_is_not_shown(serve: Serve, tiny: Served) -> None:
    say = 'await press("text"); await say("the sea");'
    assert talk(serve(tiny), say)["buttons"] == 6
    found = talk(serve(ending(tiny)), say)
    assert found["buttons"] == 0 and found["texts"] == [["text", "the sea"]]


@NODE
def test_an_api_key_is_requested_until_it_is_right(serve: Serve, tiny: Served) -> None:
    keyed = serve(tiny, api_key="secret")
    found = talk(keyed, 'await say("the sea");', prompts=["wrong", " secret "])
    assert len(found["messages"]) == 2
    assert found["prompts"] == [
        "This server asks for its key:", "That is not the key of this server. Its key:"
    ]  # fmt: skip
