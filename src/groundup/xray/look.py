"""`groundup.xray(model, text, tokenizer)`: what a model does with a text, as arrays.

    seen = groundup.xray("runs/sft", "Who are you?", chat=True)
    seen.losses                     what each token cost, in nats
    seen.attention[1, 3]            the attention of head 3 of layer 1, (time, time)
    seen.heads_found()              which heads are of a known kind

One forward pass gives most of it and one backward pass the gradients. A second forward pass, over
repeated random tokens, detects the kinds of heads. Layers and heads count from 0; the residual
stream has one more state than there are layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from groundup.errors import UserError, shorten
from groundup.formats.load import open_model, require_finite
from groundup.generation.request import opening_ids
from groundup.generation.sampling import as_int
from groundup.lm.config import ModelConfig
from groundup.lm.model import Block, CausalLM
from groundup.text.chat import encode_chat
from groundup.text.token_view import visible
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.xray.attribution import Contributions, contributions
from groundup.xray.heads import KINDS, THRESHOLD, Kind, head_scores
from groundup.xray.lens import LogitLens, logit_lens
from groundup.xray.trace import Head, Trace, evaluating, traced

# Attention grows with the square of the length; longer texts are truncated.
MAX_TOKENS = 128
# Most likely tokens of each layer in the logit lens.
_LENS_TOP = 5


@dataclass(frozen=True)
class XRay:
    """What a model did with a text. `time` is the token position; layers and heads count from 0."""

    tokens: tuple[str, ...]
    ids: Int[np.ndarray, " time"]
    cut: int
    """The number of further tokens that the text had, which were left out."""
    context: int
    """The most tokens that the model can read."""
    losses: Float[np.ndarray, " time"]
    """-log p of each token given those before it, in nats; NaN for the first, which has none."""
    logits: Float[np.ndarray, "time vocab"]
    """Logits of the token after each position."""
    answers: Int[np.ndarray, " time"]
    """The token that follows each position; after the last one `answer`, or else the most
    likely."""
    attention: Float[np.ndarray, "layers heads time time"]
    """The attention of each query (row) to each key (column); rows sum to 1."""
    head_scores: Float[np.ndarray, "kinds layers heads"]
    """The score of each head for each of the `KINDS`, from 0 to 1, NaN where not measured."""
    lens: LogitLens
    residual_norms: Float[np.ndarray, "states time"]
    """The norm of the residual stream before each layer and after the last."""
    contributions: Contributions
    """What each head and MLP adds to the answer's logit (direct logit attribution)."""
    residual_gradients: Float[np.ndarray, "states time"]
    """The norm of the mean loss's gradient with respect to these states."""
    weight_gradients: Float[np.ndarray, "layers 2"]
    """The norm of that gradient for the weights of attention and of the MLP; 0 where frozen."""
    without: tuple[Head, ...]
    """The ablated heads."""

    @property
    def loss(self) -> float:
        """The mean of the losses in nats; NaN for a text of one token."""
        return float(self.losses[1:].mean()) if len(self.losses) > 1 else float("nan")

    def heads_found(self, threshold: float = THRESHOLD) -> dict[Kind, list[tuple[Head, float]]]:
        """The heads of each kind whose score is at least `threshold`, best first."""
        found: dict[Kind, list[tuple[Head, float]]] = {}
        for kind, scores in zip(KINDS, self.head_scores, strict=True):
            places = np.argwhere(scores >= threshold)
            heads = [((int(i), int(j)), float(scores[i, j])) for i, j in places]
            found[kind] = sorted(heads, key=lambda one: -one[1])
        return found


@torch.inference_mode(False)  # gradients are computed
def xray(
    model: CausalLM | Path | str,
    text: str | Sequence[int],
    tokenizer: Tokenizer | None = None,
    *,
    chat: bool = False,
    without: Sequence[Head] = (),
    most_tokens: int = MAX_TOKENS,
    answer: int | None = None,
) -> XRay:
    """Inspect what a model does with a text: losses, attention, logit lens, attribution, gradients.

    `model` is a loaded model, with its `tokenizer`, or a source as for `load`, which is computed in
    float32. `text` may be token ids. With `chat` it is a user's message, followed by the beginning
    of the answer. The heads `without`, as (layer, head), are ablated. A long text is truncated to
    its first `most_tokens` tokens. `answer` is the token whose logit is explained at the last
    position, by default the most likely. The model's own gradients stay as they are.

    Raises `UserError` for an empty text, for ids outside the vocabulary, for `most_tokens` below 1,
    and for a head that the model does not have.
    """
    if most_tokens < 1:
        raise UserError(f"most_tokens={most_tokens} must be 1 or more; {MAX_TOKENS} is the default")
    source = "the model"
    if not isinstance(model, CausalLM):
        stored = open_model(model)
        source, model = str(model), stored.model(torch.float32)
        tokenizer = tokenizer or stored.tokenizer
    require_finite(model, source)
    if isinstance(text, str):
        if tokenizer is None:
            raise UserError(
                "a text needs the model's tokenizer; call xray(model, text, tokenizer), or give "
                "token ids"
            )
        ids = text_ids(model.config, tokenizer, text, chat=chat)
    else:
        ids = [token_id(one) for one in text]
    vocabulary = model.config.vocab_size
    if answer is not None and ((asked := as_int(answer)) is None or not 0 <= asked < vocabulary):
        raise UserError(
            f"answer={shorten(answer)} is not a token id; give one from 0 to {vocabulary - 1}"
        )
    try:
        heads = tuple((index(layer), index(head)) for layer, head in without)
    except (TypeError, ValueError):
        raise UserError(
            f"without={shorten(without)} does not name heads; give pairs of a layer and a head, "
            "such as [(0, 1)]"
        ) from None
    kept = ids[: min(most_tokens, model.config.max_position_embeddings)]
    if not kept:
        raise UserError("the text is empty; give at least one token to look at")
    with evaluating(model):
        return _inspect(model, kept, len(ids) - len(kept), tokenizer, heads, answer)


