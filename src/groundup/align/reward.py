"""A reward model: which of two answers people prefer, as one number for each answer.

    P(A is preferred to B) = sigmoid(r(A) - r(B))          (Bradley & Terry 1952)
    loss = - mean over prompts of mean over pairs of log sigmoid(r(chosen) - r(rejected) - margin)

(Ouyang et al. 2022, equation 1). It is the fine-tuned model's body with one number in the head's
place, read where the answer ends. All pairs of a prompt stand in one batch and count together as
much as those of any other prompt: taken one by one, a prompt with nine answers would be learned by
heart (section 3.5). One pass over the data is enough.

Only differences are learned, so that scale and origin are free. They are fixed at the end: answers
of the model that it started from have mean 0 and deviation 1. So a price in nats means the same
with every reward model.

The folder is a Hugging Face folder (`…ForSequenceClassification` with one label), which
transformers reads; `reward_mean` and `reward_deviation` in its config.json are ours.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from groundup.align.config import RewardConfig
from groundup.align.prompts import Asked, encoded
from groundup.align.rollout import Rollout, prompts_of, sample
from groundup.data.records import read_preferences
from groundup.data.split import split
from groundup.errors import UserError
from groundup.formats.card import model_card, sources
from groundup.formats.folder import CARD, DTYPES, TOKENIZER, scores_texts
from groundup.formats.hf_config import ConfigReader, config_from_hf, config_to_hf
from groundup.formats.load import load_model
from groundup.formats.locate import CONFIG, name_of
from groundup.formats.weights import (
    INDEX,
    MAX_SHARD_BYTES,
    empty_model,
    model_of,
    read_weights,
    tensor_names,
    write_weights,
)
from groundup.lm.config import ModelConfig
from groundup.lm.logprobs import spread
from groundup.lm.model import CausalLM, uncompiled
from groundup.report.estimate import rate
from groundup.runs.console import say
from groundup.runs.files import folder_aside, read_json_object, write_json, write_text
from groundup.runs.folder import Run
from groundup.text.batches import packed_batch
from groundup.text.chat import encode_chat
from groundup.text.example import Example
from groundup.text.rows import Message, Preference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream, Loss
from groundup.train.device import use_threads
from groundup.train.plan import TrainPlan
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel, prepare_model

# Peak learning rates of matrices and of embeddings and gains, where a small model is trained whole.
RATES = (0.001, 0.001)
_SCORE = "score.weight"
# Bounds of what scores are scaled by.
_LEAST_DEVIATION, _LARGEST = 1e-6, 1e9
_ROW_STEP = 64
_CURVE_PROMPTS = 300
_GUESSING = 0.5


class RewardModel(nn.Module):
    """A transformer whose last state at the end of an answer gives one number.

    `rewards` are scaled: (score - mean) / deviation.
    """

    def __init__(self, lm: CausalLM, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.lm = lm
        self.score = nn.Linear(lm.config.hidden_size, 1, bias=False)
        self.mean, self.deviation = mean, deviation

    def initialize(self, seed: int) -> None:
        """A fresh head, small enough that all answers begin nearly alike (Stiennon et al. 2020)."""
        generator = torch.Generator().manual_seed(seed)
        width = self.score.in_features
        with torch.no_grad():
            self.score.weight.normal_(0.0, 1 / math.sqrt(width + 1), generator=generator)

    @property
    def config(self) -> ModelConfig:
        return self.lm.config

    def forward(self, rows: Batch) -> Float[Tensor, " answers"]:
        """The score of every answer in the batch, in order, unscaled (see `read_at_end`)."""
        row, place = rows.weights.nonzero(as_tuple=True)
        # Beside an adapter the body stays in its own type, and the head ends in float32.
        ends = self.lm(rows)[row, place].to(self.score.weight.dtype)
        found: Tensor = self.score(ends)
        return found[:, 0].float()

    def set_attention(self, path: Literal["matmul", "fused"]) -> None:
        self.lm.set_attention(path)

    def compile_blocks(self) -> None:
        self.lm.compile_blocks()

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.lm.set_gradient_checkpointing(on)


def read_at_end(ids: Sequence[int], context: int) -> Example:
    """An answer with its prompt, marked at its last token; a long one keeps its end.

    One more token stands behind it and is never read: what is marked is the place before a target.
    """
    kept = list(ids[-context:])
    return Example([*kept, 0], [False] * len(kept) + [True])


# Comparisons.


@dataclass(frozen=True)
class Comparison:
    """All answers to a prompt that were compared, and which was preferred to which."""

    answers: tuple[Example, ...]
    pairs: tuple[tuple[int, int], ...]
    source: str = ""


def comparisons(tokenizer: Tokenizer, rows: Sequence[Preference], context: int) -> list[Comparison]:
    """The pairs of every prompt together, its answers each once.

    Pairs that do not differ within the context are left out, and so are prompts that the chat
    template refuses.
    """
    by_prompt: dict[tuple[Message, ...], list[Preference]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt, []).append(row)
    found = []
    for prompt, pairs in by_prompt.items():
        texts = list(dict.fromkeys(text for row in pairs for text in (row.chosen, row.rejected)))
        place = {text: i for i, text in enumerate(texts)}
        try:
            ids = [answered_ids(tokenizer, prompt, text) for text in texts]
        except UserError:
            continue
        answers = tuple(read_at_end(one, context) for one in ids)
        compared = [(place[row.chosen], place[row.rejected]) for row in pairs]
        different = tuple((a, b) for a, b in compared if answers[a].ids != answers[b].ids)
        if different:
            found.append(Comparison(answers, different, pairs[0].source))
    return found


def answered_ids(tokenizer: Tokenizer, prompt: Sequence[Message], answer: str) -> list[int]:
    """Prompt and answer up to the token that ends it, as a policy would have sampled it."""
    whole = encode_chat(tokenizer, [*prompt, Message("assistant", answer)])
    last = max(i for i, spoken in enumerate(whole.assistant) if spoken)
    return whole.ids[: last + 1]


@dataclass(frozen=True)
class ComparisonBatch:
    """Packed answers; each pair names two of them, in the batch's order, and has a weight.

    The pairs of a prompt weigh 1 together.
    """

    rows: Batch
    chosen: Int[Tensor, " pairs"]
    rejected: Int[Tensor, " pairs"]
    pair_weights: Float[Tensor, " pairs"]

    @property
    def weight(self) -> float:
        return float(self.pair_weights.sum())

    @property
    def tokens(self) -> int:
        return self.rows.tokens

    def to(self, device: torch.device) -> ComparisonBatch:
        moved = (self.chosen, self.rejected, self.pair_weights)
        return ComparisonBatch(self.rows.to(device), *(one.to(device) for one in moved))


def comparison_batch(
    some: Sequence[Comparison], context: int, rows: int | None = None
) -> ComparisonBatch:
    """Lay all answers of some comparisons into rows, at least as many as `rows`."""
    examples = [answer for one in some for answer in one.answers]
    packed = rows_of([example.inputs for example in examples], context)
    packed += [[] for _ in range((rows or 0) - len(packed))]
    order = {number: place for place, number in enumerate(n for row in packed for n in row)}
    chosen, rejected, weights, first = [], [], [], 0
    for one in some:
        for a, b in one.pairs:
            chosen.append(order[first + a])
            rejected.append(order[first + b])
            weights.append(1 / len(one.pairs))
        first += len(one.answers)
    return ComparisonBatch(
        packed_batch([[examples[n] for n in row] for row in packed], context),
        torch.tensor(chosen),
        torch.tensor(rejected),
        torch.tensor(weights),
    )


class ComparisonStream(DataStream):
    """Micro-batches of whole comparisons, a pure function of (seed, step)."""

    def __init__(
        self,
        items: Sequence[Comparison],
        *,
        context: int,
        rows: int,
        micro_rows: int,
        seed: int,
    ) -> None:
        if not items:
            raise UserError("the data holds no preference pair to train on; give some")
        self.items, self.context, self.seed = items, context, seed
        self.micro_rows = max(2, min(micro_rows, rows))
        self.per_step = max(1, rows // self.micro_rows)
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)
        self.rows_per_epoch = len(self._epoch(0)) * self.micro_rows

    def at(self, step: int, model: nn.Module) -> list[ComparisonBatch]:
        batches = []
        for index in range(step * self.per_step, (step + 1) * self.per_step):
            epoch, place = divmod(index, self.rows_per_epoch // self.micro_rows)
            packed = self._epoch(epoch)
            some = [self.items[i] for i in packed[place % len(packed)]]
            batches.append(comparison_batch(some, self.context, self.micro_rows))
        return batches

    def _packed(self, epoch: int) -> list[list[int]]:
        """This epoch's micro-batches: as many comparisons as fit into the rows together."""
        batches: list[list[int]] = []
        lengths: list[int] = []
        for index in np.random.default_rng((self.seed, epoch)).permutation(len(self.items)):
            more = [answer.inputs for answer in self.items[int(index)].answers]
            # More answers to one prompt than the rows hold get a batch to themselves.
            if not batches or len(rows_of([*lengths, *more], self.context)) > self.micro_rows:
                batches.append([])
                lengths = []
            batches[-1].append(int(index))
            lengths += more
        return batches


