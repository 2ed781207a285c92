"""The one runner of all suites: each model is loaded once, measured, and forgotten.

    report    what each training stage brought, on what the data holds out      `stages`
    core      six public benchmarks and bits per byte, for any model            `core`
    tuning    what fine-tuning on a domain brought, and what was forgotten      `domain`

A suite is told by its settings. Tasks of the lm-evaluation-harness have a runner of their own
(`harness_run`).
"""

from __future__ import annotations

import time
from pathlib import Path

from groundup.adapters.quantised import dequantise
from groundup.evals.config import CoreConfig, EvalConfig, ModelsConfig, TuningReportConfig
from groundup.evals.core_report import CORE
from groundup.evals.domain.report import TUNING
from groundup.evals.measure import Evaluated, Prepared, Subject, Suite
from groundup.evals.models import compute_of, located
from groundup.evals.stages.report import REPORT
from groundup.formats.folder import load
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.train.device import Compute, prepare

SUITES: dict[type, Suite] = {EvalConfig: REPORT, CoreConfig: CORE, TuningReportConfig: TUNING}


def run(config: EvalConfig | ModelsConfig) -> Path:
    """Measure `config.models` and return the folder with the page and all numbers.

    Raises `UserError` for models or data that are not there, and a folder that cannot be written.
    """
    suite = SUITES[type(config)]
    models = located(config.models)
    folders = {name: path for name, (_, path) in models.items()}
    with Run.open(config.out, suite.name, config, folders | suite.data(config)) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        prepared = suite.prepare(config, list(folders.values()), compute)
        run.plan({"compute": compute.to_json(), **prepared.plan})
        found = [
            measured(suite, config, place, name, source, path, prepared, compute)
            for place, (name, (source, path)) in enumerate(models.items())
        ]
        seconds = time.monotonic() - begun
        conclude = suite.write(run.folder, config, found, compute, seconds)
        run.finish(seconds=time.monotonic() - begun)
        conclude()
        return run.folder


def measured(
    suite: Suite,
    config: EvalConfig | ModelsConfig,
    place: int,
    name: str,
    source: str,
    path: Path,
    prepared: Prepared,
    compute: Compute,
) -> Evaluated:
    """All that a suite measures of one model."""
    begun, spent = time.monotonic(), time.process_time()
    model, tokenizer = load(path)
    if suite.unpack:
        dequantise(model, compute.torch_dtype)
    prepare(model, compute)
    model.eval()
    context = min(model.config.max_position_embeddings, suite.longest_context)
    material, history = prepared.material(path, tokenizer, context), History.of(path)
    subject = Subject(
        place, name, path, history, model, tokenizer, context, material, config, compute
    )
    for measuring in suite.measuring:
        subject(measuring)
    seconds, cpu = time.monotonic() - begun, time.process_time() - spent
    say(f"{suite.name}  {name} measured in {seconds:.0f} s ({cpu:.0f} s of one core)")
    return Evaluated(
        name=name,
        source=source,
        folder=path,
        history=history,
        parameters=model.config.parameters,
        context=context,
        material=material,
        found=subject.found,
        seconds=seconds,
        cpu_seconds=cpu,
    )
