"""Turn a user's values into a stage's config, and report every error in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from groundup.errors import UserError, known_names
from groundup.train.ranges import check_text, ranges

C = TypeVar("C", bound=BaseModel)

# Our settings by their names in transformers, trl, PEFT, axolotl, LLaMA-Factory, litgpt, nanoGPT.
_ELSEWHERE = {
    "epochs_per_iteration": "num_iterations mu",
    "rows": "batch_size global_batch_size train_batch_size effective_batch_size",
    "micro_rows": "micro_batch_size per_device_train_batch_size device_batch_size "
    "gradient_accumulation_steps",
    "context": "max_length max_seq_length max_seq_len seq_length seq_len sequence_len "
    "sequence_length cutoff_len model_max_length block_size",
    "steps": "max_steps max_iters num_steps num_iterations total_steps train_steps",
    "epochs": "num_train_epochs num_epochs n_epochs max_epochs",
    "learning_rate": "lr max_lr peak_lr",
    "warmup": "warmup_ratio warmup_steps warmup_iters lr_warmup_steps",
    "decay": "lr_decay_iters cooldown_fraction",
    "decay_shape": "lr_scheduler_type lr_scheduler schedule",
    "decay_to": "min_lr min_lr_rate min_lr_ratio",
    "adam_beta1": "beta1 betas adam_betas",
    "adam_beta2": "beta2",
    "gradient_clip": "max_grad_norm grad_clip clip_grad max_norm",
    "optimizer": "optim",
    "evaluations": "eval_steps eval_interval eval_strategy logging_steps log_interval",
    "patience": "early_stopping_patience load_best_model_at_end",
    "save_every": "save_steps save_interval save_strategy",
    "out": "output_dir output out_dir save_dir",
    "data": "dataset datasets dataset_name train_file train_data data_path",
    "validation": "val_size val_file eval_dataset test_size val_split",
    "dtype": "torch_dtype bf16 fp16 precision mixed_precision",
    "adapter": "finetuning_type load_in_4bit load_in_8bit use_lora use_peft quantization "
    "qlora lora",
    "lora_rank": "r lora_r rank",
    "lora_alpha": "alpha",
    "lora_targets": "target_modules lora_target lora_target_modules",
    "lora_plus": "loraplus_lr_ratio lora_plus_lr_ratio",
    "replay": "rehearsal",
    "depth": "n_layer n_layers num_layers num_hidden_layers layers",
    "width": "n_embd d_model hidden_size embed_dim dim",
    "heads": "n_head n_heads num_heads num_attention_heads",
    "kv_heads": "n_kv_head n_kv_heads num_key_value_heads",
    "loss": "loss_type dpo_loss pref_loss",
    "beta": "pref_beta dpo_beta",
    "nll": "rpo_alpha",
    "ptx": "ptx_coef",
    "group_size": "num_generations n_samples_per_prompt rollout_n",
    "max_new_tokens": "max_tokens max_completion_length max_completion_tokens response_length",
    "reward": "reward_funcs reward_model reward_model_path",
    "clip_range": "cliprange epsilon eps_clip clip_ratio",
    "clip_range_high": "epsilon_high",
    "kl_coef": "beta init_kl_coef kl_loss_coef",
    "value_coef": "vf_coef",
    "value_clip_range": "cliprange_value",
    "gae_lambda": "lam lambda",
    "ppo_epochs": "num_ppo_epochs",
    "minibatches": "num_mini_batches num_minibatches",
    "iterations": "num_updates",
}


def renamed_here(name: str, known: Collection[str]) -> str | None:
    """Our name, the first in `known`, of a setting that other trainers call `name`."""
    named = (ours for ours, others in _ELSEWHERE.items() if name.lower() in others.split())
    return next((ours for ours in named if ours in known), None)


def configured(
    config: type[C],
    values: Mapping[str, Any],
    spell: Callable[[str], str] = str,
    prefix: str = "",
) -> C:
    """Return `values` as a config; no value is converted to another type.

    Raises `UserError` with one line per error; `spell` writes a field's name as the user knows
    it, and `prefix` precedes errors that concern several fields.
    """
    faults = [
        fault
        for name, value in values.items()
        if name in config.model_fields
        for fault in _invalid(config, name, value, spell)
    ]
    if faults:
        raise UserError("\n".join(faults))
    try:
        # As JSON, where a path is a string, so that strict mode accepts only strings for paths.
        return config.model_validate_json(json.dumps(values, default=str), strict=True)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None
    except ValidationError as error:
        found = error.errors()
        items = {fault["loc"][0] for fault in found if len(fault["loc"]) > 1}
        # Pydantic also reports a list with a wrong item as too short.
        lines = [
            _fault(config, dict(fault), spell, prefix)
            for fault in found
            if fault["type"] != "too_short" or fault["loc"][0] not in items
        ]
        raise UserError("\n".join(lines)) from None


_RULES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text in quotes",
    "path": "must be a path in quotes",
    "tuple": "must be a list",
    "dict": "must be a table of names, such as {world = …}",
    "too_short": "must not be empty",
}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def _invalid(
    config: type[BaseModel], name: str, value: object, spell: Callable[[str], str]
) -> Iterator[str]:
    """Yield errors for values that JSON cannot represent and for impossible file names.

    These include TOML's dates, which as text would be valid paths.
    """
    field = config.model_fields[name]
    if isinstance(value, tuple | list):
        for one in value:
            yield from _invalid(config, name, one, spell)
    elif isinstance(value, date | time):
        yield f"{spell(name)}={value} is a date or a time, which no setting takes; put it in quotes"
    elif isinstance(value, float) and not math.isfinite(value):
        rules = "".join(f", {one.rule()}" for one in ranges(field))
        yield f"{spell(name)}={value} must be a finite number{rules}; {_remedy(config, name)}"
    elif isinstance(value, str | Path):
        try:
            # A recipe's paths are text; only the field's type says that they are paths.
            check_text(spell(name), Path(value) if Path in _types(field.annotation) else value)
        except UserError as error:
            yield str(error)


def _types(annotation: Any) -> Iterator[Any]:
    """Yield all parts of a type: for `tuple[Path, ...] | None`, they include Path."""
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def _unused(config: type[BaseModel]) -> frozenset[str]:
    """The settings that a stage inherits and refuses."""
    return frozenset(getattr(config, "unused", ()))


def _fault(
    config: type[BaseModel], fault: Mapping[str, Any], spell: Callable[[str], str], prefix: str
) -> str:
    """Return one of pydantic's errors as one sentence: the value, the rule, the remedy."""
    kind, context = fault["type"], fault.get("ctx", {})
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if kind == "missing":
        return f"{spell(name)} is missing; give {config.model_fields[name].description}"
    if kind == "extra_forbidden":
        known = tuple(
            field for field in config.model_fields if field not in {"out", *_unused(config)}
        )
        if (ours := renamed_here(name, known)) is not None:
            what = config.model_fields[ours].description
            return f"{spell(name)} is not a setting of this stage; use {ours}: {what}"
        return (
            f"{spell(name)} is not a setting of this stage; "
            f"{known_names(name, known, 'its settings are')}"
        )
    if not name or kind == "value_error":  # a config's own rule, whose message is complete
        return prefix + str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    if kind in _BOUNDS:
        rule = f"must be {next(ranges(config.model_fields[name])).rule(given)}"
    elif kind == "too_short" and given:
        rule = f"must have at least {context['min_length']}"
    elif kind == "literal_error":
        rule = f"must be one of {context['expected']}"
    else:
        rule = _RULES.get(kind, _RULES.get(kind.split("_")[0], f"cannot be used ({fault['msg']})"))
        number = next(ranges(config.model_fields[name]), None)
        if number is not None and kind.startswith(("int", "float")):
            rule += f", {number.rule()}"
    value = json.dumps(given, ensure_ascii=False, default=str)
    value = value if len(value) <= 120 else f"{value[:119]}…"
    return f"{spell(name)}={value} {rule}; {_remedy(config, name)}"


def _remedy(config: type[BaseModel], name: str) -> str:
    field = config.model_fields.get(name)
    if field is None or field.is_required():
        return f"give {field.description if field else 'another value'}"
    if field.default is None:
        return f"or leave it out: {field.description}"
    if field.default in ((), {}):  # an empty default does not show the form
        return f"or leave it out: {field.description}"
    return f"the default is {json.dumps(field.default, default=str)}"
