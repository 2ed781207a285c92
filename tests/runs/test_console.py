from __future__ import annotations

import io

import pytest
from rich.console import Console

from groundup.runs import console
from groundup.runs.console import Bar, counted, duration, printable, progress, wrapped


def test_what_a_model_says_steers_no_terminal() -> None:
    assert printable("\x1b]0;title\x07a\tb\nc\r\x9b") == "\ufffd]0;title\ufffda\tb\nc\ufffd\ufffd"


def test_times_are_said_in_the_unit_that_a_person_would_take() -> None:
    said = [duration(seconds) for seconds in (0.21, 56.3, 89, 91, 725, 9_000, 1e6, 1e8)]
    assert said == [
        *("0.21 seconds", "56 seconds", "89 seconds", "1.52 minutes"),
        *("12.1 minutes", "2.5 hours", "11.6 days", "1,157 days"),
    ]


def test_lines_end_between_words_and_go_on_further_in() -> None:
    assert wrapped("  depth: as deep as\nshort", 12) == "  depth: as\n    deep as\nshort"
    assert wrapped("as deep as", 0) == "as deep as"
    path = "/" + 30 * "x"
    assert wrapped(f"Page: {path}", 12) == f"Page:\n  {path}"


def test_the_time_left_has_minutes_and_no_color_of_its_own() -> None:
    said = io.StringIO()
    terminal = Console(file=said, force_terminal=True, color_system="truecolor", width=80)
    with progress(on=terminal) as bar:
        bar.update(bar.add_task("sft", total=4), completed=4)
        bar.refresh()
        shown = said.getvalue()
    assert "0:00 left" in shown and "0:00:00" not in shown
    assert "\x1b[36m" not in shown


def test_a_noun_goes_with_its_number() -> None:
    assert [counted(n, "step") for n in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]


def test_the_speed_that_is_said_is_that_of_all_steps_since_it_was_said_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that samples answers for the next three reads as much as they, and takes longer."""
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
