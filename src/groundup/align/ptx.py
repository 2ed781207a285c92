"""PPO-ptx: fine-tuning data next to an alignment stage's own (Ouyang et al. 2022, equation 2).

    loss = loss of the stage  +  ptx * mean over tokens of - log pi(token | all before it)

Preferences teach a model what to say, but nothing that it knew before. It forgets that, which
InstructGPT calls the alignment tax; a few rows of earlier data in every step lower this tax.
InstructGPT mixes in pre-training text; here it can be any fine-tuning data, conversations or
documents.

A step has as many rows of it as of the stage's own. They are additional micro-batches, so any stage
can have them: preferences, which come from a file, or rollouts of the current policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn

from groundup.align.config import PreferenceConfig, PtxConfig, RolloutConfig
from groundup.data.dataset import is_stage, load_dataset
from groundup.data.split import on_disk
from groundup.errors import UserError
from groundup.formats.card import model_card
from groundup.runs.console import counted, say
from groundup.runs.folder import Run
from groundup.text.batches import ConversationStream
from groundup.text.chat import SPLIT_CONVERSATIONS
from groundup.text.example import Example, cut_to, encode_rows
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import B, Batch, Loss, LossFunction, Stream, TensorFields
from groundup.train.loss import next_token_loss
from groundup.train.plan import TrainPlan
from groundup.tune.prepare import PreparedModel

# Random rows are encoded until they have this many tokens: encoding all of a large set takes longer
# than many an alignment.
_MAX_TOKENS = 2_000_000
_ROWS_AT_A_TIME = 1000


@dataclass(frozen=True)
class PtxBatch(TensorFields):
    """A micro-batch of fine-tuning data; `scale` is the weight of the sum of its tokens' losses.

    Its own weight is 0: `fit` divides a step by the weight of the stage's own batches only.
    """

    rows: Batch
    scale: float

    @property
    def weight(self) -> float:
        return 0.0


class PtxStream(Generic[B]):
    """A stage's stream, with the micro-batches of another stream added to every step.

    The added batches are a pure function of (seed, step); only the stage's own state is saved.
    """

    def __init__(self, own: Stream[B], data: Stream[Batch], ptx: float) -> None:
        self.own, self.data, self.ptx = own, data, ptx

    def at(self, step: int, model: nn.Module) -> list[B | PtxBatch]:
        own, rows = self.own.at(step, model), self.data.at(step, model)
        weight = sum(batch.weight for batch in own)
        scale = self.ptx * weight / sum(batch.weight for batch in rows)
        return [*own, *(PtxBatch(batch, scale) for batch in rows)]

    def can_save(self, step: int) -> bool:
        return self.own.can_save(step)

    def state(self) -> dict[str, Tensor]:
        return self.own.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.own.restore(state)


def with_ptx(
    loss: LossFunction[B],
    policy: Callable[[Any], nn.Module] = lambda model: model,
    trains: Callable[[], bool] = lambda: True,
) -> LossFunction[B | PtxBatch]:
    """The loss of a stage's batches, and of fine-tuning data next to them.

    `policy` returns the language model of the trained module, which may also have a critic. While
    `trains` returns False, the policy waits for the critic and learns from neither.
    """

    def either(model: nn.Module, batch: B | PtxBatch) -> Loss:
        if not isinstance(batch, PtxBatch):
            return loss(model, batch)
        if not trains():
            return Loss(torch.zeros((), requires_grad=True), batch.weight, {})
        found = next_token_loss(policy(model), batch.rows)
        return Loss(batch.scale * found.total, batch.weight, {"ptx_loss": found.metrics["loss"]})

    return either


def ptx_stream(
    config: PtxConfig, data: Path, tokenizer: Tokenizer, own: Stream[B], context: int
) -> Stream[B | PtxBatch]:
    """The stage's own stream, with the data of `config.ptx` added if that has a weight.

    `data` is what the stage itself reads. Raises `UserError` for data that cannot be used.
    """
    if not config.ptx:
        return own
    items = _items(ptx_sources(config, data), tokenizer, context, config.seed)
    rows = ConversationStream(
        items,
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    say(f"ptx: {len(items):,} items of fine-tuning data, {config.rows} rows of them in a step")
    if rows.counts.without_answer:
        without = counted(rows.counts.without_answer, "item")
        say(f"  {without} without a word to learn within the {context:,} tokens of a row, left out")
    if rows.counts.truncated:
        say(f"  {counted(rows.counts.truncated, 'item')} cut at the {context:,} tokens of a row")
    return PtxStream(own, rows, config.ptx)


def ptx_sources(config: PtxConfig, data: Path) -> tuple[Path, ...]:
    """The paths of fine-tuning data; none without a weight. Raises `UserError` if none is named."""
    if not config.ptx:
        return ()
    if config.ptx_data is None and not is_stage(data):
        raise UserError(
            f"ptx={config.ptx:g} needs fine-tuning data, and {str(data)!r} is no data-stage "
            "folder, which has some; name them with --ptx-data"
        )
    return config.ptx_data or (data,)


def ptx_parents(config: PtxConfig, data: Path) -> dict[str, Path]:
    """The `ptx_sources` on disk, without `data`, by their names in a run's lineage."""
    sources = [at for at in ptx_sources(config, data) if at != data]
    there = [at for at in sources if at.exists()]
    there += [at for at in map(on_disk, sources) if at.exists() and at not in sources]
    return {f"ptx {i + 1}" if i else "ptx": at for i, at in enumerate(there)}


def policy_saver(
    config: PreferenceConfig | RolloutConfig,
    data: Path,
    run: Run,
    prepared: PreparedModel,
    how: str,
) -> Callable[[object, TrainPlan], None]:
    """Return a function that saves a stage's policy, with a card that credits all its data.

    `how` says what the stage did, without a period. Raises `UserError` as `ptx_sources` does.
    """
    read = (data, *ptx_sources(config, data))

    def save(model: object, plan: TrainPlan) -> None:
        card = model_card(
            "A chat model aligned by groundup",
            how=f"{how}. {prepared.how}",
            facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
            data=read,
            parents=(config.model,),
        )
        prepared.save(run.folder, prepared.tokenizer, card)

    return save


def _items(sources: Sequence[Path], tokenizer: Tokenizer, context: int, seed: int) -> list[Example]:
    read = load_dataset(sources)
    for line in read.bad:
        say(str(line))
    order = np.random.default_rng(seed).permutation(len(read.train))
    items: list[Example] = []
    tokens = refused = apart = 0
    for start in range(0, len(order), _ROWS_AT_A_TIME):
        rows = [read.train[i] for i in order[start : start + _ROWS_AT_A_TIME]]
        try:
            found = encode_rows(tokenizer, rows, context)
        except UserError:  # every one of the remaining rows is refused
            if not items:
                raise
            refused += len(rows)
            continue
        items += found.items
        refused += len(found.refused)
        apart += found.apart
        tokens += sum(cut_to(item, context).inputs for item in found.items)
        if tokens >= _MAX_TOKENS:
            break
    if refused:
        say(f"ptx: {counted(refused, 'row')} set aside, as they cannot be encoded")
    if apart:
        say(f"ptx: {counted(apart, 'conversation')} {SPLIT_CONVERSATIONS}")
    return items
