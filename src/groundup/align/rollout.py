"""Rollouts: prompts answered by the current policy, trained on exactly as they were sampled.

    y ~ pi(. | x)                 temperature 1, no truncation: the distribution that is trained
    r(x, y)                       from a reward model, a verifier or a user's function
    log pi(y_t | x, y_<t)         from a training pass, under the policy that sampled

The sampling engine and the training pass block their matrix products differently, and in bfloat16
their log-probabilities differ by some thousandths. The ratio of PPO and GRPO compares one training
pass with another, so it is exactly 1 before the first update; the engine's deviation is measured
and logged (`mismatch`).

Rollouts are packed into rows, like documents in pre-training. Values of single tokens are kept
flat: one number per sampled token, row after row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from groundup.adapters.attach import active_adapter, using_adapter
from groundup.align.prompts import Prompt
from groundup.align.rewards.verifiers import LARGEST_REWARD, REWARDS_ALLOWED
from groundup.errors import UserError
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.logprobs import entropy, target_logprobs
from groundup.lm.model import CausalLM
from groundup.runs import ranks
from groundup.text.batches import pack, packed_batch
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch, TensorFields
from groundup.train.device import has_fast_bfloat16, resolve_device
from groundup.train.loss import chunk_rows

# One number per token of an answer; answers differ in length.
PerToken = Float[np.ndarray, " _"]
Values = Callable[[Tensor, Batch], Float[Tensor, "sampled *heads"]]
# Rows of the engine's batch: small models are fastest with many.
_BATCH_SIZE = 128


@dataclass(frozen=True)
class Rollout:
    """One sampled completion: its tokens with the closing one, and their log p by the engine."""

    prompt: Prompt
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    ended: bool

    @property
    def example(self) -> Example:
        """Prompt and completion, with only the completion trained on."""
        asked, said = len(self.prompt.ids), len(self.ids)
        return Example([*self.prompt.ids, *self.ids], [False] * asked + [True] * said)


@runtime_checkable
class RolloutReward(Protocol):
    """Scores rollouts: one number for each, in their order."""

    def __call__(self, rollouts: Sequence[Rollout], /) -> Sequence[float]: ...


def load_policy(folder: Path, device: str) -> tuple[CausalLM, Tokenizer]:
    """Load a model that only samples: in bfloat16 where the `device` supports it, and not trained.

    'auto' is the best device of this machine.
    """
    device = resolve_device(device)
    model, tokenizer = load(folder, device=device)
    if has_fast_bfloat16(torch.device(device).type):
        model.to(torch.bfloat16)
    return model.eval(), tokenizer


def sample(
    policy: CausalLM,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer | None,
    *,
    max_new_tokens: int,
    seed: int,
) -> list[Rollout]:
    """Answer every prompt once; equal prompts get different answers.

    The temperature is 1 and nothing is truncated: otherwise the policy that is trained would not be
    the one that was sampled, which shows as a KL below 0.
    """
    how = Sampling(temperature=1.0, max_new_tokens=max_new_tokens, seed=seed)
    requests = [Request(prompt_ids=prompt.ids, sampling=how) for prompt in prompts]
    completions = generate(policy, requests, tokenizer, batch_size=_BATCH_SIZE)
    return [
        Rollout(prompt, tuple(one.ids), tuple(one.logprobs), one.text, one.finish_reason == "stop")
        for prompt, one in zip(prompts, completions, strict=True)
    ]


def rewards_of(
    reward: RolloutReward, rollouts: Sequence[Rollout]
) -> Float[np.ndarray, " rollouts"]:
    """The rewards of all rollouts.

    Raises `UserError` for a wrong count, for NaN and for values beyond `LARGEST_REWARD`.
    """
    found = [float(value) for value in reward(rollouts)]
    if len(found) != len(rollouts):
        raise UserError(
            f"the reward gave {len(found)} numbers for {len(rollouts)} answers; it must give one "
            "for each, in their order"
        )
    bad = next((i for i, value in enumerate(found) if not abs(value) <= LARGEST_REWARD), None)
    if bad is not None:
        raise UserError(
            f"the reward of {rollouts[bad].text[:80]!r} is {found[bad]}; it must be "
            f"{REWARDS_ALLOWED}: give a low one to an answer that cannot be judged"
        )
    return np.array(found)


def with_missing_eos_penalty(
    scores: Float[np.ndarray, "*answers"], ended: Bool[np.ndarray, "*answers"], penalty: float
) -> Float[np.ndarray, "*answers"]:
    """The rewards of answers; one that does not end gets min(score, 0) - penalty.

    So not ending never pays: neither where ended answers score less than minus the penalty, nor
    where a cut answer scores higher than a short one that ends.
    """
    return np.where(ended, scores, np.minimum(scores, 0) - penalty)


# Packing.


@dataclass(frozen=True)
class PackedRollouts:
    """A micro-batch of rollouts: packed rows, and the indices of the rollouts in them, in order."""

    rows: Batch
    members: tuple[int, ...]


def pack_rollouts(
    rollouts: Sequence[Rollout],
    members: Sequence[int],
    *,
    context: int,
    micro_rows: int,
    one_shape: bool,
) -> list[PackedRollouts]:
    """Pack the rollouts `members` into micro-batches of at most `micro_rows` rows.

    If there are enough rows, there is at least one micro-batch per process. With `one_shape` the
    last one is filled up with empty rows, because another shape would recompile a compiled model.
    """
    examples = {i: rollouts[i].example for i in members}
    packed = pack([examples[i].inputs for i in members], context)
    rows = [[members[place] for place in row] for row in packed]
    batches, most = [], max(1, min(micro_rows, len(rows) // ranks.size()))
    for start in range(0, len(rows), most):
        some = rows[start : start + most]
        empty: list[list[int]] = [[]] * (micro_rows - len(some)) if one_shape else []
        batch = packed_batch([[examples[i] for i in row] for row in [*some, *empty]], context)
        batches.append(PackedRollouts(batch, tuple(i for row in some for i in row)))
    return batches


def flat(values: Sequence[PerToken], packed: PackedRollouts) -> Float[Tensor, " sampled"]:
    """The values of a micro-batch's tokens, taken from those of all rollouts."""
    joined = np.concatenate([values[i] for i in packed.members])
    return torch.from_numpy(joined.astype(np.float32))


