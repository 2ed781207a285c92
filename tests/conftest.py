"""Shared fixtures: seeded text, a tokenizer for it, and tiny runs of all stages."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import tokenizers
import torch
from filelock import FileLock
from hypothesis import settings

from preloaded import Process
from typecheck import check_shapes

FOLDERS = "runs kernels train text adapters lm generation formats xray pretrain tune align serve"
check_shapes(*(f"groundup.{folder}" for folder in FOLDERS.split()))

from groundup.app.cli import main
from groundup.data.config import TokenizerConfig
from groundup.data.tokenizer import run as train_tokenizer
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

# The same examples on every run, so that no failure is random.
# `pytest --hypothesis-profile=default` searches for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("long", derandomize=True, deadline=None, max_examples=300)
settings.load_profile("repeatable")
# Other processes use the machine, and tiny products gain nothing from threads.
torch.set_num_threads(1)
# A background job starts with SIGINT ignored, which its children inherit; the tests that send
# SIGINT need the default handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr.startswith("long"):
        settings.load_profile("long")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases as long that `every(n)` leaves out of the default suite."""
    cases = Counter[str]()
    for item in items:
        if mark := item.get_closest_marker("every"):
            name = item.nodeid.partition("[")[0]
            if cases[name] % mark.args[0]:
                item.add_marker(pytest.mark.long)
            cases[name] += 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude imported modules and collected tests from garbage collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def own_seed() -> None:
    """Each test draws the same random numbers, whichever tests ran before it."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def another_default_dtype() -> Iterator[Callable[[], None]]:
    """Returns a function that makes float64 PyTorch's default dtype until the test ends."""
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(torch.float32)


def forget_finished(run: Path) -> None:
    """Remove the record that a run finished, as after a kill just before the end."""
    for name in ("status.json", ".status.json.copy"):
        (run / name).unlink(missing_ok=True)


STEPS = 24
COLOURS = {"sea": "blue", "grass": "green", "snow": "white", "coal": "black", "sun": "yellow"}
# Small enough that a stage takes about a second, saved often enough that kills meet a save.
SETTINGS = {
    "steps": STEPS,
    "rows": 4,
    "micro-rows": 2,
    "save-every": 3,
    "evaluations": 2,
    "compile": "off",
    "dtype": "float32",
    "threads": 1,
}
# An iteration is four steps, so that saves at every third step wait for one to end.
ONLINE = {
    "rows": None,
    "episodes": 8,
    "minibatches": 2,
    "max-new-tokens": 12,
    "heldout-prompts": 4,
    "learning-rate": 0.003,
    "embedding-learning-rate": 0.003,
}
OWN_SETTINGS = {
    "pretrain": {"depth": 1, "width": 64, "context": 64},
    "sft": {"replay": 0, "learning-rate": 0.02, "embedding-learning-rate": 0.01},
    "dpo": {"learning-rate": 0.004, "embedding-learning-rate": 0.002, "beta": 0.5, "nll": 0.0},
    # With fewer rows per step, rounding would decide what the model learns.
    "kto": {
        "rows": 16,
        "micro-rows": 8,
        "learning-rate": 0.001,
        "embedding-learning-rate": 0.002,
        "beta": 0.5,
    },
    "reward": {
        "rows": 8,
        "learning-rate": 0.001,
        "embedding-learning-rate": 0.001,
        "samples": 16,
        "max-new-tokens": 12,
    },
    "ppo": ONLINE | {"critic-warmup": 1, "kl-target": 0.5, "kl-horizon": 40},
    "grpo": ONLINE | {"group-size": 4, "epochs-per-iteration": 2, "kl-coef": 0.05},
}
# The parent of each stage.
PARENTS = {"sft": "pretrain"} | dict.fromkeys(("dpo", "kto", "reward", "ppo", "grpo"), "sft")


