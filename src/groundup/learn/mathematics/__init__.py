"""Step 1: mathematics. Derivatives, matrices and probability, on NumPy."""

from groundup.learn.exercise import Exercise

EXERCISES = (
    Exercise(
        "1.2",
        "chain_rule",
        "The chain rule on a graph",
        functions=("backward",),
        minutes=30,
        difficulty=3,
        importance=5,
        makes="every network of step 2 learns by your own backpropagation",
    ),
)
