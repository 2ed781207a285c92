"""The data stage: from packs to the files that every later stage reads.

    documents/      texts for pre-training                      train, heldout
    conversations/  chats for fine-tuning                       train, heldout
    preferences/    pairs of answers                            train, heldout
    choices/        questions with options                      heldout
    refusals/       prompts to refuse and to answer             heldout
    unknown/        questions that a small model cannot answer, and first messages of newcomers;
                    only if the settings decline such questions heldout
    leaks.json      evaluation material found in the training text, and what remains of it
    data.json       counts of kept and rejected rows in each step; licenses, citations, hashes

The steps: read, clean, split, remove repeats, build, remove leaks, write. The split uses hashes
that are fixed in the manifest, so it is the same on every machine, whatever the seed. A generated
set has a split of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from groundup.data import leaks
from groundup.data.config import DataConfig
from groundup.data.files import write_json_lines
from groundup.data.packs.manifest import GENERATED, find_set
from groundup.data.packs.rows import Rejected, gather
from groundup.errors import UserError
from groundup.runs.console import counted, say
from groundup.runs.files import write_json
from groundup.runs.folder import Run
from groundup.runs.parallel import terminable
from groundup.text.rows import AnyRow, Document

_SCHEMA = 1


def run(config: DataConfig) -> Path:
    """Build the data folder `config.out`; a finished one with the same settings is returned.

    Raises `UserError` for an unknown pack, a pack that is neither cached nor downloadable, a folder
    with other settings, and a full disk.
    """
    for name in config.packs:
        find_set(name)
    with terminable(), Run.open(config.out, "data", config) as run:
        if not run.finished:
            _make(config)
            run.finish()
        return run.folder


def _make(config: DataConfig) -> None:
    rejected = Rejected()
    say("data: reading the packs")
    data = gather(config, rejected, say)
    say("data: looking for leaks from what is evaluated into what trains")
    data, leaked = leaks.without_leaks(data)
    rows: Mapping[str, Sequence[AnyRow]] = {
        "documents/train": data.documents,
        "documents/heldout": data.documents_heldout,
        "conversations/train": data.conversations,
        "conversations/heldout": data.conversations_heldout,
        "preferences/train": data.preferences,
        "preferences/heldout": data.preferences_heldout,
        "choices/heldout": data.choices,
        "refusals/heldout": data.refusals,
        **({"unknown/heldout": data.unknown} if data.unknown else {}),
    }
    _write(config, rows, leaked, rejected)
    found, left = sum(one.found for one in leaked), sum(one.left for one in leaked)
    size = sum(len(document.text.encode()) for document in data.documents)
    say(
        f"data: {size / 1e6:.1f} MB of text, {counted(len(data.conversations), 'conversation')}, "
        f"{counted(len(data.preferences), 'preference')}; {counted(found, 'leak')} found and "
        f"removed, {left} left"
    )


def _write(
    config: DataConfig,
    rows: Mapping[str, Sequence[AnyRow]],
    report: Sequence[leaks.Leak],
    rejected: Rejected,
) -> None:
    made = {"seed": config.seed, "bias": config.bias}
    if config.morals:
        made["morals"] = config.morals
    facts = {
        "schema": _SCHEMA,
        "counts": {name: _counts(of_set) for name, of_set in rows.items()},
        "set_aside": dict(sorted(rejected.counts.items())),
        "removed_as_leaks": {
            f"{one.set}, {one.source}: {one.check}": one.found for one in report if one.found
        },
        "notes": _NOTES,
        "packs": [asdict(find_set(name)) for name in config.packs],
        **{one.name: made if one.name in config.packs else None for one in GENERATED},
    }
    try:
        for name, of_set in rows.items():
            path = config.out / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json_lines(path, of_set)
        content = {
            "method": " ".join((leaks.__doc__ or "").split()),
            "checks": [asdict(one) for one in report],
            "left": sum(one.left for one in report),
        }
        write_json(config.out / "leaks.json", content)
        write_json(config.out / "data.json", facts)
    except OSError as error:
        raise UserError(
            f"cannot write the data to {str(error.filename or config.out)!r} ({error.strerror}); "
            f"the stage needs "
            f"about {50 + 3 * config.world_megabytes:.0f} MB: free some space or choose another "
            "folder, then run the command again"
        ) from error


def _counts(rows: Sequence[AnyRow]) -> dict[str, object]:
    found: dict[str, object] = {
        "rows": len(rows),
        "by_source": dict(sorted(Counter(row.source for row in rows).items())),
        "groups": len({row.group for row in rows if not isinstance(row, Document)}),
    }
    if rows and isinstance(rows[0], Document):
        bytes_of: Counter[str] = Counter()
        for row in rows:
            assert isinstance(row, Document)
            bytes_of[row.source] += len(row.text.encode())
        del found["groups"]
        found["bytes"] = dict(sorted(bytes_of.items()))
    return found


_NOTES = [
    "siqa, commonsenseqa, openbookqa and piqa are split in half by a hash: one half trains, the "
    "other is held out. Report their accuracies as those of the held-out half.",
    "mmlu, if requested, is held out as a whole.",
    "boolq is tested on the half of its dev questions whose titles' hashes hold them out. No dev "
    "passage trains; the training rows are other labeled questions about other passages.",
    "Preferences are from harm-scores, from the small world, and from the sets whose options are "
    "texts; boolq's are only Yes and No.",
    "Harmful responses occur only in preferences, as the rejected side.",
    "Rows with a source world-… are synthetic: made by groundup's own program, and true only in "
    "its small world.",
]
