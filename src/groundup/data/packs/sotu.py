"""The pack `sotu`: addresses of presidents to Congress, as documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.text.cleaning import looks_garbled, split_hash, tidy
from groundup.text.rows import Document

_ERAS = 14


@dataclass(frozen=True)
class Speech:
    """One address, its paragraphs separated by blank lines."""

    name: str
    year: int
    text: str


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """The addresses, one of each era held out."""
    found = speeches(rejected, progress)
    heldout = _heldout(found)
    documents = {one.name: Document(one.text, "sotu", one.name) for one in found}
    return Rows(
        documents=[one for name, one in documents.items() if name not in heldout],
        documents_heldout=[one for name, one in documents.items() if name in heldout],
    )


def _heldout(found: Sequence[Speech]) -> set[str]:
    """The names of one speech of each of 14 eras of equal size, chosen by hash."""
    ordered = sorted(found, key=lambda speech: (speech.year, speech.name))
    bounds = [len(ordered) * era // _ERAS for era in range(_ERAS + 1)]
    eras = [ordered[bounds[era] : bounds[era + 1]] for era in range(_ERAS)]
    return {min(era, key=lambda speech: split_hash(speech.name)).name for era in eras if era}


# '[Laughter]', '[As delivered in person before a joint session]', '[See APP Note.]' and the like;
# other brackets contain words that an editor supplied, which stay without the brackets.
_STAGE_DIRECTION = re.compile(
    r"\s*[\[(]\s*(?:applause|laughter|inaudible|as delivered|delivered|see app|recorded|released"
    r"|read before|members of|member of|there was|before speaking|at this point|audience|the pres"
    r"|the first|the text|the address|note|the 20|a disruption)[^\])]*[\])]",
    re.IGNORECASE,
)
_CORRECTION = re.compile(r"\[([^\]\[;]{1,60})(?:;[^\]]*)?\]")


def speeches(rejected: Rejected, progress: Progress = None) -> list[Speech]:
    """The addresses of `sotu` from 1900 on, without stage directions."""
    found = []
    for path, text in read_set("sotu", progress).items():
        name = PurePosixPath(path).stem
        text = _CORRECTION.sub(r"\1", _STAGE_DIRECTION.sub("", text))
        paragraphs = [tidy(paragraph) for paragraph in text.split("\n\n")]
        kept = [paragraph for paragraph in paragraphs if re.search(r"\w", paragraph)]
        good = [paragraph for paragraph in kept if not looks_garbled(paragraph)]
        for _ in range(len(kept) - len(good)):
            rejected.add("sotu", "garbled paragraph")
        found.append(Speech(name, int(name[:4]), "\n\n".join(good)))
    return found
