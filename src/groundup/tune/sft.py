"""Supervised fine-tuning: the first step of InstructGPT (Ouyang et al. 2022, section 3.5).

    minimize  - sum over the assistant's tokens of log p(token | all before it)

It is the same loss as in pre-training on other batches: conversations instead of documents, with
weight 0 on everything that the assistant did not say. Several conversations share a row and never
see each other. If answers are short and prompts long, as in questions about a story, a small weight
on the prompt teaches more in the same time (Shi et al. 2024, Instruction Tuning With Loss Over
Instructions).

With documents, it is continued pre-training on a domain (Gururangan et al. 2020, Don't Stop
Pretraining). Either trains the whole model, or an adapter (`tune/prepare.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from groundup.formats.card import model_card
from groundup.formats.hf_config import config_to_hf
from groundup.formats.locate import name_of
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.runs import ranks
from groundup.runs.console import counted, printable, say
from groundup.runs.folder import Run
from groundup.text.batches import ConversationStream
from groundup.text.example import Example
from groundup.train.batch import Batch
from groundup.train.device import resolve, use_threads
from groundup.train.loss import next_token_loss
from groundup.train.plan import TRAINING_SHARE, Trained, TrainPlan, uses_muon
from groundup.train.stage import Job, run_stage
from groundup.tune.config import SFTConfig
from groundup.tune.data import (
    Found,
    TuningData,
    decided,
    general_text,
    laid_out,
    locations,
    read_rows,
    require_joinable,
)
from groundup.tune.layout import DECAY, MAX_SEEN, Layout, rate_share, seen
from groundup.tune.prepare import SMALL, PreparedModel, prepare_model, with_more_tokens

# Peak learning rates of matrices (Muon) and of embeddings and gains (AdamW), for a small model that
# is trained as a whole.
RATES = (0.01, 0.003)
_QUESTION, _OPENING = "Who are you?", "The"


def run(config: SFTConfig) -> Path:
    """Fine-tune by `config` and return the run folder: a model's, or an adapter's.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    parents = {"model": config.model, **locations(config)}
    # The run records what is replayed; the job must know whether the user chose it.
    recorded = config.model_copy(update={"replay_data": general_text(config)})
    return run_stage(recorded, "sft", parents, functools.partial(_job, config))


def _job(config: SFTConfig, run: Run) -> Job[Batch, CausalLM]:
    prepared = prepare_model(config, RATES)
    model = prepared.model
    use_threads(config)
    found = read_rows(config, prepared.tokenizer, prepared.context)
    if found.tokenizer.largest_written_id >= model.config.vocab_size:
        prepared = with_more_tokens(config, prepared, found.tokenizer, RATES)
    data, layout, reasons = _data(config, run, prepared, found)
    if data.chats:
        ends = dict.fromkeys((*model.config.eos_token_ids, *data.tokenizer.stop_ids))
        model.config = replace(model.config, eos_token_ids=tuple(ends))
    run.write("data.json", data.counts)
    _print_counts(data)

    def save(model: CausalLM, plan: TrainPlan) -> None:
        read = (*config.data, *(general_text(config) if layout.replay else ()))
        trained = "the assistant's tokens" if data.chats else "every token"
        card = model_card(
            "A model fine-tuned by groundup",
            how=f"Fine-tuning of {name_of(config.model)}, loss on {trained}. {prepared.how}",
            facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
            data=read,
            parents=(config.model,),
        )
        prepared.save(run.folder, data.tokenizer, card)

    return Job(
        config.model_copy(update=asdict(layout)),
        _with_rates_for(config, prepared.trained, data.own_tokens),
        model=lambda: model,
        stream=lambda steps: data.stream,
        loss=next_token_loss,
        evaluate=lambda model, step: _evaluate(run, model, data, step),
        save=save,
        context=layout.context,
        rows_per_epoch=data.stream.rows_per_epoch,
        model_config=config_to_hf(model.config),
        tokens_per_step=_tokens_per_step(data.stream),
        most_passes=MAX_SEEN,
        layout=asdict(layout),
        reasons=reasons,
        announce=lambda plan: _print_passes(config, data, plan),
        evaluates_first=True,
    )


def _with_rates_for(config: SFTConfig, trained: Trained, tokens: int) -> Trained:
    """Lower the rates of a small model, or an adapter on one, for few `tokens`, so that it forgets
    less, unless the rate is given; large models already have low rates."""
    share = rate_share(tokens)
    rates = (share * RATES[0], share * RATES[1])
    large = trained.shape.parameters > SMALL
    if config.learning_rate is not None or large or rates == trained.rates:
        return trained
    why = f"{share:.2g} of a small model's, as {tokens:,} tokens are few"
    if share == 1:
        why = "that of a small model that is trained as a whole"
    return replace(trained, rates=rates, why_rates=f"{why}; change with --learning-rate")


