"""Does a fairness measure find a planted bias, and does alignment remove it?

The bias of real texts is unknown, so a fairness measure can hardly be checked on them. In the small
world the strength of the bias is a setting: jobs lean to women or men, and groups to good or bad
traits, by exactly that much. For each strength a small model is trained from random weights on such
a world (pre-training, then conversations, then preferences, which are balanced at every strength),
and the gap is measured after each stage (see `evals.fairness`). A valid measure rises with the
planted strength. Alignment that works lowers the size of the gap: a gap below 0 leans against the
planted bias, which is no fairer.

    OUT/models/STRENGTH      data, tokenizer and the model of each stage, from which a stopped
                             experiment resumes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from groundup.align import dpo
from groundup.align.config import DPOConfig
from groundup.data import build
from groundup.data import tokenizer as vocabulary
from groundup.data.config import DataConfig, TokenizerConfig
from groundup.evals.fairness import ANSWER, TEXT, Leanings, leanings
from groundup.experiments.config import PlantedBiasConfig
from groundup.formats.load import load
from groundup.maths.correlation import rank_correlation
from groundup.maths.intervals import Interval
from groundup.pretrain import stage as pretrain
from groundup.pretrain.config import PretrainConfig
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.plots import BASELINE, error_bars, looks, panels
from groundup.report.table import Table, number, text_table
from groundup.runs.console import say
from groundup.runs.files import read_json_object
from groundup.tune import sft
from groundup.tune.config import SFTConfig

NAME = "planted-bias"
QUESTION = (
    "Does the fairness measure find the planted bias, and does alignment on balanced preferences "
    "lower it?"
)
# A model that learns this in a minute or two, and each stage's share of that time.
_DEPTH, _WIDTH, _VOCABULARY = 3, 192, 2_048
_SHARES = {"base": 0.5, "sft": 0.3, "dpo": 0.2}
_STAGES = tuple(_SHARES)
# By default a sixth of the world's texts and a twentieth of its conversations are lives. From these
# so small a model learns the bias of jobs, but hardly that of groups.
_LIVES, _HALF = "world-lives", 0.5
KINDS = ("jobs", "groups")
# Approximately what such a model reads.
_MEGABYTES_A_MINUTE, _CONVERSATIONS_A_MINUTE, _PREFERENCES_A_MINUTE = 4.0, 6_000, 1_500


@dataclass(frozen=True)
class Strength:
    """A planted strength and the gap after each stage: by stage, then "jobs, as an answer"…

    `further` is the change of the gap's size by alignment on the same probes, and `steps` are the
    optimizer steps of each stage.
    """

    planted: float
    gaps: Mapping[str, Mapping[str, Estimate]]
    further: Mapping[str, Estimate]
    steps: Mapping[str, int]

    @classmethod
    def of(
        cls, planted: float, found: Mapping[str, Leanings], steps: Mapping[str, int]
    ) -> Strength:
        """Build it from the leanings measured after each stage."""
        gaps = {stage: one.gaps() for stage, one in found.items()}
        return cls(planted, gaps, found["dpo"].further(found["sft"]), steps)

    def gap(self, stage: str, kind: str) -> Interval:
        """The gap of a stage: of the base model in plain text, of the others in a chat."""
        found = self.gaps[stage][f"{kind}, {TEXT if stage == 'base' else ANSWER}"]
        return Interval(found.estimate, found.low, found.high)

    def aligned(self, kind: str) -> Estimate:
        """The change of the gap's size by alignment; below 0 it became smaller."""
        return self.further[f"{kind}, {ANSWER}"]

    def to_json(self) -> dict[str, Any]:
        stages = {
            stage: {name: gap.to_json() for name, gap in gaps.items()}
            for stage, gaps in self.gaps.items()
        }
        further = {name: change.to_json() for name, change in self.further.items()}
        return {**stages, "further": further, "steps": dict(self.steps)}


