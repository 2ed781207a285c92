"""At the terminal with two answers to each prompt: which is the better one?

The answers are drawn ahead, in batches, while the person reads.
"""

from __future__ import annotations

import queue
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len

from groundup.align.label import (
    Comparison,
    VoteLog,
    check_models,
    comparisons,
    now,
    result,
    result_table,
    vote_log,
)
from groundup.app.completions import opened, sampling_of
from groundup.app.terminal import Wrapped, forget_typed, key, single_keys, tell, width
from groundup.data.fields import check_order, prompt
from groundup.data.files import suffix_of
from groundup.data.records import read_prompts
from groundup.data.votes import CUT, Vote, preferences, standing
from groundup.errors import UserError
from groundup.formats.adapter import model_hash
from groundup.generation.engine import Engine
from groundup.generation.request import Completion, InputProcessor, Request, SequenceState
from groundup.generation.sampling import Sampling, recorded
from groundup.lm.model import CausalLM
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted
from groundup.runs.files import files_of
from groundup.runs.resumable_jsonl import write
from groundup.text.rows import BadLine, BadRow, Message, PromptRow, as_dicts
from groundup.text.tokenizer import Tokenizer

# Pairs of answers drawn at a time: the first few soon, then as many as make a batch worth it.
_FIRST_PAIRS, _PAIRS = 4, 16
# Pairs that may wait to be read. Whoever stops after ten should not have waited for a thousand.
_AHEAD = 32
# Lines longer than this are hard to read; two answers side by side need this many cells at least.
_WIDEST, _SIDE_BY_SIDE = 120, 60
_SEPARATOR = " │ "

# What a key means, the digits for keyboards without Latin letters; on a line its word will do, too.
_KEYS = {
    "left": ("left", "l", "1", "←"),
    "right": ("right", "r", "2", "→"),
    "tie": ("tie", "t", "3"),
    "both bad": ("both bad", "b", "4"),
    "skip": ("skip", "s", "5"),
    "undo": ("undo", "u"),
    "quit": ("quit", "q"),
}
_MEANING = {key: meaning for meaning, keys in _KEYS.items() for key in keys}
_LEGEND = "← left  → right  t tie  b both bad  s skip  u undo  q quit"
_SPELLED = "l left, r right, t tie, b both bad, s skip, u undo, q quit"


@dataclass(frozen=True)
class Candidate:
    """One of the two whose answers are compared, and how it draws them."""

    model: CausalLM
    tokenizer: Tokenizer
    sampling: Sampling


@dataclass(frozen=True)
class Drawn:
    """The two answers to a prompt, and whether each has ended; of old votes nobody knows."""

    comparison: Comparison
    a: str
    b: str
    ended: tuple[bool, ...] = ()

    @property
    def cut(self) -> set[str]:
        return {name for name, ended in zip("ab", self.ended, strict=False) if not ended}

    def vote(self, choice: str, who: str, candidates: Sequence[tuple[str, str]]) -> Vote:
        asked = self.comparison
        names, hashes = zip(*candidates, strict=True)
        return Vote(
            asked.prompt,
            self.a,
            self.b,
            choice,
            who,
            now(),
            asked.id,
            asked.left,
            names,
            hashes,
            asked.seeds,
            self.ended,
        )


