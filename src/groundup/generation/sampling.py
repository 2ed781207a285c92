"""From logits to a token: which candidates stay, and which of them a random number picks.

    p = softmax(filter(penalize(logits) / temperature)),      token = first i with cdf_i > u

The random number u comes from outside, one per row, so that a token is a pure function of logits
and u: a request draws its own numbers and gets the same tokens alone or in a batch. The filters
and their order are those of Hugging Face's `generate`. Every row of a batch may have its own.
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

# Some of the rows, and of each the best scores and their ids.
Candidates = tuple[Int[Tensor, " some"], Float[Tensor, "some best"], Int[Tensor, "some best"]]

# Sorting a whole vocabulary costs twenty times what finding its best 256 does, and the best 256
# nearly always hold the mass that top-p asks for. Rows where they do not get eight times as many.
FIRST_CANDIDATES, MORE_CANDIDATES = 256, 8
# Below this the likeliest token is as good as sure, and float32 cannot hold the scores.
_GREEDY_BELOW = 1e-5
# The smallest share that float32 tells from none: the likeliest token is always kept.
_LEAST_TOP_P = 1e-30
# What sums of probabilities in float32 are off by: mass that is so close to top-p reaches it.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Sampling:
    """The settings of a draw; `temperature=0` takes the most probable token.

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
    """Divides positive and multiplies negative logits of tokens of the prompt and the completion
    (Keskar et al. 2019)."""
    max_new_tokens: ranges.NewTokens = 256
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these strings; one string may stand for itself."""
    seed: ranges.Seed = 0
    stop_ids: tuple[int, ...] = ()
    """A completion ends with the first of these tokens, beside the model's own ends."""
    ignore_eos: bool = False
    """The model's own ends do not end it (vLLM's word): it goes on to `max_new_tokens`, unless a
    stop string or one of `stop_ids` comes. For measuring speed, and for texts of one length."""
    min_new_tokens: int = 0
    """No end, nor any of `stop_ids`, is drawn before so many tokens, and no stop string counts in
    their text (vLLM's min_tokens)."""
    presence_penalty: ranges.TokenPenalty = 0.0
    """Is subtracted once from the logit of each token of the completion so far (OpenAI)."""
    frequency_penalty: ranges.TokenPenalty = 0.0
    """Is subtracted from such a logit as often as its token was drawn (OpenAI)."""
    logit_bias: Mapping[Any, float] | tuple[tuple[int, float], ...] = ()
    """From a token's id to what is added to its logit, -100 to 100, before any penalty (OpenAI);
    kept as pairs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _items(self.stop))
        ids = [whole(one) for one in _items(self.stop_ids)]
        tries = {
            "temperature": "0 always takes the likeliest token; try 0.7",
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
        """Make a number of Python's of a setting that may be NumPy's: seeds hash what it prints."""
        value = getattr(self, name)
        number: float | None = whole(value)
        if not is_whole and isinstance(value, Real) and not isinstance(value, int):
            number = float(value)
        if number is None:
            raise UserError(f"{name}={shorten(value)} must be a {'whole ' * is_whole}number")
        object.__setattr__(self, name, number)

    @property
    def is_greedy(self) -> bool:
        """Whether it always takes the most probable token."""
        return self.temperature < _GREEDY_BELOW

    @property
    def biases(self) -> dict[int, float]:
        """The logit biases by their tokens."""
        return dict(self.logit_bias)


_RANGES = get_type_hints(Sampling, include_extras=True)


def recorded(sampling: Sampling) -> dict[str, Any]:
    """All settings, for a file that must know what it was begun with.

    What is off of those that came later is None: files of releases without it do not name it.
    """
    later = ("presence_penalty", "frequency_penalty", "logit_bias")
    return asdict(sampling) | {name: getattr(sampling, name) or None for name in later}


def whole(value: Any) -> int | None:
    """A whole number of Python's, NumPy's or torch's as one of Python's; None for all else."""
    try:
        return None if isinstance(value, bool) else index(value)
    except TypeError:
        return None


def _biases(given: Any) -> tuple[tuple[int, float], ...]:
    """Biases as pairs in the order of the ids, of pairs or of a mapping, as JSON has it too."""
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
    """A token's id, also as a text, as names in JSON are; -1 for all else."""
    if isinstance(given, str):
        return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
    found = whole(given)
    return -1 if found is None else found