def run(config: PlantedBiasConfig) -> Path:
    """Train a model for each strength, measure the gap after each stage, and write the results.

    After a stop it resumes. Raises `UserError` for a folder with other files or other settings.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: PlantedBiasConfig) -> None:
    begun = perf_counter()
    found: list[Strength] = []
    first: Mapping[str, Path] | None = None
    for planted in config.strengths:
        folders = train(config, config.out / "models" / f"{planted:g}", planted, first)
        first = first or folders
        asked = {stage: _leanings(path, stage) for stage, path in folders.items()}
        steps = {stage: int(_plan(path)["steps"]) for stage, path in folders.items()}
        found.append(Strength.of(planted, asked, steps))
    write(
        config,
        NAME,
        QUESTION,
        tables=[table(found, kind) for kind in KINDS],
        plots=[plot(found)],
        remarks=remarks(found),
        data={f"{one.planted:g}": one.to_json() for one in found},
        pieces=("models", RESULT),
        seconds=perf_counter() - begun,
        planned_by_clock=True,
    )


def train(
    config: PlantedBiasConfig,
    folder: Path,
    planted: float,
    first: Mapping[str, Path] | None = None,
) -> dict[str, Path]:
    """Run all stages at one strength, and return the model folder of each stage.

    Every strength has the same seed, sizes and steps: minutes are converted to steps at the first
    one, and the others use the steps that `first`, its model folders, were planned with. Otherwise
    a strength that runs while the machine is slow would be trained less.
    """
    say(f"planted-bias  strength {planted:g}")
    minutes = 0.05 if config.quick else config.minutes / len(config.strengths)
    data = build.run(
        DataConfig(
            out=folder / "data",
            packs=("world",),
            bias=planted,
            seed=config.seed,
            world_megabytes=max(0.3, _MEGABYTES_A_MINUTE * minutes),
            world_conversations=max(500, round(_CONVERSATIONS_A_MINUTE * minutes)),
            world_preferences=max(200, round(_PREFERENCES_A_MINUTE * minutes)),
        )
    )
    tokenizer = vocabulary.run(
        TokenizerConfig(out=folder / "tokenizer", data=data, vocab_size=_VOCABULARY)
    )
    common: dict[str, Any] = {"data": data, "seed": config.seed, "compile": "off", "evaluations": 1}
    lengths: dict[str, dict[str, Any]] = {
        stage: {"minutes": minutes * share} if first is None else _length(first[stage])
        for stage, share in _SHARES.items()
    }
    base = pretrain.run(
        PretrainConfig(
            out=folder / "base",
            tokenizer=tokenizer,
            depth=_DEPTH,
            width=_WIDTH,
            mixture={_LIVES: (_HALF, _HALF)},
            **lengths["base"],
            **common,
        )
    )
    tuned = sft.run(
        SFTConfig(
            out=folder / "sft", model=base, mixture={_LIVES: _HALF}, **lengths["sft"], **common
        )
    )
    aligned = dpo.run(DPOConfig(out=folder / "dpo", model=tuned, **lengths["dpo"], **common))
    return dict(zip(_STAGES, (base, tuned, aligned), strict=True))


def _length(folder: Path) -> dict[str, Any]:
    """The settings for as many and as large steps as those of the run in `folder`."""
    plan = _plan(folder)
    return {"steps": plan["steps"], **(plan["layout"] or {})}


def _plan(folder: Path) -> dict[str, Any]:
    return read_json_object(folder / "plan.json")


def _leanings(folder: Path, stage: str) -> Leanings:
    model, tokenizer = load(folder)
    context = model.config.max_position_embeddings
    return leanings(model, tokenizer, context=context, chats=stage != "base")


def remarks(found: Sequence[Strength]) -> list[str]:
    """Sentences about the measure and about alignment."""
    said = []
    for kind in KINDS:
        *some, last = (f"{_correlation(found, stage, kind)} after {stage}" for stage in _STAGES)
        said.append(
            f"{kind}: the rank correlation of the measured gap with the planted strength is "
            f"{', '.join(some)} and {last}, over {len(found)} strengths."
        )
        changes = [one.aligned(kind) for one in found if one.planted > 0]
        said.append(
            f"{kind}: alignment on balanced preferences lowers the size of the gap at "
            f"{sum(change.estimate < 0 for change in changes)} of {len(changes)} strengths above "
            f"0; at {sum(change.high < 0 for change in changes)} the interval of the change, on "
            "the same probes, lies below 0."
        )
    return said


def _correlation(found: Sequence[Strength], stage: str, kind: str) -> str:
    """The correlation of measured and planted strength; none if all gaps are the same."""
    planted = np.array([one.planted for one in found])
    gaps = np.array([one.gap(stage, kind).estimate for one in found])
    if len(set(gaps)) == 1:
        return "none (all gaps are the same)"
    return f"{rank_correlation(planted, gaps):.2f}"


def table(found: Sequence[Strength], kind: str) -> Table:
    """The gap at every strength, stage by stage."""
    return text_table(
        f"Gap by {kind}",
        ("planted", *(f"after {stage}" for stage in _STAGES)),
        tuple(
            (f"{one.planted:.2f}", *(number(one.gap(stage, kind), 2) for stage in _STAGES))
            for one in found
        ),
        remarks=(
            "0 is fair, and a model that learned exactly what it read shows the planted strength. "
            "The base model reads plain text, the others answer in a chat. Intervals are 95 %, "
            "over jobs, and for the two groups over probes.",
        ),
    )


def plot(found: Sequence[Strength]) -> Plot:
    """Measured gap over planted strength, with one line per stage."""
    figure, [row] = panels(1, len(KINDS), width=9.0, height=3.8)
    planted = [one.planted for one in found]
    for axes, kind in zip(row, KINDS, strict=True):
        axes.plot(planted, planted, label="as planted", **BASELINE)
        for stage, drawn in looks(_STAGES).items():
            gaps = [one.gap(stage, kind) for one in found]
            middle = [gap.estimate for gap in gaps]
            bars = error_bars(gaps)
            axes.errorbar(planted, middle, yerr=bars, **drawn.both, capsize=3, label=stage)
        axes.set_title(kind)
        axes.set_xlabel("planted strength")
        axes.set_ylabel("measured gap")
        axes.legend(frameon=False, fontsize=8)
    caption = "The measured gap against the planted strength, after each stage."
    return Plot("gaps", caption, figure)
