"""The learning rate over a run: warm-up, stable, decay (Hu et al. 2024, MiniCPM, section 4).

    scale(step) = min((step + 1) / warmup, 1, (steps - step) / decay)

The long flat middle makes every point of it a place to start the decay from, so a run can be
extended without having known its length.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    steps: int
    warmup_steps: int
    decay_steps: int

    def __call__(self, step: int) -> float:
        """What the learning rates are multiplied by at `step`, counted from 0."""
        rising = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        falling = (self.steps - step) / self.decay_steps if self.decay_steps else 1.0
        return min(rising, 1.0, falling)
