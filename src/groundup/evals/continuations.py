"""The log-probability of a continuation of a text, on which plain multiple choice is based.

    log p(continuation | prompt) = sum over its tokens of log p(token | prompt, its tokens before)

Prompt and continuation are encoded as one text and then split, so that the tokens are those of
running text. Blanks at the prompt's end go to the continuation, since " bank" is one token and
" " + "bank" is a text that nobody writes. The lm-evaluation-harness does the same (`_encode_pair`).

The options of a question share their prompt. It is read once, into a KV cache whose rows are then
copied for each option: reading the prompt with every option would take two to three times as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import UserError
from groundup.lm.cache import Cache
from groundup.lm.logprobs import require_finite
from groundup.lm.model import CausalLM, in_eval_mode, uncompiled
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.train.loss import CHUNK

# Prompt tokens that are read at once, and continuations: large enough for full matrix products,
# and a few hundred megabytes of cache for a model of 30 layers.
_SLOTS = 4096
_ROWS = 32


@dataclass(frozen=True)
class Pair:
    """Tokens that are given (at least one), and those whose probability is computed."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]

    def cut_to(self, context: int) -> Pair:
        """The pair with at most `context` tokens to read; the last token is never read.

        The prompt is cut at its beginning; a continuation that does not fit alone, at its end.
        """
        continuation = self.continuation[:context]
        room = context + 1 - len(continuation)
        return Pair(self.prompt[-room:], continuation)


@dataclass(frozen=True)
class Scored:
    """log p in nats of each token of a continuation; `greedy` if each was the most likely one."""

    logprobs: Float[np.ndarray, " tokens"]
    greedy: bool

    @property
    def total(self) -> float:
        return float(self.logprobs.sum())


def opening_of(model: CausalLM, tokenizer: Tokenizer) -> int:
    """The token before the beginning of a text, which stands for an empty prompt."""
    bos = model.config.bos_token_id
    return tokenizer.end_of_text if bos is None else bos


def encode_pair(tokenizer: Tokenizer, prompt: str, continuation: str, opening: int) -> Pair:
    """The tokens of both. The token `opening` stands for an empty prompt.

    Raises UserError if the continuation adds no token.
    """
    kept = prompt.rstrip()
    whole = prompt + continuation
    start = [*tokenizer.opening_ids, *tokenizer.encode(kept)] or [opening]
    # A prompt of nothing but blanks becomes a part of the continuation.
    ids = [*tokenizer.opening_ids, *tokenizer.encode(whole)]
    asked = ids[len(start) :] if kept or tokenizer.opening_ids else ids
    if not asked:
        raise UserError(
            f"the continuation {continuation!r} adds no token to its prompt; give one with text"
        )
    return Pair(tuple(start), tuple(asked))


@torch.inference_mode()
def continuation_logprobs(
    model: CausalLM, pairs: Sequence[Pair], *, context: int, slots: int = _SLOTS
) -> list[Scored]:
    """Score every pair, in order, cut to `context`; `slots` tokens of prompts are read at once.

    Raises UserError for a model whose logits are not finite.
    """
    cut = [pair.cut_to(context) for pair in pairs]
    found: list[Scored | None] = [None] * len(cut)
    # In float32 whatever the model's dtype: bfloat16 would round a logit of 20 to an eighth.
    head = model.head.float()
    with in_eval_mode(model), uncompiled(model):
        for groups in _batches(cut, slots):
            cache, ends = _read_prompts(model, [[cut[i] for i in group] for group in groups])
            # Continuations of similar length together: otherwise most of a batch would be padding.
            owned = [(n, i) for n, group in enumerate(groups) for i in group]
            owned.sort(key=lambda one: len(cut[one[1]].continuation))
            for start in range(0, len(owned), _ROWS):
                owners, members = zip(*owned[start : start + _ROWS], strict=True)
                rows = torch.tensor(owners, device=head.device)
                asked = [cut[i] for i in members]
                scored = _read_continuations(model, head, asked, ends[rows], cache.select(rows))
                for i, one in zip(members, scored, strict=True):
                    found[i] = one
    return [one for one in found if one is not None]


