"""The question sets siqa, commonsenseqa, openbookqa, piqa and mmlu, and their two halves.

They are published evaluation splits. Each is split in half by a hash that is fixed in the manifest:
one half trains, the other is held out. The same prompt is used to teach (conversations), to prefer
(pairs) and to test (choices).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set
from groundup.data.packs.manifest import find_set
from groundup.data.packs.rows import HELDOUT_SEED, Progress, Rejected, Rows
from groundup.text.cleaning import cut_to_sentences, normal_form, split_hash, tidy
from groundup.text.rows import Choice, Conversation, Message, Preference

# The number of wrong options paired with each right one: two teach more than one, but in the test
# each question counts once.
_WRONG_OPTIONS, _WRONG_OPTIONS_HELDOUT = 2, 1
# In characters: with its question and the chat's markers a passage stays within 256 tokens.
LONGEST_PASSAGE = 600


@dataclass(frozen=True)
class Question:
    """A question with options, and the passage it is about, if any."""

    source: str
    question: str
    passage: str
    title: str
    options: tuple[str, ...]
    answer: int


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """One set's two halves. A model that declines unknown questions only chooses among options."""
    found = questions(name, rejected, progress)
    learned = [one for one in found if not is_heldout(one)]
    tested = [one for one in found if is_heldout(one)]
    declines, seed = config.unknown == "declined", config.seed
    declining: Sequence[str] = ()
    if declines:
        from groundup.data.packs.newcomers import ANSWERS

        declining = ANSWERS["unknown"]
    return Rows(
        conversations=[*answered(learned, seed, declining)],
        conversations_heldout=[*answered(tested, HELDOUT_SEED, declining)],
        preferences=[*preferences(learned, _WRONG_OPTIONS, seed, offered=declines)],
        preferences_heldout=[
            *preferences(tested, _WRONG_OPTIONS_HELDOUT, HELDOUT_SEED, offered=declines)
        ],
        choices=choices(tested),
    )


def questions(name: str, rejected: Rejected, progress: Progress = None) -> list[Question]:
    """The questions of siqa, commonsenseqa, openbookqa, piqa or mmlu whose answer is known."""
    (text,) = read_set(name, progress).values()
    found = []
    for row in json_lines(text, name, rejected):
        asked = tidy(str(row["question"])).replace("\n", " ")
        offered = options(str(row["options"]))
        keys = [normal_form(option) for option in offered]
        # The answer repeats its letter and text, though not always its trailing marks.
        right = normal_form(str(row["answer"]).partition(".")[2])
        if not asked or not all(offered):
            rejected.add(name, "empty question or option")
        elif keys.count(right) != 1 or len(set(keys)) < len(keys):
            rejected.add(name, "answer is not exactly one of the options")
        else:
            passage = tidy(str(row.get("passage", "")))
            found.append(Question(name, asked, passage, "", offered, keys.index(right)))
    return found


_OPTION = re.compile(r"(?:^|\n)([A-Z])\. ?")


def options(text: str) -> tuple[str, ...]:
    """'A. bank\\nB. library' as ('bank', 'library'); a letter out of order is part of a text."""
    starts: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        if match.group(1) == chr(ord("A") + len(starts)):
            starts.append(match)
    ends = [*(match.start() for match in starts), len(text)][1:]
    texts = (text[match.end() : end] for match, end in zip(starts, ends, strict=True))
    return tuple(tidy(option).replace("\n", " ") for option in texts)


def json_lines(text: str, name: str, rejected: Rejected) -> Iterator[dict[str, object]]:
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError:
            rejected.add(name, "not JSON")


# Prompts.


def choice_prompt(question: str, passage: str = "", options: Sequence[str] = ()) -> str:
    """Returns the user's turn: passage, cut at a sentence's end, question, and options if any."""
    parts = [cut_to_sentences(passage, LONGEST_PASSAGE)] if passage else []
    parts.append(question)
    if options:
        parts.append("Choose one:\n" + "\n".join(f"- {option}" for option in options))
    return "\n\n".join(parts)


def group(question: Question) -> str:
    """Returns the text that the split hashes: the title, or else the passage or the question."""
    return normal_form(question.title or question.passage or question.question)


def is_heldout(question: Question) -> bool:
    """Whether an evaluation split's question is in the half that never trains."""
    return split_hash(group(question)) < find_set(question.source).heldout


def choices(found: Iterable[Question]) -> list[Choice]:
    """Each question as a test: which option does a model find most likely?"""
    return [
        Choice(choice_prompt(q.question, q.passage), q.options, q.answer, q.source, group(q))
        for q in found
    ]


def answered(
    found: Iterable[Question], seed: int, declining: Sequence[str] = ()
) -> Iterator[Conversation]:
    """Each question as two conversations: as it is, and with its options listed.

    If there is neither a passage nor a list of options, the answer is one of `declining`, if there
    are any.
    """
    for q in found:
        right = q.options[q.answer]
        for offered in ((), q.options):
            answer = right if offered or not declining else _one_of(declining, q, seed)
            yield conversation(q, choice_prompt(q.question, q.passage, offered), answer)


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


def conversation(q: Question, prompt: str, answer: str) -> Conversation:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Conversation(messages, q.source, group(q))
