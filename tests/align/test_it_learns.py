"""PPO and GRPO reach the known optimum, as far as the KL coefficient allows."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.align.config import GRPOConfig, PPOConfig, RolloutConfig
from groundup.align.prompts import Prompt
from groundup.align.rollout import Rollout
from groundup.experiments.config import ShortestPathsConfig
from groundup.experiments.shortest_paths import Graph, imitate, reinforce, shape
from groundup.lm.model import CausalLM
from groundup.runs.files import read_lines
from groundup.train.batch import Batch
from preloaded import Process
from rollouts import VOCAB, small_config, small_policy, train

KINDS: dict[str, type[RolloutConfig]] = {"ppo": PPOConfig, "grpo": GRPOConfig}
# Settings that suit one step: no token waits for another.
OWN: dict[str, dict[str, Any]] = {
    "ppo": {"critic_warmup": 0, "kl_coef": 0.0, "minibatches": 2},
    "grpo": {"group_size": 16, "epochs_per_iteration": 2, "minibatches": 2},
}
ARMS = {15: 40, 16: 41}  # which token is worth something after which prompt


def arm_reward(rollouts: Sequence[Rollout], /) -> list[float]:
    return [float(one.ids[0] == ARMS[one.prompt.ids[0]]) for one in rollouts]


def chances(policy: CausalLM) -> list[float]:
    """The probability of the best token after each prompt."""
    with torch.no_grad():
        logits = policy.logits(Batch.of(torch.tensor([[prompt] for prompt in ARMS])))[:, 0]
    best = torch.tensor(list(ARMS.values()))
    return logits.softmax(-1).gather(-1, best[:, None])[:, 0].tolist()


def bandit(method: str, seed: int, out: Path, **changes: Any) -> tuple[CausalLM, Any]:
    """Two bandits of 64 arms, one after each prompt; every token ends an answer."""
    policy = small_policy(seed, ends=range(VOCAB), spread=0.1)
    settings: dict[str, Any] = {
        "seed": seed,
        "max_new_tokens": 1,
        "episodes": 128,
        "iterations": 30,
        "heldout_prompts": 1,
        # Whitened, the last small errors of the critic are as large as the first true signal: at
        # 0.005 one seed of ten leaves the best arm again.
        "learning_rate": 0.002,
        "embedding_learning_rate": 0.002,
        **OWN[method],
        **changes,
    }
    config = small_config(KINDS[method], out, **settings)
    lines = train(config, policy, arm_reward, prompts=[Prompt((prompt,)) for prompt in ARMS])
    return policy, lines


@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("seed", [0])
def test_a_bandits_best_arm_is_found(method: str, seed: int, tmp_path: Path) -> None:
    policy, _ = bandit(method, seed, tmp_path / "out")
    assert min(chances(policy)) >= 0.95


@pytest.mark.long
@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("seed", range(1, 10))
def test_a_bandits_best_arm_is_found_by_every_seed(method: str, seed: int, tmp_path: Path) -> None:
    policy, _ = bandit(method, seed, tmp_path / "out")
    assert min(chances(policy)) >= 0.95


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_a_critic_learns_the_value_of_an_answer(tmp_path: Path, weight: float) -> None:
    """Where the prompt alone decides, all variance is explained."""

    def reward(rollouts: Sequence[Rollout], /) -> list[float]:
        return [1.0 if one.prompt.ids[0] == 15 else -2.0 for one in rollouts]

    policy = small_policy(0, ends=range(VOCAB), spread=0.1)
    config = small_config(
        *(PPOConfig, tmp_path / "out"),
        max_new_tokens=1,
        iterations=31,
        critic_warmup=30,
        value_learning_rate=0.02,
        value_coef=weight,
    )
    lines = train(config, policy, reward, prompts=[Prompt((prompt,)) for prompt in ARMS])
    explained = [line["explained_variance"] for line in lines if line["kind"] == "rollout"]
    assert explained[0] == pytest.approx(0, abs=1e-6) and explained[-1] > 0.95
    # All were answered by the policy as it was.
    assert {line["exact_kl"] for line in lines if line["kind"] == "rollout"} == {0}


# Graphs whose shortest paths are known.


def test_a_graphs_rewards_equal_those_of_its_paths() -> None:
    edges = np.zeros((21, 21), bool)
    edges[[1, 2, 2, 3], [0, 0, 1, 2]] = True  # 1 -> 0, 2 -> 0, 2 -> 1, 3 -> 2
    graph = Graph(edges, (0, 1, 1, 2, *[21] * 17))
    assert graph.reward([3, 2, 0]) == 1
    assert graph.reward([3, 2, 1, 0]) == pytest.approx(2 / 3)
    assert graph.reward([3, 1, 0]) == 0  # no edge
    assert graph.reward([3, 2]) == 0  # does not arrive
    assert graph.reward([2, 0, 0]) == 0  # walks on
    assert graph.reward([3, 40]) == 0  # no node


def test_a_random_graphs_distances_are_shortest_paths() -> None:
    graph = Graph.drawn(np.random.default_rng(0))
    # Paths of n steps are the entries of the n-th power.
    for node, steps in enumerate(graph.distance):
        reach = [np.linalg.matrix_power(graph.edges.astype(int), n)[node, 0] for n in range(11)]
        assert min(n for n, paths in enumerate(reach) if paths) == steps


def test_a_miniature_has_two_graphs_by_default(tmp_path: Path) -> None:
    assert ShortestPathsConfig(out=tmp_path).graphs == 10
    assert ShortestPathsConfig(out=tmp_path, quick=True).graphs == 2
    assert ShortestPathsConfig(out=tmp_path, quick=True, seeds=3).graphs == 3


@pytest.mark.long
def test_the_experiment_in_miniature(tmp_path: Path) -> None:
    words = ["experiment", "shortest-paths", "--quick", "--seeds", "1", "--threads", "1"]
    words += ["--out", str(tmp_path / "out")]
    process = Process([sys.executable, "-m", "groundup", *words])
    code, said = process.communicate(timeout=1200)
    assert code == 0, said
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.usefixtures("unchecked_types")  # walks have no tokenizer
def test_ppo_may_have_one_iteration_on_a_graph(tmp_path: Path) -> None:
    config = ShortestPathsConfig(out=tmp_path / "out", threads=1, iterations=1, episodes=8)
    walker = CausalLM(shape())
    walker.initialize(0)
    graph = Graph.drawn(np.random.default_rng(0))
    course = reinforce(config, "ppo", graph, walker, tmp_path / "ppo", kl_coef=0.01, seed=0)
    assert len(course.reward) == 1


@pytest.mark.long
@pytest.mark.usefixtures("unchecked_types")  # walks have no tokenizer
@pytest.mark.parametrize("method", KINDS)
def test_policies_on_graphs_are_nearly_optimal(tmp_path: Path, method: str) -> None:
    """One graph; ten of them are `groundup experiment shortest-paths --seeds 10`."""
    config = ShortestPathsConfig(out=tmp_path / "out", seed=1, threads=1, iterations=100)
    graph = Graph.drawn(np.random.default_rng((1, 0)))
    walker = imitate(config, graph, 1, tmp_path / "walks")
    course = reinforce(config, method, graph, walker, tmp_path / method, kl_coef=0.01, seed=1)
    assert course.before < 0.5 and course.after >= 0.95, (course.before, course.after)
    assert course.kl[0] == pytest.approx(0, abs=1e-6)


# A price on leaving the reference.

STOPS = """
def count(prompts, completions):
    return [one.count(".") for one in completions]
