"""Measures how fast a model trains, in a separate process.

    python -m groundup.pretrain.probe '{"depth": 4, …}'

The process takes one optimizer step for every line that it reads, and answers with its duration in
seconds. Separate processes are needed because settings of the C library apply to a whole process;
compared processes also take turns, so that fluctuations of the machine affect all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Literal


@dataclass(frozen=True)
class Setup:
    """A model, its training steps, and how they are computed."""

    depth: int
    width: int
    vocab_size: int = 4_096
    context: int = 256
    rows: int = 16
    micro_rows: int | None = None
    threads: int | None = None
    kernels: bool = True
    compile: bool = False
    optimizer: Literal["muon", "adamw"] = "muon"
    gradient_checkpointing: bool = False

    @property
    def tokens(self) -> int:
        """Tokens in an optimizer step."""
        return self.rows * self.context

    def changed(self, **changes: object) -> Setup:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass
class Side:
    """A process that takes a step on request; a context manager that ends it.

    `environment` are additional variables for the process; one with an empty value is removed.
    """

    setup: Setup
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Side:
        variables = {**os.environ, **self.environment}
        if not self.setup.kernels:
            variables["GROUNDUP_KERNELS"] = "none"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "groundup.pretrain.probe", json.dumps(asdict(self.setup))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in variables.items() if value != ""},
        )
        try:
            self.turn()
            self.turn()
        except BaseException:
            self._process.kill()
            raise
        self.seconds.clear()
        return self

    @property
    def speed(self) -> float:
        """Tokens per second: the median over the steps, as in plans."""
        return self.setup.tokens / statistics.median(self.seconds)

    def turn(self) -> float:
        """Take a step; returns its duration in seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print("step", file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ChildProcessError(f"a measuring process ended unexpectedly: {self.setup}")
        self.seconds.append(float(answer))
        return self.seconds[-1]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(setup: Setup) -> None:
    """Take one step for every line of standard input."""
    import torch

    from groundup.lm.config import ModelConfig
    from groundup.pretrain.stage import new_model
    from groundup.train.config import TrainingConfig
    from groundup.train.device import prepare, resolve
    from groundup.train.loss import next_token_loss
    from groundup.train.optim import Optimizer, Rates
    from groundup.train.pace import random_batches

    shape = ModelConfig.of(
        width=setup.width, depth=setup.depth, vocab_size=setup.vocab_size, context=setup.context
    )
    config = TrainingConfig.model_validate(
        {
            "out": "unused",
            "rows": setup.rows,
            "micro_rows": setup.micro_rows,
            "compile": "on" if setup.compile else "auto",
            "threads": setup.threads,
        }
    )
    compute = resolve(config, compile_by_default=False)
    torch.manual_seed(0)
    model = new_model(shape, 0)
    prepare(model, compute, gradient_checkpointing=setup.gradient_checkpointing)
    optimizer = Optimizer(model, Rates(1e-3, 1e-3, 1e-3), muon=setup.optimizer == "muon")
    micro = config.micro(setup.context)
    batches = random_batches(shape.vocab_size, context=setup.context, rows=micro)
    device = torch.device(compute.device)
    for _ in sys.stdin:
        some = [next(batches).to(device) for _ in range(-(-setup.rows // micro))]
        start = time.perf_counter()
        weight = sum(batch.weight for batch in some)
        for batch in some:
            total = next_token_loss(model, batch).total
            (total / weight).backward()  # type: ignore[no-untyped-call]
        optimizer.clip(optimizer.gradient_norm(), 1.0)
        optimizer.step(1.0)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    serve(Setup(**json.loads(sys.argv[1])))
