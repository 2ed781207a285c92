"""The commonest wrong answers to 2.1, each with the hint that names it."""

import numpy as np

from groundup.maths import Tensor

REPLACES = {
    "without_bend": "neuron",
    "bias_after_the_bend": "neuron",
    "not_summed": "neuron",
    "tanh": "neuron",
    "not_transposed": "layer",
    "bias_forgotten": "layer",
    "bias_always": "layer",
    "bent": "layer",
    "inputs_in_columns": "layer",
    "rows_alone": "layer",
    "off_the_tape": "layer",
    "bend_turned": "neuron",
    "asked_for_truth": "layer",
    "neuron_off_the_tape": "neuron",
    "relu_for_sigmoid": "neuron",
}


def without_bend(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The activation is missing: apply the sigmoid to w · x + b."""
    return w @ x + b


def bias_after_the_bend(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The bias was added after the sigmoid. It belongs in the sum, where it sets the neuron's
    threshold."""
    return (w @ x).sigmoid() + b


def not_summed(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """w * x multiplies element by element and gives n numbers. A neuron adds them up: w @ x, or (w
    * x).sum()."""
    return (w * x + b).sigmoid()


def tanh(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """This uses tanh, between -1 and 1. Use the sigmoid, between 0 and 1."""
    return (w @ x + b).tanh()


def not_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight is (out, in): x @ weight does not fit, or treats the columns as neurons. Transpose it:
    x @ weight.T."""
    y = x @ weight
    return y if bias is None else y + bias


def bias_forgotten(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The bias is missing."""
    return x @ weight.T


def bias_always(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """bias may be None; then nothing is added: check before you add."""
    return x @ weight.T + bias  # type: ignore[operator]


def bent(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the layer without an activation: that is applied separately."""
    y = x @ weight.T
    return (y if bias is None else y + bias).sigmoid()


def inputs_in_columns(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight @ x.T gives one column for each input. Inputs are rows, and so are outputs."""
    y = weight @ x.T
    return y if bias is None else y + bias.reshape(-1, 1)


def rows_alone(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A single vector, x of shape (in,), has no rows to transpose. Transpose weight instead of x: x
    @ weight.T takes inputs with any number of dimensions."""
    y = (weight @ x.mT).mT
    return y if bias is None else y + bias


def off_the_tape(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The numbers are right, but the result has forgotten how it was computed (.data, np.…), so no
    gradient can flow back through it. Use the tensors' own operations."""
    y = x.data @ weight.data.T
    return Tensor(y if bias is None else y + bias.data, requires_grad=False)


def bend_turned(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """1 / (1 + exp(z)) is the sigmoid of -z. A minus is missing: 1 / (1 + exp(-z))."""
    return (-(w @ x + b)).sigmoid()


def asked_for_truth(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`if bias` tests the truth of several numbers at once. Test for None: bias is not None."""
    y = x @ weight.T
    return y + bias if bias else y


def neuron_off_the_tape(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The number is right, but it has forgotten how it was computed (.data, np.…), so no gradient
    can flow back through it. Use the tensors' own operations."""
    return Tensor(1 / (1 + np.exp(-(w.data @ x.data + b.data))))


def relu_for_sigmoid(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The activation is a ReLU. This neuron has a sigmoid, between 0 and 1: (…).sigmoid()."""
    return (w @ x + b).relu()
