"""README's own commands and code, as they stand: parsed in the default suite, run in the long one.

A folder is laid out as the README's reader would have it: a quickstart that is finished, texts,
rows and pairs of one's own, a solved exercise and a GGUF file. What would train for minutes trains
for a step there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.serve.test_server import program

from groundup.app.cli import app, main, words_to_parse
from groundup.kernels import library
from preloaded import Process

if TYPE_CHECKING:
    from conftest import Workshop

# In order, because later commands use the output of earlier ones.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = Path(__file__).resolve().parents[1]
README = "".join(
    (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/pages/measured.md")
)
# Commands that take a quarter of an hour or need a network; other tests run them in miniature.
ONLY_PARSED = (
    *("groundup quickstart", "groundup run ", "groundup chat hub:"),
    # They serve until they are stopped (tests/serve, tests/studio).
    *("groundup serve", "groundup studio"),
    # None of the few rows here is harmful (tests/align/guards).
    *("groundup guard", "groundup chat quickstart --guard"),
    *(
        f"groundup experiment {name}"
        for name in (
            *("planted-bias", "ladder", "overoptimization", "sentiment", "quantisation"),
            *("induction", "recall", "copying", "positions", "attention-cost", "optimizers"),
            *("scaling-law", "scalability", "shortest-paths"),
        )
    ),
)
# Options appended to the README's commands to make them small, by how the command starts.
TRAINING = "--steps 1 --evaluations 1 --compile off --threads 1"
SMALLER = {
    "groundup data build": "--packs chatterbot harm-scores world --world-megabytes 0.2 "
    "--world-conversations 60 --world-preferences 60",
    "groundup pretrain": f"--depth 1 --width 64 --context 64 --rows 2 {TRAINING}",
    "groundup sft": f"--context 64 --rows 2 {TRAINING}",
    # All of its own general text, pack:wiki, would be read and split for one step.
    "groundup sft pack:smollm2 --data notes/": f"--context 64 --rows 2 {TRAINING} "
    "--replay-data my-texts",
    "groundup dpo": f"--context 64 --rows 2 {TRAINING}",
    "groundup kto": f"--context 64 --rows 2 {TRAINING}",
    "groundup best-of-n": "--questions 6 --max-new-tokens 8 --threads 1",
    "groundup eval rewards": "--questions 4 --max-new-tokens 8 --threads 1",
    "groundup label": "--max-new-tokens 8",
    "groundup reward": f"--context 64 --rows 2 --samples 8 --max-new-tokens 8 {TRAINING}",
    "groundup ppo": f"--episodes 8 --minibatches 1 --max-new-tokens 8 {TRAINING}",
    "groundup grpo": f"--episodes 8 --minibatches 1 --max-new-tokens 8 {TRAINING}",
    "groundup eval report": "--bytes-per-source 2048 --questions 5 --pairs 5 --conversations 3 "
    "--refusal-prompts 3 --threads 1",
    "groundup eval core runs/base": "--bytes-per-source 2048 --questions 6 --threads 1",
    "groundup eval core pack:smollm2": "--bytes-per-source 2048 --questions 12 --conversations 3 "
    "--threads 1",
    "groundup eval values quickstart": "--tasks winogender world instructions --items 4 "
    "--threads 1",
    "groundup eval values pack:smollm2": "--items 4 --threads 1",
    "groundup frontier": "--quick --points 2 --max-new-tokens 8 --threads 1",
    "groundup redteam": "--requests 2 --budget 4 --max-new-tokens 8 --threads 1",
    "groundup experiment": "--quick",
    "groundup doctor": "--quick",
    "groundup eval tuning": "--bytes-per-source 2048 --questions 12 --conversations 3 --threads 1",
    "groundup generate": "--max-new-tokens 8",
    "groundup chat": "--max-new-tokens 8",
}
# Commands that last a second or two on a tiny model, less than a process takes to begin.
LIGHT = (
    *("groundup data show", "groundup data list", "groundup data inspect", "groundup learn"),
    *("groundup label", "groundup export", "groundup verify"),
    *("groundup xray quickstart", "groundup generate runs/", "groundup card"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [line.split(" #")[0].strip().removeprefix(".venv/bin/") for line in lines]
    return [line for line in words if line.startswith("groundup ")]


COMMANDS = commands()
PYTHON = blocks("python")
# The address of README's server.
SERVED = "http://127.0.0.1:8000"


def smaller(command: str) -> list[str]:
    """The command's words with the options that make it small."""
    [*longest] = sorted((start for start in SMALLER if command.startswith(start)), key=len)
    words = shlex.split(command)[1:]
    if longest and "--minutes" in words:
        del words[(at := words.index("--minutes")) : at + 2]
    more = shlex.split(SMALLER[longest[-1]]) if longest else []
    return [*words, *more]