def rows_of(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Which answers stand in which row: the longest first, each in the fullest row that it fits."""
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        fitting = [row for row, room in enumerate(free) if room >= lengths[number]]
        if not fitting:
            rows.append([])
            free.append(context)
        row = min(fitting, key=lambda row: free[row]) if fitting else len(rows) - 1
        rows[row].append(number)
        free[row] -= lengths[number]
    return rows


# The loss.


def bradley_terry_loss(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    margin: float = 0.0,
    centering: float = 0.0,
) -> Float[Tensor, " pairs"]:
    """Each pair's loss; `centering` weighs (r_chosen + r_rejected)^2 (Eisenstein et al. 2023)."""
    losses = -logsigmoid(chosen - rejected - margin)
    return losses + centering * (chosen + rejected).square() if centering else losses


def comparison_loss(
    model: nn.Module, batch: ComparisonBatch, margin: float, centering: float
) -> Loss:
    """The loss of a batch of comparisons, as `fit` wants it."""
    scores = cast(RewardModel, model)(batch.rows)
    chosen, rejected = scores[batch.chosen], scores[batch.rejected]
    losses = bradley_terry_loss(chosen, rejected, margin, centering)
    total = (losses * batch.pair_weights).sum()
    right = ((chosen > rejected) * batch.pair_weights).sum()
    ahead = ((chosen - rejected) * batch.pair_weights).sum()
    count = batch.weight
    metrics = {
        "loss": (float(total.detach()), count),
        "accuracy": (float(right.detach()), count),
        "margin": (float(ahead.detach()), count),
    }
    return Loss(total, count, metrics)


# Scoring.


@torch.inference_mode()
def scores_of(
    model: RewardModel, answers: Sequence[Example], context: int
) -> Float[np.ndarray, " answers"]:
    """The unscaled score of every answer, those of like length together."""
    found = np.empty(len(answers))
    order = sorted(range(len(answers)), key=lambda i: -answers[i].inputs)
    with uncompiled(model.lm):
        while order:
            width = answers[order[0]].inputs
            some = order[: max(1, 16 * context // width)]
            order = order[len(some) :]
            rows = packed_batch([[answers[i]] for i in some], width).to(model.lm.head.device)
            found[some] = model(rows).cpu().numpy()
    return found


def score_rollouts(
    model: RewardModel, rollouts: Sequence[Rollout]
) -> Float[np.ndarray, " rollouts"]:
    """The scaled reward of every rollout, of the very tokens that were sampled."""
    context = model.config.max_position_embeddings
    answers = [read_at_end([*one.prompt.ids, *one.ids], context) for one in rollouts]
    return (scores_of(model, answers, min(context, 256)) - model.mean) / model.deviation


# On disk.


def save_reward_model(folder: Path, model: RewardModel, tokenizer: Tokenizer, card: str) -> None:
    """Write a folder that transformers reads as a model for sequence classification."""
    described = config_to_hf(model.config)
    described["architectures"] = [
        re.sub(
            "(ForCausalLM|LMHeadModel)$", "ForSequenceClassification", described["architectures"][0]
        )
    ]
    described |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "num_labels": 1}
    described |= {"reward_mean": model.mean, "reward_deviation": model.deviation}
    stale = (CONFIG, INDEX, "model*.safetensors")
    with folder_aside(folder, last=CONFIG, replaces=stale) as aside:
        head = {_SCORE: model.score.weight.detach().float()}
        write_weights(aside, model.lm, torch.float32, MAX_SHARD_BYTES, head)
        tokenizer.save(aside)
        write_text(aside / CARD, card)
        write_json(aside / CONFIG, described)


def is_reward_model(folder: Path) -> bool:
    """Whether a model for sequence classification lies there."""
    try:
        return scores_texts(read_json_object(folder / CONFIG))
    except UserError:
        return False


def load_reward_model(folder: Path, tokenizer: Tokenizer | None = None) -> RewardModel:
    """The reward model in a folder, for answers in tokens of `tokenizer`.

    Raises `UserError` for a folder without one, and for one that reads other tokens.
    """
    if not is_reward_model(folder):
        raise UserError(
            f"{folder} holds no reward model; train one with groundup reward and give its folder"
        )
    described = read_json_object(folder / CONFIG)
    labels = described.get("num_labels", len(described.get("id2label") or {"0": ""}))
    if labels != 1:
        raise UserError(f"{folder} tells {labels} classes apart; a reward model has one label")
    if tokenizer is not None and (folder / TOKENIZER).is_file():
        own = Tokenizer.load(folder)
        if own.content["model"] != tokenizer.content["model"]:
            raise UserError(
                f"{folder} reads other tokens than the policy's, whose answers it could not score; "
                "train a reward model from the policy's own fine-tuned model"
            )
    config = config_from_hf(described)
    if "lm_head.weight" not in tensor_names(folder):  # transformers keeps none beside the score
        config = replace(config, tie_word_embeddings=True)
    tensors = read_weights(folder, empty_model(config), "cpu", {_SCORE})
    head = tensors.pop(_SCORE, None)
    if head is None or head.shape != (1, config.hidden_size):
        raise UserError(
            f"{folder}: {_SCORE} is missing or of another shape than (1, {config.hidden_size}); "
            "save or train the reward model again"
        )
    dtype = DTYPES.get(str(described.get("dtype")), torch.float32)
    lm = model_of(config, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    # A classifier from elsewhere has neither: its scores are taken as they are.
    scale = ConfigReader({"reward_mean": 0, "reward_deviation": 1, **described}, "reward model")
    model = RewardModel(
        lm,
        scale.float_("reward_mean", -_LARGEST, _LARGEST),
        scale.float_("reward_deviation", _LEAST_DEVIATION, _LARGEST),
    )
    model.score.weight.data = head.to(dtype)
    return model.eval().requires_grad_(False)


# The run.


def run(config: RewardConfig) -> Path:
    """Train a reward model by `config` and return its run folder.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": config.data}
    return run_stage(config, "reward", parents, functools.partial(_job, config))


def _job(config: RewardConfig, run: Run) -> Job[ComparisonBatch, RewardModel]:
    prepared = prepare_model(config, RATES)
    use_threads(config)
    sides = split(config.data, "preferences", read_preferences)
    for line in sides[0].bad:
        say(str(line))
    train, heldout = (
        comparisons(prepared.tokenizer, side.rows, prepared.context) for side in sides
    )
    compared = sum(len(one.pairs) for one in train)
    say(
        f"{run.stage}: {compared:,} pairs of {len(train):,} prompts to train on, "
        f"{len(sides[0].rows) - compared:,} that do not differ are set aside"
    )
    heldout = spread(heldout, _CURVE_PROMPTS)
    context = prepared.context
    if config.context is None and train:
        longest = max(answer.inputs for one in (*train, *heldout) for answer in one.answers)
        context = min(context, -(-longest // _ROW_STEP) * _ROW_STEP)
    stream = ComparisonStream(
        train,
        context=context,
        rows=config.rows,
        micro_rows=config.micro(context),
        seed=config.seed,
    )
    model = RewardModel(prepared.model)
    model.initialize(config.seed)

    def save(model: RewardModel, plan: TrainPlan) -> None:
        whole = _merged(model)
        _scale(config, whole, prepared, [row.prompt for row in sides[0].rows])
        card = model_card(
            "A reward model trained by groundup",
            how=f"It tells better answers from worse ones; its body is {name_of(config.model)}'s. "
            f"{prepared.how}",
            facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
            data=sources(config.data),
            parent=name_of(config.model),
        )
        save_reward_model(run.folder, whole, prepared.tokenizer, card)

    return Job(
        config,
        prepared.trained,
        model=lambda: model,
        stream=lambda steps: stream,
        loss=functools.partial(comparison_loss, margin=config.margin, centering=config.centering),
        evaluate=lambda model, step: _evaluate(run, model, heldout, context, step),
        save=save,
        context=context,
        rows_per_epoch=stream.rows_per_epoch,
        model_config=config_to_hf(model.config),
    )


def _merged(model: RewardModel) -> RewardModel:
    """The model without an adapter: what a reward's folder holds is whole."""
    from groundup.adapters.attach import adapter_names, merge
    from groundup.adapters.quantization import dequantize

    if adapter_names(model.lm):
        merge(model.lm, reversible=False)
        dequantize(model.lm, model.score.weight.dtype)
    return model


def _scale(
    config: RewardConfig,
    model: RewardModel,
    prepared: PreparedModel,
    prompts: Sequence[tuple[Message, ...]],
) -> None:
    """Fix mean and deviation by answers of the model that this one started from."""
    model.eval()
    policy, tokenizer = load_model(config.model, device=model.lm.head.device), prepared.tokenizer
    longest = policy.config.max_position_embeddings - config.max_new_tokens
    wanted = spread(list(dict.fromkeys(prompts)), config.samples)
    asked, _ = encoded([Asked(prompt) for prompt in wanted], tokenizer, longest)
    if not asked:
        say(
            f"no prompt leaves room for max_new_tokens={config.max_new_tokens}: rewards are left "
            "as they are, not scaled to mean 0 and deviation 1"
        )
        return
    # Few prompts are answered several times, each time otherwise.
    rollouts = sample(
        policy,
        prompts_of(asked, config.samples, 0, seed=config.seed),
        tokenizer,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    found = score_rollouts(model, rollouts)
    model.mean, model.deviation = float(found.mean()), max(float(found.std()), _LEAST_DEVIATION)


def _evaluate(
    run: Run, model: RewardModel, heldout: Sequence[Comparison], context: int, step: int
) -> dict[str, Any]:
    """The share of held-out pairs that are told apart, and their loss."""
    if not heldout:
        return {"preference_loss": None}
    margins = margins_of(model, heldout, context)
    found = rate((np.sign(margins) + 1) / 2, chance=_GUESSING)
    say(
        f"{run.stage}  step {step}  {found.estimate:.1%} of {found.items} held-out pairs in order "
        f"({found.low:.0%} to {found.high:.0%}; guessing 50 %)"
    )
    losses = -logsigmoid(torch.from_numpy(margins))
    return {"preference_loss": float(losses.mean()), "heldout_accuracy": found.estimate}


def margins_of(
    model: RewardModel, some: Sequence[Comparison], context: int
) -> Float[np.ndarray, " pairs"]:
    """r(chosen) - r(rejected) of every pair, unscaled."""
    scores = scores_of(model, [answer for one in some for answer in one.answers], context)
    margins, first = [], 0
    for one in some:
        margins += [scores[first + a] - scores[first + b] for a, b in one.pairs]
        first += len(one.answers)
    return np.array(margins)
