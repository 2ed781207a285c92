"""Optimizers: gradient descent and its successors, with momentum and adaptive step sizes.

Gradient descent takes w ← w - η g and treats all directions alike. Later methods change two
things. *Momentum* averages gradients over time, so that consistent directions add up and
oscillations cancel. *Adaptive* methods divide each weight's step by the typical size of its
gradients, so that rare or flat directions move as fast as frequent or steep ones. Adam does both.

    SGD        v ← μ v + g             w ← w - η v
    Adagrad    s ← s + g²              w ← w - η g / √s
    RMSprop    s ← average of g²       w ← w - η g / √s
    Adam       m ← average of g        w ← w - η m / √s
    AdamW      as Adam                 and separately w ← w - η λ w

Names, arguments, defaults and every rounding convention that affects the result are those of
`torch.optim`. An optimizer has one setting for all its parameters: to use another for some, such
as no weight decay on biases, give those a separate optimizer.

Reviews: Ruder (2016), "An overview of gradient descent optimization algorithms"; Bottou, Curtis
and Nocedal (2018), "Optimization methods for large-scale machine learning".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from math import inf, isfinite, sqrt
from typing import TypeAlias

import numpy as np

from groundup.maths.arrays import Array, Shape
from groundup.maths.tensor import Tensor

State: TypeAlias = dict[str, Array]
"""The state of one parameter: arrays of its shape under their names in torch."""

# An update passes over its arrays a dozen times. Blocks of 128 KiB of float32 stay in the
# processor's cache, which is up to twice as fast, so the formulas can be written plainly.
_BLOCK = 32_768


@dataclass(eq=False)
class Optimizer(ABC):
    """Updates parameters in place from their gradients; subclasses define the update.

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    `lr` is the learning rate η and may be assigned at any time. A tensor that is listed twice, such
    as tied weights, counts once. Errors: `ValueError` for a parameter that was computed from other
    tensors, for an empty list, and for settings outside their range.
    """

    parameters: InitVar[Iterable[Tensor]]
    lr: float
    weights: list[Tensor] = field(init=False, repr=False)
    state: list[State] = field(init=False, repr=False)
    steps: list[int] = field(init=False, repr=False)
    """The number of steps of each parameter; steps without a gradient do not count."""

    def __post_init__(self, parameters: Iterable[Tensor]) -> None:
        if isinstance(parameters, Tensor):
            raise TypeError("an optimizer takes a list of parameters; give [parameter]")
        self.weights = list({id(weight): weight for weight in parameters}.values())
        self.state = [{} for _ in self.weights]
        self.steps = [0 for _ in self.weights]
        if not self.weights:
            raise ValueError("an optimizer needs at least one parameter; the list is empty")
        for number, weight in enumerate(self.weights):
            if not weight.is_leaf:
                raise ValueError(
                    f"parameter {number} of shape {weight.shape} was computed from other tensors"
                )
        _within("lr", self.lr, inf)

    @property
    @abstractmethod
    def buffers(self) -> tuple[str, ...]:
        """The names of the state arrays of each parameter, which start as zeros."""

    @abstractmethod
    def update(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        """Update `w` and `state` in place from the gradient `g`, at step t = 1, 2, ...

        All arrays have the same shape, with one or more dimensions. `g` must not change.
        """

    def step(self, scale: float = 1.0) -> None:
        """Update every parameter that has a gradient, with the learning rate `scale` times `lr`.

        Graphs that used a parameter before the step can no longer be differentiated.
        """
        lr = float(self.lr * scale)  # a NumPy float64 would turn float32 into float64
        with np.errstate(over="ignore", invalid="ignore"):  # diverging values become inf and nan
            for number, weight in enumerate(self.weights):
                if weight.grad is not None:
                    if not self.state[number]:
                        self.state[number] = {n: np.zeros_like(weight.data) for n in self.buffers}
                    self.steps[number] += 1
                    for w, g, part in _blocks(weight.data, weight.grad.data, self.state[number]):
                        self.update(w, g, part, self.steps[number], lr)
                    weight.increment_version()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, or set them to zero, before the next backward adds to them."""
        for weight in self.weights:
            if weight.grad is not None:
                weight.grad = None if set_to_none else weight.grad.new_zeros(weight.shape)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all state that a resumed run needs, except the weights: "lr", and per
        parameter "3.step" and its arrays, such as "3.exp_avg".
        """
        saved = {"lr": np.array(self.lr)}
        for number, (state, step) in enumerate(zip(self.state, self.steps, strict=True)):
            saved[f"{number}.step"] = np.array(step)
            saved |= {f"{number}.{name}": array.copy() for name, array in state.items()}
        return saved

    def load_state_dict(self, saved: Mapping[str, Array]) -> None:
        """Restore `saved`, the state of an optimizer with these parameters in this order.

        Errors: `ValueError` for missing and unexpected entries and for other shapes; then nothing
        changes.
        """
        steps = [int(saved.get(f"{number}.step", 0)) for number in range(len(self.weights))]
        shapes: dict[str, Shape] = {"lr": ()}
        shapes |= {f"{number}.step": () for number in range(len(steps))}
        for number, (weight, step) in enumerate(zip(self.weights, steps, strict=True)):
            shapes |= {f"{number}.{name}": weight.shape for name in self.buffers if step}
        missing, unexpected = sorted(shapes.keys() - saved), sorted(saved.keys() - shapes)
        if missing or unexpected:
            raise ValueError(
                f"this is not the state of such an optimizer over these parameters: "
                f"missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}"
            )
        for name, array in saved.items():
            if array.shape != shapes[name]:
                raise ValueError(
                    f"{name} has shape {array.shape}, but its parameter needs {shapes[name]}"
                )
        self.lr, self.steps = float(saved["lr"]), steps
        self.state = [
            {
                name: np.array(saved[f"{number}.{name}"], dtype=weight.dtype)
                for name in self.buffers
                if steps[number]
            }
            for number, weight in enumerate(self.weights)
        ]


@dataclass(eq=False)
class SGD(Optimizer):
    """Stochastic gradient descent (Robbins and Monro 1951), optionally with momentum.

        v ← μ v + (1 - τ) g        the first v is g
        w ← w - η v                or with Nesterov's momentum  w ← w - η (g + μ v)

    μ is `momentum` (Polyak 1964, the heavy ball), τ `dampening`. Nesterov's (1983) looks ahead
    along the momentum, in the form of Sutskever et al. (2013). `weight_decay` λ adds λ w to the
    gradient, which is the derivative of a penalty λ/2 |w|².
    """

    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self, parameters: Iterable[Tensor]) -> None:
        super().__post_init__(parameters)
        _within("momentum", self.momentum, inf)
        _within("weight_decay", self.weight_decay, inf)
        if self.nesterov and not (self.momentum > 0 and self.dampening == 0):
            raise ValueError(
                f"nesterov with momentum={self.momentum} and dampening={self.dampening}: "
                "it requires a momentum above 0, such as 0.9, and no dampening"
            )

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def update(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        g = _decayed(g, w, self.weight_decay)
        if self.momentum:
            v = state["momentum_buffer"]
            v *= self.momentum
            v += (1 - self.dampening) * g if t > 1 else g
            g = g + self.momentum * v if self.nesterov else v
        w -= lr * g


@dataclass(eq=False)
class Adagrad(Optimizer):
    """Steps divided by all gradients so far (Duchi, Hazan and Singer 2011, figure 1, diagonal).

        s ← s + g²
        w ← w - η g / (√s + ε)

    A weight whose gradient is rarely nonzero keeps large steps. Since s only grows, all steps
    shrink as 1/√t; `lr_decay` divides them further by 1 + (t - 1) lr_decay.
    """

    lr: float = 1e-2
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def __post_init__(self, parameters: Iterable[Tensor]) -> None:
        super().__post_init__(parameters)
        for name in ("lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            _within(name, getattr(self, name), inf)

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("sum",)

    def update(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        g = _decayed(g, w, self.weight_decay)
        s = state["sum"]
        s += g * g if t > 1 else g * g + self.initial_accumulator_value
        w -= lr / (1 + (t - 1) * self.lr_decay) * g / (np.sqrt(s) + self.eps)


@dataclass(eq=False)
class RMSprop(Optimizer):
    """Steps divided by the root mean square of recent gradients (Tieleman and Hinton 2012, 6.5).

        s ← α s + (1 - α) g²
        w ← w - η g / (√s + ε)

    It is a decaying average in place of Adagrad's sum. `centered` divides by the standard deviation
    instead, √(s - m²) with m the same average of g (Graves 2013, section 2.1). `momentum` μ
    accumulates the quotients: v ← μ v + g / (√s + ε), w ← w - η v.
    """

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self, parameters: Iterable[Tensor]) -> None:
        super().__post_init__(parameters)
        _within("alpha", self.alpha, 1.0)
        for name in ("eps", "weight_decay", "momentum"):
            _within(name, getattr(self, name), inf)

    @property
    def buffers(self) -> tuple[str, ...]:
        asked = {"square_avg": True, "grad_avg": self.centered, "momentum_buffer": self.momentum}
        return tuple(name for name, wanted in asked.items() if wanted)

    def update(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        g = _decayed(g, w, self.weight_decay)
        s = state["square_avg"]
        _average(s, self.alpha, g * g)
        if self.centered:
            m = state["grad_avg"]
            _average(m, self.alpha, g)
            s = np.maximum(s - m * m, 0)  # rounding can make a variance of 0 negative
        quotient = g / (np.sqrt(s) + self.eps)
        if self.momentum:
            v = state["momentum_buffer"]
            v *= self.momentum
            v += quotient
            quotient = v
        w -= lr * quotient


@dataclass(eq=False)
class Adam(Optimizer):
    """Averages of gradients over averages of their squares (Kingma and Ba 2015, algorithm 1).

        m ← β₁ m + (1 - β₁) g         m̂ = m / (1 - β₁ᵗ)
        s ← β₂ s + (1 - β₂) g²        ŝ = s / (1 - β₂ᵗ)
        w ← w - η m̂ / (√ŝ + ε)

    m and s start at zero and would be too small for many steps; m̂ and ŝ correct this. The quotient
    is about 1 for steady gradients and smaller if they change sign, so η is the size of a step
    whatever the scale of the loss. (A gradient after many zeros gets the largest step,
    (1 - β₁) / √(1 - β₂), which is 3.2 at the defaults.) `weight_decay` is added to the gradient as
    in SGD, and divided by the same quotient: see `AdamW`. `amsgrad` divides by the largest s so
    far, which converges where Adam may not (Reddi, Kale and Kumar 2018).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def __post_init__(self, parameters: Iterable[Tensor]) -> None:
        super().__post_init__(parameters)
        for number, beta in enumerate(self.betas):
            _within(f"betas[{number}]", beta, 1.0)
        _within("eps", self.eps, inf)
        _within("weight_decay", self.weight_decay, inf)

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if self.amsgrad else []))

    def update(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        self.descend(w, _decayed(g, w, self.weight_decay), state, t, lr)

    def descend(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        """Do the three lines of the algorithm, without weight decay."""
        beta1, beta2 = self.betas
        m, s = state["exp_avg"], state["exp_avg_sq"]
        _average(m, beta1, g)
        _average(s, beta2, g * g)
        if self.amsgrad:
            s = np.maximum(state["max_exp_avg_sq"], s, out=state["max_exp_avg_sq"])
        w -= lr / (1 - beta1**t) * m / (np.sqrt(s) / sqrt(1 - beta2**t) + self.eps)


@dataclass(eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

        w ← w - η λ w
        w ← w - η m̂ / (√ŝ + ε)

    In Adam the decay is part of the quotient, so weights with large gradients hardly decay. Here
    every weight shrinks by the same factor, as in SGD.
    """

    weight_decay: float = 1e-2

    def update(self, w: Array, g: Array, state: State, t: int, lr: float) -> None:
        w *= 1 - lr * self.weight_decay
        self.descend(w, g, state, t, lr)


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their total norm is at most `max_norm`.

        g ← g · min(1, max_norm / (|g| + 1e-6)),  |g|² = the sum over all parameters

    The direction stays (Pascanu, Mikolov and Bengio 2013, algorithm 1). Returns |g| before
    clipping, so `max_norm=math.inf` only measures. Errors: `ValueError` unless it is above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm={max_norm} must be above 0, such as 1.0")
    gradients = _gradients(parameters)
    with np.errstate(over="ignore", invalid="ignore"):
        # In memory order, which needs no copy.
        flats = (gradient.data.ravel(order="K") for gradient in gradients)
        norm = sqrt(sum(float(np.dot(flat, flat)) for flat in flats))
        if not isfinite(norm):  # squares may overflow although no gradient does
            norm = _length_of_large([gradient.data for gradient in gradients])
        if not norm + 1e-6 <= max_norm:  # a NaN norm makes all gradients NaN
            for gradient in gradients:
                gradient.data *= max_norm / (norm + 1e-6)
    return norm


def _length_of_large(arrays: Sequence[Array]) -> float:
    """Return the total norm of arrays whose squares overflow."""
    peak = float(np.max([np.abs(array).max(initial=0) for array in arrays]))
    if not isfinite(peak):
        return peak
    return peak * sqrt(
        sum(float(np.square(array / peak).sum(dtype=np.float64)) for array in arrays)
    )


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every entry of every gradient to [-clip_value, clip_value], which changes its direction.

    Errors: `ValueError` unless the value is above 0.
    """
    if not clip_value > 0:
        raise ValueError(f"clip_value={clip_value} must be above 0, such as 1.0")
    for gradient in _gradients(parameters):
        np.clip(gradient.data, -clip_value, clip_value, out=gradient.data)
        gradient.increment_version()


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return the existing gradients, each once."""
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    distinct = {id(tensor): tensor.grad for tensor in tensors}
    return [gradient for gradient in distinct.values() if gradient is not None]


def _decayed(g: Array, w: Array, weight_decay: float) -> Array:
    """The gradient of the loss plus λ/2 |w|²."""
    return g + weight_decay * w if weight_decay else g


def _average(m: Array, beta: float, x: Array) -> None:
    """m ← β m + (1 - β) x in place; as m + (1 - β) (x - m), a large m would absorb a small x."""
    m *= beta
    m += (1 - beta) * x


def _blocks(w: Array, g: Array, state: State) -> Iterable[tuple[Array, Array, State]]:
    """Split arrays of one shape into flat blocks; the blocks of w and of the state are views."""
    if not all(array.flags.c_contiguous for array in (w, *state.values())):
        return [(w, g, state)]
    flat, gradient = w.reshape(-1), g.reshape(-1)
    memory = {name: array.reshape(-1) for name, array in state.items()}
    cuts = [slice(start, start + _BLOCK) for start in range(0, w.size, _BLOCK)]
    return [(flat[c], gradient[c], {name: a[c] for name, a in memory.items()}) for c in cuts]


def _within(name: str, value: float, end: float) -> None:
    """Raise `ValueError` for a setting outside [0, end)."""
    if not 0 <= value < end:
        raise ValueError(
            f"{name}={value} must be 0 or more and " + ("finite" if end == inf else f"below {end}")
        )
