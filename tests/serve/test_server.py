"""`groundup serve` as a program: what it says, whom it refuses, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from tests.conftest import Workshop

from groundup.app.cli import main
from groundup.app.commands.serve import _names
from groundup.errors import UserError
from groundup.serve.server import listening


@contextmanager
def program(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and the address at which it answers by now."""
    command = [sys.executable, "-m", "groundup", "serve", *words, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("Talk:"):
                    yield process, line.split()[1]
                    return
            raise AssertionError("".join(said))
        finally:
            process.kill()


def test_a_model_of_a_run_is_served_until_ctrl_c(workshop: Workshop) -> None:
    model = workshop.finished("sft")
    with program(str(model), str(workshop.finished("pretrain")), "--max-new-tokens", "3") as (
        process,
        address,
    ):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        assert [one.id for one in client.models.list()] == ["sft", "pretrain"]
        asked = [{"role": "user", "content": "What is the colour of the sea?"}]
        found = client.chat.completions.create(model="sft", messages=asked)  # type: ignore[call-overload]
        assert found.usage.completion_tokens <= 3
        assert "<title>groundup</title>" in httpx.get(address).text
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "sft: " in said and "drawn in" in said
    assert said.endswith("stopped\n") and "Traceback" not in said


def test_it_ends_while_an_answer_is_drawn(workshop: Workshop) -> None:
    with program(str(workshop.finished("sft"))) as (process, address):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        more = {"ignore_eos": True}
        stream = client.completions.create(
            model="sft", prompt="The", stream=True, max_tokens=60, extra_body=more
        )
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGTERM, 143)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_what_cannot_be_served_is_refused(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(workshop.finished("sft"))
    assert "no model to serve" in refused(capsys)
    assert "given twice" in refused(capsys, model, model)
    assert "--adapter is for one model" in refused(
        capsys, model, str(workshop.finished("pretrain")), "--adapter", "a"
    )
    assert "at most 65,535" in refused(capsys, model, "--port", "70000")
    assert "is no address of this machine" in refused(capsys, model, "--host", "no.such.name")
    assert "is no address of this machine" in refused(capsys, model, "--host", "192.0.2.1")
    refused(capsys, str(tmp_path / "nothing"))
    with listening(port=0) as taken:
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


def test_every_kind_of_address_can_be_listened_at() -> None:
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        with listening(host, 0) as at:
            assert at.family in (socket.AF_INET, socket.AF_INET6)
