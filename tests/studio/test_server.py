"""`groundup studio` as a program."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from tests.conftest import Workshop
from tests.serve.test_server import program

from groundup.app.cli import main


def test_a_folder_is_shown_until_ctrl_c(workshop: Workshop) -> None:
    workshop.finished("sft")
    with program(str(workshop.folder), command="studio", says="Studio:") as (process, address):
        page = httpx.get(address).text
        assert 'href="/runs/sft"' in page
        body = {"model": "sft", "prompt": "The", "max_tokens": 2}
        assert httpx.post(f"{address}/v1/completions", json=body, timeout=60).status_code == 200
        form = {"model": "sft", "text": "The sea"}
        looked = httpx.post(f"{address}/look", data=form, timeout=60).text
        assert "<h1>sft</h1>" in looked and '<a href="/runs/sft#inside">' in looked
        process.send_signal(signal.SIGINT)
        code, said = process.communicate(timeout=30)
    assert code == 130
    assert said.endswith("stopped\n") and "Traceback" not in said


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["studio", *words]) == 2
    return capsys.readouterr().err


def test_bad_input_ends_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "does not exist; give a folder" in refused(capsys, str(tmp_path / "nothing"))
    assert "is a file; give a folder" in refused(capsys, str(file))
    assert "--api-key='' is empty" in refused(capsys, str(tmp_path), "--api-key", "")
    assert "--port=70,000" in refused(capsys, str(tmp_path), "--port", "70000")
    assert "is no address of this machine" in refused(capsys, str(tmp_path), "--host", "nowhere.x")
