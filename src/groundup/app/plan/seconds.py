"""How long the stages of a recipe take, apart from the steps that they train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from groundup.app.recipe import Recipe, Table
from groundup.evals.config import EvalConfig
from groundup.evals.models import compute_of

# Seconds on two cores, between a fast and a slow machine's: reading, cleaning and comparing 15 MB
# of packs; training a tokenizer on them; starting Python, preparing the data and compiling a stage
# whose kernels are cached.
_DATA_SECONDS, _TOKENIZER_SECONDS, STAGE_SECONDS = 18.0, 6.0, 12.0
# Making, comparing and encoding one megabyte of the small world's text and its other rows.
_WORLD_SECONDS_PER_MEGABYTE = 3.0
# The eval stage at its default sizes for three models: the least seconds by dtype, and on a slow
# machine the tokens that training reads in this time (43 to 54 s at 37,000 tokens per second, and
# 97 s at 15,000 to 19,000). Short runs use smaller sizes. The share of it that any size takes: on
# that slow machine 58 s at a tenth of the sizes and at three tenths, 77 at six tenths.
_EVAL_SECONDS, _EVAL_TOKENS = {"float32": 85.0, "bfloat16": 43.0}, 1.7e6
_EVAL_LEAST_SHARE = 0.4
_EVAL_FULL_MINUTES, _MIN_EVAL_SCALE = 25.0, 0.1
# The least seconds to answer a prompt with n answers, to learn once from its pairs, and to read the
# fine-tuning data mixed in.
_PROMPT_SECONDS, _PAIRS_SECONDS, _PTX_SECONDS = 0.009, 0.0018, 12.0
# On a slow machine, the tokens that training reads in the time of answering one prompt.
_ANSWERS_TOKENS = 360
# And of learning once from its pairs: after endless fine-tuning, what an untrained model needs
# more, and the tokens of fine-tuning that halve this. In quickstarts it was 170 tokens after
# 2.8 million and 111 to 119 after 7.2 to 7.7 million.
_PAIRS_TOKENS, _UNTRAINED_PAIRS_TOKENS, _HALVING_TOKENS = 60, 300, 1.64e6
# The factor by which pairs across prompts increase the number of pairs.
_ACROSS_PROMPTS = 1.3


def fixed_seconds(
    recipe: Recipe,
    out: Path,
    minutes: float,
    speeds: Mapping[str, float],
    trained: float = 0.0,
) -> dict[str, float]:
    """The seconds of each table that do not depend on how long it trains.

    `speeds` are the training speeds of the tables' models in tokens per second, where known.
    `trained` is the number of tokens of fine-tuning: a model that has hardly trained answers at
    full length and seldom twice the same, so its pairs have more tokens.
    """
    pairs_tokens = _PAIRS_TOKENS + _UNTRAINED_PAIRS_TOKENS / (1 + trained / _HALVING_TOKENS)
    found = dict[str, float]()
    for table in recipe.tables:
        speed = speeds.get(table.name, math.inf)
        if table.stage.name == "data":
            megabytes = table.settings.get("world_megabytes", 0.0)
            found[table.name] = _DATA_SECONDS + _WORLD_SECONDS_PER_MEGABYTE * megabytes
        elif table.stage.name == "eval":
            scale = eval_scale(minutes)
            found[table.name] = STAGE_SECONDS + eval_seconds(table, out, speed, scale)
        elif table.stage.name == "tokenizer":
            found[table.name] = _TOKENIZER_SECONDS
        else:
            found[table.name] = STAGE_SECONDS + _passes_seconds(table, recipe, speed, pairs_tokens)
            if table.stage.name == "best-of-n":
                each = max(_PROMPT_SECONDS, _ANSWERS_TOKENS / speed)
                found[table.name] += each * _answered_prompts(table)
    return found


def _answered_prompts(table: Table) -> float:
    """The prompts of a best-of-n stage, in units of 4 answers of at most 96 tokens."""
    config = {name: field.default for name, field in table.stage.config.model_fields.items()}
    config |= table.settings
    return float(config["questions"] * config["n"] / 4 * config["max_new_tokens"] / 96)


def pairs_table(table: Table, recipe: Recipe) -> Table | None:
    """The best-of-n table on whose pairs a table trains for some epochs; None without one."""
    if "epochs" not in table.settings:
        return None
    compared = (one for one in recipe.tables if one.name == table.inputs.get("data"))
    return next((one for one in compared if one.stage.name == "best-of-n"), None)


def _passes_seconds(table: Table, recipe: Recipe, speed: float, pairs_tokens: float) -> float:
    """Seconds of a table's epochs on a best-of-n table's pairs; 0 if it has none."""
    compared = pairs_table(table, recipe)
    if compared is None:
        return 0.0
    each = max(_PAIRS_SECONDS, pairs_tokens / speed)
    seconds = float(table.settings["epochs"]) * _answered_prompts(compared) * each
    if compared.settings.get("across_prompts"):
        seconds *= _ACROSS_PROMPTS
    # A step reads the same number of rows of fine-tuning data.
    return 2 * seconds + _PTX_SECONDS if table.settings.get("ptx") else seconds


def eval_seconds(table: Table, out: Path, speed: float, scale: float = 1.0) -> float:
    """Seconds of the eval stage at `scale` times its default sizes.

    `speed` is the training speed of its models in tokens per second; infinite if unknown.
    """
    dtype = compute_of(cast(EvalConfig, table.config(out))).dtype
    whole = max(_EVAL_SECONDS[dtype], _EVAL_TOKENS / speed)
    return whole * (_EVAL_LEAST_SHARE + (1 - _EVAL_LEAST_SHARE) * scale)


def eval_scale_for(seconds: float, table: Table, out: Path, speed: float) -> float:
    """The scale at which the eval stage takes these `seconds`, within bounds."""
    share = seconds / eval_seconds(table, out, speed)
    return _bounded((share - _EVAL_LEAST_SHARE) / (1 - _EVAL_LEAST_SHARE))


def eval_scale(minutes: float) -> float:
    """The scale of the eval stage that suits a recipe of so many minutes."""
    return _bounded(minutes / _EVAL_FULL_MINUTES)


def _bounded(scale: float) -> float:
    return min(1.0, max(_MIN_EVAL_SCALE, scale))
