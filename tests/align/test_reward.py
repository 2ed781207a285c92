"""Reward models: the paper's loss, transformers' scores, and training."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import groundup
from conftest import WithToken
from groundup.align.prompts import Prompt
from groundup.align.reward import (
    Comparison,
    ComparisonStream,
    answered_ids,
    bradley_terry_loss,
    comparison_batch,
    comparison_loss,
    comparisons,
    heldout_pairs,
)
from groundup.align.rewards.by_name import open_rollout_reward, reward_folders
from groundup.align.rewards.model import (
    RewardModel,
    load_reward_model,
    read_at_end,
    save_reward_model,
    score_rollouts,
    scores_of,
)
from groundup.align.rewards.verifiers import open_reward
from groundup.align.rollout import Rollout, prompts_of, sample
from groundup.app.cli import main
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.errors import UserError
from groundup.formats.load import load, load_tokenizer
from groundup.runs.folder import has_begun
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.rows import Message, Preference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from rollouts import small_policy

IDS = [[15, 16, 17, 3], [15, 16, 18, 19, 3], [20, 21, 3], [20, 22, 23, 24, 3], [20, 25, 3], [30, 3]]


def small_reward(mean: float = 0.0, deviation: float = 1.0) -> RewardModel:
    model = RewardModel(small_policy(), mean, deviation)
    model.initialize(0)
    return model.eval()


def slow_score(model: RewardModel, ids: list[int]) -> float:
    """The sequence read alone, in float64; the score is read at its last token."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        return float(model.lm(Batch.of(torch.tensor([ids])))[0, -1] @ model.score.weight[0])


def compared(*pairs: tuple[int, int], answers: list[list[int]]) -> Comparison:
    lengths = tuple(map(len, answers))
    return Comparison(tuple(read_at_end(ids, 64) for ids in answers), tuple(pairs), lengths)


# The loss.


@pytest.mark.parametrize("margin", [0.0, 0.7])
@pytest.mark.parametrize("centering", [0.0, 0.01])
def test_the_loss_equals_the_papers(margin: float, centering: float) -> None:
    random = np.random.default_rng(0)
    chosen, rejected = random.normal(0, 4, (2, 60))
    given = torch.from_numpy(np.stack([chosen, rejected])).requires_grad_()
    found = bradley_terry_loss(*given, margin, centering)
    # Ouyang et al. 2022, equation 1; Eisenstein et al. 2023, section 3.
    preferred = 1 / (1 + np.exp(-(chosen - rejected - margin)))
    expected = -np.log(preferred) + centering * (chosen + rejected) ** 2
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-9)
    [gradient] = torch.autograd.grad(found.sum(), given)
    pull = 2 * centering * (chosen + rejected)
    np.testing.assert_allclose(gradient[0], preferred - 1 + pull, rtol=1e-9)
    np.testing.assert_allclose(gradient[1], 1 - preferred + pull, rtol=1e-9)


def test_far_scores_stay_finite() -> None:
    far = torch.tensor([-1e4, 1e4])
    assert bradley_terry_loss(far, -far).tolist() == [2e4, 0]


def test_all_pairs_of_a_prompt_weigh_1_together() -> None:
    model = small_reward()
    one = compared((0, 1), answers=IDS[:2])
    many = compared((0, 1), (0, 2), (1, 2), (3, 0), answers=IDS[2:])
    found = comparison_loss(model, comparison_batch([one, many], 16), 0.3, 0.01)
    scores = [slow_score(model, ids) for ids in IDS]

    def loss(a: float, b: float) -> float:
        return math.log(1 + math.exp(-(a - b - 0.3))) + 0.01 * (a + b) ** 2

    of_many = [loss(scores[2 + a], scores[2 + b]) for a, b in many.pairs]
    expected = loss(scores[0], scores[1]) + sum(of_many) / 4
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-4)
    assert found.weight == 2
    right = (scores[0] > scores[1]) + sum(scores[2 + a] > scores[2 + b] for a, b in many.pairs) / 4
    assert found.metrics["accuracy"] == (pytest.approx(right), 2)


