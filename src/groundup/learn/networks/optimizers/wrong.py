"""The commonest wrong answers to 2.4, each with the hint that names it."""

from typing import Any

Array = Any
Triple = tuple[Array, Array, Array]
REPLACES = {
    "step_with_the_gradient": "sgd_step",
    "averaged_momentum": "sgd_step",
    "old_momentum": "sgd_step",
    "rate_in_the_memory": "sgd_step",
    "velocity": "sgd_step",
    "uphill": "sgd_step",
    "in_place": "sgd_step",
    "no_unbiasing": "adamw_step",
    "decay_in_the_gradient": "adamw_step",
    "decay_without_rate": "adamw_step",
    "no_decay": "adamw_step",
    "eps_inside_the_root": "adamw_step",
    "eps_not_scaled": "adamw_step",
    "gradient_not_squared": "adamw_step",
    "root_forgotten": "adamw_step",
    "steps_from_zero": "adamw_step",
    "hats_remembered": "adamw_step",
    "betas_exchanged": "adamw_step",
    "own_betas": "adamw_step",
    "decayed_gradient_step": "adamw_step",
    "decay_after_the_step": "adamw_step",
    "eps_not_scaled_and_decay_after": "adamw_step",
    "only_m_unbiased": "adamw_step",
    "only_s_unbiased": "adamw_step",
    "hats_exchanged": "adamw_step",
    "hats_of_the_first_step": "adamw_step",
    "step_uphill": "adamw_step",
    "decay_by_the_gradient": "adamw_step",
    "rate_forgotten": "sgd_step",
    "nesterov": "sgd_step",
    "weights_exchanged": "adamw_step",
    "sums_for_averages": "adamw_step",
    "square_of_the_average": "adamw_step",
    "hat_of_step_zero": "adamw_step",
    "eps_beside_the_step": "adamw_step",
    "no_eps": "adamw_step",
    "grows_by_the_decay": "adamw_step",
    "memory_first": "sgd_step",
    "memory_left_as_it_was": "sgd_step",
    "hats_of_the_old_averages": "adamw_step",
}


def step_with_the_gradient(
    w: Array, g: Array, v: Array, lr: float, momentum: float
) -> tuple[Array, Array]:
    """The step was taken with g; the momentum v is stored but never used."""
    return w - lr * g, momentum * v + g


def averaged_momentum(
    w: Array, g: Array, v: Array, lr: float, momentum: float
) -> tuple[Array, Array]:
    """This averages, μ v + (1 - μ) g, as Adam does. SGD's momentum adds the whole gradient."""
    v = momentum * v + (1 - momentum) * g
    return w - lr * v, v