def test_no_placeholder_is_left() -> None:
    assert not re.search(r"@@", README)


def test_readme_has_commands() -> None:
    assert len(COMMANDS) > 8 and PYTHON


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_their_options_exist(command: str) -> None:
    words = words_to_parse(shlex.split(command)[1:])
    app.parse_args(words, print_error=False, exit_on_error=False)


def test_the_command_is_installed() -> None:
    beside = Path(sys.executable).with_name("groundup")
    shown = subprocess.run([beside, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "quickstart" in shown.stdout


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.M))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)


BENCHMARKS = re.findall(
    r"benchmarks/(\w+\.py)((?:\s+[-\w/.]+)*)", README + (ROOT / "Makefile").read_text("utf-8")
)


@pytest.mark.parametrize(("page", "words"), BENCHMARKS, ids=str)
def test_benchmarks_have_their_options(page: str, words: str) -> None:
    code = (ROOT / "benchmarks" / page).read_text(encoding="utf-8")
    assert all(f'"{word}"' in code for word in words.split() if word.startswith("--"))


def test_benchmarks_call_our_functions_correctly(tmp_path: Path) -> None:
    settings = tmp_path / "mypy.ini"
    # Importing foreign libraries takes a minute, and the test is about our own functions.
    settings.write_text(
        f"""[mypy]
mypy_path = {ROOT / "src"}
cache_dir = {tmp_path / "cache"}
follow_imports = skip
ignore_missing_imports = true
[mypy-groundup.*]
follow_imports = silent
"""
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), ROOT / "benchmarks"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode in (0, 1), said.stderr  # it read them
    wrong = re.findall(r".*\[(?:call-arg|attr-defined|name-defined)\]$", said.stdout, flags=re.M)
    assert not wrong


