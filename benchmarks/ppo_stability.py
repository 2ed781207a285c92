"""Does PPO stay stable? Runs many iterations with several seeds, and collects the warnings.

    python benchmarks/ppo_stability.py MODEL --prompts DATA [--seeds 5] [--iterations 300]

MODEL is a fine-tuned model and DATA its data-stage folder, such as quickstart/sft and
quickstart/data. The reward is the small world's gold, on 32 short answers per iteration, so a seed
takes some minutes on one thread. A seed passes if every logged number is finite and the policy is
at most 25 nats from the reference, or a warning reported it (`align/watch.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from groundup.runs.files import read_lines

REWARD = "groundup.world.gold:reward"
SOURCES = ("world-talk", "world-conduct", "world-facts")
FAR = 25.0


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--prompts", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--iterations", type=int, default=300)
    arguments.add_argument("--kl-coef", type=float, default=0.05)
    arguments.add_argument("--json", type=Path, help="file for what was found")
    options = arguments.parse_args()
    found = []
    for seed in range(options.seeds):
        found.append(measured(options, seed))
        print(json.dumps(found[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    failed = [one["seed"] for one in found if not one["passes"]]
    print(f"{len(found) - len(failed)} of {len(found)} seeds pass")
    return 1 if failed else 0


def measured(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "ppo")
        begun = time.monotonic()
        done = subprocess.run(
            [
                sys.executable, "-m", "groundup", "ppo", str(options.model),
                "--prompts", str(options.prompts), "--reward", REWARD, "--sources", *SOURCES,
                "--iterations", str(options.iterations), "--episodes", "32", "--minibatches", "2",
                "--max-new-tokens", "24", "--kl-coef", str(options.kl_coef),
                "--heldout-prompts", "64", "--evaluations", "1", "--compile", "off",
                "--threads", "1", "--seed", str(seed), "--out", str(out),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        seconds = time.monotonic() - begun
        lines = read_lines(out / "metrics.jsonl") if (out / "metrics.jsonl").is_file() else []
    rollouts = [line for line in lines if line["kind"] == "rollout"]
    numbers = [v for line in lines for v in line.values() if isinstance(v, float)]
    kl = [line["exact_kl"] for line in rollouts]
    heldout = [line["heldout_reward"]["estimate"] for line in lines if "heldout_reward" in line]
    warnings = [line for line in done.stdout.splitlines() if line.startswith("ppo: ")][1:]
    is_whole = done.returncode == 0 and len(rollouts) == options.iterations
    is_told = any("nats from the reference" in line for line in warnings)
    return {
        "seed": seed,
        "passes": is_whole and all(map(math.isfinite, numbers)) and (max(kl) <= FAR or is_told),
        "seconds": round(seconds),
        "heldout_reward": [round(one, 3) for one in heldout],
        "largest_kl": round(max(kl, default=math.nan), 2),
        "entropy": [round(one["entropy"], 3) for one in (rollouts[:1] + rollouts[-1:])],
        "ended": [round(one["ended"], 3) for one in (rollouts[:1] + rollouts[-1:])],
        "warnings": warnings,
        "error": "" if done.returncode == 0 else done.stdout[-300:],
    }


if __name__ == "__main__":
    sys.exit(main())
