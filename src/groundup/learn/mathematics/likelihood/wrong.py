"""The commonest wrong answers to 1.6, each with the hint that names it."""

import numpy as np

REPLACES = {
    "overflows": "log_softmax",
    "log_of_softmax": "log_softmax",
    "over_everything": "log_softmax",
    "first_axis": "log_softmax",
    "probabilities": "log_softmax",
    "shift_added_back": "log_softmax",
    "max_over_everything": "log_softmax",
    "naive": "log_softmax",
    "rows_did_not_fit": "log_softmax",
    "never_below_1e12": "log_softmax",
    "never_below_1e9": "log_softmax",
    "summed": "cross_entropy",
    "sign_forgotten": "cross_entropy",
    "in_bits": "cross_entropy",
    "all_entries": "cross_entropy",
    "every_row_with_every_target": "cross_entropy",
    "log_forgotten": "cross_entropy",
    "softmax_overflows": "cross_entropy",
    "log_of_zero": "cross_entropy",
    "loss_never_above_1e12": "cross_entropy",
    "loss_never_above_1e9": "cross_entropy",
    "mean_for_sum": "log_softmax",
    "raw_logits": "cross_entropy",
    "softmax_twice": "cross_entropy",
    "log_of_the_mean": "cross_entropy",
}


def overflows(logits: np.ndarray) -> np.ndarray:
    """exp of a large logit is infinite. Subtract the largest logit of each row first: that changes
    no probability and avoids the overflow."""
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def log_of_softmax(logits: np.ndarray) -> np.ndarray:
    """This takes the logarithm of a finished softmax, where a probability too small for a float is
    already 0. Write it in one step: shifted - log(sum(exp(shifted)))."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.log(e / e.sum(axis=-1, keepdims=True))


def over_everything(logits: np.ndarray) -> np.ndarray:
    """The sum is over the whole array, so all rows together share the probability 1. Each row has
    its own softmax: axis=-1, keepdims=True."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def first_axis(logits: np.ndarray) -> np.ndarray:
    """The softmax runs down the columns. The choices are along the last axis: axis=-1."""
    shifted = logits - logits.max(axis=0, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=0, keepdims=True))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """These are the probabilities; return their logarithms."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def shift_added_back(logits: np.ndarray) -> np.ndarray:
    """The maximum was subtracted in the sum of exps, but not from the logits themselves. Use the
    shifted logits in both places."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def max_over_everything(logits: np.ndarray) -> np.ndarray:
    """The largest number of the whole array was subtracted from every row: in a row far below it
    every exp is 0, and log 0 is -inf. Take each row's own maximum: axis=-1, keepdims=True."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def summed(logits: np.ndarray, targets: np.ndarray) -> float:
    """The losses were summed. Return the mean over the rows, so that the loss does not grow with
    the batch."""
    return float(_own(logits, targets).sum())


def sign_forgotten(logits: np.ndarray, targets: np.ndarray) -> float:
    """The minus is missing: logarithms of probabilities are negative, a loss is positive."""
    return float(-_own(logits, targets).mean())


def in_bits(logits: np.ndarray, targets: np.ndarray) -> float:
    """This is in bits, with log2. Return nats: np.log."""
    return float(_own(logits, targets).mean() / np.log(2))


def all_entries(logits: np.ndarray, targets: np.ndarray) -> float:
    """The mean is over all entries of the rows, or the sum was divided by n k. Only the target's
    entry of each row counts: n numbers, divided by n."""
    return float(_own(logits, targets).sum() / logits.size)


def every_row_with_every_target(logits: np.ndarray, targets: np.ndarray) -> float:
    """log_p[:, targets] pairs every row with every target. To take one entry from each row, give
    both indices: log_p[np.arange(n), targets]."""
    return float(-_log_softmax(logits)[:, targets].mean())


def log_forgotten(logits: np.ndarray, targets: np.ndarray) -> float:
    """This averages the probabilities themselves. Take the logarithm of each first, then the
    mean."""
    return float(-np.exp(-_own(logits, targets)).mean())


def softmax_overflows(logits: np.ndarray, targets: np.ndarray) -> float:
    """This computes its own softmax, and exp of a large logit is infinite: inf / inf is NaN. Use
    log_softmax, which subtracts the largest logit of each row."""
    e = np.exp(logits)
    p = e / e.sum(axis=-1, keepdims=True)
    return float(-np.log(p[np.arange(len(targets)), targets]).mean())


def log_of_zero(logits: np.ndarray, targets: np.ndarray) -> float:
    """This takes the logarithm of a finished softmax, and a probability too small for a float has
    become 0 by then: the loss is infinite. Use log_softmax, which stays in logarithms."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return float(-np.log(p[np.arange(len(targets)), targets]).mean())


