"""Recurrent language models: a state of constant size passes from token to token.

    x_1 … x_T = embed(tokens)
    h_t, c_t = LSTM(x_t, h_{t-1}, c_{t-1})     or  h_t = GRU(x_t, h_{t-1})       layer upon layer
    logits = head(norm(h))

(Hochreiter & Schmidhuber 1997; Cho et al. 2014; as language models Mikolov et al. 2010 and Zaremba
et al. 2014.) `nn.recurrent` implements the formulas readably; this module uses torch's kernels with
the same weights. Such a model must carry in h and c everything that a transformer would look up in
its cache, so its state takes the same memory, and a token the same time, however long the text is.
The price is that step t waits for step t - 1, so a processor that could compute a thousand products
at once computes only a few.

Packed documents never see each other: each starts from a state of zeros. So each document of a
batch, in whatever row, becomes a sequence of its own. The sequences run side by side, which also
makes each step's product larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from groundup.lm.config import ModelConfig
from groundup.lm.sizes import GATES
from groundup.train.batch import Batch

# oneDNN compiles and caches a program for each new size: half a megabyte each. So groups of
# documents are padded to multiples of these sizes.
_STEPS, _SEQUENCES = 16, 4

Hidden = Float[Tensor, "rows time width"]
# The state of one layer for each sequence: h and, in an LSTM, c.
State = tuple[Float[Tensor, "sequences width"], ...]


class Recurrent(nn.Module):
    """Everything below the head; named `model` inside `CausalLM`, like `Decoder`."""

    def __init__(self, config: ModelConfig, norm: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        kernel = nn.LSTM if config.model_type == "lstm" else nn.GRU
        self.layers = nn.ModuleList(
            kernel(width, width, batch_first=True) for _ in range(config.num_hidden_layers)
        )
        self.norm = norm

    def forward(self, batch: Batch, cache: RecurrentCache | None) -> Hidden:
        x: Tensor = self.embed_tokens(batch.input_ids)
        tokens = x.flatten(0, 1)
        out = torch.zeros_like(tokens)
        for group in sequences(batch.segment_ids, equal_lengths=cache is not None):
            read = tokens.index_select(0, group.places.flatten()).view(*group.places.shape, -1)
            for number, layer in enumerate(self.layers):
                state = (
                    None
                    if cache is None
                    else cache.initial_states(number, group, batch.position_ids)
                )
                read, last = self._run(layer, read, state)
                if cache is not None:
                    cache.store(number, group, last)
            out = out.index_copy(0, group.places[group.real], read[group.real])
        normed: Tensor = self.norm(out.view_as(x))
        return normed

    def _run(
        self, layer: nn.Module, x: Float[Tensor, "sequences steps width"], state: State | None
    ) -> tuple[Float[Tensor, "sequences steps width"], State]:
        run = cast("Callable[..., tuple[Tensor, State]]", run_layer)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            found = checkpoint(run, layer, x, state, use_reentrant=False)
            return cast("tuple[Tensor, State]", found)
        return run(layer, x, state)

    def initialize(self, generator: torch.Generator) -> None:
        """Weights from U(-b, b) with b = 1 / sqrt(width), like torch's; biases 0, except for forget
        gates, which start open (Jozefowicz et al. 2015, section 2.2)."""
        width = self.config.hidden_size
        for name, parameter in self.layers.named_parameters():
            with torch.no_grad():
                if "weight" in name:
                    bound = 1 / math.sqrt(width)
                    parameter.uniform_(-bound, bound, generator=generator)
                else:
                    parameter.zero_()
                if "bias_ih" in name and GATES[self.config.model_type] == 4:
                    parameter[width : 2 * width] = 1.0  # torch's order: input, forget, cell, output


def run_layer(
    layer: nn.LSTM | nn.GRU, x: Float[Tensor, "sequences steps width"], state: State | None
) -> tuple[Float[Tensor, "sequences steps width"], State]:
    """One layer's h at each step, starting from `state` or zeros, and its last state."""
    if x.shape[1] == 1 and not torch.is_grad_enabled():
        last = _step(layer, x[:, 0], state)
        return last[0][:, None], last
    first = None if state is None else tuple(one[None] for one in state)
    if isinstance(layer, nn.LSTM):
        out, (h, c) = layer(x, first)
        return out, (h[0], c[0])
    out, h = layer(x, None if first is None else first[0])
    return out, (h[0],)


def _step(
    layer: nn.LSTM | nn.GRU, x: Float[Tensor, "sequences width"], state: State | None
) -> State:
    """One step, as in generation: the sequence kernels take three times as long to start."""
    weights = tuple(layer.parameters())  # for the input, for the state, and their biases
    if isinstance(layer, nn.LSTM):
        previous = (torch.zeros_like(x),) * 2 if state is None else state
        h, c = torch.lstm_cell(x, previous, *weights)
        return h, c
    return (torch.gru_cell(x, torch.zeros_like(x) if state is None else state[0], *weights),)


