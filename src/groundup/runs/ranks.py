"""One run on several processes: each takes its share of every step's micro-batches.

    torchrun --nproc-per-node 2 -m groundup sft MODEL --data my.jsonl

    gradient of a step  =  sum over ranks of the gradients of its batches / weight of the whole step

A stream is a pure function of the step, so every rank knows all of the step's batches and its
weight, and nothing but gradients and metrics travels: the mean is taken once, over everything, as
on one process with the same --micro-rows. Without it each process takes its part of a step's rows
at once; the answers of a pair, or to one prompt, are laid into micro-batches together, so that
other micro-batches read other pairs. The first rank alone writes into the run's folder, and what is
made only once it makes before the others look. gloo on CPUs, nccl on GPUs.

Without torchrun there is one rank, and nothing here does anything. No torch is loaded until then.
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

# The others wait while the first one encodes a corpus or scores a reference.
_PATIENCE = timedelta(hours=12)
_has_shared = False


def size() -> int:
    """Returns the number of processes that share this run."""
    # Schedulers set some of these, too; torchrun sets all.
    launched = {"RANK", "MASTER_ADDR"} <= os.environ.keys()
    return _of_launcher("WORLD_SIZE", 1) if launched else 1


def rank() -> int:
    """Returns the rank of this process, from 0."""
    return _of_launcher("RANK", 0) if size() > 1 else 0


def is_first() -> bool:
    """Whether this is rank 0, which alone writes and prints."""
    return rank() == 0


def on_this_machine() -> int:
    """Returns the number of processes on this machine, which share its cores."""
    return _of_launcher("LOCAL_WORLD_SIZE", 1) if size() > 1 else 1


def local_rank() -> int:
    """Returns the rank of this process among those of this machine, from 0."""
    return _of_launcher("LOCAL_RANK", 0) if size() > 1 else 0


def _of_launcher(name: str, least: int) -> int:
    """Returns a variable that torchrun sets, the least that it can be where it is not set."""
    value = os.environ.get(name, str(least))
    with suppress(ValueError):
        if (number := int(value)) >= least:
            return number
    raise UserError(
        f"{name}={value[:50]!r} must be a whole number, at least {least}; start several processes "
        f"with torchrun, or one after: unset {name}"
    )


def tells_errors() -> bool:
    """Whether this rank says what ended it: until they share a step, all of a machine say the same.

    Another machine may lack a file that is here.
    """
    with suppress(UserError):  # a variable means nothing, which every process tells
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
    """Replace each tensor by its sum over all ranks. Raises `UserError` where one has ended."""
    if size() == 1:
        return
    import torch.distributed as dist

    try:
        _join()
        for tensor in tensors:
            dist.all_reduce(tensor)
    except RuntimeError as error:
        # Of an end gloo says so in words alone; whatever else it says is a mistake of ours.
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

    told = torch.tensor([float(flag)])
    all_reduce([told])
    return bool(told.item() > 0)


def union(names: Iterable[str]) -> list[str]:
    """Returns the names that any rank has, sorted."""
    if size() == 1:
        return sorted(set(names))
    import torch

    told = json.dumps(sorted(set(names))).encode()
    lengths = torch.zeros(size(), dtype=torch.int64)
    lengths[rank()] = len(told)
    all_reduce([lengths])
    # Each rank fills its own row, and a sum with zeros changes none.
    table = torch.zeros(size(), int(lengths.max()), dtype=torch.uint8)
    table[rank(), : len(told)] = torch.frombuffer(bytearray(told), dtype=torch.uint8)
    all_reduce([table])
    rows = zip(table, lengths.tolist(), strict=True)
    return sorted({name for row, end in rows for name in json.loads(bytes(row[:end].tolist()))})


def broadcast(value: float) -> float:
    """Returns the number of rank 0 on every rank: each measures its own speed, and one decides."""
    if size() == 1:
        return value
    import torch

    told = torch.tensor([value if is_first() else 0.0], dtype=torch.float64)
    all_reduce([told])
    return float(told.item())


def broadcast_flag(flag: bool) -> bool:
    """Returns the flag of rank 0 on every rank."""
    return any_of(flag and is_first())


def destroy() -> None:
    """Destroy the process group, at the end of a run."""
    if size() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def leave(code: int) -> None:
    """End this process with its exit code, if it is one of several; else do nothing.

    At the end of Python threads of torch's C++ can abort a rank that has done its work, which
    torchrun takes for a failure of the whole run. So Python does not end there.
    """
    with suppress(UserError):  # the command has said it
        if size() > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _join() -> None:
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    # Which GPU is this process's, `train.device` has decided, where the run is on GPUs at all.
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)


def _barrier() -> None:
    any_of(False)
