"""Direct preference optimization (Rafailov et al. 2023, equation 7) and later losses of pairs.

    loss = - log sigmoid( beta * [ (log pi(chosen) - log ref(chosen))
                                 - (log pi(rejected) - log ref(rejected)) ] )

The optimal policy under a reward with a KL penalty `beta` can be solved for the reward:
r = beta (log pi - log ref) + const. Substituted into the Bradley-Terry model of preferences, this
removes the reward model and the reinforcement learning; a classification loss remains. The
reference's log-probabilities never change, so they are computed once.

The loss depends only on the difference, which a small model can raise by making both answers
unlikely, until it no longer ends its turns. So the chosen answer's own loss, `nll` times the mean
over its tokens, is added (Pang et al. 2024, Iterative Reasoning Preference Optimization, equation
1).

If a share of the labels is wrong, the loss of the swapped pair gets that share of the weight
(Mitchell 2023, A note on DPO with noisy preferences, equation 3: conservative DPO). The losses ipo,
hinge, simpo and orpo are in `pair_losses` and share everything else here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from groundup.align.config import LOSSES, DPOConfig
from groundup.align.pair_losses import hinge_loss, ipo_loss, orpo_loss, simpo_loss
from groundup.align.preferences import (
    Pair,
    PairBatch,
    PairStream,
    read_sides,
    say_refused,
    tokenize_pairs,
)
from groundup.align.ptx import PtxBatch, policy_saver, ptx_parents, ptx_stream, with_ptx
from groundup.align.reference import answer_logprobs, fill_reference
from groundup.data.config import PAIR_COLUMNS
from groundup.data.records import read_preferences
from groundup.data.split import evenly_spaced, on_disk
from groundup.evals.by_source import WORLD, source_groups
from groundup.evals.config import REFERENCE_FREE
from groundup.formats.hf_config import config_to_hf
from groundup.formats.locate import name_of
from groundup.lm.logprobs import sequence_logprobs
from groundup.lm.model import CausalLM
from groundup.report.claim import MIN_GROUPS
from groundup.report.estimate import POOLED, Estimate, rate
from groundup.runs.console import counted, say
from groundup.runs.folder import Run
from groundup.text.rows import BadLine
from groundup.train.batch import Loss
from groundup.train.device import prepare_to_read
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel, prepare_model

# Peak learning rates for full training of a small model: matrices; embeddings and gains.
RATES = (0.0006, 0.0006)
# The most passes over the pairs within a time budget. Rafailov et al. make one. From the second
# pass on, a small model learned little beyond the pairs; after five it had lost what it knew.
MAX_PASSES = 3.0
# Held-out pairs scored at each evaluation on the way.
_CURVE_PAIRS = 300
_GUESSING = 0.5


def dpo_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Each pair's loss, and its margin of implicit rewards, from log-probabilities in nats."""
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    if not label_smoothing:
        return -logsigmoid(margin), margin
    kept = 1 - label_smoothing
    return -kept * logsigmoid(margin) - label_smoothing * logsigmoid(-margin), margin


