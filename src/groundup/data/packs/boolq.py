"""The pack `boolq`: yes/no questions that people asked, each with a Wikipedia passage.

Its dev questions are an evaluation split; the half that a hash holds out is tested. No dev passage
trains; the training rows are other labeled questions about other passages.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_named
from groundup.data.packs.questions import (
    LONGEST_PASSAGE,
    Question,
    choice_prompt,
    choices,
    conversation,
    is_heldout,
    json_lines,
)
from groundup.data.packs.rows import HELDOUT_SEED, Progress, Rejected, Rows
from groundup.data.packs.wiki import title_is_heldout
from groundup.text.cleaning import (
    cut_to_sentences,
    looks_garbled,
    normal_form,
    sentences,
    tidy,
    words,
)
from groundup.text.rows import Conversation, Document

# Enough held-out reading questions to measure; all of them would be half of those conversations.
_HELDOUT_READING = 300


@dataclass(frozen=True)
class BoolQ:
    """`dev`: the validation questions. `train`: the labeled others. `passages`: (title, text).

    No passage of `train` or `passages` is one of dev's, up to case, punctuation and spacing.
    """

    dev: tuple[Question, ...]
    train: tuple[Question, ...]
    passages: tuple[tuple[str, str], ...]


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """Passages as documents, labeled questions as conversations, half of dev as choices."""
    found = boolq(rejected, progress)
    documents = _documents(found.passages)
    heldout = [one for one in found.train if title_is_heldout(one.title)][:_HELDOUT_READING]
    learned = [one for one in found.train if not title_is_heldout(one.title)]
    return Rows(
        documents=[one for title, one in documents if not title_is_heldout(title)],
        documents_heldout=[one for title, one in documents if title_is_heldout(title)],
        conversations=[_read_and_answer(one, config.seed) for one in learned],
        conversations_heldout=[_read_and_answer(one, HELDOUT_SEED) for one in heldout],
        choices=choices([one for one in found.dev if is_heldout(one)]),
        never_trained=[one.passage for one in found.dev],
    )


def _documents(passages: Sequence[tuple[str, str]]) -> list[tuple[str, Document]]:
    """Each passage below its title; passages with the same title are numbered."""
    found = []
    of_title: Counter[str] = Counter()
    for title, passage in passages:
        of_title[title] += 1
        name = title if of_title[title] == 1 else f"{title} ({of_title[title]})"
        found.append((title, Document(f"{title}\n\n{passage}", "boolq", name)))
    return found


def _read_and_answer(q: Question, seed: int) -> Conversation:
    """A yes/no question about a passage; one in three asks for the sentence that tells."""
    prompt, answer = choice_prompt(q.question, q.passage), q.options[q.answer]
    if random.Random(f"{seed} {q.passage} {q.question}").random() < 1 / 3:
        passage = cut_to_sentences(q.passage, LONGEST_PASSAGE)
        told = _most_related(q.question, sentences(passage))
        return conversation(q, f"{prompt} Say why.", f"{answer}. The text says: {told}")
    return conversation(q, prompt, answer)


def _most_related(question: str, candidates: Sequence[str]) -> str:
    """The sentence that shares the most words with the question, relative to its length."""
    asked = {word for word in words(question) if len(word) > 3}

    def shared(sentence: str) -> float:
        # A name in Japanese counts as one word here, not as one per letter.
        said = normal_form(sentence).split()
        return len(asked.intersection(said)) / (len(said) + 10)

    return re.sub(r"\s+", " ", max(candidates, key=shared))


# Reading the files.


def _plain_text(text: str) -> str:
    """A passage with `` and '' replaced by plain quotes, and -- by dashes."""
    text = re.sub(r" ?-- ?(?=\d)|(?<=\d) ?-- ?", "–", text)
    return tidy(text.replace("``", '"').replace("''", '"').replace(" -- ", " – "))


def boolq(rejected: Rejected, progress: Progress = None) -> BoolQ:
    """All of BoolQ, with dev kept apart from everything else by question and by passage."""
    members = read_named("boolq", progress)
    dev_rows = list(json_lines(members["dev.jsonl"], "boolq", rejected))
    dev_passages = {normal_form(str(row["passage"])) for row in dev_rows}
    dev_questions = {normal_form(str(row["question"])) for row in dev_rows}
    dev = [_of_dev(row) for row in dev_rows]
    train: list[Question] = []
    passages: dict[str, tuple[str, str]] = {}
    for row in json_lines(members["combined.jsonl"], "boolq", rejected):
        # Here a passage has the form 'Title -- text'; dev stores the title separately.
        title, _, text = str(row["passage"]).partition(" -- ")
        if normal_form(text) in dev_passages:
            rejected.add("boolq", "a passage of the dev questions, which never trains")
        elif normal_form(str(row["question"])) in dev_questions:
            rejected.add("boolq", "a dev question")
        elif looks_garbled(text):
            rejected.add("boolq", "garbled")
        else:
            passages.setdefault(normal_form(text), (title.strip(), _plain_text(text)))
            if "label" in row:
                train.append(_yes_or_no(str(row["question"]), title, text, str(row["label"])))
    return BoolQ(tuple(dev), tuple(train), tuple(passages.values()))


def boolq_dev(rejected: Rejected) -> list[Question]:
    """Only BoolQ's `dev`: reading the other rows takes most of the time."""
    return [_of_dev(row) for row in json_lines(read_named("boolq")["dev.jsonl"], "boolq", rejected)]


def _of_dev(row: Mapping[str, object]) -> Question:
    question, title, passage, answer = (
        str(row[key]) for key in ("question", "title", "passage", "answer")
    )
    return _yes_or_no(question, title, passage, answer)


def _yes_or_no(question: str, title: str, passage: str, answer: str) -> Question:
    assert answer in ("True", "False")
    index = 0 if answer == "True" else 1
    asked = tidy(question)
    asked = asked[:1].upper() + asked[1:].rstrip("?") + "?"
    return Question("boolq", asked, _plain_text(passage), title.strip(), ("Yes", "No"), index)
