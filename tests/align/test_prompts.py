"""Prompts from any folder equal those from reading every row in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from groundup.align.config import PPOConfig
from groundup.align.prompts import Prompt, _of_conversation, _of_preference, load_prompts
from groundup.align.rollout import Rollout
from groundup.app.cli import main
from groundup.data.dataset import load_dataset
from groundup.data.files import rows_of
from groundup.data.records import (
    read_conversations,
    read_preferences,
    read_unpaired_preferences,
)
from groundup.data.split import split
from groundup.errors import UserError
from groundup.text.chat import encode_chat
from groundup.text.rows import BadRow, Message
from groundup.text.tokenizer import Tokenizer
from rollouts import online, small_config, small_policy

Asked = dict[tuple[Message, ...], tuple[dict[str, object], str, str]]


def read_in_full(folder: Path, side: str, patterns: Sequence[str]) -> Asked:
    """Every row through its reader; of equal prompts the first, in the last one's position."""
    found: Asked = {}
    for kind in ("conversations", "preferences"):
        path = folder / kind / f"{side}.jsonl"
        if not path.is_file() or not path.stat().st_size:
            continue
        if kind == "conversations":
            for row in read_conversations(path).rows:
                if len(row.messages) > 1:
                    answer: dict[str, object] = {"answer": row.messages[-1].content}
                    put(found, row.messages[:-1], (answer, row.source, row.group))
        else:
            for pair in read_preferences(path).rows:
                put(found, pair.prompt, ({"answer": pair.chosen}, pair.source, pair.group))
    kept = {
        asked: rest
        for asked, rest in found.items()
        if not patterns or any(fnmatch(rest[1], one) for one in patterns)
    }
    return kept


def put(found: Asked, asked: tuple[Message, ...], rest: tuple[dict[str, object], str, str]) -> None:
    found[asked] = found.pop(asked, rest)


def slow(folder: Path, side: str, tokenizer: Tokenizer, patterns: Sequence[str]) -> list[Prompt]:
    return [
        Prompt(tuple(encode_chat(tokenizer, asked, generation_prompt=True).ids), asked, *rest)
        for asked, rest in read_in_full(folder, side, patterns).items()
    ]


@pytest.mark.parametrize("patterns", [(), ("colours", "col*")])
def test_fast_and_full_reading_of_a_data_stage_agree(
    workshop: Any, patterns: tuple[str, ...]
) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    train, heldout = load_prompts(workshop.data, tokenizer, longest=10_000, sources=patterns)
    assert train == slow(workshop.data, "train", tokenizer, patterns)
    assert heldout == slow(workshop.data, "heldout", tokenizer, patterns)
    assert train


def said(*turns: str) -> list[dict[str, Any]]:
    return [
        {"role": ("user", "assistant")[place % 2], "content": turn}
        for place, turn in enumerate(turns)
    ]


PLAIN: list[dict[str, Any]] = [
    {"messages": said(f"What is {n}?", f"It is {n}."), "source": "mine"} for n in range(40)
]
ODD: list[tuple[str, dict[str, Any]]] = [
    ("conversations", {"messages": said("Ask", "Answer", "More?"), "source": "mine"}),
    ("conversations", {"messages": said("Ask", " "), "source": "mine"}),
    ("conversations", {"messages": said("Ask", "half \ud800"), "source": "mine"}),
    ("conversations", {"messages": said("Ask", "Answer"), "source": 7}),
    ("conversations", {"messages": said("Ask", "Answer"), "source": " "}),
    ("conversations", {"messages": said("Ask", "Answer"), "source": "mine", "group": "g"}),
    ("conversations", {"messages": said("Ask it!", "So", "Why?", "So"), "group": ["g"]}),
    ("preferences", {"prompt": said("Ask"), "chosen": "Yes", "rejected": "No", "group": 7}),
    ("conversations", {"messages": said("Ask", "Answer"), "system": "Be brief."}),
    ("conversations", {"messages": [{"role": "system", "content": "x"}, *said("Ask", "Answer")]}),
    ("conversations", {"messages": [{"role": "system", "content": ""}, *said("Ask", "Answer")]}),
    ("conversations", {"messages": said("Ask", "Answer")[1:], "source": "mine"}),
    ("conversations", {"messages": [*said("Ask"), *said("Ask", "Answer")]}),
    ("conversations", {"messages": [{"from": "human", "value": "Ask"}, *said("", "Answer")[1:]]}),
    ("conversations", {"messages": [{"role": "user", "content": ["a", "b"]}, said("", "c")[1]]}),
    ("conversations", {"prompt": "Ask", "completion": "Answer"}),
    ("preferences", {"prompt": "Ask", "chosen": "Yes", "rejected": "No"}),
    ("preferences", {"prompt": said("Ask"), "chosen": "Yes", "rejected": "Yes"}),
    ("preferences", {"prompt": said("Ask"), "chosen": "", "rejected": "No"}),
    ("preferences", {"prompt": said("Ask", "So"), "chosen": "Yes", "rejected": "No"}),
    ("preferences", {"prompt": said("What is 3?"), "chosen": "Yes", "rejected": "No"}),
    ("preferences", {"prompt": said("Ask"), "a": "Yes", "b": "No", "choice": "b", "ids": 1}),
]


