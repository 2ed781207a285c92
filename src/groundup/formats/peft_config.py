"""adapter_config.json: an adapter's settings, in PEFT's words.

The input is untrusted, and the output is read by PEFT. PEFT has many kinds and options of adapters.
Any setting that would change the model's answers in an unsupported way is refused by name, never
ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.adapters.layers import Targets
from groundup.errors import UserError, shorten
from groundup.formats.locate import ADAPTER_CONFIG
from groundup.runs.files import read_json_object

# Keys without effect on the answers, or about how training began.
_WITHOUT_EFFECT = frozenset(
    {
        *("auto_mapping", "inference_mode", "peft_version", "revision", "task_type"),
        *("eva_config", "megatron_core", "qalora_group_size", "runtime_config"),
    }
)
_REMEDY = "merge it into its base with PEFT (merge_and_unload), and load the merged model"
# Initializations that subtract something from the base and thereby change it.
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
_MAX_RANK = 2**16

Test = Callable[[Any], bool]


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA adapter as PEFT describes it.

    `targets.whole` is its `modules_to_save`. The patterns set ranks and alphas per layer. With
    `tied`, replaced parameters keep their ties to other parameters. With `fan_in_fan_out` the
    base's files store matrices as (in, out).
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
    fan_in_fan_out: bool = False
    base: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The contents of adapter_config.json for a config without exclusions and layer numbers."""
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
            "fan_in_fan_out": self.fan_in_fan_out,
            "init_lora_weights": True,
        }


def _plain(number: float) -> float:
    """Whole numbers as int, which other programs expect."""
    return int(number) if number == int(number) else number


# Reading.


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return _is_whole(value) and 1 <= value <= _MAX_RANK


def _is_number(value: Any) -> bool:
    # JSON integers may exceed the range of floats.
    real = isinstance(value, float) or _is_whole(value)
    return real and abs(value) <= 1e9 and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _one_or_several(fits: Test) -> Test:
    return lambda value: all(map(fits, _tuple(value)))


def _is_expression_or_names(value: Any) -> bool:
    return isinstance(value, str) or all(map(_is_name, _tuple(value)))


def _pattern(fits: Test) -> Test:
    return lambda v: not v or (isinstance(v, dict) and all(map(fits, v.values())))


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else () if value is None else (value,)


# For each key of PEFT: the test of its values, the rule in words, and the default.
_WORDS: dict[str, tuple[Test, str, Any]] = {
    "target_modules": (_is_expression_or_names, "be a list of names", None),
    "exclude_modules": (_is_expression_or_names, "be a list of names", None),
    "modules_to_save": (_one_or_several(_is_name), "be a list of names", None),
    "layers_pattern": (
        lambda v: v == "" or _one_or_several(_is_name)(v),  # as PEFT writes none
        "be a list of names",
        None,
    ),
    "layers_to_transform": (_one_or_several(_is_whole), "be numbers of layers", None),
    "r": (_is_rank, f"be a whole number from 1 to {_MAX_RANK}", 8),
    "lora_alpha": (_is_number, "be a number", 8),
    "lora_dropout": (
        lambda v: _is_number(v) and 0 <= v < 1,
        "be a number from 0 to less than 1",
        0.0,
    ),
    "use_rslora": (_is_flag, "be true or false", False),
    "use_dora": (_is_flag, "be true or false", False),
    "ensure_weight_tying": (_is_flag, "be true or false", False),
    "fan_in_fan_out": (_is_flag, "be true or false", False),
    "rank_pattern": (_pattern(_is_rank), "give a number for each name", None),
    "alpha_pattern": (_pattern(_is_number), "give a number for each name", None),
    "bias": (lambda v: v in ("none", "all", "lora_only"), "be none, all or lora_only", "none"),
    "base_model_name_or_path": (
        lambda v: v is None or isinstance(v, str),
        "be a name or a path",
        None,
    ),
}


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The adapter config in a folder.

    Raises `UserError` for anything missing, of the wrong type, or not supported.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise UserError(f"{folder} has no {ADAPTER_CONFIG}, so it holds no adapter; check the path")
    left = dict(read_json_object(path))
    if (kind := left.pop("peft_type", None)) != "LORA":
        raise UserError(
            f"{path}: peft_type {shorten(kind)} is not supported; only LORA is, also with "
            "use_rslora and use_dora"
        )
    how = left.pop("init_lora_weights", True)
    if isinstance(how, str) and how.lower().startswith(_CHANGED_BASES):
        raise UserError(
            f"{path} says init_lora_weights={shorten(how)}, which changes the base before "
            "training, so the adapter does not fit the original; save it again with PEFT's "
            "path_initial_model_for_weight_conversion, and load the result"
        )
    said = {name: left.pop(name, default) for name, (_, _, default) in _WORDS.items()}
    for name, (fits, rule, _) in _WORDS.items():
        if not fits(said[name]):
            raise UserError(f"{path} says {name}={shorten(said[name])}, which must {rule}")
    if not said["target_modules"]:
        raise UserError(f"{path} names no target_modules, so it adapts nothing")
    for name, value in left.items():  # all other keys must have no effect
        if value and name not in _WITHOUT_EFFECT:
            raise UserError(
                f"{path} says {name}={shorten(value)}, which is not supported; {_REMEDY}"
            )
    # A single string is a regular expression there, but one name in the other lists.
    names, exclude = (
        value if isinstance(value, str) else _tuple(value)
        for value in (said["target_modules"], said["exclude_modules"])
    )
    return AdapterConfig(
        rank=said["r"],
        alpha=said["lora_alpha"],
        targets=Targets(
            names,
            exclude=exclude,
            layers=_tuple(said["layers_to_transform"]),
            layers_pattern=_tuple(said["layers_pattern"] or None),
            whole=_tuple(said["modules_to_save"]),
        ),
        dropout=said["lora_dropout"],
        use_rslora=said["use_rslora"],
        use_dora=said["use_dora"],
        rank_pattern=said["rank_pattern"] or {},
        alpha_pattern=said["alpha_pattern"] or {},
        bias=said["bias"],
        tied=said["ensure_weight_tying"],
        fan_in_fan_out=said["fan_in_fan_out"],
        base=said["base_model_name_or_path"],
    )
