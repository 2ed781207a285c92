"""A guard: a score for messages and answers, a threshold for each, and their folder.

    stopped      s(message) > t_message   or   s(message, answer) > t_answer

`s` is a transformer's body with a scalar head (like a reward model's), read where the message ends
and the assistant would begin, or where the answer ends. A threshold is the benign score of rank k
among n that were not trained on, each of another group,

    k = ceil((n + 1) (1 - rate)),

which a benign example of a further group, drawn like these, exceeds with a probability of at most
`rate`: split conformal prediction (Vovk et al. 2005; Lei et al. 2018, "Distribution-free predictive
inference for regression", theorem 2). The theorem requires exchangeability: rows of one group (an
act, a question) are alike, so many rows of a few groups would give a false guarantee. Nothing
guarantees how much harm it stops: that is measured.

    config.json, model.safetensors, tokenizer.json     as a reward model's, with the label `harmful`
    guard.json                                         thresholds, and how they were set
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
from groundup.runs.files import is_number, read_sealed, write_sealed
from groundup.text.chat import encode_chat
from groundup.text.cleaning import split_hash
from groundup.text.example import Example
from groundup.text.rows import Message
from groundup.text.tokenizer import Tokenizer

GUARD = "guard.json"
_SCHEMA = 1
# Tokens per row when many messages are scored; messages are short.
_ROW = 256


@dataclass(frozen=True)
class TrainedGuard:
    """A model that scores harm, its tokenizer, and the thresholds above which text is stopped.

    A use without a threshold was not trained, and nothing is stopped there.
    """

    model: RewardModel
    tokenizer: Tokenizer
    thresholds: Mapping[Use, float]

    def scores(
        self, messages: Sequence[str], answers: Sequence[str] | None = None
    ) -> Float[np.ndarray, " messages"]:
        """The log odds of harm of each message or, if there are answers, of each answer."""
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
        """Which messages are stopped or, if answers to them are given, which answers."""
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
    """The score that a further benign example exceeds with a probability of at most `rate`.

    All `benign` scores are of different groups (see `hard_benign`). The threshold is infinite, so
    that nothing is stopped, if n is less than 1 / rate - 1.
    """
    place = math.ceil((len(benign) + 1) * (1 - rate))
    return float(np.sort(benign)[place - 1]) if place <= len(benign) else math.inf


def hard_benign(rows: Sequence[Labeled], use: Use) -> list[int]:
    """One benign row of each group, from the sources that also hold harmful ones.

    Those are easily mistaken. A hash of the text decides which row of a group is taken.
    """
    of_use = [i for i, row in enumerate(rows) if row.use == use]
    mixed = {rows[i].source for i in of_use if rows[i].harmful}
    benign = [i for i in of_use if not rows[i].harmful and rows[i].source in mixed]
    by_hash = sorted(benign, key=lambda i: split_hash(f"{rows[i].message}\n{rows[i].answer}"))
    return sorted({rows[i].group: i for i in reversed(by_hash)}.values())


# On disk.


def save_guard(folder: Path, guard: TrainedGuard, card: str, facts: Mapping[str, object]) -> None:
    """Write a guard's folder; `facts` say how its thresholds were set."""
    kept = {use: guard.thresholds[use] for use in USES if use in guard.thresholds}
    described = {"schema": _SCHEMA, "thresholds": kept, "tokenizer": guard.tokenizer.hash, **facts}
    write_sealed(folder / GUARD, described)
    save_reward_model(folder, guard.model, guard.tokenizer, card, HARM)


def load_guard(folder: Path) -> TrainedGuard:
    """The guard in a folder.

    Raises `UserError` for a folder without one, and for one that is damaged or has another
    tokenizer.
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

    return TrainedGuard(model, tokenizer, read_sealed(folder / GUARD, checked))
