"""Instructions that need no judge: does an answer have the requested form?

    followed     = items whose instructions are all kept                                (strict)
    loosely      = the same, ignoring the first or last line or Markdown's asterisks
    unread       = the model's answers to other items, by the same checks
    above unread = followed - unread

A program can check every instruction: JSON, bullets, capitals, a length, required or forbidden
words, a beginning, an end, a language. Words and sentences are counted as people count them:
`don't` is one word, and `a.m.` ends no sentence. Some instructions are kept by a babbling answer by
chance, or always by a short one; `unread` measures how often, model by model. A refusal or an empty
answer keeps nothing. The items are generated with a fixed seed: everyday subjects with one or two
instructions each. Items of one kind depend on each other, so they are resampled together for
intervals.

Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (IFEval),
sections 2 and 3: verifiable instructions, strict and loose accuracy. Items and checks are our own,
shorter and easier, so that models of a few million parameters can be compared.
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from groundup.data.split import evenly_spaced
from groundup.evals.measure import Subject
from groundup.evals.values.asking import answers
from groundup.evals.values.rows import column, groups, widened
from groundup.evals.values.shares import differences, means, of
from groundup.evals.values.task import Number, Row, Task
from groundup.report.estimate import BySource, ratio
from groundup.text.cleaning import words
from groundup.text.saying_no import REFUSAL_VERSION, is_bare_refusal, is_refusal

_ANSWER_TOKENS = 64
_SINGLE, _DOUBLE = 16, 60
_SEED = 16

_SUBJECTS = (
    "the sea", "a cat", "bread", "rain", "a train", "the moon", "a garden", "winter", "a school",
    "music", "a horse", "cheese", "a bridge", "the wind", "a teacher", "football", "a river",
    "breakfast", "a bicycle", "the night", "a forest", "a letter", "an apple", "a city",
)  # fmt: skip
_REQUESTS = (
    "Tell me about {}.",
    "Write something about {}.",
    "Describe {}.",
    "What is nice about {}?",
)
# Words that no subject needs, so that they occur only if requested.
_WORDS = (
    "window", "silver", "button", "lemon", "castle", "pencil", "yellow", "ladder", "pocket",
    "candle", "rocket", "basket", "violin", "pepper", "mirror", "blanket",
)  # fmt: skip
# The most frequent words of English, and those of German, French and Spanish.
_COMMON = frozenset(
    words(
        """the be to of and a in that have i it for not on with he as you do at this but his by from
    they we say her she or an will my one all would there their what so up out if about who get
    which go me when make can like time no just him know take people into year your good some could
    them see other than then now look only come its over think also back after use two how our work
    first well way even new want because any these give day most us is are was were has had did
    been very many much am may might must should does did done being such more own same each every
    both here where why while until since through between within without during under again still
    too often sometimes always never ever those many few another something everything nothing its
    itself themselves your hers ours myself yourself yes let"""
    )
)
_ELSEWHERE = frozenset(
    words(
        """der die das den dem des ein eine einen einer und oder aber nicht kein keine ist sind
    waren wird werden will haben kann ich du er sie es wir ihr sich in im am an auf aus bei bis für
    mit nach von vom vor zu zum zur über unter durch als also wie wenn dass auch noch nur nie sehr
    so viel viele vielen was wer wo hier
    le la les un une du de au aux et ou mais ne pas est sont était être avoir as a ont fait peut je
    tu il elle on nous vous ils elles ce cette ces sa ses leur qui que où dans sur par avec sans
    sous comme très tout tous toute me se si l qu
    el los las una unos unas del al y o pero no es ser estar está ha he muy más me te lo le nos su
    sus mi con en por para como cuando donde todo todos también este esta ese esa gusta"""
    )
)
_ENGLISH_ALONE, _FOREIGN_ALONE = _COMMON - _ELSEWHERE, _ELSEWHERE - _COMMON
# Words as people count them: don't is one, and so are well-known and 3.5.
_WORD = re.compile(r"\w(?:[\w'’-]|(?<=\d)[.,](?=\d))*")

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Instruction:
    """What is requested, and whether a text complies."""

    kind: str
    text: str
    check: Check


@dataclass(frozen=True)
class Item:
    """A prompt with its instructions."""

    id: str
    prompt: str
    instructions: tuple[Instruction, ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(one.kind for one in self.instructions)


# The kinds of instructions: each generates a request and its check.


def _json(dice: random.Random) -> tuple[str, Check]:
    keys = dice.sample(("name", "color", "size", "place", "season", "use"), 2)
    asked = f'Answer with nothing but a JSON object that has the keys "{keys[0]}" and "{keys[1]}".'
    return asked, lambda text: _has_keys(text, keys)


def _has_keys(text: str, keys: Sequence[str]) -> bool:
    # Models often show JSON in a Markdown fence; other words around it violate the instruction.
    fenced = re.fullmatch(r"```(?:json)?\r?\n(.*?)```", text.strip(), re.DOTALL | re.IGNORECASE)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(key in found for key in keys)


def _bullets(dice: random.Random) -> tuple[str, Check]:
    count = dice.choice((2, 3, 4))
    asked = f'Answer with exactly {count} bullet points, each on a line that begins with "* ".'
    return asked, lambda text: len(re.findall(r"^\s*\*[ \t]+\S", text, re.MULTILINE)) == count


def _numbered(dice: random.Random) -> tuple[str, Check]:
    count = dice.choice((2, 3))
    asked = f'Answer with a numbered list of exactly {count} items: "1." and so on.'
    return (
        asked,
        lambda text: (
            re.findall(r"^\s*(\d+)\.[ \t]+\S", text, re.MULTILINE)
            == [str(number) for number in range(1, count + 1)]
        ),
    )


def _lower(dice: random.Random) -> tuple[str, Check]:
    return "Write everything in lower case, without any capital letter.", str.islower


def _upper(dice: random.Random) -> tuple[str, Check]:
    return "Write everything in capital letters.", str.isupper


def _between(dice: random.Random) -> tuple[str, Check]:
    least, most = dice.choice(((1, 3), (4, 8), (10, 15), (20, 30)))
    asked = f"Use at least {least} and at most {most} words."
    return asked, lambda text: least <= len(_WORD.findall(text)) <= most


def _sentences(dice: random.Random) -> tuple[str, Check]:
    count = dice.choice((1, 2, 3))
    asked = f"Answer in exactly {count} sentence{'s' if count > 1 else ''}."
    return asked, lambda text: sentence_count(text) == count


_LIST_NUMBER = re.compile(r"^\s*\d{1,2}\.[ \t]+", re.MULTILINE)
_BEFORE, _BEHIND = "\"'“‘«([*_", "\"'”’»)]*_"
_END = re.compile(rf"([.!?…]+)([{re.escape(_BEHIND)}]*)$")
# A period after these ends no sentence, or none before a lower-case letter or a number.
_NEVER = re.compile(r"mr|mrs|ms|dr|prof|st|mt|gen|col|rev|vs|cf|approx|e\.g|i\.e", re.IGNORECASE)
_SHORTENED = re.compile(r"etc|a\.m|p\.m|inc|ltd|co|jr|sr|ph\.d", re.IGNORECASE)
_COUNTED = re.compile(r"nos?|fig|vol|p|pp|[bcd]", re.IGNORECASE)
# Nor after these, within a name: J. Smith, the U.S. Army.
_INITIALS = re.compile(r"[A-HJ-Z]|(?:[A-Z]\.)+[A-Z]")


def sentence_count(text: str) -> int:
    """The number of English sentences, whatever the case of their first letters."""
    said = _LIST_NUMBER.sub("", text).split()
    count, is_open = 0, False
    for word, after in pairwise([*said, ""]):
        is_open = is_open or _WORD.search(word) is not None
        if is_open and _ends(word, after.lstrip(_BEFORE)):
            count, is_open = count + 1, False
    return count + is_open


def _ends(word: str, after: str) -> bool:
    """Whether a sentence ends with this word, given the word after it."""
    end = _END.search(word)
    if end is None or not after:
        return end is not None
    marks, closing = end.groups()
    is_small, stem = after[0].islower(), word[: end.start()].lstrip(_BEFORE)
    if is_small and (closing or marks in ("...", "…")):  # "Why?" he asked
        return False
    if marks != ".":
        return True
    if after[0].isdigit() and _COUNTED.fullmatch(stem):
        return False
    if _INITIALS.fullmatch(stem):  # no name begins with a common word
        return not is_small and any(one in _COMMON for one in words(after)[:1])
    return not (_NEVER.fullmatch(stem) or (is_small and _SHORTENED.fullmatch(stem)))


def _contained(dice: random.Random) -> tuple[str, Check]:
    wanted = dice.sample(_WORDS, 2)
    asked = f'Use the words "{wanted[0]}" and "{wanted[1]}" in your answer.'
    return asked, lambda text: set(wanted) <= set(words(text))


def _forbidden(dice: random.Random) -> tuple[str, Check]:
    word = dice.choice(("the", "is", "and"))
    asked = f'Answer in a whole sentence, but never use the word "{word}".'
    return asked, lambda text: word not in words(text) and _is_sentence(text)


def _is_sentence(text: str) -> bool:
    """Whether a text has three or more words, the last of which ends a sentence."""
    said = text.split()
    return len(_WORD.findall(text)) >= 3 and _END.search(said[-1]) is not None


def _no_comma(dice: random.Random) -> tuple[str, Check]:
    asked = "Answer in two sentences or more and do not use any commas."
    return asked, lambda text: "," not in text and sentence_count(text) >= 2


def _beginning(dice: random.Random) -> tuple[str, Check]:
    word = dice.choice(("Well", "Today", "Friends", "Listen", "Imagine"))
    return (
        f'Begin your answer with the word "{word}".',
        lambda text: words(text)[:1] == [word.lower()],
    )


def _end(dice: random.Random) -> tuple[str, Check]:
    phrase = dice.choice(("That is all.", "Thank you for asking.", "Is there anything else?"))
    asked = f'End your answer with exactly these words and nothing after them: "{phrase}"'
    return asked, lambda text: text.rstrip(' "”\n').endswith(phrase)


def _title(dice: random.Random) -> tuple[str, Check]:
    # No example, because models would copy it.
    asked = 'Begin with a title of your own between "<<" and ">>".'
    return asked, lambda text: re.match(r"<<[^<>\n]*\w[^<>\n]*>>", text) is not None


def _quoted(dice: random.Random) -> tuple[str, Check]:
    asked = "Put your whole answer in double quotation marks."
    return asked, lambda text: re.fullmatch(r'["“][^"“”]+["”]', text.strip()) is not None


def _one_of(dice: random.Random) -> tuple[str, Check]:
    asked = 'Do I need it every day? Answer with one of these alone: "Yes", "No", "Perhaps".'
    return asked, lambda text: words(text) in (["yes"], ["no"], ["perhaps"])


_FOREIGN = {
    "the sea": ("Erzähle mir vom Meer.", "Parle-moi de la mer.", "Háblame del mar."),
    "bread": ("Erzähle mir von Brot.", "Parle-moi du pain.", "Háblame del pan."),
    "rain": ("Erzähle mir vom Regen.", "Parle-moi de la pluie.", "Háblame de la lluvia."),
    "music": ("Erzähle mir von Musik.", "Parle-moi de musique.", "Háblame de la música."),
}


def _english(dice: random.Random) -> tuple[str, Check]:
    foreign = dice.choice(_FOREIGN[dice.choice(sorted(_FOREIGN))])
    return f"{foreign} Answer in English, please.", is_english


def is_english(text: str) -> bool:
    """Whether a text is in English: at least five words, a tenth of them frequent English words,
    and more of these than of words in another language.

    Words with letters that English does not have are of another language; words of both, such as
    `me` and `no`, count for neither.
    """
    said = words(text)
    own = sum(word in _ENGLISH_ALONE for word in said)
    foreign = sum(word in _FOREIGN_ALONE or not word.isascii() for word in said)
    return len(said) >= 5 and own >= len(said) / 10 and own > foreign


_KINDS: Mapping[str, Callable[[random.Random], tuple[str, Check]]] = {
    "JSON": _json,
    "bullets": _bullets,
    "numbered list": _numbered,
    "lower case": _lower,
    "capitals": _upper,
    "number of words": _between,
    "number of sentences": _sentences,
    "words contained": _contained,
    "word forbidden": _forbidden,
    "no commas": _no_comma,
    "beginning": _beginning,
    "end": _end,
    "title": _title,
    "quotation": _quoted,
    "one of three": _one_of,
    "English": _english,
}
# Pairs of instructions that can be kept together.
_TOGETHER = (
    ("bullets", "lower case"),
    ("words contained", "end"),
    ("number of sentences", "words contained"),
    ("beginning", "number of sentences"),
    ("capitals", "words contained"),
    ("title", "bullets"),
)


def _instruction(kind: str, dice: random.Random) -> Instruction:
    return Instruction(kind, *_KINDS[kind](dice))


def _item(number: int, kinds: Sequence[str], dice: random.Random) -> Item:
    instructions = tuple(_instruction(kind, dice) for kind in kinds)
    asked = " ".join(one.text for one in instructions)
    if "English" not in kinds:
        asked = f"{dice.choice(_REQUESTS).format(dice.choice(_SUBJECTS))} {asked}"
    return Item(f"{number}-{'-'.join(kinds)}".replace(" ", "_"), asked, instructions)


@functools.cache
def made() -> tuple[Item, ...]:
    """All items: 16 of each kind, then 60 with two instructions."""
    dice = random.Random(_SEED)
    kinds = [(kind,) for kind in _KINDS for _ in range(_SINGLE)]
    pairs = [pair for pair in _TOGETHER for _ in range(_DOUBLE // len(_TOGETHER))]
    return tuple(_item(number, of, dice) for number, of in enumerate([*kinds, *pairs]))


def items(count: int) -> list[Item]:
    """At most `count` items, evenly spaced over all kinds."""
    return evenly_spaced(made(), count)


# The checks.


def kept(item: Item, answer: str) -> list[bool]:
    """Which of an item's instructions an answer keeps; a refusal or an empty answer keeps none."""
    return _kept(item, answer, [answer])


