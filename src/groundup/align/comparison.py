"""What answers are worth: several models on the same held-out prompts, by one or two rewards.

Every model answers every prompt once at temperature 1, with nothing truncated: as it was trained,
not as it chats. Against the first model each has a win rate (the share of prompts on which its
answer is worth more, a tie counting half) and nats: KL(model || first) of whole answers, from the
tokens that it drew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from groundup.align.config import ComparisonConfig
from groundup.align.prompts import load_prompts
from groundup.align.rewards.by_name import open_rollout_reward, reward_folders
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


@dataclass(frozen=True)
class Answered:
    """One model's answers to all prompts, and what each is worth by `reward`, and by `gold`."""

    name: str
    rollouts: list[Rollout]
    worth: dict[str, Float[np.ndarray, " prompts"]]
    # log p of the answer under this model less that under the first, in nats.
    apart: Float[np.ndarray, " prompts"]

    def of(self, reward: str) -> Estimate:
        """The mean of a reward."""
        return ratio(self.worth[reward])

    def wins(self, other: Answered, reward: str) -> Estimate:
        """The share of prompts on which this answer is worth more; a tie counts half."""
        difference = self.worth[reward] - other.worth[reward]
        return rate((np.sign(difference) + 1) / 2, chance=0.5)

    def to_json(self, first: Answered) -> dict[str, Any]:
        """All that is told of it, and every answer's worth."""
        found: dict[str, Any] = {
            "nats": ratio(self.apart).to_json(),
            "tokens": float(np.mean([len(one.ids) for one in self.rollouts])),
            "ended": float(np.mean([one.ended for one in self.rollouts])),
            "answers": [
                {"text": one.text} | {name: float(by[i]) for name, by in self.worth.items()}
                for i, one in enumerate(self.rollouts)
            ],
        }
        for name in self.worth:
            found[name] = self.of(name).to_json()
            found[f"{name}: wins against {first.name}"] = self.wins(first, name).to_json()
        return found


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
        shown = table(config, found)
        seconds = time.monotonic() - begun
        run.write(
            "result.json",
            {
                "prompts": len(found[0].rollouts),
                "seconds": seconds,
                "models": {one.name: one.to_json(found[0]) for one in found},
            },
        )
        lead = f"{len(found)} models on {len(found[0].rollouts)} held-out prompts."
        section = Section("Rewards", "rewards", [shown])
        page = Page("Comparison", "What their answers are worth", lead, [], [section])
        write_page(run.folder / PAGE, page)
        run.finish(seconds=seconds)
        console.print(in_terminal(shown))
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
        rollouts = sample(model, prompts, tokenizer, max_new_tokens=most, seed=seed)
        worth = {name: rewards_of(reward, rollouts) for name, reward in rewards.items()}
        # As it was trained: an answer that does not end has a price.
        ended = np.array([one.ended for one in rollouts])
        worth["reward"] = np.where(ended, worth["reward"], -config.missing_eos_penalty)
        apart = _apart(model, first, rollouts)
        found.append(Answered(_name(path, config.models), rollouts, worth, apart))
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
        of_rewards = [_interval(one.of(name)) for name in names]
        wins = [
            "" if one is first else _interval(one.wins(first, name), percent=True) for name in names
        ]
        rows.append(
            (
                one.name,
                *(cell for pair in zip(of_rewards, wins, strict=True) for cell in pair),
                f"{one.apart.mean():.2f}",
                f"{np.mean([len(r.ids) for r in one.rollouts]):.1f}",
                f"{np.mean([r.ended for r in one.rollouts]):.0%}",
            )
        )
    columns = [part for name in names for part in (name, "wins")]
    return text_table(
        "What their answers are worth",
        ("model", *columns, "nats", "tokens", "end"),
        tuple(rows),
        (
            f"Means over {len(first.rollouts)} held-out prompts, each answered once at temperature "
            f"1, with 95 % intervals. Reward is {config.reward}"
            + (f", gold {config.gold}" if config.gold else "")
            + f". Wins are against {first.name}; guessing is 50 %.",
        ),
        (first.name,),
    )


def _interval(found: Estimate, percent: bool = False) -> str:
    if percent:
        return f"{found.estimate:.0%}\n{found.low:.0%} to {found.high:.0%}"
    return f"{found.estimate:.3f}\n{found.low:.2f} to {found.high:.2f}"
