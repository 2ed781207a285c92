"""The pages of blind votes: what to compare, two answers side by side, and the results."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from groundup.align.label.log import login
from groundup.align.label.ratings import Summary, summary
from groundup.data.votes import valid_votes
from groundup.errors import UserError, shorten
from groundup.report.form import Ballot, Button, Field, Fieldset, Form, filled
from groundup.report.page import (
    Answer,
    Block,
    Box,
    Dialogue,
    Fold,
    Links,
    Listing,
    Note,
    Page,
    Section,
)
from groundup.runs.console import counted
from groundup.studio.runs import Runs
from groundup.studio.vote_records import VoteRecord
from groundup.text.rows import Message

if TYPE_CHECKING:
    from groundup.align.label.comparison import SampledPair
    from groundup.studio.votes import Position, Voting

N = TypeVar("N", int, float)
LOG = "votes.jsonl"
# Where a data run has the conversations that nothing trains on, and how many of them are asked: a
# quarter of an hour for a first-time voter.
HELDOUT = Path("conversations", "heldout.jsonl")
HELDOUT_PROMPTS = 20
MAX_TYPED = 20_000
# The number of a person's votes that are shown at the end, the last first.
_SHOWN = 100
# The number of earlier votes that the form can continue.
_BEFORE = 5
# The same keys as in the terminal (`groundup label`); a script presses the buttons.
_CHOICES = (
    Button("Left is better", "choice", "left", keys=("1", "l", "ArrowLeft")),
    Button("Right is better", "choice", "right", keys=("2", "r", "ArrowRight")),
    Button("Tie", "choice", "tie", keys=("3", "t")),
    Button("Both bad", "choice", "both bad", keys=("4", "b")),
    Button("Skip", "choice", "skip", keys=("5", "s")),
)
_UNDO = Button("Undo", "choice", "undo", keys=("u",))
# A comparison's id is the seed of its sides: anyone who has it knows whose answer is on the left.
_SECRET = secrets.token_bytes(32)
_BLIND = (
    "You see a prompt and two answers to it, and say which one is better. The sides are random, "
    "and the models are named at the end. Your votes make pairs of a better and a worse answer, "
    "from which `groundup dpo` and `groundup reward` learn."
)


@dataclass(frozen=True)
class Asked:
    """What a person wants to compare, on which prompts, and where the votes go.

    Prompts are the lines of `typed`, or else those of a `file`, or else those that the run `data`
    held out.
    """

    model: str = ""
    other: str = ""
    """Empty for two answers of the same model."""
    typed: str = ""
    file: str = ""
    data: str = ""
    log: str = LOG
    who: str = ""
    append: bool = False
    temperature: float | None = None
    max_new_tokens: int | None = None
    seed: int = 0


def parse_form(form: Mapping[str, str]) -> Asked:
    """Read a form. Raises `UserError` for values that are not numbers."""
    texts = {name: form.get(name, "").strip() for name in ("model", "other", "file", "data", "who")}
    typed = form.get("typed", "")
    if len(typed) > MAX_TYPED:
        raise UserError(
            f"the prompts have {len(typed):,} characters, and a form takes {MAX_TYPED:,}; type "
            "fewer, or put them into a file and name that"
        )
    seed = _number(form, "seed", int) or 0
    if not 0 <= seed < 2**63:
        raise UserError(f"seed={seed} must be a whole number from 0; try 0")
    return Asked(
        **texts,
        typed=typed,
        log=form.get("log", "").strip() or LOG,
        append=bool(form.get("append")),
        temperature=_number(form, "temperature", float),
        max_new_tokens=_number(form, "max_new_tokens", int),
        seed=seed,
    )


def values_of(asked: Asked) -> dict[str, str]:
    """The values of a form with these settings."""
    values = {name: "" if value is None else str(value) for name, value in vars(asked).items()}
    return values | {"append": "on" if asked.append else ""}


def _number(form: Mapping[str, str], name: str, kind: type[N]) -> N | None:
    said = form.get(name, "").strip()
    try:
        return kind(said) if said else None
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{name}={shorten(said)} must be {what}; or leave it out") from None


def token(id: str) -> str:
    """A comparison's name in pages, as long as the studio runs."""
    return hmac.new(_SECRET, id.encode(), hashlib.sha256).hexdigest()[:32]


