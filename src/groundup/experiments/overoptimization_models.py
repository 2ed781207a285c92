"""The models of the overoptimization experiment: labels, proxies of several sizes, their policies.

Every part is a run of a stage in the experiment's folder, and is reused on a later start:

    asked.jsonl, heldout.jsonl, demonstrations.jsonl     prompts, and the answers in the data
    labels/                 four answers to each prompt, compared by the gold reward
    pool/                   many answers to each held-out prompt
    comparisons/250-0/      the labels of one proxy: 250 of all, sampled with its seed
    bodies/1x64/            a small language model, as a proxy's body
    proxies/1x64-250-0/     a reward model
    policies/1x64-250-0/    the model after PPO against that proxy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.align import best_of_n, ppo, reward
from groundup.align.best_of_n import Pool
from groundup.align.config import BestOfNConfig, PPOConfig, RewardConfig
from groundup.align.prompts import load_prompts
from groundup.align.reward import answered_ids
from groundup.align.rewards.model import load_reward_model, read_at_end, scores_of
from groundup.align.rollout import with_missing_eos_penalty
from groundup.data.files import rows_of, write_json_lines
from groundup.data.records import read_conversations, read_preferences
from groundup.errors import UserError
from groundup.experiments.config import OveroptimizationConfig
from groundup.formats.card import model_card
from groundup.formats.folder import save_model
from groundup.formats.load import load
from groundup.formats.locate import CONFIG
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.files import read_json_object, read_lines, write_bytes, write_json
from groundup.text.example import Example
from groundup.text.rows import BadRow, Message, Preference, as_dicts
from groundup.tune import sft
from groundup.tune.config import SFTConfig

# The number of answers per prompt that are compared.
_COMPARED = 4
# The penalty of an answer that does not end, for every proxy.
_NO_END = 1.0
# The first iterations of a policy, which train only the critic.
_CRITIC_WARMUP = 2
_SCALED_BY = 128


@dataclass(frozen=True)
class Sizes:
    """All sizes: from the settings, or in miniature.

    `bodies` are the depth and width of the small proxies; the largest has the model's own body.
    """

    bodies: tuple[tuple[int, int], ...]
    labels: tuple[int, ...]
    seeds: int
    asked: int
    n: int
    questions: int
    iterations: int
    episodes: int
    body_steps: int

    @classmethod
    def of(cls, config: OveroptimizationConfig) -> Sizes:
        if config.quick:
            return cls(((1, 64),), (8, 16), 2, 48, 8, 4, 6, 16, 2)
        return cls(
            bodies=((1, 64), (2, 128)),
            labels=config.labels,
            seeds=config.seeds,
            # Four answers give about five pairs that differ, so these are about three times a
            # proxy's labels, and different seeds sample different prompts.
            asked=max(64, round(0.75 * max(config.labels))),
            n=config.n,
            questions=config.questions,
            iterations=config.iterations,
            episodes=config.episodes,
            body_steps=400,
        )


@dataclass(frozen=True, order=True)
class Proxy:
    """A reward model by the size of its body ("1x64", the model's own last), labels and seed."""

    size: str
    labels: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.size}-{self.labels}-{self.seed}"


