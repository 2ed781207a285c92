"""Every numeric setting has a range with both bounds, and hostile values end in one sentence."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from groundup.app.cli import app, main
from groundup.app.commands import (
    data,
    journeys,
    label,
    learn,
    machine,
    models,
    scaling,
    serve,
    stages,
    studio,
    xray,
)
from groundup.app.settings import configured
from groundup.app.stages import STAGES
from groundup.errors import UserError, known_names
from groundup.experiments import config as experiments
from groundup.experiments.transformers import config as with_transformers
from groundup.generation.sampling import Sampling
from groundup.train.ranges import Range, check_text, ranges

HOSTILE = ["nan", "inf", "-inf", "1e300", str(2**70), "x", "", "1.e999", "9" * 5000]

PAGES = (data, journeys, label, learn, machine, models, scaling, serve, stages, studio, xray)


def configs() -> list[type[BaseModel]]:
    found = [stage.config for stage in STAGES.values()]
    pages = (experiments, with_transformers)
    return found + [
        one
        for page in pages
        for name, one in vars(page).items()
        if name.endswith("Config") and one.__module__ == page.__name__
    ]


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.__name__)
def test_every_number_of_a_config_has_both_bounds(config: type[BaseModel]) -> None:
    for name, field in config.model_fields.items():
        for one in ranges(field):
            assert one.least is not None and one.most is not None, f"{config.__name__}.{name}"
            assert one.least < one.most
        default = field.default
        for value in default if isinstance(default, tuple) else (default,):
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert all(value in one for one in ranges(field)), name


def below(one: Range) -> int:
    """A number that is too small: -1, or a smaller one where -1 is allowed."""
    assert one.least is not None
    return -1 if -1 not in one else math.floor(2 * one.least - 1)


def words_of(given: Any = app, *before: str) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    for name in given:
        if name.startswith("-") or not given[name].show:  # an earlier release's spelling
            continue
        inner = given[name]
        more = [one for one in inner if not one.startswith("-")]
        if more:
            yield from words_of(inner, *before, name)
        else:
            yield (*before, name)


def numbers(words: tuple[str, ...]) -> dict[str, tuple[Range, ...]]:
    """The numeric options of a command, and their ranges."""
    found = {}
    command = app[words[0]] if len(words) == 1 else app[words[0]][words[1]]
    for argument in command.assemble_argument_collection():
        if these := tuple(ranges(argument.field_info.annotation)):
            found[argument.name] = these
    return found


@cache
def firsts() -> dict[tuple[str, Range], tuple[str, ...]]:
    found: dict[tuple[str, Range], tuple[str, ...]] = {}
    for words in words_of():
        for name, (one, *_) in numbers(words).items():
            found.setdefault((name, one), words)
    return found


def first_with(name: str, one: Range) -> tuple[str, ...]:
    """The first command that has this setting with these bounds."""
    return firsts()[name, one]


def test_every_number_of_a_command_has_both_bounds() -> None:
    seen = set[str]()
    for words in words_of():
        for name, found in numbers(words).items():
            seen.add(name)
            for one in found:
                assert one.least is not None and one.most is not None, (words, name)
    few = {"--minutes", "--temperature", "--seed", "--number", "--batch-size", "--threads"}
    assert few <= seen


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))])
@pytest.mark.parametrize("words", list(words_of()), ids=" ".join)
def test_hostile_numbers_end_in_one_sentence(
    words: tuple[str, ...],
    part: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # Inputs that are read before the numbers exist, so that the numbers are what is refused.
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    needed: dict[str, list[str]] = {
        "sft": ["model", "--data", "x.jsonl"],
        "dpo": ["model", "--data", "x.jsonl"],
        "reward": ["model", "--data", "x.jsonl"],
        "ppo": ["model", "--reward", "json", "--prompts", "x.jsonl"],
        "grpo": ["model", "--reward", "json", "--prompts", "x.jsonl"],
        "best-of-n": ["model", "--reward", "json", "--prompts", "x.jsonl"],
        "label": ["model", "--prompts", "x.jsonl"],
        "guard": ["model", "--data", "x.jsonl"],
        "redteam": ["model"],
        "kto": ["model", "--data", "x.jsonl"],
        "soup": ["model"],
        "frontier": ["model"],
        "pretrain": ["--data", "x.jsonl", "--tokenizer", "model"],
        "tokenizer": ["x.jsonl"],
        "eval report": ["model", "--data", "x.jsonl"],
        "eval core": ["model"],
        "eval values": ["model"],
        "card": ["model", "--values", "x"],
        "eval tuning": ["model", "--data", "x.jsonl"],
        "eval rewards": ["model", "--reward", "json", "--prompts", "x.jsonl"],
        "eval lm-eval": ["model", "--tasks", "x"],
        "experiment overoptimization": ["model", "--data", "x.jsonl"],
        "generate": ["model", "The sea", "--prompts", "x.jsonl"],
        "chat": ["model"],
        "xray": ["model", "--text", "The sea"],
        "run": ["quickstart"],
        "data show": ["world"],
        "data inspect": ["x.jsonl"],
        "learn predict": ["1.2", "a"],
        "scaling fit": ["x.jsonl"],
    }
    for place, (name, (one, *_)) in enumerate(numbers(words).items()):
        more = needed.get(" ".join(words), [])
        assert one.most is not None
        # A setting that commands share is tried by all that is hostile in the first of them, by
        # another third of it in each part.
        third = [*HOSTILE[(place + part) % 3 :: 3], str(below(one))]
        some = third if words == first_with(name, one) else HOSTILE[:1]
        for value in [*some, str(one.most * 2 + 1)]:
            assert main([*words, *more, f"{name}={value}"]) == 2, (name, value)
            said = capsys.readouterr().err
            assert all(one.startswith("error: ") for one in said.splitlines()), (name, said)
            assert name in said and len(said) < 1000, (name, value, said)
            assert "must be" in said, (name, value, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "x.jsonl"]


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.__name__)
def test_hostile_settings_of_a_recipe(config: type[BaseModel]) -> None:
    faults = []
    values = [math.nan, math.inf, -1, 1e300, 2**70, "x", "", [math.nan], None]
    for name, field in config.model_fields.items():
        for value in values:
            if not list(ranges(field)) or (value is None and field.default is None):
                continue
            hostile = min(map(below, ranges(field))) if value == -1 else value
            try:
                configured(config, {"out": "x", name: hostile})
                told = "taken"
            except UserError as error:
                told = str(error)
            except Exception as error:
                told = repr(error)
            said = [line for line in told.splitlines() if line.startswith(f"{name}=")]
            if not said or not all("must be" in line for line in said):
                faults.append((name, hostile, told))
    assert faults == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 1e9),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_k", 2**70),
        ("top_p", 0.0),
        ("top_p", math.nan),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e300),
        ("presence_penalty", -2.5),
        ("frequency_penalty", 2.5),
        ("frequency_penalty", math.inf),
        ("max_new_tokens", 0),
        ("max_new_tokens", 2**70),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_sampling_has_the_same_ranges(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{setting}="):
        Sampling(**{setting: value})  # type: ignore[arg-type]


# Texts and paths.


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("a\0b", "zero byte"),
        ("a\udcffb", "UTF-8"),
        ("a\ud800b", "UTF-8"),
        ("x" * 10_000, "10,000 bytes"),
        ("x" * 300, "300 bytes"),
        ("é" * 200, "400 bytes"),
        ("/".join(["x"] * 5_000), "bytes"),
    ],
)
def test_rejects_paths_that_no_file_can_have(path: str, told: str) -> None:
    config = STAGES["sft"].config
    good = {"model": "m", "data": ["x"], "out": "x"}
    for name, value in (("out", path), ("model", path), ("data", [path])):
        with pytest.raises(UserError, match=told) as said:
            configured(config, {**good, name: value})
        assert str(said.value).startswith(name) and len(str(said.value)) < 300
    with pytest.raises(UserError, match=told):
        check_text("--html", Path(path))
    assert configured(config, {**good, "out": "x" * 255}).out == Path("x" * 255)  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [["chat"], ["generate"], ["export"], ["verify"], ["run"]])
def test_paths_at_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("x" * 10_000, "a\udcffb"):
        assert main([*words, path]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and len(said) < 500


# Grammar.


def test_an_exact_name_gets_no_suggestion() -> None:
    assert "did you mean" not in known_names("base", ["base"], "tables are")
    assert known_names("bse", ["base"], "tables are") == "did you mean 'base'? Tables are base"


@pytest.mark.parametrize("words", list(words_of()), ids=" ".join)
def test_usage_names_the_given_command(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    usage = capsys.readouterr().out.splitlines()[0]
    assert usage.startswith(f"Usage: groundup {' '.join(words)}") and "ARGS" not in usage
    name = "_".join(words).replace("-", "_")
    [function] = [getattr(page, name) for page in PAGES if hasattr(page, name)]
    for one in inspect.signature(function).parameters.values():
        if one.kind is not inspect.Parameter.KEYWORD_ONLY:
            assert one.name.upper() in usage