def naive(logits: np.ndarray) -> np.ndarray:
    """exp of a large logit is infinite, and inf / inf is NaN. Subtract the largest logit of each
    row first, and take the logarithm in one step: shifted - log(sum(exp(shifted)))."""
    e = np.exp(logits)
    return np.log(e / e.sum(axis=-1, keepdims=True))


def rows_did_not_fit(logits: np.ndarray) -> np.ndarray:
    """The maximum (or the sum) of each row lost its dimension, so it does not broadcast along the
    rows, or broadcasts along the columns. Keep it: keepdims=True."""
    shifted = logits - logits.max(axis=-1)
    return shifted - np.log(np.exp(shifted).sum(axis=-1))


def never_below_1e12(logits: np.ndarray) -> np.ndarray:
    """A small number (or a clip) keeps 0 from the logarithm, so everything less likely than it
    becomes equally likely. Write it in one step: shifted - log(sum(exp(shifted)))."""
    return np.log(_softmax(logits) + 1e-12)


def never_below_1e9(logits: np.ndarray) -> np.ndarray:
    """A small number (or a clip) keeps 0 from the logarithm, so everything less likely than it
    becomes equally likely. Write it in one step: shifted - log(sum(exp(shifted)))."""
    return np.log(_softmax(logits) + 1e-9)


def loss_never_above_1e12(logits: np.ndarray, targets: np.ndarray) -> float:
    """A small number (or a clip) keeps 0 from the logarithm, so a target that was thought
    impossible costs too little. Use log_softmax, which stays in logarithms."""
    return float(-np.log(_softmax(logits)[np.arange(len(targets)), targets] + 1e-12).mean())


def loss_never_above_1e9(logits: np.ndarray, targets: np.ndarray) -> float:
    """A small number (or a clip) keeps 0 from the logarithm, so a target that was thought
    impossible costs too little. Use log_softmax, which stays in logarithms."""
    return float(-np.log(_softmax(logits)[np.arange(len(targets)), targets] + 1e-9).mean())


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = e / e.sum(axis=-1, keepdims=True)
    return result


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _own(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The loss of each row."""
    return -_log_softmax(logits)[np.arange(len(targets)), targets]


def mean_for_sum(logits: np.ndarray) -> np.ndarray:
    """The mean of the exps was taken. Use their sum: it makes the probabilities of a row sum to
    1."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).mean(axis=-1, keepdims=True))


def raw_logits(logits: np.ndarray, targets: np.ndarray) -> float:
    """These are the logits themselves. Turn them into log-probabilities first, with log_softmax."""
    return float(-logits[np.arange(len(targets)), targets].mean())


def softmax_twice(logits: np.ndarray, targets: np.ndarray) -> float:
    """The softmax is taken twice: log_softmax takes logits, not probabilities."""
    return float(_own(_softmax(logits), targets).mean())


def log_of_the_mean(logits: np.ndarray, targets: np.ndarray) -> float:
    """This is the logarithm of a mean probability. Take the logarithm of each first, then the
    mean."""
    return float(-np.log(np.exp(-_own(logits, targets)).mean()))