def label(
    names: Sequence[str],
    folders: Sequence[Path],
    prompts: Path,
    out: Path,
    *,
    who: str,
    seed: int = 0,
    append: bool = False,
    device: str = "cpu",
    **settings: Any,
) -> None:
    """Ask for a vote on the answers of two models to each prompt, and say what came of all votes.

    `settings` are those of `Sampling` that are not each model's own. With `append` the votes join
    those on other models in `out`. Raises `UserError` for what cannot be read or compared.
    """
    if suffix_of(out) != ".jsonl" and not out.exists():
        raise UserError(
            f"--out={out} must end in .jsonl, as preference data are read from such files"
        )
    records = read_prompts(prompts)
    for line in records.bad:
        print(line, file=sys.stderr)
    samplings = [_warm(sampling_of(folder, **settings), settings) for folder in folders]
    hashes = [model_hash(folder)[:16] for folder in folders]
    if hashes[0] == hashes[1] and not samplings[0].temperature:
        raise UserError(
            "temperature=0 draws the same answer twice from one model, and there is nothing to "
            "compare; try --temperature 0.7"
        )
    asked, bad = _asked(records.rows, prompts)
    _complain(bad)
    with vote_log(out, inputs=[prompts, *files_of(*folders)]) as log:
        if log.dropped:
            tell(f"(the last line of {out} was torn by a kill and is dropped)")
        if not append:
            check_models(log, names, hashes)
        drawn_with = {"hashes": hashes, "sampling": [_drawn_with(one) for one in samplings]}
        session = _Session(
            log,
            who,
            list(zip(names, hashes, strict=True)),
            comparisons([turns for _, turns in asked], drawn_with, seed),
        )
        if session.todo:
            candidates = [
                Candidate(*model, sampling)
                for model, sampling in zip(_opened(folders, device), samplings, strict=True)
            ]
            session.leave_out(_unanswerable(candidates, session.todo), prompts, asked)
        if session.todo:
            with AnswersAhead(candidates, session.todo) as answers, single_keys():
                try:
                    session.run(iter(answers))
                except KeyboardInterrupt:
                    again = "stopped; the same command goes on from here"
                    raise KeyboardInterrupt(again) from None
        session.tell_result()


def _drawn_with(sampling: Sampling) -> dict[str, Any]:
    """The settings by whose hash a log knows its pairs."""
    return {name: value for name, value in recorded(sampling).items() if value is not None}


def _warm(sampling: Sampling, given: dict[str, Any]) -> Sampling:
    """The settings of a draw, by chance even where the model's folder does not ask for it."""
    if sampling.temperature or given.get("temperature") is not None:
        return sampling
    return replace(sampling, temperature=Sampling().temperature)


def _asked(
    rows: Sequence[PromptRow], file: Path
) -> tuple[list[tuple[int, tuple[Message, ...]]], list[BadLine]]:
    """The prompts as turns that end with the user's, each with its line; and what is none."""
    asked, bad = list[tuple[int, tuple[Message, ...]]](), list[BadLine]()
    for row in rows:
        turns = row.asked
        try:
            check_order(turns)
            prompt({"prompt": as_dicts(turns)})
            asked.append((row.line, turns))
        except BadRow as reason:
            bad.append(BadLine(str(file), row.line, str(reason)))
    return asked, bad


def _complain(bad: Sequence[BadLine]) -> None:
    for line in bad:
        print(line, file=sys.stderr)


def _opened(folders: Sequence[Path], device: str) -> list[tuple[CausalLM, Tokenizer]]:
    """Each model, one that is named twice once."""
    by_folder = {folder: opened(folder, device=device) for folder in dict.fromkeys(folders)}
    return [by_folder[folder] for folder in folders]


# Answers.


