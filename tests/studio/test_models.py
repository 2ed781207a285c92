"""Models of the studio: loading, chat, inspection and unloading."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import openai
import pytest
from tests.conftest import Workshop
from tests.serve.conftest import Running, answering
from tests.serve.test_page import NODE, talk
from tests.studio.conftest import Show, looked, opened

from groundup.app.completions import opened as opened_model
from groundup.errors import UserError
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.runs.files import read_json_object, write_json
from groundup.serve.admission import Admission
from groundup.serve.worker import Served
from groundup.studio.models import OnDemand, weights_stamp
from groundup.studio.runs import Runs
from groundup.studio.server import Studio

ASKED = [{"role": "user", "content": "What is the colour of the sea?"}]
GREEDY = {"temperature": 0, "max_tokens": 8}


def test_a_model_is_loaded_on_first_use(trained: Path, show: Show) -> None:
    begun = list[str]()

    def open(name: str, folder: Path) -> Served:
        begun.append(name)
        return opened(name, folder)

    client = show(trained, open)
    assert "<title>Talk · groundup studio</title>" in client.get("/talk").text
    listed = client.get("/v1/models").json()["data"]
    # Those that answer come first, so that the page begins with one.
    assert [one["id"] for one in listed] == ["journey/sft", "journey/pretrain"]
    assert begun == [] and "about" not in listed[0]
    told = client.get("/v1/models/journey/sft").json()
    assert begun == ["journey/sft"] and told["max_model_len"] == 64
    assert "You are talking to journey/sft" in told["about"][0]
    body = {"model": "journey/sft", "messages": ASKED, **GREEDY}
    said = client.post("/v1/chat/completions", json=body).json()
    model, tokenizer = opened_model(trained / "journey" / "sft")
    asked = Request(messages=ASKED, sampling=Sampling(temperature=0, max_new_tokens=8))
    [expected] = generate(model, [asked], tokenizer)
    assert said["choices"][0]["message"]["content"] == expected.text != ""
    assert begun == ["journey/sft"], "it is loaded once"
    missing = client.post("/v1/chat/completions", json=body | {"model": "journey/tokenizer"})
    assert missing.status_code == 404 and "served are" in missing.text.lower()


@NODE
def test_the_page_opens_with_the_linked_model(trained: Path, show: Show) -> None:
    client = show(trained)
    # The script is that of serve's page, which has another address here.
    running = Running(f"{client.base_url}".rstrip("/"), openai.OpenAI(api_key="none"))
    [search] = re.findall(r'href="/talk([^"]*pretrain[^"]*)"', client.get("/").text)
    told = "while (!model().about) await pause(10);"
    said = 'await say(byId("about").textContent.slice(0, 38)); await say("the sea");'
    found = talk(running, told + said, path="/talk", search=search)
    assert found["messages"][0]["content"] == "You are talking to journey/pretrain, 0"
    assert len(found["messages"]) == 4 and not found["told"] and not found["trouble"]
    # Another one is loaded when it is chosen.
    chosen = 'byId("model").value = "journey/sft"; byId("model").heard.change();'
    found = talk(running, chosen + told + said, path="/talk", search=search)
    assert found["messages"][0]["content"] == "You are talking to journey/sft, 0.1 mi"


@NODE
def test_the_page_says_that_there_is_no_model_yet(
    trained: Path, tmp_path: Path, show: Show
) -> None:
    running = Running(f"{show(trained).base_url}".rstrip("/"), openai.OpenAI(api_key="none"))
    empty = f"{show(tmp_path / 'shown' / 'journey' / 'tokenizer').base_url}".rstrip("/")
    found = talk(running, f'address = "{empty}"; await load();', path="/talk")
    assert found["trouble"] == "There is no model yet: none is finished that could be talked to"


def test_loading_errors_are_shown(trained: Path, show: Show) -> None:
    path = trained / "journey" / "sft" / "config.json"
    write_json(path, read_json_object(path) | {"num_hidden_layers": 3})
    answer = show(trained).get("/v1/models/journey/sft")
    assert answer.status_code == 400 and "layers" in answer.json()["error"]["message"]


def test_only_finished_generative_models_can_chat(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.finished("reward"), tmp_path / "reward")
    shutil.copytree(workshop.finished("sft"), tmp_path / "begun")
    for name in ("status.json", ".status.json.copy"):
        (tmp_path / "begun" / name).unlink()
    assert set(Runs(tmp_path).all()) == {"reward", "begun"}
    assert Runs(tmp_path).models() == {}


@pytest.fixture
def on_demand(trained: Path) -> OnDemand:
    for name in ("a", "b"):
        shutil.copytree(trained / "journey" / "sft", trained / name)
    return OnDemand(Runs(trained).models, opened, most=2)


def test_the_least_recently_used_is_unloaded(on_demand: OnDemand) -> None:
    async def talk() -> tuple[Any, ...]:
        await on_demand.load("a")
        gone, kept = [weakref.ref((await on_demand.load(one)).model) for one in ("b", "a")]
        await on_demand.load("journey/sft")
        return kept, gone

    kept, gone = asyncio.run(talk())
    gc.collect()
    assert kept() is not None and gone() is None
    assert [on_demand.loaded(one) is not None for one in ("a", "b", "journey/sft")] == [
        *(True, False, True),
    ]


def test_a_retrained_model_is_reloaded(on_demand: OnDemand, trained: Path) -> None:
    async def twice() -> tuple[Served, Served, Served]:
        first, same = await on_demand.load("a"), await on_demand.load("a")
        shutil.copy(trained / "journey/pretrain/model.safetensors", trained / "a")
        return first, same, await on_demand.load("a")

    first, same, other = asyncio.run(twice())
    assert first is same and other is not first


def test_an_adapter_on_a_retrained_base_is_another_model(
    on_demand: OnDemand, trained: Path
) -> None:
    adapter, base = trained / "a", trained / "journey" / "pretrain"
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    described = {"base_model_name_or_path": "../journey/pretrain"}
    write_json(adapter / "adapter_config.json", described)
    before = weights_stamp(adapter)
    assert [path.name for path, *_ in before] == ["adapter_model.safetensors", "model.safetensors"]
    os.utime(base / "model.safetensors", ns=(0, 0))
    assert weights_stamp(adapter) != before


def test_a_model_used_by_several_threads_stays_in_evaluation_mode(trained: Path) -> None:
    """Otherwise the first thread would turn dropout on while another still generates."""

    def training(name: str, folder: Path) -> Served:
        served = opened(name, folder)
        served.model.train()
        return served

    served = asyncio.run(OnDemand(Runs(trained).models, training).load("journey/sft"))
    assert served is not None and not any(part.training for part in served.model.modules())


def test_a_deleted_run_has_no_model(on_demand: OnDemand, trained: Path) -> None:
    async def load() -> tuple[Served | None, ...]:
        first = await on_demand.load("a")
        shutil.rmtree(trained / "a")
        return first, await on_demand.load("a"), await on_demand.load("nothing")

    first, *others = asyncio.run(load())
    assert first is not None and others == [None, None]


def test_a_model_without_room_is_not_loaded(on_demand: OnDemand, trained: Path) -> None:
    (trained / "a" / "more.safetensors").touch()
    os.truncate(trained / "a" / "more.safetensors", 2**42)  # which takes no disk space
    with pytest.raises(UserError, match=r"a takes about 8,796.\d GB of memory"):
        asyncio.run(on_demand.load("a"))


def test_loaded_models_answer_while_others_are_loaded(
    trained: Path,
) -> None:
    """The event loop does none of this work: it would wait for itself here."""
    shutil.copytree(trained / "journey" / "sft", trained / "a")
    looking, loading, may_look, may_load = (threading.Event() for _ in range(4))
    may_look.set()
    may_load.set()

    def folders() -> dict[str, Path]:
        looking.set()
        assert may_look.wait(30)
        return Runs(trained).models()

    def open(name: str, folder: Path) -> Served:
        loading.set()
        assert may_load.wait(30)
        return opened(name, folder)

    async def talk() -> None:
        models = OnDemand(folders, open)
        known = await models.load("a")
        for begun, may_end, asked in (
            (looking, may_look, models.names),
            (loading, may_load, lambda: models.load("journey/sft")),
        ):
            begun.clear()
            may_end.clear()
            waiting = asyncio.ensure_future(asked())
            assert await asyncio.to_thread(begun.wait, 30)
            assert await models.load("a") is known and not waiting.done()
            may_end.set()
            assert await waiting

    asyncio.run(talk())


def test_foreign_origins_load_nothing(trained: Path) -> None:
    studio = Studio(trained, Admission(hosts=["127.0.0.1"], api_key="right"), opened, looked)
    with answering(studio.app) as at:
        path = f"{at}/v1/models"
        for headers, status, code in (
            ({"Host": "evil.example"}, 403, None),
            ({}, 401, "invalid_api_key"),
            ({"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ):
            answer = httpx.get(path, headers=headers)
            assert answer.status_code == status and answer.json()["error"]["code"] == code
        assert answer.headers["www-authenticate"] == "Bearer"
        assert studio._api is None, "for them nothing is begun"
        assert httpx.get(path, auth=("any", "right"), timeout=60).status_code == 200


def test_an_idle_model_releases_its_memory(trained: Path, show: Show) -> None:
    models = list[Any]()

    def open(name: str, folder: Path) -> Served:
        served = opened(name, folder)
        models.append(weakref.ref(served.model))
        return served

    names = [f"copy{number}" for number in range(4)]
    for name in names:
        shutil.copytree(trained / "journey" / "sft", trained / name)
    client = show(trained, open)
    for name in names:
        body = {"model": name, "messages": ASKED, **GREEDY}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    gc.collect()
    assert [one() is not None for one in models] == [False, True, True, True]


# Looking inside.


def test_the_inspection_of_a_text_is_shown(trained: Path, show: Show) -> None:
    client = show(trained)
    page = client.get("/runs/journey/sft").text
    assert 'action="/look"' in page and 'value="journey/sft"' in page
    form = {"model": "journey/sft", "text": "The sea is blue. </script>", "chat": "on"}
    shown = client.post("/look", data=form)
    folder = trained / "journey" / "sft"
    assert shown.text == looked("journey/sft", folder, "The sea is blue. </script>", True)
    assert "connect-src" not in shown.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"model": "journey/sft", "text": " "}, 400),
        ({"model": "journey/sft"}, 400),
        ({"model": "journey/sft", "text": "x" * 2_001}, 400),
        ({"model": "../secret", "text": "The sea"}, 404),
        ({"model": "journey/tokenizer", "text": "The sea"}, 404),
        ({"model": "journey/sft", "text": "x" * 2**18}, 413),
        ({}, 404),
        ({f"field{number}": "x" for number in range(201)}, 400),
    ],
)
def test_uninspectable_inputs(trained: Path, show: Show, form: dict[str, str], status: int) -> None:
    assert show(trained).post("/look", data=form).status_code == status


def test_a_text_keeps_its_lines(trained: Path, show: Show) -> None:
    """Browsers send each end of a line as two characters."""
    form = {"model": "journey/sft", "text": "x\r\n" * 998 + "last"}
    client = show(trained, look=lambda name, folder, text, as_message: repr(text))
    assert client.post("/look", data=form).text == repr("x\n" * 998 + "last")
    assert "is blank" in client.post("/look", data=form | {"text": "\r\n  "}).text


def test_a_client_that_disconnects_while_sending_is_no_error(
    trained: Path, show: Show, capsys: pytest.CaptureFixture[str]
) -> None:
    client = show(trained)
    at = urlparse(str(client.base_url))
    asked = "POST /look HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nmodel="
    with socket.create_connection((at.hostname, at.port), timeout=20) as connection:
        connection.sendall(asked.encode())
    # Earlier requests finish before this one.
    form = {"model": "nothing", "text": "The sea"}
    assert client.post("/look", data=form).status_code == 404
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "500" not in said.out


def test_one_text_is_inspected_at_a_time(trained: Path, show: Show) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def look(name: str, folder: Path, text: str, as_message: bool) -> str:
        begun.set()
        assert may_end.wait(30)
        return "seen"

    client = show(trained, look=look)
    form = {"model": "journey/sft", "text": "The sea"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/look", data=form)
        assert begun.wait(30)
        # Pages are shown meanwhile.
        assert client.get("/").status_code == 200
        assert client.post("/look", data=form).status_code == 429
        may_end.set()
        assert first.result().text == "seen"
