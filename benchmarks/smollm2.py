"""SmolLM2-135M against `transformers` and llama.cpp, each side in a process of its own.

    python benchmarks/smollm2.py [--turns 3] [--batches 1 16] [--processor-time]

The model is the pack `smollm2`, a GGUF file of 98 MB in Q4_1 and Q8_0: ours in the file's blocks
and in bfloat16, `transformers` in bfloat16 and float32, llama.cpp with the file. A prompt of 32
tokens, 64 new ones, greedy; nothing ends early. The bound is the least time of a step of one row:
all weights are read once, at the bandwidth that summing 512 MB of float32 measures.

On a shared machine, `--processor-time` counts the process's processor seconds instead of the
clock's; it is meaningful only with OMP_NUM_THREADS=1.

Needs `pip install transformers llama-cpp-py-sync` (the extra `test`).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SIDES = (
    "groundup blocks",
    "llama.cpp blocks",
    "groundup bfloat16",
    "transformers bfloat16",
    "transformers float32",
)
PROMPT, NEW, LONG = 32, 64, 1_024

Prompts = list[list[int]]
# (prompts, new tokens of each) -> all generated tokens
Serve = Callable[[Prompts, int], int]


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    arguments.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    arguments.add_argument("--turns", type=int, default=3, help="processes of each side")
    arguments.add_argument("--calls", type=int, default=3, help="timed calls in each process")
    arguments.add_argument("--processor-time", action="store_true")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    if options.side:
        print(json.dumps(measure(options.side, options.batches, options.calls, clock)))
        return
    found: dict[str, dict[str, list[float]]] = {side: {} for side in options.sides}
    for _ in range(options.turns):
        for side in options.sides:
            command = [sys.executable, __file__, "--side", side, "--calls", str(options.calls)]
            command += ["--batches", *map(str, options.batches)]
            command += ["--processor-time"] * options.processor_time
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            for name, rates in json.loads(said.splitlines()[-1]).items():
                found[side].setdefault(name, []).extend(rates)
    for side, rates in found.items():
        for name, some in rates.items():
            print(f"{side:22} {name:26} {statistics.median(some):9,.1f} "
                  f"({min(some):,.1f} to {max(some):,.1f})")  # fmt: skip


def measure(
    side: str, batches: list[int], calls: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    from groundup.formats.load import open_model

    stored = open_model("pack:smollm2")
    name, kind = side.split()
    serve, size = {"groundup": ours, "transformers": theirs, "llama.cpp": llama_cpp}[name](
        stored, kind
    )
    found: dict[str, list[float]] = {}
    dice = random.Random(0)
    for batch in batches:
        if name == "llama.cpp" and batch > 1:
            continue
        prompts = [[dice.randrange(99, 9_999) for _ in range(PROMPT)] for _ in range(batch)]
        found[f"tokens/s, batch {batch}"] = timed(lambda: serve(prompts, NEW), calls, clock)  # noqa: B023
    prompt = [[dice.randrange(99, 9_999) for _ in range(LONG)]]
    found["tokens/s, prompt of 1,024"] = timed(lambda: serve(prompt, 1) * LONG, calls, clock)
    bound = bandwidth(clock) / size
    found["bound of batch 1"] = [bound]
    if batches[0] == 1:
        best = statistics.median(found["tokens/s, batch 1"])
        found["share of the bound, %"] = [100 * best / bound]
    return found


def timed(serve: Callable[[], int], calls: int, clock: Callable[[], float]) -> list[float]:
    serve()  # warms up
    rates = []
    for _ in range(calls):
        begun = clock()
        tokens = serve()
        rates.append(tokens / (clock() - begun))
    return rates


def bandwidth(clock: Callable[[], float]) -> float:
    """Bytes per second at which all cores together read memory, the best of ten."""
    import torch

    numbers = torch.ones(2**27)
    rates = []
    for _ in range(10):
        begun = clock()
        numbers.sum()
        rates.append(numbers.nbytes / (clock() - begun))
    return max(rates)


# Each side: a function, and the bytes of the weights that a step reads.


def ours(stored: Any, kind: str) -> tuple[Serve, int]:
    import torch

    from groundup.generation.generate import generate
    from groundup.generation.request import Request
    from groundup.generation.sampling import Sampling

    model = stored.model_in_blocks() if kind == "blocks" else stored.model(torch.bfloat16)
    size = sum(one.nbytes for one in model.parameters())
    if kind == "blocks":
        size += sum(one.nbytes for name, one in model.named_buffers() if "embed" not in name)

    def serve(prompts: Prompts, new: int) -> int:
        sampling = Sampling(temperature=0.0, max_new_tokens=new, ignore_eos=True)
        requests = [Request(prompt_ids=prompt, sampling=sampling) for prompt in prompts]
        return sum(len(one.ids) for one in generate(model, requests))

    return serve, size


def theirs(stored: Any, kind: str) -> tuple[Serve, int]:
    import torch
    import transformers

    from groundup.formats.hf_config import config_to_hf

    config = transformers.LlamaConfig(**config_to_hf(stored.config))
    dtype = getattr(torch, kind)
    weights = stored.state_dict(dtype)
    peer = transformers.LlamaForCausalLM(config).to(dtype)
    peer.load_state_dict(weights, strict=False)
    peer.tie_weights()

    def serve(prompts: Prompts, new: int) -> int:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = peer.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        return int(out[:, ids.shape[1] :].numel())

    return serve, sum(one.nbytes for one in peer.parameters())


def llama_cpp(stored: Any, kind: str) -> tuple[Serve, int]:
    import torch
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    lib, ffi = get_lib(), get_ffi()

    @ffi.callback("void(enum ggml_log_level, const char *, void *)")
    def silent(level: int, text: object, data: object) -> None:
        pass

    lib.llama_log_set(silent, ffi.NULL)
    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(str(stored.path).encode(), settings)
    vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 2 * LONG
    params.n_threads = params.n_threads_batch = torch.get_num_threads()
    context = lib.llama_init_from_model(model, params)

    def read(ids: list[int]) -> int:
        held = ffi.new("llama_token[]", ids)
        assert lib.llama_decode(context, lib.llama_batch_get_one(held, len(ids))) == 0
        logits = ffi.buffer(lib.llama_get_logits_ith(context, -1), 4 * vocabulary)
        return int(torch.frombuffer(logits, dtype=torch.float32).argmax())

    def serve(prompts: Prompts, new: int) -> int:
        (prompt,) = prompts
        assert silent  # llama.cpp calls it; a reference keeps it from being garbage-collected
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        last = read(prompt)
        for _ in range(new - 1):
            last = read([last])
        return new

    return serve, stored.path.stat().st_size


if __name__ == "__main__":
    main()
