"""`data inspect`: its counts against manual ones, and its output, read by machine."""

from __future__ import annotations

import html
import io
import json
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from groundup.data.dataset import Dataset, load_dataset
from groundup.data.inspection import (
    Inspection,
    histogram,
    inspect,
    quantiles,
    remarks,
)
from groundup.data.inspection_report import (
    encoding_bar,
    inspection_page,
    say_inspection,
    shortened,
    write_inspection,
)
from groundup.data.records import UNKNOWN
from groundup.errors import UserError
from groundup.report.page import html as page_html
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.example import Example
from groundup.text.rows import BadLine, Conversation, Document, Message
from groundup.text.template import CHATML
from groundup.text.token_view import Token, view_tokens, visible
from groundup.text.tokenizer import Tokenizer
from pseudo_terminal import Screen

CONTEXT = 48
LONG = "The sea is deep and blue and cold. " * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [LONG, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n" * 50]
    return Tokenizer.from_bpe(train_bpe(texts, 320))


def talk(*turns: str, source: str = "talk") -> Conversation:
    roles = ("user", "assistant")
    return Conversation(
        tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns)), source, turns[0]
    )


ROWS = (
    talk("Sea?", "Blue."),
    talk(LONG, "Too late."),  # nothing of the answer is left within the context
    talk("Tell me.", LONG),  # cut, but something is
    Document(LONG, "books", "1"),
    talk("<|im_end|>", "A token."),
)


@pytest.fixture(scope="module")
def found(tokenizer: Tokenizer) -> Inspection:
    return inspect(own(ROWS, heldout=ROWS[:1]), tokenizer, context=CONTEXT, examples=4)


def own(train: Sequence[Conversation | Document], **more: object) -> Dataset:
    fields = {"heldout": (), "bad": (), "duplicates": 0} | more
    return Dataset(tuple(train), **fields)  # type: ignore[arg-type]


# The counts.


def test_counts_equal_manual_ones(tokenizer: Tokenizer, found: Inspection) -> None:
    ids = [
        encode_chat(tokenizer, [vars(message) for message in row.messages])
        for row in ROWS
        if isinstance(row, Conversation)
    ]
    document = len(tokenizer.encode(LONG)) + 1
    lengths = [len(one.ids) - 1 for one in ids]
    assert found.lengths.tolist() == [*lengths[:3], document, lengths[3]]
    assert found.is_cut.tolist() == [False, True, True, False, False]
    assert found.has_no_target.tolist() == [False, True, False, False, False]
    assert found.usable == 4
    trained = [sum(one.assistant[1 : CONTEXT + 1]) for one in ids]
    assert trained[1] == 0
    assert found.trained == sum(trained) + document
    assert found.tokens == lengths[0] + CONTEXT + document + lengths[3]
    assert found.look_alikes == 1
    talks, books = found.sources
    assert (talks.source, talks.kind, talks.rows, talks.heldout) == ("talk", "conversation", 4, 1)
    assert (books.kind, books.rows, books.heldout) == ("document", 1, 0)
    assert (books.tokens, books.trained) == (document, document)
    assert talks.tokens + books.tokens == found.tokens


def test_only_a_few_rows_are_kept_as_tokens(tokenizer: Tokenizer) -> None:
    rows = [Document(f"{n} " + LONG * 60, "books", str(n)) for n in range(60)]
    letters = sum(len(row.text) for row in rows)
    inspect(own(rows[:1]), tokenizer, context=CONTEXT)
    tracemalloc.start()
    try:
        found = inspect(own(rows), tokenizer, context=CONTEXT, examples=1)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.tokens > letters / 8
    assert most < 4 * letters


def test_the_assistants_own_tokens_are_not_look_alikes(tokenizer: Tokenizer) -> None:
    writing = CHATML + "{%- if false %}<think>{% endif %}"
    content, config = dict(tokenizer.content), {"chat_template": writing}
    ordinary = content["added_tokens"][0] | {"content": "<think>", "special": False}
    content["added_tokens"] += [ordinary | {"id": tokenizer.vocab_size}]
    thinking = Tokenizer(content, config | {"eos_token": "<|im_end|>"})
    rows = [talk("Sea?", "<think>Hm."), talk("<think>", "Hm."), talk("Sea?", "<|im_start|>")]
    assert inspect(own(rows), thinking, context=CONTEXT).look_alikes == 2


def test_warnings_are_shown(tokenizer: Tokenizer, found: Inspection) -> None:
    said = " ".join(remarks(found))
    assert "1 row without an assistant's word within 48 tokens" in said
    assert (
        f"2 rows longer than 48 tokens: cut there (the longest has {found.lengths.max()})" in said
    )
    assert "1 row with the name of a control token as text" in said
    assert "held out" not in said
    nothing = inspect(own(ROWS[1:2]), tokenizer, context=CONTEXT)
    assert remarks(nothing)[0] == "There is nothing here to train on."
    assert "No row is held out" in remarks(nothing)[-1]
    bad = replace(
        own(ROWS[:1], heldout=ROWS[:1]), bad=(BadLine("a", 2, f"{UNKNOWN}: …"), BadLine("a", 3, ""))
    )
    said = " ".join(remarks(inspect(bad, tokenizer, context=CONTEXT)))
    assert "2 of 4 lines are bad; training refuses a file with more than a tenth" in said
    assert "--columns prompt=question" in said
    plain = own(ROWS[:1], heldout=ROWS[:1])
    assert remarks(inspect(plain, tokenizer, context=CONTEXT)) == []
    unread = replace(plain, remarks=("own: columns not read: topic",))
    assert remarks(inspect(unread, tokenizer, context=CONTEXT)) == [f"{unread.remarks[0]}."]


def test_a_template_that_ends_no_answer_is_reported(tokenizer: Tokenizer) -> None:
    def with_template(template: str) -> Tokenizer:
        config = {"chat_template": template, "eos_token": "<|im_end|>"}
        return Tokenizer(dict(tokenizer.content), config)

    endless = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    rows = own(ROWS[:1], heldout=ROWS[:1])
    found = inspect(rows, with_template(endless), context=CONTEXT)
    [said] = remarks(found)
    assert "the model never learns to stop; write {{ eos_token }}" in said
    assert "{{ eos_token }}" in " ".join(printed(found).split())
    assert "{{ eos_token }}" in page_html(inspection_page("own", "m", found))
    # Following the advice ends the warning, and texts need no template that ends answers.
    ended = endless.replace(
        "{% endfor %}", "{% if loop.index is even %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    assert remarks(inspect(rows, with_template(ended), context=CONTEXT)) == []
    texts = own(ROWS[3:4], heldout=ROWS[3:4])
    assert remarks(inspect(texts, with_template(endless), context=CONTEXT)) == []


def test_rows_that_the_template_rejects_are_named(tokenizer: Tokenizer) -> None:
    strict = "{% if messages|length > 2 %}{{ raise_exception('One turn each!') }}{% endif %}"
    picky = Tokenizer(dict(tokenizer.content), {"chat_template": strict + CHATML})
    rows = [talk("a", "b"), talk("a", "b", "c", "d"), Document("The sea.", "books", "1")]
    found = inspect(own(rows), picky, context=CONTEXT)
    [(place, reason)] = found.refused
    assert place == 1 and "One turn each!" in reason
    assert len(found.lengths) == 2 and [one.number for one in found.examples] == [1, 3]
    said = " ".join(printed(found).split())
    assert "Refused rows training row 2:" in said and "One turn each!" in said


def test_documents_need_no_chat_template_and_conversations_do(tokenizer: Tokenizer) -> None:
    plain = Tokenizer(dict(tokenizer.content), {})
    assert inspect(own(ROWS[3:4]), plain, context=CONTEXT).usable == 1
    with pytest.raises(UserError, match="no chat template"):
        inspect(own(ROWS[:1]), plain, context=CONTEXT)
    blind = Tokenizer(
        dict(tokenizer.content),
        {"chat_template": "{% for m in messages %}{{ m.content | upper }}{% endfor %}"},
    )
    with pytest.raises(UserError, match="does not show which text is the assistant's"):
        inspect(own(ROWS[:1]), blind, context=CONTEXT)


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=60), st.integers(1, 30_000))
def test_every_row_is_in_one_bin(lengths: list[int], context: int) -> None:
    sizes = np.array(lengths)
    found = Inspection(
        context, len(lengths), 0, 0, (), (), sizes, sizes > context, sizes < 0, 0, 0, 0, (), ()
    )
    bins = histogram(found)
    assert len(bins) <= 12
    for one in bins:
        inside = [n for n in lengths if one.low <= n and (one.high is None or n <= one.high)]
        assert one.rows == len(inside)
        assert one.cut == sum(n > context for n in inside)
    assert sum(one.rows for one in bins) == len(lengths)
    assert [one.high for one in bins[:-1]] == [other.low - 1 for other in bins[1:]]
    assert quantiles(found)["longest"] == max(lengths)


# Token by token.

SPOKEN = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


@given(SPOKEN, SPOKEN, st.integers(1, 60))
def test_shown_tokens_equal_the_items(
    tokenizer: Tokenizer, asked: str, answer: str, context: int
) -> None:
    tokens = encode_chat(tokenizer, [vars(m) for m in talk(asked, answer).messages])
    item = Example(tokens.ids, tokens.assistant)
    shown = list(view_tokens(tokenizer, item, context))
    assert [id for one in shown for id in one.ids] == tokens.ids
    # Cut within a character, what is left of it on either side is no character.
    text = "".join(one.text for one in shown)
    assert "\ufffd" in text or text == visible(tokenizer.decode(tokens.ids))
    assert all(one.is_control == (one.ids[0] in tokenizer.special_ids) for one in shown)
    assert sum(len(one.ids) for one in shown if not one.is_cut) == min(len(tokens.ids), context + 1)
    trained = [id for one in shown if one.is_trained for id in one.ids]
    kept = zip(tokens.ids[1 : context + 1], tokens.assistant[1 : context + 1], strict=True)
    assert trained == [id for id, spoken in kept if spoken]


def test_a_split_character_is_shown_as_broken_on_both_sides(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🙂")
    assert len(ids) == 5
    item = Example(ids, [True] * 5)
    shown = [(one.text, one.ids) for one in view_tokens(tokenizer, item, 100)]
    # Nothing precedes the first token, so it is no target.
    assert shown == [("a", (ids[0],)), ("🙂", tuple(ids[1:]))]
    cut = list(view_tokens(tokenizer, item, 2))
    assert [one.is_trained for one in cut] == [False, True, *[False] * (len(cut) - 2)]
    assert [one.is_cut for one in cut] == [False, False, *[True] * (len(cut) - 2)]
    assert cut[1].text == "\ufffd" and set("".join(one.text for one in cut[2:])) == {"\ufffd"}


def test_data_cannot_control_the_terminal() -> None:
    assert visible("a\x1b[31m\x07\r\x7f\x9b\u202eb\u200b\n\tä🙂") == (
        "a␛[31m␇␍<U+007F><U+009B><U+202E>b<U+200B>\n\tä🙂"
    )


def test_the_middle_of_long_examples_is_omitted_and_marked() -> None:
    def numbered(count: int, cut: bool) -> list[Token]:
        return [Token(str(i), (i,), False, False, cut) for i in range(count)]

    kept = numbered(30, False)
    assert shortened(kept, 20, 10) == kept
    shown = shortened([*kept, *numbered(50, True)], 10, 5)
    assert shown[10] == "… 15 tokens …" and shown[:10] == kept[:10] and shown[11:16] == kept[25:]
    assert shown[16] == "the context ends here, and 50 tokens are cut"
    assert len(shown) == 17 + 40


# The terminal.


def printed(found: Inspection, width: int = 80, **settings: object) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, **settings)  # type: ignore[arg-type]
    say_inspection("my.jsonl", "a model", found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_pipe_trained_tokens_are_in_brackets(found: Inspection) -> None:
    said = printed(found)
    assert "\x1b" not in said
    assert re.search(r"<\|im_start\|>assistant↵\n +⟦Blue\.<\|im_end\|>⟧↵", said)
    assert "⟦trained⟧" in said and "control token" not in said.split("⟦trained⟧")[1].split("\n")[0]
    assert "-- the context ends here, and" in said
    assert all(len(line) <= 80 for line in said.split("\n"))
    assert max(map(len, printed(found, width=40).split("\n"))) <= 40


def test_a_terminal_shows_trained_tokens_by_color_or_underline(found: Inspection) -> None:
    colour = printed(found, force_terminal=True, color_system="standard")
    assert re.search("\x1b\\[32mB", colour) and "⟦" not in colour
    plain = printed(found, force_terminal=True, color_system="standard", no_color=True)
    assert re.search("\x1b\\[4mB", plain)
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", plain)


def test_an_ascii_terminal_gets_only_ascii(found: Inspection) -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), "ascii", "replace"), width=80)
    say_inspection("my.jsonl", "a model", found, console)
    console.file.flush()
    said = console.file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "[[Blue.<|im_end|>]]" in said and "####" in said


