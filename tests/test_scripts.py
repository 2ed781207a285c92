"""Names and texts of all scripts: accents, letters without spaces, right to left, joined emoji."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from groundup.align.rewards.verifiers import open_reward
from groundup.data import leaks
from groundup.data.files import read_text
from groundup.data.split import data_files
from groundup.errors import UserError
from groundup.evals.domain.material import _prompts
from groundup.evals.stages.opening import in_terminal, repeats
from groundup.formats.card import model_card
from groundup.report.figure import image
from groundup.report.page import Answer, Dialogue, Page, Section, html
from groundup.report.plots import legend, titled
from groundup.report.terminal import one_line
from groundup.runs.content import folder_hash
from groundup.runs.files import write_json
from groundup.serve.replies import _TextOffset
from groundup.text.cleaning import word_spans
from groundup.text.rows import Conversation, Document

CHINESE = "在森林里，小狐狸找到了一盏旧灯。它想把灯带回家。"
FRENCH = "Le château était très âgé. Personne n'y habitait."


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("names", "heldout"),
    [
        (("médiéval", "le train"), []),
        (("Fußtest", "prévalid", "train"), []),
        (("train数据", "test数据"), ["test数据"]),
        (("données.train", "données.val"), ["données.val"]),
    ],
)
def test_only_whole_words_of_a_files_name_hold_it_out(
    tmp_path: Path, names: tuple[str, ...], heldout: list[str], form: str
) -> None:
    for name in names:
        (tmp_path / unicodedata.normalize(form, f"{name}.txt")).write_text(FRENCH)
    found = data_files(tmp_path).heldout
    assert [unicodedata.normalize("NFC", path.stem) for path in found] == heldout


def test_a_data_file_whose_name_is_not_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(FRENCH)
    before = folder_hash(tmp_path)
    bad = os.fsencode(tmp_path) + b"/gr\xfc\xdfe.txt"
    with open(bad, "w") as file:
        file.write(FRENCH)
    assert folder_hash(tmp_path) != before
    with pytest.raises(UserError, match=r"gr\\udcfc\\udcdfe.txt' is not valid UTF-8.*rename"):
        data_files(tmp_path)


@given(st.text())
def test_words_are_split_at_white_space_and_before_unspaced_letters(text: str) -> None:
    spans = word_spans(text)
    assert "".join(text[a:b] for a, b in spans) == "".join(text.split())
    if text.isascii():
        assert [text[a:b] for a, b in spans] == text.split()


def test_letters_without_spaces_are_words_with_their_marks() -> None:
    assert [CHINESE[a:b] for a, b in word_spans(CHINESE)][:4] == ["在", "森", "林", "里，"]
    assert len(word_spans("GPT 是 一种模型 (LLM)")) == 7


def test_an_unspaced_text_shows_a_prompt_and_its_truth() -> None:
    (found,) = _prompts([], [Document(CHINESE * 9, "mine", "1")])
    (asked,) = found.messages
    assert asked.content == "在森林里，小狐狸找到了一盏" and found.truth.startswith("旧灯。它想")
    (found,) = _prompts([], [Document("a  b\n" * 30, "mine", "1")])
    assert found.messages[0].content == "a b a b a b a b a b a b"
    assert found.truth == " ".join("ab" * 18)


def test_unspaced_letters_have_a_length_and_repeat_themselves() -> None:
    short, long = open_reward("length:20")(["?"] * 2, ["在森林里。", CHINESE], [{}, {}])
    assert (short, long) == pytest.approx((0.2, 0.95))
    assert repeats("在河边找到面包。" * 30) and not repeats(CHINESE)


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "法国的首都在哪里？", "フランスの首都は？"]
)
def test_a_held_out_question_leaks_in_every_script(question: str) -> None:
    against = leaks.evaluated([Conversation.of((question, "Paris."), "mine", "1")])
    later = Conversation.of(("Hi", "Hi!", question, "?"), "mine", "2")
    assert leaks.failed(later, against) == {"question"}


def test_a_short_held_out_question_leaks_in_an_unspaced_text() -> None:
    question = "法国的国王在哪一年死去的"
    against = leaks.evaluated([Conversation.of((f"{question}？", "1793"), "mine", "1")])
    told = Document(f"Some text. 有人问：{question}？ 他说不知道。", "mine", "2")
    assert leaks.failed(told, against)
    assert not leaks.failed(Document(f"{CHINESE} 有人问：为什么？", "mine", "3"), against)


def test_advice_for_another_encoding_names_more_than_one(tmp_path: Path) -> None:
    (tmp_path / "gb.txt").write_bytes(CHINESE.encode("gb18030"))
    with pytest.raises(UserError, match=r"WINDOWS-1252.*Western.*GB18030 \(Chinese\)"):
        read_text(tmp_path / "gb.txt")


def test_a_card_claims_english_for_sets_that_come_along_only(tmp_path: Path) -> None:
    def front(*data: Path) -> dict[str, object]:
        card = model_card("M", how="", facts={}, data=data)
        found: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
        return found

    (tmp_path / "中.txt").write_text(CHINESE)
    assert "language" not in front(tmp_path / "中.txt")
    assert front(Path("pack:wiki"))["language"] == ["en"]
    assert front(tmp_path / "中.txt", Path("pack:wiki"))["language"] == ["en"]


def test_joined_letters_stay_joined_and_long_words_are_cut_within() -> None:
    assert one_line("می\u200cخواهم 👩🏽\u200d💻\x1b[2J") == "می\u200cخواهم 👩🏽\u200d💻 [2J"
    assert one_line("Hi 小" + "狐" * 100) == "Hi 小" + "狐" * 58 + " …"
    assert Answer("x", "Hi 小" + "狐" * 100).beginning == "Hi 小" + "狐" * 66 + " …"
    assert one_line("word " * 20) == " ".join(["word"] * 12) + " …"


def test_answers_are_aligned_in_cells() -> None:
    answers = [Answer("sft", "a"), Answer("dpo 好", "b")]
    _, _, *lines = in_terminal([Dialogue([("you", "?")], answers)], [], [])
    assert lines[:2] == ["  sft     a", "  dpo 好  b"]


def test_text_on_a_page_has_its_own_direction() -> None:
    arabic = Dialogue(
        [("you", "أين يعيش الثعلب؟")], [Answer("sft", "في الغابة."), Answer("dpo", "في", "cut")]
    )
    page = html(Page("T", "H", "L", [], [Section("One", "one", [arabic])]))
    tags = re.findall(r'<[^>]*dir="auto"[^>]*>', page)
    assert len(tags) == 4  # the turn, an answer, and a collapsed one with its summary


def test_a_plot_with_letters_of_no_font_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, axes = titled("好 अ ไ")
        axes.plot([1, 2], label="dpo 好")
        legend(figure)
        assert image(figure, "svg").startswith(b"<?xml")


@given(st.lists(st.binary(min_size=1, max_size=4)))
def test_text_offsets_point_at_a_tokens_first_letter(tokens: list[bytes]) -> None:
    length, written = _TextOffset(), b""
    for token in tokens:
        # The incomplete character at the end counts as one.
        letter = len((written + token[:1]).decode(errors="replace")) - 1
        assert length.before(token) == letter
        written += token


def test_a_run_with_a_path_that_this_process_cannot_name_says_so(tmp_path: Path) -> None:
    parents = {"model": {"path": "/gespräche 对话", "sha256": ""}}
    write_json(tmp_path / "run.json", {"stage": "sft", "config": {}, "parents": parents})
    code = (
        "import sys; from pathlib import Path; from groundup.runs.request import read_run\n"
        "read_run(Path(sys.argv[1]))"
    )
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for environment, wanted in ((ascii_only, "set LC_ALL=C.UTF-8"), (dict(os.environ), "")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (wanted in done.stderr) and (done.returncode == 0) == (wanted == "")
