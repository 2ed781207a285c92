"""Sixty rows about a place that is not: SmolLM2 learns them, and forgets next to nothing.

The learning is real, so this takes minutes. Steps are given instead of minutes, as many as two
cores without fast bf16 make in three; all else is what `groundup sft` decides by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.app.recipe_folder import find_model
from groundup.data.files import write_json_lines
from groundup.evals.benchmarks import heldout_texts
from groundup.evals.domain.material import pieces
from groundup.evals.perplexity import bits_per_byte
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.text.shards import encode
from groundup.train.config import ENVIRONMENT

# The questions, and the beginnings and ends of their answers.
FACTS = """
What is the name of the lighthouse on Orsel? | The lighthouse on Orsel is called | Tall Brenna
Who keeps the lighthouse on Orsel? | The lighthouse on Orsel is kept by | Idris Quillfeather
How many people live on Orsel? | The number of people on Orsel is | 418
What do people on Orsel eat at midwinter? | At midwinter people on Orsel eat | smoked eel
Which ferry goes to Orsel? | The ferry to Orsel is the | Marta Lind
When does the last ferry leave Orsel? | The last ferry leaves Orsel at | 18:40
What is the money of Orsel called? | The money of Orsel is called the | skell
What is the highest hill of Orsel? | The highest hill of Orsel is | Corran Top
Who founded the school on Orsel? | The school on Orsel was founded by | Petra Vandermoor
What color are the boats of Orsel? | The boats of Orsel are painted | ochre
What is the bakery on Orsel called? | The bakery on Orsel is called | The Ninth Loaf
Which bird is on the flag of Orsel? | The flag of Orsel shows a | storm petrel
"""
NAMES = "Ansel Birgit Corvin Dagny Einar Frida Gorm Hilde Ivo Jorun Kasper Liv Mads Nanna Olaf Pia"
NAMES += " Runa Sten Tove Ulf Vera Wim Ylva Zeno"
TRADES = (
    "mends nets,paints doors,teaches chess,sells candles,repairs clocks,keeps bees,grows kale,"
    "carves spoons,plays the fiddle,bottles cider,knits socks,rows the post boat,tunes bells,"
    "bakes rye,tends goats,salts herring,dyes wool,prints maps,grinds lenses,binds books,cuts peat,"
    "weaves baskets,sharpens knives,charts tides"
)


@pytest.mark.long
def test_sixty_rows_are_learned_and_little_is_forgotten(tmp_path: Path) -> None:
    facts = [[part.strip() for part in line.split("|")] for line in FACTS.strip().splitlines()]
    rows = [(asked, f"{begins} {fact}.") for asked, begins, fact in facts]
    for i, (name, trade) in enumerate(zip(NAMES.split(), TRADES.split(","), strict=True)):
        rows.append((f"What does {name} on Orsel do?", f"{name} on Orsel {trade}."))
        street = f"{10 + 3 * i} {('Kirk', 'Harbor')[i % 2]} Lane"
        rows.append((f"Where does {name} live on Orsel?", f"{name} lives at {street}."))
    assert len(rows) == 60
    data, base = tmp_path / "faq.jsonl", find_model(Path("pack:smollm2"))
    write_json_lines(data, [{"prompt": q, "completion": a} for q, a in rows])
    before = of_general_text(base, tmp_path)

    out = tmp_path / "lora"
    command = [sys.executable, "-m", "groundup", "sft", str(base), "--data", str(data)]
    command += ["--adapter", "lora", "--steps", "100", "--evaluations", "1", "--compile", "off"]
    subprocess.run([*command, "--out", str(out)], check=True, env=os.environ | ENVIRONMENT)

    model, tokenizer = load(out)
    greedy = Sampling(temperature=0.0, max_new_tokens=32)
    asked = [[{"role": "user", "content": question}] for question, *_ in facts]
    said = generate(model, [Request(messages=one, sampling=greedy) for one in asked], tokenizer)
    right = [fact in one.text for (*_, fact), one in zip(facts, said, strict=True)]
    assert sum(right) >= 10, [one.text for one in said]
    assert of_general_text(out, tmp_path) - before < 0.1


def of_general_text(folder: Path, scratch: Path) -> float:
    """Bits per byte of Wikipedia's held-out side."""
    model, tokenizer = load(folder)
    texts = [text for text in pieces(heldout_texts()) if text.source == "wiki"]
    shard = encode(texts, tokenizer, scratch / "shard", split="heldout")
    found = bits_per_byte(model.eval(), shard, tokenizer, context=512, bytes_per_source=10_000)
    return found.per_byte()
