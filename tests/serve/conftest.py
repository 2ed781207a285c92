"""A server in this process, and OpenAI's client on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from tests.conftest import TinyModel

from groundup.generation.sampling import Sampling
from groundup.serve.admission import Admission
from groundup.serve.api import API
from groundup.serve.models import Loaded
from groundup.serve.server import listening
from groundup.serve.worker import Served
from groundup.text.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=64)


@dataclass(frozen=True)
class Running:
    """A server at `address`, and OpenAI's client for it."""

    address: str
    client: openai.OpenAI

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.address}{path}", json=body, timeout=60)

    def unfinished(self) -> int:
        found: int = httpx.get(f"{self.address}/health").json()["unfinished"]
        return found

    def wait_until_idle(self) -> bool:
        """Whether all completions end or are cancelled within ten seconds."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if not self.unfinished():
                return True
            time.sleep(0.02)
        return False


@contextmanager
def answering(app: Any) -> Iterator[str]:
    """The address of an application's server."""
    at = listening("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@contextmanager
def serving(*models: Served, **settings: Any) -> Iterator[Running]:
    sizes = {name: settings.pop(name, most) for name, most in (("batch_size", 8), ("waiting", 64))}
    admission = Admission(**{"hosts": ["127.0.0.1", "localhost"]} | settings)
    with answering(API(Loaded(models), admission, **sizes).app) as address:
        key = settings.get("api_key") or "none"
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)
        with client:
            yield Running(address, client)


Serve = Callable[..., Running]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server for some models, which stops after the test."""
    with ExitStack() as running:
        yield lambda *models, **settings: running.enter_context(serving(*models, **settings))


@pytest.fixture
def tiny(tiny_model: TinyModel, tokenizer: Tokenizer) -> Served:
    """A random model that never ends by itself."""
    return Served("tiny", tiny_model(), tokenizer, GREEDY)


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    """A plain connection, which can be cut at any moment."""
    host, port = running.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection
