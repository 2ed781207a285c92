"""How long does our small model take to reach the loss of a carefully tuned GPT-2?

    python benchmarks/time_to_loss.py QUICKSTART [--minutes 6] [--share 0.333] [--seeds 3]

QUICKSTART is the folder of a `groundup quickstart`; the program uses its data, its tokenizer and
the shape of its base model. Both sides have that depth, width and vocabulary and read the same
stream of documents:

    gpt2        transformers' GPT2LMHeadModel (learned positions, LayerNorm, GELU, no dropout),
                float32 weights under bf16 autocast, compiled, torch's fused AdamW (0.9, 0.95,
                weight decay 0.1), gradients clipped at 1, a warm-up of 5 % of its minutes and a
                cosine to zero, in the environment its users have. Its rate is searched with a seed
                of its own, in runs of half its minutes; compiling is not counted.
    groundup    `groundup pretrain` of that shape, in `share` of those minutes, as it comes

Ours moves gradually from the small world to real texts, as `pretrain` does; GPT-2 always reads the
mean of that mixture. Both are measured in bits per byte on the same held-out documents, and take
turns seed by seed. Needs `pip install transformers` (the extra `test`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from groundup.runs.files import read_json_object, read_lines
from groundup.train.config import ENVIRONMENT

RATES = (1e-3, 2e-3, 4e-3, 8e-3)
ROWS = 16
# The seed for trying learning rates; the comparison does not use it.
TRIED = 10_000


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("quickstart", type=Path)
    arguments.add_argument("--minutes", type=float, default=6.0, help="of GPT-2")
    arguments.add_argument("--share", type=float, default=1 / 3, help="of them, for ours")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--rates", type=float, nargs="+", default=RATES)
    arguments.add_argument("--json", type=Path, help="file for what was found")
    arguments.add_argument("--gpt2", nargs=4, metavar=("RATE", "SEED", "MINUTES", "OUT"),
                           help=argparse.SUPPRESS)  # fmt: skip
    options = arguments.parse_args()
    if options.gpt2:
        rate, seed, minutes, out = options.gpt2
        train_gpt2(options.quickstart, float(rate), int(seed), float(minutes), Path(out))
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = compared(options, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def compared(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    tried = {
        rate: gpt2(options, scratch, rate, TRIED, options.minutes / 2)["bits_per_byte"]
        for rate in options.rates
    }
    best = min(tried, key=lambda rate: tried[rate])
    print(f"GPT-2's rate: {best:g}", flush=True)
    if best in (min(tried), max(tried)):
        print("  (at the edge of those tried: one beyond it might be better still)")
    sides: dict[str, list[dict[str, float]]] = {"gpt2": [], "groundup": []}
    for seed in range(options.seeds):
        sides["gpt2"].append(gpt2(options, scratch, best, seed, options.minutes))
        sides["groundup"].append(ours(options, scratch, seed))
    ends = {name: [one["bits_per_byte"] for one in runs] for name, runs in sides.items()}
    times = {name: statistics.mean(one["seconds"] for one in sides[name]) for name in sides}
    for name, losses in ends.items():
        print(
            f"{name:9} {statistics.mean(losses):.3f} bits per byte ({min(losses):.3f} to "
            f"{max(losses):.3f}) in {times[name]:.0f} s"
        )
    reached = sum(a <= b for a, b in zip(ends["groundup"], ends["gpt2"], strict=True))
    print(
        f"in {times['groundup'] / times['gpt2']:.0%} of the time groundup is as good or better "
        f"with {reached} of {options.seeds} seeds"
    )
    return {"tried": tried, "rate": best, "sides": sides}


def gpt2(
    options: argparse.Namespace, scratch: Path, rate: float, seed: int, minutes: float
) -> dict[str, float]:
    out = scratch / f"gpt2-{rate:g}-{seed}"
    environment = {name: v for name, v in os.environ.items() if name not in ENVIRONMENT}
    words = [str(rate), str(seed), str(minutes), str(out)]
    command = [sys.executable, __file__, str(options.quickstart), "--gpt2", *words]
    subprocess.run(command, check=True, env=environment)
    run = read_json_object(out / "seconds.json")
    found = judged(options.quickstart, out) | {"seconds": run["seconds"], "tokens": run["tokens"]}
    print(f"gpt2      rate {rate:g} seed {seed}: {told(found)}", flush=True)
    return found


def ours(options: argparse.Namespace, scratch: Path, seed: int) -> dict[str, float]:
    base, out = options.quickstart / "base", scratch / f"ours-{seed}"
    shape = read_json_object(base / "config.json")
    command = [
        sys.executable, "-m", "groundup", "pretrain", "--data", str(options.quickstart / "data"),
        "--tokenizer", str(options.quickstart / "tokenizer"), "--out", str(out),
        "--minutes", str(options.minutes * options.share), "--seed", str(seed),
        "--depth", str(shape["num_hidden_layers"]), "--width", str(shape["hidden_size"]),
        "--evaluations", "1",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [line for line in read_lines(out / "metrics.jsonl") if line["kind"] == "train"]
    tokens = len(lines) * read_json_object(out / "plan.json")["tokens_per_step"]
    found = judged(options.quickstart, out)
    found |= {"seconds": sum(line["seconds"] for line in lines), "tokens": tokens}
    print(f"groundup  seed {seed}: {told(found)}", flush=True)
    return found


def told(run: dict[str, float]) -> str:
    return (
        f"{run['bits_per_byte']:.3f} bits per byte in {run['seconds']:.0f} s "
        f"({run['tokens'] / 1e6:.1f} M tokens, {run['parameters'] / 1e6:.1f} M parameters)"
    )


def judged(quickstart: Path, folder: Path) -> dict[str, float]:
    """Bits per byte on the held-out documents, the same text and windows for both sides."""
    import groundup
    from groundup.evals.perplexity import bits_per_byte
    from groundup.text.shards import Shard

    model, tokenizer = groundup.load(folder)
    heldout = Shard.open(quickstart / "base" / "tokens" / "heldout")
    found = bits_per_byte(
        model, heldout, tokenizer, bytes_per_source=20_000,
        context=model.config.max_position_embeddings,
    )  # fmt: skip
    return {"bits_per_byte": found.per_byte(), "parameters": float(model.config.parameters)}


def train_gpt2(quickstart: Path, rate: float, seed: int, minutes: float, out: Path) -> None:
    import torch
    import transformers
    from torch import nn

    from groundup.data.packs.manifest import source_group
    from groundup.pretrain.config import PretrainConfig
    from groundup.text.document_stream import DocumentStream
    from groundup.text.shards import Shard
    from groundup.text.tokenizer import Tokenizer

    torch.manual_seed(seed)
    shape = read_json_object(quickstart / "base" / "config.json")
    tokenizer = Tokenizer.load(quickstart / "tokenizer")
    mixture = PretrainConfig.model_fields["mixture"].default
    stream = DocumentStream(
        Shard.open(quickstart / "base" / "tokens" / "train"),
        context=shape["max_position_embeddings"], rows=ROWS, micro_rows=ROWS, seed=seed,
        mixture={source_group(name): shares for name, shares in mixture.items()},
    )  # fmt: skip
    end = tokenizer.end_of_text
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=shape["vocab_size"], n_positions=shape["max_position_embeddings"],
            n_embd=shape["hidden_size"], n_layer=shape["num_hidden_layers"],
            n_head=max(1, shape["hidden_size"] // 64), resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
            bos_token_id=end, eos_token_id=end,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    compiled = torch.compile(model)
    seconds, step, budget = 0.0, 0, 60 * minutes
    while seconds < budget:
        begun = time.perf_counter()
        [batch] = stream.at(step, nn.Identity())
        done = seconds / budget
        warm = min(1.0, (done + 1e-3) / 0.05)
        share = warm * (0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * done)).item())
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        with torch.autocast("cpu", torch.bfloat16):
            logits = compiled(input_ids=batch.input_ids).logits
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step > 1:  # what compiling takes is not counted
            seconds += time.perf_counter() - begun
    model.save_pretrained(out)
    tokenizer.save(out)
    tokens = step * ROWS * shape["max_position_embeddings"]
    (out / "seconds.json").write_text(json.dumps({"seconds": seconds, "tokens": tokens}))


if __name__ == "__main__":
    main()
