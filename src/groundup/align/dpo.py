"""Direct preference optimisation (Rafailov et al. 2023, equation 7).

    loss = - log sigmoid( beta * [ (log pi(chosen) - log ref(chosen))
                                 - (log pi(rejected) - log ref(rejected)) ] )

The best policy under a reward with a price `beta` on leaving the reference can be solved for the
reward: r = beta (log pi - log ref) + const. Put into the Bradley-Terry model of preferences, the
reward model and the reinforcement learning fall away and a classification loss remains. What the
reference thinks never changes, so it is computed once.

The loss cares for the difference alone, and a small model finds it by making both answers unlikely,
until it no longer ends its turns. So the chosen answer's own loss is added, `nll` times the mean
over its tokens (Pang et al. 2024, Iterative Reasoning Preference Optimization, equation 1).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from groundup.align.config import DPOConfig
from groundup.align.preferences import Pair, PairBatch, PairStream, tokenize_pairs
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.evals.by_source import WORLD, source_groups
from groundup.formats.card import model_card, sources
from groundup.formats.hf_config import config_to_hf
from groundup.formats.locate import name_of
from groundup.lm.logprobs import score, sequence_logprobs, spread
from groundup.lm.model import CausalLM
from groundup.report.estimate import POOLED, Estimate, rate
from groundup.runs import ranks
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.train.batch import Loss
from groundup.train.checkpoint import write_tensors
from groundup.train.device import use_threads
from groundup.train.plan import TrainPlan
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel, prepare_model

# Peak learning rates of matrices and of embeddings and gains, where a small model is trained whole.
RATES = (0.0006, 0.0006)
# Held-out pairs scored at each evaluation on the way.
_CURVE_PAIRS = 300
_GUESSING = 0.5


def dpo_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Each pair's loss, and its margin of implicit rewards, from log-probabilities in nats."""
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -logsigmoid(margin), margin


def preference_loss(model: nn.Module, batch: PairBatch, beta: float, nll: float = 0.0) -> Loss:
    """The loss of a batch of pairs, as `fit` wants it: DPO's, and `nll` times the chosen's."""
    chosen, rejected = sequence_logprobs(model, batch.rows)[batch.sequences].unbind(-1)
    reference_chosen, reference_rejected = batch.reference.unbind(-1)
    losses, margin = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta)
    if nll:
        losses = losses - nll * chosen / batch.chosen_tokens
    total, count = losses.sum(), batch.weight
    metrics = {
        "loss": (float(total.detach()), count),
        "accuracy": (float((margin > 0).sum()), count),
        "margin": (float(margin.detach().sum()), count),
        "chosen_logprob": (float(chosen.detach().sum()), count),
    }
    return Loss(total, count, metrics)


