"""Compare the answers of several models to the same held-out prompts, by up to three rewards.

    reward    what they were trained to raise        judge    a second one, which none was
    gold      the truth, if there is one             wins     against the first model's answer

Every model answers every prompt at temperature 1, without truncation: as it was trained, not as it
chats. A model wins a prompt if its answer scores higher than the first model's; a tie counts half.
Nats are KL(model || first) of whole answers, estimated from the sampled tokens.

With several answers per prompt (`samples`), the best of k is reported too. For a verifier
(0 or 1), this is pass@k, the probability that at least one of k answers is right, estimated without
bias from n answers of which c are right (Chen et al. 2021, "Evaluating large language models
trained on code", equation 1):

    pass@k = mean over prompts of  1 - C(n - c, k) / C(n, k)

Reinforcement learning mostly sharpens: it raises pass@1 more than pass@8.

Runs that differ only in their seed are one method: its numbers are means over all of them, with
intervals from resampling prompts, and a separate table shows how far seeds differ. With `best_of`,
the first model answers that many times and the reward chooses, which takes no training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from groundup.align.best_of_n import best_of_n, kl_bound
from groundup.align.config import ComparisonConfig
from groundup.align.prompts import Prompt, has_sides, load_prompts
from groundup.align.rewards.by_name import open_rollout_reward, reward_folders
from groundup.align.rewards.verifiers import says_right_or_wrong
from groundup.align.rollout import (
    Rollout,
    RolloutReward,
    load_policy,
    rewards_of,
    sample,
    with_missing_eos_penalty,
)
from groundup.data.split import evenly_spaced, on_disk
from groundup.errors import UserError
from groundup.formats.load import require_weights
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.report.claim import MIN_GROUPS
from groundup.report.estimate import Estimate, rate, ratio
from groundup.report.history import History
from groundup.report.outcome import RESULT
from groundup.report.page import PAGE, Page, Section, write_page
from groundup.report.table import Cell, Table, ends, text_table
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.runs.files import unique_names
from groundup.runs.folder import Run
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import restoring_torch, usable_cores
from groundup.train.loop import step_seed

Worth = Float[np.ndarray, "prompts samples"]
Some = Bool[np.ndarray, " prompts"]
# The k of pass@k, and of the best of k.
_BEST_OF = 8
# The rewards that cannot judge an answer that does not end; it gets a penalty instead.
_READ_AT_THE_END = ("reward", "judge")


@dataclass(frozen=True)
class Answered:
    """One model's answers to all prompts, and their scores by every reward.

    The answers to one prompt are adjacent in `rollouts`, equally many for each. `apart` is log p of
    each answer under this model minus that under the first, in nats; it is None for chosen answers,
    for which `nats` is an upper bound. `minutes` is the time of its training, if its folder says
    so, and `kind` is the same for runs of one method. `binary` names the rewards that are
    always 0 or 1.
    """

    name: str
    rollouts: list[Rollout]
    worth: dict[str, Worth]
    apart: Worth | None
    nats: float
    kind: str = ""
    minutes: float | None = None
    binary: frozenset[str] = frozenset()

    def to_json(self, first: Answered) -> dict[str, Any]:
        """All measures of the model, and the scores of every answer."""
        alone = Method(self.name, [self])
        found: dict[str, Any] = {
            "nats": {"at_most": self.nats}
            if self.apart is None
            else ratio(self.apart.mean(1), groups=alone.groups(None)).to_json(),
            "tokens": self.tokens,
            "ended": self.ended,
            "minutes": self.minutes,
            "answers": [
                {"text": one.text} | {name: float(by.flat[i]) for name, by in self.worth.items()}
                for i, one in enumerate(self.rollouts)
            ],
        }
        return found | alone.to_json(first)

    @property
    def tokens(self) -> float:
        """The mean number of tokens of an answer."""
        return float(np.mean([len(one.ids) for one in self.rollouts]))

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, each once."""
        samples = next(iter(self.worth.values())).shape[1]
        return [rollout.prompt for rollout in self.rollouts[::samples]]

    @property
    def ended(self) -> float:
        """The share of its answers that end."""
        return float(np.mean([one.ended for one in self.rollouts]))