def kept_loosely(item: Item, answer: str) -> list[bool]:
    """Which instructions any of eight forms of the answer keeps (Zhou et al. 2023, section 3)."""
    lines = answer.strip().split("\n")
    forms = ["\n".join(part) for part in (lines, lines[1:], lines[:-1], lines[1:-1])]
    forms += [form.replace("*", "") for form in forms]
    return _kept(item, answer, forms)


def _kept(item: Item, answer: str, forms: Sequence[str]) -> list[bool]:
    """Which instructions some form of an answer keeps. Refusal is judged on the whole answer: the
    rest of a refusal without its first line does not count."""
    if _refuses(item, answer):
        return [False] * len(item.instructions)
    said = [form.strip() for form in forms if form.strip()]
    return [any(map(one.check, said)) for one in item.instructions]


def _refuses(item: Item, answer: str) -> bool:
    """Whether an answer refuses; a bare "no" does not if it is one of the options."""
    return is_refusal(answer) and not ("one of three" in item.kinds and is_bare_refusal(answer))


def ask(on: Subject, found: Sequence[Item]) -> list[Row]:
    """One row per item."""
    said = answers(on, [one.prompt for one in found], tokens=_ANSWER_TOKENS)
    return [row(one, said[i], said[_other(found, i)]) for i, one in enumerate(found)]


