"""Pre-training speed beside a plain `transformers` Llama of the same shape.

    python benchmarks/pretrain.py [--steps 12] [--muon]

Both sides: 6 layers, width 384, context 256, vocabulary 4,096, 8,192 tokens a step in micro-batches
of 8 rows, AdamW, bf16, compiled. The two take turns step by step in one process, so the machine's
moods fall on both. The peer is run in the two ways people train it: `autocast` (float32 weights,
as `Trainer(bf16=True)` does) and `bfloat16` (weights and optimizer state in bf16, without masters).
`--muon` adds a line for what Muon costs instead of AdamW.

Needs `pip install transformers` (the extra `test`). Prints medians and the ratio pair by pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

from groundup.train.config import ENVIRONMENT

ROWS, MICRO_ROWS, CONTEXT, VOCABULARY, WIDTH, DEPTH, HEADS = 32, 8, 256, 4_096, 384, 6, 6

Step = Callable[[], None]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--muon", action="store_true")
    options = arguments.parse_args()
    if any(name not in os.environ for name in ENVIRONMENT):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})

    import torch

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    tokens = torch.randint(3, VOCABULARY, (ROWS, CONTEXT + 1))
    sides: dict[str, Step] = {
        "groundup": ours(tokens, muon=False),
        "transformers, autocast": theirs(tokens, autocast=True),
        "transformers, bfloat16": theirs(tokens, autocast=False),
    }
    if options.muon:
        sides["groundup with Muon"] = ours(tokens, muon=True)
    for name, step in sides.items():
        start = time.perf_counter()
        step()
        print(f"{name}: first step, compiling, {time.perf_counter() - start:.1f} s", flush=True)
        step()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.steps):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    report(seconds)


def report(seconds: dict[str, list[float]]) -> None:
    own = seconds["groundup"]
    for name, taken in seconds.items():
        ratios = sorted(theirs / mine for theirs, mine in zip(taken, own, strict=True))
        median = statistics.median(taken)
        print(
            f"{name:24} {ROWS * CONTEXT / median:8,.0f} tokens/s   time against groundup "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def ours(tokens, muon: bool) -> Step:  # type: ignore[no-untyped-def]
    import torch

    from groundup.lm.config import ModelConfig
    from groundup.lm.model import CausalLM
    from groundup.train.batch import Batch
    from groundup.train.config import TrainingConfig
    from groundup.train.device import prepare, resolve
    from groundup.train.loss import next_token_loss
    from groundup.train.optim import Optimizer, Rates

    shape = ModelConfig.of(
        width=WIDTH,
        depth=DEPTH,
        vocab_size=VOCABULARY,
        context=CONTEXT,
        heads=HEADS,
        kv_heads=HEADS,
    )
    model = CausalLM(shape)
    model.initialize(0)
    prepare(model, resolve(TrainingConfig(out="unused", compile="on"), compile_by_default=True))
    rate = 1e-3
    optimizer = Optimizer(model, Rates(rate, rate, rate, weight_decay=0.1), muon=muon)
    batches = []
    for start in range(0, ROWS, MICRO_ROWS):
        rows = tokens[start : start + MICRO_ROWS]
        plain = Batch.of(rows[:, :-1].contiguous())
        ones = torch.ones(MICRO_ROWS, CONTEXT)
        targets = rows[:, 1:].contiguous()
        positions = plain.position_ids.contiguous()
        batches.append(Batch(plain.input_ids, targets, ones, positions, plain.segment_ids))

    def step() -> None:
        weight = sum(batch.weight for batch in batches)
        for batch in batches:
            (next_token_loss(model, batch).total / weight).backward()
        optimizer.clip(optimizer.gradient_norm(), 1.0)
        optimizer.step(1.0)

    return step


def theirs(tokens, autocast: bool) -> Step:  # type: ignore[no-untyped-def]
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1_024,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    if not autocast:
        model = model.bfloat16()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    compiled = torch.compile(model)
    micro_batches = [
        tokens[start : start + MICRO_ROWS, :-1].contiguous() for start in range(0, ROWS, MICRO_ROWS)
    ]

    def step() -> None:
        for ids in micro_batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = compiled(input_ids=ids, labels=ids).loss
            (loss / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
