"""Runs every suite: each model is loaded once, measured, and released.

    report    what each training stage changed, on held-out data                `stages`
    core      six public benchmarks and bits per byte, for any model            `core`
    tuning    what fine-tuning on a domain gained and what it cost              `domain`
    values    utility, safety, fairness and honesty, for any model              `values.suite`

`harness_run` runs tasks of the lm-evaluation-harness separately.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.adapters.quantization import dequantize
from groundup.evals.config import EvalConfig, ModelsConfig
from groundup.evals.measure import Evaluated, Measure, Subject
from groundup.evals.models import Named, compute_of, located
from groundup.formats.load import load, require_finite
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute, prepare, restoring_torch


@dataclass(frozen=True)
class Prepared:
    """What a suite reads before it loads a model: facts for plan.json, and the material.

    `material(folder, tokenizer, context)` tokenizes the material, once for all models with the same
    tokenizer and context.
    """

    plan: Mapping[str, Any]
    material: Callable[[Path, Tokenizer, int], Any]


@dataclass(frozen=True)
class Suite:
    """A list of measures, the data they need, and the function that writes the results.

    `also` are measuring functions whose results are shown but not compared. `data` returns the
    folders that a report needs in addition to its models. `write` gets the folder, the settings,
    the models in order, the compute settings and the seconds; it returns a function that prints the
    summary when everything is finished.
    """

    name: str
    measures: Sequence[Measure[Any]]
    also: Sequence[Callable[[Subject], Any]]
    longest_context: int
    data: Callable[[Any], dict[str, Path]]
    prepare: Callable[[Any, Sequence[Path], Compute], Prepared]
    write: Callable[[Path, Any, Sequence[Evaluated], Compute, float], Callable[[], None]]
    unpack: bool = False
    """Whether quantized weights are dequantized once, which takes memory, or in every pass."""

    @property
    def measuring(self) -> list[Callable[[Subject], Any]]:
        """All measuring functions, each once."""
        return list(dict.fromkeys([*(one.measuring for one in self.measures), *self.also]))


@restoring_torch()
def run_suite(suite: Suite, config: EvalConfig | ModelsConfig) -> Path:
    """Measure `config.models` and return the folder with the page and all numbers.

    Raises `UserError` for missing models or data, and for a folder that cannot be written.
    """
    models = located(config.models)
    folders = {model.name: model.path for model in models}
    with Run.open(config.out, suite.name, config, folders | suite.data(config)) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        prepared = suite.prepare(config, list(folders.values()), compute)
        if run.resolved(dict) is None:
            run.plan({"compute": compute.to_json(), **prepared.plan})
        found = [measured(suite, config, model, prepared, compute) for model in models]
        seconds = time.monotonic() - begun
        conclude = suite.write(run.folder, config, found, compute, seconds)
        run.finish(seconds=time.monotonic() - begun)
        conclude()
        return run.folder


def measured(
    suite: Suite,
    config: EvalConfig | ModelsConfig,
    named: Named,
    prepared: Prepared,
    compute: Compute,
) -> Evaluated:
    """Load one model and run all measuring functions of the suite on it."""
    begun, spent = time.monotonic(), time.process_time()
    model, tokenizer = load(named.path)
    require_finite(model, named.source)
    if suite.unpack:
        dequantize(model, compute.torch_dtype)
    prepare(model, compute)
    model.eval()
    context = min(model.config.max_position_embeddings, suite.longest_context)
    subject = Subject(
        place=named.place,
        folder=named.path,
        history=History.of(named.path),
        model=model,
        tokenizer=tokenizer,
        context=context,
        material=prepared.material(named.path, tokenizer, context),
        config=config,
        compute=compute,
    )
    for measuring in suite.measuring:
        subject(measuring)
    seconds, cpu = time.monotonic() - begun, time.process_time() - spent
    say(f"{suite.name}  {named.name} measured in {seconds:.0f} s ({cpu:.0f} s of one core)")
    return Evaluated(
        name=named.name,
        source=named.source,
        folder=named.path,
        history=subject.history,
        parameters=model.config.parameters,
        context=context,
        material=subject.material,
        found=subject.found,
        seconds=seconds,
        cpu_seconds=cpu,
    )
