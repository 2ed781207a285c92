"""Files of prompts: reading, writing, and continuing a stopped one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from groundup.adapters.attach import add_lora
from groundup.app.completions import complete_file, opened, sampling_of, write_completions
from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.formats.peft import save_adapter
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.resumable_jsonl import resumable_lines
from groundup.text.bpe import train_bpe
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import compute_dtype

SAMPLING = Sampling(temperature=1.0, max_new_tokens=12)
Complete = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    path = tmp_path_factory.mktemp("model")
    text = "The sea is wide, the sea is deep, and the ship sails over the sea to the island. "
    tokenizer = Tokenizer.from_bpe(train_bpe([text] * 4, 300))
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=64))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            parameter.normal_("norm" in name, 0.2, generator=generator)
    save_model(path, model, tokenizer, card="A test.")
    return path


@pytest.fixture
def complete(folder: Path, tmp_path: Path) -> Complete:
    """Complete lines of prompts and return the lines written, in the prompts' order."""

    def run(
        lines: Sequence[object], sampling: Sampling = SAMPLING, **options: Any
    ) -> list[dict[str, Any]]:
        prompts = write(tmp_path / "prompts.jsonl", lines)
        out = tmp_path / "out.jsonl"
        complete_file(folder, prompts, out, sampling, **{"as_messages": False} | options)
        return read(out)

    return run


def write(path: Path, lines: Sequence[object]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: row["index"])


ROWS: list[dict[str, Any]] = [
    {"prompt": "the sea"},
    {"prompt": "the ship", "id": "b", "temperature": 0, "max_new_tokens": 5},
    {"messages": [{"role": "user", "content": "the sea"}], "id": 7, "answer": "ignored"},
    {"prompt": "the sea"},
    {"prompt": [{"role": "user", "content": "the island"}], "seed": 3, "stop": "e"},
    {"prompt": "over", "stop": ["s", "th"], "stop_ids": [300], "top_k": 9, "top_p": 0.9},
    *({"prompt": f"wide {n}"} for n in range(6)),
]


def test_each_row_equals_generate(folder: Path, complete: Complete) -> None:
    rows = complete(ROWS)
    model, tokenizer = load(folder)
    requests = [
        Request(prompt="the sea", sampling=SAMPLING),
        Request(prompt="the ship", sampling=Sampling(temperature=0, max_new_tokens=5)),
        Request(messages=ROWS[2]["messages"], sampling=SAMPLING),
        Request(prompt="the sea", sampling=SAMPLING),
        Request(messages=ROWS[4]["prompt"], sampling=replace(SAMPLING, seed=3, stop=("e",))),
        Request(
            prompt="over",
            sampling=replace(SAMPLING, top_k=9, top_p=0.9, stop=("s", "th"), stop_ids=(300,)),
        ),
    ]
    expected = generate(model, requests, tokenizer)
    assert [row["index"] for row in rows] == list(range(len(ROWS)))
    for row, completion in zip(rows, expected, strict=False):
        assert row["text"] == completion.text and row["tokens"] == len(completion.ids)
        assert row["finish_reason"] == completion.finish_reason
    assert [row.get("id") for row in rows[:3]] == [None, "b", 7]
    assert rows[0]["prompt"] == "the sea" and rows[2]["messages"] == ROWS[2]["messages"]
    assert rows[0]["text"] != rows[3]["text"], "the same prompt again is answered anew"
    assert "ids" not in rows[0]


def test_a_text_file_has_a_prompt_per_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the sea\n\nthe ship\r\n")
    complete_file(folder, prompts, None, SAMPLING, as_messages=True)
    said = capsys.readouterr()
    rows = sorted(map(json.loads, said.out.splitlines()), key=lambda row: row["index"])
    assert [row["prompt"] for row in rows] == ["the sea", "the ship"] and said.err == ""
    model, tokenizer = load(folder)
    request = Request(messages=[{"role": "user", "content": "the ship"}], sampling=SAMPLING)
    assert rows[1]["text"] == generate(model, [request], tokenizer)[0].text


