"""Which kernels are chosen, and that all goes on without them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.kernels.conftest import number

from groundup.errors import UserError
from groundup.kernels.compiler import compiled
from groundup.kernels.library import Kernels, best_kernels, is_allowed, library


def test_whoever_started_the_process_decides(
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
    ],
)
def test_a_processor_is_used_as_onednn_is_told_to(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, most: str, allowed: set[str]
) -> None:
    monkeypatch.delenv("GROUNDUP_KERNELS", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert is_allowed(kernels) == (kernels in allowed)
    assert best_kernels(number()) in {"none", *allowed}


def test_where_vectors_are_wider_float32_is_left_to_the_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GROUNDUP_KERNELS", raising=False)
    flags = frozenset({"avx2", "fma", "avx512f"})
    monkeypatch.setattr("groundup.kernels.library.cpu_flags", lambda: flags)
    assert best_kernels(torch.float32) == "none"


def test_kernels_that_cannot_be_had_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.kernels.library.cpu_flags", frozenset)
    monkeypatch.setenv("GROUNDUP_KERNELS", "amx")
    with pytest.raises(UserError, match="GROUNDUP_KERNELS=amx: this processor, or its compiler"):
        best_kernels(torch.bfloat16)


def test_another_compiler_compiles_anew(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.__wrapped__(kernels) is not None
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    assert library.__wrapped__(kernels) is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_compiler_that_was_updated_compiles_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_without_a_compiler_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    assert library.__wrapped__("avx2") is None
    assert not list((tmp_path / "kernels").iterdir())


def test_a_compiler_that_cannot_call_pytorchs_threads_brings_its_own(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As clang, which does not speak GNU's OpenMP."""
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
def test_clang_makes_them_too(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "clang")
    assert library.__wrapped__(kernels) is not None
