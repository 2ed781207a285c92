"""The commonest mistakes in reading heads."""

import numpy as np

REPLACES = {
    "rectangle": "diagonal_mean",
    "rows_are_places": "diagonal_mean",
    "absent_ones_counted": "diagonal_mean",
    "mean_over_heads": "diagonal_mean",
    "looks_forward": "diagonal_mean",
    "the_twin": "induction_score",
    "both_blocks": "induction_score",
    "one_too_near": "induction_score",
    "summed": "diagonal_mean",
    "from_the_end": "diagonal_mean",
    "keys_of_the_block": "induction_score",
}


def _line(attention: np.ndarray, back: int) -> np.ndarray:
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(max(first, back), keys)
    if len(places) == 0:
        return np.zeros(attention.shape[:-2], attention.dtype)
    return np.asarray(attention[..., places - first, places - back].mean(-1))


def rectangle(attention: np.ndarray, back: int) -> np.ndarray:
    """All pairs of these rows and columns are averaged, a rectangle. Index with both lists at
    once, attention[..., rows, columns], to get a line."""
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(max(first, back), keys)
    if len(places) == 0:
        return np.zeros(attention.shape[:-2], attention.dtype)
    return np.asarray(attention[..., places - first, :][..., places - back].mean((-1, -2)))


def rows_are_places(attention: np.ndarray, back: int) -> np.ndarray:
    """Row 0 is treated as position 0. With fewer queries than keys it is at position keys -
    queries, since the queries are at the last positions."""
    queries = attention.shape[-2]
    rows = np.arange(back, queries)
    if len(rows) == 0:
        return np.zeros(attention.shape[:-2], attention.dtype)
    return np.asarray(attention[..., rows, rows - back].mean(-1))


def absent_ones_counted(attention: np.ndarray, back: int) -> np.ndarray:
    """The sum is divided by all queries. Those that have no key so far back do not count: take the
    mean over the line only."""
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(max(first, back), keys)
    return np.asarray(attention[..., places - first, places - back].sum(-1) / queries)


def mean_over_heads(attention: np.ndarray, back: int) -> np.ndarray:
    """The heads are averaged too. Take the mean only along the line (the last dimension), so that
    each head keeps its own score."""
    return np.asarray(_line(attention, back).mean())


def looks_forward(attention: np.ndarray, back: int) -> np.ndarray:
    """Rows and columns are exchanged: a query (row) looks *back* at a key (column), so the column
    is the smaller position."""
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(max(first, back), keys)
    if len(places) == 0:
        return np.zeros(attention.shape[:-2], attention.dtype)
    rows = np.maximum(places - back - first, 0)
    return np.asarray(attention[..., rows, places].mean(-1))


def the_twin(attention: np.ndarray, block: int) -> np.ndarray:
    """That is the line of the same token itself, `block` positions back: a duplicate-token head.
    The token *after* it is one position nearer."""
    return _line(attention[..., -block:, :], block)


def both_blocks(attention: np.ndarray, block: int) -> np.ndarray:
    """Queries of the first block are counted too, which have seen no token twice. Take the last
    `block` queries."""
    return _line(attention, block - 1)


def one_too_near(attention: np.ndarray, block: int) -> np.ndarray:
    """The line is one position too near: the same token is `block` positions back, and the token
    after it block - 1."""
    return _line(attention[..., -block:, :], block - 2)


def summed(attention: np.ndarray, back: int) -> np.ndarray:
    """The weights on the line are summed. Take their mean."""
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(max(first, back), keys)
    return np.asarray(attention[..., places - first, places - back].sum(-1))


def from_the_end(attention: np.ndarray, back: int) -> np.ndarray:
    """A negative index counts from the end, so queries with no key so far back got one of the last
    keys. Leave these queries out."""
    queries, keys = attention.shape[-2:]
    first = keys - queries
    places = np.arange(first, keys)
    return np.asarray(attention[..., places - first, places - back].mean(-1))


def keys_of_the_block(attention: np.ndarray, block: int) -> np.ndarray:
    """The keys were sliced as well, but the token to look at is in the first block. Slice only the
    queries: attention[..., -block:, :]."""
    return _line(attention[..., -block:, -block:], block - 1)
