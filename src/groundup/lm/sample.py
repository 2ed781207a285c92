"""From logits to a token: which candidates stay, and which of them a random number picks.

    p = softmax(filter(penalise(logits) / temperature)),      token = first i with cdf_i > u

The random number u comes from outside, one per row, so that a token is a pure function of logits
and u: a request draws its own numbers and gets the same tokens alone or in a batch. The filters
and their order are those of Hugging Face's `generate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import UserError

Logits = Float[Tensor, "rows vocab"]

# Sorting a whole vocabulary costs twenty times what finding its best 256 does, and the best 256
# nearly always hold the mass that top-p asks for.
FIRST_CANDIDATES = 256


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; `temperature=0` takes the most probable token.

    Raises `UserError` for a value outside its range.
    """

    temperature: float = 0.7
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all (Fan et al. 2018)."""
    top_p: float = 1.0
    """Keep the fewest tokens whose mass reaches p; 1 keeps all (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the best one's probability (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen (Keskar et al. 2019)."""
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these strings."""
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more; try 0.7"),
            ("top_k", self.top_k >= 0, "0 (off) or more; try 50"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off); try 0.95"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 (off) and 1; try 0.05"),
            (
                "repetition_penalty",
                0 < self.repetition_penalty < math.inf,
                "above 0, with 1 for off; try 1.1",
            ),
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more; try 256"),
            ("stop", all(self.stop), "a list of strings that are not empty"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise UserError(f"{name}={getattr(self, name)!r} must be {rule}")

    @property
    def filters(self) -> tuple[float, int, float, float, float]:
        """What rows must have in common to be drawn together."""
        return (self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)


def penalised(logits: Logits, seen: Bool[Tensor, "rows vocab"], penalty: float) -> Logits:
    """Make the tokens already seen less likely (CTRL, Keskar et al. 2019, section 4.1)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def filtered(logits: Logits, sampling: Sampling) -> Logits:
    """Log-probabilities after temperature, top-k, top-p and min-p; -inf where a token is out.

    The most probable token always stays. Temperature must be above 0.
    """
    assert sampling.temperature > 0, "greedy choice has no distribution"
    scores = logits.float() / sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        values, ids, total = _candidates(scores, sampling)
        probabilities = (values - total).exp()
        mass_before = probabilities.cumsum(-1) - probabilities
        if sampling.top_p < 1:  # A rounded mass of 1 must not cut what only top-k may.
            values = values.masked_fill(mass_before >= sampling.top_p, -torch.inf)
        scores = torch.full_like(scores, -torch.inf).scatter(-1, ids, values)
    if sampling.min_p:
        floor = scores.amax(-1, keepdim=True) + math.log(sampling.min_p)
        scores = scores.masked_fill(scores < floor, -torch.inf)
    return scores.log_softmax(-1)


def _candidates(
    scores: Logits, sampling: Sampling
) -> tuple[Float[Tensor, "rows best"], Int[Tensor, "rows best"], Float[Tensor, "rows 1"]]:
    """The tokens that top-k and top-p may keep, best first, and the log of the mass they share.

    Top-p counts the mass of what top-k left, as Hugging Face does.
    """
    vocab = scores.shape[-1]
    if sampling.top_k:
        values, ids = scores.topk(min(sampling.top_k, vocab))
        return values, ids, values.logsumexp(-1, keepdim=True)
    total = scores.logsumexp(-1, keepdim=True)
    values, ids = scores.topk(min(FIRST_CANDIDATES, vocab))
    if bool(((values - total).exp().sum(-1) < sampling.top_p).any()):
        values, ids = scores.sort(-1, descending=True)
    return values, ids, total


def choose(
    logits: Logits,
    sampling: Sampling,
    uniforms: Float[Tensor, " rows"],
    seen: Bool[Tensor, "rows vocab"] | None = None,
) -> Int[Tensor, " rows"]:
    """One token per row: the best at temperature 0, else by inverting the cumulative distribution.

    `uniforms` are in [0, 1), one per row; `seen` marks the tokens of prompt and completion, for
    the repetition penalty.
    """
    if sampling.repetition_penalty != 1:
        assert seen is not None, "the repetition penalty needs the tokens seen"
        logits = penalised(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    cumulative = filtered(logits, sampling).exp().cumsum(-1)
    total = cumulative[:, -1:]
    # Never quite the total, or a rounding would pick a token beyond the last candidate.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    points = torch.minimum(uniforms[:, None].float() * total, below_total)
    return torch.searchsorted(cumulative, points, right=True)[:, 0]
