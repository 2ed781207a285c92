"""The logit lens: what the model would predict if it stopped after a layer.

    logits_l = head(norm(x_l))        for the residual stream x_l after l layers

The model's own last norm and head read the stream as if no layer followed (nostalgebraist 2020,
"interpreting GPT: the logit lens"). After all layers this is the model's answer. Only training
makes layers write in the head's basis, so early readings are a hint and not a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.lm.model import CausalLM


@dataclass(frozen=True)
class LogitLens:
    """After each number of layers, from none to all: the most likely next tokens, best first."""

    ids: Int[np.ndarray, "states time top"]
    probabilities: Float[np.ndarray, "states time top"]
    answer_logprobs: Float[np.ndarray, "states time"]
    """log p of the answer token, in nats."""


@torch.no_grad()
def logit_lens(
    model: CausalLM,
    residual: Sequence[Float[Tensor, "time width"]],
    answers: Int[Tensor, " time"],
    top: int,
) -> LogitLens:
    """Read the residual stream before each layer and after the last (see the module)."""
    ids, probabilities, chosen = [], [], []
    for state in residual:
        logprobs = model.lm_head(model.model.norm(state)).float().log_softmax(-1)
        best = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
        ids.append(best.indices)
        probabilities.append(best.values.exp())
        chosen.append(logprobs.gather(-1, answers[:, None])[:, 0])
    stacked = (torch.stack(one).cpu().numpy() for one in (ids, probabilities, chosen))
    return LogitLens(*stacked)
