"""`data list`, `pull`, `show` and `inspect`: data sets by name, and the user's own data."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.app.commands.options import RUNS, Force, checked, help_text, option_name
from groundup.app.recipe_folder import find_data, find_model
from groundup.app.settings import configured
from groundup.data.config import DataConfig
from groundup.data.packs.manifest import Archive
from groundup.errors import UserError
from groundup.formats.locate import is_named
from groundup.runs.console import say
from groundup.train import ranges
from groundup.tune.config import SFTConfig


def data_list() -> None:
    """List every data set and model with its description, size, license and citation."""
    from groundup.data.packs.fetch import is_cached
    from groundup.data.packs.manifest import (
        IMAGES,
        LEXICONS,
        MODELS,
        SETS,
        GeneratedSet,
        every_set,
    )

    pulled = (*every_set(), *IMAGES, *LEXICONS)
    for one in (*pulled, *MODELS):
        if isinstance(one, GeneratedSet):
            size, origin = "any size", "synthetic: made by a program"
        else:
            # The smallest have a few kilobytes, which would round to 0.0 MB.
            size = f"{one.size / 1e6:.1f} MB" if one.size >= 5e4 else f"{one.size / 1e3:.0f} KB"
            origin = "cached" if is_cached(one.name) else "not cached"
        kind = "a model, " if one in MODELS else ""
        say(f"{one.name:<14} {size:>8}  {one.license:<13} {kind}{origin}")
        for text in (one.about, one.citation):
            say(textwrap.indent(textwrap.fill(text, _width() - 4), "    "))
    say("")
    archives = {one.archive for one in pulled if not isinstance(one, GeneratedSet)}
    quickstart = {one.archive for one in SETS}
    say(
        f"groundup data pull downloads {len(archives)} files ({_megabytes(archives)} in total); "
        f"the quickstart needs {len(quickstart)} of them ({_megabytes(quickstart)})."
    )
    models = ", ".join(f"groundup chat pack:{one.name}" for one in MODELS)
    say(f"Use a model by its name: {models}")
    from groundup.runs.cache import cache_folder

    say(f"The cache is {cache_folder()} (GROUNDUP_CACHE changes it).")


def _megabytes(archives: Iterable[Archive]) -> str:
    return f"{sum(one.size for one in archives) / 1e6:.0f} MB"


def _width() -> int:
    # Longer lines are hard to read.
    return min(100, shutil.get_terminal_size().columns)


@checked
def data_pull(
    *names: Annotated[
        str,
        Parameter(
            help="names of data sets and models (default: all data sets, no models)", negative=""
        ),
    ],
) -> None:
    """Download data sets and models."""
    from groundup.data.packs.fetch import pull, pull_model
    from groundup.data.packs.manifest import (
        IMAGES,
        LEXICONS,
        MODELS,
        GeneratedSet,
        ModelPack,
        every_set,
        find_pack,
    )

    for one in [find_pack(name) for name in names] or (*every_set(), *IMAGES, *LEXICONS):
        if isinstance(one, GeneratedSet):
            say(f"{one.name}: generated on this machine, nothing to download")
            continue
        is_model = isinstance(one, ModelPack)
        path = pull_model(one.name, say) if is_model else pull(one.name, say)
        say(f"{one.name}: in the cache, {path.stat().st_size / 1e6:.1f} MB, {one.license}")
        if is_model:
            say(f"talk with it: groundup chat pack:{one.name}")
    if not names:
        models = ", ".join(f"groundup data pull {one.name}" for one in MODELS)
        say(f"Models are downloaded only by name: {models}")


_DATA = DataConfig.model_fields


@checked
def data_show(
    name: Annotated[str, Parameter(help="a data set's name, as groundup data list shows it")],
    /,
    *,
    number: Annotated[
        ranges.SamplesShown, Parameter(name=("--number", "-n"), help="how many samples")
    ] = 5,
    seed: Annotated[ranges.Seed, Parameter(help=_DATA["seed"].description)] = _DATA["seed"].default,
    bias: Annotated[ranges.Share, Parameter(help=help_text(_DATA["bias"]))] = _DATA["bias"].default,
    heldout: Annotated[
        bool, Parameter(negative="", show_default=False, help="show the held-out part")
    ] = False,
) -> None:
    """Print samples of a data set, as a model reads them."""
    from groundup.data.packs.manifest import EVALUATION, find_set

    packs = [find_set(name).name]
    if bias != _DATA["bias"].default and packs != ["world"]:
        raise UserError(f"--bias applies to the set world, not to {packs[0]}; leave it out")
    config = configured(
        DataConfig, {"out": RUNS, "packs": packs, "seed": seed, "bias": bias}, option_name
    )
    from groundup.data.samples import lines, samples

    # Evaluation sets have only a held-out part.
    heldout = heldout or name in {one.name for one in EVALUATION}
    for row in samples(config, number, heldout=heldout):
        say(f"── {row.source} · {type(row).__name__.lower()} ──")
        for label, text in lines(row):
            say(f"{label}:")
            for paragraph in text.split("\n"):
                say(textwrap.indent(textwrap.fill(paragraph, _width() - 4), "    "))
        say("")


_SFT = SFTConfig.model_fields


@checked
def data_inspect(
    *files: Annotated[str, Parameter(help=_SFT["data"].description, negative="")],
    model: Annotated[
        Path, Parameter(help="the model whose tokenizer and chat template are used")
    ] = Path("pack:smollm2"),
    context: Annotated[ranges.Context | None, Parameter(help=_SFT["context"].description)] = None,
    columns: Annotated[
        tuple[str, ...],
        Parameter(
            help=_SFT["columns"].description,
            negative="",
            consume_multiple=True,
            show_default=False,
        ),
    ] = (),
    validation: Annotated[
        ranges.ShareBelowOne | None, Parameter(help=help_text(_SFT["validation"]))
    ] = None,
    examples: Annotated[ranges.Shown, Parameter(help="how many rows to show, token by token")] = 3,
    html: Annotated[Path | None, Parameter(help="also write a page to this file")] = None,
    force: Force = False,
) -> None:
    """Show how a model would read the user's own data: counts, errors and tokens."""
    if not files:
        raise UserError("there is no file to inspect; name one: groundup data inspect my.jsonl")
    settings = {"out": RUNS, "model": model, "data": files, "columns": columns}
    settings |= {"context": context, "validation": validation}
    config = configured(SFTConfig, settings, option_name)
    folder = find_model(model)
    files = tuple(one if is_named(one) else str(find_data(Path(one))) for one in files)
    from groundup.app.inspection import inspect

    inspect(files, config, str(model), folder, examples=examples, html=html, force=force)
