"""Our pre-training speed, with and without kernels, against `transformers` and litgpt.

    python benchmarks/pretrain.py [--shape small|large] [--steps 10] [--sides …] [--busy] [--json F]

Shapes: small is 6 layers of width 384, context 256, 8,192 tokens a step; large is 8 layers of width
512, context 512, 16,384 tokens a step; both with a vocabulary of 4,096. A side is a process of its
own in its users' environment. Sides take turns step by step, so changes in the machine's speed
affect all of them. Sides:

    groundup     as `groundup pretrain` runs with AdamW here
    muon         the same with Muon
    plain        the same as groundup without its kernels, compiled by PyTorch
    autocast     transformers with float32 weights, as `Trainer(bf16=True)` runs it, compiled
    bfloat16     transformers with weights and optimizer state in bf16, without masters, compiled
    float32      transformers in float32, as `Trainer` runs it where bfloat16 is slower, compiled
    litgpt       litgpt's model, loss and precision (all bf16), compiled, with a fused AdamW

+WORDs change a side: +rows=8 sets the rows of a micro-batch, +threads=1 the threads, +compile and
+eager whether blocks are compiled, +muon the optimizer, +NAME=VALUE an environment variable:
`plain+muon+GOMP_SPINCOUNT=1000`. With `--busy` another program occupies one core.

Needs `pip install transformers` (the extra `test`) for the first peers; `--sides groundup litgpt`
needs `pip install litgpt`, which requires older libraries: give it an environment of its own, with
groundup in it. Prints medians and pairwise ratios to the first side. It also prints the core
seconds of a step, which show whether the machine was quiet: with `+threads=1` they then equal the
elapsed seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from groundup.train.config import ENVIRONMENT

VOCABULARY = 4_096
Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    depth: int
    width: int
    heads: int
    inner: int
    context: int
    rows: int


SHAPES = {
    "small": Shape(6, 384, 6, 1_024, 256, 32),
    "large": Shape(8, 512, 8, 1_408, 512, 32),
}
PEERS = ("autocast", "bfloat16", "float32", "litgpt")
SIDES = ("groundup", "plain", "muon", "autocast", "bfloat16")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--shape", choices=SHAPES, default="small")
    arguments.add_argument("--steps", type=int, default=10)
    arguments.add_argument("--sides", nargs="+", default=SIDES, metavar="SIDE")
    arguments.add_argument("--busy", action="store_true", help="with one core taken by another")
    arguments.add_argument("--profile", metavar="SIDE", help="where this side's step goes, instead")
    arguments.add_argument("--json", metavar="FILE", help="write the measurements here as well")
    arguments.add_argument("--serve", metavar="SIDE", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    shape = SHAPES[options.shape]
    if options.serve:
        serve(options.serve, shape)
        return
    if options.profile:
        if any(os.environ.get(n) != v for n, v in environment(options.profile).items() if v):
            os.execve(sys.executable, [sys.executable, *sys.argv], environment(options.profile))
        profile(options.profile, shape)
        return
    sides = [Side(name, options.shape) for name in options.sides]
    for side in sides:
        side.start()
        first, _ = side.turn()
        side.turn()
        print(f"{side.name}: first step, compiling if it does, {first:.1f} s", flush=True)
    neighbour = (
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) if options.busy else None
    )
    try:
        for _ in range(options.steps):
            for side in sides:
                seconds, used = side.turn()
                side.seconds.append(seconds)
                side.used.append(used)
    finally:
        if neighbour is not None:
            neighbour.kill()
        for side in sides:
            side.end()
    rows = report(sides, shape)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"shape": options.shape, "busy": options.busy, "sides": rows}, file, indent=1)


@dataclass
class Side:
    """A side's process, which takes a step when asked."""

    name: str
    shape: str
    seconds: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    peak: float = 0.0

    def start(self) -> None:
        command = [sys.executable, __file__, "--shape", self.shape, "--serve", self.name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment(self.name)
        )

    def turn(self) -> tuple[float, float]:
        seconds, used = self._ask("step").split()
        return float(seconds), float(used)

    def end(self) -> None:
        self.peak = float(self._ask("end"))
        self.process.wait()

    def _ask(self, word: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(word, file=self.process.stdin, flush=True)
        return self.process.stdout.readline()


def environment(name: str) -> dict[str, str]:
    """The environment of a side's users: ours sets some variables, the peers set none."""
    kind, *words = name.split("+")
    found = dict(os.environ)
    for variable in ENVIRONMENT:
        found.pop(variable, None)
    if kind not in PEERS:
        found |= ENVIRONMENT
    if kind == "plain":
        found["GROUNDUP_KERNELS"] = "none"
    for variable, value in (word.split("=", 1) for word in words if "=" in word):
        if variable.isupper():
            found[variable] = value
    return found


def serve(name: str, shape: Shape) -> None:
    """Take a step for every line and answer with its elapsed and processor seconds, then the peak
    in GB.
    """
    from groundup.train.device import peak_memory, reset_peak_memory

    step = make(name, shape)
    for taken, line in enumerate(sys.stdin):
        if line.strip() == "end":
            print((peak_memory("cpu") or 0) / 1e9, flush=True)
            return
        start, used = time.perf_counter(), time.process_time()
        step()
        print(time.perf_counter() - start, time.process_time() - used, flush=True)
        if taken == 0:  # compiling is not counted
            reset_peak_memory("cpu")


def report(sides: list[Side], shape: Shape) -> list[dict[str, Any]]:
    rows = []
    width = max(len(side.name) for side in sides)
    for side in sides:
        pairs = zip(side.seconds, sides[0].seconds, strict=True)
        ratios = sorted(mine / first for mine, first in pairs)
        median = statistics.median(side.seconds)
        speed = shape.rows * shape.context / median
        print(
            f"{side.name:{width}} {speed:8,.0f} tokens/s  {median * 1e3:6.0f} ms (best "
            f"{min(side.seconds) * 1e3:.0f})  of a core {statistics.median(side.used):.2f} s  peak "
            f"{side.peak:.2f} GB  time against {sides[0].name} {statistics.median(ratios):.3f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
        rows.append(
            {"side": side.name, "tokens_per_second": speed, "peak_gb": side.peak}
            | {"seconds": side.seconds, "processor_seconds": side.used, "ratios": ratios}
        )
    return rows


def profile(name: str, shape: Shape) -> None:
    """Profile three steps, by operation."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    step = make(name, shape)
    for _ in range(3):
        step()
    start = time.perf_counter()
    step()
    print(f"a step: {(time.perf_counter() - start) * 1e3:.0f} ms")
    with profiler(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(3):
            step()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_cpu_time_total)
    for row in rows[:30]:
        print(f"{row.self_cpu_time_total / 3e3:8.1f} ms  x{row.count / 3:6.0f}  {row.key[:80]}")


def make(name: str, shape: Shape) -> Step:
    import torch

    torch.manual_seed(0)
    kind, *words = name.split("+")
    given = dict(word.split("=", 1) for word in words if "=" in word)
    threads = int(given.get("threads", os.cpu_count() or 1))
    torch.set_num_threads(threads)
    tokens = torch.randint(3, VOCABULARY, (shape.rows, shape.context + 1))
    rows = int(given["rows"]) if "rows" in given else None
    if kind == "litgpt":
        return litgpts(tokens, shape, rows=rows or 16)
    if kind in PEERS:
        return theirs(tokens, shape, kind, rows=rows or 16)
    muon = "muon" in (kind, *words)
    compiled = "on" if "compile" in words else "off" if "eager" in words else "auto"
    return ours(tokens, shape, muon=muon, compiled=compiled, rows=rows, threads=threads)


def ours(
    tokens, shape: Shape, *, muon: bool, compiled: str, rows: int | None, threads: int
) -> Step:  # type: ignore[no-untyped-def]
    import torch

    from groundup.lm.config import ModelConfig
    from groundup.lm.model import CausalLM
    from groundup.train.batch import Batch
    from groundup.train.config import TrainingConfig
    from groundup.train.device import prepare, resolve
    from groundup.train.loss import next_token_loss
    from groundup.train.optim import Optimizer, Rates

    config = ModelConfig.of(
        width=shape.width,
        depth=shape.depth,
        vocab_size=VOCABULARY,
        context=shape.context,
        heads=shape.heads,
        kv_heads=shape.heads,
    )
    model = CausalLM(config)
    model.initialize(0)
    settings = TrainingConfig(
        out="unused", compile=compiled, rows=shape.rows, micro_rows=rows, threads=threads
    )
    prepare(model, resolve(settings, compile_by_default=True))
    rate = 1e-3
    optimizer = Optimizer(model, Rates(rate, rate, rate, weight_decay=0.1), muon=muon)
    micro = settings.micro(shape.context)
    batches = []
    for start in range(0, shape.rows, micro):
        some = tokens[start : start + micro]
        plain = Batch.of(some[:, :-1].contiguous())
        ones = torch.ones(len(some), shape.context)
        targets = some[:, 1:].contiguous()
        positions = plain.position_ids.contiguous()
        batches.append(Batch(plain.input_ids, targets, ones, positions, plain.segment_ids))

    def step() -> None:
        weight = sum(batch.weight for batch in batches)
        for batch in batches:
            (next_token_loss(model, batch).total / weight).backward()
        optimizer.clip(optimizer.gradient_norm(), 1.0)
        optimizer.step(1.0)

    return step


def adamw(model):  # type: ignore[no-untyped-def]
    """The peers' optimizer, in its fastest form."""
    import torch

    return torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )


def theirs(tokens, shape: Shape, kind: str, *, rows: int) -> Step:  # type: ignore[no-untyped-def]
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    if kind == "bfloat16":
        model = model.bfloat16()
    optimizer = adamw(model)
    compiled = torch.compile(model)
    micro_batches = [
        tokens[start : start + rows, :-1].contiguous() for start in range(0, shape.rows, rows)
    ]

    def step() -> None:
        for ids in micro_batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
                loss = compiled(input_ids=ids, labels=ids).loss
            (loss / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def litgpts(tokens, shape: Shape, *, rows: int) -> Step:  # type: ignore[no-untyped-def]
    import litgpt
    import torch
    from litgpt.utils import chunked_cross_entropy

    model = litgpt.GPT(
        litgpt.Config(
            block_size=shape.context,
            n_layer=shape.depth,
            n_embd=shape.width,
            n_head=shape.heads,
            n_query_groups=shape.heads,
            padded_vocab_size=VOCABULARY,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=shape.inner,
        )
    )
    model.lm_head.weight = model.transformer.wte.weight
    model = model.bfloat16()
    optimizer = adamw(model)
    compiled = torch.compile(model)
    micro_batches = [tokens[start : start + rows] for start in range(0, shape.rows, rows)]

    def step() -> None:
        for some in micro_batches:
            ids, targets = some[:, :-1].contiguous(), some[:, 1:].contiguous()
            loss = chunked_cross_entropy(compiled(ids), targets, chunk_size=0)
            (loss / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
