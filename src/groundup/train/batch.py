"""What flows through the one loop: batches in, a loss out, from a stream that can be resumed.

Every training stage is these three things and nothing else. Pre-training and fine-tuning use
`Batch` as it is; pair and rollout stages bring a dataclass of their own that wraps one.
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
    """The part of `TrainingBatch` that every dataclass of tensors and batches shares."""

    @property
    def tokens(self) -> int:
        """Tokens the model reads, padding left out."""
        parts = (getattr(self, field.name) for field in fields(self))
        return sum(part.tokens for part in parts if isinstance(part, Batch))

    def to(self, device: torch.device) -> Self:
        """All tensors and batches on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in values.items()
            if isinstance(value, Tensor | Batch)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Batch(TensorFields):
    """Rows of tokens, each row one or several documents packed side by side.

    `weights` says how much each target counts: 0 is not trained on. Tokens of different
    `segment_ids` never see each other; segments are numbered over the whole batch, so a number
    names one sequence, whose tokens stand side by side. Padding has segment -1 and weight 0.
    `position_ids` restart at 0 in each segment.
    """

    input_ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    weights: Float[Tensor, "rows time"]
    position_ids: Int[Tensor, "rows time"]
    segment_ids: Int[Tensor, "rows time"]

    @cached_property
    def weight(self) -> float:
        """The sum of the weights, known before any forward pass: what `fit` divides by."""
        return float(self.weights.sum())

    @cached_property
    def tokens(self) -> int:
        """Tokens the model reads, padding left out."""
        return int((self.segment_ids >= 0).sum())

    @cached_property
    def trained(self) -> Int[Tensor, " trained"]:
        """The places of targets that have a weight, in the flattened rows."""
        return self.weights.flatten().nonzero()[:, 0]

    @cached_property
    def extent(self) -> Extent:
        ids = self.input_ids
        if not ids.numel():
            return Extent(0, 0, 0)
        return Extent(int(ids.min()), int(ids.max()), int(self.position_ids.max()))

    @property
    def counted(self) -> bool:
        """Whether it was counted on the CPU before it was moved to another device."""
        return "extent" in vars(self)

    def to(self, device: torch.device) -> Self:
        """The batch on a device. Whoever asks a GPU for a number waits until it has done all that
        it was told to do, so what a step asks of a batch is counted before, on the CPU."""
        moved = super().to(device)
        if self.input_ids.device.type == "cpu" != device.type:
            known = {name: getattr(self, name) for name in ("weight", "tokens", "extent")}
            vars(moved).update(known, trained=self.trained.to(device))
        return moved

    @classmethod
    def of(cls, input_ids: Int[Tensor, "rows time"], lengths: Sequence[int] | None = None) -> Batch:
        """Plain rows of one document each, for a forward pass without a loss: it has no targets.

        What stands beyond the `lengths` of rows is padding.
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
        """Tokens that stand at these positions of what a cache holds, for a forward pass alone."""
        zeros = torch.zeros_like(input_ids)
        segments = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(zeros)
        if lengths is not None:
            ends = torch.tensor(lengths, device=input_ids.device)[:, None]
            beyond = torch.arange(input_ids.shape[1], device=input_ids.device) >= ends
            segments = segments.masked_fill(beyond, -1)
        return cls(input_ids, zeros, zeros.float(), positions, segments)


# The tests' import hook checks arguments, hence `runtime_checkable` here and below.
@runtime_checkable
class TrainingBatch(Protocol):
    """What `fit` needs to know of any kind of batch."""

    @property
    def weight(self) -> float: ...

    @property
    def tokens(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...


def trained_tokens(batch: Any) -> int:
    """Tokens that have a weight, and so reach the head, in all rows of a batch of any kind.

    A reward model's one score of an answer counts as one token's head, which is a hundredth too
    many.
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
    """`total` is a sum whose terms the batch has weighted already; never a mean.

    Averaging averages gives short rows more say than long ones, a well-known error, so the mean
    is taken once, by `fit`, over everything that one optimizer step saw. `metrics` are
    (sum, count) pairs for the same reason.
    """

    total: Float[Tensor, ""]
    weight: float
    metrics: Mapping[str, tuple[float, float]]


@runtime_checkable
class LossFunction(Protocol[B_contra]):
    def __call__(self, model: nn.Module, batch: B_contra) -> Loss: ...


@runtime_checkable
class Stream(Protocol[B_co]):
    """Where batches come from.

    A data stream is a pure function of (seed, step): its `state` is empty, any step may be saved.
    A rollout stream depends on the live model and can be saved only between rollouts.
    """

    def at(self, step: int, model: nn.Module) -> Sequence[B_co]:
        """The micro-batches of one optimizer step."""
        ...

    def can_save(self, step: int) -> bool: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


class DataStream:
    """The part of `Stream` that every pure data stream shares: nothing to save."""

    def can_save(self, step: int) -> bool:
        return True

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        assert not state, "a data stream is a pure function of (seed, step)"
