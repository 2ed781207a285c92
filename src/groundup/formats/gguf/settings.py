"""The entries of one architecture in a GGUF file, each a number within our bounds."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import numpy as np

from groundup.errors import UserError
from groundup.formats.gguf.header import GGUFFile
from groundup.lm.reader import MOST

# Settings of other models under the same architecture's name, and what they are in ours.
_OTHERS: dict[str, Any] = {
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attn_logit_softcapping": 0.0,
    "final_logit_softcapping": 0.0,
    "logit_scale": 0.0,
    "pooling_type": 0,
}


class Settings:
    """The entries of one architecture, each within our bounds."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self.file, self._architecture = file, architecture

    def name(self, setting: str) -> str:
        return f"{self._architecture}.{setting}"

    def has(self, setting: str) -> bool:
        return self.name(setting) in self.file.metadata

    def refuse(self, setting: str, rule: str) -> NoReturn:
        name = self.name(setting)
        self.file.refuse(name, self.file.metadata.get(name), rule)

    def refuse_other_models(self) -> None:
        for setting, ours in _OTHERS.items():
            found = self.file.metadata.get(self.name(setting), ours)
            if isinstance(found, int | float) and found != ours:
                self.refuse(setting, f"{ours}, as in the models that are read")
        for tensor in self.file.tensors:
            if tensor.startswith("rope_factors_"):
                raise UserError(
                    f"{self.file.path} stretches RoPE by the tensor {tensor[:80]!r} (LongRoPE), "
                    "which is not supported; use another model"
                )

    def whole(self, setting: str, ours: str, default: int | None = None, least: int = 1) -> int:
        """A size; some files give one for each layer, which must be the same in all."""
        name = self.name(setting)
        found = self.file.metadata.get(name)
        if not isinstance(found, np.ndarray | list):
            return self.file.whole(name, least, MOST[ours], default)
        if {str(one) for one in found} != {str(found[0] if len(found) else None)}:
            self.refuse(setting, "the same in all layers")
        one = int(found[0]) if isinstance(found, np.ndarray) and found.dtype.kind in "iu" else 0
        if not least <= one <= MOST[ours]:
            self.refuse(setting, f"a whole number from {least} to {MOST[ours]:,} for each layer")
        return one

    def rows(self, tensor: str, ours: str) -> int:
        if tensor not in self.file.tensors:
            raise UserError(f"{self.file.path} lacks the tensor {tensor}; download it again")
        rows = self.file.tensors[tensor].shape[0]
        if rows > MOST[ours]:
            raise UserError(
                f"{self.file.path}: tensor {tensor} has {rows:,} rows; at most {MOST[ours]:,} are "
                "read: no model has as many, so check where the file comes from"
            )
        return rows

    def has_bias(self, module: str) -> bool:
        return f"blk.0.{module}.bias" in self.file.tensors

    def layers(self) -> int:
        """How many layers there are, in words and in tensors, before any is built."""
        said = self.whole("block_count", "num_hidden_layers")
        blocks = {
            int(found[1])
            for one in self.file.tensors
            if (found := re.match(r"blk\.(\d{1,9})\.", one))
        }
        if blocks != set(range(said)):
            raise UserError(
                f"{self.file.path} says that it has {said:,} layers and has tensors of "
                f"{len(blocks):,}; download it again"
            )
        return said

    def context(self, rotary: bool) -> int:
        said = self.whole("context_length", "max_position_embeddings")
        return said if rotary else self.rows("position_embd.weight", "max_position_embeddings")
