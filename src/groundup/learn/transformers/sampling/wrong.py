"""The commonest mistakes with the cache and sampling."""

import torch
from torch import Tensor

REPLACES = {
    "one_place_for_all": "remember",
    "a_copy": "remember",
    "all_slots": "remember",
    "last_one_missing": "remember",
    "last_one_largest": "remember",
    "times_temperature": "probabilities",
    "crossing_token_lost": "probabilities",
    "top_p_of_everything": "probabilities",
    "not_renormalized": "probabilities",
    "top_p_below": "probabilities",
    "one_beyond_p": "probabilities",
    "temperature_last": "probabilities",
    "more_than_there_are": "probabilities",
    "nearly_zero": "probabilities",
    "most_likely_always": "pick",
    "equal_counts": "pick",
    "nothing_found": "pick",
    "added": "remember",
    "top_k_ignored": "probabilities",
    "left_sorted": "probabilities",
    "one_further": "pick",
    "none_kept": "probabilities",
    "none_to_compare_with": "probabilities",
    "smallest_of_none": "probabilities",
    "one_kept": "probabilities",
    "appended": "remember",
    "temperature_without_effect": "probabilities",
    "divided_by_zero": "probabilities",
    "top_p_in_the_order_of_ids": "probabilities",
    "kth_one_lost": "probabilities",
    "logits_cut_to_zero": "probabilities",
    "first_of_none": "pick",
}


