"""Real run folders, and a studio that shows them through a real socket."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Workshop
from tests.serve.conftest import answering

from groundup.app.commands.serve import opened_models
from groundup.app.starting import commands
from groundup.app.xray import page
from groundup.serve.admission import Admission
from groundup.serve.worker import Served
from groundup.studio.server import Studio


def opened(name: str, folder: Path) -> Served:
    return opened_models(name, folder, (), "cpu")[0]


def looked(name: str, folder: Path, text: str, as_message: bool) -> str:
    return page(folder, text, name=name, chat=as_message)


Show = Callable[..., httpx.Client]


@pytest.fixture
def show() -> Iterator[Show]:
    """Starts a studio for a folder, which stops after the test; returns a client."""
    with ExitStack() as running:

        def start(
            root: Path, open: Any = opened, look: Any = looked, **limits: Any
        ) -> httpx.Client:
            admission = Admission(hosts=["127.0.0.1", "localhost"], **limits)
            at = running.enter_context(answering(Studio(root, admission, open, look, commands).app))
            return running.enter_context(httpx.Client(base_url=at, timeout=60))

        yield start


@pytest.fixture
def trained(workshop: Workshop, tmp_path: Path) -> Path:
    """A folder with a tokenizer, a base and its fine-tuned model, moved from where they were
    made."""
    root = tmp_path / "shown"
    for stage in ("pretrain", "sft"):
        shutil.copytree(workshop.finished(stage), root / "journey" / stage)
    shutil.copytree(workshop.tokenizer, root / "journey" / "tokenizer")
    return root
