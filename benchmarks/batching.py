"""The gain of continuous batching and shared prompts over `transformers`' `generate`.

    python benchmarks/batching.py [--repeats 5] [--shapes small 135m] [--dtypes float32 bfloat16]

The models are those of `generation.py`. The requests:

    one        one prompt of 64 tokens, 64 new ones
    batch      32 prompts of 16 to 128 tokens, 64 new ones each
    nucleus    the same, drawn with temperature 0.8 and top-p 0.9; all others are greedy
    uneven     64 prompts as above, 8 to 128 new tokens, 32 rows at a time
    samples    16 samples from each of two prompts of 384 tokens, 32 new tokens each

Nothing ends early. Both sides keep a cache. The peer pads its prompts on the left, and its batch
takes as long as the longest completion in it. The two take turns in one process, so changes in the
machine's speed affect both. With greedy sampling, the share of equal ids is printed: in bfloat16
the order of additions decides a near tie, and everything after it differs.

Needs `pip install transformers` (the extra `test`). Prints medians and pairwise ratios.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from generation import SHAPES, as_peer, make
from groundup.train.config import ENVIRONMENT

ROWS = 32
NUCLEUS = {"temperature": 0.8, "top_p": 0.9}
WORKLOADS = ("one", "batch", "nucleus", "uneven", "samples")


@dataclass(frozen=True)
class Workload:
    """Prompts, the number of new tokens for each, and the sampling."""

    prompts: list[list[int]]
    lengths: list[int]
    ways: dict[str, Any]


Serve = Callable[[], list[list[int]]]


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--shapes", nargs="+", default=["small", "135m"], choices=SHAPES)
    arguments.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    arguments.add_argument("--workloads", nargs="+", default=WORKLOADS, choices=WORKLOADS)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = arguments.parse_args()
    if any(name not in os.environ for name in ENVIRONMENT):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})

    import torch

    torch.set_num_threads(options.threads)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    for shape in options.shapes:
        for dtype in options.dtypes:
            model = make(shape, 0).to(getattr(torch, dtype))
            peer = as_peer(model)
            for name in options.workloads:
                work = workload(name, SHAPES[shape]["vocab_size"])
                sides = (ours(model, work), theirs(peer, work))
                compare(f"{shape:5} {dtype:8} {name:7}", sides, work, options.repeats)


def compare(name: str, sides: tuple[Serve, Serve], work: Workload, repeats: int) -> None:
    mine, peers = (side() for side in sides)  # and warm up
    pairs = [a == b for x, y in zip(mine, peers, strict=True) for a, b in zip(x, y, strict=True)]
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for side, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    ratios = sorted(peer / own for own, peer in zip(*seconds, strict=True))
    own, peer = (sum(work.lengths) / statistics.median(taken) for taken in seconds)
    same = "" if work.ways else f"  {sum(pairs) / len(pairs):4.0%} of ids equal"
    print(
        f"{name}  groundup {own:6,.0f} tokens/s  transformers {peer:6,.0f}  "
        f"ratio {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}){same}",
        flush=True,
    )


def workload(name: str, vocabulary: int) -> Workload:
    dice = random.Random(0)

    def prompt(length: int) -> list[int]:
        return [dice.randrange(3, vocabulary) for _ in range(length)]

    if name == "one":
        return Workload([prompt(64)], [64], {})
    if name == "samples":
        return Workload([prompt(384)] * 16 + [prompt(384)] * 16, [32] * 32, {})
    count = 2 * ROWS if name == "uneven" else ROWS
    prompts = [prompt(16 + 112 * i // count) for i in range(count)]
    lengths = [dice.randrange(8, 129) if name == "uneven" else 64 for _ in prompts]
    return Workload(prompts, lengths, NUCLEUS if name == "nucleus" else {})


def ours(model: Any, work: Workload) -> Serve:
    from dataclasses import replace

    from groundup.generation.generate import generate
    from groundup.generation.request import Request
    from groundup.generation.sampling import Sampling

    model.config = replace(model.config, eos_token_ids=())
    ways = {"temperature": 0.0, **work.ways}
    requests = [
        Request(prompt_ids=prompt, sampling=Sampling(max_new_tokens=length, **ways))
        for prompt, length in zip(work.prompts, work.lengths, strict=True)
    ]
    return lambda: [one.ids for one in generate(model, requests, batch_size=ROWS)]


def theirs(peer: Any, work: Workload) -> Serve:
    import torch

    settings: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    if work.ways:
        settings |= {"do_sample": True, "top_k": 0, **work.ways}

    def serve() -> list[list[int]]:
        drawn: list[list[int]] = []
        for start in range(0, len(work.prompts), ROWS):
            prompts, lengths = work.prompts[start:][:ROWS], work.lengths[start:][:ROWS]
            longest = max(map(len, prompts))
            ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts])
            seen = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
            with torch.inference_mode():
                out = peer.generate(
                    ids, attention_mask=seen, max_new_tokens=max(lengths), **settings
                )
            rows = zip(out[:, longest:].tolist(), lengths, strict=True)
            drawn += [row[:length] for row, length in rows]
        return drawn

    return serve


if __name__ == "__main__":
    main()