@dataclass(frozen=True)
class Method:
    """The runs of one method, which differ only in their seed."""

    name: str
    runs: Sequence[Answered]

    @property
    def several(self) -> bool:
        """Whether each prompt has enough answers to estimate the best of k."""
        return all(run.worth[name].shape[1] >= _BEST_OF for run in self.runs for name in run.worth)

    def of(self, reward: str, some: Some | None = None) -> Estimate:
        """The mean of a reward over `some` prompts and all runs; pass@1 if it is binary."""
        return self._mean(lambda run: run.worth[reward].mean(1), some)

    def best(self, reward: str, some: Some | None = None) -> Estimate:
        """The mean score of the best of eight answers; pass@8 if the reward is binary."""
        return self._mean(
            lambda run: np.array([best_of_n(one, one, _BEST_OF) for one in run.worth[reward]]), some
        )

    def wins(self, first: Answered, reward: str) -> Estimate:
        """The share of prompts on which its answer scores higher than the first model's.

        With several answers, each is compared with each.
        """
        theirs = first.worth[reward][:, None, :]
        apart = [np.sign(run.worth[reward][:, :, None] - theirs).mean((1, 2)) for run in self.runs]
        return rate((np.concatenate(apart) + 1) / 2, groups=self.groups(None), chance=0.5)

    def gain(self, first: Answered, reward: str) -> Estimate:
        """How much higher its answers score than the first model's to the same prompts."""
        return self._mean(lambda run: run.worth[reward].mean(1) - first.worth[reward].mean(1), None)

    def mean(self, of: Callable[[Answered], float]) -> float:
        """The mean over runs of a number."""
        return float(np.mean([of(run) for run in self.runs]))

    def to_json(self, first: Answered) -> dict[str, Any]:
        found = {}
        for name in first.worth:
            found[name] = self.of(name).to_json()
            found[f"{name}: wins against {first.name}"] = self.wins(first, name).to_json()
            found[f"{name}: gain on {first.name}"] = self.gain(first, name).to_json()
            if self.several:
                found[f"{name}: best of {_BEST_OF}"] = self.best(name).to_json()
            found[f"{name}: by source"] = {
                source: {"prompts": int(some.sum()), "mean": self.of(name, some).to_json()}
                | ({f"best of {_BEST_OF}": self.best(name, some).to_json()} if self.several else {})
                for source, some in _sources(first)
            }
        return found

    def _mean(
        self, of: Callable[[Answered], Float[np.ndarray, " prompts"]], some: Some | None
    ) -> Estimate:
        values = [of(run) if some is None else of(run)[some] for run in self.runs]
        return ratio(np.concatenate(values), groups=self.groups(some))

    def groups(self, some: Some | None) -> list[object]:
        """The group of each value; variants of a prompt have the same."""
        groups = [one.group or place for place, one in enumerate(self.runs[0].prompts)]
        chosen = range(len(groups)) if some is None else np.flatnonzero(some)
        return [groups[place] for _ in self.runs for place in chosen]


def _sources(one: Answered) -> list[tuple[str, Some]]:
    """The sources of prompts, each with the mask of its prompts."""
    sources = np.array([prompt.source for prompt in one.prompts])
    return [(str(source), sources == source) for source in sorted(set(sources.tolist()))]


@restoring_torch()
def run(config: ComparisonConfig) -> Path:
    """Let all models answer, and report the scores of their answers.

    Raises `UserError` for models, prompts or rewards that cannot be used, and for models of
    different tokenizers.
    """
    for path in config.models:
        require_weights(path)
    parents = {_name(path, config.models): path for path in config.models}
    parents |= {"of prompts": on_disk(config.prompts)}
    parents |= reward_folders(config.reward, config.gold, config.judge)
    with Run.open(config.out, "comparison", config, parents) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        torch.set_num_threads(config.threads or usable_cores())
        found = _answered(config)
        seconds = time.monotonic() - begun
        _write_report(config, run, found, seconds)
        run.finish(seconds=seconds)
        return run.folder


# Answering.


