"""Chat: the introduction, the conversation, and the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import CallsOf

from groundup.app import chat
from groundup.app import conversation as app_conversation
from groundup.app.chat import introduction
from groundup.app.conversation import Answered, Conversation, _text, _whole
from groundup.errors import UserError
from groundup.generation import prefill
from groundup.generation.generate import generate
from groundup.generation.guarded import SENTENCE
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.rows import Message
from groundup.text.tokenizer import Tokenizer
from groundup.world import conduct, questions

TINY = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=64))


def run_folder(folder: Path, name: str, stage: str, data: Path, parent: str | None) -> Path:
    """A run folder as training leaves it, as far as a chat reads it."""
    run = folder / name
    run.mkdir()
    parents = {"data": {"path": str(data)}}
    if parent is not None:
        parents["model"] = {"path": str(folder / parent)}
    (run / "run.json").write_text(json.dumps({"stage": stage, "parents": parents}))
    (run / "plan.json").write_text("{}")
    step = {"kind": "train", "step": 1, "tokens": 1_000_000, "seconds": 300.0, "loss": 2.0}
    (run / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    return run


def journey(folder: Path, data: dict[str, object]) -> Path:
    """Base and SFT on a data folder with this description."""
    (folder / "data").mkdir()
    (folder / "data" / "data.json").write_text(json.dumps(data))
    run_folder(folder, "base", "pretrain", folder / "data", None)
    return run_folder(folder, "sft", "sft", folder / "data", "base")


def suggested(folder: Path) -> list[str]:
    """The suggested questions of the introduction."""
    lines = introduction("model", folder, TINY).split("\n")
    return [line.strip() for line in lines if line.startswith("  ")]


def test_a_model_of_the_small_world_gets_questions_about_it(tmp_path: Path) -> None:
    asked = suggested(journey(tmp_path, {"world": {"seed": 0, "bias": 0.5}}))
    kinds = [questions.parse([Message("user", one)]) for one in asked]
    sources = {kind.kind.source for kind in kinds if kind is not None}
    assert {"world-tell", "world-sums", "world-facts"} <= sources
    assert any(conduct.is_harmful(one) for one in asked)


def test_an_aligned_model_gets_questions_of_its_fine_tuning(tmp_path: Path) -> None:
    asked = suggested(journey(tmp_path, {"world": {"seed": 0, "bias": 0.5}}))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "data.json").write_text(json.dumps({"packs": [{"name": "world"}]}))
    assert suggested(run_folder(tmp_path, "dpo", "dpo", tmp_path / "labels", "sft")) == asked != []
    # The last stage's data may be two folders.
    (tmp_path / "mine").mkdir()
    mine = run_folder(tmp_path, "tuned", "sft", tmp_path / "mine", "base")
    assert not suggested(mine)
    said = json.loads((mine / "run.json").read_text())
    said["parents"]["data 2"] = {"path": str(tmp_path / "data")}
    (mine / "run.json").write_text(json.dumps(said))
    assert suggested(mine) == asked


def test_a_moved_recipe_folder_still_has_its_data(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    journey(tmp_path / "first", {"world": {"seed": 0, "bias": 0.5}})
    moved = (tmp_path / "first").rename(tmp_path / "second")
    assert suggested(moved / "sft")


@pytest.mark.parametrize("data", [{"world": None}, {}])
def test_other_models_get_no_suggestions(tmp_path: Path, data: dict[str, object]) -> None:
    assert not suggested(journey(tmp_path, data))
    assert not suggested(tmp_path / "base")


def test_a_base_model_is_described_as_such(tmp_path: Path) -> None:
    journey(tmp_path, {"world": {"seed": 0, "bias": 0.5}})
    text = introduction("base", tmp_path / "base", TINY)
    assert "rambles" in text and not suggested(tmp_path / "base")


def test_minutes_equal_the_reports(tmp_path: Path) -> None:
    """Evaluations are included: 5 minutes of steps and 40 seconds, twice."""
    folder = journey(tmp_path, {})
    for run in (folder, tmp_path / "base"):
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "evaluation", "step": 1, "seconds": 40.0}) + "\n")
    assert "in 11.3 minutes (pretrain, then sft)" in " ".join(
        introduction("sft", folder, TINY).split()
    )


# The conversation itself.


@pytest.fixture
def talk() -> Conversation:
    return conversation(context=512)


def conversation(context: int) -> Conversation:
    """With a random model, so that its answers depend on the whole conversation."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=320, context=context))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_("norm" in name, 0.2, generator=generator)
    tokenizer = Tokenizer.from_bpe(train_bpe(["The sea is wide and deep. "] * 4, 300))
    return Conversation(model, tokenizer, Sampling(temperature=0.8, max_new_tokens=20))


