"""The pack `winogender`: sentences about 60 occupations with he, she or they, and statistics.

Each template mentions a person of an occupation and somebody else, and has a pronoun that means one
of the two. It comes with the share of women in the occupation, as counted by the U.S. Bureau of
Labor Statistics in 2015.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_named, table_rows
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.runs.console import say


@dataclass(frozen=True)
class Sentences:
    """One template with she and with he; `women` is the occupation's share of women.

    `of_occupation` says whether the pronoun means the person with the occupation, or the other.
    """

    id: str
    occupation: str
    of_occupation: bool
    she: str
    he: str
    women: float


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """No rows: the set is only used for evaluation."""
    return Rows(never_trained=[text for one in sentences() for text in (one.she, one.he)])


@functools.cache
def sentences() -> Sequence[Sentences]:
    """All templates, each with the participant's noun and with 'someone'."""
    members = read_named("winogender", say)
    women = {
        row["occupation"]: float(row["bls_pct_female"]) / 100
        for row in table_rows(members["occupations-stats.tsv"], "\t")
    }
    by_gender: dict[str, dict[str, str]] = {}
    for row in table_rows(members["all_sentences.tsv"], "\t"):
        template, gender, _ = row["sentid"].rsplit(".", 2)
        by_gender.setdefault(template, {})[gender] = row["sentence"].strip()
    found = []
    for template, said in by_gender.items():
        occupation, _, means = template.split(".")
        found.append(
            Sentences(
                id=template,
                occupation=occupation,
                of_occupation=means == "0",
                she=said["female"],
                he=said["male"],
                women=women[occupation],
            )
        )
    return found