def pair_loss(
    policy: Float[Tensor, "pairs 2"],
    reference: Float[Tensor, "pairs 2"] | None,
    tokens: Float[Tensor, "pairs 2"],
    *,
    beta: float,
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """The loss of each pair under the loss named `loss`, and its reward margin.

    Columns are the chosen and the rejected answer, with their log-probabilities in nats under the
    policy and the reference, and their numbers of tokens. `label_smoothing` applies to sigmoid
    only, `gamma` to simpo only. Raises `ValueError` for an unknown loss.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r} is not one of {', '.join(LOSSES)}")
    chosen, rejected = policy.unbind(-1)
    mean_chosen, mean_rejected = (policy / tokens).unbind(-1)
    if loss == "simpo":
        return simpo_loss(mean_chosen, mean_rejected, beta, gamma)
    if loss == "orpo":
        return orpo_loss(mean_chosen, mean_rejected, beta)
    assert reference is not None, f"{loss} needs a reference"
    if loss == "ipo":
        before, otherwise = (reference / tokens).unbind(-1)
        return ipo_loss(mean_chosen, mean_rejected, before, otherwise, beta)
    before, otherwise = reference.unbind(-1)
    if loss == "hinge":
        return hinge_loss(chosen, rejected, before, otherwise, beta)
    return dpo_loss(chosen, rejected, before, otherwise, beta, label_smoothing)


def preference_loss(
    model: nn.Module, batch: PairBatch, beta: float, nll: float = 0.0, **settings: Any
) -> Loss:
    """The loss of a batch of pairs for `fit`: `pair_loss` plus `nll` times the chosen answer's own.

    `settings` are passed on to `pair_loss`.
    """
    policy, tokens = sequence_logprobs(model, batch.rows)[batch.sequences], batch.answer_tokens
    losses, margin = pair_loss(policy, batch.reference, tokens, beta=beta, **settings)
    chosen, rejected = policy.unbind(-1)
    if nll:
        losses = losses - nll * chosen / tokens[:, 0]
    total, count = losses.sum(), batch.weight
    metrics = {
        "loss": (float(total.detach()), count),
        "accuracy": (float((margin > 0).sum()), count),
        "margin": (float(margin.detach().sum()), count),
        "chosen_logprob": (float(chosen.detach().sum()), count),
        "rejected_logprob": (float(rejected.detach().sum()), count),
    }
    return Loss(total, count, metrics)


def run(config: DPOConfig) -> Path:
    """Align by `config` and return the run folder: a model's, or an adapter's.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": on_disk(config.data)}
    parents |= ptx_parents(config, config.data)
    return run_stage(config, "dpo", parents, functools.partial(_job, config))


def _job(config: DPOConfig, run: Run) -> Job[PairBatch | PtxBatch, CausalLM]:
    prepared = prepare_model(config, RATES)
    model, context = prepared.model, prepared.context
    prepare_to_read(model, config)
    own, heldout, reference, fill = _pairs(config, run, prepared)
    stream = ptx_stream(config, config.data, prepared.tokenizer, own, context)
    fill()  # may take minutes, so it comes after the other data has been checked
    how = f"{_METHODS[config.loss]} of {name_of(config.model)} with beta {config.beta}"
    return Job(
        config,
        prepared.trained,
        model=lambda: model,
        stream=lambda steps: stream,
        loss=with_ptx(
            functools.partial(preference_loss, nll=config.nll or 0.0, **config.loss_settings)
        ),
        evaluate=lambda model, step: _evaluate(
            config, run, model, heldout, reference, context, step
        ),
        save=policy_saver(config, config.data, run, prepared, how),
        context=context,
        rows_per_epoch=own.rows_per_epoch,
        most_passes=MAX_PASSES,
        model_config=config_to_hf(model.config),
        tokens_per_step=config.rows * context * (2 if config.ptx else 1),
        announce=lambda plan: _explain(config, run, len(heldout)),
    )


_METHODS = {
    "sigmoid": "Direct preference optimization",
    "ipo": "Identity preference optimization (IPO)",
    "hinge": "Preference optimization with a hinge loss (SLiC)",
    "simpo": "Simple preference optimization (SimPO)",
    "orpo": "Odds ratio preference optimization (ORPO)",
}


def _pairs(
    config: DPOConfig, run: Run, prepared: PreparedModel
) -> tuple[PairStream, list[Pair], Float[np.ndarray, "pairs 2"] | None, Callable[[], None]]:
    """Return a stream of training pairs, the held-out pairs, the reference's log-probabilities of
    the held-out pairs, and a function that computes those of all pairs.

    Before its first step an adapter adds nothing, so the reference is the given model. Losses
    without a reference compute none.
    """
    sides = read_sides(config, PAIR_COLUMNS, read_preferences)
    context = prepared.context
    (trained, refused), (heldout, refused_too) = (
        tokenize_pairs(prepared.tokenizer, side.rows, context) for side in sides
    )
    say_counts(
        sides[0].bad,
        f"{counted(len(trained), 'pair')} to train on, {len(heldout):,} held out",
        len(sides[0].rows) - len(trained) - len(refused),
        "pair",
        "without a difference",
    )
    say_refused(refused, refused_too)
    heldout = evenly_spaced(heldout, _CURVE_PAIRS)
    everything = [(pair.chosen, pair.rejected) for pair in (*trained, *heldout)]
    reference = np.full((len(everything), 2), np.nan, np.float32)
    stream = PairStream(
        trained,
        None if config.loss in REFERENCE_FREE else reference[: len(trained)],
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    if config.loss in REFERENCE_FREE:
        return stream, heldout, None, lambda: None
    packing, steps = stream.packing, config.steps
    fill = functools.partial(
        fill_reference, reference, run.folder, prepared.model, everything, packing, steps
    )
    return stream, heldout, reference[len(trained) :], fill


def say_counts(bad: Sequence[BadLine], counts: str, left: int, noun: str, why: str) -> None:
    """Report the training data, what was set aside, and why."""
    for line in bad:
        say(str(line))
    say(f"data: {counts}")
    if bad:
        say(f"  {counted(len(bad), 'bad line')} set aside")
    if left:
        where = "within the context, or whose prompt leaves no room in it"
        say(f"  {counted(left, noun)} {why} {where}")


def pair_logprobs(
    model: CausalLM, pairs: Sequence[Pair], context: int
) -> Float[np.ndarray, "pairs 2"]:
    """Return log p of both answers of each pair, in nats, without gradients."""
    return answer_logprobs(model, [(pair.chosen, pair.rejected) for pair in pairs], context)


def _evaluate(
    config: DPOConfig,
    run: Run,
    model: CausalLM,
    heldout: Sequence[Pair],
    reference: Float[np.ndarray, "pairs 2"] | None,
    context: int,
    step: int,
) -> dict[str, Any]:
    if not heldout:
        return {"heldout_accuracy": None, "preference_loss": None, "heldout_by_source": {}}
    policy = torch.from_numpy(pair_logprobs(model, heldout, context))
    before = None if reference is None else torch.from_numpy(reference)
    tokens = [[sum(side.loss_mask[1:]) for side in (one.chosen, one.rejected)] for one in heldout]
    losses, margin = pair_loss(policy, before, torch.tensor(tokens).float(), **config.loss_settings)
    what = "likelier" if reference is None else "gained"
    return measured(
        run,
        step,
        (margin > 0).double().numpy(),
        [pair.source for pair in heldout],
        [pair.group for pair in heldout],
        float(losses.mean()),
        f"better answer {what} in {{share}} of {{items}}",
        "held-out pair",
        _POOLS,
    )


def measured(
    run: Run,
    step: int,
    right: Float[np.ndarray, " items"],
    sources: Sequence[str],
    groups: Sequence[str],
    loss: float,
    sentence: str,
    noun: str,
    pools: Mapping[str, str],
) -> dict[str, Any]:
    """Return an evaluation for metrics.jsonl, and print it by pool."""
    found = gained_by_source(right, sources, groups)
    for name, where in pools.items():
        if name in found:
            say(f"{run.stage}  step {step}  {in_words(found[name], sentence, noun, where, found)}")
    return {
        "heldout_accuracy": float(right.mean()),
        "preference_loss": loss,
        "heldout_by_source": {name: one.to_json() for name, one in found.items()},
    }


def gained_by_source(
    gained: Float[np.ndarray, " pairs"], sources: Sequence[str], groups: Sequence[str]
) -> dict[str, Estimate]:
    """Return the share of pairs whose chosen answer gained, pooled and by source.

    Pairs written by people and generated pairs are pooled separately, as in the report; intervals
    resample whole groups.
    """
    return {
        name: rate(gained[at], groups=[groups[int(i)] for i in at], chance=_GUESSING)
        for name, at in source_groups(sources).items()
    }


_POOLS = {POOLED: "pairs written by people", WORLD: "pairs of the small world"}


def _explain(config: DPOConfig, run: Run, pairs: int) -> None:
    """Say what the evaluations during training measure."""
    if not pairs:
        return
    asked = (
        "is the better answer the likelier one, by the mean over its tokens?"
        if config.loss in REFERENCE_FREE
        else "has the better answer gained probability over the worse one since DPO began?"
    )
    say(
        f"{run.stage}  measured on {counted(pairs, 'held-out pair')}: in how many {asked} 50 % is "
        "guessing; the range in brackets is the 95 % interval"
    )


def in_words(found: Estimate, sentence: str, noun: str, where: str, pools: Collection[str]) -> str:
    """A sentence with the share and how it compares with guessing.

    With few groups no difference from guessing is significant.
    """
    if found.groups < MIN_GROUPS or found.low <= _GUESSING <= found.high:
        verdict = "not significantly different from guessing"
    else:
        verdict = "better than guessing" if found.low > _GUESSING else "worse than guessing"
    place = f", {where}" if WORLD in pools else ""
    said = sentence.format(share=f"{found.estimate:.1%}", items=counted(found.items, noun))
    return f"{said}{place} ({found.low:.0%} to {found.high:.0%}: {verdict})"