def test_a_later_turn_reads_only_new_tokens_with_equal_answers(
    talk: Conversation,
) -> None:
    counts: list[int] = []
    embed = talk.model.model.embed_tokens
    embed.register_forward_hook(lambda module, given, out: counts.append(given[0].numel()))
    for turn in range(4):
        talk.ask(f"Is the sea {turn} wide and deep, and is it deep and wide?")
        request = Request(messages=list(talk.messages), sampling=talk.sampling)
        [expected] = generate(talk.model, [request], talk.tokenizer)
        length = len(encode_chat(talk.tokenizer, talk.messages, generation_prompt=True).ids)
        counts.clear()
        assert "".join(talk.answer()) == expected.text
        if turn:
            # The old answer may be encoded in other tokens than those that were sampled.
            assert counts[0] < length / (turn + 1) + 40


def test_a_conversation_continues_after_an_interruption(talk: Conversation) -> None:
    talk.ask("Is the sea wide?")
    answer = talk.answer()
    said = next(answer)
    with pytest.raises(KeyboardInterrupt):
        answer.throw(KeyboardInterrupt())
    assert talk.messages[-1] == {"role": "assistant", "content": said.strip()}
    talk.ask("Is it deep?")
    request = Request(messages=list(talk.messages), sampling=talk.sampling)
    [expected] = generate(talk.model, [request], talk.tokenizer)
    assert "".join(talk.answer()) == expected.text


def test_old_turns_are_kept_when_the_model_no_longer_sees_them(talk: Conversation) -> None:
    talk.model.config = replace(talk.model.config, max_position_embeddings=96)
    talk.sampling = replace(talk.sampling, max_new_tokens=8)
    said = []
    for turn in range(12):
        talk.ask(f"Where is {turn}?")
        assert talk.shown == talk.messages[talk.forgotten :]
        assert talk.shown[0]["role"] == "user" and talk.forgotten % 2 == 0
        length = len(encode_chat(talk.tokenizer, talk.shown, generation_prompt=True).ids)
        assert length <= 96 - 8
        said += [f"Where is {turn}?", "".join(talk.answer()).strip()]
    assert talk.forgotten > 0
    assert [one["content"] for one in talk.said] == said

    with pytest.raises(UserError, match="fewer words"):
        talk.ask("sea " * 96)
    assert [one["content"] for one in talk.messages] == said
    talk.reset()
    assert talk.said == [] and talk.forgotten == 0


def begun(context: int, sampling: Sampling, turns: int = 3) -> Conversation:
    """Turns whose answers were stopped at once, and a question; nothing is left out yet."""
    talk = conversation(context)
    talk.sampling = sampling
    for turn in range(turns):
        talk.ask(f"Where is {turn}?")
        answer = talk.answer()
        next(piece for piece in answer if piece.strip())
        answer.close()
    talk.ask("Is it wide?")
    assert talk.forgotten == 0
    return talk


