"""adapter_config.json: what an adapter is, in PEFT's words, without torch.

Read from strangers and written for them. PEFT knows many kinds of adapters and many ways to make
one; what would change the model's answers in a way that is not ours is refused by its name, never
passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.adapters.targets import Targets
from groundup.errors import UserError, shorten
from groundup.runs.files import read_json_object

ADAPTER_CONFIG = "adapter_config.json"

# What speaks about other things than the answers, or about how training began.
_WITHOUT_EFFECT = frozenset(
    {
        *("auto_mapping", "inference_mode", "peft_version", "revision", "task_type"),
        *("eva_config", "megatron_core", "qalora_group_size", "runtime_config"),
    }
)
_REMEDY = "merge it into its base with PEFT (merge_and_unload), and load the model that this gives"
# These begin by taking something away from the base, which then is another model.
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
_MOST_RANK = 2**16


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA adapter as PEFT describes it.

    `targets.whole` is its `modules_to_save`. Ranks and alphas may differ by layer, as the patterns
    say. With `tied`, what is saved as a whole keeps its ties to other parameters.
    """

    rank: int
    alpha: float
    targets: Targets
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    bias: Literal["none", "all", "lora_only"] = "none"
    tied: bool = False
    base: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The contents of adapter_config.json, of a config without exclusions and layer numbers."""
        names = self.targets.names
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": _plain(self.alpha),
            "lora_dropout": self.dropout,
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
            "target_modules": names if isinstance(names, str) else list(names),
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": {key: _plain(value) for key, value in self.alpha_pattern.items()},
            "modules_to_save": list(self.targets.whole) or None,
            "bias": self.bias,
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        }


def _plain(number: float) -> float:
    """Whole numbers as such: other programs want an int there."""
    return int(number) if number == int(number) else number


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The adapter that lies in a folder.

    Raises `UserError` for what is missing, of another type, or not supported.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise UserError(f"{folder} has no {ADAPTER_CONFIG}, so it holds no adapter; check the path")
    return _Reader(path, read_json_object(path)).config()


class _Reader:
    """Takes the words of one file, each of the type that it must have."""

    def __init__(self, path: Path, words: Mapping[str, Any]) -> None:
        self.path, self.left = path, dict(words)

    def config(self) -> AdapterConfig:
        kind = self.left.pop("peft_type", None)
        if kind != "LORA":
            raise UserError(
                f"{self.path}: peft_type {shorten(kind)} is not supported; LORA is, also with "
                "use_rslora and use_dora"
            )
        self._check_beginnings()
        targets = self._names("target_modules", none=None)
        if not targets:
            raise UserError(f"{self.path} names no target_modules, so it adapts nothing")
        config = AdapterConfig(
            rank=self._take("r", 8, _is_rank, f"a whole number from 1 to {_MOST_RANK}"),
            alpha=self._take("lora_alpha", 8, _is_number, "a number"),
            targets=Targets(
                targets,
                exclude=self._names("exclude_modules") or (),
                layers=self._layers(),
                layers_pattern=self._list("layers_pattern"),
                whole=self._list("modules_to_save"),
            ),
            dropout=self._take("lora_dropout", 0.0, _is_share, "a number from 0 to less than 1"),
            use_rslora=self._flag("use_rslora"),
            use_dora=self._flag("use_dora"),
            rank_pattern=self._pattern("rank_pattern", _is_rank),
            alpha_pattern=self._pattern("alpha_pattern", _is_number),
            bias=self._take("bias", "none", _is_bias, "none, all or lora_only"),
            tied=self._flag("ensure_weight_tying"),
            base=self._take("base_model_name_or_path", None, _is_text_or_none, "a name or a path"),
        )
        self._refuse_the_rest()
        return config

    def _check_beginnings(self) -> None:
        how = self.left.pop("init_lora_weights", True)
        if isinstance(how, str) and how.lower().startswith(_CHANGED_BASES):
            raise UserError(
                f"{self.path} says init_lora_weights={shorten(how)}, which changes the base before "
                "training, so that the adapter does not fit it; save it once more with PEFT's "
                "path_initial_model_for_weight_conversion, and load what this gives"
            )

    def _refuse_the_rest(self) -> None:
        """Whatever else is said must say nothing."""
        for name, value in self.left.items():
            if value and name not in _WITHOUT_EFFECT:
                raise UserError(
                    f"{self.path} says {name}={shorten(value)}, which is not supported; {_REMEDY}"
                )

    def _take(self, name: str, default: Any, fits: Callable[[Any], bool], what: str) -> Any:
        value = self.left.pop(name, default)
        if not fits(value):
            raise UserError(f"{self.path} says {name}={shorten(value)}, which must be {what}")
        return value

    def _flag(self, name: str) -> bool:
        return bool(self._take(name, False, lambda v: isinstance(v, bool), "true or false"))

    def _names(self, name: str, none: Any = ()) -> tuple[str, ...] | str | None:
        """A regular expression, or a list of names."""
        value = self.left.pop(name, None)
        if value is None or isinstance(value, str):
            return value
        self.left[name] = value
        return self._list(name)

    def _list(self, name: str) -> tuple[str, ...]:
        value = self.left.pop(name, None)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(one, str) and one for one in values):
            raise UserError(
                f"{self.path} says {name}={shorten(value)}, which must be a list of names"
            )
        return tuple(values)

    def _layers(self) -> tuple[int, ...]:
        value = self.left.pop("layers_to_transform", None)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(_is_whole(one) for one in values):
            raise UserError(
                f"{self.path} says layers_to_transform={shorten(value)}, which must be numbers of "
                "layers"
            )
        return tuple(values)

    def _pattern(self, name: str, fits: Callable[[Any], bool]) -> Mapping[str, Any]:
        value = self.left.pop(name, None) or {}
        if not isinstance(value, dict) or not all(map(fits, value.values())):
            raise UserError(
                f"{self.path} says {name}={shorten(value)}, which must give a number for each name"
            )
        return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return _is_whole(value) and 1 <= value <= _MOST_RANK


def _is_number(value: Any) -> bool:
    # JSON has whole numbers that no float can hold.
    real = isinstance(value, float) or _is_whole(value)
    return real and abs(value) <= 1e9 and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_bias(value: Any) -> bool:
    return value in ("none", "all", "lora_only")


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)
