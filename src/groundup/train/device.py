"""Device, dtype and kernels of a run; threads and memory of this machine; and its peak speed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import psutil
import torch
from torch import nn

from groundup.errors import UserError
from groundup.kernels.compiler import cpu_flags
from groundup.kernels.library import Kernels, best_kernels, use_kernels
from groundup.runs import ranks
from groundup.runs.console import counted, say
from groundup.train.config import DType, TrainingConfig
from groundup.train.loss import compile_chunks

# With a cold cache, compiling takes up to half a minute, which a shorter run would not recover.
COMPILE_FROM_MINUTES = 5.0
# The share of the measured matrix-multiply peak that a training step of a small model reaches.
EXPECTED_PEAK_SHARE = 0.5
# The same for a recurrent network, whose products have few rows and run one after the other.
RECURRENT_PEAK_SHARE = 0.15
# Seconds and side length of the square product that measures the peak: long enough for the clock
# frequency to rise, and large enough to be limited by arithmetic.
_PEAK_SECONDS, _PEAK_SIZE, _PEAK_SIZE_OF_GPUS = 0.3, 1024, 4096
# Launching a product on a GPU and waiting for it can take longer than the product itself. So one
# wait covers as many products as take these seconds together, up to this many.
_LAUNCHED_SECONDS, _MAX_LAUNCHED = 0.01, 200
# Seconds to time each of a model's products, and the most elements of a product.
_PRODUCT_SECONDS = 0.05
_MAX_NUMBERS = 2**26
# Limits of containers, batch jobs and services, and the cgroup of this process.
CGROUP, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# File names of the limits in cgroup v2 and v1: microseconds of each period, and bytes.
_CPU_LIMITS = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
_MEMORY_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Compute:
    """How a run computes: part of its plan, because the bits of its results depend on it.

    On a CPU the same settings give the same bits. A GPU adds some sums in varying order, so two
    runs of one plan differ there by rounding.
    """

    device: str
    dtype: Literal["float32", "bfloat16"]
    attention: Literal["matmul", "fused"]
    compile: bool
    threads: int
    torch_version: str
    processes: int = 1
    kernels: Kernels = "none"
    # The GPU's name, because GPU models round differently.
    accelerator: str = ""

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == "float32" else torch.bfloat16

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """Cores, memory and measured matrix-product speeds of this machine."""

    cores: int
    memory_bytes: int
    float32_flops: float
    bfloat16_flops: float

    def peak(self, dtype: str) -> float:
        return self.bfloat16_flops if dtype == "bfloat16" else self.float32_flops


def resolve(
    config: TrainingConfig, *, compile_by_default: bool, planned: Compute | None = None
) -> Compute:
    """Resolve every 'auto' for this machine.

    A run that was planned without kernels or without compiling continues so, because their
    gradients may have been found wrong (`faithful`). It keeps its number of threads, unless it may
    resume inexactly.
    """
    device = resolve_device(config.device)
    in_bfloat16 = dtype_of(config.dtype, device) == torch.bfloat16
    dtype: Literal["float32", "bfloat16"] = "bfloat16" if in_bfloat16 else "float32"
    compiles = config.compile == "on" or (config.compile == "auto" and compile_by_default)
    if planned is not None and planned.kernels == "none":
        compiles = compiles and planned.compile
    if compiles and find_compiler() is None:
        if config.compile == "on":
            raise UserError(
                "compile='on' needs a C++ compiler and none is on the PATH; "
                "install g++ or clang, or use compile='auto'"
            )
        compiles = False
    threads = thread_count(config)
    if planned is not None and config.threads is None and not config.allow_inexact_resume:
        threads = planned.threads
    kernels: Kernels = "none"
    if device == "cpu" and config.compile != "on" and (not planned or planned.kernels != "none"):
        kernels = best_kernels(torch.float32 if dtype == "float32" else torch.bfloat16)
    return Compute(
        device=device,
        dtype=dtype,
        attention="matmul" if device == "cpu" else "fused",
        # The kernels already fuse what the compiler would fuse.
        compile=compiles and kernels == "none",
        threads=threads,
        torch_version=torch.__version__,
        processes=ranks.size(),
        kernels=kernels,
        accelerator=torch.cuda.get_device_name() if device == "cuda" else "",
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use, by `taskset` and container limits."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = min(cores, len(os.sched_getaffinity(0)))
    for folder, names in itertools.product(_cgroups("cpu"), _CPU_LIMITS):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if int(quota) > 0:  # without a limit it is "max", or -1
                cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def _cgroups(controller: str) -> list[Path]:
    """Return the folders of this process's cgroup and its ancestors, whose limits apply as well.

    They belong to cgroup v2, which has a separate folder if v1 is also mounted, and to v1's tree of
    this controller. A container sees its own cgroup as the root, whatever its path outside.
    """
    found = [CGROUP]
    with contextlib.suppress(OSError):
        for line in OWN_CGROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                roots = [CGROUP, CGROUP / "unified"]
            else:
                roots = [CGROUP / controller] if controller in controllers.split(",") else []
            below = itertools.accumulate(Path(path).parts[1:], Path, initial=Path())
            found += [root / part for root, part in itertools.product(roots, below)]
    return found


def thread_count(config: TrainingConfig) -> int:
    return config.threads or max(1, usable_cores() // ranks.local_size())


def use_threads(config: TrainingConfig) -> None:
    """Set the number of threads, also for measurements before training."""
    torch.set_num_threads(thread_count(config))


@contextlib.contextmanager
def restoring_torch() -> Iterator[None]:
    """Restore torch's random state and number of threads after the block.

    The random state of a GPU that was not used before is not restored.
    """
    threads = torch.get_num_threads()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if used else []):
            yield
    finally:
        torch.set_num_threads(threads)


class Prepared(Protocol):
    """The methods that prepare a model for a device."""

    def set_attention(self, path: Literal["matmul", "fused"]) -> None: ...

    def compile_blocks(self) -> None: ...

    def set_gradient_checkpointing(self, on: bool) -> None: ...


def prepare(model: nn.Module, compute: Compute, *, gradient_checkpointing: bool = False) -> None:
    """Move `model` to its device and dtype, and compile it if the plan says so."""
    torch.set_num_threads(compute.threads)
    model.to(device=torch.device(compute.device), dtype=compute.torch_dtype)
    prepared = cast(Prepared, model)
    prepared.set_attention(compute.attention)
    prepared.set_gradient_checkpointing(gradient_checkpointing)
    use_kernels(compute.kernels)
    compile_chunks(compute.compile)
    if compute.compile:
        _tune_compiler()
        prepared.compile_blocks()


def prepare_to_read(model: nn.Module, config: TrainingConfig) -> None:
    """Prepare `model`, in its run's dtype, for forward passes before the run is planned.

    It uses plain PyTorch, because kernels and compiler are only checked with the plan (`faithful`).
    """
    compute = resolve(config, compile_by_default=False)
    prepare(model, replace(compute, compile=False, kernels="none"))


def _tune_compiler() -> None:
    import torch._inductor.config as inductor

    # PyTorch 2.9 has no such setting.
    if hasattr(inductor.cpp, "march") and inductor.cpp.march is None and (found := tuning()):
        inductor.cpp.march = found


@functools.cache
def tuning() -> str | None:
    """Return the value of `-march` to use instead of `native`; None if the compiler's is good.

    GCC resolves `native` to the nearest architecture that it knows, but tunes for `generic` if it
    does not know the processor's model number.
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    try:
        options = subprocess.run(
            [*compiler, "-march=native", "-Q", "--help=target"],
            check=True, capture_output=True, text=True, timeout=20,
        ).stdout  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    march, mtune = (
        re.search(rf"^\s*-{name}=\s+(\S+)", options, re.MULTILINE) for name in ("march", "mtune")
    )
    if march is None or mtune is None or mtune[1] != "generic" or march[1].startswith("x86-64"):
        return None
    return f"native -mtune={march[1]}"


