"""The choice of kernels, and running without them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.kernels.conftest import number

from groundup.errors import UserError
from groundup.kernels import compiler as kernels_compiler
from groundup.kernels.compiler import compiled
from groundup.kernels.library import Kernels, best_kernels, in_use, is_allowed, library, plain


def test_the_environment_variable_decides(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_KERNELS", kernels)
    assert best_kernels(number()) == kernels
    other = torch.float32 if number() == torch.bfloat16 else torch.bfloat16
    assert best_kernels(other) == "none", "the one that is named, or none"
    monkeypatch.setenv("GROUNDUP_KERNELS", "none")
    assert best_kernels(number()) == "none"
    monkeypatch.setenv("GROUNDUP_KERNELS", "fast")
    with pytest.raises(UserError, match=r"fast.*none, avx2, avx512_bf16, amx"):
        best_kernels(number())


def test_one_thread_looks_inside_while_another_trains(kernels: Kernels) -> None:
    x = torch.empty(0, dtype=number())
    with plain(), ThreadPoolExecutor(1) as another:
        assert not in_use(x)
        assert another.submit(in_use, x).result()
    assert in_use(x)


@pytest.mark.parametrize(
    ("most", "allowed"),
    [
        ("AVX512_CORE_AMX", {"avx2", "avx512_bf16", "amx"}),
        ("default", {"avx2", "avx512_bf16", "amx"}),
        ("AVX512_CORE_BF16", {"avx2", "avx512_bf16"}),
        ("AVX512_CORE", {"avx2"}),
        ("AVX2", {"avx2"}),
        ("AVX", set()),
        ("SSE41", set()),
        ("AVX512CORE", {"avx2", "avx512_bf16", "amx"}),  # oneDNN has no such name: no limit
    ],
)
def test_onednn_settings_limit_the_processor_features(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, most: str, allowed: set[str]
) -> None:
    monkeypatch.delenv("GROUNDUP_KERNELS", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert is_allowed(kernels) == (kernels in allowed)
    assert best_kernels(number()) in {"none", *allowed}


def test_with_wider_vectors_float32_is_left_to_the_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GROUNDUP_KERNELS", raising=False)
    flags = frozenset({"avx2", "fma", "avx512f"})
    monkeypatch.setattr("groundup.kernels.library.cpu_flags", lambda: flags)
    assert best_kernels(torch.float32) == "none"


def test_unavailable_kernels_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.kernels.library.cpu_flags", frozenset)
    monkeypatch.setenv("GROUNDUP_KERNELS", "amx")
    with pytest.raises(UserError, match="GROUNDUP_KERNELS=amx: this processor or its compiler"):
        best_kernels(torch.bfloat16)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("may_write", ["file", "folder"])
def test_a_library_writable_by_others_is_not_loaded(
    may_write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    page = tmp_path / "page.c"
    page.write_text("int answer(void) { return 42; }")
    before = os.umask(0o002)  # where a user's group is the user's own, files are the group's, too
    try:
        assert compiled([page]) is not None
    finally:
        os.umask(before)
    folder = tmp_path / "kernels"
    [made] = folder.iterdir()
    assert {stat.S_IMODE(path.stat().st_mode) & 0o022 for path in (folder, made)} == {0}
    before = folder.stat().st_ctime_ns
    assert compiled([page]) is not None
    assert folder.stat().st_ctime_ns == before, "a disk that is only read may hold it"

    bad = tmp_path / "bad.c"
    bad.write_text("int answer(void) { return 666; }")
    subprocess.run(["cc", "-shared", "-fPIC", str(bad), "-o", str(tmp_path / "bad.so")], check=True)
    content = (tmp_path / "bad.so").read_bytes()
    planted = folder / f"{made.stem.rpartition('-')[0]}-{kernels_compiler._hash(content)}.so"
    planted.write_bytes(content)
    made.unlink()
    if may_write == "file":
        planted.chmod(0o666)
    elif os.getuid() == 0:
        os.chown(folder, 65534, 65534)
    else:
        pytest.skip("only root gives folders away")
    found = compiled([page])
    assert found is not None and found.answer() == 42
    if may_write == "folder":
        assert set(folder.iterdir()) == {planted}, "what others own is left as it is"


def test_unwritable_is_distinguished_from_non_executable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("GROUNDUP_CACHE", str(cache))
    for path in (tmp_path, cache, cache / "kernels" / "tmp1"):
        for code in (errno.EACCES, errno.EROFS):
            said = kernels_compiler._reason(OSError(code, os.strerror(code), str(path)))
            assert said == f"{cache} cannot be written; set GROUNDUP_CACHE to a folder that can be"
    program = tmp_path / "cc"
    said = kernels_compiler._reason(PermissionError(13, "Permission denied", str(program)))
    assert f"'{program}' cannot be used (Permission denied)" in said


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_remains_of_a_killed_compiler_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, cache = tmp_path / "page.c", tmp_path / "kernels"
    page.write_text("int number(void) { return 7; }")
    for name in ("tmp_old", "tmp_at_work"):
        (cache / name).mkdir(parents=True)
        (cache / name / "page.o").touch()
    os.utime(cache / "tmp_old", (0, 0))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    assert compiled([page]) is not None
    assert [one.name for one in cache.iterdir() if one.is_dir()] == ["tmp_at_work"]


def test_another_compiler_recompiles(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.__wrapped__(kernels) is not None
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    assert library.__wrapped__(kernels) is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_an_updated_compiler_recompiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, compiler = tmp_path / "page.c", tmp_path / "cc"
    page.write_text("int number(void) { return 7; }")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(compiler))
    for version in ("1", "1", "10"):
        compiler.write_text(f'#!/bin/sh\n# {version}\nexec cc "$@"\n')
        compiler.chmod(0o755)
        os.utime(compiler, (1, 1))
        found = compiled([page])
        assert found is not None and found.number() == 7
    assert len(list((tmp_path / "kernels").glob("*.so"))) == 2


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_comments_make_no_other_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that samples with a library resumes with the same one only."""
    page = tmp_path / "page.c"
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    names = set()
    for result in (3, 4):
        code = f"int number(void) {{\n    return {result};\n}}\n"
        for text in (code, f"// another\n\n{code}", code.replace(";", ";  /* a\n   b */  // c")):
            page.write_text(text)
            found = compiled([page])
            assert found is not None and found.number() == result
            names.add(found._name)
    assert len(names) == 2


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("damage", ["half", "empty", "no library", "another library"])
def test_an_incomplete_library_is_recompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Calling a missing function would end the process without an exception."""
    page, another = tmp_path / "page.c", tmp_path / "another.c"
    page.write_text("int number(void) { return 7; }")
    another.write_text("int other(void) { return 8; }")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    compiled([another])
    [foreign] = (tmp_path / "kernels").iterdir()
    assert compiled([page]) is not None
    [kept] = {*(tmp_path / "kernels").iterdir()} - {foreign}
    whole = kept.read_bytes()
    # It is replaced, for what this process has loaded it must not lose.
    kept.unlink()
    kept.write_bytes(
        {
            "half": whole[: len(whole) // 2],
            "empty": b"",
            "no library": b"no library",
            "another library": foreign.read_bytes(),
        }[damage]
    )
    found = compiled([page])
    assert found is not None and found.number() == 7
    assert kept.read_bytes() == whole
    assert {*(tmp_path / "kernels").iterdir()} == {kept, foreign}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_an_empty_variable_names_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.c"
    page.write_text("int number(void) { return 7; }")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "")
    assert compiled([page]) is not None


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("no-compiler", "there is no 'no-compiler'; install gcc or clang, or set CC to another"),
        ("fails", r"cannot compile them \(page.c:1:1: error: no\); set CC to another compiler"),
        ("hangs", "took more than 0.1 seconds; set CC to another compiler"),
        ("'", 'CC="\'" cannot be read'),
    ],
)
def test_one_line_gives_the_reason_for_no_kernels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compiler: str,
    why: str,
) -> None:
    pages = {
        "fails": "echo page.c: in a function >&2; echo page.c:1:1: error: no >&2; exit 1",
        "hangs": "exec sleep 60",
    }
    for name, does in pages.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "page.c").write_text("int number(void) { return 7; }")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / compiler) if compiler in pages else compiler)
    monkeypatch.setattr(kernels_compiler, "_TIMEOUT", 0.1 if compiler == "hangs" else 60)
    for _ in range(2):
        assert compiled([tmp_path / "page.c"]) is None
    said, nothing = capsys.readouterr().err, capsys.readouterr().out
    assert re.search(why, said) and said.count("\n") == 1 and not nothing


def test_without_a_compiler_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    assert library.__wrapped__("avx2") is None
    assert not list((tmp_path / "kernels").iterdir())


@pytest.mark.every(2)
def test_a_compiler_without_pytorchs_threads_uses_its_own(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like clang, which does not support GNU's OpenMP."""
    asks = tmp_path / "asks.c"
    asks.write_text("void nobody_has_it(void); void (*asks)(void) = nobody_has_it;")
    compiler = tmp_path / "cc"
    with_pytorchs = f'case "$*" in */torch/lib/libgomp*) set -- -fPIC "$@" {asks};; esac'
    compiler.write_text(f'#!/bin/sh\n{with_pytorchs}\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(compiler))
    found = library.__wrapped__(kernels)
    assert found is not None
    x, y = torch.randn(2, 4096, dtype=number()), torch.empty(4096, dtype=number())
    found.swiglu(x[0].data_ptr(), x[1].data_ptr(), y.data_ptr(), 4096, 2)
    gate, up = x.float()
    expected = torch.nn.functional.silu(gate) * up
    assert torch.allclose(y.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_clang_compiles_them_too(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "clang")
    assert library.__wrapped__(kernels) is not None
