"""`doctor`: what this machine has and what would be faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.app.commands.options import Force, checked
from groundup.runs.console import say
from groundup.runs.files import writable


@checked
def doctor(
    *,
    quick: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="only say what is here: try no settings"),
    ] = False,
    forget: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="take back what was chosen, and end"),
    ] = False,
    json: Annotated[Path | None, Parameter(help="write what was found here as well")] = None,
    force: Force = False,
) -> None:
    """Say what this machine has, what each setting gains, and what would be faster."""
    from groundup.train import remembered

    if json is not None:
        writable(json, "--json", force=force)
    if forget:
        what = "what was chosen here is taken back" if remembered.forget() else "nothing was chosen"
        say(f"{what}; commands run with groundup's constants")
        return
    from groundup.app.doctor import examine, write

    found = examine(quick=quick)
    if json is not None:
        write(json, found)
