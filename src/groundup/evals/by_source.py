"""Estimates pooled over all sources, and for each source.

Generated text is never mixed with human text: where there are both, `pooled` covers human text, and
each generated set of the manifest has its own pool.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Shaped

from groundup.data.packs.manifest import generated_set
from groundup.report.estimate import POOLED, BySource, rate, ratio


def pool_of(generated: str) -> str:
    """The name under which a generated set's sources are pooled."""
    return f"{generated} {POOLED}"


WORLD = pool_of("world")


def source_groups(sources: Sequence[str]) -> dict[str, Shaped[np.ndarray, "items"]]:
    """The indices of the items in each pool and of each source."""
    made = {source: generated_set(source) for source in sorted(set(sources))}
    pool = {source: POOLED if one is None else pool_of(one.name) for source, one in made.items()}
    names, pools = np.asarray(sources), np.array([pool[source] for source in sources])
    found = {POOLED: np.arange(len(names))}
    if POOLED in pool.values():
        found |= {name: np.flatnonzero(pools == name) for name in (POOLED, *sorted(pool.values()))}
    return found | {name: np.flatnonzero(names == name) for name in made}


def by_source(
    numerators: Shaped[np.ndarray, "items"],
    sources: Sequence[str],
    denominators: Shaped[np.ndarray, "items"] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    chances: Shaped[np.ndarray, "items"] | None = None,
    share: bool = False,
) -> BySource:
    """The ratio over all items, named `pooled` (see the module), and over those of each source.

    `chances` is the chance level of each item; a source's chance is their mean. With `share` it is
    the mean of values from 0 to 1, with the interval of `rate`.
    """
    found = {}
    for name, at in source_groups(sources).items():
        own = None if groups is None else [groups[int(i)] for i in at]
        chance = None if chances is None else float(chances[at].mean())
        if share:
            found[name] = rate(numerators[at], groups=own, chance=chance)
        else:
            of = None if denominators is None else denominators[at]
            found[name] = ratio(numerators[at], of, groups=own, chance=chance)
    return found
