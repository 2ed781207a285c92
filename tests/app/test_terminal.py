"""Words wrap whole for any chunks; a conversation at a real pseudo-terminal."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from groundup.app.terminal import Wrapped
from groundup.formats.folder import save_model
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from pseudo_terminal import Terminal


def shown(pieces: Sequence[str], width: int | None) -> str:
    written: list[str] = []
    out = Wrapped(written.append, lambda: width)
    for piece in pieces:
        out.push(piece)
    out.finish()
    return "".join(written)


WORDS = st.text("abcdefgé,.-'ß\u0301", min_size=1, max_size=9).filter(lambda word: cell_len(word))
TEXTS = st.lists(WORDS, max_size=30).map(" ".join)
ANY = st.text("ab \n\tçé-–🙂👍🏽日本語。」한국\u200d\u0301`", max_size=80)
WIDTHS = st.integers(1, 40)


@given(TEXTS, st.integers(9, 40))
def test_short_words_wrap(text: str, width: int) -> None:
    oracle = textwrap.wrap(text, width, break_on_hyphens=False) if text.isascii() else None
    lines = shown([text], width).split("\n")
    assert oracle is None or lines == (oracle or [""])
    assert " ".join(lines) == text
    assert all(cell_len(line) <= width for line in lines)


@given(ANY, WIDTHS, st.lists(st.integers(0, 80), max_size=8))
def test_the_chunks_of_a_text_do_not_matter(text: str, width: int, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert shown(pieces, width) == shown([text], width)


@given(ANY, WIDTHS)
def test_no_line_is_too_wide_and_nothing_is_lost(text: str, width: int) -> None:
    found = shown([text], width)
    assert "".join(found.split()) == "".join(text.split())
    # A sign of two cells cannot be cut.
    assert all(cell_len(line) <= max(width, 2) for line in found.split("\n"))


def test_texts_of_people_and_models() -> None:
    long = "a" * 25
    assert shown([f"see {long} there"], 10).split("\n") == [
        "see",
        *["a" * 10] * 2,
        "aaaaa",
        "there",
    ]
    assert shown(["日本語の文章です。はい"], 10) == "日本語の文\n章です。は\nい"
    # No line begins with a full stop.
    assert shown(["日本語の文。はい"], 10) == "日本語の\n文。はい"
    assert shown(["한국어 문장입니다"], 12) == "한국어\n문장입니다"
    code = "```\nif sea:\n    return wide and deep\n```"
    assert shown([code], 18) == "```\nif sea:\n    return wide\n    and deep\n```"
    assert shown([code], 80) == code
    assert shown(["a\n\n\n  b\n"], 5) == "a\n\n\n  b\n"


def test_a_model_cannot_control_the_terminal() -> None:
    assert shown(["a\x1b[2Jb\x07\x9bc\r\nd"], 40) == "a\ufffd[2Jb\ufffd\ufffdc\nd"


@given(ANY)
def test_without_a_terminal_nothing_changes(text: str) -> None:
    assert shown([text], None) == text


# At a terminal.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random answers that come at once."""
    tiny = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=2048))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in tiny.named_parameters():
            parameter.normal_("norm" in name, 0.2, generator=generator)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = Tokenizer.from_bpe(train_bpe(["The sea is wide. "] * 4, 300), CHATML)
    save_model(folder, tiny, tokenizer, card="tiny")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


def said(saved: Path) -> list[tuple[str, str]]:
    """The user's messages of the last saved conversation, and the system prompt."""
    talk = json.loads(saved.read_text().splitlines()[-1])["messages"]
    return [(one["role"], one["content"]) for one in talk if one["role"] != "assistant"]


def test_a_paste_is_one_message_and_commands_work(model: Path, saved: Path) -> None:
    at = Terminal("chat", str(model), "--max-new-tokens", "12", columns=34)
    first = at.prompt()
    assert "You are talking to" in first
    # Bracketed, as terminals of today send it; the person then ends the line.
    at.send("\x1b[200~one\ntwo\n\nthree\x1b[201~")
    at.send("\r")
    answered = at.prompt()
    assert "tokens/s" in answered
    # And as others do: line after line, the last one without its end.
    at.send("four\nfive\nsix")
    at.send("\r")
    at.prompt()
    # A command is a line of its own, even in one paste with others.
    at.send(f"/system Be brief.\n/save {saved}\n")
    at.wait_for("appended to")
    at.prompt()
    assert said(saved) == [
        ("system", "Be brief."),
        ("user", "one\ntwo\n\nthree"),
        ("user", "four\nfive\nsix"),
    ]
    at.send("/retry\r")
    at.prompt()
    at.send(f"/save {saved}\r")
    at.prompt()
    before, after = (json.loads(line)["messages"] for line in saved.read_text().splitlines())
    assert before[:-1] == after[:-1] and before[-1] != after[-1]
    at.send("/help\r")
    told = at.prompt()
    assert all(command in told for command in ("/retry", "/continue", "/system", "/save", "/quit"))
    # Except for typed text, no line is wider than the terminal.
    lines = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", first + told).split("\n")[:-1]
    wide = [line for line in lines if cell_len(line.rstrip("\r")) > 34]
    assert wide == []
    at.send("/frob\r")
    assert "/frob is not a command" in at.prompt()
    at.send("/settings\r")
    assert "/reset'?" not in at.prompt()
    at.send("/tempr\r")
    assert "'/temperature'?" in at.prompt()
    assert at.leave() == 0


@pytest.mark.parametrize("columns", ["0", "100000"])
def test_a_terminal_of_extreme_width(model: Path, saved: Path, columns: str) -> None:
    at = Terminal("chat", str(model), "--max-new-tokens", "5", columns=0, COLUMNS=columns)
    at.prompt()
    at.send("hello\r")
    at.prompt()
    at.send(f"/save {saved}\r")
    at.prompt()
    assert said(saved) == [("user", "hello")]
    assert at.leave() == 0
