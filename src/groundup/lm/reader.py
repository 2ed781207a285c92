"""Values of a stranger's `config.json`, each of the type and within the bounds it must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.errors import UserError

# Larger sizes are damage or malice: no machine holds such a model, and merely to describe it would
# take memory and time.
MOST = {
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 2**14,
    "max_position_embeddings": 2**31,
    "sliding_window": 2**31,
}


def shown(value: Any) -> str:
    """A value as a message shows it: a stranger's may be endless."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


class Reader:
    """Values of a stranger's JSON, each of the type and size that it must have."""

    def __init__(
        self, values: dict[str, Any], whose: str, words: Mapping[str, str] | None = None
    ) -> None:
        """`whose` values they are, and its own `words` for our names, by which it is told."""
        self.values, self._whose, self._words = values, whose, words or {}

    def whole(self, name: str, least: int = 1, most: int | None = None) -> int:
        if name not in self.values:
            raise UserError(f"config.json lacks {self._word(name)!r}, which a {self._whose} needs")
        value = self.values[name]
        most = MOST[name] if most is None else most
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # some writers of JSON know one kind of number only
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UserError(
                f"config.json says {self._word(name)}={shown(value)}, which must be a whole number "
                f"from {least:,} to {most:,}; download it again"
            )
        return value

    def real(self, name: str, least: float, most: float) -> float:
        value = self.values.get(name)
        # Compared as it is: JSON has whole numbers that no float can hold.
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not least <= value <= most:  # type: ignore[operator]
            raise UserError(
                f"config.json says {self._word(name)}={shown(value)}, which must be a number from "
                f"{least:g} to {most:g}; download it again"
            )
        return float(value)  # type: ignore[arg-type]

    def flag(self, name: str) -> bool:
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise UserError(
                f"config.json says {self._word(name)}={shown(value)}, which must be true or false"
            )
        return value

    def _word(self, name: str) -> str:
        return self._words.get(name, name)

    def id(self, name: str) -> int | None:
        found = self.ids(self.values.get(name))
        return found[0] if found else None

    def ids(self, value: Any) -> tuple[int, ...]:
        """One id, several or none."""
        values = value if isinstance(value, list) else [] if value is None else [value]
        for one in values:
            if isinstance(one, bool) or not isinstance(one, int):
                raise UserError(
                    f"config.json names the token id {shown(one)}, which must be a number"
                )
        # Some files say -1 where they mean none.
        return tuple(one for one in values if one >= 0)
