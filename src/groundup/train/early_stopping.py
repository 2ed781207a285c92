"""When to end before the plan does: a held-out measure that no longer falls (Prechelt 1998)."""

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

    It remembers nothing that is not in the run's folder: metrics.jsonl says what was measured,
    best.safetensors holds the weights of the best evaluation. So a resumed run decides alike. One
    that was resumed inexactly may have measured another best before it went back, whose weights are
    no longer its own; it keeps the best of those that it still has.
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
        if steps[-1] != step:  # it does not count: what is judged was not trained yet
            return False
        kept = self._kept(steps[:-1], values[:-1])
        if kept is None or values[-1] < values[kept]:
            facts = {"step": str(step), "measure": repr(values[-1])}
            checkpoint.write_tensors(self.path, self.optimizer.masters, facts)
        return len(steps) - 1 - values.index(min(values)) >= self.patience

    def restored(self) -> dict[str, int]:
        """Load the best weights, with `patience`; return the step that they are of."""
        if self.patience is None:
            return {}
        steps, values = self._so_far()
        kept = self._kept(steps, values)
        try:
            if kept is None:
                raise SafetensorError("they are of no evaluation of this run")
            self.optimizer.load_masters(load_file(self.path))
        except (SafetensorError, OSError, KeyError) as error:
            raise UserError(
                f"{self.path} held the best weights and is damaged or gone ({error}); start the "
                "run anew with another --out"
            ) from None
        lost = "" if values[kept] == min(values) else "; better ones were lost when it was resumed"
        say(
            f"{self.run.stage}: keeps the weights of step {steps[kept]}, the best on held-out data "
            f"that it has{lost}"
        )
        return {"best_step": steps[kept]}

    def _kept(self, steps: list[int], values: list[float]) -> int | None:
        """Return the index of the evaluation whose weights are kept, if it is one of these."""
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata()
        except (SafetensorError, OSError):
            return None
        if facts is None and values:  # of a run that an earlier version began: the best
            return values.index(min(values))
        facts = facts or {}
        found = [(str(step), repr(value)) for step, value in zip(steps, values, strict=True)]
        measured = facts.get("step", ""), facts.get("measure", "")
        return found.index(measured) if measured in found else None

    def _so_far(self) -> tuple[list[int], list[float]]:
        """Return the steps of all evaluations and what was measured; of a diverged model inf."""
        lines = read_lines(self.run.folder / "metrics.jsonl")
        found = [line for line in lines if line.get("kind") == "evaluation"]
        found = [line for line in found if line.get("counts", True)]
        key = self.measure
        if not any(is_number(one.get(key)) for one in found):
            raise UserError(
                f"patience={self.patience} needs held-out data to judge by, and none is held out; "
                "give more rows, or leave patience out"
            )
        # A model that has diverged is no better than any.
        measured = [line[key] if is_number(line.get(key)) else math.inf for line in found]
        values = [float(value) if math.isfinite(value) else math.inf for value in measured]
        return [line["step"] for line in found], values
