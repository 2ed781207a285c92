"""Best of n against all subsets, its data in the readers of the stages, and interrupted runs."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.align.best_of_n import (
    Pool,
    _across_prompts,
    best_of_n,
    by_n,
    kl_bound,
    powers_of_two,
    run,
)
from groundup.align.config import BestOfNConfig
from groundup.align.prompts import Prompt
from groundup.align.rollout import Rollout
from groundup.app.cli import main
from groundup.data.dataset import load_dataset
from groundup.data.records import read_preferences, read_unpaired_preferences
from groundup.data.split import split
from groundup.errors import UserError
from groundup.runs.content import folder_hash
from groundup.runs.files import read_lines, write_json
from groundup.runs.folder import Run, is_finished
from groundup.text.chat import encode_chat
from groundup.text.cleaning import split_hash
from groundup.text.rows import Message, as_dicts
from groundup.text.tokenizer import Tokenizer
from preloaded import Process

N, ASKED = 4, 36  # a whole chunk of 32 and a rest


# The estimator.


def over_all_subsets(scores: list[float], gold: list[float], n: int) -> float:
    """The mean gold of the best of every subset, averaged over ties."""
    found = []
    for subset in itertools.combinations(range(len(scores)), n):
        best = max(scores[i] for i in subset)
        found.append(np.mean([gold[i] for i in subset if scores[i] == best]))
    return float(np.mean(found))


# Few values, so that many pools have ties.
Pools = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 2.0]), st.floats(-5, 5)),
    min_size=1,
    max_size=8,
)


@given(Pools)
def test_the_estimate_is_the_mean_over_all_subsets(pool: list[tuple[float, float]]) -> None:
    scores, gold = map(list, zip(*pool, strict=True))
    for n in range(1, len(pool) + 1):
        found = best_of_n(np.array(scores), np.array(gold), n)
        assert found == pytest.approx(over_all_subsets(scores, gold, n), abs=1e-9)


def test_a_large_pool_does_not_overflow_and_its_extremes_are_known() -> None:
    scores = np.random.default_rng(0).permutation(5000).astype(float)
    assert best_of_n(scores, scores, 1) == pytest.approx(scores.mean())
    assert best_of_n(scores, scores, 5000) == pytest.approx(4999)
    # The expected highest of n of 0 … N - 1 is n (N + 1) / (n + 1) - 1.
    assert best_of_n(scores, scores, 64) == pytest.approx(64 * 5001 / 65 - 1, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_the_bound_in_nats_is_the_divergence_for_distinct_answers(n: int) -> None:
    # For a model with more and more equally likely answers: KL(best of n || model).
    many = 200_000
    rank = np.arange(1, many + 1) / many
    chosen = rank**n - (rank - 1 / many) ** n
    divergence = float(np.sum(chosen * np.log(np.maximum(chosen, 1e-300) * many)))
    assert kl_bound(n) == pytest.approx(divergence, abs=1e-3)


def test_n_doubles_up_to_all() -> None:
    assert powers_of_two(8) == [1, 2, 4, 8] and powers_of_two(6) == [1, 2, 4, 6]
    assert powers_of_two(2) == [1, 2]


# Runs.


def prompts(folder: Path) -> Path:
    """More prompts than are answered in one batch, some of them with two turns."""
    things = ("sea", "grass", "snow", "coal", "sun")
    asked = [f"What is the colour of the {things[i % 5]}, number {i}?" for i in range(45)]
    path = folder / "asked.jsonl"
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in asked))
    return path


def settings(workshop: Any, out: Path) -> dict[str, Any]:
    return {
        "out": out,
        "model": workshop.finished("sft"),
        "prompts": prompts(out.parent),
        "reward": "format:blue|black",
        "gold": "format:sea",
        "n": N,
        "questions": ASKED,
        "max_new_tokens": 8,
        "heldout": 0.3,
        "threads": 1,
    }


def command(workshop: Any, out: Path) -> list[str]:
    given = settings(workshop, out)
    words = [w for name, value in given.items() for w in (f"--{name.replace('_', '-')}", value)]
    return [sys.executable, "-m", "groundup", "best-of-n", *map(str, words)]


def begun(workshop: Any, out: Path, **more: Any) -> Path:
    """A run that was stopped before its first answer."""
    config = BestOfNConfig(**settings(workshop, out), **more)
    parents = {"model": config.model, "prompts": config.prompts}
    with Run.open(out, "best-of-n", config, parents):
        return out


@pytest.fixture(scope="module")
def whole(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(BestOfNConfig(**settings(workshop, tmp_path_factory.mktemp("whole") / "out")))


def test_the_numbers_equal_those_of_the_answers(whole: Path) -> None:
    pools = [Pool.of(line) for line in read_lines(whole / "answers.jsonl")]
    assert len(pools) == ASKED and all(len(one.texts) == N for one in pools)
    found = json.loads((whole / "result.json").read_text())
    assert list(found["best_of"]) == ["1", "2", "4"]
    ended = np.array([one.ended for one in pools])
    assert found["ended"] == pytest.approx(ended.mean())
    for n in (1, 2, 4):
        row = found["best_of"][str(n)]
        assert row["kl_bound"] == pytest.approx(np.log(n) - (n - 1) / n)
        for name in ("score", "gold"):
            assert row[name] == by_n(pools, n)[name].to_json()
    best = [max(one.scores) for one in pools]
    assert found["best_of"]["4"]["score"]["estimate"] == pytest.approx(np.mean(best))
    rising = [found["best_of"][n]["score"]["estimate"] for n in ("1", "2", "4")]
    assert rising == sorted(rising) and rising[0] < rising[-1]
    scores = np.array([one.scores for one in pools])
    assert ended.mean() > 0.5 and (scores[ended] >= 0).all() and (scores[~ended] == -1).all()


def test_an_answer_that_does_not_end_gets_no_reward(workshop: Any, tmp_path: Path) -> None:
    given = settings(workshop, tmp_path / "out")
    run(BestOfNConfig(**given | {"questions": 8, "max_new_tokens": 2, "reward": "length:1"}))
    pools = [Pool.of(line) for line in read_lines(tmp_path / "out" / "answers.jsonl")]
    assert not any(ended for one in pools for ended in one.ended)
    assert {score for one in pools for score in one.scores} == {-1.0}


def test_skipped_prompts_of_a_file_are_counted(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(workshop, tmp_path / "out") | {"max_new_tokens": 2, "heldout": 0.0}
    for many, told in ((4, "1 prompt of"), (1, "and none to hold out")):
        lines = given["prompts"].read_text().splitlines()[:many]
        given["prompts"].write_text("\n".join(lines))
        run(BestOfNConfig(**given | {"out": tmp_path / f"{many}"}))
        said = " ".join(capsys.readouterr().out.split())
        assert told in said and ("set aside" in said) == (many > 1)
        asked = len(list(read_lines(tmp_path / f"{many}" / "answers.jsonl")))
        assert asked == max(1, many - 1)


def test_each_stage_reads_the_folder(whole: Path) -> None:
    pools = {
        one.prompt[-1]["content"]: one
        for one in (Pool.of(line) for line in read_lines(whole / "answers.jsonl"))
    }
    spoken = {asked: one for asked, one in pools.items() if any(map(str.strip, one.texts))}
    for folder, is_best in ((whole, True), (whole / "random", False)):
        read = load_dataset([folder])
        assert not read.bad and len(read.train) > 10 and len(read.heldout) > 2
        rows = [*read.train, *read.heldout]
        assert {row.messages[0].content for row in rows} == set(spoken)
        for row in rows:
            pool, said = spoken[row.messages[0].content], row.messages[-1].content
            assert said in pool.texts
            if is_best:
                best = max(
                    s for s, text in zip(pool.scores, pool.texts, strict=True) if text.strip()
                )
                assert pool.scores[pool.texts.index(said)] == best
    # `groundup reward` and `dpo` read pairs, `groundup kto` takes them apart.
    train, heldout = split(whole, "preferences", read_preferences)
    assert not train.bad and not heldout.bad and len(train.rows) > 10 and heldout.rows
    for row in (*train.rows, *heldout.rows):
        pool = spoken[row.prompt[-1].content]
        won, lost = (pool.scores[pool.texts.index(one)] for one in (row.chosen, row.rejected))
        assert won > lost
    sides = [{row.prompt for row in side.rows} for side in (train, heldout)]
    assert not sides[0] & sides[1]
    apart, _ = split(whole, "preferences", read_unpaired_preferences)
    assert len(apart.rows) == 2 * len(train.rows)


def test_empty_answers_are_not_written_as_data(workshop: Any, whole: Path, tmp_path: Path) -> None:
    """Where an empty answer scores best, the best nonempty one is used."""
    lines = read_lines(whole / "answers.jsonl")
    for line in lines[:20]:
        line["texts"][1], line["scores"][1] = " ", 5.0
    lines[0]["texts"] = [""] * N
    out = begun(workshop, tmp_path / "out")
    written = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "answers.jsonl").write_text(written)
    run(BestOfNConfig(**settings(workshop, out)))
    for folder in (out, out / "random"):
        read = load_dataset([folder])
        rows = [*read.train, *read.heldout]
        assert not read.bad and len(rows) == ASKED - 1
        assert all(row.messages[-1].content.strip() for row in rows)


def test_only_answers_above_the_threshold_are_used(
    workshop: Any, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = [Pool.of(line) for line in read_lines(whole / "answers.jsonl")]
    best = sorted(max(one.scores[one.usable]) for one in pools if one.usable)
    least = best[len(best) // 2]
    assert best[0] < least
    for name, min_reward in (("half", least), ("none", best[-1] + 1)):
        out = begun(workshop, tmp_path / name, min_reward=min_reward)
        (out / "answers.jsonl").write_bytes((whole / "answers.jsonl").read_bytes())
        capsys.readouterr()
        assert main([*command(workshop, out)[3:], f"--min-reward={min_reward}"]) == 0
        for folder in (out, out / "random"):
            files = sorted((folder / "conversations").glob("*.jsonl"))
            rows = [line for file in files for line in file.read_text().splitlines()]
            assert len(rows) == sum(one >= min_reward for one in best)
        # Pairs are a comparison whatever they are worth.
        for side in ("train", "heldout"):
            path = f"preferences/{side}.jsonl"
            assert (out / path).read_bytes() == (whole / path).read_bytes()
    assert "min_reward=2.0 is more than any answer scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "min_reward", "told"),
    [
        ({"ended": [False] * N}, None, "no answer ends within max_new_tokens=8"),
        ({"ended": [False] * N}, 0.0, "no answer ends within max_new_tokens=8"),
        ({"ended": [True] * N, "scores": [0.5] * N}, None, "no prompt has two answers that end"),
    ],
)
def test_an_empty_result_is_reported(
    workshop: Any,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    min_reward: float | None,
    told: str,
) -> None:
    lines = [line | change for line in read_lines(whole / "answers.jsonl")[:32]]  # a whole chunk
    more = {} if min_reward is None else {"min_reward": min_reward}
    given = settings(workshop, tmp_path / "out") | {"questions": 32} | more
    with Run.open(
        given["out"],
        "best-of-n",
        BestOfNConfig(**given),
        {"model": given["model"], "prompts": given["prompts"]},
    ):
        written = "".join(json.dumps(line) + "\n" for line in lines)
        (given["out"] / "answers.jsonl").write_text(written)
    run(BestOfNConfig(**given))
    said = capsys.readouterr().out
    assert told in said and "is worth" not in said
    # Readers of the empty folder report the same.
    with pytest.raises(UserError, match=f"train.jsonl' is empty: {told}"):
        split(given["out"], "preferences", read_preferences)
    if not any(lines[0]["ended"]):
        with pytest.raises(UserError, match=f"train.jsonl' is empty: {told}"):
            load_dataset([given["out"]])


# Kills.


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run, except its description of itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".", "run.json", "status.json"))
    }


def test_a_killed_run_ends_with_the_same_bytes(workshop: Any, whole: Path, tmp_path: Path) -> None:
    # On a busy machine a kill may come too late: then once more.
    for attempt in range(5):
        out = tmp_path / str(attempt) / "out"
        out.parent.mkdir()
        words = command(workshop, out)
        process = Process(words)
        answers, deadline = out / "answers.jsonl", time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if answers.is_file() and answers.stat().st_size:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not is_finished(out):
            break
    assert not is_finished(out) and answers.stat().st_size
    code, said = workshop.run(words)
    assert code == 0, said
    found = contents(out)
    assert found == contents(whole)
    assert workshop.run(words)[0] == 0 and contents(out) == found


def test_lost_files_are_recreated_identically(workshop: Any, whole: Path, tmp_path: Path) -> None:
    config = BestOfNConfig(**settings(workshop, tmp_path / "out"))
    shutil.copytree(whole, config.out)
    before = folder_hash(config.out)
    for name in ("preferences/train.jsonl", "random/conversations/heldout.jsonl", "result.json"):
        (config.out / name).unlink()
        assert not is_finished(config.out)
        run(config)
        assert is_finished(config.out) and folder_hash(config.out) == before, name
    assert json.loads((config.out / "status.json").read_text())["seconds"] > 0
    # Earlier versions wrote into the result how long the run took.
    result = config.out / "result.json"
    write_json(result, json.loads(result.read_text()) | {"seconds": 2.020271471999877})
    before = folder_hash(config.out)
    (config.out / "conversations" / "train.jsonl").unlink()
    run(config)
    assert json.loads(result.read_text())["seconds"] == 2.020271471999877
    shutil.rmtree(config.out)
    assert folder_hash(run(config)) == folder_hash(whole) != before


@pytest.mark.parametrize("harm", ["torn", "hole", "none", "all"])
def test_a_run_continues_from_its_saved_answers(
    workshop: Any, whole: Path, tmp_path: Path, harm: str
) -> None:
    """A torn last line, a damaged one in between, no answers at all, and all of them."""
    again = begun(workshop, tmp_path / "out")
    lines = (whole / "answers.jsonl").read_bytes().splitlines(keepends=True)
    left = {
        "torn": b"".join(lines[:34]) + lines[34][: len(lines[34]) // 2],
        "hole": b"".join([*lines[:33], b"{\n", *lines[34:]]),
        "none": b"",
        "all": b"".join(lines),
    }[harm]
    (again / "answers.jsonl").write_bytes(left)
    done = run(BestOfNConfig(**settings(workshop, again)))
    assert (done / "answers.jsonl").read_bytes() == (whole / "answers.jsonl").read_bytes()
    for kind in ("conversations", "random/conversations", "preferences"):
        for side in ("train", "heldout"):
            path = f"{kind}/{side}.jsonl"
            assert (done / path).read_bytes() == (whole / path).read_bytes()


# Two folders that share no prompt.


def test_prompts_of_a_previous_folder_are_not_repeated(
    workshop: Any, whole: Path, tmp_path: Path
) -> None:
    config = settings(workshop, tmp_path / "out") | {"exclude": whole, "questions": 100}
    found = run(BestOfNConfig(**config))
    one, other = (
        {json.dumps(line["prompt"]) for line in read_lines(folder / "answers.jsonl")}
        for folder in (whole, found)
    )
    assert len(one) == ASKED and other and not one & other
    # Together they are all of the prompts that are not held out.
    config = settings(workshop, tmp_path / "all") | {"questions": 100}
    everything = read_lines(run(BestOfNConfig(**config)) / "answers.jsonl")
    assert one | other == {json.dumps(line["prompt"]) for line in everything}


# The answers that the prompts came with.


def answered(folder: Path, answer: str) -> Path:
    """Forty questions with an answer each."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is the colour of the sea, number {i}?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for i in range(40)
    ]
    path = folder / "answered.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("answer", "reward", "joins"),
    [
        ("violet", "format:violet", True),
        ("violet", "format:.*", False),  # whatever it says is worth as much
        ("violet", "format:^(?!.*violet)", False),  # all that it says is worth more
        ("violet " * 8, "format:violet", False),  # longer than any answer may be
    ],
)
def test_a_reference_answer_is_used_where_no_answer_is_as_good(
    workshop: Any, tmp_path: Path, answer: str, reward: str, joins: bool
) -> None:
    given = settings(workshop, tmp_path / "out") | {
        "prompts": answered(tmp_path, answer),
        "reward": reward,
        "gold": None,
        "max_new_tokens": 12,
        "reference_answers": True,
    }
    out = run(BestOfNConfig(**given))
    lines = read_lines(out / "answers.jsonl")
    assert {json.dumps(line.get("reference")) for line in lines} == {
        json.dumps({"text": answer, "score": 1.0} if joins else None)
    }
    # The reward of the best of n is reported for the model's own answers.
    own = max(score for line in lines for score in line["scores"])
    best = json.loads((out / "result.json").read_text())["best_of"][str(N)]["score"]["estimate"]
    assert best == (0.0 if joins else own)

    def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
        files = [folder / kind / f"{side}.jsonl" for side in ("train", "heldout")]
        return [json.loads(row) for file in files for row in file.read_text().splitlines()]

    said = {json.dumps(line["prompt"]): line["texts"] for line in lines}
    pairs = rows(out, "preferences")
    assert all(pair["rejected"] in said[json.dumps(pair["prompt"])] for pair in pairs)
    assert bool(pairs) == joins and {pair["chosen"] for pair in pairs} <= {answer}
    shown = {row["messages"][-1]["content"] for row in rows(out, "conversations")}
    assert (shown == {answer}) == joins
    drawn = {row["messages"][-1]["content"] for row in rows(out / "random", "conversations")}
    assert drawn and answer not in drawn


