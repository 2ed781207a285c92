"""Do PPO and GRPO find the best answer? They walk through graphs whose shortest paths are known.

A small transformer first learns random walks: each step follows an edge, and a walk ends at the
goal or after ten nodes. Then it is rewarded for short walks:

    reward = steps of the shortest path / steps of the walk       0 if it does not arrive

The optimum is a mean of 1, and no judge is needed. (The task is that of trlx's randomwalks, after
Chen et al. 2021, Decision Transformer, section 5.2.) With a KL coefficient of ten, a policy must
stay at the reference.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float
from torch import nn

from groundup.align.config import GRPOConfig, PPOConfig, RolloutConfig
from groundup.align.grpo import grpo_job
from groundup.align.online import Online
from groundup.align.ppo import ppo_job
from groundup.align.prompts import Prompt
from groundup.align.rollout import Reference, Rollout
from groundup.experiments.config import ShortestPathsConfig
from groundup.formats.hf_config import config_to_hf
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.report.figure import Plot
from groundup.report.outcome import working_in, write
from groundup.report.plots import BASELINE, looks, panels
from groundup.report.table import Table, text_table
from groundup.runs.console import counted, say
from groundup.runs.files import read_lines
from groundup.runs.folder import Run
from groundup.text.batches import packed_batch
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream
from groundup.train.config import TrainingConfig
from groundup.train.loop import Interrupted
from groundup.train.loss import next_token_loss
from groundup.train.plan import Trained
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel

NAME = "shortest-paths"
QUESTION = (
    "Do PPO and GRPO find a known best answer, and does a KL penalty keep them near the reference?"
)
NODES, LONGEST, EDGES = 21, 10, 0.1
_END = 0  # the token that ends a walk; node n is token n + 1
_WALKS, _WALK_STEPS = 4_000, 250
# At 0.0002, some iterations exceed 0.1 nats from the reference even with a KL coefficient of ten.
_RATE = 0.00014
ENOUGH = 0.95
_HIGH_KL_COEF = 10.0  # at which no reward justifies leaving the reference
_HELD_NATS = 0.1
# PPO's first iterations, which train only the critic.
_CRITIC_WARMUP = 2


def _ppo_config(*, iterations: int, **given: Any) -> PPOConfig:
    warmup = min(_CRITIC_WARMUP, iterations - 1)
    return PPOConfig(minibatches=2, iterations=iterations, critic_warmup=warmup, **given)


METHODS: dict[str, tuple[Callable[..., RolloutConfig], Callable[..., Job[Any, Any]]]] = {
    "ppo": (_ppo_config, ppo_job),
    "grpo": (partial(GRPOConfig, minibatches=4, epochs_per_iteration=2), grpo_job),
}


# The graph.


@dataclass(frozen=True)
class Graph:
    """Directed edges, and each node's distance to the goal, node 0."""

    edges: Bool[np.ndarray, "nodes nodes"]
    distance: tuple[int, ...]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Graph:
        """A random graph from which every node reaches the goal."""
        while True:
            edges = rng.random((NODES, NODES)) < EDGES
            np.fill_diagonal(edges, False)
            # Every node gets an outgoing edge.
            for node in np.flatnonzero(~edges.any(1)):
                edges[node, (node + 1) % NODES] = True
            distance = _distances(edges)
            if max(distance) < LONGEST:
                return cls(edges, distance)

    def walk(self, start: int, rng: np.random.Generator) -> list[int]:
        """A random walk from a node, up to the goal or to the maximum number of nodes."""
        nodes = [start]
        while nodes[-1] != 0 and len(nodes) < LONGEST:
            nodes.append(int(rng.choice(np.flatnonzero(self.edges[nodes[-1]]))))
        return nodes

    def reward(self, nodes: Sequence[int]) -> float:
        """The reward of a walk: 1 for a shortest one, 0 if it is invalid or does not arrive."""
        steps = list(pairwise(nodes))
        valid = all(a < NODES and b < NODES and self.edges[a, b] for a, b in steps)
        arrives = bool(steps) and nodes[-1] == 0 and 0 not in nodes[:-1]
        return self.distance[nodes[0]] / len(steps) if valid and arrives else 0.0


def _distances(edges: Bool[np.ndarray, "nodes nodes"]) -> tuple[int, ...]:
    """Steps to node 0 by breadth-first search backwards; the number of nodes if there is no way."""
    found = [len(edges)] * len(edges)
    found[0], open_ = 0, deque([0])
    while open_:
        node = open_.popleft()
        for before in np.flatnonzero(edges[:, node]):
            if found[before] == len(edges):
                found[before] = found[node] + 1
                open_.append(int(before))
    return tuple(found)


class WalkStream(DataStream):
    """Random walks for training, a pure function of (seed, step)."""

    def __init__(self, walks: Sequence[Sequence[int]], rows: int, seed: int) -> None:
        self._items = [
            Example([*(node + 1 for node in walk), _END], [True] * (len(walk) + 1))
            for walk in walks
        ]
        self._rows, self._seed = rows, seed

    def at(self, step: int, model: nn.Module) -> list[Batch]:
        chosen = np.random.default_rng((self._seed, step)).choice(len(self._items), self._rows)
        return [packed_batch([[self._items[i]] for i in chosen], LONGEST + 1)]


