"""GGUF files of other models, damaged or hostile: one sentence each."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gguf_files import ARRAY, BOOL, F32, STRING, U8, U32, U64, Value, header_of, numbers_of
from groundup.errors import UserError
from groundup.formats.gguf.header import read_gguf_header
from groundup.formats.gguf.write import save_gguf
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig, Rope
from groundup.lm.model import CausalLM
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import peak_memory, reset_peak_memory
from mutations import mutated_bytes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A Llama with every header entry."""
    config = ModelConfig.of(width=64, depth=1, vocab_size=320, context=64, heads=4, kv_heads=2)
    rope = Rope(5e5, "llama3", factor=8.0, original_max_position_embeddings=32)
    model = CausalLM(replace(config, model_type="llama", rope=rope))
    model.initialize(0)
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    save_gguf(path, model, tokenizer, "q8_0")
    return path


def use(path: Path) -> bool:
    """Load and use a file; False if it was rejected. Any other exception is our error."""
    try:
        model, words = load(path)
        model = model.float()
        encode_chat(words, [{"role": "user", "content": "hello <|im_end|>"}])
        greedy = Sampling(temperature=0.0, max_new_tokens=2)
        generate(model, [Request(prompt="The sea", sampling=greedy)], words)
    except UserError as error:
        said = str(error)
        assert said and len(said) < 1_000 and "\n" not in said and said.isprintable()
        return False
    return True


def put(folder: Path, contents: bytes) -> Path:
    path = folder / "changed.gguf"
    path.unlink(missing_ok=True)  # it may still be mapped
    path.write_bytes(contents)
    return path


def test_the_small_file_works_also_when_reassembled(small: Path, tmp_path: Path) -> None:
    assert use(small)
    assert use(put(tmp_path, header_of(read_gguf_header(small)).to_bytes()))


