"""Every loss of alignment against trl's own trainers: equal weights and sequences, to 1e-5.

trl's read one sequence to a padded row with the model of transformers, ours several to a row with
our own; so what is compared is the whole way from tokens to losses and gradients.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import datasets
import numpy as np
import pytest
import tokenizers
import torch
import transformers
import trl
from torch import Tensor
from torch.nn.functional import pad
from torch.testing import assert_close

from groundup.align.config import GRPOConfig
from groundup.align.dpo import pair_logprobs, preference_loss
from groundup.align.grpo import GRPORollouts, group_advantages, grpo_loss, token_weights
from groundup.align.kto import KTOStream, LabeledAnswer, labeled_loss
from groundup.align.preferences import Pair, PairBatch, PairStream
from groundup.align.prompts import Prompt
from groundup.align.reference import answer_logprobs
from groundup.align.reward import (
    Comparison,
    comparison_batch,
    comparison_loss,
)
from groundup.align.rewards.model import (
    load_reward_model,
    read_at_end,
)
from groundup.align.rollout import Rollout, RolloutBatch, TokenFacts, pack_rollouts
from groundup.formats.load import load_model
from groundup.text.example import Example
from groundup.train.batch import Loss
from peft_oracle import base_folder, our_base, randomize, theirs

# trl and transformers deprecate one another's settings, and ORPO and CPO are experimental there.
pytestmark = pytest.mark.filterwarnings("ignore:::trl", "ignore:::transformers")

VOCAB, CONTEXT = 96, 48
PADDING = 0
Ids = list[int]


# Trainers of trl, and sequences for them.

# Something to be made with; what is compared is given to the loss itself.
TEXTS = {"prompt": "t3 t4", "chosen": "t5 t6", "rejected": "t7"}
LABELED = {"prompt": "t3 t4", "completion": "t5 t6", "label": True}


@dataclass(frozen=True)
class Folders:
    """A policy and its reference, saved by transformers, and a folder for trainers."""

    policy: Path
    reference: Path
    out: Path

    def trainer(self, kind: str, model: Any, row: dict[str, Any], **given: Any) -> Any:
        """A trainer of this kind; keywords are its config's."""
        own = {name: given.pop(name) for name in ("ref_model", "reward_funcs") if name in given}
        home: Any = trl
        if kind in ("ORPO", "CPO"):
            home = importlib.import_module(f"trl.experimental.{kind.lower()}")
        config = getattr(home, f"{kind}Config")(
            output_dir=str(self.out), use_cpu=True, bf16=False, report_to="none", **given
        )
        return getattr(home, f"{kind}Trainer")(
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_list([row]),
            processing_class=tokenizer(),
            **own,
        )