@dataclass(frozen=True)
class RolloutBatch(TensorFields):
    """Packed rollouts, with the values of each sampled token that a policy-gradient loss needs.

    `token_weights` weighs the tokens in a sum that is divided by the total `weight` of a step.
    `old_logprobs` are those of the policy that sampled, `reference_logprobs` those of the model it
    started from, in nats.
    """

    rows: Batch
    weight: float
    token_weights: Float[Tensor, " sampled"]
    advantages: Float[Tensor, " sampled"]
    old_logprobs: Float[Tensor, " sampled"]
    reference_logprobs: Float[Tensor, " sampled"]


# Forward passes.


def sampled_logprobs(
    policy: CausalLM, hidden: Float[Tensor, "rows time width"], rows: Batch
) -> Float[Tensor, " sampled"]:
    """log p of each sampled token in nats, differentiable; at least in float32."""
    row, place = rows.weights.nonzero(as_tuple=True)
    return target_logprobs(hidden[row, place], policy.head, rows.targets[row, place])


@dataclass(frozen=True)
class TokenFacts:
    """The values of every rollout's tokens at the time of sampling, in nats except for `values`.

    `kl` is the exact KL(policy || reference) of each token's distribution over the vocabulary.
    `cost_values` are from the critic's second head, if it has one.
    """

    logprobs: list[PerToken]
    reference_logprobs: list[PerToken]
    kl: list[PerToken]
    entropy: list[PerToken]
    values: list[PerToken]
    cost_values: list[PerToken] = field(default_factory=list)

    def sampled_kl(self) -> float:
        """The KL of policy and reference in nats per rollout, estimated from sampled tokens."""
        apart = zip(self.logprobs, self.reference_logprobs, strict=True)
        return float(np.mean([(ours - theirs).sum() for ours, theirs in apart]))

    def exact_kl(self) -> float:
        """The same from whole distributions, with far less variance."""
        return float(np.mean([one.sum() for one in self.kl]))

    def mean_entropy(self) -> float:
        """Nats per token."""
        return float(np.concatenate(self.entropy).mean())


def token_facts(
    policy: CausalLM,
    reference: Callable[[], AbstractContextManager[CausalLM]],
    rollouts: Sequence[Rollout],
    batches: Iterable[PackedRollouts],
    values: Values | None = None,
) -> TokenFacts:
    """Read all micro-batches with policy and reference, without keeping gradients.

    `values(hidden, rows)` are the critic's, if there is one.
    """
    nothing = np.zeros(0, np.float32)
    columns: list[list[PerToken]] = [[nothing] * len(rollouts) for _ in range(6)]
    for one in batches:
        lengths = [len(rollouts[i].ids) for i in one.members]
        ends = np.cumsum(lengths)[:-1]
        # Without a second head the last column stays empty.
        read = _read(policy, reference, one.rows, values)
        for column, found in zip(columns, read, strict=False):
            for i, part in zip(one.members, np.split(found.cpu().numpy(), ends), strict=True):
                column[i] = part
    return TokenFacts(*columns)


def _read(
    policy: CausalLM,
    reference: Callable[[], AbstractContextManager[CausalLM]],
    rows: Batch,
    values: Values | None,
) -> list[Float[Tensor, " sampled"]]:
    """The columns of `TokenFacts` for one micro-batch.

    The policy's pass records gradients and drops them: a compiled pass with gradients rounds
    differently from one without, so the ratio would not be 1.
    """
    rows = rows.to(policy.head.device)
    row, place = rows.weights.nonzero(as_tuple=True)
    with torch.enable_grad():
        hidden = policy(rows)
        logprobs = sampled_logprobs(policy, hidden, rows).detach()
    hidden = hidden.detach()
    with torch.no_grad():
        expected = torch.zeros_like(logprobs) if values is None else values(hidden, rows)
        with reference() as model:
            other = model(rows)
            reference_logprobs = sampled_logprobs(model, other, rows)
        kl, uncertainty = torch.empty_like(logprobs), torch.empty_like(logprobs)
        step = chunk_rows(policy.head.shape[0])
        for start in range(0, len(logprobs), step):
            some = slice(start, start + step)
            logits = (hidden[row[some], place[some]] @ policy.head.T).float()
            others = (other[row[some], place[some]] @ model.head.T).float()
            logp = logits.log_softmax(-1)
            kl[some] = (logp.exp() * (logp - others.log_softmax(-1))).sum(-1)
            uncertainty[some] = entropy(logits)
    heads = expected.unbind(-1) if expected.dim() > 1 else [expected]
    return [logprobs, reference_logprobs, kl, uncertainty, *heads]


