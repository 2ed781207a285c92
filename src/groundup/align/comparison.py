"""What answers are worth: several models on the same held-out prompts, by one or two rewards.

Every model answers every prompt at temperature 1, with nothing truncated: as it was trained, not as
it chats. Against the first model each has a win rate (the share of prompts on which its answer is
worth more, a tie counting half) and nats: KL(model || first) of whole answers, from the tokens that
it drew.

Of several answers to each prompt it is told as well what the best of k is worth. Where a reward
checks (0 or 1) that is pass@k, the chance that at least one of k answers is right, without bias
from n of which c are right (Chen et al. 2021, "Evaluating large language models trained on code",
equation 1):

    pass@k = mean over prompts of  1 - C(n - c, k) / C(n, k)

Reinforcement learning mostly sharpens: it raises pass@1 more than pass@8.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from groundup.align.best_of_n import best_of_n
from groundup.align.config import ComparisonConfig
from groundup.align.prompts import load_prompts
from groundup.align.rewards import open_rollout_reward, reward_folders
from groundup.align.rollout import Rollout, load_policy, rewards_of, sample
from groundup.errors import UserError
from groundup.lm.logprobs import score, spread
from groundup.lm.model import CausalLM
from groundup.report.estimate import Estimate, rate, ratio
from groundup.report.page import PAGE, Page, Section, write_page
from groundup.report.table import Table, text_table
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, say
from groundup.runs.folder import Run

# The k of pass@k, and of the best of k.
_BEST_OF = 8


@dataclass(frozen=True)
class Answered:
    """One model's answers to all prompts, and what each is worth by `reward`, and by `gold`.

    The answers to one prompt, as many to each, stand side by side in `rollouts`.
    """

    name: str
    rollouts: list[Rollout]
    worth: dict[str, Float[np.ndarray, "prompts samples"]]
    # log p of the answer under this model less that under the first, in nats.
    apart: Float[np.ndarray, "prompts samples"]

    @property
    def samples(self) -> int:
        """Answers to a prompt."""
        return int(self.apart.shape[1])

    @property
    def sources(self) -> Shaped[np.ndarray, " prompts"]:
        """Where each prompt is from."""
        return np.array([one.prompt.source for one in self.rollouts[:: self.samples]])

    def of(self, reward: str, some: Bool[np.ndarray, " prompts"] | None = None) -> Estimate:
        """The mean of a reward, over `some` of the prompts; pass@1 where it checks."""
        return ratio(_some(self.worth[reward], some).mean(1))

    def best(
        self, reward: str, k: int, some: Bool[np.ndarray, " prompts"] | None = None
    ) -> Estimate:
        """What the best of k answers is worth; pass@k where the reward checks."""
        return ratio(np.array([best_of_n(one, one, k) for one in _some(self.worth[reward], some)]))

    def wins(self, other: Answered, reward: str) -> Estimate:
        """The share of prompts on which this answer is worth more; a tie counts half."""
        difference = self.worth[reward] - other.worth[reward]
        return rate(((np.sign(difference) + 1) / 2).mean(1), chance=0.5)

    def to_json(self, first: Answered) -> dict[str, Any]:
        """All that is told of it, and every answer's worth."""
        found: dict[str, Any] = {
            "nats": ratio(self.apart.mean(1)).to_json(),
            "tokens": float(np.mean([len(one.ids) for one in self.rollouts])),
            "ended": float(np.mean([one.ended for one in self.rollouts])),
            "answers": [
                {"text": one.text} | {name: float(by.flat[i]) for name, by in self.worth.items()}
                for i, one in enumerate(self.rollouts)
            ],
        }
        for name in self.worth:
            found[name] = self.of(name).to_json()
            found[f"{name}: wins against {first.name}"] = self.wins(first, name).to_json()
            if self.samples >= _BEST_OF:
                found[f"{name}: best of {_BEST_OF}"] = self.best(name, _BEST_OF).to_json()
            found[f"{name}: by source"] = {
                source: {"prompts": int(some.sum()), "mean": self.of(name, some).to_json()}
                | (
                    {f"best of {_BEST_OF}": self.best(name, _BEST_OF, some).to_json()}
                    if self.samples >= _BEST_OF
                    else {}
                )
                for source, some in _by_source(self)
            }
        return found


def _some(
    worth: Float[np.ndarray, "prompts samples"], some: Bool[np.ndarray, " prompts"] | None
) -> Float[np.ndarray, "some samples"]:
    return worth if some is None else worth[some]


def _by_source(one: Answered) -> list[tuple[str, Bool[np.ndarray, " prompts"]]]:
    sources = one.sources
    return [(str(source), sources == source) for source in sorted(set(sources.tolist()))]


def run(config: ComparisonConfig) -> Path:
    """Let all models answer, and write what their answers are worth.

    Raises `UserError` for models, prompts or rewards that cannot be used, and for models of
    different tokenizers.
    """
    parents = {_name(path, config.models): path for path in config.models}
    parents |= {"of prompts": config.prompts, **reward_folders(config.reward, config.gold)}
    with Run.open(config.out, "comparison", config, parents) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        found = _answered(config)
        shown = [table(config, found), *by_source(found)]
        seconds = time.monotonic() - begun
        run.write(
            "result.json",
            {
                "prompts": len(found[0].apart),
                "samples": config.samples,
                "seconds": seconds,
                "models": {one.name: one.to_json(found[0]) for one in found},
            },
        )
        lead = f"{len(found)} models on {len(found[0].apart)} held-out prompts."
        section = Section("Rewards", "rewards", shown)
        page = Page("Comparison", "What their answers are worth", lead, [], [section])
        write_page(run.folder / PAGE, page)
        run.finish(seconds=seconds)
        for one in shown:
            console.print(in_terminal(one))
        return run.folder


