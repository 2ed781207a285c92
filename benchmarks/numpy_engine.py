"""The NumPy engine against torch's eager mode, and against an engine of scalars.

    python benchmarks/numpy_engine.py [--steps 20] [--vocabulary 512]

Two networks, float32, two threads, forward, backward and an optimizer step:

    gpt      4 layers, width 128, context 128, batch 16, SGD
    digits   64 -> 128 -> 10 on 64 images of handwritten digits, SGD

The sides take turns step by step in one process, so changes in the machine's speed affect all.
Torch runs twice: `torch` as usually written, with its fused functions
(scaled_dot_product_attention, rms_norm, silu, cross_entropy), and `same lines`, the same file that
runs on NumPy. `scalars` is an engine in which every number is a node, after the idea of micrograd,
on the same digits and batch.

Prints medians, pairwise ratios with a bootstrap interval, a profile of a GPT step, and the growth
of the process over a thousand steps. Needs the extra `test` (torch is installed anyway).
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from groundup.train.config import ENVIRONMENT

Step = Callable[[], float]
LAYERS, WIDTH, CONTEXT, BATCH, INNER = 4, 128, 128, 16, 384
PIXELS, HIDDEN, CLASSES, IMAGES = 64, 128, 10, 64
RATE = 0.1
# Threads of each library spin for a while after a product; the next side would share its cores with
# them.
REST = 0.2


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--vocabulary", type=int, default=512)
    options = arguments.parse_args()
    # As many threads as torch has here, with torch's default waiting.
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "2"}
    del environment["GOMP_SPINCOUNT"]
    if any(os.environ.get(name) != value for name, value in environment.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment})

    import torch

    torch.set_num_threads(2)
    print("GPT")
    engine, fused, same = gpts(options.vocabulary)
    report(race({"numpy": engine, "torch": fused, "same lines": same}, options.steps), "numpy")
    where_the_time_goes(engine)
    print("\nDigits")
    engine, peer, _ = digits()
    report(race({"numpy": engine, "torch": peer}, 2 * options.steps), "numpy")
    engine, _, scalars = digits()  # from the same weights again
    report(race({"numpy": engine, "scalars": scalars}, 3), "numpy")
    growth(engine, 1_000)


def race(sides: dict[str, Step], steps: int) -> dict[str, list[float]]:
    """The seconds of each step of each side, in turns, after a check that their results agree."""
    losses = {name: step() for name, step in sides.items()}
    first = next(iter(losses.values()))
    assert all(math.isclose(first, loss, rel_tol=1e-3) for loss in losses.values()), losses
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(steps):
        for name, step in sides.items():
            time.sleep(REST)
            step()  # so that its threads are awake, as in training
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]], own: str) -> None:
    import numpy as np

    from groundup.maths.intervals import bootstrap_interval

    for name, taken in seconds.items():
        line = f"  {name:12} {statistics.median(taken) * 1e3:10.2f} ms a step"
        if name != own:
            ratios = np.array(seconds[own]) / np.array(taken)
            median = bootstrap_interval(ratios, lambda values: float(np.median(values)))
            line += f"   {own} takes {shown(median.estimate)} of its time "
            line += f"({shown(median.low)} to {shown(median.high)})"
        print(line, flush=True)


def shown(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio > 0.1 else f"1/{1 / ratio:.0f}"


def where_the_time_goes(step: Step) -> None:
    """The time of each operation, from one result to the next, forward and backward together."""
    from groundup.maths import tensor

    spent: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    last = time.perf_counter()

    def observer(operation: tensor.Operation, out: tensor.Tensor) -> None:
        nonlocal last
        now = time.perf_counter()
        spent[operation.name] += now - last
        counts[operation.name] += 1
        last = now

    before = tensor.observers.set((observer,))
    last = time.perf_counter()
    step()
    tensor.observers.reset(before)
    total = sum(spent.values())
    print(f"  where the {total * 1e3:.0f} ms of a step go:")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1])[:10]:
        print(
            f"    {name:12} {counts[name]:4} times {seconds * 1e3:8.1f} ms {seconds / total:6.1%}"
        )


def growth(step: Step, steps: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(steps):
        step()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"  {steps} more steps raise the peak memory by {grown / 1024:.1f} MiB")


# The GPT


def gpts(vocabulary: int) -> tuple[Step, Step, Step]:
    import numpy as np
    import torch

    from groundup.nn.gpt import GPT, GPTConfig, gpt_logits
    from groundup.nn.losses import cross_entropy
    from groundup.nn.optim import SGD

    config = GPTConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        num_key_value_heads=WIDTH // 64,
        intermediate_size=INNER,
        max_position_embeddings=CONTEXT,
    )
    tokens = np.random.default_rng(0).integers(vocabulary, size=(BATCH, CONTEXT + 1))
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    model = GPT(config)
    optimizer = SGD(model.parameters(), lr=RATE)

    def numpy_step() -> float:
        loss = model.loss(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    torch_ids, torch_targets = torch.from_numpy(ids), torch.from_numpy(targets).reshape(-1)

    def on_torch(loss_of: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> Step:
        weights = {
            name: torch.tensor(weight.data, requires_grad=True)
            for name, weight in model.weights.items()
        }
        theirs = torch.optim.SGD(weights.values(), lr=RATE)

        def step() -> float:
            loss = loss_of(weights)
            theirs.zero_grad()
            loss.backward()
            theirs.step()
            return loss.item()

        return step

    def same(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = gpt_logits(weights, config, torch_ids)
        return cross_entropy(logits.flatten(0, 1), torch_targets)

    def fused(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = fused_gpt(weights, config, torch_ids)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch_targets)

    return numpy_step, on_torch(fused), on_torch(same)


def fused_gpt(weights, config, ids):  # type: ignore[no-untyped-def]
    """The same network with torch's fused functions."""
    import torch.nn.functional as F

    from groundup.nn.gpt import Positions, rotate

    d, eps = config.head_dim, config.rms_norm_eps
    embedding = weights["model.embed_tokens.weight"]
    x = F.embedding(ids, embedding)
    positions = Positions.of(x, config)
    for number in range(config.num_hidden_layers):
        prefix = f"model.layers.{number}."
        w = {name.removeprefix(prefix): weight for name, weight in weights.items()}
        n = F.rms_norm(x, (WIDTH,), w["input_layernorm.weight"], eps)
        q, k, v = (
            F.linear(n, w[f"self_attn.{name}_proj.weight"]).unflatten(-1, (-1, d)) for name in "qkv"
        )
        q = rotate(
            F.rms_norm(q, (d,), w["self_attn.q_norm.weight"], eps).transpose(1, 2), positions
        )
        k = rotate(
            F.rms_norm(k, (d,), w["self_attn.k_norm.weight"], eps).transpose(1, 2), positions
        )
        mixed = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        x = x + F.linear(mixed.transpose(1, 2).flatten(2), w["self_attn.o_proj.weight"])
        n = F.rms_norm(x, (WIDTH,), w["post_attention_layernorm.weight"], eps)
        gate = F.silu(F.linear(n, w["mlp.gate_proj.weight"]))
        x = x + F.linear(gate * F.linear(n, w["mlp.up_proj.weight"]), w["mlp.down_proj.weight"])
    return F.linear(F.rms_norm(x, (WIDTH,), weights["model.norm.weight"], eps), embedding)


