"""Every command shows at least one example in its help, and every example can be typed as it is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from cyclopts import App

from groundup.app.cli import app, main, words_to_parse
from groundup.app.help import EXAMPLES

# Experiments need no more than their name; the help of `learn` shows the examples of its commands.
WITHOUT = ("experiment", "learn")


def commands(group: App, *words: str) -> Iterator[tuple[str, ...]]:
    for name in group:
        inner = group[name]
        if name.startswith("-") or not inner.show:
            continue
        if any(not one.startswith("-") for one in inner):
            yield from commands(inner, *words, name)
        else:
            yield (*words, name)


COMMANDS = list(commands(app))


def examples(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main([*command, "--help"]) == 0
    lines = iter(capsys.readouterr().out.splitlines())
    if all(line not in EXAMPLES for line in lines):
        return []
    found = list[str]()
    for line in lines:
        if not line:
            break
        assert line.startswith("  groundup "), line
        found.append(line.strip())
    return found


def test_the_commands_are_found() -> None:
    assert {("chat",), ("data", "build"), ("eval", "report"), ("learn", "check")} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_example_can_be_typed(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # narrower than an example, which stays on one line
    found = examples(command, capsys)
    if command[0] not in WITHOUT:
        assert any(shlex.split(one)[1 : 1 + len(command)] == list(command) for one in found), found
    for one in found:
        assert len(one) <= 78
        words = words_to_parse(shlex.split(one)[1:])
        app.parse_args(words, print_error=False, exit_on_error=False)


def test_a_command_without_a_description_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The spelling of an earlier release."""
    assert main(["experiment", "initialisation", "--help"]) == 0
    assert "Usage: groundup experiment initialisation" in capsys.readouterr().out


def test_a_group_shows_the_examples_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert "groundup learn check 1.2" in examples(("learn",), capsys)