def test_packing_and_empty_rows_do_not_change_scores() -> None:
    model = small_reward()
    both = [compared((0, 1), answers=IDS[:2]), compared((0, 1), answers=IDS[2:4])]
    losses = []
    for context, rows in ((64, None), (8, None), (8, 9)):
        batch = comparison_batch(both, context, rows)
        losses.append(float(comparison_loss(model, batch, 0.0, 0.0).total.detach()))
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)


def test_scores_are_read_where_an_answer_ends() -> None:
    model = small_reward()
    found = scores_of(model, [read_at_end(ids, 64) for ids in IDS], 64)
    assert found.tolist() == pytest.approx([slow_score(model, ids) for ids in IDS], abs=1e-5)
    # A too long answer keeps its end, where it is read.
    long = list(range(10, 60))
    [cut] = scores_of(model, [read_at_end(long, 8)], 64)
    assert cut == pytest.approx(slow_score(model, long[-8:]), abs=1e-5)


# The data.


def test_a_prompts_answers_occur_once_and_its_pairs_together(workshop: Any) -> None:
    tokenizer = load_tokenizer(workshop.finished("sft"))
    first, second = ((Message("user", text),) for text in ("The sea?", "The sun?"))
    rows = [
        Preference(first, "blue", "red", "a", "b"),
        Preference(second, "yellow", "red", "a", "b"),
        Preference(first, "blue", "green", "a", "b"),
        Preference(first, "red", "red", "a", "b"),  # no preference
    ]
    found, _ = comparisons(tokenizer, rows, 64)
    assert [one.pairs for one in found] == [((0, 1), (0, 2)), ((0, 1),)]
    assert len(found[0].answers) == 3
    ids = found[0].answers[0].ids[:-1]
    asked = encode_chat(tokenizer, first, generation_prompt=True).ids
    assert ids[: len(asked)] == asked and ids[-1] in tokenizer.stop_ids
    assert tokenizer.decode(ids[len(asked) : -1]) == "blue"
    assert answered_ids(tokenizer, first, "blue") == list(ids)


def test_an_epoch_has_every_comparison_once() -> None:
    items = [compared((0, 1), answers=[[9, i], [8, i]]) for i in range(23)]
    stream = ComparisonStream(items, context=8, rows=4, micro_rows=2, seed=0)
    read: list[int] = []
    for step in range(-(-stream.rows_per_epoch // 4)):
        for batch in stream.at(step, torch.nn.Identity()):
            assert batch.rows.input_ids.shape == (2, 8)
            read += batch.rows.input_ids[batch.rows.weights > 0].tolist()
    assert {*read} == {*range(23)}
    again = ComparisonStream(items, context=8, rows=4, micro_rows=2, seed=0)
    one, other = (some.at(5, torch.nn.Identity())[0] for some in (stream, again))
    assert torch.equal(one.rows.input_ids, other.rows.input_ids)


@pytest.mark.parametrize("context", [8, 16])
@pytest.mark.parametrize(
    ("rows", "micro_rows"), [(16, 12), (16, 10), (16, 9), (16, 6), (1, 1), (3, 2), (7, 4), (8, 4)]
)
def test_a_step_has_its_rows_and_one_pass_has_every_label_once(
    context: int, rows: int, micro_rows: int
) -> None:
    items = [compared((0, 1), answers=[[i] * (1 + i % 7), [99] * (1 + i % 3)]) for i in range(99)]
    stream = ComparisonStream(items, context=context, rows=rows, micro_rows=micro_rows, seed=0)
    steps = -(-stream.rows_per_epoch // rows)
    read: list[int] = []
    for step in range(3 * steps):
        batches = stream.at(step, torch.nn.Identity())
        assert sum(len(batch.rows.input_ids) for batch in batches) == max(2, rows)
        for batch in batches[: max(0, stream.batches_per_epoch - len(batches) * step)]:
            read += batch.rows.input_ids[batch.rows.weights > 0].tolist()
    assert sorted(read) == [*range(99), *[99] * 99]
    assert stream.steps_to(1) == steps
    assert stream.labels_read(steps) >= 99 > stream.labels_read(steps - 1)


# On disk.


@pytest.fixture
def folder(workshop: Any, tmp_path: Path) -> Path:
    """A copy of the workshop's reward model, for changes."""
    return Path(shutil.copytree(workshop.finished("reward"), tmp_path / "reward"))


def test_transformers_gives_the_same_scores(folder: Path, workshop: Any) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    assert theirs.config.num_labels == 1 and theirs.config.id2label == {0: "reward"}
    ours, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    rows = split(workshop.data, "preferences", read_preferences)[0].rows[:8]
    answers = [answered_ids(tokenizer, row.prompt, row.chosen) for row in rows]
    with torch.no_grad():
        expected = [float(theirs(torch.tensor([ids])).logits[0, 0]) for ids in answers]
        longest = max(map(len, answers))
        padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in answers])
        at_once = theirs(padded, attention_mask=(padded != 0).long()).logits[:, 0]
    found = scores_of(ours, [read_at_end(ids, 64) for ids in answers], 64)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found, at_once, atol=1e-5)