def test_the_progress_bar_counts_every_row(tokenizer: Tokenizer) -> None:
    screen = Screen()
    with encoding_bar(2, Console(file=screen, force_terminal=True, width=80)) as heard:
        inspect(own(ROWS[:2]), tokenizer, context=CONTEXT, progress=heard)
    assert "2/2" in screen.getvalue()


def test_the_reason_for_held_out_rows_is_shown(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"{i}?", "completion": f"{i}."}) for i in range(230)]
    (tmp_path / "split").mkdir()
    for path, some in (
        (tmp_path / "split" / "train.jsonl", rows[:10]),
        (tmp_path / "split" / "validation.jsonl", rows[10:20]),
        (tmp_path / "alone.jsonl", rows[20:]),
    ):
        path.write_text("\n".join(some))

    def said(*names: str) -> str:
        data = load_dataset([tmp_path / name for name in names])
        return " ".join(printed(inspect(data, tokenizer, context=CONTEXT)).split())

    assert "held out by a hash of their content" in said("alone.jsonl")
    assert "validation rows 10 held out by the data's own split" in (split := said("split"))
    assert "by a hash" not in split
    assert re.search(r"own split, .*; \d+ of them by a hash of", said("split", "alone.jsonl"))


# The page.


def test_the_page_is_self_contained_and_escapes_the_data(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script><img src=x>"
    data = tmp_path / "evil.jsonl"
    rows = [{"prompt": evil + str(i), "completion": evil} for i in range(30)]
    lines = [*map(json.dumps, rows), '{"prompt": "<b>', json.dumps({evil: 1})]
    data.write_text("\n".join(lines))
    found = inspect(load_dataset([data], refuse=False), tokenizer, context=200)
    path = tmp_path / "new" / "page.html"
    path.parent.mkdir()
    write_inspection(path, f"{evil}.jsonl", "a model", found)
    page = path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
    assert not re.search(r"<(script|img|link|iframe|object)|url\(|@import|http-equiv|href=", page)
    body = page[page.index("<body>") :]
    assert html.unescape(re.sub("<[^>]+>", "", body)).count(evil) >= 7
    assert len(found.bad) == 2 and all(one.reason in html.unescape(page) for one in found.bad)


def test_the_page_marks_trained_control_and_cut_tokens(
    tokenizer: Tokenizer, found: Inspection
) -> None:
    page = page_html(inspection_page("my.jsonl", "a model", found))
    end = tokenizer.special_tokens["<|im_end|>"]
    assert f'<span class="t c" title="{end}">&lt;|im_end|&gt;</span>' in page
    assert f'<span class="m c" title="{end}">&lt;|im_end|&gt;</span>' in page
    assert re.search('<span class="m x" title="[0-9 ]+">', page)
    assert "the context ends here, and" in page
    for name, number in (("truncated rows", 2), ("rows without answer", 1), ("training rows", 5)):
        assert f'<th scope="row">{name}</th><td>{number}</td>' in page


def test_data_with_only_bad_lines_can_be_inspected(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": ""}\n{"a": 1}\n')
    found = inspect(
        load_dataset([tmp_path / "bad.jsonl"], refuse=False), tokenizer, context=CONTEXT
    )
    said = " ".join(printed(found).split())
    assert "There is nothing here to train on." in said and "line 2" in said
    assert "nothing here to train on" in page_html(inspection_page("bad", "a model", found))
