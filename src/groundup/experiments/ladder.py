"""The ladder of language models: each rung an idea, all on one text, with one training time.

Counting came first: a table of pairs, then long contexts blended with short ones (Kneser and Ney
1995). Networks replaced the table by a function, which has something to say of contexts that were
never seen: Bengio's (2003) of the last few words, recurrent ones of everything so far, and the
transformer, which reads all of its context at once. In the history of the field each rung beat the
one below it, given data and compute. Here every network has the same short time on one small
machine, so the order is a question and no promise, and the report says what came out.

Everything runs on the NumPy engine of `maths` and `nn`. What is held out are whole documents, and
what is compared is bits per byte, whatever the tokens.
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
from groundup.report.outcome import check_folder
from groundup.runs.console import say
from groundup.text.rows import Document

NAME = "ladder"


@dataclass(frozen=True)
class Rung:
    """A network and how it is trained: `rows` windows of `context` tokens a step."""

    name: str
    network: Callable[[int, np.random.Generator], Module]
    """Makes one for so many tokens in the vocabulary, its first weights drawn from a generator."""
    context: int
    rows: int
    rate: float


@dataclass(frozen=True)
class Size:
    """How large a ladder is: its networks, and bytes of text (None: all) for each purpose."""

    of_characters: tuple[Rung, ...]
    of_tokens: tuple[Rung, ...]
    train: int | None
    heldout: int
    glance: int
    """Held-out text for the learning curves, measured `glances` times in a training."""
    glances: int
    sample: int


# From short sweeps on the pack `sotu`, some 20 seconds on one core each, judged by the first 40 KB
# of the held-out text, which are part of what is reported. In so short a time many small steps are
# worth more than large batches and wide layers. A recurrent network takes its context one token
# after the other, so that there a short one is worth it too. Wherever 1.5 to 2 times a rate was
# tried, it did worse.
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
    # A token that is measured costs a third of one that is trained on, and windows overlap by
    # half, so that all that is measured takes about half as long as the training.
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
    """The text in one vocabulary: to train on, to measure, to glance at on the way, to continue."""

    vocabulary: Vocabulary
    documents: Sequence[Document]
    stream: Integer[np.ndarray, "n"]
    heldout: HeldOut
    glance: HeldOut
    sample: Callable[[LanguageModel], str]
    """What a model says when it goes on from the prompt."""

    def part(self, share: float) -> Text:
        """This text with about this share of its training documents, taken from all over them."""
        total = len(self.documents)
        count = max(1, round(share * total))
        part = [self.documents[i * total // count] for i in range(count)]
        return replace(self, documents=part, stream=self.vocabulary.stream(part))


def run(config: LadderConfig) -> Path:
    """Climb the ladder in characters and in BPE tokens; return the folder of the report.

    Errors: `UserError` for text that cannot be had or read, and for a folder of something else.
    """
    check_folder(config.out, NAME)
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
        say_on = partial(
            sample,
            vocabulary=vocabulary,
            prompt=config.prompt,
            size=size.sample,
            seed=config.seed,
        )
        text = Text(vocabulary, documents, vocabulary.stream(documents), heldout, glance, say_on)
        results += climb(text, rungs, config, size.glances)
    return write_report(config, NAME, results, time.perf_counter() - begun)


def climb(
    text: Text, rungs: Sequence[Rung], config: LadderConfig, glances: int
) -> Iterator[Result]:
    """Measure every rung in one vocabulary, from knowing nothing to GPT."""
    _check_length(text, rungs)
    yield untrained(text)
    yield counted("counted pairs", partial(AddK.fit, order=2), text)
    five = partial(KneserNey.fit, order=5)
    yield counted("5-gram Kneser-Ney", five, text)
    trainings = 2 * len(rungs) * config.seeds  # in two vocabularies
    part = 60 * config.minutes / trainings
    networks = [learned(rung, text, part, config, glances) for rung in rungs]
    yield from networks
    # Networks read little in this time. What would counting make of as little?
    best = min(networks, key=lambda result: result.by_seed.estimate)
    if (share := best.tokens / len(text.stream)) < 1:
        yield counted("5-gram on less text", five, text.part(share), "less text")


# What needs no gradient


def untrained(text: Text) -> Result:
    """Every token equally likely: the line that any learning must leave behind."""
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


# What is learned


def learned(rung: Rung, text: Text, seconds: float, config: LadderConfig, glances: int) -> Result:
    """Train a network anew for each seed, about `seconds` long and with equally many steps."""
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
    """One network, trained on random windows with AdamW, a short warm-up and half a cosine."""
    network = rung.network(len(text.vocabulary), np.random.default_rng([seed, 0]))
    optimizer = AdamW(network.parameters(), rung.rate, betas=(0.9, 0.99), weight_decay=0.1)
    warmup = max(1, int(_WARMUP * steps))
    history = train(
        network,
        windows(text.stream, rung, np.random.default_rng([seed, 1])),
        next_token_loss,
        optimizer,
        steps=steps,
        # The floor would come one step after the last, which is not to be wasted.
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
    """Batches of windows from anywhere in the stream, one token longer than the context."""
    while True:
        starts = random.integers(len(stream) - rung.context, size=(rung.rows, 1))
        yield stream[starts + np.arange(rung.context + 1)]


def steps_within(seconds: float, rung: Rung, text: Text, seed: int) -> int:
    """How many steps fit into `seconds`, by the time that a few take here.

    The clock has no other say: from here on the number of steps is fixed.
    """
    _, history = fit(rung, text, steps=24, seed=seed, glances=1)
    # The first steps fetch memory that the later ones find ready.
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