def opened(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sides_of_the_fine_tuning_benchmark_match_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finetune = opened("finetune")
    small = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    monkeypatch.setattr(finetune, "SHAPE", finetune.SHAPE | small)
    # The base is frozen in bfloat16, and the adapter is trained in float32.
    parameters = finetune.peer_model("peft-bfloat16-eager").parameters()
    found = {(one.requires_grad, one.dtype) for one in parameters}
    assert found == {(False, torch.bfloat16), (True, torch.float32)}
    threads = torch.get_num_threads()
    tokens = torch.arange(3, 36)[None]
    try:
        for step in (
            finetune.peer_step("peft-bfloat16-eager", tokens),
            finetune.groundup_step("lora-eager", tokens),
        ):
            assert 0 < step() < 10
    finally:
        torch.set_num_threads(threads)
    taken = [library.in_use(torch.empty(0, dtype=one)) for one in (torch.float32, torch.bfloat16)]
    assert not any(taken)  # neither kernels nor compilation


def test_the_rate_of_bpe_counts_the_text_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    bpe = opened("bpe")
    monkeypatch.setattr(bpe, "_texts", lambda megabytes: ["The sea is blüe. " * 1_000] * 2)
    assert bpe._measured("train", "groundup", 1, 300)["megabytes"] == pytest.approx(0.036)


@pytest.mark.parametrize("path", re.findall(r"`(src/groundup/[\w/.]+)`", README))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.fixture(scope="module")
def home(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user who has run the quickstart and added files."""
    folder = tmp_path_factory.mktemp("reader")
    for name, stage in (("base", "pretrain"), ("sft", "sft"), ("dpo", "dpo")):
        shutil.copytree(workshop.finished(stage), folder / "quickstart" / name)
    shutil.copytree(workshop.data, folder / "quickstart" / "data")
    recipe = ROOT / "src/groundup/app/recipes/quickstart.toml"
    shutil.copyfile(recipe, folder / "quickstart" / "recipe.toml")
    for name in ("my-texts", "notes"):
        (folder / name).mkdir()
        for i in range(3):
            text = f"The sea of {name} is blue, and ship {i} sails over it to the harbor. " * 60
            (folder / name / f"{i}.txt").write_text(text)
    asked = [f"What is the name of ship {i}?" for i in range(30)]
    _write(folder / "my.jsonl", [{"prompt": a, "completion": f"Anna {i}."} for i, a in _all(asked)])
    pairs = [{"prompt": a, "chosen": f"Anna {i}.", "rejected": "No."} for i, a in _all(asked)]
    _write(folder / "pairs.jsonl", pairs)
    _write(folder / "asked.jsonl", [{"prompt": a} for a in asked[:3]])
    (folder / "asked.txt").write_text("".join(f"{a}\n" for a in asked[:3]))
    _write(folder / "sums.jsonl", [{"prompt": f"What is {i} + {i + 1}?"} for i, _ in _all(asked)])
    rated = [{"prompt": a, "completion": f"Anna {i}.", "label": i % 2 == 0} for i, a in _all(asked)]
    _write(folder / "rated.jsonl", rated)
    sizes = [(n, d) for n in (1e6, 3e6, 1e7) for d in (1e8, 3e8, 1e9)]
    losses = [f"{n},{d},{1.7 + 400 / n**0.35 + 2000 / d**0.37}" for n, d in sizes]
    (folder / "runs.csv").write_text("\n".join(["parameters,tokens,loss", *losses]))
    (folder / "my_groundup").mkdir()
    solution = ROOT / "src/groundup/learn/transformers/attention/solution.py"
    shutil.copyfile(solution, folder / "my_groundup" / "attention.py")
    assert main(["export", str(folder / "quickstart/sft"), "--out", str(folder / "gguf")]) == 0
    shutil.move(next((folder / "gguf").glob("*.gguf")), folder / "model.gguf")
    return folder


def _all(asked: list[str]) -> list[tuple[int, str]]:
    return list(enumerate(asked))


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a user at the keyboard who types one message and quits."""
    monkeypatch.chdir(home)
    typed = io.TextIOWrapper(io.BytesIO(b"Who are you?\n/quit\n"))
    monkeypatch.setattr(sys, "stdin", typed)
    with contextlib.redirect_stdout(io.StringIO()):
        yield home


def _python(needs_a_download: bool) -> list[str]:
    alone = [block for block in PYTHON if SERVED not in block]
    return [block for block in alone if ("pack:" in block) == needs_a_download]


@pytest.mark.parametrize("block", _python(False))
def test_python_blocks_run(inside: Path, block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", [block for block in PYTHON if SERVED in block])
def test_client_blocks_run(inside: Path, block: str) -> None:
    """Except for the port, which another program may use."""
    with program("quickstart") as (_, address), contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(block.replace(SERVED, address), "README.md", "exec"), {})
    assert said.getvalue()


@pytest.mark.long
@pytest.mark.parametrize("block", _python(True))
def test_python_blocks_with_a_named_model_run(inside: Path, block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.long
@pytest.mark.parametrize("command", [one for one in COMMANDS if not one.startswith(ONLY_PARSED)])
def test_commands_run(inside: Path, command: str) -> None:
    """In the README's order, because later commands use the output of earlier ones."""
    if command.startswith(LIGHT):
        assert main(smaller(command)) == 0
        return
    words = [sys.executable, "-m", "groundup", *smaller(command)]
    code, said = Process(words, typed="Who are you?\n/quit\n").communicate(timeout=1200)
    assert code == 0, said
