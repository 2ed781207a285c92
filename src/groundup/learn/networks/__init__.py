"""Step 2: neural networks. From a neuron to a language model that learns, on NumPy."""

from groundup.learn.exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
