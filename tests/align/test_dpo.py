"""DPO against the paper's formula in float64, and on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.align.dpo import dpo_loss, gained_by_source, pair_logprobs, preference_loss
from groundup.align.preferences import Pair, PairBatch, PairStream, tokenize_pairs
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.formats.load import load
from groundup.lm.model import CausalLM
from groundup.runs.files import read_lines
from groundup.runs.request import read_run
from groundup.text.example import Example
from groundup.train.batch import Batch


def paper(policy: np.ndarray, reference: np.ndarray, beta: float) -> np.ndarray:
    """Rafailov et al. 2023, equation 7, term by term; columns are chosen and rejected."""
    won, lost = (beta * (policy[:, i] - reference[:, i]) for i in (0, 1))
    return -np.log(1 / (1 + np.exp(-(won - lost))))


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_the_loss_equals_the_papers(beta: float) -> None:
    random = np.random.default_rng(0)
    policy, reference = random.normal(-30, 8, (2, 50, 2))
    given = torch.from_numpy(np.concatenate([policy, reference], 1)).requires_grad_()
    losses, margin = dpo_loss(*given.unbind(-1), beta)
    expected = paper(policy, reference, beta)
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-9, atol=1e-14)
    rewards = beta * (policy - reference)
    np.testing.assert_allclose(margin.detach().numpy(), rewards[:, 0] - rewards[:, 1], rtol=1e-9)
    # Equation after 7: the gradient is beta times how wrong the implicit reward is.
    [gradient] = torch.autograd.grad(losses.sum(), given)
    wrong = 1 / (1 + np.exp(rewards[:, 0] - rewards[:, 1]))
    np.testing.assert_allclose(gradient[:, 0], -beta * wrong, rtol=1e-9)
    np.testing.assert_allclose(gradient[:, 1], beta * wrong, rtol=1e-9)


def test_far_margins_stay_finite() -> None:
    far = torch.tensor([-1e4, 1e4])
    losses, _ = dpo_loss(far, -far, torch.zeros(2), torch.zeros(2), 1.0)
    assert losses.tolist() == [2e4, 0.0]


def slow_logprob(model: CausalLM, item: Example) -> float:
    """log p of an answer from the full logits of its sequence alone."""
    with torch.no_grad():
        logits = model.logits(Batch.of(torch.tensor([item.ids]))).double()
    logprobs = logits.log_softmax(-1)[0]
    places = [i for i in range(1, len(item.ids)) if item.loss_mask[i]]
    return sum(float(logprobs[i - 1, item.ids[i]]) for i in places)


def first_batch(workshop: Any, reference: np.ndarray | None = None) -> tuple[Any, list[Pair]]:
    _, tokenizer = load(workshop.finished("sft"))
    pairs, _ = tokenize_pairs(
        tokenizer, split(workshop.data, "preferences", read_preferences)[0].rows[:6], 64
    )
    stream = PairStream(
        pairs,
        np.zeros((6, 2), np.float32) if reference is None else reference,
        context=64,
        rows=16,
        micro_rows=16,
        seed=0,
    )
    [batch] = stream.at(0, torch.nn.Identity())
    assert isinstance(batch, PairBatch) and batch.weight == 6
    return batch, pairs


def test_a_packed_batch_gives_the_papers_loss(workshop: Any) -> None:
    model, _ = load(workshop.finished("pretrain"))
    random = np.random.default_rng(1).normal(-20, 3, (6, 2)).astype(np.float32)
    batch, pairs = first_batch(workshop, random)
    found = preference_loss(model, batch, beta=0.3)
    policy = np.array([[slow_logprob(model, s) for s in (p.chosen, p.rejected)] for p in pairs])
    assert found.total.item() == pytest.approx(paper(policy, random, 0.3).sum(), rel=1e-4)
    assert found.weight == 6
    correct = (policy - random)[:, 0] > (policy - random)[:, 1]
    assert found.metrics["accuracy"] == (correct.sum(), 6)
    assert found.metrics["chosen_logprob"] == (pytest.approx(policy[:, 0].sum(), rel=1e-4), 6)
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_sft_term_is_a_mean_over_the_chosen_answers_tokens(workshop: Any) -> None:
    model, _ = load(workshop.finished("pretrain"))
    batch, pairs = first_batch(workshop)
    plain, added = (preference_loss(model, batch, 0.3, nll).total.item() for nll in (0.0, 0.5))
    means = [slow_logprob(model, p.chosen) / sum(p.chosen.loss_mask[1:]) for p in pairs]
    assert added - plain == pytest.approx(-0.5 * sum(means), rel=1e-4)


def test_a_policy_equal_to_its_reference_has_loss_log_2(workshop: Any) -> None:
    model, _ = load(workshop.finished("sft"))
    _, pairs = first_batch(workshop)
    batch, _ = first_batch(workshop, pair_logprobs(model, pairs, 64))
    found = preference_loss(model, batch, beta=0.5)
    assert found.total.item() / 6 == pytest.approx(math.log(2), rel=1e-4)


def test_pair_logprobs_equal_those_of_each_answer_alone(workshop: Any) -> None:
    model, _ = load(workshop.finished("sft"))
    _, pairs = first_batch(workshop)
    expected = [[slow_logprob(model, s) for s in (p.chosen, p.rejected)] for p in pairs]
    np.testing.assert_allclose(pair_logprobs(model, pairs, 64), expected, rtol=1e-3, atol=1e-3)


def test_pairs_of_a_group_are_resampled_together() -> None:
    """50 groups of 6 identical pairs have the information of 50 pairs."""
    gained = np.repeat(np.arange(50) < 31, 6).astype(float)
    groups = [str(place // 6) for place in range(300)]
    found = gained_by_source(gained, ["mine"] * 300, groups)
    alone = gained_by_source(gained, ["mine"] * 300, [str(place) for place in range(300)])
    for name in ("pooled", "mine"):
        assert (found[name].items, found[name].groups) == (300, 50)
        assert found[name].estimate == alone[name].estimate == 0.62
        assert alone[name].low > 0.5 > found[name].low
    # Pairs that all are of one group say as much as one, and prove nothing.
    of_one = gained_by_source(gained, ["mine"] * 300, ["g"] * 300)["mine"]
    assert (of_one.estimate, of_one.items, of_one.groups) == (0.62, 300, 1)
    assert of_one.low < found["mine"].low and of_one.high > found["mine"].high


def test_the_runs_evaluations_resample_whole_groups(workshop: Any) -> None:
    heldout = split(workshop.data, "preferences", read_preferences)[1].rows
    groups = {row.group for row in heldout}
    for stage in ("dpo", "kto", "reward"):
        lines = read_lines(workshop.finished(stage) / "metrics.jsonl")
        last = [line for line in lines if line["kind"] == "evaluation"][-1]
        found = last["heldout"] if stage == "reward" else last["heldout_by_source"]["pooled"]
        assert found["groups"] == len(groups) < found["items"], stage


@pytest.mark.parametrize("stage", ["dpo", "kto", "reward"])
def test_unused_columns_are_reported_once(stage: str, workshop: Any, tmp_path: Path) -> None:
    """Together with other facts, such as the number of votes behind the pairs."""
    rows = [
        {"prompt": f"{word}?", "chosen": "yes", "rejected": "no", "margin": 2.0, "notes": None}
        for word in ("sea", "grass", "snow", "coal")
    ]
    rows.append({"prompt": "sun?", "a": "x", "b": "y", "choice": "a", "who": "me", "mood": "good"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    command = workshop.command(stage, tmp_path / "out", data=path, steps=2)
    code, said = workshop.run_here(command)
    assert code == 0, said
    assert said.count(f"{path}: columns not read: margin, mood\n") == 1


@pytest.mark.parametrize("stage", ["dpo", "kto", "reward"])
def test_columns_may_have_other_names(stage: str, workshop: Any, tmp_path: Path) -> None:
    rows = [
        {"question": f"{word}?", "chosen": "yes", "rejected": "no", "system": "Be brief."}
        for word in ("sea", "grass", "snow", "coal")
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = workshop.command(stage, tmp_path / "out", data=path, steps=1)
    code, said = workshop.run_here(command)
    assert code == 2 and "no 'prompt'" in said
    code, said = workshop.run_here([*command, "--columns", "prompt=questoin"])
    assert code == 2 and "no row has a column 'questoin'; did you mean 'question'?" in said
    code, said = workshop.run_here([*command, "--columns", "prompt=question"])
    assert code == 0, said
    assert read_run(tmp_path / "out")["config"]["columns"] == ["prompt=question"]


def test_it_raises_preference_accuracy(workshop: Any) -> None:
    # Steps of more pairs than the shared run's, and smaller ones: these bounds leave room for
    # rounding.
    folder = workshop.folder / "dpo-longer"
    more = {"steps": 24, "rows": 16, "micro_rows": 4}
    more |= {"learning_rate": 0.001, "embedding_learning_rate": 0.001}
    code, said = workshop.run_here(workshop.command("dpo", folder, **more))
    assert code == 0, said
    policy, tokenizer = load(folder)
    reference, _ = load(workshop.finished("sft"))
    accuracies = []
    for side in split(workshop.data, "preferences", read_preferences):
        pairs, _ = tokenize_pairs(tokenizer, side.rows, 64)
        gained = pair_logprobs(policy, pairs, 64) - pair_logprobs(reference, pairs, 64)
        accuracies.append(float(np.mean(gained[:, 0] > gained[:, 1])))
    seen, heldout = accuracies
    assert seen > 0.8 and heldout > 0.6, accuracies
    lines = read_lines(folder / "metrics.jsonl")
    margins = [line["margin"] for line in lines if line["kind"] == "train"]
    assert margins[0] == pytest.approx(0, abs=1e-3) and np.mean(margins[-4:]) > 0.5
    measured = [line["heldout_accuracy"] for line in lines if line["kind"] == "evaluation"]
    assert measured[-1] == pytest.approx(heldout)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_minute_reads_few_pairs_at_most_three_times(
    method: str, workshop: Any, tmp_path: Path
) -> None:
    rows = (workshop.data / "preferences" / "train.jsonl").read_text().splitlines()[:30]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    out = tmp_path / "out"
    given = {"steps": None, "minutes": 1, "save_every": None, "data": tmp_path / "pairs.jsonl"}
    code, said = workshop.run_here(workshop.command(method, out, **given))
    assert code == 0, said
    assert "3 passes over the data are enough" in said
    assert json.loads((out / "status.json").read_text())["steps"] < 3 * 30


def test_reference_logprobs_are_computed_only_for_pairs_that_are_read(workshop: Any) -> None:
    def kept(name: str, steps: int) -> torch.Tensor:
        out = workshop.folder / name
        code, said = workshop.run_here(workshop.command("dpo", out, steps=steps))
        assert code == 0, said
        return load_file(out / "reference.safetensors")["logprobs"]

    few, more = kept("dpo-of-one-step", 1), kept("dpo-of-three-steps", 3)
    asked, wanted = (~one.isnan().any(1) for one in (few, more))
    # The ten held-out pairs come last.
    assert 10 < int(asked.sum()) < int(wanted.sum()) <= len(few) and bool(asked[-10:].all())
    assert_close(few[asked], more[asked])


def test_the_reference_computes_in_the_dtype_of_the_run(workshop: Any) -> None:
    def kept(dtype: str) -> torch.Tensor:
        out = workshop.folder / f"dpo-in-{dtype}"
        code, said = workshop.run_here(workshop.command("dpo", out, steps=1, dtype=dtype))
        assert code == 0, said
        return load_file(out / "reference.safetensors")["logprobs"][-10:]

    model, tokenizer = load(workshop.finished("sft"))
    heldout, _ = tokenize_pairs(
        tokenizer, split(workshop.data, "preferences", read_preferences)[1].rows, 64
    )
    rounded = torch.from_numpy(pair_logprobs(model.to(torch.bfloat16), heldout, 64))
    assert_close(kept("bfloat16"), rounded, rtol=0, atol=1e-4)
    assert (kept("float32") - rounded).abs().max() > 1e-2


def test_the_folder_records_its_lineage_and_is_a_model(workshop: Any) -> None:
    from transformers import AutoModelForCausalLM

    folder = workshop.finished("dpo")
    story = json.loads((folder / "run.json").read_text())
    assert story["stage"] == "dpo" and story["config"]["beta"] == 0.5
    assert set(story["parents"]) == {"model", "data"}
    assert "CC BY-SA 4.0" in (folder / "README.md").read_text()
    ours, _ = load(folder)
    ids = torch.randint(3, 300, (2, 20))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        torch.testing.assert_close(ours.logits(Batch.of(ids)), theirs, rtol=1e-5, atol=1e-5)
