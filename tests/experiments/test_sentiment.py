"""The sentiment experiment: its pairs, its measures, and the whole of it in miniature."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from groundup.align.prompts import Prompt
from groundup.align.rollout import Reference
from groundup.errors import UserError
from groundup.experiments.config import SentimentConfig
from groundup.experiments.sentiment import (
    History,
    Measuring,
    Openings,
    Pool,
    distinct_2,
    remarks,
    run,
)
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.report.estimate import ratio
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from pages import assert_self_contained


def test_the_ith_best_is_preferred_to_the_ith_worst() -> None:
    ids = [[10], [11], [12], [13], [14], [15]]
    pool = Pool((1, 2), ids, np.array([0.1, 0.9, 0.1, -0.5, 0.1, 0.3]))
    said = [(one.chosen.ids, one.rejected.ids) for one in pool.pairs]
    # The third best and the third worst have the same sentiment, so that there is no pair of them.
    assert said == [([1, 2, 11], [1, 2, 13]), ([1, 2, 15], [1, 2, 14])]
    assert all(one.chosen.loss_mask == [False, False, True] for one in pool.pairs)


def test_distinct_2_counts_pairs_of_words() -> None:
    assert distinct_2(["a b c", "A b"]) == pytest.approx(2 / 3)
    assert distinct_2(["so so so so so"]) == 1 / 4
    assert distinct_2([]) == distinct_2(["one"]) == 0


def test_a_gain_is_computed_opening_by_opening() -> None:
    """A small rise of every opening, far within their spread, is a rise."""
    before = np.linspace(-1, 0.9, 40)
    lines = [
        {"reward": ratio(values).to_json(), "rewards": values.tolist(), "kl": kl}
        for values, kl in ((before, 0.0), (before + 0.1 * np.tile([0.5, 1.5], 20), 1.25))
    ]
    history = History(lines, [])
    assert history.gain.estimate == pytest.approx(0.1) and history.gain.low > 0.08
    [said] = remarks({"ppo": history}, {1: history.rewards[0]})[:1]
    assert "for 1.2 nats; on the same openings +0.10" in said and said.endswith("more.")
    fallen = History([lines[1] | {"kl": 0.0}, lines[0] | {"kl": 0.3}], [])
    assert remarks({"ppo": fallen}, {1: history.rewards[0]})[0].endswith("less.")


def test_few_openings_show_no_gain() -> None:
    """Four that all rise do so by chance once in eight times, whatever the bootstrap shows."""
    for count, verdict in ((4, "not significant."), (40, "more.")):
        values = np.linspace(-1, 0.9, count)
        lines = [
            {"reward": ratio(one).to_json(), "rewards": one.tolist(), "kl": 0.1}
            for one in (values, values + 0.1 * np.tile([0.5, 1.5], count // 2))
        ]
        history = History(lines, [])
        assert history.gain.low > 0
        assert remarks({"ppo": history}, {1: history.rewards[0]})[0].endswith(verdict)


WORDS = " good bad love war happy sad"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that alternates between words with and without sentiment."""
    tokenizer = Tokenizer.from_bpe(train_bpe([f"{WORDS} table chair" * 9] * 4, 320))
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=128))
    model.initialize(0)
    words = [tokenizer.encode(f" {word}") for word in f"{WORDS} table chair".split()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = np.random.default_rng(0)
    for _ in range(40):
        rows = [
            np.concatenate(generator.permutation(np.array(words, object)))[:8] for _ in "12345678"
        ]
        ids = torch.tensor(np.array(rows, int))
        logits = model.logits(Batch.of(ids[:, :-1]))
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("sentiment") / "model"
    save_model(folder, model, tokenizer, card="")
    return folder


def test_bits_are_per_byte_of_the_scored_text(folder: Path) -> None:
    """The first token, which nothing predicts, and tokens beyond the row do not count."""
    model, tokenizer = load(folder)
    torch.nn.init.zeros_(model.head)  # every token is as likely as any other
    texts = [" good table", f"{WORDS} table chair" * 30]
    scored = [tokenizer.encode(text)[1:129] for text in texts]
    count, size = (
        sum(map(of, scored)) for of in (len, lambda ids: len(tokenizer.decode(ids).encode()))
    )
    assert count == len(scored[0]) + 128
    openings = Openings([], [Prompt((5, 6), row={"opening": "so"})], texts)
    found = Measuring(openings, tokenizer, 0)(model, Reference(lambda: model))
    assert found["bits_per_byte"] == pytest.approx(count * log2(320) / size, rel=1e-4)


@pytest.mark.long
def test_the_whole_experiment_in_miniature_resumes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sentiment"
    config = SentimentConfig(out=out, model=folder, quick=True, threads=1, methods=("dpo",))
    run(config)
    kept = (out / "dpo" / "metrics.jsonl").read_bytes()
    first = next(line for line in map(json.loads, kept.splitlines()) if line["kind"] == "train")
    # Before its first step the policy is the reference, but for rounding in another kernel.
    assert first["margin"] == pytest.approx(0, abs=1e-3)
    assert json.loads((out / "result.json").read_text())["seconds"] > 0
    # Nothing is left to compute: what is there is shown again, whatever the threads.
    run(config.model_copy(update={"threads": 2}))
    assert json.loads((out / "result.json").read_text())["config"]["threads"] == 1
    (out / "result.json").unlink()  # as if it had been stopped after DPO
    for path in (*out.glob("*.md"), *out.glob("*.html"), *out.glob("*.png"), *out.glob("*.svg")):
        path.unlink()
    with pytest.raises(UserError, match=r"begun with --threads 1, not with no --threads; give --"):
        run(config.model_copy(update={"threads": None, "methods": ("ppo", "dpo")}))
    run(config.model_copy(update={"methods": ("ppo", "grpo", "dpo")}))
    assert (out / "dpo" / "metrics.jsonl").read_bytes() == kept
    result = json.loads((out / "result.json").read_text())
    assert result["seconds"] is None  # DPO was trained in another start
    courses = result["data"]["methods"]
    assert list(courses) == ["ppo", "grpo", "dpo"]
    for name, course in courses.items():
        first, *_, last = course["measured"]
        # All start alike: with an adapter that adds nothing.
        assert first["kl"] == pytest.approx(0, abs=1e-6)
        assert first["reward"] == courses["ppo"]["measured"][0]["reward"]
        assert last["kl"] > 0 and -1 <= last["reward"]["estimate"] <= 1
        assert len(course["iterations"]) == (0 if name == "dpo" else 2)
    assert_self_contained((out / "report.html").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match="another"):
        run(config.model_copy(update={"seed": 5}))
    with pytest.raises(UserError, match="holds other files"):
        run(config.model_copy(update={"out": folder}))
    # Another model at the same place is another experiment: for its pool, and for each method.
    weights = folder / "model.safetensors"
    before, pool = weights.read_bytes(), out / "best-of-n" / "pool.json"
    model, tokenizer = load(folder)
    next(model.parameters()).data.mul_(1.01)
    save_model(folder, model, tokenizer, card="")
    with pytest.raises(UserError, match=r"pool\.json was made with another model than"):
        run(config)
    pool.unlink()
    with pytest.raises(UserError, match=r"dpo was begun from another model than"):
        run(config)
    weights.write_bytes(before)
