"""Pre-training: a model learns to predict the next token, and with it grammar and facts.

    minimize  - sum_t log p(x_t | x_<t)       over documents, packed, never across their borders

The stage turns minutes into a model size and a number of steps, encodes the text once into token
shards, and passes a document stream and the next-token loss to the training loop of all stages.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.data.corpus import documents
from groundup.data.packs.manifest import mixture_groups
from groundup.data.split import on_disk
from groundup.errors import UserError
from groundup.evals.perplexity import INTERMEDIATE_BYTES, bits_per_byte
from groundup.formats.card import model_card
from groundup.formats.folder import save_model
from groundup.formats.hf_config import config_from_hf, config_to_hf
from groundup.generation.generate import generate
from groundup.generation.request import Request, opening_ids, prompt_ids
from groundup.generation.sampling import Sampling
from groundup.lm.config import ModelConfig
from groundup.lm.initialization import MIN_FEATURES, can_look_back
from groundup.lm.model import CausalLM
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.shape import model_shape
from groundup.report.table import listing
from groundup.runs import ranks
from groundup.runs.console import counted, printable, say
from groundup.runs.folder import Run
from groundup.text.document_stream import DocumentStream
from groundup.text.shards import Shard, encode
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.train.device import matmul_peak, resolve, use_threads
from groundup.train.loss import next_token_loss
from groundup.train.plan import Trained, TrainPlan
from groundup.train.stage import Job, run_stage

# Peak learning rates of matrices (Muon) and of embeddings and gains (AdamW).
RATES = (0.02, 0.006)
# Muennighoff et al. 2023, Scaling Data-Constrained Language Models: up to this many passes,
# repeated text is nearly as useful as new text.
MAX_PASSES = 4.0


def run(config: PretrainConfig) -> Path:
    """Pre-train by `config` and return the run folder, which is a model folder.

    Raises `UserError` for settings, text or a folder that cannot be used.
    """
    parents = {"data": on_disk(config.data), "tokenizer": config.tokenizer}
    return run_stage(config, "pretrain", parents, functools.partial(_job, config))


def _job(config: PretrainConfig, run: Run) -> Job[Batch, CausalLM]:
    tokenizer = Tokenizer.load(config.tokenizer)
    shape, reasons = _shape(config, run, tokenizer.vocab_size)
    shape = _with_ids(shape, tokenizer)
    if opening_ids(shape, tokenizer) != [tokenizer.end_of_text]:
        raise UserError(
            f"the tokenizer of {config.tokenizer} has different tokens for the beginning and the "
            "end of a text, but pre-training needs a single one; use a tokenizer with "
            "<|endoftext|>, as `groundup tokenizer`, GPT-2 and Qwen have"
        )
    try:
        prompt_ids(shape, _request(config), tokenizer)
    except UserError as error:
        raise UserError(f"--prompt: {error}") from None
    texts = documents(config.data)
    shards = run.folder / "tokens"
    with ranks.rank_zero_first():
        shard = encode(texts.train, tokenizer, shards / "train", split="train")
        heldout = encode(texts.heldout, tokenizer, shards / "heldout", split="heldout")
    stream = _stream(config, shard)
    previous_heads = previous_token_heads(config, shape)
    if previous_heads and config.previous_token_heads is None:
        reasons = reasons | {"previous_token_heads": _why_previous_heads(previous_heads)}
    if moves := _mixture_changes(config, shard.sources):
        reasons = reasons | {"mixture": moves}
    say(
        f"data: {counted(len(texts.train), 'document')} of {len(shard.tokens):,} tokens to train "
        f"on, {counted(len(texts.heldout), 'document')} held out"
    )
    texts.say_set_aside()

    def save(model: CausalLM, plan: TrainPlan) -> None:
        card = model_card(
            "A base model pre-trained by groundup",
            how="Pre-trained from random weights on documents, next token by next token.",
            facts={
                "parameters": f"{plan.parameters:,}",
                "tokens read": f"{plan.steps * plan.tokens_per_step:,}",
                "context": config.context,
            },
            data=(config.data,),
        )
        save_model(run.folder, model, tokenizer, card=card)

    return Job(
        config,
        Trained.whole(shape, config.context, RATES, "which suits small models from random weights"),
        model=lambda: new_model(shape, config.seed, previous_heads),
        stream=lambda steps: _stream(config, shard, steps),
        loss=next_token_loss,
        evaluate=lambda model, step: _evaluate(config, run, model, tokenizer, heldout, step),
        save=save,
        context=config.context,
        rows_per_epoch=stream.rows_per_epoch,
        model_config=config_to_hf(shape),
        reasons=reasons,
        snapshots=True,
        passes=lambda steps: max(_stream(config, shard, steps).passes(steps).values()),
        announce=lambda plan: _print_passes(config, _stream(config, shard, plan.steps), plan.steps),
    )


def passes(times: float, what: str = "the text") -> tuple[str, str]:
    """A sentence on how often a text is read, and a warning beyond `MAX_PASSES`."""
    number = f"{times:.0f}" if times >= 10 else f"{times:.2g}"
    text = f"{what} is read about {number} times"
    if times <= MAX_PASSES:
        return text, ""
    return text, (
        f"{text}; up to about {MAX_PASSES:.0f} passes teach nearly as much as new text, later "
        "ones less and less, and held-out loss may rise: give more text, or less --minutes or "
        "--steps"
    )


def _print_passes(config: PretrainConfig, stream: DocumentStream, steps: int) -> None:
    """Print how often each part of the mixture is read, with a warning for the most repeated."""
    names = dict(zip(mixture_groups(config.mixture), config.mixture, strict=True))
    times = stream.passes(steps)
    rest = "the other text" if len(times) > 1 else "the text"
    said = [(one, *passes(one, names.get(group, rest))) for group, one in times.items()]
    say(f"  passes: {listing([text for _, text, _ in said])}")
    if warning := max(said)[2]:
        say(f"Warning: {warning}")


def _mixture_changes(config: PretrainConfig, sources: Sequence[str]) -> str:
    """A reason that names the sources whose share changes during training, or an empty string."""
    moves, there = [], set(sources)
    groups = mixture_groups(config.mixture)
    for name, (group, (begin, end)) in zip(config.mixture, groups.items(), strict=True):
        if begin != end and there & set(group) and there - set(group):
            moves.append(f"{name} from {100 * begin:.0f} % to {100 * end:.0f} %")
    if not moves:
        return ""
    return (
        f"{listing(moves)} of the rows over the run; as the text changes, training loss may rise "
        "while the model learns"
    )


def _with_ids(shape: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The shape with the ids of the tokens at which texts begin and end."""
    end = tokenizer.end_of_text
    ends = tuple(dict.fromkeys(id for id in (tokenizer.eos_id, end) if id is not None))
    return replace(shape, bos_token_id=end, eos_token_ids=ends, pad_token_id=end)


