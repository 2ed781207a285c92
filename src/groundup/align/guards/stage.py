"""The stage `guard`: one classifier for messages and answers, from a fine-tuned model's body.

    loss = - mean of w [ y log sigmoid(s) + (1 - y) log sigmoid(-s) ]         y = 1: harmful

Harmful and benign messages and answers are four kinds. The weights w of each kind have the same
sum, however many rows it has. A quarter of the training side, which is not trained on, then sets
the thresholds (`model`). The n-gram baseline uses the same rows for both. One pass over the rows is
the default: three passes separated harmful rows from benign ones no better.

Inan et al. 2023 ("Llama Guard", section 2) also classify prompts and responses with one model;
theirs writes its verdict, this one reads it off one state.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from groundup.align.guards.config import GuardConfig
from groundup.align.guards.examples import USES, Labeled, Sides, Use, read_examples
from groundup.align.guards.model import (
    TrainedGuard,
    encoded,
    hard_benign,
    save_guard,
    threshold,
)
from groundup.align.guards.ngrams import fitted
from groundup.align.guards.report import Filter, write_report
from groundup.align.reward import RATES, merged
from groundup.align.rewards.model import RewardModel, scores_of
from groundup.data.split import evenly_spaced
from groundup.errors import UserError
from groundup.formats.card import as_merged, model_card
from groundup.formats.hf_config import config_to_hf
from groundup.formats.locate import name_of
from groundup.maths.roc import roc_auc
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.text.batches import pack, packed_batch, row_width
from groundup.text.example import Example
from groundup.train.batch import Batch, DataStream, Loss, TensorFields
from groundup.train.device import use_threads
from groundup.train.plan import TrainPlan
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import prepare_model

# The last digits of a text's score depend on the texts next to it.
ROUNDING = 1e-4
# Held-out rows evaluated during training.
_CURVE_ROWS = 400


# Batches.


@dataclass(frozen=True)
class LabeledBatch(TensorFields):
    """Packed messages and answers, each marked where it is read, with labels and weights."""

    rows: Batch
    harmful: Float[Tensor, " items"]
    weights: Float[Tensor, " items"]

    @property
    def weight(self) -> float:
        return float(self.weights.sum())


def weights_by_kind(rows: Sequence[Labeled]) -> Float[np.ndarray, " rows"]:
    """The weight of each row: each use and label has the same total, and the mean is 1."""
    kinds = [(row.use, row.harmful) for row in rows]
    counts = Counter(kinds)
    return np.array([len(rows) / (len(counts) * counts[kind]) for kind in kinds])


class LabeledStream(DataStream):
    """Micro-batches of labeled texts, a pure function of (seed, step)."""

    def __init__(
        self,
        items: Sequence[Example],
        harmful: Sequence[bool],
        weights: Float[np.ndarray, " items"],
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        self.items, self.context, self.seed = items, context, seed
        self.harmful, self.weights = torch.tensor(harmful).float(), torch.tensor(weights).float()
        self.rows, self.micro_rows = rows, min(micro_rows, rows)
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)
        # Every epoch has as many rows as the first, so a step determines its epoch.
        self.rows_per_epoch = len(self._epoch(0))

    def at(self, step: int, model: nn.Module) -> list[LabeledBatch]:
        rows = [self._row(index) for index in range(step * self.rows, (step + 1) * self.rows)]
        return [
            self._batch(rows[start : start + self.micro_rows])
            for start in range(0, len(rows), self.micro_rows)
        ]

    def _row(self, index: int) -> list[int]:
        epoch, place = divmod(index, self.rows_per_epoch)
        packed = self._epoch(epoch)
        return packed[place % len(packed)]

    def _batch(self, rows: Sequence[Sequence[int]]) -> LabeledBatch:
        order = [number for row in rows for number in row]
        batch = packed_batch([[self.items[n] for n in row] for row in rows], self.context)
        return LabeledBatch(batch, self.harmful[order], self.weights[order])

    def _packed(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.items)).tolist()
        packed = pack([self.items[number].inputs for number in order], self.context)
        return [[order[place] for place in row] for row in packed]


def guard_loss(model: nn.Module, batch: LabeledBatch) -> Loss:
    """The weighted logistic loss of a batch for `fit`."""
    scores = cast(RewardModel, model)(batch.rows)
    losses = binary_cross_entropy_with_logits(scores, batch.harmful, reduction="none")
    total = (losses * batch.weights).sum()
    right = (((scores > 0) == (batch.harmful > 0)) * batch.weights).sum()
    count = batch.weight
    metrics = {
        "loss": (float(total.detach()), count),
        "accuracy": (float(right.detach()), count),
    }
    return Loss(total, count, metrics)


# The run.


def run(config: GuardConfig) -> Path:
    """Train a guard by `config` and return its run folder.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": config.data}
    return run_stage(config, "guard", parents, functools.partial(_job, config))


