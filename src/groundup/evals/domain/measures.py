"""What fine-tuning gained, and what was forgotten: one table for all ways to fine-tune.

    gain       = measure(after) - measure(before)       on held-out rows of the domain
    forgetting = measure(after) - measure(before)       on general text and questions

Both are differences on the same items, and intervals resample those items (conversations,
questions, blocks of text). A difference is only computed if both models had the very same items:
tokens of another tokenizer are other items, bytes of a text are not. The first model is the parent
that the others are compared with. That a model gets worse at what it was not tuned on is McCloskey
and Cohen 1989, Catastrophic interference in connectionist networks; that low-rank updates forget
less and learn less is Biderman et al. 2024, LoRA Learns Less and Forgets Less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.evals.answers import AssistantLoss, assistant_loss
from groundup.evals.benchmarks import ALL, Answers, answered, guessing, sums_of
from groundup.evals.continuations import Pair
from groundup.evals.domain.costs import Costs, costs
from groundup.evals.domain.material import CONTEXT, Domain, Prompt, Reply
from groundup.evals.measure import Evaluated, Measure, Subject
from groundup.evals.perplexity import Bits, bits_per_byte
from groundup.evals.samples import shown
from groundup.generation.generate import generate
from groundup.generation.request import Request, prompt_ids
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.report.estimate import POOLED, BySource, Estimate, mean_change, rate, ratio
from groundup.report.table import is_uninformative
from groundup.text.chat import encode_chat
from groundup.text.rows import Message, as_dicts
from groundup.text.tokenizer import Tokenizer

SAMPLE_TOKENS = 40
# Fewer held-out rows than this prove nothing, however narrow the interval.
MIN_ROWS = 20


# Measuring functions.


def answers(on: Subject) -> AssistantLoss | None:
    """The loss of the assistant's words in the domain's conversations."""
    talks, context = on.material.conversations, min(on.context, CONTEXT)
    return assistant_loss(on.model, talks, on.tokenizer, context=context) if talks.items else None


def true_replies(on: Subject) -> Answers | None:
    """The log-probabilities of a few replies, of which one was really given."""
    asked = on.material.domain.replies
    if on.tokenizer.chat_template is None or not asked:
        return None
    return answered_replies(on.model, on.tokenizer, asked, context=min(on.context, CONTEXT))


def documents(on: Subject) -> Bits | None:
    """Bits per byte of the domain's texts."""
    return None if on.material.documents is None else _bits(on, on.material.documents)


def general_text(on: Subject) -> Bits:
    """Bits per byte of texts unrelated to the domain."""
    return _bits(on, on.material.texts)


def general_questions(on: Subject) -> Answers:
    """The core suite's questions."""
    return answered(on.model, on.tokenizer, on.material.general.questions, context=on.context)


def samples(on: Subject) -> list[str]:
    """The model's answer to each of the domain's prompts."""
    return continued(on.model, on.tokenizer, on.material.domain.prompts)


def training_costs(on: Subject) -> Costs:
    """The costs of making the model; the first one is the parent and has none."""
    return costs(on.folder, is_parent=on.place == 0)


def _bits(on: Subject, shard: Any) -> Bits:
    return bits_per_byte(
        on.model,
        shard,
        on.tokenizer,
        context=min(on.context, CONTEXT),
        bytes_per_source=on.config.bytes_per_source,
    )


def answered_replies(
    model: CausalLM, tokenizer: Tokenizer, replies: Sequence[Reply], *, context: int
) -> Answers:
    """The log-probability of each reply to each beginning, in chat format, without its end."""
    pairs = [
        reply_pair(tokenizer, reply.prompt, option)
        for reply in replies
        for option in reply.choice.options
    ]
    rows = [reply.choice for reply in replies]
    return Answers(rows, sums_of(model, pairs, rows, context=context))


def reply_pair(tokenizer: Tokenizer, prompt: Sequence[Message], reply: str) -> Pair:
    """The tokens before the assistant's last turn, and the words of that turn.

    A token that only ends the turn belongs to neither reply and is not scored.
    """
    chat = encode_chat(tokenizer, as_dicts([*prompt, Message("assistant", reply)]))
    start = end = len(chat.ids) - chat.assistant[::-1].index(True)
    while start > 0 and chat.assistant[start - 1]:
        start -= 1
    words = tuple(token for token in chat.ids[start:end] if token not in tokenizer.special_ids)
    return Pair(tuple(chat.ids[:start]), words or tuple(chat.ids[start:end]))


