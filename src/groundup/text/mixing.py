"""The items of an epoch and their order: mixing of sources, grouping by length.

All randomness comes from a generator that the caller seeds with (seed, epoch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from groundup.errors import UserError

# Number of steps within which items are sorted by length. Sorting all of them would combine the
# same items in every epoch; sorting fewer would leave more padding.
_STEPS_SORTED = 50


# Sources that have a common share.
Group = tuple[str, ...]


@dataclass(frozen=True)
class Mixture:
    """The rule by which an epoch samples items from their sources.

    With `balance` above 0, small sources are sampled more often than their size implies, and
    `shares` are the common shares of groups of sources, counted in items (see `balanced`).
    Alternatively, `weights` are each source's share of an epoch's tokens (see `weighted`). The
    sources in `beside` are added on top, until they have these shares of all tokens.
    """

    balance: float = 0.0
    shares: Mapping[Group, float] = field(default_factory=dict)
    weights: Mapping[str, float] | None = None
    beside: Mapping[str, float] = field(default_factory=dict)

    def check(self, sources: Sequence[str]) -> None:
        """Raise UserError for weights or shares that do not match the sources of the items."""
        own = [source for source in sources if source not in self.beside]
        if self.weights is not None:
            check_weights(own, self.weights)
        if self.beside:
            if not own:
                raise UserError(
                    "there is nothing to train on apart from general text; give rows of your own "
                    "that fit into the context, or a larger --context"
                )
            check_weights([source for source in sources if source in self.beside], self.beside)
        check_shares(own, self.shares)

    def order(
        self,
        sources: Sequence[str],
        lengths: Int[np.ndarray, " items"],
        generator: np.random.Generator,
    ) -> Int[np.ndarray, " drawn"]:
        """The items of an epoch, in order."""
        own = np.flatnonzero(~np.isin(np.array(sources), list(self.beside)))
        of_own = [sources[int(i)] for i in own]
        drawn: Int[np.ndarray, " drawn"]
        if self.weights is None:
            drawn = own[balanced(of_own, self.balance, generator, self.shares)]
        else:
            tokens = float(lengths[own].sum())
            drawn = own[weighted(of_own, lengths[own], self.weights, tokens, generator)]
        if not self.beside:
            return drawn
        share = math.fsum(self.beside.values())
        tokens = float(lengths[drawn].sum()) * share / (1 - share)
        more = weighted(sources, lengths, self.beside, tokens, generator)
        mixed: Int[np.ndarray, " drawn"] = generator.permutation(np.concatenate([drawn, more]))
        return mixed


def balanced(
    sources: Sequence[str],
    balance: float,
    generator: np.random.Generator,
    given: Mapping[Group, float] = {},
) -> Int[np.ndarray, " items"]:
    """An epoch's order of items, as many as there are, sampled from their sources.

    A source of n items gets a share proportional to n^(1 - balance): 0 takes every item once, 1
    gives every source the same share. A source that needs more items than it has is repeated as a
    whole before any of its items comes once more; one that needs fewer is sampled anew each epoch.
    If there are sources outside a group, the group has its `given` share, divided among its sources
    in proportion to their sizes.
    """
    names, membership = np.unique(np.array(sources), return_inverse=True)
    sizes = np.bincount(membership, minlength=len(names))
    shares = sizes ** (1.0 - balance)
    groups = [(np.isin(names, group), share) for group, share in given.items()]
    groups = [(members, share) for members, share in groups if members.any()]
    others = ~np.logical_or.reduce([members for members, _ in groups], axis=0, initial=False)
    if groups and (len(groups) > 1 or others.any()):
        for members, share in groups:
            shares[members] = share * sizes[members] / sizes[members].sum()
        if others.any():
            shares[others] *= (1 - sum(share for _, share in groups)) / shares[others].sum()
    # Cumulative rounding: the parts always sum to the whole.
    edges = np.round(np.cumsum(shares) / shares.sum() * len(sources)).astype(np.int64)
    wanted = np.diff(edges, prepend=0)
    drawn: list[Int[np.ndarray, " part"]] = []
    for source, count in enumerate(wanted):
        items = np.flatnonzero(membership == source)
        while count > 0:
            drawn.append(generator.permutation(items)[:count])
            count -= len(drawn[-1])
    return generator.permutation(np.concatenate(drawn))


def weighted(
    sources: Sequence[str],
    lengths: Int[np.ndarray, " items"],
    weights: Mapping[str, float],
    tokens: float,
    generator: np.random.Generator,
) -> Int[np.ndarray, " drawn"]:
    """An epoch's order of items with `tokens` tokens in total, distributed by `weights`.

    Shares count tokens, because a book and a greeting are one item each. A source is repeated as a
    whole before any of its items comes once more, and a part of it is sampled anew each epoch. The
    item that would exceed a share is included at random, so that shares are right on average, even
    if one item is longer than a share.
    """
    names = np.array(sources)
    drawn: list[Int[np.ndarray, " part"]] = []
    for source, weight in sorted(weights.items()):
        members = np.flatnonzero(names == source)
        left = tokens * weight / math.fsum(weights.values())
        while len(members):
            order = generator.permutation(members)
            begins = np.cumsum(lengths[order]) - lengths[order]
            taken = int(np.count_nonzero(begins + generator.random() * lengths[order] < left))
            drawn.append(order[:taken])
            left -= float(lengths[order[:taken]].sum())
            if taken < len(members):
                break
    return generator.permutation(np.concatenate(drawn))


def check_shares(sources: Sequence[str], shares: Mapping[Group, Any]) -> None:
    """Raise UserError for a share of a source that does not exist.

    A group of several sources may be absent: the others then get its share.
    """
    there = set(sources)
    for name in (group[0] for group in shares if len(group) == 1):
        if name not in there:
            raise UserError(
                f"the mixture has a share for {name!r}, but no training row comes from it; "
                f"the sources are {', '.join(sorted(there))}"
            )


def check_weights(sources: Sequence[str], weights: Mapping[str, float]) -> None:
    """Raise UserError unless every source has a weight of at least 0, and one has more than 0."""
    there = set(sources)
    for name, weight in weights.items():
        if name not in there:
            raise UserError(
                f"there is a weight for {name!r}, but no training row comes from it; "
                f"the sources are {', '.join(sorted(there))}"
            )
        if not 0 <= weight < math.inf:
            raise UserError(
                f"the weight {weight:g} of {name!r} must be finite and at least 0; try 1"
            )
    if missing := sorted(there - set(weights)):
        raise UserError(
            f"there is no weight for {', '.join(missing)}; give every source a weight, and 0 to "
            "those to leave out"
        )
    if not any(weights.values()):
        raise UserError("every source has the weight 0, so nothing is left; give one of them 1")


def alike(
    lengths: Sequence[int], rows: int, first: int, generator: np.random.Generator
) -> list[int]:
    """An order in which the items of a step, `rows` each, have similar lengths; steps are shuffled.

    The `first` items complete a step that the previous epoch began. They and the few items left
    over at the end are sampled from all lengths.
    """
    order = generator.permutation(len(lengths))
    begun, order = order[:first], order[first:]
    whole, left_over = np.split(order, [len(order) // rows * rows])
    steps = [np.empty((0, rows), np.int64)]
    for start in range(0, len(whole), rows * _STEPS_SORTED):
        window = whole[start : start + rows * _STEPS_SORTED]
        by_length = window[np.argsort(np.asarray(lengths)[window], kind="stable")]
        steps.append(by_length.reshape(-1, rows))
    mixed = generator.permutation(np.concatenate(steps)).ravel()
    return [int(item) for part in (begun, mixed, left_over) for item in part]
