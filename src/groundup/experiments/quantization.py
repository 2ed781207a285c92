"""How many bits does a weight need?

    error     sqrt(sum (Q(W) - W)^2 / sum W^2)            over all matrices of the blocks
    KL        sum over tokens of p (log p - log q)        p: the model in full, q: quantized

Every format is applied to the same model and the same text: bfloat16, 8 bits with a scale for each
row (Dettmers et al. 2022, LLM.int8()), the 4 bits of QLoRA (Dettmers et al. 2023, sections 2 and 3,
whose table 2 compares NF4 with FP4), and llama.cpp's block formats. Only the matrices of the blocks
are quantized, as in QLoRA; embeddings, norms and the head are not. All but bfloat16 compute in
float32, so that only the weights differ. The error of the weights is a property of the method; KL
is its effect on the model, and is visible long before perplexity changes.
"""

from __future__ import annotations

import math
from collections import Counter
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

from groundup.adapters.attach import adapter_names, merge
from groundup.adapters.layers import dense, linear_layers
from groundup.adapters.quantization import bits_per_weight, is_quantized, quantize
from groundup.data.split import evenly_spaced
from groundup.errors import UserError
from groundup.evals.benchmarks import heldout_texts
from groundup.evals.continuations import opening_of
from groundup.evals.domain.material import pieces
from groundup.experiments.config import QuantizationConfig
from groundup.formats.gguf.model import read_gguf
from groundup.formats.load import load
from groundup.formats.locate import GGUF_SUFFIX, locate, short_name
from groundup.lm.model import CausalLM
from groundup.maths.intervals import Interval, bootstrap_ratio
from groundup.report.claim import MIN_GROUPS
from groundup.report.figure import Plot
from groundup.report.outcome import working_in, write
from groundup.report.plots import GREY, error_bars, legend, look, panels
from groundup.report.table import Table, number, text_table
from groundup.runs.console import say
from groundup.text.batches import packed_batch
from groundup.text.example import Example, cut_to
from groundup.text.rows import Document
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import restoring_torch, usable_cores
from groundup.train.loss import CHUNK

NAME = "quantization"
QUESTION = "How many bits does a weight need, and what does a model lose with fewer?"
CONTEXT = 512
FULL = "fp32"
# Tokens per pass: large matrix products, and a few hundred megabytes.
_TOKENS = 4096
_QUICK_BYTES = 2_048


@dataclass(frozen=True)
class Format:
    """A format for weights: `apply` converts the given model and returns the bits per weight."""

    name: str
    apply: Callable[[CausalLM], float]


def _whole(model: CausalLM) -> float:
    return 32.0


def _bfloat16(model: CausalLM) -> float:
    model.to(torch.bfloat16)
    return 16.0


def _quantized(model: CausalLM, **settings: Any) -> float:
    return bits_per_weight(quantize(model, **settings))


