"""A reward model: it predicts which of two answers people prefer, by one number per answer.

    P(A is preferred to B) = sigmoid(r(A) - r(B))          (Bradley & Terry 1952)
    loss = - mean over prompts of mean over pairs of log sigmoid(r(chosen) - r(rejected) - margin)

(Ouyang et al. 2022, equation 1). It is the fine-tuned model's body with a scalar head, read at the
end of the answer. All pairs of a prompt are in one batch and together count as much as those of any
other prompt: taken one by one, a prompt with nine answers would be overfitted (section 3.5). One
pass over the data is enough.

Only differences are learned, so scale and origin are free. They are fixed at the end: answers of
the initial model, or of the `policy` that is to be scored, get mean 0 and deviation 1. So a KL
coefficient means the same with every reward model.

`rewards.model` holds the model and its folder.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from groundup.align.config import RewardConfig
from groundup.align.preferences import (
    Refused,
    encoded_rows,
    micro_sizes,
    read_sides,
    rows_of_epoch,
    say_refused,
)
from groundup.align.prompts import Asked, encoded
from groundup.align.reward_report import HeldoutPairs, accuracies, write_report
from groundup.align.rewards.model import (
    RewardModel,
    read_at_end,
    save_reward_model,
    score_rollouts,
    scores_of,
)
from groundup.align.rollout import prompts_of, sample
from groundup.data.config import PAIR_COLUMNS
from groundup.data.records import read_preferences
from groundup.data.split import evenly_spaced, on_disk
from groundup.deprecated import renamed
from groundup.errors import UserError
from groundup.formats.card import READ_BY_TRANSFORMERS, as_merged, model_card
from groundup.formats.hf_config import config_to_hf
from groundup.formats.load import load_model, load_tokenizer
from groundup.formats.locate import name_of
from groundup.report.estimate import POOLED
from groundup.runs.console import counted, say
from groundup.runs.folder import Run
from groundup.text.batches import packed_batch, row_width
from groundup.text.chat import encode_chat
from groundup.text.example import Example
from groundup.text.rows import Message, Preference
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, DataStream, Loss, TensorFields
from groundup.train.device import use_threads
from groundup.train.plan import TrainPlan
from groundup.train.stage import Job, run_stage
from groundup.tune.prepare import PreparedModel, prepare_model

# Peak learning rates for full training of a small model: matrices; embeddings and gains.
RATES = (0.001, 0.001)
# Held-out prompts read during training, and at the end.
_CURVE_PROMPTS, _REPORT_PROMPTS = 300, 2000
# Shares of the labels after which the model is evaluated.
_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
# The smallest deviation by which rewards are scaled: scores begin about 1 apart, and less than a
# thousandth of that is mostly rounding error.
_MIN_SPREAD = 1e-3


# Comparisons.


@dataclass(frozen=True)
class Comparison:
    """All compared answers to a prompt, and which was preferred to which.

    `lengths` are the tokens of each answer, with the closing one and without the prompt; `group`
    is shared with related prompts.
    """

    answers: tuple[Example, ...]
    pairs: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    source: str = ""
    group: str = ""


def comparisons(
    tokenizer: Tokenizer, rows: Sequence[Preference], context: int
) -> tuple[list[Comparison], Refused]:
    """The pairs of every prompt together, with each answer once; also return the refused rows.

    Pairs that do not differ within the context are left out.
    """

    @functools.cache
    def asked_ids(prompt: tuple[Message, ...]) -> list[int]:
        return encode_chat(tokenizer, prompt, generation_prompt=True).ids

    @functools.cache
    def ids_of(prompt: tuple[Message, ...], text: str) -> list[int]:
        return answered_ids(tokenizer, prompt, text)

    def checked(row: Preference) -> Preference:
        asked_ids(row.prompt)
        for text in (row.chosen, row.rejected):
            ids_of(row.prompt, text)
        return row

    taken, refused = encoded_rows(rows, checked)
    by_prompt: dict[tuple[Message, ...], list[Preference]] = {}
    for row in taken:
        by_prompt.setdefault(row.prompt, []).append(row)
    found = []
    for prompt, pairs in by_prompt.items():
        texts = list(dict.fromkeys(text for row in pairs for text in (row.chosen, row.rejected)))
        place = {text: i for i, text in enumerate(texts)}
        ids, asked = [ids_of(prompt, text) for text in texts], len(asked_ids(prompt))
        answers = tuple(read_at_end(one, context) for one in ids)
        lengths = tuple(len(one) - asked for one in ids)
        compared = [(place[row.chosen], place[row.rejected]) for row in pairs]
        different = tuple((a, b) for a, b in compared if answers[a].ids != answers[b].ids)
        if different:
            found.append(Comparison(answers, different, lengths, pairs[0].source, pairs[0].group))
    return found, refused


def answered_ids(tokenizer: Tokenizer, prompt: Sequence[Message], answer: str) -> list[int]:
    """Prompt and answer up to its closing token, as a policy would have sampled it."""
    whole = encode_chat(tokenizer, [*prompt, Message("assistant", answer)])
    last = max(i for i, spoken in enumerate(whole.assistant) if spoken)
    return whole.ids[: last + 1]


@dataclass(frozen=True)
class ComparisonBatch(TensorFields):
    """Packed answers; pairs of indices into them, in the batch's order; and weights of the pairs.

    The weights of a prompt's pairs sum to 1.
    """

    rows: Batch
    chosen: Int[Tensor, " pairs"]
    rejected: Int[Tensor, " pairs"]
    pair_weights: Float[Tensor, " pairs"]

    @property
    def weight(self) -> float:
        return float(self.pair_weights.sum())


def comparison_batch(
    some: Sequence[Comparison], context: int, rows: int | None = None
) -> ComparisonBatch:
    """Pack all answers of some comparisons into at least `rows` rows."""
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
        self.sizes = micro_sizes(rows, micro_rows, least=2)
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)
        # Every epoch has as many batches as the first, so a step determines its epoch.
        self.batches_per_epoch = 0
        self.batches_per_epoch = len(self._epoch(0))
        self.rows_per_epoch = rows_of_epoch(self.batches_per_epoch, self.sizes, rows)
        self.labels = sum(len(one.pairs) for one in items)

    def at(self, step: int, model: nn.Module) -> list[ComparisonBatch]:
        first = step * len(self.sizes)
        return [
            comparison_batch(self._items(first + place), self.context, size)
            for place, size in enumerate(self.sizes)
        ]

    def labels_read(self, steps: int) -> int:
        """The number of pairs that `steps` steps have read, counting repetitions."""
        passes, rest = divmod(steps * len(self.sizes), self.batches_per_epoch)
        first = passes * self.batches_per_epoch
        some = (self._items(index) for index in range(first, first + rest))
        return passes * self.labels + sum(len(one.pairs) for items in some for one in items)

    def steps_to(self, share: float) -> int:
        """The first step after which this share of all pairs has been read, within one pass."""
        steps = range(1, -(-self.batches_per_epoch // len(self.sizes)) + 1)
        place = bisect.bisect_left(steps, share * self.labels, key=self.labels_read)
        return steps[place]

    def _items(self, index: int) -> list[Comparison]:
        """The comparisons of a micro-batch, by its index since the first step."""
        epoch, place = divmod(index, self.batches_per_epoch)
        return [self.items[i] for i in self._epoch(epoch)[place]]

    def _packed(self, epoch: int) -> list[list[int]]:
        """This epoch's micro-batches: each has as many comparisons as fit into its rows.

        If one pass makes too few micro-batches, it starts again.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.items)).tolist()
        first = epoch * self.batches_per_epoch
        batches: list[list[int]] = []
        while not batches or len(batches) < self.batches_per_epoch:
            batches.append([])
            lengths: list[int] = []
            for index in order:
                more = [answer.inputs for answer in self.items[index].answers]
                size = self.sizes[(first + len(batches) - 1) % len(self.sizes)]
                # A prompt with more answers than the rows hold gets a batch of its own.
                if batches[-1] and len(rows_of([*lengths, *more], self.context)) > size:
                    batches.append([])
                    lengths = []
                batches[-1].append(index)
                lengths += more
        return batches


