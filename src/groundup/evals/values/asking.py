"""Greedy answers of a chat model to many prompts, in batches."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.evals.measure import Subject
from groundup.evals.safety import ANSWER_TOKENS
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.text.chat import encode_chat

_ROWS = 64


def answers(
    on: Subject, prompts: Sequence[str], *, beginning: str = "", tokens: int = ANSWER_TOKENS
) -> list[str | None]:
    """The greedy answer to each prompt, prefilled with `beginning`.

    It is None if prompt and answer exceed the model's context: a truncated prompt would be another
    prompt.
    """
    greedy = Sampling(temperature=0, max_new_tokens=tokens)
    begun = on.tokenizer.encode(beginning) if beginning else []
    room = on.model.config.max_position_embeddings - tokens - len(begun)
    asked: dict[int, Request] = {}
    for place, prompt in enumerate(prompts):
        chat = encode_chat(
            on.tokenizer, [{"role": "user", "content": prompt}], generation_prompt=True
        )
        if len(chat.ids) <= room:
            asked[place] = Request(prompt_ids=[*chat.ids, *begun], sampling=greedy)
    found = generate(on.model, list(asked.values()), on.tokenizer, batch_size=_ROWS)
    said = {place: one.text for place, one in zip(asked, found, strict=True)}
    return [said.get(place) for place in range(len(prompts))]
