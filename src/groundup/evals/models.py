"""Locates and names the models that a suite is given, and chooses how they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.evals.config import EvalConfig, ModelsConfig
from groundup.formats.load import require_weights
from groundup.formats.locate import is_named, locate, name_of, short_name
from groundup.train.config import TrainingConfig
from groundup.train.device import Compute, resolve


@dataclass(frozen=True)
class Named:
    """A model: its place among those given, its name, its source, its folder or file."""

    place: int
    name: str
    source: str
    path: Path


def located(given: Sequence[Path | str]) -> list[Named]:
    """Locate every model before anything is measured."""
    paths = [locate(source) for source in given]
    for path in paths:
        require_weights(path)
    # The command line has already resolved packs to paths; users know them by name.
    sources = [
        str(source) if is_named(source) else name_of(path)
        for source, path in zip(given, paths, strict=True)
    ]
    rows = zip(model_names(sources, paths), sources, paths, strict=True)
    return [Named(place, *row) for place, row in enumerate(rows)]


def model_names(sources: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Short names of folders, files or packs; the full source where two would be equal."""
    short = [short_name(*both) for both in zip(sources, paths, strict=True)]
    names = [
        name if short.count(name) == 1 else source
        for name, source in zip(short, sources, strict=True)
    ]
    return [f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names, start=1)]


def compute_of(config: EvalConfig | ModelsConfig) -> Compute:
    """Eager mode: every batch has its own shape here, and compiling each would cost more."""
    same = config.model_dump(include={"out", "device", "dtype", "threads"})
    wanted = TrainingConfig.model_validate({**same, "compile": "off"})
    return resolve(wanted, compile_by_default=False)
