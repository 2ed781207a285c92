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
    one behind it, tokens[i + reach]."""
    inputs, _ = _windows(tokens, reach)
    return inputs, inputs[:, -1]


def one_too_far(tokens: np.ndarray, reach: int) -> Pair:
    """The targets are one place too far: there is a token left out between window and target."""
    inputs, targets = _windows(tokens, reach)
    return inputs[:-1], targets[1:]


def last_window_lost(tokens: np.ndarray, reach: int) -> Pair:
    """The last example is missing. N tokens have N - reach windows with something behind them."""
    inputs, targets = _windows(tokens, reach)
    return inputs[:-1], targets[:-1]


def cut_into_blocks(tokens: np.ndarray, reach: int) -> Pair:
    """The text was cut into blocks that do not overlap. Every place but the first few is a target:
    move the window by one token."""
    inputs, targets = _windows(tokens, reach)
    return inputs[::reach], targets[::reach]


def targets_for_every_place(tokens: np.ndarray, reach: int) -> Pair:
    """Each window got a target for each of its places. Here one is asked for: the token behind the
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
    """A tanh was put behind the last layer. Logits may be any numbers; it would keep them between
    -1 and 1."""
    x = table[ids].reshape(len(ids), -1)
    return ((x @ w1.T + b1).tanh() @ w2.T + b2).tanh()


def relu_for_tanh(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The bend is a ReLU. This network has tanh, as in Bengio's: (…).tanh()."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1).relu() @ w2.T + b2


def sigmoid_for_tanh(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The bend is a sigmoid. This network has tanh, as in Bengio's: (…).tanh()."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1).sigmoid() @ w2.T + b2


def one_vector(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The vectors were added or averaged, or only one was taken, and w1 does not fit: it reads all
    of them, in their order. Put them side by side: reshape(len(ids), -1)."""
    return (table[ids].sum(1) @ w1.T + b1).tanh() @ w2.T + b2


def columns_side_by_side(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The numbers were put side by side in another order: first all first entries of the vectors,
    then all second ones. Each token's vector stays together."""
    x = table[ids].transpose(1, 2).reshape(len(ids), -1)
    return (x @ w1.T + b1).tanh() @ w2.T + b2


def bias_forgotten(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """A bias is missing: both layers have one."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T + b1).tanh() @ w2.T


def one_window_too_many(tokens: np.ndarray, reach: int) -> Pair:
    """There is one window too many: the last one has nothing behind it, and no target. There are
    N - reach."""
    count = len(tokens) - reach + 1
    return np.stack([tokens[i : i + reach] for i in range(count)]), tokens[reach:]


def _windows(tokens: np.ndarray, reach: int) -> Pair:
    count = len(tokens) - reach
    return np.stack([tokens[i : i + reach] for i in range(count)]), tokens[reach:]


def table_off_the_tape(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """The numbers are right, but the embeddings have forgotten that they come from the table
    (.data), and no gradient finds its way back to it: table[ids]."""
    x = Tensor(table.data[ids].reshape(len(ids), -1))
    return (x @ w1.T + b1).tanh() @ w2.T + b2


def bias_of_the_hidden_layer_forgotten(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """A bias is missing, b1: both layers have one."""
    x = table[ids].reshape(len(ids), -1)
    return (x @ w1.T).tanh() @ w2.T + b2


def padded(tokens: np.ndarray, reach: int) -> Pair:
    """The text was padded in front, so that its first tokens are targets too. Here only whole
    windows of the text count: N - reach of them."""
    return _windows(np.concatenate([np.zeros(reach, tokens.dtype), tokens]), reach)


def made_probabilities(
    ids: np.ndarray, table: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """These are probabilities. The logits are asked for, before any softmax: the loss makes it."""
    x = table[ids].reshape(len(ids), -1)
    return ((x @ w1.T + b1).tanh() @ w2.T + b2).softmax(-1)