def new_model(shape: ModelConfig, seed: int, previous_token_heads: int = 0) -> CausalLM:
    """A model with random weights; `previous_token_heads` heads look back from the start."""
    model = CausalLM(shape)
    model.initialize(seed, previous_token_heads=previous_token_heads)
    return model


# Two heads taught a small model more than one; a third, for three positions back, added nothing.
_PREVIOUS_TOKEN_HEADS = 2


def previous_token_heads(config: PretrainConfig, shape: ModelConfig) -> int:
    """How many heads of the first layer are initialized to look back: as set, or as fits the shape.

    Raises `UserError` for more heads than there are, and for a shape whose heads cannot.
    """
    asked, heads = config.previous_token_heads, shape.num_attention_heads
    if asked is None:
        return min(_PREVIOUS_TOKEN_HEADS, heads - 1) if can_look_back(shape) else 0
    if asked > heads:
        raise UserError(
            f"--previous-token-heads={asked} must be at most the {heads} heads; give fewer"
        )
    if asked and not can_look_back(shape):
        raise UserError(
            f"--previous-token-heads={asked} needs heads of {MIN_FEATURES} features, but they "
            f"have {shape.head_dim}; give fewer --heads, or leave it out"
        )
    return asked


def _why_previous_heads(heads: int) -> str:
    places = "one token" if heads == 1 else "one and two tokens"
    begin = "begins" if heads == 1 else "begin"
    return (
        f"{counted(heads, 'head')} of the first layer {begin} by looking {places} back, so that "
        "copying is learned sooner; change with --previous-token-heads"
    )


def _stream(config: PretrainConfig, shard: Shard, steps: int | None = None) -> DocumentStream:
    return DocumentStream(
        shard,
        context=config.context,
        rows=config.rows,
        micro_rows=config.micro(config.context),
        seed=config.seed,
        mixture=mixture_groups(config.mixture),
        steps=steps,
    )


def _shape(config: PretrainConfig, run: Run, vocab_size: int) -> tuple[ModelConfig, dict[str, str]]:
    planned = run.resolved(_planned_shape)
    if planned is not None:
        return planned, {}
    use_threads(config)
    compute = resolve(config, compile_by_default=False)
    peak = ranks.broadcast(matmul_peak(compute.device, compute.torch_dtype))
    return model_shape(config, vocab_size, peak)


def _planned_shape(plan: dict[str, Any]) -> ModelConfig:
    shape = plan.get("model")
    if not isinstance(shape, dict):
        raise UserError("plan.json does not have the model's shape")
    return config_from_hf(shape)


def _evaluate(
    config: PretrainConfig,
    run: Run,
    model: CausalLM,
    tokenizer: Tokenizer,
    heldout: Shard,
    step: int,
) -> dict[str, Any]:
    """Measure held-out bits per byte, and log a sample of the model's text."""
    found = bits_per_byte(
        model, heldout, tokenizer, bytes_per_source=INTERMEDIATE_BYTES, context=config.context
    )
    [completion] = generate(model, [_request(config)], tokenizer)
    run.log("samples.jsonl", step=step, prompt=config.prompt, text=completion.text)
    pooled = found.per_byte()
    say(f"{run.stage}  step {step}  held-out {pooled:.3f} bits per byte")
    say(printable(f"  {config.prompt}{completion.text}".replace("\n", " ")))
    return {"bits_per_byte": pooled, "by_source": found.per_byte_by_source()}


def _request(config: PretrainConfig) -> Request:
    sampling = Sampling(temperature=0.8, max_new_tokens=40, seed=config.seed)
    return Request(prompt=config.prompt, sampling=sampling)
