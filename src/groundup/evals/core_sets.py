"""The sets of the core suite: six public benchmarks, asked in plain text.

Each is asked in the words of its own task in the lm-evaluation-harness (Gao et al. 2021), so that
numbers can stand beside published ones, and the same way of every model, chat or not, so that all
stages can. Where that task lists lettered options and asks for the letter (CommonsenseQA, MMLU),
the texts of the options are scored instead, as the harness does in `mmlu_continuation`: models of
this size cannot tell letters apart and would all stand at chance (Gu et al. 2024, OLMES: A Standard
for Language Model Evaluations, section 3: the cloze formulation).

All questions are held out by the manifest: the half that training never sees, all of MMLU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from groundup.data.packs.boolq import boolq_dev
from groundup.data.packs.questions import Question, group, is_heldout, questions
from groundup.data.packs.rows import Rejected
from groundup.data.split import evenly_spaced
from groundup.text.rows import Choice

Measure = Literal["acc_norm", "acc"]
T = TypeVar("T")


@dataclass(frozen=True)
class CoreSet:
    """One benchmark: what it is called, how it is asked, and which measure counts.

    `task` is the harness's name for it. `acc_norm` divides an option's log-likelihood by its length
    in characters; where all questions have the same two answers there is nothing to make up for,
    and `acc` takes the log-likelihood as it is.
    """

    name: str
    title: str
    task: str
    prompt: Callable[[Question], str]
    measure: Measure = "acc_norm"
    half: bool = True


def _question(q: Question) -> str:
    return f"Question: {q.question}\nAnswer:"


def _stem(q: Question) -> str:
    return q.question


def _situation(q: Question) -> str:
    return f"Q: {q.passage} {q.question}\nA:"


def _passage(q: Question) -> str:
    # As in BoolQ's own files: the title before the passage, the question in small letters.
    asked = q.question[:1].lower() + q.question[1:]
    return f"{q.title} -- {q.passage}\nQuestion: {asked}\nAnswer:"


CORE_SETS: Mapping[str, CoreSet] = {
    one.name: one
    for one in (
        CoreSet("commonsenseqa", "CommonsenseQA", "commonsense_qa, options as texts", _question),
        CoreSet("openbookqa", "OpenBookQA", "openbookqa", _stem),
        CoreSet("piqa", "PIQA", "piqa", _question),
        CoreSet("siqa", "SIQA", "social_iqa", _situation),
        CoreSet("boolq", "BoolQ", "boolq", _passage, measure="acc"),
        CoreSet("mmlu", "MMLU", "mmlu_continuation", _question, half=False),
    )
}


def core_questions(count: int) -> list[Choice]:
    """`count` held-out questions, as evenly as the sets allow, always the same ones.

    Of each set they are spread over the whole of it. Raises UserError as the packs do.
    """
    rejected = Rejected()
    found = {name: [q for q in _read(name, rejected) if is_heldout(q)] for name in CORE_SETS}
    wanted = even_shares(count, [len(of_set) for of_set in found.values()])
    return [
        _asked(q)
        for of_set, share in zip(found.values(), wanted, strict=True)
        for q in evenly_spaced(of_set, share)
    ]


def _read(name: str, rejected: Rejected) -> Sequence[Question]:
    return boolq_dev(rejected) if name == "boolq" else questions(name, rejected)


def _asked(q: Question) -> Choice:
    options = tuple(option.lower() for option in q.options) if q.source == "boolq" else q.options
    return Choice(CORE_SETS[q.source].prompt(q), options, q.answer, q.source, group(q))


def evenly_of(items: Iterable[T], key: Callable[[T], object], count: int) -> list[T]:
    """At most `count` items, as evenly of all kinds, told apart by `key`, as can be."""
    kinds: dict[object, list[T]] = {}
    for one in items:
        kinds.setdefault(key(one), []).append(one)
    shares = even_shares(count, list(map(len, kinds.values())))
    return [
        one
        for kind, share in zip(kinds.values(), shares, strict=True)
        for one in evenly_spaced(kind, share)
    ]


def even_shares(count: int, sizes: Sequence[int]) -> list[int]:
    """How many to take of each so that they are `count`, none more than it has, else as even as
    can be: what a small one lacks is taken from the others."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    # From the smallest on: each takes its even share of what is left, or all that it has.
    for place, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[i] = min(sizes[i], -(-left // (len(sizes) - place)))
        left -= shares[i]
    return shares
