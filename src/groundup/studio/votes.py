"""Blind votes in a browser: what a person compares, the sampled answers, and the log.

Every page reads all votes from their log, and what is asked from a record. So a person can continue
in another window, after a restart of the studio, and in the terminal (`groundup label`), which
samples the same answers to the same prompts.
"""

from __future__ import annotations

import asyncio
import glob
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

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
from groundup.align.label.log import check_models, vote_log, votes_in
from groundup.data.records import read_prompts
from groundup.data.split import evenly_spaced
from groundup.data.votes import CHOICES, Vote, valid_votes
from groundup.errors import UserError, shorten
from groundup.formats.adapter import model_hash
from groundup.generation.sampling import Sampling
from groundup.runs.files import describe_os_error, files_of
from groundup.serve.admission import BadRequest
from groundup.studio.models import OnDemand, weights_stamp
from groundup.studio.vote_pages import (
    HELDOUT_PROMPTS,
    LOG,
    Asked,
    parse_form,
    token,
    values_of,
)
from groundup.studio.vote_records import VoteRecord, VoteRecords
from groundup.text.rows import Message, PromptRow

# The number of people, or of pairs of models, that are kept; the least recently seen of more are
# read from their records when they come back.
_MAX_VOTINGS = 16
# With fewer pairs ready than this, the next ones are sampled.
_READY = 8
_MAX_NAME = 200


@dataclass
class Voting:
    """What one person compares: two models' answers to some prompts."""

    asked: Asked
    folders: tuple[Path, Path]
    candidates: tuple[tuple[str, str], ...]
    """The models by name and hash."""
    prompts: Sequence[tuple[Message, ...]]
    remarks: Sequence[str]
    stamps: tuple[object, object]
    comparisons: Sequence[Comparison] | None = None
    """None until the models are loaded, as answers depend on how they sample."""
    drawn: dict[str, SampledPair] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a comparison cannot be made, by its id."""
    revealed: set[str] = field(default_factory=set)
    """The comparisons whose models were revealed to the person: no more votes on them are taken,
    as they would not be blind."""
    drawing: asyncio.Task[None] | None = None
    ended: tuple[int, int] = (0, 0)
    """The number of answers that have ended, and of all that are being sampled."""

    @property
    def key(self) -> str:
        """Its identifier in addresses; the same for the same request."""
        prompts = [[(turn.role, turn.content) for turn in one] for one in self.prompts]
        said = json.dumps([asdict(self.asked), self.candidates, prompts])
        return hashlib.sha256(said.encode(errors="backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class Position:
    """A person's progress: what they voted on, what is left, and the pair to vote on now."""

    voting: Voting
    votes: Sequence[Vote]
    """All votes in the log."""
    voted: Sequence[SampledPair]
    todo: Sequence[Comparison]
    shown: SampledPair | None
    same: int
    """The prompts with the same answer twice."""
    closed: int = 0
    """The prompts whose vote was undone (in the terminal) after the models were revealed."""

    @property
    def is_over(self) -> bool:
        return self.voting.comparisons is not None and not self.todo

    @property
    def last(self) -> str:
        """The token of the vote that undo takes back; empty if there is none."""
        ids = [one.comparison.id for one in self.voted[-1:]]
        return token(ids[0]) if ids and ids[0] not in self.voting.revealed else ""

    @property
    def place(self) -> int:
        """The number of the prompt that is shown, from 1."""
        assert self.shown is not None and self.voting.comparisons is not None
        return [one.id for one in self.voting.comparisons].index(self.shown.comparison.id) + 1


