"""The settings of rotary position embedding, without torch; `positions` says what they do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from groundup.errors import UserError
from groundup.lm.reader import MOST, Reader, shown

RopeType = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) and how its frequencies are stretched.

    `linear`: positions divided by `factor` (Chen et al. 2023). `llama3`: low frequencies divided
    by `factor`, high ones kept, with a smooth passage between (Llama 3, section 3.2). `yarn`: the
    same idea with other bounds, and cosines and sines scaled by `attention_factor` (Peng et al.
    2023, YaRN, sections 3.2 and 3.4).
    """

    theta: float = 10_000.0
    type: RopeType = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8_192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True
    """Whether YaRN's bounds are rounded outwards to whole pairs of features."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Rope:
        """Read either spelling: `rope_parameters` (transformers 5) or `rope_theta` and
        `rope_scaling` (before)."""
        settings: dict[str, Any] = {}
        for name in ("rope_scaling", "rope_parameters"):
            given = config.get(name) or {}
            if not isinstance(given, Mapping):
                raise UserError(
                    f"{name}={shown(given)} must be an object; download config.json again"
                )
            settings |= given
        named = settings.get("rope_type", settings.get("type", "default"))
        kind = next((one for one in _SCALING_FIELDS if one == named), None)
        if kind is None:
            raise UserError(
                f"rope type {shown(named)} is not supported; this version reads "
                f"{', '.join(_SCALING_FIELDS)}"
            )
        partial = settings.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1
        if partial != 1:
            raise UserError(
                f"partial_rotary_factor={shown(partial)} is not supported; "
                "only whole heads are turned"
            )
        read = Reader(settings, "rope")
        theta = settings.get("rope_theta", config.get("rope_theta"))
        # At theta 1 all pairs would turn alike; above 1e12, or a factor of 1e6, none turns at all.
        found: dict[str, Any] = {
            "theta": cls.theta
            if theta is None
            else Reader({"rope_theta": theta}, "rope").real("rope_theta", 2.0, 1e12)
        }
        if settings.get("original_max_position_embeddings") is None:
            context = config.get("max_position_embeddings")
            if isinstance(context, int) and context > 0:
                found["original_max_position_embeddings"] = context
        for name in _SCALING_FIELDS[kind]:
            if settings.get(name) is None:
                continue
            if name == "truncate":
                found[name] = bool(settings[name])
            elif name == "original_max_position_embeddings":
                found[name] = read.whole(name, 1, MOST["max_position_embeddings"])
            else:
                found[name] = read.real(name, 1e-6, 1e6)
        if kind == "yarn":
            found = _yarn(found, settings, config.get("max_position_embeddings"))
        kept = ("theta", *_SCALING_FIELDS[kind])
        return cls(type=kind, **{name: value for name, value in found.items() if name in kept})

    def to_hf(self) -> dict[str, Any]:
        scaling = {name: getattr(self, name) for name in _SCALING_FIELDS[self.type]}
        return {"rope_theta": self.theta, "rope_type": self.type, **scaling}


_SCALING_FIELDS: dict[RopeType, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "truncate",
    ),
}


def _yarn(found: dict[str, Any], settings: dict[str, Any], context: Any) -> dict[str, Any]:
    """YaRN's settings with what follows from others filled in, as transformers does."""
    if "factor" not in found and isinstance(context, int):
        original = found.get("original_max_position_embeddings", context)
        found["factor"] = max(1.0, context / original)
    if "attention_factor" not in found:
        factor = found.get("factor", 1.0)
        read = Reader(settings, "rope")
        by, over = (
            read.real(name, 1e-6, 1e6) if settings.get(name) else None
            for name in ("mscale", "mscale_all_dim")
        )
        if by and over:
            found["attention_factor"] = yarn_scale(factor, by) / yarn_scale(factor, over)
        else:
            found["attention_factor"] = yarn_scale(factor)
    return found


def yarn_scale(factor: float, by: float = 1.0) -> float:
    """0.1 ln(factor) + 1: how much sharper attention should be (Peng et al. 2023, eq. 22)."""
    return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0