@dataclass(frozen=True)
class _Setup:
    """The prompts, the settings of sampling, and the rewards that score answers."""

    config: ComparisonConfig
    prompts: list[Prompt]
    tokenizer: Tokenizer
    rewards: Mapping[str, RolloutReward]
    binary: frozenset[str]

    def answers(self, model: CausalLM, copies: int, *, again: bool = False) -> list[Rollout]:
        """Answers to each prompt: every model samples with the same seed, `again` with another."""
        prompts = [prompt for prompt in self.prompts for _ in range(copies)]
        most = self.config.max_new_tokens
        seed = step_seed(self.config.seed, 0) if again else self.config.seed
        return sample(model, prompts, self.tokenizer, max_new_tokens=most, seed=seed)

    def worth(self, reward: str, rollouts: Sequence[Rollout]) -> Worth:
        """Scores as in training: an answer that does not end gets a penalty."""
        found = rewards_of(self.rewards[reward], rollouts)
        if reward in _READ_AT_THE_END:
            ended = np.array([one.ended for one in rollouts])
            found = with_missing_eos_penalty(found, ended, self.config.missing_eos_penalty)
        return found.reshape(len(self.prompts), -1)


def _answered(config: ComparisonConfig) -> list[Answered]:
    first, tokenizer = load_policy(config.models[0], config.device)
    setup = _setup(config, first, tokenizer)
    found: list[Answered] = []
    for path in config.models:
        model, own = (first, tokenizer) if not found else load_policy(path, config.device)
        if not own.same_tokens(tokenizer):
            raise UserError(
                f"{path} has another tokenizer than {config.models[0]}, so that their answers "
                "cannot be compared token by token; compare models of one family"
            )
        rollouts = setup.answers(model, config.samples)
        worth = {name: setup.worth(name, rollouts) for name in setup.rewards}
        apart = _log_ratios(model, first, rollouts).reshape(-1, config.samples)
        history = History.of(path)
        found.append(
            Answered(
                _name(path, config.models),
                rollouts,
                worth,
                apart,
                float(apart.mean()),
                str(path) if history is None else _kind(history),
                None if history is None else history.costs()["minutes"],
                setup.binary,
            )
        )
        say(f"comparison  {found[-1].name}: {len(rollouts)} answers")
    if config.best_of is not None:
        found.insert(1, _best_of(setup, first, found[0].name, config.best_of))
    return found


def _setup(config: ComparisonConfig, first: CausalLM, tokenizer: Tokenizer) -> _Setup:
    longest = first.config.max_position_embeddings - config.max_new_tokens
    train, heldout = load_prompts(
        config.prompts,
        tokenizer,
        longest=longest,
        sources=config.sources,
        rewards=(config.reward, config.judge, config.gold),
        columns=config.column_names,
    )
    if not has_sides(config.prompts):  # a user's prompts are used as a whole
        heldout = list({one.ids: one for one in (*train, *heldout)}.values())
    if not heldout:
        raise UserError(
            f"prompts={config.prompts} holds out no prompt of these sources; give a file of prompts"
        )
    specs = {"reward": config.reward, "judge": config.judge, "gold": config.gold}
    rewards = {name: open_rollout_reward(spec, tokenizer) for name, spec in specs.items() if spec}
    binary = frozenset(name for name, spec in specs.items() if spec and says_right_or_wrong(spec))
    return _Setup(config, evenly_spaced(heldout, config.questions), tokenizer, rewards, binary)


def _best_of(setup: _Setup, model: CausalLM, name: str, n: int) -> Answered:
    """The best of n answers of the first model to each prompt, chosen by the reward.

    They are sampled again: a choice that includes the first model's own answer could never lose to
    it.
    """
    rollouts = setup.answers(model, copies=n, again=True)
    scores = setup.worth("reward", rollouts)
    places = np.arange(len(scores)) * n + scores.argmax(axis=1)
    chosen = [rollouts[place] for place in places]
    worth = {name: setup.worth(name, chosen) for name in setup.rewards}
    say(f"comparison  {name}, best of {n}: {len(rollouts)} answers")
    title = f"{name}, best of {n}"
    return Answered(title, chosen, worth, None, kl_bound(n), binary=setup.binary)


def _name(path: Path, models: Sequence[Path]) -> str:
    """The name of a model's folder, different from the others'."""
    return unique_names([str(one) for one in models])[list(models).index(path)]


def _kind(history: History) -> str:
    """The part that runs of one method share: all settings but the seed."""
    settings = {k: v for k, v in history.run["config"].items() if k not in ("seed", "out")}
    return json.dumps([history.stage, settings], sort_keys=True)