def heldout(runs: Runs) -> dict[str, Path]:
    """The conversations that runs held out, by the runs' names: first of data that were made from
    nothing else, the latest first."""
    found = sorted(runs.all().values(), key=lambda run: str(run.status.get("time")), reverse=True)
    found.sort(key=lambda run: bool(run.history.run.get("parents")))
    files = {run.label: run.folder / HELDOUT for run in found if run.state == "done"}
    return {
        name: path
        for name, path in files.items()
        if path.is_file() and path.resolve() == path and path.stat().st_size
    }


# What to compare.


def begin_page(
    runs: Runs,
    values: Mapping[str, str],
    records: Mapping[str, VoteRecord],
    error: str = "",
    is_open: bool = False,
) -> Page:
    """The form that begins votes, with its earlier values.

    `records` are of votes begun before, the last first. If the studio `is_open` to everyone, no
    file can be named.
    """
    models = runs.models()
    before = [(_continue_label(one.values), f"/vote/{key}") for key, one in records.items()]
    opening: list[Block] = [Links([("All runs", "/"), *before[:_BEFORE]])]
    if error:
        opening.append(Box(f"**This cannot be voted on:** {error}."))
    if not models:
        none = (
            "There is no finished model here that answers. Train one first: `groundup quickstart`"
        )
        return _page("Vote on answers", "", [*opening, Box(none)])
    data = list(heldout(runs))
    first = values.get("model") or next(iter(models))
    values = {
        "model": first,
        "other": _counterpart(runs, first, models),
        "data": data[0] if data else "",
        "log": LOG,
        "who": login(),
    } | dict(values)
    opening.append(_form(runs, values, list(models), data, error, is_open))
    return _page("Vote on answers", _BLIND, opening)


def _continue_label(values: Mapping[str, str]) -> str:
    """The label of the link to earlier votes."""
    names = dict.fromkeys(filter(None, (values.get("model"), values.get("other"))))
    return f"Continue with {' and '.join(names)} ({values.get('who')}, {values.get('log')})"


def _counterpart(runs: Runs, name: str, models: Mapping[str, Path]) -> str:
    """The model that a model was made from: comparing the two shows what its training did."""
    paths = {run.label: run for run in runs.all().values()}
    if name not in paths:
        return ""
    above = [path for _, path in runs.parents(paths[name]).values()]
    near = (run.label for run in paths.values() if run.path in above and run.label in models)
    return next((one for one in near if paths[one].history.chats), "")


def _form(
    runs: Runs,
    values: Mapping[str, str],
    models: Sequence[str],
    data: Sequence[str],
    error: str,
    is_open: bool,
) -> Form:
    named = [(name, name) for name in models]
    same = ("", "the same one: two answers of it")
    prompts = [
        Field(
            "typed",
            "Prompts, one a line",
            type="textarea",
            placeholder="What is the sea?",
            max_length=MAX_TYPED,
        ),
        Field(
            "file",
            "Or a file of prompts",
            "A .txt file with a prompt a line, or rows with a prompt or messages (.jsonl, .csv): "
            f"its path from {runs.root}, or a pattern that matches one file.",
            placeholder="prompts.txt",
        ),
        Field(
            "data",
            "Or else held-out prompts",
            "Conversations that nothing trained on, where nothing is typed"
            + ("." if is_open else " and no file named."),
            "select",
            options=[
                ("", "none"),
                *((name, f"{HELDOUT_PROMPTS} that {name} held out") for name in data),
            ],
        ),
    ]
    votes = [
        Field(
            "log",
            "Log of votes",
            f"A .jsonl file, by its path from {runs.root}. Votes are appended to it; an existing "
            "log is continued.",
        ),
        Field("who", "Whose votes these are", "A name, which is stored with each vote."),
        Field("append", "The log may also hold votes on other models", type="checkbox"),
    ]
    drawing = [
        Field(
            "temperature",
            "Temperature",
            "The higher, the more random.",
            placeholder="as the model's folder says, else 0.7",
        ),
        Field(
            "max_new_tokens",
            "Maximum number of tokens of an answer",
            "A longer answer is cut, and makes no pair.",
            placeholder="256",
        ),
        Field(
            "seed", "Seed", "Another seed gives other answers to the same prompts.", placeholder="0"
        ),
    ]
    left_out = {"file", "log"} if is_open else set[str]()
    left_out |= set() if data else {"data"}
    fieldsets = [
        Fieldset(
            "Models",
            [
                Field("model", "One model", type="select", options=named),
                Field("other", "The other", type="select", options=[same, *named]),
            ],
        ),
        Fieldset("Prompts", [one for one in prompts if one.name not in left_out]),
        Fieldset("Votes", [one for one in votes if one.name not in left_out]),
        Fieldset("How the answers are sampled", drawing, folded=True),
    ]
    return Form("/vote", filled(fieldsets, values, error), [Button("Begin to vote")])


