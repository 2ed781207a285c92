"""Red teaming as a stage, with an optional guard before the models (`evals.redteam`)."""

from __future__ import annotations

from pathlib import Path

from groundup.align.guards.model import load_guard
from groundup.evals.config import RedTeamConfig
from groundup.evals.redteam import stage


def run(config: RedTeamConfig) -> Path:
    """Attack every model and report what it took.

    Raises `UserError` for missing models or guards, and for a model that cannot chat.
    """
    return stage.run(config, None if config.guard is None else load_guard(config.guard))
