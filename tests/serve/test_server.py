"""`groundup serve` as a program: its output, its errors, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.conftest import Workshop

from groundup.app.cli import main
from groundup.app.commands.serve import _names
from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.serve.server import listening
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer
from preloaded import Process


@contextmanager
def program(
    *words: str, command: str = "serve", says: str = "Talk:"
) -> Iterator[tuple[Process, str]]:
    """The program, and its address, where it already answers."""
    process = Process([sys.executable, "-m", "groundup", command, *words, "--port", "0"])
    try:
        while not re.search("^Ctrl-C.*\n", said := process.said(), re.M):
            assert process.poll() is None, said
            time.sleep(0.01)
        [address] = re.findall(rf"^{says}\s+(\S+)", said, re.M)
        yield process, address
    finally:
        process.send_signal(signal.SIGKILL)


def test_a_model_of_a_run_is_served_until_ctrl_c(workshop: Workshop) -> None:
    model = workshop.finished("sft")
    with program(str(model), str(workshop.finished("pretrain")), "--max-new-tokens", "3") as (
        process,
        address,
    ):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        assert [one.id for one in client.models.list()] == ["sft", "pretrain"]
        asked: Any = [{"role": "user", "content": "What is the colour of the sea?"}]
        found = client.chat.completions.create(model="sft", messages=asked)
        assert found.usage.completion_tokens <= 3
        assert "<title>groundup</title>" in httpx.get(address).text
        process.send_signal(signal.SIGINT)
        code, said = process.communicate(timeout=30)
    assert code == 130
    assert "sft: " in said and "generated in" in said
    assert said.endswith("stopped\n") and "Traceback" not in said


@pytest.fixture(scope="module")
def long_winded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can continue for a hundred thousand tokens."""
    folder = tmp_path_factory.mktemp("models") / "long"
    text = "The sea is wide, and the ship sails over the sea. "
    tokenizer = Tokenizer.from_bpe(train_bpe([text] * 4, 300))
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=100_000))
    save_model(folder, model, tokenizer, card="")
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_clients_are_told_that_the_server_stops(long_winded: Path, number: int) -> None:
    body = {"prompt": "The", "max_tokens": 90_000, "ignore_eos": True}
    with program(str(long_winded)) as (process, address), ThreadPoolExecutor(2) as pool:
        url = f"{address}/v1/completions"
        asked = [
            pool.submit(httpx.post, url, json=body | {"stream": stream}, timeout=60)
            for stream in (False, True)
        ]
        while httpx.get(f"{address}/health").json()["unfinished"] < 2:
            pass
        process.send_signal(number)
        whole, streamed = (one.result() for one in asked)
        code, said = process.communicate(timeout=30)
    assert whole.status_code == 503
    assert whole.json()["error"]["message"] == "the server is being stopped"
    if streamed.status_code == 200:  # its first token had come
        *_, last, end = streamed.text.strip().split("\n\n")
        assert "the server is being stopped" in last and end == "data: [DONE]"
    assert "Traceback" not in said
    assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)


def test_answers_continue_without_a_terminal_reader(workshop: Workshop) -> None:
    command = [sys.executable, "-m", "groundup", "serve", str(workshop.finished("sft"))]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = "".join(takewhile(lambda line: "Ctrl-C" not in line, process.stdout))
            [address] = re.findall(r"^Talk:\s+(\S+)", said, re.M)
            process.stdout.close()
            for stream in (False, True) * 2:
                body = {"prompt": "The", "max_tokens": 3, "stream": stream}
                found = httpx.post(f"{address}/v1/completions", json=body)
                assert found.status_code == 200
                assert not stream or found.text.endswith("data: [DONE]\n\n")
        finally:
            process.kill()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_unservable_models_are_rejected(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(workshop.finished("sft"))
    assert "no model to serve" in refused(capsys)
    assert "--api-key='' is empty" in refused(capsys, model, "--api-key", "")
    assert "given twice" in refused(capsys, model, model)
    assert "--adapter is for one model" in refused(
        capsys, model, str(workshop.finished("pretrain")), "--adapter", "a"
    )
    assert "at most 65,535" in refused(capsys, model, "--port", "70000")
    assert "is no address of this machine" in refused(capsys, model, "--host", "no.such.name")
    assert "is no address of this machine" in refused(capsys, model, "--host", "192.0.2.1")
    refused(capsys, str(tmp_path / "nothing"))
    with listening("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert "is taken by another program" in refused(capsys, model, "--port", port)


def test_without_a_web_server_the_extra_is_named(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "[serve]'" in refused(capsys, str(workshop.finished("sft")))


def test_models_are_called_by_their_folders() -> None:
    models = [Path("runs/dpo"), Path("other/dpo"), Path("runs/sft/"), Path("pack:smollm2")]
    assert [*_names(models)] == ["runs/dpo", "other/dpo", "sft", "pack:smollm2"]
    assert [*_names([Path(".")])] == [Path.cwd().name]
    with pytest.raises(UserError, match="given twice"):
        _names([Path("a/b"), Path("a/b")])


def test_every_kind_of_address_works() -> None:
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        with listening(host, 0) as at:
            assert at.family in (socket.AF_INET, socket.AF_INET6)
