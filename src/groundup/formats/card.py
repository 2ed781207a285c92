"""The model card: what a model is, what it was made of, and what must not be expected of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from groundup.data.packs.manifest import PACK, find_set
from groundup.errors import UserError
from groundup.runs.files import read_json_object

_LIMITS = """\
## What it is not
A small model, trained in minutes on one machine. It writes text that looks like its training text;
it knows little, states falsehoods fluently, and has no access to anything beyond its weights. It
has not been made safe for use by others. Do not rely on anything it says.
"""
_LIMITS_OF_SCORES = """\
## What it is not
A small model, trained in minutes on one machine. It writes no text: it gives a text a number, as it
learned from its training data. Of texts unlike those the number says little, and a text can be made
to be given a wrong one. It has not been made safe for use by others. Do not rely on its numbers
alone.
"""

# How an adapter's `how` ends, and what it says of a base that is an adapter, too.
NEEDS_BASE = "it needs its base to run."
UPON_AN_ADAPTER = (
    "The base, {base}, is an adapter itself. groundup puts both on, and PEFT leaves the base's out "
    "without a word. For PEFT, train from the base's export: groundup export {base} --to hf."
)
_AN_ADAPTERS = re.compile(
    rf"{re.escape(NEEDS_BASE)}( {re.escape(UPON_AN_ADAPTER).replace(re.escape('{base}'), '.+')})?"
)


@dataclass(frozen=True)
class Source:
    """A data set with the words its license asks for."""

    name: str
    license: str
    citation: str


def sources(*data: Path) -> tuple[Source, ...]:
    """The sets that a model's data came from, each once.

    Of one path it is what it names (`pack:wiki`), or those of a data-stage folder; a person's own
    text has none, also where one of its files is called `data.json`.
    """
    return tuple(dict.fromkeys(one for path in data for one in _sources(path)))


def _sources(data: Path) -> tuple[Source, ...]:
    if str(data).startswith(PACK):
        one = find_set(str(data).removeprefix(PACK))
        return (Source(one.name, one.license, one.citation),)
    try:
        packs = read_json_object(data / "data.json")["packs"]
        found = [
            # Data folders of earlier versions spell it so.
            Source(one["name"], one.get("license", one.get("licence")), one["citation"])
            for one in packs
        ]
    except (UserError, AttributeError, KeyError, TypeError):
        return ()
    return tuple(one for one in found if all(isinstance(v, str) for v in vars(one).values()))


def as_merged(text: str) -> str:
    """An adapter's card, or its `how`, as it is true of the whole model."""
    return _AN_ADAPTERS.sub("it was merged into its base.", text)


def model_card(
    title: str,
    *,
    how: str,
    facts: Mapping[str, object],
    data: tuple[Source, ...],
    parent: str | None,
    scores: bool = False,
) -> str:
    """README.md of a model folder: Hugging Face's front matter, then plain words.

    A model that `scores` gives numbers and no text.
    """
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if scores else "text-generation",
        "language": ["en"],
        "tags": ["groundup"],
        # Weights carry what their texts' licenses ask for; the strictest of them is named here.
        "license": "cc-by-sa-4.0" if any("SA" in s.license for s in data) else "other",
    }
    if parent is not None:
        front["base_model"] = parent
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    credit = "\n".join(f"- **{s.name}** ({s.license}): {s.citation}" for s in data)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n{how}\n\n"
        f"| | |\n|---|---|\n{table}\n\n## What it was trained on\n"
        f"{credit or 'Text given by the person who trained it.'}\n\n"
        f"{_LIMITS_OF_SCORES if scores else _LIMITS}"
    )
