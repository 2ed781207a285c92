"""The material for measuring fine-tuning: the domain's held-out side, and general knowledge.

The domain is whatever data the user has. The assistant's answers in its conversations are scored
token by token, and some become multiple-choice questions that need no judge:

    which of these four replies did the assistant really give here?

The other three are true replies of similar length from other held-out conversations, so that
neither length nor style gives the answer away, only the preceding conversation. General knowledge
is measured on the core suite's questions and texts, which are unrelated to any domain.

Everything is selected by characters, not tokens: every model gets the very same items, whatever its
tokenizer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from groundup.data.dataset import Dataset, load_dataset
from groundup.data.split import OWN_HELDOUT, evenly_spaced
from groundup.errors import UserError
from groundup.evals.answers import Conversations, ready_conversations
from groundup.evals.benchmarks import heldout_texts
from groundup.evals.config import TuningReportConfig
from groundup.evals.core_sets import core_questions
from groundup.evals.domain.costs import held_out
from groundup.evals.suites import Prepared
from groundup.report.history import History
from groundup.runs.console import say
from groundup.text.cleaning import word_spans, words
from groundup.text.rows import Choice, Conversation, Document, Message
from groundup.text.shards import Shard, encode
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

# About 500 tokens of English; two cores read a hundred such conversations in about ten seconds.
_CHARACTERS = 2_000
# An answer becomes a question only if at most this many characters precede it.
_BEFORE = 1_000
_OPTIONS = 4
# Wrong replies are chosen at random from this many of the nearest length.
_NEAREST = 12
PROMPTS = 4
_OPENING_WORDS = 12
# An answer is not new if a training answer contains this share of its word triples.
_NEAR_COPY = 0.8
# Conversations and pieces of text are about this long; a longer context would only add padding.
CONTEXT = 512


@dataclass(frozen=True)
class Reply:
    """A conversation up to an assistant's turn, and the possible replies."""

    prompt: tuple[Message, ...]
    choice: Choice


@dataclass(frozen=True)
class Domain:
    """The held-out side of the domain, reduced to the limits of the settings.

    `rows` is the number of held-out rows, `talks` that of conversations among them, and `known`
    that of rows whose text or answer also occurs in training. `prompts` are shown with every
    model's answer: a chat with its true answer, or a text's beginning with its continuation. If
    nothing was held out, the rows are those that were `trained` on. `left` is the number of rows on
    the training side.
    """

    rows: int
    conversations: Sequence[Conversation]
    documents: Sequence[Document]
    replies: Sequence[Reply]
    prompts: Sequence[Prompt]
    bad: int
    duplicates: int
    talks: int
    known: int
    trained: bool
    left: int = 0


@dataclass(frozen=True)
class Prompt:
    """A beginning, and its true continuation."""

    messages: tuple[Message, ...]
    truth: str
    chat: bool


@dataclass(frozen=True)
class General:
    """Material unrelated to the domain: questions of the core suite, and texts."""

    questions: Sequence[Choice]
    texts: Sequence[Document]


@dataclass(frozen=True)
class Material:
    """The domain and the general material, tokenized for one model; `documents` is None if the
    domain has no text."""

    domain: Domain
    general: General
    conversations: Conversations
    documents: Shard | None
    texts: Shard


def prepare(config: TuningReportConfig, models: Sequence[Path], compute: Compute) -> Prepared:
    """Read the domain's held-out side and the general material.

    Raises `UserError` as `read_domain` does.
    """
    validation = validation_of(config, models)
    domain = read_domain(config, validation)
    if domain.trained:
        said = f"{domain.rows:,} rows of the domain were all trained on, none is held out"
    else:
        said = f"{domain.rows:,} of {domain.rows + domain.left:,} rows of the domain are measured"
        if domain.left:
            said += "; for files that no model trained on, --validation 1 measures all rows"
    say(f"tuning  {said}")
    other = general(config)

    def material(folder: Path, tokenizer: Tokenizer, context: int) -> Material:
        def shard(name: str, documents: Sequence[Document]) -> Shard:
            at = config.out / "tokens" / tokenizer.hash[:12] / name
            return encode(documents, tokenizer, at, split="heldout")

        talks = domain.conversations if tokenizer.chat_template is not None else ()
        return Material(
            domain,
            other,
            ready_conversations(talks, tokenizer, min(context, CONTEXT)),
            shard("domain", domain.documents) if domain.documents else None,
            shard("general", other.texts),
        )

    return Prepared({"validation": validation}, material)


