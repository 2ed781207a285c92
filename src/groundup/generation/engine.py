"""The engine: requests join and leave a running batch at any time.

    engine = Engine(model, tokenizer)
    first = engine.submit(Request(prompt="The sea"))
    while engine.unfinished:
        for event in engine.step():      # one more token for every running request
            ...                          # and engine.submit(…), engine.cancel(…) at any time

Waiting requests are read (`prefill`) as soon as a running one has ended and left its place
("continuous batching": Yu et al. 2022, Orca, section 3). The running rows are always the first of
the cache, so that a step looks at no others: a row that leaves changes places with the last one.
What it had read stays until its place is taken, for requests that begin with the same tokens.

A row's result depends on the rows beside it by rounding only: how matrix products are blocked
depends on their shape. In float32 log-probabilities agree within 1e-4, and so, but for ties closer
than that, do ids. In bfloat16, which keeps 8 bits of a number, log-probabilities of the same tokens
agree within 1/64 of the largest logit.
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
from groundup.generation.sampling import BatchedSampling, restricted, sample, whole
from groundup.generation.threads import OF_PRODUCTS, Threads, using
from groundup.lm.logprobs import NO_NUMBERS
from groundup.lm.model import CausalLM, in_eval_mode
from groundup.text.tokenizer import Tokenizer

# Completions at a time, by default.
BATCH_SIZE = 32
# How far down the queue we look for prompts that can be read with the first one.
_LOOK_AHEAD = 64
# Below so many multiplications, tokens by parameters, a pass takes some milliseconds with one
# thread; more save a few of them, and where a neighbor has taken a core they cost half a second.
_SMALL_PASS = 3e8
# Slots that a new row gets beyond its prompt; then the cache doubles as the rows need it.
_FIRST_SLOTS = 64


class Event(NamedTuple):
    """What one step brought for one request.

    `token` and `logprob` are None where it ended without one: its prompt fills the context, or its
    mask failed, which is `error`. `text` is what became sure, often nothing. `completion` is there
    with the last event of a request that did not fail.
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
    """Serves many requests with one model; see above. One thread at a time may use it.

    At most `batch_size` completions run together. With `share_prefixes` nothing is computed twice
    where prompts begin with the same tokens. `prompt_tokens` is how many tokens of prompts a step
    reads beside drawing: more shortens the wait for the first token, less keeps the running
    requests steady; None reads all prompts that there are places for, which is fastest overall.
    Weights must not change while the engine lives, because the cache holds keys of the old ones; so
    it answers with the adapter that is active when it is made, and with no other.

    Steps of a few rows take as many threads as are fastest beside what else runs on the machine.
    Those of many do so only if the engine need not be `reproducible`, as the last bits of a product
    may depend on that.
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
        if (whole(batch_size) or 0) < 1:
            raise UserError(
                f"batch_size={shorten(batch_size)} must be a whole number from 1; try {BATCH_SIZE}"
            )
        if prompt_tokens is not None and (whole(prompt_tokens) or 0) < 1:
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
        # Prompts that fill the context, so that no token can follow.
        self._full: list[SequenceState] = []
        self._prefill: Prefill | None = None
        self._running: list[SequenceState] = []
        # Finished rows whose keys still stand in the cache, behind the running ones.
        self._left: list[SequenceState] = []
        self._cache = model.empty_cache(0, 0)
        self._share = share_prefixes and self._cache.shares_prefixes
        self._decode = Decode(model)
        self._reproducible = reproducible
        self._set_threads()
        self._parameters = model.config.active_parameters
        # What follows from who is running is found out once, and again when rows come or go: the
        # tokens last drawn, each row's settings, and the rows that want more. The tokens that a row
        # has seen move with it.
        self._drawn: Int[Tensor, " rows"] | None = None
        self._sampling: BatchedSampling | None = None
        self._seen = SeenTokens()
        self._constrained: list[int] = []
        self._asking: list[int] = []

    def _set_threads(self) -> None:
        most = torch.get_num_threads()
        self._few = Threads(most)
        self._many = Threads(most, trials=OF_PRODUCTS)

    @property
    def unfinished(self) -> bool:
        """Whether any request still waits or runs."""
        return bool(self._waiting or self._running or self._prefill or self._full)

    def submit(self, request: Request, copy: int | None = None) -> int:
        """Queue a request; returns the number by which events name it.

        `copy` numbers equal requests, so that each draws tokens of its own; left out, the engine
        counts them, and remembers a few bytes of each.
        Raises `UserError` for a prompt that is empty or longer than the model's context, and for an
        adapter that is not the one which answers.
        """
        return self.enqueue(self._processor.process(request, copy))

    def enqueue(self, row: SequenceState) -> int:
        """Queue a row that was made elsewhere for this model."""
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
        self._leave()
        return row.completion()

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Read waiting prompts while places are free, and draw a token for every running request.

        An exception (Ctrl-C, no memory left) leaves an engine that cannot be used any more.
        """
        events = [Event(row.id, completion=row.completion()) for row in self._full]
        self._full = []
        # To look into a model's every part takes a tenth of a small model's step.
        with in_eval_mode(self._model) if self._model.training else nullcontext():
            if self._few.most != torch.get_num_threads():
                self._set_threads()
            fresh = self._join()
            if self._running:
                events += self._advance(fresh)
                if fresh:
                    self._drawn = None
                self._leave()
        return events

    # Joining.

    def _join(self) -> list[Float[Tensor, " width"]]:
        """Read prompts, up to a step's tokens; returns the last states of the rows that join."""
        fresh: list[Float[Tensor, " width"]] = []
        tokens = math.inf if self._prompt_tokens is None else self._prompt_tokens
        while tokens > 0 or not self._running:
            if self._prefill is None and not self._begin():
                break
            assert self._prefill is not None
            tokens -= self._read_prompts(int(min(TOKENS_AT_ONCE, max(1, tokens))))
            if self._prefill.done:
                fresh += self._finish(self._prefill)
                self._prefill = None
        return fresh

    def _read_prompts(self, tokens: int) -> int:
        """Read up to so many tokens of the prefill; returns the number read."""
        assert self._prefill is not None
        count = min(tokens, self._prefill.tokens_left)
        with using(1) if count * self._parameters < _SMALL_PASS else nullcontext():
            return self._prefill.advance(tokens)

    def _begin(self) -> bool:
        """Begin a prefill; returns False where no request waits or no place is free."""
        places = self._batch_size - len(self._running)
        if not places or not self._waiting:
            return False
        looked = [self._waiting.popleft() for _ in range(min(_LOOK_AHEAD, len(self._waiting)))]
        resident = [*self._running, *self._left]
        prompts = schedule(looked, resident, places, share=self._share)
        self._prefill = Prefill(self._model, prompts, self._cache)
        taken = {row.id for row in self._prefill.rows}
        self._waiting.extendleft(row for row in reversed(looked) if row.id not in taken)
        return True

    def _finish(self, prefill: Prefill) -> list[Float[Tensor, " width"]]:
        """Give the rows of a finished prefill their places behind the running ones."""
        joining = [
            (row, i)
            for i, prompt in enumerate(prefill.prompts)
            for row in prompt.rows
            if row.finish_reason is None  # or it was cancelled meanwhile
        ]
        if not joining:
            return []
        for row, _ in joining:
            row.read = len(row.prompt)
        place, longest = len(self._running), max(row.read for row, _ in joining)
        self._make_room(place + len(joining), longest, *(row for row, _ in joining))
        self._cache.copy_rows(place, prefill.cache, [i for _, i in joining], longest)
        del self._left[: len(joining)]
        self._running += [row for row, _ in joining]
        self._drawn = self._sampling = None
        return [prefill.hidden[i] for _, i in joining]

    def _make_room(self, rows: int, slots: int, *newcomers: SequenceState) -> None:
        """Grow the cache by doubling, at most to `batch_size` rows and what the longest may need.

        So memory follows what is used, and not the model's longest context.
        """
        if rows > self._cache.rows:
            rows = min(self._batch_size, max(rows, 2 * self._cache.rows))
        if slots > self._cache.slots:
            longest = max(row.longest for row in (*self._running, *newcomers))
            slots = min(longest, max(slots + _FIRST_SLOTS, 2 * self._cache.slots))
        self._cache.grow(rows, slots)

    # Running.

    def _advance(self, fresh: list[Float[Tensor, " width"]]) -> list[Event]:
        """One more token for every running row; `fresh` are the last states of newcomers."""
        is_one_call = self._decode.is_one_call(len(self._running))
        if self._model.like.device.type != "cpu" or (self._reproducible and not is_one_call):
            return self._draw(self._read(fresh))
        events: list[Event] = []

        def step(threads: int) -> None:
            with using(threads):
                events.extend(self._draw(self._read(fresh)))

        (self._few if is_one_call else self._many).run(step)
        return events

    def _read(self, fresh: list[Float[Tensor, " width"]]) -> Float[Tensor, "rows width"]:
        """The last state of every running row; `fresh` are those of newcomers, which stand last."""
        old = self._running[: len(self._running) - len(fresh)]
        if not old:
            return torch.stack(fresh)
        if self._drawn is None or self._decode.highest == self._cache.slots:
            positions = [row.read for row in old]
            self._make_room(0, max(positions) + 1)
            self._decode.begin(self._cache, positions)
            self._drawn = torch.tensor([row.ids[-1] for row in old], device=self._model.like.device)
        hidden = self._decode.step(self._drawn)
        for row in old:
            row.read += 1
        return torch.cat([hidden, torch.stack(fresh)]) if fresh else hidden

    def _draw(self, hidden: Float[Tensor, "rows width"]) -> list[Event]:
        logits = self._decode.logits(hidden)
        logprobs = logits.log_softmax(-1)
        draws = self._settings(logits)
        choice, failed = self._masked(logits)
        choice = self._finite(choice, logprobs, failed)
        uniforms = torch.zeros(len(self._running))
        if draws.random:
            uniforms = torch.tensor([row.uniform() for row in self._running], dtype=torch.float32)
        self._drawn = tokens = sample(choice, draws, uniforms.to(logits.device), self._seen)
        self._seen.add(tokens)
        drawn = tokens.tolist(), logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
        tops = self._tops(logprobs)
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

    def _masked(self, logits: Logits) -> tuple[Logits, dict[int, Exception]]:
        """The logits with masks applied, and the errors of the rows whose masks failed.

        A mask is foreign code: what it raises ends its own request, and no other.
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

    def _finite(self, choice: Logits, logprobs: Logits, failed: dict[int, Exception]) -> Logits:
        """The logits, with rows that are not finite set to zero and recorded as failed."""
        # One of them makes the sum NaN or infinite, and so all log-probabilities of its row NaN.
        damaged = logprobs[:, 0].isnan()
        if not bool(damaged.any()):
            return choice
        for i in damaged.nonzero()[:, 0].tolist():
            # No later request may share its prefix.
            self._cache.clear(i)
            self._running[i].read = 0
            failed[i] = UserError(NO_NUMBERS)
        return choice.masked_fill(damaged[:, None], 0.0)

    def _settings(self, logits: Logits) -> BatchedSampling:
        """Each row's settings and the tokens it has seen; made anew when rows come or go."""
        if self._sampling is None:
            rows = list(enumerate(self._running))
            self._constrained = [i for i, row in rows if row.constrained]
            self._asking = [i for i, row in rows if row.request.top_logprobs]
            samplings = [row.sampling for row in self._running]
            self._sampling = draws = BatchedSampling(samplings, logits.shape[-1], logits.device)
            self._seen = self._seen.updated(
                self._running,
                logits,
                anywhere=(lambda row: row.tokens) if draws.penalizes_seen else None,
                counts=(lambda row: row.ids) if draws.penalizes_counts else None,
            )
        return self._sampling

    def _tops(self, logprobs: Logits) -> dict[int, TopLogprobs]:
        """The likeliest tokens of the rows that ask for them."""
        if not self._asking:
            return {}
        vocab = logprobs.shape[-1]
        counts = [min(self._running[i].request.top_logprobs, vocab) for i in self._asking]
        values, ids = logprobs[self._asking].topk(max(counts))
        rows = zip(self._asking, counts, ids.tolist(), values.tolist(), strict=True)
        return {i: dict(zip(ids[:n], values[:n], strict=True)) for i, n, ids, values in rows}

    def _leave(self) -> None:
        """Drop finished rows: the last running ones take their places."""
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
        self._left = [*rows[kept:], *self._left]
        del rows[kept:]
        self._seen = self._seen.keep(kept)
        self._drawn = self._sampling = None
