"""The manifest: metadata of everything available by name, read from `manifest.toml`.

Data sets in wheels of the Python package index, synthetic sets, and trained models. `fetch.py`
downloads and opens them, `rows.py` calls their modules for rows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from groundup.errors import UserError, known_names


@dataclass(frozen=True)
class Archive:
    """One wheel on the package index: its name, its version, its hash and its size in bytes.

    `tags` are pip's Python version and platform, if a package has a wheel for each.
    """

    package: str
    version: str
    sha256: str
    size: int
    tags: tuple[str, str] | None = None

    @property
    def filename(self) -> str:
        return f"{self.package}-{self.version}.whl"


@dataclass(frozen=True)
class PackSet:
    """One data set: its location, contents and license, and the part that never trains.

    `members` are patterns of paths inside the archive; `size` is their unpacked size in bytes.
    `heldout` is the held-out share, and `split_by` names the text whose hash decides. `page` is the
    module that reads it. A `harmful` set is counted, never shown.
    """

    name: str
    about: str
    archive: Archive
    members: tuple[str, ...]
    reading: str
    size: int
    license: str
    citation: str
    heldout: float
    split_by: str
    page: str
    harmful: bool = False


@dataclass(frozen=True)
class GeneratedSet:
    """A synthetic data set: its contents and license, and the part that never trains.

    `sources` are all source names of its rows, `companions` those of rows made for it. `documents`
    (first and last) and `conversations` are its shares in a mixture. `generated` is a note for
    readers of data.json.
    """

    name: str
    about: str
    sources: tuple[str, ...]
    companions: tuple[str, ...]
    documents: tuple[float, float]
    conversations: float
    license: str
    citation: str
    heldout: float
    split_by: str
    page: str
    generated: bool = True


@dataclass(frozen=True)
class ModelPack:
    """One trained model: the file `member` of a wheel; nothing else of the wheel is used.

    `sha256` and `size` are those of the model's own file.
    """

    name: str
    about: str
    archive: Archive
    member: str
    sha256: str
    size: int
    license: str
    citation: str

    @property
    def filename(self) -> str:
        return self.member.rpartition("/")[2]


DataSet = PackSet | GeneratedSet
Pack = DataSet | ModelPack
T = TypeVar("T")
AnyPack = TypeVar("AnyPack", PackSet, GeneratedSet, ModelPack)

# Prefixes of sources that are names for a download: from this manifest, or Hugging Face's hub.
PACK, HUB = "pack:", "hub:"

_PAGE: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


_ARCHIVES = {name: Archive(**_fields(values)) for name, values in _PAGE["archives"].items()}


def _packs(table: str, kind: type[AnyPack]) -> Iterator[AnyPack]:
    for name, values in _PAGE[table].items():
        facts = {"name": name, **_fields(values)}
        if kind is not ModelPack:
            facts.setdefault("page", name.replace("-", "_"))
        if "archive" in facts:
            facts["archive"] = _ARCHIVES[facts["archive"]]
        yield kind(**facts)


SETS = tuple(_packs("text", PackSet))
EVALUATION = tuple(_packs("evaluation", PackSet))
DOMAINS = tuple(_packs("domains", PackSet))
IMAGES = tuple(_packs("images", PackSet))
LEXICONS = tuple(_packs("lexicons", PackSet))
GENERATED = tuple(_packs("generated", GeneratedSet))
MODELS = tuple(_packs("models", ModelPack))
# The default sets of the data stage.
ALL_SETS: tuple[str, ...] = (*(one.name for one in SETS), *(one.name for one in GENERATED))
# The order of the sets' rows in the files of a data folder.
ORDER: tuple[str, ...] = tuple(_PAGE["order"])


def every_set() -> tuple[DataSet, ...]:
    """All sets of texts, the real ones first."""
    return (*SETS, *DOMAINS, *EVALUATION, *GENERATED)


def generated_set(source: str) -> GeneratedSet | None:
    """The synthetic set of which a row's source is a part, if any."""
    return next((one for one in GENERATED if source in one.sources), None)


def made_from(source: str) -> GeneratedSet | None:
    """The synthetic set of which a row's source is a part or a companion, if any."""
    return next((one for one in GENERATED if source in source_group(one.name)), None)


def source_group(name: str) -> tuple[str, ...]:
    """The sources that a name means in a mixture: those of a synthetic set, or the one."""
    return next(((*one.sources, *one.companions) for one in GENERATED if one.name == name), (name,))


def mixture_groups(mixture: Mapping[str, T]) -> dict[tuple[str, ...], T]:
    """The sources that each name of a mixture means, and their share.

    A source that is named itself has its own share, and is left out of its set.
    """
    return {
        tuple(one for one in source_group(name) if one == name or one not in mixture): share
        for name, share in mixture.items()
    }


def find_pack(name: str) -> Pack:
    """The data set or model of that name.

    Raises UserError for an unknown one, with the nearest known one.
    """
    for one in _all_packs():
        if one.name == name:
            return one
    known = known_names(name, [one.name for one in _all_packs()], "the sets and models are")
    raise UserError(f"unknown data set {name!r}; {known}")


def _all_packs() -> tuple[Pack, ...]:
    return (*every_set(), *IMAGES, *LEXICONS, *MODELS)


def find_set(name: str) -> DataSet:
    """The set of texts of that name. Raises UserError for others, with advice."""
    one = find_pack(name)
    if one in (*IMAGES, *LEXICONS):
        holds = "images" if one in IMAGES else "single words"
        raise UserError(f"{name!r} holds {holds}, not text; see groundup data list")
    if isinstance(one, ModelPack):
        raise UserError(
            f"{name!r} is a model, not a data set; use pack:{name} where a model is required, "
            f"as in groundup chat pack:{name}"
        )
    return one


def find_model(name: str) -> ModelPack:
    """The model of that name. Raises UserError also for a data set."""
    known = next((one for one in MODELS if one.name == name), None)
    if known is not None:
        return known
    models = known_names(name, [one.name for one in MODELS], "the models by name are")
    if any(one.name == name for one in _all_packs()):
        raise UserError(f"{name!r} is a data set, not a model; {models}")
    raise UserError(f"unknown model {name!r}; {models}")
