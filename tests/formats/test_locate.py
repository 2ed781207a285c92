"""Models by name. The hub is not contacted: its real client reads a cache in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.app.recipe_folder import find_model
from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.formats.gguf.write import save_gguf
from groundup.formats.load import load
from groundup.formats.locate import locate, name_of, short_name
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from preloaded import Process

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, tiny_model, tokenizer: Tokenizer) -> Path:  # type: ignore[no-untyped-def]
    """The hub's cache after a download of owner/tiny."""
    repository = tmp_path / "hub" / "models--owner--tiny"
    snapshot = repository / "snapshots" / REVISION
    save_model(snapshot, tiny_model(), tokenizer, card="# tiny\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return tmp_path / "hub"


def offline(hub: Path, *words: str) -> tuple[int, str]:
    """A separate process, because the client reads its environment once."""
    command = [sys.executable, *words]
    return Process(command, HF_HUB_CACHE=str(hub), HF_HUB_OFFLINE="1").communicate()


def test_a_hub_repository_loads_by_its_name(hub: Path) -> None:
    code = "import groundup; m, t = groundup.load('hub:owner/tiny'); print(m.config.vocab_size)"
    code, said = offline(hub, "-c", code)
    assert (code, said) == (0, "320\n"), said


def test_a_revision_of_a_hub_repository_loads_by_its_name(hub: Path) -> None:
    repository = hub / "models--owner--tiny"
    old, new = repository / "snapshots" / REVISION, repository / "snapshots" / ("1a" * 20)
    new.mkdir()
    (repository / "refs" / "main").write_text(new.name)
    (repository / "refs" / "v1").write_text(REVISION)
    code = "import groundup; m, t = groundup.load('hub:owner/tiny@v1'); print(m.config.vocab_size)"
    assert offline(hub, "-c", code) == (0, "320\n")
    # What a run records of a path in the cache leads back to it.
    assert (name_of(new), name_of(old)) == ("hub:owner/tiny", f"hub:owner/tiny@{REVISION}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:owner/none", "error: hub:owner/none cannot be downloaded"),
        ("hub:no name", "error: hub:no name is not a name on the hub; write hub:owner/name"),
        ("pack:smollm3", "error: unknown model 'smollm3'; did you mean 'smollm2'? The models"),
        ("pack:", "error: unknown model ''; the models by name are smollm2"),
        ("pack:wiki", "error: 'wiki' is a data set, not a model"),
    ],
)
def test_an_unknown_name_is_one_sentence(hub: Path, name: str, message: str) -> None:
    code, said = offline(hub, "-m", "groundup", "generate", name, "The sea")
    assert code == 2 and said.startswith(message), said
    assert len(said.splitlines()) == 1


def test_an_existing_path_takes_precedence_over_a_name(hub: Path) -> None:
    snapshot = hub / "models--owner--tiny" / "snapshots" / REVISION
    assert locate(snapshot) == snapshot
    assert load(str(snapshot))[0].config.vocab_size == 320
    with pytest.raises(UserError, match="is not a folder; give one that holds"):
        load(hub / "nowhere")


def test_a_path_may_start_with_the_home_folder(
    tmp_path: Path,
    tiny_model: Callable[[], CausalLM],
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "runs", tiny_model(), tokenizer, card="# tiny\n")
    assert locate("~/runs") == tmp_path / "runs"
    assert load("~/runs")[1].hash == Tokenizer.load("~/runs").hash == tokenizer.hash


def test_the_gguf_suffix_is_case_insensitive(
    tmp_path: Path, tiny_model: Callable[[], CausalLM], tokenizer: Tokenizer
) -> None:
    file = tmp_path / "model" / "Tiny.Q8_0.GGUF"
    file.parent.mkdir()
    save_gguf(file, tiny_model(), tokenizer, "q8_0", name="tiny")
    for source in (file, file.parent):
        assert find_model(source) == locate(source) == file
        assert load(source)[0].config.vocab_size == 320
    assert short_name(file, file) == "Tiny.Q8_0"


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_an_unavailable_device_is_not_reported_as_a_damaged_model(hub: Path, device: str) -> None:
    snapshot = hub / "models--owner--tiny" / "snapshots" / REVISION
    with pytest.raises(UserError, match=f"device='{device}' is not available on this machine"):
        load(snapshot, device=device)
