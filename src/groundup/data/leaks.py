"""The leak check: does any training text contain evaluation material?

Every training document, conversation and pair is compared with everything that is evaluated
(held-out documents, conversations and pairs, choices, refusal prompts, and BoolQ's dev passages),
in three checks. Does it have the same *title*? Does it ask the same *question*, up to case and
punctuation, or ask it in an earlier turn and get the tested answer? Does it share *13 consecutive
words* (the overlap of Brown et al. 2020, Language Models are Few-Shot Learners, appendix C)? Leaks
are removed from the training side, from documents paragraph by paragraph; the report lists both
what was found and what remains.

The generated world is held out by *combination*: a person and a thing that occur together in the
test never do so in a training text. This fourth check applies only to its texts and those of its
companions. Its sentences recur by design, so 13 shared words prove nothing, and are checked only in
real texts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt64

from groundup.data.packs.manifest import generated_set, made_from
from groundup.data.packs.rows import Rows, page_of
from groundup.runs.parallel import on_all_cores, split_range
from groundup.text.cleaning import BATCH_ROWS, normal_form, shingles, shingles_of_all, words
from groundup.text.rows import (
    AnyRow,
    Choice,
    Conversation,
    Document,
    Message,
    Preference,
    RefusalPrompt,
)

CHECKS = ("title", "question", "13-gram")
SYNTHETIC_CHECKS = ("question", "13-gram", "combination")
COMPANION_CHECKS = (*CHECKS, "combination")
_NGRAM = 13
# A shorter question is a phrase that any text may contain by chance; one of at least 13 words is
# found by its 13-grams.
_SHORTEST_QUESTION = 8
# Comparing fewer rows takes less time than sending them to another process.
_MIN_PART = 5_000
# The sets whose split depends on the title.
_SPLIT_BY_TITLE = ("wiki", "boolq")

R = TypeVar("R", bound=Document | Conversation | Preference)


@dataclass(frozen=True)
class Evaluated:
    """The evaluated texts: normal forms of titles and questions, sorted hashes of word n-grams.

    `short` holds, for n from 8 to 12, the questions of exactly n words: a document leaks one if it
    contains its words in a row. `openings` are their first 8 words, which most documents lack.
    `stock_answers` are the few standard replies to unknown questions: they reveal nothing about
    the question and occur on both sides, so they are ignored. `answered` are the normal forms of
    single-turn questions with their answers.
    """

    titles: frozenset[str]
    questions: frozenset[str]
    answered: frozenset[tuple[str, str]]
    grams: UInt64[np.ndarray, " grams"]
    openings: UInt64[np.ndarray, " openings"]
    short: tuple[tuple[int, UInt64[np.ndarray, " _"]], ...]
    stock_answers: frozenset[str] = frozenset()

    def texts(self, row: AnyRow) -> list[str]:
        """Returns the texts of a row that are checked."""
        return [text for text in texts(row) if text not in self.stock_answers]


@dataclass(frozen=True)
class Leak:
    """The numbers of training items of one source that failed a check, before and after removal."""

    check: str
    set: str
    source: str
    items: int
    found: int
    left: int


def title(row: AnyRow) -> str | None:
    """The normal form of the title of the article that a row is from, if any."""
    if row.source not in _SPLIT_BY_TITLE or isinstance(row, Preference | RefusalPrompt):
        return None
    # A document's first line is its title; in other rows the group is its normal form.
    return normal_form(row.text.partition("\n")[0]) if isinstance(row, Document) else row.group


def asked(row: AnyRow) -> frozenset[str]:
    """The normal forms of a row's questions: its whole prompt, and the group used for the split.

    For the generated world, whose groups are facts that both sides may ask about, only the prompt.
    """
    if isinstance(row, Document):
        return frozenset()
    if isinstance(row, Conversation | Preference):
        prompt = _said(_turns(row), "user")
    else:
        prompt = row.prompt
        # A title is no question: it has its own check.
    grouped = row.source not in _SPLIT_BY_TITLE and generated_set(row.source) is None
    return frozenset({normal_form(prompt), row.group} if grouped else {normal_form(prompt)})


def _asked_last(row: AnyRow) -> frozenset[str]:
    """The normal form of the last question alone, without the turns before it in the prompt.

    Used only for training rows: a tested `And the bear?` is asked in context there, too. A single
    word is no question: `please` may follow anything.
    """
    if not isinstance(row, Conversation | Preference):
        return frozenset()
    said = [turn.content for turn in _turns(row) if turn.role == "user"]
    return frozenset(last for last in map(normal_form, said[-1:]) if len(words(last)) > 1)


def _answered_alone(row: AnyRow) -> frozenset[tuple[str, str]]:
    """The normal forms of a question without earlier turns, and of its right answer."""
    if isinstance(row, Document | RefusalPrompt):
        return frozenset()
    if isinstance(row, Choice):
        return frozenset({(normal_form(row.prompt), normal_form(row.options[row.answer]))})
    answer = () if isinstance(row, Conversation) else (Message("assistant", row.chosen),)
    turns = [one for one in (*_turns(row), *answer) if one.role != "system"]
    return frozenset(_answers(turns)) if len(turns) == 2 else frozenset()


def _answered_before(row: AnyRow) -> frozenset[tuple[str, str]]:
    """The normal forms of the questions before a row's last one, each with its answer.

    The answer is needed because a question such as `Tell me more.` alone begins many conversations
    unrelated to the tested one.
    """
    if not isinstance(row, Conversation | Preference):
        return frozenset()
    return frozenset(_answers(_turns(row)[:-1]))


def _answers(turns: Sequence[Message]) -> list[tuple[str, str]]:
    return [
        (normal_form(one.content), normal_form(following.content))
        for one, following in itertools.pairwise(turns)
        if (one.role, following.role) == ("user", "assistant")
    ]


def _turns(row: Conversation | Preference) -> tuple[Message, ...]:
    return row.messages if isinstance(row, Conversation) else row.prompt


def _said(messages: Sequence[Message], role: str) -> str:
    return " ".join(message.content for message in messages if message.role == role)


def texts(row: AnyRow) -> list[str]:
    """The texts of a row; 13-grams never cross their boundaries."""
    if isinstance(row, Document):
        return [row.text]
    if isinstance(row, Conversation):
        return [message.content for message in row.messages]
    if isinstance(row, Preference):
        return [*(message.content for message in row.prompt), row.chosen, row.rejected]
    return [row.prompt, *row.options] if isinstance(row, Choice) else [row.prompt]


def evaluated(
    rows: Iterable[AnyRow], more_texts: Iterable[str] = (), stock_answers: Iterable[str] = ()
) -> Evaluated:
    """The normal forms and hashes of everything that is evaluated."""
    ignored = frozenset(stock_answers)
    titles: set[str] = set()
    questions: set[str] = set()
    answered: set[tuple[str, str]] = set()
    compared = [words(text) for text in more_texts]
    for row in rows:
        questions |= asked(row)
        answered |= _answered_alone(row)
        if (of := title(row)) is not None:
            titles.add(of)
        if generated_set(row.source) is None:
            compared += [words(text) for text in texts(row) if text not in ignored]
    of_words = [words(question) for question in questions]
    openings = []
    short = []
    for count in range(_SHORTEST_QUESTION, _NGRAM):
        of_length = [question for question in of_words if len(question) == count]
        openings += [question[:_SHORTEST_QUESTION] for question in of_length]
        short.append((count, _hashes(of_length, count)))
    return Evaluated(
        frozenset(titles),
        frozenset(questions),
        frozenset(answered),
        _hashes(compared, _NGRAM),
        _hashes(openings, _SHORTEST_QUESTION),
        tuple(short),
        ignored,
    )


def _hashes(said: Sequence[Sequence[str]], size: int) -> UInt64[np.ndarray, " hashes"]:
    """The sorted hashes of all `size` consecutive words in these texts."""
    return np.unique(shingles_of_all(said, size)[0])


def _known(
    hashes: UInt64[np.ndarray, " n"], among: UInt64[np.ndarray, " m"]
) -> Bool[np.ndarray, " n"]:
    """Returns for each hash whether it occurs among the sorted ones."""
    if not among.size or not hashes.size:
        return np.zeros(hashes.size, bool)
    # Looking up sorted hashes accesses memory in order.
    order = np.argsort(hashes)
    nearest = np.minimum(np.searchsorted(among, hashes[order]), among.size - 1)
    known = np.empty(hashes.size, bool)
    known[order] = among[nearest] == hashes[order]
    return known


def failed(row: AnyRow, against: Evaluated) -> frozenset[str]:
    """Returns the checks for its source that a training row fails."""
    return failed_by_each([row], against)[0]


def failed_by_each(rows: Sequence[AnyRow], against: Evaluated) -> list[frozenset[str]]:
    """Returns the checks for its source that each training row fails."""
    parts = [rows[one.start : one.stop] for one in split_range(len(rows), _MIN_PART)]
    found = on_all_cores(functools.partial(_failed_by_part, against=against), parts)
    return list(itertools.chain.from_iterable(found))


def _failed_by_part(rows: Sequence[AnyRow], against: Evaluated) -> list[frozenset[str]]:
    found = []
    for start in range(0, len(rows), BATCH_ROWS):
        found += _failed_in_batch(rows[start : start + BATCH_ROWS], against)
    return found


def _failed_in_batch(rows: Sequence[AnyRow], against: Evaluated) -> list[frozenset[str]]:
    found = [_failed_without_ngrams(row, against) for row in rows]
    said = [(place, words(text)) for place, row in enumerate(rows) for text in against.texts(row)]
    for place, _ in _holding(said, against.grams, _NGRAM):
        found[place].add("13-gram")
    in_documents = [one for one in said if isinstance(rows[one[0]], Document)]
    for place, text in _holding(in_documents, against.openings, _SHORTEST_QUESTION):
        if any(_known(shingles(text, n), questions).any() for n, questions in against.short):
            found[place].add("question")
    return [frozenset(checks) for checks in found]


def _holding(
    said: Sequence[tuple[int, list[str]]], among: UInt64[np.ndarray, " hashes"], size: int
) -> list[tuple[int, list[str]]]:
    """The texts that contain `size` known words in a row."""
    hashes, owner = shingles_of_all([text for _, text in said], size)
    return [said[place] for place in np.unique(owner[_known(hashes, among)])]


def _failed_without_ngrams(row: AnyRow, against: Evaluated) -> set[str]:
    """The failed checks that need no n-grams."""
    found = set()
    if title(row) in against.titles:
        found.add("title")
    same = (asked(row) | _asked_last(row)) & against.questions
    if same or _answered_before(row) & against.answered:
        found.add("question")
    if (made := made_from(row.source)) is not None:
        page = page_of(made.name)
        if page.holds_a_heldout_combination("\n".join(against.texts(row))):
            found.add("combination")
    return found


def without_leaks(rows: Rows) -> tuple[Rows, list[Leak]]:
    """The rows without training rows that leak their held-out side, and the report."""
    tested: Iterable[AnyRow] = itertools.chain(
        rows.documents_heldout,
        rows.conversations_heldout,
        rows.preferences_heldout,
        rows.choices,
        rows.refusals,
        rows.unknown,
    )
    against = evaluated(tested, rows.never_trained, rows.stock_answers)
    documents, of_documents = remove(rows.documents, against, "documents")
    conversations, of_conversations = remove(rows.conversations, against, "conversations")
    pairs, of_pairs = remove(rows.preferences, against, "preferences")
    clean = replace(rows, documents=documents, conversations=conversations, preferences=pairs)
    return clean, [*of_documents, *of_conversations, *of_pairs]


def remove(rows: Sequence[R], against: Evaluated, name: str) -> tuple[list[R], list[Leak]]:
    """The training rows without leaks, and the report about them for the set `name`."""
    before = failed_by_each(rows, against)
    kept: list[R] = []
    for row, checks in zip(rows, before, strict=True):
        rest = _without_leaking_paragraphs(row, against) if checks else row
        if rest is not None:
            kept.append(rest)
    # Sound rows are unchanged: only the mended ones need a second check.
    sound = {id(row) for row, checks in zip(rows, before, strict=True) if not checks}
    after = [frozenset() if id(row) in sound else failed(row, against) for row in kept]
    report = []
    for source in sorted({row.source for row in rows}):
        of_source = [
            checks for row, checks in zip(rows, before, strict=True) if row.source == source
        ]
        still = [checks for row, checks in zip(kept, after, strict=True) if row.source == source]
        checks_of = COMPANION_CHECKS if made_from(source) else CHECKS
        for check in SYNTHETIC_CHECKS if generated_set(source) else checks_of:
            found = sum(check in checks for checks in of_source)
            left = sum(check in checks for checks in still)
            report.append(Leak(check, name, source, len(of_source), found, left))
    return kept, report


def _without_leaking_paragraphs(row: R, against: Evaluated) -> R | None:
    """A document's sound paragraphs, or None if nothing can stay."""
    if not isinstance(row, Document) or title(row) in against.titles or generated_set(row.source):
        return None
    paragraphs = row.text.split("\n\n")
    # Twice, because removal joins paragraphs, which may create a new leak.
    for _ in range(2):
        leaking = _leaking_paragraphs(paragraphs, against)
        paragraphs = [text for text, leaks in zip(paragraphs, leaking, strict=True) if not leaks]
    # A title alone is no document.
    if len(paragraphs) < (2 if row.source in _SPLIT_BY_TITLE else 1):
        return None
    return replace(row, text="\n\n".join(paragraphs))


def _leaking_paragraphs(
    paragraphs: Sequence[str], against: Evaluated
) -> Bool[np.ndarray, " paragraphs"]:
    """Returns for each paragraph whether it contains a word of a leaking run of words."""
    said = [words(text) for text in paragraphs]
    everything = [word for paragraph in said for word in paragraph]
    owner = np.repeat(np.arange(len(said)), [len(paragraph) for paragraph in said])
    leaking = np.zeros(len(said), bool)
    for count, hashes in ((_NGRAM, against.grams), *against.short):
        starts = np.flatnonzero(_known(shingles(everything, count), hashes))
        for offset in (0, count - 1):
            leaking[owner[starts + offset]] = True
        for start in starts:  # a run may span more than two short paragraphs
            leaking[owner[start] : owner[start + count - 1] + 1] = True
    return leaking
