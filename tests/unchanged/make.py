"""Write down what this release computes: folders of runs, and numbers, for `test_unchanged`.

    python tests/unchanged/make.py FOLDER

It is run when behavior changes on purpose, and never to make a test pass.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from groundup import Request, Sampling, Tokenizer, generate, load
from groundup.runs.files import write_sealed
from groundup.train.batch import Batch

# Text that tokenizers trip over: other scripts, joined emoji, spaces, control words, digits.
HARD = [
    "The sea is blue.",
    "  two spaces,\ttab\n\nlines \r\n",
    "naïve café, Ä Ö Ü ß, Ελλάδα, русский, 日本語, عربى",
    "👩‍👩‍👧 🇪🇺 e\u0301 \u200b\ufeff",
    "<|im_start|>user\nhi<|im_end|><|endoftext|>",
    "1234567890 3.14 1e-5 I'LL we're don't",
    "\x00\x7f\ud7ff",
]
PROMPTS = ["The sea is", "The"]
TRAINING = [
    "--rows",
    "4",
    "--micro-rows",
    "2",
    "--evaluations",
    "2",
    "--compile",
    "off",
    "--dtype",
    "float32",
    "--threads",
    "1",
    "--optimizer",
    "adamw",
    "--steps",
    "20",
]
STAGES = {
    "base": "pretrain --data data --tokenizer tokenizer --depth 1 --width 64 --context 64 "
    "--learning-rate 0.004 --save-every 10",
    "sft": "sft base --data data --replay 0 --learning-rate 0.004",
    "lora": "sft base --data data --replay 0 --learning-rate 0.004 --adapter lora --lora-rank 2",
    "dpo": "dpo sft --data data --learning-rate 0.001 --nll 0.2",
}


def groundup(arguments: list[str], folder: Path) -> str:
    """Run our command in `folder` and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "groundup", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(stage: str, folder: Path, *more: str) -> None:
    groundup([*STAGES[stage].split(), *TRAINING, "--out", stage, *more], folder)


def losses(run: Path) -> list[float]:
    """The training loss of every step, then every held-out measure."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("bits_per_byte", "heldout_loss", "heldout_accuracy", "preference_loss")
    trained = [line["loss"] for line in lines if line["kind"] == "train"]
    return trained + [line[name] for line in lines for name in names if line.get(name) is not None]


def answers(model_folder: Path) -> dict[str, Any]:
    """Logits after a prompt, and greedy continuations as ids."""
    model, tokenizer = load(model_folder)
    sampling = Sampling(temperature=0.0, max_new_tokens=12)
    requests = [Request(prompt=prompt, sampling=sampling) for prompt in PROMPTS]
    found = generate(model, requests, tokenizer)
    with torch.no_grad():
        logits = model.logits(Batch.of(torch.tensor([tokenizer.encode(PROMPTS[0])])))
    return {
        "logits": [round(float(value), 5) for value in logits[0, -1, :64]],
        "ids": [list(completion.ids) for completion in found],
    }


def tokens(model_folder: Path) -> list[list[int]]:
    return [list(Tokenizer.load(model_folder).encode(text)) for text in HARD]


def figures(report: Path) -> dict[str, float]:
    """Every number of report.json by its path, except times and those of the machine."""
    found: dict[str, float] = {}

    def walk(at: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                if name not in {"created", "seconds", "compute", "settings", "costs"}:
                    walk(f"{at}/{name}", one)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                walk(f"{at}/{place}", one)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[at] = round(float(value), 6)

    walk("", json.loads(report.read_text()))
    return found


def forget_machine(path: Path) -> None:
    found = json.loads(path.read_text())
    del found["sha256"]
    write_sealed(path, found | {"machine": {"system": "Linux", "cores": 2}, "git": None})


def main(folder: Path) -> None:
    """`folder` holds `data` and `tokenizer`, as the tests' workshop makes them."""
    forget_machine(folder / "tokenizer" / "run.json")
    for stage in STAGES:
        train(stage, folder)
    groundup(
        ["eval", "base", "sft", "dpo", "--data", "data", "--out", "report", "--threads", "1"],
        folder,
    )
    expected = {
        "losses": {stage: losses(folder / stage) for stage in STAGES},
        "answers": {stage: answers(folder / stage) for stage in STAGES},
        "tokens": tokens(folder / "base"),
        "report": figures(folder / "report" / "report.json"),
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")
    # The run as a kill at step 15 leaves it.
    for name in ("snapshots", "tokens"):
        shutil.rmtree(folder / "base" / name)
    shutil.copytree(folder / "base", folder / "interrupted")
    for name in ("model.safetensors", "config.json", "generation_config.json", "README.md"):
        (folder / "interrupted" / name).unlink()
    (folder / "interrupted" / ".status.json.copy").unlink()
    (folder / "interrupted" / "status.json").write_text('{"schema": 1, "state": "running"}\n')
    shutil.rmtree(folder / "base" / "checkpoints")
    for name in ("sft", "dpo", "report", "lora/tokens"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for stage in ("base", "interrupted", "lora"):
        forget_machine(folder / stage / "run.json")
    config = folder / "lora" / "adapter_config.json"
    adapter = json.loads(config.read_text()) | {"base_model_name_or_path": "BASE"}
    config.write_text(json.dumps(adapter, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