def test_logprobs_are_written_on_request(complete: Complete) -> None:
    [row] = complete(ROWS[:1], logprobs=2)
    assert len(row["ids"]) == len(row["logprobs"]) == len(row["top_logprobs"]) == row["tokens"]
    assert all(len(top) == 2 for top in row["top_logprobs"])


def test_a_prompt_that_cannot_be_completed_is_not_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(prompt: str, sampling: Sampling = SAMPLING) -> str:
        write_completions(folder, [prompt], sampling, as_messages=False)
        return capsys.readouterr().out

    with pytest.raises(UserError, match="the prompt has"):
        written("sea " * 99)
    assert capsys.readouterr().out == ""
    model, tokenizer = load(folder)
    [completion] = generate(model, [Request(prompt="the sea", sampling=SAMPLING)], tokenizer)
    assert written("the sea") == f"the sea{completion.text}\n"
    # Nor is one left out that nothing follows.
    assert written("the sea", replace(SAMPLING, stop_ids=tuple(range(320)))) == "the sea\n"


# Streams.

GIVEN = {"temperature": 1.0, "max_new_tokens": 12, "seed": 0}


def piped(folder: Path, lines: Sequence[object], *words: str) -> subprocess.CompletedProcess[str]:
    """`groundup generate` with these lines at its standard input."""
    given = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in GIVEN.items()]
    return subprocess.run(
        [sys.executable, "-m", "groundup", "generate", str(folder), *options, *words],
        input=given,
        capture_output=True,
        text=True,
    )


def test_standard_input_and_output_are_files_of_rows(folder: Path, complete: Complete) -> None:
    expected = complete(ROWS, sampling_of(folder, **GIVEN))
    for words in (["--prompts", "-", "--out", "-"], ["--prompts=-"], ["--prompts", "/dev/stdin"]):
        done = piped(folder, ROWS, *words)
        rows = map(json.loads, done.stdout.splitlines())
        assert sorted(rows, key=lambda row: row["index"]) == expected, words
        assert (done.returncode, done.stderr) == (0, "")


def test_a_stream_continues_a_file_that_was_begun_from_the_same_rows(
    folder: Path, complete: Complete, tmp_path: Path
) -> None:
    whole, out = complete(ROWS, sampling_of(folder, **GIVEN)), tmp_path / "out.jsonl"
    out.write_bytes(out.read_bytes()[:900])
    assert piped(folder, ROWS, "--prompts", "-", "--out", str(out)).returncode == 0
    assert read(out) == whole
    done = piped(folder, ROWS[1:], "--prompts", "-", "--out", str(out))
    assert done.returncode == 2 and "begun from another file of prompts" in done.stderr


def test_a_named_pipe_gives_rows(folder: Path, complete: Complete, tmp_path: Path) -> None:
    expected, pipe = complete(ROWS), tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    writer = threading.Thread(target=pipe.write_text, args=(lines,))
    writer.start()
    complete_file(folder, pipe, tmp_path / "piped.jsonl", SAMPLING, as_messages=False)
    writer.join()
    assert read(tmp_path / "piped.jsonl") == expected


def test_messages_on_a_stream_name_it(folder: Path) -> None:
    done = piped(folder, [ROWS[0], "{torn", {"prompt": "a", "seed": 1.5}], "--prompts", "-")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "standard input, line 2",
        "standard input, line 3",
    ]
    assert done.returncode == 0 and json.loads(done.stdout)["prompt"] == "the sea"
    done = piped(folder, [], "--prompts", "-")
    assert done.returncode == 2 and done.stderr.startswith("error: standard input ")
    words = [sys.executable, "-m", "groundup", "generate", str(folder), "--prompts", "-"]
    closed = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *words], capture_output=True, text=True)
    assert closed.returncode == 2
    assert closed.stderr.startswith("error: standard input ")


def test_a_stream_is_no_value_of_other_options(folder: Path) -> None:
    done = piped(folder, ROWS, "--prompts", "-", "--schema", "-")
    assert done.returncode == 2 and "A standard stream (-) cannot be its value." in done.stderr


