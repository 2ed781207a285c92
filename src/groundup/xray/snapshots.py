"""A run's weights over time: the snapshots that pre-training leaves in its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.formats.weights import empty_model, model_of, read_weights
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.checkpoint import steps

FOLDER = "snapshots"


def snapshot_steps(run: Path) -> list[int]:
    """The steps of the run's snapshots, in ascending order; empty for other folders."""
    return [step for step in steps(run / FOLDER) if any(_folder(run, step).glob("*.safetensors"))]


def load_snapshot(run: Path, step: int, config: ModelConfig) -> CausalLM:
    """The model of a run as it was after `step`, in float32.

    Raises `UserError` for weights that are missing or do not match `config`.
    """
    tensors = read_weights(_folder(run, step), empty_model(config), "cpu")
    return model_of(config, {name: one.to(torch.float32) for name, one in tensors.items()})


def _folder(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step}"