# Two answers.


def waiting_page(voting: Voting, key: str) -> Page:
    """The page before there is something to vote on; it reloads by itself."""
    ended, whole = voting.ended
    if voting.comparisons is None or not whole:
        what = "The models are being loaded."
    else:
        what = f"{ended} of {whole} answers are done."
    opening: list[Block] = [
        _links(key),
        Box(what),
        Note("This page reloads until they are there."),
    ]
    return _page("The answers are being generated", "", opening)


def ballot_page(position: Position, key: str) -> Page:
    """A prompt with two answers, and nothing that tells whose they are."""
    drawn = position.shown
    assert drawn is not None and position.voting.comparisons is not None
    asked = position.voting.asked
    title = f"Prompt {position.place:,} of {len(position.voting.comparisons):,}"
    lead = f"{counted(len(position.voted), 'vote')} of {asked.who} on these prompts so far, and "
    lead += f"{len(position.todo):,} to go. `{asked.log}` has "
    lead += f"{counted(len(valid_votes(position.votes)), 'vote')}."
    left, right = (drawn.shown(side) for side in drawn.sides)
    hidden = {"comparison": token(drawn.comparison.id), "last": position.last}
    buttons = [*_CHOICES, *([_UNDO] if position.last else [])]
    form = Form(f"/vote/{key}", [], buttons, hidden)
    ballot = Ballot(form, _turns(drawn.comparison.prompt), (left, right))
    links = _links(key, "Stop here, and see what the votes say")
    return _page(title, lead, [links, ballot], script=True)


def _turns(prompt: Sequence[Message]) -> list[tuple[str, str]]:
    """The turns of a prompt; a single turn needs no speaker."""
    return [(one.role if len(prompt) > 1 else "prompt", one.content.strip()) for one in prompt]


def _links(key: str, stop: str = "") -> Links:
    return Links([*([(stop, f"/vote/{key}/result")] if stop else []), ("All runs", "/")])


# The results.


def result_page(position: Position, key: str, log: Path, root: Path) -> Page:
    """The number of votes in the log, and what learns from them.

    Nothing here tells who wrote which answer, so the last vote can be undone. The ratings would:
    after a single vote they tell whose answer it was for.
    """
    found = _summary(position)
    links = _at_end(position, key)
    if position.voted or found.table is not None:
        links.append(("Whose answers they were", f"/vote/{key}/answers"))
    opening: list[Block] = [Links(links)]
    if position.same:
        prompts = counted(position.same, "prompt")
        opening.append(f"{prompts} had the same answer twice, with nothing to choose from.")
    if position.closed:
        prompts = counted(position.closed, "prompt")
        why = "after the models were revealed, so it cannot be given again here"
        opening.append(f"The vote on {prompts} was taken back {why}.")
    if position.todo:
        opening.append(f"Still to vote on: {counted(len(position.todo), 'prompt')}.")
    # The first remark is on the table, which names the models.
    opening += map(Note, found.after[found.table is not None :])
    if position.last:
        note = "It can be undone until you see whose answers they were."
        undo = Button("Undo the last vote", "choice", "undo", note)
        opening.append(Form(f"/vote/{key}", [], [undo], {"last": position.last}))
    sections = [
        Section("Next", "next", list(_next(position, found.pairs, log, root))),
        Section("Left out", "left-out", list(_left_out(position))),
    ]
    kept = [one for one in sections if one.blocks]
    # The second click of a double-click on the last ballot arrives here.
    return _page("What the votes say", " ".join(found.before), opening, kept, script=True)