@dataclass(frozen=True)
class Group:
    """Documents of similar length, side by side in the layout of torch's kernels.

    `places` are the indices of their tokens in the flattened batch. Shorter documents repeat their
    last token as padding, and whole sequences may be padding; `real` is false there, and the output
    is ignored.
    """

    places: Int[Tensor, "sequences steps"]
    real: Bool[Tensor, "sequences steps"]
    rows: Int[Tensor, " sequences"]


def sequences(segment_ids: Int[Tensor, "rows time"], *, equal_lengths: bool) -> Iterator[Group]:
    """Group every run of one segment, the longest first; padding (segment -1) is left out.

    A group's shortest run is more than half as long as its longest, which bounds the padding. With
    `equal_lengths` all runs of a group have the same length, so their last states are valid.
    """
    rows, time = segment_ids.shape
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = begins.flatten().nonzero()[:, 0]
    lengths = torch.cat((starts[1:], starts.new_tensor([rows * time]))) - starts
    real = segment_ids.flatten()[starts] >= 0
    lengths, longest_first = lengths[real].sort(descending=True, stable=True)
    starts = starts[real][longest_first]
    while len(lengths):
        longest = int(lengths[0])
        least = longest if equal_lengths else longest // 2 + 1
        count = int((lengths >= least).sum())
        ends, beginnings = lengths[:count], starts[:count]
        if not equal_lengths:  # add empty documents, placed at the last one
            longest += -longest % _STEPS
            more = -count % _SEQUENCES
            ends, beginnings = (
                pad(ends, (0, more)),
                pad(beginnings, (0, more), value=int(beginnings[-1])),
            )
        steps = torch.arange(longest, device=segment_ids.device)
        places = beginnings[:, None] + torch.minimum(steps, (ends[:, None] - 1).clamp(min=0))
        yield Group(places, steps < ends[:, None], beginnings // time)
        starts, lengths = starts[count:], lengths[count:]


@dataclass
class RecurrentCache:
    """The states of every layer after the tokens of each row: the model's whole memory.

    `slots`, the maximum length of a row, is stored only as a number. A row's beginning cannot be
    extracted from its state, so rows share no prefixes.
    """

    states: list[State]
    slots: int

    shares_prefixes: ClassVar[bool] = False

    @classmethod
    def empty(
        cls, config: ModelConfig, rows: int, slots: int, like: Float[Tensor, ...]
    ) -> RecurrentCache:
        count = 2 if config.model_type == "lstm" else 1
        layers = range(config.num_hidden_layers)
        states = [
            tuple(like.new_zeros(rows, config.hidden_size) for _ in range(count)) for _ in layers
        ]
        return cls(states, slots)

    @property
    def rows(self) -> int:
        return self.states[0][0].shape[0]

    def initial_states(
        self, layer: int, group: Group, position_ids: Int[Tensor, "rows time"]
    ) -> State:
        """The states from which these rows continue; zeros for rows that begin."""
        begins = position_ids[group.rows, 0] == 0
        states = (one[group.rows] for one in self.states[layer])
        return tuple(one.masked_fill(begins[:, None], 0.0) for one in states)

    def store(self, layer: int, group: Group, last: State) -> None:
        for kept, new in zip(self.states[layer], last, strict=True):
            kept[group.rows] = new

    def clear(self, row: int) -> None:
        for one in self._tensors():
            one[row].zero_()

    def select(self, rows: Int[Tensor, " kept"]) -> RecurrentCache:
        """A copy of the kept rows."""
        states = [tuple(one[rows] for one in layer) for layer in self.states]
        return RecurrentCache(states, self.slots)

    def grow(self, rows: int, slots: int) -> None:
        self.slots = max(slots, self.slots)
        if (more := rows - self.rows) > 0:
            self.states = [
                tuple(torch.cat((one, one.new_zeros(more, one.shape[1]))) for one in layer)
                for layer in self.states
            ]

    def copy_rows(
        self, row: int, source: RecurrentCache, source_rows: list[int], length: int
    ) -> None:
        """Copy `source_rows` of `source`, each after `length` tokens, to the rows from `row`."""
        for to, of in zip(self._tensors(), source._tensors(), strict=True):
            to[row : row + len(source_rows)] = of[source_rows]

    def swap(self, one: int, other: int, length: int) -> None:
        for stored in self._tensors():
            stored[[one, other]] = stored[[other, one]]

    def _tensors(self) -> list[Tensor]:
        return [one for layer in self.states for one in layer]