def _log_ratios(
    model: CausalLM, first: CausalLM, rollouts: Sequence[Rollout]
) -> Float[np.ndarray, " rollouts"]:
    """log p(answer | model) - log p(answer | first) of every answer, in nats."""
    items = [one.example for one in rollouts]
    context = model.config.max_position_embeddings
    ours, theirs = (score(one, items, context=context) for one in (model, first))
    return np.array([a.sum() - b.sum() for a, b in zip(ours, theirs, strict=True)])


def methods(found: Sequence[Answered]) -> list[Method]:
    """The runs by method, in their order; the first model is a method of its own."""
    kinds: dict[str, list[Answered]] = {}
    for place, one in enumerate(found):
        kinds.setdefault(one.kind if place and one.kind else one.name, []).append(one)
    names = [_shared([run.name for run in runs]) for runs in kinds.values()]
    return [
        Method(name if names.count(name) == 1 else _joined(runs), runs)
        for name, runs in zip(names, kinds.values(), strict=True)
    ]


def _shared(names: Sequence[str]) -> str:
    """The common name of ppo-0, ppo-1 …; names with nothing in common are all listed."""
    stems = {name.rstrip("-_0123456789") for name in names}
    alike = len(stems) == 1 and "" not in stems
    return names[0] if len(names) == 1 else stems.pop() if alike else ", ".join(names)


def _joined(runs: Sequence[Answered]) -> str:
    return ", ".join(run.name for run in runs)


# The report.


def _write_report(
    config: ComparisonConfig, run: Run, found: Sequence[Answered], seconds: float
) -> None:
    first, grouped = found[0], methods(found)
    several = [one for one in grouped if len(one.runs) > 1]
    run.write(
        RESULT,
        {
            "prompts": _prompt_count(first),
            "samples": config.samples,
            "seconds": seconds,
            "models": {one.name: one.to_json(first) for one in found},
            "methods": {
                one.name: {"runs": [run.name for run in one.runs], **one.to_json(first)}
                for one in several
            },
        },
    )
    tables = {"rewards": worth_table(config, first, grouped)}
    if len(grouped) > 1:
        tables["gains"] = gain_table(first, grouped)
    if len(_sources(first)) > 1:
        tables["sources"] = source_table(first, grouped)
    tables |= {
        "costs": cost_table(first, grouped),
    }
    if several:
        tables["seeds"] = seed_table(first, several)
    sections = [Section(one.title, anchor, [one]) for anchor, one in tables.items()]
    lead = f"{len(found)} sets of answers to {_prompt_count(first)} held-out prompts."
    title = f"groundup rewards: {', '.join(one.name for one in found)}"
    page = Page(title, "Models compared by rewards", lead, [], sections)
    write_page(run.folder / PAGE, page)
    for shown in tables.values():
        console.print(in_terminal(shown))


def worth_table(config: ComparisonConfig, first: Answered, grouped: Sequence[Method]) -> Table:
    """Every method's rewards, and wins against the first model."""
    specs = {"Reward": config.reward, "judge": config.judge, "gold": config.gold}
    named = ", ".join(f"{name} is {spec}" for name, spec in specs.items() if spec)
    times = "once" if config.samples == 1 else f"{config.samples} times"
    remarks = [
        f"Means over {_prompt_count(first)} held-out prompts, each answered {times} at temperature "
        f"1, with 95 % intervals from resampling prompts, if there are {MIN_GROUPS} or more. "
        f"{named}. Wins are against {first.name}; guessing is 50 %."
    ]
    if any(len(one.runs) > 1 for one in grouped):
        remarks.append("Intervals do not say what another seed would change: see seed by seed.")
    title = "What their answers are worth"
    return _rewards_table(title, first, grouped, remarks)


def gain_table(first: Answered, grouped: Sequence[Method]) -> Table:
    """How much higher than the first model's the answers of every other model score."""
    rows = [
        (_title(one), *(_interval(one.gain(first, name), signed=True) for name in first.worth))
        for one in grouped
        if one.runs[0] is not first
    ]
    remark = (
        "Answers to the same prompts are compared, so a gain may differ from 0 even where the "
        "intervals of two means overlap."
    )
    return text_table(f"More than {first.name}", ("model", *first.worth), rows, (remark,))


