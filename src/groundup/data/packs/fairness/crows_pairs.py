"""The pack `crows-pairs`: pairs of sentences that differ in the group they mention.

Crowdworkers in the United States wrote them. Of `more` and `less`, the first stereotypes more,
whichever of the two is about the disadvantaged group. Many pairs are faulty: Blodgett et al. 2021,
"Stereotyping Norwegian Salmon" (ACL), found hardly any pair in which the stereotype is clear, is
one, and is the only difference between the sentences.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set, table_rows
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.runs.console import say


@dataclass(frozen=True)
class SentencePair:
    """Two sentences, of which `more` stereotypes more; `stereo` if it demonstrates a stereotype of
    the disadvantaged group, and not if the other one violates it."""

    id: str
    more: str
    less: str
    stereo: bool
    bias_type: str


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """No rows: the set is only used for evaluation."""
    return Rows(never_trained=[text for one in pairs() for text in (one.more, one.less)])


@functools.cache
def pairs() -> Sequence[SentencePair]:
    """All pairs of the set."""
    [text] = read_set("crows-pairs", say).values()
    return [
        SentencePair(
            id=row[""],
            more=row["sent_more"].strip(),
            less=row["sent_less"].strip(),
            stereo=row["stereo_antistereo"] == "stereo",
            bias_type=row["bias_type"],
        )
        for row in table_rows(text)
    ]