def _is_bias(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and -100 <= float(value) <= 100


def _items(given: Any) -> tuple[Any, ...]:
    """What can be gone through as a tuple, and all else, a text among it, as one item."""
    try:
        return (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        return (given,)


class BatchedSampling:
    """The settings of every row of a batch, one tensor for each.

    Rows are drawn in one of three ways, told apart once for many steps: greedily, among the best
    (top-k, top-p), or among all tokens.
    """

    def __init__(self, samplings: Sequence[Sampling], vocab: int, device: torch.device) -> None:
        def per_row(values: list[float]) -> PerRow:
            return torch.tensor(values, dtype=torch.float32, device=device)

        # A row without top-k may keep the whole vocabulary.
        top_k = [min(one.top_k, vocab) or vocab for one in samplings]
        self.temperature = per_row([1.0 if one.is_greedy else one.temperature for one in samplings])
        self.top_k = torch.tensor(top_k, device=device)
        self.top_p = per_row([max(one.top_p, _LEAST_TOP_P) for one in samplings])
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
        """The logits after biases and penalties; those given where no row has any."""
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

    `uniforms` are in [0, 1), one per row; `seen` are the tokens that penalties count. `sampling`
    is one for all rows or each row's own.
    """
    draws = BatchedSampling.of(sampling, logits)
    logits = draws.penalize(logits, seen)
    tokens = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    if len(draws.greedy):
        tokens[draws.greedy] = _of(logits, draws.greedy).argmax(-1)
    for rows, values, ids in _best(logits, draws):
        picked = _pick(values.softmax(-1), _of(uniforms, rows))
        tokens[rows] = ids.gather(-1, picked[:, None])[:, 0]
    if len(draws.all):
        tokens[draws.all] = _pick(_all(logits, draws).softmax(-1), _of(uniforms, draws.all))
    return tokens


def _of(values: Tensor, rows: Int[Tensor, " some"]) -> Tensor:
    """Some of the rows; nothing is copied when it is all of them."""
    return values if len(rows) == len(values) else values[rows]


def _pick(
    probabilities: Float[Tensor, "some candidates"], uniforms: Float[Tensor, " some"]
) -> Int[Tensor, " some"]:
    """The first candidate at which the cumulative probability exceeds the random number."""
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Never quite the total, or a rounding would pick a token beyond the last candidate.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    points = torch.minimum(uniforms[:, None].float() * total, below_total)
    return torch.searchsorted(cumulative, points, right=True)[:, 0]


# What the filters leave.


def restricted(
    logits: Float[Tensor, "*rows vocab"], allowed: Bool[Tensor, " vocab"]
) -> Float[Tensor, "*rows vocab"]:
    """The logits of tokens that a mask allows; of others minus infinity. Masks are of the CPU."""
    return logits.masked_fill(~allowed.to(logits.device), -torch.inf)


def filtered(logits: Logits, sampling: Sampling | BatchedSampling) -> Logits:
    """Log-probabilities after temperature, top-k, top-p and min-p; -inf where a token is out.

    The most probable token always stays, and alone at temperature 0.
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
    """The scores of the rows that are drawn among all tokens."""
    rows = draws.all
    scores = _of(logits, rows).float() / _of(draws.temperature, rows)[:, None]
    return _at_least(scores, _of(draws.min_p, rows))


def _best(logits: Logits, draws: BatchedSampling) -> Iterator[Candidates]:
    """What top-k, top-p and min-p leave, best first: rows, their scores (-inf is out) and ids.

    Rows whose first candidates do not hold the mass that top-p asks for come later, with more.
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
    """The best `width` scores as the filters leave them, their ids, and whether they are enough.

    Top-p counts the mass of what top-k left, as Hugging Face does.
    """
    scores = _of(logits, rows).float() / _of(draws.temperature, rows)[:, None]
    top_k, top_p = (_of(setting, rows)[:, None] for setting in (draws.top_k, draws.top_p))
    values, ids = scores.topk(width)
    values = values.masked_fill(torch.arange(width, device=ids.device) >= top_k, -torch.inf)
    limited = top_k < scores.shape[-1]
    # Not by logsumexp, which divides a long row among threads and rounds by their number.
    of_all = scores.log_softmax(-1).gather(-1, ids)
    probabilities = torch.where(limited, values.log_softmax(-1), of_all).exp()
    mass = probabilities.cumsum(-1)
    enough = limited | (mass[:, -1:] >= top_p)
    # With top-p off, a rounded mass of 1 must not cut what only top-k may.
    before = mass - probabilities
    reached = before >= (top_p - _ROUNDING).clamp(min=_LEAST_TOP_P)
    values = values.masked_fill(reached & (top_p < 1), -torch.inf)
    return _at_least(values, _of(draws.min_p, rows)), ids, enough[:, 0]


def _at_least(
    scores: Float[Tensor, "some candidates"], min_p: Float[Tensor, " some"]
) -> Float[Tensor, "some candidates"]:
    """Without what has less than min_p of the best one's probability; log 0 leaves everything."""
    floor = scores.amax(-1, keepdim=True) + min_p.log()[:, None]
    return scores.masked_fill(scores < floor, -torch.inf)
