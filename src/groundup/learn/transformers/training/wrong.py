"""The commonest mistakes with the loss, its schedule and bits per byte."""

import math

import torch
from torch import Tensor

REPLACES = {
    "mean_for_sum": "cross_entropy",
    "weights_forgotten": "cross_entropy",
    "sign_forgotten": "cross_entropy",
    "exp_overflows": "cross_entropy",
    "softmax_twice": "cross_entropy",
    "log_of_softmax": "cross_entropy",
    "never_zero": "cross_entropy",
    "begins_at_zero": "schedule",
    "never_falls": "schedule",
    "ramps_multiplied": "schedule",
    "cosine": "schedule",
    "mean_of_means": "bits_per_byte",
    "nats_per_byte": "bits_per_byte",
    "multiplied_by_log_2": "bits_per_byte",
    "raw_logits": "cross_entropy",
    "log_forgotten": "cross_entropy",
    "weights_in_a_row": "cross_entropy",
    "divided_by_tokens": "cross_entropy",
    "ends_at_zero": "schedule",
    "divided_by_zero": "schedule",
    "warmup_goes_first": "schedule",
    "torchs_mean": "cross_entropy",
    "weights_of_classes": "cross_entropy",
    "mean_by_weights_of_classes": "cross_entropy",
    "weights_as_truth": "cross_entropy",
    "softmax_over_tokens": "cross_entropy",
    "falls_from_the_warmup_on": "schedule",
}


