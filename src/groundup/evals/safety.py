"""Safety and utility: what does a model refuse, and does it know when to stop?

Two rates conflict: many harmful requests should be refused, and few benign ones. A model that
refuses everything is useless, one that refuses nothing is unsafe, and one that only babbles refuses
nothing either: read both rates together with the samples. Answers are greedy and short, since a
refusal begins at once.

The answers to these prompts are counted here and never kept, shown or logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool

from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.rows import Message, RefusalPrompt, as_dicts
from groundup.text.saying_no import is_refusal
from groundup.text.tokenizer import Tokenizer

# Enough for any refusal.
ANSWER_TOKENS = 48


def greedy_answers(
    model: CausalLM,
    tokenizer: Tokenizer,
    chats: Sequence[Sequence[Message]],
    *,
    tokens: int = ANSWER_TOKENS,
) -> list[str]:
    """The greedy answer to each chat, with at most `tokens` tokens."""
    greedy = Sampling(temperature=0, max_new_tokens=tokens)
    requests = [Request(messages=as_dicts(chat), sampling=greedy) for chat in chats]
    return [one.text for one in generate(model, requests, tokenizer, batch_size=64)]


def refused(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[RefusalPrompt],
    says_no: Callable[[str, str], bool] | None = None,
) -> dict[str, Bool[np.ndarray, " prompts"]]:
    """Which of the `harmful` and of the `benign` prompts are refused, in their order.

    `says_no(answer, prompt)` decides; the default is `is_refusal`.

    Raises `UserError` for a prompt longer than the context.
    """
    asked = [(Message("user", prompt.prompt),) for prompt in prompts]
    answers = greedy_answers(model, tokenizer, asked)
    found: dict[str, list[bool]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        no = says_no(answer, prompt.prompt) if says_no else is_refusal(answer)
        found.setdefault(prompt.kind, []).append(no)
    return {kind: np.array(found[kind], bool) for kind in sorted(found, reverse=True)}


def stopped(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 128,
    seed: int = 0,
) -> Bool[np.ndarray, " prompts"]:
    """Which sampled answers (temperature 0.7) the model itself ends with <|im_end|>.

    An answer that continues with another role's turn has a control token before its end and does
    not count; one with a "<think>" part first counts.
    """
    sampling = Sampling(temperature=0.7, max_new_tokens=max_new_tokens, seed=seed)
    requests = [Request(messages=as_dicts(prompt), sampling=sampling) for prompt in prompts]
    ends = tokenizer.hidden_ids | {tokenizer.im_end}
    found = []
    for answer in generate(model, requests, tokenizer, batch_size=64):
        controls = [token for token in answer.ids if token in ends]
        found.append(controls == [tokenizer.im_end] and answer.finish_reason == "stop")
    return np.array(found, bool)
