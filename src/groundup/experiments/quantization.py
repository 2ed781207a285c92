"""How many bits does a weight need?

    error     sqrt(sum (Q(W) - W)^2 / sum W^2)            over all matrices of the blocks
    KL        sum over tokens of p (log p - log q)        p: the model in full, q: quantised

Every way to keep weights is put to the same model and the same text: bfloat16, 8 bits with a scale
for each row (Dettmers et al. 2022, LLM.int8()), the 4 bits of QLoRA (Dettmers et al. 2023, sections
2 and 3, whose table 2 compares NF4 with FP4), and llama.cpp's block formats. Only the matrices of
the blocks are quantised, as QLoRA does; embeddings, norms and the head stay. All but bfloat16 is
computed in float32, so that what differs is the weights alone. The error of the weights is what a
method can promise; KL is what the model makes of it, and is seen long before perplexity moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.adapters.layers import dense, linear_layers
from groundup.adapters.lora import adapter_names, merge
from groundup.adapters.quantised import bits_per_weight, is_quantised, quantise
from groundup.errors import UserError
from groundup.evals.benchmarks import heldout_texts
from groundup.evals.domain.material import pieces
from groundup.experiments.config import QuantizationConfig
from groundup.experiments.quantization_report import (
    FULL,
    Outcome,
    Read,
    numbers,
    plot,
    remarks,
    shipped_types,
    table,
)
from groundup.formats.folder import load
from groundup.formats.locate import locate, short_name
from groundup.lm.model import CausalLM
from groundup.lm.score import spread
from groundup.report.outcome import check_folder, write
from groundup.runs.console import say
from groundup.text.batches import packed_batch
from groundup.text.example import Marked, cut_to
from groundup.text.rows import Document
from groundup.text.tokenizer import Tokenizer
from groundup.train.loss import CHUNK

NAME = "quantization"
QUESTION = "How many bits does a weight need, and what does a model lose with fewer?"
CONTEXT = 512
# Tokens in one pass: large products, and some hundred megabytes.
_TOKENS = 4096
_QUICK_BYTES = 2_048


@dataclass(frozen=True)
class Way:
    """One way to keep weights: `apply` changes the model given and says how many bits it takes."""

    name: str
    apply: Callable[[CausalLM], float]


def _whole(model: CausalLM) -> float:
    return 32.0


def _bfloat16(model: CausalLM) -> float:
    model.to(torch.bfloat16)
    return 16.0


def _quantised(model: CausalLM, **settings: Any) -> float:
    return bits_per_weight(quantise(model, **settings))


def _gguf(model: CausalLM, *, type: str) -> float:
    """Round the matrices as llama.cpp's blocks of 32 do; how many bits these take."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[type]
    for layer in linear_layers(model).values():
        assert isinstance(layer, nn.Linear)
        stored = quantize(layer.weight.detach().numpy(), kind)
        layer.weight.data = torch.from_numpy(dequantize(stored, kind)).view_as(layer.weight)
    block, size = GGML_QUANT_SIZES[kind]
    return 8 * size / block


WAYS: tuple[Way, ...] = (
    Way(FULL, _whole),
    Way("bf16", _bfloat16),
    Way("int8, a scale a row", partial(_quantised, kind="int8")),
    Way("GGUF Q8_0", partial(_gguf, type="Q8_0")),
    Way("GGUF Q4_1", partial(_gguf, type="Q4_1")),
    Way("GGUF Q4_0", partial(_gguf, type="Q4_0")),
    Way("nf4, blocks of 64", partial(_quantised, kind="nf4", double_quantisation=False)),
    Way("nf4, double quantised", partial(_quantised, kind="nf4")),
    Way(
        "nf4, blocks of 128",
        partial(_quantised, kind="nf4", block_size=128, double_quantisation=False),
    ),
    Way("fp4, blocks of 64", partial(_quantised, kind="fp4", double_quantisation=False)),
)


def run(config: QuantizationConfig) -> Path:
    """Quantise the model in every way and write what it loses.

    Raises `UserError` for a model that cannot be used and a folder of something else.
    """
    check_folder(config.out, NAME)
    begun = perf_counter()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    path = locate(config.model)
    model, tokenizer = load(path)
    if is_quantised(model):
        raise UserError(
            f"{config.model} is stored in few bits already, so there is nothing in full to compare "
            "with; give the model that it was made from"
        )
    if adapter_names(model):
        merge(model)
    model.float().eval()
    items, sizes = texts(config, model, tokenizer)
    found, types = outcomes(model, items, sizes), shipped_types(path)
    return write(
        config,
        NAME,
        QUESTION,
        tables=[table(found, short_name(config.model, path), types)],
        plots=[plot(found)],
        remarks=remarks(found, types),
        data={one.name: numbers(one, found[0]) for one in found},
        seconds=perf_counter() - begun,
    )


# The text, and what a model makes of it.


