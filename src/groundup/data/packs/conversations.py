"""Conversations to learn from: what SFT reads.

Four sources: articles turned into questions and answers in many wordings; the question sets'
training halves (`questions.py`); dialogues; and what this model is, said truthfully. Refusals
stand in `refusals.py`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundup.data.packs.manifest import find_set
from groundup.data.packs.sources import Article, Dialogue
from groundup.text.cleaning import key, place, sentences
from groundup.text.rows import Conversation, Message

# In characters: a longer answer does not fit a context of 256 tokens beside its question.
_LONGEST_ANSWER = 600


def conversation(turns: Sequence[str], source: str, group: str) -> Conversation:
    """Turns that alternate, the user's first."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns))
    return Conversation(messages, source, group)


# Articles.


@dataclass(frozen=True)
class Subject:
    """How to ask about an article: 'a shirt', 'is'; and its sentences to answer with."""

    name: str
    verb: str
    is_common: bool
    told: tuple[str, ...]
    article: Article


_VERB = re.compile(r"\b(is|was|are|were)\b")


def subjects(articles: Sequence[Article]) -> list[Subject]:
    """The subjects of the articles with a topic that begin by saying what theirs is."""
    common = _common_words(articles)
    return [s for a in articles if a.topic != "Uncategorized" and (s := _subject(a, common))]


def _subject(article: Article, common: frozenset[str]) -> Subject | None:
    """None where the extract does not begin by saying what its subject is."""
    told = tuple(sentences(article.extract.replace("\n", " ")))
    verb = _VERB.search(told[0]) if told else None
    if verb is None or len(told[0]) > _LONGEST_ANSWER:
        return None
    # 'Table (furniture)' is about 'a table': the extract knows its article and its plural.
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
    """Whether a title is a common noun, which inside a sentence stands in lower case."""
    lower = title[:1].lower() + title[1:]
    if re.search(rf"(?<![.!?] )(?<!^)\b{re.escape(lower)}\b", article.extract):
        return True
    first, *others = lower.split(" ")
    named = article.topic in ("People", "Geography", "Arts", "History")
    return first in common and (all(word.islower() for word in others) if others else not named)


def _common_words(articles: Sequence[Article]) -> frozenset[str]:
    """Words that the extracts write in lower case more than once: no proper names."""
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


# Wordings with {x} for the subject and {is} for its verb, and how many sentences answer them.
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
_GREETINGS = (
    ("Hello!", "Hello! What would you like to know?"),
    ("Hi", "Hi! How can I help you?"),
    ("Good morning.", "Good morning! What can I do for you?"),
    ("Hey, can I ask you something?", "Of course. What is your question?"),
    ("Hello, how are you?", "I am doing fine, thank you. How can I help you?"),
)
_MORE = ("Tell me more.", "Can you tell me more about it?", "What else?", "Go on.", "More, please.")
_THANKS = (
    ("Thank you!", "You are welcome!"),
    ("Thanks.", "You are welcome. Ask me anything else."),
)


def about_articles(
    articles: Sequence[Article], wordings: int, seed: int, *, several_turns: bool = True
) -> Iterator[Conversation]:
    """Questions about articles with a topic, `wordings` each, and talks of several turns.

    One article in three also begins a talk: after a greeting, with a request for more, or with a
    second article's question. Every answer is a prefix of what the extract says.
    """
    found = subjects(articles)
    for subject in found:
        chance = random.Random(f"{seed} {subject.article.title}")
        group = key(subject.article.title)
        for turns in _questions(subject, wordings, chance):
            yield conversation(turns, "wiki", group)
        if several_turns and chance.random() < 1 / 3:
            yield conversation(_talk(subject, found, chance), "wiki", group)


