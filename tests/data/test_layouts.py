"""The layouts of conversations, and their errors."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import files, records
from groundup.data.dataset import load_dataset
from groundup.data.split import split
from groundup.errors import UserError
from groundup.text.rows import BadRow, Conversation, Document, Message

SAID = (Message("user", "a"), Message("assistant", "b"))
SYSTEM = Message("system", "s")
GPT = {"from": "gpt", "value": "b"}


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} {place}"} for place, role in enumerate(roles)]


def weighted(*weights: float | str | None) -> list[dict[str, Any]]:
    """Questions and answers; OpenAI's weight 0 excludes an answer from training."""
    said: list[dict[str, Any]] = []
    for weight in weights:
        said += [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": weight},
        ]
    return said


def read(row: dict[str, Any], **columns: str) -> tuple[Message, ...]:
    found = records.conversation_or_document(records.renamed(row, columns), "file", 1)
    assert isinstance(found, Conversation)
    return found.messages


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "response": "b"},
        {"prompt": "a", "answer": "b", "response": None},
        {"prompt": "a", "completion": "b", "response": "another"},
        {"instruction": "a", "input": "", "output": "b"},
        {"instruction": "a", "input": None, "output": "b", "text": "Below is an instruction. a b"},
        {"instruction": "a", "input": float("nan"), "output": "b", "system": None},
        {"conversations": [{"from": "human", "value": "a"}, GPT]},
        {"conversations": [{"role": "User", "content": "a"}, {"from": "model", "value": "b"}]},
        # Rows of several layouts in one Parquet file: each has every column.
        {"messages": None, "prompt": "a", "completion": "b", "text": None, "conversations": None},
        {"prompt": "a", "messages": [{"from": "human", "value": "a"}, GPT]},
        # A question at the end is odd, and nothing is learned from it.
        {"messages": [{"role": "user", "content": "a"}, GPT, {"role": "user", "content": "c"}]},
    ],
)
def test_each_layout_is_recognized(row: dict[str, Any]) -> None:
    assert read(row) == SAID


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "output": "b", "system": "s"},
        {"prompt": "a", "completion": "b", "system": "s"},
        {
            "conversations": [{"from": "human", "value": "a"}, GPT],
            "system": "s",
        },
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                GPT,
            ],
            "system": "what is said inside counts",
        },
    ],
)
def test_a_system_prompt_may_be_a_field_or_a_turn(row: dict[str, Any]) -> None:
    assert read(row) == (SYSTEM, *SAID)


def test_an_empty_system_turn_is_left_out() -> None:
    row = {"messages": [{"role": "system", "content": ""}, *turns("user", "assistant")]}
    assert [turn.role for turn in read(row)] == ["user", "assistant"]


def test_dolly_calls_the_input_context_and_the_answer_response() -> None:
    row = {"instruction": "Add.", "context": "1, 2", "response": "3", "category": "closed_qa"}
    assert [turn.content for turn in read(row)] == ["Add.\n\n1, 2", "3"]
    assert records.unread_columns(row) == {"category"}
    assert [turn.content for turn in read(row | {"context": ""})] == ["Add.", "3"]
    # With an output they are extra columns.
    assert read(row | {"output": "4"})[0].content == "Add."
    assert records.unread_columns(row | {"output": "4"}) == {"category", "context", "response"}


def test_alpaca_input_follows_the_instruction() -> None:
    row = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    assert read(row)[0] == Message("user", "Add.\n\n1, 2")


def test_columns_are_renamed_by_the_mapping() -> None:
    row = {"question": "a", "answer": "b", "persona": "s", "text": "whatever"}
    assert read(row, prompt="question", completion="answer") == SAID
    assert read(row, prompt="question", system="persona") == (SYSTEM, *SAID)
    assert read(row, instruction="question", output="answer") == SAID
    dialog = {"dialog": [{"from": "human", "value": "a"}, GPT]}
    assert read(dialog, messages="dialog") == SAID
    # The mapping takes precedence over the row's other layout.
    both = {"messages": turns("user", "assistant"), "question": "a", "answer": "b"}
    assert read(both, prompt="question", completion="answer") == SAID
    swapped = {"completion": "a", "prompt": "b"}
    assert read(swapped, prompt="completion", completion="prompt") == SAID
    body = records.renamed({"prompt": "a", "completion": "b", "body": "c"}, {"text": "body"})
    assert records.conversation_or_document(body, "f", 3) == Document("c", "f", "3")


def test_a_mapping_has_our_names() -> None:
    with pytest.raises(UserError, match=r"'promt' is not one of the columns.*prompt"):
        load_dataset(["any.jsonl"], columns={"promt": "question"})