class Votes:
    """All votes below a folder.

    `folders` returns the models by name, as `models` loads them, and `heldout` the conversations
    that runs held out, by the runs' names. If the studio `is_open` to everyone, no file is named.
    """

    def __init__(
        self,
        root: Path,
        folders: Callable[[], Mapping[str, Path]],
        heldout: Callable[[], Mapping[str, Path]],
        models: OnDemand,
        records: VoteRecords,
        is_open: bool,
    ) -> None:
        self._root, self._folders, self._heldout = root.resolve(), folders, heldout
        self._models, self._records, self._is_open = models, records, is_open
        self._votings = OrderedDict[str, Voting]()
        # The comparisons whose models were revealed, by log and person, for all that they compare.
        self._revealed: dict[tuple[Path, str], set[str]] = {}
        # One log at a time is written, and one pair of models at a time samples.
        self._writing, self._drawing = asyncio.Lock(), asyncio.Lock()
        self._stopped = threading.Event()

    async def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()
        tasks = [one.drawing for one in self._votings.values() if one.drawing is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def begin(self, asked: Asked) -> str:
        """Begin votes and return their key. Raises `UserError` for anything that is invalid."""
        async with self._writing:
            voting = await asyncio.to_thread(self._new, asked)
            self._add(voting)
            await asyncio.to_thread(self._record, voting)
        return voting.key

    def _add(self, voting: Voting) -> None:
        key = voting.key
        known = self._votings.get(key)
        # Weights that were written again with the same bytes have the same key, but other stamps.
        if known is None or known.stamps != voting.stamps:
            self._votings[key] = voting
            about = self.log(voting), voting.asked.who
            voting.revealed = self._revealed.setdefault(about, voting.revealed)
        self._votings.move_to_end(key)
        for other in list(self._votings)[:-_MAX_VOTINGS]:
            del self._votings[other]

    def _record(self, voting: Voting) -> None:
        self._records.write(voting.key, VoteRecord(values_of(voting.asked), voting.revealed))

    async def position(self, key: str) -> Position:
        """A person's progress; the next answers are sampled meanwhile."""
        voting = await self._voting(key)
        found = await asyncio.to_thread(self._position, voting)
        if voting.drawing is not None and voting.drawing.done():
            ended, voting.drawing = voting.drawing, None
            ended.result()  # raises its error; the next request samples again
        waiting = sum(one.id not in voting.drawn for one in found.todo)
        ready = len(found.todo) - waiting
        wants_more = voting.comparisons is None or (waiting and ready < _READY)
        if wants_more and voting.drawing is None and not self._stopped.is_set():
            voting.drawing = asyncio.create_task(self._draw(voting))
        return found

    async def reveal(self, key: str) -> Position:
        """Reveal the models of the answers that a person voted on, and return their progress."""
        voting = await self._voting(key)
        async with self._writing:  # votes that come later are refused
            found = await asyncio.to_thread(self._position, voting)
            # Of the whole log, as its ratings are revealed with them.
            own = (vote for vote in valid_votes(found.votes) if vote.who == voting.asked.who)
            voting.revealed.update(vote.id for vote in own)
            await asyncio.to_thread(self._record, voting)
        return found

    async def vote(self, key: str, choice: str, pair: str, last: str) -> None:
        """Record a choice on a pair; undo takes back the vote on the `last` one.

        Both are named by their tokens. A choice that is sent twice counts once.
        """
        voting = await self._voting(key)
        if choice not in ("left", "right", *CHOICES[2:]):
            raise BadRequest(f"choice={shorten(choice)} is not a choice; press one of the buttons")
        async with self._writing:
            named = last if choice == "undo" else pair
            ids = (one.id for one in voting.comparisons or () if token(one.id) == named)
            await asyncio.to_thread(self._append, voting, choice, next(ids, ""))

    def log(self, voting: Voting) -> Path:
        """The path of its log; everything is written below the folder that is shown."""
        return self._path_below("log", voting.asked.log, f"try {LOG}")

    # In threads.

    def _new(self, asked: Asked) -> Voting:
        if self._is_open and (asked.file or asked.log != LOG):
            named = f"file={shorten(asked.file)}" if asked.file else f"log={shorten(asked.log)}"
            raise BadRequest(
                f"{named} is not for everyone: a studio that listens beyond this machine without a "
                f"key reads no file of prompts and writes no log but {LOG}; type the "
                "prompts, or start it with --api-key",
                status=403,
            )
        found = self._folders()
        names = (asked.model, asked.other or asked.model)
        for name in names:
            if name not in found:
                raise UserError(f"there is no model {shorten(name)} here; choose another one")
        folders = (found[names[0]], found[names[1]])
        if not asked.who or not asked.who.isprintable():
            raise UserError("the votes have no name; write a name")
        sampling = Sampling(**_sampling_settings(asked))  # raises for invalid values
        prompts, remarks, inputs = self._prompts(asked)
        stamps = (weights_stamp(folders[0]), weights_stamp(folders[1]))
        hashes = [model_hash(folder)[:HASH] for folder in folders]
        if asked.temperature is not None:
            sampling_settings(hashes, [sampling, sampling])  # raises if there is nothing to compare
        log = self._path_below("log", asked.log, f"try {LOG}")
        with _as_user_error(), vote_log(log, [*inputs, *files_of(*folders)], "log") as known:
            if not asked.append:
                remedy = "choose another log, or tick that it may hold votes on other models"
                check_models(known, names, hashes, remedy)
        candidates = tuple(zip(names, hashes, strict=True))
        voting = Voting(asked, folders, candidates, prompts, remarks, stamps)
        for record in self._records.all().values():
            is_same_log = PurePosixPath(record.values.get("log", "")) == PurePosixPath(asked.log)
            if is_same_log and record.values.get("who") == asked.who:
                voting.revealed.update(record.revealed)
        return voting

    def _prompts(self, asked: Asked) -> tuple[list[tuple[Message, ...]], list[str], Sequence[Path]]:
        """The prompts, remarks on those that are left out, and the files that they are from."""
        inputs = list[Path]()
        if asked.typed.strip():
            lines = asked.typed.split("\n")
            rows = [PromptRow(line, (), None, n, {}) for n, line in enumerate(lines, 1)]
            rows, bad, source = [one for one in rows if (one.text or "").strip()], [], "typed"
        else:
            if asked.file:
                path = self._path_below("file", self._single_match(asked.file), "try prompts.txt")
            elif asked.data in (heldout := self._heldout()):
                path = heldout[asked.data]
            else:
                raise UserError("there are no prompts; type some, a line each")
            with _as_user_error():
                records = read_prompts(path, answered=not asked.file)
            rows, bad, source = list(records.rows), list(records.bad), str(path)
            inputs.append(path)
        found, unfit = prompt_turns(rows, source)
        prompts = [turns for _, turns in found]
        remarks = [str(line) for line in (*bad, *unfit)]
        if not asked.typed.strip() and not asked.file:
            prompts = evenly_spaced(prompts, HELDOUT_PROMPTS)
        if not prompts:
            raise UserError(f"no prompt can be asked; {(*remarks, 'type another one')[0]}")
        return prompts, remarks, inputs

    def _single_match(self, pattern: str) -> str:
        """The only file below the root that a pattern matches; for other names, the name itself."""
        parts = PurePosixPath(pattern).parts
        is_below = pattern.isprintable() and not any(one.startswith((".", "/")) for one in parts)
        if not is_below or not glob.has_magic(pattern) or os.path.lexists(self._root / pattern):
            return pattern
        found = glob.glob(pattern, root_dir=self._root)
        if len(found) != 1:
            count = f"{len(found)} files" if found else "nothing"
            raise UserError(
                f"file={shorten(pattern)} matches {count} below {self._root}; name one file"
            )
        return found[0]

    def _path_below(self, what: str, name: str, remedy: str) -> Path:
        """The file with this name below the folder that is shown; no link leads elsewhere."""
        parts = PurePosixPath(name).parts
        is_plain = bool(parts) and name.isprintable() and len(name) <= _MAX_NAME
        if is_plain and not any(one.startswith((".", "/")) for one in parts):
            path = self._root.joinpath(*parts)
            with _as_user_error():
                if path.is_relative_to(self._root) and path.resolve() == path:
                    return path
        raise UserError(
            f"{what}={shorten(name)} must be a file below {self._root}, by its path from there, "
            f"and no link or hidden file; {remedy}"
        )

    def _position(self, voting: Voting) -> Position:
        with _as_user_error():
            votes = votes_in(self.log(voting), "log")
        if voting.comparisons is None:
            return Position(voting, votes, (), (), None, 0)
        _restore_answers(voting, votes)
        voted, todo = progress(voting.comparisons, votes, voting.asked.who)
        todo = [one for one in todo if one.id not in voting.left_out]
        closed = sum(one.id in voting.revealed for one in todo)
        todo = [one for one in todo if one.id not in voting.revealed]
        same = {one.id for one in todo if _are_equal(voting.drawn.get(one.id))}
        todo = [one for one in todo if one.id not in same]
        # Votes that were undone come first, the last of them before the others.
        own = [one for one in votes if one.who == voting.asked.who]
        back = {one.id: -place for place, one in enumerate(own) if one.choice == "undo"}
        ready = [voting.drawn[one.id] for one in todo if one.id in voting.drawn]
        shown = min(ready, key=lambda one: back.get(one.comparison.id, 1), default=None)
        return Position(voting, votes, voted, todo, shown, len(same), closed)

    def _append(self, voting: Voting, choice: str, id: str) -> None:
        who = voting.asked.who
        if id in voting.revealed:
            raise UserError(
                "the models of these answers were revealed, so a vote on them would not be "
                "blind; the vote stays as it is, continue with the next"
            )
        with _as_user_error(), vote_log(self.log(voting), option="log") as log:
            _restore_answers(voting, log.votes)
            voted, _ = progress(voting.comparisons or (), log.votes, who)
            if choice == "undo":
                if voted and voted[-1].comparison.id == id:
                    log.append(voted[-1].vote("undo", who, voting.candidates))
                return
            if (drawn := voting.drawn.get(id)) is None:
                raise BadRequest("these answers are not known here; vote on those that are shown")
            vote = drawn.vote(choice, who, voting.candidates)
            before = [one.choice for one in log.votes if (one.who, one.id) == (who, id)]
            if before[-1:] != [vote.choice]:
                log.append(vote)

    # Sampling.

    async def _voting(self, key: str) -> Voting:
        if key not in self._votings and (
            record := await asyncio.to_thread(self._records.read, key)
        ):
            async with self._writing:
                voting = await asyncio.to_thread(self._new, parse_form(record.values))
                if voting.key == key:  # the models and prompts are still what they were
                    self._add(voting)
        if key not in self._votings:
            raise BadRequest(
                "this page is no longer known; begin again with the same values, and it continues "
                "after the votes in the log",
                status=404,
            )
        self._votings.move_to_end(key)
        return self._votings[key]

    async def _draw(self, voting: Voting) -> None:
        """Sample the next answers, when no others are being sampled."""
        async with self._drawing:
            candidates = list[Candidate]()
            own = zip(voting.candidates, voting.folders, voting.stamps, strict=True)
            for (name, _), folder, stamp in own:
                served = await self._models.load(name)
                if served is None or weights_stamp(folder) != stamp:
                    raise UserError(f"{name} has changed or is gone; begin again")
                sampling = replace(served.sampling, **_sampling_settings(voting.asked))
                sampling = with_sampling(sampling, voting.asked.temperature)
                candidates.append(Candidate(served.model, served.tokenizer, sampling))
            await asyncio.to_thread(self._draw_some, voting, candidates)

    def _draw_some(self, voting: Voting, candidates: Sequence[Candidate]) -> None:
        if voting.comparisons is None:
            hashes = [hash for _, hash in voting.candidates]
            settings = sampling_settings(hashes, [one.sampling for one in candidates])
            voting.comparisons = comparisons(voting.prompts, settings, voting.asked.seed)
        some = list[Comparison]()
        most = PAIRS if voting.drawn else FIRST_PAIRS
        for one in self._position(voting).todo:
            if one.id in voting.drawn:
                continue
            if found := unanswerable(candidates, [one]):
                voting.left_out[one.id] = str(found[one.id])
            elif len(some) == most:
                break
            else:
                some.append(one)
        voting.ended = 0, 2 * len(some)

        def told(answers: int) -> None:
            voting.ended = answers, 2 * len(some)

        try:
            drawn = sample_answers(candidates, some, self._stopped, told)
        except KeyboardInterrupt:  # the studio is stopped, and its loop must end
            return
        voting.drawn |= {one.comparison.id: one for one in drawn}


def _restore_answers(voting: Voting, votes: Sequence[Vote]) -> None:
    """Take the answers that were voted on before from the log: they may be shown again."""
    asked = {one.id: one for one in voting.comparisons or ()}
    for vote in votes:
        if vote.who == voting.asked.who and vote.id in asked:
            drawn = SampledPair(asked[vote.id], vote.a, vote.b, vote.ended)
            voting.drawn.setdefault(vote.id, drawn)


def _sampling_settings(asked: Asked) -> dict[str, Any]:
    """The sampling settings that the person gave."""
    given = {"temperature": asked.temperature, "max_new_tokens": asked.max_new_tokens}
    return {name: value for name, value in given.items() if value is not None}


def _are_equal(drawn: SampledPair | None) -> bool:
    return drawn is not None and drawn.a == drawn.b


@contextmanager
def _as_user_error() -> Iterator[None]:
    """Turn the system's errors into `UserError`s."""
    try:
        yield
    except OSError as error:
        raise UserError(describe_os_error(error)) from error
