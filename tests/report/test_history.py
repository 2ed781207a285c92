"""What a run says of itself is understood wherever one stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.report.history import History
from groundup.runs.folder import folder_hash


@pytest.mark.parametrize("standing", ["one", "other", "."])
def test_a_parent_is_what_the_run_was_begun_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing: str
) -> None:
    """Another project has a folder of the same name."""
    for project in ("one", "other"):
        (tmp_path / project / "base").mkdir(parents=True)
        (tmp_path / project / "base" / "model.safetensors").write_text(project)
    base = tmp_path / "one" / "base"
    parents = {"model": {"path": "base", "sha256": folder_hash(base)}}
    run = History(tmp_path / "one" / "sft", {"stage": "sft", "parents": parents}, {}, [], [])
    monkeypatch.chdir(tmp_path / standing)
    assert run.parent is not None and run.parent.resolve() == base
