"""The commonest wrong answers to 2.7, each with the hint that names it."""

import numpy as np

from groundup.maths import Tensor

Pair = tuple[np.ndarray, np.ndarray]
REPLACES = {
    "target_in_the_window": "windows",
    "one_too_far": "windows",
    "last_window_lost": "windows",
    "cut_into_blocks": "windows",
    "targets_for_every_place": "windows",
    "newest_first": "windows",
    "one_window_too_many": "windows",
    "without_bend": "logits",
    "bend_at_the_end": "logits",
    "relu_for_tanh": "logits",
    "sigmoid_for_tanh": "logits",
    "one_vector": "logits",
    "columns_side_by_side": "logits",
    "bias_forgotten": "logits",
    "table_off_the_tape": "logits",
    "bias_of_the_hidden_layer_forgotten": "logits",
    "padded": "windows",
    "made_probabilities": "logits",
}


def target_in_the_window(tokens: np.ndarray, reach: int) -> Pair:
    """The target is the last token of the window itself: the network would learn to copy. It is the
    token after it, tokens[i + reach]."""
    inputs, _ = _windows(tokens, reach)
    return inputs, inputs[:, -1]


def one_too_far(tokens: np.ndarray, reach: int) -> Pair:
    """The targets are one position too far: a token is skipped between window and target."""
    inputs, targets = _windows(tokens, reach)
    return inputs[:-1], targets[1:]


def last_window_lost(tokens: np.ndarray, reach: int) -> Pair:
    """The last example is missing. N tokens have N - reach windows with a token after them."""
    inputs, targets = _windows(tokens, reach)
    return inputs[:-1], targets[:-1]


def cut_into_blocks(tokens: np.ndarray, reach: int) -> Pair:
    """The text was cut into blocks that do not overlap. Every position but the first few is a
    target: move the window by one token."""
    inputs, targets = _windows(tokens, reach)
    return inputs[::reach], targets[::reach]


def targets_for_every_place(tokens: np.ndarray, reach: int) -> Pair:
    """Each window got a target for each of its positions. Return one: the token after the
    window."""
    inputs, targets = _windows(tokens, reach)
    return inputs, np.concatenate([inputs[:, 1:], targets[:, None]], axis=1)


def newest_first(tokens: np.ndarray, reach: int) -> Pair:
    """The windows are in reverse order: the oldest token comes first, as in the text."""
    inputs, targets = _windows(tokens, reach)
    return inputs[:, ::-1], targets


def without_bend(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The tanh is missing: without it the two layers are one."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1) @ w2.T + b2


def bend_at_the_end(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """A tanh was applied after the last layer. Logits may be any numbers; tanh would keep them
    between -1 and 1."""
    x = table[ids].reshape(len(ids), -1)
    return ((x @ w1.T + b1).tanh() @ w2.T + b2).tanh()


def relu_for_tanh(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The activation is a ReLU. This network uses tanh, as in Bengio's: (…).tanh()."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1).relu() @ w2.T + b2


def sigmoid_for_tanh(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The activation is a sigmoid. This network uses tanh, as in Bengio's: (…).tanh()."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1).sigmoid() @ w2.T + b2


def one_vector(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The vectors were added or averaged, or only one was used, so w1 does not fit: it reads all of
    them, in order. Put them side by side: reshape(len(ids), -1)."""
    return (table[ids].sum(1) @ w1.T + b1).tanh() @ w2.T + b2


def columns_side_by_side(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The numbers were put side by side in another order: first all first entries of the vectors,
    then all second ones. Keep each token's vector together."""
    x = table[ids].transpose(1, 2).reshape(len(ids), -1)
    return (x @ w1.T + b1).tanh() @ w2.T + b2


def bias_forgotten(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """A bias is missing: both layers have one."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1).tanh() @ w2.T


def one_window_too_many(tokens: np.ndarray, reach: int) -> Pair:
    """There is one window too many: the last one has no token after it, so no target. There are N -
    reach."""
    count = len(tokens) - reach + 1
    return np.stack([tokens[i : i + reach] for i in range(count)]), tokens[reach:]


def _windows(tokens: np.ndarray, reach: int) -> Pair:
    count = len(tokens) - reach
    return np.stack([tokens[i : i + reach] for i in range(count)]), tokens[reach:]


def table_off_the_tape(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The numbers are right, but the embeddings have forgotten that they come from the table
    (.data), so no gradient can flow back to it: table[ids]."""
    x = Tensor(table.data[ids].reshape(len(ids), -1))
    return (x @ w1.T + b1).tanh() @ w2.T + b2


def bias_of_the_hidden_layer_forgotten(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """A bias is missing, b1: both layers have one."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T).tanh() @ w2.T + b2


def padded(tokens: np.ndarray, reach: int) -> Pair:
    """The text was padded at the start, so its first tokens are targets too. Here only complete
    windows count: N - reach of them."""
    return _windows(np.concatenate([np.zeros(reach, tokens.dtype), tokens]), reach)


def made_probabilities(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """These are probabilities. Return the logits, before any softmax: the loss applies it."""
    x = table[ids].reshape(len(ids), -1)
    return ((x @ w1.T + b1).tanh() @ w2.T + b2).softmax(-1)
