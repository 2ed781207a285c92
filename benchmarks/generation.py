"""Tokens per second against `transformers`' `generate`, each side in a process of its own.

    python benchmarks/generation.py [--models small 10m 135m] [--batches 1 16 64] [--turns 3]
    python benchmarks/generation.py --models 135m --batches 1 16 --lora 16

Random models of Qwen3's shape: `small` (4 layers of width 256, 3.9 million parameters), `10m` (6
layers of 384) and `135m`, SmolLM2-135M's (30 layers of 576). Prompts of 32 tokens, 128 new ones,
greedy; nothing ends early. The sides take turns, process by process, so changes in the machine's
speed affect all of them. Each runs in its users' environment, which is the shell's. Several
settings of `transformers` are tried (bfloat16 and float32, its growing cache and its static one),
and the best counts. With `--lora RANK` every matrix of the blocks gets an adapter of random
weights, which `peft` adds on the side of `transformers`.

The bound is the least time of a step of one row if the weights do not fit the processor's cache:
all of them are read from memory once, at the bandwidth that summing 512 MB measures in the same
turn.

Needs `pip install transformers peft` (the extra `test`). Prints medians and ranges, and with
`--json` writes all measurements.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "small": {"width": 256, "depth": 4, "vocab_size": 4_096, "heads": 4, "kv_heads": 1},
    "10m": {"width": 384, "depth": 6, "vocab_size": 4_096, "heads": 6, "kv_heads": 2},
    "135m": {"width": 576, "depth": 30, "vocab_size": 49_152, "heads": 9, "kv_heads": 3},
}
SIDES = (
    "groundup bfloat16",
    "transformers bfloat16",
    "groundup float32",
    "transformers float32",
    "transformers bfloat16 static",
    "transformers float32 static",
)
PROMPT, NEW = 32, 128

# One process's measurements by batch, or "bandwidth": tokens or bytes per second.
Rates = dict[str, list[float]]
Serve = Callable[[], int]


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--models", nargs="+", default=list(SHAPES), choices=SHAPES)
    arguments.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64])
    arguments.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    arguments.add_argument("--turns", type=int, default=3, help="processes of each side")
    arguments.add_argument("--calls", type=int, default=3, help="timed calls in each process")
    arguments.add_argument("--lora", type=int, default=0, help="rank of an adapter; 0 is none")
    arguments.add_argument("--json", type=Path, help="file for all measurements")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.models[0], options)))
        return
    found = {model: in_turns(model, options) for model in options.models}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def in_turns(model: str, options: argparse.Namespace) -> dict[str, Rates]:
    """The rates of every side, whose processes take turns."""
    found: dict[str, Rates] = {side: {} for side in options.sides}
    batches = [str(batch) for batch in options.batches]
    for _ in range(options.turns):
        for side in options.sides:
            command = [sys.executable, __file__, "--side", side, "--models", model]
            command += ["--batches", *batches, "--calls", str(options.calls)]
            command += ["--lora", str(options.lora)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            for name, rates in json.loads(said.splitlines()[-1]).items():
                found[side].setdefault(name, []).extend(rates)
    for batch in batches:
        show(model, batch, found)
    return found


def show(model: str, batch: str, found: dict[str, Rates]) -> None:
    medians = {side: statistics.median(rates[batch]) for side, rates in found.items()}
    for side, rates in found.items():
        low, high = min(rates[batch]), max(rates[batch])
        share = ""
        if batch == "1":
            bound = statistics.median(rates["bandwidth"]) / rates["bytes"][0]
            share = f"  {medians[side] / bound:4.0%} of the bound"
        print(
            f"{model:5} batch {batch:>2} {side:28} {medians[side]:8,.0f} tokens/s "
            f"({low:,.0f} to {high:,.0f}){share}"
        )
    best = {
        name: max((rate for side, rate in medians.items() if side.startswith(name)), default=0.0)
        for name in ("groundup", "transformers")
    }
    if all(best.values()):
        ratio = best["groundup"] / best["transformers"]
        print(f"{model:5} batch {batch:>2} best against best {ratio:.2f}")
    sys.stdout.flush()


# In the process of one side.


def measure(side: str, shape: str, options: argparse.Namespace) -> Rates:
    import torch

    name, dtype, *cache = side.split()
    model = make(shape, options.lora).to(getattr(torch, dtype)).eval()
    size = sum(parameter.nbytes for parameter in model.parameters())
    found: Rates = {"bandwidth": [bandwidth()], "bytes": [size]}
    peer = None if name == "groundup" else as_peer(model)
    for batch in options.batches:
        dice = random.Random(0)
        vocabulary = SHAPES[shape]["vocab_size"]
        prompts = [[dice.randrange(3, vocabulary) for _ in range(PROMPT)] for _ in range(batch)]
        serve = ours(model, prompts) if peer is None else theirs(peer, prompts, cache)
        serve()  # warms up
        found[str(batch)] = []
        for _ in range(options.calls):
            start = time.perf_counter()
            tokens = serve()
            found[str(batch)].append(tokens / (time.perf_counter() - start))
    return found


def make(shape: str, rank: int) -> Any:
    """A model with random weights, and an adapter of this rank."""
    import torch

    from groundup.adapters.attach import add_lora
    from groundup.lm.config import ModelConfig
    from groundup.lm.model import CausalLM

    model = CausalLM(ModelConfig.of(context=1_024, **SHAPES[shape]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                # Logits of a standard deviation of 3.5: an entropy like a trained model's.
                scale = (3.5 if "embed" in name else 1.0) * parameter.shape[-1] ** -0.5
                parameter.normal_(0.0, scale, generator=generator)
    if not rank:
        return model
    add_lora(model, rank)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0.0, 0.1 * rank**-0.5, generator=generator)
    return model


def as_peer(model: Any) -> Any:
    """The same weights as a model of `transformers`, or of `peft` if there is an adapter."""
    import transformers

    from groundup.adapters.attach import active_adapter
    from groundup.formats.hf_config import config_to_hf
    from groundup.formats.peft import save_adapter

    config = transformers.Qwen3Config(**config_to_hf(model.config))
    peer = transformers.Qwen3ForCausalLM(config)
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    peer.load_state_dict(weights)
    if active_adapter(model) is not None:
        import peft

        with tempfile.TemporaryDirectory() as folder:
            save_adapter(folder, model)
            peer = peft.PeftModel.from_pretrained(peer, folder)
    return peer.to(model.head.dtype).eval()


def ours(model: Any, prompts: list[list[int]]) -> Serve:
    from groundup.generation.generate import generate
    from groundup.generation.request import Request
    from groundup.generation.sampling import Sampling

    sampling = Sampling(temperature=0.0, max_new_tokens=NEW, ignore_eos=True)
    requests = [Request(prompt_ids=prompt, sampling=sampling) for prompt in prompts]

    def serve() -> int:
        done = generate(model, requests, batch_size=len(requests))
        return sum(len(one.ids) for one in done)

    return serve


def theirs(peer: Any, prompts: list[list[int]], cache: list[str]) -> Serve:
    import torch

    settings: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    if cache:
        settings["cache_implementation"] = cache[0]
    ids = torch.tensor(prompts)
    seen = torch.ones_like(ids)

    def serve() -> int:
        with torch.inference_mode():
            out = peer.generate(ids, attention_mask=seen, max_new_tokens=NEW, **settings)
        return int(out[:, ids.shape[1] :].numel())

    return serve


def bandwidth() -> float:
    """Bytes per second at which all cores together read memory, the best of five."""
    import torch

    numbers = torch.ones(2**27)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        rates.append(numbers.nbytes / (time.perf_counter() - start))
    return max(rates)


if __name__ == "__main__":
    main()
