"""Byte-level BPE against the `tokenizers` library: encoding a corpus, and learning a vocabulary.

    python benchmarks/bpe.py [--megabytes 20] [--vocab 4096] [--turns 3] [--json FILE]

The text is that of `pack:sotu` (5.7 MB), filled up to the requested size with 100,000 different
made-up words, as many as real text has. The program checks that both sides give the same ids and
merges. Each measurement runs in a process of its own, and the sides take turns. Prints medians and
ranges.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable

SIDES = ("groundup", "tokenizers")
TASKS = ("encode", "train")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=int, default=20)
    arguments.add_argument("--vocab", type=int, default=4096)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--json", help="where to write what was measured")
    arguments.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        task, side = options.one
        print(json.dumps(_measured(task, side, options.megabytes, options.vocab)))
        return
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.turns):
        for task in TASKS:
            for side in SIDES:
                found.setdefault(f"{task} {side}", []).append(_apart(task, side, options))
    for name, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        rate = runs[0]["megabytes"] / statistics.median(seconds)
        print(
            f"{name:20} {rate:7.1f} MB/s   {statistics.median(seconds):6.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f})   peak {runs[0]['peak_gb']:.2f} GB"
        )
    for task in TASKS:
        ours, theirs = (found[f"{task} {side}"] for side in SIDES)
        assert ours[0]["sum"] == theirs[0]["sum"], f"{task}: the two sides differ"
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{task}: {statistics.median(ratios):.2f} times the library's speed "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(vars(options) | {"runs": found}, file, indent=2)


def _apart(task: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    words = ["--one", task, side, "--megabytes", options.megabytes, "--vocab", options.vocab]
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measured(task: str, side: str, megabytes: int, vocab: int) -> dict[str, float]:
    """The seconds of one task, its peak memory, and a checksum that both sides must give."""
    texts = _texts(megabytes)
    work = {"encode": _encoding, "train": _training}[task](side, texts, vocab)
    begun = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    size = sum(len(text.encode()) for text in texts) / 1e6
    return {"seconds": seconds, "peak_gb": peak, "sum": result, "megabytes": size}


def _texts(megabytes: int) -> list[str]:
    from groundup.data.dataset import load_dataset

    dice, letters = random.Random(0), "etaoinshrdlucmfwypvbgk"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 12))) for _ in range(100_000)]
    texts = [row.text for row in load_dataset(["pack:sotu"]).train]
    size = sum(map(len, texts))
    while size < megabytes * 1_000_000:
        texts.append(" ".join(dice.choices(words, k=2000)))
        size += len(texts[-1])
    return texts


def _encoding(side: str, texts: list[str], vocab: int) -> Callable[[], int]:
    from groundup.text.bpe import train_bpe
    from groundup.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_bpe(train_bpe(texts[:100], vocab))
    tokenizer.encode_batch(texts[:200])  # compiles, and reads its tables
    if side == "groundup":
        return lambda: sum(map(sum, tokenizer.encode_batch(texts)))
    import tokenizers

    library = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.content))
    return lambda: sum(sum(one.ids) for one in library.encode_batch_fast(texts))


def _training(side: str, texts: list[str], vocab: int) -> Callable[[], int]:
    from groundup.text.bpe import SPECIAL_TOKENS, train_bpe
    from groundup.text.tokenizer import Tokenizer

    if side == "groundup":
        return lambda: _checked(train_bpe(texts, vocab).merges)
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    like = Tokenizer.from_bpe(train_bpe(texts[:1], 260))
    library = Library(models.BPE())
    library.pre_tokenizer = Library.from_str(json.dumps(like.content)).pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def train() -> int:
        library.train_from_iterator(texts, trainer)
        merges = json.loads(library.to_str())["model"]["merges"]
        return _checked([tuple(pair) for pair in merges])

    return train


def _checked(merges: list[tuple[str, str]]) -> int:
    """A checksum of the merges and their order."""
    return zlib.crc32(json.dumps(merges).encode())


if __name__ == "__main__":
    main()
