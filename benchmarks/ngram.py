"""Kneser-Ney of order 5 on a corpus: seconds to count it and to score it, and the peak of memory.

    python benchmarks/ngram.py [--megabytes 20]

Runs once with bytes and once with tokens of four bytes from a vocabulary of 8,192, each in a
process of its own. The tokens follow Zipf's law, so that n-grams repeat as in text.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from groundup.maths.ngram import KneserNey

_ORDER = 5
# Bytes per token, and the vocabulary size.
_KINDS = {1: 256, 4: 8192}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=int, default=20)
    arguments.add_argument("--one", type=int, choices=list(_KINDS), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        _measure(options.megabytes * 1_000_000 // options.one, _KINDS[options.one])
        return
    for size in _KINDS:
        words = ["--one", str(size), "--megabytes", str(options.megabytes)]
        subprocess.run([sys.executable, __file__, *words], check=True)


def _measure(length: int, vocab: int) -> None:
    chances = 1 / np.arange(1, vocab + 1)
    drawn = np.random.default_rng(0).choice(vocab, size=length, p=chances / chances.sum())
    tokens = drawn.astype(np.uint16)
    begun = time.perf_counter()
    model = KneserNey.fit(tokens, _ORDER, vocab)
    counted = time.perf_counter()
    model.logprobs(tokens)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{length:,} of {vocab:,} tokens: counted in {counted - begun:.1f} s, scored in "
        f"{ended - counted:.1f} s, peak {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
