"""Red teaming as a stage, with a guard before the models where one is named (`evals.redteam`)."""

from __future__ import annotations

from pathlib import Path

from groundup.align.guards.model import load_guard
from groundup.evals.config import RedTeamConfig
from groundup.evals.redteam import stage


def run(config: RedTeamConfig) -> Path:
    """Attack every model and write what it took.

    Raises `UserError` for models and a guard that are not there, and for one that never answers.
    """
    return stage.run(config, None if config.guard is None else load_guard(config.guard))
