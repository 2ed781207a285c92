"""2.1 A neuron, a layer, solved."""

from groundup.maths import Tensor


def neuron(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return (w @ x + b).sigmoid()


def layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = x @ weight.T  # a row of weight is a neuron, and inputs are rows, too
    return y if bias is None else y + bias