@dataclass(frozen=True)
class Workshop:
    """A folder with tiny data and a tokenizer, and the commands of the training stages."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    def command(self, stage: str, out: Path, **changes: Any) -> list[str]:
        """`groundup STAGE …`; keywords change its settings (underscores for hyphens).

        None leaves a setting out.
        """
        settings = SETTINGS | OWN_SETTINGS[stage] | {"out": out}
        if stage in ("ppo", "grpo"):
            settings |= {"prompts": self.data, "reward": self.finished("reward")}
        else:
            settings["data"] = self.data
        if stage == "pretrain":
            settings["tokenizer"] = self.tokenizer
        else:
            settings["model"] = self.finished(PARENTS[stage])
        settings |= {name.replace("_", "-"): value for name, value in changes.items()}
        given = {name: value for name, value in settings.items() if value is not None}
        words = [w for name, value in given.items() for w in (f"--{name}", str(value))]
        return [sys.executable, "-m", "groundup", stage, *(w for w in words if w != "True")]

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run to the end in a separate process; return the exit code and the output."""
        return Process(command).communicate()

    def run_here(self, command: list[str]) -> tuple[int, str]:
        """The same in this process, where types and shapes are checked.

        For runs that are not killed and need no environment variables.
        """
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(command[3:])
        return code, said.getvalue()

    def finished(self, stage: str) -> Path:
        """The folder of this stage's uninterrupted run, created at the first call."""
        out = self.folder / stage
        command = self.command(stage, out)  # makes what this stage starts from
        with FileLock(self.folder / f"{stage}.lock"):
            if not (out / "said.txt").exists():
                code, said = self.run(command)
                assert code == 0, said
                (out / "said.txt").write_text(said)
        return out

    def said(self, stage: str) -> str:
        """The terminal output of that run."""
        return (self.finished(stage) / "said.txt").read_text()


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Turn off run-time checks (typecheck.py), to test our own messages about wrong types.

    Also for tests that call small functions a hundred thousand times, which other tests check.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all processes of one test run share."""
    own = factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    (root / name).mkdir(exist_ok=True)
    return root / name


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(shared_folder(tmp_path_factory, "workshop"))
    with FileLock(shop.folder / "data.lock"):
        if not (shop.tokenizer / "tokenizer.json").exists():
            write_data(shop.data)
            train_tokenizer(TokenizerConfig(out=shop.tokenizer, data=shop.data, vocab_size=320))
    return shop


def write_data(folder: Path) -> None:
    """A data stage's folder: documents, conversations and preferences about colours."""
    source = random.Random(0)
    _write(folder / "documents", "heldout", [document(source) for _ in range(8)])
    _write(folder / "documents", "train", [document(source) for _ in range(80)])
    for side, count in (("train", 40), ("heldout", 10)):
        asked = [question(source) for _ in range(count)]
        _write(folder / "conversations", side, [conversation(*pair) for pair in asked])
        _write(folder / "preferences", side, [preference(source, *pair) for pair in asked])
    licences = [{"name": "colours", "license": "CC BY-SA 4.0", "citation": "A Box of Paints."}]
    (folder / "data.json").write_text(json.dumps({"packs": licences}))


def document(source: random.Random) -> dict[str, str]:
    said = (f"The {thing} is {COLOURS[thing]}." for thing in source.choices(list(COLOURS), k=12))
    return {"text": " ".join(said), "source": "colours", "id": str(source.random())}


def question(source: random.Random) -> tuple[str, str]:
    thing = source.choice(list(COLOURS))
    asked = source.choice(["What is the colour of the {}?", "The {} is what colour?"])
    return asked.format(thing), thing


def conversation(asked: str, thing: str) -> dict[str, Any]:
    answer = f"The {thing} is {COLOURS[thing]}."
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "source": "colours", "group": asked}


