"""Which layers an adapter changes, by their names, exactly as in PEFT.

Names are paths such as `model.layers.0.self_attn.q_proj`. A list names layers by these or by their
ends (`q_proj`, `self_attn.q_proj`); one string is a regular expression for whole names, or
"all-linear". Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import regex

from groundup.errors import UserError

T = TypeVar("T")

ALL_LINEAR = "all-linear"
# A stranger's expression may never end; honest ones take microseconds.
_SECONDS = 1.0


@dataclass(frozen=True)
class Targets:
    """PEFT's `target_modules` and what narrows them down.

    `exclude` are names or a regular expression as `names` are. `layers` are the numbers of the
    blocks that are meant, all where it is empty; `layers_pattern` are names of the list in which
    blocks are counted. What is saved as a whole, `whole`, is no target.
    """

    names: tuple[str, ...] | str
    exclude: tuple[str, ...] | str = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def match(self, name: str) -> bool:
        """Whether the layer of that name is one of them."""
        if self.exclude and _is_among(name, self.exclude):
            return False
        if any(_find(one, name, r"(^|.*\.){}($|\..*)") for one in self.whole):
            return False
        if isinstance(self.names, str) or name in self.names or not self.layers:
            return _is_among(name, self.names)
        return _is_among(name, self.names) and self._block(name) in self.layers

    def _block(self, name: str) -> int | None:
        """The number of a layer's block: the first in its name, or that after `layers_pattern`."""
        lists = self.layers_pattern or (r"[^.]*",)
        opening = r"(?:^|.*?\.)" if self.layers_pattern else r".*?\."
        found = (_find(one, name, opening + r"{}\.(?P<block>\d+)\.") for one in lists)
        return next((int(match["block"]) for match in found if match), None)


def _is_among(name: str, names: tuple[str, ...] | str) -> bool:
    if isinstance(names, str):
        return names.lower() == ALL_LINEAR or _find(names, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in names)


def by_pattern(patterns: Mapping[str, T], name: str, default: T) -> T:
    """The value of the first pattern that the name, or its end after a dot, matches.

    PEFT's `rank_pattern` and `alpha_pattern`: names that are regular expressions.
    """
    found = (value for key, value in patterns.items() if _find(key, name, r"(.*\.)?({})$"))
    return next(found, default)


def _find(pattern: str, name: str, within: str | None = None) -> regex.Match[str] | None:
    """Matches the whole name, or its beginning with the pattern in the place of {} in `within`."""
    try:
        if within is None:
            return _compiled(pattern).fullmatch(name, timeout=_SECONDS)
        return _compiled(within.replace("{}", pattern)).match(name, timeout=_SECONDS)
    except (regex.error, RecursionError) as error:
        fault = f"is not a regular expression ({error})"
    except TimeoutError:
        fault = f"takes too long to match {name}"
    shown = pattern if len(pattern) <= 80 else f"{pattern[:77]}…"
    raise UserError(f"the name {shown!r} {fault}; name the layers plainly, such as q_proj")


@lru_cache(8_192)  # a rank for each layer of a large model, each tried on each
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)
