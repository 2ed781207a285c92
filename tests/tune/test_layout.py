"""Fine-tuning's layout for data of any size: rows, steps, passes, general text, warnings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from groundup.data.dataset import MIN_TO_SPLIT, load_dataset
from groundup.data.files import write_json_lines
from groundup.errors import UserError
from groundup.lm import model as lm
from groundup.runs.files import read_lines
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import TrainingConfig
from groundup.train.pace import Pace
from groundup.tune import layout
from groundup.tune.config import SFTConfig
from groundup.tune.data import decided, made_of, read_rows
from groundup.tune.layout import (
    BY_HEART,
    LITTLE,
    MAX_ROWS,
    MAX_SEEN,
    MUCH,
    SLOWEST,
    passes,
    rate_share,
    replayed,
    row_length,
    rows_of_step,
    seen,
)
from groundup.tune.sft import _print_counts, run

SMOLLM2 = 135_000_000


@given(st.integers(1, 100_000), st.one_of(st.none(), st.floats(1, 1e7)))
def test_steps_are_small_enough_that_enough_are_left(rows_per_epoch: int, in_time: Any) -> None:
    rows, _ = rows_of_step(rows_per_epoch, rows_in_time=in_time, steps=None)
    assert 1 <= rows <= MAX_ROWS
    if rows > 1:
        assert rows_per_epoch / rows >= 12
        assert in_time is None or in_time / rows >= 100


def test_much_data_and_time_keep_large_steps() -> None:
    assert rows_of_step(10_000, rows_in_time=1e6, steps=None)[0] == MAX_ROWS
    assert rows_of_step(10_000, rows_in_time=None, steps=500)[0] == MAX_ROWS


def test_more_data_never_mean_fewer_rows_per_step() -> None:
    found = [rows_of_step(n, rows_in_time=None, steps=None)[0] for n in range(1, 400)]
    assert found == sorted(found) and found[0] == 1


@pytest.mark.parametrize(
    ("most", "longest", "tokens"),
    [
        (40, 1024, 256),
        (300, 1024, 320),
        (5000, 1024, 1024),
        (40, 64, 64),
        (64, 64, 64),
    ],
)
def test_rows_are_as_long_as_the_data_require(most: int, longest: int, tokens: int) -> None:
    found, _ = row_length(most, longest)
    assert found == tokens


@given(st.integers(1, 2000), st.integers(1, 16))
def test_little_data_are_repeated_with_a_limit(per_epoch: int, rows: int) -> None:
    found = passes(per_epoch, rows, LITTLE)
    assert 2 <= found <= 16
    assert found * per_epoch / rows >= 200 - 1e-6 or found == 16
    assert passes(per_epoch, rows, LITTLE + 1) == 2


def test_general_text_is_added_to_little_data_of_a_pre_trained_model() -> None:
    assert 0 < replayed(3_000, SMOLLM2, mixed=False)[0] < 0.5
    assert replayed(LITTLE + 1, SMOLLM2, mixed=False) == (0.0, "")
    share, why = replayed(3_000, 4_000_000, mixed=False)
    assert share == 0.0 and "--replay-data quickstart/data" in why
    assert replayed(3_000, SMOLLM2, mixed=True) == (0.0, "")


@pytest.mark.parametrize(
    ("steps", "warns"),
    [(1, True), (11, True), (12, False), (360, False), (373, True), (9000, True)],
)
def test_the_plan_warns_of_too_few_and_too_many_passes(steps: int, warns: bool) -> None:
    text, warning = seen(steps / 12, 60)
    assert "60 items" in text
    assert bool(warning) == warns
    if warning and steps > 12:
        assert f"{BY_HEART:.0f} times" in warning


def test_no_warning_about_a_default_time() -> None:
    assert seen(0.98, 60, bounded=False) == ("each of the 60 items is seen about 1.0 times", "")


# On data.


def talks(path: Path, count: int, words: int = 5) -> Path:
    rows = [
        {"prompt": f"What is number {i}?", "completion": f"It is {' '.join(['the sea'] * words)}."}
        for i in range(count)
    ]
    write_json_lines(path, rows)
    return path


def laid(workshop: Any, path: Path, *others: Path, **settings: Any) -> Any:
    out = path.parent / "unused"
    config = SFTConfig(out=out, model=path.parent, data=(path, *others), **settings)
    found = read_rows(config, Tokenizer.load(workshop.tokenizer), 1024)
    return decided(
        config,
        found,
        longest=1024,
        parameters=1_000_000,
        tokens_in_time=None if config.minutes is None else lambda _: 40_000.0,
    )


@pytest.mark.parametrize(
    "count", [1, 20, 60, 200, 1000, pytest.param(5000, marks=pytest.mark.long)]
)
def test_data_of_every_size_get_enough_steps(workshop: Any, tmp_path: Path, count: int) -> None:
    data, layout, reasons = laid(workshop, talks(tmp_path / "own.jsonl", count), minutes=3)
    assert layout.context == 256 and layout.replay == 0
    assert {"rows", "context"} <= set(reasons)
    tokens_a_step = data.stream.counts.tokens * layout.rows / data.stream.rows_per_epoch
    steps = 40_000 / tokens_a_step
    assert steps >= 100
    # In 200 steps no row is repeated more often than there are rows for.
    _, layout, _ = laid(workshop, talks(tmp_path / "own.jsonl", count))
    assert layout.epochs >= 2


def test_text_next_to_conversations_is_replayed_unless_turned_off(
    workshop: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "of a stage"
    for kind in ("conversations", "documents"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "heldout.jsonl").touch()
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    write_json_lines(folder / "conversations" / "train.jsonl", [row])
    text = folder / "documents" / "train.jsonl"
    text.touch()
    _, layout, reasons = laid(workshop, folder)
    assert layout.replay == 0 and "replay" not in reasons
    write_json_lines(text, [{"text": "The sea is wide. " * 20}])
    data, layout, reasons = laid(workshop, folder)
    assert layout.replay == 0.2 and str(text) in reasons["replay"]
    assert str(text) in data.stream.sources
    assert laid(workshop, folder, replay=0)[1].replay == 0
    # Where it is fine-tuned on, it is not replayed as well.
    _, layout, reasons = laid(workshop, folder, text)
    assert layout.replay == 0 and "replay" not in reasons
    with pytest.raises(ValidationError, match="is what is fine-tuned on already"):
        laid(workshop, folder, text, replay=0.2, replay_data=(text,))
    # Optional replay that is unavailable does not stop a run.
    text.write_text("not a row\n")
    _, layout, reasons = laid(workshop, folder)
    assert layout.replay == 0 and "replay" not in reasons
    with pytest.raises(UserError):
        laid(workshop, folder, replay=0.2)


def test_named_text_is_replayed(workshop: Any, tmp_path: Path) -> None:
    path, text = talks(tmp_path / "own.jsonl", 60), tmp_path / "text.txt"
    text.write_text("The sea is wide and deep.\n\n" * 20)
    assert laid(workshop, path)[1].replay == 0
    assert laid(workshop, path, replay_data=(text,))[1].replay == 0.2
    with pytest.raises(UserError, match="nowhere"):
        laid(workshop, path, replay_data=(tmp_path / "nowhere.txt",))


def test_own_rows_are_counted_separately_from_replay(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, text = talks(tmp_path / "own.jsonl", 600), tmp_path / "text.txt"
    text.write_text("The sea is wide and deep.\n\n" * 20 + "The sea is deep. " * 2000)
    alone, _, _ = laid(workshop, path, replay=0, multi_turn=0)
    assert "replay" not in capsys.readouterr().out
    data, settled, _ = laid(workshop, path, replay_data=(text,), multi_turn=0)
    # Once, although the rows of a step are decided on when it has been read.
    assert settled.rows > 1 and capsys.readouterr().out.count(f"reading {text}") == 1
    counts, names = data.counts, ("rows", "truncated", "without_answer", "own_tokens")
    assert {name: counts[name] for name in names} == {name: alone.counts[name] for name in names}
    own = alone.counts["tokens"], alone.counts["trained"]
    assert (counts["own_tokens"], counts["own_trained"]) == own
    assert counts["replayed"] == len(data.stream.conversations) - counts["rows"] > 0
    assert counts["tokens"] > counts["own_tokens"]
    _print_counts(data)
    said = capsys.readouterr().out
    assert f"{counts['rows']} items of {own[0]:,} tokens ({own[1]:,} learned) to train on" in said
    assert f"with {counts['replayed']} texts of replay" in said


def test_a_model_made_here_replays_its_own_training_text(workshop: Any, tmp_path: Path) -> None:
    text = workshop.data / "documents" / "train.jsonl"
    assert made_of(workshop.finished("sft")) == workshop.data
    assert made_of(workshop.finished("pretrain")) == text
    alone = shutil.copytree(workshop.finished("sft"), tmp_path / "bare")
    (alone / "run.json").unlink()
    for copy in alone.glob(".run.json*"):
        copy.unlink()
    path = talks(tmp_path / "own.jsonl", 40)
    plans = {}
    for name, model, settings in (
        ("whole", workshop.finished("sft"), {}),
        ("lora", workshop.finished("sft"), {"adapter": "lora"}),
        ("alone", alone, {}),
        ("given", alone, {"learning_rate": 0.004}),
    ):
        config = SFTConfig(
            out=tmp_path / name,
            model=model,
            data=(path,),
            steps=2,
            evaluations=1,
            dtype="float32",
            threads=1,
            **settings,
        )
        plans[name] = json.loads((run(config) / "plan.json").read_text())
    story = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert story["parents"]["replay"]["path"] == str(workshop.data)
    assert story["config"]["replay_data"] == [str(workshop.data)]
    assert {name: plan["layout"]["replay"] for name, plan in plans.items()} == {
        "whole": 0.2,
        "lora": 0.2,
        "alone": 0.0,
        "given": 0.0,
    }
    # With forty rows the whole model learns at a tenth of its rate, and so does an adapter.
    rates = {name: plan["rates"]["matrices"] for name, plan in plans.items()}
    assert rates == pytest.approx({"whole": 0.001, "lora": 0.001, "alone": 0.001, "given": 0.004})
    rates = {name: plan["rates"]["embeddings"] for name, plan in plans.items()}
    assert rates["whole"] == pytest.approx(0.0003) and rates["given"] == 0.003


def test_a_model_made_from_a_users_file_replays_that(workshop: Any, tmp_path: Path) -> None:
    text, base = tmp_path / "sea.txt", tmp_path / "base"
    text.write_text(
        "\n\n".join(f"Wave {i} came to the shore and went again. " * 9 for i in range(99))
    )
    code, said = workshop.run_here(workshop.command("pretrain", base, data=text, steps=2))
    assert code == 0, said
    assert made_of(base) == text
    text.unlink()
    assert made_of(base) is None


@given(st.integers(0, 10**8), st.integers(0, 10**8))
def test_little_data_use_a_low_rate_and_much_data_the_full_one(one: int, other: int) -> None:
    assert SLOWEST <= rate_share(min(one, other)) <= rate_share(max(one, other)) <= 1
    assert rate_share(MUCH // 2) == 0.5 and rate_share(MUCH) == 1


def test_an_adapter_on_a_small_model_learns_much_data_at_its_full_rate(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MUCH", 10)
    config = SFTConfig(
        out=tmp_path / "out",
        model=workshop.finished("sft"),
        data=(talks(tmp_path / "own.jsonl", 40),),
        adapter="lora",
        steps=1,
        evaluations=1,
        threads=1,
    )
    plan = json.loads((run(config) / "plan.json").read_text())
    assert plan["rates"]["matrices"] == 0.01 and plan["rates"]["embeddings"] == 0.003
    assert plan["reasons"]["learning_rate"].startswith("0.01, that of a small model that is")


def test_explicit_settings_are_kept(workshop: Any, tmp_path: Path) -> None:
    path = talks(tmp_path / "own.jsonl", 60)
    _, layout, reasons = laid(workshop, path, rows=7, context=128, epochs=3, replay=0)
    assert (layout.rows, layout.context, layout.epochs, layout.replay) == (7, 128, 3, 0)
    assert reasons == {}


def test_long_rows_get_a_long_context(workshop: Any, tmp_path: Path) -> None:
    _, layout, _ = laid(workshop, talks(tmp_path / "own.jsonl", 30, words=150))
    assert layout.context > 256
    data, layout, _ = laid(workshop, talks(tmp_path / "own.jsonl", 30, words=3000))
    assert layout.context == 1024 and data.counts["truncated"] == 30


@pytest.mark.parametrize("count", [2, 60, MIN_TO_SPLIT - 1, MIN_TO_SPLIT, 900])
def test_few_rows_are_not_held_out_by_default(tmp_path: Path, count: int) -> None:
    path = talks(tmp_path / "own.jsonl", count)
    read = load_dataset([path], validation=None)
    assert (len(read.heldout) > 0) == (count >= MIN_TO_SPLIT)
    assert len(read.train) + len(read.heldout) == count
    assert len(load_dataset([path], validation=0.05).heldout) > 0


def test_steps_take_the_time_of_their_tokens_and_an_update() -> None:
    assert Pace(0.01, 0.0).tokens_per_second(10) == pytest.approx(100)
    assert Pace(0.01, 0.1).tokens_per_second(10) == pytest.approx(50)


# In a run.


def test_a_run_with_minutes_keeps_its_layout_and_speed(workshop: Any, tmp_path: Path) -> None:
    path = talks(tmp_path / "own.jsonl", 40)
    config = SFTConfig(
        out=tmp_path / "run",
        model=workshop.finished("pretrain"),
        data=(path,),
        minutes=0.004,
        evaluations=1,
        compile="off",
        dtype="float32",
        threads=1,
    )
    folder = run(config)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["layout"]["rows"] == 1 and plan["layout"]["replay"] == 0.2
    lines = [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]
    assert len(lines) == plan["steps"]
    # The estimate counts what is read, not what pads a row.
    read = sum(line["tokens_per_second"] * line["seconds"] for line in lines) / len(lines)
    assert read == pytest.approx(plan["tokens_per_step"], rel=0.1)
    steps = plan["steps"] * plan["layout"]["rows"]
    rows_per_epoch = -(-steps // MAX_SEEN)
    assert rows_per_epoch >= 1


@pytest.mark.parametrize("weights", [(0.5, 0.5), None])
def test_passes_are_counted_per_source(
    workshop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], weights: Any
) -> None:
    few, many = talks(tmp_path / "few.jsonl", 3), talks(tmp_path / "many.jsonl", 400)
    write_json_lines(few, [{"prompt": f"What is {i}?", "completion": "A sea."} for i in range(3)])
    config = SFTConfig(
        out=tmp_path / "run",
        model=workshop.finished("pretrain"),
        data=(few, many),
        weights=weights,
        balance=0.0 if weights else 1.0,
        epochs=1,
        replay=0,
        evaluations=1,
        compile="off",
        dtype="float32",
        threads=1,
    )
    run(config)
    captured = capfd.readouterr()
    said = " ".join((captured.out + captured.err).split())
    found = re.search(
        r"passes: each of the 3 items of \S*few\S* is seen about (\d+) times, "
        r"each of the [\d,]+ items of \S*many\S* is seen about (\S+) times",
        said,
    )
    assert found and int(found[1]) > BY_HEART and 0.4 < float(found[2]) < 0.6
    assert f"few{'.jsonl' if weights else ''} is seen about {found[1]} times: it will be" in said
    assert "there is time for only" not in said


def test_the_layout_is_timed_with_the_training_computation(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out = list[bool]()
    computed = lm.checkpoint

    def checkpoint(*arguments: Any, **settings: Any) -> Any:
        laid_out.append((tmp_path / "run" / "data.json").exists())
        return computed(*arguments, **settings)

    monkeypatch.setattr(lm, "checkpoint", checkpoint)
    config = SFTConfig(
        out=tmp_path / "run",
        model=workshop.finished("pretrain"),
        data=(talks(tmp_path / "own.jsonl", 200),),
        context=64,
        minutes=0.005,
        gradient_checkpointing=True,
        evaluations=1,
        compile="off",
        dtype="float32",
        threads=1,
    )
    run(config)
    assert set(laid_out) == {True, False}


@pytest.mark.long
def test_minutes_end_early_at_the_maximum_number_of_passes(workshop: Any, tmp_path: Path) -> None:
    config = SFTConfig(
        out=tmp_path / "run",
        model=workshop.finished("pretrain"),
        data=(talks(tmp_path / "own.jsonl", 3),),
        minutes=600,
        evaluations=1,
        compile="off",
        dtype="float32",
        threads=1,
    )
    folder = run(config)
    plan = json.loads((folder / "plan.json").read_text())
    data = json.loads((folder / "data.json").read_text())
    read = plan["steps"] * plan["tokens_per_step"] / data["tokens"]
    assert BY_HEART < read <= MAX_SEEN + 1
    assert data["validation"] == 0 and data["heldout"] == 0


def test_unavailable_replay_is_rejected_when_requested(workshop: Any, tmp_path: Path) -> None:
    path = talks(tmp_path / "own.jsonl", 30)
    with pytest.raises(UserError):
        laid(workshop, path, replay=0.25, replay_data=(tmp_path / "nowhere.txt",))


def test_each_process_has_a_row_and_a_pass_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    assert rows_of_step(1, rows_in_time=1.0, steps=None)[0] == 3
    for rows in range(3, 40):
        config = TrainingConfig(out=Path("run"), rows=rows)
        assert -(-rows // config.micro(256)) >= 3
