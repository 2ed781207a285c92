"""The documentation site is built from the project's files, and its commands exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from groundup.app.cli import app, words_to_parse

BUILD = Path(__file__).parents[1] / "docs" / "build.py"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(folder: Path, language: str) -> Iterator[tuple[Path, str]]:
    for page in sorted(folder.rglob("*.md")):
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), flags=re.S):
            yield page, block


@pytest.mark.long
def test_the_site_is_built_without_broken_links(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, BUILD, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    assert len(list((tmp_path / "site" / "lessons").glob("*.html"))) > 20
    commands = [
        (page, line.split(" #")[0])
        for page, block in code(tmp_path / "made", "sh")
        for line in block.splitlines()
        if line.startswith("groundup ")
    ]
    assert len(commands) > 50
    for page, command in commands:
        try:
            words = words_to_parse(shlex.split(command)[1:])
            app.parse_args(words, print_error=False, exit_on_error=False)
        except Exception as error:
            raise AssertionError(f"{page.name}: {command}: {error}") from None
    for page, block in code(tmp_path / "made", "python"):
        if page.name != "python.md":  # signatures
            compile(block, str(page), "exec")


def test_a_broken_link_is_named(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h2 id="there"></h2><a href="b.html">b</a> <a href="#there">here</a> <a href="#gone">x</a>'
        '<a href="https://example.org/">far</a><script src="https://example.org/x.js"></script>'
    )
    assert sorted(build.broken_links(tmp_path)) == [
        "a.html: #gone names no part of that page",
        "a.html: b.html leads nowhere",
    ]
    assert list(build.foreign_files(tmp_path)) == ["a.html: loads https://example.org/x.js"]


def test_readme_is_split_into_chapters_that_link_to_each_other(
    build: ModuleType, tmp_path: Path
) -> None:
    build.chapters(tmp_path)
    pages = {page.name: page.read_text("utf-8") for page in tmp_path.glob("*.md")}
    readme = (BUILD.parents[1] / "README.md").read_text("utf-8")
    assert len(pages) == 1 + len(re.findall(r"^## ", readme, flags=re.M))
    whole = "".join(pages.values())
    assert "](#" not in whole
    for target in re.findall(r"\]\(([\w-]+\.md)", whole):
        assert target in pages


def test_the_page_of_a_command_has_its_help(
    build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.commands(tmp_path)
    assert capsys.readouterr().out == ""
    pages = {page.stem: page.read_text("utf-8") for page in tmp_path.glob("*.md")}
    index = pages.pop("index")
    assert len(pages) > 50
    for name, page in pages.items():
        words = page.splitlines()[0].removeprefix("# ")
        assert words.replace(" ", "-") == f"groundup-{name}"
        assert re.search(rf"^Usage: {words}\b", page, flags=re.M), name
        assert re.search(rf"\({name}\.md\): \w.*\w", index), name
    assert "--ngram-orders" in pages["eval-report"]


LESSONS = sorted((BUILD.parents[1] / "src" / "groundup" / "learn").rglob("lesson.md"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.parent.name)
def test_commands_and_options_in_lessons_exist(lesson: Path) -> None:
    for command in re.findall(r"`groundup ([^`]*)`", lesson.read_text("utf-8")):
        words = shlex.split(command)
        inner = app[words[0]]
        if len(words) > 1 and words[1] in set(inner):
            inner = inner[words[1]]
        known = {name for one in inner.assemble_argument_collection() for name in one.names}
        assert {word for word in words if word.startswith("--")} <= known, command
