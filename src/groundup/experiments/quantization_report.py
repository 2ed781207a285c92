"""What the experiment on quantization tells: its table, its plot, and what they say in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.formats.gguf.model import read_gguf
from groundup.formats.locate import GGUF_SUFFIX
from groundup.maths.intervals import Interval, bootstrap_ratio
from groundup.report.figure import Plot
from groundup.report.plots import COLORS, GREY, panels
from groundup.report.table import Table, number, text_table

FULL = "fp32"


@dataclass(frozen=True)
class Read:
    """What a model makes of each piece of text: nats and KL from the full model, summed."""

    nats: Float[np.ndarray, " pieces"]
    kl: Float[np.ndarray, " pieces"]
    tokens: Float[np.ndarray, " pieces"]
    bytes: Float[np.ndarray, " pieces"]

    def bits_per_byte(self) -> Interval:
        return bootstrap_ratio(self.nats / np.log(2), self.bytes)

    def perplexity(self) -> float:
        """exp(nats per token)."""
        return float(np.exp(self.nats.sum() / self.tokens.sum()))

    def kl_per_token(self) -> Interval:
        return bootstrap_ratio(self.kl, self.tokens)

    def more_than(self, other: Read) -> Interval:
        """How many bits per byte more it pays, from the differences on each piece."""
        return bootstrap_ratio((self.nats - other.nats) / np.log(2), self.bytes)


@dataclass(frozen=True)
class Outcome:
    """One way, its bits for each number of a matrix, the error that makes, and what is read."""

    name: str
    bits: float
    error: float
    read: Read


def shipped_types(path: Path) -> Counter[str]:
    """How many matrices of a quantised GGUF file are of each type; none of any other model."""
    if path.suffix != GGUF_SUFFIX:
        return Counter()
    matrices = [one for one in read_gguf(path).file.tensors.values() if len(one.shape) > 1]
    types = Counter(one.type.name for one in matrices)
    return Counter() if set(types) <= {"F32", "F16", "BF16"} else types


def origin(types: Counter[str]) -> str:
    """What is to be known of a model whose weights were quantised before this began."""
    listed = ", ".join(f"{name} {count} times" for name, count in types.most_common())
    return (
        f"The model comes from a GGUF file whose matrices are quantised as shipped ({listed}). "
        f"{FULL} holds that error already and is what all others are compared with, so the error "
        "of the shipped format against the weights that were trained is not in this table; put "
        "to the format that they are in, weights find nothing left to round."
    )


def remarks(found: Sequence[Outcome], types: Counter[str]) -> list[str]:
    """What the numbers say, and what is to be known of them."""
    of = {one.name: one for one in found}
    nf4, fp4 = of["nf4, blocks of 64"], of["fp4, blocks of 64"]
    pairs = (
        (nf4, fp4, "quantiles of a bell instead of small floating-point numbers"),
        (of["nf4, double quantised"], nf4, "scales in 8 bits instead of 32"),
        (of["nf4, blocks of 128"], nf4, "half as many scales"),
        (nf4, of["int8, a scale a row"], "4 bits instead of 8"),
    )
    said = [_against(*pair) for pair in pairs]
    return [origin(types), *said] if types else said


def _against(one: Outcome, other: Outcome, why: str) -> str:
    """Two ways on the same text, piece by piece."""
    more = one.read.more_than(other.read)
    kl = bootstrap_ratio(one.read.kl - other.read.kl, one.read.tokens)
    clear = "" if kl.low > 0 or kl.high < 0 else ", which is within chance"
    return (
        f"{why[0].upper()}{why[1:]} ({one.name} at {one.bits:.2f} bits against {other.name} at "
        f"{other.bits:.2f}): {_span(more)} bits per byte, KL {_span(kl)} nats{clear}."
    )


def _span(value: Interval) -> str:
    # Adding 0 makes a zero of a negative one.
    middle, low, high = (round(x, 4) + 0.0 for x in (value.estimate, value.low, value.high))
    return f"{middle:+.4f} ({low:+.4f} to {high:+.4f})"


def table(found: Sequence[Outcome], name: str, types: Counter[str]) -> Table:
    """One row for each way, the model in full first."""
    full = found[0]
    shipped = {f"GGUF {kind}" for kind, _ in types.most_common(1)}
    return text_table(
        f"Weights of {name} in fewer bits",
        (
            "kept as",
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
            "pieces, the same for all. The small lines are 95 % intervals from drawing pieces; "
            "differences are taken piece by piece. Bits are those that are kept of a number of the "
            "blocks' matrices, scales and all, and error is theirs: root mean square, relative. "
            "Embeddings, norms and the head stay as they are. KL is of the next token's "
            f"distribution from {FULL}'s, in nats a token. bf16 is the whole model in bfloat16, "
            "computing in it too; all others compute in float32.",
        ),
        baselines=(FULL,),
    )


def plot(found: Sequence[Outcome]) -> Plot:
    """KL, and what a byte costs more, over the bits that are kept of a number."""
    figure, [[left, right]] = panels(1, 2, width=9.0, height=4.2)
    for place, one in enumerate(found[1:]):
        color, marker = COLORS[place % len(COLORS)], "os"[place // len(COLORS)]
        for axes, value in (
            (left, one.read.kl_per_token()),
            (right, one.read.more_than(found[0].read)),
        ):
            ends = [[value.estimate - value.low], [value.high - value.estimate]]
            axes.errorbar(
                one.bits,
                value.estimate,
                yerr=np.maximum(ends, 0),
                fmt=marker,
                color=color,
                capsize=3,
                label=one.name if axes is left else None,
            )
    for axes, label in ((left, "KL, nats a token"), (right, "bits per byte more")):
        axes.set_xscale("log", base=2)
        axes.set_xticks([4, 5, 8, 16], ["4", "5", "8", "16"])
        axes.set_xlabel("bits a number")
        axes.set_ylabel(label)
    left.set_yscale("log")
    right.axhline(0, color=GREY, linestyle=":", linewidth=1)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    caption = "What the model loses over the bits that are kept, with 95 % intervals."
    return Plot("bits", caption, figure)


def numbers(one: Outcome, full: Outcome) -> dict[str, Any]:
    """Everything that is measured of a way, for result.json."""
    return {
        "bits_per_weight": one.bits,
        "relative_error": one.error,
        "bits_per_byte": one.read.bits_per_byte(),
        "bits_per_byte_more": one.read.more_than(full.read),
        "perplexity": one.read.perplexity(),
        "kl": one.read.kl_per_token(),
    }
