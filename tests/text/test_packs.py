"""Packs: every set as the manifest says, and every way a download can fail."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.text import packs
from groundup.text.world import pack

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.mark.parametrize("one", packs.SETS, ids=lambda one: one.name)
def test_each_set_is_what_the_manifest_says(one: packs.PackSet) -> None:
    texts = packs.read_set(one.name)
    assert packs.find_set(one.name) == one and packs.is_cached(one.name)
    assert sum(len(text.encode()) for text in texts.values()) == one.size
    assert packs.pull(one.name).stat().st_size == one.archive.size
    assert one.licence and one.citation and one.about and 0 < one.heldout <= 0.5


def test_a_generated_set_is_found_by_name_and_has_no_archive() -> None:
    one = packs.find_set("world")
    assert isinstance(one, packs.GeneratedSet) and "world" in packs.ALL_SETS
    assert one.licence == "Apache-2.0" and "synthetic" in one.citation
    for read in (packs.pull, packs.read_set, packs.is_cached):
        with pytest.raises(UserError, match="groundup data show world"):
            read("world")
    assert packs.is_synthetic("world-stories")
    # A file of a person's own may be called so.
    assert not packs.is_synthetic("world-history") and not packs.is_synthetic("world")
    assert not any(packs.is_synthetic(one.name) for one in packs.SETS)


def test_every_source_of_the_world_is_known_and_no_other() -> None:
    made: set[str] = set()
    for heldout in (False, True):
        made |= {pack.document(0, i, heldout=heldout).source for i in range(30)}
        made |= {pack.conversation(0, i, heldout=heldout).source for i in range(200)}
        made |= {pack.preference(0, i, heldout=heldout).source for i in range(30)}
    made |= {row.source for row in pack.refusal_prompts()}
    assert made == set(packs.GENERATED[0].sources)


def test_members_of_wildcards_are_all_there() -> None:
    assert len(packs.read_set("sotu")) == 138
    assert len(packs.read_set("harm-scores")) == 13


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data set 'wikki'; did you mean 'wiki'"):
        packs.pull("wikki")


def test_a_damaged_archive_in_the_cache_is_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packs.pull("chatterbot")
    good = archive.read_bytes()
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    path = tmp_path / "packs" / archive.name
    path.parent.mkdir()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match="SHA-256"):
        packs.read_set("chatterbot")
    assert not path.exists()
    path.write_bytes(good)
    assert packs.read_set("chatterbot")


def test_a_download_with_another_hash_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = (one for one in packs.SETS if one.name == "chatterbot")
    other = dataclasses.replace(one, archive=dataclasses.replace(one.archive, sha256="0" * 64))
    monkeypatch.setattr(packs, "SETS", (other,))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="nothing was kept"):
        packs.pull("chatterbot")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_a_network_and_a_cold_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(UserError, match=r"could not download chatterbot_corpus 1\.3\.3") as caught:
        packs.pull("chatterbot")
    assert "network" in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def python_without_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def _read_chatterbot(python: Path, cache: Path) -> str:
    program = (
        "from groundup.errors import UserError\n"
        "from groundup.text import packs\n"
        "try: print(len(packs.read_set('chatterbot')))\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "GROUNDUP_CACHE": str(cache)}
    done = subprocess.run(
        [str(python), "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_without_pip(python_without_pip: Path, tmp_path: Path) -> None:
    assert "ensurepip" in _read_chatterbot(python_without_pip, tmp_path)


def test_a_warm_cache_needs_neither_pip_nor_network(python_without_pip: Path) -> None:
    cache = packs.pull("chatterbot").parents[1]
    assert _read_chatterbot(python_without_pip, cache).strip() == "8"


def test_two_at_once_leave_one_whole_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    threads = [threading.Thread(target=packs.pull, args=("chatterbot",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert zipfile.ZipFile(file).testzip() is None


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="GROUNDUP_CACHE"):
        packs.pull("chatterbot")