# The digits


def digits() -> tuple[Step, Step, Step]:
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    from groundup.nn.activations import Tanh
    from groundup.nn.layers import Linear
    from groundup.nn.losses import cross_entropy
    from groundup.nn.module import Sequential
    from groundup.nn.optim import SGD

    images, labels = load_digits(return_X_y=True)
    x = (images[:IMAGES] / 16).astype(np.float32)
    y = labels[:IMAGES]
    model = Sequential(Linear(PIXELS, HIDDEN, rng=0), Tanh(), Linear(HIDDEN, CLASSES, rng=1))
    optimizer = SGD(model.parameters(), lr=RATE)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(PIXELS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES)
    )
    theirs.load_state_dict({n: torch.tensor(w) for n, w in model.state_dict().items()})
    torch_optimizer = torch.optim.SGD(theirs.parameters(), lr=RATE)
    scalars = ScalarNetwork(model.state_dict())

    def numpy_step() -> float:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    torch_x, torch_y = torch.tensor(x), torch.tensor(y)

    def torch_step() -> float:
        loss = torch.nn.functional.cross_entropy(theirs(torch_x), torch_y)
        torch_optimizer.zero_grad()
        loss.backward()
        torch_optimizer.step()
        return loss.item()

    scalar_x, scalar_y = x.tolist(), y.tolist()
    return numpy_step, torch_step, lambda: scalars.step(scalar_x, scalar_y)


class Scalar:
    """One number with its parents and its local derivatives."""

    __slots__ = ("grad", "parents", "slopes", "value")

    def __init__(
        self, value: float, parents: tuple[Scalar, ...] = (), slopes: tuple[float, ...] = ()
    ) -> None:
        self.value, self.parents, self.slopes, self.grad = value, parents, slopes, 0.0

    def __add__(self, other: Scalar) -> Scalar:
        return Scalar(self.value + other.value, (self, other), (1.0, 1.0))

    def __mul__(self, other: Scalar) -> Scalar:
        return Scalar(self.value * other.value, (self, other), (other.value, self.value))

    def tanh(self) -> Scalar:
        t = math.tanh(self.value)
        return Scalar(t, (self,), (1 - t * t,))

    def exp(self) -> Scalar:
        e = math.exp(self.value)
        return Scalar(e, (self,), (e,))

    def log(self) -> Scalar:
        return Scalar(math.log(self.value), (self,), (1 / self.value,))

    def backward(self) -> None:
        order: list[Scalar] = []
        seen: set[Scalar] = set()
        stack = [(self, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad


class ScalarNetwork:
    """The digits network with every number a node."""

    def __init__(self, state) -> None:  # type: ignore[no-untyped-def]
        self.layers = [
            (
                [[Scalar(w) for w in row] for row in state[f"{n}.weight"].tolist()],
                [Scalar(b) for b in state[f"{n}.bias"].tolist()],
            )
            for n in (0, 2)
        ]

    def step(self, images: Iterable[list[float]], labels: list[int]) -> float:
        (w1, b1), (w2, b2) = self.layers
        total = Scalar(0.0)
        for image, label in zip(images, labels, strict=True):
            pixels = [Scalar(p) for p in image]
            hidden = [neuron(pixels, w, b).tanh() for w, b in zip(w1, b1, strict=True)]
            logits = [neuron(hidden, w, b) for w, b in zip(w2, b2, strict=True)]
            normaliser = logits[0].exp()
            for logit in logits[1:]:
                normaliser = normaliser + logit.exp()
            total = total + normaliser.log() + logits[label] * Scalar(-1.0)
        loss = total * Scalar(1 / len(labels))
        loss.backward()
        for weights, biases in self.layers:
            for number in [*biases, *(w for row in weights for w in row)]:
                number.value -= RATE * number.grad
                number.grad = 0.0
        return loss.value


def neuron(inputs: list[Scalar], weights: list[Scalar], bias: Scalar) -> Scalar:
    for x, w in zip(inputs, weights, strict=True):
        bias = bias + x * w
    return bias


if __name__ == "__main__":
    main()
