"""Damaged and hostile model folders: one clear sentence each, in bounded time and memory.

Every mutation is of a real folder. What loads must work: it reads a text and continues it. Nothing
is ever written, and nothing but `UserError` comes out.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import peak_memory, reset_peak_memory
from mutations import mutation_for

FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "chat_template.jinja", "model.safetensors.index.json",
)  # fmt: skip
# Seconds for one folder, on a machine that is busy: to load this one takes a hundredth.
PATIENCE = 60.0


@pytest.fixture
def folder(tmp_path: Path, tiny_model, tokenizer: Tokenizer) -> Path:  # type: ignore[no-untyped-def]
    """A model with every kind of file, in two shards."""
    model = tiny_model()
    save_model(tmp_path / "model", model, tokenizer, card="# x\n", max_shard_bytes=250_000)
    assert tokenizer.chat_template is not None
    # Another than ours by a blank, so that it is rendered as a stranger's.
    (tmp_path / "model" / "chat_template.jinja").write_text(tokenizer.chat_template + " ")
    return tmp_path / "model"


def use(folder: Path) -> bool:
    """Load and use a model; False if it was rejected. Any other exception is our error."""
    try:
        model, tokenizer = load(folder)
        model = model.float()
        encode_chat(tokenizer, [{"role": "user", "content": "hello <|im_end|>"}])
        request = Request(prompt="The sea", sampling=Sampling(max_new_tokens=2))
        generate(model, [request], tokenizer)
    except UserError as error:
        assert str(error) and len(str(error)) < 2_000
        return False
    return True


def attack(folder: Path, tries: range) -> dict[str, list[int]]:
    """Mutate one file at a time; return how many were rejected and how many worked, by file."""
    whole = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
    whole |= {path.name: path.read_bytes() for path in folder.glob("model-*.safetensors")}
    before = sorted(path.name for path in folder.iterdir())
    counts: dict[str, list[int]] = {name: [0, 0] for name in whole}
    for number in tries:
        source = random.Random(number)
        name = source.choice(sorted(whole))
        (folder / name).write_bytes(mutation_for(name, source)(source, whole[name]))
        begun = time.monotonic()
        counts[name][use(folder)] += 1
        assert time.monotonic() - begun < PATIENCE, (number, name)
        (folder / name).write_bytes(whole[name])
    assert sorted(path.name for path in folder.iterdir()) == before
    assert use(folder)
    return counts


@pytest.mark.usefixtures("unchecked_types")
def test_mutated_folders_are_rejected_or_work(folder: Path) -> None:
    refused, worked = zip(*attack(folder, range(150)).values(), strict=True)
    assert sum(refused) > 50 and sum(worked) > 5


@pytest.mark.long
@pytest.mark.usefixtures("unchecked_types")
def test_thousands_of_mutated_folders(folder: Path) -> None:
    reset_peak_memory("cpu")  # of what other tests held in this process
    counts = attack(folder, range(1_000, 2_500))
    assert all(sum(pair) > 50 for pair in counts.values()), counts
    # Weights, activations and a stranger's texts: nothing grew with a number in a file.
    if (peak := peak_memory("cpu")) is None:
        pytest.skip("this system counts no peak of memory")
    assert peak < 6 * 2**30