def texts(
    config: QuantizationConfig, model: CausalLM, tokenizer: Tokenizer
) -> tuple[list[Marked], Float[np.ndarray, " pieces"]]:
    """Pieces of held-out text as tokens, all but the first to be predicted, and their bytes."""
    limit = _QUICK_BYTES if config.quick else config.bytes_per_source
    context = min(model.config.max_position_embeddings, CONTEXT)
    bos = model.config.bos_token_id
    opening = tokenizer.end_of_text if bos is None else bos
    items, sizes = [], []
    for text in _chosen(pieces(heldout_texts()), limit):
        ids = [opening, *tokenizer.encode(text)]
        items.append(cut_to(Marked(ids, [False] + [True] * (len(ids) - 1)), context))
        read = items[-1].ids[1:]
        sizes.append(sum(len(tokenizer.token_bytes(token)) for token in read))
    return items, np.array(sizes, float)


def _chosen(documents: Sequence[Document], limit: int) -> list[str]:
    """Texts of each source, evenly from all of it, of about `limit` bytes together."""
    chosen = []
    for source in sorted({document.source for document in documents}):
        of_source = [document.text for document in documents if document.source == source]
        mean = sum(len(text.encode()) for text in of_source) / len(of_source)
        chosen += spread(of_source, max(1, round(limit / mean)))
    return chosen


def outcomes(
    model: CausalLM, items: Sequence[Marked], sizes: Float[np.ndarray, " pieces"]
) -> list[Outcome]:
    """Every way on a copy of the model, which stays as it is."""
    head, batches = model.head.detach().float(), list(_batches(items))
    full = [_hidden(model, items, batch) for batch in batches]
    found = []
    for way in ways(model):
        begun, copy = perf_counter(), deepcopy(model)
        bits = way.apply(copy)
        error = relative_error(model, copy)
        nats, kl = np.zeros(len(items)), np.zeros(len(items))
        for batch, expected in zip(batches, full, strict=True):
            hidden = expected if way.name == FULL else _hidden(copy, items, batch)
            targets = torch.tensor([token for i in batch for token in items[i].ids[1:]])
            of = np.repeat(batch, [items[i].inputs for i in batch])
            one, other = _compared(expected, head, hidden, copy.head.detach().float(), targets)
            np.add.at(nats, of, one)
            np.add.at(kl, of, other)
        tokens = np.array([item.inputs for item in items], float)
        found.append(Outcome(way.name, bits, error, Read(nats, kl, tokens, sizes)))
        say(f"{NAME}  {way.name}: {perf_counter() - begun:.1f} s")
    return found


def ways(model: CausalLM) -> list[Way]:
    """The ways that fit the model: llama.cpp's blocks need rows of whole blocks of 32."""
    whole = all(layer.in_features % 32 == 0 for layer in linear_layers(model).values())
    return [way for way in WAYS if whole or not way.name.startswith("GGUF")]


@torch.no_grad()
def relative_error(model: CausalLM, copy: CausalLM) -> float:
    """sqrt(sum (Q(W) - W)^2 / sum W^2) over all matrices of the blocks."""
    others = linear_layers(copy)
    error = size = 0.0
    for path, layer in linear_layers(model).items():
        weight = dense(layer)
        error += float((dense(others[path]) - weight).square().sum(dtype=torch.float64))
        size += float(weight.square().sum(dtype=torch.float64))
    return math.sqrt(error / size)


def _batches(items: Sequence[Marked]) -> Iterator[list[int]]:
    """Numbers of items, those of like length together."""
    order = sorted(range(len(items)), key=lambda i: -items[i].inputs)
    while order:
        count = max(1, _TOKENS // items[order[0]].inputs)
        yield order[:count]
        order = order[count:]


@torch.inference_mode()
def _hidden(
    model: CausalLM, items: Sequence[Marked], batch: Sequence[int]
) -> Float[Tensor, "tokens width"]:
    """The last hidden state at every token that is predicted, item after item."""
    rows = packed_batch([[items[i]] for i in batch], max(items[i].inputs for i in batch))
    hidden: Tensor = model(rows)
    return hidden[rows.weights > 0].float()


@torch.inference_mode()
def _compared(
    expected: Float[Tensor, "tokens width"],
    head: Float[Tensor, "vocab width"],
    hidden: Float[Tensor, "tokens width"],
    own_head: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
) -> tuple[Float[np.ndarray, " tokens"], Float[np.ndarray, " tokens"]]:
    """-log q of each target and KL(p, q) at its place, in nats; some tokens' logits at a time."""
    nats, kl = [], []
    for part in (slice(i, i + CHUNK) for i in range(0, len(targets), CHUNK)):
        log_p = (expected[part] @ head.T).log_softmax(-1)
        log_q = (hidden[part] @ own_head.T).log_softmax(-1)
        nats.append(-log_q.gather(-1, targets[part, None])[:, 0])
        kl.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(nats).double().numpy(), torch.cat(kl).double().numpy()
