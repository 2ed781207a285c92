"""Questions with options: how they are asked, and the two halves that never mix.

The question sets are other people's evaluation splits. Each is cut in half by a hash that is
fixed in the manifest: one half trains, the other is held out. The same prompt is used to teach
(conversations), to prefer (pairs) and to test (choices).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence

from groundup.data.packs.manifest import find_set
from groundup.data.packs.sources import Question
from groundup.text.cleaning import key, place, sentences, shorten, words
from groundup.text.rows import Choice, Conversation, Message, Preference

# In characters: with its question and the chat's markers a passage stays within 256 tokens.
_LONGEST_PASSAGE = 600


def choice_prompt(question: str, passage: str = "", options: Sequence[str] = ()) -> str:
    """What the user says: the passage cut at a sentence's end, the question, the options if any."""
    parts = [shorten(passage, _LONGEST_PASSAGE)] if passage else []
    parts.append(question)
    if options:
        parts.append("Choose one:\n" + "\n".join(f"- {option}" for option in options))
    return "\n\n".join(parts)


def group(question: Question) -> str:
    """What is hashed for the split: the title (boolq), the passage (siqa), else the question."""
    if question.source == "boolq":
        return key(question.title)
    return key(question.passage or question.question)


def is_heldout(question: Question) -> bool:
    """Whether an evaluation split's question is in the half that never trains."""
    return place(group(question)) < find_set(question.source).heldout


def choices(found: Iterable[Question]) -> list[Choice]:
    """Each question as a test: which option does a model find likeliest?"""
    return [
        Choice(choice_prompt(q.question, q.passage), q.options, q.answer, q.source, group(q))
        for q in found
    ]


def answered(
    found: Iterable[Question], seed: int, declining: Sequence[str] = ()
) -> Iterator[Conversation]:
    """Each question as a conversation; sets other than boolq also with their options listed.

    Where there is nothing to read and nothing to choose from, one of `declining` is answered, if
    there are any.
    """
    for q in found:
        right = q.options[q.answer]
        if q.source == "boolq":
            yield _read_and_answer(q, seed)
            continue
        for offered in ((), q.options):
            answer = right if offered or not declining else _one_of(declining, q, seed)
            yield _conversation(q, choice_prompt(q.question, q.passage, offered), answer)


def _one_of(answers: Sequence[str], q: Question, seed: int) -> str:
    return random.Random(f"{seed} {q.source} {q.passage} {q.question}").choice(answers)


def preferences(
    found: Iterable[Question], wrong: int, seed: int, *, offered: bool = False
) -> Iterator[Preference]:
    """The right option against up to `wrong` others of each question, chosen by the seed.

    With `offered` the prompt lists the options.
    """
    for q in found:
        others = [option for option in q.options if option != q.options[q.answer]]
        chance = random.Random(f"{seed} {q.source} {q.passage} {q.question}")
        for rejected in chance.sample(others, min(wrong, len(others))):
            options = q.options if offered else ()
            prompt = (Message("user", choice_prompt(q.question, q.passage, options)),)
            yield Preference(prompt, q.options[q.answer], rejected, q.source, group(q))


def _conversation(q: Question, prompt: str, answer: str) -> Conversation:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Conversation(messages, q.source, group(q))


def _read_and_answer(q: Question, seed: int) -> Conversation:
    """A yes/no question about a passage; one in three asks for the sentence that tells."""
    prompt, answer = choice_prompt(q.question, q.passage), q.options[q.answer]
    if random.Random(f"{seed} {q.passage} {q.question}").random() < 1 / 3:
        passage = shorten(q.passage, _LONGEST_PASSAGE)
        told = _most_related(q.question, sentences(passage))
        return _conversation(q, f"{prompt} Say why.", f"{answer}. The text says: {told}")
    return _conversation(q, prompt, answer)


def _most_related(question: str, candidates: Sequence[str]) -> str:
    """The sentence that shares the most words with the question, for its length."""
    asked = {word for word in words(question) if len(word) > 3}

    def shared(sentence: str) -> float:
        said = words(sentence)
        return len(asked.intersection(said)) / (len(said) + 10)

    return re.sub(r"\s+", " ", max(candidates, key=shared))
