"""The commonest wrong answers to 2.5, each with the hint that names it."""

from collections.abc import Sequence

import numpy as np

REPLACES = {
    "not_scaled": "dropout",
    "scaled_by_the_chance": "dropout",
    "kept_and_dropped_exchanged": "dropout",
    "always_on": "dropout",
    "scaled_in_evaluation": "dropout",
    "multiplied": "dropout",
    "equal_dropped": "dropout",
    "never_stops": "early_stop",
    "any_rise": "early_stop",
    "best_is_the_last": "early_stop",
    "equal_counts_as_better": "early_stop",
    "one_more": "early_stop",
    "best_of_all": "early_stop",
    "first_guess": "early_stop",
    "little_does_not_count": "early_stop",
    "upper_part_dropped": "dropout",
    "off_in_training": "dropout",
    "never_begins_anew": "early_stop",
    "loss_for_its_place": "early_stop",
    "one_past_the_end": "early_stop",
    "scaled_in_evaluation_alone": "dropout",
    "best_and_end_exchanged": "early_stop",
}


def not_scaled(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """The kept numbers were not divided by 1 - p: the sum shrinks in training, and evaluation would
    see larger numbers than the network was trained with."""
    return x * (u >= p) if training else x


def scaled_by_the_chance(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """The kept numbers were divided by p. A number is kept with probability 1 - p: divide by
    that."""
    return x * (u >= p) / p if training else x


def kept_and_dropped_exchanged(
    x: np.ndarray, p: float, u: np.ndarray, training: bool
) -> np.ndarray:
    """Kept and dropped are exchanged: p is the probability to be dropped, where u < p."""
    return x * (u < p) / (1 - p) if training else x


def always_on(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """In evaluation nothing is dropped: return x unchanged if training is False."""
    return x * (u >= p) / (1 - p)


def scaled_in_evaluation(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """Evaluation multiplies by 1 - p, as the oldest dropout did. Here training already divides, and
    evaluation leaves x unchanged."""
    return x * (u >= p) / (1 - p) if training else x * (1 - p)


def multiplied(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """The kept numbers were multiplied by 1 - p and became even smaller. Divide."""
    return x * (u >= p) * (1 - p) if training else x


def equal_dropped(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """A u equal to p was dropped. Drop where u < p, so that p = 0 drops nothing, and u can be 0."""
    return x * (u > p) / (1 - p) if training else x


def never_stops(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """This goes on to the end. It must stop once `patience` evaluations in a row have brought no
    new best."""
    return len(losses) - 1, int(np.argmin(losses))


def any_rise(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """This counts how often the loss was higher than the one just before. Count the evaluations
    since the best one."""
    best, bad = 0, 0
    for i in range(1, len(losses)):
        if losses[i] < losses[best]:
            best = i
        bad = bad + 1 if losses[i] > losses[i - 1] else 0
        if bad >= patience:
            return i, best
    return len(losses) - 1, best


def best_is_the_last(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The second number is the index where training stopped. Return the index of the best
    evaluation before that, whose weights are kept."""
    stopped, _ = _stopped(losses, patience)
    return stopped, stopped


def equal_counts_as_better(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """An equal loss was counted as better. Only a lower one is: <, not <=."""
    best = 0
    for i, loss in enumerate(losses):
        if loss <= losses[best]:
            best = i
        elif i - best >= patience:
            return i, best
    return len(losses) - 1, best


def one_more(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """This waits for one evaluation more than `patience`: stop as soon as i - best reaches it."""
    return _stopped(losses, patience + 1)


def best_of_all(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The best was searched in all losses, including those after the stop, which training never
    reached."""
    return _stopped(losses, patience)[0], int(np.argmin(losses))


def first_guess(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The best loss starts at a fixed number, and losses above it never count as better. Start with
    the first loss, or with infinity."""
    best, lowest = 0, 100.0
    for i, loss in enumerate(losses):
        if loss < lowest:
            best, lowest = i, loss
        elif i - best >= patience:
            return i, best
    return len(losses) - 1, best


def little_does_not_count(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """A loss must be better by some margin to count here. Anything below the best is better."""
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best] - 1e-3:
            best = i
        elif i - best >= patience:
            return i, best
    return len(losses) - 1, best


def _stopped(losses: Sequence[float], patience: int) -> tuple[int, int]:
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            return i, best
    return len(losses) - 1, best


def upper_part_dropped(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """The right number was dropped, but the wrong ones: those with u >= 1 - p. Drop where u < p."""
    return x * (u < 1 - p) / (1 - p) if training else x


def off_in_training(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    """Training and evaluation are exchanged: drop if training is True, and return x unchanged if it
    is False."""
    return x if training else x * (u >= p) / (1 - p)


def never_begins_anew(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The count of evaluations without a new best is never reset. Each new best resets it to 0."""
    best, bad = 0, 0
    for i in range(1, len(losses)):
        if losses[i] < losses[best]:
            best = i
        else:
            bad += 1
            if bad >= patience:
                return i, best
    return len(losses) - 1, best


def loss_for_its_place(losses: Sequence[float], patience: int) -> tuple[int, float]:
    """The second number is the best loss. Return its index."""
    stopped, best = _stopped(losses, patience)
    return stopped, losses[best]


def one_past_the_end(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """If nothing stops the training, it ends at the last index, len(losses) - 1."""
    stopped, best = _stopped(losses, patience)
    return (stopped if stopped - best >= patience else len(losses)), best


def scaled_in_evaluation_alone(
    x: np.ndarray, p: float, u: np.ndarray, training: bool
) -> np.ndarray:
    """That is the oldest dropout: training does not rescale, and evaluation multiplies by 1 - p.
    Here training divides by 1 - p, and evaluation leaves x unchanged."""
    return x * (u >= p) if training else x * (1 - p)


def best_and_end_exchanged(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The two are exchanged: return the index where it stops first, then that of the best."""
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            return best, i
    return best, len(losses) - 1
