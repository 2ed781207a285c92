"""The data types of the training loop: batches, losses, and streams that can be resumed.

Every training stage consists of these three. Pre-training and fine-tuning use `Batch` directly;
stages on pairs or rollouts define a dataclass that wraps batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Extent(NamedTuple):
    """The least and the greatest token id of a batch, and its greatest position."""

    least: int
    greatest: int
    position: int


@dataclass(frozen=True)
class TensorFields:
    """Implements `TrainingBatch` for dataclasses of tensors and batches."""

    @property
    def tokens(self) -> int:
        """The number of tokens that the model reads, without padding."""
        parts = (getattr(self, field.name) for field in fields(self))
        return sum(part.tokens for part in parts if isinstance(part, Batch))

    def to(self, device: torch.device) -> Self:
        """Return a copy with all tensors and batches on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in values.items()
            if isinstance(value, Tensor | Batch)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Batch(TensorFields):
    """Rows of tokens, each row one or several packed documents.

    `weights` are the loss weights of the targets: 0 is not trained on. Tokens of different
    `segment_ids` never attend to each other; segments are numbered over the whole batch, so a
    number identifies one sequence, whose tokens are contiguous. Padding has segment -1 and weight
    0. `position_ids` restart at 0 in each segment.
    """

    input_ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    weights: Float[Tensor, "rows time"]
    position_ids: Int[Tensor, "rows time"]
    segment_ids: Int[Tensor, "rows time"]

    @cached_property
    def weight(self) -> float:
        """The sum of the weights, known before any forward pass; `fit` divides by it."""
        return float(self.weights.sum())

    @cached_property
    def tokens(self) -> int:
        """The number of tokens that the model reads, without padding."""
        return int((self.segment_ids >= 0).sum())

    @cached_property
    def trained(self) -> Int[Tensor, " trained"]:
        """The indices of targets with a nonzero weight, in the flattened rows."""
        return self.weights.flatten().nonzero()[:, 0]

    @cached_property
    def extent(self) -> Extent:
        ids = self.input_ids
        if not ids.numel():
            return Extent(0, 0, 0)
        return Extent(int(ids.min()), int(ids.max()), int(self.position_ids.max()))

    @property
    def counted(self) -> bool:
        """Whether its counts were computed on the CPU before it moved to another device."""
        return "extent" in vars(self)

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device.

        Reading a number from a GPU waits for all of its queued work, so the counts that a step
        needs are computed before, on the CPU.
        """
        moved = super().to(device)
        if self.input_ids.device.type == "cpu" != device.type:
            known = {name: getattr(self, name) for name in ("weight", "tokens", "extent")}
            vars(moved).update(known, trained=self.trained.to(device))
        return moved

    @classmethod
    def of(cls, input_ids: Int[Tensor, "rows time"], lengths: Sequence[int] | None = None) -> Batch:
        """Rows of one document each without targets, for a forward pass without a loss.

        Tokens beyond the rows' `lengths` are padding.
        """
        rows, time = input_ids.shape
        positions = torch.arange(time, device=input_ids.device).expand(rows, time)
        return cls.at(input_ids, positions, lengths)

    @classmethod
    def at(
        cls,
        input_ids: Int[Tensor, "rows time"],
        positions: Int[Tensor, "rows time"],
        lengths: Sequence[int] | None = None,
    ) -> Batch:
        """Tokens at these positions of cached sequences, for a forward pass without a loss."""
        zeros = torch.zeros_like(input_ids)
        segments = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(zeros)
        if lengths is not None:
            ends = torch.tensor(lengths, device=input_ids.device)[:, None]
            beyond = torch.arange(input_ids.shape[1], device=input_ids.device) >= ends
            segments = segments.masked_fill(beyond, -1)
        return cls(input_ids, zeros, zeros.float(), positions, segments)


# The tests' import hook checks argument types, hence `runtime_checkable` here and below.
@runtime_checkable
class TrainingBatch(Protocol):
    """The interface that `fit` needs from any kind of batch."""

    @property
    def weight(self) -> float: ...

    @property
    def tokens(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...


def trained_tokens(batch: Any) -> int:
    """Return the number of tokens with a weight, which reach the head, in any kind of batch.

    A reward model's score of an answer counts as one token's head, which is a hundredth too many.
    """
    if isinstance(batch, Batch):
        return int(batch.weights.count_nonzero())
    parts = (getattr(batch, field.name) for field in fields(batch))
    return sum(trained_tokens(part) for part in parts if isinstance(part, Batch))


B = TypeVar("B", bound=TrainingBatch)
B_co = TypeVar("B_co", bound=TrainingBatch, covariant=True)
B_contra = TypeVar("B_contra", bound=TrainingBatch, contravariant=True)


@dataclass(frozen=True)
class Loss:
    """`total` is a sum of terms already weighted by the batch, never a mean.

    Averaging averages gives the tokens of short rows too much weight, a well-known error. So `fit`
    takes the mean once, over all batches of an optimizer step. `metrics` are (sum, count) pairs for
    the same reason.
    """

    total: Float[Tensor, ""]
    weight: float
    metrics: Mapping[str, tuple[float, float]]


@runtime_checkable
class LossFunction(Protocol[B_contra]):
    def __call__(self, model: nn.Module, batch: B_contra) -> Loss: ...


@runtime_checkable
class Stream(Protocol[B_co]):
    """A source of batches.

    A data stream is a pure function of (seed, step): its `state` is empty and it can be saved at
    any step. A rollout stream depends on the current model and can be saved only between rollouts.
    """

    def at(self, step: int, model: nn.Module) -> Sequence[B_co]:
        """The micro-batches of one optimizer step."""
        ...

    def can_save(self, step: int) -> bool: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class DataStream:
    """Implements the saving part of `Stream` for pure data streams, which have no state."""

    def can_save(self, step: int) -> bool:
        return True

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        assert not state, "a data stream is a pure function of (seed, step)"
