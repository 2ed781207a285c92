"""Handwritten digits, 8 by 8 pixels: 1,797 real images by 13 people (the pack digits).

Source: Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits", UCI repository.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from groundup.data.packs.fetch import read_members
from groundup.nn.activations import ReLU
from groundup.nn.layers import Dropout, Linear
from groundup.nn.module import Sequential
from groundup.runs.console import say

SIDE, CLASSES = 8, 10
_TEST, _VALIDATION = 360, 270


@dataclass(frozen=True)
class Images:
    """Images as rows of pixels from 0 (paper) to 1 (ink), and the digit that each one shows."""

    x: Float[np.ndarray, "n pixels"]
    labels: Integer[np.ndarray, " n"]


@dataclass(frozen=True)
class Digits:
    """The images in three parts: for training, for choosing settings, for the report."""

    train: Images
    validation: Images
    test: Images


def load(seed: int) -> Digits:
    """Read the digits and split them at random: 1,167 to train, 270 to validate, 360 to test.

    The same people wrote all three parts. Raises `UserError` if the pack cannot be downloaded.
    """
    [packed] = read_members("digits", say).values()
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1]
    images = (pixels / 16).astype(np.float32)
    order = np.random.default_rng([seed, 0]).permutation(len(images))
    parts = np.split(order, [_TEST, _TEST + _VALIDATION])
    test, validation, train = (Images(images[part], labels[part].astype(int)) for part in parts)
    return Digits(train, validation, test)


def network(rng: np.random.Generator, dropout: float = 0.0) -> Sequential:
    """Two hidden layers, of 256 and 128 ReLUs, between 64 pixels and ten logits."""
    layers = [
        Linear(SIDE * SIDE, 256, rng=rng),
        ReLU(),
        Dropout(dropout, rng=rng),
        Linear(256, 128, rng=rng),
        ReLU(),
        Dropout(dropout, rng=rng),
        Linear(128, CLASSES, rng=rng),
    ]
    return Sequential(*layers)
