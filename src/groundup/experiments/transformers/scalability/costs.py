"""What do a longer context in training and a longer text in generation cost an LSTM and a GPT?

Training reads a window at once. An LSTM's step t waits for step t - 1, so with the same number of
tokens per batch, fewer and longer windows leave less parallel work; attention computes all
positions in parallel, with T scores for each of T tokens.

Generation goes token by token. A GPT keeps the keys and values of everything it has read and reads
them all for each token; an LSTM keeps its state, which has the same size after a thousand tokens as
after one.

Neither depends on training, so untrained models are timed: in rounds, each once per round, since
disturbances by other programs last longer than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from groundup.experiments.transformers.findings import compared, lines_plot, number_cell
from groundup.experiments.transformers.models import Architecture
from groundup.report.claim import Claim
from groundup.report.figure import Plot
from groundup.report.table import Cell, Table, text_table
from groundup.train.batch import Batch
from groundup.train.config import TrainingConfig
from groundup.train.device import resolve, use_threads
from groundup.train.loss import next_token_loss
from groundup.train.pace import measure_pace, random_batches

CONTEXTS, QUICK_CONTEXTS = (64, 128, 256, 512, 1_024), (32, 64)
# Tokens per batch, for every context.
_TOKENS, _QUICK_TOKENS = 4_096, 128
BEFORE, QUICK_BEFORE = (64, 256, 1_024), (16, 32)
# Tokens that are timed one by one after each text.
TIMED = 16
_ROUNDS, _WRITING_ROUNDS = 3, 8
# By model, the measurements at each length in each round.
Timed = Mapping[str, Mapping[int, list[float]]]


def settings(out: Path, threads: int | None) -> TrainingConfig:
    """The settings of all training and timing: on the CPU, where texts are generated."""
    return TrainingConfig(out=out, threads=threads, device="cpu", dtype="auto", compile="off")


def tokens_per_second(
    architectures: Mapping[str, Architecture], config: TrainingConfig, quick: bool
) -> Timed:
    """Training speed in tokens per second on random tokens, by the length of the windows."""
    use_threads(config)
    compute = resolve(config, compile_by_default=False)
    tokens = _QUICK_TOKENS if quick else _TOKENS
    contexts = QUICK_CONTEXTS if quick else CONTEXTS
    found: Timed = {name: {context: [] for context in contexts} for name in architectures}
    for _ in range(2 if quick else _ROUNDS):
        for context in contexts:
            for name, make in architectures.items():
                vocab_size, rows = make.shape.vocab_size, tokens // context
                batches = random_batches(vocab_size, context=context, rows=rows)
                pace = measure_pace(make(0), compute, batches, next_token_loss, muon=True)
                found[name][context].append(pace.tokens_per_second(tokens))
    return found


@torch.no_grad()
def milliseconds(
    architectures: Mapping[str, Architecture], config: TrainingConfig, quick: bool
) -> Timed:
    """Milliseconds to generate a token of one text in float32, by the tokens before it."""
    use_threads(config)
    lengths = QUICK_BEFORE if quick else BEFORE
    models = {name: make(0).eval() for name, make in architectures.items()}
    found: Timed = {name: {before: [] for before in lengths} for name in architectures}
    caches = {}
    for name, model in models.items():
        for before in lengths:
            cache = caches[name, before] = model.empty_cache(1, before + TIMED)
            model(Batch.of(torch.ones(1, before, dtype=torch.int64)), cache)
    token = torch.ones(1, 1, dtype=torch.int64)
    for _ in range(2 if quick else _WRITING_ROUNDS):
        for before in lengths:
            for name, model in models.items():
                begun = perf_counter()
                for place in range(before, before + TIMED):
                    hidden = model(Batch.at(token, torch.full((1, 1), place)), caches[name, before])
                    _ = hidden @ model.head.T
                found[name][before].append(1_000 * (perf_counter() - begun) / TIMED)
    return found


def kept_bytes(make: Architecture, tokens: int) -> int:
    """Bytes that a model in float32 keeps for a text of `tokens` tokens."""
    return 4 * make.state_floats(tokens)


# Report.


def tested(speeds: Timed, writing: Timed) -> list[Claim]:
    """The longest compared with the shortest, and the GPT with the LSTM at the longest."""
    claims = []
    short, long = min(speeds["GPT"]), max(speeds["GPT"])
    first, last = min(writing["GPT"]), max(writing["GPT"])
    for name in speeds:
        claims += [
            compared(
                f"the {name} trains on fewer tokens per second in windows of {long:,} than of "
                f"{short:,}",
                (f"{name}, {long:,}", speeds[name][long]),
                (f"{name}, {short:,}", speeds[name][short]),
                "below",
                unit="tokens per second",
            ),
            compared(
                f"the {name} takes longer for a token after {last:,} tokens than after {first:,}",
                (f"{name}, {last:,}", writing[name][last]),
                (f"{name}, {first:,}", writing[name][first]),
                "above",
                unit="ms",
            ),
        ]
    claims += [
        compared(
            f"in windows of {long:,} the GPT trains on more tokens per second than the LSTM",
            ("GPT", speeds["GPT"][long]),
            ("LSTM", speeds["LSTM"][long]),
            "above",
            unit="tokens per second",
        ),
        compared(
            f"after {last:,} tokens the GPT takes longer for a token than the LSTM",
            ("GPT", writing["GPT"][last]),
            ("LSTM", writing["LSTM"][last]),
            "above",
            unit="ms",
        ),
    ]
    return claims


def speed_table(speeds: Timed) -> Table:
    """A row per window length: tokens per second of both."""
    contexts = list(speeds["GPT"])
    return text_table(
        "Training speed by the length of windows",
        ("tokens per window", *(f"{name}, tokens per second" for name in speeds)),
        tuple(
            (f"{context:,}", *(number_cell(speeds[name][context], 0) for name in speeds))
            for context in contexts
        ),
        (
            "The largest models: forward, backward and optimizer step, with the same number of "
            "tokens per batch. Means over rounds with Student's 95 % interval, which is that of "
            "this machine.",
        ),
    )


def writing_table(architectures: Mapping[str, Architecture], writing: Timed) -> Table:
    """A row per text length: bytes kept and milliseconds per token of both."""
    lengths = list(writing["GPT"])
    return text_table(
        "Memory and time of a generated token",
        (
            "tokens before",
            *(f"{name}, bytes kept" for name in writing),
            *(f"{name}, ms per token" for name in writing),
        ),
        tuple(
            (
                f"{before:,}",
                *(Cell(f"{kept_bytes(architectures[name], before):,}") for name in writing),
                *(number_cell(writing[name][before], 2) for name in writing),
            )
            for before in lengths
        ),
        (
            f"The largest models in float32, one text, {TIMED} tokens after it. Bytes: keys and "
            "values of all layers, or states; exact. Means over rounds with Student's 95 % "
            "interval.",
        ),
    )


def plot(speeds: Timed) -> Plot:
    """Training speed over the length of windows."""
    return lines_plot(
        "speed",
        "Training speed by the length of windows, with the same number of tokens per batch.",
        {
            "training": {
                name: (list(found), np.array(list(found.values())).T)
                for name, found in speeds.items()
            }
        },
        x="tokens per window",
        y="tokens per second",
        log_x=True,
        marked=True,
    )


def numbers(
    architectures: Mapping[str, Architecture], speeds: Timed, writing: Timed
) -> dict[str, Any]:
    """All timings and sizes, for result.json."""
    lengths: Sequence[int] = list(writing["GPT"])
    return {
        "tokens_per_second": speeds,
        "milliseconds": writing,
        "bytes": {
            name: {str(before): kept_bytes(make, before) for before in lengths}
            for name, make in architectures.items()
        },
    }
