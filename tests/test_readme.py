"""What the README shows is there: every command with its options, every import, every file."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


COMMANDS = [
    line.split("#")[0].strip().removeprefix(".venv/bin/")
    for block in blocks("sh")
    for line in block.splitlines()
    if line.removeprefix(".venv/bin/").startswith("groundup ")
]


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"@@", README)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 8 and blocks("python")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_and_its_options_are_there(command: str) -> None:
    words = shlex.split(command)[1:]
    name = words[:2] if words[0] in ("data", "experiment") else words[:1]
    shown = subprocess.run(
        [sys.executable, "-m", "groundup", *name, "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    for word in words:
        if word.startswith("--"):
            assert word in shown.stdout, f"{word} in: {command}"


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.M))
def test_a_make_target_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_imports_what_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
        owner = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(owner, ast.Name) and owner.id == "groundup":
            assert hasattr(importlib.import_module("groundup"), node.attr)


@pytest.mark.parametrize("path", re.findall(r"`(src/groundup/[\w/.]+)`", README))
def test_a_named_file_is_there(path: str) -> None:
    assert (ROOT / path).exists()
