"""The two answers to a prompt: which side each is on, and how both are sampled."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from groundup.align.label.log import now
from groundup.data.fields import check_order
from groundup.data.fields import prompt as prompt_of
from groundup.data.votes import DECIDED, Vote, valid_votes
from groundup.errors import UserError
from groundup.generation.engine import Engine
from groundup.generation.request import Completion, InputProcessor, Request, SequenceState
from groundup.generation.sampling import Sampling, recorded
from groundup.lm.model import CausalLM
from groundup.text.rows import BadLine, BadRow, Message, PromptRow, as_dicts
from groundup.text.tokenizer import Tokenizer

# Pairs of answers sampled at a time: at first few, to begin soon, then enough for a good batch.
FIRST_PAIRS, PAIRS = 4, 16
# Digits of the SHA-256 that identify weights in a vote.
HASH = 16


@dataclass(frozen=True)
class Comparison:
    """Two answers to compare: which of them is on the left, and the seeds that sample them.

    All of it follows from the log's `seed` and from what is compared, so it is the same when the
    command continues.
    """

    prompt: tuple[Message, ...]
    id: str
    left: str
    seeds: tuple[int, int]


def comparisons(
    prompts: Sequence[tuple[Message, ...]], settings: Mapping[str, object], seed: int
) -> list[Comparison]:
    """One for each prompt, in order; `settings` is everything else that the answers depend on."""
    found: list[Comparison] = []
    times: dict[str, int] = {}  # a repeated prompt gets another comparison
    for prompt in prompts:
        turns = [(turn.role, turn.content) for turn in prompt]
        said = json.dumps([turns, settings, seed], sort_keys=True)
        times[said] = times.get(said, -1) + 1
        id = hashlib.sha256(f"{times[said]} {said}".encode()).hexdigest()[:16]
        rng = random.Random(id)
        left = rng.choice(DECIDED)
        found.append(Comparison(prompt, id, left, (rng.getrandbits(32), rng.getrandbits(32))))
    return found


# Sampling the answers.


@dataclass(frozen=True)
class Candidate:
    """One of the two models that are compared, and how it samples."""

    model: CausalLM
    tokenizer: Tokenizer
    sampling: Sampling


@dataclass(frozen=True)
class SampledPair:
    """The two answers to a prompt, and whether each has ended, which old votes do not say."""

    comparison: Comparison
    a: str
    b: str
    ended: tuple[bool, ...] = ()

    @property
    def sides(self) -> tuple[str, str]:
        """Which answer is on the left, and which on the right: a or b."""
        return ("a", "b") if self.comparison.left == "a" else ("b", "a")

    def shown(self, name: str) -> str:
        """The answer a or b as a person sees it."""
        ended = dict(zip(DECIDED, self.ended, strict=False)).get(name, True)
        text = self.a if name == "a" else self.b
        return (text or "(no words)") + ("" if ended else " … (cut)")

    def vote(self, choice: str, who: str, candidates: Sequence[tuple[str, str]]) -> Vote:
        """The vote for a `choice`: left, right, or one that names no side.

        `candidates` are the names and hashes of the models.
        """
        asked = self.comparison
        names, hashes = zip(*candidates, strict=True)
        return Vote(
            asked.prompt,
            self.a,
            self.b,
            dict(zip(("left", "right"), self.sides, strict=True)).get(choice, choice),
            who,
            now(),
            asked.id,
            asked.left,
            names,
            hashes,
            asked.seeds,
            self.ended,
        )


def prompt_turns(
    rows: Sequence[PromptRow], file: str
) -> tuple[list[tuple[int, tuple[Message, ...]]], list[BadLine]]:
    """The prompts as turns that end with the user's, each with its line; and the bad lines."""
    asked, bad = list[tuple[int, tuple[Message, ...]]](), list[BadLine]()
    for row in rows:
        turns = row.asked
        try:
            check_order(turns)
            prompt_of({"prompt": as_dicts(turns)})
            asked.append((row.line, turns))
        except BadRow as reason:
            bad.append(BadLine(file, row.line, str(reason)))
    return asked, bad


def with_sampling(sampling: Sampling, temperature: float | None) -> Sampling:
    """The sampling settings, with sampling even if the model's folder does not ask for it.

    A `temperature` that the user gave is used as it is.
    """
    if temperature is not None:
        return replace(sampling, temperature=temperature)
    return sampling if sampling.temperature else replace(sampling, temperature=Sampling.temperature)


def sampling_settings(hashes: Sequence[str], samplings: Sequence[Sampling]) -> dict[str, object]:
    """All that answers depend on, for the `settings` of `comparisons`.

    Raises `UserError` if both answers would be the same.
    """
    if hashes[0] == hashes[1] and not samplings[0].temperature:
        raise UserError(
            "temperature=0 samples the same answer twice from one model, so there is nothing to "
            "compare; try 0.7"
        )
    settings = [
        {name: value for name, value in recorded(one).items() if value is not None}
        for one in samplings
    ]
    return {"hashes": list(hashes), "sampling": settings}


def unanswerable(
    candidates: Sequence[Candidate], todo: Sequence[Comparison]
) -> dict[str, UserError]:
    """The comparisons that a model cannot answer, such as prompts longer than its context."""
    found: dict[str, UserError] = {}
    for comparison in todo:
        try:
            for place in range(len(candidates)):
                _row(candidates[place], comparison, place)
        except UserError as error:
            found[comparison.id] = error
    return found


def _row(candidate: Candidate, asked: Comparison, place: int) -> SequenceState:
    sampling = replace(candidate.sampling, seed=asked.seeds[place])
    processor = InputProcessor(candidate.model.config, candidate.tokenizer)
    return processor.process(Request(messages=as_dicts(asked.prompt), sampling=sampling))


def sample_answers(
    candidates: Sequence[Candidate],
    some: Sequence[Comparison],
    stopped: threading.Event,
    told: Callable[[int], None] = lambda answers: None,
) -> list[SampledPair]:
    """Sample both models' answers of some comparisons, each model's as one batch.

    `told` is called with the number of finished answers after each. Once another thread has set
    `stopped`, KeyboardInterrupt is raised after the next token.
    """
    ended = 0
    answers = list[list[Completion]]()
    for place, candidate in enumerate(candidates):
        rows = [_row(candidate, comparison, place) for comparison in some]
        engine = Engine(candidate.model, candidate.tokenizer, prompt_tokens=None)
        for row in sorted(rows, key=lambda row: len(row.prompt)):  # reduces padding
            engine.enqueue(row)
        while engine.unfinished:
            for event in engine.step():
                if event.error is not None:
                    raise event.error
                if event.finished:
                    told(ended := ended + 1)
            if stopped.is_set():
                raise KeyboardInterrupt
        answers.append([row.completion() for row in rows])
    return [
        SampledPair(
            comparison,
            a.text.strip(),
            b.text.strip(),
            tuple(one.finish_reason != "length" for one in (a, b)),
        )
        for comparison, a, b in zip(some, *answers, strict=True)
    ]


# A person's progress.


def progress(
    asked: Sequence[Comparison], votes: Sequence[Vote], who: str
) -> tuple[list[SampledPair], list[Comparison]]:
    """The comparisons that a person has voted on, in the order of the votes, and the others."""
    by_id = {one.id: one for one in asked}
    own = {vote.id: vote for vote in valid_votes(votes) if vote.who == who}
    voted = [
        SampledPair(by_id[id], vote.a, vote.b, vote.ended)
        for id, vote in own.items()
        if id in by_id
    ]
    return voted, [one for one in asked if one.id not in own]
