"""The transformer, top to bottom on one page.

    h = embed(tokens)
    h = h + attention(norm(h));  h = h + mlp(norm(h))        once per layer
    logits = head(norm(h))

Every token is a vector, its *hidden state*. It starts as a description of the token and ends as a
prediction of the next one. A layer reads the state twice and adds what it computes: attention
fetches information from the earlier tokens, and the feed-forward part (mlp) processes each token by
itself. Because both only add, gradients reach the first layer as directly as the last (He et al.
2015). Because both read a normalized copy, states may grow without harm. The head compares the last
state with a vector for each token of the vocabulary: the better the match, the likelier that token.

This one page is Qwen3, Llama, SmolLM2, Mistral, Qwen2 and GPT-2; they differ in fields of the
config. Parameters carry Hugging Face's names, so a state dict needs no translation. The model
returns hidden states, and the head is separate: a loss decides how many logits it holds at once,
and reward or value heads can replace the head.

Alternatives to parts of the architecture have their own pages: `positions`, `experts` (replaces the
mlp) and `rnn` (replaces everything below the head).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu
from torch.utils.checkpoint import checkpoint

from groundup.deprecated import renamed_method
from groundup.errors import UserError
from groundup.kernels import attention as kernel
from groundup.kernels import rms_norm, rotary
from groundup.kernels.linear import is_changed, linears, record_forward
from groundup.kernels.swiglu import swiglu_down
from groundup.lm.attention import AttentionPath, Bias, as_bias, attention, document_mask
from groundup.lm.config import Activation, ModelConfig
from groundup.lm.positions import (
    Rotation,
    alibi_bias,
    inverse_frequencies,
    rotate,
    rotation,
    sinusoidal_embedding,
)
from groundup.train.batch import Batch
from groundup.train.loss import Auxiliary

if TYPE_CHECKING:  # training has no cache, and few models have these parts
    from groundup.lm.cache import Cache, CacheView, KVCache, Write
    from groundup.lm.experts import MixtureOfExperts
    from groundup.lm.rnn import Recurrent

Hidden = Float[Tensor, "rows time width"]
# The attention mask: a bias on the scores or, for the kernel, the first visible key of each query.
Seen = Bias | kernel.FirstSeen

_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,  # x * sigmoid(x)
    "gelu": gelu,  # x * Phi(x), Phi the normal distribution (Hendrycks & Gimpel 2016)
    "gelu_new": partial(gelu, approximate="tanh"),  # GPT-2's name for the approximation
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
    "relu": relu,
    "relu2": lambda x: relu(x).square(),  # So et al. 2021, Primer, section 4.1
}


@record_forward
class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang & Sennrich 2019), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        if rms_norm.supports(x, self.weight):
            return rms_norm.rms_norm(x, self.weight, self.eps)
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def norm(config: ModelConfig) -> nn.Module:
    """RMSNorm or, in GPT-2, LayerNorm, which also subtracts the mean and adds a bias."""
    kind = RMSNorm if config.family.norm == "rms" else nn.LayerNorm
    return kind(config.hidden_size, config.rms_norm_eps)


@record_forward
class Attention(nn.Module):
    """Multi-head attention: query, key and value projections, attention, output projection."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.window = config.windows[layer]
        self.path: AttentionPath = "matmul"
        width, bias = config.hidden_size, config.attention_bias
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, queries, bias=bias)
        self.k_proj = nn.Linear(width, keys, bias=bias)
        self.v_proj = nn.Linear(width, keys, bias=bias)
        self.o_proj = nn.Linear(queries, width, bias=config.output_bias)
        # Normalizing queries and keys bounds the scores however large the weights grow.
        head_norm = RMSNorm if config.qk_norm else nn.Identity
        self.q_norm = head_norm(config.head_dim, config.rms_norm_eps)
        self.k_norm = head_norm(config.head_dim, config.rms_norm_eps)

    def forward(
        self, x: Hidden, mask: Seen, cos_sin: Rotation | None, write: Write | None
    ) -> Hidden:
        projected = linears(x, self.q_proj, self.k_proj, self.v_proj)
        # Each head has its own slice of the features: (rows, time, heads, head_dim).
        query, key, value = (
            y.view(*y.shape[:-1], y.shape[-1] // self.head_dim, self.head_dim) for y in projected
        )
        query = _norm_and_rotate(query, self.q_norm, cos_sin)
        key = _norm_and_rotate(key, self.k_norm, cos_sin)
        value = value.transpose(1, 2)
        if write is not None:
            key, value = write(key, value)
        if mask.dtype == torch.int32:
            mixed = kernel.attention(query, key, value, mask)
        else:
            mixed = attention(query, key, value, mask, self.path, self.window)
        [out] = linears(mixed.transpose(1, 2).flatten(2), self.o_proj)
        return out


def _norm_and_rotate(
    x: Float[Tensor, "rows time heads head_dim"], norm: nn.Module, cos_sin: Rotation | None
) -> Float[Tensor, "rows heads time head_dim"]:
    """Apply the norm, if there is one, and RoPE to queries or keys."""
    if cos_sin is None:
        out: Tensor = norm(x.transpose(1, 2))
        return out
    weight, eps = (norm.weight, norm.eps) if isinstance(norm, RMSNorm) else (None, 0.0)
    plain = type(norm) in (RMSNorm, nn.Identity)
    if plain and rotary.supports(x, weight, *cos_sin) and not is_changed(norm):
        return rotary.normed_and_rotated(x, weight, eps, *cos_sin).transpose(1, 2)
    return rotate(norm(x.transpose(1, 2)), cos_sin)


@record_forward
class MLP(nn.Module):
    """The feed-forward part: SwiGLU, down(silu(gate(x)) * up(x)) (Shazeer 2020).

    `gate` scales each of the inner features. GPT-2 has no gate: down(gelu(up(x))).
    """

    def __init__(self, config: ModelConfig, inner: int) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.mlp_bias
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(width, inner, bias=bias) if config.gated else None
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        if self.gate_proj is None:
            out: Tensor = self.down_proj(self.activation(self.up_proj(x)))
            return out
        gate, up = linears(x, self.gate_proj, self.up_proj)
        if self.activation is silu:
            return swiglu_down(gate, up, self.down_proj)
        out = self.down_proj(self.activation(gate) * up)
        return out


def feed_forward(config: ModelConfig) -> nn.Module:
    """The MLP, or a mixture of experts, which are MLPs themselves."""
    if config.experts is None:
        return MLP(config, config.intermediate_size)
    from groundup.lm.experts import MixtureOfExperts

    inner = config.experts.moe_intermediate_size
    experts = (MLP(config, inner) for _ in range(config.experts.num_experts))
    return MixtureOfExperts(config.experts, config.hidden_size, experts)


@record_forward
class Block(nn.Module):
    """One layer: attention, then the feed-forward part, each added to its input.

    With post-norms (Vaswani et al. 2017; Xiong et al. 2020 compare both), the sum is normalized,
    and no residual path bypasses the norms:

        x = norm(x + attention(x));  x = norm(x + mlp(x))
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norms_before = config.do_layer_norm_before
        self.input_layernorm = norm(config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = norm(config)
        self.mlp = feed_forward(config)

    def forward(
        self, x: Hidden, mask: Seen, cos_sin: Rotation | None, write: Write | None
    ) -> Hidden:
        if not self.norms_before:
            x = self.input_layernorm(x + self.self_attn(x, mask, cos_sin, write))
            after: Tensor = self.post_attention_layernorm(x + self.mlp(x))
            return after
        found = self.self_attn(self.input_layernorm(x), mask, cos_sin, write)
        x, normed = _add_and_norm(x, found, self.post_attention_layernorm)
        out: Tensor = x + self.mlp(normed)
        return out


def _add_and_norm(x: Hidden, found: Hidden, norm: nn.Module) -> tuple[Hidden, Hidden]:
    """Return x + found and its norm."""
    if type(norm) is RMSNorm and rms_norm.supports(x, norm.weight, found) and not is_changed(norm):
        return rms_norm.add_rms_norm(x, found, norm.weight, norm.eps)
    x = x + found
    return x, norm(x)


@record_forward
class Decoder(nn.Module):
    """Everything below the head; named `model` inside `CausalLM`, as Hugging Face does."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm(config)

    def embed(
        self, ids: Int[Tensor, "*tokens"], position_ids: Int[Tensor, "*tokens"]
    ) -> Float[Tensor, "*tokens width"]:
        """Token embeddings, plus position embeddings where the model has them."""
        x: Tensor = self.embed_tokens(ids)
        if self.config.position == "learned":
            x = x + self.embed_positions(position_ids)
        if self.config.position == "sinusoidal":
            # Tokens are scaled by √width (Vaswani et al. 2017, section 3.4). Embeddings start with
            # a deviation of 0.02: below a width of 1,250 tokens start smaller than positions.
            width = self.config.hidden_size
            x = x * math.sqrt(width) + sinusoidal_embedding(position_ids, width, x.dtype)
        return x

    def forward(self, batch: Batch, cache: KVCache | None) -> Hidden:
        x = self.embed(batch.input_ids, batch.position_ids)
        cos_sin = self._rotation(batch, x) if self.config.position == "rope" else None
        if torch.is_grad_enabled() and not x.requires_grad:
            # With frozen embeddings only the first block's input would need no gradient, and the
            # compiler would build an extra graph for that block.
            x.requires_grad_()
        view = None if cache is None else cache.view(batch.position_ids)
        # Layers with the same window share a mask, so each mask is computed once.
        windows = self.config.windows
        masks = {window: self._attention_mask(batch, view, window, x) for window in set(windows)}
        for place, (layer, window) in enumerate(zip(self.layers, windows, strict=True)):
            # Indexed by position in the list: a layer may be moved or appear twice.
            write = None if view is None else partial(view.write, place)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                # Saves memory: only each block's input is kept, and backward recomputes the block
                # (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost).
                x = checkpoint(layer, x, masks[window], cos_sin, write, use_reentrant=False)
            else:
                x = layer(x, masks[window], cos_sin, write)
        out: Tensor = self.norm(x)
        return out

    def _attention_mask(
        self, batch: Batch, view: CacheView | None, window: int | None, x: Hidden
    ) -> Seen:
        """The mask of layers with this window; with ALiBi including the distance penalties."""
        alibi = self.config.position == "alibi"
        if view is None and not alibi and kernel.supports(x, self.config.head_dim):
            return kernel.first_seen(batch.segment_ids, window)
        mask = document_mask(batch.segment_ids, window) if view is None else view.mask(window)
        bias = as_bias(mask, x.dtype)
        if not alibi:
            return bias
        keys = batch.position_ids if view is None else view.positions
        return alibi_bias(bias, batch.position_ids, keys, self.config.num_attention_heads)

    def _rotation(self, batch: Batch, x: Hidden) -> Rotation:
        rope = self.config.rope
        frequencies = inverse_frequencies(rope, self.config.head_dim, x.device)
        return rotation(frequencies, batch.position_ids, x.dtype, rope.attention_factor)


def _backbone(config: ModelConfig) -> Decoder | Recurrent:
    if not config.family.recurrent:
        return Decoder(config)
    from groundup.lm.rnn import Recurrent

    return Recurrent(config, norm(config))


@record_forward
class CausalLM(nn.Module):
    """A language model: `model(batch)` gives hidden states, `model.head` the output weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
        self.attention: AttentionPath = "matmul"
        self.model = _backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, batch: Batch, cache: Cache | None = None) -> Hidden:
        if batch.counted:  # a GPU reports an index out of range late, or never
            self._check_ids(batch)
        try:
            out: Tensor = self.model(batch, cache)
        except IndexError:
            self._check_ids(batch)
            raise
        return out

    def _check_ids(self, batch: Batch) -> None:
        least, token, position = batch.extent
        if least < 0:
            raise UserError(
                f"token id {least} is below 0; ids go from 0 to {self.config.vocab_size - 1}"
            ) from None
        if token >= self.config.vocab_size:
            raise UserError(
                f"token id {token} is outside the model's vocabulary of {self.config.vocab_size}; "
                "its folder holds another model's tokenizer: replace it with the model's own"
            ) from None
        most = self.config.max_position_embeddings
        if self.config.position == "learned" and most <= position:
            raise UserError(
                f"position {position} is out of range: the model has {most} position embeddings; "
                "give it shorter texts"
            ) from None

    def add_tokens(self, vocab_size: int) -> None:
        """Give the model embeddings, and output weights, for all tokens below `vocab_size`.

        A new token's are the mean of the others', so that it is neither likely nor unlikely
        (Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models).
        """

        def longer(weight: Tensor) -> nn.Parameter:
            rows = weight.detach()
            mean = rows.float().mean(0).to(rows.dtype)
            more = mean.expand(vocab_size - len(rows), -1)
            return nn.Parameter(torch.cat([rows, more]), weight.requires_grad)

        embedding, head = self.model.embed_tokens, self.lm_head
        embedding.weight = longer(embedding.weight)
        tied = self.config.tie_word_embeddings
        head.weight = embedding.weight if tied else longer(head.weight)
        embedding.num_embeddings = head.out_features = vocab_size
        self.config = replace(self.config, vocab_size=vocab_size)

    def empty_cache(self, rows: int, slots: int) -> Cache:
        """An empty cache for `rows` rows of `slots` tokens each."""
        from groundup.lm.cache import KVCache
        from groundup.lm.rnn import RecurrentCache

        kind = RecurrentCache if self.config.family.recurrent else KVCache
        return kind.empty(self.config, rows, slots, like=self.like)

    def auxiliary_loss(self, batch: Batch) -> Auxiliary | None:
        """The experts' load-balancing loss of the last forward pass, which must be of `batch`.

        None for a model without experts and outside training.
        """
        experts = self.config.experts
        if experts is None or not (self.training and torch.is_grad_enabled()):
            return None
        from groundup.lm.experts import mean_balance

        mixtures = [block.mlp for block in self.blocks]
        balance = mean_balance(cast("list[MixtureOfExperts]", mixtures), batch.segment_ids >= 0)
        return Auxiliary("balance", balance, experts.router_aux_loss_coef)

    @property
    def head(self) -> Float[Tensor, "vocab width"]:
        if not hasattr(self.lm_head, "weight"):  # the head stays quantized (adapters.frozen)
            whole: Tensor = self.lm_head.dequantized(self.like.dtype)  # type: ignore[operator]
            return whole
        return self.lm_head.weight

    @property
    def like(self) -> Float[Tensor, "..."]:
        """A tensor with the dtype and device of the model's computation."""
        norm = self.model.norm
        weight = getattr(norm, "weight", None)
        if isinstance(weight, Tensor):
            return weight
        # The norm is wrapped in another module, or was removed.
        return next(chain(norm.parameters(), self.model.parameters()))

    def logits(self, batch: Batch, cache: Cache | None = None) -> Float[Tensor, "rows time vocab"]:
        """Logits of every position, in float32. For a loss, use the head in chunks instead."""
        out: Tensor = self.lm_head(self(batch, cache))
        return out.float()

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.model.gradient_checkpointing = on

    @property
    def blocks(self) -> list[Block]:
        """A transformer's layers; a recurrent network has none."""
        return [layer for layer in self.model.layers if isinstance(layer, Block)]

    def set_attention(self, path: AttentionPath) -> None:
        self.attention = path
        for block in self.blocks:
            block.self_attn.path = path

    def compile_blocks(self) -> None:
        """Compile each block by itself: one small graph, compiled once, serves every layer.

        Does nothing for models whose work depends on the data (`ModelConfig.compiles`).
        """
        if not self.config.compiles:
            return
        for block in self.blocks:
            block.compile(fullgraph=True, dynamic=False)
        self.compiled = True

    initialise = renamed_method("initialise", "initialize")

    def initialize(self, seed: int, *, previous_token_heads: int = 0) -> None:
        """Initialize the weights (see `initialization`), some heads to look back from the start."""
        # Imported late: only training from scratch needs it.
        from groundup.lm.initialization import initialize

        generator = torch.Generator().manual_seed(seed)
        initialize(self, generator, previous_token_heads)
        if not isinstance(self.model, Decoder):
            self.model.initialize(generator)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) inside the context; restores each module's mode afterwards."""
    training = [part for part in model.modules() if part.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def uncompiled(model: CausalLM) -> AbstractContextManager[object]:
    """Avoids recompiling blocks, which are compiled for one training shape, at every new token."""
    return torch.compiler.set_stance("force_eager") if model.compiled else nullcontext()
