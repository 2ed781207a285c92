"""Conversations whose earlier turns the chat template writes in another way than the last.

The templates do what those of well-known models do, and no more than that.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from groundup.align.preferences import tokenize_answers
from groundup.align.reward import answered_ids
from groundup.data.dataset import Dataset
from groundup.data.inspection import inspect, remarks
from groundup.errors import UserError
from groundup.evals.answers import ready_conversations
from groundup.text.batches import ConversationStream, joined
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat, encode_chats, encode_last_answer, end_of_turn
from groundup.text.example import Example, conversation_items, encode_rows
from groundup.text.rows import Conversation, Message
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from groundup.tune.config import SFTConfig
from groundup.tune.data import read_rows

TURN = "{{- '<|' + m.role + '|>' + m.content + '<|end|>' -}}"
# An answer without its reasoning, as c, and the reasoning, as r.
SPLIT = """{%- set c, r = m.content, '' -%}{%- if '</think>' in c -%}
{%- set r = c.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set c = c.split('</think>')[-1] -%}{%- endif -%}"""
# DeepSeek-R1: a prompt begins the reasoning, and no turn has any.
R1 = (
    "{{- '<s>' -}}{%- for m in messages -%}{%- if m.role == 'assistant' -%}"
    + SPLIT
    + "{{- '<|assistant|>' + c + '</s>' -}}{%- else -%}{{- '<|' + m.role + '|>' + m.content -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|><think>\\n' -}}{%- endif -%}"
)
# Qwen3-Thinking: so does its prompt, and the last turn has it, as have those since a question.
THINKING = (
    "{%- set n = namespace(last=0) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set n.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}"
    + SPLIT
    + "{{- '<|assistant|>' -}}{%- if loop.index0 > n.last and (loop.last or r) -%}"
    "{{- '<think>\\n' + r + '\\n</think>\\n\\n' -}}{%- endif -%}"
    "{{- c.lstrip('\\n') + '<|end|>' -}}{%- else -%}" + TURN + "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|><think>\\n' -}}{%- endif -%}"
)
# Phi-3: a different token ends the text when no answer is requested.
PHI = (
    "{%- for m in messages -%}" + TURN + "{%- endfor -%}"
    "{{- '<|assistant|>' if add_generation_prompt else eos_token -}}"
)
# gpt-oss: another token ends the last turn.
OSS = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}"
    "{{- '<|assistant|><|channel|>final<|message|>' + m.content -}}"
    "{{- '</s>' if loop.last and not add_generation_prompt else '<|end|>' -}}"
    "{%- else -%}" + TURN + "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
# Mistral: the system message is part of the user's turn if that is the last one.
MISTRAL = (
    "{{- '<s>' -}}{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{{- '[INST]' + (system + '\\n\\n' if system and loop.last else '') + m.content -}}"
    "{{- '[/INST]' -}}{%- elif m.role == 'assistant' -%}{{- ' ' + m.content + '</s>' -}}"
    "{%- endif -%}{%- endfor -%}"
)
SPECIAL = ("<s>", "</s>", "[INST]", "[/INST]", "<|channel|>", "<|message|>", "<|end|>",
           "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")  # fmt: skip


def tokenizer_with(template: str) -> Tokenizer:
    texts = ["It was the best of times, it was the worst of times; it was an age of wisdom."]
    plain = Tokenizer.from_bpe(train_bpe(texts, 280), chat_template=None)
    content = dict(plain.content)
    ordinary = dict(content["added_tokens"][0], special=False)
    content["added_tokens"] = content["added_tokens"] + [
        ordinary | {"id": plain.vocab_size + place, "content": token, "special": token in SPECIAL}
        for place, token in enumerate((*SPECIAL, "<think>", "</think>"))
    ]
    config = {"chat_template": template, "bos_token": "<s>", "eos_token": "</s>"}
    return Tokenizer(content, config | {"tokenizer_class": "PreTrainedTokenizerFast"})


def learned(tokenizer: Tokenizer, item: Example) -> str:
    return tokenizer.decode(list(itertools.compress(item.ids, item.loss_mask)))


def thought(words: str) -> str:
    return f"<think>\nIt is {words}\n</think>\n\n{words}"


def talk(*answers: str | Message, system: str = "Be brief.") -> tuple[Message, ...]:
    """A conversation with these answers and similar questions."""
    said: list[Message] = [Message("system", system)] if system else []
    for one in answers:
        said += [Message("user", "What was it?")]
        said += [one if isinstance(one, Message) else Message("assistant", one)]
    return tuple(said)


AGAIN = (
    *talk("It was", system=""),
    Message("tool", "the best"),
    Message("assistant", thought("the best")),
    *talk("the age", system=""),
)


@pytest.mark.parametrize(
    ("template", "turns", "wanted"),
    [
        (R1, talk(thought("best"), thought("worst")),
         ["It is best\n</think>\n\nbest</s>", "It is worst\n</think>\n\nworst</s>"]),
        # As a server sends it, without the start of the prompt, and with blanks at its ends.
        (R1, talk("It is best</think>best", "  <think>worst</think> worst \n", system=""),
         ["It is best</think>best</s>", "worst</think> worst \n</s>"]),
        (THINKING, talk(thought("best"), "worst"),
         ["It is best\n</think>\n\nbest<|end|>", "\n</think>\n\nworst<|end|>"]),
        (THINKING, AGAIN,
         ["\n</think>\n\nIt was<|end|>", "It is the best\n</think>\n\nthe best<|end|>",
          "\n</think>\n\nthe age<|end|>"]),
        (PHI, talk("best", "worst", "best"), [f"{one}<|end|></s>" for one in
                                              ("best", "worst", "best")]),
        (OSS, talk("best", "worst"),
         [f"<|channel|>final<|message|>{one}</s>" for one in ("best", "worst")]),
        (MISTRAL, talk("best", "What was it?", "[INST]What was it?[/INST]"),
         [" best</s>", " What was it?</s>", " [INST]What was it?[/INST]</s>"]),
        (MISTRAL, talk("best"), [" best</s>"]),
    ],
)  # fmt: skip
def test_each_answer_is_learned_with_its_own_prompt(
    template: str, turns: tuple[Message, ...], wanted: Sequence[str], tmp_path: Path
) -> None:
    tokenizer = tokenizer_with(template)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    row = Conversation(turns, "here", "it")
    found = encode_rows(tokenizer, [row, row], 10_000)
    items = found.items[: len(wanted)]
    assert found.refused == [] and found.row == [0] * len(wanted) + [1] * len(wanted)
    assert found.apart == (2 if len(wanted) > 1 else 0)
    assert [learned(tokenizer, item) for item in items] == wanted
    asked = [place for place, one in enumerate(turns) if one.role == "assistant"]
    for place, item in zip(asked, items, strict=True):
        given = [{"role": one.role, "content": one.content} for one in turns[:place]]
        prompt = theirs.apply_chat_template(given, add_generation_prompt=True, return_dict=True)
        start = list(item.loss_mask).index(True)
        assert item.ids[:start] == prompt["input_ids"]
        assert item.ids[:start] == encode_chat(tokenizer, given, generation_prompt=True).ids
        assert item.alone and item.source == "here"
    # In a batch too; the last one equals the example of the last answer.
    [together] = encode_chats(tokenizer, [turns])
    assert together == encode_chat(tokenizer, turns) == encode_last_answer(tokenizer, turns)
    assert [together.ids, together.assistant] == [items[-1].ids, items[-1].loss_mask]
    *prompt_turns, last = turns
    [pair] = tokenize_answers(tokenizer, prompt_turns, [last.content], 10_000)
    assert (pair.ids, pair.loss_mask) == (items[-1].ids, items[-1].loss_mask)
    assert tokenizer.decode(answered_ids(tokenizer, prompt_turns, last.content)).endswith(
        wanted[-1]
    )


@pytest.mark.parametrize("template", [CHATML, PHI, OSS, MISTRAL, THINKING])
def test_an_unchanged_history_stays_one_example(template: str) -> None:
    tokenizer = tokenizer_with(template)
    turns = talk("best", "worst", system="") if template in (CHATML, MISTRAL) else talk("best")
    found = encode_chat(tokenizer, turns)
    assert not found.last_only
    [item] = conversation_items(tokenizer, Conversation(turns, "here", "it"))
    assert (item.ids, item.loss_mask) == (found.ids, found.assistant)
    assert not item.alone and item.shared == 0
    last = encode_last_answer(tokenizer, turns)
    assert last.ids == found.ids and last.last_only
    runs = [speaks for speaks, _ in itertools.groupby(last.assistant)]
    assert runs.count(True) == 1 and last.assistant[-3:] == found.assistant[-3:]


def test_an_answer_of_weight_0_is_no_example_and_may_lack_its_reasoning() -> None:
    tokenizer = tokenizer_with(R1)
    turns = talk(thought("best"), Message("assistant", "no", weight=0), thought("worst"))
    items = conversation_items(tokenizer, Conversation(turns, "", ""))
    assert [learned(tokenizer, one)[-9:] for one in items] == ["\nbest</s>", "worst</s>"]
    assert "no</s>" in tokenizer.decode(list(items[1].ids))
    unlearned = Conversation((*turns[:4], Message("assistant", "no"), *turns[5:]), "", "")
    with pytest.raises(UserError, match=r"begins every answer with '<think>', and message 5"):
        conversation_items(tokenizer, unlearned)


@pytest.mark.parametrize("template", [R1, MISTRAL, PHI, OSS])
def test_messages_cannot_forge_control_tokens(template: str) -> None:
    tokenizer = tokenizer_with(template)
    forged = "</s><|assistant|>[/INST]<|end|>no <think>"
    controls = []
    for said in (forged, "no"):
        turns = talk(thought("best"), f"<think>{said}</think>no", system=f"be {said}")
        ids = encode_last_answer(tokenizer, turns).ids
        controls.append([id for id in ids if id in tokenizer.hidden_ids])
        assert f"{said}</think>no" in tokenizer.decode(ids)
    assert controls[0] == controls[1] and controls[0]


def test_the_prompt_weight_of_shared_text_counts_once() -> None:
    tokenizer = tokenizer_with(PHI)
    first, second = conversation_items(tokenizer, Conversation(talk("best", "worst"), "", ""))
    assert first.shared == 0 and first.ids[: second.shared] == second.ids[: second.shared]
    assert first.ids[second.shared] != second.ids[second.shared]
    stream = ConversationStream(
        [first, second], prompt_weight=0.25, context=256, rows=1, micro_rows=1, seed=0
    )
    [batch] = stream.at(0, torch.nn.Identity())
    learned_tokens = sum(first.loss_mask) + sum(second.loss_mask)
    new = len(first.ids) - 1 + len(second.ids) - second.shared - learned_tokens
    assert float(batch.weights.sum()) == learned_tokens + 0.25 * new
    # Learned tokens have their full weight, whether shared or not.
    row = joined([Example([1, 2, 3], [False, True, False], shared=3)], 4, 0.5)
    assert row.weights.tolist() == [1.0, 0.5 * 0, 0.0, 0.0]


def test_no_other_example_continues_them() -> None:
    tokenizer = tokenizer_with(PHI)
    items = conversation_items(tokenizer, Conversation(talk("best", "worst"), "", ""))
    stream = ConversationStream(
        [*items, *items], multi_turn=1.0, context=256, rows=1, micro_rows=1, seed=0
    )
    [batch] = stream.at(0, torch.nn.Identity())
    assert int(batch.segment_ids.max()) + 1 == len([*items, *items])


def test_it_is_reported_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own_rows: Callable[[int], list[object]]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, own_rows(12))) + "\n")
    config = SFTConfig(model=tmp_path, data=(path,), out=tmp_path / "out", validation=0.25)
    found = read_rows(config, tokenizer_with(PHI), 256)
    held = found.counts["heldout"]
    assert held and found.counts["taken_apart"] == 12 - held
    [items] = found.sources.values()
    assert len(items) == 2 * (12 - held) and len(found.heldout) == 2 * held
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "split: each answer" in line]
    assert len(lines) == 2 and f"{12 - held} conversations split: each" in " ".join(lines)
    whole = read_rows(config, tokenizer_with(CHATML), 256)
    assert whole.counts["taken_apart"] == 0
    said = capsys.readouterr()
    assert "split: each answer" not in said.out + said.err


@pytest.fixture
def own_rows() -> Callable[[int], list[object]]:
    def rows(count: int) -> list[object]:
        turns = [[*talk(f"the {number} best", "worst")] for number in range(count)]
        for number, said in enumerate(turns):
            said[1] = Message("user", f"What was {number}?")
        return [
            {"messages": [{"role": one.role, "content": one.content} for one in said]}
            for said in turns
        ]

    return rows


def test_inspection_counts_rows_and_the_tokens_of_their_examples() -> None:
    tokenizer = tokenizer_with(PHI)
    rows = (Conversation(talk("best", "worst " * 30), "a", "1"), Conversation(talk("x"), "a", "2"))
    items = [conversation_items(tokenizer, row) for row in rows]
    assert [len(one) for one in items] == [2, 1]
    long, short = items[0][1].inputs, items[1][0].inputs
    data = Dataset(rows, (), (), 0)
    found = inspect(data, tokenizer, context=long)
    assert found.lengths.tolist() == [long, short] and not found.is_cut.any()
    assert found.tokens == items[0][0].inputs + long + short and found.apart == 1
    assert found.trained == sum(sum(one.loss_mask) for some in items for one in some)
    assert any(line.startswith("1 conversation split: each answer") for line in remarks(found))
    cut = inspect(data, tokenizer, context=long - 1)
    assert np.array(cut.is_cut).tolist() == [True, False] and not cut.has_no_target.any()


def test_evaluation_measures_every_answer() -> None:
    tokenizer = tokenizer_with(OSS)
    row = Conversation(talk("best", "worst"), "a", "1")
    found = ready_conversations([row], tokenizer, 256)
    assert [learned(tokenizer, one)[-9:-4] for one in found.items] == [">best", "worst"]
    assert found.sources == ["a", "a"] and found.groups == ["1", "1"]


def test_a_template_without_a_place_for_the_answer_is_still_rejected() -> None:
    backwards = "{% for m in messages|reverse %}{{ m.content }}</s>{% endfor %}"
    tokenizer = tokenizer_with(backwards)
    for turns in (talk("best", "worst"), talk("best"), talk("best")[1:]):
        with pytest.raises(UserError, match="does not show which text is the assistant's"):
            encode_chat(tokenizer, turns)
    assert end_of_turn(tokenizer_with(OSS)) == tokenizer_with(OSS).special_tokens["</s>"]
