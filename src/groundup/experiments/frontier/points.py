"""Make and measure the points: runs of stages in the experiment's folder.

    prompts.jsonl               PPO's prompts: requests and questions of the world, half of each
    pairs/h0.50-b0.10-0/        preferences in these shares, of this seed
    dpo/h0.50-b0.10-0/          the model after DPO on them
    ppo/kl0.05-0/, …-harm/      the model after PPO, without and with a limit on a cost
    soups/0.50-0/               weights between the two ends of the mix
    measured/NAME.json          the rows of every task, by the hash of the model's weights

Every part is made once, when a point first needs it, and is reused on a later start.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from groundup.align import dpo, ppo
from groundup.align.config import DPOConfig, PPOConfig
from groundup.align.prompts import Prompt
from groundup.align.rewards.by_name import open_rollout_reward
from groundup.align.rollout import Rollout, rewards_of
from groundup.data.files import write_json_lines
from groundup.errors import UserError
from groundup.evals.config import ModelsConfig
from groundup.evals.measure import Subject
from groundup.evals.models import compute_of
from groundup.evals.values.world import ANSWERS, TASKS, Deployment, ask
from groundup.experiments.frontier.config import FrontierConfig, cost_name
from groundup.experiments.frontier.pairs import mix, prompts, write_pairs
from groundup.experiments.frontier.trade import Rows
from groundup.formats.load import load, load_config, load_tokenizer
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.content import content_hash
from groundup.runs.files import read_json_object, write_json
from groundup.text.chat import encode_chat
from groundup.text.rows import Message, as_dicts
from groundup.train.device import prepare
from groundup.tune import soup
from groundup.tune.config import SoupConfig

# At most this many of PPO's first iterations train only the critic.
_CRITIC_WARMUP = 3
# Half of DPO's, because gradients come from samples. As in the recipe `alignment`.
_PPO_RATE = 0.0003
# A cost is a share of the answers, far below 1, and iterations are few: at a slow rate lambda
# would still be rising when training ends (at 0.5 it rose from 1 to 1.7 in seven iterations).
_COST_RATE = 3.0
# The world's prompts and answers need no longer context. With few pairs, small batches give some
# hundred steps.
_CONTEXT, _ROWS = 512, 8


@dataclass(frozen=True)
class Sizes:
    """All sizes: from the settings, or in miniature."""

    pairs: int
    iterations: int
    episodes: int
    questions: int

    @classmethod
    def of(cls, config: FrontierConfig) -> Sizes:
        if config.quick:
            return cls(16, 2, 8, 22)
        return cls(config.pairs, config.iterations, config.episodes, config.questions)


def check_rewards(config: FrontierConfig) -> None:
    """Let PPO's rewards score an answer as a test. Raises `UserError` if one cannot."""
    limited = "constraint" in config.strategies
    used = [config.reward] if limited or config.dial == "kl" else []
    used += config.costs if limited else []
    if not used:
        return
    tokenizer, said = load_tokenizer(config.model), "I do not know."
    asked = prompts(2, config.seed)[0]
    prompt = Prompt(tuple(encode_chat(tokenizer, asked, generation_prompt=True).ids), asked)
    ids = tuple(tokenizer.encode(said))
    for spec in used:
        reward = open_rollout_reward(spec, tokenizer)
        rewards_of(reward, [Rollout(prompt, ids, (0.0,) * len(ids), said, ended=True)])


def check_template(config: FrontierConfig) -> None:
    """Render a prompt with the model's chat template, with a system prompt if one is used.

    Raises `UserError` if it fails: some templates, such as Gemma 2's, have no system messages.
    """
    tokenizer, asked = load_tokenizer(config.model), Message("user", "Who are you?")
    encode_chat(tokenizer, [asked], generation_prompt=True)
    if "system-prompt" not in config.strategies:
        return
    messages = [*Deployment(system=config.system).opening, asked]
    try:
        encode_chat(tokenizer, messages, generation_prompt=True)
    except UserError as error:
        raise UserError(
            f"{config.model} does not support a system prompt: {error}; or leave system-prompt out "
            "of --strategies"
        ) from None


