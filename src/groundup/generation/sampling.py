"""From logits to a token: filters choose the candidates, and a random number picks one of them.

    p = softmax(filter(penalize(logits) / temperature)),      token = first i with cdf_i > u

The random number u is an argument, one per row, so that a token is a pure function of logits and u:
a request has its own numbers and gets the same tokens alone or in a batch. The filters and their
order are those of Hugging Face's `generate`. Every row of a batch may have its own settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from operator import index
from typing import Any, get_args, get_type_hints

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import UserError, shorten
from groundup.generation.penalties import (
    Logits,
    PerRow,
    SeenTokens,
    penalized,
    penalized_by_count,
)
from groundup.train import ranges

# Some of the rows, their best scores, and the ids of these.
Candidates = tuple[Int[Tensor, " some"], Float[Tensor, "some best"], Int[Tensor, "some best"]]

# Sorting a whole vocabulary costs twenty times as much as finding its best 256, which nearly always
# hold the mass of top-p. Rows for which they do not suffice get eight times as many.
FIRST_CANDIDATES, MORE_CANDIDATES = 256, 8
# Below this the most likely token is practically certain, and float32 cannot hold the scores.
_GREEDY_BELOW = 1e-5
# The smallest top-p: the most likely token is always kept.
_MIN_TOP_P = 1e-30
# Error of sums of probabilities in float32: mass this close to top-p counts as reaching it.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Sampling:
    """The settings of sampling; `temperature=0` takes the most probable token.

    Raises `UserError` for a value outside its range.
    """

    temperature: ranges.Temperature = 0.7
    top_k: ranges.TopK = 0
    """Keep the k most probable tokens; 0 keeps all (Fan et al. 2018)."""
    top_p: ranges.TopP = 1.0
    """Keep the fewest tokens whose mass reaches p; 1 keeps all (Holtzman et al. 2020)."""
    min_p: ranges.Share = 0.0
    """Keep tokens with at least this share of the best one's probability (Nguyen et al. 2024)."""
    repetition_penalty: ranges.RepetitionPenalty = 1.0
    """Divides positive and multiplies negative logits of tokens in the prompt and the completion
    (Keskar et al. 2019)."""
    max_new_tokens: ranges.NewTokens = 256
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these strings; a single string is allowed."""
    seed: ranges.Seed = 0
    stop_ids: tuple[int, ...] = ()
    """A completion ends with the first of these tokens, in addition to the model's end tokens."""
    ignore_eos: bool = False
    """Ignore the model's end tokens (vLLM's name): generate `max_new_tokens` tokens, unless a stop
    string or one of `stop_ids` comes. For measuring speed, and for texts of one length."""
    min_new_tokens: int = 0
    """Sample no end token or stop id before this many tokens, and ignore stop strings in their text
    (vLLM's min_tokens)."""
    presence_penalty: ranges.TokenPenalty = 0.0
    """Subtracted once from the logit of each token of the completion so far (OpenAI)."""
    frequency_penalty: ranges.TokenPenalty = 0.0
    """Subtracted from a token's logit once per occurrence in the completion (OpenAI)."""
    logit_bias: Mapping[Any, float] | tuple[tuple[int, float], ...] = ()
    """Maps token ids to what is added to their logits, -100 to 100, before any penalty (OpenAI);
    stored as pairs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _items(self.stop))
        ids = [as_int(one) for one in _items(self.stop_ids)]
        tries = {
            "temperature": "0 always takes the most likely token; try 0.7",
            "top_k": "0 keeps all; try 50",
            "top_p": "1 keeps all; try 0.95",
            "min_p": "0 keeps all; try 0.05",
            "repetition_penalty": "1 is none; try 1.1",
            "presence_penalty": "0 is none; try 0.5",
            "frequency_penalty": "0 is none; try 0.5",
            "max_new_tokens": "try 256",
            "seed": "try 0",
        }
        for name, remedy in tries.items():
            self._make_number(name, is_whole=get_args(_RANGES[name])[0] is int)
            ranges.check(name, getattr(self, name), _RANGES[name], remedy)
        self._make_number("min_new_tokens", is_whole=True)
        rules = (
            (
                "min_new_tokens",
                0 <= self.min_new_tokens <= self.max_new_tokens,
                f"0 (off) to max_new_tokens={self.max_new_tokens}",
            ),
            (
                "stop",
                all(isinstance(one, str) and one for one in self.stop),
                "a list of strings that are not empty",
            ),
            (
                "stop_ids",
                all(one is not None and one >= 0 for one in ids),
                "a list of token ids, 0 or more",
            ),
        )
        if not isinstance(self.ignore_eos, bool):
            raise UserError(f"ignore_eos={shorten(self.ignore_eos)} must be true or false")
        for name, holds, rule in rules:
            if not holds:
                raise UserError(f"{name}={shorten(getattr(self, name))} must be {rule}")
        object.__setattr__(self, "stop_ids", tuple(ids))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))

    def _make_number(self, name: str, *, is_whole: bool) -> None:
        """Convert a setting, which may be NumPy's, to a Python number: seeds hash its text."""
        value = getattr(self, name)
        number: float | None = as_int(value)
        if not is_whole and isinstance(value, Real) and not isinstance(value, int):
            number = float(value)
        if number is None:
            raise UserError(f"{name}={shorten(value)} must be a {'whole ' * is_whole}number")
        object.__setattr__(self, name, number)

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < _GREEDY_BELOW

    @property
    def biases(self) -> dict[int, float]:
        """The logit biases by token id."""
        return dict(self.logit_bias)


