"""Kahneman-Tversky optimization (Ethayarajh et al. 2024, equations 6 to 8).

    loss = weight(y) * ( 1 - sigmoid( beta * (r - z0) ) )     where y is desirable
           weight(y) * ( 1 - sigmoid( beta * (z0 - r) ) )     where it is not
    r    = log pi(y | x) - log ref(y | x)
    z0   = max( 0, mean of log pi(y' | x) - log ref(y' | x) ),     y' the answer to another prompt

People judge gains and losses relative to a reference point, and feel them less the farther they are
from it. Here the point is the policy's overall divergence from the reference: an answer is good by
what it gains beyond that. So a thumb up or down is enough to learn from, and nobody has to write
two answers to one prompt. Pairs, and votes that make pairs, are one answer of each kind.

z0 is estimated on the answers of a micro-batch, each with the prompt of another, without gradients.
The mismatched answers are fixed in advance, so the reference reads each of them only once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from groundup.align.config import KTOConfig
from groundup.align.dpo import MAX_PASSES, RATES, measured, say_counts
from groundup.align.preferences import (
    Refused,
    TwinPacking,
    encoded_rows,
    micro_sizes,
    read_sides,
    say_refused,
    tokenize_answer,
    twins,
)
from groundup.align.ptx import PtxBatch, policy_saver, ptx_parents, ptx_stream, with_ptx
from groundup.align.reference import answer_logprobs, fill_reference
from groundup.data.config import LABELED_COLUMNS
from groundup.data.records import read_unpaired_preferences
from groundup.data.split import evenly_spaced, on_disk
from groundup.errors import UserError
from groundup.evals.by_source import WORLD
from groundup.formats.hf_config import config_to_hf
from groundup.formats.locate import name_of
from groundup.lm.logprobs import sequence_logprobs
from groundup.lm.model import CausalLM
from groundup.report.estimate import POOLED
from groundup.runs.console import counted, say
from groundup.runs.folder import Run
from groundup.text.batches import packed_batch
from groundup.text.example import Example
from groundup.text.rows import UnpairedPreference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream, Loss, TensorFields
from groundup.train.device import prepare_to_read
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel, prepare_model

# Held-out answers scored at each evaluation on the way.
_CURVE_ANSWERS = 600


def kto_loss(
    gained: Float[Tensor, " answers"],
    desirable: Bool[Tensor, " answers"],
    z0: Float[Tensor, ""],
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " answers"]:
    """Each answer's loss, from its gain in log-probability over the reference, in nats."""
    weight = gained.new_tensor([undesirable_weight, desirable_weight])[desirable.long()]
    reach = beta * (gained - z0)
    return weight * (1 - torch.where(desirable, reach, -reach).sigmoid())


def reference_point(gained: Float[Tensor, " mismatched"]) -> Float[Tensor, ""]:
    """z0: the mean gain of mismatched answers, but at least 0, as a divergence is."""
    return gained.detach().mean().clamp(min=0)


@dataclass(frozen=True)
class LabeledAnswer:
    """A prompt with its answer, and the same prompt with an answer to another prompt.

    `group` is shared with related answers, such as the other one of a pair.
    """

    answer: Example
    mismatched: Example
    desirable: bool
    source: str = ""
    group: str = ""


@dataclass(frozen=True)
class KTOBatch(TensorFields):
    """Answers packed into rows, and the mismatched answers in rows of their own.

    `sequences` holds the segment numbers of each answer and of its mismatched one, `reference`
    their log-probabilities in nats under the reference model.
    """

    answers: Batch
    mismatched: Batch
    desirable: Bool[Tensor, " answers"]
    sequences: Int[Tensor, "answers 2"]
    reference: Float[Tensor, "answers 2"]

    @property
    def weight(self) -> float:
        return float(len(self.sequences))

    @property
    def without_gradients(self) -> tuple[Batch]:
        """Rows that are read but not trained on."""
        return (self.mismatched,)


