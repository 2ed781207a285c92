"""What do PPO, GRPO and DPO gain per nat? A real model learns to continue texts cheerfully.

A simple case of learning from preferences (Ziegler et al. 2019, "Fine-Tuning Language Models from
Human Preferences", section 3.1): a model continues openings of everyday stories, and the reward is
the sentiment of the continuation, from -1 to 1 (VADER, `text.sentiment`). It needs no judge, and
successes and failures are easy to see.

    PPO, GRPO    learn from their own continuations, sampled again at every iteration
    DPO          learns from the same number of continuations of the initial model; the i-th best of
                 each opening is preferred to the i-th worst
    best of n    trains nothing: the best of those continuations

All start from the same model with an adapter that adds nothing, have the same KL coefficient,
number of steps and learning rate, and are measured on the same held-out openings: reward, nats from
the initial model, and side effects on the variety of words and on the prediction of texts by
people.

    RUN/ppo, grpo, dpo, best-of-n      the runs, from which a stopped experiment resumes
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.align.best_of_n import best_of_n, kl_bound, powers_of_two
from groundup.align.config import DPOConfig, GRPOConfig, PPOConfig, RolloutConfig
from groundup.align.dpo import preference_loss
from groundup.align.grpo import grpo_job
from groundup.align.online import Online
from groundup.align.ppo import ppo_job
from groundup.align.preferences import Pair, PairBatch, PairStream
from groundup.align.prompts import Prompt
from groundup.align.reference import answer_logprobs
from groundup.align.rewards.by_name import open_rollout_reward
from groundup.align.rollout import (
    Reference,
    Rollout,
    load_policy,
    pack_rollouts,
    rewards_of,
    sample,
    token_facts,
)
from groundup.data.packs.questions import is_heldout, questions
from groundup.data.packs.rows import Rejected
from groundup.data.split import evenly_spaced
from groundup.errors import UserError
from groundup.experiments.config import SentimentConfig
from groundup.formats.adapter import model_hash
from groundup.formats.hf_config import config_to_hf
from groundup.formats.load import load_model, load_tokenizer
from groundup.formats.locate import locate
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.report.claim import Claim
from groundup.report.estimate import Estimate, ratio
from groundup.report.figure import Plot
from groundup.report.outcome import threads_of_runs, working_in, write
from groundup.report.plots import BASELINE, looks, panels
from groundup.report.table import Mark, Table, text_table
from groundup.runs.console import say
from groundup.runs.files import read_json_object, read_lines, write_json
from groundup.runs.folder import Run, is_finished
from groundup.text.example import Example, cut_to
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import TrainingConfig
from groundup.train.device import prepare_to_read, use_threads
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel, prepare_model

NAME = "sentiment"
QUESTION = "What do PPO, GRPO and DPO gain per nat when the reward is clear?"
REWARD = "sentiment"
_POOL = "best-of-n"
_OPENING, _NEW_TOKENS = 10, 24
_EPISODES, _GROUP = 32, 8
_PASSES = 2  # over an iteration's continuations
_ROW = 128  # tokens: three continuations
_HELDOUT, _QUICK_HELDOUT = 64, 4
_EVALUATIONS = 5
_SAVED = 10  # steps: a minute or two
_SHOWN = 3


# The openings.


@dataclass(frozen=True)
class Openings:
    """The first words of everyday stories: for training, and held out with their whole texts."""

    train: list[Prompt]
    heldout: list[Prompt]
    texts: list[str]

    @classmethod
    def read(cls, tokenizer: Tokenizer, most: int) -> Openings:
        """Read the openings of the pack siqa. Raises `UserError` if it cannot be downloaded."""
        found = questions("siqa", Rejected(), say)
        sides = [
            list(dict.fromkeys(one.passage for one in found if is_heldout(one) == heldout))
            for heldout in (False, True)
        ]
        train, heldout = ([_opening(text, tokenizer) for text in side] for side in sides)
        return cls(
            [one for one in train if len(one.ids) == _OPENING],
            evenly_spaced([one for one in heldout if len(one.ids) == _OPENING], most),
            evenly_spaced(sides[1], most),
        )


def _opening(text: str, tokenizer: Tokenizer) -> Prompt:
    ids = tokenizer.encode(text)[:_OPENING]
    return Prompt(tuple(ids), row={"opening": tokenizer.decode(ids)}, source="siqa")


# Measurements.


class Measuring:
    """Measures policies on the same held-out openings, with the same seed."""

    def __init__(self, openings: Openings, tokenizer: Tokenizer, seed: int) -> None:
        self.openings, self.tokenizer, self.seed = openings, tokenizer, seed
        self.reward = open_rollout_reward(REWARD, tokenizer)
        encoded = tokenizer.encode_batch(openings.texts)
        self._texts = [
            cut_to(Example(ids, [False] + [True] * (len(ids) - 1)), _ROW) for ids in encoded
        ]
        read = [token for item in self._texts for token in item.ids[1:]]
        self._bytes = sum(len(tokenizer.token_bytes(token)) for token in read)

    def __call__(self, policy: CausalLM, reference: Reference) -> dict[str, Any]:
        """Rewards, their mean, nats, the share of distinct word pairs, bits per byte, samples."""
        rollouts = sample(
            policy,
            self.openings.heldout,
            self.tokenizer,
            max_new_tokens=_NEW_TOKENS,
            seed=self.seed,
        )
        laid = pack_rollouts(
            rollouts,
            range(len(rollouts)),
            context=_ROW,
            micro_rows=16,
            one_shape=policy.compiled,
        )
        facts = token_facts(policy, reference.of(policy), rollouts, laid)
        nats = sum(-float(one.sum()) for one in score(policy, self._texts, context=_ROW))
        rewards = rewards_of(self.reward, rollouts)
        return {
            "reward": ratio(rewards).to_json(),
            "rewards": rewards.tolist(),
            "kl": facts.exact_kl(),
            "distinct_2": distinct_2([one.text for one in rollouts]),
            "bits_per_byte": nats / log(2) / self._bytes,
            "samples": [f"{one.prompt.row['opening']} …{one.text}" for one in rollouts[:_SHOWN]],
        }


def distinct_2(texts: Sequence[str]) -> float:
    """The number of distinct bigrams of words over the number of all (Li et al. 2016)."""
    pairs = [pair for text in texts for pair in pairwise(text.lower().split())]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


@dataclass(frozen=True)
class History:
    """One policy's measurements during training, and each iteration's nats and reward."""

    measured: list[dict[str, Any]]
    iterations: list[tuple[float, float]]

    @classmethod
    def of(cls, folder: Path) -> History:
        lines = read_lines(folder / "metrics.jsonl")
        rollouts = [line for line in lines if line["kind"] == "rollout"]
        return cls(
            [line for line in lines if "distinct_2" in line],
            [(line["exact_kl"], line["reward"]) for line in rollouts],
        )

    @property
    def rewards(self) -> list[Estimate]:
        return [Estimate(**line["reward"]) for line in self.measured]

    @property
    def gain(self) -> Estimate:
        """The change of the reward from first to last, opening by opening."""
        first, last = (np.array(self.measured[place]["rewards"]) for place in (0, -1))
        return ratio(last - first)

    def all(self, name: str) -> list[float]:
        return [line[name] for line in self.measured]


# Training.


def _common(config: SentimentConfig, method: str) -> dict[str, Any]:
    return {
        "out": config.out / method,
        "model": locate(config.model),
        "seed": config.seed,
        "adapter": "lora",
        "lora_rank": 16,
        "learning_rate": config.learning_rate,
        "evaluations": 1 if config.quick else _EVALUATIONS,
        "save_every": _SAVED,
        "threads": config.threads,
        "compile": "off",
    }


def _iterations(config: SentimentConfig) -> int:
    return 2 if config.quick else config.iterations


def _rates(config: SentimentConfig) -> tuple[float, float]:
    return (config.learning_rate, config.learning_rate)


def _online(
    method: str, config: SentimentConfig, pools: Sequence[Pool], measuring: Measuring
) -> Path:
    """Train by PPO or GRPO, which sample their own continuations; return the run folder."""
    given = {
        "prompts": Path("siqa"),
        "reward": REWARD,
        "max_new_tokens": _NEW_TOKENS,
        "episodes": 2 * _GROUP if config.quick else _EPISODES,
        "minibatches": 1,
        "iterations": _iterations(config),
        "kl_coef": config.kl_coef,
        **_common(config, method),
    }
    settings, make_job = _ONLINE[method](given)

    def job(run: Run) -> Job[Any, Any]:
        prepared = prepare_model(settings, _rates(config))
        online = Online(
            settings,
            run.stage,
            run,
            prepared,
            measuring.openings.train,
            [],
            measuring.reward,
            None,
            Reference(lambda: load_model(settings.model)),
            _ROW,
            continues=True,
        )
        return _measured(make_job(settings, online), prepared, online.reference, measuring)

    return run_stage(settings, method, {"model": settings.model}, job)


def _ppo(given: dict[str, Any]) -> tuple[RolloutConfig, Callable[[Any, Online], Job[Any, Any]]]:
    return PPOConfig(ppo_epochs=_PASSES, **given), ppo_job


def _grpo(given: dict[str, Any]) -> tuple[RolloutConfig, Callable[[Any, Online], Job[Any, Any]]]:
    # Advantages are not divided by their deviation, so the KL coefficient is in reward units.
    return (
        GRPOConfig(group_size=_GROUP, epochs_per_iteration=_PASSES, scale_rewards=False, **given),
        grpo_job,
    )


_ONLINE = {"ppo": _ppo, "grpo": _grpo}


def _measured(
    job: Job[Any, Any], prepared: PreparedModel, reference: Reference, measuring: Measuring
) -> Job[Any, Any]:
    """The job with this experiment's measurements, before its first step and during training."""

    def evaluate(model: Any, step: int) -> dict[str, Any]:
        found = measuring(prepared.model, reference)
        say(f"step {step}  sentiment {found['reward']['estimate']:.3f}, {found['kl']:.2f} nats")
        return found

    return replace(job, evaluate=evaluate, evaluates_first=True)


