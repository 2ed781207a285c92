"""The engine: requests join and leave a running batch at any time (continuous batching).

    engine = Engine(model, tokenizer)
    first = engine.submit(Request(prompt="The sea"))
    while engine.unfinished:
        for event in engine.step():      # one more token for every running request
            ...                          # and engine.submit(…), engine.cancel(…) at any time

Waiting requests are read (`prefill`) as soon as running ones have finished and freed their rows
(Yu et al. 2022, Orca, section 3). The running rows are always the first rows of the cache, so that
a step reads no others: a row that finishes is swapped with the last running one. Its keys stay in
the cache until the row is reused, for requests that begin with the same tokens.

The other rows of a batch change a row's result by rounding only: how matrix products are blocked
depends on their shape. In float32 log-probabilities agree within 1e-4, and ids agree except for
ties closer than that. In bfloat16, which keeps 8 significant bits, log-probabilities of the same
tokens agree within 1/64 of the largest logit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.adapters.attach import active_adapter
from groundup.errors import UserError, shorten
from groundup.generation.decode import Decode
from groundup.generation.penalties import Logits, SeenTokens
from groundup.generation.prefill import TOKENS_AT_ONCE, Prefill, schedule
from groundup.generation.request import (
    Completion,
    InputProcessor,
    Request,
    SequenceState,
    TopLogprobs,
)
from groundup.generation.sampling import BatchedSampling, as_int, restricted, sample
from groundup.generation.threads import OF_PRODUCTS, Threads, using
from groundup.lm.logprobs import NON_FINITE_LOGITS
from groundup.lm.model import CausalLM, in_eval_mode
from groundup.text.tokenizer import Tokenizer

# Default number of completions that run together.
BATCH_SIZE = 32
# How many waiting requests are searched for prompts that can be read with the first one.
_LOOK_AHEAD = 64
# A forward pass of fewer multiplications (tokens times parameters) takes a few milliseconds on one
# thread. More threads save a few of them, but cost half a second if a core is otherwise occupied.
_SMALL_PASS = 3e8
# Slots that a new row gets beyond its prompt; after that the cache doubles as rows need it.
_FIRST_SLOTS = 64


class Event(NamedTuple):
    """What one step produced for one request.

    `token` and `logprob` are None if the request ended without a token: its prompt fills the
    context, or it failed with `error`. `text` is the text that became final, often empty.
    `completion` is set in the last event of a request that did not fail.
    """

    id: int
    token: int | None = None
    logprob: float | None = None
    top_logprobs: TopLogprobs | None = None
    text: str = ""
    completion: Completion | None = None
    error: Exception | None = None

    @property
    def finished(self) -> bool:
        return self.completion is not None or self.error is not None


class Engine:
    """Serves many requests with one model (see the module's docstring). Not thread-safe.

    At most `batch_size` completions run together. With `share_prefixes` a common prefix of prompts
    is computed once. `prompt_tokens` limits the prompt tokens that a step reads in addition to
    generating: more shortens the wait for the first token, fewer keep running requests steady; None
    reads all prompts for which rows are free, which is fastest overall. Weights must not change
    while the engine lives, because the cache holds keys computed with the old ones. For the same
    reason it answers only with the adapter that is active when it is made.

    Steps of a few rows use whichever number of threads is fastest under the machine's current load.
    Steps of many rows do so only if `reproducible` is false, because the last bits of a product may
    depend on the number of threads.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        share_prefixes: bool = True,
        prompt_tokens: int | None = 512,
        reproducible: bool = True,
    ) -> None:
        if (as_int(batch_size) or 0) < 1:
            raise UserError(
                f"batch_size={shorten(batch_size)} must be a whole number from 1; try {BATCH_SIZE}"
            )
        if prompt_tokens is not None and (as_int(prompt_tokens) or 0) < 1:
            raise UserError(
                f"prompt_tokens={shorten(prompt_tokens)} must be a whole number from 1; try 512"
            )
        self._model, self._batch_size = model, batch_size
        self._prompt_tokens = prompt_tokens
        active = active_adapter(model)
        self._processor = InputProcessor(
            model.config, tokenizer, [] if active is None else [active]
        )
        self._submitted = 0
        self._waiting: deque[SequenceState] = deque()
        # Requests whose prompt fills the context, so that no token can follow.
        self._full: list[SequenceState] = []
        self._prefill: Prefill | None = None
        self._running: list[SequenceState] = []
        # Finished rows whose keys are still in the cache, after the running ones.
        self._retired: list[SequenceState] = []
        self._cache = model.empty_cache(0, 0)
        self._share = share_prefixes and self._cache.shares_prefixes
        self._decode = Decode(model)
        self._reproducible = reproducible
        self._set_threads()
        self._parameters = model.config.active_parameters
        # The last sampled tokens, each row's sampling, and the rows with masks or `top_logprobs`
        # are computed once and again when rows come or go. Tokens that a row has seen move with it.
        self._last_tokens: Int[Tensor, " rows"] | None = None
        self._sampling: BatchedSampling | None = None
        self._seen = SeenTokens()
        self._constrained: list[int] = []
        self._top_rows: list[int] = []

    def _set_threads(self) -> None:
        most = torch.get_num_threads()
        self._few = Threads(most)
        self._many = Threads(most, trials=OF_PRODUCTS)

    @property
    def unfinished(self) -> bool:
        """Whether any request still waits or runs."""
        return bool(self._waiting or self._running or self._prefill or self._full)

    def submit(self, request: Request, copy: int | None = None) -> int:
        """Queue a request; returns the id that its events carry.

        `copy` numbers equal requests, so that each gets different random numbers; None makes the
        engine count them, which costs a few bytes of memory for each.
        Raises `UserError` for a prompt that is empty or longer than the model's context, and for an
        adapter other than the active one.
        """
        return self.enqueue(self._processor.process(request, copy))

    def enqueue(self, row: SequenceState) -> int:
        """Queue a row that an `InputProcessor` made for this model."""
        row.id = self._submitted
        self._submitted += 1
        (self._waiting if row.finish_reason is None else self._full).append(row)
        return row.id

    @torch.inference_mode()
    def cancel(self, id: int) -> Completion | None:
        """Drop a request; returns its completion so far, or None for one that has ended."""
        reading = [] if self._prefill is None else self._prefill.rows
        places: tuple[Iterable[SequenceState], ...] = (
            self._waiting,
            self._full,
            reading,
            self._running,
        )
        here = (row for place in places for row in place if row.id == id)
        row = next((row for row in here if row.finish_reason != "cancelled"), None)
        if row is None:
            return None
        row.cancel()
        self._waiting = deque(row for row in self._waiting if row.finish_reason is None)
        self._full = [row for row in self._full if row.finish_reason != "cancelled"]
        if all(row.finish_reason is not None for row in reading):
            self._prefill = None
        self._remove_finished()
        return row.completion()

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Read waiting prompts while rows are free, and generate a token for each running request.

        After an exception (Ctrl-C, out of memory) the engine cannot be used any more.
        """
        events = [Event(row.id, completion=row.completion()) for row in self._full]
        self._full = []
        # Visiting all modules takes a tenth of a small model's step.
        with in_eval_mode(self._model) if self._model.training else nullcontext():
            if self._few.most != torch.get_num_threads():
                self._set_threads()
            fresh = self._join()
            if self._running:
                events += self._advance(fresh)
                if fresh:
                    self._last_tokens = None
                self._remove_finished()
        return events

    # Joining.

    def _join(self) -> list[Float[Tensor, " width"]]:
        """Read prompts, up to a step's tokens; returns the last hidden states of joining rows."""
        fresh: list[Float[Tensor, " width"]] = []
        tokens = math.inf if self._prompt_tokens is None else self._prompt_tokens
        while tokens > 0 or not self._running:
            if self._prefill is None and not self._begin_prefill():
                break
            assert self._prefill is not None
            tokens -= self._read_prompts(int(min(TOKENS_AT_ONCE, max(1, tokens))))
            if self._prefill.done:
                fresh += self._finish_prefill(self._prefill)
                self._prefill = None
        return fresh

    def _read_prompts(self, tokens: int) -> int:
        """Read up to `tokens` tokens of the prefill; returns the number read."""
        assert self._prefill is not None
        count = min(tokens, self._prefill.tokens_left)
        with using(1) if count * self._parameters < _SMALL_PASS else nullcontext():
            return self._prefill.advance(tokens)

    def _begin_prefill(self) -> bool:
        """Begin a prefill; returns False if no request waits or no row is free."""
        places = self._batch_size - len(self._running)
        if not places or not self._waiting:
            return False
        looked = [self._waiting.popleft() for _ in range(min(_LOOK_AHEAD, len(self._waiting)))]
        resident = [*self._running, *self._retired]
        prompts = schedule(looked, resident, places, share=self._share)
        self._prefill = Prefill(self._model, prompts, self._cache)
        taken = {row.id for row in self._prefill.rows}
        self._waiting.extendleft(row for row in reversed(looked) if row.id not in taken)
        return True

    def _finish_prefill(self, prefill: Prefill) -> list[Float[Tensor, " width"]]:
        """Copy the rows of a finished prefill into the cache, after the running ones."""
        joining = [
            (row, i)
            for i, prompt in enumerate(prefill.prompts)
            for row in prompt.rows
            if row.finish_reason is None  # it may have been cancelled meanwhile
        ]
        if not joining:
            return []
        for row, _ in joining:
            row.read = len(row.prompt)
        place, longest = len(self._running), max(row.read for row, _ in joining)
        self._grow_cache(place + len(joining), longest, *(row for row, _ in joining))
        self._cache.copy_rows(place, prefill.cache, [i for _, i in joining], longest)
        del self._retired[: len(joining)]
        self._running += [row for row, _ in joining]
        self._last_tokens = self._sampling = None
        return [prefill.hidden[i] for _, i in joining]

    def _grow_cache(self, rows: int, slots: int, *new_rows: SequenceState) -> None:
        """Grow the cache by doubling, at most to `batch_size` rows and the longest row's need.

        Memory thus follows actual use, not the model's context length.
        """
        if rows > self._cache.rows:
            rows = min(self._batch_size, max(rows, 2 * self._cache.rows))
        if slots > self._cache.slots:
            longest = max(row.longest for row in (*self._running, *new_rows))
            slots = min(longest, max(slots + _FIRST_SLOTS, 2 * self._cache.slots))
        self._cache.grow(rows, slots)

    # Running.

    def _advance(self, fresh: list[Float[Tensor, " width"]]) -> list[Event]:
        """One more token for every running row; `fresh` are the last states of new rows."""
        is_one_call = self._decode.is_one_call(len(self._running))
        if self._model.like.device.type != "cpu" or (self._reproducible and not is_one_call):
            return self._sample(self._read(fresh))
        events: list[Event] = []

        def step(threads: int) -> None:
            with using(threads):
                events.extend(self._sample(self._read(fresh)))

        (self._few if is_one_call else self._many).run(step)
        return events

    def _read(self, fresh: list[Float[Tensor, " width"]]) -> Float[Tensor, "rows width"]:
        """The last state of every running row; `fresh` are those of new rows, which come last."""
        old = self._running[: len(self._running) - len(fresh)]
        if not old:
            return torch.stack(fresh)
        if self._last_tokens is None or self._decode.highest == self._cache.slots:
            positions = [row.read for row in old]
            self._grow_cache(0, max(positions) + 1)
            self._decode.begin(self._cache, positions)
            self._last_tokens = torch.tensor(
                [row.ids[-1] for row in old], device=self._model.like.device
            )
        hidden = self._decode.step(self._last_tokens)
        for row in old:
            row.read += 1
        return torch.cat([hidden, torch.stack(fresh)]) if fresh else hidden

    def _sample(self, hidden: Float[Tensor, "rows width"]) -> list[Event]:
        logits = self._decode.logits(hidden)
        logprobs = logits.log_softmax(-1)
        draws = self._batched_sampling(logits)
        choice, failed = self._apply_masks(logits)
        choice = self._fail_non_finite(choice, logprobs, failed)
        uniforms = torch.zeros(len(self._running))
        if draws.random:
            uniforms = torch.tensor([row.uniform() for row in self._running], dtype=torch.float32)
        self._last_tokens = tokens = sample(choice, draws, uniforms.to(logits.device), self._seen)
        self._seen.add(tokens)
        drawn = tokens.tolist(), logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
        tops = self._top_logprobs(logprobs)
        events = []
        for i, (row, token, logprob) in enumerate(zip(self._running, *drawn, strict=True)):
            if i in failed:
                row.cancel()
                events.append(Event(row.id, error=failed[i]))
                continue
            top = tops.get(i)
            text = row.push(token, logprob, top)
            ended = row.completion() if row.finish_reason is not None else None
            events.append(Event(row.id, token, logprob, top, text, ended))
        return events

    def _apply_masks(self, logits: Logits) -> tuple[Logits, dict[int, Exception]]:
        """The logits with masks applied, and the errors of the rows whose masks failed.

        A mask is user code: its exception ends its own request and no other.
        """
        failed: dict[int, Exception] = {}
        choice = logits
        for i in self._constrained:
            try:
                allowed = self._running[i].allowed(logits.shape[-1])
            except Exception as error:
                failed[i] = error
                continue
            if allowed is not None:
                choice = logits.clone() if choice is logits else choice
                choice[i] = restricted(choice[i], allowed)
        return choice, failed

    def _fail_non_finite(
        self, choice: Logits, logprobs: Logits, failed: dict[int, Exception]
    ) -> Logits:
        """The logits, with rows that are not finite set to zero and recorded as failed."""
        # One NaN or infinity makes all log-probabilities of its row NaN.
        damaged = logprobs[:, 0].isnan()
        if not bool(damaged.any()):
            return choice
        for i in damaged.nonzero()[:, 0].tolist():
            # No later request may reuse this row's keys.
            self._cache.clear(i)
            self._running[i].read = 0
            failed[i] = UserError(NON_FINITE_LOGITS)
        return choice.masked_fill(damaged[:, None], 0.0)

    def _batched_sampling(self, logits: Logits) -> BatchedSampling:
        """Each row's sampling and the tokens it has seen; rebuilt when rows come or go."""
        if self._sampling is None:
            rows = list(enumerate(self._running))
            self._constrained = [i for i, row in rows if row.constrained]
            self._top_rows = [i for i, row in rows if row.request.top_logprobs]
            samplings = [row.sampling for row in self._running]
            self._sampling = draws = BatchedSampling(samplings, logits.shape[-1], logits.device)
            self._seen = self._seen.updated(
                self._running,
                logits,
                anywhere=(lambda row: row.tokens) if draws.penalizes_seen else None,
                counts=(lambda row: row.ids) if draws.penalizes_counts else None,
            )
        return self._sampling

    def _top_logprobs(self, logprobs: Logits) -> dict[int, TopLogprobs]:
        """The most likely tokens of the rows that request them."""
        if not self._top_rows:
            return {}
        vocab = logprobs.shape[-1]
        counts = [min(self._running[i].request.top_logprobs, vocab) for i in self._top_rows]
        values, ids = logprobs[self._top_rows].topk(max(counts))
        rows = zip(self._top_rows, counts, ids.tolist(), values.tolist(), strict=True)
        return {i: dict(zip(ids[:n], values[:n], strict=True)) for i, n, ids, values in rows}

    def _remove_finished(self) -> None:
        """Remove finished rows; the last running rows take their places."""
        rows = self._running
        kept = sum(row.finish_reason is None for row in rows)
        if kept == len(rows):
            return
        holes = [i for i in range(kept) if rows[i].finish_reason is not None]
        movers = [i for i in range(kept, len(rows)) if rows[i].finish_reason is None]
        for hole, mover in zip(holes, movers, strict=True):
            self._cache.swap(hole, mover, max(rows[hole].read, rows[mover].read))
            rows[hole], rows[mover] = rows[mover], rows[hole]
            self._seen.move(mover, hole)
        self._retired = [*rows[kept:], *self._retired]
        del rows[kept:]
        self._seen = self._seen.keep(kept)
        self._last_tokens = self._sampling = None
