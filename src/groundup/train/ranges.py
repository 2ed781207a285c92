"""The allowed range of every numeric setting and option, in one table.

A range excludes obvious mistakes and values that would crash, exhaust the memory or never end. It
is wide enough for anything that is done on a cluster.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from groundup.errors import UserError

# The range of seeds of torch and NumPy, and of integers in any JSON reader.
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
# Parts of a whole.
Share = Annotated[float, Ge(0), Le(1)]
Percent = Annotated[float, Ge(0), Le(100)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
ShareOfRows = Annotated[float, Gt(0), Lt(1)]
MeasuredShare = Annotated[float, Gt(0), Le(1)]
# Relative weights, in any unit.
Weight = Annotated[float, Ge(0), Le(1e9)]

# Training. From a single step of a tiny model to a year.
Minutes = Annotated[float, Ge(0.001), Le(525_600)]
# A thousand steps a second for eleven days; the longest published runs have a few million.
Steps = Annotated[int, Ge(1), Le(1_000_000_000)]
# Less than one row in a million is not a pass, and a million passes memorize any text.
Epochs = Annotated[float, Ge(1e-6), Le(1_000_000)]
# With 8,192 tokens in each, 30 times the largest published batches (16 M tokens).
Rows = Annotated[int, Ge(1), Le(65_536)]
# AdamW and Muon change each weight by about the rate: 1 is ten times the size of a weight.
LearningRate = Annotated[float, Ge(1e-12), Le(1)]
# Usual are 0 to 0.3; at the largest rate, 10 removes more than a whole weight in one step.
WeightDecay = Annotated[float, Ge(0), Le(10)]
# A norm that no gradient reaches turns clipping off.
GradientClip = Annotated[float, Ge(1e-6), Le(1e9)]
# Each one writes a line and a sample; more are never read.
Evaluations = Annotated[int, Ge(1), Le(100_000)]
# The largest servers have about 800; with a hundred thousand the C library crashes.
Threads = Annotated[int, Ge(1), Le(1024)]
# The longest contexts that models in use were trained with.
Context = Annotated[int, Ge(16), Le(1_048_576)]
# Training from random weights starts with less, because attention is quadratic in it.
FreshContext = Annotated[int, Ge(16), Le(32_768)]

# Parameters and tokens of plans: ten times the largest published runs.
Amount = Annotated[float, Ge(1_000), Le(1e15)]

# A model's shape: at least twice the deepest and widest published transformers (1,000 layers in
# DeepNet, 18,432 features in PaLM).
Depth = Annotated[int, Ge(1), Le(2_000)]
Width = Annotated[int, Ge(64), Le(65_536)]
Heads = Annotated[int, Ge(1), Le(1024)]
PreviousTokenHeads = Annotated[int, Ge(0), Le(1024)]
# Up to the longest context.
Window = Annotated[int, Ge(1), Le(1_048_576)]
# Four times the largest published number (256 in DeepSeek-V3).
Experts = Annotated[int, Ge(1), Le(1024)]
# From the 256 bytes with control tokens to the ids of a uint16.
VocabSize = Annotated[int, Ge(320), Le(65_536)]
SmallVocabSize = Annotated[int, Ge(320), Le(4096)]

# Adapters. A matrix has at most the rank of its smaller side.
Rank = Annotated[int, Ge(1), Le(65_536)]
# Usual are one to four times the rank.
Alpha = Annotated[float, Ge(1e-6), Le(1_000_000)]
# The paper uses 16; below 1 the matrix that starts at zero has the lower rate.
RateRatio = Annotated[float, Ge(0.001), Le(1000)]
# Alignment. Usual are 0.01 to 10 for both.
Beta = Annotated[float, Ge(1e-6), Le(1000)]
LossWeight = Annotated[float, Ge(0), Le(1000)]
# The largest published batches have about ten thousand answers, and a few thousand per prompt.
Episodes = Annotated[int, Ge(2), Le(1_000_000)]
GroupSize = Annotated[int, Ge(2), Le(65_536)]
# Usual are 1 to 256.
AnswersEach = Annotated[int, Ge(1), Le(65_536)]
# Usual are 1 to 64; with more, each holds next to nothing.
Minibatches = Annotated[int, Ge(1), Le(65_536)]
# Usual are 0.1 to 0.4.
ClipRange = Annotated[float, Gt(0), Le(100)]
# KL divergence of a policy from its reference; at 100 nats nothing is left of the reference.
Nats = Annotated[float, Gt(0), Le(1000)]
# A part of a run, possibly none of it.
SomeIterations = Annotated[int, Ge(0), Le(1_000_000)]
# A margin between rewards; usual are 0.3 to 5.
Margin = Annotated[float, Ge(0), Le(1000)]
# A limit of a mean cost or reward: a share of answers, or deviations from a reward model's mean,
# which is 0.
Bound = Annotated[float, Ge(-1e6), Le(1e6)]
# The range of a Lagrange multiplier (`align.lagrange`); published are 0.01 to 10.
Multiplier = Annotated[float, Ge(0.01), Le(10)]
# The multiplier's learning rate.
MultiplierRate = Annotated[float, Ge(1e-6), Le(1000)]
# At one half, labels carry no information.
LabelSmoothing = Annotated[float, Ge(0), Lt(0.5)]

# Generated data: more would take days and more memory than machines have.
Megabytes = Annotated[float, Ge(0), Le(1000)]
MadeRows = Annotated[int, Ge(0), Le(10_000_000)]
Wordings = Annotated[int, Ge(1), Le(8)]

# Evaluation. No built-in held-out set is nearly as large as these limits.
Questions = Annotated[int, Ge(1), Le(1_000_000)]
QuestionsOfSix = Annotated[int, Ge(6), Le(1_000_000)]
QuestionsOfTwelve = Annotated[int, Ge(12), Le(1_000_000)]
# Less text says nothing about a model; a gigabyte takes days.
BytesPerSource = Annotated[int, Ge(2_048), Le(1_000_000_000)]
# Counts of longer n-grams are nearly all 1, and each takes memory.
NgramOrder = Annotated[int, Ge(1), Le(10)]
Examples = Annotated[int, Ge(0), Le(1000)]
# Each point trains a model; a sweep needs at least both ends.
DialPoints = Annotated[int, Ge(2), Le(1000)]
# Each repeats the whole experiment.
Repeats = Annotated[int, Ge(1), Le(1000)]

# Ten samples give no interval; a hundred thousand give three digits.
Drawings = Annotated[int, Ge(10), Le(100_000)]

# Sampling. Above 100 all tokens of any model are almost equally likely.
Temperature = Annotated[float, Ge(0), Le(100)]
# No vocabulary in use has more than a quarter of a million tokens.
TopK = Annotated[int, Ge(0), Le(1_000_000)]
TopP = Annotated[float, Gt(0), Le(1)]
# Beyond these, float32 cannot hold the logits.
RepetitionPenalty = Annotated[float, Ge(0.01), Le(100)]
# OpenAI's and vLLM's range of presence_penalty and frequency_penalty.
TokenPenalty = Annotated[float, Ge(-2), Le(2)]
# The longest contexts of any model.
NewTokens = Annotated[int, Ge(1), Le(10_000_000)]
TopLogprobs = Annotated[int, Ge(0), Le(1_000_000)]
# Servers with many GPUs generate a few thousand at a time.
BatchSize = Annotated[int, Ge(1), Le(65_536)]
# TCP ports; 0 is any free one.
Port = Annotated[int, Ge(0), Le(65_535)]
# Rows to print for reading.
Shown = Annotated[int, Ge(0), Le(100_000)]
SamplesShown = Annotated[int, Ge(1), Le(100_000)]
# The full attention matrix is shown: for more tokens a page would have hundreds of megabytes.
TokensSeen = Annotated[int, Ge(1), Le(1024)]

# File systems' limits for a path and for one name in it, in bytes.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255


@dataclass(frozen=True)
class Range:
    """The allowed numbers of a setting; None is no bound."""

    kind: type
    least: float | None = None
    most: float | None = None
    open_least: bool = False
    open_most: bool = False

    def __contains__(self, value: float) -> bool:
        least, most = self.least, self.most
        if least is not None and (value <= least if self.open_least else value < least):
            return False
        return most is None or (value < most if self.open_most else value <= most)

    def rule(self, value: float | None = None) -> str:
        """Return the rule for a message, starting with the bound that `value` violates."""
        rules = []
        if self.least is not None:
            rules.append(f"{'more than' if self.open_least else 'at least'} {written(self.least)}")
        if self.most is not None:
            rules.append(f"{'less than' if self.open_most else 'at most'} {written(self.most)}")
        if value is not None and self.least is not None and value > self.least:
            rules.reverse()
        return " and ".join(rules)


def written(number: float | None) -> str:
    """Format a number for a message: whole numbers in full, as int or float, unless huge."""
    assert number is not None
    if abs(number) >= 1e20 and isinstance(number, int):
        return f"a number of {len(str(abs(number)))} digits" if number.bit_length() < 9999 else "…"
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:,.0f}" if abs(number) < 1e20 and number == int(number) else f"{number:g}"


def ranges(annotation: Any, metadata: Sequence[Any] = ()) -> Iterator[Range]:
    """Yield the range of every number in a type: one for `int | None` or `tuple[float, ...]`."""
    if isinstance(annotation, FieldInfo):
        yield from ranges(annotation.annotation, annotation.metadata)
    elif get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        known = [one for one in more if isinstance(one, Range)]
        yield from known or ranges(inner, [*metadata, *more])
    elif get_origin(annotation) in (Union, UnionType, tuple, dict):
        for part in get_args(annotation):
            yield from ranges(part, metadata)
    elif annotation in (int, float):
        names = ("ge", "gt", "le", "lt")
        bounds = {n: getattr(one, n) for one in metadata for n in names if hasattr(one, n)}
        yield Range(
            annotation,
            bounds.get("gt", bounds.get("ge")),
            bounds.get("lt", bounds.get("le")),
            open_least="gt" in bounds,
            open_most="lt" in bounds,
        )


def unbounded(annotation: Any) -> Any:
    """Return the type without its bounds, for a parser that would use its own error messages."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        kept = [one for one in parts[1:] if not isinstance(one, Ge | Gt | Le | Lt)]
        inner = unbounded(parts[0])
        return Annotated[(inner, *kept)] if kept else inner
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(unbounded(part) for part in parts)]  # noqa: UP007 (of a variable)
    if get_origin(annotation) is dict:
        return dict[tuple(map(unbounded, parts))]  # type: ignore[misc]
    if get_origin(annotation) is tuple:
        return tuple[tuple(part if part is ... else unbounded(part) for part in parts)]  # type: ignore[misc]
    return annotation