def token_id(one: object) -> int:
    """An integer of Python, NumPy or torch as a Python int; `UserError` for anything else."""
    if (id := as_int(one)) is None:
        raise UserError(f"{shorten(one)} is not a token id; give a text or whole numbers")
    return id


def text_ids(config: ModelConfig, tokenizer: Tokenizer, text: str, *, chat: bool) -> list[int]:
    """The tokens of a text as the model reads it: as a document's beginning, or as a message."""
    if chat:
        messages = [{"role": "user", "content": text}]
        return encode_chat(tokenizer.able_to_chat(), messages, generation_prompt=True).ids
    return opening_ids(config, tokenizer) + tokenizer.encode(text)


def token_text(tokenizer: Tokenizer | None, id: int) -> str:
    """A token as text; incomplete characters are shown as \\x and two digits per byte."""
    spelled = b"" if tokenizer is None else tokenizer.token_bytes(id)
    return visible(spelled.decode("utf-8", errors="backslashreplace")) or f"<{id}>"


def _inspect(
    model: CausalLM,
    ids: list[int],
    cut: int,
    tokenizer: Tokenizer | None,
    without: tuple[Head, ...],
    answer: int | None,
) -> XRay:
    batch = Batch.of(torch.tensor([ids], device=model.head.device))
    with torch.enable_grad(), traced(model, without) as trace:
        logits = model.logits(batch)[0]
        losses = cross_entropy(logits[:-1], batch.input_ids[0, 1:], reduction="none")
        by_residual, by_weights = _gradients(model, trace, losses)
    logits = logits.detach()
    last = logits[-1:].argmax(-1) if answer is None else batch.input_ids.new_tensor([answer])
    answers = torch.cat((batch.input_ids[0, 1:], last))
    residual = [one[0].detach() for one in trace.residual]
    # Random sequences begin like any text.
    opening = [] if tokenizer is None else opening_ids(model.config, tokenizer)
    special = frozenset() if tokenizer is None else tokenizer.special_ids
    return XRay(
        tokens=tuple(token_text(tokenizer, id) for id in ids),
        ids=np.asarray(ids),
        cut=cut,
        context=model.config.max_position_embeddings,
        losses=np.concatenate(([np.nan], _array(losses))),
        logits=_array(logits),
        answers=_array(answers),
        attention=_array(torch.stack([one[0] for one in trace.attention])),
        head_scores=head_scores(model, opening, without, special),
        lens=logit_lens(model, residual, answers, _LENS_TOP),
        residual_norms=_array(torch.stack([one.float().norm(dim=-1) for one in residual])),
        contributions=contributions(model, trace, answers),
        residual_gradients=by_residual,
        weight_gradients=by_weights,
        without=without,
    )


def _gradients(
    model: CausalLM, trace: Trace, losses: Float[Tensor, " predicted"]
) -> tuple[Float[np.ndarray, "states time"], Float[np.ndarray, "layers 2"]]:
    """Norms of the mean loss's gradient: at the residual stream, and for each layer's weights."""
    weights = [list(_weights(block)) for block in model.blocks]
    if not len(losses):
        return np.zeros((len(weights) + 1, 1), np.float32), np.zeros((len(weights), 2), np.float32)
    flat = [one for layer in weights for half in layer for one in half]
    found = torch.autograd.grad(losses.mean(), [*trace.residual, *flat], allow_unused=True)
    states = len(trace.residual)
    by_residual = torch.stack([one[0].float().norm(dim=-1) for one in found[:states]])
    rest = iter(found[states:])
    lengths = [[_length([next(rest) for _ in half]) for half in layer] for layer in weights]
    return _array(by_residual), np.asarray(lengths, np.float32)


def _weights(block: Block) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable weights of a layer's attention and of its MLP, each with its norm."""
    halves = (
        (block.input_layernorm, block.self_attn),
        (block.post_attention_layernorm, block.mlp),
    )
    attention, mlp = (
        [one for module in half for one in module.parameters() if one.requires_grad]
        for half in halves
    )
    return attention, mlp


def _length(gradients: Sequence[Tensor | None]) -> float:
    """The norm of all gradients as one vector; None belongs to an inactive adapter."""
    squares = [float(one.float().square().sum()) for one in gradients if one is not None]
    return math.sqrt(sum(squares))


def _array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array; floating point as float32."""
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
