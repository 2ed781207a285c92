"""The commonest wrong answers to 2.8, each with the hint that names it."""

from groundup.learn.networks.rnn import solution
from groundup.maths import Tensor, stack

Bias = Tensor | None
REPLACES = {
    "without_bend": "step",
    "one_bias": "step",
    "state_bent_alone": "step",
    "weights_exchanged": "step",
    "not_transposed": "step",
    "state_ignored": "step",
    "bias_always": "step",
    "asked_of_one": "step",
    "asked_of_both": "step",
    "always_the_first_state": "rnn",
    "last_state_alone": "rnn",
    "with_the_first_state": "rnn",
    "backwards": "rnn",
    "over_the_batch": "rnn",
    "asked_for_truth": "step",
    "other_bias": "step",
    "no_bias": "step",
    "relu_for_tanh": "step",
    "before_the_step": "rnn",
    "zeros_first": "rnn",
    "cut_at_each_step": "rnn",
}


def without_bend(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The tanh is missing: without it the state grows or vanishes, step by step."""
    return _sum(x, h, w_ih, w_hh, b_ih, b_hh)


def one_bias(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    """One of the two biases is missing."""
    return _sum(x, h, w_ih, w_hh, b_ih, None).tanh()


def state_bent_alone(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """tanh was applied to both halves before adding. Add first, then apply tanh once."""
    zero = h * 0
    ours = _sum(x, zero, w_ih, w_hh, b_ih, None).tanh()
    return ours + _sum(x * 0, h, w_ih, w_hh, None, b_hh).tanh()


def weights_exchanged(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The two matrices are exchanged: w_ih reads the input x, w_hh the state h."""
    return _sum(x, h, w_hh, w_ih, b_ih, b_hh).tanh()


def not_transposed(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """w_hh is square, so h @ w_hh runs, but it is the wrong product: rows are neurons, so
    transpose, h @ w_hh.T."""
    return _sum(x, h, w_ih, w_hh.T, b_ih, b_hh).tanh()


def state_ignored(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The old state is not used: without h @ w_hh.T the network remembers nothing."""
    z = x @ w_ih.T
    z = z if b_ih is None else z + b_ih
    return (z if b_hh is None else z + b_hh).tanh()


def bias_always(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    """The biases may be None; then nothing is added: check before you add."""
    return (x @ w_ih.T + b_ih + h @ w_hh.T + b_hh).tanh()  # type: ignore[operator]


def asked_of_one(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """Each bias may be None on its own: check each one before you add it, not b_ih for both."""
    z = x @ w_ih.T + h @ w_hh.T
    return (z if b_ih is None else z + b_ih + b_hh).tanh()  # type: ignore[operator]


def asked_of_both(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """A bias was left out because the other is None. Each may be None on its own: check each before
    you add it."""
    z = x @ w_ih.T + h @ w_hh.T
    return (z if b_ih is None or b_hh is None else z + b_ih + b_hh).tanh()


def always_the_first_state(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """Every step started from the first state. Each one continues from the state before it: h =
    step(…)."""
    return stack([solution.step(x[t], h, w_ih, w_hh, b_ih, b_hh) for t in range(len(x))])


def last_state_alone(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """Only the last state is returned. Return the states after every step."""
    return solution.rnn(x, h, w_ih, w_hh, b_ih, b_hh)[-1]


def with_the_first_state(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The results include the state before the first step. They start with the state after it."""
    states = solution.rnn(x, h, w_ih, w_hh, b_ih, b_hh)
    return stack([h, *(states[t] for t in range(len(x)))])


def backwards(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    """The sequence was read backwards."""
    turned = stack([x[t] for t in reversed(range(len(x)))])
    return solution.rnn(turned, h, w_ih, w_hh, b_ih, b_hh)


def over_the_batch(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The loop ran over the second dimension, the sequences of the batch. Time is the first: x[t]
    is step t of all of them."""
    return solution.rnn(x.transpose(0, 1), h, w_ih, w_hh, b_ih, b_hh)


def _sum(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    z = x @ w_ih.T + h @ w_hh.T
    z = z if b_ih is None else z + b_ih
    return z if b_hh is None else z + b_hh


def asked_for_truth(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """`if b_ih` tests the truth of several numbers at once. Test for None: b_ih is not None."""
    z = x @ w_ih.T + h @ w_hh.T
    z = z + b_ih if b_ih else z
    return (z + b_hh if b_hh else z).tanh()


def other_bias(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    """One of the two biases is missing, b_ih."""
    return _sum(x, h, w_ih, w_hh, None, b_hh).tanh()


def no_bias(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    """Both biases are missing: add each one that is not None."""
    return _sum(x, h, w_ih, w_hh, None, None).tanh()


def relu_for_tanh(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The activation is a ReLU. This network uses tanh: (…).tanh()."""
    return _sum(x, h, w_ih, w_hh, b_ih, b_hh).relu()


def before_the_step(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """Each state was stored before its step, so the first one is included and the last is not. Take
    the step first, then append."""
    states = solution.rnn(x, h, w_ih, w_hh, b_ih, b_hh)
    return stack([h, *(states[t] for t in range(len(x) - 1))])


def zeros_first(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias) -> Tensor:
    """The first step started with zeros. Start with the given state, h."""
    return solution.rnn(x, h * 0, w_ih, w_hh, b_ih, b_hh)


def cut_at_each_step(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Bias, b_hh: Bias
) -> Tensor:
    """The states are right, but each step forgets how the state before it was computed (.data), so
    no gradient flows back through time."""
    states = []
    for t in range(len(x)):
        h = solution.step(x[t], Tensor(h.data), w_ih, w_hh, b_ih, b_hh)
        states.append(h)
    return stack(states)
