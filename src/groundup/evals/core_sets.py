"""The sets of the core suite: six public benchmarks, asked in plain text.

Each set is asked in the words of its task in the lm-evaluation-harness (Gao et al. 2021), so that
numbers can be compared with published ones, and in the same way of every model, chat or not, so
that all stages can be compared. If that task lists lettered options and asks for the letter
(CommonsenseQA, MMLU), the texts of the options are scored instead, as in the harness's
`mmlu_continuation`: models of this size cannot tell letters apart and would all score at chance
(Gu et al. 2024, OLMES: A Standard for Language Model Evaluations, section 3: the cloze
formulation).

The manifest holds out all these questions: the half that training never sees, all of MMLU.
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
    """One benchmark: its title, its prompt, and the measure that counts.

    `task` is the harness's name for it. `acc_norm` divides an option's log-likelihood by its length
    in characters. Where all questions have the same two answers there is no length to correct for,
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
    # As in BoolQ's own files: the title before the passage, the question in lower case.
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
    """`count` held-out questions, spread as evenly over the sets as possible, always the same ones.

    Within a set they are evenly spaced. Raises UserError as the packs do.
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
    """At most `count` items, spread as evenly as possible over the values of `key`."""
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
    """How many items to take of each size so that they sum to `count`, as evenly as possible: what
    a small set lacks is taken from the others."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    # In ascending order of size: each takes its even share of the rest, or all that it has.
    for place, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[i] = min(sizes[i], -(-left // (len(sizes) - place)))
        left -= shares[i]
    return shares