def test_a_mapping_is_of_a_users_files(tmp_path: Path) -> None:
    """A data stage's rows have our names, and a file without rows has no columns."""
    (tmp_path / "made" / "conversations").mkdir(parents=True)
    for side in ("train", "heldout"):
        file = tmp_path / "made" / "conversations" / f"{side}.jsonl"
        file.write_text(json.dumps({"messages": turns("user", "assistant")}) + "\n")
    with pytest.raises(UserError, match="no row has a column 'question'"):
        load_dataset([tmp_path / "made"], columns={"prompt": "question"})
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(UserError, match="1 of 1 lines"):
        load_dataset([tmp_path / "broken.jsonl"], columns={"prompt": "question"})


def test_two_answers_to_one_question_are_one_group() -> None:
    rows = [
        {"prompt": "Is it?", "completion": "Yes."},
        {"messages": [*turns("user", "assistant")]},
        {"instruction": "is it", "output": "No."},
        {"prompt": "Is it?", "completion": "Yes.", "group": 7},
    ]
    groups = [records.conversation(row, "f", 1).group for row in rows]
    assert groups[0] == groups[2] == "is it" and groups[1] == "user 0" and groups[3] == "7"


def test_unknown_names_do_not_affect_rows() -> None:
    for label in (None, "", {"a": 1}, 1.5, True, "\ud83d"):
        row = {"prompt": "a", "completion": "b", "source": label, "group": label}
        found = records.conversation(row, "file", 1)
        assert (found.source, found.group) == ("file", "a")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": turns("user", "user", "assistant")}, "messages 1 and 2 are both the user's"),
        ({"messages": turns("user", "assistant", "assistant")}, "2 and 3 are both the assistant's"),
        ({"messages": turns("assistant", "user")}, "begins with the assistant's turn"),
        ({"messages": turns("system", "assistant")}, "begins with the assistant's turn"),
        ({"messages": turns("user", "system", "assistant")}, "message 2 is the system's"),
        ({"messages": turns("system", "system", "user")}, "message 2 is the system's"),
        ({"messages": turns("system", "user")}, "nothing to learn"),
        ({"messages": [{"role": "system", "content": ""}]}, "nothing but an empty system turn"),
        ({"messages": turns("user", "tool")}, "message 2 is a tool's, but the assistant called"),
        ({"messages": turns("tool", "assistant")}, "begins with the tool's turn"),
        ({"conversations": [{"from": "function_call", "value": "f()"}]}, "must be {name, arg"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
            "message 1: part 1 of its content is 'image_url', but only text is read",
        ),
        (
            {
                "messages": [
                    *turns("user"),
                    {"role": "assistant", "content": None, "tool_calls": []},
                ]
            },
            "message 2: the assistant's answer is empty",
        ),
        ({"messages": [*turns("user"), {"role": "assistant", "content": " "}]}, "answer is empty"),
        ({"messages": [*turns("user"), {"role": "assistant"}]}, "answer is empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "message 1: 'content' is empty"),
        ({"messages": [*turns("user", "assistant"), {"role": "tool"}]}, "3: 'content' is empty"),
        ({"messages": ["a", "b"]}, "must be {role, content}, not str"),
        ({"messages": None}, "list of at least one"),
        ({"prompt": "a", "completion": ""}, "the answer, 'completion', is empty"),
        ({"prompt": "a", "completion": "", "response": "b"}, "the answer, 'completion', is empty"),
        ({"prompt": "a", "completion": None}, "the answer, 'completion', is empty"),
        ({"instruction": "a", "output": " "}, "the answer, 'output', is empty"),
        ({"instruction": "a"}, "no 'output'; it has"),
        ({"prompt": "a", "response": "b", "answer": "c"}, "--columns completion=response"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "groundup dpo"),
        ({"prompt": "a"}, "no 'completion'; it has"),
        ({"prompt": None}, "'prompt' is empty"),
        ({"instruction": "a", "output": "b", "input": 5}, "'input' must be a string, not int"),
        ({"text": ""}, "'text' is empty"),
        (
            {"messages": "[{'role': 'user', 'content': 'a'}]"},
            "not JSON but a list as printed by Python",
        ),
        (
            {"prompt": "[{'role': 'user', 'content': 'a'}]", "completion": "b"},
            "the cell 'prompt' is not JSON but a list as printed by Python",
        ),
        (
            {"prompt": "a", "completion": "[{'content': 'b', 'role': 'assistant'}]"},
            "the cell 'completion' is not JSON but a list as printed by Python",
        ),
        ({"messages": weighted(0, 0)}, "every answer has weight 0: there is nothing to learn"),
        ({"messages": weighted(0.5)}, "message 2: 'weight' must be 0 or 1"),
        ({"messages": weighted("0")}, "message 2: 'weight' must be 0 or 1"),
        ({"question": "a", "reply": "b"}, "unknown layout: its columns are .*question.*reply"),
    ],
)
def test_each_error_has_one_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason) as caught:
        records.conversation_or_document(row, "file", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"name": "n", "ok": True}, "dict"),
        ({}, "dict"),
        (False, "bool"),
        (5, "int"),
        (0.5, "float"),
    ],
)
def test_a_non_string_answer_is_not_converted(said: Any, kind: str) -> None:
    call = {"function": {"name": "sum", "arguments": {}}}
    answer = {"role": "assistant", "content": said}
    dialog = [{"from": "human", "value": "a"}, {"from": "gpt", "value": said}]
    for row, name in (
        ({"messages": [*turns("user"), answer]}, "content"),
        ({"messages": [*turns("user"), answer | {"tool_calls": [call]}]}, "content"),
        ({"conversations": dialog}, "value"),
        ({"prompt": "a", "completion": [answer]}, "content"),
        ({"prompt": "a", "chosen": [answer], "rejected": "b"}, "content"),
    ):
        with pytest.raises(BadRow, match=rf"message \d: '{name}' must be a string, not {kind}$"):
            (records._preference if "chosen" in row else records.conversation)(row, "file", 1)