def refuse_inexact(planned: Compute, now: Compute, allowed: bool) -> None:
    """Raise `UserError` if a resumed run would not compute the same bits, unless `allowed`."""
    for name, was in asdict(planned).items():
        value = getattr(now, name)
        if was == value:
            continue
        changed = (
            f"this run was planned with {name}={was} and would continue with {name}={value}, "
            "which does not give the same bits"
        )
        if not allowed:
            raise UserError(f"{changed}; restore it or pass --allow-inexact-resume")
        say(f"{changed}; it goes on, as --allow-inexact-resume says")


def has_fast_bfloat16(device: str) -> bool:
    """Whether bf16 matrix products run in hardware; emulated ones are slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    # The kernels' own condition: AVX512-BF16, AMX or Arm's bf16 instructions.
    return any(flag in cpu_flags() for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def compute_dtype(device: str = "cpu") -> torch.dtype:
    """Return the default compute dtype of a device."""
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def dtype_of(dtype: DType, device: str = "cpu") -> torch.dtype:
    """Return the dtype that a setting selects on a device."""
    if dtype == "auto":
        return compute_dtype(device)
    return torch.float32 if dtype == "float32" else torch.bfloat16


def find_compiler() -> str | None:
    """Return the C++ compiler: the one that CXX names, or the first on the PATH."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((name for name in names if name and shutil.which(name)), None)


