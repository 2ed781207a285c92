"""A guard: one number for a message or an answer, a threshold for each, and their folder.

    stopped      s(message) > t_message   or   s(message, answer) > t_answer

`s` is a transformer's body with one number in the head's place (as a reward model's), read where
the message ends and the assistant would begin, or where the answer ends. A threshold is a benign
score of the k-th rank among n that were not learned from, each of another group,

    k = ceil((n + 1) (1 - rate)),

above which a benign one of a further group, drawn as these were, lies with a chance of `rate` at
most: split conformal prediction (Vovk et al. 2005; Lei et al. 2018, "Distribution-free predictive
inference for regression", theorem 2). It asks that all can be exchanged: rows of one group (an act,
a question) are alike, so many of a few groups would promise what they cannot hold. How much harm it
stops, nothing promises: that is measured.

    config.json, model.safetensors, tokenizer.json     as a reward model's, its label `harmful`
    guard.json                                         thresholds, and by what they were set
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from groundup.align.guards.examples import USES, Labeled, Use
from groundup.align.reward import answered_ids
from groundup.align.rewards.model import (
    RewardModel,
    is_reward_model,
    load_reward_model,
    read_at_end,
    save_reward_model,
    scores_of,
)
from groundup.errors import UserError
from groundup.formats.folder import HARM
from groundup.formats.locate import TOKENIZER
from groundup.runs.files import is_number, read_kept, write_kept
from groundup.text.chat import encode_chat
from groundup.text.cleaning import split_hash
from groundup.text.example import Example
from groundup.text.rows import Message
from groundup.text.tokenizer import Tokenizer

GUARD = "guard.json"
_SCHEMA = 1
# Tokens of a row when many are scored; messages are short.
_ROW = 256


@dataclass(frozen=True)
class TrainedGuard:
    """A model that scores harm, its tokenizer, and the score above which something is stopped.

    A use without a threshold was not learned, and nothing is stopped there.
    """

    model: RewardModel
    tokenizer: Tokenizer
    thresholds: Mapping[Use, float]

    def scores(
        self, messages: Sequence[str], answers: Sequence[str] | None = None
    ) -> Float[np.ndarray, " messages"]:
        """The log odds of harm of each message or, where there are any, of each answer."""
        context = self.model.config.max_position_embeddings
        said: Sequence[str | None] = [None] * len(messages) if answers is None else answers
        items = [
            encoded(self.tokenizer, message, answer, context)
            for message, answer in zip(messages, said, strict=True)
        ]
        return scores_of(self.model, items, min(context, _ROW))

    def stops(
        self, messages: Sequence[str], answers: Sequence[str] | None = None
    ) -> Bool[np.ndarray, " messages"]:
        """Which messages are not to be read or, given answers to them, which answers."""
        threshold = self.thresholds.get("message" if answers is None else "answer", math.inf)
        if math.isinf(threshold) or not messages:
            return np.zeros(len(messages), bool)
        stopped: Bool[np.ndarray, " messages"] = self.scores(messages, answers) > threshold
        return stopped


def encoded(tokenizer: Tokenizer, message: str, answer: str | None, context: int) -> Example:
    """A message up to where the assistant begins, or up to its answer's end; the end is kept."""
    asked = (Message("user", message),)
    if answer is None:
        return read_at_end(encode_chat(tokenizer, asked, generation_prompt=True).ids, context)
    return read_at_end(answered_ids(tokenizer, asked, answer), context)


def threshold(benign: Float[np.ndarray, " n"], rate: float) -> float:
    """The score above which a further benign one lies with a chance of `rate` at most.

    All `benign` are of groups of their own (see `hard_benign`). Infinite, so that nothing is
    stopped, where n is less than 1 / rate - 1.
    """
    place = math.ceil((len(benign) + 1) * (1 - rate))
    return float(np.sort(benign)[place - 1]) if place <= len(benign) else math.inf


def hard_benign(rows: Sequence[Labeled], use: Use) -> list[int]:
    """A benign row of each group, of the sources that hold harmful ones too.

    Those are easily mistaken. A hash of what it says decides which row of a group is taken.
    """
    of_use = [i for i, row in enumerate(rows) if row.use == use]
    mixed = {rows[i].source for i in of_use if rows[i].harmful}
    benign = [i for i in of_use if not rows[i].harmful and rows[i].source in mixed]
    by_hash = sorted(benign, key=lambda i: split_hash(f"{rows[i].message}\n{rows[i].answer}"))
    return sorted({rows[i].group: i for i in reversed(by_hash)}.values())


# On disk.


def save_guard(folder: Path, guard: TrainedGuard, card: str, facts: Mapping[str, object]) -> None:
    """Write a guard's folder; `facts` are by what its thresholds were set."""
    kept = {use: guard.thresholds[use] for use in USES if use in guard.thresholds}
    described = {"schema": _SCHEMA, "thresholds": kept, "tokenizer": guard.tokenizer.hash, **facts}
    write_kept(folder / GUARD, described)
    save_reward_model(folder, guard.model, guard.tokenizer, card, HARM)


def load_guard(folder: Path) -> TrainedGuard:
    """The guard in a folder.

    Raises `UserError` for a folder without one, and for one that is damaged or holds the tokenizer
    of another.
    """
    if not is_reward_model(folder):
        raise UserError(
            f"guard={folder} holds no guard; train one with groundup guard and give its folder"
        )
    model = load_reward_model(folder, label=HARM)
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"{folder / TOKENIZER} is not there; train the guard again")
    tokenizer = Tokenizer.load(folder)

    def checked(found: dict[str, Any]) -> dict[Use, float]:
        given = found.get("thresholds")
        known = {use: given.get(use) for use in USES} if isinstance(given, dict) else {}
        kept = {use: float(value) for use, value in known.items() if is_number(value)}
        if not kept or not all(map(math.isfinite, kept.values())):
            raise UserError(f"{folder / GUARD} has no thresholds; train the guard again")
        if found.get("tokenizer") != tokenizer.hash:
            raise UserError(
                f"{folder} holds another tokenizer than its guard was trained with, which would "
                "read other words; put its tokenizer.json back, or train the guard again"
            )
        return kept

    return TrainedGuard(model, tokenizer, read_kept(folder / GUARD, checked))