@functools.lru_cache
def tokenizer() -> Any:
    """Words t0 to t95; trl requires a tokenizer even for token ids."""
    words = tokenizers.models.WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t0")
    made = tokenizers.Tokenizer(words)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "t0", "bos_token": "t1", "eos_token": "t2"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    home = tmp_path_factory.mktemp("trl")
    policy = base_folder(home / "policy", "qwen3")
    model = theirs(policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(home / "reference")
    return Folders(policy, home / "reference", home / "out")


def sequence(random: np.random.Generator, least: int, most: int) -> Ids:
    return random.integers(3, VOCAB, int(random.integers(least, most + 1))).tolist()


def answered(prompt: Ids, answer: Ids) -> Example:
    return Example([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


def assert_same(model: torch.nn.Module, loss: Tensor, other: Any, expected: Tensor) -> None:
    """Equal losses and equal gradients; parameters have the same names."""
    assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    ours = {name.removeprefix("lm."): one for name, one in model.named_parameters()}
    others = dict(other.named_parameters())
    assert set(ours) == set(others)
    found = torch.autograd.grad(loss, [ours[name] for name in others])
    wanted = torch.autograd.grad(expected, list(others.values()))
    largest = max(float(one.abs().max()) for one in wanted)
    assert largest > 1e-3
    for one, slope in zip(found, wanted, strict=True):
        assert_close(one, slope, rtol=1e-5, atol=1e-5 * largest)


# DPO and its kin.


@dataclass(frozen=True)
class Asked:
    prompt: Ids
    chosen: Ids
    rejected: Ids

    @property
    def pair(self) -> Pair:
        return Pair(answered(self.prompt, self.chosen), answered(self.prompt, self.rejected))

    @property
    def row(self) -> dict[str, Ids]:
        return {
            "prompt_ids": self.prompt,
            "chosen_ids": self.chosen,
            "rejected_ids": self.rejected,
        }


def drawn_pairs(count: int, prompts: tuple[int, int] = (2, 9)) -> list[Asked]:
    random = np.random.default_rng(5)
    return [
        Asked(sequence(random, *prompts), sequence(random, 1, 14), sequence(random, 1, 14))
        for _ in range(count)
    ]


def pair_batch(asked: Sequence[Asked], reference: np.ndarray | None) -> PairBatch:
    stream = PairStream(
        [one.pair for one in asked], reference, context=CONTEXT, rows=8, micro_rows=8, seed=0
    )
    [batch] = stream.at(0, torch.nn.Identity())
    assert batch.weight == len(asked)
    return batch


def against_dpo(
    folders: Folders, asked: Sequence[Asked], ours: dict[str, Any], others: dict[str, Any]
) -> None:
    """The loss of these pairs by our settings, and by those of trl's DPO."""
    other = theirs(folders.policy)
    trainer = folders.trainer("DPO", other, TEXTS, ref_model=theirs(folders.reference), **others)
    batch = trainer.data_collator([one.row for one in asked])
    expected = trainer._compute_loss(other, batch, return_outputs=False)
    model, reference = our_base(folders.policy), our_base(folders.reference)
    known = pair_logprobs(reference, [one.pair for one in asked], CONTEXT)
    found = preference_loss(model, pair_batch(asked, known), **ours)
    assert_same(model, found.total / found.weight, other, expected)
    told = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    means = {name: total / count for name, (total, count) in found.metrics.items()}
    assert means["chosen_logprob"] == pytest.approx(told["logps/chosen"], rel=1e-5)
    assert means["rejected_logprob"] == pytest.approx(told["logps/rejected"], rel=1e-5)
    if ours.get("loss") != "ipo":
        assert means["accuracy"] == pytest.approx(told["rewards/accuracies"])
        assert means["margin"] == pytest.approx(told["rewards/margins"], rel=1e-5, abs=1e-5)


# For IPO, trl logs rewards of sums, and we those of means, which it optimizes; the losses are
# equal.
@pytest.mark.parametrize(
    ("loss", "beta"), [("sigmoid", 0.1), ("sigmoid", 1.0), ("ipo", 0.3), ("hinge", 0.2)]
)
def test_pair_losses_equal_trls_dpo(folders: Folders, loss: str, beta: float) -> None:
    settings = {"loss": loss, "beta": beta}
    against_dpo(folders, drawn_pairs(7), settings, {"loss_type": [loss], "beta": beta})


def test_conservative_dpo_equals_trls_aot_of_one_pair(folders: Folders) -> None:
    # trl smooths labels where it sorts a batch's margins before (AOT); of one there is no order.
    for one in drawn_pairs(2):
        against_dpo(
            folders,
            [one],
            {"beta": 0.4, "label_smoothing": 0.15},
            {"loss_type": ["aot"], "beta": 0.4, "label_smoothing": 0.15},
        )


def test_the_sft_term_equals_trls_sft_of_one_pair(folders: Folders) -> None:
    # For several pairs trl takes the mean over all tokens, we over each answer's own, as in the
    # paper.
    for one in drawn_pairs(2):
        against_dpo(
            folders,
            [one],
            {"beta": 0.4, "nll": 0.7},
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7], "beta": 0.4},
        )


# Without a reference.


def concatenated(asked: Sequence[Asked]) -> dict[str, Tensor]:
    """The batch for the trainers of ORPO and CPO, padded on the right."""
    batch: dict[str, Tensor] = {}
    for side in ("chosen", "rejected"):
        rows = [(one.prompt, getattr(one, side)) for one in asked]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)

        def padded(of: Callable[[Ids, Ids], Ids], value: int) -> Tensor:
            made = (torch.tensor(of(*row)) for row in rows)  # noqa: B023
            return torch.stack([pad(one, (0, width - len(one)), value=value) for one in made])  # noqa: B023

        batch[f"{side}_input_ids"] = padded(lambda p, a: [*p, *a], PADDING)
        batch[f"{side}_attention_mask"] = padded(lambda p, a: [1] * len([*p, *a]), 0)
        batch[f"{side}_labels"] = padded(lambda p, a: [*[-100] * len(p), *a], -100)
    return batch


