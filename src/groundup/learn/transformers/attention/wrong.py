"""The commonest mistakes in attention."""

import math

import torch
from torch import Tensor

REPLACES = {
    "viewed_at_once": "split_heads",
    "interleaved": "split_heads",
    "looks_ahead": "causal_mask",
    "not_itself": "causal_mask",
    "mask_of_numbers": "causal_mask",
    "no_scale": "attention",
    "scaled_by_d": "attention",
    "mask_after_softmax": "attention",
    "mask_inverted": "attention",
    "mask_added": "attention",
    "mask_ignored": "attention",
    "softmax_over_queries": "attention",
    "softmax_over_heads": "attention",
    "masked_to_zero": "attention",
    "query_and_key_exchanged": "attention",
    "own_softmax_overflows": "attention",
    "not_moved": "split_heads",
    "sees_everything": "causal_mask",
    "multiplied_by_the_scale": "attention",
    "scaled_after_the_softmax": "attention",
    "softmax_forgotten": "attention",
    "scaled_by_keys": "attention",
    "masked_to_a_number": "attention",
    "lowered_by_100": "attention",
    "lowered_by_10000": "attention",
    "mask_times_infinity": "attention",
    "allowed_times_infinity": "attention",
    "mask_added_as_it_is": "attention",
    "own_mask": "attention",
    "scaled_by_heads": "attention",
    "scaled_by_the_width": "attention",
    "key_and_value_exchanged": "attention",
    "weights_returned": "attention",
    "true_is_hidden": "causal_mask",
    "one_ahead": "causal_mask",
}


def viewed_at_once(x: Tensor, heads: int) -> Tensor:
    """A view as (rows, heads, time, d) keeps the order of memory and mixes tokens with features.
    View as (rows, time, heads, d) first, then exchange dimensions 1 and 2."""
    rows, time, _ = x.shape
    return x.reshape(rows, heads, time, -1)


def interleaved(x: Tensor, heads: int) -> Tensor:
    """Each head has every heads-th feature. It should have adjacent features: head 0 the first
    width / heads, so heads comes before d when the last dimension is split."""
    rows, time, _ = x.shape
    return x.reshape(rows, time, -1, heads).permute(0, 3, 1, 2)


def looks_ahead(time: int) -> Tensor:
    """The triangle is the upper one: each token sees itself and later tokens. Rows are queries, so
    use the lower one (tril)."""
    return torch.ones(time, time, dtype=torch.bool).triu()


def not_itself(time: int) -> Tensor:
    """A token does not see itself, so the first one sees nothing at all. The diagonal belongs to
    the mask."""
    return torch.ones(time, time, dtype=torch.bool).tril(-1)


def mask_of_numbers(time: int) -> Tensor:
    """The mask holds integers, and ~ turns 0 and 1 into -1 and -2. Use booleans:
    dtype=torch.bool."""
    return torch.ones(time, time, dtype=torch.int64).tril()