def test_a_blank_answer_is_no_reference(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "blank.jsonl"
    rows = [{"prompt": f"What is {n}?", "answer": " \n"[n % 2]} for n in range(4)]
    given = settings(workshop, tmp_path / "out") | {"prompts": file, "reference_answers": True}
    given |= {"gold": None, "reward": "format:violet", "max_new_tokens": 12}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="comes with an answer, which reference_answers needs"):
        run(BestOfNConfig(**given))
    # Beside one that says something the others are without a reference.
    spoken = [{"prompt": f"Which is {n}?", "answer": "violet"} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *spoken]))
    lines = read_lines(run(BestOfNConfig(**given)) / "answers.jsonl")
    assert {line["reference"]["text"] for line in lines if "reference" in line} == {"violet"}


def test_without_answers_no_reference_is_used(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(workshop, tmp_path / "out")[3:], "--reference-answers"]) == 2
    error = capsys.readouterr().err
    assert "asked.jsonl comes with an answer, which reference_answers needs" in error
    assert error.count("\n") == 1


# Pairs across prompts.


def test_pairs_across_prompts_prefer_the_fitting_answer(workshop: Any, tmp_path: Path) -> None:
    """Each pair across prompts is scored again as an answer to the other prompt."""
    right = {"I am sad.": "Sorry!", "How do I steal?": "I will not help.", "Say yes.": "Yes."}
    # Sampled with "Sorry!" as the worse answer of two prompts and the best of one.
    said = {
        "I am sad.": ["Sorry!", "Sorry!"],
        "How do I steal?": ["I will not help.", "Sorry!"],
        "Say yes.": ["Sorry!", "Yes."],
    }

    def reward(rollouts: Sequence[Rollout]) -> list[float]:
        return [float(one.text == right[one.prompt.messages[-1].content]) for one in rollouts]

    tokenizer = Tokenizer.load(workshop.finished("sft"))
    side = []
    for asked, texts in said.items():
        messages = (Message("user", asked),)
        ids = encode_chat(tokenizer, messages, generation_prompt=True).ids
        scores = np.array([float(text == right[asked]) for text in texts])
        pool = Pool(as_dicts(messages), "s", texts, scores, None, [True, True])
        side.append((Prompt(tuple(ids), messages), pool))
    given = settings(workshop, tmp_path / "out") | {"max_new_tokens": 64}
    config = BestOfNConfig(**given, across_prompts=True)
    found = _across_prompts(config, tokenizer, reward, side)
    as_read = {(one["prompt"][-1]["content"], one["chosen"], one["rejected"]) for one in found}
    assert as_read == {
        ("I am sad.", "Sorry!", "I will not help."),
        ("I am sad.", "Sorry!", "Yes."),
    }
    assert len(found) == 2
    # It is preferred as often as its pairs reject it more often than they choose it.
    sad = as_dicts((Message("user", "I am sad."),))
    chosen = Pool(sad, "s", ["Sorry!", "Yes."], np.array([1.0, 0.0]), None, [True, True])
    for times in (1, 2):
        more = [*side, *[(side[0][0], chosen)] * times]
        assert len(_across_prompts(config, tokenizer, reward, more)) == 2 - times
    # A source that is left out has no such pairs, but its answers are counted.
    apart = config.model_copy(update={"across_prompts_except": ("t*",)})
    others = [(prompt, replace(pool, source="tea")) for prompt, pool in side[1:]]
    assert _across_prompts(apart, tokenizer, reward, [side[0], *others]) == []
    rejected = {
        one["rejected"] for one in _across_prompts(apart, tokenizer, reward, [*side, others[0]])
    }
    assert rejected == {"I will not help.", "Yes."}
    # Where the better answer of a pair is as good to the other prompt, nothing is preferred.
    right["I am sad."] = "Yes."
    assert {one["rejected"] for one in _across_prompts(config, tokenizer, reward, side)} == {
        "I will not help."
    }


