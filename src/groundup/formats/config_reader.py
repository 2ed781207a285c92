"""Reads values of an untrusted `config.json`, checked for type and range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.errors import UserError, shorten
from groundup.lm.config import MAX_SIZES


class ConfigReader:
    """Reads values by name. Raises `UserError` for a wrong type or an out-of-range value."""

    def __init__(
        self, values: dict[str, Any], whose: str, words: Mapping[str, str] | None = None
    ) -> None:
        """`whose` names the model in messages; `words` maps our names to the config's own."""
        self.values, self._whose, self._words = values, whose, words or {}

    def int_(self, name: str, least: int = 1, most: int | None = None) -> int:
        if name not in self.values:
            raise UserError(f"config.json lacks {self._word(name)!r}, which {self._whose} needs")
        value = self.values[name]
        most = MAX_SIZES[name] if most is None else most
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # some JSON writers write every number as a float
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UserError(
                f"config.json says {self._word(name)}={shorten(value)}, which must be a whole "
                f"number from {least:,} to {most:,}; download it again"
            )
        return value

    def float_(self, name: str, least: float, most: float) -> float:
        value = self.values.get(name)
        # Compared without conversion: JSON integers may exceed the range of floats.
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not least <= value <= most:  # type: ignore[operator]
            raise UserError(
                f"config.json says {self._word(name)}={shorten(value)}, which must be a number "
                f"from {least:g} to {most:g}; download it again"
            )
        return float(value)  # type: ignore[arg-type]

    def bool_(self, name: str) -> bool:
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise UserError(
                f"config.json says {self._word(name)}={shorten(value)}, which must be true or false"
            )
        return value

    def _word(self, name: str) -> str:
        return self._words.get(name, name)

    def token_id(self, name: str) -> int | None:
        found = self.token_ids(self.values.get(name))
        return found[0] if found else None

    def token_ids(self, value: Any) -> tuple[int, ...]:
        """One id, several or none."""
        values = value if isinstance(value, list) else [] if value is None else [value]
        for one in values:
            if isinstance(one, bool) or not isinstance(one, int):
                raise UserError(
                    f"config.json names the token id {shorten(one)}, which must be a number"
                )
        # Some files use -1 for none.
        return tuple(one for one in values if one >= 0)
