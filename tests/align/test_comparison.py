"""What answers are worth: the same prompts for every model, wins and nats against the first."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.app.cli import main
from groundup.formats.load import load
from groundup.train.batch import Batch

SMALL = ["--questions", "6", "--max-new-tokens", "8", "--threads", "1"]


def test_models_answer_the_same_prompts_and_are_held_against_the_first(
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
    gold = [float("blue" in a["text"]) for a in first["answers"]]
    assert [a["gold"] for a in first["answers"]] == gold
    assert (out / "report.html").is_file()


def test_nats_are_those_of_a_slow_loop(workshop: Any, tmp_path: Path) -> None:
    from groundup.align.comparison import _apart
    from groundup.align.prompts import load_prompts
    from groundup.align.rollout import sample

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
    np.testing.assert_allclose(_apart(other, first, rollouts), expected, atol=1e-3)


def test_passes_of_several_answers_are_chances_counted_over_all_subsets(
    workshop: Any, tmp_path: Path
) -> None:
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
    assert any(0 < share < 1 for share in passes)  # else it says nothing
    page = (out / "report.html").read_text()
    assert "pass@1" in page and "pass@8" in page


def test_a_model_that_is_named_twice_is_refused(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft = str(workshop.finished("sft"))
    words = ["eval", "rewards", sft, sft, "--reward", "json", "--prompts", str(workshop.data)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "named twice" in capsys.readouterr().err