def seed_table(first: Answered, several: Sequence[Method]) -> Table:
    """The scores of every single run, for the methods that have several runs."""
    runs = [Method(run.name, [run]) for one in several for run in one.runs]
    spreads = []
    for one in several:
        for name in first.worth:
            means = [float(run.worth[name].mean()) for run in one.runs]
            spreads.append(f"{one.name}, {name} {min(means):.3f} to {max(means):.3f}")
    remark = f"Least and greatest mean over seeds: {'; '.join(spreads)}."
    return _rewards_table("Seed by seed", first, runs, [remark])


def _rewards_table(
    title: str, first: Answered, grouped: Sequence[Method], remarks: Sequence[str]
) -> Table:
    rows = []
    told_best = any(one.several for one in grouped)
    for one in grouped:
        cells: list[str] = []
        for name in first.worth:
            won = "" if one.runs[0] is first else _interval(one.wins(first, name), percent=True)
            best = _interval(one.best(name)) if one.several else ""
            cells += [_interval(one.of(name)), *([best] if told_best else []), won]
        rows.append((_title(one), *cells))
    columns = [
        part
        for name in first.worth
        for part in (*_measures(name, grouped)[: 1 + told_best], "wins")
    ]
    baselines = [one.name for one in grouped if one.runs[0] is first]
    return text_table(title, ("model", *columns), rows, remarks, baselines)


def _measures(reward: str, grouped: Sequence[Method]) -> tuple[str, str]:
    """The names of the mean and the best of eight: pass@k for a reward that says right or wrong,
    if no answer got a penalty."""
    runs = [run for one in grouped for run in one.runs]
    right_or_wrong = all(
        reward in run.binary and np.isin(run.worth[reward], (0, 1)).all() for run in runs
    )
    if any(one.several for one in grouped) and right_or_wrong:
        return f"{reward}: pass@1", f"pass@{_BEST_OF}"
    return reward, f"best of {_BEST_OF}"


def source_table(first: Answered, grouped: Sequence[Method]) -> Table:
    """The reward on the prompts of each source, with a row for each, as there may be many."""
    mean, best = _measures("reward", grouped)
    several = [one for one in grouped if one.several]
    columns = [(f"{_title(one)}\n{mean}" if several else _title(one), one.of) for one in grouped]
    columns += [(f"{_title(one)}\n{best}", one.best) for one in several]
    rows = [
        (f"{source} ({some.sum()})", *(_interval(of("reward", some)) for _, of in columns))
        for source, some in _sources(first)
    ]
    heads = [head for head, _ in columns]
    return text_table("By source of the prompts", ("prompts of", *heads), rows)


def _prompt_count(first: Answered) -> int:
    """The number of prompts."""
    return len(next(iter(first.worth.values())))


def cost_table(first: Answered, grouped: Sequence[Method]) -> Table:
    """Each method's nats from the first model, the length of its answers, and its training time."""
    rows = [
        (
            _title(one),
            f"{'at most ' if one.runs[0].apart is None else ''}{one.mean(lambda r: r.nats):.2f}",
            f"{one.mean(lambda r: r.tokens):.1f}",
            f"{100 * one.mean(lambda r: r.ended):.0f} %",
            _minutes(one),
        )
        for one in grouped
    ]
    remark = (
        f"Nats are the KL from {first.name} per answer; tokens, an answer's length; minutes, the "
        "training of one seed with its evaluations, as each folder records it."
    )
    columns = ("model", "nats", "tokens", "end", "minutes")
    return text_table("What they took", columns, rows, (remark,), (first.name,))


def _title(one: Method) -> str:
    return one.name if len(one.runs) == 1 else f"{one.name}\n{counted(len(one.runs), 'seed')}"


def _interval(found: Estimate, percent: bool = False, signed: bool = False) -> str:
    """The estimate and, with enough prompts, its interval in as many digits."""

    def shown(value: float, unit: str = "") -> str:
        if percent:
            return f"{100 * value:.0f}{unit}"
        return f"{value:+.3f}" if signed else f"{value:.3f}"

    estimate = shown(found.estimate, " %")
    # With few prompts, it would be no wider than they happen to lie apart.
    if found.groups < MIN_GROUPS:
        return estimate
    return Cell(estimate, ends(found, shown)).text


def _minutes(one: Method) -> str:
    told = [run.minutes for run in one.runs if run.minutes is not None]
    return f"{np.mean(told):.1f}" if told else ""