def test_three_quarters_of_the_context_are_used_before_turns_are_left_out() -> None:
    talk = begun(256, Sampling(), turns=0)
    length = 0
    while length <= 256 - 64:
        assert talk.forgotten == 0
        answer = talk.answer()
        next(piece for piece in answer if piece.strip())
        answer.close()
        talk.ask("Is it wide and deep?")
        length = len(encode_chat(talk.tokenizer, talk.messages, generation_prompt=True).ids)
        assert length > 256 - 64 or talk.forgotten == 0
    # Then half of it, so that what is left stays as it is for some turns.
    lengths = [
        len(encode_chat(talk.tokenizer, talk.messages[out:], generation_prompt=True).ids)
        for out in range(0, len(talk.messages), 2)
    ]
    assert talk.forgotten == 2 * next(n for n, one in enumerate(lengths) if one <= 256 // 2) > 0


def test_the_rest_of_an_outgrown_conversation_is_read_once(calls_of: CallsOf) -> None:
    talk = conversation(256)
    talk.sampling = Sampling(temperature=0, max_new_tokens=8)
    read, shown = calls_of(prefill, "read"), 0
    for turn in range(40):
        talk.ask(f"Where is {turn}?")
        list(talk.answer())
        shown += len(encode_chat(talk.tokenizer, talk.shown[:-1], generation_prompt=True).ids)
    assert talk.forgotten > 60
    assert sum(batch.input_ids.numel() for _, batch, _ in read) < shown / 2


def test_the_last_answer_is_kept_if_it_fits() -> None:
    """It may take more than half of the context, and the next message is usually about it."""
    talk = conversation(256)
    talk.sampling = Sampling(temperature=0, max_new_tokens=8)
    for turn in range(5):
        talk.ask(f"Where is {turn}?")
        list(talk.answer())
    talk.messages[-1]["content"] = "deep " * 80
    talk.ask("Who is deep?")
    assert talk.shown == talk.messages[-3:]
    length = len(encode_chat(talk.tokenizer, talk.shown, generation_prompt=True).ids)
    assert 256 // 2 < length <= 256 - 8


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_that_fills_the_context_continues_without_the_oldest_turns(
    temperature: float,
) -> None:
    sampling = Sampling(temperature=temperature, max_new_tokens=500, ignore_eos=True)
    talk = begun(160, sampling)
    # By hand: up to the last token of the context, then again with fewer messages.
    ids, drawn, forgotten, tokens = list[int](), list[int](), 0, 0
    for _ in range(4):
        messages = talk.messages[forgotten:]
        prompt = encode_chat(talk.tokenizer, messages, generation_prompt=True).ids
        free = 160 - len(prompt) - len(ids)
        assert free >= 160 // 4 or len(messages) == 1
        last = len(messages) == 1
        sooner = replace(sampling, max_new_tokens=free - (not last))
        request = Request(prompt_ids=prompt + ids, sampling=sooner)
        [completion] = generate(talk.model, [request], talk.tokenizer)
        tokens += len(completion.ids)
        drawn = ids + completion.ids
        if last:
            break
        ids = _whole(talk.tokenizer, drawn)
        while len(messages) > 1 and len(prompt) + len(ids) > 160 - 160 // 4:
            forgotten += 2
            messages = talk.messages[forgotten:]
            prompt = encode_chat(talk.tokenizer, messages, generation_prompt=True).ids
    expected = _text(talk.tokenizer, drawn)
    pieces = list(talk.answer())
    # Characters that are cut there are sampled again, if they may have been shown.
    shown = "".join(pieces)
    assert len(pieces) > 50 and shown.replace("\ufffd", "") == expected.replace("\ufffd", "")
    assert talk.messages[-1]["content"] == expected.strip() and len(talk.messages) == 8
    # Only where the question and its answer alone fill the context is it cut.
    assert talk.forgotten == forgotten == 6
    assert talk.last is not None and talk.last.cut and talk.last.tokens == tokens
    assert talk.last.tokens_per_second is not None
    with pytest.raises(UserError, match="this answer fills them"):
        talk.go_on()
    # Asked again, it is shown what it was shown first; another seed gives other words.
    talk.ask_again()
    assert talk.forgotten == 0
    assert list(talk.answer()) == pieces
    talk.sampling = replace(sampling, seed=1)
    talk.ask_again()
    assert (list(talk.answer()) == pieces) == (temperature == 0)
    # Within a character, too: enough words end it as usual.
    talk.sampling = replace(sampling, max_new_tokens=tokens - 5)
    talk.ask_again()
    assert shown.startswith("".join(talk.answer()).rstrip("\ufffd"))
    assert talk.last.cut and talk.last.tokens == tokens - 5
    # A guard reads all of it.
    talk.sampling = sampling
    talk.guard = Words()
    talk.ask_again()
    assert list(talk.answer()) == [shown]
    talk.guard = Words(expected.strip()[-5:])
    talk.ask_again()
    assert list(talk.answer()) == [SENTENCE]
    assert talk.messages[-1] == {"role": "assistant", "content": SENTENCE}


def test_a_cut_answer_continues_past_the_end_of_the_context() -> None:
    sampling = Sampling(temperature=0, max_new_tokens=500, ignore_eos=True)
    talk = begun(160, sampling)
    list(talk.answer())
    whole = talk.messages[-1]["content"]
    talk = begun(160, replace(sampling, max_new_tokens=40))
    list(talk.answer())
    with pytest.raises(UserError, match="this answer fills them"):
        for _ in range(10):
            assert talk.last is not None and talk.last.cut
            list(talk.go_on())
    assert talk.forgotten == 6
    assert talk.messages[-1]["content"] == whole


def test_turns_left_out_by_an_answer_are_reported_after_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=500, ignore_eos=True)
    talk = begun(160, sampling)
    chat._do(talk, "/retry", "")
    out = capsys.readouterr().out
    assert out.count("outgrown") == 1
    assert out.index("the model's context is full") < out.index("outgrown")
    for _ in range(2):
        chat._do(talk, "/retry", "")
        assert "outgrown" not in capsys.readouterr().out
    talk = begun(160, replace(sampling, max_new_tokens=40))
    list(talk.answer())
    for _ in range(5):
        if talk.forgotten == 0:
            assert "outgrown" not in capsys.readouterr().out
            chat._do(talk, "/continue", "")
    assert capsys.readouterr().out.count("outgrown") == 1
    chat._do(talk, "/save", str(tmp_path / "talk.jsonl"))
    assert json.loads((tmp_path / "talk.jsonl").read_text()) == {"messages": talk.messages}
    assert len(talk.messages) == 8


