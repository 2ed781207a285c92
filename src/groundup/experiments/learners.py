"""The two models of the perceptron experiment, with the same two methods.

`learn(passes)` makes more passes over the training data, and `probabilities(x)` returns the
probability of each class for each row of x.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from groundup.maths.tensor import Tensor, no_grad
from groundup.nn.losses import cross_entropy
from groundup.nn.module import Sequential
from groundup.nn.optim import Optimizer
from groundup.nn.schedule import Schedule
from groundup.nn.training import minibatches, train

PERCEPTRON, NETWORK = "perceptron", "multi-layer network"


@runtime_checkable
class Learner(Protocol):
    """The interface of both models."""

    def learn(self, passes: int) -> None: ...

    def probabilities(
        self, x: Float[np.ndarray, "n features"]
    ) -> Float[np.ndarray, "n classes"]: ...


class Perceptron:
    """Rosenblatt's rule: on a mistake, move the weights from the wrong answer to the right one.

        answer k = the class whose w_k · (x, 1) is highest
        where k is wrong and t right:    w_t ← w_t + (x, 1)    w_k ← w_k - (x, 1)

    With two classes, w_1 - w_0 is the one weight vector of the original. It converges after
    finitely many mistakes if some line separates the classes (Novikoff 1962), and otherwise never.
    Source: Rosenblatt (1958), "The perceptron"; Duda and Hart (1973), section 5.12, for more
    classes than two.
    """

    def __init__(
        self,
        x: Float[np.ndarray, "n features"],
        labels: Integer[np.ndarray, " n"],
        classes: int,
        rng: np.random.Generator,
    ) -> None:
        self.x, self.labels, self.rng = _with_one(x), labels, rng
        self.weights = np.zeros((classes, self.x.shape[1]))

    def learn(self, passes: int) -> None:
        """Visit each example once per pass, in a new order."""
        for _ in range(passes):
            for i in self.rng.permutation(len(self.labels)):
                answer, right = int(np.argmax(self.weights @ self.x[i])), self.labels[i]
                if answer != right:
                    self.weights[right] += self.x[i]
                    self.weights[answer] -= self.x[i]

    def probabilities(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n classes"]:
        """1 for the predicted class and 0 for the others: a perceptron is always certain."""
        answers = (_with_one(x) @ self.weights.T).argmax(axis=1)
        certain: Float[np.ndarray, "n classes"] = np.eye(len(self.weights))[answers]
        return certain


class Network:
    """A model that returns logits, with the optimizer and the batches that train it.

    `noise` is the standard deviation of the noise that training adds to the inputs. `schedule`
    counts its steps from the start of each `learn`.
    """

    def __init__(
        self,
        model: Sequential,
        optimizer: Optimizer,
        x: Float[np.ndarray, "n features"],
        labels: Integer[np.ndarray, " n"],
        rng: np.random.Generator,
        *,
        batch: int,
        noise: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.rng, self.noise = rng, noise
        self.batches = minibatches((x, labels), batch, rng)
        self.steps_of_a_pass = len(labels) // batch

    def learn(self, passes: int) -> None:
        """Minimize the cross-entropy by backpropagation."""
        steps = passes * self.steps_of_a_pass
        train(
            self.model, self.batches, self.loss, self.optimizer, steps=steps, schedule=self.schedule
        )

    def loss(self, model: Sequential, batch: tuple[np.ndarray, ...]) -> Tensor:
        """Mean cross-entropy of a batch of inputs and labels, with noise on the inputs."""
        x, labels = batch
        if self.noise:
            x = x + self.noise * self.rng.standard_normal(x.shape, dtype=np.float32)
        loss: Tensor = cross_entropy(model(Tensor(x, requires_grad=False)), labels)
        return loss

    def probabilities(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n classes"]:
        """The softmax of the logits, in float64 so that it sums to one, as calibration requires."""
        with no_grad():
            logits = self.model.eval()(Tensor(x, requires_grad=False))
        probs: Float[np.ndarray, "n classes"] = Tensor(logits.data.astype(float)).softmax(1).data
        return probs


def _with_one(x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n features_and_one"]:
    """Append a feature that is always 1, whose weight is the bias."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
