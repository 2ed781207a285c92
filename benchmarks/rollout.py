"""Rollouts per second against `transformers`' `generate`, each side in a process of its own.

    python benchmarks/rollout.py [--batches 64 256] [--turns 3] [--json FILE]

A workload of reinforcement learning: 256 prompts of 32 tokens, 48 new tokens each, sampled at
temperature 1 without any filter, with the log-probability of every sampled token. The model is
`generation.py`'s `small`, whose weights change before every call, as in training. The sides take
turns, process by process; ours runs in the environment that training sets, the peer in the shell's.
Several batch sizes and dtypes are tried, and the best of each side counts.

Needs `pip install transformers` (the extra `test`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from generation import SHAPES, Serve, as_peer, make
from groundup.train.config import ENVIRONMENT

SIDES = ("groundup bfloat16", "transformers bfloat16", "groundup float32", "transformers float32")
PROMPTS, PROMPT, NEW = 256, 32, 48


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--batches", nargs="+", type=int, default=[64, 256])
    arguments.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    arguments.add_argument("--turns", type=int, default=3, help="processes of each side")
    arguments.add_argument("--calls", type=int, default=3, help="timed calls in each process")
    arguments.add_argument("--json", type=Path, help="file for all measurements")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.batches, options.calls)))
        return
    found: dict[str, dict[str, list[float]]] = {side: {} for side in options.sides}
    batches = [str(batch) for batch in options.batches]
    for _ in range(options.turns):
        for side in options.sides:
            command = [sys.executable, __file__, "--side", side, "--calls", str(options.calls)]
            own = ENVIRONMENT if side.startswith("groundup") else {}
            said = subprocess.run(
                [*command, "--batches", *batches],
                check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **own},
            ).stdout  # fmt: skip
            for batch, rates in json.loads(said.splitlines()[-1]).items():
                found[side].setdefault(batch, []).extend(rates)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def show(found: dict[str, dict[str, list[float]]]) -> None:
    best = {"groundup": 0.0, "transformers": 0.0}
    for side, batches in found.items():
        for batch, rates in batches.items():
            median, name = statistics.median(rates), side.split()[0]
            best[name] = max(best[name], median)
            print(
                f"{side:24} {batch:>3} at a time {median:8,.0f} tokens/s "
                f"({min(rates):,.0f} to {max(rates):,.0f})"
            )
    if all(best.values()):
        print(f"best against best {best['groundup'] / best['transformers']:.2f}")


def measure(side: str, batches: list[int], calls: int) -> dict[str, list[float]]:
    """Tokens per second of one side, by batch."""
    import torch

    name, dtype = side.split()
    model = make("small", 0).to(getattr(torch, dtype)).eval()
    peer = as_peer(model) if name == "transformers" else None
    dice = random.Random(0)
    vocabulary = SHAPES["small"]["vocab_size"]
    prompts = [[dice.randrange(3, vocabulary) for _ in range(PROMPT)] for _ in range(PROMPTS)]
    found: dict[str, list[float]] = {}
    for batch in batches:
        serve = ours(model, prompts, batch) if peer is None else theirs(peer, prompts, batch)
        serve()  # warms up
        found[str(batch)] = []
        for _ in range(calls):
            with torch.no_grad():
                for parameter in (peer or model).parameters():
                    parameter.mul_(1.001)
            start = time.perf_counter()
            tokens = serve()
            found[str(batch)].append(tokens / (time.perf_counter() - start))
    return found


def ours(model: object, prompts: list[list[int]], batch: int) -> Serve:
    from groundup.generation.generate import generate
    from groundup.generation.request import Request
    from groundup.generation.sampling import Sampling

    sampling = Sampling(temperature=1.0, max_new_tokens=NEW, ignore_eos=True)
    requests = [Request(prompt_ids=prompt, sampling=sampling) for prompt in prompts]

    def serve() -> int:
        done = generate(model, requests, batch_size=batch)  # type: ignore[arg-type]
        return sum(len(one.logprobs) for one in done)

    return serve


def theirs(peer: object, prompts: list[list[int]], batch: int) -> Serve:
    import torch

    def serve() -> int:
        tokens = 0
        for start in range(0, len(prompts), batch):
            ids = torch.tensor(prompts[start : start + batch])
            with torch.inference_mode():
                out = peer.generate(  # type: ignore[attr-defined]
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=True,
                    temperature=1.0, top_k=0, top_p=1.0, eos_token_id=None, pad_token_id=0,
                    return_dict_in_generate=True, output_logits=True,
                )  # fmt: skip
                new = out.sequences[:, ids.shape[1] :]
                for step, logits in enumerate(out.logits):
                    logits.float().log_softmax(-1).gather(-1, new[:, step, None])
            tokens += new.numel()
        return tokens

    return serve


if __name__ == "__main__":
    main()