def _batches(pairs: Sequence[Pair], slots: int) -> Iterator[list[list[int]]]:
    """Indices of pairs, grouped by prompt; a batch has groups of similar length."""
    of_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        of_prompt[pair.prompt].append(i)
    batch: list[list[int]] = []
    width = 0
    for group in sorted(of_prompt.values(), key=lambda group: -len(pairs[group[0]].prompt)):
        longest = max(len(pairs[i].prompt) + len(pairs[i].continuation) for i in group)
        if batch and (len(batch) + 1) * max(width, longest) > slots:
            yield batch
            batch, width = [], 0
        batch.append(group)
        width = max(width, longest)
    if batch:
        yield batch


def _read_prompts(
    model: CausalLM, groups: Sequence[Sequence[Pair]]
) -> tuple[Cache, Float[Tensor, "groups width"]]:
    """Read every prompt once: the cache, with room for what follows, and the last states."""
    prompts = [group[0].prompt for group in groups]
    slots = max(len(pair.prompt) + len(pair.continuation) for group in groups for pair in group)
    cache = model.empty_cache(len(prompts), slots)
    device = model.head.device
    batch = Batch.of(_padded(prompts), [len(prompt) for prompt in prompts])
    hidden = model(batch.to(device), cache)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    return cache, hidden[torch.arange(len(prompts), device=device), last]


def _read_continuations(
    model: CausalLM,
    head: Float[Tensor, "vocab width"],
    pairs: Sequence[Pair],
    ends: Float[Tensor, "pairs width"],
    cache: Cache,
) -> Iterator[Scored]:
    """Score continuations, one cache row each; the last token is scored and not read."""
    hidden = ends[:, None]
    if any(len(pair.continuation) > 1 for pair in pairs):
        hidden = torch.cat([hidden, model(_continuing(pairs).to(head.device), cache)], dim=1)
    targets = _padded([pair.continuation for pair in pairs]).to(head.device)
    lengths = torch.tensor([len(pair.continuation) for pair in pairs], device=head.device)
    inside = torch.arange(targets.shape[1], device=head.device) < lengths[:, None]
    logprobs, best = _score_targets(hidden[inside], head, targets[inside])
    cuts = np.cumsum([len(pair.continuation) for pair in pairs])[:-1]
    flat = logprobs.double().cpu().numpy()
    require_finite(flat)
    values = np.split(flat, cuts)
    greedy = np.split(best.cpu().numpy(), cuts)
    for one, most_likely in zip(values, greedy, strict=True):
        yield Scored(one, bool(most_likely.all()))


def _continuing(pairs: Sequence[Pair]) -> Batch:
    """The continuations without their last tokens, at the positions after their prompts.

    Shorter ones repeat their last token at the same position: it writes the same key into the
    cache once more, and no position exceeds the model's context.
    """
    read = [pair.prompt[-1:] + pair.continuation[:-1] for pair in pairs]
    width = max(map(len, read)) - 1
    ids = torch.empty(len(pairs), width, dtype=torch.int64)
    places = torch.empty_like(ids)
    for row, (pair, tokens) in enumerate(zip(pairs, read, strict=True)):
        at = [min(place, len(tokens) - 1) for place in range(1, width + 1)]
        ids[row] = torch.tensor([tokens[place] for place in at])
        places[row] = torch.tensor(at) + len(pair.prompt) - 1
    zeros = torch.zeros_like(ids)
    return Batch(ids, zeros, zeros.float(), places, zeros)


def _padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "rows time"]:
    out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return out


def _score_targets(
    hidden: Float[Tensor, "tokens width"],
    head: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
) -> tuple[Float[Tensor, " tokens"], Bool[Tensor, " tokens"]]:
    """log p of each target, and whether it is the most likely token; computed in chunks."""
    logprobs, best = [], []
    for start in range(0, len(targets), CHUNK):
        logits = hidden[start : start + CHUNK].float() @ head.T
        chosen = logits.gather(-1, targets[start : start + CHUNK, None])[:, 0]
        logprobs.append(chosen - logits.logsumexp(-1))
        best.append(chosen >= logits.amax(-1))
    return torch.cat(logprobs), torch.cat(best)