def labeled_loss(
    model: nn.Module,
    batch: KTOBatch,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """The loss of a batch of labeled answers for `fit`."""
    answer, mismatched = batch.sequences.unbind(-1)
    reference, otherwise = batch.reference.unbind(-1)
    with torch.no_grad():
        z0 = reference_point(sequence_logprobs(model, batch.mismatched)[mismatched] - otherwise)
    gained = sequence_logprobs(model, batch.answers)[answer] - reference
    weights = (desirable_weight, undesirable_weight)
    losses = kto_loss(gained, batch.desirable, z0, beta, *weights)
    total, count = losses.sum(), batch.weight
    rewards, good = beta * gained.detach(), batch.desirable
    metrics = {
        "loss": (float(total.detach()), count),
        "accuracy": (float(((gained > z0) == good).sum()), count),
        "chosen_reward": (float(rewards[good].sum()), float(good.sum())),
        "rejected_reward": (float(rewards[~good].sum()), float((~good).sum())),
        "kl": (float(z0) * count, count),
    }
    return Loss(total, count, metrics)


class KTOStream(DataStream):
    """Micro-batches of labeled answers, a pure function of (seed, step).

    `reference` may be filled in later, before the first answer is read.
    """

    def __init__(
        self,
        answers: Sequence[LabeledAnswer],
        reference: Float[np.ndarray, "answers 2"],
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        self.answers, self.reference, self.context = answers, reference, context
        self.packing = TwinPacking(
            [(one.answer.inputs, one.mismatched.inputs) for one in answers],
            context=context,
            sizes=micro_sizes(rows, micro_rows, least=1),
            rows=rows,
            seed=seed,
            apart=True,
        )
        self.rows_per_epoch = self.packing.rows_per_epoch

    def at(self, step: int, model: nn.Module) -> list[KTOBatch]:
        return [self._batch(rows) for rows in self.packing.at(step)]

    def _batch(self, rows: Sequence[Sequence[int]]) -> KTOBatch:
        half = len(rows) // 2
        items, sequences = twins(rows)
        places = torch.tensor(sequences)
        # Segments are numbered within a batch, and the mismatched answers have their own batch.
        places[:, 1] -= len(items)
        return KTOBatch(
            self._packed(rows[:half]),
            self._packed(rows[half:]),
            torch.tensor([self.answers[item].desirable for item in items]),
            places,
            torch.from_numpy(self.reference[items]),
        )

    def _packed(self, rows: Sequence[Sequence[int]]) -> Batch:
        return packed_batch([[self._sequence(s) for s in row] for row in rows], self.context)

    def _sequence(self, number: int) -> Example:
        one = self.answers[number // 2]
        return one.mismatched if number % 2 else one.answer


def tokenize_labeled(
    tokenizer: Tokenizer, rows: Sequence[UnpairedPreference], context: int, seed: int
) -> tuple[list[LabeledAnswer], Refused]:
    """Tokenize answers, cut to the context; also return the rows that the chat template refuses.

    Answers whose prompt leaves no room are left out.
    """

    def own(row: UnpairedPreference) -> tuple[UnpairedPreference, Example]:
        return row, tokenize_answer(tokenizer, row.prompt, row.completion, context)

    answers, refused = encoded_rows(rows, own)
    taken = [row for row, _ in answers]
    found = []
    for (row, answer), other in zip(answers, mismatch(taken, seed), strict=True):
        said = taken[other].completion
        mismatched = tokenize_answer(tokenizer, row.prompt, said, context)
        if answer.teaches:
            found.append(LabeledAnswer(answer, mismatched, row.label, row.source, row.group))
    return found, refused


def mismatch(rows: Sequence[UnpairedPreference], seed: int) -> list[int]:
    """For each row, the index of a random other row with a different prompt.

    Each row is drawn once, as long as neighbors in a random order differ. If all rows have the same
    prompt, any other row is used.
    """
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    several = len({row.prompt for row in rows}) > 1
    found = [0] * len(rows)
    # Walk backwards from the end of a second round, remembering the next place that differs.
    other = 2 * len(order)
    for place in reversed(range(2 * len(order) - 1)):
        index, following = order[place % len(order)], order[(place + 1) % len(order)]
        if not several or rows[index].prompt != rows[following].prompt:
            other = place + 1
        if place < len(order):
            found[index] = order[other % len(order)]
    return found


def run(config: KTOConfig) -> Path:
    """Align by `config` and return the run folder: a model's, or an adapter's.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": on_disk(config.data)}
    parents |= ptx_parents(config, config.data)
    return run_stage(config, "kto", parents, functools.partial(_job, config))


def _job(config: KTOConfig, run: Run) -> Job[KTOBatch | PtxBatch, CausalLM]:
    prepared = prepare_model(config, RATES)
    model, context = prepared.model, prepared.context
    prepare_to_read(model, config)
    own, heldout, reference, fill = _answers(config, run, prepared)
    stream = ptx_stream(config, config.data, prepared.tokenizer, own, context)
    fill()  # may take minutes, so it comes after the other data has been checked
    how = f"Kahneman-Tversky optimization (KTO) of {name_of(config.model)} with beta {config.beta}"
    return Job(
        config,
        prepared.trained,
        model=lambda: model,
        stream=lambda steps: stream,
        loss=with_ptx(
            functools.partial(
                labeled_loss,
                beta=config.beta,
                desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight,
            )
        ),
        evaluate=lambda model, step: _evaluate(
            config, run, model, heldout, reference, context, step
        ),
        save=policy_saver(config, config.data, run, prepared, how),
        context=context,
        rows_per_epoch=own.rows_per_epoch,
        most_passes=MAX_PASSES,
        model_config=config_to_hf(model.config),
        # The mismatched answers double the tokens.
        tokens_per_step=config.rows * context * (3 if config.ptx else 2),
        announce=lambda plan: _explain(run, len(heldout)),
    )


def _answers(
    config: KTOConfig, run: Run, prepared: PreparedModel
) -> tuple[KTOStream, list[LabeledAnswer], Float[np.ndarray, "answers 2"], Callable[[], None]]:
    """Return a stream of training answers, the held-out answers, the reference's log-probabilities
    of the held-out answers, and a function that computes those of all answers.

    Before its first step an adapter adds nothing, so the reference is the given model.
    """
    sides = read_sides(config, LABELED_COLUMNS, read_unpaired_preferences)
    context = prepared.context
    (trained, refused), (heldout, refused_too) = (
        tokenize_labeled(prepared.tokenizer, side.rows, context, config.seed) for side in sides
    )
    good = sum(one.desirable for one in trained)
    say_counts(
        sides[0].bad,
        f"{good:,} desirable and {len(trained) - good:,} undesirable answers to train on, "
        f"{len(heldout):,} held out",
        len(sides[0].rows) - len(trained) - len(refused),
        "answer",
        "without a word",
    )
    say_refused(refused, refused_too)
    _require_both_labels(trained)
    heldout = evenly_spaced(heldout, _CURVE_ANSWERS)
    everything = [(one.answer, one.mismatched) for one in (*trained, *heldout)]
    reference = np.full((len(everything), 2), np.nan, np.float32)
    stream = KTOStream(
        trained,
        reference[: len(trained)],
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    packing, steps = stream.packing, config.steps
    fill = functools.partial(
        fill_reference, reference, run.folder, prepared.model, everything, packing, steps
    )
    return stream, heldout, reference[len(trained) :], fill


def _require_both_labels(answers: Sequence[LabeledAnswer]) -> None:
    if not answers:
        raise UserError("the data holds no answer to train on; give some, with labels")
    labels = {one.desirable for one in answers}
    if len(labels) < 2:
        [label] = labels
        raise UserError(
            f"every answer to train on has label={str(label).lower()}, and KTO learns from the "
            f"difference; add answers with label={str(not label).lower()}"
        )


def _evaluate(
    config: KTOConfig,
    run: Run,
    model: CausalLM,
    heldout: Sequence[LabeledAnswer],
    reference: Float[np.ndarray, "answers 2"],
    context: int,
    step: int,
) -> dict[str, Any]:
    if not heldout:
        return {"heldout_accuracy": None, "preference_loss": None, "heldout_by_source": {}}
    both = [(one.answer, one.mismatched) for one in heldout]
    gained, mismatched = torch.from_numpy(answer_logprobs(model, both, context) - reference).unbind(
        -1
    )
    desirable = torch.tensor([one.desirable for one in heldout])
    z0 = reference_point(mismatched)
    weights = (config.desirable_weight, config.undesirable_weight)
    losses = kto_loss(gained, desirable, z0, config.beta, *weights)
    return measured(
        run,
        step,
        ((gained > z0) == desirable).double().numpy(),
        [one.source for one in heldout],
        [one.group for one in heldout],
        float(losses.mean()),
        "label predicted by the gain in probability in {share} of {items}",
        "held-out answer",
        {POOLED: "answers written by people", WORLD: "answers of the small world"},
    )


def _explain(run: Run, answers: int) -> None:
    """Say what the evaluations during training measure."""
    if answers:
        say(
            f"{run.stage}  measured on {counted(answers, 'held-out answer')}: how many gained more "
            "than mismatched answers did where they are desirable, and less where they are not? "
            "The range in brackets is the 95 % interval"
        )