def _answered(config: ComparisonConfig) -> list[Answered]:
    first, tokenizer = load_policy(config.models[0])
    longest = first.config.max_position_embeddings - config.max_new_tokens
    train, heldout = load_prompts(
        config.prompts, tokenizer, longest=longest, sources=config.sources
    )
    if config.prompts.is_file():  # a file of one's own is asked as a whole
        heldout = list({one.ids: one for one in (*train, *heldout)}.values())
    if not heldout:
        raise UserError(
            f"prompts={config.prompts} hold nothing out of these sources; give a file of prompts"
        )
    prompts = spread(heldout, config.questions)
    asked = [prompt for prompt in prompts for _ in range(config.samples)]
    specs = {"reward": config.reward, "gold": config.gold}
    rewards = {name: open_rollout_reward(spec, tokenizer) for name, spec in specs.items() if spec}
    found: list[Answered] = []
    for path in config.models:
        model, own = (first, tokenizer) if not found else load_policy(path)
        if own.content["model"] != tokenizer.content["model"]:
            raise UserError(
                f"{path} has another tokenizer than {config.models[0]}, so that their answers "
                "cannot be compared token by token; compare models of one family"
            )
        seed, most = config.seed, config.max_new_tokens
        rollouts = sample(model, asked, tokenizer, max_new_tokens=most, seed=seed)
        worth = {name: rewards_of(reward, rollouts) for name, reward in rewards.items()}
        # As it was trained: an answer that does not end has a price.
        ended = np.array([one.ended for one in rollouts])
        worth["reward"] = np.where(ended, worth["reward"], -config.missing_eos_penalty)
        table = {name: by.reshape(-1, config.samples) for name, by in worth.items()}
        apart = _apart(model, first, rollouts).reshape(-1, config.samples)
        found.append(Answered(_name(path, config.models), rollouts, table, apart))
        say(f"comparison  {found[-1].name}: {len(rollouts)} answers")
    return found


def _name(path: Path, models: Sequence[Path]) -> str:
    """The folder's name, or the whole path where two folders have one name."""
    return path.name if sum(one.name == path.name for one in models) == 1 else str(path)


def _apart(
    model: CausalLM, first: CausalLM, rollouts: Sequence[Rollout]
) -> Float[np.ndarray, " prompts"]:
    """log p(answer | model) - log p(answer | first) of every answer, in nats."""
    items = [one.example for one in rollouts]
    context = model.config.max_position_embeddings
    ours, theirs = (score(one, items, context=context, micro_rows=4) for one in (model, first))
    return np.array([a.sum() - b.sum() for a, b in zip(ours, theirs, strict=True)])


def table(config: ComparisonConfig, found: Sequence[Answered]) -> Table:
    """Every model's rewards, wins, nats and lengths; the first is what they are compared with."""
    first, names = found[0], list(found[0].worth)
    rows = []
    for one in found:
        cells: list[str] = []
        for name in names:
            cells.append(_interval(one.of(name)))
            if one.samples >= _BEST_OF:
                cells.append(_interval(one.best(name, _BEST_OF)))
            wins = one.wins(first, name)
            cells.append("" if one is first else _interval(wins, percent=True))
        rows.append(
            (
                one.name,
                *cells,
                f"{one.apart.mean():.2f}",
                f"{np.mean([len(r.ids) for r in one.rollouts]):.1f}",
                f"{np.mean([r.ended for r in one.rollouts]):.0%}",
            )
        )
    columns = [part for name in names for part in (*_measured(found, name), "wins")]
    times = "once" if config.samples == 1 else f"{config.samples} times"
    return text_table(
        "What their answers are worth",
        ("model", *columns, "nats", "tokens", "end"),
        tuple(rows),
        (
            f"Means over {len(first.apart)} held-out prompts, each answered {times} at temperature "
            f"1, with 95 % intervals. Reward is {config.reward}"
            + (f", gold {config.gold}" if config.gold else "")
            + f". Wins are against {first.name}; guessing is 50 %.",
        ),
        (first.name,),
    )


def by_source(found: Sequence[Answered]) -> list[Table]:
    """The reward at each source's prompts, where there are several."""
    parts = _by_source(found[0])
    if len(parts) < 2:
        return []
    rows = []
    for place, measured in enumerate(_measured(found, "reward")):
        for one in found:
            of_parts = [
                one.best("reward", _BEST_OF, some) if place else one.of("reward", some)
                for _, some in parts
            ]
            rows.append((f"{one.name}: {measured}", *map(_interval, of_parts)))
    columns = [f"{source} ({some.sum()})" for source, some in parts]
    return [text_table("By where prompts are from", ("", *columns), tuple(rows))]


def _measured(found: Sequence[Answered], name: str) -> tuple[str, ...]:
    """What the measures of a reward are called: pass@k where it checks."""
    one = found[0]
    if one.samples < _BEST_OF:
        return (name,)
    if all(np.isin(other.worth[name], (0.0, 1.0)).all() for other in found):
        return (f"{name}: pass@1", f"pass@{_BEST_OF}")
    return (name, f"best of {_BEST_OF}")


def _interval(found: Estimate, percent: bool = False) -> str:
    if percent:
        return f"{found.estimate:.0%}\n{found.low:.0%} to {found.high:.0%}"
    return f"{found.estimate:.3f}\n{found.low:.2f} to {found.high:.2f}"