# Stopping and going on.


@pytest.mark.parametrize("cut", [0, 1, 60, 400, 900, -1, -30])
def test_a_stopped_file_continues_to_the_same_end(
    complete: Complete, tmp_path: Path, cut: int
) -> None:
    whole = complete(ROWS, batch_size=3)
    out = tmp_path / "out.jsonl"
    content = out.read_bytes()
    out.write_bytes(content[:cut])
    kept = out.read_bytes().rpartition(b"\n")[0]
    assert complete(ROWS, batch_size=2) == whole
    assert out.read_bytes().startswith(kept)


def test_a_finished_file_does_not_change(complete: Complete, tmp_path: Path) -> None:
    complete(ROWS)
    content = (tmp_path / "out.jsonl").read_bytes()
    complete(ROWS)
    assert (tmp_path / "out.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": Sampling(1.0, max_new_tokens=12, seed=1)}, "begun with seed=0, not seed=1"),
        ({"as_messages": True}, "begun with chat=False, not chat=True"),
        ({"lines": ROWS[:3]}, "begun from another file of prompts"),
    ],
)
def test_a_file_with_other_settings_is_not_continued(
    complete: Complete, change: dict[str, Any], message: str
) -> None:
    complete(ROWS)
    with pytest.raises(UserError, match=message):
        complete(**{"lines": ROWS} | change)


def test_an_adapter_continues_its_own_file(complete: Complete, tmp_path: Path) -> None:
    complete(ROWS[:2])
    begun = tmp_path / "out.jsonl.run.json"
    begun.write_text(json.dumps(json.loads(begun.read_text()) | {"adapter": "a" * 64}))
    with pytest.raises(UserError, match=r"begun with adapter='aaa.*, not adapter=None"):
        complete(ROWS[:2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "the sea", "max_tokens": 2}, "max_tokens=2 .*; write max_new_tokens"),
        ({"prompt": "the sea", "logit_bias": {"a": 1}}, "logit_bias=.* must be token ids"),
        ({"prompt": "the sea", "logit_bias": {"999999": 1}}, "token id 999999, outside"),
        ({"prompt": "the sea", "do_sample": False}, "do_sample=False .*; write temperature"),
        ({"prompt": "the sea", "max_length": 9}, "max_length=9 .*; write max_new_tokens"),
        ({"prompt": "the sea", "num_return_sequences": 3}, "num_return_.*=3 .*; leave it out"),
        ({"prompt": "the sea", "best_of": 3}, "best_of=3 .*; leave it out"),
        ({"prompt": "the sea", "num_beams": 4}, "num_beams=4 .*; leave it out"),
        ({"prompt": "the sea", "no_repeat_ngram_size": 3}, "no_repeat_.*=3 .*; leave it out"),
        ({"prompt": "the sea", "typical_p": 0.9}, "typical_p=0.9 .*; leave it out"),
        ({"prompt": "the sea", "ignore_eos": 1}, "ignore_eos=1 must be true or false"),
        ({"prompt": "the sea", "system": "Be brief."}, "this prompt is a text; pass --chat"),
    ],
)
def test_an_ignored_setting_is_reported(
    complete: Complete, capsys: pytest.CaptureFixture[str], row: dict[str, Any], message: str
) -> None:
    assert [one["index"] for one in complete([row, *ROWS[:3]])] == [1, 2, 3]
    assert re.search(message, capsys.readouterr().err)


def test_a_row_may_set_a_length_and_a_system_prompt(folder: Path, complete: Complete) -> None:
    user, system = ({"role": r, "content": c} for r, c in (("user", "sea?"), ("system", "Sink.")))
    [long, alone, beside, with_chat] = complete(
        [
            {"prompt": "the sea", "ignore_eos": True, "min_new_tokens": 9, "max_new_tokens": 9},
            {"messages": [system, user], "prompt": None, "temperature": 0},
            {"messages": [user], "system": "Sink.", "temperature": 0},
            {"prompt": "sea?", "messages": None, "system": "Sink.", "temperature": 0},
        ],
        as_messages=True,
    )
    assert long["tokens"] == 9
    assert alone["text"] == beside["text"] == with_chat["text"]