def test_pairs_across_prompts_stay_on_their_side(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The best answer for one half of the prompts is the worst for the other.
    (tmp_path / "by_prompt.py").write_text(
        "def reward(prompts, completions):\n"
        "    return [len(said) * (-1) ** len(asked) for asked, said in zip(prompts, completions)]\n"
    )
    monkeypatch.chdir(tmp_path)
    given = settings(workshop, tmp_path / "plain") | {"gold": None, "reward": "by_prompt:reward"}
    plain = run(BestOfNConfig(**given))
    both = run(BestOfNConfig(**given | {"out": tmp_path / "both"}, across_prompts=True))
    assert (plain / "answers.jsonl").read_bytes() == (both / "answers.jsonl").read_bytes()
    more = 0
    for side in ("train", "heldout"):
        of_its_own, all_pairs = (
            (folder / "preferences" / f"{side}.jsonl").read_text().splitlines()
            for folder in (plain, both)
        )
        assert all_pairs[: len(of_its_own)] == of_its_own
        own = {json.dumps(json.loads(row)["prompt"]) for row in of_its_own}
        others = [json.loads(row) for row in all_pairs[len(of_its_own) :]]
        assert {json.dumps(row["prompt"]) for row in others} <= own | {
            json.dumps(json.loads(row)["messages"][:-1])
            for row in (both / "conversations" / f"{side}.jsonl").read_text().splitlines()
        }
        more += len(others)
    assert more


def test_sources_without_pairs_across_prompts_are_named(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = command(workshop, tmp_path / "out")[3:]
    assert main([*asked, "--across-prompts-except", "harm-*"]) == 2
    assert "across_prompts_except=harm-* needs across_prompts" in capsys.readouterr().err
    assert main([*asked, "--across-prompts", "--across-prompts-except", "harm-*"]) == 2
    error = capsys.readouterr().err
    assert "across_prompts_except names harm-*, which has no prompt; there are " in error
    assert error.count("\n") == 1


# Which prompts are asked, and which are held out together.


def of_sources(folder: Path) -> Path:
    """40 prompts about the sea in groups of four, and 20 about the sky."""
    rows = [
        {
            "prompt": f"What is the colour of the {source[:3]}, number {i}?",
            "source": source,
            "group": f"{source} {g}",
        }
        for source, count in (("sea-deep", 40), ("sky", 20))
        for i, g in ((i, i // 4) for i in range(count))
    ]
    path = folder / "sources.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("mixture", "sky", "count"),
    [
        ({}, range(7, 14), 30),
        # Sources without a share fill the rest.
        ({"sky": 0.1}, [3], 30),
        ({"sky": 0.5}, [15], 30),
        ({"sky": 0.99}, range(16, 21), 30),  # all of it that is not held out
        ({"sea-*": 0.2, "sky": 0.4}, [12], 18),
    ],
)
def test_a_source_has_its_share_of_the_prompts(
    workshop: Any, tmp_path: Path, mixture: dict[str, float], sky: Sequence[int], count: int
) -> None:
    config = settings(workshop, tmp_path / "out") | {
        "prompts": of_sources(tmp_path),
        "questions": 30,
        "mixture": mixture,
    }
    lines = read_lines(run(BestOfNConfig(**config)) / "answers.jsonl")
    asked = [(line["source"], json.dumps(line["prompt"])) for line in lines]
    assert len(set(asked)) == len(asked)
    assert sum(source == "sky" for source, _ in asked) in sky
    assert len(asked) == count


def test_a_share_is_filled_from_all_prompts(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with more prompts than any run reads, most of them of other sources."""
    monkeypatch.setattr("groundup.align.prompts._MAX", 15)
    config = settings(workshop, tmp_path / "out") | {
        "prompts": of_sources(tmp_path),
        "questions": 12,
        "mixture": {"sky": 0.75},
    }
    lines = read_lines(run(BestOfNConfig(**config)) / "answers.jsonl")
    assert sum(line["source"] == "sky" for line in lines) == 9 and len(lines) == 12


def test_a_group_is_held_out_whole(workshop: Any, tmp_path: Path) -> None:
    config = settings(workshop, tmp_path / "out") | {
        "prompts": of_sources(tmp_path),
        "questions": 60,
    }
    found = run(BestOfNConfig(**config))
    groups = {line["group"] for line in read_lines(found / "answers.jsonl")}
    for kind in ("conversations", "preferences"):
        train, heldout = (
            {json.loads(row)["group"] for row in (found / kind / f"{side}.jsonl").open()}
            for side in ("train", "heldout")
        )
        assert not train & heldout and train | heldout <= groups
        assert train and heldout


def test_answers_to_prompts_of_a_data_folder_are_counted_by_its_sets(
    workshop: Any, tmp_path: Path, whole: Path
) -> None:
    config = settings(workshop, tmp_path / "out") | {"prompts": workshop.data}
    found = run(BestOfNConfig(**config))
    counts = json.loads((found / "data.json").read_text())["counts"]
    for place, of_place in counts.items():
        rows = [json.loads(row) for row in (found / f"{place}.jsonl").open()]
        assert of_place["by_source"] == Counter(row["source"] for row in rows), place
    assert counts["preferences/train"]["by_source"]
    # Own prompts belong to no set, whatever their name.
    assert "counts" not in json.loads((whole / "data.json").read_text())


@pytest.mark.parametrize(("share", "groups"), [(0.0, 0), (1e-6, 1)])
def test_a_group_is_held_out_for_any_small_share(
    workshop: Any, tmp_path: Path, share: float, groups: int
) -> None:
    config = settings(workshop, tmp_path / "out") | {
        "prompts": of_sources(tmp_path),
        "questions": 60,
        "heldout": share,
    }
    rows = (run(BestOfNConfig(**config)) / "conversations" / "heldout.jsonl").read_text()
    assert len({json.loads(row)["group"] for row in rows.splitlines()}) == groups


def test_hash_split_data_have_the_same_held_out_rate(workshop: Any, tmp_path: Path) -> None:
    # The half that a data set holds out by hash is the upper half.
    groups = [group for group in map(str, range(300)) if split_hash(group) >= 0.5][:120]
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"{group}?", "group": group}) + "\n" for group in groups)
    )
    config = settings(workshop, tmp_path / "out") | {
        "prompts": path,
        "questions": 120,
        "heldout": 0.2,
    }
    found = run(BestOfNConfig(**config)) / "conversations"
    train, heldout = (
        len((found / f"{side}.jsonl").read_text().splitlines()) for side in ("train", "heldout")
    )
    assert 0.1 < heldout / (train + heldout) < 0.3 and train + heldout > 60


def place(group: str) -> float:
    """The random position of a group, independent of the hash that splits data."""
    return split_hash(f"best-of-n {group}")


def test_every_source_with_enough_groups_has_one_held_out(workshop: Any, tmp_path: Path) -> None:
    # Some prompts of the sea are held out by chance, none of the sky.
    named = [(source, f"{source} {g}") for source in ("sea", "sky") for g in range(40)]
    kept = {
        "sea": [group for source, group in named if source == "sea"][:10],
        "sky": [g for source, g in named if source == "sky" and place(g) >= 0.2][:10],
    }
    assert any(place(group) < 0.2 for group in kept["sea"])
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"{group}, {i}?", "source": source, "group": group}) + "\n"
            for source, groups in kept.items()
            for group in groups
            for i in range(2)
        )
    )
    config = settings(workshop, tmp_path / "out") | {
        "prompts": path,
        "questions": 40,
        "heldout": 0.2,
    }
    found = run(BestOfNConfig(**config)) / "conversations"
    train, heldout = (
        {
            (row["source"], row["group"])
            for row in map(json.loads, (found / f"{side}.jsonl").read_text().splitlines())
        }
        for side in ("train", "heldout")
    )
    assert {source for source, _ in heldout} == {"sea", "sky"}
    assert len([group for source, group in heldout if source == "sky"]) == 1
    assert not train & heldout


# Bad input.


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"exclude": "."}, ["exclude=.", "answers.jsonl"]),
        ({"n": 1}, ["n=1", "at least 2"]),
        ({"reward": "kindness"}, ["'kindness'", "not a reward", "length:WORDS"]),
        ({"gold": "kindness"}, ["'kindness'", "not a reward"]),
        ({"sources": "moon"}, ["sources=moon", "asked"]),
        ({"mixture.moon": 0.2}, ["mixture", "moon", "asked"]),
        ({"prompts": "nowhere.jsonl"}, ["nowhere.jsonl"]),
        ({"model": "nowhere"}, ["nowhere"]),
        ({"heldout": 1.0}, ["heldout=1", "less than 1"]),
        ({"max_new_tokens": 60}, ["prompt", "--max-new-tokens"]),
        ({"reward": "sum"}, ["sum", "answer"]),
    ],
)
def test_bad_input_is_reported_in_one_sentence(
    workshop: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    told: list[str],
) -> None:
    given = settings(workshop, tmp_path / "out") | changed
    words = [w for name, value in given.items() for w in (f"--{name.replace('_', '-')}", value)]
    capsys.readouterr()
    code = main(["best-of-n", *map(str, words)])
    said = capsys.readouterr().err
    assert code == 2, said
    error = said[said.index("error: ") :]
    assert error.count("\n") == 1 and "Traceback" not in said
    for one in told:
        assert one in error, error