def continued(model: CausalLM, tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> list[str]:
    """The greedy completion of each prompt, or the reason why the model cannot complete it."""
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
        except UserError as error:  # longer than its context, or it has no chat template
            said[place] = f"({error})"
    for place, answer in zip(asked, generate(model, list(asked.values()), tokenizer), strict=True):
        said[place] = shown(answer)
    return said


# Estimates and differences.


def perplexity(loss: Estimate) -> Estimate:
    """exp(nats per token): the equivalent number of equally likely tokens."""
    return loss.mapped(math.exp)


def _pooled(found: Estimate) -> BySource:
    return {POOLED: found}


def _change(one: AssistantLoss, two: AssistantLoss, cost: str, size: str) -> BySource:
    """The difference of a cost, if both scored the same conversations with as many tokens or bytes
    in each."""
    sizes = getattr(one, size)
    if one.of.groups != two.of.groups or not np.array_equal(sizes, getattr(two, size)):
        return {}
    change = getattr(one, cost) - getattr(two, cost)
    return _pooled(ratio(change, sizes, groups=one.of.groups))


def _replies(one: Answers) -> BySource:
    chance = float(np.mean([1 / len(row.options) for row in one.rows]))
    groups = [row.group for row in one.rows]
    return _pooled(rate(one.credit("acc_norm"), groups=groups, chance=chance))


def _more_replies(one: Answers, two: Answers) -> BySource:
    groups = [row.group for row in one.rows]
    return _pooled(mean_change(one.credit("acc_norm"), two.credit("acc_norm"), groups=groups))


def _blocks(one: Bits) -> BySource:
    return _pooled(ratio(one.bits, one.bytes))


def _more_blocks(one: Bits, two: Bits) -> BySource:
    # Blocks end at tokens: another tokenizer cuts the same text at other places.
    if not np.array_equal(one.bytes, two.bytes):
        return {}
    return _pooled(ratio(one.bits - two.bits, one.bytes))


def _questions(one: Answers) -> BySource:
    groups = [row.group for row in one.rows]
    return _pooled(rate(one.main(), groups=groups, chance=guessing(one.rows)[ALL]))


MEASURES: tuple[Measure[Any], ...] = (
    Measure(
        name="loss",
        about="domain",
        title="answers of the domain, nats per token",
        short="answers",
        sentence="a token of the domain's answers costs",
        unit="nats",
        better="below",
        measuring=answers,
        read=lambda one: _pooled(ratio(one.nats, one.tokens, groups=one.of.groups)),
        difference=lambda one, two: _change(one, two, "nats", "tokens"),
    ),
    Measure(
        name="bits_per_byte",
        about="domain",
        title="answers of the domain, bits per byte",
        short="answers",
        sentence="a byte of the domain's answers costs",
        unit="bits",
        better="below",
        measuring=answers,
        read=lambda one: _pooled(ratio(one.bits, one.bytes, groups=one.of.groups)),
        difference=lambda one, two: _change(one, two, "bits", "bytes"),
    ),
    Measure(
        name="reply_accuracy",
        about="domain",
        title="true reply found among four",
        short="true reply",
        sentence="the true reply is found in",
        unit="share",
        better="above",
        share=True,
        measuring=true_replies,
        read=_replies,
        difference=_more_replies,
    ),
    Measure(
        name="document_bits_per_byte",
        about="domain",
        title="held-out texts, bits per byte",
        short="texts",
        sentence="a byte of the domain's texts costs",
        unit="bits",
        better="below",
        measuring=documents,
        read=_blocks,
        difference=_more_blocks,
    ),
    Measure(
        name="text_bits_per_byte",
        about="general",
        title="general text, bits per byte",
        short="texts",
        sentence="a byte of general text costs",
        unit="bits",
        better="below",
        measuring=general_text,
        read=_blocks,
        difference=_more_blocks,
    ),
    Measure(
        name="question_accuracy",
        about="general",
        title="general questions answered right",
        short="questions",
        sentence="general questions are answered right in",
        unit="share",
        better="above",
        share=True,
        measuring=general_questions,
        read=_questions,
        difference=lambda one, two: _pooled(one.minus(two)[ALL]),
    ),
)
LOSS, ANSWER_BITS, _, DOCUMENT_BITS, GENERAL_TEXT, _ = MEASURES


def informative_measures(models: Sequence[Evaluated]) -> list[Measure[Any]]:
    """The measures that are informative for these models."""
    found = []
    for measure in MEASURES:
        having = [one for model in models if (one := measure.estimate(model)) is not None]
        if not (measure.share and is_uninformative(having)):
            found.append(measure)
    return found


def too_few(measure: Measure[Any], change: Estimate, domain: Domain | None) -> int | None:
    """The number of rows behind a change if it is too small to prove anything, else None; 0 if no
    row of the domain was held out."""
    rows = change.groups
    if domain is not None and measure.about == "domain":
        of_documents = domain.rows - domain.talks
        rows = min(rows, of_documents if measure is DOCUMENT_BITS else domain.talks)
        rows = 0 if domain.trained else rows
    return rows if rows < MIN_ROWS else None


def main_domain(parent: Evaluated) -> Measure[Any]:
    """The measure of the gain: bits of answers or, if there are none, of texts."""
    return ANSWER_BITS if parent(answers) is not None else DOCUMENT_BITS