def test_simpo_equals_trls_cpo(folders: Folders) -> None:
    asked, other = drawn_pairs(7), theirs(folders.policy)
    settings = {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 1.4, "cpo_alpha": 0.0}
    trainer = folders.trainer("CPO", other, TEXTS, **settings)
    expected, told = trainer.get_batch_loss_metrics(other, concatenated(asked), "train")
    model = our_base(folders.policy)
    batch = pair_batch(asked, None)
    found = preference_loss(model, batch, beta=2.5, loss="simpo", gamma=1.4)
    assert_same(model, found.total / found.weight, other, expected)
    for name, theirs_ in (("margin", "rewards/margins"), ("accuracy", "rewards/accuracies")):
        total, count = found.metrics[name]
        assert total / count == pytest.approx(told[theirs_], rel=1e-5)


def test_the_odds_ratio_equals_trls_orpo(folders: Folders) -> None:
    asked, other = drawn_pairs(7), theirs(folders.policy)
    trainer = folders.trainer("ORPO", other, TEXTS, beta=0.25)
    chosen, rejected, *_ = trainer.concatenated_forward(other, concatenated(asked))
    expected = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    model = our_base(folders.policy)
    found = preference_loss(model, pair_batch(asked, None), beta=0.25, loss="orpo")
    assert_same(model, found.total / found.weight, other, expected)


def test_orpo_equals_trls_for_prompts_of_one_token(folders: Folders) -> None:
    # trl takes the first term over prompt and answer, we over the answer, as equation 2 has it; a
    # prompt's first token is nobody's target.
    for one in drawn_pairs(2, prompts=(1, 1)):
        other = theirs(folders.policy)
        trainer = folders.trainer("ORPO", other, TEXTS, beta=0.25)
        expected, _ = trainer.get_batch_loss_metrics(other, concatenated([one]), "train")
        model = our_base(folders.policy)
        found = preference_loss(model, pair_batch([one], None), beta=0.25, loss="orpo", nll=1.0)
        assert_same(model, found.total, other, expected)


# KTO.


# trl pairs each prompt with its batch's neighbour's answer, we with one of all the data's; given
# the same mismatched answers, z0 is the same mean. In the second case it would be below 0.
@pytest.mark.parametrize("turned", [False, True])
def test_kto_equals_trls_with_the_same_mismatched_answers(folders: Folders, turned: bool) -> None:
    before, after = (folders.policy, folders.reference)[:: -1 if turned else 1]
    random = np.random.default_rng(2)
    rows = [
        {
            "prompt_ids": sequence(random, 2, 9),
            "completion_ids": sequence(random, 1, 14),
            "KL_completion_ids": sequence(random, 1, 14),
            "label": i % 3 > 0,
        }
        for i in range(8)
    ]
    other, weights = theirs(after), {"desirable_weight": 1.3, "undesirable_weight": 0.6}
    trainer = folders.trainer("KTO", other, LABELED, ref_model=theirs(before), beta=0.2, **weights)
    expected = trainer._compute_loss(other, trainer.data_collator(rows), return_outputs=False)
    answers = [
        LabeledAnswer(
            answered(row["prompt_ids"], row["completion_ids"]),
            answered(row["prompt_ids"], row["KL_completion_ids"]),
            row["label"],
        )
        for row in rows
    ]
    both = [(one.answer, one.mismatched) for one in answers]
    reference = answer_logprobs(our_base(before), both, CONTEXT)
    sizes = {"context": CONTEXT, "rows": 8, "micro_rows": 8, "seed": 0}
    [batch] = KTOStream(answers, reference, **sizes).at(0, torch.nn.Identity())
    model = our_base(after)
    found = labeled_loss(model, batch, 0.2, **weights)
    assert found.weight == len(rows)
    assert_same(model, found.total / found.weight, other, expected)
    told = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    for name, named in {
        "kl": "kl", "chosen_reward": "rewards/chosen", "rejected_reward": "rewards/rejected"
    }.items():  # fmt: skip
        total, count = found.metrics[name]
        assert total / count == pytest.approx(told[named], rel=1e-4, abs=1e-5), name
    assert (told["kl"] > 0.01) != turned, told["kl"]