def no_scale(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The scale is missing: divide the scores by sqrt(d), where d is the last dimension of the
    query. Otherwise the softmax picks one token from the start."""
    scores = query @ key.transpose(-1, -2)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def scaled_by_d(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The scores are divided by d. They grow like sqrt(d), so divide by its root."""
    scores = query @ key.transpose(-1, -2) / query.shape[-1]
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def mask_after_softmax(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The mask comes after the softmax: the remaining weights no longer sum to 1. Set scores to
    minus infinity before it."""
    weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
    return weights.masked_fill(~mask, 0.0) @ value


def mask_inverted(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The mask is inverted: true means that the query may look, so fill where it is false
    (~mask)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(mask, -torch.inf).softmax(-1) @ value


def mask_added(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """A large negative number is added where the mask is true. True means that the query may look:
    lower the scores where it is false (~mask)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores + mask.float() * -1e9).softmax(-1) @ value


def mask_ignored(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The mask does nothing: every query sees every key, the future too."""
    return (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1) @ value


def softmax_over_queries(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The softmax runs over queries (dimension -2). Each query distributes its weight over keys,
    which are the last dimension."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-2) @ value


def softmax_over_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The softmax runs over heads (dimension 1). Each query distributes its weight over keys, which
    are the last dimension."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(1) @ value


def masked_to_zero(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is false the score is 0, and e to the 0 is 1: such keys still get weight. Set
    their scores to minus infinity."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, 0.0).softmax(-1) @ value


def query_and_key_exchanged(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Query and key are exchanged: rows of the scores are queries, and columns are keys, as in
    query @ key.transpose(-1, -2)."""
    scores = key @ query.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def own_softmax_overflows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The softmax is right only for small scores: exp of a large one is inf, and inf / inf is NaN.
    Subtract each row's maximum first, or use torch's softmax."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~mask, -torch.inf).exp()
    return weights / weights.sum(-1, keepdim=True) @ value


def not_moved(x: Tensor, heads: int) -> Tensor:
    """The heads still come after time. Exchange dimensions 1 and 2."""
    rows, time, _ = x.shape
    return x.view(rows, time, heads, -1)


def sees_everything(time: int) -> Tensor:
    """Every token sees every other, the future too. Keep the lower triangle (tril)."""
    return torch.ones(time, time, dtype=torch.bool)


def multiplied_by_the_scale(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The scores are multiplied by sqrt(d). Divide by it, so that they stay small."""
    scores = query @ key.transpose(-1, -2) * math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def scaled_after_the_softmax(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The weights are divided by sqrt(d), and no longer sum to 1. Divide the scores, before the
    softmax."""
    scores = query @ key.transpose(-1, -2)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) / math.sqrt(query.shape[-1]) @ value


def softmax_forgotten(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The softmax is missing: scores become weights that sum to 1, and only then multiply the
    values."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, 0.0) @ value


def scaled_by_keys(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The scores are divided by the root of the number of keys. d is the last dimension of the
    query: query.shape[-1]."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(key.shape[-2])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def masked_to_a_number(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is false the score is a number such as -100 or -10,000, but an allowed score
    may be below it: then the masked keys get the weight. Minus infinity is below every score:
    masked_fill(~mask, -torch.inf)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -100.0).softmax(-1) @ value


def lowered_by_100(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is false, a number such as 100 or 10,000 is subtracted from the score, but an
    allowed score may be even lower: then the masked keys get the weight. Minus infinity is below
    every score: masked_fill(~mask, -torch.inf)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores - 100.0 * ~mask).softmax(-1) @ value


def lowered_by_10000(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is false, a number such as 100 or 10,000 is subtracted from the score, but an
    allowed score may be even lower: then the masked keys get the weight. Minus infinity is below
    every score: masked_fill(~mask, -torch.inf)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores - 10_000.0 * ~mask).softmax(-1) @ value


def mask_times_infinity(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """A mask of numbers was multiplied by infinity, and 0 · ∞ is NaN. Select instead of
    multiplying: masked_fill(~mask, -torch.inf)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores + (1 - mask.float()) * -torch.inf).softmax(-1) @ value


def allowed_times_infinity(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """A mask of numbers was multiplied by infinity, and 0 · ∞ is NaN. Select instead of
    multiplying: masked_fill(~mask, -torch.inf)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores + mask.float() * -torch.inf).softmax(-1) @ value


def mask_added_as_it_is(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The mask was added to the scores as 0 and 1, which masks nothing. Where it is false, the
    score must be minus infinity."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores + mask).softmax(-1) @ value


def own_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The given mask is not used: the function makes a causal one, or passes is_causal=True. It
    must work for other masks as well, such as that of a single query over a whole text."""
    causal = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~causal, -torch.inf).softmax(-1) @ value


def scaled_by_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The scores are divided by the root of the number of heads. d is the last dimension of the
    query: query.shape[-1]."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def scaled_by_the_width(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The scores are divided by the root of the whole width, all heads together. Divide by the root
    of the head's own size: query.shape[-1]."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[1] * query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def key_and_value_exchanged(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Key and value are exchanged: queries are compared with keys, and the weights average the
    values."""
    scores = query @ value.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ key


def weights_returned(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """These are the weights. Use them to average the values: weights @ value."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


def true_is_hidden(time: int) -> Tensor:
    """The mask is true where a token may *not* look, as in nn.MultiheadAttention. Here true means
    that it may look: tril."""
    return torch.ones(time, time, dtype=torch.bool).triu(1)


def one_ahead(time: int) -> Tensor:
    """Each token also sees the next one, which it has to predict. The triangle ends at the
    diagonal: tril()."""
    return torch.ones(time, time, dtype=torch.bool).tril(1)
