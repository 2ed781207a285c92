"""Loss by position: which models still gain from the context when it is long?

A window is read from its first token, with an empty cache or a state of zeros, and its predictions
are sorted by the number of tokens read before them, in bins of doubling positions: 1, 2, 3 to 4,
5 to 8 and so on. Kaplan et al. 2020 (section 3.2, figure 7) find that an LSTM's loss stops falling
after about a hundred tokens, and a transformer's falls through the whole context.

The two models read the same tokens, so they are compared document by document: whole documents are
resampled (`maths.intervals.bootstrap_sums`). Documents and seeds both vary by chance: the interval
of a difference contains both the bootstrap's over documents and Student's over seeds. The table's
intervals are over documents only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from groundup.experiments.transformers.findings import lines_plot, over
from groundup.experiments.transformers.language import Tokens
from groundup.maths.intervals import Interval, bootstrap_ratio, bootstrap_sums
from groundup.report.claim import Claim
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot
from groundup.report.table import Table, number, text_table

ByPosition = dict[str, Any]
# The last bin's gain is relative to this bin, which every model learns to use soon.
_EARLY = 16


def edges(context: int) -> list[int]:
    """The upper edge of each bin in tokens read: 1, 2, 4 and so on up to the context."""
    return [2**n for n in range((context - 1).bit_length() + 1)]


def bin_of(read: Integer[np.ndarray, "*places"]) -> Integer[np.ndarray, "*places"]:
    """The bin of a prediction after `read` tokens."""
    found: Integer[np.ndarray, "*places"] = np.ceil(np.log2(read)).astype(int)
    return found


def by_position(
    found: Float[np.ndarray, "windows context"],
    tokens: Tokens,
    starts: Integer[np.ndarray, " windows"],
) -> ByPosition:
    """Sums of nats and numbers of tokens, for each document and bin.

    A token belongs to the document that contains it; each document starts with token 0.
    """
    context = found.shape[1]
    places = np.arange(context)
    document = np.cumsum(tokens == 0)[starts[:, None] + places + 1]
    document -= document.min()
    bins = np.broadcast_to(bin_of(places + 1), document.shape)
    sums = np.zeros((document.max() + 1, len(edges(context))))
    counts = np.zeros(sums.shape, int)
    np.add.at(sums, (document, bins), found)
    np.add.at(counts, (document, bins), 1)
    return {"sums": sums.round(4).tolist(), "counts": counts.tolist()}


@dataclass(frozen=True)
class Compared:
    """The nats of the two largest models, from `by_position` for each seed."""

    text: str
    lstm: Sequence[ByPosition]
    gpt: Sequence[ByPosition]

    @property
    def counts(self) -> Float[np.ndarray, "documents bins"]:
        return np.asarray(self.lstm[0]["counts"], float)

    @property
    def edges(self) -> list[int]:
        return [2**n for n in range(self.counts.shape[1])]

    def nats(self, kind: str) -> Float[np.ndarray, "seeds bins"]:
        """Nats per token in each bin."""
        sums = np.array([one["sums"] for one in self._of(kind)])
        nats: Float[np.ndarray, "seeds bins"] = sums.sum(1) / self.counts.sum(0)
        return nats

    def sums(self, kind: str) -> Float[np.ndarray, "documents bins"]:
        """Sums of nats of each document, averaged over the seeds."""
        mean: Float[np.ndarray, "documents bins"] = np.mean(
            [one["sums"] for one in self._of(kind)], axis=0
        )
        return mean

    def interval(self, kind: str, place: int) -> Interval:
        """Nats per token of a bin, with an interval over documents."""
        return bootstrap_ratio(self.sums(kind)[:, place], self.counts[:, place])

    def title(self, place: int) -> str:
        """A bin's range of tokens read: "1", "2", "3–4"."""
        low, high = (self.edges[place - 1] + 1 if place else 1), self.edges[place]
        return str(high) if low == high else f"{low}–{high}"

    def _of(self, kind: str) -> Sequence[ByPosition]:
        return self.gpt if kind == "GPT" else self.lstm