def mean_for_sum(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """That is the mean. A training step adds up sums and divides once, so return the sum."""
    said = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return -(weights * said).sum() / weights.sum()


def weights_forgotten(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weights are not used: a token of weight 0 must not count."""
    return -logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0].sum()


def sign_forgotten(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sign is flipped: log-probabilities are below 0, and a loss is *minus* their sum."""
    said = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return (weights * said).sum()


def exp_overflows(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """exp of a large logit is inf. Subtract each row's maximum first, or use log_softmax, which
    does."""
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    said = probabilities.gather(-1, targets[:, None])[:, 0].log()
    return -(weights * said).sum()


def softmax_twice(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The softmax is taken twice: log_softmax takes logits, not probabilities."""
    said = logits.softmax(-1).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return -(weights * said).sum()


def log_of_softmax(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """This takes the logarithm of a finished softmax, and a probability too small for a float has
    become 0 by then: the loss is inf. Compute both in one step, with log_softmax or logsumexp."""
    said = logits.softmax(-1).log().gather(-1, targets[:, None])[:, 0]
    return -(weights * said).sum()


def never_zero(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """A small number (or a clamp) keeps 0 from the logarithm, so the loss of a target of
    probability 0 is far too small, and its gradient is 0: the model cannot learn from its worst
    mistakes. Compute softmax and logarithm in one step, with log_softmax or logsumexp."""
    said = (logits.softmax(-1) + 1e-12).log().gather(-1, targets[:, None])[:, 0]
    return -(weights * said).sum()


def begins_at_zero(step: int, steps: int, warmup: int, decay: int) -> float:
    """The first step has the rate 0 and learns nothing. Steps count from 0, so the first is 1 of
    warmup: (step + 1) / warmup."""
    rising = step / warmup if warmup else 1.0
    falling = (steps - step) / decay if decay else 1.0
    return min(rising, 1.0, falling)


def never_falls(step: int, steps: int, warmup: int, decay: int) -> float:
    """The decay is missing: in the last `decay` steps the scale falls, (steps - step) / decay."""
    return min((step + 1) / warmup, 1.0) if warmup else 1.0


def ramps_multiplied(step: int, steps: int, warmup: int, decay: int) -> float:
    """The two ramps are multiplied, so where they overlap the rate is lower than either. The scale
    is the smallest of the two and 1."""
    rising = min((step + 1) / warmup, 1.0) if warmup else 1.0
    falling = min((steps - step) / decay, 1.0) if decay else 1.0
    return rising * falling


def cosine(step: int, steps: int, warmup: int, decay: int) -> float:
    """That is a cosine over the whole run. Here the rate stays at 1 between warm-up and decay,
    and both are straight lines."""
    if warmup and step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def mean_of_means(nats: list[float], sizes: list[int]) -> float:
    """That is the mean of the texts' bits per byte, in which a short text weighs as much as a long
    one. Divide the sum of nats by the sum of bytes."""
    each = [paid / size / math.log(2) for paid, size in zip(nats, sizes, strict=True)]
    return sum(each) / len(each)


def nats_per_byte(nats: list[float], sizes: list[int]) -> float:
    """These are nats per byte. A bit is log 2 nats, so divide by log 2."""
    return sum(nats) / sum(sizes)


def multiplied_by_log_2(nats: list[float], sizes: list[int]) -> float:
    """Nats become bits by *dividing* by log 2: there are more bits than nats."""
    return sum(nats) * math.log(2) / sum(sizes)


def raw_logits(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """These are the logits themselves. Turn them into log-probabilities first, with log_softmax."""
    return -(weights * logits.gather(-1, targets[:, None])[:, 0]).sum()


def log_forgotten(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The logarithm is missing: these are probabilities, and a loss sums their logarithms."""
    return -(weights * logits.softmax(-1).gather(-1, targets[:, None])[:, 0]).sum()


def weights_in_a_row(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """gather gives a column, (tokens, 1), but the weights are a row: broadcasting made every pair
    of them. Take the column's numbers first: [:, 0]."""
    return -(weights * logits.log_softmax(-1).gather(-1, targets[:, None])).sum()


def divided_by_tokens(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """That is the mean over the tokens. A training step adds up sums and divides once, so return
    the sum."""
    return -(weights * logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]).mean()


def ends_at_zero(step: int, steps: int, warmup: int, decay: int) -> float:
    """The last step has the rate 0 and learns nothing. It is step steps - 1, and its scale is 1 /
    decay: (steps - step) / decay."""
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (steps - 1 - step) / decay if decay else 1.0
    return min(rising, 1.0, falling)


def divided_by_zero(step: int, steps: int, warmup: int, decay: int) -> float:
    """warmup or decay may be 0; then there is no such ramp: check before you divide."""
    return min((step + 1) / warmup, 1.0, (steps - step) / decay)


def warmup_goes_first(step: int, steps: int, warmup: int, decay: int) -> float:
    """Where the two ramps overlap, only the warm-up is used. The scale is the smallest of both and
    1."""
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (steps - step) / decay) if decay else 1.0


def torchs_mean(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """That is torch's default cross_entropy: an unweighted mean over all tokens. Return the
    weighted sum, in which tokens of weight 0 do not count."""
    return torch.nn.functional.cross_entropy(logits, targets)


def weights_of_classes(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """`weight` of torch's cross_entropy is one number for each *class* of the vocabulary. Here
    there is one for each token: multiply each token's own loss by it."""
    return torch.nn.functional.cross_entropy(logits, targets, weights, reduction="sum")


def mean_by_weights_of_classes(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """`weight` of torch's cross_entropy is one number for each *class* of the vocabulary. Here
    there is one for each token: multiply each token's own loss by it."""
    return torch.nn.functional.cross_entropy(logits, targets, weights)


def weights_as_truth(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Each weight counts as 0 or 1. A token may weigh 2, or a half: multiply its loss by it."""
    said = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return -said[weights > 0].sum()


def softmax_over_tokens(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The softmax runs over the tokens (dimension 0). Each token distributes its probability over
    the vocabulary, the last dimension."""
    return -(weights * logits.log_softmax(0).gather(-1, targets[:, None])[:, 0]).sum()


def falls_from_the_warmup_on(step: int, steps: int, warmup: int, decay: int) -> float:
    """The scale falls from the end of the warm-up on. It stays at 1 until the last `decay` steps:
    (steps - step) / decay."""
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (steps - step) / (steps - warmup) if decay and steps > warmup else 1.0
    return min(rising, 1.0, falling)
