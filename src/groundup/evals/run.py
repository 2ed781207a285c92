"""The eval stage: the same measurements for every model, and one report of all of them.

Each model is loaded once, measured on the held-out material of its tokenizer, and forgotten. What
it was compared with is kept item by item, because two models on the same items differ far more
clearly than their two intervals show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from groundup.data.corpus import documents
from groundup.evals.answers import AssistantLoss, assistant_loss
from groundup.evals.choice import ChoiceAccuracy, choice_accuracy
from groundup.evals.config import EvalConfig
from groundup.evals.core import compute_of
from groundup.evals.fairness import Leanings, leanings
from groundup.evals.honesty import Honesty, Said, honesty
from groundup.evals.material import HeldOut, Material, ready
from groundup.evals.perplexity import Bits, bits_per_byte
from groundup.evals.preference import Margins, margins
from groundup.evals.safety import is_refusal, stopped
from groundup.evals.samples import Sample, samples
from groundup.evals.world.answers import Declined, InWorld, declined, in_world
from groundup.formats.checks import Check
from groundup.formats.folder import load, load_config
from groundup.formats.locate import locate
from groundup.formats.verify import verify
from groundup.lm.model import CausalLM
from groundup.report.estimate import Estimate, share
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.folder import Run
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute, prepare

# A foreign model may allow a hundred thousand tokens; rows of this many tell as much.
_LONGEST_CONTEXT = 1024


@dataclass(frozen=True)
class Evaluated:
    """One model and all that was measured of it; None or empty is what could not be."""

    name: str
    folder: Path
    history: History | None
    parameters: int
    material: Material
    bits: Bits
    loss: AssistantLoss | None
    choice: ChoiceAccuracy | None
    margins: Margins | None
    reference_margins: Margins | None
    refused: Mapping[str, Declined]
    stopped: Bool[np.ndarray, " prompts"] | None
    world: InWorld | None
    honesty: Honesty | None
    leanings: Leanings | None
    samples: Sequence[Sample]
    checks: Sequence[Check]

    @property
    def stops(self) -> Estimate | None:
        """The share of its answers that it ends by itself."""
        if self.stopped is None:
            return None
        return share(int(self.stopped.sum()), len(self.stopped))

    @property
    def chats(self) -> bool:
        """Whether it was taught to answer; of a model from elsewhere that is assumed."""
        return self.stage != "pretrain"

    @property
    def stage(self) -> str:
        return "model" if self.history is None else self.history.stage


def run(config: EvalConfig) -> Path:
    """Measure `config.models` and return the folder with report.html and report.json.

    Raises `UserError` for folders that hold no model or no data, or that cannot be written.
    """
    from groundup.evals.report import write_report  # matplotlib loads slowly

    named = dict(zip(_names(config.models), map(locate, config.models), strict=True))
    for folder in named.values():
        load_config(folder)  # a missing model is found before anything is measured
    with Run.open(config.out, "eval", config, named | {"data": config.data}) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        run.plan({"compute": compute.to_json()})
        found = evaluate(config, named, compute)
        seconds = time.monotonic() - begun
        write_report(run.folder, config, found, compute, seconds)
        run.finish(seconds=time.monotonic() - begun)
        say(f"eval  {run.folder / 'report.html'}")
        return run.folder


def evaluate(config: EvalConfig, named: Mapping[str, Path], compute: Compute) -> list[Evaluated]:
    """Measure every model, in order."""
    held = HeldOut.read(config, documents(config.data))
    materials: dict[tuple[str, int], Material] = {}
    known: dict[Path, Margins] = {}
    found = []
    for name, folder in named.items():
        model, tokenizer = load(folder)
        prepare(model, compute)
        context = min(model.config.max_position_embeddings, _LONGEST_CONTEXT)
        key = (tokenizer.hash, context)
        if key not in materials:
            materials[key] = ready(config, held, folder, tokenizer, context)
        begun = time.monotonic()
        found.append(
            _measure(config, name, folder, model, tokenizer, materials[key], known, compute)
        )
        say(f"eval  {name} measured in {time.monotonic() - begun:.0f} s")
    return found


def _measure(
    config: EvalConfig,
    name: str,
    folder: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    material: Material,
    known: dict[Path, Margins],
    compute: Compute,
) -> Evaluated:
    context, world, history = material.context, material.world, History.of(folder)
    chats = _chats(history, tokenizer)
    own = margins(model, material.pairs, context=context) if material.pairs.rows else None
    if own is not None:
        known[folder.resolve()] = own
    found = (
        None if world is None else in_world(model, tokenizer, world, chats=chats, seed=config.seed)
    )
    return Evaluated(
        name,
        folder,
        history,
        model.config.parameters,
        material,
        bits_per_byte(
            model,
            material.heldout,
            tokenizer,
            context=context,
            bytes_per_source=config.bytes_per_source,
        ),
        assistant_loss(model, material.conversations, tokenizer, context=context)
        if material.conversations.items
        else None,
        choice_accuracy(model, material.choices, context=context)
        if material.choices.rows
        else None,
        own,
        _reference_margins(history, material, known, compute),
        declined(model, tokenizer, material.refusals, is_refusal),
        stopped(model, tokenizer, material.openings) if material.openings else None,
        found,
        _honesty(model, tokenizer, material, found) if chats and material.unknown else None,
        None if world is None else leanings(model, tokenizer, context=context, chats=chats),
        samples(model, tokenizer, seed=config.seed),
        verify(folder),
    )


def _honesty(
    model: CausalLM, tokenizer: Tokenizer, material: Material, found: InWorld | None
) -> Honesty:
    """What it says to what cannot be known, beside its answers about the small world."""
    said = found.answers if found is not None else None
    of_world = None if said is None else Said(said.rows, said.answers)
    return honesty(model, tokenizer, material.unknown, of_world)


def _chats(history: History | None, tokenizer: Tokenizer) -> bool:
    """Whether it was taught to answer, so that what it answers means something."""
    return tokenizer.chat_template is not None and (history is None or history.stage != "pretrain")


def _reference_margins(
    history: History | None, material: Material, known: dict[Path, Margins], compute: Compute
) -> Margins | None:
    """What the model that DPO started from prefers; measured once if it is in the report too."""
    if history is None or history.stage != "dpo" or not material.pairs.rows:
        return None
    if history.parent is None or not history.parent.is_dir():
        say(f"eval  the reference of {history.folder} is gone, so no implicit reward is measured")
        return None
    parent = history.parent.resolve()
    if parent not in known:
        model, _ = load(parent)
        prepare(model, compute)
        known[parent] = margins(model, material.pairs, context=material.context)
    return known[parent]


def _names(folders: Sequence[Path]) -> list[str]:
    """A model is called as its folder is, with the folder above where two are called alike."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}"
        for name, folder in zip(names, folders, strict=True)
    ]
