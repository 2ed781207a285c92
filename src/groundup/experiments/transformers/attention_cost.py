"""What does a smaller cache cost? Keys and values of all heads, of some, of one, or of a window.

    multi-head     a key head for each query head                    Vaswani et al. 2017
    grouped-query  one key head for every two                        Ainslie et al. 2023
    multi-query    one key head for all                              Shazeer 2019
    window         one for each, over the last 64 tokens only        Beltagy et al. 2020

To generate a token a model reads its whole cache, so with long texts the size of the cache
determines the cost of generation. Models of one width are trained on the same stories of the small
world; their loss is compared with the size of their cache and with the tokens per second that they
generate after a text of 1,024 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from groundup.experiments.transformers.cells import Cell, History, trained
from groundup.experiments.transformers.config import AttentionCostConfig
from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    intervals,
    number_cell,
)
from groundup.experiments.transformers.language import (
    Material,
    WindowStream,
    heldout_loss,
    material,
)
from groundup.experiments.transformers.models import Architecture
from groundup.lm.config import ModelConfig
from groundup.report.claim import Claim
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.plots import legend, looks, panels
from groundup.report.table import Table, short_number, text_table
from groundup.train.batch import Batch
from groundup.train.config import TrainingConfig
from groundup.train.device import use_threads

NAME = "attention-cost"
QUESTION = "What does a smaller cache cost in loss, and what does it gain in speed?"
_VOCAB, _WIDTH, _LAYERS, _HEADS, _CONTEXT, _ROWS, _WINDOW = 512, 256, 2, 4, 256, 16, 64
# Tokens before the timed ones, texts at once, timed tokens, and rounds.
_BEFORE, _TEXTS, _TIMED, _ROUNDS = 1_024, 8, 16, 8
_TOKENS = 16_384
ALL = "multi-head"


def run(config: AttentionCostConfig) -> Path:
    """Train all kinds, time their generation, and write the results. After a stop it resumes.

    Raises `UserError` for a folder with other files.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: AttentionCostConfig) -> None:
    begun = perf_counter()
    text = material(
        config.out / "text", "world", vocab_size=_VOCAB, megabytes=0.3 if config.quick else 3
    )
    found = {
        name: [trained(config, _cell(config, name, seed, text)) for seed in config.all_seeds]
        for name in architectures(text.vocab_size)
    }
    # If all cells were already done, none has set the threads.
    use_threads(TrainingConfig(out=config.out, threads=config.threads))
    speeds = tokens_per_second(architectures(text.vocab_size), 2 if config.quick else _ROUNDS)
    claims = tested(found, speeds)
    write(
        config,
        NAME,
        QUESTION,
        tables=[table(found, speeds, text.vocab_size)],
        plots=[plot(found, text.vocab_size)],
        remarks=conclusions(claims),
        claims=claims,
        data={
            name: {"loss": values(found, name), "tokens_per_second": speeds[name]} for name in found
        },
        pieces=("cells", "text", RESULT),
        seconds=perf_counter() - begun,
    )