_RANGES = get_type_hints(Sampling, include_extras=True)


def recorded(sampling: Sampling) -> dict[str, Any]:
    """All settings as a dictionary, for files that record how samples were made.

    Settings added in later releases are None while off, as files of older releases lack them.
    """
    later = ("presence_penalty", "frequency_penalty", "logit_bias")
    return asdict(sampling) | {name: getattr(sampling, name) or None for name in later}


def as_int(value: Any) -> int | None:
    """An integer of Python, NumPy or torch as a Python int; None for anything else."""
    try:
        return None if isinstance(value, bool) else index(value)
    except TypeError:
        return None


def _biases(given: Any) -> tuple[tuple[int, float], ...]:
    """Biases as pairs sorted by id; accepts pairs or a mapping, including one read from JSON."""
    try:
        pairs = [(_token_id(id), value) for id, value in dict(given).items()]
    except (TypeError, ValueError):
        pairs = [(-1, 0.0)]
    if not all(id >= 0 and _is_bias(value) for id, value in pairs):
        raise UserError(
            f"logit_bias={shorten(given)} must be token ids, each with a number of -100 to 100, "
            "such as {50256: -100}"
        )
    return tuple(sorted((id, float(value)) for id, value in pairs))


def _token_id(given: Any) -> int:
    """A token id, given as an integer or (in JSON) a string; -1 for anything else."""
    if isinstance(given, str):
        return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
    found = as_int(given)
    return -1 if found is None else found