class Builder:
    """Makes every part once, in the experiment's folder."""

    def __init__(self, config: OveroptimizationConfig) -> None:
        self.config, self.sizes, self.out = config, Sizes.of(config), config.out
        model, self.tokenizer = load(config.model)
        self.shape: ModelConfig = model.config
        self.own = f"{self.shape.num_hidden_layers}x{self.shape.hidden_size}"
        self.longest = self.shape.max_position_embeddings - config.max_new_tokens
        self._training: dict[str, Any] = {"compile": "off", "threads": config.threads}
        self._answers: list[Example] | None = None  # the pool's, in tokens

    @property
    def bodies(self) -> list[str]:
        """The sizes of the proxies in rising order: those below the model's, and its own."""
        small = [f"{depth}x{width}" for depth, width in self.sizes.bodies]
        return [*(one for one in small if self.parameters(one) < self.shape.parameters), self.own]

    # Prompts, and the model's answers.

    def ask(self) -> None:
        """Write the prompts of the training and held-out data, and their conversations."""
        last = self.out / "heldout.jsonl"
        if last.exists():
            kept = [row for _, row in rows_of(last)]
            if any(not isinstance(row, BadRow) and "group" not in row for row in kept):
                raise UserError(
                    f"{last} is from an earlier version and does not say which prompts form a "
                    "group; choose another --out"
                )
            return
        config = self.config
        if not (config.data / "conversations").is_dir():
            raise UserError(
                f"data={config.data} is not a data-stage folder; give the one that the model was "
                "fine-tuned on, such as quickstart/data"
            )
        sides = load_prompts(
            config.data, self.tokenizer, longest=self.longest, sources=config.sources
        )
        if len(sides[1]) < 2:
            raise UserError(
                f"{config.data} holds out {len(sides[1])} prompts of sources="
                f"{' '.join(config.sources)}, and at least two are needed; name more sources"
            )
        taken = {prompt.messages for prompt in sides[0]}
        talks = [
            {"messages": as_dicts(row.messages), "source": row.source}
            for row in read_conversations(config.data / "conversations" / "train.jsonl").rows
            if row.messages[:-1] in taken
        ]
        write_json_lines(self.out / "demonstrations.jsonl", talks)
        for name, prompts in zip(("asked.jsonl", last.name), sides, strict=True):
            rows = [
                # The reward may compare with the `answer` of its row.
                {**one.row, "messages": as_dicts(one.messages)}
                | {"source": one.source, "group": one.group}
                for one in prompts
            ]
            write_json_lines(self.out / name, rows)

    def labels(self) -> list[Pool]:
        """Answers to the prompts, for comparisons."""
        return self._answered("labels", "asked.jsonl", _COMPARED, self.sizes.asked)

    def pool(self) -> list[Pool]:
        """Many answers to each held-out prompt, for best of n."""
        return self._answered("pool", "heldout.jsonl", self.sizes.n, self.sizes.questions)

    def _answered(self, name: str, prompts: str, n: int, questions: int) -> list[Pool]:
        config = self.config
        folder = best_of_n.run(
            BestOfNConfig(
                out=self.out / name,
                model=config.model,
                reward=config.gold,
                gold=config.gold,
                prompts=self.out / prompts,
                n=n,
                questions=questions,
                max_new_tokens=config.max_new_tokens,
                seed=config.seed,
                threads=config.threads,
            )
        )
        return [Pool.of(line) for line in read_lines(folder / "answers.jsonl")]

    # Proxies.

    def proxy(self, one: Proxy) -> Path:
        """Train a reward model on its own sample of the labels."""
        config = self.config
        return reward.run(
            RewardConfig(
                out=self.out / "proxies" / one.name,
                model=self._body(one.size),
                policy=config.model,
                data=self.comparisons(one),
                seed=config.seed + one.seed,
                epochs=2,
                evaluations=1,
                samples=_SCALED_BY,
                max_new_tokens=config.max_new_tokens,
                **self._training,
            )
        )

    def accuracy(self, one: Proxy) -> float:
        """The share of held-out comparisons that a proxy orders as the gold reward does."""
        lines = read_lines(self.out / "proxies" / one.name / "metrics.jsonl")
        found = [line["heldout_accuracy"] for line in lines if "heldout_accuracy" in line]
        return float(found[-1])

    def comparisons(self, one: Proxy) -> Path:
        """A proxy's labels, taken prompt by prompt in an order drawn with its seed."""
        folder = self.out / "comparisons" / f"{one.labels}-{one.seed}"
        kept = folder / "preferences"
        # heldout.jsonl is written last, so it marks a complete folder.
        if (kept / "heldout.jsonl").exists():
            return folder
        made = self.out / "labels" / "preferences"
        by_prompt: dict[tuple[Message, ...], list[Preference]] = {}
        for row in read_preferences(made / "train.jsonl").rows:
            by_prompt.setdefault(row.prompt, []).append(row)
        order = np.random.default_rng((self.config.seed, one.seed, 3)).permutation(len(by_prompt))
        groups = list(by_prompt.values())
        rows = [row for i in order for row in groups[i]][: one.labels]
        if not rows:
            raise UserError(
                f"gold={self.config.gold} gives all of the model's answers the same reward; name "
                "another gold, or other sources"
            )
        if len(rows) < one.labels and not self.config.quick:
            raise UserError(
                f"labels={one.labels} is more than the {len(rows)} pairs that differ in gold on "
                "these prompts; give fewer, or other sources"
            )
        heldout = (made / "heldout.jsonl").read_bytes()
        if not heldout.strip():
            raise UserError(
                f"gold={self.config.gold} gives all answers to held-out prompts the same reward, "
                "so proxies cannot be evaluated; give more labels, another gold, or other sources"
            )
        kept.mkdir(parents=True, exist_ok=True)
        write_json_lines(kept / "train.jsonl", rows)
        write_bytes(kept / "heldout.jsonl", heldout)
        return folder

    def _body(self, size: str) -> Path:
        """The model itself, or a small one trained from random weights on its demonstrations."""
        config = self.config
        if size == self.own:
            return config.model
        fresh = self.out / "bodies" / f"{size}-fresh"
        if not (fresh / CONFIG).exists():
            self._write_fresh(fresh, self._shape_of(size))
        return sft.run(
            SFTConfig(
                out=self.out / "bodies" / size,
                model=fresh,
                data=(self.out / "demonstrations.jsonl",),
                steps=self.sizes.body_steps,
                seed=config.seed,
                evaluations=1,
                **self._training,
            )
        )

    def _shape_of(self, size: str) -> ModelConfig:
        """The shape of a body of a size such as `2x128`: depth and width."""
        depth, width = map(int, size.split("x"))
        return ModelConfig.of(
            width=width,
            depth=depth,
            vocab_size=self.shape.vocab_size,
            context=self.shape.max_position_embeddings,
        )

    def _write_fresh(self, folder: Path, shape: ModelConfig) -> None:
        ids = ("bos_token_id", "eos_token_ids", "pad_token_id")
        model = CausalLM(replace(shape, **{name: getattr(self.shape, name) for name in ids}))
        model.initialize(self.config.seed)
        card = model_card(
            "A model with random weights",
            how="It has not been trained yet.",
            facts={"parameters": f"{model.config.parameters:,}"},
            data=(self.config.data,),
        )
        save_model(folder, model, self.tokenizer, card=card)

    def parameters(self, size: str) -> int:
        """The number of parameters of a body."""
        return (self.shape if size == self.own else self._shape_of(size)).parameters

    def scores(self, one: Proxy, pool: Sequence[Pool]) -> Float[np.ndarray, "prompts n"]:
        """A proxy's reward for every answer in the pool."""
        path = self.out / "scores" / f"{one.name}.json"
        if not path.exists():
            found = self._scores(self.proxy(one), pool)
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"scores": found.tolist()})
        return np.array(read_json_object(path)["scores"])

    def _scores(self, folder: Path, pool: Sequence[Pool]) -> Float[np.ndarray, "prompts n"]:
        model = load_reward_model(folder, self.tokenizer)
        if self._answers is None:
            self._answers = [answer for one in pool for answer in self._read(one)]
        found = scores_of(model, self._answers, min(model.config.max_position_embeddings, 256))
        ended = np.array([one.ended for one in pool])
        scaled = (found.reshape(ended.shape) - model.mean) / model.deviation
        return with_missing_eos_penalty(scaled, ended, _NO_END)

    def _read(self, one: Pool) -> list[Example]:
        prompt = [Message(turn["role"], turn["content"]) for turn in one.prompt]
        context = self.shape.max_position_embeddings
        return [
            read_at_end(answered_ids(self.tokenizer, prompt, text), context) for text in one.texts
        ]

    # Policies.

    def policy(self, name: str, reward: str) -> list[dict[str, Any]]:
        """Run PPO against a reward without a KL penalty, and return its iterations' metrics.

        The learning rate does not decay and warms up quickly, so that the nats grow evenly.
        """
        config, sizes = self.config, self.sizes
        folder = ppo.run(
            PPOConfig(
                out=self.out / "policies" / name,
                model=config.model,
                prompts=self.out / "asked.jsonl",
                reward=reward,
                gold=config.gold,
                kl_coef=0.0,
                iterations=sizes.iterations,
                episodes=sizes.episodes,
                max_new_tokens=config.max_new_tokens,
                missing_eos_penalty=_NO_END,
                learning_rate=config.learning_rate,
                embedding_learning_rate=config.learning_rate,
                decay=0.0,
                critic_warmup=min(_CRITIC_WARMUP, sizes.iterations - 1),
                evaluations=1,
                heldout_prompts=sizes.questions,
                seed=config.seed,
                **self._training,
            )
        )
        lines = read_lines(folder / "metrics.jsonl")
        return [line for line in lines if line["kind"] == "rollout"]

    def ensemble(self, size: str, labels: int) -> str:
        """The ensemble reward of all seeds' proxies."""
        members = [Proxy(size, labels, seed) for seed in range(self.sizes.seeds)]
        return "ensemble:" + ",".join(str(self.proxy(one)) for one in members)
