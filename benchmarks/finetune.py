"""Fine-tuning speed and memory against `transformers`, `peft` and `bitsandbytes`, for one shape.

    python benchmarks/finetune.py [--steps 10] [--sides lora peft-eager …] [--rows 2]

SmolLM2-135M's shape (30 layers of width 576, vocabulary 49,152), random weights, one micro-batch of
2 rows of 512 tokens a step, all of them trained on, LoRA of rank 16 on every linear layer of the
blocks, AdamW. Every side is a process of its own, in its usual environment. The processes take
turns step by step, so changes in the machine's speed affect all of them. Each has its own peak of
resident memory (of the whole process: Python and torch take about 0.4 GB).

    lora, qlora, full    groundup as `groundup sft` computes here: bf16 with fp32 masters, by its
                         kernels where the processor has them, else compiled
    …-eager              the same by PyTorch alone, without kernels and without compiling
    …-checkpointed       with gradient checkpointing
    peft-eager           transformers + peft: fp32 weights under bf16 autocast
    peft-compiled        the same under torch.compile
    peft-bfloat16-eager, peft-bfloat16-compiled    the base in bf16, the adapter in fp32, autocast
    bnb-eager            transformers + peft + bitsandbytes: nf4, double quantization, autocast
    full-transformers, full-transformers-compiled    all weights, fp32, autocast, AdamW in fp32

Needs `pip install 'groundup[test]'`. Prints medians, peaks and pairwise ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from groundup.train.config import ENVIRONMENT

VOCABULARY, RANK = 49_152, 16
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8_192,
    "tie_word_embeddings": True,
}
OURS = ("lora", "qlora", "full", "lora-eager", "qlora-eager", "lora-checkpointed")
PEERS = (
    "peft-eager",
    "peft-compiled",
    "peft-bfloat16-eager",
    "peft-bfloat16-compiled",
    "bnb-eager",
    "full-transformers",
)
MORE = ("full-eager", "full-checkpointed", "qlora-checkpointed", "full-transformers-compiled")
# The peer that each of ours is compared with.
AGAINST = {
    "lora": ("peft-eager", "peft-compiled", "peft-bfloat16-eager", "peft-bfloat16-compiled"),
    "qlora": ("bnb-eager", "lora"),
    "full": ("full-transformers", "full-transformers-compiled"),
    "lora-checkpointed": ("lora",),
    "full-checkpointed": ("full",),
    "qlora-checkpointed": ("qlora",),
}

Step = Callable[[], float]


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--steps", type=int, default=10)
    arguments.add_argument("--rows", type=int, default=2)
    arguments.add_argument("--context", type=int, default=512)
    arguments.add_argument(
        "--sides", nargs="+", default=[*OURS, *PEERS], choices=OURS + PEERS + MORE
    )
    arguments.add_argument("--work", choices=OURS + PEERS + MORE, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.work:
        work(options.work, options.rows, options.context)
        return
    workers = {name: start(name, options) for name in options.sides}
    for name, worker in workers.items():
        print(f"{name}: first step, compiling, {turn(worker):.1f} s", flush=True)
        turn(worker)
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(options.steps):
        for name, worker in workers.items():
            seconds[name].append(turn(worker))
    peaks = {name: finished(worker) for name, worker in workers.items()}
    report(seconds, peaks, options.rows * options.context)


def start(name: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """A process for one side, once it is ready for its first step."""
    command = [sys.executable, __file__, "--work", name]
    command += ["--rows", str(options.rows), "--context", str(options.context)]
    environment = {**os.environ, **(ENVIRONMENT if name.split("-")[0] in OURS else {})}
    if name.startswith("full-transformers"):
        environment = dict(os.environ)
    worker = subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if not os.environ.get("SHOW_ERRORS") else None,
    )
    assert worker.stdout is not None
    if worker.stdout.readline().strip() != "ready":
        raise SystemExit(f"{name} did not start; set SHOW_ERRORS=1 to see why")
    return worker


def turn(worker: subprocess.Popen[str]) -> float:
    """One step of a side, while all others wait."""
    assert worker.stdin is not None and worker.stdout is not None
    # Threads that spin after their last product stop before the next side starts.
    time.sleep(0.3)
    worker.stdin.write("step\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def finished(worker: subprocess.Popen[str]) -> float:
    """End a side; its peak of resident memory in GB."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("end\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def report(seconds: dict[str, list[float]], peaks: dict[str, float], tokens: int) -> None:
    for name, taken in seconds.items():
        speed = tokens / statistics.median(taken)
        print(f"{name:26} {speed:7,.0f} tokens/s   peak {peaks[name]:.2f} GB")
    for name, others in AGAINST.items():
        for other in others:
            if name in seconds and other in seconds:
                pairs = zip(seconds[other], seconds[name], strict=True)
                ratios = sorted(theirs / mine for theirs, mine in pairs)
                print(
                    f"{name} against {other}: {statistics.median(ratios):.2f} times its speed "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f}), "
                    f"{peaks[name] / peaks[other]:.2f} of its peak memory"
                )


