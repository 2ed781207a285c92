"""`--install-completion`: shell completion of commands and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from groundup.errors import UserError
from groundup.runs.console import say

_STARTUP = {"bash": ".bashrc", "zsh": ".zshrc"}


def install_completion(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None,
        Parameter(help="the shell (default: the current one)"),
    ] = None,
) -> None:
    """Write the completion script to where the shell looks for it. The script never starts
    groundup.
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    from groundup.app.cli import app

    try:
        found = shell or detect_shell()
    except ShellDetectionError:
        found = "powershell"
    if found == "powershell":
        raise UserError(
            "the current shell is not bash, zsh or fish; name the one to install for: "
            "groundup --install-completion --shell bash"
        )
    if not Path.home().is_dir():
        raise UserError(
            f"your home folder {str(Path.home())!r} does not exist, and shells look for "
            "completions in it; set HOME to a folder that exists"
        )
    say(f"Completion for {found} is in {app.install_completion(shell=found)}.")
    if found in _STARTUP:
        say(f"A line in {Path.home() / _STARTUP[found]} loads it; open a new shell to use it.")
    else:
        say("Open a new shell to use it.")
