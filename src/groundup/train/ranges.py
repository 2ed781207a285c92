"""The range of every number that a person can set: one table for all settings and options.

A range keeps out what can only be a slip, and what would end in a crash, in all memory being taken
or in a run without an end. It is wide: nothing is refused that somebody with a cluster does.
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

# What a seed of torch's and NumPy's generators and a whole number in any JSON reader can hold.
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
# Numbers that are parts of a whole.
Share = Annotated[float, Ge(0), Le(1)]
Percent = Annotated[float, Ge(0), Le(100)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
ShareOfRows = Annotated[float, Gt(0), Lt(1)]
MeasuredShare = Annotated[float, Gt(0), Le(1)]
# A share of one thing against others, in any unit.
Weight = Annotated[float, Ge(0), Le(1e9)]

# Training. From the time of a single step of a tiny model to a year.
Minutes = Annotated[float, Ge(0.001), Le(525_600)]
# A thousand steps a second for eleven days; the longest runs in print have a few million.
Steps = Annotated[int, Ge(1), Le(1_000_000_000)]
# Less than a row of a billion is no pass, and a line has been learned by heart long before a
# million of them.
Epochs = Annotated[float, Ge(1e-6), Le(1_000_000)]
# With 8,192 tokens in each, 30 times the largest batches in print (16 M tokens).
Rows = Annotated[int, Ge(1), Le(65_536)]
# AdamW and Muon move each weight by about the rate: 1 is ten times the size of a weight.
LearningRate = Annotated[float, Ge(1e-12), Le(1)]
# In use are 0 to 0.3; with the largest rate, 10 throws away a weight and more in one step.
WeightDecay = Annotated[float, Ge(0), Le(10)]
# A norm that no gradient reaches is how clipping is turned off.
GradientClip = Annotated[float, Ge(1e-6), Le(1e9)]
# Each writes a line and a sample; nobody reads more.
Evaluations = Annotated[int, Ge(1), Le(100_000)]
# The largest servers have some 800; the C library dies of a hundred thousand.
Threads = Annotated[int, Ge(1), Le(1024)]
# The longest contexts that models in use were trained with.
Context = Annotated[int, Ge(16), Le(1_048_576)]
# Whoever trains from random weights begins with less, for attention is quadratic in it.
FreshContext = Annotated[int, Ge(16), Le(32_768)]

# Parameters and tokens of plans: ten times the largest runs in print.
Amount = Annotated[float, Ge(1_000), Le(1e15)]

# A model's shape: twice and more of the deepest and widest transformers in print (1,000 layers in
# DeepNet, 18,432 features in PaLM).
Depth = Annotated[int, Ge(1), Le(2_000)]
Width = Annotated[int, Ge(64), Le(65_536)]
Heads = Annotated[int, Ge(1), Le(1024)]
PreviousTokenHeads = Annotated[int, Ge(0), Le(1024)]
# As far as the longest context.
Window = Annotated[int, Ge(1), Le(1_048_576)]
# Four times the most in print (256 in DeepSeek-V3).
Experts = Annotated[int, Ge(1), Le(1024)]
# The 256 bytes with the control tokens, and what a uint16 can number.
VocabSize = Annotated[int, Ge(320), Le(65_536)]
SmallVocabSize = Annotated[int, Ge(320), Le(4096)]

# Adapters. No matrix has a higher rank than its smaller side.
Rank = Annotated[int, Ge(1), Le(65_536)]
# In use are one to four times the rank.
Alpha = Annotated[float, Ge(1e-6), Le(1_000_000)]
# The paper takes 16; below 1 the matrix that starts at zero is the slower one.
RateRatio = Annotated[float, Ge(0.001), Le(1000)]
# Alignment. In use are 0.01 to 10 for both.
Beta = Annotated[float, Ge(1e-6), Le(1000)]
LossWeight = Annotated[float, Ge(0), Le(1000)]
# The largest batches in print have some ten thousand answers, of which a few thousand to a prompt.
Episodes = Annotated[int, Ge(2), Le(1_000_000)]
GroupSize = Annotated[int, Ge(2), Le(65_536)]
# In use are 1 to 256.
AnswersEach = Annotated[int, Ge(1), Le(65_536)]
# In use are 1 to 64; of more, each holds next to nothing.
Minibatches = Annotated[int, Ge(1), Le(65_536)]
# In use are 0.1 to 0.4.
ClipRange = Annotated[float, Gt(0), Le(100)]
# Nats that a policy may be from its reference; at 100 nothing is left of it.
Nats = Annotated[float, Gt(0), Le(1000)]
# A part of a run, which may be none of it.
SomeIterations = Annotated[int, Ge(0), Le(1_000_000)]
# A margin between rewards; in use are 0.3 to 5.
Margin = Annotated[float, Ge(0), Le(1000)]
# A limit of a mean cost or reward: shares of answers, or deviations from what a reward model finds
# usual, which is 0.
Bound = Annotated[float, Ge(-1e6), Le(1e6)]
# A price of cost, as far as it may move (`align.lagrange`); in print are 0.01 to 10.
Multiplier = Annotated[float, Ge(0.01), Le(10)]
# How fast it moves.
MultiplierRate = Annotated[float, Ge(1e-6), Le(1000)]
# At a half, labels say nothing.
LabelSmoothing = Annotated[float, Ge(0), Lt(0.5)]

# Data that is made: more would take days and more memory than machines have.
Megabytes = Annotated[float, Ge(0), Le(1000)]
MadeRows = Annotated[int, Ge(0), Le(10_000_000)]
Wordings = Annotated[int, Ge(1), Le(8)]

# Measuring. No held-out set that comes by name is nearly as large as these.
Questions = Annotated[int, Ge(1), Le(1_000_000)]
QuestionsOfSix = Annotated[int, Ge(6), Le(1_000_000)]
QuestionsOfTwelve = Annotated[int, Ge(12), Le(1_000_000)]
# Less text than this says nothing of a model; a gigabyte takes days.
BytesPerSource = Annotated[int, Ge(2_048), Le(1_000_000_000)]
# Counts of longer n-grams are nearly all 1, and take memory for each.
NgramOrder = Annotated[int, Ge(1), Le(10)]
Examples = Annotated[int, Ge(0), Le(1000)]
# Each is a model of its own; of a dial one end alone says nothing.
DialPoints = Annotated[int, Ge(2), Le(1000)]
# Each repeats the whole experiment.
Repeats = Annotated[int, Ge(1), Le(1000)]

# Ten drawings show no interval, and a hundred thousand one to three digits.
Drawings = Annotated[int, Ge(10), Le(100_000)]

# Drawing. Above 100 all tokens of any model are as good as equally likely.
Temperature = Annotated[float, Ge(0), Le(100)]
# No vocabulary in use has more than a quarter of a million.
TopK = Annotated[int, Ge(0), Le(1_000_000)]
TopP = Annotated[float, Gt(0), Le(1)]
# Beyond these, float32 cannot hold the logits.
RepetitionPenalty = Annotated[float, Ge(0.01), Le(100)]
# OpenAI's and vLLM's range of presence_penalty and frequency_penalty.
TokenPenalty = Annotated[float, Ge(-2), Le(2)]
# The longest contexts of any model.
NewTokens = Annotated[int, Ge(1), Le(10_000_000)]
TopLogprobs = Annotated[int, Ge(0), Le(1_000_000)]
# Servers with many GPUs draw some thousands at a time.
BatchSize = Annotated[int, Ge(1), Le(65_536)]
# What TCP has; 0 is any that is free.
Port = Annotated[int, Ge(0), Le(65_535)]
# Rows printed for a person to read.
Shown = Annotated[int, Ge(0), Le(100_000)]
SamplesShown = Annotated[int, Ge(1), Le(100_000)]
# Attention is shown in full: of more tokens a page would have hundreds of megabytes.
TokensSeen = Annotated[int, Ge(1), Le(1024)]

# What file systems allow for a path and for one name in it, in bytes.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255


@dataclass(frozen=True)
class Range:
    """Which numbers a setting may be; a bound that is not there is None."""

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
        """What `value` must be, beginning with what it breaks."""
        rules = []
        if self.least is not None:
            rules.append(f"{'more than' if self.open_least else 'at least'} {written(self.least)}")
        if self.most is not None:
            rules.append(f"{'less than' if self.open_most else 'at most'} {written(self.most)}")
        if value is not None and self.least is not None and value > self.least:
            rules.reverse()
        return " and ".join(rules)


def written(number: float | None) -> str:
    """A number for a message: whole ones in full, however they are held, unless they are huge."""
    assert number is not None
    if abs(number) >= 1e20 and isinstance(number, int):
        return f"a number of {len(str(abs(number)))} digits" if number.bit_length() < 9999 else "…"
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:,.0f}" if abs(number) < 1e20 and number == int(number) else f"{number:g}"


def ranges(annotation: Any, metadata: Sequence[Any] = ()) -> Iterator[Range]:
    """The range of every number in a type: one of `int | None`, one of `tuple[float, ...]`."""
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
    """The type without its bounds, for a parser that would judge them in words of its own."""
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
    """Refuse a value that is out of its type's range, or a path that no file can have."""
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
    """Raise `ValueError` where the shares, at any of their times, are more than 1 together."""
    each = [one if isinstance(one, tuple) else (one,) for one in mixture.values()]
    if any(sum(shares) > 1 for shares in zip(*each, strict=True)):
        raise ValueError(f"mixture={mixture} has shares of more than 1 together; give smaller ones")


def check_text(name: str, value: str | Path) -> None:
    """Refuse text that is no UTF-8, and a path that the system cannot look for."""
    try:
        encoded = str(value).encode()
    except UnicodeEncodeError as error:
        reads = sys.getfilesystemencoding()
        remedy = "give it as text in UTF-8, and rename a file that is called so"
        if reads != "utf-8":
            remedy = f"Python reads it as {reads} here: set LC_ALL=C.UTF-8 and unset PYTHONUTF8"
        raise UserError(
            f"{name} is not valid UTF-8 (character {error.start + 1}); {remedy}"
        ) from None
    if not isinstance(value, Path):
        return
    if b"\0" in encoded:
        raise UserError(f"{name} holds a zero byte, which no path can; leave it out")
    if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        raise UserError(
            f"{name} has {len(encoded):,} bytes, and a path may have {_LONGEST_PATH:,} with "
            f"{_LONGEST_NAME} for each name in it; give a shorter one"
        )
