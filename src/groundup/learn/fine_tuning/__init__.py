"""Step 4: fine-tuning."""

from groundup.learn.exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