# The reward model.


@pytest.mark.parametrize(
    ("margin", "centering"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.05), (0.7, 0.05)]
)
def test_the_reward_models_loss_equals_trls(
    folders: Folders, tmp_path: Path, margin: float, centering: float
) -> None:
    config = transformers.AutoConfig.from_pretrained(
        folders.policy, num_labels=1, pad_token_id=PADDING
    )
    saved = transformers.AutoModelForSequenceClassification.from_config(config)
    randomize(saved, 3)
    saved.save_pretrained(tmp_path)
    other = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    random = np.random.default_rng(4)
    rows = [{"chosen_ids": sequence(random, 2, 20), "rejected_ids": sequence(random, 2, 20)}
            for _ in range(6)]  # fmt: skip
    trainer = folders.trainer("Reward", other, TEXTS, center_rewards_coefficient=centering or None)
    given = [row | ({"margin": margin} if margin else {}) for row in rows]
    expected = trainer.compute_loss(other, trainer.data_collator(given))
    items = [
        Comparison(
            tuple(read_at_end(ids, CONTEXT) for ids in row.values()),
            ((0, 1),),
            tuple(map(len, row.values())),
        )
        for row in rows
    ]
    model = load_reward_model(tmp_path).requires_grad_(True)
    found = comparison_loss(model, comparison_batch(items, CONTEXT), margin, centering)
    assert_same(model, found.total / found.weight, other, expected)
    told = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    for name in ("accuracy", "margin"):
        total, count = found.metrics[name]
        assert total / count == pytest.approx(told[name], rel=1e-5)


