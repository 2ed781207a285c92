"""Early stopping when a held-out measure no longer falls (Prechelt 1998)."""

from __future__ import annotations

import math

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from groundup.errors import UserError
from groundup.runs.console import say
from groundup.runs.files import is_number, read_lines
from groundup.runs.folder import Run
from groundup.train import checkpoint
from groundup.train.config import TrainingConfig
from groundup.train.optim import Optimizer


class EarlyStopping:
    """Keeps the weights of the best held-out measure so far (early stopping: Prechelt 1998).

    All state is in the run's folder: metrics.jsonl has the measurements and best.safetensors the
    weights of the best evaluation. So a resumed run decides in the same way. After an inexact
    resume, the best evaluation may have been cut from the log, and its weights no longer belong to
    the run; it then keeps the best weights that it still has.
    """

    def __init__(self, run: Run, optimizer: Optimizer, config: TrainingConfig) -> None:
        self.run, self.optimizer, self.patience = run, optimizer, config.patience
        self.measure = config.traits.measure
        self.path = run.folder / "best.safetensors"

    def ends_training(self, step: int) -> bool:
        """Keep the weights of `step` if they are the best; return whether training ends here."""
        if self.patience is None:
            return False
        steps, values = self._so_far()
        if steps[-1] != step:  # it does not count: the evaluated part was not trained yet
            return False
        kept = self._kept(steps[:-1], values[:-1])
        if kept is None or values[-1] < values[kept]:
            facts = {"step": str(step), "measure": repr(values[-1])}
            checkpoint.write_tensors(self.path, self.optimizer.masters, facts)
        return len(steps) - 1 - values.index(min(values)) >= self.patience

    def restored(self) -> dict[str, int]:
        """With `patience`, load the best weights and return their step."""
        if self.patience is None:
            return {}
        steps, values = self._so_far()
        kept = self._kept(steps, values)
        try:
            if kept is None:
                raise SafetensorError("they belong to no evaluation of this run")
            self.optimizer.load_masters(load_file(self.path))
        except (SafetensorError, OSError, KeyError) as error:
            raise UserError(
                f"{self.path} held the best weights and is damaged or missing ({error}); start the "
                "run again with another --out"
            ) from None
        lost = "" if values[kept] == min(values) else "; better ones were lost when it was resumed"
        say(
            f"{self.run.stage}: keeps the weights of step {steps[kept]}, the best on held-out data "
            f"that it has{lost}"
        )
        return {"best_step": steps[kept]}

    def _kept(self, steps: list[int], values: list[float]) -> int | None:
        """Return the index of the evaluation whose weights are stored, if it is one of these."""
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata()
        except (SafetensorError, OSError):
            return None
        if facts is None and values:  # earlier versions stored the best without metadata
            return values.index(min(values))
        facts = facts or {}
        found = [(str(step), repr(value)) for step, value in zip(steps, values, strict=True)]
        measured = facts.get("step", ""), facts.get("measure", "")
        return found.index(measured) if measured in found else None

    def _so_far(self) -> tuple[list[int], list[float]]:
        """Return the steps of all evaluations and their measures, inf for a diverged model."""
        lines = read_lines(self.run.folder / "metrics.jsonl")
        found = [line for line in lines if line.get("kind") == "evaluation"]
        found = [line for line in found if line.get("counts", True)]
        key = self.measure
        if not any(is_number(one.get(key)) for one in found):
            raise UserError(
                f"patience={self.patience} needs held-out data, and none is held out; "
                "give more rows, or leave patience out"
            )
        # A diverged model is never the best.
        measured = [line[key] if is_number(line.get(key)) else math.inf for line in found]
        values = [float(value) if math.isfinite(value) else math.inf for value in measured]
        return [line["step"] for line in found], values
