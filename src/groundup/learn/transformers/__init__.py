"""Step 3: transformers."""

from groundup.learn.exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