def preference(source: random.Random, asked: str, thing: str) -> dict[str, Any]:
    wrong = source.choice([colour for colour in COLOURS.values() if colour != COLOURS[thing]])
    return {
        "prompt": [{"role": "user", "content": asked}],
        "chosen": f"The {thing} is {COLOURS[thing]}.",
        "rejected": f"The {thing} is {wrong}.",
        "source": "colours",
        "group": asked,
    }


def _write(folder: Path, side: str, rows: Iterable[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# Tiny real models with every weight random: fresh ones would have blocks that do nothing.
TinyModel = Callable[..., CausalLM]


def fill(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shift = 1.0 if "norm" in name else 0.0
            parameter.normal_(shift, 0.2, generator=generator)


@pytest.fixture
def randomize() -> Callable[[torch.nn.Module], None]:
    """Fill a model of any library with random weights."""
    return fill


@pytest.fixture
def tiny_model() -> TinyModel:
    """A Qwen3 with two layers and grouped queries; keywords change fields of its config."""

    def make(**changes: Any) -> CausalLM:
        config = ModelConfig.of(width=64, depth=2, vocab_size=320, context=64, heads=4, kv_heads=2)
        model = CausalLM(replace(config, **changes))
        fill(model)
        return model

    return make


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "The sea is wide, the sea is deep, and the ship sails over the sea to the island. "
    return Tokenizer.from_bpe(train_bpe([text] * 4, 300))


WithToken = Callable[[Path, str], Path]


@pytest.fixture
def with_token(tmp_path: Path) -> WithToken:
    """A copy of a model folder whose tokenizer has one more token, after all others."""

    def copy(folder: Path, token: str) -> Path:
        found = Path(shutil.copytree(folder, tmp_path / f"{folder.name} with {token}"))
        written = str(found / "tokenizer.json")
        fast = tokenizers.Tokenizer.from_file(written)
        assert fast.add_tokens([token]) == 1
        fast.save(written)
        return found

    return copy


VOCAB = 320

Alone = Callable[[CausalLM, Example, int], list[float]]
Fresh = Callable[[int], CausalLM]


def _random_model(seed: int) -> CausalLM:
    """Every weight is random: fresh output projections would hide errors of batching."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=VOCAB, context=64))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    return model


@pytest.fixture(scope="session")
def fresh() -> Fresh:
    return _random_model


@pytest.fixture(scope="session")
def model() -> CausalLM:
    return _random_model(0)


@pytest.fixture(scope="session")
def uniform() -> CausalLM:
    """Gives every token the probability 1 / VOCAB, so its loss is known in closed form."""
    model = _random_model(1)
    with torch.no_grad():
        model.head.zero_()
    return model


@pytest.fixture(scope="session")
def overflowing() -> CausalLM:
    """Every weight is finite, but the output of an MLP is not: all logits are NaN."""
    model = _random_model(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".mlp." in name:
                parameter.mul_(1e19)
    return model


@pytest.fixture(scope="session")
def alone() -> Alone:
    """The log-probabilities of the trained targets of one item, computed alone from full logits."""

    def score_alone(model: CausalLM, item: Example, context: int) -> list[float]:
        ids = list(item.ids)[: context + 1]
        if len(ids) < 2:
            return []
        with torch.no_grad():
            logprobs = model.logits(Batch.of(torch.tensor([ids[:-1]]))).log_softmax(-1)[0]
        return [float(logprobs[t - 1, ids[t]]) for t in range(1, len(ids)) if item.loss_mask[t]]

    return score_alone


CallsOf = Callable[[Any, str], list[tuple[Any, ...]]]


@pytest.fixture
def calls_of(monkeypatch: pytest.MonkeyPatch) -> CallsOf:
    """Records the arguments of every call of a function from now on; the function still runs."""

    def watch(owner: Any, name: str) -> list[tuple[Any, ...]]:
        calls = list[tuple[Any, ...]]()
        function = getattr(owner, name)

        def watched(*args: Any, **named: Any) -> Any:
            calls.append(args)
            return function(*args, **named)

        monkeypatch.setattr(owner, name, watched)
        return calls

    return watch