class Builder:
    """Makes and measures every part once, in the experiment's folder."""

    def __init__(self, config: FrontierConfig) -> None:
        self.config, self.sizes, self.out = config, Sizes.of(config), config.out
        self.context = min(_CONTEXT, load_config(config.model).max_position_embeddings)
        self._training: dict[str, Any] = {"compile": "off", "threads": config.threads}

    # Models.

    def dpo(self, harmless: float, balanced: float, seed: int) -> Path:
        """DPO on a mix of preferences."""
        name = f"h{harmless:.3f}-b{balanced:.3f}-{seed}"
        data = self.out / "pairs" / name
        # heldout.jsonl is written last, so it marks a complete folder.
        if not (data / "preferences" / "heldout.jsonl").exists():
            write_pairs(data, mix(self.sizes.pairs, harmless, balanced, seed))
        return dpo.run(
            DPOConfig(
                out=self.out / "dpo" / name,
                model=self.config.model,
                data=data,
                context=self.context,
                rows=_ROWS,
                seed=seed,
                evaluations=1,
                **self._rates(self.config.learning_rate),
                **self._training,
            )
        )

    def mixed(self, harmless: float, seed: int) -> Path:
        """DPO on helpful and harmless pairs in these shares, and the usual balanced ones."""
        return self.dpo(harmless, self.config.balanced, seed)

    def ppo(self, kl_coef: float, seed: int, *, cost: str | None = None) -> Path:
        """PPO on helpfulness, optionally with a cost kept below the limit."""
        config, sizes = self.config, self.sizes
        name = f"kl{kl_coef:g}-{seed}"
        limit: dict[str, Any] = {}
        if cost is not None:
            name += f"-{cost_name(cost)}"
            limit = {
                "cost": cost,
                "cost_limit": config.cost_limit,
                "cost_rate": _COST_RATE,
            }
        return ppo.run(
            PPOConfig(
                out=self.out / "ppo" / name,
                model=config.model,
                prompts=self._prompts(),
                reward=config.reward,
                kl_coef=kl_coef,
                iterations=sizes.iterations,
                episodes=sizes.episodes,
                max_new_tokens=config.max_new_tokens,
                critic_warmup=min(_CRITIC_WARMUP, sizes.iterations - 1),
                evaluations=1,
                heldout_prompts=sizes.episodes,
                seed=seed,
                **self._rates(config.learning_rate or _PPO_RATE),
                **limit,
                **self._training,
            )
        )

    def soup(self, harmless: float, seed: int) -> Path:
        """Weights between the policies of only helpful and only harmless pairs."""
        helpful, safe = (self.mixed(share, seed) for share in (0.0, 1.0))
        return soup.run(
            SoupConfig(
                out=self.out / "soups" / f"{harmless:.3f}-{seed}",
                models=(helpful, safe),
                weights=(1 - harmless, harmless),
            )
        )

    def _rates(self, rate: float | None) -> dict[str, float]:
        if rate is None:
            return {}
        return {"learning_rate": rate, "embedding_learning_rate": rate}

    def _prompts(self) -> Path:
        path = self.out / "prompts.jsonl"
        if not path.exists():
            asked = prompts(20 * self.sizes.questions, self.config.seed)
            write_json_lines(path, [{"messages": as_dicts(row)} for row in asked])
        return path

    # Measuring.

    def measured(
        self, folder: Path, used: Deployment | None = None, begun: float | None = None
    ) -> tuple[Rows, float]:
        """The rows of every task, measured once for these weights, and the seconds since `begun`.

        A later start reads both from the file.
        """
        name = self._name(folder, used)
        path = self.out / "measured" / f"{name}.json"
        known = self._known(folder, used)
        with contextlib.suppress(UserError):  # missing or damaged: measure again
            found = read_json_object(path)
            if found.get("of") == known:
                rows: Rows = found["rows"]
                return rows, float(found["seconds"])
        asked = perf_counter()
        rows = self._asked(folder, used)
        seconds = perf_counter() - (asked if begun is None else begun)
        path.parent.mkdir(exist_ok=True)
        kept = {task: list(found) for task, found in rows.items()}
        write_json(path, {"of": known, "seconds": seconds, "rows": kept})
        say(f"frontier  {name} measured in {perf_counter() - asked:.0f} s")
        return rows, seconds

    def _name(self, folder: Path, used: Deployment | None) -> str:
        own = folder.is_relative_to(self.out)
        name = f"{folder.parent.name}-{folder.name}" if own else "before"
        if used is None:
            return name
        return f"{name}{'-told' if used.system else ''}{'-guarded' if used.guard else ''}"

    def _known(self, folder: Path, used: Deployment | None) -> dict[str, Any]:
        """Everything that the rows depend on."""
        guard = self.config.guard if used is not None and used.guard is not None else None
        return {
            "model": content_hash(folder),
            "versions": {task.name: task.version for task in TASKS},
            "questions": self.sizes.questions,
            "used": [used.system, guard and content_hash(guard)] if used else [],
        }

    def _asked(self, folder: Path, used: Deployment | None) -> Rows:
        model, tokenizer = load(folder)
        compute = compute_of(
            ModelsConfig(out=self.out, models=(str(folder),), threads=self.config.threads)
        )
        prepare(model, compute)
        model.eval()
        subject = Subject(
            place=0,
            folder=folder,
            history=History.of(folder),
            model=model,
            tokenizer=tokenizer,
            context=self.context,
            material=None,
            config=self.config,
            compute=compute,
        )
        # Requests and probes are few; only the number of questions can be set.
        few = self.sizes.questions
        counts = {
            task.name: few if task is ANSWERS or self.config.quick else task.count for task in TASKS
        }
        return {
            task.name: ask(task, subject, task.items(counts[task.name]), used) for task in TASKS
        }