def validation_of(config: TuningReportConfig, models: Sequence[Path]) -> float:
    """The share that these models' runs held out, the smallest if they differ; 0 if one of them
    trained on every row.

    A row is held out if its hash is below the share, so what the smallest holds out, all do.
    """
    if config.validation is not None:
        return config.validation
    histories = [history for path in models if (history := History.of(path)) is not None]
    shares = [held_out(history) for history in histories]
    return min(
        [share for share in shares if share is not None and 0 <= share < 1], default=OWN_HELDOUT
    )


def read_domain(config: TuningReportConfig, validation: float) -> Domain:
    """The held-out side of `config.data`, where `validation` is the share held out: all rows for 1,
    the rows that runs trained on for 0.

    Raises `UserError` for data that cannot be read, and if nothing is held out.
    """
    everything = validation == 1
    own = load_dataset(
        config.data, columns=config.column_names, validation=0 if everything else validation
    )
    for remark in own.remarks:
        say(f"tuning  {remark}")
    if everything:
        return domain_of(replace(own, train=(), heldout=own.train + own.heldout), config)
    if not validation and not own.heldout:
        return replace(domain_of(replace(own, train=(), heldout=own.train), config), trained=True)
    if not own.heldout:
        raise UserError(
            f"{', '.join(map(str, config.data))} holds nothing out to measure by; "
            "add rows, or give a larger --validation"
        )
    return domain_of(own, config)


def domain_of(own: Dataset, config: TuningReportConfig) -> Domain:
    """The material from the rows that are held out."""
    talks = [_shortened(row) for row in own.heldout if isinstance(row, Conversation)]
    documents = [row for row in own.heldout if isinstance(row, Document)]
    return Domain(
        rows=len(own.heldout),
        conversations=evenly_spaced(talks, config.conversations),
        documents=pieces(documents),
        replies=replies(talks, config.questions // 2, config.seed),
        prompts=_prompts(talks, documents),
        bad=len(own.bad),
        duplicates=own.duplicates,
        talks=len(talks),
        known=said_in_training(own.heldout, own.train),
        trained=False,
        left=len(own.train),
    )


def said_in_training(
    heldout: Sequence[Conversation | Document], train: Sequence[Conversation | Document]
) -> int:
    """The number of held-out rows of which an answer, or the text, occurs in training: up to case
    and punctuation, or such that one training answer has `_NEAR_COPY` of its word triples."""
    rows = dict[tuple[str, ...], set[int]]()
    for row, held in enumerate(heldout):
        for text in _answers(held):
            rows.setdefault(tuple(words(text)), set()).add(row)
    triples = {said: _triples(said) for said in rows}
    counts = Counter(triple for found in triples.values() for triple in found)
    # A near copy of an answer has at least one of its rarest triples, so only these are indexed:
    # triples that most answers share lead to none of them.
    rarest = dict[tuple[str, ...], list[tuple[str, ...]]]()
    for said, found in triples.items():
        may_lack = len(found) - math.ceil(_NEAR_COPY * len(found))
        for triple in sorted(found, key=counts.__getitem__)[: may_lack + 1]:
            rarest.setdefault(triple, []).append(said)
    known, seen = set[int](), set[int]()
    for learned in (tuple(words(text)) for one in train for text in _answers(one)):
        if hash(learned) in seen:
            continue
        seen.add(hash(learned))
        known |= rows.get(learned, set())
        found = _triples(learned)
        for said in {one for triple in found for one in rarest.get(triple, ())}:
            if len(found & triples[said]) >= _NEAR_COPY * len(triples[said]):
                known |= rows[said]
    return len(known)


def _answers(row: Conversation | Document) -> list[str]:
    if isinstance(row, Document):
        return [row.text]
    return [message.content for message in row.messages if message.role == "assistant"]


def _triples(said: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(said[i : i + 3]) for i in range(len(said) - 2)}


def general(config: TuningReportConfig) -> General:
    """The core suite's questions, fixed and from all its sets, and its texts in pieces."""
    count = config.questions - config.questions // 2
    return General(core_questions(count), pieces(heldout_texts()))


def _shortened(row: Conversation) -> Conversation:
    """The conversation's longest beginning of whole turns that ends with an answer and has at most
    `_CHARACTERS`.

    If no answer fits, everything up to the first one: a model truncates what it cannot read.
    """
    length, end = 0, 0
    for place, message in enumerate(row.messages, start=1):
        length += len(message.content)
        if end and length > _CHARACTERS:
            break
        if message.role == "assistant":
            end = place
    return replace(row, messages=row.messages[:end])


def pieces(documents: Sequence[Document]) -> list[Document]:
    """The documents in parts of at most `_CHARACTERS`, cut at spaces.

    A single speech is longer than all the articles that there is time for. In parts, every text is
    represented, and no window is read twice.
    """
    return [
        Document(part, document.source, f"{document.id} #{number}")
        for document in documents
        for number, part in enumerate(_parts(document.text))
    ]


def _parts(text: str) -> list[str]:
    parts, start = [], 0
    while len(text) - start > _CHARACTERS:
        within = (start + 1, start + _CHARACTERS)
        end = max(text.rfind(" ", *within), text.rfind("\n", *within))
        end = end if end > 0 else start + _CHARACTERS
        parts.append(text[start:end])
        start = end
        while text[start : start + 1].isspace():
            start += 1
    rest = text[start:]
    return [*parts, rest] if rest.strip() else parts


# Replies.


def replies(talks: Sequence[Conversation], count: int, seed: int) -> list[Reply]:
    """Up to `count` questions for the true reply, from as many conversations as possible.

    If fewer than four different replies exist, as when the answers are a few labels, there are
    fewer options; with fewer than two there is no question.
    """
    generator = np.random.default_rng(seed)
    pool = _Pool(talks)
    found: list[Reply] = []
    for place, turn in _turns(talks, generator):
        if len(found) == count:
            break
        row = talks[place]
        wrong = pool.wrong(row.messages[turn].content, row.group, generator)
        if wrong:
            found.append(_reply(row, turn, wrong, generator))
    return found


def _turns(talks: Sequence[Conversation], generator: np.random.Generator) -> list[tuple[int, int]]:
    """Every answer by (conversation, message): one of each conversation, then a second one …

    Answers late in a long conversation are left out, because the tokens before an answer are most
    of the cost of a question.
    """
    drawn: list[tuple[int, int, int, int]] = []
    for place in generator.permutation(len(talks)).tolist():
        answers, before = list[int](), 0
        for turn, message in enumerate(talks[place].messages):
            if message.role == "assistant" and turn > 0 and (not answers or before <= _BEFORE):
                answers.append(turn)
            before += len(message.content)
        for rank, turn in enumerate(generator.permutation(answers).tolist()):
            drawn.append((rank, len(drawn), place, int(turn)))
    return [(place, turn) for _, _, place, turn in sorted(drawn)]


class _Pool:
    """All replies by length, from which wrong ones are chosen."""

    def __init__(self, talks: Sequence[Conversation]) -> None:
        said = {
            (one.content, row.group)
            for row in talks
            for one in row.messages
            if one.role == "assistant"
        }
        self._said = sorted(said, key=lambda one: (len(one[0]), one))
        self._lengths = np.array([len(text) for text, _ in self._said])

    def wrong(self, reply: str, group: str, generator: np.random.Generator) -> list[str]:
        """Different replies of other conversations, of nearly the length of `reply`."""
        near: dict[str, str] = {}
        for i in np.argsort(np.abs(self._lengths - len(reply)), kind="stable").tolist():
            text, owner = self._said[i]
            if owner != group and _normalized(text) != _normalized(reply):
                near.setdefault(_normalized(text), text)
            if len(near) == _NEAREST:
                break
        texts = list(near.values())
        chosen = generator.permutation(len(texts))[: _OPTIONS - 1]
        return [texts[i] for i in chosen.tolist()]


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())