def test_data_stage_output_is_read_fast(workshop: Any) -> None:
    for kind, plain in (("conversations", _of_conversation), ("preferences", _of_preference)):
        rows = [row for _, row in rows_of(workshop.data / kind / "train.jsonl")]
        assert rows and all(not isinstance(row, BadRow) and plain(row, "file") for row in rows)


@pytest.mark.parametrize(("kind", "row"), ODD)
def test_rows_of_another_form_are_read_by_their_reader(
    workshop: Any, tmp_path: Path, kind: str, row: dict[str, Any]
) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    rows: dict[str, list[dict[str, Any]]] = {"conversations": list(PLAIN), "preferences": []}
    rows["preferences"] += [
        {"prompt": said(f"Say {n}"), "chosen": "Yes", "rejected": "No"} for n in range(20)
    ]
    rows[kind].insert(5, row)
    for name, lines in rows.items():
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "train.jsonl").write_text(text)
    train, heldout = load_prompts(tmp_path, tokenizer, longest=10_000)
    assert train == slow(tmp_path, "train", tokenizer, ())
    assert len(train) >= 60 and heldout == []


def test_bad_lines_of_a_data_stage_are_reported(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    pairs = [{"prompt": said(f"Say {n}"), "chosen": "Yes", "rejected": "No"} for n in range(30)]
    for kind, rows in (("conversations", PLAIN), ("preferences", pairs)):
        (tmp_path / kind).mkdir()
        lines = [json.dumps(row) for row in rows]
        lines.insert(6, '{"broken')
        (tmp_path / kind / "train.jsonl").write_text("\n".join(lines))
    train, _ = load_prompts(tmp_path, tokenizer, longest=10_000)
    assert len(train) == 70
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("train.jsonl, line 7") == 2


def test_prompts_of_a_file_keep_their_group(workshop: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    rows = [{"prompt": f"What is {n}?", "group": f"g{n // 2}"} for n in range(120)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "Alone?"}]))
    sides = load_prompts(file, tokenizer, longest=100)
    assert {one.group for one in sides[0]}.isdisjoint(one.group for one in sides[1])
    found = {one.messages[0].content: one.group for side in sides for one in side}
    assert found == {row["prompt"]: row["group"] for row in rows} | {"Alone?": "alone"}