def answers_page(position: Position, key: str) -> Page:
    """The ratings, and whose answers were whose: votes on these cannot be undone or changed."""
    found = _summary(position)
    links = [*_at_end(position, key), ("What the votes say", f"/vote/{key}/result")]
    opening: list[Block] = [Links(links)]
    if found.table is not None:
        opening += [found.table, Note(found.after[0])]
    return _page("Whose answers they were", " ".join(found.before), [*opening, *_whose(position)])


def _summary(position: Position) -> Summary:
    voting = position.voting
    names = [name for name, _ in voting.candidates]
    longer = "allow more tokens of an answer when you begin"
    return summary(position.votes, f"`{voting.asked.log}`", names, longer)


def _at_end(position: Position, key: str) -> list[tuple[str, str]]:
    further = [("Continue voting", f"/vote/{key}")] if position.todo else []
    return [*further, ("All runs", "/"), ("Vote on others", f"/vote?like={key}")]


def _next(position: Position, pairs: int, log: Path, root: Path) -> list[Block]:
    voting = position.voting
    path = _from_here(log)
    models = [_from_here(folder) for folder in dict.fromkeys(voting.folders)]
    blocks = list[Block]()
    if pairs:
        blocks.append(f"This learns from {counted(pairs, 'pair')} of these votes:")
        blocks.append(Listing(shlex.join(["groundup", "dpo", models[0], "--data", path])))
    elif position.voted:
        blocks.append("No vote makes a pair yet: one that prefers an answer does.")
    if voting.asked.file and not voting.asked.typed.strip():
        prompts = _from_here(root.joinpath(*Path(voting.asked.file).parts))
        command = ["groundup", "label", *models, "--prompts", prompts, "--out", path]
        command += ["--who", voting.asked.who]
        for name in ("temperature", "max_new_tokens", "seed"):
            if (value := getattr(voting.asked, name)) != getattr(Asked, name):
                command += [f"--{name.replace('_', '-')}", str(value)]
        command += ["--append"] if voting.asked.append else []
        blocks.append("This continues with the same votes in the terminal:")
        blocks.append(Listing(shlex.join(command)))
    return blocks


def _from_here(path: Path) -> str:
    """A path as a shell takes it where the studio was started."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _whose(position: Position) -> list[Block]:
    """The votes with the names of models; the votes of others are in the log."""
    choices = {
        vote.id: vote.choice for vote in position.votes if vote.who == position.voting.asked.who
    }
    shown = [
        _revealed(one, choices[one.comparison.id], position.voting)
        for one in reversed(position.voted)
    ][:_SHOWN]
    if not shown:
        return []
    blocks: list[Block] = [*shown[:3]]
    if len(shown) > 3:
        blocks.append(Fold(f"{counted(len(shown) - 3, 'earlier vote')}", shown[3:]))
    return blocks


def _revealed(drawn: SampledPair, choice: str, voting: Voting) -> Dialogue:
    names = dict(zip("ab", (name for name, _ in voting.candidates), strict=True))
    answers = [
        Answer(f"{side}: {names[one]}{', ✓ chosen' * (one == choice)}", drawn.shown(one))
        for side, one in zip(("left", "right"), drawn.sides, strict=True)
    ]
    turns = _turns(drawn.comparison.prompt)
    if choice not in ("a", "b"):
        turns = [*turns, ("your vote", choice)]
    return Dialogue(turns, answers)


def _left_out(position: Position) -> list[Block]:
    asked = {one.id: one.prompt[-1].content for one in position.voting.comparisons or ()}
    points = [*position.voting.remarks]
    points += [f"{shorten(asked[id])}: {why}" for id, why in position.voting.left_out.items()]
    return [Box(f"{counted(len(points), 'prompt')} cannot be asked.", points)] if points else []


def _page(
    title: str,
    lead: str,
    opening: Sequence[Block],
    sections: Sequence[Section] = (),
    script: bool = False,
) -> Page:
    whole, address = f"{title} · groundup studio", "/vote.js" if script else ""
    return Page(whole, title, lead, opening, sections, generator="groundup studio", script=address)