def test_a_turn_renders_and_encodes_the_conversation_once(
    talk: Conversation, calls_of: CallsOf
) -> None:
    encoded = calls_of(app_conversation, "encode_chat")
    for turn in range(3):
        talk.ask(f"Where is {turn}?")
        list(talk.answer())
        assert [len(messages) for _, messages in encoded] == [2 * turn + 1]
        encoded.clear()
    # Words that were changed are encoded as they are now.
    talk.messages[-1]["content"] = "Here."
    talk.ask("Is it?")
    request = Request(messages=list(talk.messages), sampling=talk.sampling)
    [expected] = generate(talk.model, [request], talk.tokenizer)
    assert "".join(talk.answer()) == expected.text


def test_a_repeated_answer_is_marked(talk: Conversation) -> None:
    talk.sampling = Sampling(temperature=1e-4, max_new_tokens=8)
    talk.ask("Where does the ship sail?")
    list(talk.answer())
    assert chat._retry(talk).startswith("(the same answer again")
    talk.sampling = replace(talk.sampling, temperature=5.0)
    assert chat._retry(talk) == ""


def test_a_stopped_answer_stays_in_the_conversation(talk: Conversation) -> None:
    talk.ask("Where does the ship sail?")
    answer = talk.answer()
    first = next(piece for piece in answer if piece.strip())
    answer.close()
    assert talk.messages[-1] == {"role": "assistant", "content": first.strip()}

    talk.ask("Where does it sail?")
    talk.answer().close()  # before it began
    "".join(talk.answer())
    assert [m["role"] for m in talk.messages] == ["user", "assistant"] * 2