class Reference:
    """The model that the policy started from: the policy without its adapter, or a frozen copy.

    A copy is loaded from the folder when it is first needed, in the policy's dtype and device.
    """

    def __init__(self, load: Callable[[], CausalLM]) -> None:
        self._load = load
        self._copy: CausalLM | None = None

    def of(self, policy: CausalLM) -> Callable[[], AbstractContextManager[CausalLM]]:
        """Return a function that opens the reference of this policy."""
        if active_adapter(policy) is not None:
            return functools.partial(_without_adapter, policy)
        if self._copy is None:
            self._copy = _frozen_like(policy, self._load())
        copy = self._copy
        return lambda: nullcontext(copy)


@contextmanager
def _without_adapter(policy: CausalLM) -> Iterator[CausalLM]:
    with using_adapter(policy, None):
        yield policy


def _frozen_like(policy: CausalLM, model: CausalLM) -> CausalLM:
    """Freeze the model and give it the policy's dtype, device and attention."""
    model.requires_grad_(False).eval()
    model.to(device=policy.head.device, dtype=policy.head.dtype)
    model.set_attention(policy.attention)
    if policy.compiled:
        model.compile_blocks()
    return model


# The stream.


class RolloutStream:
    """Rollouts of the current policy; each iteration is read `epochs` times in minibatches.

        iteration:  roll(iteration, step, model) -> minibatches;  then each once an epoch

    `roll` samples, scores and packs. A run can be saved only between iterations, and resumes by
    rolling again: the same weights and seeds give the same rollouts. If `ended()` is true, an
    iteration ends early (the policy has moved too far), and new rollouts are made.
    """

    def __init__(
        self,
        roll: Callable[[int, int, nn.Module], Sequence[Sequence[Any]]],
        *,
        epochs: int,
        seed: int,
        ended: Callable[[], bool] = lambda: False,
        state: Callable[[], dict[str, Tensor]] = dict,
        restore: Callable[[Mapping[str, Tensor]], None] = lambda state: None,
    ) -> None:
        self._roll, self._ended = roll, ended
        self._epochs, self._seed = epochs, seed
        self._state, self._restore = state, restore
        self._iteration, self._place = -1, 0
        self._minibatches: Sequence[Sequence[Any]] = ()

    def at(self, step: int, model: nn.Module) -> Sequence[Any]:
        if self.can_save(step):
            # If rolling fails, as a user's reward may, the run can still be saved in this state.
            self._place, self._minibatches = 0, ()
            self._minibatches = self._roll(self._iteration + 1, step, model)
            self._iteration += 1
        epoch, place = divmod(self._place, len(self._minibatches))
        order = np.random.default_rng((self._seed, self._iteration, epoch))
        # The first epoch keeps the order of packing, later ones shuffle.
        turn = order.permutation(len(self._minibatches)) if epoch else np.arange(place + 1)
        self._place += 1
        return self._minibatches[int(turn[place])]

    def can_save(self, step: int) -> bool:
        used = self._place >= self._epochs * len(self._minibatches)
        return used or self._ended()

    def state(self) -> dict[str, Tensor]:
        return {"iteration": torch.tensor(self._iteration), **self._state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._iteration = int(state["iteration"])
        self._place, self._minibatches = 0, ()
        self._restore(state)


def prompts_of(
    prompts: Sequence[Prompt], count: int, iteration: int, *, seed: int, copies: int = 1
) -> list[Prompt]:
    """The prompts of an iteration, each `copies` times; every pass is a new permutation."""
    wanted = count // copies
    places = range(iteration * wanted, (iteration + 1) * wanted)
    chosen = [_permuted(len(prompts), seed, place) for place in places]
    return [prompts[i] for i in chosen for _ in range(copies)]


def _permuted(count: int, seed: int, place: int) -> int:
    epoch, index = divmod(place, count)
    return int(_permutation(count, seed, epoch)[index])


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng((seed, 1, epoch)).permutation(count)


def mismatch(rollouts: Sequence[Rollout], logprobs: Sequence[PerToken]) -> tuple[float, float]:
    """Mean and largest |log p of the engine - log p of the training pass| over all tokens."""
    apart = [
        np.abs(np.array(one.logprobs) - values)
        for one, values in zip(rollouts, logprobs, strict=True)
    ]
    joined = np.concatenate(apart)
    return float(joined.mean()), float(joined.max())