@dataclass(frozen=True)
class Pool:
    """The model's own continuations of one opening, with their sentiments."""

    opening: tuple[int, ...]
    ids: list[list[int]]
    scores: Float[np.ndarray, " n"]

    @property
    def pairs(self) -> list[Pair]:
        """The best with the worst, the second best with the second worst …, if they differ."""
        order = np.argsort(-self.scores, kind="stable").tolist()
        matched = zip(order[: len(order) // 2], order[::-1], strict=False)
        return [
            Pair(self._example(better), self._example(worse), "siqa")
            for better, worse in matched
            if self.scores[better] > self.scores[worse]
        ]

    def _example(self, place: int) -> Example:
        said = self.ids[place]
        mask = [False] * len(self.opening) + [True] * len(said)
        return Example([*self.opening, *said], mask)


def _pools(config: SentimentConfig, measuring: Measuring) -> list[Pool]:
    """As many continuations as PPO samples in total, eight of each opening; kept in a file."""
    path = config.out / _POOL / "pool.json"
    count = 2 if config.quick else _iterations(config) * _EPISODES // _GROUP
    made_of = {"model": str(config.model), "seed": config.seed, "openings": count}
    hashed = model_hash(locate(config.model))
    if not path.is_file():
        prompts = [
            one for one in evenly_spaced(measuring.openings.train, count) for _ in range(_GROUP)
        ]
        model, tokenizer = load_policy(locate(config.model), "auto")
        begun = perf_counter()
        rollouts = sample(
            model, prompts, tokenizer, max_new_tokens=_NEW_TOKENS, seed=config.seed + 1
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "made_of": made_of,
                "model_hash": hashed,
                "seconds": perf_counter() - begun,
                "pools": _in_groups(rollouts, rewards_of(measuring.reward, rollouts).tolist()),
            },
        )
    found = read_json_object(path)
    if found.get("made_of") != made_of:
        raise UserError(
            f"{path} was made with other settings ({found.get('made_of')}); choose another --out"
        )
    if found.get("model_hash", hashed) != hashed:  # earlier versions did not record it
        raise UserError(
            f"{path} was made with another model than {config.model} is now; choose another --out, "
            "or put that model back"
        )
    return [
        Pool(tuple(one["opening"]), one["ids"], np.array(one["scores"])) for one in found["pools"]
    ]


def _in_groups(rollouts: Sequence[Rollout], scores: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {
            "opening": list(rollouts[start].prompt.ids),
            "ids": [list(one.ids) for one in rollouts[start : start + _GROUP]],
            "scores": list(scores[start : start + _GROUP]),
        }
        for start in range(0, len(rollouts), _GROUP)
    ]


def _dpo(config: SentimentConfig, pools: Sequence[Pool], measuring: Measuring) -> Path:
    """Train by DPO on pairs of the model's own continuations; return the run folder."""
    pairs = [pair for pool in pools for pair in pool.pairs]
    rows = 6  # about nine pairs
    settings = DPOConfig(
        data=Path("siqa"),
        beta=config.kl_coef,
        nll=0.0,
        steps=_PASSES * _iterations(config),
        rows=rows,
        micro_rows=rows,
        context=_ROW,
        **_common(config, "dpo"),
    )

    def job(run: Run) -> Job[PairBatch, CausalLM]:
        prepared = prepare_model(settings, _rates(config))
        prepare_to_read(prepared.model, settings)
        # The adapter adds nothing yet, so this is the reference.
        twins = [(pair.chosen, pair.rejected) for pair in pairs]
        stream = PairStream(
            pairs,
            answer_logprobs(prepared.model, twins, _ROW),
            context=_ROW,
            rows=rows,
            micro_rows=rows,
            seed=config.seed,
        )
        made: Job[PairBatch, CausalLM] = Job(
            settings,
            prepared.trained,
            model=lambda: prepared.model,
            stream=lambda steps: stream,
            loss=functools.partial(preference_loss, beta=config.kl_coef),
            evaluate=lambda model, step: {},
            save=lambda model, plan: prepared.save(run.folder, prepared.tokenizer, ""),
            context=_ROW,
            rows_per_epoch=stream.rows_per_epoch,
            model_config=config_to_hf(prepared.model.config),
        )
        reference = Reference(lambda: load_model(settings.model))
        return _measured(made, prepared, reference, measuring)

    return run_stage(settings, "dpo", {"model": settings.model}, job)


_TRAINING: Mapping[str, Callable[[SentimentConfig, Sequence[Pool], Measuring], Path]] = {
    "ppo": functools.partial(_online, "ppo"),
    "grpo": functools.partial(_online, "grpo"),
    "dpo": _dpo,
}


# The experiment.


def run(config: SentimentConfig) -> Path:
    """Train by every method, measure all in the same way, and write the results.

    After a stop it resumes. Raises `UserError` for an invalid model and a folder with other files.
    """
    pieces = (*_TRAINING, _POOL)  # also those that are not requested this time
    with working_in(config.out, NAME, pieces) as resumed:
        runs = [config.out / name for name in _TRAINING]
        finished = all(is_finished(config.out / name) for name in config.methods)
        threads = threads_of_runs(config.out, config.threads, runs, finished=finished)
        config = config.model_copy(update={"threads": threads})
        begun = perf_counter()
        use_threads(TrainingConfig(out=config.out, threads=config.threads))
        measuring = _measuring(config)
        pools = _pools(config, measuring)
        histories: dict[str, History] = {}
        for method in config.methods:
            say(f"{NAME}  {method}")
            folder = _TRAINING[method](config, pools, measuring)
            histories[method] = History.of(folder)
        best = {n: _best(pools, n) for n in powers_of_two(_GROUP)}
        return write(
            config,
            NAME,
            QUESTION,
            tables=[table(histories, best, config)],
            plots=[plot(histories, best)],
            remarks=remarks(histories, best),
            data={
                "methods": {name: vars(history) for name, history in histories.items()},
                _POOL: {
                    str(n): {"kl": kl_bound(n), "reward": one.to_json()} for n, one in best.items()
                },
            },
            texts=_texts(histories),
            pieces=pieces,
            seconds=None if resumed else perf_counter() - begun,
        )


def _measuring(config: SentimentConfig) -> Measuring:
    tokenizer = load_tokenizer(locate(config.model))
    openings = Openings.read(tokenizer, _QUICK_HELDOUT if config.quick else _HELDOUT)
    return Measuring(openings, tokenizer, config.seed)


def _best(pools: Sequence[Pool], n: int) -> Estimate:
    """The mean sentiment of the best of n continuations."""
    return ratio(np.array([best_of_n(one.scores, one.scores, n) for one in pools]))


def _texts(histories: Mapping[str, History]) -> dict[str, str]:
    """Samples of each policy at the end, and of the initial model."""
    first = next(iter(histories.values()))
    ends = {"before": first.measured[0]} | {
        name: one.measured[-1] for name, one in histories.items()
    }
    return {name: "\n\n".join(line["samples"]) for name, line in ends.items()}


def table(
    histories: Mapping[str, History], best: Mapping[int, Estimate], config: SentimentConfig
) -> Table:
    """Each method's reward, nats and side effects."""
    first = next(iter(histories.values()))
    rows = [_row("before", first, 0), *(_row(name, one, -1) for name, one in histories.items())]
    rows += [
        (f"best of {n}", _interval(found), f"at most {kl_bound(n):.2f}", "", "")
        for n, found in best.items()
        if n > 1
    ]
    samples = _iterations(config) * _EPISODES
    return text_table(
        f"Sentiment of continuations after {_iterations(config)} iterations",
        ("method", "sentiment", "nats", "distinct word pairs", "bits per byte"),
        tuple(rows),
        (
            f"Means of {first.rewards[0].items} held-out openings with 95 % intervals, with "
            f"a KL coefficient of {config.kl_coef:g}; methods learned from at most "
            f"{samples:,} continuations, PPO from fewer, because its first "
            "iterations train only the critic. Best of n is of the initial model, on training "
            "openings. Bits per byte are of texts that people wrote.",
        ),
        ("before",),
    )


def _row(name: str, history: History, place: int) -> tuple[str, ...]:
    line = history.measured[place]
    return (
        name,
        _interval(history.rewards[place]),
        f"{line['kl']:.2f}",
        f"{line['distinct_2']:.1%}",
        f"{line['bits_per_byte']:.3f}",
    )


def _interval(found: Estimate) -> str:
    return f"{found.estimate:.3f}\n{found.low:.2f} to {found.high:.2f}"


_VERDICTS: Mapping[Mark, str] = {"yes": "more", "no": "less", "open": "not significant"}


def remarks(histories: Mapping[str, History], best: Mapping[int, Estimate]) -> list[str]:
    """Sentences computed from the numbers."""
    said = []
    for name, history in histories.items():
        before, after, gain = history.rewards[0], history.rewards[-1], history.gain
        claim = Claim(f"{name} raises the sentiment", gain, "sentiment", "above")
        verdict = _VERDICTS[claim.mark]
        said.append(
            f"{name}: {before.estimate:.2f} → {after.estimate:.2f} for {history.all('kl')[-1]:.1f} "
            f"nats; on the same openings {gain.estimate:+.2f} ({gain.low:+.2f} to "
            f"{gain.high:+.2f}), {verdict}."
        )
    most = max(best)
    said.append(f"The best of {most}, without training: {best[most].estimate:.2f}.")
    return said


def plot(histories: Mapping[str, History], best: Mapping[int, Estimate]) -> Plot:
    """Reward against nats, and bits per byte of texts by people against nats."""
    figure, [[reward, bits]] = panels(1, 2, width=9.0, height=3.8)
    drawn = looks(histories)
    for name, history in histories.items():
        nats, means = history.all("kl"), [one.estimate for one in history.rewards]
        reward.plot(nats, means, **drawn[name].both, label=name)
        if history.iterations:
            points = np.array(history.iterations)
            reward.scatter(points[:, 0], points[:, 1], s=6, color=drawn[name].color, alpha=0.35)
        bits.plot(nats, history.all("bits_per_byte"), **drawn[name].both, label=name)
    bound = [kl_bound(n) for n in best]
    means = [one.estimate for one in best.values()]
    reward.plot(bound, means, label=f"best of {', '.join(map(str, best))}", **BASELINE)
    reward.set_ylabel("sentiment")
    bits.set_ylabel("bits per byte of texts by people")
    for axes in (reward, bits):
        axes.set_xlabel("nats from the initial model")
        axes.legend(frameon=False, fontsize=8)
    caption = "Held-out openings (lines), and each iteration's own continuations (dots)."
    return Plot("reward-kl", caption, figure)