class Words:
    """A guard that stops messages and answers with certain words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def stops(self, messages: Sequence[str], answers: Sequence[str] | None = None, /) -> np.ndarray:
        texts = messages if answers is None else answers
        return np.array([any(word in text for word in self.words) for text in texts], bool)


def test_with_a_guard_an_answer_is_shown_completely_or_not_at_all(talk: Conversation) -> None:
    talk.ask("Is the sea wide?")
    plain = "".join(talk.answer())
    talk.reset()
    talk.guard = Words("storm")
    talk.ask("Is the sea wide?")
    assert list(talk.answer()) == [plain]
    talk.ask("Is the storm wide?")
    assert list(talk.answer()) == [SENTENCE]
    assert talk.messages[-1] == {"role": "assistant", "content": SENTENCE}
    talk.reset()
    talk.guard = Words(plain.strip())
    talk.ask("Is the sea wide?")
    assert list(talk.answer()) == [SENTENCE]
    # Nothing is reported about hidden text: that it was cut, or how long it was.
    assert talk.last == Answered(0, 0.0, cut=False)
    assert [one["content"] for one in talk.messages] == ["Is the sea wide?", SENTENCE]
    with pytest.raises(UserError):  # what was stopped is not gone on with
        talk.go_on()


def test_with_a_guard_a_continued_answer_is_read_with_its_beginning(
    talk: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.guard = Words()
    talk.ask("Is the sea wide?")
    first = "".join(talk.answer())
    more = "".join(talk.go_on())
    assert talk.messages[-1]["content"] == (first + more).strip()
    talk.guard = Words(first.strip()[:3])
    talk.sampling = replace(talk.sampling, max_new_tokens=2)
    chat._do(talk, "/continue", "")
    assert capsys.readouterr().out.strip() == f"…{SENTENCE}"
    assert [one["content"] for one in talk.messages] == ["Is the sea wide?", SENTENCE]


def test_a_new_answer_replaces_the_last_one(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="nothing has been asked"):
        talk.ask_again()
    for question in ("Is the sea wide?", "Is it deep?"):
        talk.ask(question)
        "".join(talk.answer())
    before = list(talk.messages)
    talk.sampling = replace(talk.sampling, seed=1)
    talk.ask_again()
    again = "".join(talk.answer()).strip()
    assert again != before[-1]["content"]
    assert talk.messages == [*before[:-1], {"role": "assistant", "content": again}]
    # One that is stopped before its first word takes no other's place.
    talk.ask_again()
    answer = talk.answer()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(talk._engine, "step", _interrupted)
        next(answer)
    assert talk.messages[-1]["content"] == again


def _interrupted() -> None:
    raise KeyboardInterrupt


def test_a_question_without_an_answer_can_be_repeated(talk: Conversation) -> None:
    talk.sampling = replace(talk.sampling, stop_ids=tuple(range(320)))  # no word ever
    talk.ask("Is the sea wide?")
    assert "".join(talk.answer()) == "" and talk.messages == []
    talk.sampling = replace(talk.sampling, stop_ids=())
    talk.ask_again()
    "".join(talk.answer())
    assert [m["role"] for m in talk.messages] == ["user", "assistant"]


def test_an_unanswered_question_occurs_once(talk: Conversation) -> None:
    talk.ask("Is the sea wide?")
    talk.answer().close()
    talk.ask_again()
    "".join(talk.answer())
    assert [m["role"] for m in talk.messages] == ["user", "assistant"]


@pytest.mark.parametrize("first", range(1, 8))
def test_a_cut_answer_continues_as_if_uncut(talk: Conversation, first: int) -> None:
    """Wherever it was cut, even within a character."""
    with pytest.raises(UserError, match="nothing to continue"):
        talk.go_on()
    talk.sampling = replace(talk.sampling, temperature=0, max_new_tokens=60)
    talk.ask("Is the sea wide?")
    whole = "".join(talk.answer()).strip()
    assert talk.last is not None and not talk.last.cut and talk.last.tokens > 8
    talk.reset()
    talk.sampling = replace(talk.sampling, max_new_tokens=first)
    talk.ask("Is the sea wide?")
    "".join(talk.answer())
    assert talk.last.cut and talk.last.tokens == first
    talk.sampling = replace(talk.sampling, max_new_tokens=60)
    "".join(talk.go_on())
    assert [m["role"] for m in talk.messages] == ["user", "assistant"]
    assert talk.messages[-1]["content"] == whole
    with pytest.raises(UserError, match="nothing to continue"):
        talk.go_on()


def test_a_system_prompt_comes_first_if_the_template_supports_it(talk: Conversation) -> None:
    talk.use_system("Be brief.")
    talk.ask("Is the sea wide?")
    assert [m["role"] for m in talk.shown] == ["system", "user"]
    "".join(talk.answer())
    assert talk.said[0] == {"role": "system", "content": "Be brief."} and len(talk.said) == 3
    talk.reset()
    assert talk.system == "Be brief."
    with pytest.raises(UserError, match="fewer words"):
        talk.use_system("sea " * 512)
    assert talk.system == "Be brief."
    talk.use_system(None)
    assert talk.said == []
    silent = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no!') }}{% endif %}"
    for template in (silent, strict + silent):
        talk.tokenizer = Tokenizer.from_bpe(train_bpe(["The sea. "] * 4, 300), template)
        with pytest.raises(UserError, match=r"does not support a system prompt|no!"):
            talk.use_system("Be brief.")


def test_forgetting_is_reported_once_and_everything_is_saved(
    talk: Conversation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    talk.model.config = replace(talk.model.config, max_position_embeddings=96)
    talk.sampling = replace(talk.sampling, max_new_tokens=8)
    for turn in range(8):
        chat._ask(talk, f"Where is {turn}?")
    assert talk.forgotten > 2
    assert capsys.readouterr().out.count("outgrown") == 1
    # After a file whose last line has no line break.
    (tmp_path / "talk.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    chat._do(talk, "/save", str(tmp_path / "talk.jsonl"))
    _, saved = (tmp_path / "talk.jsonl").read_text().splitlines()
    assert json.loads(saved) == {"messages": talk.messages} and len(talk.messages) == 16
    with pytest.raises(UserError, match=r"cannot be (used|written)"):
        chat._do(talk, "/save", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be (used|written)"):
        chat._do(talk, "/save", "a\0b")
    for empty in ("", "'", '""'):
        with pytest.raises(UserError, match="name a file"):
            chat._do(talk, "/save", empty)
    chat._do(talk, "/save", f"'{tmp_path / 'our talk.jsonl'}'")
    assert json.loads((tmp_path / "our talk.jsonl").read_text()) == {"messages": talk.messages}
    chat._do(talk, "/reset", "")
    capsys.readouterr()
    for turn in range(8):
        chat._ask(talk, f"Where is {turn}?")
    assert capsys.readouterr().out.count("outgrown") == 1