def one_place_for_all(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """All rows write to the slots of the first one. Each row has its own positions:
    positions[row]."""
    stored[: len(new), :, positions[0]] = new
    return stored[:, :, : int(positions.max()) + 1]


def a_copy(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The slots are written in a copy, so the cache itself does not change, and the next step would
    not find them. Write into `stored`."""
    stored = stored.clone()
    for row, places in enumerate(positions):
        stored[row, :, places] = new[row]
    return stored[:, :, : int(positions.max()) + 1]


def all_slots(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """All slots are returned, including the empty ones. End after the largest position."""
    for row, places in enumerate(positions):
        stored[row, :, places] = new[row]
    return stored


def last_one_missing(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The last position is left out: a slice ends *before* its end, so it ends at the largest
    position + 1."""
    for row, places in enumerate(positions):
        stored[row, :, places] = new[row]
    return stored[:, :, : int(positions.max())]


def last_one_largest(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The last position of a row need not be its largest. Look at all of them: positions.max()."""
    for row, places in enumerate(positions):
        stored[row, :, places] = new[row]
    return stored[:, :, : int(positions[:, -1].max()) + 1]


def _shaped(
    logits: Tensor,
    top_k: int,
    top_p: float,
    *,
    share_first: bool = False,
    renormalize: bool = True,
    keeps_equal: bool = False,
) -> Tensor:
    values, order = logits.sort(descending=True)
    shares = values.softmax(0)
    if top_k:
        shares[top_k:] = 0
        if not share_first and renormalize:
            shares /= shares.sum()
    if top_p < 1:
        before = shares.cumsum(0) - shares
        shares[(before > top_p) if keeps_equal else (before >= top_p)] = 0
    if renormalize:
        shares /= shares.sum()
    return torch.zeros_like(logits).scatter(0, order, shares)


def times_temperature(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The logits are multiplied by the temperature. Divide by it: a low one makes likely tokens
    more likely."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits * temperature, top_k, top_p)


def crossing_token_lost(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Top-p drops the token with which the total probability reaches p, but that token stays. Look
    at the sum *before* a token."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    values, order = (logits / temperature).sort(descending=True)
    if top_k:
        values[top_k:] = -torch.inf
    shares = values.softmax(0)
    if top_p < 1:
        dropped = shares.cumsum(0) > top_p
        dropped[0] = False
        shares[dropped] = 0
        shares /= shares.sum()
    return torch.zeros_like(logits).scatter(0, order, shares)


def top_p_of_everything(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Top-p sums over all tokens. Top-k comes first, and its result is rescaled to sum to 1 before
    top-p."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits / temperature, top_k, top_p, share_first=True)


def not_renormalized(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The result does not sum to 1: divide by its sum."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits / temperature, top_k, top_p, renormalize=False)


def top_p_below(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Tokens with a probability below p are dropped. Top-p concerns the *sum* of the most likely
    ones: the fewest that reach p together."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    shares = _shaped(logits / temperature, top_k, 1.0)
    if top_p < 1:
        shares[(shares < top_p) & (shares < shares.max())] = 0
    return shares / shares.sum()


def one_beyond_p(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """If the sum before a token is already p, that token stays here, too. Drop a token if the sum
    before it is >= p."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits / temperature, top_k, top_p, keeps_equal=True)


def temperature_last(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Temperature comes first: it changes which tokens top-p keeps."""
    kept = _shaped(logits, top_k, top_p).log()
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, kept.argmax(), 1.0)
    return (kept / temperature).softmax(0)


def more_than_there_are(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """topk cannot take more tokens than there are. A top_k larger than the vocabulary keeps all:
    use min(top_k, len(logits))."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    return _shaped(logits / temperature, 0, top_p)


def nearly_zero(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """At temperature 0 two tokens of (nearly) the same logit share the probability: a tiny number
    replaces the 0, or logits are compared with their maximum. Give all of it to one token, that of
    argmax."""
    return _shaped(logits / (temperature or 1e-5), top_k, top_p)


def most_likely_always(probabilities: Tensor, u: float) -> int:
    """The most likely token is picked whatever u is. u decides: pick the first index whose
    cumulative sum is greater."""
    return int(probabilities.argmax())


def equal_counts(probabilities: Tensor, u: float) -> int:
    """A sum *equal* to u counts, so with u = 0 a token of probability 0 is picked. The sum must be
    greater."""
    beyond = (probabilities.cumsum(0) >= u).nonzero()
    return int(beyond[0]) if len(beyond) else int(probabilities.nonzero()[-1])


def nothing_found(probabilities: Tensor, u: float) -> int:
    """If rounding leaves every sum at or below u, the result is a token of probability 0. Take the
    last one with a probability above 0."""
    beyond = (probabilities.cumsum(0) > u).nonzero()
    return int(beyond[0]) if len(beyond) else len(probabilities) - 1


def added(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The new values were added to those in the slots. Replace them: =, not +=."""
    for row, places in enumerate(positions):
        stored[row, :, places] += new[row]
    return stored[:, :, : int(positions.max()) + 1]


def top_k_ignored(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """top_k has no effect: only the top_k most likely tokens stay."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits / temperature, 0, top_p)


def left_sorted(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The probabilities are still sorted, the most likely first. Put each one back at its token's
    index, with scatter and the order from sort."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits / temperature, top_k, top_p).sort(descending=True).values


def one_further(probabilities: Tensor, u: float) -> int:
    """The index is one too large: pick the token with which the sum becomes greater than u."""
    beyond = (probabilities.cumsum(0) > u).nonzero()
    return int(beyond[0]) + 1 if len(beyond) else int(probabilities.nonzero()[-1])


def none_kept(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """top_k = 0 keeps all tokens here, but your code keeps none of them: the rest sums to 0, and 0
    / 0 is NaN. Filter only if top_k is not 0."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    values, order = (logits / temperature).sort(descending=True)
    values[top_k:] = -torch.inf
    return _shaped(torch.zeros_like(logits).scatter(0, order, values), 0, top_p)


def none_to_compare_with(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """top_k = 0 keeps all tokens here, but of the 0 most likely there is no last one to compare
    with. Filter only if top_k is not 0."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    least = logits.topk(min(top_k, len(logits))).values[-1]
    return _shaped(logits.masked_fill(logits < least, -torch.inf) / temperature, 0, top_p)


def smallest_of_none(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """top_k = 0 keeps all tokens here, but of the 0 most likely there is no smallest one to compare
    with. Filter only if top_k is not 0."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    least = logits.topk(min(top_k, len(logits))).values.min()
    return _shaped(logits.masked_fill(logits < least, -torch.inf) / temperature, 0, top_p)


def one_kept(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """top_k = 0 keeps the most likely token alone. Here it keeps all of them: filter only if top_k
    is not 0."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits / temperature, max(1, top_k), top_p)


def appended(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The new values were appended after all slots, with torch.cat. Write them in place into their
    own slots, which `positions` gives."""
    return torch.cat((stored, new), dim=2)


def temperature_without_effect(
    logits: Tensor, temperature: float, top_k: int, top_p: float
) -> Tensor:
    """The temperature has no effect: probabilities divided by T and rescaled to sum to 1 are
    unchanged. Divide the logits, before the softmax."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return _shaped(logits, top_k, top_p)


def divided_by_zero(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """At temperature 0 the logits were divided by 0. Check for it first: one token then gets the
    probability 1."""
    return _shaped(logits / temperature, top_k, top_p)


def top_p_in_the_order_of_ids(
    logits: Tensor, temperature: float, top_k: int, top_p: float
) -> Tensor:
    """Top-p adds up the probabilities in the order of the tokens' ids. Sort them first, the most
    likely one first."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    shares = _shaped(logits / temperature, top_k, 1.0)
    if top_p < 1:
        shares = torch.where(shares.cumsum(0) - shares < top_p, shares, 0.0)
    return shares / shares.sum()


def kth_one_lost(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Top-k keeps one token too few: the k-th itself stays. Drop what is *below* it (<)."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    if 0 < top_k <= len(logits):
        logits = logits.masked_fill(logits <= logits.topk(top_k).values[-1], -torch.inf)
    return _shaped(logits / temperature, 0, top_p)


def logits_cut_to_zero(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The logits of dropped tokens became 0, and e to the 0 is 1: they still have a probability.
    Set them to minus infinity."""
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    if 0 < top_k <= len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], 0.0)
    return _shaped(logits / temperature, 0, top_p)


def first_of_none(probabilities: Tensor, u: float) -> int:
    """If rounding leaves every sum at or below u, argmax of all False is 0. Take the last token
    with a probability above 0."""
    return int((probabilities.cumsum(0) > u).int().argmax())