# Training.


def shape() -> ModelConfig:
    """About 0.9 M parameters."""
    return ModelConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=64,
        eos_token_ids=(_END,),
        pad_token_id=_END,
        bos_token_id=_END,
    )


def _model(seed: int) -> CausalLM:
    model = CausalLM(shape())
    model.initialize(seed)
    return model


def imitate(config: ShortestPathsConfig, graph: Graph, seed: int, out: Path) -> CausalLM:
    """Train a model of random walks through the graph."""
    rng = np.random.default_rng((seed, 1))
    walks = [graph.walk(int(rng.integers(1, NODES)), rng) for _ in range(_WALKS)]
    model = _model(seed)
    settings = TrainingConfig(
        out=out,
        seed=seed,
        rows=64,
        micro_rows=64,
        steps=20 if config.quick else _WALK_STEPS,
        learning_rate=0.01,
        threads=config.threads,
        dtype="float32",
        compile="off",
    )
    job: Job[Batch, CausalLM] = Job(
        settings,
        Trained.whole(shape(), LONGEST, (0.01, 0.003), "as for small models"),
        model=lambda: model,
        stream=lambda steps: WalkStream(walks, 64, seed),
        loss=next_token_loss,
        evaluate=lambda model, step: {},
        save=lambda model, plan: None,
        context=LONGEST + 1,
        rows_per_epoch=_WALKS,
        model_config=config_to_hf(shape()),
    )
    run_stage(settings, "walks", {}, lambda run: job)
    return model.eval()


@dataclass(frozen=True)
class History:
    """One policy's mean reward and nats from the reference, at each iteration."""

    reward: Float[np.ndarray, " iterations"]
    kl: Float[np.ndarray, " iterations"]
    before: float
    after: float
    seconds: float


def reinforce(
    config: ShortestPathsConfig,
    method: str,
    graph: Graph,
    walker: CausalLM,
    out: Path,
    *,
    kl_coef: float,
    seed: int,
) -> History:
    """Raise the reward of walks, starting from the model of random walks."""
    begun = perf_counter()
    iterations = 3 if config.quick else config.iterations
    given: dict[str, Any] = {
        "out": out,
        "model": Path("walker"),
        "prompts": Path("nodes"),
        "reward": "the shortest path over the walk",
        "seed": seed,
        "max_new_tokens": LONGEST,
        "episodes": config.episodes,
        "iterations": iterations,
        "missing_eos_penalty": 0.0,
        "kl_coef": kl_coef,
        "learning_rate": _RATE,
        "embedding_learning_rate": _RATE,
        "evaluations": 1,
        "heldout_prompts": 20 * (NODES - 1),
        "threads": config.threads,
        "dtype": "float32",
        "compile": "off",
    }
    make_config, make_job = METHODS[method]
    settings = make_config(**given)
    policy = _copied(walker)

    def job(run: Run) -> Job[Any, Any]:
        return make_job(settings, _online(settings, graph, policy, walker, run))

    run_stage(settings, method, {}, job)
    lines = read_lines(out / "metrics.jsonl")
    rollouts = [line for line in lines if line["kind"] == "rollout"]
    measured = [line["heldout_reward"]["estimate"] for line in lines if "heldout_reward" in line]
    return History(
        np.array([line["reward"] for line in rollouts]),
        np.array([line["exact_kl"] for line in rollouts]),
        measured[0],
        measured[-1],
        perf_counter() - begun,
    )


def _copied(model: CausalLM) -> CausalLM:
    copy = CausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy


def _online(
    config: RolloutConfig, graph: Graph, policy: CausalLM, walker: CausalLM, run: Run
) -> Online:
    def reward(rollouts: Sequence[Rollout], /) -> list[float]:
        walks = [[*one.prompt.ids, *one.ids] for one in rollouts]
        return [graph.reward([token - 1 for token in walk if token != _END]) for walk in walks]

    prepared = PreparedModel(
        policy,
        cast(Tokenizer, None),  # walks are not text
        LONGEST + 1,
        Trained.whole(policy.config, LONGEST, (_RATE, _RATE), "as for small models"),
        lambda folder, tokenizer, card: None,
        "",
    )
    prompts = [Prompt((node + 1,)) for node in range(1, NODES)]
    return Online(
        config,
        run.stage,
        run,
        prepared,
        prompts,
        prompts * 20,
        reward,
        None,
        Reference(lambda: _copied(walker)),
        LONGEST + 1,
    )


# The experiment.


@dataclass(frozen=True)
class GraphResults:
    """All runs on one graph, by method; `high_kl_coef` is the run with a KL coefficient of ten."""

    histories: dict[str, History]
    high_kl_coef: History