def test_a_row_ends_with_its_last_trained_answer() -> None:
    assert read({"messages": weighted(1, 0)}) == SAID
    assert read({"messages": weighted(1, 1)}) == SAID * 2
    found = read({"messages": weighted(0, 1, None, 0)})
    assert [(one.role, one.weight) for one in found] == [
        ("user", 1),
        ("assistant", 0),
        *[("user", 1), ("assistant", 1)] * 2,
    ]


def test_a_call_in_its_own_turn_is_trained_on_like_the_words_before() -> None:
    asked, said, _, last = weighted(0, 1)
    call = {"role": "function_call", "content": '{"name": "sum", "arguments": {"a": 1}}'}
    found = read({"messages": [asked, said, call, {"role": "tool", "content": "5"}, last]})
    assert [(one.role, one.weight) for one in found] == [
        ("user", 1),
        ("assistant", 0),
        ("tool", 1),
        ("assistant", 1),
    ]


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"prompt": "a", "completion": "b", "id": 1, "source": "s", "group": "g"}, set()),
        ({"prompt": "a", "answer": "b", "context": None, "history": []}, set()),
        ({"prompt": "a", "completion": "b", "answer": "c", "topic": "t"}, {"answer", "topic"}),
        ({"instruction": "a", "output": "b", "history": [["q", "a"]]}, {"history"}),
        ({"text": "a", "id": 1, "title": "t"}, {"title"}),
        (
            {"messages": [{"role": "assistant", "content": "b", "reasoning_content": "c"}]},
            {"messages.reasoning_content"},
        ),
    ],
)
def test_nonempty_unused_columns_are_reported(row: dict[str, Any], unread: set[str]) -> None:
    assert records.unread_columns(row) == unread


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c", "system": "s"}
REASONED = [{"role": "assistant", "content": "b", "reasoning_content": "d"}]
VOTE = {"prompt": "a", "a": "b", "b": "c", "choice": "a"}


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        (PAIR | {"source": "s", "group": "g", "id": 1, "notes": None}, ()),
        (PAIR | {"system_prompt": "s", "margin": 0.0}, ("margin", "system_prompt")),
        (PAIR | {"chosen": REASONED}, ("chosen.reasoning_content",)),
        (PAIR | {"messages": [{"role": "user", "content": "a"}]}, ("messages",)),
        (VOTE | {"who": "w", "when": "t", "left": "a", "ended": [True, True]}, ()),
        (VOTE | {"mood": "good"}, ("mood",)),
        ({"prompt": "a", "completion": "b", "label": True}, ()),
        ({"prompt": "a", "completion": "b", "label": True, "score": 3}, ("score",)),
    ],
)
def test_unused_columns_of_pairs_votes_and_labels_are_reported(
    tmp_path: Path, row: dict[str, Any], unread: tuple[str, ...]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    assert records.read_unpaired_preferences(path).unread == unread
    if "label" not in row:
        assert records.read_preferences(path).unread == unread
        # And whichever side a row is on.
        assert split(path, "preferences", records.read_preferences)[0].unread == unread


def test_prompts_of_pairs_are_checked_for_order(tmp_path: Path) -> None:
    good = {"prompt": turns("user", "assistant", "user"), "chosen": "a", "rejected": "b"}
    rows = [good] * 3 + [good | {"prompt": turns("user", "user")}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (bad,) = records.read_preferences(path).bad
    assert bad.line == 4 and "both the user's" in bad.reason


CALL = '<tool_call>\n{"name": "sum", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    "called",
    [
        {"content": None, "tool_calls": [{"function": {"name": "sum", "arguments": {"a": 1}}}]},
        {
            "tool_calls": [
                {"type": "function", "function": {"name": "sum", "arguments": '{"a": 1}'}}
            ]
        },
        {"content": "", "function_call": {"name": "sum", "arguments": '{"a": 1}'}},
        {"content": CALL},
    ],
)
@pytest.mark.parametrize("role", ["tool", "function", "ipython", "observation"])
def test_calls_are_the_assistant_s_words_and_tool_output_is_not(
    called: dict[str, Any], role: str
) -> None:
    asked = [{"role": "developer", "content": "s"}, {"role": "user", "content": "a"}]
    row = [*asked, {"role": "assistant"} | called, {"role": role, "content": "1", "name": "sum"}]
    row += [{"role": role, "content": "2"}, {"role": "assistant", "content": "b"}]
    assert read({"messages": row}) == (
        SYSTEM,
        Message("user", "a"),
        Message("assistant", CALL),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "b"),
    )