def old_momentum(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """The step was taken with the old v. Compute the new v first, then step with it."""
    return w - lr * v, momentum * v + g


def rate_in_the_memory(
    w: Array, g: Array, v: Array, lr: float, momentum: float
) -> tuple[Array, Array]:
    """The learning rate was put into v. Here v accumulates gradients, and the rate multiplies only
    the step."""
    v = momentum * v + lr * g
    return w - v, v


def velocity(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """This v is a velocity, which includes the rate and the minus sign. Here v accumulates
    gradients, v = μ v + g, and the step is w - lr · v."""
    v = momentum * v - lr * g
    return w + v, v


def uphill(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """This walks uphill: subtract the step."""
    v = momentum * v + g
    return w + lr * v, v


def in_place(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """+= and -= change the input arrays. Write w = w - …, which makes new ones."""
    v *= momentum
    v += g
    w -= lr * v
    return w, v


def no_unbiasing(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The hats are missing: m and s start at 0 and are too small at first. Divide them by 1 -
    βᵗ."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    return w - lr * m / (s**0.5 + eps), m, s


def decay_in_the_gradient(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The decay was added to the gradient, as in Adam with L2. AdamW shrinks w separately: w - lr ·
    weight_decay · w."""
    return _adam(w, g + weight_decay * w, m, s, t, lr, beta1, beta2, eps, 0.0)


def decay_without_rate(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The decay is not multiplied by the learning rate: each step subtracts η λ w."""
    return _adam(w, g, m, s, t, lr, beta1, beta2, eps, weight_decay / lr)


def no_decay(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The weight decay is missing."""
    return _adam(w, g, m, s, t, lr, beta1, beta2, eps, 0.0)


def eps_inside_the_root(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """ε was put under the root. It belongs outside: √ŝ + ε."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
    return w - lr * m_hat / (s_hat + eps) ** 0.5, m, s


def eps_not_scaled(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """ε is added to √s without its hat; it belongs to √ŝ."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    rate = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
    return w - rate * m / (s**0.5 + eps), m, s


def gradient_not_squared(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """s averages the gradient's square, g · g; yours averages g."""
    w, m, _ = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    s = beta2 * s + (1 - beta2) * g
    m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
    return w - lr * m_hat / (s_hat**0.5 + eps), m, s


def root_forgotten(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The root is missing: s averages squares, and the step divides by √ŝ."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
    return w - lr * m_hat / (s_hat + eps), m, s


def steps_from_zero(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The hats are one step behind: t is 1 in the first step, so that 1 - βᵗ is 1 - β there; use
    the given t."""
    return _adam(w, g, m, s, t + 1, lr, beta1, beta2, eps, weight_decay)


def hats_remembered(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """m and s were returned with their hats on, so the next step would correct them again. The hats
    are for this step only."""
    w, m, s = _adam(w, g, m, s, t, lr, beta1, beta2, eps, weight_decay)
    return w, m / (1 - beta1**t), s / (1 - beta2**t)


def betas_exchanged(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The betas are exchanged: β₁ belongs to m, the average of gradients, and β₂ to s."""
    return _adam(w, g, m, s, t, lr, beta2, beta1, eps, weight_decay)


def own_betas(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The usual numbers 0.9, 0.999 and 1e-8 are fixed in the function. Use the given beta1, beta2
    and eps: pre-training, for example, uses other values."""
    return _adam(w, g, m, s, t, lr, 0.9, 0.999, 1e-8, weight_decay)


def decayed_gradient_step(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The step was taken with g instead of m̂, the average of the gradients."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    return w - lr * g / ((s / (1 - beta2**t)) ** 0.5 + eps), m, s


def decay_after_the_step(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The weights decayed after the step, so the step itself shrank, too. First w ← w - η λ w, then
    the step."""
    w, m, s = _adam(w, g, m, s, t, lr, beta1, beta2, eps, 0.0)
    return w - lr * weight_decay * w, m, s


def eps_not_scaled_and_decay_after(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """Two things differ, as in some lectures. ε is added to √s without its hat; it belongs to √ŝ:
    lr · m̂ / (√ŝ + ε). And the weights decayed after the step: first w ← w - η λ w, then the
    step."""
    w, m, s = eps_not_scaled(w, g, m, s, t, lr, beta1, beta2, eps, 0.0)
    return w - lr * weight_decay * w, m, s


def only_m_unbiased(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """Only m has its hat. s starts at 0 as well and is too small at first: divide it by 1 - β₂ᵗ."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    return w - lr * m / (1 - beta1**t) / (s**0.5 + eps), m, s


def only_s_unbiased(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """Only s has its hat. m starts at 0 as well and is too small at first: divide it by 1 - β₁ᵗ."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    return w - lr * m / ((s / (1 - beta2**t)) ** 0.5 + eps), m, s


def hats_exchanged(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The hats are exchanged: divide m by 1 - β₁ᵗ and s by 1 - β₂ᵗ."""
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    m_hat, s_hat = m / (1 - beta2**t), s / (1 - beta1**t)
    return w - lr * m_hat / (s_hat**0.5 + eps), m, s


def hats_of_the_first_step(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """Each hat divides by 1 - β, which is right only in the first step. It is 1 - βᵗ: β to the
    power of t."""
    return _adam(w, g, m, s, 1, lr, beta1, beta2, eps, weight_decay)


def step_uphill(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The sign is flipped: the step is added, so it goes uphill. Subtract it."""
    return _adam(w, g, m, s, t, -lr, beta1, beta2, eps, -weight_decay)


def decay_by_the_gradient(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The decay subtracts a part of the gradient. It must shrink the weights themselves: w - lr ·
    weight_decay · w."""
    w, m, s = _adam(w, g, m, s, t, lr, beta1, beta2, eps, 0.0)
    return w - lr * weight_decay * g, m, s


def _averages(
    w: Array, g: Array, m: Array, s: Array, lr: float,
    beta1: float, beta2: float, weight_decay: float,
) -> Triple:  # fmt: skip
    return (
        w - lr * weight_decay * w,
        beta1 * m + (1 - beta1) * g,
        beta2 * s + (1 - beta2) * g * g,
    )


def _adam(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    w, m, s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
    return w - lr * m_hat / (s_hat**0.5 + eps), m, s


def rate_forgotten(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """The learning rate is missing: the step is lr · v."""
    v = momentum * v + g
    return w - v, v


def nesterov(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """This is Nesterov's step, which looks ahead with g + μ v. Here the step is lr · v."""
    v = momentum * v + g
    return w - lr * (g + momentum * v), v


def weights_exchanged(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """Old and new are exchanged in the averages: multiply the old average by β and the new value by
    1 - β."""
    w = w - lr * weight_decay * w
    m = (1 - beta1) * m + beta1 * g
    s = (1 - beta2) * s + beta2 * g * g
    return w - lr * m / (1 - beta1**t) / ((s / (1 - beta2**t)) ** 0.5 + eps), m, s


def sums_for_averages(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The factor 1 - β is missing: m and s are averages, and the new gradient has only this weight
    in them."""
    w = w - lr * weight_decay * w
    m, s = beta1 * m + g, beta2 * s + g * g
    return w - lr * m / (1 - beta1**t) / ((s / (1 - beta2**t)) ** 0.5 + eps), m, s


def square_of_the_average(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """s averages the square of m. It averages the square of the gradient itself, g · g."""
    w = w - lr * weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * m * m
    return w - lr * m / (1 - beta1**t) / ((s / (1 - beta2**t)) ** 0.5 + eps), m, s


def hat_of_step_zero(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The power in the hats is t - 1, which is 0 in the first step: 1 - β⁰ is 0, and the step is
    not a number. t is 1 in the first step; use it as given."""
    return _adam(w, g, m, s, t - 1, lr, beta1, beta2, eps, weight_decay)


def eps_beside_the_step(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """Division comes before addition, so ε was added to the weights. Put brackets around (√ŝ +
    ε)."""
    w, m, s = _adam(w, g, m, s, t, lr, beta1, beta2, 0.0, weight_decay)
    return w + eps, m, s


def no_eps(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """ε is missing: without it a gradient of 0 would give 0 / 0. Divide by √ŝ + ε."""
    return _adam(w, g, m, s, t, lr, beta1, beta2, 0.0, weight_decay)


def grows_by_the_decay(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The sign of the decay is flipped, so the weights grow: w - lr · weight_decay · w."""
    return _adam(w, g, m, s, t, lr, beta1, beta2, eps, -weight_decay)


def memory_first(w: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """w and v are exchanged: the pair is (w, v)."""
    v = momentum * v + g
    return v, w - lr * v


def memory_left_as_it_was(
    w: Array, g: Array, v: Array, lr: float, momentum: float
) -> tuple[Array, Array]:
    """The step is right, but the old v is returned. The next step continues from the new one."""
    return w - lr * (momentum * v + g), v


def hats_of_the_old_averages(
    w: Array, g: Array, m: Array, s: Array, t: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float,
) -> Triple:  # fmt: skip
    """The step uses the averages from before this gradient. Update m and s first, then take their
    hats."""
    new_w, new_m, new_s = _averages(w, g, m, s, lr, beta1, beta2, weight_decay)
    step = m / (1 - beta1**t) / ((s / (1 - beta2**t)) ** 0.5 + eps)
    return new_w - lr * step, new_m, new_s