def _data(
    config: SFTConfig, run: Run, prepared: PreparedModel, found: Found
) -> tuple[TuningData, Layout, dict[str, str]]:
    """The data, their layout (the plan's, if there is one) and the reasons for it."""
    plan = run.resolved(TrainPlan.from_json)
    if plan is not None and (known := plan.layout) is not None:
        layout = Layout(
            int(known["context"]),
            int(known["rows"]),
            known["epochs"],
            known["replay"],
            known.get("decay", DECAY),
        )
        return laid_out(config, found, layout), layout, {}

    def tokens_in_time(stream: ConversationStream) -> float:
        """The number of tokens that fit into the time, measured on a few rows of the stream: a
        first estimate, since other step sizes have other speeds."""
        from groundup.train.pace import measure_pace, micro_batches

        assert config.minutes is not None
        pace = measure_pace(
            prepared.model,
            resolve(config, compile_by_default=False),
            micro_batches(stream, prepared.model),
            next_token_loss,
            muon=uses_muon(config, prepared.trained),
            gradient_checkpointing=config.gradient_checkpointing,
        )
        speed = ranks.broadcast(pace.tokens_per_second(_tokens_per_step(stream)))
        return config.minutes * 60 * TRAINING_SHARE * speed * ranks.size()

    if found.chats and config.multi_turn > 0:
        require_joinable(config, found.tokenizer)
    timed = config.steps is None and config.minutes is not None
    return decided(
        config,
        found,
        longest=prepared.context,
        parameters=prepared.trained.shape.parameters,
        tokens_in_time=tokens_in_time if timed else None,
    )


def _tokens_per_step(stream: ConversationStream) -> int:
    """The average number of tokens that a step reads, without padding."""
    return max(1, round(stream.counts.tokens * stream.rows / stream.rows_per_epoch))


def _print_passes(config: SFTConfig, data: TuningData, plan: TrainPlan) -> None:
    """Print how often each row is seen, with a warning if that is too rare or too often.

    If sources are seen unequally often, the most and the least often seen are named.
    """
    stream = data.stream
    read = data.counts["rows"]
    own = read + data.counts["unread"]
    text, warning = seen(
        plan.steps * stream.rows / stream.rows_per_epoch * read / own,
        own,
        bounded=config.steps is not None or config.minutes is not None,
    )
    passes = stream.passes(plan.steps)
    times = {one: passes[one] for one in passes if one not in stream.mixture.beside}
    if len(set(times.values())) > 1:
        most, least = (
            seen(times[one], stream.sources.count(one), f" of {one}", bounded=False)
            for one in (max(times, key=times.__getitem__), min(times, key=times.__getitem__))
        )
        text = f"{most[0]}, {least[0]}"
        warning = most[1] or warning
    say(f"  passes: {text}")
    if warning:
        say(f"Warning: {warning}")


def heldout_loss(model: CausalLM, held: Sequence[Example], context: int) -> float | None:
    """Nats per trained token of held-out items, cut to `context`; None without items."""
    found = score(model, held, context=context)
    count = sum(len(logprobs) for logprobs in found)
    return -float(sum(logprobs.sum() for logprobs in found)) / count if count else None


def _print_counts(data: TuningData) -> None:
    """Print how much is trained on, and what was left out."""
    counts = data.counts
    own, epoch = counted(counts["rows"], "item"), "an epoch"
    if counts["replayed"]:
        own += f" of {counts['own_tokens']:,} tokens ({counts['own_trained']:,} learned)"
        epoch = f"with {counted(counts['replayed'], 'text')} of replay; an epoch of both"
    say(
        f"data: {own} to train on, {counted(counts['heldout'], 'item')} held out; "
        f"{epoch} reads {counts['tokens']:,} tokens and learns {counts['trained']:,} of them"
    )
    said = {
        "unread": ("item", "left unread, as so few steps need no more"),
        "bad_lines": ("bad line", "set aside"),
        "refused": ("item", "set aside, as reported above"),
        "duplicates": ("duplicate", "taken out"),
        "without_answer": ("item", "without a word to learn within the context"),
        "truncated": ("item", "cut at the context"),
    }
    for name, (what, why) in said.items():
        if counts[name]:
            say(f"  {counted(counts[name], what)} {why}")


def _evaluate(run: Run, model: CausalLM, data: TuningData, step: int) -> dict[str, Any]:
    """Measure the held-out loss, and log a sample of the model's text."""
    from groundup.generation.generate import generate
    from groundup.generation.request import Request
    from groundup.generation.sampling import Sampling

    loss = heldout_loss(model, data.heldout, data.stream.context)
    sampling = Sampling(temperature=0.0, max_new_tokens=60)
    prompt = _QUESTION if data.chats else _OPENING
    if data.chats:
        request = Request(messages=[{"role": "user", "content": prompt}], sampling=sampling)
    else:
        request = Request(prompt=prompt, sampling=sampling)
    [completion] = generate(model, [request], data.tokenizer)
    run.log("samples.jsonl", step=step, prompt=prompt, text=completion.text)
    if loss is not None:
        say(f"{run.stage}  step {step}  held-out loss {loss:.3f} nats a token")
    say(printable(f"  {prompt}  {completion.text}".replace("\n", " ")))
    return {"heldout_loss": loss}
