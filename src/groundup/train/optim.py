"""One optimizer object: Muon for the matrices of the blocks, AdamW for all other parameters.

Muon (Jordan et al. 2024) replaces a matrix's momentum M = U S V^T by U V^T, so that the update has
equal size in every direction of the gradient. U V^T is approximated by a few Newton-Schulz steps,
which consist of matrix products only and therefore run fast. Embeddings and gains are not linear
maps between activations and use AdamW (Loshchilov & Hutter 2019).

The model may compute in bf16. Master weights ("masters") are kept in float32, gradients are summed
in float32, and after every step the rounded masters are copied into the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.kernels import newton_schulz
from groundup.kernels.gradients import sum_into
from groundup.train.config import DecayShape
from groundup.train.device import compute_dtype

# Quintic Newton-Schulz coefficients of Jordan et al. 2024. Their slope at zero is so steep that
# five steps bring singular values from 0.002 to 1 into the range 0.68 to 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Return approximately the nearest (semi-)orthogonal matrix to each matrix.

        X <- a X + (b G + c G^2) X      with G = X X^T

    Singular values that are not tiny relative to the matrix's norm end up between about 0.68 and
    1.2. Tinier ones, which most square matrices have, grow by up to 3.44^5 and stay smaller.

    It computes in bf16, which is precise enough for a direction, or in float32 where the processor
    only emulates bf16, which would take a hundred times as long.
    """
    a, b, c = _QUINTIC
    x = matrices.to(compute_dtype(matrices.device.type))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    if newton_schulz.supports(x):
        x = newton_schulz.newton_schulz(x, _NEWTON_SCHULZ_STEPS, _QUINTIC)
        return x.mT if tall else x
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@dataclass(frozen=True)
class Rates:
    """Peak learning rates, weight decay and moment coefficients."""

    # Muon's step is scaled by 0.2 sqrt(max(rows, columns)), the size of a typical AdamW step
    # (Liu et al. 2025, Moonlight, section 2.2), so both rates have the same scale.
    matrices: float
    embeddings: float
    gains: float
    weight_decay: float = 0.0
    # LoRA's B starts at zero and needs a higher rate than A (Hayou et al. 2024, LoRA+).
    lora_plus: float = 1.0
    # A value head starts at zero and learns from few numbers: it needs more than the matrices.
    head: float | None = None
    # A separate critic is fully trained, also with an adapter; at its own rate, by AdamW.
    critic: float | None = None
    momentum: float = 0.95
    # The second moment decays faster than with torch's 0.999, as in all large pre-training.
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: warm-up, stable, decay (Hu et al. 2024, MiniCPM, section 4).

        scale(step) = min((step + 1) / warmup, 1, (steps - step) / decay)

    The decay can start from any point of the flat middle, so a run can be extended without knowing
    its length in advance. With `decay_shape` "cosine" it is half a wave instead of a line, and with
    a decay that begins where the warm-up ends, the schedule of Loshchilov and Hutter (2017, SGDR,
    equation 5). The decay ends at `decay_to`, a share of the highest rate.
    """

    steps: int
    warmup_steps: int
    decay_steps: int
    decay_shape: DecayShape = "linear"
    decay_to: float = 0.0

    def __call__(self, step: int) -> float:
        """Return the factor of the learning rates at `step`, counted from 0."""
        rising = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        left = (self.steps - step) / self.decay_steps if self.decay_steps else 1.0
        left = max(min(left, 1.0), 0.0)
        if self.decay_shape == "cosine":
            left = (1 - math.cos(math.pi * left)) / 2
        return min(rising, 1.0, self.decay_to + (1 - self.decay_to) * left)


class Optimizer:
    """Master weights, float32 gradient sums, and the update. State is keyed by parameter name."""

    def __init__(self, model: nn.Module, rates: Rates, *, muon: bool = True) -> None:
        self.rates = rates
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self.parameters.items()
        }
        matrices = [n for n, p in self.masters.items() if _is_block_matrix(n, p)]
        self.muon_names = [n for n in matrices if muon and not self._has_critics_rate(n)]
        self.momenta = {name: torch.zeros_like(self.masters[name]) for name in self.muon_names}
        self._warmed_up = False
        self.adamw = torch.optim.AdamW(
            [
                {
                    "params": [self.masters[n] for n in names],
                    "lr": rate,
                    "base": rate,
                    "values": all(n.startswith("critic.") or _is_value_head(n) for n in names),
                }
                for names, rate in self._adamw_groups()
            ],
            betas=rates.betas,
            weight_decay=rates.weight_decay,
            fused=True,
        )
        self._hooks = [
            p.register_post_accumulate_grad_hook(self._collector(name))  # type: ignore[no-untyped-call]
            for name, p in self.parameters.items()
            if p is not self.masters[name]
        ]
        for name, parameter in self.parameters.items():
            if parameter is not self.masters[name]:
                sum_into(parameter, self.masters[name])

    def _has_critics_rate(self, name: str) -> bool:
        return self.rates.critic is not None and name.startswith("critic.")

    def _adamw_groups(self) -> Iterator[tuple[list[str], float]]:
        rest = {n: p for n, p in self.masters.items() if n not in self.momenta}
        critic = {n: p for n, p in rest.items() if n.startswith("critic.")}
        yield from self._by_kind({n: p for n, p in rest.items() if n not in critic})
        if self.rates.critic is None:
            yield from self._by_kind(critic)
        else:
            yield [*critic], self.rates.critic

    def _by_kind(self, rest: Mapping[str, Tensor]) -> Iterator[tuple[list[str], float]]:
        matrices = [n for n, p in rest.items() if _is_block_matrix(n, p)]
        embeddings = [n for n in rest if _is_embedding(n)]
        adapters = [n for n in rest if _is_adapter(n)]
        ups = [n for n in adapters if ".lora_B." in n]
        heads = [n for n in rest if _is_value_head(n)]
        known = {*matrices, *embeddings, *adapters, *heads}
        # A group may be empty: a model with only matrices has no parameters for AdamW.
        yield matrices, self.rates.matrices
        yield embeddings, self.rates.embeddings
        yield [n for n in rest if n not in known], self.rates.gains
        yield [n for n in adapters if n not in ups], self.rates.matrices
        yield ups, self.rates.matrices * self.rates.lora_plus
        yield heads, self.rates.matrices if self.rates.head is None else self.rates.head

    def _collector(self, name: str) -> Callable[[Tensor], None]:
        master = self.masters[name]

        def collect(parameter: Tensor) -> None:
            """Add a bf16 gradient to the float32 sum as soon as backward has computed it."""
            if parameter.grad is None:  # a kernel has already added it to the sum
                return
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

        return collect

    def gradient_norm(self) -> Float[Tensor, ""]:
        gradients = [m.grad for m in self.masters.values() if m.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def clip(self, norm: Float[Tensor, ""], limit: float) -> None:
        """Scale all gradients so that their total norm is at most `limit`."""
        torch.nn.utils.clip_grads_with_norm_(list(self.masters.values()), limit, norm)

    def step(self, scale: float, warmup_steps: int = 0) -> None:
        """Update the masters with all rates times `scale`, copy them to the model, clear gradients.

        If values train first (PPO's critic), all other parameters warm up from their first step.
        """
        with torch.no_grad():
            late = min(scale, self._warmup_factor(warmup_steps))
            self._muon_step(self.rates.matrices * late)
            for group in self.adamw.param_groups:
                group["lr"] = group["base"] * (scale if group["values"] else late)
            self.adamw.step()
            for name, parameter in self.parameters.items():
                if parameter is not self.masters[name]:
                    parameter.copy_(self.masters[name])
        self.clear()

    def _warmup_factor(self, warmup_steps: int) -> float:
        """(steps taken + 1) / warmup_steps of all but values; at least 1 after the warm-up."""
        if self._warmed_up or not warmup_steps:
            return 1.0
        groups = [g for g in self.adamw.param_groups if g["params"] and not g["values"]]
        if not groups:  # only matrices, and Muon does not count steps
            return 1.0
        states = [self.adamw.state.get(group["params"][0]) for group in groups]
        taken = max((int(state["step"]) for state in states if state), default=0)
        self._warmed_up = taken + 1 >= warmup_steps
        return (taken + 1) / warmup_steps

    def step_at_rest(self) -> None:
        """Do the work of a step with learning rate zero: weights and gradients stay unchanged."""
        gradients = {name: master.grad for name, master in self.masters.items()}
        self.step(0.0)
        for name, gradient in gradients.items():
            self.masters[name].grad = gradient

    def release(self) -> None:
        """Drop gradients and hooks, so that another optimizer can take the parameters."""
        self.clear()
        for hook in self._hooks:
            hook.remove()
        for parameter in self.parameters.values():
            sum_into(parameter, None)

    def _muon_step(self, rate: float) -> None:
        by_shape: dict[torch.Size, list[str]] = {}
        for name in self.muon_names:
            if self.masters[name].grad is not None:
                by_shape.setdefault(self.masters[name].shape, []).append(name)
        for shape, names in by_shape.items():
            step = rate * 0.2 * max(shape) ** 0.5
            for name, direction in zip(names, orthogonalize(self._updates(names)), strict=True):
                master = self.masters[name]
                if self.rates.weight_decay:
                    master.mul_(1 - rate * self.rates.weight_decay)
                master.add_(direction, alpha=-step)

    def _updates(self, names: list[str]) -> Float[Tensor, "n rows columns"]:
        """Nesterov momenta of equally shaped matrices, each rounded while it is in the cache."""
        like = self.masters[names[0]]
        updates = like.new_empty((len(names), *like.shape), dtype=compute_dtype(like.device.type))
        momentum = self.rates.momentum
        for name, update in zip(names, updates, strict=True):
            gradient = self.masters[name].grad
            assert gradient is not None
            buffer = self.momenta[name].lerp_(gradient, 1 - momentum)
            update.copy_(gradient.lerp(buffer, momentum))
        return updates

    def write_back(self) -> None:
        """Replace the model's parameters by the float32 masters, for saving."""
        for name, parameter in self.parameters.items():
            parameter.data = self.masters[name].detach()

    def load_masters(self, masters: Mapping[str, Tensor]) -> None:
        """Set masters and model to these weights; moments stay unchanged."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(masters[name])
                self.parameters[name].copy_(master)

    def clear(self) -> None:
        for master in self.masters.values():
            master.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs, except the masters."""
        state = {f"momentum/{name}": buffer for name, buffer in self.momenta.items()}
        for name, master in self.masters.items():
            for key, value in self.adamw.state.get(master, {}).items():
                state[f"{key}/{name}"] = value
        return state

    def restore(self, masters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Restore the exact state of saved `masters` and `state`."""
        self.load_masters(masters)
        with torch.no_grad():
            for name, buffer in self.momenta.items():
                buffer.copy_(state[f"momentum/{name}"])
        for name, master in self.masters.items():
            # A fused step needs all state on the master's device, including the step count.
            saved = {
                key: state[f"{key}/{name}"].to(master.device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in state
            }
            if saved:
                self.adamw.state[master] = saved


def _is_embedding(name: str) -> bool:
    return any(kind in name for kind in ("embed_tokens", "embed_positions", "lm_head"))


def _is_adapter(name: str) -> bool:
    """Whether it is part of a LoRA adapter: such thin matrices use AdamW, not Muon."""
    return ".lora_" in name


def _is_value_head(name: str) -> bool:
    """Whether it is the scalar head of a critic or a reward model."""
    return name in ("value_head.weight", "score.weight")


def _is_block_matrix(name: str, parameter: Tensor) -> bool:
    excluded = _is_embedding(name) or _is_adapter(name) or _is_value_head(name)
    return parameter.ndim == 2 and not excluded