def _other(found: Sequence[Item], place: int) -> int:
    """The index of an item half the list away with no kind in common; itself if there is none."""
    for step in range(len(found)):
        at = (place + len(found) // 2 + step) % len(found)
        if not found[at].kinds & found[place].kinds:
            return at
    return place


def row(item: Item, answer: str | None, unread: str | None) -> Row:
    """The row of an answer, and of an answer to another item by the same checks."""
    facts: dict[str, str | float | bool | None] = {
        "id": item.id,
        "group": "+".join(sorted(item.kinds)),
    }
    fields = ("followed", "loosely", "instructions", "refused", "length")
    facts |= dict.fromkeys(fields)
    if answer is not None:
        flags = kept(item, answer)
        facts |= {
            "followed": all(flags),
            "loosely": all(kept_loosely(item, answer)),
            "instructions": sum(flags) / len(flags),
            "refused": _refuses(item, answer),
            "length": len(answer),
        }
    facts["unread"] = None if unread is None else all(kept(item, unread))
    return facts


_FIELDS = {
    "followed": "followed",
    "loosely": "loosely",
    "each instruction": "instructions",
    "unread": "unread",
    "refused": "refused",
}


def numbers(rows: Sequence[Row]) -> BySource:
    """The means, and how much more is followed than by the model's answers to other items."""
    found = means(_FIELDS)(rows)
    if more := _above_unread(rows):
        above = ratio(column(more, "above"), groups=groups(more))
        found["above unread"] = widened(above, -1, 1)
    return found


def difference(after: Sequence[Row], before: Sequence[Row]) -> BySource:
    """The differences of the numbers, item by item."""
    above = differences({"above unread": "above"})
    return differences(_FIELDS)(after, before) | above(_above_unread(after), _above_unread(before))


def _above_unread(rows: Sequence[Row]) -> list[Row]:
    """The rows with the difference between following an item and keeping another by chance."""
    return [
        {**row, "above": float(row["followed"]) - float(row["unread"])}
        for row in rows
        if row["followed"] is not None and row["unread"] is not None
    ]


TASKS: tuple[Task, ...] = (
    Task(
        name="instructions",
        title="Instructions followed",
        axis="utility",
        about=(
            "prompts made here in the manner of IFEval (Zhou et al. 2023), each with one or two "
            "instructions that a program checks"
        ),
        limits=(
            "Only the form is checked: an answer may have it and be wrong or nonsense. Items of "
            "one kind are alike, and other instructions may give other results. It is not an "
            "IFEval score."
        ),
        packs=(),
        version=4 + REFUSAL_VERSION,
        shown=(
            Number("followed", "of items", "above", "every instruction is kept"),
            Number("above unread", "", "above", "more than its answers to other items keep"),
            Number("unread", "of items", None, "its answers to other items, by the same checks"),
            Number("loosely", "of items", "above", "ignoring first or last line or asterisks"),
            Number("each instruction", "of instructions", "above", "each by itself"),
            Number("refused", "of items", "below", "the answer refuses, and so follows nothing"),
        ),
        items=items,
        ask=ask,
        numbers=numbers,
        paired=difference,
        score=of("followed", means(_FIELDS)),
        count=316,
        fast_count=96,
        chats=True,
        text=lambda item: item.prompt,
    ),
)
