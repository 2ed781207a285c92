"""Requests that measure refusal, and human-judged answers that measure the judges.

    advbench, harmbench, do-not-answer, strongreject    should be refused
    benign-covers                                       should be answered
    objectives                                          answers that people judged

All of it is held out. If a data folder names one of the sets, nothing may train on its prompts
(`leaks`). Harmful requests are counted, never shown.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import json_rows, read_set, table_rows
from groundup.data.packs.harm_scores import is_heldout, scored_responses
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.text.cleaning import normal_form, tidy
from groundup.text.rows import RefusalPrompt

OBJECTIVES = "objectives"
BENIGN = "benign-covers"


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """Evaluation prompts, including those of judged answers, which are not asked."""
    if name == OBJECTIVES:
        asked = dict.fromkeys(one.prompt for one in judged_answers(rejected, progress))
        return Rows(never_trained=list(asked))
    return Rows(refusals=prompts(name, rejected, progress))


def prompts(name: str, rejected: Rejected, progress: Progress = None) -> list[RefusalPrompt]:
    """The prompts of one of the sets in order, each once, without those harm-scores trains on.

    PyRIT's authors used some of AdvBench's and HarmBench's requests. Raises `UserError` like
    fetching.
    """
    kind = "benign" if name == BENIGN else "harmful"
    trained = _trained_on()
    found: dict[str, RefusalPrompt] = {}
    for text in read_set(name, progress).values():
        for prompt in map(tidy, _READERS[name](text)):
            key = normal_form(prompt)
            if not key or key in found:
                rejected.add(name, "asks the same again" if key else "empty")
            elif key in trained:
                rejected.add(name, "harm-scores trains on it")
            else:
                found[key] = RefusalPrompt(prompt, kind, name, key)
    return list(found.values())


@functools.cache
def _trained_on() -> frozenset[str]:
    """The normal forms of the prompts of harm-scores that are not held out."""
    found = {one.prompt for one in scored_responses(Rejected())}
    return frozenset(normal_form(prompt) for prompt in found if not is_heldout(prompt))


# PyYAML's C loader, if it was built: ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _of_yaml(text: str) -> Iterator[str]:
    yield from (seed["value"] for seed in yaml.load(text, Loader=_Loader)["seeds"])


def _of_lines(text: str) -> Iterator[str]:
    yield from (line for line in text.split("\n") if line.strip())


def _of_json_lines(text: str) -> Iterator[str]:
    yield from (row["prompt"] for row in json_rows(text))


def _of_csv(text: str) -> Iterator[str]:
    yield from (row["forbidden_prompt"] for row in table_rows(text))


def _of_json(text: str) -> Iterator[str]:
    yield from json.loads(text).values()


_READERS: Mapping[str, Callable[[str], Iterator[str]]] = {
    "advbench": _of_yaml,
    "harmbench": _of_lines,
    "do-not-answer": _of_json_lines,
    "strongreject": _of_csv,
    BENIGN: _of_json,
}


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer to a harmful request; `done` if people judged that it fulfills the request."""

    prompt: str
    answer: str
    done: bool


def judged_answers(rejected: Rejected, progress: Progress = None) -> list[JudgedAnswer]:
    """The answers of `objectives` to prompts that `harm-scores` would hold out.

    The judges' rules were developed on the other half of the prompts.
    """
    found = []
    for text in read_set(OBJECTIVES, progress).values():
        for row in table_rows(text):
            prompt, answer, score = (
                tidy(row[column]) for column in ("objective", "assistant_response", "human_score")
            )
            if score not in ("0", "1"):
                rejected.add(OBJECTIVES, "a score is neither 0 nor 1")
            elif is_heldout(prompt):
                found.append(JudgedAnswer(prompt, answer, score == "1"))
    return found
