"""What fine-tuning brought, and what was forgotten over it: one table for all ways to fine-tune.

    gain       = measure(after) - measure(before)       on held-out rows of the domain
    forgetting = measure(after) - measure(before)       on text and questions of everything else

Both are differences on the same items, and intervals come from drawing those items (conversations,
questions, blocks of text) anew: what makes one hard for both models cancels, so that differences
are seen which two intervals side by side would hide. The first model is the parent that the others
are compared with. That a model gets worse at what it was not tuned on is McCloskey and Cohen 1989,
Catastrophic interference in connectionist networks; that low-rank updates forget less and learn
less is Biderman et al. 2024, LoRA Learns Less and Forgets Less.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from groundup.adapters.quantised import dequantise
from groundup.data.corpus import encode
from groundup.errors import UserError
from groundup.evals.answers import AssistantLoss, as_dicts, assistant_loss, ready_conversations
from groundup.evals.config import TuningReportConfig
from groundup.evals.contamination import Contamination, contamination
from groundup.evals.continuations import Pair, continuation_logprobs
from groundup.evals.core import LONGEST_CONTEXT, Answers, answered, compute_of, located
from groundup.evals.perplexity import Bits, bits_per_byte
from groundup.evals.tuning_facts import Costs, costs, held_out
from groundup.evals.tuning_material import (
    Domain,
    General,
    Prompt,
    Reply,
    general,
    read_domain,
)
from groundup.formats.folder import load
from groundup.generation.generate import generate
from groundup.generation.request import Request, prompt_ids
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.folder import Run, read_run
from groundup.text.chat import encode_chat
from groundup.text.rows import Document, Message
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute, prepare

# Conversations and pieces of text are about this long; more would only be padding.
CONTEXT = 512
SAMPLE_TOKENS = 40
# What is held out of one's own rows where no run says otherwise, as in fine-tuning itself.
_VALIDATION = 0.05


@dataclass(frozen=True)
class Tuned:
    """One model and all that was measured of it; None is what it cannot be asked.

    `loss` and `replies` are of the domain's conversations, `documents` of its texts; `answers` and
    `texts` are general. Items are kept one by one, so that models can be compared on them.
    """

    name: str
    source: str
    costs: Costs
    history: History | None
    parameters: int
    loss: AssistantLoss | None
    replies: Answers | None
    documents: Bits | None
    answers: Answers
    texts: Bits
    samples: Sequence[str]
    contamination: Sequence[Contamination]
    seconds: float
    cpu_seconds: float


def run(config: TuningReportConfig) -> Path:
    """Measure `config.models` and return the folder with report.json and report.html.

    Raises `UserError` for models or data that are not there, and a folder that cannot be written.
    """
    from groundup.evals.tuning_page import say_table, write_tuning  # matplotlib loads slowly

    named = located(config)
    parents = {name: path for name, (_, path) in named.items()} | _data_folders(config)
    with Run.open(config.out, "tuning", config, parents) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        validation = validation_of(config, [path for _, path in named.values()])
        run.plan({"compute": compute.to_json(), "validation": validation})
        domain = read_domain(config, validation)
        what = "were all trained on, none is held out" if domain.trained else "are held out"
        say(f"tuning  {domain.rows:,} rows of the domain {what}")
        other = general(config)
        found = [
            measure(config, name, source, path, domain, other, compute, is_parent=place == 0)
            for place, (name, (source, path)) in enumerate(named.items())
        ]
        seconds = time.monotonic() - begun
        children = children_of(run.folder, found)
        content = write_tuning(run.folder, config, found, domain, other, children, compute, seconds)
        run.finish(seconds=seconds)
        say_table(content)
        return run.folder


def _data_folders(config: TuningReportConfig) -> dict[str, Path]:
    """Those of the data's sources that lie somewhere: the report is made of just these bytes."""
    there = [at for at in config.data if at.exists()]
    return {f"data {place}" if place > 1 else "data": at for place, at in enumerate(there, start=1)}


def children_of(folder: Path, models: Sequence[Tuned]) -> dict[str, bool | None]:
    """Whether each tuned model was trained from the first one, by the hashes that runs keep; None
    where a folder does not tell."""
    parents = read_run(folder)["parents"]
    first = parents[models[0].name]["sha256"]
    found: dict[str, bool | None] = {}
    for model in models[1:]:
        began = None if model.history is None else model.history.run["parents"].get("model")
        found[model.name] = None if began is None else began.get("sha256") == first
    return found


def validation_of(config: TuningReportConfig, models: Sequence[Path]) -> float:
    """The share that the runs of these models held out, the smallest where they differ; 0 where one
    of them trained on every row.

    A row is held out if its hash is below the share, so what the smallest holds out, all do.
    """
    if config.validation is not None:
        return config.validation
    histories = [history for path in models if (history := History.of(path)) is not None]
    shares = [held_out(history) for history in histories]
    return min(
        [share for share in shares if share is not None and 0 <= share < 1], default=_VALIDATION
    )