def run(config: DPOConfig) -> Path:
    """Align by `config` and return the run folder: a model's, or an adapter's.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": config.data}
    return run_stage(config, "dpo", parents, functools.partial(_job, config))


def _job(config: DPOConfig, run: Run) -> Job[PairBatch, CausalLM]:
    prepared = prepare_model(config, RATES)
    model, context = prepared.model, prepared.context
    use_threads(config)
    stream, heldout, reference = _pairs(config, run, prepared)

    def save(model: CausalLM, plan: TrainPlan) -> None:
        card = model_card(
            "A chat model aligned by groundup",
            how=f"Direct preference optimisation of {name_of(config.model)} with beta "
            f"{config.beta}. {prepared.how}",
            facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
            data=sources(config.data),
            parent=name_of(config.model),
        )
        prepared.save(run.folder, prepared.tokenizer, card)

    return Job(
        config,
        prepared.trained,
        model=lambda: model,
        stream=lambda steps: stream,
        loss=functools.partial(preference_loss, beta=config.beta, nll=config.nll),
        evaluate=lambda model, step: _evaluate(
            config, run, model, heldout, reference, context, step
        ),
        save=save,
        context=context,
        rows_per_epoch=stream.rows_per_epoch,
        model_config=config_to_hf(model.config),
        announce=lambda plan: say(f"{run.stage}  {_explained(len(heldout))}") if heldout else None,
    )


def _pairs(
    config: DPOConfig, run: Run, prepared: PreparedModel
) -> tuple[PairStream, list[Pair], Float[np.ndarray, "pairs 2"]]:
    """Return training pairs as a stream, held-out pairs, and what the reference gives the latter.

    Before its first step an adapter adds nothing: the reference is the model that was given.
    """
    sides = split(config.data, "preferences", read_preferences)
    for line in sides[0].bad:
        say(str(line))
    if sides[0].remark:
        say(sides[0].remark)
    context = prepared.context
    trained, heldout = (tokenize_pairs(prepared.tokenizer, side.rows, context) for side in sides)
    heldout = spread(heldout, _CURVE_PAIRS)
    reference = np.full((len(trained) + len(heldout), 2), np.nan, np.float32)
    stream = PairStream(
        trained,
        reference[: len(trained)],
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    # Of many pairs a few steps read few.
    read = stream.read_by(config.steps) if config.steps else np.arange(len(trained))
    needed = np.concatenate([read, np.arange(len(trained), len(reference))])
    path = run.folder / "reference.safetensors"
    with ranks.rank_zero_first():
        _fill_reference(reference, path, prepared.model, trained + heldout, needed, context)
    return stream, heldout, reference[len(trained) :]


def pair_logprobs(
    model: CausalLM, pairs: Sequence[Pair], context: int
) -> Float[np.ndarray, "pairs 2"]:
    """Return log p of both answers of each pair, in nats, without gradients."""
    flat = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    sums = [float(found.sum()) for found in score(model, flat, context=context)]
    return np.array(sums, np.float32).reshape(-1, 2)


def _fill_reference(
    reference: Float[np.ndarray, "pairs 2"],
    path: Path,
    model: CausalLM,
    pairs: Sequence[Pair],
    needed: Int[np.ndarray, " needed"],
    context: int,
) -> None:
    """Fill in the reference's log-probabilities: computed once, read by every later start.

    What is not `needed` stays NaN. A later start may need more: then that alone is computed.
    """
    if path.is_file():
        with contextlib.suppress(SafetensorError, OSError):  # damaged: computed anew
            found = _kept(path)
            if found is not None and found.shape == reference.shape:
                reference[:] = found
    missing = needed[np.isnan(reference[needed]).any(1)]
    if not len(missing):
        return
    reference[missing] = pair_logprobs(model, [pairs[i] for i in missing], context)
    write_tensors(path, {"logprobs": torch.from_numpy(reference)}, {"sha256": _hash(reference)})


def _kept(path: Path) -> Float[np.ndarray, "pairs 2"] | None:
    with safe_open(path, framework="np") as file:
        said = (file.metadata() or {}).get("sha256")
        found = file.get_tensor("logprobs")
    return found if said is None or said == _hash(found) else None  # earlier versions do not say


def _hash(found: Float[np.ndarray, "pairs 2"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest()


def _evaluate(
    config: DPOConfig,
    run: Run,
    model: CausalLM,
    heldout: Sequence[Pair],
    reference: Float[np.ndarray, "pairs 2"],
    context: int,
    step: int,
) -> dict[str, Any]:
    if not heldout:
        return {"heldout_accuracy": None, "preference_loss": None, "heldout_by_source": {}}
    chosen, rejected = torch.from_numpy(pair_logprobs(model, heldout, context)).unbind(-1)
    before, otherwise = torch.from_numpy(reference).unbind(-1)
    losses, margin = dpo_loss(chosen, rejected, before, otherwise, config.beta)
    gained = (margin > 0).double().numpy()
    found = gained_by_source(gained, [pair.source for pair in heldout])
    for name, where in _POOLS.items():
        if name in found:
            say(f"{run.stage}  step {step}  {_in_words(found[name], where, WORLD in found)}")
    return {
        "heldout_accuracy": float(gained.mean()),
        "preference_loss": float(losses.mean()),
        "heldout_by_source": {name: one.to_json() for name, one in found.items()},
    }


def gained_by_source(
    gained: Float[np.ndarray, " pairs"], sources: Sequence[str]
) -> dict[str, Estimate]:
    """Return the share of pairs whose chosen answer gained, pooled and by source.

    What people wrote and what was generated are pooled apart, as in the report.
    """
    return {name: rate(gained[at], chance=_GUESSING) for name, at in source_groups(sources).items()}


_POOLS = {POOLED: "pairs written by people", WORLD: "pairs of the small world"}


def _explained(pairs: int) -> str:
    """Explain what the evaluations during training measure."""
    return (
        f"measured on {pairs:,} held-out pairs: in how many has the better answer gained "
        "probability on the worse one since DPO began? 50 % is guessing; the range in brackets is "
        "the 95 % interval"
    )


def _in_words(found: Estimate, where: str, several: bool) -> str:
    if found.low > _GUESSING:
        verdict = "better than guessing"
    elif found.high < _GUESSING:
        verdict = "worse than guessing"
    else:
        verdict = "cannot be told from guessing"
    place = f", {where}" if several else ""
    return (
        f"better answer gained in {found.estimate:.1%} of {found.items} held-out pairs{place} "
        f"({found.low:.0%} to {found.high:.0%}: {verdict})"
    )
