"""The reward model, a fine-tuned model's body with a scalar head, and its folder.

The folder is a Hugging Face folder (`…ForSequenceClassification` with one label), which
transformers reads at the last token of a text: the one that ends an answer must be the last, as the
folder's card shows. `reward_mean` and `reward_deviation` in its config.json are ours. On the
answers where they were measured, rewards have mean 0 and deviation 1, so that a KL coefficient
means the same with every reward model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.align.rewards.verifiers import LARGEST_REWARD
from groundup.align.rollout import Rollout
from groundup.errors import UserError
from groundup.formats.config_reader import ConfigReader
from groundup.formats.folder import CARD, DTYPES, HARM, scores_texts
from groundup.formats.hf_config import config_from_hf, config_to_hf
from groundup.formats.locate import CONFIG, TOKENIZER
from groundup.formats.weights import (
    INDEX,
    MAX_SHARD_BYTES,
    empty_model,
    model_of,
    read_weights,
    tensor_names,
    write_weights,
)
from groundup.lm.config import ModelConfig
from groundup.lm.logprobs import passes
from groundup.lm.model import CausalLM, uncompiled
from groundup.runs.files import read_json_object, temporary_folder, write_json, write_text
from groundup.text.batches import packed_batch
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

_SCORE = "score.weight"
# The label in config.json: the number says how good an answer is (a guard's, how harmful).
REWARD = "reward"
_MAKES = {REWARD: "reward", HARM: "guard"}
# The smallest divisor of scores.
_MIN_DEVIATION = 1e-6


class RewardModel(nn.Module):
    """A transformer that reads one number from its last state at the end of an answer.

    Rewards are scaled: (score - mean) / deviation.
    """

    def __init__(self, lm: CausalLM, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.lm = lm
        self.score = nn.Linear(lm.config.hidden_size, 1, bias=False)
        self.mean, self.deviation = mean, deviation

    def initialize(self, seed: int) -> None:
        """Initialize the head so small that answers begin nearly alike (Stiennon et al. 2020)."""
        generator = torch.Generator().manual_seed(seed)
        width = self.score.in_features
        with torch.no_grad():
            self.score.weight.normal_(0.0, 1 / math.sqrt(width + 1), generator=generator)

    @property
    def config(self) -> ModelConfig:
        return self.lm.config

    def forward(self, rows: Batch) -> Float[Tensor, " answers"]:
        """The score of every answer in the batch, in order, unscaled (see `read_at_end`)."""
        row, place = rows.weights.nonzero(as_tuple=True)
        # With an adapter, the body keeps its own dtype, and the head is in float32.
        ends = self.lm(rows)[row, place].to(self.score.weight.dtype)
        found: Tensor = self.score(ends)
        return found[:, 0].float()

    def set_attention(self, path: Literal["matmul", "fused"]) -> None:
        self.lm.set_attention(path)

    def compile_blocks(self) -> None:
        self.lm.compile_blocks()

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.lm.set_gradient_checkpointing(on)


def read_at_end(ids: Sequence[int], context: int) -> Example:
    """An answer with its prompt, marked at its last token; a long one keeps its end.

    An extra token follows and is never read, because a mark belongs to the place before a target.
    """
    kept = list(ids[-context:])
    return Example([*kept, 0], [False] * len(kept) + [True])


# Scoring.


@torch.inference_mode()
def scores_of(
    model: RewardModel, answers: Sequence[Example], context: int
) -> Float[np.ndarray, " answers"]:
    """The unscaled score of every answer, computed with those of similar length."""
    found, device = np.empty(len(answers)), model.lm.head.device
    lengths = [answer.inputs for answer in answers]
    with uncompiled(model.lm):
        for some in passes(lengths, context, device):
            rows = packed_batch([[answers[i]] for i in some], lengths[some[0]]).to(device)
            found[some] = model(rows).cpu().numpy()
    return found


def score_rollouts(
    model: RewardModel, rollouts: Sequence[Rollout]
) -> Float[np.ndarray, " rollouts"]:
    """The scaled reward of every rollout, on exactly the tokens that were sampled."""
    context = model.config.max_position_embeddings
    answers = [read_at_end([*one.prompt.ids, *one.ids], context) for one in rollouts]
    return (scores_of(model, answers, min(context, 256)) - model.mean) / model.deviation


# On disk.


def save_reward_model(
    folder: Path, model: RewardModel, tokenizer: Tokenizer, card: str, label: str = REWARD
) -> None:
    """Write a folder that transformers reads as a model for sequence classification.

    `label` names the meaning of its number.
    """
    described = config_to_hf(model.config)
    described["architectures"] = [
        re.sub(
            "(ForCausalLM|LMHeadModel)$", "ForSequenceClassification", described["architectures"][0]
        )
    ]
    described |= {"id2label": {"0": label}, "label2id": {label: 0}, "num_labels": 1}
    described |= {"reward_mean": model.mean, "reward_deviation": model.deviation}
    stale = (CONFIG, INDEX, "model*.safetensors")
    with temporary_folder(folder, last=CONFIG, replaces=stale) as aside:
        head = {_SCORE: model.score.weight.detach().float()}
        write_weights(aside, model.lm, torch.float32, MAX_SHARD_BYTES, head)
        tokenizer.save(aside)
        write_text(aside / CARD, card)
        write_json(aside / CONFIG, described)


def is_reward_model(folder: Path) -> bool:
    """Whether the folder holds a model for sequence classification."""
    try:
        return scores_texts(read_json_object(folder / CONFIG))
    except UserError:
        return False


def reward_config(label: str, folder: Path) -> dict[str, Any]:
    """The config.json of the reward model in a folder, or of the guard if `label` says so.

    Raises `UserError` for a folder without one.
    """
    if not is_reward_model(folder):
        what = "reward model" if label == REWARD else "guard"
        raise UserError(
            f"{folder} holds no {what}; train one with groundup {_MAKES[label]} and give its folder"
        )
    described = read_json_object(folder / CONFIG)
    labels = described.get("num_labels", len(described.get("id2label") or {"0": ""}))
    if labels != 1:
        raise UserError(f"{folder} tells {labels} classes apart; a reward model has one label")
    if (HARM in _labels(described)) != (label == HARM):
        what = "a guard, whose number rises with harm" if label == REWARD else "no guard"
        raise UserError(f"{folder} holds {what}; give a folder that groundup {_MAKES[label]} wrote")
    return described


def load_reward_model(
    folder: Path, tokenizer: Tokenizer | None = None, label: str = REWARD
) -> RewardModel:
    """The reward model in a folder, for answers in tokens of `tokenizer`; or a guard, by `label`.

    Raises `UserError` for a folder without one, and for one with another tokenizer.
    """
    described = reward_config(label, folder)
    if tokenizer is not None and (folder / TOKENIZER).is_file():
        own = Tokenizer.load(folder)
        if not own.same_tokens(tokenizer):
            raise UserError(
                f"{folder} reads other tokens than the policy's, whose answers it could not score; "
                "train a reward model from the policy's own fine-tuned model"
            )
    config = config_from_hf(described)
    if "lm_head.weight" not in tensor_names(folder):  # transformers stores only the score
        config = replace(config, tie_word_embeddings=True)
    tensors = read_weights(folder, empty_model(config), "cpu", {_SCORE})
    head = tensors.pop(_SCORE, None)
    if head is None or head.shape != (1, config.hidden_size):
        raise UserError(
            f"{folder}: {_SCORE} is missing or of another shape than (1, {config.hidden_size}); "
            "save or train the reward model again"
        )
    dtype = DTYPES.get(str(described.get("dtype")), torch.float32)
    lm = model_of(config, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    # A classifier from elsewhere has neither, so its scores are not scaled.
    scale = ConfigReader({"reward_mean": 0, "reward_deviation": 1, **described}, "reward model")
    model = RewardModel(
        lm,
        scale.float_("reward_mean", -LARGEST_REWARD, LARGEST_REWARD),
        scale.float_("reward_deviation", _MIN_DEVIATION, LARGEST_REWARD),
    )
    model.score.weight.data = head.to(dtype)
    return model.eval().requires_grad_(False)


def _labels(described: Mapping[str, Any]) -> list[object]:
    """The label names of a model for sequence classification."""
    named = described.get("id2label")
    return list(named.values()) if isinstance(named, dict) else []