def check(name: str, value: object, annotation: Any, remedy: str) -> None:
    """Raise `UserError` for a value out of its type's range, or an impossible path."""
    if isinstance(value, tuple | list):
        for one in value:
            check(name, one, annotation, remedy)
    elif isinstance(value, str | Path):
        check_text(name, value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for one in ranges(annotation):
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name}={value} must be {one.rule()}; {remedy}")
            if value not in one:
                raise UserError(f"{name}={written(value)} must be {one.rule(value)}; {remedy}")


def check_mixture(mixture: Mapping[str, float | tuple[float, ...]]) -> None:
    """Raise `ValueError` if the shares, at any of their times, sum to more than 1."""
    each = [one if isinstance(one, tuple) else (one,) for one in mixture.values()]
    if any(sum(shares) > 1 for shares in zip(*each, strict=True)):
        raise ValueError(f"mixture={mixture} has shares that sum to more than 1; lower them")


def check_text(name: str, value: str | Path) -> None:
    """Raise `UserError` for text that is not UTF-8, and a path that the system cannot open."""
    try:
        encoded = str(value).encode()
    except UnicodeEncodeError as error:
        reads = sys.getfilesystemencoding()
        remedy = "give it as text in UTF-8, and rename a file that is called so"
        if reads != "utf-8":
            remedy = f"Python decodes it as {reads} here: set LC_ALL=C.UTF-8 and unset PYTHONUTF8"
        raise UserError(
            f"{name} is not valid UTF-8 (character {error.start + 1}); {remedy}"
        ) from None
    if not isinstance(value, Path):
        return
    if b"\0" in encoded:
        raise UserError(f"{name} holds a zero byte, which no path can; leave it out")
    if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        raise UserError(
            f"{name} has {len(encoded):,} bytes; a path may have {_LONGEST_PATH:,}, and each name "
            f"in it {_LONGEST_NAME}; give a shorter one"
        )
