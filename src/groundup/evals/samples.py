"""Fixed prompts, the same for every model: what numbers do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.lm.generate import Completion, Request, generate
from groundup.lm.model import CausalLM
from groundup.lm.sample import Sampling
from groundup.text.tokenizer import Tokenizer

_TOKENS = 60

# Benign all of them: what a model answers to harmful prompts is counted and never shown.
TEXTS = ("The history of", "My fellow citizens,")
CHATS: tuple[tuple[str, ...], ...] = (
    ("Hello!",),
    ("Who are you?",),
    ("What is a volcano?",),
    ("Who was Isaac Newton?",),
    ("Tell me about the Moon.",),
    ("Why do people sleep?",),
    ("What is a piano?", "A piano is a musical instrument with keys.", "Tell me more."),
    ("I feel sad today.",),
)


@dataclass(frozen=True)
class Sample:
    """A prompt (one text, or turns of a chat that the user began) and two ways to go on.

    Three dots end what went on beyond the limit.
    """

    prompt: tuple[str, ...]
    chat: bool
    greedy: str
    sampled: str


def samples(model: CausalLM, tokenizer: Tokenizer, *, seed: int) -> list[Sample]:
    """Continue every prompt greedily, and once at temperature 0.7."""
    chats = CHATS if tokenizer.chat_template is not None else ()
    prompts = [*((text,) for text in TEXTS), *chats]
    greedy = Sampling(temperature=0, max_new_tokens=_TOKENS)
    warm = Sampling(temperature=0.7, max_new_tokens=_TOKENS, seed=seed)
    answers = [
        generate(model, [_request(prompt, sampling) for prompt in prompts], tokenizer)
        for sampling in (greedy, warm)
    ]
    return [
        Sample(prompt, prompt in chats, _shown(best), _shown(drawn))
        for prompt, best, drawn in zip(prompts, *answers, strict=True)
    ]


def _shown(answer: Completion) -> str:
    return f"{answer.text} …" if answer.finish_reason == "length" else answer.text


def _request(prompt: Sequence[str], sampling: Sampling) -> Request:
    if tuple(prompt) not in CHATS:
        return Request(prompt=prompt[0], sampling=sampling)
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(prompt)]
    return Request(messages=turns, sampling=sampling)