def _gguf(model: CausalLM, *, type: str) -> float:
    """Round the matrices to a GGUF block type, and return its bits per weight."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[type]
    for layer in linear_layers(model).values():
        assert isinstance(layer, nn.Linear)
        stored = quantize(layer.weight.detach().numpy(), kind)
        layer.weight.data = torch.from_numpy(dequantize(stored, kind)).view_as(layer.weight)
    block, size = GGML_QUANT_SIZES[kind]
    return 8 * size / block


FORMATS: tuple[Format, ...] = (
    Format(FULL, _whole),
    Format("bf16", _bfloat16),
    Format("int8, a scale a row", partial(_quantized, kind="int8")),
    Format("GGUF Q8_0", partial(_gguf, type="Q8_0")),
    Format("GGUF Q4_1", partial(_gguf, type="Q4_1")),
    Format("GGUF Q4_0", partial(_gguf, type="Q4_0")),
    Format("nf4, blocks of 64", partial(_quantized, kind="nf4", double_quant=False)),
    Format("nf4, double quantized", partial(_quantized, kind="nf4")),
    Format(
        "nf4, blocks of 128",
        partial(_quantized, kind="nf4", block_size=128, double_quant=False),
    ),
    Format("fp4, blocks of 64", partial(_quantized, kind="fp4", double_quant=False)),
)


@dataclass(frozen=True)
class Read:
    """A model's summed nats and KL from the full model, for each piece of text.

    `documents` names the document of each piece. Intervals resample documents with all their
    pieces.
    """

    nats: Float[np.ndarray, " pieces"]
    kl: Float[np.ndarray, " pieces"]
    tokens: Float[np.ndarray, " pieces"]
    bytes: Float[np.ndarray, " pieces"]
    documents: Sequence[str]

    def bits_per_byte(self) -> Interval:
        return self._over(self.nats / np.log(2), self.bytes)

    def perplexity(self) -> float:
        """exp(nats per token)."""
        return float(np.exp(self.nats.sum() / self.tokens.sum()))

    def kl_per_token(self) -> Interval:
        return self._over(self.kl, self.tokens)

    def more_than(self, other: Read) -> Interval:
        """The additional bits per byte, from the differences on each piece."""
        return self._over((self.nats - other.nats) / np.log(2), self.bytes)

    def more_kl_than(self, other: Read) -> Interval:
        """The additional KL from the full model, in nats per token, from paired differences."""
        return self._over(self.kl - other.kl, self.tokens)

    def _over(
        self, sums: Float[np.ndarray, " pieces"], units: Float[np.ndarray, " pieces"]
    ) -> Interval:
        return bootstrap_ratio(sums, units, clusters=self.documents)


@dataclass(frozen=True)
class Outcome:
    """One format: its bits per weight, the error of the weights, and the results on the text."""

    name: str
    bits: float
    error: float
    read: Read


@restoring_torch()
def run(config: QuantizationConfig) -> Path:
    """Quantize the model to every format and write the losses.

    Raises `UserError` for a model that cannot be used and a folder with other files.
    """
    with working_in(config.out, NAME):
        begun = perf_counter()
        torch.set_num_threads(config.threads or usable_cores())
        path = locate(config.model)
        model, tokenizer = load(path)
        if is_quantized(model):
            raise UserError(
                f"{config.model} is already quantized, so there is no full model to compare with; "
                "give the model that it was made from"
            )
        if not linear_layers(model):
            raise UserError(
                f"{config.model} is a recurrent network ({model.config.model_type}), whose blocks "
                "have no linear layer to quantize; give a transformer"
            )
        if adapter_names(model):
            merge(model)
        model.float().eval()
        found, types = outcomes(model, *texts(config, model, tokenizer)), shipped_types(path)
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


# The text, and a model's results on it.


def texts(
    config: QuantizationConfig, model: CausalLM, tokenizer: Tokenizer
) -> tuple[list[Example], Float[np.ndarray, " pieces"], list[str]]:
    """Pieces of held-out text as tokens, of which all but the first are predicted, with the bytes
    and the document of each.
    """
    limit = _QUICK_BYTES if config.quick else config.bytes_per_source
    context = min(model.config.max_position_embeddings, CONTEXT)
    opening = opening_of(model, tokenizer)
    items, sizes, documents = [], [], []
    for piece in _chosen(pieces(heldout_texts()), limit):
        ids = [opening, *tokenizer.encode(piece.text)]
        items.append(cut_to(Example(ids, [False] + [True] * (len(ids) - 1)), context))
        read = items[-1].ids[1:]
        sizes.append(sum(len(tokenizer.token_bytes(token)) for token in read))
        documents.append(f"{piece.source} {piece.id.rpartition(' #')[0]}")
    return items, np.array(sizes, float), documents


def _chosen(documents: Sequence[Document], limit: int) -> list[Document]:
    """Evenly spaced documents of each source, about `limit` bytes in total."""
    chosen = []
    for source in sorted({document.source for document in documents}):
        of_source = [document for document in documents if document.source == source]
        mean = sum(len(document.text.encode()) for document in of_source) / len(of_source)
        chosen += evenly_spaced(of_source, max(1, round(limit / mean)))
    return chosen


def outcomes(
    model: CausalLM,
    items: Sequence[Example],
    sizes: Float[np.ndarray, " pieces"],
    documents: Sequence[str],
) -> list[Outcome]:
    """Try every format on a copy of the model."""
    head, batches = model.head.detach().float(), list(_batches(items))
    full = [_hidden(model, items, batch) for batch in batches]
    found = []
    for format in fitting_formats(model):
        begun, copy = perf_counter(), deepcopy(model)
        bits = format.apply(copy)
        error = relative_error(model, copy)
        nats, kl = np.zeros(len(items)), np.zeros(len(items))
        for batch, expected in zip(batches, full, strict=True):
            hidden = expected if format.name == FULL else _hidden(copy, items, batch)
            targets = torch.tensor([token for i in batch for token in items[i].ids[1:]])
            of = np.repeat(batch, [items[i].inputs for i in batch])
            one, other = _compared(expected, head, hidden, copy.head.detach().float(), targets)
            np.add.at(nats, of, one)
            np.add.at(kl, of, other)
        tokens = np.array([item.inputs for item in items], float)
        read = Read(nats, kl, tokens, sizes, documents)
        found.append(Outcome(format.name, bits, error, read))
        say(f"{NAME}  {format.name}: {perf_counter() - begun:.1f} s")
    return found


def fitting_formats(model: CausalLM) -> list[Format]:
    """The formats that fit the model: rows must consist of whole blocks of 32 for llama.cpp's."""
    whole = all(layer.in_features % 32 == 0 for layer in linear_layers(model).values())
    return [format for format in FORMATS if whole or not format.name.startswith("GGUF")]


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


