"""`learn`: the road, the exercises with their lessons, and their commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from groundup.app.commands.options import checked
from groundup.errors import UserError, nearest, shorten
from groundup.learn.own import FOLDER
from groundup.learn.road import find, road
from groundup.train import ranges

Folder = Annotated[Path, Parameter(help="the learner's folder")]
Which = Annotated[
    str | None, Parameter(help="the exercise's number or name (default: the one opened last)")
]

app = App(
    name="learn",
    help_format="plaintext",
    usage="Usage: groundup learn [COMMAND] [OPTIONS] [WHICH]",
)


def require_command(words: Sequence[str]) -> None:
    """Raise `UserError` if a command of learn is misspelled or does not come first."""
    commands = [name for name in app if not name.startswith("-")]
    if not words or words[0] in commands:
        return
    places = [
        place
        for place, word in enumerate(words)
        if not word.startswith("-") and words[place - 1 : place] != ["--folder"]
    ]
    late = next((place for place in places if words[place] in commands), None)
    if late is not None:
        command = shlex.join([words[late], *words[:late], *words[late + 1 :]])
        raise UserError(f"{words[late]} is a command and comes first: groundup learn {command}")
    if not places:
        return
    first = words[places[0]]
    try:
        find(first)
    except UserError:
        exercises = [name for one in road() for name in (one.number, one.name)]
        near = nearest(first.lower(), [*commands, *exercises])
        if near in commands:
            command = shlex.join([near, *words[: places[0]], *words[places[0] + 1 :]])
            raise UserError(
                f"{shorten(first)} is not a command or an exercise; did you mean groundup learn "
                f"{command}? groundup learn --help shows all commands"
            ) from None


@app.default
@checked
def learn(
    which: Annotated[
        str | None,
        Parameter(help="the exercise to open, by number or name, or a step (default: the road)"),
    ] = None,
    /,
    *,
    tutor: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="print a page that makes a coding assistant a tutor who gives no answers away",
        ),
    ] = False,
    notebook: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="also write the exercise as a Jupyter notebook"
        ),
    ] = False,
    page: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="write the exercise's animated page, to open in a browser",
        ),
    ] = False,
    folder: Folder = FOLDER,
) -> None:
    """Show the road or a step of it, or open an exercise."""
    from groundup.app import learn as pages

    if tutor:
        pages.show_tutor()
    elif which is None and (notebook or page):
        option = "--notebook" if notebook else "--page"
        raise UserError(f"{option} needs the name of an exercise; try groundup learn 1.2 {option}")
    elif which is None:
        pages.show_road(folder)
    elif which in ("1", "2", "3", "4", "5") and not (notebook or page):
        pages.show_road(folder, [int(which)])
    else:
        pages.open_exercise(folder, which, notebook=notebook, page=page)


@app.command(name="check", usage="Usage: groundup learn check [OPTIONS] [WHICH]")
@checked
def learn_check(
    which: Which = None,
    /,
    *,
    folder: Folder = FOLDER,
    seed: Annotated[ranges.Seed, Parameter(help="seed of the trials' inputs")] = 0,
) -> None:
    """Grade what you wrote against groundup's own function, on this machine."""
    from groundup.app import learn as pages

    pages.check(folder, which, seed)


@app.command(name="predict", usage="Usage: groundup learn predict [OPTIONS] WHICH CHOICE")
@checked
def learn_predict(
    which: Annotated[str, Parameter(help="the exercise's number or name")],
    choice: Annotated[str, Parameter(help="the letter of your choice")],
    /,
    *,
    sure: Annotated[
        ranges.Percent | None,
        Parameter(help="how sure you are, in percent; compared at the end of a step"),
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Record what you expect before you run anything; it is compared later."""
    from groundup.app import learn as pages

    pages.predict(folder, which, choice, sure)


@app.command(name="hint", usage="Usage: groundup learn hint [OPTIONS] [WHICH]")
@checked
def learn_hint(which: Which = None, /, *, folder: Folder = FOLDER) -> None:
    """Show the next of three hints, each more explicit."""
    from groundup.app import learn as pages

    pages.show_hint(folder, which)


@app.command(name="solution", usage="Usage: groundup learn solution [OPTIONS] [WHICH]")
@checked
def learn_solution(which: Which = None, /, *, folder: Folder = FOLDER) -> None:
    """Show a solution and its explanation, after a first try of your own."""
    from groundup.app import learn as pages

    pages.show_solution(folder, which)


@app.command(name="reset", usage="Usage: groundup learn reset [OPTIONS] [WHICH]")
@checked
def learn_reset(which: Which = None, /, *, folder: Folder = FOLDER) -> None:
    """Start an exercise over; what you wrote is kept under another name."""
    from groundup.app import learn as pages

    pages.reset(folder, which)


@app.command(name="status", usage="Usage: groundup learn status [OPTIONS]")
@checked
def learn_status(*, folder: Folder = FOLDER) -> None:
    """Show what passed, what changed since, hints and predictions."""
    from groundup.app import learn as pages

    pages.show_status(folder)
