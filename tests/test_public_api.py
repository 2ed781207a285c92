"""The public names. Changing this list is a decision, not a side effect."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import groundup
from groundup.app.stages import STAGES


def test_names_are_pinned() -> None:
    assert sorted(groundup.__all__) == [
        "Completion",
        "Request",
        "Sampling",
        "Tokenizer",
        "UserError",
        "__version__",
        "apply_rope",
        "entropy",
        "generate",
        "get_batch",
        "load",
        "logprobs",
        "scaled_dot_product_attention",
        "stream",
        "xray",
    ]
    assert dir(groundup) == groundup.__all__


@pytest.mark.parametrize("name", groundup.__all__)
def test_every_name_exists_and_is_documented(name: str) -> None:
    value = getattr(groundup, name)
    if callable(value):
        assert inspect.getdoc(value)


@pytest.mark.parametrize("package", ["maths", "nn", "maths.linalg", "adapters"])
def test_the_names_of_a_package_exist_and_are_documented(package: str) -> None:
    module = importlib.import_module(f"groundup.{package}")
    assert module.__doc__ and sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        value = getattr(module, name)
        assert inspect.getdoc(value), name


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="frobnicate"):
        groundup.frobnicate  # noqa: B018


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_with_its_config(name: str) -> None:
    stage = STAGES[name]
    run = importlib.import_module(stage.module).run
    signature = inspect.signature(run, eval_str=True)
    assert [p.annotation for p in signature.parameters.values()] == [stage.config]
    assert signature.return_annotation is Path
    assert inspect.getdoc(run)


@pytest.mark.parametrize("name", STAGES)
def test_settings_are_strict_and_described(name: str) -> None:
    config = STAGES[name].config
    assert config.model_config["extra"] == "forbid"
    for field, info in config.model_fields.items():
        assert info.description and "\n" not in info.description, field


def test_a_path_may_start_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {"model": "~/runs/base", "data": ["~/own.jsonl", "~them"], "out": "~"}
    config = STAGES["sft"].config.model_validate(given)
    assert (config.model, config.out) == (Path("/home/me/runs/base"), Path("/home/me"))
    assert config.data == (Path("/home/me/own.jsonl"), Path("~them"))