def rows_of(lengths: Sequence[int], context: int) -> list[list[int]]:
    """The answers of each row: the longest first, each in the fullest row that has room."""
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
    """Each pair's loss; `centering` weights (r_chosen + r_rejected)^2 (Eisenstein et al. 2023)."""
    losses = -logsigmoid(chosen - rejected - margin)
    return losses + centering * (chosen + rejected).square() if centering else losses


def comparison_loss(
    model: nn.Module, batch: ComparisonBatch, margin: float, centering: float
) -> Loss:
    """The loss of a batch of comparisons for `fit`."""
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


# The run.


def run(config: RewardConfig) -> Path:
    """Train a reward model by `config` and return its run folder.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, "data": on_disk(config.data)}
    if config.policy is not None:
        parents["policy"] = config.policy
    return run_stage(config, "reward", parents, functools.partial(_job, config))


def _job(config: RewardConfig, run: Run) -> Job[ComparisonBatch, RewardModel]:
    prepared = prepare_model(config, RATES)
    use_threads(config)
    if config.policy is not None:
        own = load_tokenizer(config.policy)
        if not own.same_tokens(prepared.tokenizer):
            raise UserError(
                f"policy={config.policy} has another tokenizer than {config.model}, so that its "
                "answers could not be scored; give a policy of the same family"
            )
    sides = read_sides(config, PAIR_COLUMNS, read_preferences)
    for line in sides[0].bad:
        say(str(line))
    (train, refused), (heldout, refused_too) = (
        comparisons(prepared.tokenizer, side.rows, prepared.context) for side in sides
    )
    compared = sum(len(one.pairs) for one in train)
    say(
        f"{run.stage}: {counted(compared, 'pair')} of {counted(len(train), 'prompt')} to train on, "
        f"{len(sides[0].rows) - compared - len(refused):,} without a difference set aside"
    )
    say_refused(refused, refused_too)
    heldout = evenly_spaced(heldout, _REPORT_PROMPTS)
    on_the_way = evenly_spaced(heldout, _CURVE_PROMPTS)
    context = prepared.context
    if config.context is None and train:
        longest = max(answer.inputs for one in (*train, *heldout) for answer in one.answers)
        context = row_width(longest, context)
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
        whole = merged(model)
        _scale(config, whole, prepared, [row.prompt for row in sides[0].rows])
        card = model_card(
            "A reward model trained by groundup",
            how=f"It tells better answers from worse ones; its body is {name_of(config.model)}'s. "
            f"{as_merged(prepared.how)}",
            facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
            data=(config.data,),
            parents=(config.model,),
            scores=True,
            usage=READ_BY_TRANSFORMERS,
        )
        save_reward_model(run.folder, whole, prepared.tokenizer, card)
        read = min(stream.labels, stream.labels_read(plan.steps))
        write_report(run, heldout_pairs(whole, heldout, context), stream.labels, read)

    return Job(
        config,
        prepared.trained,
        model=lambda: model,
        stream=lambda steps: stream,
        loss=functools.partial(comparison_loss, margin=config.margin, centering=config.centering),
        evaluate=lambda model, step: _evaluate(
            run, model, on_the_way, context, step, stream.labels_read(step)
        ),
        # Shows what more labels bring; not with patience, which counts evaluations.
        evaluates_at=[] if config.patience is not None else list(map(stream.steps_to, _SHARES)),
        save=save,
        context=context,
        rows_per_epoch=stream.rows_per_epoch,
        model_config=config_to_hf(model.config),
    )


def merged(model: RewardModel) -> RewardModel:
    """The model without an adapter: a reward model's folder is complete in itself."""
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
    """Set mean and deviation from answers of the model that is to be scored."""
    model.eval()
    answering = config.policy or config.model
    policy, tokenizer = load_model(answering, device=model.lm.head.device), prepared.tokenizer
    longest = policy.config.max_position_embeddings - config.max_new_tokens
    wanted = evenly_spaced(list(dict.fromkeys(prompts)), config.samples)
    asked, _ = encoded([Asked(prompt) for prompt in wanted], tokenizer, longest)
    if not asked:
        say(
            f"no prompt leaves room for max_new_tokens={config.max_new_tokens}: rewards are left "
            "as they are, not scaled to mean 0 and deviation 1"
        )
        return
    # Few prompts are answered several times, with different answers.
    rollouts = sample(
        policy,
        prompts_of(asked, config.samples, 0, seed=config.seed),
        tokenizer,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    found = score_rollouts(model, rollouts)
    model.mean, spread = float(found.mean()), float(found.std())
    if spread < _MIN_SPREAD:
        say(
            "the sampled answers are all worth the same: rewards have mean 0, but are not scaled "
            "to deviation 1; give more --samples or prompts"
        )
        return
    model.deviation = spread


def _evaluate(
    run: Run,
    model: RewardModel,
    heldout: Sequence[Comparison],
    context: int,
    step: int,
    labels: int,
) -> dict[str, Any]:
    """The accuracy on held-out pairs, and their loss."""
    pairs = heldout_pairs(model, heldout, context)
    if pairs is None:
        return {"preference_loss": None}
    found = accuracies(pairs.right, pairs)[POOLED]
    say(
        f"{run.stage}  step {step}  {found.estimate:.1%} of "
        f"{counted(found.items, 'held-out pair')} in order "
        f"({found.low:.0%} to {found.high:.0%}; guessing 50 %)"
    )
    losses = -logsigmoid(torch.from_numpy(pairs.margins))
    return {
        "preference_loss": float(losses.mean()),
        "heldout_accuracy": found.estimate,
        "heldout": found.to_json(),
        "labels": labels,
    }


def heldout_pairs(
    model: RewardModel, some: Sequence[Comparison], context: int
) -> HeldoutPairs | None:
    """A model's scores of all pairs of some comparisons; None if there are no comparisons."""
    if not some:
        return None
    scores = scores_of(model, [answer for one in some for answer in one.answers], context)
    first = np.cumsum([0, *(len(one.answers) for one in some)])
    places = [
        (first[number] + a, first[number] + b, number)
        for number, one in enumerate(some)
        for a, b in one.pairs
    ]
    chosen, rejected, prompts = np.array(places).T
    return HeldoutPairs(
        rewards=(scores - model.mean) / model.deviation,
        lengths=np.array([length for one in some for length in one.lengths]),
        answered=np.repeat(np.arange(len(some)), [len(one.answers) for one in some]),
        chosen=chosen,
        rejected=rejected,
        margins=scores[chosen] - scores[rejected],
        prompts=prompts,
        groups=tuple(one.group for one in some),
        sources=tuple(one.source for one in some for _ in one.pairs),
    )


if not TYPE_CHECKING:  # names that have moved to `rewards.model`

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