def _unanswerable(
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


class AnswersAhead:
    """The answers to all comparisons in their order, drawn in a thread of their own.

    Within the block it may be iterated once; leaving it ends the thread after a token.
    """

    def __init__(self, candidates: Sequence[Candidate], todo: Sequence[Comparison]) -> None:
        self._candidates, self._todo = candidates, todo
        self._ready = queue.Queue[Drawn | BaseException | None]()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="answers")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._room.release()
        self._thread.join()

    def __iter__(self) -> Iterator[Drawn]:
        if self._ready.empty() and width() is not None:
            write("(the first answers are being drawn)\n")
        while (one := self._ready.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            self._room.release()
            yield one

    def _work(self) -> None:
        try:
            first = self._todo[:_FIRST_PAIRS]
            rest = range(_FIRST_PAIRS, len(self._todo), _PAIRS)
            for some in (first, *(self._todo[start : start + _PAIRS] for start in rest)):
                answers = [self._answers(place, some) for place in range(len(self._candidates))]
                for comparison, *both in zip(some, *answers, strict=True):
                    self._room.acquire()
                    if self._stopped.is_set():
                        return
                    self._ready.put(_drawn(comparison, *both))
            self._ready.put(None)
        except BaseException as error:  # is raised where the answers are read
            self._ready.put(error)

    def _answers(self, place: int, some: Sequence[Comparison]) -> list[Completion]:
        candidate = self._candidates[place]
        rows = [_row(candidate, comparison, place) for comparison in some]
        engine = Engine(candidate.model, candidate.tokenizer, prompt_tokens=None)
        for row in sorted(rows, key=lambda row: len(row.prompt)):  # little of a batch is padding
            engine.enqueue(row)
        while engine.unfinished:
            for event in engine.step():
                if event.error is not None:
                    raise event.error
            if self._stopped.is_set():
                raise KeyboardInterrupt
        return [row.completion() for row in rows]


def _drawn(comparison: Comparison, a: Completion, b: Completion) -> Drawn:
    ended = tuple(one.finish_reason != "length" for one in (a, b))
    return Drawn(comparison, a.text.strip(), b.text.strip(), ended)


# The person's turn.


class _Session:
    """One person's way through the comparisons of a log."""

    def __init__(
        self,
        log: VoteLog,
        who: str,
        candidates: Sequence[tuple[str, str]],
        asked: Sequence[Comparison],
    ) -> None:
        self._log, self._who, self._candidates = log, who, candidates
        votes = {vote.id: vote for vote in standing(log.votes) if vote.who == who}
        by_id = {one.id: one for one in asked}
        # In the order of their votes, so that the last one is what undo takes back.
        self._voted = [
            Drawn(by_id[id], vote.a, vote.b, vote.ended)
            for id, vote in votes.items()
            if id in by_id
        ]
        self.todo = [one for one in asked if one.id not in votes]
        self._places = {one.id: place for place, one in enumerate(asked, 1)}
        self._same = 0
        self._total = len(asked)

    def leave_out(
        self,
        errors: dict[str, UserError],
        file: Path,
        asked: Sequence[tuple[int, tuple[Message, ...]]],
    ) -> None:
        """Leave out comparisons that cannot be made, and name their lines."""
        lines = {turns: line for line, turns in reversed(asked)}
        _complain(
            [
                BadLine(str(file), lines[one.prompt], str(errors[one.id]))
                for one in self.todo
                if one.id in errors
            ]
        )
        self.todo = [one for one in self.todo if one.id not in errors]
        self._total -= len(errors)

    def run(self, answers: Iterator[Drawn]) -> None:
        """Show pair after pair and write down each vote, to the end or until the person quits."""
        self._introduce()
        waiting: list[Drawn] = []  # what undo has brought back
        while (shown := waiting.pop() if waiting else next(answers, None)) is not None:
            if shown.a == shown.b:
                self._same += 1
                continue
            forget_typed()  # nobody votes on what was not shown yet
            _show(shown, f"prompt {self._places[shown.comparison.id]} of {len(self._places)}")
            choice = _choice()
            if choice == "quit":
                return
            if choice != "undo":
                self._vote(shown, choice)
                continue
            waiting.append(shown)
            if self._voted:
                waiting.append(back := self._voted.pop())
                self._log.append(back.vote("undo", self._who, self._candidates))
            else:
                tell("(there is no vote of yours to take back)")

    def _vote(self, shown: Drawn, choice: str) -> None:
        left = shown.comparison.left
        sides = {"left": left, "right": "b" if left == "a" else "a"}
        self._log.append(shown.vote(sides.get(choice, choice), self._who, self._candidates))
        self._voted.append(shown)

    def _introduce(self) -> None:
        text = f"{counted(self._total, 'prompt')}, two answers to each. Which one is better? Whose "
        text += "they are is told at the end."
        if self._voted:
            text += f" You have voted on {len(self._voted)} already; it goes on after these."
        tell(text)

    def tell_result(self) -> None:
        """Say whose answers they were, and what all votes of the log say."""
        found = result(self._log.votes)
        names = [name for name, _ in self._candidates]
        left = self._total - len(self._voted) - self._same
        lines = [""]
        if self._same:
            prompts = counted(self._same, "prompt")
            lines.append(f"{prompts} had the same answer twice, with nothing to choose from.")
        if not found.votes:
            tell("\n".join([*lines, "No votes yet."]))
            return
        skipped = f" ({found.skipped} skipped)" if found.skipped else ""
        lines.append(f"In {self._log.path}: {counted(found.votes, 'vote')}{skipped}.")
        if len(set(self._candidates)) == 1:
            lines.append(f"All answers are {names[0]}'s.")
        tell("\n".join(lines))
        if found.models:
            write("\n")
            console.print(in_terminal(result_table(found)), width=width() or 80)
            write("\n")
            tell(_EXPLAINED.format(first=found.models[0].model))
        if found.left is not None:
            side = found.left
            bias = "" if side.low <= 0.5 <= side.high else ": a side seems to be favored"
            tell(
                f"Left was chosen in {side.estimate:.0%} of {counted(side.items, 'vote')} for a "
                f"side ({side.low:.0%} to {side.high:.0%}{bias})."
            )
        pairs, left_out = preferences(self._log.votes, str(self._log.path))
        if cut := left_out.get(CUT):
            tell(
                f"{counted(cut, 'vote')} on an answer that was cut make no pair, as nobody should "
                "learn to end there; raise --max-new-tokens."
            )
        if pairs:
            command = ["groundup", "dpo", names[0], "--data", str(self._log.path)]
            tell(f"{shlex.join(command)} learns from {counted(len(pairs), 'pair')} of these.")
        if left:
            tell(f"Still to vote on: {counted(left, 'prompt')}; the same command goes on.")


_EXPLAINED = (
    "Share of votes: a tie, or both bad, is half a vote for each. Rating: Bradley and Terry's, in "
    "Elo points above {first}; 100 points more win 64 % of the votes. Below them stands the 95 % "
    "interval; one without end comes of too few votes, or of votes that are all for one."
)


def _choice() -> str:
    """What the person chooses, asked until it is something."""
    while True:
        said = key()
        if said is None:
            return "quit"
        if (meaning := _MEANING.get(said)) is not None:
            tell(f"  {meaning}")
            return meaning
        if said.isprintable() or width() is None:
            tell(f"({said[:20]!r} is no key: {_SPELLED})")


def _show(shown: Drawn, place: str) -> None:
    """The prompt, and below it the answers: side by side where there is room for it."""
    columns = min(width() or 80, _WIDEST)
    lines = ["", f"── {place} ".ljust(columns, "─"), ""]
    turns = shown.comparison.prompt
    for turn in turns:
        said = turn.content if len(turns) == 1 else f"{turn.role}: {turn.content}"
        lines += [*_wrapped(said.strip(), columns), ""]
    left, right = _sides(shown)
    if columns >= _SIDE_BY_SIDE:
        room = (columns - len(_SEPARATOR)) // 2
        pairs = zip_longest(
            ["LEFT", "", *_wrapped(left, room)],
            ["RIGHT", "", *_wrapped(right, room)],
            fillvalue="",
        )
        lines += [
            f"{one}{' ' * (room - cell_len(one))}{_SEPARATOR}{other}".rstrip()
            for one, other in pairs
        ]
    else:
        lines += ["LEFT", "", *_wrapped(left, columns), "", "RIGHT", "", *_wrapped(right, columns)]
    write("\n".join([*lines, "", *_wrapped(_LEGEND, columns), ""]))


def _sides(shown: Drawn) -> tuple[str, str]:
    said = {
        name: (text or "(no words)") + (" … (cut)" if name in shown.cut else "")
        for name, text in (("a", shown.a), ("b", shown.b))
    }
    left = said.pop(shown.comparison.left)
    [right] = said.values()
    return left, right


def _wrapped(text: str, columns: int) -> list[str]:
    """The lines of a text, none wider than so many cells."""
    written: list[str] = []
    out = Wrapped(written.append, lambda: columns)
    out.push(text)
    out.finish()
    return "".join(written).split("\n")