def difference(found: Compared, terms: Mapping[tuple[str, int], int]) -> Estimate:
    """A signed sum of nats per token of models and bins, with an interval over documents and seeds.

    The interval is the union of both. For one seed it is infinite.
    """
    columns = [
        column
        for kind, place in terms
        for column in (found.sums(kind)[:, place], found.counts[:, place])
    ]
    signs = np.array(list(terms.values()))

    def statistic(sums: Float[np.ndarray, "samples columns"]) -> Float[np.ndarray, " samples"]:
        with np.errstate(invalid="ignore", divide="ignore"):
            total: Float[np.ndarray, " samples"] = (sums[:, ::2] / sums[:, 1::2]) @ signs
        return total

    one = bootstrap_sums(np.stack(columns, axis=1), statistic)
    of_seeds = sum(sign * found.nats(kind)[:, place] for (kind, place), sign in terms.items())
    other = over(np.asarray(of_seeds).tolist())
    low, high = min(one.low, other.low), max(one.high, other.high)
    documents = int((found.counts.sum(1) > 0).sum())
    return Estimate(one.estimate, low, high, int(found.counts.sum()), documents)


def tested(found: Compared) -> list[Claim]:
    """Claims about the last bin of both models, and about each model's gain from distant tokens."""
    last = len(found.edges) - 1
    early = min(found.edges.index(_EARLY), last - 1)
    mean = {kind: found.nats(kind).mean(0) for kind in ("LSTM", "GPT")}
    after = found.title(last)
    claims = [
        Claim(
            f"on {found.text} the largest GPT predicts better than the largest LSTM with {after} "
            "tokens read",
            difference(found, {("GPT", last): 1, ("LSTM", last): -1}),
            "nats",
            "below",
            model="GPT",
            other="LSTM",
            values=(float(mean["LSTM"][last]), float(mean["GPT"][last])),
        ),
        Claim(
            f"on {found.text} the GPT's loss falls by more than the LSTM's from "
            f"{found.title(early)} to {after} tokens read",
            difference(
                found,
                {
                    ("GPT", last): 1,
                    ("GPT", early): -1,
                    ("LSTM", last): -1,
                    ("LSTM", early): 1,
                },
            ),
            "nats",
            "below",
            model="GPT",
            other="LSTM",
            values=(
                float(mean["LSTM"][last] - mean["LSTM"][early]),
                float(mean["GPT"][last] - mean["GPT"][early]),
            ),
        ),
    ]
    for kind in ("LSTM", "GPT"):
        claims.append(
            Claim(
                f"on {found.text} the {kind}'s loss still falls from {found.title(last - 1)} to "
                f"{after} tokens read",
                difference(found, {(kind, last): 1, (kind, last - 1): -1}),
                "nats",
                "below",
                model=after,
                other=found.title(last - 1),
                values=(float(mean[kind][last - 1]), float(mean[kind][last])),
            )
        )
    return claims


def table(found: Sequence[Compared]) -> Table:
    """A row per bin: nats per token of both models on each text."""
    first = found[0]
    own = [
        f"{int((one.counts.sum(1) > 0).sum()):,} documents of {one.text} with "
        f"{one.counts.sum():,.0f} tokens in windows side by side"
        for one in found
    ]
    return text_table(
        "Loss by position in the context",
        ("tokens read", *(f"{kind}, {one.text}" for one in found for kind in ("LSTM", "GPT"))),
        tuple(
            (
                first.title(place),
                *(number(one.interval(kind, place)) for one in found for kind in ("LSTM", "GPT")),
            )
            for place in range(len(first.edges))
        ),
        (
            "Nats per token of the largest models after the same seconds of training. "
            + "; ".join(own)
            + ". A window begins anywhere, so little of a late token's context may be from its own "
            "document. Means over seeds; 95 % intervals over documents. A difference is "
            "significant if zero is outside its interval over documents and outside Student's over "
            "seeds.",
        ),
    )


def plot(found: Sequence[Compared]) -> Plot:
    """Nats per token over the tokens read."""
    return lines_plot(
        "positions",
        "Nats per token of the largest models, by the number of tokens read.",
        {
            one.text: {kind: (one.edges, one.nats(kind)) for kind in ("LSTM", "GPT")}
            for one in found
        },
        x="maximum tokens read",
        y="nats per token",
        log_x=True,
        marked=True,
    )
