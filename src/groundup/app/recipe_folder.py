"""A recipe's output folder: the recipe it was started with, and the model or data in it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.app.stages import STAGES, Stage
from groundup.data.packs.manifest import HUB, MODELS, PACK
from groundup.errors import UserError, nearest
from groundup.formats.locate import holds_model, is_gguf, locate
from groundup.runs.request import read_run
from groundup.train.ranges import check_text

FILE = "recipe.toml"
COPY = f".{FILE}.copy"
# More repetitions than any experiment needs.
MAX_SEEDS = 100


def is_begun(out: Path) -> bool:
    return (out / FILE).is_file() or (out / COPY).is_file()


def begun_with(out: Path) -> dict[str, dict[str, Any]]:
    """Return the recipe that `out` was started with. Raises `UserError` if it is damaged."""
    for file in (out / FILE, out / COPY):
        tables = read_tables(file)
        if tables is not None:
            return tables
    raise UserError(
        f"{str(out / FILE)!r} is not a recipe; put the folder's recipe back, or choose another "
        "folder with --out"
    )


def read_tables(file: Path) -> dict[str, dict[str, Any]] | None:
    """Return the tables of a recipe file; None for any other file."""
    try:
        found = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if found and all(isinstance(one, dict) for one in found.values()) else None


def runs_of(title: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a table's runs: its own or, with `seeds`, one for each seed from 0."""
    seeds = table.get("seeds")
    # `read_recipe` reports a wrong value; a folder's copy may contain anything.
    if isinstance(seeds, int) and 2 <= seeds <= MAX_SEEDS:
        return tuple(f"{title}-{seed}" for seed in range(seeds))
    return (title,)


def find_model(path: Path | str, of_data: str = "give data with --data") -> Path:
    """Return the model that `path` refers to: a model's name, its folder or file, or a recipe's
    output.

    Of a recipe's finished models, it is the last that was trained to answer, else the last. Raises
    `UserError` if there is none; `of_data` tells the user where data are given.
    """
    check_text("the model's name", Path(path))
    path = locate(path)
    if holds_model(path) or (path.is_file() and is_gguf(path)):
        return path
    if not path.exists():
        raise UserError(f"there is no model folder {str(path)!r}; {_suggestion(path)}")
    if not path.is_dir():
        around = path.absolute().parent
        if holds_model(around) or is_begun(around):
            remedy = f"give the folder around it: {str(path.parent)!r}"
        else:
            remedy = f"give the folder of a model; {of_data}"
        raise UserError(f"{str(path)!r} is a file, not a model folder; {remedy}")
    if not is_begun(path):
        from groundup.data.dataset import is_stage  # late: it loads the readers of data

        if is_stage(path):
            raise UserError(f"{str(path)!r} is a folder of data; give the folder of a model here")
        if _is_run_of_model(path):
            raise UserError(
                f"the run in {str(path)!r} has no model yet; "
                "rerun the command that started it to continue"
            )
        inside = sorted(p.name for p in path.glob("*") if holds_model(p))
        remedy = f"give one inside it: {', '.join(inside)}" if inside else "check its name"
        raise UserError(f"the folder {str(path)!r} contains no model (config.json); {remedy}")
    models = [
        (stage.chats, place, title)
        for place, (title, stage) in enumerate(_stages(path))
        if holds_model(path / title)
    ]
    if not models:
        raise UserError(
            f"the recipe in {str(path)!r} has no finished model yet; "
            "rerun the command that started it to continue"
        )
    return path / max(models)[2]


def _is_run_of_model(path: Path) -> bool:
    """Whether a stage that makes a model has begun in a folder."""
    with suppress(UserError):  # no run, or a damaged one
        stage = STAGES.get(str(read_run(path).get("stage")))
        return stage is not None and stage.makes == "model"
    return False


def _suggestion(path: Path) -> str:
    """A hint at an existing model with a similar name."""
    models = {one.name: f"{PACK}{one.name}" for one in MODELS}
    with suppress(OSError):  # the folder may be unreadable
        inside = path.parent.iterdir() if path.parent.is_dir() else ()
        models |= {one.name: str(one) for one in inside if holds_model(one) or is_begun(one)}
    near = path.name if path.name in models else nearest(path.name, models)
    if near is not None:
        return f"did you mean {models[near]!r}?"
    if len(path.parts) == 2 and not path.parent.exists():
        return f"check its name; a model on Hugging Face's hub is {HUB}{path}"
    return "check its name"


def find_data(path: Path) -> Path:
    """Return the data that `path` refers to: `path` itself, or the first data in a recipe's output.

    Raises `UserError` if the recipe has made no data yet.
    """
    if not path.is_dir() or not is_begun(path):
        return path
    data = [path / name for name, stage in _stages(path) if stage.makes == "data"]
    made = next((one for one in data if (one / "data.json").is_file()), None)
    if made is None:
        remedy = "rerun the command that started it to continue"
        if not data:
            remedy = "it makes none itself: give the data that it reads"
        raise UserError(f"the recipe in {str(path)!r} has made no data yet; {remedy}")
    return made


def _stages(path: Path) -> list[tuple[str, Stage]]:
    """The runs of the recipe in a folder, in order, each with its stage."""
    found = (
        (name, STAGES.get(str(table.get("stage", title))))
        for title, table in begun_with(path).items()
        for name in runs_of(title, table)
    )
    return [(name, stage) for name, stage in found if stage is not None]
