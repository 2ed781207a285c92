"""What fine-tuning is measured on: the domain's held-out side, and what models knew before.

The domain is whatever a person brought. Of its conversations, the answers are predicted word by
word, and some are asked for as a question that needs no marker to grade:

    which of these four replies did the assistant really give here?

Three are true replies of other held-out conversations, of like length, so that neither length nor
style gives the answer away and only what was said before can. General knowledge is the core suite's
questions and texts, with which no domain has to do.

All is chosen in characters, not in tokens: every model is asked the very same, whatever its
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
from groundup.text.cleaning import words
from groundup.text.rows import Choice, Conversation, Document, Message
from groundup.text.shards import Shard, encode
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

# About 500 tokens of English: what two cores read of a hundred conversations in some ten seconds.
_CHARACTERS = 2_000
# An answer is asked for where no more than this was said before.
_BEFORE = 1_000
_OPTIONS = 4
# Wrong replies are drawn from so many of the nearest length.
_NEAREST = 12
PROMPTS = 4
_OPENING_WORDS = 12
# An answer of which a training answer has so many of the word triples is not a new one.
_NEARLY = 0.8
# Conversations and pieces of text are about this long; more would only be padding.
CONTEXT = 512


@dataclass(frozen=True)
class Reply:
    """A conversation up to where the assistant speaks, and what it may have said."""

    prompt: tuple[Message, ...]
    choice: Choice


@dataclass(frozen=True)
class Domain:
    """The held-out side of the domain, thinned to what the settings allow.

    `rows` is how many rows are held out in all, `talks` of them conversations; `known` of them say
    what training says, too. `prompts` is what every model answers for the eye: a chat with what was
    really answered, or a text's beginning with how it really goes on. Where nothing was held out,
    the rows are those that were `trained` on. `left` rows are on the training side.
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
    """What is to be gone on from, and how it really went on."""

    messages: tuple[Message, ...]
    truth: str
    chat: bool


@dataclass(frozen=True)
class General:
    """What has nothing to do with the domain: questions of the core suite, and texts."""

    questions: Sequence[Choice]
    texts: Sequence[Document]


@dataclass(frozen=True)
class Material:
    """The domain and what is general, and both as one tokenizer writes them; None where there is
    no text of the domain's."""

    domain: Domain
    general: General
    conversations: Conversations
    documents: Shard | None
    texts: Shard


def prepare(config: TuningReportConfig, models: Sequence[Path], compute: Compute) -> Prepared:
    """Read the domain's held-out side and what is general.

    Raises `UserError` as `read_domain` does.
    """
    validation = validation_of(config, models)
    domain = read_domain(config, validation)
    if domain.trained:
        said = f"{domain.rows:,} rows of the domain were all trained on, none is held out"
    else:
        said = f"{domain.rows:,} of {domain.rows + domain.left:,} rows of the domain are measured"
        if domain.left:
            said += "; of files that no model trained on, --validation 1 measures all"
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
    """The share that the runs of these models held out, the smallest where they differ; 0 where one
    of them trained on every row.

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
    """The held-out side of `config.data`, where `validation` is the share held out; of 1, all rows;
    of 0, what runs trained on.

    Raises `UserError` for data that cannot be read, and where nothing is held out.
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
    """What is asked of the rows that are held out."""
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
    """The number of held-out rows of which an answer, or the text, stands in training: up to case
    and punctuation, or so nearly that one training answer has `_NEARLY` of its word triples."""
    rows = dict[tuple[str, ...], set[int]]()
    for row, held in enumerate(heldout):
        for text in _answers(held):
            rows.setdefault(tuple(words(text)), set()).add(row)
    triples = {said: _triples(said) for said in rows}
    counts = Counter(triple for found in triples.values() for triple in found)
    # Whoever has nearly all of an answer's triples has one of its rarest, so those alone are looked
    # up: what most answers have in common leads to none of them.
    rarest = dict[tuple[str, ...], list[tuple[str, ...]]]()
    for said, found in triples.items():
        may_lack = len(found) - math.ceil(_NEARLY * len(found))
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
            if len(found & triples[said]) >= _NEARLY * len(triples[said]):
                known |= rows[said]
    return len(known)


def _answers(row: Conversation | Document) -> list[str]:
    if isinstance(row, Document):
        return [row.text]
    return [message.content for message in row.messages if message.role == "assistant"]


def _triples(said: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(said[i : i + 3]) for i in range(len(said) - 2)}


def general(config: TuningReportConfig) -> General:
    """The core suite's questions, fixed and of all its sets, and its texts in pieces."""
    count = config.questions - config.questions // 2
    return General(core_questions(count), pieces(heldout_texts()))


def _shortened(row: Conversation) -> Conversation:
    """Its longest beginning of whole turns, up to an answer, of at most `_CHARACTERS`.

    If that has no answer at all, all up to the first one: a model cuts what it cannot read.
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

    One speech is longer than all articles together that there is time for: in parts, every text has
    its say, and no window has to be read twice.
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
    """Up to `count` questions for the true reply, from as many conversations as can be.

    Where fewer than four different replies are to be had, as when the answers are a few labels,
    there are fewer options; without two there is no question.
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

    Those that come late in a long conversation are left out: the tokens before an answer are most
    of what a question costs.
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
    """All replies by length, to draw wrong ones from."""

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
            if owner != group and _plain(text) != _plain(reply):
                near.setdefault(_plain(text), text)
            if len(near) == _NEAREST:
                break
        texts = list(near.values())
        chosen = generator.permutation(len(texts))[: _OPTIONS - 1]
        return [texts[i] for i in chosen.tolist()]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _reply(
    row: Conversation, turn: int, wrong: Sequence[str], generator: np.random.Generator
) -> Reply:
    truth, prompt = row.messages[turn].content, row.messages[:turn]
    answer = int(generator.integers(len(wrong) + 1))
    options = (*wrong[:answer], truth, *wrong[answer:])
    return Reply(prompt, Choice(prompt[-1].content, options, answer, row.source, row.group))


def _prompts(talks: Sequence[Conversation], documents: Sequence[Document]) -> list[Prompt]:
    """What is looked at: how different conversations begin, or else texts."""
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
        opening = " ".join(document.text.split()[:_OPENING_WORDS])
        rest = " ".join(document.text.split()[_OPENING_WORDS : 4 * _OPENING_WORDS])
        found.append(Prompt((Message("user", opening),), rest, False))
    return found