"""


def stops(
    workshop: Any, tmp_path: Path, stage: str, kl_coef: float, iterations: int = 120
) -> list[dict[str, Any]]:
    """PPO that is rewarded for full stops, by the command line; the lines of its iterations."""
    (tmp_path / "stops.py").write_text(STOPS)
    command = workshop.command(
        "ppo",
        tmp_path / f"out-{kl_coef}",
        model=workshop.finished(stage),
        reward="stops:count",
        kl_coef=kl_coef,
        kl_target=None,
        kl_horizon=None,
        critic_warmup=2,
        missing_eos_penalty=0,
        learning_rate=0.0001,
        embedding_learning_rate=0.0001,
        steps=None,
        episodes=32,
        heldout_prompts=2,
        save_every=1000,
        iterations=iterations,
    )
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = read_lines(tmp_path / f"out-{kl_coef}" / "metrics.jsonl")
    return [line for line in lines if line["kind"] == "rollout"]


@pytest.mark.long
def test_a_kl_coefficient_of_ten_keeps_the_policy_at_the_reference(
    workshop: Any, tmp_path: Path
) -> None:
    lines = stops(workshop, tmp_path, "sft", 10.0, iterations=12)
    assert 0 < max(line["exact_kl"] for line in lines) < 0.1


@pytest.mark.long
def test_without_a_kl_coefficient_only_the_reward_counts(workshop: Any, tmp_path: Path) -> None:
    # The base says full stops by chance; fine-tuned it may say one and never another.
    free = stops(workshop, tmp_path, "pretrain", 0.0)
    held = stops(workshop, tmp_path, "sft", 10.0)
    assert np.mean([line["score"] for line in free[-5:]]) > free[0]["score"] + 3
    assert free[-1]["exact_kl"] > 10
    assert max(line["exact_kl"] for line in held) < 0.1


@pytest.mark.long
def test_the_kl_coefficient_limits_the_policy(tmp_path: Path) -> None:
    """The best policy is known: pi(y) ∝ ref(y) exp(r(y) / beta) (Ziegler et al. 2019, 2.1)."""
    policy = small_policy(0, ends=range(VOCAB), spread=0.1)
    before, beta, worth = chances(policy), 0.5, 1.5
    raised = [p * math.exp(worth / beta) for p in before]
    best = [up / (up + 1 - p) for up, p in zip(raised, before, strict=True)]
    assert all(0.1 < chance < 0.7 for chance in best)
    config = small_config(
        *(PPOConfig, tmp_path / "out"),
        max_new_tokens=1,
        episodes=256,
        iterations=40,
        decay=0.8,
        critic_warmup=0,
        kl_coef=beta,
        value_learning_rate=0.02,
    )
    train(
        config,
        policy,
        lambda rollouts, /: [worth * value for value in arm_reward(rollouts)],
        prompts=[Prompt((prompt,)) for prompt in ARMS],
    )
    assert chances(policy) == pytest.approx(best, abs=0.08)