def architectures(vocab_size: int) -> dict[str, Architecture]:
    """The kinds of attention in one shape."""
    shape = partial(
        ModelConfig.of,
        width=_WIDTH,
        depth=_LAYERS,
        heads=_HEADS,
        vocab_size=vocab_size,
        context=_BEFORE + _TIMED,
    )
    return {
        ALL: Architecture(shape(kv_heads=_HEADS)),
        "grouped-query": Architecture(shape(kv_heads=_HEADS // 2)),
        "multi-query": Architecture(shape(kv_heads=1)),
        "window": Architecture(shape(kv_heads=_HEADS, sliding_window=_WINDOW)),
    }


def _cell(config: AttentionCostConfig, name: str, seed: int, text: Material) -> Cell:
    count = 2_048 if config.quick else _TOKENS
    return Cell(
        f"{name}-{seed}",
        architectures(text.vocab_size)[name],
        WindowStream(text.train, _CONTEXT, _ROWS, seed),
        seed,
        steps=5 if config.quick else config.steps,
        rows=_ROWS,
        context=_CONTEXT,
        rate=0.02,
        embedding_rate=0.006,
        optimizer="muon",
        measure=lambda model, step: {"loss": heldout_loss(model, text, _CONTEXT, count)},
        dtype="auto",
    )


@torch.no_grad()
def tokens_per_second(every: Mapping[str, Architecture], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of all texts together, generated one by one after a long text.

    Speed does not depend on training, so untrained models are timed: in rounds, each kind once per
    round, since disturbances by other programs last longer than that.
    """
    ids = torch.zeros(_TEXTS, _BEFORE, dtype=torch.int64)
    models = {name: make(0).eval() for name, make in every.items()}
    caches = {name: one.empty_cache(_TEXTS, _BEFORE + _TIMED) for name, one in models.items()}
    for name, model in models.items():
        model(Batch.of(ids), caches[name])
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            begun = perf_counter()
            for place in range(_BEFORE, _BEFORE + _TIMED):
                batch = Batch.at(ids[:, :1], torch.full((_TEXTS, 1), place))
                _ = model(batch, caches[name]) @ model.head.T
            found[name].append(_TEXTS * _TIMED / (perf_counter() - begun))
    return found


def kept(shape: ModelConfig, tokens: int) -> int:
    """Numbers that must be kept for a text of `tokens` tokens: the visible keys and values."""
    each = 2 * shape.num_key_value_heads * shape.head_dim
    return sum(each * min(tokens, window or tokens) for window in shape.windows)


# Report.

Found = Mapping[str, Sequence[History]]


def values(found: Found, name: str) -> list[float]:
    """A kind's loss for each seed."""
    return [history.end["loss"] for history in found[name]]


def tested(found: Found, speeds: Mapping[str, Sequence[float]]) -> list[Claim]:
    """Each kind compared with multi-head attention, in loss over seeds and speed over rounds."""
    claims = [
        compared(
            f"{name} attention predicts worse",
            (name, values(found, name)),
            (ALL, values(found, ALL)),
            "above",
        )
        for name in found
        if name != ALL
    ]
    claims += [
        compared(
            f"{name} attention generates faster",
            (name, speeds[name]),
            (ALL, speeds[ALL]),
            "above",
            unit="tokens per second",
        )
        for name in ("grouped-query", "multi-query")
    ]
    return claims


def table(found: Found, speeds: Mapping[str, Sequence[float]], vocab_size: int) -> Table:
    """A row for each kind: parameters, cache, loss, speed."""
    every = architectures(vocab_size)
    return text_table(
        "Loss, cache and speed",
        ("attention", "parameters", "cache of 1,024 tokens", "nats per token", "tokens per second"),
        tuple(
            (
                name,
                short_number(every[name].parameters),
                f"{kept(every[name].shape, _BEFORE):,}",
                number_cell(values(found, name)),
                number_cell(speeds[name], 0),
            )
            for name in found
        ),
        (
            f"Cache: the numbers in the keys and values that must be kept. A window needs its last "
            f"{_WINDOW} tokens; the cache here also keeps the others and only masks them, so the "
            "window is not faster. Fewer key heads also mean fewer parameters. Tokens per second: "
            f"of {_TEXTS} texts together, after {_BEFORE:,} tokens, timed in {len(speeds[ALL])} "
            f"rounds, whose interval is that of this machine. Losses: {intervals(len(found[ALL]))}",
        ),
    )


def plot(found: Found, vocab_size: int) -> Plot:
    """Loss over the size of the cache, with one point per seed."""
    figure, [[axes]] = panels(height=3.8)
    every = architectures(vocab_size)
    for name, one in looks(found).items():
        lost = np.array(values(found, name))
        size = kept(every[name].shape, _BEFORE)
        at = np.full(len(lost), size)
        axes.plot(at, lost, **one.marks, linestyle="none", alpha=0.6, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel(f"numbers in the cache of {_BEFORE:,} tokens")
    axes.set_ylabel("nats per token")
    legend(figure, most=2, size=8)
    return Plot("cache", "Loss over the size of the cache; one marker per seed.", figure)
