"""Rewards of answers: the same prompts for every model; wins and nats against the first."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import WithToken
from groundup.align.best_of_n import kl_bound
from groundup.align.comparison import Answered, gain_table, methods, source_table
from groundup.align.prompts import Prompt, load_prompts
from groundup.align.rewards.by_name import open_rollout_reward
from groundup.align.rollout import Rollout, load_policy, sample
from groundup.app.cli import main
from groundup.data.split import evenly_spaced
from groundup.formats.load import load, load_tokenizer
from groundup.report.claim import MIN_GROUPS
from groundup.report.estimate import ratio
from groundup.runs.files import read_lines
from groundup.train.batch import Batch
from groundup.train.loop import step_seed

SMALL = ["--questions", "6", "--max-new-tokens", "8", "--threads", "1"]


def test_models_answer_the_same_prompts_and_are_compared_with_the_first(
    workshop: Any, tmp_path: Path
) -> None:
    base, sft = workshop.finished("pretrain"), workshop.finished("sft")
    out = tmp_path / "out"
    words = ["eval", "rewards", str(sft), str(base), "--reward", "length:4"]
    words += ["--gold", "format:blue", "--prompts", str(workshop.data), "--out", str(out), *SMALL]
    assert main(words) == 0
    found = json.loads((out / "result.json").read_text())["models"]
    assert list(found) == ["sft", "pretrain"]
    first = found["sft"]
    assert first["nats"]["estimate"] == 0
    assert first["reward: wins against sft"]["estimate"] == 0.5  # every prompt a tie
    worth = np.array([[a["reward"] for a in one["answers"]] for one in found.values()])
    wins = (np.sign(worth[1] - worth[0]) + 1) / 2
    told = found["pretrain"]["reward: wins against sft"]["estimate"]
    assert told == pytest.approx(wins.mean())
    gain = found["pretrain"]["reward: gain on sft"]
    assert gain["estimate"] == pytest.approx((worth[1] - worth[0]).mean())
    # The same prompts are compared: the interval is that of the differences.
    assert gain["low"] == pytest.approx(ratio((worth[1] - worth[0]).ravel()).low)
    assert first["reward: gain on sft"]["estimate"] == 0
    gold = [float("blue" in a["text"]) for a in first["answers"]]
    assert [a["gold"] for a in first["answers"]] == gold
    assert (out / "report.html").is_file()
    model = tmp_path / "model"
    shutil.copytree(base, model)
    assert main(["card", str(model), "--reports", str(out)]) == 0
    card = (model / "README.md").read_text()
    # As the option was called when one kind of report alone was taken.
    assert main(["card", str(model), "--values", str(out)]) == 0
    assert (model / "README.md").read_text() == card
    for what, key in (
        ("worth of an answer by its reward", "reward"),
        ("worth of an answer by its gold", "gold"),
        ("wins against sft by its reward", "reward: wins against sft"),
    ):
        one = found["pretrain"][key]
        shown = f"{100 * one['low']:.1f} %" if "wins" in key else f"{one['low']:z.3f}"
        [line] = [line for line in card.splitlines() if line.startswith(f"| {what} |")]
        assert shown in line and line.endswith(" 6 |"), line
    assert "eval rewards: gold: format:blue" in card.partition("## The judges")[2]
    assert "none trained on: no --judge was given" in card
    # The reward is length, which decides what is better or worse.
    sign = "Better" if gain["low"] > 0 else "Worse"
    if gain["groups"] >= MIN_GROUPS and not gain["low"] <= 0 <= gain["high"]:
        part = card.partition(f"{sign} than what it is compared with")[2]
        assert "- worth of an answer by its reward: pretrain against sft" in part


def test_models_that_differ_in_an_added_token_are_not_compared(
    workshop: Any, tmp_path: Path, with_token: WithToken, capsys: pytest.CaptureFixture[str]
) -> None:
    zebra, horse = (with_token(workshop.finished("sft"), word) for word in ("zebra", "horse"))
    words = ["eval", "rewards", str(zebra), str(horse), "--reward", "length:4", *SMALL]
    out = tmp_path / "out"
    assert main([*words, "--prompts", str(workshop.data), "--out", str(out)]) == 2
    assert f"{horse} has another tokenizer than {zebra}" in capsys.readouterr().err


def test_nats_equal_those_of_a_slow_loop(workshop: Any, tmp_path: Path) -> None:
    from groundup.align.comparison import _log_ratios

    first, tokenizer = load(workshop.finished("sft"))
    other, _ = load(workshop.finished("pretrain"))
    prompts = load_prompts(workshop.data, tokenizer, longest=100)[1][:3]
    rollouts = sample(other, prompts, tokenizer, max_new_tokens=8, seed=0)
    expected = []
    for one in rollouts:
        ids, asked = torch.tensor([one.example.ids]), len(one.prompt.ids)
        with torch.no_grad():
            logp = [m.logits(Batch.of(ids)).double().log_softmax(-1)[0] for m in (other, first)]
        places = range(asked, ids.shape[1])
        sums = [sum(float(of[i - 1, ids[0, i]]) for i in places) for of in logp]
        expected.append(sums[0] - sums[1])
    np.testing.assert_allclose(_log_ratios(other, first, rollouts), expected, atol=1e-3)


def test_pass_at_k_equals_the_count_over_all_subsets(workshop: Any, tmp_path: Path) -> None:
    models = [str(workshop.finished(stage)) for stage in ("sft", "pretrain")]
    out = tmp_path / "out"
    words = ["eval", "rewards", *models, "--reward", "format:[ae]", "--samples", "10"]
    words += ["--missing-eos-penalty", "0", "--prompts", str(workshop.data), "--out", str(out)]
    assert main([*words, *SMALL]) == 0
    written = json.loads((out / "result.json").read_text())
    assert written["prompts"] == 6 and written["samples"] == 10
    for one in written["models"].values():
        right = np.array([answer["reward"] for answer in one["answers"]]).reshape(6, 10)
        assert one["reward"]["estimate"] == pytest.approx(right.mean())
        chances = [np.mean([any(some) for some in itertools.combinations(row, 8)]) for row in right]
        assert one["reward: best of 8"]["estimate"] == pytest.approx(np.mean(chances))
        by_source = one["reward: by source"].values()
        assert sum(part["prompts"] for part in by_source) == 6
        pooled = sum(part["prompts"] * part["mean"]["estimate"] for part in by_source) / 6
        assert pooled == pytest.approx(right.mean())
    passes = [one["reward"]["estimate"] for one in written["models"].values()]
    assert any(0 < share < 1 for share in passes)  # otherwise it proves nothing
    page = (out / "report.html").read_text()
    assert "pass@1" in page and "pass@8" in page


def compare(out: Path, workshop: Any, *words: str) -> dict[str, Any]:
    """The result of `groundup eval rewards` with these arguments."""
    given = ["eval", "rewards", *words, "--reward", "length:4", "--prompts", str(workshop.data)]
    assert main([*given, "--out", str(out), *SMALL]) == 0
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def test_a_judge_is_a_second_reward_and_unended_answers_are_penalized(
    workshop: Any, tmp_path: Path
) -> None:
    sft, judge = workshop.finished("sft"), workshop.finished("reward")
    found = compare(tmp_path / "out", workshop, str(sft), "--judge", str(judge))
    tokenizer = load_tokenizer(sft)
    [one] = found["models"].values()
    prompts = load_prompts(workshop.data, tokenizer, longest=100)[1]
    rollouts = sample(
        load_policy(sft, "cpu")[0], evenly_spaced(prompts, 6), tokenizer, max_new_tokens=8, seed=0
    )
    scores = open_rollout_reward(str(judge), tokenizer)(rollouts)
    expected = [
        score if rollout.ended else min(score, 0.0) - 1.0
        for score, rollout in zip(scores, rollouts, strict=True)
    ]
    assert [answer["judge"] for answer in one["answers"]] == pytest.approx(expected)
    assert one["judge"]["estimate"] == pytest.approx(np.mean(expected))
    assert "judge: wins against sft" in one
    parents = json.loads((tmp_path / "out" / "run.json").read_text())["parents"]
    assert parents["judge"]["path"] == str(judge)


def test_the_best_of_n_is_chosen_by_the_reward(workshop: Any, tmp_path: Path) -> None:
    sft = workshop.finished("sft")
    gold = ["--gold", "format:blue"]
    found = compare(tmp_path / "out", workshop, str(sft), *gold, "--best-of", "5")["models"]
    assert list(found) == ["sft", "sft, best of 5"]
    best = found["sft, best of 5"]
    model, tokenizer = load_policy(sft, "cpu")
    prompts = evenly_spaced(load_prompts(workshop.data, tokenizer, longest=100)[1], 6)
    copies = [prompt for prompt in prompts for _ in range(5)]
    # Sampled again: with the first model's own answer among them, they could not be worse.
    seed = step_seed(0, 0)
    rollouts = sample(model, copies, tokenizer, max_new_tokens=8, seed=seed)
    # length:4 is 1 at four words, less for more and for fewer; what does not end is worth -1.
    worth = [
        max(0.0, 1 - abs(len(one.text.split()) - 4) / 4) if one.ended else -1.0 for one in rollouts
    ]
    for place, answer in enumerate(best["answers"]):
        pool = worth[5 * place : 5 * place + 5]
        assert answer["reward"] == pytest.approx(max(pool))
        assert answer["text"] == rollouts[5 * place + pool.index(max(pool))].text
        assert answer["gold"] == float("blue" in answer["text"])
    assert best["nats"] == {"at_most": kl_bound(5)}


def test_variants_of_one_prompt_are_resampled_together(workshop: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"Is it {n // 4}?{' ' * (n % 4)}", "group": f"g{n // 4}"} for n in range(40)]
    alone = [row | {"group": f"{n}"} for n, row in enumerate(rows)]
    for name, some in (("alone", alone), ("grouped", rows)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in some))
        words = ["eval", "rewards", str(workshop.finished("sft")), "--reward", "length:4"]
        words += ["--prompts", str(file), "--out", str(tmp_path / name), *SMALL[2:]]
        assert main([*words, "--questions", "40", "--best-of", "2"]) == 0
        found = json.loads((tmp_path / name / "result.json").read_text())["models"]
        groups = {one["reward"]["groups"] for one in found.values()}
        assert groups | {found["sft"]["nats"]["groups"]} == {10 if name == "grouped" else 40}


def test_runs_that_differ_only_in_the_seed_are_one_method(workshop: Any, tmp_path: Path) -> None:
    runs = []
    for name, changes in {"dpo-0": {}, "dpo-1": {"seed": 1}, "hot": {"beta": 0.7}}.items():
        runs.append(tmp_path / name)
        code, said = workshop.run_here(workshop.command("dpo", runs[-1], steps=3, **changes))
        assert code == 0, said
    words = [str(path) for path in (workshop.finished("sft"), *runs)]
    found = compare(tmp_path / "out", workshop, *words, "--gold", "format:blue")
    assert list(found["methods"]) == ["dpo"]
    dpo = found["methods"]["dpo"]
    assert dpo["runs"] == ["dpo-0", "dpo-1"]
    worth = [
        [answer["gold"] for answer in found["models"][name]["answers"]]
        for name in ("sft", "dpo-0", "dpo-1")
    ]
    assert dpo["gold"]["estimate"] == pytest.approx(np.mean(worth[1:]))
    assert dpo["gold"]["items"] == 2 * found["prompts"] == 2 * dpo["gold"]["groups"]
    wins = (np.sign(np.array(worth[1:]) - worth[0]) + 1) / 2
    assert dpo["gold: wins against sft"]["estimate"] == pytest.approx(wins.mean())
    spent = [line["seconds"] for line in read_lines(runs[0] / "metrics.jsonl")]
    assert found["models"]["dpo-0"]["minutes"] == pytest.approx(sum(spent) / 60)


def test_only_a_binary_reward_has_pass_at_k(workshop: Any, tmp_path: Path) -> None:
    """Also where all answers happen to have 0 or 1 by another reward."""
    sft, out = str(workshop.finished("sft")), tmp_path / "out"
    words = ["eval", "rewards", sft, "--reward", "format:blue", "--judge", "length:1"]
    words += ["--samples", "8", "--missing-eos-penalty", "0", "--prompts", str(workshop.data)]
    assert main([*words, "--out", str(out), *SMALL]) == 0
    [found] = json.loads((out / "result.json").read_text())["models"].values()
    assert {answer["judge"] for answer in found["answers"]} <= {0.0, 1.0}
    page = (out / "report.html").read_text()
    assert page.count("pass@8") == 1 and "reward: pass@1" in page
    assert page.count("best of 8") == 1


def test_each_source_has_a_row_and_models_are_columns() -> None:
    prompts = [Prompt((1,), source=source) for source in ("b", "a", "b")]
    rollouts = [Rollout(prompt, (2,), (0.0,), "", ended=True) for prompt in prompts]
    models = [
        Answered(name, rollouts, {"reward": np.array(worth)[:, None]}, None, 0.0)
        for name, worth in (("sft", [1.0, 3.0, 2.0]), ("dpo", [5.0, 6.0, 7.0]))
    ]
    table = source_table(models[0], methods(models))
    assert table.heads == ["prompts of", "sft", "dpo"]
    shown = [[cell.partition("\n")[0] for cell in row] for row in table.lines]
    assert shown == [["a (1)", "3.000", "6.000"], ["b (2)", "1.500", "6.000"]]


def test_an_interval_needs_prompts_and_spread_and_has_the_digits_of_its_estimate() -> None:
    # The gain of the first prompt is greater by so much, and of the last less.
    for count, apart in ((1, 0.0), (5, 0.5), (6, 0.5), (6, 0.0)):
        more = np.zeros(count)
        more[[0, -1]] += apart, -apart
        prompts = [Prompt((place,), source="a") for place in range(count)]
        rollouts = [Rollout(prompt, (2,), (0.0,), "", ended=True) for prompt in prompts]
        models = [
            Answered(name, rollouts, {"reward": (worth + np.arange(count))[:, None]}, None, 0.0)
            for name, worth in (("sft", 0.25), ("dpo", 1.0 + more))
        ]
        table = gain_table(models[0], methods(models))
        [[_, gain]] = table.lines
        change, _, interval = gain.partition("\n")
        assert change == "+0.750"
        if count < 6 or not apart:
            assert interval == ""
        else:
            assert re.fullmatch(r"\+0\.\d{3} to \+\d\.\d{3}", interval)


def test_names_of_methods() -> None:
    def answered(name: str, kind: str) -> Answered:
        return Answered(name, [], {}, None, 0.0, kind)

    found = [answered("sft", "a"), answered("sft-2", "a")]
    assert [one.name for one in methods(found)] == ["sft", "sft-2"]  # the first one alone
    found += [answered(name, "b") for name in ("ppo-0", "ppo-1")]
    found += [
        answered("ppo-2", "c"),
        answered("ppo-3", "c"),
        answered("0", "d"),
        answered("1", "d"),
    ]
    names = [one.name for one in methods(found)]
    assert names == ["sft", "sft-2", "ppo-0, ppo-1", "ppo-2, ppo-3", "0, 1"]


def test_a_model_that_is_given_twice_is_rejected(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft = str(workshop.finished("sft"))
    words = ["eval", "rewards", sft, sft, "--reward", "json", "--prompts", str(workshop.data)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "named twice" in capsys.readouterr().err
