"""Puts the learner's loss into DPO."""

from contextlib import AbstractContextManager
from types import ModuleType

import torch
from torch import Tensor, nn

from groundup.align import dpo
from groundup.align.preferences import PairBatch
from groundup.learn.plain import all_replaced
from groundup.learn.small import small_model, some_rows
from groundup.lm.logprobs import target_logprobs
from groundup.train.batch import Batch

USED_BY = "groundup dpo: its training loss, and the margins that it reports"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """With wrong labels (label smoothing) a pair's loss is mixed with that of the pair reversed."""

    def dpo_loss(
        chosen: Tensor,
        rejected: Tensor,
        reference_chosen: Tensor,
        reference_rejected: Tensor,
        beta: float,
        label_smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        four = (chosen, rejected, reference_chosen, reference_rejected)
        losses, margins = part.dpo_losses(*four, beta)
        if label_smoothing:
            reversed_pair = (rejected, chosen, reference_rejected, reference_chosen)
            turned, _ = part.dpo_losses(*reversed_pair, beta)
            losses = (1 - label_smoothing) * losses + label_smoothing * turned
        return losses, margins

    def sequence_logprobs(model: nn.Module, batch: Batch) -> Tensor:
        """Put each packed sequence of the product into one row of the learner's mask."""
        hidden = model(batch)
        rows, places = batch.weights.nonzero(as_tuple=True)
        head: Tensor = model.head  # type: ignore[assignment]
        found = target_logprobs(hidden[rows, places], head, batch.targets[rows, places])
        segments = batch.segment_ids[rows, places]
        count = int(batch.segment_ids.max()) + 1
        mask = (segments[None] == torch.arange(count, device=segments.device)[:, None]).to(found)
        mask = mask * batch.weights[rows, places]
        answers: Tensor = part.answer_logprobs(found.expand_as(mask), mask)
        return answers

    return all_replaced((dpo, "dpo_loss", dpo_loss), (dpo, "sequence_logprobs", sequence_logprobs))


def try_it() -> list[float]:
    """The loss of two pairs under a small model, and its gradient in one of the matrices."""
    model = small_model()
    batch = PairBatch(
        rows=some_rows(4),
        sequences=torch.tensor([[0, 1], [2, 3]]),
        reference=torch.tensor([[-9.0, -8.0], [-7.0, -10.0]]),
    )
    loss = dpo.preference_loss(model, batch, 0.1, label_smoothing=0.1).total
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = model.blocks[0].self_attn.v_proj.weight.grad
    assert gradient is not None
    return [float(loss.detach()), float(gradient.norm())]