def _is_bias(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and -100 <= float(value) <= 100


def _items(given: Any) -> tuple[Any, ...]:
    """An iterable as a tuple; anything else, including a string, as a tuple of one item."""
    try:
        return (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        return (given,)


class BatchedSampling:
    """The settings of every row of a batch, one tensor per setting.

    Rows are sampled in one of three ways, determined once for many steps: greedily, among the best
    (top-k, top-p), or among all tokens.
    """

    def __init__(self, samplings: Sequence[Sampling], vocab: int, device: torch.device) -> None:
        def per_row(values: list[float]) -> PerRow:
            return torch.tensor(values, dtype=torch.float32, device=device)

        # A row without top-k may keep the whole vocabulary.
        top_k = [min(one.top_k, vocab) or vocab for one in samplings]
        self.temperature = per_row([1.0 if one.is_greedy else one.temperature for one in samplings])
        self.top_k = torch.tensor(top_k, device=device)
        self.top_p = per_row([max(one.top_p, _MIN_TOP_P) for one in samplings])
        self.min_p = per_row([one.min_p for one in samplings])
        self.repetition = per_row([one.repetition_penalty for one in samplings])
        self.frequency = per_row([one.frequency_penalty for one in samplings])
        self.presence = per_row([one.presence_penalty for one in samplings])
        self.penalizes_seen = any(one.repetition_penalty != 1 for one in samplings)
        self.penalizes_counts = any(
            one.frequency_penalty or one.presence_penalty for one in samplings
        )
        self.random = any(not one.is_greedy for one in samplings)
        biases = [
            (row, id, bias) for row, one in enumerate(samplings) for id, bias in one.biases.items()
        ]
        self.biases = None
        if biases:
            rows, ids, values = zip(*biases, strict=True)
            places = (torch.tensor(rows, device=device), torch.tensor(ids, device=device))
            self.biases = places, per_row(list(values))

        ways: list[list[int]] = [[], [], []]
        for row, one in enumerate(samplings):
            few = top_k[row] < vocab or one.top_p < 1
            ways[0 if one.is_greedy else 1 if few else 2].append(row)
        self.greedy, self.best, self.all = (torch.tensor(way, device=device) for way in ways)
        limits = [top_k[row] for row in ways[1]]
        self.candidates = max((k if k < vocab else FIRST_CANDIDATES for k in limits), default=0)

    @classmethod
    def of(cls, sampling: Sampling | BatchedSampling, logits: Logits) -> BatchedSampling:
        if isinstance(sampling, BatchedSampling):
            return sampling
        return cls([sampling] * logits.shape[0], logits.shape[1], logits.device)

    def penalize(self, logits: Logits, seen: SeenTokens | None) -> Logits:
        """The logits after biases and penalties; unchanged if no row has any."""
        if self.biases is not None:
            places, values = self.biases
            logits = logits.index_put(places, values.to(logits.dtype), accumulate=True)
        if self.penalizes_seen:
            assert seen is not None and seen.anywhere is not None
            logits = penalized(logits, seen.anywhere, self.repetition)
        if self.penalizes_counts:
            assert seen is not None and seen.counts is not None
            logits = penalized_by_count(logits, seen.counts, self.frequency, self.presence)
        return logits


def sample(
    logits: Logits,
    sampling: Sampling | BatchedSampling,
    uniforms: PerRow,
    seen: SeenTokens | None = None,
) -> Int[Tensor, " rows"]:
    """One token per row: the best at temperature 0, else by inverting the cumulative distribution.

    `uniforms` are in [0, 1), one per row; `seen` are the tokens that penalties count. `sampling` is
    the same for all rows or a batch of settings.
    """
    draws = BatchedSampling.of(sampling, logits)
    logits = draws.penalize(logits, seen)
    tokens = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    if len(draws.greedy):
        tokens[draws.greedy] = _select(logits, draws.greedy).argmax(-1)
    for rows, values, ids in _best(logits, draws):
        picked = _pick(values.softmax(-1), _select(uniforms, rows))
        tokens[rows] = ids.gather(-1, picked[:, None])[:, 0]
    if len(draws.all):
        tokens[draws.all] = _pick(_all(logits, draws).softmax(-1), _select(uniforms, draws.all))
    return tokens


def _select(values: Tensor, rows: Int[Tensor, " some"]) -> Tensor:
    """The selected rows; nothing is copied if all are selected."""
    return values if len(rows) == len(values) else values[rows]


def _pick(
    probabilities: Float[Tensor, "some candidates"], uniforms: Float[Tensor, " some"]
) -> Int[Tensor, " some"]:
    """The first candidate at which the cumulative probability exceeds the random number."""
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Stay below the total, or rounding could pick an index beyond the last candidate.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    points = torch.minimum(uniforms[:, None].float() * total, below_total)
    return torch.searchsorted(cumulative, points, right=True)[:, 0]


# What the filters leave.


def restricted(
    logits: Float[Tensor, "*rows vocab"], allowed: Bool[Tensor, " vocab"]
) -> Float[Tensor, "*rows vocab"]:
    """The logits of allowed tokens, minus infinity elsewhere. Masks are on the CPU."""
    return logits.masked_fill(~allowed.to(logits.device), -torch.inf)


def filtered(logits: Logits, sampling: Sampling | BatchedSampling) -> Logits:
    """Log-probabilities after temperature, top-k, top-p and min-p; -inf for removed tokens.

    The most probable token always stays; at temperature 0 it is the only one.
    """
    draws = BatchedSampling.of(sampling, logits)
    scores = torch.full_like(logits, -torch.inf, dtype=torch.float32)
    if len(draws.greedy):
        best = logits[draws.greedy].argmax(-1, keepdim=True)
        scores[draws.greedy] = scores[draws.greedy].scatter(-1, best, 0.0)
    for rows, values, ids in _best(logits, draws):
        scores[rows] = scores[rows].scatter(-1, ids, values)
    if len(draws.all):
        scores[draws.all] = _all(logits, draws)
    return scores.log_softmax(-1)


def _all(logits: Logits, draws: BatchedSampling) -> Float[Tensor, "some vocab"]:
    """The scores of the rows that sample among all tokens."""
    rows = draws.all
    scores = _select(logits, rows).float() / _select(draws.temperature, rows)[:, None]
    return _at_least(scores, _select(draws.min_p, rows))


def _best(logits: Logits, draws: BatchedSampling) -> Iterator[Candidates]:
    """The candidates after top-k, top-p and min-p, best first: rows, scores (-inf: removed), ids.

    Rows whose first candidates do not reach the mass of top-p come later, with more candidates.
    """
    rows, width, vocab = draws.best, draws.candidates, logits.shape[-1]
    while len(rows):
        width = vocab if width * MORE_CANDIDATES > vocab else width
        values, ids, enough = _cut(logits, draws, rows, width)
        if width == vocab or bool(enough.all()):
            yield rows, values, ids
            return
        if bool(enough.any()):
            yield rows[enough], values[enough], ids[enough]
        rows, width = rows[~enough], width * MORE_CANDIDATES


def _cut(
    logits: Logits, draws: BatchedSampling, rows: Int[Tensor, " some"], width: int
) -> tuple[Float[Tensor, "some width"], Int[Tensor, "some width"], Bool[Tensor, " some"]]:
    """The best `width` scores after the filters, their ids, and whether they suffice for top-p.

    Top-p is relative to the mass that top-k left, as in Hugging Face's `generate`.
    """
    scores = _select(logits, rows).float() / _select(draws.temperature, rows)[:, None]
    top_k, top_p = (_select(setting, rows)[:, None] for setting in (draws.top_k, draws.top_p))
    values, ids = scores.topk(width)
    values = values.masked_fill(torch.arange(width, device=ids.device) >= top_k, -torch.inf)
    limited = top_k < scores.shape[-1]
    # Not logsumexp: it splits a long row among threads, and its rounding depends on their number.
    of_all = scores.log_softmax(-1).gather(-1, ids)
    probabilities = torch.where(limited, values.log_softmax(-1), of_all).exp()
    mass = probabilities.cumsum(-1)
    enough = limited | (mass[:, -1:] >= top_p)
    # With top-p off, a mass rounded to 1 must not remove anything.
    before = mass - probabilities
    reached = before >= (top_p - _ROUNDING).clamp(min=_MIN_TOP_P)
    values = values.masked_fill(reached & (top_p < 1), -torch.inf)
    return _at_least(values, _select(draws.min_p, rows)), ids, enough[:, 0]


def _at_least(
    scores: Float[Tensor, "some candidates"], min_p: Float[Tensor, " some"]
) -> Float[Tensor, "some candidates"]:
    """Remove candidates below min_p times the best one's probability; min_p = 0 removes none."""
    floor = scores.amax(-1, keepdim=True) + min_p.log()[:, None]
    return scores.masked_fill(scores < floor, -torch.inf)
