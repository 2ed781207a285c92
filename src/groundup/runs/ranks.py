"""Data-parallel runs: each process computes its share of every step's micro-batches.

    torchrun --nproc-per-node 2 -m groundup sft MODEL --data my.jsonl

    gradient of a step  =  sum over ranks of the gradients of its batches / weight of the whole step

A stream is a pure function of the step, so every rank knows all of the step's batches and its
weight, and only gradients and metrics are communicated. The mean is taken once, over the whole
step, as on one process with the same --micro-rows. Without --micro-rows each process takes its part
of a step's rows in one pass; the answers of a pair, or to one prompt, share a micro-batch, so other
micro-batch sizes read other pairs. Only rank 0 writes into the run's folder, and it does work that
is done once before the other ranks look for its result. The backend is gloo on CPUs, nccl on GPUs.

Without torchrun there is one rank and these functions do nothing; torch is not imported.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from groundup.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# The other ranks wait while rank 0 encodes a corpus or scores a reference.
_TIMEOUT = timedelta(hours=12)
_STORE_TIMEOUT = timedelta(seconds=10)
_has_shared = False


def size() -> int:
    """Returns the number of processes that share this run."""
    # Schedulers set some of these as well; torchrun sets all of them.
    launched = {"RANK", "MASTER_ADDR"} <= os.environ.keys()
    return _launcher_variable("WORLD_SIZE", 1) if launched else 1


def rank() -> int:
    """Returns the rank of this process, from 0."""
    return _launcher_variable("RANK", 0) if size() > 1 else 0


def is_first() -> bool:
    """Whether this is rank 0, the only rank that writes and prints."""
    return rank() == 0


def local_size() -> int:
    """Returns the number of processes on this machine, which share its cores."""
    return _launcher_variable("LOCAL_WORLD_SIZE", 1) if size() > 1 else 1


def local_rank() -> int:
    """Returns the rank of this process among those of this machine, from 0."""
    return _launcher_variable("LOCAL_RANK", 0) if size() > 1 else 0


def _launcher_variable(name: str, least: int) -> int:
    """Returns a variable that torchrun sets, or its smallest valid value where it is not set."""
    value = os.environ.get(name, str(least))
    with suppress(ValueError):
        if (number := int(value)) >= least:
            return number
    raise UserError(
        f"{name}={value[:50]!r} must be a whole number, at least {least}; start several processes "
        f"with torchrun, or one after: unset {name}"
    )


def reports_errors() -> bool:
    """Whether this rank prints its error.

    Until the ranks share a step, all ranks of a machine fail alike, so one prints. Another machine
    prints as well, since it may lack a file that is here.
    """
    with suppress(UserError):  # an invalid variable: every process reports it
        if size() > 1 and not _has_shared:
            return os.environ.get("LOCAL_RANK", "0") == "0"
    return True


def share(batches: Sequence[T]) -> Sequence[T]:
    """Returns the micro-batches of a step that this rank computes."""
    global _has_shared
    _has_shared = True
    return batches[rank() :: size()]


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Rank 0 runs the block first; the others wait, then run it and find the work done."""
    if size() > 1 and not is_first():
        _barrier()
    yield
    if size() > 1 and is_first():
        _barrier()


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all ranks. Raises `UserError` if a rank has ended."""
    if size() == 1:
        return
    import torch.distributed as dist

    try:
        _init_process_group()
        for tensor in tensors:
            dist.all_reduce(tensor)
    except RuntimeError as error:
        # gloo reports an ended peer only in its message; any other error is a bug of ours.
        if not isinstance(error, dist.DistError) and not re.search("peer|pipe", str(error)):
            raise
        raise UserError(
            "another process of this run ended; see what it said and start the same command again, "
            "which continues from the last checkpoint"
        ) from error


def any_of(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    if size() == 1:
        return flag
    import torch

    flags = torch.tensor([float(flag)])
    all_reduce([flags])
    return bool(flags.item() > 0)


def union(names: Iterable[str]) -> list[str]:
    """Returns the names that any rank has, sorted."""
    if size() == 1:
        return sorted(set(names))
    import torch

    encoded = json.dumps(sorted(set(names))).encode()
    lengths = torch.zeros(size(), dtype=torch.int64)
    lengths[rank()] = len(encoded)
    all_reduce([lengths])
    # Each rank fills its own row; adding the zeros of the others does not change it.
    table = torch.zeros(size(), int(lengths.max()), dtype=torch.uint8)
    table[rank(), : len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    all_reduce([table])
    rows = zip(table, lengths.tolist(), strict=True)
    return sorted({name for row, end in rows for name in json.loads(bytes(row[:end].tolist()))})


def broadcast(value: float) -> float:
    """Returns rank 0's number on every rank, such as the speed that a plan is made from."""
    if size() == 1:
        return value
    import torch

    sent = torch.tensor([value if is_first() else 0.0], dtype=torch.float64)
    all_reduce([sent])
    return float(sent.item())


def broadcast_flag(flag: bool) -> bool:
    """Returns rank 0's flag on every rank."""
    return any_of(flag and is_first())


def destroy() -> None:
    """Destroy the process group at the end of a run."""
    if size() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def shutdown(code: int) -> None:
    """Exit this process with `code` if it is one of several; otherwise do nothing.

    While Python shuts down, threads of torch's C++ can abort a rank that has done its work, and
    torchrun takes that for a failure of the whole run. So Python's shutdown is skipped.
    """
    with suppress(UserError):  # the command has reported it
        if size() > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _init_process_group() -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if dist.is_initialized():
        return
    # `train.device` has chosen this process's GPU, if the run is on GPUs.
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend, timeout=_TIMEOUT)
        return
    # torchrun's store is there before its processes, so one that cannot be reached is gone with
    # torchrun; waiting for it would keep the run's folder locked.
    store, own, processes = next(rendezvous("env://", timeout=_STORE_TIMEOUT))
    store.set_timeout(_TIMEOUT)
    dist.init_process_group(backend, store=store, rank=own, world_size=processes, timeout=_TIMEOUT)


def _barrier() -> None:
    any_of(False)
