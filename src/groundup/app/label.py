"""`groundup label`: choose the better of two answers to each prompt at the terminal.

Answers are generated ahead, in batches, while the user reads.
"""

from __future__ import annotations

import queue
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len

from groundup.align.label.comparison import (
    FIRST_PAIRS,
    HASH,
    PAIRS,
    Candidate,
    Comparison,
    SampledPair,
    comparisons,
    progress,
    prompt_turns,
    sample_answers,
    sampling_settings,
    unanswerable,
    with_sampling,
)
from groundup.align.label.log import VoteLog, check_models, vote_log
from groundup.align.label.ratings import summary
from groundup.app.completions import opened, sampling_of
from groundup.app.terminal import Wrapped, forget_typed, key, single_keys, tell, width
from groundup.data.records import read_prompts
from groundup.errors import UserError
from groundup.formats.adapter import model_hash
from groundup.lm.model import CausalLM
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted
from groundup.runs.files import files_of
from groundup.runs.resumable_jsonl import write
from groundup.text.rows import BadLine, Message
from groundup.text.tokenizer import Tokenizer

# The number of pairs that are generated ahead: a user may stop after ten of a thousand.
_AHEAD = 32
# Longer lines are hard to read; two answers side by side need at least this many cells.
_WIDEST, _SIDE_BY_SIDE = 120, 60
_SEPARATOR = " │ "

# The keys of each choice; digits are for keyboards without Latin letters, words for typed lines.
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
    """Ask for a vote on the answers of two models to each prompt, and print the results.

    `settings` override each model's own `Sampling`. With `append` the votes are added to those on
    other models in `out`. Raises `UserError` for inputs that cannot be read or compared.
    """
    records = read_prompts(prompts)
    for line in records.bad:
        print(line, file=sys.stderr)
    temperature = settings.get("temperature")
    samplings = [with_sampling(sampling_of(folder, **settings), temperature) for folder in folders]
    hashes = [model_hash(folder)[:HASH] for folder in folders]
    settings_of_both = sampling_settings(hashes, samplings)
    asked, bad = prompt_turns(records.rows, str(prompts))
    _complain(bad)
    with vote_log(out, inputs=[prompts, *files_of(*folders)]) as log:
        if log.dropped:
            tell(f"(the last line of {out} was torn and is dropped)")
        if not append:
            check_models(log, names, hashes)
        session = _Session(
            log,
            who,
            list(zip(names, hashes, strict=True)),
            comparisons([turns for _, turns in asked], settings_of_both, seed),
        )
        if session.todo:
            candidates = [
                Candidate(*model, sampling)
                for model, sampling in zip(_opened(folders, device), samplings, strict=True)
            ]
            session.leave_out(unanswerable(candidates, session.todo), prompts, asked)
        if session.todo:
            with AnswersAhead(candidates, session.todo) as answers, single_keys():
                try:
                    session.run(iter(answers))
                except KeyboardInterrupt:
                    again = "stopped; the same command continues from here"
                    raise KeyboardInterrupt(again) from None
        session.tell_result()


def _complain(bad: Sequence[BadLine]) -> None:
    for line in bad:
        print(line, file=sys.stderr)


def _opened(folders: Sequence[Path], device: str) -> list[tuple[CausalLM, Tokenizer]]:
    """Load the models, each folder once."""
    by_folder = {folder: opened(folder, device=device) for folder in dict.fromkeys(folders)}
    return [by_folder[folder] for folder in folders]


# Answers.


