"""Deprecated names still work and warn with the new name."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from groundup import nn
from groundup.app.cli import main
from groundup.app.settings import configured
from groundup.deprecated import MODULES, NAMES, PAGES, renamed_options
from groundup.errors import UserError
from groundup.pretrain.config import PretrainConfig
from groundup.runs.files import write_sealed
from groundup.runs.request import read_run
from groundup.tune.config import SFTConfig


@pytest.mark.parametrize("page", MODULES)
def test_moved_modules_are_importable_at_their_old_path(page: str) -> None:
    old = importlib.import_module(f"groundup.{page}")
    for home in MODULES[page]:
        new = importlib.import_module(f"groundup.{home}")
        own = [n for n, v in vars(new).items() if getattr(v, "__module__", "") == new.__name__]
        for name in (n for n in own if not n.startswith("_")):
            with pytest.warns(DeprecationWarning, match=f"is now groundup.*{name}"):
                assert getattr(old, name) is not None
            break


def test_new_names_are_not_old_names() -> None:
    assert set(NAMES.values()) & set(NAMES) == set()


@pytest.mark.parametrize("name", PAGES)
def test_names_removed_from_a_package_are_still_found(name: str) -> None:
    package, _, name_alone = f"groundup.{name}".rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"is now groundup.{PAGES[name]}.{name_alone}"):
        assert getattr(importlib.import_module(package), name_alone) is not None


def test_clip_functions_of_nn_have_their_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="nn.clip_grad_norm is now groundup.nn.clip_grad_"):
        assert nn.clip_grad_norm is nn.clip_grad_norm_
    with pytest.raises(AttributeError, match="has no attribute 'clip'"):
        nn.clip  # noqa: B018


def test_old_keywords_and_methods_work() -> None:
    from groundup.adapters.quantization import relative_error
    from groundup.lm.config import ModelConfig
    from groundup.lm.model import CausalLM

    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    with pytest.warns(DeprecationWarning, match="double_quant="):
        old = relative_error(weight, double_quantisation=False)
    assert old == relative_error(weight, double_quant=False)
    one, other = (
        CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=64, context=8)) for _ in "ab"
    )
    one.initialize(3)
    with pytest.warns(DeprecationWarning, match="CausalLM.initialize"):
        other.initialise(3)
    assert torch.equal(one.head, other.head)


def test_an_experiment_has_its_help_under_its_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "quantisation", "--help"]) == 0
    assert "Usage: groundup experiment quantisation" in capsys.readouterr().out


def test_old_options_and_settings_work() -> None:
    line = ["sft", "--no-double-quantisation", "--double-quantisation=false", "--rows", "4"]
    assert renamed_options(line) == ["sft", "--no-double-quant", "--double-quant=false", *line[3:]]
    line = ["pretrain", "--world-last=0.2", "--data", "d", "--world-first", "0.5"]
    assert renamed_options(line) == ["pretrain", "--data", "d", "--mixture.world", "0.5", "0.2"]
    line = ["sft", "m", "--chained", "0.7", "--world=0.9"]
    assert renamed_options(line) == ["sft", "m", "--multi-turn", "0.7", "--mixture.world=0.9"]


def test_configs_accept_old_keywords() -> None:
    given: dict[str, Any] = {"model": "m", "data": ("d",), "out": "o", "adapter": "qlora"}
    with pytest.warns(DeprecationWarning, match="double_quantisation= is now double_quant="):
        config = SFTConfig.model_validate(given | {"double_quantisation": False})
    assert config.double_quant is False and "double_quantisation" not in config.model_dump()
    with pytest.warns(DeprecationWarning) as told:
        config = SFTConfig(**given, chained=0.7, world=0.9)
    assert (config.multi_turn, config.mixture) == (0.7, {"world": 0.9})
    assert {str(one.message) for one in told} == {
        "chained= is now multi_turn=", "world= is now mixture=",
    }  # fmt: skip
    with pytest.warns(DeprecationWarning, match="world_last= is now mixture="):
        base = PretrainConfig(out=Path("o"), data=Path("d"), tokenizer=Path("t"), world_last=0.3)  # type: ignore[call-arg]
    assert base.mixture == {"world": (0.7, 0.3)}


def test_old_keywords_warn_by_default() -> None:
    """Python shows deprecation warnings in the script that uses the name, and nowhere else."""
    code = (
        "from groundup.tune.config import SFTConfig\n"
        "SFTConfig(model='m', data=('d',), out='o', chained=0.7)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "<string>:2: DeprecationWarning: chained=" in done.stderr


def test_current_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = SFTConfig(model=Path("m"), data=(Path("d"),), out=Path("o"), multi_turn=0.7)
    assert config.multi_turn == 0.7
    # With both given, the old ones are unknown.
    with pytest.raises(ValidationError, match="chained"):
        SFTConfig(**config.model_dump(), chained=0.7, world=0.9)


def test_unknown_names_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("groundup.frobnicate")


def test_settings_of_earlier_releases_are_read_under_current_names(tmp_path: Path) -> None:
    """In recipes, and in the run.json of runs that began with them."""
    base = {"out": "x", "data": "d", "tokenizer": "t", "world_first": 0.5}
    with pytest.warns(DeprecationWarning, match="world_first= is now mixture="):
        found = configured(PretrainConfig, base)
    assert found.mixture == {"world": (0.5, 0.15)}
    chat = {"out": "x", "model": "m", "data": "d", "chained": 0.7, "world": 0.9}
    with pytest.warns(DeprecationWarning, match="chained= is now multi_turn|world= is now mixture"):
        tuned = configured(SFTConfig, chat)
    assert (tuned.multi_turn, tuned.mixture) == (0.7, {"world": 0.9})
    write_sealed(tmp_path / "run.json", {"stage": "sft", "config": chat})
    config = read_run(tmp_path)["config"]
    assert config == {
        "out": "x", "model": "m", "data": "d", "multi_turn": 0.7, "mixture": {"world": 0.9},
    }  # fmt: skip
    # With both given, the old one is an unknown setting.
    with (
        pytest.raises(UserError, match="world is not a setting"),
        pytest.warns(DeprecationWarning, match="chained"),
    ):
        configured(SFTConfig, chat | {"mixture": {"world": 0.5}})
