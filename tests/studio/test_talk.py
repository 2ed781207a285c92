"""The chat page in a studio: its initial model, and its messages while loading."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from tests.serve.conftest import Running
from tests.serve.test_page import NODE, talk
from tests.studio.conftest import Show

TOLD = "while (!model()?.about) await pause(10);"


@pytest.fixture
def running(trained: Path, show: Show) -> Running:
    return Running(f"{show(trained).base_url}".rstrip("/"), openai.OpenAI(api_key="none"))


@NODE
def test_a_link_to_a_deleted_model_says_so(running: Running) -> None:
    found = talk(running, TOLD, path="/talk", search="?model=gone")
    assert found["trouble"] == "There is no model “gone” here; this is journey/sft."
    known = talk(running, TOLD, path="/talk", search="?model=journey/pretrain")
    assert not known["trouble"]


@NODE
def test_the_address_has_the_chosen_model(running: Running) -> None:
    """So that the page opens with it again."""
    chosen = 'byId("model").value = "journey/pretrain"; byId("model").heard.change();'
    said = "await say(location.search + model().id);"
    found = talk(running, TOLD + said + chosen + TOLD + said, path="/talk")
    asked = [one["content"] for one in found["messages"] if one["role"] == "user"]
    assert asked == ["journey/sft", "?model=journey%2Fpretrainjourney/pretrain"]


@NODE
def test_the_page_says_what_it_waits_for(running: Running) -> None:
    steps = """
      state.models = [];
      const listing = load(), first = byId("about").textContent;
      byId("said").value = "the sea";
      const sent = byId("ask").heard.submit({ preventDefault() {} });
      const then = byId("about").textContent;
      await Promise.all([listing, sent]);
      await idle();
      await say(first); await say(then.slice(-20));
    """
    found = talk(running, TOLD + steps, path="/talk")
    asked = [one["content"] for one in found["messages"] if one["role"] == "user"]
    assert asked == ["the sea", "Loading the list of models … ", "when they are there."]