def measure(seconds: float = _PEAK_SECONDS, size: int = _PEAK_SIZE) -> Machine:
    """Measure the matrix-multiply peaks of the CPU in float32 and bfloat16, in FLOP/s."""
    return Machine(
        cores=usable_cores(),
        memory_bytes=available_memory(),
        float32_flops=matmul_peak("cpu", torch.float32, seconds, size),
        bfloat16_flops=matmul_peak("cpu", torch.bfloat16, seconds, size),
    )


def matmul_peak(
    device: str,
    dtype: torch.dtype,
    seconds: float = _PEAK_SECONDS,
    size: int | None = None,
) -> float:
    """Return the best FLOP/s of a square matrix product, over tries for `seconds` in total."""
    if size is None:
        size = _PEAK_SIZE if device == "cpu" else _PEAK_SIZE_OF_GPUS
    return 2 * size**3 / _best_seconds(device, dtype, (size, size, size), seconds)


def products_peak(
    device: str, dtype: torch.dtype, products: Sequence[tuple[int, int, int]], tokens: int
) -> float:
    """Return the best FLOP/s of multiplying `tokens` rows by each of a model's matrices.

        sum of operations / sum of each product's best seconds

    `products` has each matrix's input features, output features and count
    (`ModelConfig.products`).
    """
    operations, seconds = 0, 0.0
    for inputs, outputs, times in products:
        rows = max(1, min(tokens, _MAX_NUMBERS // max(inputs, outputs)))
        each = _best_seconds(device, dtype, (rows, inputs, outputs), _PRODUCT_SECONDS)
        operations += times * inputs * outputs
        seconds += times * each / rows
    return 2 * operations / seconds


def _best_seconds(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int], seconds: float
) -> float:
    """Return the best time of a product of (rows, inputs) and (inputs, outputs)."""
    return _timed(device, dtype, shape, seconds, torch.get_num_threads())


@functools.cache  # every stage in a process measures the same products
def _timed(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int], seconds: float, threads: int
) -> float:
    rows, inputs, outputs = shape
    a = torch.randn(rows, inputs, device=device).to(dtype)
    b = torch.randn(inputs, outputs, device=device).to(dtype)

    if device == "cpu":
        return best_seconds(lambda: a @ b, seconds)

    def products(times: int) -> None:
        for _ in range(times):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        elif device == "mps":
            torch.mps.synchronize()

    once = best_seconds(lambda: products(1), 0.0)
    times = max(1, min(_MAX_LAUNCHED, round(_LAUNCHED_SECONDS / once)))
    return best_seconds(lambda: products(times), seconds) / times