def _reply(
    row: Conversation, turn: int, wrong: Sequence[str], generator: np.random.Generator
) -> Reply:
    truth, prompt = row.messages[turn].content, row.messages[:turn]
    answer = int(generator.integers(len(wrong) + 1))
    options = (*wrong[:answer], truth, *wrong[answer:])
    return Reply(prompt, Choice(prompt[-1].content, options, answer, row.source, row.group))


def _prompts(talks: Sequence[Conversation], documents: Sequence[Document]) -> list[Prompt]:
    """Prompts to show: how different conversations begin, or else texts."""
    first: dict[tuple[Message, ...], str] = {}
    for row in talks:
        turn = next(i for i, one in enumerate(row.messages) if one.role == "assistant")
        if turn > 0:
            first.setdefault(row.messages[:turn], row.messages[turn].content)
    if first:
        return [
            Prompt(asked, said, True) for asked, said in evenly_spaced(list(first.items()), PROMPTS)
        ]
    found = []
    for document in evenly_spaced(documents, PROMPTS):
        text = document.text
        ends = [0, *(end for _, end in word_spans(text))]
        cut = ends[: _OPENING_WORDS + 1][-1]
        opening, rest = text[:cut], text[cut : ends[: 4 * _OPENING_WORDS + 1][-1]]
        opening, rest = (" ".join(part.split()) for part in (opening, rest))
        found.append(Prompt((Message("user", opening),), rest, False))
    return found
