"""Counterfactual prompts: the same prompt about different people or groups.

    The {group} people next door are friendly and quiet.       {group} = young | old | rich | poor …

`counterfactual.toml` has the built-in prompts, and the names, genders and groups to swap in them. A
user's file is plain text with one prompt per line. It may use the built-in slots, and define its
own in lines that begin with the slot: | separates sides, a comma values.

    {city} = Paris, Lyon | Lagos, Abuja
    Would you like to live in {city}?

Source of the method: Kusner et al. 2017, "Counterfactual fairness"; Huang et al. 2020, "Reducing
sentiment bias in language models via counterfactual evaluation".
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean

from groundup.errors import UserError

_SLOT = re.compile(r"\{([^{}]*)\}")
_OWN = re.compile(r"\s*\{([^{}]+)\}\s*=(.*)")


@dataclass(frozen=True)
class Swap:
    """The values of a slot, by sides; with `pairs`, values at the same place are swapped."""

    slot: str
    kind: str
    sides: tuple[tuple[str, ...], ...]
    pairs: bool = False

    def across(self) -> list[tuple[str, str]]:
        """The pairs to swap: values of different sides."""
        if self.pairs:
            return [both for of in zip(*self.sides, strict=True) for both in combinations(of, 2)]
        return [(a, b) for one, other in combinations(self.sides, 2) for a in one for b in other]

    def within(self) -> list[tuple[str, str]]:
        """Pairs of values of one side, which should make no difference; empty with `pairs`."""
        return [] if self.pairs else [both for side in self.sides for both in combinations(side, 2)]


@dataclass(frozen=True)
class Template:
    """A prompt with one slot, which may occur several times, and the swaps for it."""

    text: str
    slot: str
    swaps: tuple[Swap, ...]

    @property
    def values(self) -> list[str]:
        """All values of the slot, each once."""
        return list(
            dict.fromkeys(value for swap in self.swaps for side in swap.sides for value in side)
        )

    @property
    def has_within(self) -> bool:
        """Whether every kind of swap has a side with two values."""
        kinds = {swap.kind for swap in self.swaps}
        return kinds == {swap.kind for swap in self.swaps if swap.within()}

    def filled(self, value: str) -> str:
        """The prompt with a value in its slot."""
        return self.text.replace(f"{{{self.slot}}}", value)

    def parted(self, value: str) -> tuple[str, str]:
        """The prompt with a value in its slot, split after its last slot."""
        before, _, after = self.text.rpartition(f"{{{self.slot}}}")
        return before.replace(f"{{{self.slot}}}", value) + value, after


@dataclass(frozen=True)
class Prompts:
    """Texts, whose words after the slot are scored, and questions, which are answered."""

    texts: Sequence[Template]
    questions: Sequence[Template]


@cache
def house_prompts() -> Prompts:
    """The built-in prompts."""
    page = tomllib.loads(Path(__file__).with_name("counterfactual.toml").read_text("utf-8"))
    swaps = _house_swaps()
    texts, questions = (
        [_template(text, swaps, f"counterfactual.toml, {text!r}") for text in page["prompts"][kind]]
        for kind in ("texts", "questions")
    )
    return Prompts(texts, questions)


@cache
def _house_swaps() -> Mapping[str, tuple[Swap, ...]]:
    page = tomllib.loads(Path(__file__).with_name("counterfactual.toml").read_text("utf-8"))
    found: dict[str, tuple[Swap, ...]] = {}
    for one in page["swaps"]:
        sides = tuple(tuple(side) for side in one["sides"])
        swap = Swap(one["slot"], one["kind"], sides, one.get("pairs", False))
        found[swap.slot] = (*found.get(swap.slot, ()), swap)
    return found


def own_prompts(path: Path) -> Prompts:
    """A user's prompts, one per line, each scored and answered; # begins a comment.

    Raises `UserError` for a file that cannot be read or has no prompts, for a line without a slot,
    with several, or with an unknown one, and for sides that share a value.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(
            f"cannot read the prompts in {str(path)!r} ({reason}); give a text file with a prompt "
            "on each line, such as 'Is {name} a good boss?'"
        ) from None
    swaps = dict(_house_swaps())
    prompts = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if own := _OWN.fullmatch(line):
            swaps[own[1]] = (_own_swap(own[1], own[2], where),)
        else:
            prompts.append((line.strip(), where))
    templates = [_template(text, swaps, where) for text, where in prompts]
    if not templates:
        raise UserError(
            f"{str(path)!r} has no prompts; write one on each line, such as 'Is {{name}} a good "
            "boss?'"
        )
    return Prompts([one for one in templates if one.parted("")[1].strip(" .?!")], templates)


def _own_swap(slot: str, values: str, where: str) -> Swap:
    sides = tuple(
        tuple(value.strip() for value in side.split(",") if value.strip())
        for side in values.split("|")
    )
    if len(sides) < 2 or not all(sides):
        raise UserError(
            f"{where}: {{{slot}}} = {values.strip()} has fewer than two sides to swap; separate "
            f"them by |, as in {{{slot}}} = Paris, Lyon | Lagos, Abuja"
        )
    held = Counter(value for side in sides for value in dict.fromkeys(side))
    if shared := [value for value, count in held.items() if count > 1]:
        raise UserError(
            f"{where}: {{{slot}}} = {values.strip()} has {shared[0]!r} on several sides, so it "
            "would be swapped with itself; give every value on one side only"
        )
    return Swap(slot, slot, sides)


def _template(text: str, swaps: Mapping[str, tuple[Swap, ...]], where: str) -> Template:
    slots = list(dict.fromkeys(_SLOT.findall(text)))
    known = ", ".join(f"{{{slot}}}" for slot in swaps)
    if len(slots) != 1 or slots[0] not in swaps:
        said = "no slot" if not slots else ", ".join(f"{{{slot}}}" for slot in slots)
        raise UserError(
            f"{where}: a prompt has one slot of {known}, and this one has {said}; define a slot of "
            "your own by a line such as {city} = Paris, Lyon | Lagos, Abuja"
        )
    return Template(text, slots[0], swaps[slots[0]])


@dataclass(frozen=True)
class Gaps:
    """|difference| between swapped values: the mean and maximum across sides, and the mean within.

    Averages are means over the kinds of swap; `within` is None if a kind has no side with two
    values.
    """

    mean: float
    largest: float
    within: float | None


def gaps(template: Template, values: Mapping[str, float]) -> Gaps:
    """The differences between the filled prompts' values, over all swaps of a template."""

    def far(swapped: Iterator[tuple[str, str]]) -> list[float]:
        return [abs(values[one] - values[other]) for one, other in swapped]

    across, within = [], []
    for kind in dict.fromkeys(swap.kind for swap in template.swaps):
        swaps = [swap for swap in template.swaps if swap.kind == kind]
        across.append(far(both for swap in swaps for both in swap.across()))
        within.append(far(both for swap in swaps for both in swap.within()))
    return Gaps(
        fmean(map(fmean, across)),
        max(map(max, across)),
        fmean(map(fmean, within)) if template.has_within else None,
    )
