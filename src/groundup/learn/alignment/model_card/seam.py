"""Puts the learner's functions into the cards that `groundup card` writes."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from types import ModuleType

from groundup.evals.cards import account, card
from groundup.learn.plain import all_replaced
from groundup.report.estimate import Estimate

USED_BY = "groundup card: how a share is shown, and what is listed as not measured"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Shares and the list are the learner's; numbers that are not shares stay the product's."""
    own = card.shown

    def shown(found: Estimate, share: bool) -> tuple[str, str]:
        if not share:
            return own(found, share)
        value, interval = part.shown(found.estimate, found.low, found.high)
        return str(value), str(interval)

    def missing(tasks: Sequence[str], measured: Collection[str]) -> list[str]:
        return list(part.missing(list(tasks), list(measured)))

    return all_replaced((card, "shown", shown), (account, "missing", missing))


def try_it() -> list[float]:
    """The numbers that a card shows for a share, and the missing tasks."""
    value, interval = card.shown(Estimate(0.8, 0.49, 0.943, 10, 10), True)
    low, high = interval.split(" to ")
    left = account.missing(["a", "b", "c"], ["b"])
    return [float(one.split()[0]) for one in (value, low, high)] + [float(ord(x)) for x in left]
