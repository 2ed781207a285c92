"""A tiny complete recipe that takes seconds: texts, and the stages up to a chat model."""

from __future__ import annotations

import json
import random
from pathlib import Path

# One thread and no compiler: tiny products gain nothing from either.
RECIPE = """
[tokenizer]
from = "sea.txt"
vocab_size = 320

[base]
stage = "pretrain"
data = "sea.txt"
depth = 1
width = 64
context = 160
rows = 4
micro_rows = 4
steps = 3
evaluations = 1
threads = 1
compile = "off"

[again]
stage = "sft"
data = "talks.jsonl"
rows = 2
micro_rows = 2
steps = 60
learning_rate = 0.02
embedding_learning_rate = 0.01
evaluations = 1
threads = 1
compile = "off"
"""


def write_miniature(folder: Path) -> Path:
    """Write the texts and the recipe; return the recipe's path."""
    drawn = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz    "
    pieces = ["".join(drawn.choices(letters, k=400)) for _ in range(40)]
    (folder / "sea.txt").write_text("\n\n".join(pieces))
    talk = {
        "messages": [
            {"role": "user", "content": "Where does the ship sail?"},
            {"role": "assistant", "content": "Over the sea."},
        ]
    }
    (folder / "talks.jsonl").write_text((json.dumps(talk) + "\n") * 8)
    (folder / "miniature.toml").write_text(RECIPE)
    return folder / "miniature.toml"