# In a worker process.


def work(name: str, rows: int, context: int) -> None:
    """Answer every line with the seconds of a step, and the last one with the peak memory."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    tokens = torch.randint(3, VOCABULARY, (rows, context + 1))
    ours = name.split("-")[0] in OURS and not name.startswith("full-transformers")
    step = groundup_step(name, tokens) if ours else peer_step(name, tokens)
    # The peak of training, not of creating and quantizing the model.
    from groundup.train.device import peak_memory, reset_peak_memory

    reset_peak_memory("cpu")
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() != "step":
            print(f"{(peak_memory('cpu') or 0) / 1e9:.3f}", flush=True)
            return
        begun = time.perf_counter()
        step()
        print(f"{time.perf_counter() - begun:.4f}", flush=True)


def groundup_step(name: str, tokens: Any) -> Step:
    import torch

    from groundup.adapters.attach import add_lora
    from groundup.adapters.quantization import quantize
    from groundup.formats.hf_config import config_from_hf
    from groundup.lm.model import CausalLM
    from groundup.train.batch import Batch
    from groundup.train.config import TrainingConfig
    from groundup.train.device import prepare, resolve
    from groundup.train.loss import next_token_loss
    from groundup.train.optim import Optimizer, Rates

    method, _, way = name.partition("-")
    model = CausalLM(config_from_hf({"model_type": "llama", **SHAPE}))
    model.initialize(0)
    if method == "qlora":
        quantize(model)
    if method != "full":
        add_lora(model, RANK, 2.0 * RANK)
    compute = resolve(TrainingConfig(out="unused"), compile_by_default=True)
    if way == "eager":
        compute = replace(compute, compile=False, kernels="none")
    prepare(model, compute, gradient_checkpointing=way == "checkpointed")
    model.train()
    rate = 1e-3
    optimizer = Optimizer(model, Rates(rate, rate, rate), muon=False)
    plain = Batch.of(tokens[:, :-1].contiguous())
    batch = Batch(
        plain.input_ids,
        tokens[:, 1:].contiguous(),
        torch.ones(plain.input_ids.shape),
        plain.position_ids.contiguous(),
        plain.segment_ids,
    )

    def step() -> float:
        loss = next_token_loss(model, batch).total / batch.weight
        loss.backward()
        optimizer.clip(optimizer.gradient_norm(), 1.0)
        optimizer.step(1.0)
        return float(loss.detach())

    return step


def peer_model(name: str) -> Any:
    import transformers

    config = transformers.LlamaConfig(**SHAPE, use_cache=False)
    model: Any = transformers.LlamaForCausalLM(config)
    if name == "bnb-eager":
        model = in_four_bits(model)
    if name.startswith("peft-bfloat16"):
        model = model.bfloat16()  # peft keeps its own matrices in fp32
    if not name.startswith("full"):
        import peft

        lora = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        model = peft.get_peft_model(model, lora)
    return model.train()


def peer_step(name: str, tokens: Any) -> Step:
    import torch

    model = peer_model(name)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    forward = torch.compile(model) if name.endswith("compiled") else model
    ids = tokens[:, :-1].contiguous()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def in_four_bits(model: Any) -> Any:
    import torch
    import transformers

    four_bits = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=four_bits, device_map="cpu"
        )


if __name__ == "__main__":
    main()
