"""The costs of a fine-tuning run, read from its folder; older runs record less.

    plan.json       how much of the model was trained, and as what
    metrics.jsonl   tokens read, and tokens per second
    status.json     the peak of memory
    data.json       rows that were set aside

A PEFT adapter has none of these files and is still measured. The parent model has no costs here,
because it existed before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.formats.locate import ADAPTER_CONFIG
from groundup.report.history import History
from groundup.runs.files import is_count, is_number, read_json_object

PARENT, ELSEWHERE = "before", "from elsewhere"
METHODS = {"none": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
# The files of the model itself; checkpoints and token shards in the folder belong to the run.
_WEIGHTS = ("adapter_model*.safetensors", "model*.safetensors", "*.gguf")
# Counts in data.json of what was not trained on, with their names on the page.
SET_ASIDE = {
    "bad_lines": "bad lines",
    "refused": "that cannot be encoded",
    "duplicates": "duplicates",
    "without_answer": "without an answer within the context",
    "truncated": "cut to the context",
    "unread": "not needed for so few steps",
}


@dataclass(frozen=True)
class Costs:
    """How a model was made and what that cost; None is what its folder does not record.

    `disk_bytes` is the size of what was trained: an adapter alone, or the whole model.
    """

    method: str
    adapter: dict[str, Any]
    parent: str | None
    seed: int | None
    trained_parameters: int | None
    disk_bytes: int | None
    tokens: int | None
    tokens_per_second: float | None
    minutes: float | None
    peak_memory_bytes: int | None
    set_aside: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def costs(path: Path, *, is_parent: bool = False) -> Costs:
    """The costs recorded in the folder at `path`."""
    history = None if is_parent else History.of(path)
    adapter = _read(path / ADAPTER_CONFIG)
    made = history is not None and history.parent is not None
    seed = None if history is None else history.setting("seed")
    return Costs(
        method=PARENT if is_parent else _method(history if made else None, adapter),
        adapter=_adapter(adapter),
        parent=str(history.parent) if history is not None and history.parent else None,
        seed=None if seed is None else int(seed),
        trained_parameters=_trained(history, path, adapter),
        disk_bytes=_disk_bytes(path),
        tokens=int(history.tokens[-1]) if history is not None and history.train else None,
        tokens_per_second=_speed(history),
        minutes=None if history is None else history.costs()["minutes"],
        peak_memory_bytes=None if history is None else _count(path, "peak_memory_bytes"),
        set_aside=_set_aside(path) if history is not None else {},
    )


def held_out(history: History) -> float | None:
    """The share of its rows that a run held out; None if it is not recorded."""
    settled = _read(history.folder / "data.json").get("validation")
    share = settled if is_number(settled) else history.setting("validation")
    return None if share is None else float(share)


def _method(history: History | None, adapter: dict[str, Any]) -> str:
    """The run's setting; an adapter without a run counts as LoRA."""
    if history is not None:
        asked = str(history.run["config"].get("adapter", "none"))
        return METHODS.get(asked, asked)
    return METHODS["lora"] if adapter else ELSEWHERE


def _adapter(adapter: dict[str, Any]) -> dict[str, Any]:
    """The settings of PEFT's adapter config that are shown."""
    names = {
        "r": "rank",
        "lora_alpha": "alpha",
        "use_rslora": "rank-stabilized",
        "use_dora": "DoRA",
    }
    return {shown: adapter[name] for name, shown in names.items() if adapter.get(name)}


def _trained(history: History | None, path: Path, adapter: dict[str, Any]) -> int | None:
    """From the plan; for older runs or adapters from elsewhere, from the weights."""
    planned = None if history is None else history.planned("trained_parameters")
    if planned is not None:
        return int(planned)
    if adapter:
        return _stored_numbers(path)
    if history is None or history.parent is None:
        return None
    planned = history.planned("parameters")
    return None if planned is None else int(planned)


def _stored_numbers(folder: Path) -> int:
    """The number of parameters of an adapter, from the headers of its files."""
    from safetensors import safe_open

    count = 0
    for file in folder.glob("adapter_model*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            count += sum(
                int(np.prod(tensors.get_slice(name).get_shape()))
                for name in tensors.keys()  # noqa: SIM118
            )
    return count


def _disk_bytes(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    for pattern in _WEIGHTS:
        files = list(path.glob(pattern))
        if files:
            return sum(file.stat().st_size for file in files)
    return None


def _speed(history: History | None) -> float | None:
    """The median over steps: the first ones compile, and a shared machine has slow ones."""
    lines = [] if history is None else history.train
    found = [line["tokens_per_second"] for line in lines if line.get("tokens_per_second")]
    return float(np.median(found)) if found else None


def _count(folder: Path, name: str) -> int | None:
    value = _read(folder / "status.json").get(name)
    return value if is_count(value) else None


def _set_aside(folder: Path) -> dict[str, int]:
    counts = _read(folder / "data.json")
    return {name: counts[name] for name in SET_ASIDE if is_count(counts.get(name))}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if it cannot be read."""
    try:
        return read_json_object(path)
    except UserError:
        return {}
