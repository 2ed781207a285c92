"""The commonest mistakes with your own data."""

import math

REPLACES = {
    "equal_shares": "token_shares",
    "replay_added": "token_shares",
    "general_gets_each": "token_shares",
    "weights_as_they_are": "token_shares",
    "zero_shares_listed": "token_shares",
    "share_forgotten": "times_seen",
    "upside_down": "times_seen",
    "whole_passes": "times_seen",
    "rounded": "times_seen",
    "whole_tokens": "times_seen",
    "mean_of_texts": "forgotten",
    "sign_turned": "forgotten",
    "in_nats": "forgotten",
    "never_below_zero": "forgotten",
    "rounded_up": "times_seen",
}


def equal_shares(own: dict[str, float], general: list[str], replay: float) -> dict[str, float]:
    """Your own sources get equal shares. Use their weights: weight / sum of weights."""
    shares = {name: (1 - replay) / len(own) for name in own}
    return shares | ({name: replay / len(general) for name in general} if replay else {})


def replay_added(own: dict[str, float], general: list[str], replay: float) -> dict[str, float]:
    """Replay is added on top of your own data, so the shares sum to more than 1. Your own data gets
    1 - replay."""
    shares = {name: weight / sum(own.values()) for name, weight in own.items()}
    return shares | ({name: replay / len(general) for name in general} if replay else {})


def general_gets_each(own: dict[str, float], general: list[str], replay: float) -> dict[str, float]:
    """Each general source gets all of replay. They divide it: replay / number of general
    sources."""
    shares = {name: (1 - replay) * weight / sum(own.values()) for name, weight in own.items()}
    return shares | (dict.fromkeys(general, replay) if replay else {})


def weights_as_they_are(
    own: dict[str, float], general: list[str], replay: float
) -> dict[str, float]:
    """The weights are taken as shares. They are numbers of any size: divide them by their sum."""
    shares = {name: (1 - replay) * weight for name, weight in own.items()}
    return shares | ({name: replay / len(general) for name in general} if replay else {})


def zero_shares_listed(
    own: dict[str, float], general: list[str], replay: float
) -> dict[str, float]:
    """Without replay, the general sources have a share of 0 in the dictionary. Leave them out."""
    shares = {name: (1 - replay) * weight / sum(own.values()) for name, weight in own.items()}
    return shares | {name: replay / len(general) for name in general}


def share_forgotten(tokens: int, share: float, size: int) -> float:
    """All tokens are counted, but only the source's share of them is its own."""
    return tokens / size


def upside_down(tokens: int, share: float, size: int) -> float:
    """The fraction is inverted: divide the tokens that are read by the tokens of the source."""
    return size / (tokens * share)


def mean_of_texts(before: list[float], after: list[float], sizes: list[int]) -> float:
    """That is the mean of the losses per text, in which a short text weighs as much as a long one.
    Divide the sum of differences by the sum of bytes."""
    each = [(b - a) / size for a, b, size in zip(before, after, sizes, strict=True)]
    return sum(each) / len(each) / math.log(2)


def sign_turned(before: list[float], after: list[float], sizes: list[int]) -> float:
    """The sign is flipped: forgetting is after - before, positive where the model became worse."""
    return (sum(before) - sum(after)) / math.log(2) / sum(sizes)


def in_nats(before: list[float], after: list[float], sizes: list[int]) -> float:
    """These are nats per byte. Divide by log 2 for bits."""
    return (sum(after) - sum(before)) / sum(sizes)


def whole_passes(tokens: int, share: float, size: int) -> float:
    """Only whole passes are counted. A source is seen 1.8 times, or 0.01 times: divide with /."""
    return tokens * share // size


def rounded(tokens: int, share: float, size: int) -> float:
    """The result is rounded. Of a large source only a small share is seen, so keep the decimals."""
    return round(tokens * share / size, 2)


def whole_tokens(tokens: int, share: float, size: int) -> float:
    """The source's tokens are truncated to an integer first. Do not round anything here."""
    return int(tokens * share) / size


def never_below_zero(before: list[float], after: list[float], sizes: list[int]) -> float:
    """Values below 0 are set to 0. A model may become better at a text, and the result should show
    it."""
    return max(0.0, (sum(after) - sum(before)) / math.log(2) / sum(sizes))


def rounded_up(tokens: int, share: float, size: int) -> float:
    """The number of passes was rounded up. A source may be seen one and a half times, or a
    hundredth."""
    return math.ceil(tokens * share / size)