class AnswersAhead:
    """The answers to all comparisons in order, generated in a separate thread.

    It can be iterated once, within its `with` block; leaving the block ends the thread after a
    token.
    """

    def __init__(self, candidates: Sequence[Candidate], todo: Sequence[Comparison]) -> None:
        self._candidates, self._todo = candidates, todo
        self._ready = queue.Queue[SampledPair | BaseException | None]()
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

    def __iter__(self) -> Iterator[SampledPair]:
        if self._ready.empty() and width() is not None:
            write("(generating the first answers)\n")
        while (one := self._ready.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            self._room.release()
            yield one

    def _work(self) -> None:
        try:
            first = self._todo[:FIRST_PAIRS]
            rest = range(FIRST_PAIRS, len(self._todo), PAIRS)
            for some in (first, *(self._todo[start : start + PAIRS] for start in rest)):
                for drawn in sample_answers(self._candidates, some, self._stopped):
                    self._room.acquire()
                    if self._stopped.is_set():
                        return
                    self._ready.put(drawn)
            self._ready.put(None)
        except BaseException as error:  # re-raised in the reading thread
            self._ready.put(error)


# Voting.


class _Session:
    """One user's votes on the comparisons of a log."""

    def __init__(
        self,
        log: VoteLog,
        who: str,
        candidates: Sequence[tuple[str, str]],
        asked: Sequence[Comparison],
    ) -> None:
        self._log, self._who, self._candidates = log, who, candidates
        # In the order of their votes, so that undo takes back the last one.
        self._voted, self.todo = progress(asked, log.votes, who)
        self._places = {one.id: place for place, one in enumerate(asked, 1)}
        self._same = 0
        self._total = len(asked)

    def leave_out(
        self,
        errors: dict[str, UserError],
        file: Path,
        asked: Sequence[tuple[int, tuple[Message, ...]]],
    ) -> None:
        """Leave out comparisons that cannot be made, and report their lines."""
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

    def run(self, answers: Iterator[SampledPair]) -> None:
        """Show each pair and log the vote on it, until the end or until the user quits."""
        self._introduce()
        waiting: list[SampledPair] = []  # pairs that undo has brought back
        while (shown := waiting.pop() if waiting else next(answers, None)) is not None:
            if shown.a == shown.b:
                self._same += 1
                continue
            forget_typed()  # keys pressed before a pair is shown are not votes on it
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
                tell("(you have no vote to take back)")

    def _vote(self, shown: SampledPair, choice: str) -> None:
        self._log.append(shown.vote(choice, self._who, self._candidates))
        self._voted.append(shown)

    def _introduce(self) -> None:
        text = f"{counted(self._total, 'prompt')} with two answers each. Which one is better? The "
        text += "models are revealed at the end."
        if self._voted:
            text += f" You have already voted on {len(self._voted)}; the rest follow."
        tell(text)

    def tell_result(self) -> None:
        """Tell which model wrote which answers, and summarize all votes of the log."""
        path, names = str(self._log.path), [name for name, _ in self._candidates]
        found = summary(self._log.votes, path, names, "raise --max-new-tokens")
        lines = [""]
        if self._same:
            prompts = counted(self._same, "prompt")
            lines.append(f"{prompts} had the same answer twice, so there was nothing to choose.")
        tell("\n".join([*lines, *found.before]))
        if found.table is not None:
            write("\n")
            console.print(in_terminal(found.table), width=width() or 80)
            write("\n")
        for sentence in found.after:
            tell(sentence)
        if found.pairs:
            command = shlex.join(["groundup", "dpo", names[0], "--data", path])
            tell(f"{command} learns from {counted(found.pairs, 'pair')} of these.")
        left = self._total - len(self._voted) - self._same
        if left and found.votes:
            tell(f"Still to vote on: {counted(left, 'prompt')}; the same command continues.")


def _choice() -> str:
    """Read keys until one is a choice."""
    while True:
        said = key()
        if said is None:
            return "quit"
        if (meaning := _MEANING.get(said)) is not None:
            tell(f"  {meaning}")
            return meaning
        if said.isprintable() or width() is None:
            tell(f"({said[:20]!r} is not a key: {_SPELLED})")


def _show(shown: SampledPair, place: str) -> None:
    """Write the prompt and the answers below it, side by side if they fit."""
    columns = min(width() or 80, _WIDEST)
    lines = ["", f"── {place} ".ljust(columns, "─"), ""]
    turns = shown.comparison.prompt
    for turn in turns:
        said = turn.content if len(turns) == 1 else f"{turn.role}: {turn.content}"
        lines += [*_wrapped(said.strip(), columns), ""]
    left, right = map(shown.shown, shown.sides)
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


def _wrapped(text: str, columns: int) -> list[str]:
    """The text wrapped to lines of at most `columns` cells."""
    written: list[str] = []
    out = Wrapped(written.append, lambda: columns)
    out.push(text)
    out.finish()
    return "".join(written).split("\n")
