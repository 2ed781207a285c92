"""The commonest wrong answers to 2.2, each with the hint that names it."""

from collections.abc import Sequence

import numpy as np

REPLACES = {
    "gate_by_gradient": "relu_backward",
    "gradient_cut_off": "relu_backward",
    "open_at_zero": "relu_backward",
    "value_instead_of_slope": "relu_backward",
    "ungated": "relu_backward",
    "variance": "he_std",
    "xavier": "he_std",
    "root_of_fan_in": "he_std",
    "before_relu": "spreads",
    "without_relu": "spreads",
    "always_the_first_input": "spreads",
    "not_transposed": "spreads",
    "variances": "spreads",
    "slope_alone": "relu_backward",
    "sign_of_the_input": "relu_backward",
    "leaky": "relu_backward",
    "root_of_two_alone": "he_std",
    "before_the_layer": "spreads",
    "root_mean_square": "spreads",
    "bound_for_deviation": "he_std",
    "gain_of_tanh": "he_std",
    "of_a_sample": "spreads",
    "number_by_number": "spreads",
    "input_too": "spreads",
}


def gate_by_gradient(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The gate is open where the gradient is positive. It must be open where the *input* was: z >
    0."""
    return g * (g > 0)


def gradient_cut_off(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Negative gradients were cut off as well. Where z > 0, a gradient passes unchanged, with its
    sign."""
    return np.maximum(g, 0) * (z > 0)


def open_at_zero(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """At z = 0 exactly nothing passes: z > 0, not z >= 0."""
    return g * (z >= 0)


def value_instead_of_slope(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """g was multiplied by ReLU's value. The chain rule needs its slope, which is 1 or 0."""
    return g * np.maximum(z, 0)


def ungated(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The gradient passes everywhere. Where ReLU gave 0, moving z changes nothing: slope 0."""
    return g.copy()


def variance(fan_in: int) -> float:
    """This is the variance 2 / fan_in; the standard deviation is its root."""
    return 2 / fan_in


def xavier(fan_in: int) -> float:
    """This is √(1 / fan_in), Xavier's rule. ReLU removes half of the mean square, and the 2
    compensates for it."""
    return (1 / fan_in) ** 0.5


def root_of_fan_in(fan_in: int) -> float:
    """2 / √fan_in is too large by √2: the 2 belongs under the root as well."""
    return 2 / fan_in**0.5


def before_relu(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """The spread was measured before the ReLU. Measure it after the ReLU."""
    found = []
    for w in weights:
        x = x @ w.T
        found.append(float(x.std()))
        x = np.maximum(0, x)
    return found


def without_relu(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """The ReLU is missing between the layers."""
    found = []
    for w in weights:
        x = x @ w.T
        found.append(float(x.std()))
    return found


def always_the_first_input(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """Every layer got the first input. Each one reads the output of the layer before it: x = …."""
    return [float(np.maximum(0, x @ w.T).std()) for w in weights]


def not_transposed(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """W is (out, in), and inputs are rows: x @ W.T."""
    found = []
    for w in weights:
        x = np.maximum(0, x @ w)
        found.append(float(x.std()))
    return found


def variances(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """These are variances; return the standard deviation, .std()."""
    found = []
    for w in weights:
        x = np.maximum(0, x @ w.T)
        found.append(float(x.var()))
    return found


def slope_alone(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """This is the slope alone. The chain rule multiplies it by the gradient that arrives, g."""
    return (z > 0).astype(float)


def sign_of_the_input(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The slope of ReLU is 1 or 0. np.sign gives -1 for a negative input; it must be 0 there."""
    return g * np.sign(z)


def leaky(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A little passes for negative inputs as well, as in a leaky ReLU. Here nothing passes: the
    slope is 0."""
    return np.where(z > 0, g, 0.01 * g)


def root_of_two_alone(fan_in: int) -> float:
    """Only the 2 is under the root. fan_in belongs there as well: √(2 / fan_in)."""
    return float(2**0.5 / fan_in)


def before_the_layer(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """The spread was measured before each layer, starting with the input. Measure it after each."""
    found = []
    for w in weights:
        found.append(float(x.std()))
        x = np.maximum(0, x @ w.T)
    return found


def root_mean_square(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """This is the root of the mean square. The standard deviation subtracts the mean first, which
    is not 0 after a ReLU: .std()."""
    found = []
    for w in weights:
        x = np.maximum(0, x @ w.T)
        found.append(float(np.sqrt((x * x).mean())))
    return found


def bound_for_deviation(fan_in: int) -> float:
    """√(6/n) is the bound of a *uniform* distribution (kaiming_uniform). Return its standard
    deviation, which is √3 times smaller: √(2/n)."""
    return (6 / fan_in) ** 0.5


def gain_of_tanh(fan_in: int) -> float:
    """5/3 is the gain before a tanh. ReLU's is √2: √2 / √n."""
    return 5 / 3 / fan_in**0.5


def of_a_sample(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """The squared distances were divided by n - 1 (ddof=1, torch's std, statistics.stdev), which
    estimates the deviation of a population from a sample. NumPy's x.std() divides by n, the
    deviation of these numbers themselves."""
    return [_layer(x, weights[: n + 1]).std(ddof=1).item() for n in range(len(weights))]


def number_by_number(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """The deviation was computed for each neuron and then averaged. Compute one for all numbers
    together: x.std(), without axis."""
    return [_layer(x, weights[: n + 1]).std(axis=0).mean().item() for n in range(len(weights))]


def input_too(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """The list includes the deviation of the input. Return one value after each layer."""
    return [_layer(x, weights[:n]).std().item() for n in range(len(weights) + 1)]


def _layer(x: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    for w in weights:
        x = np.maximum(0, x @ w.T)
    return x
