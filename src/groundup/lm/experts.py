"""A mixture of experts: many feed-forward parts, of which each token uses a few.

    p = softmax(W_gate x)                                    over all experts, in float32
    y = sum over the k experts of largest p:  w_e expert_e(x)
    w_e = p_e, or p_e over the sum of the k                  (`norm_topk_prob`)

(Shazeer et al. 2017, "Outrageously large neural networks", section 2.1; in the form of Qwen3-MoE,
whose parameter names are used.) A model stores the weights of all experts and spends on a token the
products of k.

A router that sends all tokens to a few experts leaves the others untrained, and then chooses those
even less. So training adds a loss that has its minimum, k, at equal shares:

    balance = E sum over experts of f_e P_e      f_e: tokens sent to e, over all tokens
                                                 P_e: the mean of p_e; gradients flow through it

(Fedus et al. 2022, Switch Transformers, equations 4 to 6, with k choices instead of one). Each
layer has its own balance. transformers counts all layers together, so that one layer's imbalance
can offset another's; for a single layer both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from groundup.lm.config import ExpertsConfig

# An expert gets a different number of tokens at every step. oneDNN compiles and caches a product
# for each new size: half a megabyte each, 288 a step for four layers with 8 experts. Padding to
# multiples of this limits the sizes.
_ROW_MULTIPLE = 64


@dataclass(frozen=True)
class Routing:
    """The experts to which a layer sent its tokens."""

    probabilities: Float[Tensor, "tokens experts"]
    chosen: Int[Tensor, "tokens chosen"]


class MixtureOfExperts(nn.Module):
    """Replaces a block's feed-forward part; `experts` are feed-forward parts themselves."""

    def __init__(self, config: ExpertsConfig, width: int, experts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Linear(width, config.num_experts, bias=False)
        self.experts = nn.ModuleList(experts)
        # The last forward pass in training, for `take_balance`.
        self._routing: Routing | None = None

    def __getstate__(self) -> dict[str, object]:
        """Copies have no routing: it is part of an autograd graph, which cannot be copied."""
        return {**vars(self), "_routing": None}

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        tokens = x.reshape(-1, x.shape[-1])
        routing, weights = self.route(tokens)
        if self.training and torch.is_grad_enabled():
            self._routing = routing
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            # An expert processes all of its tokens in one batch.
            sent, place = (routing.chosen == number).nonzero(as_tuple=True)
            if len(sent):
                found = expert(_padded(tokens[sent]))[: len(sent)]
                out.index_add_(0, sent, found * weights[sent, place, None])
        return out.view_as(x)

    def route(
        self, tokens: Float[Tensor, "tokens width"]
    ) -> tuple[Routing, Float[Tensor, "tokens chosen"]]:
        """The experts of each token and the weights of their outputs."""
        probabilities = self.gate(tokens).float().softmax(-1)
        weights, chosen = probabilities.topk(self.config.num_experts_per_tok, dim=-1)
        if self.config.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return Routing(probabilities, chosen), weights.to(tokens.dtype)

    def send_to_all(self) -> None:
        """Send each token to every expert from now on, so that rounding cannot change routes."""
        self.config = replace(self.config, num_experts_per_tok=self.config.num_experts)

    def take_balance(self, real: Bool[Tensor, " tokens"]) -> Float[Tensor, ""]:
        """The balance of the last forward pass in training, over its `real` tokens."""
        routing, self._routing = self._routing, None
        assert routing is not None, "a balance is taken once after each forward pass in training"
        return balance(routing, real)


def _padded(x: Float[Tensor, "tokens width"]) -> Float[Tensor, "more width"]:
    """These rows and, in training, zeros up to a multiple of `_ROW_MULTIPLE`."""
    return pad(x, (0, 0, 0, -len(x) % _ROW_MULTIPLE)) if torch.is_grad_enabled() else x


def balance(routing: Routing, real: Bool[Tensor, " tokens"] | None = None) -> Float[Tensor, ""]:
    """E sum f_e P_e: from k (equal shares) to E (all tokens to the same k with certainty)."""
    probabilities, chosen = routing.probabilities, routing.chosen
    if real is not None:
        probabilities, chosen = probabilities[real], chosen[real]
    experts, tokens = probabilities.shape[1], max(1, probabilities.shape[0])
    # Dividing an integer tensor would give torch's default dtype.
    shares = torch.bincount(chosen.flatten(), minlength=experts).to(probabilities.dtype) / tokens
    return experts * (shares * probabilities.sum(0) / tokens).sum()


def mean_balance(
    mixtures: Sequence[MixtureOfExperts], real: Bool[Tensor, "rows time"]
) -> Float[Tensor, ""]:
    """The mean balance over layers in the last forward pass in training."""
    return torch.stack([mixture.take_balance(real.flatten()) for mixture in mixtures]).mean()


def reference_mixture(
    mixture: MixtureOfExperts, x: Float[Tensor, "*batch width"]
) -> Float[Tensor, "*batch width"]:
    """The equation computed slowly, token by token and expert by expert: the oracle."""
    outputs = []
    for token in x.reshape(-1, x.shape[-1]):
        p = (mixture.gate.weight @ token).exp()
        p = p / p.sum()
        best = p.detach().argsort(descending=True)[: mixture.config.num_experts_per_tok].tolist()
        total = sum(p[e] for e in best) if mixture.config.norm_topk_prob else 1.0
        given = [p[e] / total * mixture.experts[e](token[None])[0] for e in best]
        outputs.append(torch.stack(given).sum(0))
    return torch.stack(outputs).view_as(x)
