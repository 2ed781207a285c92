"""What answers are worth: the same prompts for every model, wins and nats against the first."""

from __future__ import annotations

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


def test_a_model_that_is_named_twice_is_refused(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft = str(workshop.finished("sft"))
    words = ["eval", "rewards", sft, sft, "--reward", "json", "--prompts", str(workshop.data)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "named twice" in capsys.readouterr().err
