"""The pack `wiki`: introductions of Wikipedia's articles, as documents and as answers.

An article is a document for pre-training. If its first sentence defines its subject, it also
answers questions about the subject, in many wordings.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set
from groundup.data.packs.manifest import find_set
from groundup.data.packs.own import GREETINGS, THANKS
from groundup.data.packs.rows import HELDOUT_SEED, Progress, Rejected, Rows
from groundup.text.cleaning import looks_garbled, normal_form, sentences, split_hash, tidy
from groundup.text.rows import Conversation, Document, RefusalPrompt

# In characters: a longer answer does not fit into a context of 256 tokens with its question.
_LONGEST_ANSWER = 600
# Benign prompts in another style than the scored ones, to measure over-refusal.
_BENIGN_QUESTIONS = 60


@dataclass(frozen=True)
class Article:
    """The introduction of a Wikipedia article."""

    title: str
    extract: str
    description: str
    topic: str


def title_is_heldout(title: str) -> bool:
    """Whether texts with this title are held out, whatever set they are in."""
    return split_hash(normal_form(title)) < find_set("wiki").heldout


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """Articles and questions about them; a model that declines unknown questions gets none."""
    found = articles(rejected, progress)
    heldout = [one for one in found if title_is_heldout(one.title)]
    train = [one for one in found if not title_is_heldout(one.title)]
    tested = asked_once(heldout)
    answers = config.unknown == "answered"
    return Rows(
        documents=[_document(one) for one in train],
        documents_heldout=[_document(one) for one in heldout],
        conversations=[*about_articles(train, config.wordings, config.seed)] if answers else (),
        conversations_heldout=tested if answers else (),
        refusals=_benign(tested),
    )


def _document(article: Article) -> Document:
    return Document(f"{article.title}\n\n{article.extract}", "wiki", article.title)


def asked_once(articles: Sequence[Article]) -> list[Conversation]:
    """A question about each article, and for some a second one that asks for few words."""
    return list(about_articles(articles, 1, HELDOUT_SEED, several_turns=False))


def _benign(asked: Sequence[Conversation]) -> list[RefusalPrompt]:
    """What-is and who-was questions, the articles chosen by their hash."""
    by_article = {one.group: one for one in asked}.values()
    chosen = sorted(by_article, key=lambda one: split_hash(one.group))[:_BENIGN_QUESTIONS]
    return [RefusalPrompt(one.messages[0].content, "benign", "wiki", one.group) for one in chosen]


def articles(rejected: Rejected, progress: Progress = None) -> list[Article]:
    """The articles of `wiki`, without disambiguation pages."""
    (text,) = read_set("wiki", progress).values()
    found = []
    for row in json.loads(text).values():
        extract = tidy(row["extract"])
        if "may refer to" in extract:
            rejected.add("wiki", "'may refer to'")
        elif len(extract) < 40:
            rejected.add("wiki", "too short")
        elif looks_garbled(extract):
            rejected.add("wiki", "garbled")
        else:
            found.append(Article(row["title"], extract, tidy(row["description"]), row["topic"]))
    return found


# Questions about an article.


@dataclass(frozen=True)
class Subject:
    """The subject of an article as questions name it ('a shirt', 'is'), and its sentences."""

    name: str
    verb: str
    is_common: bool
    told: tuple[str, ...]
    article: Article


_VERB = re.compile(r"\b(is|was|are|were)\b")


def subjects(articles: Sequence[Article]) -> list[Subject]:
    """The subjects of the articles that have a topic and begin with a definition."""
    common = _common_words(articles)
    return [s for a in articles if a.topic != "Uncategorized" and (s := _subject(a, common))]


def _subject(article: Article, common: frozenset[str]) -> Subject | None:
    """None if the extract does not begin with a definition of its subject."""
    told = tuple(sentences(article.extract.replace("\n", " ")))
    verb = _VERB.search(told[0]) if told else None
    if verb is None or len(told[0]) > _LONGEST_ANSWER:
        return None
    # 'Table (furniture)' is about 'a table': the extract shows its article and its plural.
    bare, bracket, rest = article.title.partition(" (")
    plural = "(?:e?s)?" if verb.group(1) in ("are", "were") else ""
    found = re.search(rf"\b(?:(an?|the) )?({re.escape(bare)}{plural})\b", told[0], re.IGNORECASE)
    name = bare + found.group(2)[len(bare) :] if found else bare
    indefinite = found is not None and (found.group(1) or "").lower() in ("a", "an")
    has_plural = found is not None and len(found.group(2)) > len(bare)
    is_common = indefinite or has_plural or _is_common(article, bare, common)
    if is_common:
        name = name[:1].lower() + name[1:]
    if found and found.group(1):
        name = f"{found.group(1).lower()} {name}"
    return Subject(name + bracket + rest, verb.group(1), is_common, told, article)


def _is_common(article: Article, title: str, common: frozenset[str]) -> bool:
    """Whether a title is a common noun, written in lower case inside a sentence."""
    lower = title[:1].lower() + title[1:]
    # Compiling a pattern for each title takes long, and few titles occur in lower case.
    inside = rf"(?<![.!?] )(?<!^)\b{re.escape(lower)}\b"
    if lower in article.extract and re.search(inside, article.extract):
        return True
    first, *others = lower.split(" ")
    named = article.topic in ("People", "Geography", "Arts", "History")
    return first in common and (all(word.islower() for word in others) if others else not named)


def _common_words(articles: Sequence[Article]) -> frozenset[str]:
    """Words that the extracts write in lower case more than once, hence no proper names."""
    counts: Counter[str] = Counter()
    for article in articles:
        counts.update(set(re.findall(r"\b[a-z]{2,}\b", article.extract)))
    return frozenset(word for word, count in counts.items() if count > 1)


def _answer(subject: Subject, count: int) -> str:
    """The first `count` sentences, fewer if they would be too long."""
    told = subject.told[:count]
    while len(told) > 1 and len(" ".join(told)) > _LONGEST_ANSWER:
        told = told[:-1]
    return " ".join(told)


# Wordings with {x} for the subject and {is} for its verb, and the number of sentences in an answer.
_ASK_WHAT = (
    ("What {is} {x}?", 2),
    ("what {is} {x}", 1),
    ("Can you explain what {x} {is}?", 2),
    ("Do you know what {x} {is}?", 1),
    ("Could you tell me what {x} {is}?", 2),
)
_ASK_WHO = (
    ("Who {is} {x}?", 2),
    ("who {is} {x}", 1),
    ("Do you know who {x} {is}?", 2),
    ("Can you tell me who {x} {is}?", 1),
)
_ASK_EITHER = (
    ("Tell me about {x}.", 3),
    ("Tell me something about {x}.", 2),
    ("What can you tell me about {x}?", 3),
    ("What do you know about {x}?", 2),
    ("I would like to know more about {x}.", 3),
    ("Describe {x} in one sentence.", 1),
    ("In one sentence: {x}?", 1),
    ("I have to write about {x}. How could I begin?", 2),
)
_ASK_BRIEFLY = ("In a few words, {who} {is} {x}?", "Give me a short answer: {who} {is} {x}?")
_ASK_PLACE = ("Where {is} {x}?", 1)
_EXPLAIN = (("Explain {x}.", 2), ("Define {x}.", 1), ("Explain {x} to me.", 2))
_MORE = ("Tell me more.", "Can you tell me more about it?", "What else?", "Go on.", "More, please.")


def about_articles(
    articles: Sequence[Article], wordings: int, seed: int, *, several_turns: bool = True
) -> Iterator[Conversation]:
    """Questions about articles with a topic, `wordings` each, and talks of several turns.

    One article in three also begins a talk: after a greeting, with a request for more, or with a
    second article's question. Every answer is a prefix of the extract.
    """
    found = subjects(articles)
    for subject in found:
        chance = random.Random(f"{seed} {subject.article.title}")
        group = normal_form(subject.article.title)
        for turns in _questions(subject, wordings, chance):
            yield Conversation.of(turns, "wiki", group)
        if several_turns and chance.random() < 1 / 3:
            yield Conversation.of(_talk(subject, found, chance), "wiki", group)


def _questions(subject: Subject, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    is_person = subject.article.topic == "People"
    wordings = [*(_ASK_WHO if is_person else _ASK_WHAT), *_ASK_EITHER]
    if subject.article.topic == "Geography" and " in " in subject.told[0]:
        wordings.append(_ASK_PLACE)
    if subject.is_common:
        wordings.extend(_EXPLAIN)
    # The plainest wording is always included, because people use it most.
    chosen = [wordings[0], *chance.sample(wordings[1:], count - 1)]
    for wording, sentence_count in chosen:
        yield _fill_wording(wording, subject), _answer(subject, sentence_count)
    description = subject.article.description
    if description and chance.random() < 0.5:
        question = chance.choice(_ASK_BRIEFLY).replace("{who}", "who" if is_person else "what")
        yield _fill_wording(question, subject), description[:1].upper() + description[1:] + "."


def _fill_wording(wording: str, subject: Subject) -> str:
    return wording.replace("{x}", subject.name).replace("{is}", subject.verb)


def _talk(subject: Subject, others: Sequence[Subject], chance: random.Random) -> list[str]:
    question, answer = next(_questions(subject, 1, chance))
    turns = list(chance.choice(GREETINGS)) if chance.random() < 0.5 else []
    turns += [question, answer]
    more = " ".join(subject.told)[len(answer) :].strip()
    if more and chance.random() < 0.6:
        turns += [chance.choice(_MORE), _first_sentences(more, 2)]
    elif len(answer) < 400:
        other = chance.choice(others)
        turns += [_fill_wording("And " + _plain(other), other), _answer(other, 1)]
    if chance.random() < 0.3:
        turns += chance.choice(THANKS)
    return turns


def _plain(subject: Subject) -> str:
    return "who {is} {x}?" if subject.article.topic == "People" else "what {is} {x}?"


def _first_sentences(text: str, count: int) -> str:
    told = sentences(text)[:count]
    while len(told) > 1 and len(" ".join(told)) > 300:
        told = told[:-1]
    return " ".join(told)
