"""The model card: what a model is, how it was made, and its limits."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from groundup.data.packs.manifest import PACK, find_set
from groundup.errors import UserError
from groundup.formats.folder import CARD
from groundup.formats.locate import name_of
from groundup.runs.files import read_json_object

_TRAINED_ON = "## What it was trained on\n"
_OWN_TEXT = "- Text given by the person who trained it."
_SHARE_ALIKE = re.compile(r"- \*\*.*?\*\* \([^)]*SA")
_LIMITS = """\
## What it is not
A small model, trained in minutes on one machine. It writes text that looks like its training text;
it knows little, states falsehoods fluently, and has no access to anything beyond its weights. It
has not been made safe for use by others. Do not rely on anything it says.
"""
_LIMITS_OF_SCORES = """\
## What it is not
A small model, trained in minutes on one machine. It writes no text: it scores texts, as it learned
from its training data. Scores of texts unlike that data mean little, and a text can be crafted to
get a wrong score. It has not been made safe for use by others. Do not rely on its scores
alone.
"""

# For transformers, which reads a score at the last token of a text.
READ_BY_TRANSFORMERS = """\
## How to read it
The score is read at the token that ends an answer. transformers reads it at the last token, so text
that a chat template writes after that token is stripped:

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # where this card is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

messages = [
    {"role": "user", "content": "Where does the ship sail?"},
    {"role": "assistant", "content": "Over the sea."},
]
text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")
with torch.no_grad():
    score = model(**tokens).logits[0, 0].item()
reward = (score - model.config.reward_mean) / model.config.reward_deviation
print(reward)
```

"""

# The end of an adapter's `how`, and an addition for a base that is an adapter, too. `as_merged`
# also removes them from existing cards, so the words must not change.
NEEDS_BASE = "it needs its base to run."
ON_AN_ADAPTER = (
    "The base, {base}, is an adapter itself. groundup puts both on, and PEFT leaves the base's out "
    "without a word. For PEFT, train from the base's export: groundup export {base} --to hf."
)
_AN_ADAPTERS = re.compile(
    rf"{re.escape(NEEDS_BASE)}( {re.escape(ON_AN_ADAPTER).replace(re.escape('{base}'), '.+')})?"
)


@dataclass(frozen=True)
class Source:
    """A data set with the citation that its license requires."""

    name: str
    license: str
    citation: str


def sources(*data: Path) -> tuple[Source, ...]:
    """The sets that a model's data came from, each once.

    A path may be a pack (`pack:wiki`), a data-stage folder, or a file of one; a user's own text has
    no sources, even if a file is called `data.json`.
    """
    return tuple(dict.fromkeys(one for path in data for one in _sources(path)))


def _sources(data: Path) -> tuple[Source, ...]:
    if str(data).startswith(PACK):
        one = find_set(str(data).removeprefix(PACK))
        return (Source(one.name, one.license, one.citation),)
    # A data stage's files have paths such as documents/train.jsonl.
    stage = data.absolute().parent.parent if data.is_file() else data
    try:
        packs = read_json_object(stage / "data.json")["packs"]
        found = [
            # The spelling in data folders of earlier versions.
            Source(one["name"], one.get("license", one.get("licence")), one["citation"])
            for one in packs
        ]
    except (UserError, AttributeError, KeyError, TypeError):
        return ()
    return tuple(one for one in found if all(isinstance(v, str) for v in vars(one).values()))


def _credits(model: Path) -> list[str]:
    """The lines about training data in the cards of a model and its ancestors."""
    from groundup.report.history import lineage  # only needed when a card is written

    lines: list[str] = []
    # Cards of earlier versions do not repeat their parents' lines, and lack the dash of own text.
    for folder in (*(one.folder for one in lineage(model)), model):
        with contextlib.suppress(OSError):
            card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
            lines += card.partition(_TRAINED_ON)[2].partition("\n\n")[0].splitlines()
    return [line if line.startswith("- ") else f"- {line}" for line in lines]


def as_merged(text: str) -> str:
    """An adapter's card, or its `how`, reworded for the merged model."""
    return _AN_ADAPTERS.sub("it was merged into its base.", text)


def model_card(
    title: str,
    *,
    how: str,
    facts: Mapping[str, object],
    data: Iterable[Path],
    parents: Sequence[Path] = (),
    scores: bool = False,
    usage: str = "",
) -> str:
    """README.md of a model folder: Hugging Face's front matter, then plain text.

    The card lists the `data`, and everything listed in the cards of the `parents`, because weights
    keep what these learned. With `scores` the model gives scores and no text. `usage` is an extra
    section.
    """
    credits = [line for parent in parents for line in _credits(parent)]
    for path in data:
        credits += [f"- **{s.name}** ({s.license}): {s.citation}" for s in sources(path)] or [
            _OWN_TEXT
        ]
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if scores else "text-generation",
        # The data sets that come with groundup are in English; of a user's text nothing is known.
        **({"language": ["en"]} if set(credits) - {_OWN_TEXT} else {}),
        "tags": ["groundup"],
        # Weights inherit the terms of their texts' licenses; this names the strictest one.
        "license": "cc-by-sa-4.0" if any(map(_SHARE_ALIKE.match, credits)) else "other",
    }
    if parents:
        front["base_model"] = name_of(parents[0])
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    credit = "\n".join(dict.fromkeys(credits))
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n{how}\n\n"
        f"| | |\n|---|---|\n{table}\n\n{_TRAINED_ON}{credit}\n\n"
        f"{usage}{_LIMITS_OF_SCORES if scores else _LIMITS}"
    )
