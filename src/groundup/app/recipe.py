"""A recipe is a sequence of runs in one TOML file.

    [base]                      a table is a run, and its name is the folder
    stage = "pretrain"          the stage (default: the table's name)
    from = "tokenizer"          an earlier table, a folder or pack:name (default: the table before)
    data = "data"               further inputs by name, or a part of one: "best-of-16/random";
                                everything else is a setting of the stage
    seeds = 3                   three runs, base-0 to base-2, which differ only in the seed

The file is read and checked as a whole before anything runs. Then the tables run in order, each in
its own folder under one `out`. Finished runs are skipped and unfinished ones are resumed, so the
same command always completes the recipe.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from groundup.app.recipe_folder import MAX_SEEDS, find_data, find_model, runs_of
from groundup.app.settings import configured
from groundup.app.stages import GUARDS, INPUTS, REWARDS, STAGES, Stage
from groundup.data.packs.manifest import HUB, PACK, find_set
from groundup.errors import UserError, known_names
from groundup.formats.locate import TOKENIZER, check_named, is_named
from groundup.train.config import StageConfig
from groundup.train.ranges import check_text

_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_HEADER = re.compile(r"""\[\s*(["']?)([A-Za-z0-9_-]+)\1\s*\]\s*(#.*)?""")


@dataclass(frozen=True)
class Table:
    """One run of a recipe.

    `settings` are the stage's settings. `inputs` say where its inputs are: the name of an earlier
    table, an absolute path, or a model's name (`pack:smollm2`, `hub:owner/name`).
    """

    name: str
    stage: Stage
    settings: Mapping[str, Any]
    inputs: Mapping[str, str | tuple[str, ...]]

    def config(self, out: Path) -> StageConfig:
        """The stage's config with `out` as the folder of the whole recipe. Raises `UserError`."""
        inputs = {
            field: _placed(out, at) if isinstance(at, str) else [_placed(out, one) for one in at]
            for field, at in self.inputs.items()
        }
        values = {**self.settings, **inputs, "out": str(out / self.name)}
        return configured(
            self.stage.config, values, lambda field: f"[{self.name}] {field}", f"[{self.name}] "
        )


def _placed(out: Path, at: str) -> str:
    """Return an input's place in the recipe's folder; names of models stay names."""
    # In pathlib, `out / path` is `path` itself if that is absolute.
    return at if is_named(at) else str(out / at)


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and checked; `text` is the file's content.

    `file` is the file's path, None for a recipe that comes with the package.
    """

    name: str
    text: str
    tables: tuple[Table, ...]
    file: Path | None = None

    @property
    def chat_table(self) -> Table | None:
        """The table whose model is used to chat: the last that was trained to answer."""
        return next((table for table in reversed(self.tables) if table.stage.chats), None)


# Reading.


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    files = resources.files("groundup.app.recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def shipped_text(name: str) -> str:
    """The text of a recipe that comes with the package."""
    file = resources.files("groundup.app.recipes") / f"{name}.toml"
    return file.read_text(encoding="utf-8")


def read_recipe(source: Path | str, seed: int | None = None) -> Recipe:
    """Read a recipe from a file, or by the name of one that comes with the package.

    Folders in it are relative to the file's folder. `seed` is written into every table that sets
    no seed. Raises `UserError` for everything that would not run: syntax errors, unknown tables and
    settings, wrong values, inputs that do not exist or do not fit.
    """
    path = Path(source)
    check_text("the recipe's name", path)
    if str(source) in shipped() and not path.is_file():
        return _recipe(str(source), shipped_text(str(source)), Path(), seed)
    return replace(_recipe(path.stem, _read(path), path.parent, seed), file=path)


def _read(path: Path) -> str:
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give the recipe's .toml file")
    if path.is_char_device():  # may be endless
        raise UserError(f"{str(path)!r} is a device; give the recipe's .toml file")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"there is no recipe file {str(path)!r}; "
            f"{known_names(str(path), shipped(), 'the recipes that come with groundup are')}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{str(path)!r} is not text in UTF-8 (byte {error.start}); a recipe is a TOML file"
        ) from None
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); check its name and permissions"
        ) from None


def _recipe(name: str, text: str, folder: Path, seed: int | None = None) -> Recipe:
    try:
        contents = tomllib.loads(text)
    except RecursionError:
        raise UserError(
            f"recipe {name!r} is not a recipe: nested too deeply; write tables of plain settings"
        ) from None
    except ValueError as error:  # also for a number with thousands of digits
        # tomllib names a duplicate table as a Python tuple.
        why = re.sub(r"\(((?:'[^']*',? ?)+)\)", lambda m: m[1].rstrip(", "), str(error))
        raise UserError(f"recipe {name!r} is not valid TOML: {why}; correct that place") from None
    if not contents:
        raise UserError(f"recipe {name!r} is empty; give it a table, such as [tokenizer]")
    if seed is not None:
        text, contents = _seeded(name, text, contents, seed)
    tables: list[Table] = []
    groups: dict[str, tuple[str, ...]] = {}
    for title, values in contents.items():
        if not isinstance(values, dict):
            raise UserError(
                f"{title} in recipe {name!r} is not in a table; put settings under the table that "
                "they belong to, such as [base]"
            )
        later = tuple(contents)[tuple(contents).index(title) + 1 :]
        runs = _runs(title, values)
        for table in tables:
            if table.name in runs:
                raise UserError(
                    f"[{table.name}] occurs twice, as a table and by a table's seeds; rename it"
                )
        for run, settings in runs.items():
            earlier = {table.name: table for table in tables if table.name not in runs}
            tables += _table(run, settings, earlier, groups, later, folder)
        groups[title] = tuple(runs)
    _check_rewards(tables, folder)
    return Recipe(name, text, tuple(tables))


def _seeded(
    name: str, text: str, contents: Mapping[str, Any], seed: int
) -> tuple[str, dict[str, Any]]:
    """The recipe's text and tables, with this seed in every table that sets none."""
    unset = {
        title
        for title, values in contents.items()
        if isinstance(values, dict) and not {"seed", "seeds"} & values.keys()
    }
    wanted = {
        title: {"seed": seed, **values} if title in unset else values
        for title, values in contents.items()
    }
    lines = []
    for line in text.split("\n"):
        header = _HEADER.fullmatch(line.strip())
        lines += [line, f"seed = {seed}"] if header and header[2] in unset else [line]
    seeded = "\n".join(lines)
    # A table may be written in other ways, and a text may contain what looks like a table.
    with suppress(ValueError):
        if tomllib.loads(seeded) == wanted:
            return seeded, wanted
    raise UserError(
        f"--seed={seed} cannot be written into recipe {name!r}, as not all of its tables begin "
        f"with a line such as [{next(iter(contents))}]; set seed = {seed} in each table instead"
    )


def _runs(title: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs of a table by name: the table itself or, with `seeds`, one for each seed."""
    if "seeds" not in values:
        return {title: dict(values)}
    seeds = values["seeds"]
    if type(seeds) is not int or not 2 <= seeds <= MAX_SEEDS:
        raise UserError(
            f"[{title}] seeds={seeds!r} must be a whole number from 2 to {MAX_SEEDS}, the number "
            "of runs; leave it out for one run"
        )
    if "seed" in values:
        raise UserError(f"[{title}] has both seed and seeds, which both set the seed; keep one")
    settings = {name: value for name, value in values.items() if name != "seeds"}
    settings.setdefault("stage", title)
    return {run: settings | {"seed": seed} for seed, run in enumerate(runs_of(title, values))}


def _table(
    title: str,
    values: Mapping[str, Any],
    earlier: Mapping[str, Table],
    groups: Mapping[str, tuple[str, ...]],
    later: tuple[str, ...],
    folder: Path,
) -> list[Table]:
    """Return the checked table, after the tables that its packs become."""
    # Imported late: every start of the command loads this module.
    from groundup.align.rewards.verifiers import is_verifier

    if not _TABLE_NAME.fullmatch(title):
        raise UserError(
            f"[{title}] cannot name a folder; use letters, digits, '-' and '_', such as [base]"
        )
    stage = _stage(title, values)
    if "out" in values:
        raise UserError(f"[{title}] sets out, but its folder is the table's name; remove out")
    inputs = _inputs(title, stage, values, groups)
    for field in [field for field in inputs if INPUTS[field] == REWARDS]:
        # A verifier or a function is an ordinary setting; a critic is a model's folder.
        named = inputs[field]
        if isinstance(named, str) and named.startswith("ensemble:"):
            raise UserError(
                f"[{title}] {field}={named!r}: a recipe takes one reward model; give its table or "
                f"folder, or train with several by groundup {stage.command} --{field} {named}"
            )
        checks = isinstance(named, str) and (":" in named or is_verifier(named))
        tables = (*earlier, *groups, *later, title)
        is_folder = field == "critic" or named in tables or os.path.exists(folder / named)
        if checks and not is_folder:
            del inputs[field]
    packs: dict[str, Table] = {}
    found: dict[str, str | tuple[str, ...]] = {}
    for field, named in inputs.items():
        # In a list, a table with seeds stands for all of its runs.
        several = (
            (named,)
            if isinstance(named, str)
            else tuple(run for one in named for run in groups.get(one, (one,)))
        )
        written = "from" if "from" in values and field == stage.start else field
        at = tuple(
            _locate(_Reference(title, field, one, written), earlier, groups, later, folder, packs)
            for one in several
        )
        found[field] = at[0] if isinstance(named, str) else at
    settings = {k: v for k, v in values.items() if k not in {"stage", "from", *inputs}}
    table = Table(title, stage, settings, found)
    table.config(Path())
    for pack in settings.get("packs", ()):
        _data_set(f"[{title}] packs", pack)
    return [*packs.values(), table]


def _data_set(place: str, name: str) -> str:
    """The name of an existing data set; an error message begins with `place`."""
    try:
        return find_set(name).name
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _check_rewards(tables: Sequence[Table], folder: Path) -> None:
    """Raise `UserError` for invalid verifiers and for functions that do not exist.

    A user's module is imported for this, in a separate process.
    """
    from groundup.align.rewards.verifiers import module_search_path, open_reward

    named = {
        table.settings[field]: f"[{table.name}] {field}"
        for table in reversed(tables)
        for field in table.stage.inputs
        if INPUTS[field] == REWARDS and field in table.settings
    }
    named.pop("sentiment", None)  # its lexicon is downloaded when it is used
    # A script imported for its reward may read its recipe, which would recurse forever.
    if os.environ.get("GROUNDUP_IMPORTS_REWARD"):
        return
    with module_search_path(folder):
        for reward, place in named.items():
            try:
                open_reward(reward)
            except UserError as error:
                raise UserError(f"{place}: {error}") from None


def _stage(title: str, values: Mapping[str, Any]) -> Stage:
    name = values.get("stage", title)
    if isinstance(name, str) and name in STAGES:
        return STAGES[name]
    known = known_names(str(name), STAGES, "the stages are")
    if "stage" in values:
        raise UserError(f"[{title}] stage={name!r} is not a stage; {known}")
    raise UserError(f'[{title}] is not a stage; add stage = "…" to it, or rename it: {known}')


def _inputs(
    title: str, stage: Stage, values: Mapping[str, Any], earlier: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """The named inputs, and the main one from `from` or the table before."""
    # Other types are left to the config, which reports them.
    inputs = {
        field: values[field]
        for field in stage.inputs
        if isinstance(values.get(field), str)
        or (isinstance(values.get(field), list) and all(isinstance(v, str) for v in values[field]))
    }
    start = stage.start
    if "from" in values:
        if start is None:
            remedy = f"set {stage.inputs[0]}" if stage.inputs else "leave it out"
            raise UserError(f"[{title}] has from, but {stage.name} starts from nothing; {remedy}")
        if start in values:
            raise UserError(f"[{title}] has both from and {start}, which are the same; keep one")
        if not isinstance(values["from"], str):
            raise UserError(
                f"[{title}] from={values['from']!r} must be text in quotes: an earlier table, a "
                "folder or pack:name"
            )
        inputs[start] = values["from"]
    elif start is not None and start not in values:
        if not earlier:
            raise UserError(
                f"[{title}] is the first table, so {stage.name} has nothing to start from; add "
                f'from = "…" with the folder of a {start}'
            )
        inputs[start] = tuple(earlier)[-1]
    return inputs


@dataclass(frozen=True)
class _Reference:
    """A table's reference to one of its inputs."""

    title: str
    field: str
    named: str
    written: str
    """The key in the table: for the main input it may be `from`."""

    def __str__(self) -> str:
        return f'[{self.title}] {self.written} = "{self.named}"'


def _locate(
    reference: _Reference,
    earlier: Mapping[str, Table],
    groups: Mapping[str, tuple[str, ...]],
    later: tuple[str, ...],
    folder: Path,
    packs: dict[str, Table],
) -> str:
    """Resolve a reference to a table's name or an absolute path; a pack becomes a table in `packs`.

    Raises `UserError` for a reference that does not exist or does not fit.
    """
    named, wanted = reference.named, INPUTS[reference.field]
    if named in earlier:
        makes = earlier[named].stage.makes
        if makes not in wanted:
            fitting = [name for name, table in earlier.items() if table.stage.makes in wanted]
            raise UserError(
                f"{reference} does not fit: [{named}] makes {_one(makes)}, and "
                f"{_one(wanted[0])} is needed; "
                + (f"name {_either(fitting)}" if fitting else "add such a table above")
            )
        return named
    if len(runs := groups.get(named, ())) > 1:
        raise UserError(
            f"{reference} does not fit: [{named}] makes {len(runs)} runs; name one of them: "
            f"{_either(list(runs))}"
        )
    if "data" in wanted and _lies_in_data(named, earlier):
        title, _, inside = named.partition("/")
        parts = earlier[title].stage.parts
        if parts and not _is_part(PurePosixPath(inside), parts):
            raise UserError(
                f"{reference} does not fit: {known_names(inside, parts, f'[{title}] makes')}; name "
                "one of these"
            )
        return named
    if wanted == ("model",) and is_named(named):
        try:
            check_named(named)
        except UserError as error:
            raise UserError(f"{reference} does not fit: {error}") from None
        return named
    if "data" in wanted and named.startswith(HUB):
        return named
    if named.startswith(PACK) and "tokenizer" not in wanted:
        pack = _data_set(str(reference), named.removeprefix(PACK))
        if "data" not in wanted:
            raise UserError(
                f"{reference} does not fit: a pack is data, and {_one(wanted[0])} is needed"
            )
        name = f"pack-{pack}"
        if name not in earlier:
            packs[name] = Table(name, STAGES["data"], {"packs": [pack]}, {})
        return name
    if "tokenizer" in wanted and is_named(named):
        raise UserError(
            f"{reference} does not fit: a tokenizer is read from a folder with {TOKENIZER}; add a "
            "[tokenizer] above, or give a model's folder"
        )
    if named == reference.title or named in later:
        raise UserError(f"{reference} is not above it; a table can only use earlier ones")
    check_text(f"[{reference.title}] {reference.field}", Path(named))
    try:
        path = (folder / named).expanduser().absolute()
    except RuntimeError:  # no such user
        raise UserError(f"{reference} names an unknown home folder; write it in full") from None
    if (journey := named.partition("/")[0]) in shipped() and not path.exists():
        # The output folder of a recipe that comes with groundup has the recipe's name.
        command = journey if journey == "quickstart" else f"run {journey}"
        raise UserError(f"{reference} does not exist yet; make it first: groundup {command}")
    if not named or not path.exists():
        raise UserError(
            f"{reference} is neither a table above nor an existing folder; "
            f"{known_names(named, earlier, 'tables above are') if earlier else 'check its name'}"
        )
    try:
        return str(_found(wanted, path))
    except UserError as error:
        raise UserError(f"{reference} does not fit: {error}") from None


def _found(wanted: tuple[str, ...], path: Path) -> Path:
    """The data or model in a folder, or the folder itself if it contains what is wanted."""
    if "data" in wanted:
        return find_data(path)
    if wanted == ("model",):
        return find_model(path, 'give data with data = "…"')
    if "tokenizer" in wanted and not (path / TOKENIZER).is_file():
        raise UserError(
            f"{str(path)!r} contains no tokenizer ({TOKENIZER}); add a [tokenizer] above, or give "
            "a model's folder"
        )
    if wanted in (REWARDS, GUARDS):
        # Imported late: loading torch takes a second, and few recipes need it.
        from groundup.align.rewards.model import REWARD, reward_config
        from groundup.formats.folder import HARM

        reward_config(REWARD if wanted == REWARDS else HARM, path)
    return path


def _lies_in_data(named: str, earlier: Mapping[str, Table]) -> bool:
    """Whether `named` is a part or a file of an earlier table's data, such as best-of-16/random."""
    title, _, inside = named.partition("/")
    is_below = bool(inside) and ".." not in Path(inside).parts
    return is_below and title in earlier and earlier[title].stage.makes == "data"


def _is_part(inside: PurePosixPath, parts: tuple[str, ...]) -> bool:
    """Whether this is a part, a folder of parts or a part's file."""
    paths = [PurePosixPath(part) for part in parts]
    is_file = inside.name in ("train.jsonl", "heldout.jsonl") and inside.parent in paths
    return is_file or any(path.is_relative_to(inside) for path in paths)


def _one(made: str) -> str:
    """What a stage makes, with an article if it is countable."""
    return made if made in ("data", "results") else f"a {made}"


def _either(names: list[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)