def run(config: ShortestPathsConfig) -> Path:
    """Try every method on every graph, and write the results.

    Raises `UserError` for a folder with other files.
    """
    with working_in(config.out, NAME):
        begun = perf_counter()
        with tempfile.TemporaryDirectory(prefix="groundup-") as scratch:
            try:
                found = [_tried(config, Path(scratch), turn) for turn in range(config.graphs)]
            except Interrupted as stopped:
                raise Interrupted(
                    "stopped; this experiment keeps nothing, and the same command starts it over",
                    stopped.number,
                ) from None
        return write(
            config,
            NAME,
            QUESTION,
            tables=[table(found, config)],
            plots=[plot(found, config)],
            remarks=remarks(found, config),
            data={
                "graphs": [
                    {
                        name: {
                            "before": history.before,
                            "after": history.after,
                            "seconds": history.seconds,
                            "reward": history.reward.tolist(),
                            "kl": history.kl.tolist(),
                        }
                        for name, history in {**one.histories, "dear": one.high_kl_coef}.items()
                    }
                    for one in found
                ]
            },
            seconds=perf_counter() - begun,
        )


def _tried(config: ShortestPathsConfig, scratch: Path, turn: int) -> GraphResults:
    seed = config.seed + turn
    graph = Graph.drawn(np.random.default_rng((seed, 0)))
    walker = imitate(config, graph, seed, scratch / f"walks-{turn}")
    histories: dict[str, History] = {}
    for method in config.methods:
        histories[method] = reinforce(
            config,
            method,
            graph,
            walker,
            scratch / f"{method}-{turn}",
            kl_coef=config.kl_coef,
            seed=seed,
        )
        say(
            f"graph {turn}  {method}: {histories[method].before:.3f} "
            f"→ {histories[method].after:.3f}"
        )
    high_kl_coef = reinforce(
        config,
        config.methods[0],
        graph,
        walker,
        scratch / f"dear-{turn}",
        kl_coef=_HIGH_KL_COEF,
        seed=seed,
    )
    return GraphResults(histories, high_kl_coef)


def table(found: Sequence[GraphResults], config: ShortestPathsConfig) -> Table:
    """Each method's reward, and how often it is high enough."""
    rows, iterations = [], len(found[0].high_kl_coef.reward)
    for method in config.methods:
        histories = [one.histories[method] for one in found]
        after = [history.after for history in histories]
        rows.append(
            (
                method.upper(),
                f"{np.mean([history.before for history in histories]):.3f}",
                f"{np.mean(after):.3f}",
                f"{min(after):.3f} to {max(after):.3f}",
                f"{sum(value >= ENOUGH for value in after)} of {len(after)}",
                f"{np.mean([history.kl[-1] for history in histories]):.2f}",
                f"{np.mean([history.seconds for history in histories]):.0f} s",
            )
        )
    return text_table(
        f"Share of the optimum after {iterations} iterations of {config.episodes} walks",
        ("method", "before", "after", "minimum to maximum", f"at least {ENOUGH:g}", "nats", "time"),
        rows,
        remarks=("Mean rewards of sampled walks from every node; the optimum is 1.",),
    )


def remarks(found: Sequence[GraphResults], config: ShortestPathsConfig) -> list[str]:
    """Sentences computed from the numbers."""
    said = []
    for method in config.methods:
        enough = sum(one.histories[method].after >= ENOUGH for one in found)
        said.append(
            f"{method.upper()} reaches {ENOUGH:.0%} of the optimum on {enough} of "
            f"{len(found)} graphs."
        )
    most = max(float(one.high_kl_coef.kl.max()) for one in found)
    held = sum(float(one.high_kl_coef.kl.max()) < _HELD_NATS for one in found)
    said.append(
        f"With a KL coefficient of {_HIGH_KL_COEF:g} the policy stays within {most:.3f} nats of "
        f"the model of random walks; below {_HELD_NATS:g} in {held} of "
        f"{counted(len(found), 'seed')}."
    )
    return said


def plot(found: Sequence[GraphResults], config: ShortestPathsConfig) -> Plot:
    """Reward and nats over the iterations, with one line per graph."""
    figure, [[reward, nats]] = panels(1, 2, width=9.0, height=3.8)
    for method, drawn in looks(config.methods).items():
        for turn, one in enumerate(found):
            label = method.upper() if turn == 0 else None
            history = one.histories[method]
            reward.plot(history.reward, **drawn.line, linewidth=1, alpha=0.7, label=label)
            nats.plot(history.kl, **drawn.line, linewidth=1, alpha=0.7, label=label)
    for turn, one in enumerate(found):
        label = f"KL coefficient {_HIGH_KL_COEF:g}" if turn == 0 else None
        nats.plot(one.high_kl_coef.kl, color="#777777", linewidth=1, label=label)
    reward.axhline(1.0, **BASELINE, label="optimum")
    reward.set_title("reward")
    nats.set_title("nats from the model of random walks")
    for axes in (reward, nats):
        axes.set_xlabel("iteration")
        axes.legend(frameon=False, fontsize=8)
    return Plot("histories", "Every graph's history: sampled walks of each iteration.", figure)