@pytest.mark.parametrize("group", [None, "one"])
def test_of_few_prompts_one_is_held_out_and_of_one_none(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], group: str | None
) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    file = tmp_path / "prompts.jsonl"
    for many in (40, 2, 1):
        rows = [{"prompt": f"What is {n}?", "group": group} for n in range(many)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        train, heldout = load_prompts(file, tokenizer, longest=100)
        told = capsys.readouterr().out
        if many > 1:
            asked = {one.ids for one in train}
            assert len(train) + len(heldout) == many and 0 < len(heldout) < many / 2 + 1
            assert asked.isdisjoint(one.ids for one in heldout) and not told
        else:
            assert train == heldout and "measures are of the training prompt" in told


def test_each_pattern_of_sources_must_match(workshop: Any) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    with pytest.raises(
        UserError, match=r"^sources=moon match no prompt of .*; there are 'colours'"
    ):
        load_prompts(workshop.data, tokenizer, longest=100, sources=("col*", "moon"))


@pytest.mark.parametrize("layout", ["prompt", "whole", "votes"])
def test_every_stage_holds_out_the_same_rows_of_a_file(
    workshop: Any, tmp_path: Path, layout: str
) -> None:
    """The same questions are held out with any spelling and any later turns."""
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    rows: list[dict[str, object]] = []
    for n in range(400):
        asked = said(f"What is {n}?", "So.", "Tell me more.") if n % 2 else said(f"What IS  {n}?")
        chosen, rejected = ([*asked, {"role": "assistant", "content": c}] for c in "ab")
        rows.append(
            {
                "prompt": {"prompt": asked, "chosen": "a", "rejected": "b"},
                "whole": {"chosen": chosen, "rejected": rejected},
                "votes": {"prompt": asked, "a": "a", "b": "b", "choice": "a"},
            }[layout]
        )
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def questions(found: Sequence[Any]) -> set[str]:
        return {row.messages[0].content for row in found}

    pairs = split(file, "preferences", read_preferences)[1].rows
    heldout = {row.prompt[0].content for row in pairs}
    assert 5 < len(heldout) < 50 and len({spelled[:7] for spelled in heldout}) == 2
    assert questions(load_prompts(file, tokenizer, longest=100)[1]) == heldout
    if layout != "votes":
        sides = split(file, "preferences", read_unpaired_preferences)
        assert {row.prompt[0].content for row in sides[1].rows} == heldout
        column = {"prompt": "completion", "whole": "messages"}[layout]
        assert questions(load_dataset([file], columns={column: "chosen"}).heldout) == heldout


def test_prompts_may_be_in_a_folder_and_in_other_columns(workshop: Any, tmp_path: Path) -> None:
    """As of GSM8K, whose answers end in a number that a verifier reads."""
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    for name, numbers in {"train": range(20), "test": range(18, 24)}.items():
        rows = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {"longest": 100, "rewards": ("sum",)}
    with pytest.raises(UserError, match="needs 'prompt' or 'messages'"):
        load_prompts(tmp_path, tokenizer, **options)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        load_prompts(tmp_path / "empty.jsonl", tokenizer, columns={"prompt": "question"}, **options)
    with pytest.raises(UserError, match="no row has a column 'questoin'; did you mean 'question'"):
        load_prompts(tmp_path, tokenizer, columns={"prompt": "questoin"}, **options)
    sides = load_prompts(tmp_path, tokenizer, columns={"prompt": "question"}, **options)
    assert [[one.messages[0].content for one in side] for side in sides] == [
        [f"What is {n} + 1?" for n in numbers] for numbers in (range(18), range(18, 24))
    ]
    assert sides[1][0].row["answer"] == "#### 19"


def test_of_few_groups_every_stage_holds_out_the_same_one(workshop: Any, tmp_path: Path) -> None:
    """The smallest is held out, and has as many rows if only its prompts are read."""
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    for k in range(8):
        rows = [
            {"prompt": f"{k} {name}", "chosen": f"a {n}", "rejected": "b"}
            for name, size in (("x", 5), ("y", 9), ("z", 3))
            for n in range(size)
        ]
        file = tmp_path / "pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        heldout = {row.prompt[0].content for row in split(file, "-", read_preferences)[1].rows}
        asked = load_prompts(file, tokenizer, longest=100)[1]
        assert heldout == {f"{k} z"} == {one.messages[0].content for one in asked}


def test_a_file_may_contain_answers(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Conversations in every layout, and pairs of whole conversations: their prompts are read."""
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    first, second = said("Is it?", "Yes."), said("Truly?", "Truly.")
    rows = [
        {"messages": [*first, *second], "level": 3},
        {"messages": [*first, second[0]]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "answer": "three"},
        {"prompt": "Who?", "completion": "Me."},
        {"chosen": said("When?", "Now."), "rejected": said("When?", "Never.")},
        {"prompt": "Where?", "chosen": "Here.", "rejected": "There."},
        {"prompt": said("How?", "")[:1], "response": "So.", "answer": None},
        {"prompt": "Which?", "completion": "It is 42.", "answer": 42},
        {"messages": [first[1]]},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, heldout = load_prompts(file, tokenizer, longest=100)
    found = {one.messages[-1].content: one for one in [*train, *heldout]}
    assert found["Truly?"].messages == tuple(Message(**turn) for turn in [*first, second[0]])
    assert found["Truly?"].row == {"answer": "Truly.", "level": 3}
    assert found["Why?"].row == {"answer": "So."}
    assert found["Add.\n\n1 and 2"].row == {"answer": "three"}
    assert found["Who?"].row == {"completion": "Me.", "answer": "Me."}
    assert found["When?"].row == {"answer": "Now."} and found["Where?"].row["chosen"] == "Here."
    assert found["Where?"].row["answer"] == "Here." and found["How?"].row["answer"] == "So."
    assert found["Which?"].row == {"answer": 42, "completion": "It is 42."}
    assert len(found) == 8 and "line 10" in capsys.readouterr().out


def test_too_long_prompts_are_counted_and_left_out(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"What is {n}?\n" for n in range(40)) + "a long one " * 200)
    train, heldout = load_prompts(file, tokenizer, longest=40)
    assert len(train) + len(heldout) == 40
    assert "1 prompt left out: longer than 40 tokens" in capsys.readouterr().out
    file.write_text("a long one " * 200)
    bare = Tokenizer(dict(tokenizer.content), {})
    with pytest.raises(UserError, match="this tokenizer has no chat template"):
        load_prompts(file, bare, longest=40)
    with pytest.raises(UserError, match="holds no prompt of at most 40 tokens"):
        load_prompts(file, tokenizer, longest=40)


def test_prompts_that_a_reward_cannot_judge_are_counted_and_left_out(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.load(workshop.finished("sft"))
    file = tmp_path / "prompts.jsonl"
    known = [{"prompt": f"{n} + {n}"} for n in range(40)]
    unknown = [{"prompt": f"half of {n}", "answer": "I do not know that."} for n in range(1, 41)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*unknown, *known]))
    train, heldout = load_prompts(file, tokenizer, longest=100, rewards=("sum", None))
    assert {one.messages[0].content for one in (*train, *heldout)} == {
        row["prompt"] for row in known
    }
    told = " ".join(capsys.readouterr().out.split())
    assert "40 prompts left out that cannot be judged: the reward sum finds no sum in" in told
    for more in (("length:4", "sum"), ("sum", "sum"), (None, "sum")):
        assert load_prompts(file, tokenizer, longest=100, rewards=more) == (train, heldout)
    assert sum(map(len, load_prompts(file, tokenizer, longest=100, rewards=("length:4",)))) == 80
    file.write_text("".join(json.dumps(row) + "\n" for row in unknown))
    with pytest.raises(UserError, match="no sum in 'half of"):
        load_prompts(file, tokenizer, longest=100, rewards=("sum",))


@pytest.mark.parametrize("stage", ["grpo", "ppo", "best-of-n", "eval rewards"])
def test_a_run_does_not_end_at_a_prompt_that_cannot_be_judged(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    """Three quarters of the possible prompts have no sum."""
    file, out, sft = tmp_path / "prompts.jsonl", tmp_path / "out", str(workshop.finished("sft"))
    rows = [{"prompt": f"{n} + 1" if n < 20 else f"Why {n}?"} for n in range(80)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"prompts": file, "reward": "length:4", "gold": "sum"}
    if stage in ("grpo", "ppo"):
        code, said = workshop.run_here(workshop.command(stage, out, **given, steps=8))
    else:
        words = [w for name, value in given.items() for w in (f"--{name}", str(value))]
        more = ["--max-new-tokens", "4", "--threads", "1", "--out", str(out)]
        capsys.readouterr()
        code = main([*stage.split(), sft, *words, *more])
        said = capsys.readouterr().out
    assert code == 0, said
    assert "60 prompts left out that cannot be judged" in " ".join(said.split())


def test_held_out_prompts_of_a_group_are_resampled_together(tmp_path: Path) -> None:
    """Five equal prompts have about the information of one."""
    # Answers that do not end have reward 0; with this many tokens nearly all end.
    config, policy = small_config(PPOConfig, tmp_path, max_new_tokens=24), small_policy()
    alone = [Prompt((15 + place // 5,)) for place in range(40)]
    groups = [replace(one, group=str(one.ids[0])) for one in alone]

    def reward(rollouts: Sequence[Rollout], /) -> list[float]:
        return [1.0 if one.prompt.ids[0] < 19 else -1.0 for one in rollouts]

    wide, narrow = (
        online(config, policy, reward, prompts=some).evaluate(policy, 0)["heldout_reward"]
        for some in (groups, alone)
    )
    assert (wide["items"], wide["groups"], narrow["groups"]) == (40, 8, 40)
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_prompts_are_held_out_if_any_is_not_trained_on(tmp_path: Path) -> None:
    """Also where the first of them is used in training."""
    found = online(small_config(PPOConfig, tmp_path), small_policy(), lambda rollouts: [])
    assert not found.holds_out
    assert replace(found, heldout=[*found.prompts[:1], Prompt((30,))]).holds_out
