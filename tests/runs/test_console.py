from __future__ import annotations

import os
import subprocess
import sys

import pytest
from rich.console import Console

from groundup.runs import console
from groundup.runs.console import Bar, counted, duration, printable, progress, wrapped
from pseudo_terminal import Screen


def test_model_output_cannot_control_the_terminal() -> None:
    assert printable("\x1b]0;title\x07a\tb\nc\r\x9b") == "\ufffd]0;title\ufffda\tb\nc\ufffd\ufffd"


def test_durations_have_a_readable_unit() -> None:
    said = [duration(seconds) for seconds in (0.21, 56.3, 89, 91, 725, 9_000, 1e6, 1e8)]
    assert said == [
        *("0.21 seconds", "56 seconds", "89 seconds", "1.52 minutes"),
        *("12.1 minutes", "2.5 hours", "11.6 days", "1,157 days"),
    ]


def test_lines_wrap_between_words_with_indentation() -> None:
    assert wrapped("  depth: as deep as\nshort", 12) == "  depth: as\n    deep as\nshort"
    assert wrapped("as deep as", 0) == "as deep as"
    path = "/" + 30 * "x"
    assert wrapped(f"Page: {path}", 12) == f"Page:\n  {path}"


def test_forced_colors_in_a_file_bring_no_bar_and_no_wrapping() -> None:
    """Jupyter sets FORCE_COLOR, and so do some services that run tests."""
    code = """if True:
        from groundup.runs import console
        console._LOG_SECONDS = 0.0
        with console.Bar("sft", 2, 0) as bar:
            console.say("a " * 60)
            bar.advance(1, 0.5, 100, 1.0)
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"FORCE_COLOR": "1"},
    )
    assert (done.stdout, done.stderr) == (
        f"{'a ' * 60}\nsft  1/2  loss 0.500  100 tok/s  0:00 left\n",
        "",
    )


def test_the_time_left_has_minutes_and_no_color() -> None:
    said = Screen()
    terminal = Console(file=said, force_terminal=True, color_system="truecolor", width=80)
    with progress(on=terminal) as bar:
        bar.update(bar.add_task("sft", total=4), completed=4)
        bar.refresh()
        shown = said.getvalue()
    assert "0:00 left" in shown and "0:00:00" not in shown
    assert "\x1b[36m" not in shown


def test_a_noun_agrees_with_its_number() -> None:
    assert [counted(n, "step") for n in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]


def test_the_shown_speed_covers_all_steps_since_the_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that samples reads as much as the next three and takes longer."""
    with Bar("ppo", 8, 0) as bar:
        for step in range(1, 8):
            bar.advance(step, 0.5, 100, 7.0 if step % 4 == 1 else 1.0)
        assert capsys.readouterr().out == ""
        monkeypatch.setattr(console, "_LOG_SECONDS", 0.0)
        bar.advance(8, 0.25, 100, 1.0)
    [line] = capsys.readouterr().out.splitlines()
    assert line == "ppo  8/8  loss 0.250  40 tok/s  0:00 left"
    with Bar("ppo", 8, 0) as bar:
        bar.advance(1, 0.5, 100, 10.0)
        bar.advance(2, 0.5, 100, 1.0)
    said = capsys.readouterr().out.splitlines()
    assert "10 tok/s" in said[0] and "100 tok/s" in said[1]