def test_a_row_may_set_penalties(folder: Path, complete: Complete) -> None:
    own = {"presence_penalty": 1.5, "frequency_penalty": -1, "logit_bias": {"40": 30}}
    plain, penalized, wrong = ({"prompt": "the sea"} | more for more in ({}, own, {"seed": 5}))
    wrong["frequency_penalty"] = 3
    greedy = replace(SAMPLING, temperature=0)
    rows = complete([plain, penalized, wrong], greedy)
    model, tokenizer = load(folder)
    ways = (greedy, replace(greedy, **own))  # type: ignore[arg-type]
    asked = [Request(prompt="the sea", sampling=way) for way in ways]
    expected = [one.text for one in generate(model, asked, tokenizer)]
    assert [row["text"] for row in rows] == expected and expected[0] != expected[1]


def test_completions_satisfy_the_schema_file(
    folder: Path, complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, way = tmp_path / "ship.json", replace(SAMPLING, max_new_tokens=40)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    file.write_text(json.dumps(schema))
    rows = complete(ROWS[:1] * 3, way, schema=file)
    assert all(json.loads(row["text"]) in ({"a": 1}, {"a": 2}) for row in rows)
    capsys.readouterr()
    write_completions(folder, ["the sea"], way, as_messages=True, schema=file)
    assert json.loads(capsys.readouterr().out) in ({"a": 1}, {"a": 2})
    with pytest.raises(UserError, match=r"begun with json_schema=.*, not .*=None"):
        complete(ROWS[:1] * 3, way)
    file.write_text(json.dumps({"not": {}}))
    with pytest.raises(UserError, match=r"ship\.json: #/not of the schema is not supported"):
        write_completions(folder, ["the sea"], way, as_messages=False, schema=file)


def test_a_model_computes_in_the_requested_dtype(folder: Path) -> None:
    own, _ = opened(folder)
    assert own.like.dtype == torch.float32
    assert opened(folder, dtype="float32")[0].like.dtype == torch.float32
    assert opened(folder, dtype="bfloat16")[0].like.dtype == torch.bfloat16
    assert opened(folder, dtype="auto")[0].like.dtype == compute_dtype()


def test_a_file_older_than_token_penalties_continues(complete: Complete, tmp_path: Path) -> None:
    whole = complete(ROWS[:3])
    out, about = tmp_path / "out.jsonl", tmp_path / "out.jsonl.run.json"
    lines, begun = out.read_text().splitlines(keepends=True), json.loads(about.read_text())
    for name in ("presence_penalty", "frequency_penalty", "logit_bias", "dtype", "json_schema"):
        del begun[name]
    about.write_text(json.dumps(begun))
    out.write_text(lines[0])
    assert complete(ROWS[:3]) == whole
    # With penalties it is another file.
    with pytest.raises(UserError, match=r"begun with presence_penalty=None, not .*=0\.5"):
        complete(ROWS[:3], replace(SAMPLING, presence_penalty=0.5))
    out.unlink()
    complete(ROWS[:3], replace(SAMPLING, frequency_penalty=0.5))
    with pytest.raises(UserError, match=r"begun with frequency_penalty=0\.5, not .*=None"):
        complete(ROWS[:3])


def test_another_model_does_not_continue_it(
    complete: Complete, folder: Path, tmp_path: Path
) -> None:
    complete(ROWS[:2])
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    out, prompts = tmp_path / "out.jsonl", tmp_path / "prompts.jsonl"
    complete_file(other, prompts, out, SAMPLING, as_messages=False)
    (other / "answers.jsonl").write_text("{}\n")  # it is no part of the model
    complete_file(other, prompts, out, SAMPLING, as_messages=False)
    model, tokenizer = load(folder)
    with torch.no_grad():
        model.head[5] += 1
    save_model(other, model, tokenizer, card="Another.")
    with pytest.raises(UserError, match="begun from another model"):
        complete_file(other, prompts, out, SAMPLING, as_messages=False)


def test_an_adapter_on_another_base_does_not_continue_it(folder: Path, tmp_path: Path) -> None:
    """Retraining a base keeps its adapter's folder, but makes another model of it."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(folder, base)
    model, tokenizer = load(base)
    save_adapter(adapter, add_lora(model, rank=4, alpha=4.0), base=base)
    out, prompts = tmp_path / "out.jsonl", write(tmp_path / "prompts.jsonl", ROWS[:2])
    for _ in range(2):
        complete_file(adapter, prompts, out, SAMPLING, as_messages=False)
    retrained, _ = load(base)
    with torch.no_grad():
        retrained.head[5] += 1
    save_model(base, retrained, tokenizer, card="Another.")
    with pytest.raises(UserError, match="begun from another model"):
        complete_file(adapter, prompts, out, SAMPLING, as_messages=False)
    # On a model that is named, the one that the adapter stood on need not be there.
    shutil.rmtree(base)
    out = tmp_path / "named.jsonl"
    for _ in range(2):
        complete_file(folder, prompts, out, SAMPLING, as_messages=False, adapter=adapter)
    assert len(read(out)) == 2


def test_variables_of_the_chat_template_are_part_of_a_files_settings(
    folder: Path, tmp_path: Path
) -> None:
    model, tokenizer = load(folder)
    template = CHATML + "{% if add_generation_prompt and terse %}{{ terse }}{% endif %}"
    save_model(tmp_path / "model", model, tokenizer.with_template(template), card="A test.")
    rows = [{"messages": [{"role": "user", "content": "the sea"}]}]
    prompts, found = write(tmp_path / "prompts.jsonl", rows), []
    ways: list[dict[str, Any]] = [{}, {"template": {"terse": "the island"}}]
    for place, way in enumerate(ways):
        out = tmp_path / f"{place}.jsonl"
        for _ in range(2):
            complete_file(tmp_path / "model", prompts, out, SAMPLING, as_messages=False, **way)
        found += read(out)
        with pytest.raises(UserError, match="begun"):
            complete_file(
                tmp_path / "model", prompts, out, SAMPLING, as_messages=False, **ways[1 - place]
            )
    assert len(found) == 2 and found[0]["text"] != found[1]["text"]


def test_a_foreign_file_is_not_touched(complete: Complete, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    with pytest.raises(UserError, match="its settings are unknown"):
        complete(ROWS)
    assert out.read_text() == "precious\n"
    out.unlink()
    complete(ROWS[:1])
    out.write_text("mine\n")
    with pytest.raises(UserError, match="line 1 was not written by this command"):
        complete(ROWS[:1])


def test_two_processes_do_not_write_one_file(complete: Complete, tmp_path: Path) -> None:
    with (
        resumable_lines(tmp_path / "out.jsonl", {"schema": 1, "model": "a", "prompts": "b"}),
        pytest.raises(UserError, match="another process is writing"),
    ):
        complete(ROWS)


# Bad lines.


def test_bad_lines_are_named_and_left_out(
    complete: Complete, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [{"prompt": f"the {n}"} for n in range(40)]
    settings: list[dict[str, Any]] = [
        {"temperature": -1},
        {"top_p": "0.9"},
        {"seed": 1.5},
        {"stop": [1]},
        {"stop_ids": "x"},
    ]
    bad = [{"prompt": "the", **one} for one in settings]
    rows = complete([*good, "{torn", {"text": "x"}, *bad, {"prompt": "sea " * 99}])
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in good]
    said = capsys.readouterr()
    lines = said.err.splitlines()
    wanted = [
        "line 41: not JSON",
        "line 42: needs 'prompt' or 'messages'",
        "line 43: temperature=-1 must be at least 0",
        "line 44: top_p='0.9' must be a number",
        "line 45: seed=1.5 must be a whole number",
        "line 46: stop=[1] must be a list of strings",
        "line 47: stop_ids='x' must be a list of token ids",
        "line 48: the prompt has",
    ]
    assert len(lines) == len(wanted)
    for line, reason in zip(lines, wanted, strict=True):
        assert "prompts.jsonl, " + reason in line
    assert "8 bad lines left out" in said.out


def test_an_index_is_the_position_among_the_rows_of_the_file(
    complete: Complete, tmp_path: Path
) -> None:
    lines: list[object] = [
        {"prompt": "the sea"},
        {"prompt": ""},
        "",
        {"prompt": "the ship"},
        {"prompt": "the island", "top_k": "5"},
        *({"prompt": f"wide {n}"} for n in range(20)),
    ]
    whole = complete(lines)
    assert [row["index"] for row in whole] == [0, 2, *range(4, 24)]
    assert [row["prompt"] for row in whole[:3]] == ["the sea", "the ship", "wide 0"]
    # It continues by these numbers, and not by others.
    out, about = tmp_path / "out.jsonl", tmp_path / "out.jsonl.run.json"
    out.write_bytes(out.read_bytes()[:400])
    assert complete(lines) == whole
    about.write_text(json.dumps(json.loads(about.read_text()) | {"schema": 1}))
    with pytest.raises(UserError, match="begun with schema=1, not schema=2"):
        complete(lines)
    # Where every row could be read, the numbers are what they were.
    out.unlink()
    complete(ROWS)
    assert json.loads(about.read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "at least one"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "ends with the assistant's turn"),
        ({"prompt": " "}, "'prompt' is empty"),
        ({"prompt": "x", "id": 1.5}, "'id' must be a string or a whole number"),
    ],
)
def test_a_file_of_bad_lines_only_is_rejected(
    complete: Complete, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        complete([row])


def test_sampling_settings_come_from_the_folder_by_default(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    greedy = Sampling(temperature=0)
    assert sampling_of(tmp_path) == greedy
    assert sampling_of(tmp_path, temperature=0.5) == Sampling(temperature=0.5)
    path.write_text('{"do_sample": true, "temperature": 0.3, "top_k": null}')
    assert sampling_of(tmp_path, top_k=4, seed=None) == Sampling(temperature=0.3, top_k=4)
    for other in ('{"do_sample": false, "temperature": 0.3}', '{"temperature": 0.3}'):
        path.write_text(other)
        assert sampling_of(tmp_path) == greedy
    path.write_text('{"temperature": 0.3, "repetition_penalty": 1.5}')
    assert sampling_of(tmp_path) == Sampling(temperature=0, repetition_penalty=1.5)
    assert sampling_of(tmp_path, repetition_penalty=1.1) == replace(greedy, repetition_penalty=1.1)
    path.write_text('{"repetition_penalty": 0}')
    with pytest.raises(UserError, match=r"generation_config\.json has repetition_penalty=0"):
        sampling_of(tmp_path)
    for wrong in ('"top_p": "high"', '"min_p": true', '"temperature": 1' + "0" * 400):
        path.write_text(f'{{"do_sample": true, {wrong}}}')
        with pytest.raises(UserError, match=r"generation_config\.json has"):
            sampling_of(tmp_path)
    for damaged in ("[]", "[" * 100_000):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"generation_config\.json is not"):
            sampling_of(tmp_path)


def test_a_folder_that_does_not_sample_equals_transformers(folder: Path, tmp_path: Path) -> None:
    own = shutil.copytree(folder, tmp_path / "model") / "generation_config.json"
    said = json.loads(own.read_text())
    ends = {name: said[name] for name in said if name.endswith("_token_id")}
    own.write_text(json.dumps(ends | {"repetition_penalty": 1.5}))
    model, tokenizer = load(own.parent)
    ids = tokenizer.encode("the sea is")
    theirs = AutoModelForCausalLM.from_pretrained(own.parent)
    expected = theirs.generate(torch.tensor([ids]), max_new_tokens=20)[0, len(ids) :].tolist()
    sampling = sampling_of(own.parent, max_new_tokens=20)
    [found] = generate(model, [Request(prompt_ids=ids, sampling=sampling)], tokenizer)
    assert found.ids == expected