def test_the_snippet_of_its_card_gives_our_rewards_with_transformers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (folder / "README.md").read_text()
    snippet = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), found)
    tokenizer, (*prompt, said) = load_tokenizer(folder), found["messages"]
    ids = answered_ids(tokenizer, [Message(**turn) for turn in prompt], said["content"])
    rollout = Rollout(Prompt(tuple(ids[:3])), tuple(ids[3:]), (0.0,) * (len(ids) - 3), "", True)
    [ours] = score_rollouts(load_reward_model(folder), [rollout])
    assert found["reward"] == pytest.approx(ours, abs=1e-3)
    assert float(capsys.readouterr().out) == found["reward"]
    # Of what the template writes the reward is another one.
    whole = found["tokenizer"].apply_chat_template(found["messages"], tokenize=False)
    assert whole != found["text"]
    with torch.no_grad():
        read = found["tokenizer"](whole, add_special_tokens=False, return_tensors="pt")
        score = found["model"](**read).logits[0, 0].item()
    model = load_reward_model(folder)
    assert abs((score - model.mean) / model.deviation - ours) > 0.1


def test_a_saved_model_loads_and_saves_identically(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    save_reward_model(tmp_path / "again", model, tokenizer, "a card")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    again = load_reward_model(tmp_path / "again")
    assert (again.mean, again.deviation) == (model.mean, model.deviation)
    assert model.deviation != 1


def test_rewards_of_the_models_own_answers_have_mean_0_and_deviation_1(
    folder: Path, workshop: Any
) -> None:
    policy, tokenizer = load(workshop.finished("sft"))
    rows = split(workshop.data, "preferences", read_preferences)[0].rows
    asked = [
        Prompt(tuple(encode_chat(tokenizer, prompt, generation_prompt=True).ids), prompt)
        for prompt in dict.fromkeys(row.prompt for row in rows)
    ]
    assert len(asked) < 16  # so that some are answered twice
    prompts = prompts_of(asked, 16, 0, seed=0)
    rollouts = sample(policy, prompts, tokenizer, max_new_tokens=12, seed=0)
    found = score_rollouts(load_reward_model(folder, tokenizer), rollouts)
    assert found.mean() == pytest.approx(0, abs=1e-2)
    assert found.std() == pytest.approx(1, abs=1e-2)


def test_rewards_are_scaled_by_the_policy_to_be_scored(workshop: Any, tmp_path: Path) -> None:
    """The body is another model's, whose answers have other rewards."""
    out, policy = tmp_path / "out", workshop.finished("sft")
    command = workshop.command("reward", out, model=workshop.finished("pretrain"), policy=policy)
    code, said = workshop.run_here(command)
    assert code == 0, said
    model, tokenizer = load(policy)
    rows = split(workshop.data, "preferences", read_preferences)[0].rows
    asked = [
        Prompt(tuple(encode_chat(tokenizer, prompt, generation_prompt=True).ids), prompt)
        for prompt in dict.fromkeys(row.prompt for row in rows)
    ]
    prompts = prompts_of(asked, 16, 0, seed=0)
    rollouts = sample(model, prompts, tokenizer, max_new_tokens=12, seed=0)
    found = score_rollouts(load_reward_model(out, tokenizer), rollouts)
    assert found.mean() == pytest.approx(0, abs=1e-2)
    assert found.std() == pytest.approx(1, abs=1e-2)
    assert "policy" in json.loads((out / "run.json").read_text())["parents"]


def test_equal_rewards_are_not_scaled(workshop: Any, tmp_path: Path) -> None:
    """A deterministic policy gives one prompt the same answer every time."""
    out, pairs, policy = (tmp_path / name for name in ("out", "pairs.jsonl", "policy"))
    pairs.write_text(json.dumps({"prompt": "sea?", "chosen": "blue", "rejected": "green"}))
    shutil.copytree(workshop.finished("sft"), policy)
    tensors = load_file(policy / "model.safetensors")
    tensors["model.norm.weight"] *= 1000
    save_file(tensors, policy / "model.safetensors", {"format": "pt"})
    command = workshop.command("reward", out, data=pairs, policy=policy, steps=2)
    code, said = workshop.run_here(command)
    assert code == 0, said
    assert "are all worth the same" in said and "--samples" in said
    model, tokenizer = load(policy)
    asked = encode_chat(tokenizer, (Message("user", "sea?"),), generation_prompt=True).ids
    rollouts = sample(model, [Prompt(tuple(asked))] * 16, tokenizer, max_new_tokens=12, seed=0)
    assert len({one.ids for one in rollouts}) == 1
    found = load_reward_model(out, tokenizer)
    assert found.deviation == 1
    assert score_rollouts(found, rollouts) == pytest.approx(0, abs=1e-3)


# Several together.


def test_an_ensemble_subtracts_half_of_the_variance_of_its_members(
    folder: Path, workshop: Any, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(folder)
    model = load_reward_model(folder, tokenizer)
    model.mean, model.deviation = model.mean + 1, 2 * model.deviation
    other = tmp_path / "other"
    save_reward_model(other, model, tokenizer, "")
    prompt = Prompt((15, 16, 17))
    rollouts = [Rollout(prompt, ids, (0.0,) * len(ids), "", True) for ids in ((20, 3), (30, 31, 3))]
    spec = f"ensemble:{folder},{other},{folder}"
    members = [open_rollout_reward(str(one), tokenizer)(rollouts) for one in (folder, other)]
    for together, first, second in zip(
        open_rollout_reward(spec, tokenizer)(rollouts), *members, strict=True
    ):
        values = [first, second, first]
        assert first != second
        assert together == pytest.approx(np.mean(values) - 0.5 * np.var(values), rel=1e-5)
    twice = open_rollout_reward(f"ensemble:{folder},{folder}", tokenizer)(rollouts)
    assert twice == pytest.approx(members[0])
    assert list(reward_folders(spec, None).values()) == [folder, other, folder]


def test_a_reward_computes_in_the_requested_dtype(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    prompt = Prompt((15, 16, 17))
    rollouts = [Rollout(prompt, ids, (0.0,) * len(ids), "", True) for ids in ((20, 3), (30, 31, 3))]
    exact, rounded = (
        open_rollout_reward(str(folder), tokenizer, dtype=dtype)(rollouts)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact == score_rollouts(load_reward_model(folder, tokenizer), rollouts).tolist()
    # Few numbers make this model, and its scale is small: rounding is a tenth of it.
    assert exact != rounded and exact == pytest.approx(rounded, rel=0.2)


@pytest.mark.parametrize("spec", ["ensemble:", "ensemble:one", "ensemble:one,"])
def test_an_ensemble_has_two_members_at_least(spec: str, folder: Path) -> None:
    told = said_of(lambda: open_rollout_reward(spec, load_tokenizer(folder)))
    assert "reward models" in told and "two or more" in told


def test_an_empty_name_is_not_the_current_folder(tokenizer: Tokenizer) -> None:
    for told in (
        said_of(lambda: open_reward("")),
        said_of(lambda: open_rollout_reward("", tokenizer)),
    ):
        assert told.startswith("'' is not a reward; give sum, ")


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_training_with_an_adapter_in_bfloat16(adapter: str, workshop: Any, tmp_path: Path) -> None:
    """The adapter and the head are trained in float32, and the body is frozen."""
    out = tmp_path / "out"
    changes = {"adapter": adapter, "dtype": "bfloat16", "steps": 2, "embedding_learning_rate": None}
    code, said = workshop.run_here(workshop.command("reward", out, **changes))
    assert code == 0, said
    found = load_reward_model(out, load_tokenizer(workshop.finished("sft")))
    assert found.deviation != 1 and np.isfinite(found.mean)
    card = (out / "README.md").read_text()
    assert "it was merged into its base." in card and "needs its base" not in card
    assert "pipeline_tag: text-classification\n" in card and "It writes no text" in card


# Rejected input.


def said_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        call()
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_a_chat_model_is_not_a_reward_and_a_reward_is_not_a_chat_model(
    workshop: Any,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = workshop.finished("sft")
    assert "holds no reward model" in said_of(lambda: load_reward_model(chat))
    assert "holds no reward model" in said_of(lambda: load_reward_model(folder / "nowhere"))
    said = said_of(lambda: groundup.load(folder))
    assert "holds a reward model" in said and "--reward" in said
    for words in (["chat", folder], ["generate", folder, "Hello"], ["sft", folder, "--data", chat]):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        assert "holds a reward model" in capsys.readouterr().err
    assert not has_begun(tmp_path / "runs" / "sft")


def test_a_reward_model_of_other_tokens(workshop: Any, folder: Path) -> None:
    other = Tokenizer.from_bpe(train_bpe(["quite another text about quails"] * 4, 300))
    assert "reads other tokens" in said_of(lambda: load_reward_model(folder, other))
    load_reward_model(folder, load_tokenizer(workshop.finished("sft")))


def test_a_reward_model_of_another_added_token(
    workshop: Any, folder: Path, tmp_path: Path, with_token: WithToken
) -> None:
    """Both have the same id: every "zebra" would be scored as "horse"."""
    sft = workshop.finished("sft")
    zebra, horse = (with_token(sft, word) for word in ("zebra", "horse"))
    shutil.copy(horse / "tokenizer.json", folder)
    load_reward_model(folder, load_tokenizer(horse))
    for policy in (zebra, sft):
        assert "reads other tokens" in said_of(
            lambda policy=policy: load_reward_model(folder, load_tokenizer(policy))
        )
    command = workshop.command("reward", tmp_path / "out", policy=zebra)
    code, said = workshop.run_here(command)
    assert code == 2 and f"policy={zebra} has another tokenizer than {sft}" in said


def test_a_torn_weight_file(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in said_of(lambda: load_reward_model(folder))


@pytest.mark.parametrize("head", [None, torch.zeros(2, 64), torch.zeros(1, 32)])
def test_a_head_that_does_not_fit(folder: Path, head: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(
        tensors | ({} if head is None else {"score.weight": head}), folder / "model.safetensors"
    )
    assert "score.weight" in said_of(lambda: load_reward_model(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"num_labels": 2},
        {"num_labels": None, "id2label": {"0": "bad", "1": "good"}},
        {"reward_mean": "high"},
        {"reward_mean": math.nan},
        {"reward_deviation": 0},
        {"reward_deviation": [1]},
    ],
)
def test_a_config_that_does_not_fit(folder: Path, change: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text()) | change
    told = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(told))
    said = said_of(lambda: load_reward_model(folder))
    assert ("classes" if "labels" in str(change) or "id2label" in change else "reward_") in said


# It learns.


@pytest.mark.long
def test_it_separates_right_answers_from_wrong_ones(workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = {"steps": 300, "rows": 16, "micro_rows": 16}
    code, said = workshop.run(workshop.command("reward", out, **changes))
    assert code == 0, said
    model, tokenizer = load_reward_model(out), load_tokenizer(out)
    for side in split(workshop.data, "preferences", read_preferences):
        pairs = heldout_pairs(model, comparisons(tokenizer, side.rows, 64)[0], 64)
        assert pairs is not None and np.mean(pairs.margins > 0) >= 0.9