def _job(config: GuardConfig, run: Run) -> Job[LabeledBatch, RewardModel]:
    sides = read_examples(config.data, config.examples)
    require_calibration(sides, config.false_positives)
    prepared = prepare_model(config, RATES)
    use_threads(config)
    tokenizer, context = prepared.tokenizer, prepared.context

    def encode(rows: Sequence[Labeled], most: int) -> list[Example]:
        return [encoded(tokenizer, row.message, row.answer, most) for row in rows]

    items = encode(sides.train, context)
    # Texts that set thresholds or are measured are read as far as the guard reads them in use.
    reads = prepared.model.config.max_position_embeddings
    if config.context is None:
        longest = max(item.inputs for item in items)
        context = row_width(longest, context)
    say(f"{run.stage}: {row_counts(sides)}")
    weights = weights_by_kind(sides.train)
    stream = LabeledStream(
        items,
        [row.harmful for row in sides.train],
        weights,
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    model = RewardModel(prepared.model)
    model.initialize(config.seed)
    curve_rows = evenly_spaced(sides.heldout, _CURVE_ROWS)
    curve_items = encode(curve_rows, reads)

    def save(model: RewardModel, plan: TrainPlan) -> None:
        whole = merged(model).eval().requires_grad_(False)
        thresholds, ngrams = {}, fitted(sides.train, weights)
        scores = scores_of(whole, encode(sides.calibration, reads), context)
        counted = ngrams.scores(sides.calibration)
        of_ngrams, facts = {}, {}
        for use in learned_uses(sides):
            benign = hard_benign(sides.calibration, use)
            thresholds[use] = threshold(scores[benign], config.false_positives) + ROUNDING
            of_ngrams[use] = threshold(counted[benign], config.false_positives)
            facts[use] = len(benign)
        guard = TrainedGuard(whole, tokenizer, thresholds)
        card = model_card(
            "A guard trained by groundup",
            how="It tells harmful messages and answers from benign ones, for `groundup chat "
            f"--guard`; its body is {name_of(config.model)}'s. "
            f"{as_merged(prepared.how)}",
            facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
            data=(config.data,),
            parents=(config.model,),
            scores=True,
        )
        by = {"false_positives": config.false_positives, "set_by_benign": facts}
        save_guard(run.folder, guard, card, by)
        filters = [
            Filter("guard", scores_of(whole, encode(sides.heldout, reads), context), thresholds),
            Filter("n-grams", ngrams.scores(sides.heldout), of_ngrams),
        ]
        write_report(run, config, guard, filters, sides)

    return Job(
        config,
        prepared.trained,
        model=lambda: model,
        stream=lambda steps: stream,
        loss=guard_loss,
        evaluate=lambda model, step: _evaluate(run, model, curve_rows, curve_items, context, step),
        save=save,
        context=context,
        rows_per_epoch=stream.rows_per_epoch,
        model_config=config_to_hf(model.config),
    )


def learned_uses(sides: Sides) -> list[Use]:
    """The uses that have harmful rows to train on."""
    return [use for use in USES if any(row.harmful and row.use == use for row in sides.train)]


def require_calibration(sides: Sides, rate: float) -> None:
    """Refuse, before any work, a rate that so few groups of benign rows cannot guarantee."""
    needed = math.ceil(1 / rate - 1)
    for use in learned_uses(sides):
        count = len(hard_benign(sides.calibration, use))
        if count < needed:
            raise UserError(
                f"false_positives={rate:g} needs benign rows of {needed} groups to set the "
                f"threshold of {use}s, and {count} from sources with harmful rows are set aside "
                "for it; give rows of more groups, or a larger share"
            )


def row_counts(sides: Sides) -> str:
    """The number of training rows of each kind, and of rows that were set aside."""
    counts = Counter((row.use, row.harmful) for row in sides.train)
    kinds = [
        f"{counts[use, harmful]:,} {'harmful' if harmful else 'benign'} {use}s"
        for use in USES
        for harmful in (True, False)
        if counts[use, harmful]
    ]
    return (
        f"{', '.join(kinds)} to learn from, {len(sides.calibration):,} rows to set thresholds by, "
        f"{len(sides.heldout):,} held out"
    )


def _evaluate(
    run: Run,
    model: RewardModel,
    rows: Sequence[Labeled],
    items: Sequence[Example],
    context: int,
    step: int,
) -> dict[str, Any]:
    """The held-out loss, and the area under the ROC curve."""
    if not rows:
        return {"guard_loss": None}
    scores = scores_of(model, items, context)
    harmful = np.array([row.harmful for row in rows])
    weights = weights_by_kind(rows)
    loss = float((weights * np.logaddexp(0, np.where(harmful, -scores, scores))).mean())
    area = None
    if harmful.any() and not harmful.all():
        area = roc_auc(scores, harmful)
        say(f"{run.stage}  step {step}  area under the ROC curve {area:.3f} (guessing 0.5)")
    return {"guard_loss": loss, "roc_auc": area}
