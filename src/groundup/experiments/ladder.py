"""The ladder of language models: each rung is an idea, all on one text with one training time.

Counting came first: a table of pairs, then long contexts blended with short ones (Kneser and Ney
1995). Networks replaced the table by a function, which also predicts after contexts that were never
seen: Bengio's (2003) reads the last few words, recurrent ones everything so far, and the
transformer all of its context at once. Historically each rung beat the one below it, given data and
compute. Here every network has the same short time on one small machine, so the order is an open
question that the report answers.

Everything runs on the NumPy engine of `maths` and `nn`. Whole documents are held out, and models
are compared in bits per byte, independent of their tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from jaxtyping import Integer

from groundup.errors import UserError
from groundup.experiments.config import LadderConfig
from groundup.experiments.ladder_models import FeedForward, Recurrent, Windowed, gpt
from groundup.experiments.ladder_report import Point, Result, write_report
from groundup.experiments.ladder_text import (
    HeldOut,
    LanguageModel,
    Uniform,
    Vocabulary,
    bpe_tokens,
    characters,
    corpus,
    excerpts,
    sample,
)
from groundup.maths.ngram import AddK, KneserNey, Ngram
from groundup.maths.tensor import Tensor
from groundup.nn.losses import cross_entropy
from groundup.nn.module import Module
from groundup.nn.optim import AdamW
from groundup.nn.schedule import cosine, linear_warmup
from groundup.nn.training import History, train
from groundup.report.outcome import working_in
from groundup.runs.console import say
from groundup.text.rows import Document

NAME = "ladder"


@dataclass(frozen=True)
class Rung:
    """A network and how it is trained: `rows` windows of `context` tokens per step."""

    name: str
    network: Callable[[int, np.random.Generator], Module]
    """(vocabulary size, generator of the initial weights) -> a network."""
    context: int
    rows: int
    rate: float


@dataclass(frozen=True)
class Size:
    """The size of a ladder: its networks, and bytes of text (None: all) for each purpose."""

    of_characters: tuple[Rung, ...]
    of_tokens: tuple[Rung, ...]
    train: int | None
    heldout: int
    glance: int
    """Held-out text for the learning curves, measured `glances` times during training."""
    glances: int
    sample: int


# From short sweeps on the pack `sotu`, about 20 seconds on one core each, evaluated on the first
# 40 KB of the held-out text, which are part of the reported text. In so short a time, many small
# steps are better than large batches and wide layers. A recurrent network processes its context one
# token at a time, so a short context is better for it too. Where 1.5 to 2 times a rate was tried,
# it was worse.
FULL = Size(
    of_characters=(
        Rung("feed-forward", partial(FeedForward, reach=8, width=32, hidden=256), 128, 8, 1e-2),
        Rung("RNN", partial(Recurrent, cell="RNN", width=32, hidden=128), 16, 32, 2e-2),
        Rung("LSTM", partial(Recurrent, cell="LSTM", width=32, hidden=128), 16, 32, 8e-2),
        Rung("GPT", partial(gpt, width=64, layers=2), 64, 8, 1e-2),
    ),
    of_tokens=(
        Rung("feed-forward", partial(FeedForward, reach=5, width=32, hidden=256), 128, 8, 1e-2),
        Rung("RNN", partial(Recurrent, cell="RNN", width=64, hidden=128), 16, 32, 2e-2),
        Rung("LSTM", partial(Recurrent, cell="LSTM", width=64, hidden=128), 16, 32, 4e-2),
        Rung("GPT", partial(gpt, width=96, layers=2), 64, 8, 1e-2),
    ),
    train=None,
    # Measuring a token costs a third of training on one, and windows overlap by half, so measuring
    # takes about half as long as training in total.
    heldout=140_000,
    glance=20_000,
    glances=8,
    sample=240,
)
_SMALL = (
    Rung("feed-forward", partial(FeedForward, reach=4, width=16, hidden=32), 32, 8, 3e-2),
    Rung("RNN", partial(Recurrent, cell="RNN", width=16, hidden=32), 12, 16, 3e-2),
    Rung("LSTM", partial(Recurrent, cell="LSTM", width=16, hidden=32), 12, 16, 3e-2),
    Rung("GPT", partial(gpt, width=32, layers=1), 16, 16, 1e-2),
)
MINIATURE = Size(_SMALL, _SMALL, train=100_000, heldout=6_144, glance=4_096, glances=3, sample=60)
_MINIATURE_STEPS = 40
_WARMUP = 0.05  # of the steps


@dataclass(frozen=True)
class Text:
    """The text in one vocabulary: for training, measuring, learning curves and samples."""

    vocabulary: Vocabulary
    documents: Sequence[Document]
    stream: Integer[np.ndarray, "n"]
    heldout: HeldOut
    glance: HeldOut
    sample: Callable[[LanguageModel], str]
    """A model's continuation of the prompt."""

    def part(self, share: float) -> Text:
        """This text with about this share of its training documents, evenly spaced."""
        total = len(self.documents)
        count = max(1, round(share * total))
        part = [self.documents[i * total // count] for i in range(count)]
        return replace(self, documents=part, stream=self.vocabulary.stream(part))


def run(config: LadderConfig) -> Path:
    """Measure the ladder in characters and in BPE tokens, and return the folder of the report.

    Raises `UserError` for text that is not available, and for a folder with other files.
    """
    with working_in(config.out, NAME):
        begun = time.perf_counter()
        size = MINIATURE if config.quick else FULL
        found = corpus(config.data)
        documents = excerpts(found.train, size.train) if size.train else found.train
        results: list[Result] = []
        for vocabulary, rungs in (
            (characters(documents), size.of_characters),
            (bpe_tokens(documents, config.vocab_size), size.of_tokens),
        ):
            parts = (excerpts(found.heldout, part) for part in (size.heldout, size.glance))
            heldout, glance = (HeldOut.of(part, vocabulary) for part in parts)
            continue_prompt = partial(
                sample,
                vocabulary=vocabulary,
                prompt=config.prompt,
                size=size.sample,
                seed=config.seed,
            )
            stream = vocabulary.stream(documents)
            text = Text(vocabulary, documents, stream, heldout, glance, continue_prompt)
            results += climb(text, rungs, config, size.glances)
        return write_report(config, NAME, results, time.perf_counter() - begun)


def climb(
    text: Text, rungs: Sequence[Rung], config: LadderConfig, glances: int
) -> Iterator[Result]:
    """Measure every rung in one vocabulary, from the uniform model to GPT."""
    _check_length(text, rungs)
    yield untrained(text)
    yield counted("counted pairs", partial(AddK.fit, order=2), text)
    five = partial(KneserNey.fit, order=5)
    yield counted("5-gram Kneser-Ney", five, text)
    trainings = 2 * len(rungs) * config.seeds  # in two vocabularies
    part = 60 * config.minutes / trainings
    networks = [learned(rung, text, part, config, glances) for rung in rungs]
    yield from networks
    # Networks read little in this time: also count n-grams in the same amount of text.
    best = min(networks, key=lambda result: result.by_seed.estimate)
    if (share := best.tokens / len(text.stream)) < 1:
        yield counted("5-gram on less text", five, text.part(share), "less text")


# Models without gradients


def untrained(text: Text) -> Result:
    """The uniform model, which every trained model must beat."""
    model = Uniform(len(text.vocabulary))
    return Result(
        name="chance",
        vocabulary=text.vocabulary.name,
        kind="chance",
        bits=text.heldout.bits(model)[None],
        bytes=text.heldout.bytes,
        glance=text.glance.bits_per_byte(model),
    )


def counted(
    name: str,
    fit: Callable[..., Ngram],
    text: Text,
    kind: Literal["counted", "less text"] = "counted",
) -> Result:
    """Count n-grams in all of the training text."""
    begun = time.perf_counter()
    model = fit(text.stream, vocab_size=len(text.vocabulary))
    seconds = time.perf_counter() - begun
    result = Result(
        name=name,
        vocabulary=text.vocabulary.name,
        kind=kind,
        bits=text.heldout.bits(model)[None],
        bytes=text.heldout.bytes,
        glance=text.glance.bits_per_byte(model),
        parameters=sum(len(keys) for keys in model.trie.keys[1:]),
        tokens=len(text.stream),
        seconds=(seconds,),
        sample=text.sample(model),
    )
    _tell(result)
    return result


# Networks


def learned(rung: Rung, text: Text, seconds: float, config: LadderConfig, glances: int) -> Result:
    """Train a network for each seed, for about `seconds` and the same number of steps."""
    planned = _MINIATURE_STEPS if config.quick else None
    steps = config.steps or planned or steps_within(seconds, rung, text, config.seed)
    runs = [fit(rung, text, steps, config.seed + n, glances) for n in range(config.seeds)]
    models = [Windowed(network, rung.context) for network, _ in runs]
    result = Result(
        name=rung.name,
        vocabulary=text.vocabulary.name,
        kind="network",
        bits=np.stack([text.heldout.bits(model) for model in models]),
        bytes=text.heldout.bytes,
        glance=text.glance.bits_per_byte(models[0]),
        parameters=sum(weight.numel() for weight in runs[0][0].parameters()),
        tokens=steps * rung.rows * rung.context,
        seconds=tuple(history.seconds[-1] for _, history in runs),
        curves=tuple(_curve(history) for _, history in runs),
        losses=tuple(tuple(history.losses) for _, history in runs),
        sample=text.sample(models[0]),
    )
    _tell(result)
    return result


def fit(rung: Rung, text: Text, steps: int, seed: int, glances: int) -> tuple[Module, History]:
    """Train one network on random windows with AdamW, a short warm-up and a cosine decay."""
    network = rung.network(len(text.vocabulary), np.random.default_rng([seed, 0]))
    optimizer = AdamW(network.parameters(), rung.rate, betas=(0.9, 0.99), weight_decay=0.1)
    warmup = max(1, int(_WARMUP * steps))
    history = train(
        network,
        windows(text.stream, rung, np.random.default_rng([seed, 1])),
        next_token_loss,
        optimizer,
        steps=steps,
        # The rate reaches its floor one step after the last, so that no step is wasted.
        schedule=linear_warmup(warmup, cosine(max(1, steps - warmup + 1))),
        clip=1.0,
        evaluate=lambda network: text.glance.bits_per_byte(Windowed(network, rung.context)),
        evaluate_every=ceil(steps / glances),
    )
    if history.diverged:
        raise UserError(
            f"{rung.name} diverged after {len(history.losses)} steps at the learning rate "
            f"{rung.rate:g}; try another --seed, or more text"
        )
    return network, history


def next_token_loss(network: Module, ids: Integer[np.ndarray, "b t"]) -> Tensor:
    """The mean cross-entropy, in nats, of each token but the first, given those before it."""
    logits = network(ids[:, :-1]).flatten(0, 1)
    loss: Tensor = cross_entropy(logits, ids[:, 1:].reshape(-1))
    return loss


def windows(
    stream: Integer[np.ndarray, "n"], rung: Rung, random: np.random.Generator
) -> Iterator[Integer[np.ndarray, "b t"]]:
    """Yield batches of random windows of the stream, one token longer than the context."""
    while True:
        starts = random.integers(len(stream) - rung.context, size=(rung.rows, 1))
        yield stream[starts + np.arange(rung.context + 1)]


def steps_within(seconds: float, rung: Rung, text: Text, seed: int) -> int:
    """The number of steps that fit into `seconds`, from the time of a few steps here.

    The clock has no other influence: the number of steps is fixed from then on.
    """
    _, history = fit(rung, text, steps=24, seed=seed, glances=1)
    # The first steps are slower, because they allocate memory.
    step = median(np.diff(history.seconds[1:]).tolist())
    return max(1, round(seconds / step))


def _check_length(text: Text, rungs: Sequence[Rung]) -> None:
    longest = max(rung.context for rung in rungs)
    if len(text.stream) <= longest:
        raise UserError(
            f"the training text has {len(text.stream)} {text.vocabulary.name}, and a network reads "
            f"{longest} at once; give longer text"
        )


def _curve(history: History) -> tuple[Point, ...]:
    return tuple(
        Point(step, history.seconds[step - 1], value) for step, value in history.evaluations.items()
    )


def _tell(result: Result) -> None:
    say(
        f"{result.vocabulary}  {result.name}  {np.mean(result.seconds):.1f} s  "
        f"{result.interval.estimate:.3f} bits per byte"
    )