@pytest.mark.parametrize(
    "nothing",
    [
        {"role": "tool", "content": ""},
        {"role": "tool", "content": None},
        {"role": "tool", "content": []},
        {"role": "tool", "content": " \n"},
        {"from": "observation", "value": ""},
        {"from": "observation", "value": None},
    ],
)
def test_a_tool_may_return_nothing(nothing: dict[str, Any], tmp_path: Path) -> None:
    row = {"messages": [*weighted(1), nothing, {"role": "assistant", "content": "Done."}]}
    done = (*SAID, Message("tool", ""), Message("assistant", "Done."))
    assert read(row) == done
    path = tmp_path / "kept.jsonl"
    files.write_json_lines(path, [records.conversation(row, "file", 1)])
    assert records.read_conversations(path).rows[0].messages == done


def test_share_gpt_s_calls_belong_to_the_words_before() -> None:
    row = [
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": "Let me see."},
        {"from": "function_call", "value": '{"name": "sum", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "1"},
        GPT,
        {"from": "observation", "value": "of nothing"},
    ]
    found = read({"conversations": row})
    assert [turn.role for turn in found] == ["user", "assistant", "tool", "assistant"]
    assert found[1].content == f"Let me see.\n{CALL}"


def test_content_in_text_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]
    said = [{"role": "user", "content": parts}, {"role": "assistant", "content": parts[:1]}]
    assert read({"messages": said}) == (Message("user", "a\nb\nc"), Message("assistant", "a"))


# Any JSON, and JSON that is almost a conversation.
_ROLES = st.sampled_from(["user", "human", "assistant", "gpt", "system", "tool", "robot", "", None])
_TEXTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_ANY = st.recursive(
    _TEXTS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
_TURN = st.dictionaries(
    st.sampled_from(["role", "from", "content", "value", "tool_calls"]), _ROLES | _TEXTS
)
_NAMES = st.sampled_from([*records.COLUMNS, "response", "answer", "chosen", "source", "id"])
_ROW = st.dictionaries(_NAMES | st.text(max_size=3), st.lists(_TURN, max_size=4) | _ANY)
_MAPPING = st.dictionaries(st.sampled_from(records.COLUMNS), _NAMES, max_size=3)


@given(_ROW | st.dictionaries(st.text(), _ANY), _MAPPING)
def test_any_row_is_read_or_has_a_reason(row: dict[str, Any], columns: dict[str, str]) -> None:
    try:
        found = records.conversation_or_document(records.renamed(row, columns), "file", 1)
    except BadRow as reason:
        assert str(reason)
        return
    if isinstance(found, Document):
        assert found.text.strip()
        return
    said = found.messages[1:] if found.messages[0].role == "system" else found.messages
    spoken = [turn.role for turn in said]
    assert spoken[0] == "user" and spoken[-1] == "assistant"
    followed = set(pairwise(spoken))
    assert followed <= {
        ("user", "assistant"),
        ("assistant", "user"),
        ("assistant", "tool"),
        ("tool", "tool"),
        ("tool", "assistant"),
        ("tool", "user"),
    }
    # A tool alone may say nothing.
    assert all(turn.content.strip() for turn in found.messages if turn.role != "tool")