LLAMA = "llama."
CHANGES: dict[str, tuple[str, Value | None, str]] = {
    "no architecture": ("general.architecture", None, "'general.architecture'"),
    "another": ("general.architecture", Value(STRING, "mamba"), "reads qwen3, qwen2, llama, gpt2"),
    "no width": (f"{LLAMA}embedding_length", None, "'llama.embedding_length'"),
    "another width": (f"{LLAMA}embedding_length", Value(U32, 96), "has shape"),
    "no layers": (f"{LLAMA}block_count", Value(U32, 0), "from 1 to 1,024"),
    "more layers": (f"{LLAMA}block_count", Value(U32, 9), "9 layers but has tensors of 1"),
    "layers without end": (f"{LLAMA}block_count", Value(U64, 2**63), "from 1 to 1,024"),
    "experts": (f"{LLAMA}expert_count", Value(U32, 8), "expert_count=8"),
    "heads that differ": (
        f"{LLAMA}attention.head_count_kv",
        numbers_of(U32, [2, 4]),
        "the same in all layers",
    ),
    "heads of text": (
        f"{LLAMA}attention.head_count",
        Value(ARRAY, (STRING, ["x"])),
        "a whole number",
    ),
    "no heads at all": (f"{LLAMA}attention.head_count", Value(ARRAY, (U8, [])), "layers"),
    "heads that do not divide": (f"{LLAMA}attention.head_count_kv", Value(U32, 3), "divide"),
    "values of another width": (f"{LLAMA}attention.value_length", Value(U32, 8), "for keys, 16"),
    "part of a head": (f"{LLAMA}rope.dimension_count", Value(U32, 8), "the whole head, 16"),
    "no rotation": (f"{LLAMA}rope.freq_base", Value(F32, 0.0), "rope.freq_base=0.0"),
    "theta no number": (f"{LLAMA}rope.freq_base", Value(F32, math.nan), "rope.freq_base=nan"),
    "epsilon below 0": (f"{LLAMA}attention.layer_norm_rms_epsilon", Value(F32, -1.0), "-1.0"),
    "not causal": (f"{LLAMA}attention.causal", Value(BOOL, 0), "attention.causal=False"),
    "no template": ("tokenizer.chat_template", Value(U8, 1), "must be a text"),
    "SentencePiece": ("tokenizer.ggml.model", Value(STRING, "llama"), "SentencePiece"),
    "more tokens than vectors": (
        "tokenizer.ggml.tokens",
        Value(ARRAY, (STRING, [str(n) for n in range(321)])),
        "321 tokens",
    ),
    "context of text": (f"{LLAMA}context_length", Value(STRING, "long"), "'long'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_settings_of_other_models_are_rejected(small: Path, tmp_path: Path, name: str) -> None:
    entry, value, told = CHANGES[name]
    header = header_of(read_gguf_header(small)).changed(entry, value)
    path = put(tmp_path, header.to_bytes())
    with pytest.raises(UserError) as error:
        load(path)
    assert told in str(error.value) and str(path) in str(error.value)


def test_tensors_at_unusual_offsets_are_read(small: Path, tmp_path: Path) -> None:
    header = header_of(read_gguf_header(small)).changed("general.alignment", Value(U32, 1))
    moved = [replace(tensor, start=tensor.start + 1) for tensor in header.tensors]
    odd = replace(header, tensors=moved, data=b"x" + header.data, alignment=1)
    path = put(tmp_path, odd.to_bytes())
    expected = load(small)[0].state_dict()
    for name, tensor in load(path)[0].state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_equal_layers_may_be_listed_one_by_one(small: Path, tmp_path: Path) -> None:
    header = header_of(read_gguf_header(small))
    for name, number in (("attention.head_count", 4), ("feed_forward_length", 192)):
        header = header.changed(f"{LLAMA}{name}", numbers_of(U32, [number]))
    assert use(put(tmp_path, header.to_bytes()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: [one for one in t if one.name != "blk.0.ffn_up.weight"],
            "lacks the tensor blk.0",
        ),
        (lambda t: [one for one in t if one.name != "token_embd.weight"], "lacks the tensor token"),
        (lambda t: [*t[:-1], replace(t[-1], name="blk.0.other")], "'blk.0.other'"),
        (
            lambda t: [
                replace(one, sizes=one.sizes[::-1]) if "ffn_up" in one.name else one for one in t
            ],
            "has shape [64, 192], but its settings require [192, 64]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    small: Path, tmp_path: Path, change: Callable[[list[Any]], list[Any]], told: str
) -> None:
    header = header_of(read_gguf_header(small))
    path = put(tmp_path, replace(header, tensors=change(list(header.tensors))).to_bytes())
    with pytest.raises(UserError) as error:
        load(path)
    assert told in str(error.value)


# Damage and malice. Loading the small file takes a fiftieth of a second and no memory to speak of.
PATIENCE, MEMORY = 60.0, 512 * 2**20
LIES = [
    Value(U8, 0), Value(U32, 2**32 - 1), Value(U64, 2**64 - 1), Value(F32, math.nan),
    Value(F32, math.inf), Value(F32, -1e30), Value(BOOL, 1), Value(STRING, ""),
    Value(STRING, "\n\x1b[31m" * 50), Value(STRING, "{{ [0] * 10**9 }}"), Value(ARRAY, (U8, [])),
    Value(ARRAY, (STRING, ["a"] * 320)), numbers_of(F32, [math.nan] * 320),
    Value(ARRAY, (ARRAY, [(U8, [1])])), None,
]  # fmt: skip


def test_a_wrong_value_in_any_entry_is_one_sentence(small: Path, tmp_path: Path) -> None:
    header = header_of(read_gguf_header(small))
    worked = 0
    for name, _ in header.entries:
        for lie in LIES:
            worked += use(put(tmp_path, header.changed(str(name), lie).to_bytes()))
    assert worked > len(header.entries)  # names and the like may be anything


def attack(small: Path, tmp_path: Path, tries: range) -> tuple[int, int | None]:
    """Load files with a few changed bytes; return the number of rejected ones and the memory
    growth."""
    whole, refused = small.read_bytes(), 0
    # Memory held by other tests in this process must not count for these files.
    reset_peak_memory("cpu")
    before = peak_memory("cpu")
    for seed in tries:
        path = put(tmp_path, mutated_bytes(random.Random(seed), whole))
        began = time.monotonic()
        refused += not use(path)
        assert time.monotonic() - began < PATIENCE, f"seed {seed}"
    after = peak_memory("cpu")
    assert {path.name for path in tmp_path.iterdir()} == {"changed.gguf"}
    return refused, None if before is None or after is None else after - before


def assert_little(grown: int | None) -> None:
    if grown is None:
        pytest.skip("this system counts no peak of memory")
    assert grown < MEMORY


def test_damage_is_one_sentence(small: Path, tmp_path: Path) -> None:
    refused, grown = attack(small, tmp_path, range(150))
    assert 100 < refused < 150
    assert_little(grown)


@pytest.mark.long
def test_much_damage_is_one_sentence(small: Path, tmp_path: Path) -> None:
    _, grown = attack(small, tmp_path, range(150, 1_500))
    assert_little(grown)
