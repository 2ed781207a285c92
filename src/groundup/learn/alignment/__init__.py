"""Step 5: alignment."""

from groundup.learn.exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