def best_seconds(work: Callable[[], object], budget: float) -> float:
    """Return the shortest time of `work`, over tries for `budget` seconds in total, at least five.

    On a busy machine a single try may take as long as the whole budget by chance.
    """
    work()
    best, spent, tries = float("inf"), 0.0, 0
    while spent < budget or tries < 5:
        start = time.perf_counter()
        work()
        taken = time.perf_counter() - start
        best, spent, tries = min(best, taken), spent + taken, tries + 1
    return best


def available_memory() -> int:
    """Return the bytes that a new process may use now, on this machine and in this container."""
    free = int(psutil.virtual_memory().available)
    for folder, (limit, used, kept) in itertools.product(_cgroups("memory"), _MEMORY_LIMITS):
        # Without a limit the file is absent, or holds "max" or an impossibly large number. The used
        # bytes include cached files that the kernel drops when memory is needed.
        with contextlib.suppress(OSError, ValueError, KeyError):
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free = max(0, min(free, left + int(stat[kept])))
    return free


def free_memory(device: str) -> int:
    """Return the bytes available on a device now; torch's unused cached memory counts as free."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return int(free) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device == "mps":  # it shares the machine's memory, and may use a part of it
        own = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return max(0, min(own, available_memory()))
    return available_memory()


def reset_peak_memory(device: str) -> None:
    """Restart the measurement of peak memory, after releasing cached memory."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc, or not Linux
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets the peak to the current size


def peak_memory(device: str) -> int | None:
    """Return the peak memory of this process on the device in bytes; None if it is not known.

    On a CPU it is the process's resident memory, which includes about 0.4 GB for Python and torch.
    """
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    held = psutil.Process().memory_info()
    if (peak := getattr(held, "peak_wset", None)) is not None:  # Windows
        return int(peak)
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # Linux; psutil does not read it
            facts = dict(line.split(":", 1) for line in file)
        return int(facts["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return None


def require_memory(need: int, what: str, remedy: str, device: str = "cpu") -> None:
    """Raise `UserError` if `need` bytes are not free, before anything is allocated."""
    free = free_memory(device)
    if need > free:
        there = "" if device == "cpu" else f" on device={device!r}"
        raise UserError(
            f"{what} needs about {need / 1e9:.1f} GB of memory{there} and {free / 1e9:.1f} GB are "
            f"free; {remedy}"
        )


def resolve_device(wanted: str) -> str:
    """Return the device that `wanted` names; 'auto' is the best one here.

    With several processes, each takes its own GPU. On CPUs the processes communicate through gloo,
    which does not support MPS.
    """
    several = ranks.size() > 1
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        joined = available | {"mps": available["mps"] and not several}
        wanted = next(name for name in ("cuda", "mps", "cpu") if joined[name])
    if not available[wanted]:
        raise UserError(f"device={wanted!r} is not available on this machine; use device='auto'")
    if several and wanted == "mps":
        raise UserError(
            f"device='mps' supports one process and {ranks.size()} were started; use "
            "device='cpu', or start without torchrun"
        )
    if several and wanted == "cuda":
        # A process may see all GPUs of its machine, or only its own.
        torch.cuda.set_device(ranks.local_rank() % torch.cuda.device_count())
    return wanted


def require_own_gpu(device: str) -> None:
    """Raise `UserError` if processes of one run share a GPU, which nccl refuses.

    All processes must call this together.
    """
    if device != "cuda" or ranks.size() == 1:
        return
    mine = torch.cuda.get_device_properties(torch.cuda.current_device())
    gpus = ranks.union([str(mine.uuid)])
    if len(gpus) < ranks.size():
        raise UserError(
            f"{ranks.size()} processes were started and have {counted(len(gpus), 'GPU')}; start "
            "as many processes as there are GPUs (torchrun --nproc-per-node), or use device='cpu'"
        )