# GRPO.


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_equal_trls(folders: Folders, scale: bool) -> None:
    given = np.random.default_rng(0).normal(1, 2, 12)
    given[4:8] = 0.25  # a group that teaches nothing
    trainer = folders.trainer(
        "GRPO",
        theirs(folders.policy),
        {"prompt": "t3"},
        reward_funcs=lambda completions, **_: given.tolist(),
        scale_rewards="group" if scale else "none",
        num_generations=4,
        per_device_train_batch_size=12,
        max_completion_length=4,
    )
    prompts = [{"prompt": words} for words in ("t3 t4", "t5", "t6 t7 t8") for _ in range(4)]
    trainer.model.train()
    expected = trainer._generate_and_score_completions(prompts)["advantages"].numpy()
    found = group_advantages(given, 4, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not found[4:8].any() and found.any()


LONGEST = 12


def rollouts() -> list[Rollout]:
    """Answers of different lengths to two prompts."""
    random = np.random.default_rng(7)
    prompts = [Prompt(tuple(sequence(random, n, n))) for n in (3, 8)]
    said = [(prompt, tuple(sequence(random, 1, LONGEST))) for prompt in prompts for _ in range(4)]
    return [Rollout(prompt, ids, (0.0,) * len(ids), "", True) for prompt, ids in said]


def their_rollouts(some: Sequence[Rollout]) -> dict[str, Tensor]:
    """Prompts padded on the left, completions on the right."""
    asked = max(len(one.prompt.ids) for one in some)
    longest = max(len(one.ids) for one in some)

    def left(values: Sequence[int]) -> Tensor:
        return pad(torch.tensor(values), (asked - len(values), 0))

    def right(values: Sequence[int]) -> Tensor:
        return pad(torch.tensor(values), (0, longest - len(values)))

    return {
        "prompt_ids": torch.stack([left(one.prompt.ids) for one in some]),
        "prompt_mask": torch.stack([left([1] * len(one.prompt.ids)) for one in some]),
        "completion_ids": torch.stack([right(one.ids) for one in some]),
        "completion_mask": torch.stack([right([1] * len(one.ids)) for one in some]),
        "num_items_in_batch": torch.tensor(sum(len(one.ids) for one in some)),
    }


def our_rollouts(
    some: Sequence[Rollout], config: GRPOConfig, facts: TokenFacts, advantages: np.ndarray
) -> RolloutBatch:
    """One micro-batch, packed and weighted as in an iteration."""
    [laid] = pack_rollouts(some, range(len(some)), context=CONTEXT, micro_rows=8, one_shape=False)
    lengths = [len(one.ids) for one in some]
    weights = token_weights(lengths, config.loss_type, config.max_new_tokens)
    spread = [np.full(n, value) for n, value in zip(lengths, advantages, strict=True)]
    own = cast(GRPORollouts, SimpleNamespace(config=config))
    return GRPORollouts._batch(own, laid, facts, spread, weights)


# By default trl weighs the KL by the ratio as well (DeepSeek-V3.2); ours is DeepSeekMath's.
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(("high", "kl_coef"), [(None, 0.0), (0.28, 0.04)])
def test_grpo_equals_trls(
    folders: Folders, loss_type: str, high: float | None, kl_coef: float
) -> None:
    some, other = rollouts(), theirs(folders.policy)
    trainer = folders.trainer(
        "GRPO",
        other,
        {"prompt": "t3"},
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        loss_type=loss_type,
        epsilon=0.2,
        epsilon_high=high,
        beta=kl_coef,
        use_bias_correction_kl=False,
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=LONGEST,
    )
    inputs = their_rollouts(some)
    mask = inputs["completion_mask"].bool()
    width = mask.shape[1]
    with torch.no_grad():
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        seen = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        now, *_ = trainer._get_per_token_logps_and_entropies(other, ids, seen, width)
    # Half the ratios are outside the clip range, and the reference differs from both policies.
    noise = torch.randn((2, *now.shape), generator=torch.Generator().manual_seed(0))
    old, reference = now + 0.3 * noise[0], now + 0.5 * noise[1]
    advantages = group_advantages(np.random.default_rng(1).normal(0, 1, 8), 4)
    inputs |= {
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "advantages": torch.from_numpy(advantages).float(),
    }
    expected = trainer._compute_loss(other, inputs)

    def columns(values: Tensor) -> list[np.ndarray]:
        return [row[kept].numpy() for row, kept in zip(values, mask, strict=True)]

    config = GRPOConfig(
        out=folders.out, model=folders.policy, prompts=folders.policy, reward="length",
        loss_type=loss_type, clip_range=0.2, clip_range_high=high, kl_coef=kl_coef,
        max_new_tokens=LONGEST, group_size=4, episodes=8,
    )  # fmt: skip
    facts = TokenFacts(columns(old), columns(reference), [], [], [])
    model = load_model(folders.policy)
    found: Loss = grpo_loss(model, our_rollouts(some, config, facts, advantages), config)
    assert_same(model, found.total / found.weight, other, expected)
    outside, count = found.metrics["clipped"]
    assert 0.3 < outside / count < 0.7
    if kl_coef:
        total, count = found.metrics["reference_kl"]
        [told] = trainer._metrics["eval"]["kl"]
        assert total / count == pytest.approx(told, rel=1e-5)
