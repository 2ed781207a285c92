"""What is said before the first question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from groundup.chat import Conversation, introduction
from groundup.lm.config import ModelConfig
from groundup.lm.generate import Request, generate
from groundup.lm.model import CausalLM
from groundup.lm.sample import Sampling
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.records import Message
from groundup.text.tokenizer import Tokenizer
from groundup.text.world import conduct, questions

TINY = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=64))


def run_folder(folder: Path, name: str, stage: str, data: Path, parent: str | None) -> Path:
    """A run folder as training leaves it, as far as a conversation reads of it."""
    run = folder / name
    run.mkdir()
    parents = {"data": {"path": str(data)}}
    if parent is not None:
        parents["model"] = {"path": str(folder / parent)}
    (run / "run.json").write_text(json.dumps({"stage": stage, "parents": parents}))
    step = {"kind": "train", "step": 1, "tokens": 1_000_000, "seconds": 300.0}
    (run / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    return run


def journey(folder: Path, data: dict[str, object]) -> Path:
    """Base and SFT on a data folder that says this of itself."""
    (folder / "data").mkdir()
    (folder / "data" / "data.json").write_text(json.dumps(data))
    run_folder(folder, "base", "pretrain", folder / "data", None)
    return run_folder(folder, "sft", "sft", folder / "data", "base")


def suggested(folder: Path) -> list[str]:
    """The questions that the introduction suggests."""
    lines = introduction(folder, TINY).split("\n")
    return [line.strip() for line in lines if line.startswith("  ")]


def test_who_has_learned_the_small_world_is_asked_what_belongs_there(tmp_path: Path) -> None:
    asked = suggested(journey(tmp_path, {"world": {"seed": 0, "bias": 0.5}}))
    kinds = [questions.parse([Message("user", one)]) for one in asked]
    sources = {kind.kind.source for kind in kinds if kind is not None}
    assert {"world-tell", "world-sums", "world-facts"} <= sources
    assert any(conduct.is_harmful(one) for one in asked)


def test_a_moved_journey_still_knows_its_data(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    journey(tmp_path / "first", {"world": {"seed": 0, "bias": 0.5}})
    moved = (tmp_path / "first").rename(tmp_path / "second")
    assert suggested(moved / "sft")


@pytest.mark.parametrize("data", [{"world": None}, {}])
def test_nothing_is_suggested_to_who_never_read_of_it(
    tmp_path: Path, data: dict[str, object]
) -> None:
    assert not suggested(journey(tmp_path, data))
    assert not suggested(tmp_path / "base")


def test_a_base_model_is_said_to_ramble(tmp_path: Path) -> None:
    journey(tmp_path, {"world": {"seed": 0, "bias": 0.5}})
    text = introduction(tmp_path / "base", TINY)
    assert "rambles" in text and not suggested(tmp_path / "base")


# The conversation itself.


@pytest.fixture
def talk() -> Conversation:
    """With a model whose weights are random, so that its answers depend on all that was said."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=320, context=512))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_("norm" in name, 0.2, generator=generator)
    tokenizer = Tokenizer.from_bpe(train_bpe(["The sea is wide and deep. "] * 4, 300))
    return Conversation(model, tokenizer, Sampling(temperature=0.8, max_new_tokens=20))


def test_a_later_turn_is_answered_as_from_the_start_but_reads_what_is_new(
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
            # The old answer may be spelled in other tokens than it was drawn in.
            assert counts[0] < length / (turn + 1) + 40


def test_a_conversation_goes_on_after_it_was_interrupted(talk: Conversation) -> None:
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