def _batches(items: Sequence[Example]) -> Iterator[list[int]]:
    """Indices of items, batched by similar length."""
    order = sorted(range(len(items)), key=lambda i: -items[i].inputs)
    while order:
        count = max(1, _TOKENS // items[order[0]].inputs)
        yield order[:count]
        order = order[count:]


@torch.inference_mode()
def _hidden(
    model: CausalLM, items: Sequence[Example], batch: Sequence[int]
) -> Float[Tensor, "tokens width"]:
    """The last hidden state for every predicted token, item after item."""
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
    """-log q of each target and KL(p, q) at its position, in nats; computed in chunks."""
    nats, kl = [], []
    for part in (slice(i, i + CHUNK) for i in range(0, len(targets), CHUNK)):
        log_p = (expected[part] @ head.T).log_softmax(-1)
        log_q = (hidden[part] @ own_head.T).log_softmax(-1)
        nats.append(-log_q.gather(-1, targets[part, None])[:, 0])
        kl.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(nats).double().numpy(), torch.cat(kl).double().numpy()


# Report.


def shipped_types(path: Path) -> Counter[str]:
    """The number of matrices of each type in a quantized GGUF file; empty for other models."""
    if path.suffix != GGUF_SUFFIX:
        return Counter()
    matrices = [one for one in read_gguf(path).file.tensors.values() if len(one.shape) > 1]
    types = Counter(one.type.name for one in matrices)
    return Counter() if set(types) <= {"F32", "F16", "BF16"} else types


def origin(types: Counter[str]) -> str:
    """A note about a model whose weights were already quantized."""
    listed = ", ".join(f"{name} {count} times" for name, count in types.most_common())
    return (
        f"The model comes from a GGUF file whose matrices are quantized as shipped ({listed}). "
        f"{FULL} already contains that error, and all others are compared with it, so the error of "
        "the shipped format relative to the trained weights is not in this table; converting "
        "weights to the format that they already have changes nothing."
    )


def remarks(found: Sequence[Outcome], types: Counter[str]) -> list[str]:
    """Sentences about the numbers."""
    of = {one.name: one for one in found}
    nf4, fp4 = of["nf4, blocks of 64"], of["fp4, blocks of 64"]
    pairs = (
        (nf4, fp4, "quantiles of a normal distribution instead of small floating-point numbers"),
        (of["nf4, double quantized"], nf4, "scales in 8 bits instead of 32"),
        (of["nf4, blocks of 128"], nf4, "half as many scales"),
        (nf4, of["int8, a scale a row"], "4 bits instead of 8"),
    )
    said = [_against(*pair) for pair in pairs]
    return [origin(types), *said] if types else said


def _against(one: Outcome, other: Outcome, why: str) -> str:
    """A sentence that compares two formats on the same pieces of text."""
    more, kl = one.read.more_than(other.read), one.read.more_kl_than(other.read)
    clear = "" if kl.low > 0 or kl.high < 0 else ", which is within chance"
    if len(set(one.read.documents)) < MIN_GROUPS:
        clear = ", from too few documents to tell it from chance"
    return (
        f"{why[0].upper()}{why[1:]} ({one.name} at {one.bits:.2f} bits against {other.name} at "
        f"{other.bits:.2f}): {_span(more)} bits per byte, KL {_span(kl)} nats{clear}."
    )


def _span(value: Interval) -> str:
    # Adding 0 turns -0.0 into 0.0.
    middle, low, high = (round(x, 4) + 0.0 for x in (value.estimate, value.low, value.high))
    return f"{middle:+.4f} ({low:+.4f} to {high:+.4f})"


def table(found: Sequence[Outcome], name: str, types: Counter[str]) -> Table:
    """One row for each format, with the full model first."""
    full = found[0]
    shipped = {f"GGUF {kind}" for kind, _ in types.most_common(1)}
    return text_table(
        f"Weights of {name} in fewer bits",
        (
            "format",
            "bits",
            "error",
            "bits per byte",
            f"more than {FULL}",
            "perplexity",
            "KL",
        ),
        tuple(
            (
                f"{one.name}, as shipped" if one.name in shipped else one.name,
                f"{one.bits:.2f}",
                f"{100 * one.error:.2f} %",
                number(one.read.bits_per_byte()),
                _span(one.read.more_than(full.read)).replace(" (", "\n").rstrip(")")
                if one is not full
                else "",
                f"{one.read.perplexity():.2f}",
                number(one.read.kl_per_token(), 4) if one is not full else "",
            )
            for one in found
        ),
        remarks=(
            f"{int(full.read.tokens.sum()):,} tokens of held-out text in {len(full.read.nats)} "
            f"pieces of {len(set(full.read.documents))} documents, the same for all. The small "
            "lines are 95 % intervals from resampling documents, without correction for multiple "
            "comparisons: of twenty differences that are zero, one interval excludes zero by "
            "chance. Differences are taken piece by piece. Bits are stored bits per weight of the "
            "blocks' matrices, including scales, and error is their relative root mean square "
            "error. Embeddings, norms and the head are unchanged. KL is between the next token's "
            f"distribution and {FULL}'s, in nats per token. bf16 is the whole model in bfloat16, "
            "which also computes in it; all others compute in float32.",
        ),
        baselines=(FULL,),
    )


def plot(found: Sequence[Outcome]) -> Plot:
    """KL and the additional bits per byte, over the bits per weight."""
    figure, [[left, right]] = panels(1, 2, width=9.0, height=4.2)
    for place, one in enumerate(found[1:]):
        for axes, value in (
            (left, one.read.kl_per_token()),
            (right, one.read.more_than(found[0].read)),
        ):
            axes.errorbar(
                one.bits,
                value.estimate,
                yerr=error_bars([value]),
                **look(place).marks,
                linestyle="none",
                capsize=3,
                label=one.name if axes is left else None,
            )
    for axes, label in ((left, "KL, nats per token"), (right, "additional bits per byte")):
        axes.set_xscale("log", base=2)
        axes.set_xticks([4, 5, 8, 16], ["4", "5", "8", "16"])
        axes.set_xlabel("bits per weight")
        axes.set_ylabel(label)
    left.set_yscale("log")
    right.axhline(0, color=GREY, linestyle=":", linewidth=1)
    legend(figure, size=8)
    caption = "The model's loss over the bits per weight, with 95 % intervals."
    return Plot("bits", caption, figure)


def numbers(one: Outcome, full: Outcome) -> dict[str, Any]:
    """All measurements of a format, for result.json."""
    return {
        "bits_per_weight": one.bits,
        "relative_error": one.error,
        "bits_per_byte": one.read.bits_per_byte(),
        "bits_per_byte_more": one.read.more_than(full.read),
        "perplexity": one.read.perplexity(),
        "kl": one.read.kl_per_token(),
    }
