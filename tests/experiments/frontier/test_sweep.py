"""The whole sweep in miniature: its points, its files, and resuming after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groundup.experiments.frontier.config import FrontierConfig
from groundup.experiments.frontier.points import Builder
from groundup.experiments.frontier.sweep import settings
from groundup.formats.folder import save_model
from groundup.formats.gguf.write import save_gguf
from groundup.formats.load import load
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.folder import is_finished
from groundup.text.bpe import train_bpe
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from groundup.world import pack


def random_model(folder: Path, template: str | None = CHATML, seed: int = 0) -> Path:
    """A random model with the world's vocabulary."""
    texts = [pack.document(0, i).text for i in range(40)]
    tokenizer = Tokenizer.from_bpe(train_bpe(texts, 500), chat_template=template)
    random = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=512, context=512))
    random.initialize(seed)
    save_model(folder, random, tokenizer, card="")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("world") / "model")


def command(model: Path, out: Path, *more: str) -> list[str]:
    words = ["frontier", str(model), "--out", str(out), "--quick", "--points", "2"]
    return [sys.executable, "-m", "groundup", *words, "--threads", "1", *more]


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "frontier.json").read_text())
    return found


def numbers(out: Path) -> list[Any]:
    """All measurements; seconds differ from run to run."""
    return [{k: v for k, v in one.items() if k != "seconds"} for one in read(out)["points"]]


def test_a_dial_has_both_ends() -> None:
    given: dict[str, Any] = {"out": Path("o"), "model": Path("m"), "points": 5}
    assert settings(FrontierConfig(**given)) == [0, 0.25, 0.5, 0.75, 1]
    prices = settings(FrontierConfig(**given, dial="kl"))
    assert prices[0] == 1 and prices == sorted(prices, reverse=True) and len(set(prices)) == 5


@pytest.mark.long
@pytest.mark.parametrize("dial", ["mix", "fairness", "kl"])
def test_the_miniature_ends_with_a_page_and_every_point(
    model: Path, tmp_path: Path, dial: str
) -> None:
    out, seeds = tmp_path / "out", 2 if dial == "mix" else 1
    done = subprocess.run(
        command(model, out, "--dial", dial, "--seeds", str(seeds)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = read(out)
    kinds = [one["kind"] for one in found["points"]]
    soups = 3 if dial == "mix" else 5
    assert kinds == [
        *("start", "dial", "dial", "balanced", "constraint", "constraint", "constraint"),
        *["soups"] * soups,
        "system-prompt",
    ]
    for one in found["points"]:
        assert set(one["axes"]) == {"utility", "safety", "fairness"}
        assert all(0 <= a["low"] <= a["estimate"] <= a["high"] <= 1 for a in one["axes"].values())
        assert len(one["by_seed"]) == seeds
    # Seeds train other models.
    dials = [one for one in found["points"] if one["kind"] == "dial"]
    assert any(len({tuple(seed.values()) for seed in one["by_seed"]}) == seeds for one in dials)
    best = [one["name"] for one in found["points"] if one["dominated_by"] is None]
    assert best
    for one in found["points"]:
        assert one["dominated_by"] in (None, *best) and one["beaten_by"] in (None, *best)
    for name in ("report.html", "frontier.png", "frontier.svg", "dial.png"):
        assert (out / name).stat().st_size > 5_000


@pytest.mark.long
def test_a_killed_sweep_resumes_and_repeats_nothing(model: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    few = ("--strategies", "soup")
    subprocess.run(command(model, whole, *few), check=True, capture_output=True)
    words = command(model, killed, *few)
    made: dict[Path, int] = {}
    for piece in ("dpo/h0.000-b0.100-0", "measured/dpo-h1.000-b0.100-0.json", "soups/0.500-0"):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            path = killed / piece
            if is_finished(path) if path.suffix != ".json" else path.exists():
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not is_finished(killed)
        for path, when in made.items():
            assert path.stat().st_mtime_ns == when, path
        made |= {p: p.stat().st_mtime_ns for p in killed.glob("*/*/model.safetensors")}
    assert made
    subprocess.run(words, check=True, capture_output=True)
    assert numbers(killed) == numbers(whole)
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    # Finished, it is left alone.
    before = (killed / "frontier.json").stat().st_mtime_ns
    subprocess.run(words, check=True, capture_output=True)
    assert (killed / "frontier.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--guard", "."), "guard=. holds no guard"),
        (("--reward", "kindness"), "'kindness' is not a reward"),
        (("--costs", "kindness"), "'kindness' is not a reward"),
        (("--reward", "groundup.world.gold:kindness"), "has no function 'kindness'"),
        (("--costs", "groundup.world.gold:kindness"), "has no function 'kindness'"),
        (("--dial", "kl", "--strategies", "soup", "--reward", "kindness"), "is not a reward"),
    ],
)
def test_an_invalid_guard_or_reward_is_rejected_before_training(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    said: str,
) -> None:
    from groundup.app import cli

    out = tmp_path / "out"
    assert cli.main(command(model, out, *more)[3:]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_an_unusable_template_is_rejected_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundup.app import cli

    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
    none, strict = (
        random_model(tmp_path / name, template)
        for name, template in (("none", None), ("strict", strict + CHATML))
    )
    for folder, said in ((none, "no chat template"), (strict, "No system!")):
        out = tmp_path / "out"
        assert cli.main(command(folder, out)[3:]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
        assert ("leave system-prompt out of --strategies" in told) == (folder == strict)
        assert not out.exists()
    # Following the advice removes the error.
    more = ("--strategies", "soup", "--guard", ".")
    assert cli.main(command(strict, tmp_path / "out", *more)[3:]) == 2
    assert "guard=. holds no guard" in capsys.readouterr().err


def test_a_changed_weight_file_is_measured_again(tmp_path: Path) -> None:
    """Measurements of a single file are also cached by its content."""
    asked = []
    (tmp_path / "out").mkdir()
    for seed in (0, 1):
        gguf = tmp_path / "model.gguf"
        save_gguf(gguf, *load(random_model(tmp_path / f"model{seed}", seed=seed)), "F32")
        config = FrontierConfig(out=tmp_path / "out", model=gguf, quick=True, threads=1)
        Builder(config).measured(gguf)
        kept = json.loads((tmp_path / "out" / "measured" / "before.json").read_text())
        asked.append(kept["of"]["model"])
    assert asked[0] != asked[1]


def test_a_missing_model_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from groundup.app import cli

    assert cli.main(["frontier", str(tmp_path / "nothing"), "--out", str(tmp_path / "o")]) == 2
    assert "nothing" in capsys.readouterr().err