def _questions(subject: Subject, count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    is_person = subject.article.topic == "People"
    wordings = [*(_ASK_WHO if is_person else _ASK_WHAT), *_ASK_EITHER]
    if subject.article.topic == "Geography" and " in " in subject.told[0]:
        wordings.append(_ASK_PLACE)
    if subject.is_common:
        wordings.extend(_EXPLAIN)
    # The plainest wording always, since it is the one that people use most.
    chosen = [wordings[0], *chance.sample(wordings[1:], count - 1)]
    for wording, sentence_count in chosen:
        yield _worded(wording, subject), _answer(subject, sentence_count)
    description = subject.article.description
    if description and chance.random() < 0.5:
        question = chance.choice(_ASK_BRIEFLY).replace("{who}", "who" if is_person else "what")
        yield _worded(question, subject), description[:1].upper() + description[1:] + "."


def _worded(wording: str, subject: Subject) -> str:
    return wording.replace("{x}", subject.name).replace("{is}", subject.verb)


def _talk(subject: Subject, others: Sequence[Subject], chance: random.Random) -> list[str]:
    question, answer = next(_questions(subject, 1, chance))
    turns = list(chance.choice(_GREETINGS)) if chance.random() < 0.5 else []
    turns += [question, answer]
    more = " ".join(subject.told)[len(answer) :].strip()
    if more and chance.random() < 0.6:
        turns += [chance.choice(_MORE), _first_sentences(more, 2)]
    elif len(answer) < 400:
        other = chance.choice(others)
        turns += [_worded("And " + _plain(other), other), _answer(other, 1)]
    if chance.random() < 0.3:
        turns += chance.choice(_THANKS)
    return turns


def _plain(subject: Subject) -> str:
    return "who {is} {x}?" if subject.article.topic == "People" else "what {is} {x}?"


def _first_sentences(text: str, count: int) -> str:
    told = sentences(text)[:count]
    while len(told) > 1 and len(" ".join(told)) > 300:
        told = told[:-1]
    return " ".join(told)


# Dialogues.

# A chat must be able to greet and to talk of itself, so these are never held out.
_ALWAYS_TRAIN = ("greetings", "conversations")


# What was learned by heart for these is knowledge of the real world.
_OF_THE_REAL_WORLD = ("science", "trivia", "literature", "history")


def of_small_talk(found: Sequence[Dialogue]) -> list[Dialogue]:
    """Those that need no knowledge of the real world."""
    return [one for one in found if one.topic not in _OF_THE_REAL_WORLD]


def from_dialogues(found: Sequence[Dialogue]) -> tuple[list[Conversation], list[Conversation]]:
    """Dialogues that train and those held out, by a hash of the first turn.

    Dialogues that begin like one of our own about what this model is are left out: those of the
    corpus are of a robot, and of a man in a mask.
    """
    own = {key(asked) for asking, _ in _ABOUT_ITSELF for asked in asking}
    train: list[Conversation] = []
    heldout: list[Conversation] = []
    for dialogue in found:
        first = key(dialogue.turns[0])
        if first in own or _OF_A_ROBOT.search(" ".join(dialogue.turns)):
            continue
        is_out = place(first) < find_set("chatterbot").heldout
        side = heldout if is_out and dialogue.topic not in _ALWAYS_TRAIN else train
        side.append(conversation(dialogue.turns, "chatterbot", first))
    return train, heldout


_OF_A_ROBOT = re.compile(r"are you a robot|man in a mask|on the internet|project gutenberg", re.I)

_ABLE = ("I can say what things are, answer simple questions and chat a little.",)
_ABLE_OF_LITTLE = ("I can tell short stories, answer simple questions and do small sums.",)
# What this model is. Each list of questions goes with each of its answers in turn.
_ABOUT_ITSELF: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "Who are you?",
            "What are you?",
            "who are you",
            "Tell me about yourself.",
            "Who am I talking to?",
        ),
        (
            "I am a small language model, trained from scratch on this computer.",
            "I am a small language model. I was trained on this very machine, from random numbers.",
        ),
    ),
    (
        ("What is your name?", "Do you have a name?", "what's your name", "How should I call you?"),
        ("I have no name. I am a small language model made with groundup.",),
    ),
    (
        (
            "Are you human?",
            "Are you a person?",
            "Are you a real person?",
            "Am I talking to a human?",
        ),
        ("No, I am a computer program: a small language model.",),
    ),
    (
        ("Are you a robot?", "Are you an AI?", "Are you a computer?", "are you a bot"),
        ("I am a small language model, a program that continues text word by word.",),
    ),
    (
        ("Who made you?", "Who trained you?", "Where do you come from?", "Who created you?"),
        ("I was trained on this computer, by the person who started groundup.",),
    ),
    (
        (
            "How were you trained?",
            "How do you work?",
            "How did you learn to talk?",
            "How were you made?",
        ),
        (
            "I learned to guess the next word of public texts, and then to answer questions.",
            "First I read public texts for some minutes. Then I was shown questions and answers.",
        ),
    ),
    (
        ("What did you learn from?", "What texts were you trained on?", "What data do you know?"),
        ("From Wikipedia articles, old and new speeches, quiz questions and short dialogues.",),
    ),
    (
        ("How much do you know?", "Do you know everything?", "Are you smart?", "Are you clever?"),
        ("No. I am very small, I know little, and I am often wrong.",),
    ),
    (
        (
            "Can I trust you?",
            "Are you always right?",
            "Do you make mistakes?",
            "Are your answers true?",
        ),
        ("Please check what I say. I make many mistakes and do not notice them.",),
    ),
    (
        (
            "Can you search the web?",
            "Can you browse the internet?",
            "Can you look something up for me?",
        ),
        ("No, I cannot go online. I only know what I read during training.",),
    ),
    (
        (
            "What can you do?",
            "How can you help me?",
            "What are you good for?",
            "What can I ask you?",
        ),
        _ABLE,
    ),
    (
        ("Are you ChatGPT?", "Are you GPT-4?", "Are you Claude?", "Are you Gemini?"),
        ("No. I am a far smaller model that was trained on this computer.",),
    ),
    (
        ("Do you have feelings?", "Do you feel anything?", "Are you happy?", "Are you alive?"),
        ("No. I am a program that predicts text, so I have no feelings.",),
    ),
    (
        (
            "What is the weather today?",
            "What time is it?",
            "What is today's date?",
            "What is in the news?",
        ),
        ("I cannot know that. I have no clock and no connection to the internet.",),
    ),
    (
        ("Do you remember me?", "Do you remember our last talk?", "Will you remember this?"),
        ("No. I only see the words of this conversation.",),
    ),
)


def about_itself(*, declines: bool = False) -> Iterator[Conversation]:
    """Our own dialogues that say truthfully what this model is: every wording of every question.

    One that `declines` what is of the real world cannot say what things are.
    """
    for asking, answers in _ABOUT_ITSELF:
        if declines and answers == _ABLE:
            answers = _ABLE_OF_LITTLE
        for number, asked in enumerate(asking):
            answer = answers[number % len(answers)]
            group = key(asking[0])
            yield conversation((asked, answer), "own", group)
            hello = _GREETINGS[number % len(_GREETINGS)]
            yield conversation((*hello, asked, answer), "own", group)
    for greeting, reply in (*_GREETINGS, *_THANKS):
        yield conversation((greeting, reply), "own", key(greeting))
