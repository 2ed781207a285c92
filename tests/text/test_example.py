"""Rows as training examples: documents as in pre-training, and rejected rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tokenizers
import torch
from tests.conftest import CallsOf, Workshop

from groundup.data.records import read_conversations
from groundup.errors import UserError
from groundup.text.batches import ConversationStream
from groundup.text.example import Example, conversation_item, document_items, encode_rows
from groundup.text.rows import Conversation, Document, Message
from groundup.text.shards import encode
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer


def test_a_document_is_read_as_in_pre_training(workshop: Workshop, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    texts = [Document("The sea is blue. " * n, "colours", str(n)) for n in (1, 30)]
    shard = encode(texts, tokenizer, tmp_path / "shard")
    for place, document in enumerate(texts):
        own = shard.tokens[shard.offsets[place] : shard.offsets[place + 1]].tolist()
        pieces = document_items(tokenizer, document, 16)
        assert all(piece.inputs <= 16 and all(piece.loss_mask) for piece in pieces)
        # The 0 that opens the next document ends this one, and is trained.
        assert [id for piece in pieces for id in piece.ids[:-1]] == own
        assert [id for piece in pieces for id in piece.ids[1:]] == [*own[1:], 0]
        assert document_items(tokenizer, document, 10_000) == [
            Example([*own, 0], [True] * (len(own) + 1), alone=True, source="colours")
        ]


def test_a_document_begins_as_the_tokenizer_begins_texts() -> None:
    content = json.loads(plain_tokenizer().to_str())
    tokenizer = Tokenizer(content, {"eos_token": "</s>"})
    assert tokenizer.opening_ids == [0]
    [item] = document_items(tokenizer, Document("ab", "x", "1"), 100)
    assert item.ids == [0, 2, 3, 1]


def test_batched_documents_equal_single_ones(calls_of: CallsOf) -> None:
    content = json.loads(plain_tokenizer().to_str())
    tokenizer = Tokenizer(content, {"eos_token": "</s>"})
    texts = [Document("ab" * n, "x", str(n)) for n in range(1, 40)]
    alone = [item for one in texts for item in document_items(tokenizer, one, 16)]
    batches = calls_of(tokenizers.Tokenizer, "encode_batch_fast")
    openings = calls_of(tokenizers.Tokenizer, "encode")
    assert encode_rows(tokenizer, texts, 16).items == alone
    assert len(batches) == 1 and openings == []


def test_a_rejected_text_does_not_affect_others(workshop: Workshop) -> None:
    content = json.loads(plain_tokenizer().to_str())
    content["model"]["vocab"]["c"] = 4
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 4, "content": "c"})
    tokenizer = Tokenizer(content, {"eos_token": "</s>"})
    texts = [Document(text, "x", text) for text in ("ab", "aca", "ba")]
    found = encode_rows(tokenizer, texts, 16)
    assert found.row == [0, 2] and [place for place, _ in found.refused] == [1]
    assert found.items == [
        item for one in (texts[0], texts[2]) for item in document_items(tokenizer, one, 16)
    ]


def plain_tokenizer() -> tokenizers.Tokenizer:
    """Letters, and <s> put before every text, as Llama's does."""
    fast = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="a")
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    fast.add_special_tokens(["<s>", "</s>"])
    fast.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return fast


def test_documents_and_conversations_are_mixed_and_documents_are_not_concatenated(
    workshop: Workshop,
) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    talk = Conversation((Message("user", "Sea?"), Message("assistant", "Blue.")), "talk", "1")
    text = Document("The sea is blue.", "text", "1")
    found = encode_rows(tokenizer, [talk, text, talk], 64)
    assert found.row == [0, 1, 2] and found.refused == []
    stream = ConversationStream(
        found.items, multi_turn=1.0, context=64, rows=1, micro_rows=1, seed=0
    )
    seen = 0
    for step in range(6):
        [batch] = stream.at(step, torch.nn.Identity())
        for segment in range(int(batch.segment_ids.max()) + 1):
            inputs = batch.input_ids[batch.segment_ids == segment].tolist()
            if tokenizer.end_of_text in inputs:
                assert inputs == list(found.items[1].ids[:-1])
                seen += 1
    assert seen


@pytest.mark.parametrize("template", ["its own", "without generation blocks"])
def test_an_answer_of_weight_0_is_read_but_not_learned(
    workshop: Workshop, tmp_path: Path, template: str
) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    if template != "its own":
        blocks = re.compile(r"{%-? (end)?generation -?%}")
        assert blocks.search(tokenizer.chat_template or "")
        tokenizer.chat_template = blocks.sub("", tokenizer.chat_template or "")
    talk = [("user", "Is it?"), ("assistant", "Yes."), ("user", "Truly?"), ("assistant", "No.")]
    for weights, learned in (
        ((1, 1), "Yes.<|im_end|>No.<|im_end|>"),
        ((0, 1), "No.<|im_end|>"),
        ((None, None), "Yes.<|im_end|>No.<|im_end|>"),
        ((1, 0), "Yes.<|im_end|>"),
    ):
        given = iter(weights)
        turns = [
            {"role": role, "content": said}
            | ({"weight": next(given)} if role == "assistant" else {})
            for role, said in talk
        ]
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({"messages": turns}) + "\n")
        [row] = read_conversations(path).rows
        item = conversation_item(tokenizer, row)
        ids = [one for one, is_learned in zip(item.ids, item.loss_mask, strict=True) if is_learned]
        assert tokenizer.decode(ids) == learned
        assert "Yes." in tokenizer.decode(list(item.ids))


def test_a_template_that_marks_two_parts_of_an_answer_cannot_omit_one(
    workshop: Workshop,
) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %} -- {% generation %}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}: {% endif %}{% endfor %}"
    )
    said = (Message("user", "Is it?"), Message("assistant", "Yes."))
    talk = Conversation((*said, *said), "here", "it")
    assert sum(conversation_item(tokenizer, talk).loss_mask) > 4
    unlearned = Conversation((said[0], Message("assistant", "Yes.", weight=0), *said), "", "")
    with pytest.raises(UserError, match="does not separate the assistant's answers"):
        conversation_item(tokenizer, unlearned)


def test_rows_that_the_template_rejects_are_set_aside_with_the_reason(workshop: Workshop) -> None:
    plain = Tokenizer.load(workshop.tokenizer)
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
    tokenizer = Tokenizer(dict(plain.content), {"chat_template": strict + CHATML})
    turns = (Message("user", "Sea?"), Message("assistant", "Blue."))
    good = Conversation(turns, "talk", "1")
    bad = Conversation((Message("system", "Be brief."), *turns), "talk", "2")
    found = encode_rows(tokenizer, [good, bad, good], 64)
    assert found.row == [0, 2]
    [(place, reason)] = found.refused
    assert place == 1 and "No system!" in reason
    with pytest.raises(UserError, match="No system!"):
        encode_rows(tokenizer, [bad, bad], 64)
    assert encode_rows(tokenizer, [*[bad] * 99, good], 64).row == [99]
    assert encode_rows(tokenizer, [bad, bad, good] * 100, 64).row == [*range(2, 300, 3)]
    assert encode_rows(tokenizer, [*[bad] * 120, *[good] * 80], 64).row == [*range(120, 200)]
    with pytest.raises(UserError, match="no chat template"):
        encode_rows(Tokenizer(dict(plain.content), {}), [good] * 300, 64)