def measure(
    config: TuningReportConfig,
    name: str,
    source: str,
    path: Path,
    domain: Domain,
    other: General,
    compute: Compute,
    *,
    is_parent: bool,
) -> Tuned:
    """All that is measured of one model, in the order of the report."""
    begun, spent = time.monotonic(), time.process_time()
    model, tokenizer = load(path)
    # The same numbers to the bit, made once instead of in every pass.
    dequantise(model, compute.torch_dtype)
    prepare(model, compute)
    model.eval()
    context = min(model.config.max_position_embeddings, CONTEXT)
    chats = tokenizer.chat_template is not None and bool(domain.conversations)
    talks = ready_conversations(domain.conversations if chats else (), tokenizer, context)
    bits = _BitsOf(config, model, tokenizer, context)
    found = Tuned(
        name=name,
        source=source,
        costs=costs(path, is_parent=is_parent),
        history=None if is_parent else History.of(path),
        parameters=model.config.parameters,
        loss=assistant_loss(model, talks, tokenizer, context=context) if talks.items else None,
        replies=answered_replies(model, tokenizer, domain.replies, context=context)
        if chats and domain.replies
        else None,
        documents=bits("domain", domain.documents) if domain.documents else None,
        answers=answered(
            model,
            tokenizer,
            other.questions,
            context=min(model.config.max_position_embeddings, LONGEST_CONTEXT),
        ),
        texts=bits("general", other.texts),
        samples=continued(model, tokenizer, domain.prompts),
        contamination=contamination(path),
        seconds=0.0,
        cpu_seconds=0.0,
    )
    seconds, cpu = time.monotonic() - begun, time.process_time() - spent
    say(f"tuning  {name} measured in {seconds:.0f} s ({cpu:.0f} s of one core)")
    return replace(found, seconds=seconds, cpu_seconds=cpu)


@dataclass(frozen=True)
class _BitsOf:
    """Bits per byte of documents, encoded once for each tokenizer."""

    config: TuningReportConfig
    model: CausalLM
    tokenizer: Tokenizer
    context: int

    def __call__(self, name: str, documents: Sequence[Document]) -> Bits:
        shards = self.config.out / "tokens" / self.tokenizer.hash[:12]
        shard = encode(documents, self.tokenizer, shards / name, split="heldout")
        return bits_per_byte(
            self.model,
            shard,
            self.tokenizer,
            context=self.context,
            bytes_per_source=self.config.bytes_per_source,
        )


# The domain's own task.


def answered_replies(
    model: CausalLM, tokenizer: Tokenizer, replies: Sequence[Reply], *, context: int
) -> Answers:
    """How likely a model finds each reply to each beginning, in chat format, without its end."""
    pairs = [
        reply_pair(tokenizer, reply.prompt, option)
        for reply in replies
        for option in reply.choice.options
    ]
    scored = continuation_logprobs(model, pairs, context=context)
    ends = np.cumsum([len(reply.choice.options) for reply in replies])[:-1]
    sums = np.split(np.array([one.total for one in scored]), ends)
    return Answers([reply.choice for reply in replies], sums)


def reply_pair(tokenizer: Tokenizer, prompt: Sequence[Message], reply: str) -> Pair:
    """The tokens up to where the assistant speaks for the last time, and the words it says there.

    A token that only ends the turn is no word of either reply and is not asked for.
    """
    chat = encode_chat(tokenizer, as_dicts([*prompt, Message("assistant", reply)]))
    start = end = len(chat.ids) - chat.assistant[::-1].index(True)
    while start > 0 and chat.assistant[start - 1]:
        start -= 1
    words = tuple(token for token in chat.ids[start:end] if token not in tokenizer.special_ids)
    return Pair(tuple(chat.ids[:start]), words or tuple(chat.ids[start:end]))


# What is looked at.


def continued(model: CausalLM, tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> list[str]:
    """What the model says to each prompt, always the likeliest token; or why it cannot be asked."""
    sampling = Sampling(temperature=0, max_new_tokens=SAMPLE_TOKENS)
    said = [""] * len(prompts)
    asked: dict[int, Request] = {}
    for place, prompt in enumerate(prompts):
        if prompt.chat:
            request = Request(messages=as_dicts(prompt.messages), sampling=sampling)
        else:
            request = Request(prompt=prompt.messages[0].content, sampling=sampling)
        try:
            prompt_ids(model.config, request, tokenizer)
            asked[place] = request
        except UserError as error:  # longer than its context, or it knows no chats
            said[place] = f"({error})"
    for place, answer in zip(asked, generate(model, list(asked.values()), tokenizer), strict=True):
        said[place] = f"{answer.text} …" if answer.finish_reason == "length" else answer.text
    return said
