"""How does a transformer learn from its own context? One layer cannot; two layers can, suddenly.

Blocks of random tokens occur twice. The second time, a model can predict every token but the first
by finding the current token's earlier occurrence and reading what followed it. That takes two
heads, one after the other (Olsson et al. 2022, In-context Learning and Induction Heads): a
*previous-token head* writes to each position which token came before it, and an *induction head*
finds the position whose previous token equals the current one. One layer cannot compose two heads.
In two layers the pair forms within a few dozen steps, and the loss drops sharply.

An ablation tests whether these heads are the cause: it removes the half of the first layer's heads
that attend most to the previous token and, for comparison, the other half. Zeros replace a head's
output, as in `xray`; the second layer was not trained with them, so a model can become worse than
guessing.

Blocks have random lengths. With one length, a head could look back a fixed number of positions, and
one layer would suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from groundup.experiments.transformers.cells import Cell, History, trained
from groundup.experiments.transformers.config import InductionConfig
from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    intervals,
    lines_plot,
    number_cell,
)
from groundup.experiments.transformers.models import attention_only
from groundup.experiments.transformers.tasks import TEST_SEED, Repetition, TaskStream
from groundup.lm.model import CausalLM
from groundup.report.claim import Claim
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.plots import panels
from groundup.report.table import Table, text_table
from groundup.runs.console import counted
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss
from groundup.xray.heads import THRESHOLD, on_diagonal
from groundup.xray.trace import Head, traced

NAME = "induction"
QUESTION = "What does a transformer need to continue what it has seen before in its context?"
TASK = Repetition(vocab_size=128, shortest=8, longest=24, context=96)
LAYERS = (1, 2)
# Nats per token of the uniform distribution.
GUESSING = float(np.log(TASK.vocab_size))
_WIDTH, _HEADS, _ROWS, _TEST_ROWS = 64, 4, 16, 48
_EVALUATIONS = 30
# The removed heads; the other half has the same number.
_LOOK_BACK = "half of the first layer's heads that attend most to the previous token"
# The drop of the loss between two evaluations that counts as a cliff, in nats.
CLIFF = 0.5


def run(config: InductionConfig) -> Path:
    """Train both depths, measure their heads during training, and write the results.

    After a stop it resumes. Raises `UserError` for a folder with other files.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: InductionConfig) -> None:
    begun = perf_counter()
    found = {
        depth: [trained(config, _cell(config, depth, seed)) for seed in config.all_seeds]
        for depth in LAYERS
    }
    claims = tested(found)
    write(
        config,
        NAME,
        QUESTION,
        tables=[table(found), ablations(found)],
        plots=[*histories(found), maps(found[2][0].end["maps"])],
        remarks=[*cliffs(found), *conclusions(claims)],
        claims=claims,
        data={
            f"{depth} layers": [history.measured for history in of] for depth, of in found.items()
        },
        pieces=("cells", RESULT),
        seconds=perf_counter() - begun,
    )


def _cell(config: InductionConfig, depth: int, seed: int) -> Cell:
    steps = 30 if config.quick else config.steps
    return Cell(
        f"layers-{depth}-{seed}",
        attention_only(
            width=_WIDTH,
            depth=depth,
            heads=_HEADS,
            vocab_size=TASK.vocab_size,
            context=TASK.context,
        ),
        TaskStream(TASK, _ROWS, seed),
        seed,
        steps=steps,
        rows=_ROWS,
        context=TASK.context,
        rate=0.003,
        embedding_rate=0.01,
        measure=lambda model, step: measured(model, last=step == steps),
        dtype="auto",
        evaluations=3 if config.quick else _EVALUATIONS,
        evaluates_first=True,
    )


# Measurements.


def measured(model: CausalLM, last: bool) -> dict[str, Any]:
    """The loss on predictable tokens, and heads' scores; at the last step also ablations."""
    batch, lengths = TASK.parts(np.random.default_rng(TEST_SEED), _TEST_ROWS)
    previous, induction, maps = scores(model, batch, lengths.tolist())
    found = {
        "loss": loss(model, batch),
        "previous_token": previous.tolist(),
        "induction": induction.tolist(),
    }
    if not last:
        return found
    # The same number of heads each time, since removing any head costs something.
    most, least = halves(previous[0])
    return found | {
        "heads_before": int((previous[0] >= THRESHOLD).sum()),
        "without_previous": _without(model, batch, lengths.tolist(), most),
        "without_other": _without(model, batch, lengths.tolist(), least),
        "maps": maps,
    }


def halves(previous: Float[np.ndarray, " heads"]) -> tuple[list[Head], list[Head]]:
    """The halves of the first layer's heads with the highest and with the lowest scores."""
    order = [(0, int(head)) for head in np.argsort(-previous, kind="stable")]
    half = len(order) // 2
    return sorted(order[:half]), sorted(order[-half:])


@torch.no_grad()
def loss(model: CausalLM, batch: Batch, without: Sequence[Head] = ()) -> float:
    """Nats per token on predictable tokens, without some heads."""
    with traced(model, without):
        found = next_token_loss(model, batch)
    return float(found.total) / found.weight


@torch.no_grad()
def scores(
    model: CausalLM, batch: Batch, lengths: Sequence[int], without: Sequence[Head] = ()
) -> tuple[Float[np.ndarray, "layers heads"], Float[np.ndarray, "layers heads"], list[Any]]:
    """Attention to the previous token, and in the second block to the token after the earlier
    occurrence; means over rows, and the patterns of the first row.
    """
    with traced(model, without) as trace:
        model(batch)
    attention = np.stack([one.float().cpu().numpy() for one in trace.attention])
    previous = np.mean([on_diagonal(attention[:, row], 1) for row in range(len(lengths))], axis=0)
    induction = np.mean(
        [
            on_diagonal(attention[:, row, :, length : 2 * length, : 2 * length], length - 1)
            for row, length in enumerate(lengths)
        ],
        axis=0,
    )
    return previous, induction, attention[:, 0].round(3).tolist()


def _without(
    model: CausalLM, batch: Batch, lengths: Sequence[int], heads: Sequence[Head]
) -> dict[str, Any]:
    """The loss and the best induction score without some heads."""
    _, induction, _ = scores(model, batch, lengths, heads)
    return {
        "heads": [head for _, head in heads],
        "loss": loss(model, batch, heads),
        "induction": float(induction.max()),
    }


# Report.


def tested(found: dict[int, list[History]]) -> list[Claim]:
    """Two layers compared with one, and with ablations of their previous-token heads."""
    one, two = found[1], found[2]
    ends = ("two layers", [history.end["loss"] for history in two])
    one_layer = ("one layer", [history.end["loss"] for history in one])
    without = [history.end["without_previous"] for history in two]
    most = ("without them", [end["loss"] for end in without])
    return [
        compared(
            "two layers have a lower loss than one on the second of two blocks",
            ends,
            one_layer,
            "below",
        ),
        compared(
            f"without the {_LOOK_BACK} two layers have a higher loss",
            most,
            ends,
            "above",
        ),
        compared(
            "without them two layers have a higher loss than one layer",
            most,
            one_layer,
            "above",
        ),
        compared(
            "without them the best induction score is lower",
            ("without", [end["induction"] for end in without]),
            ("with", [best(history.end, "induction") for history in two]),
            "below",
            unit="of attention",
        ),
        compared(
            "it is those heads: without the other half the loss is lower",
            ("without the other half", [history.end["without_other"]["loss"] for history in two]),
            most,
            "below",
        ),
    ]


def best(line: dict[str, Any], kind: str) -> float:
    """The highest score of a kind among all heads."""
    return float(np.max(line[kind]))


def cliffs(found: dict[int, list[History]]) -> list[str]:
    """Sentences about where the loss of each depth drops fastest, and the induction score there."""
    said = []
    for depth, of in found.items():
        falls = []
        for history in of:
            losses = np.array([line["loss"] for line in history.measured])
            at = int(np.argmax(losses[:-1] - losses[1:]))
            before, after = history.measured[at], history.measured[at + 1]
            fall = before["loss"] - after["loss"]
            if fall >= CLIFF:
                falls.append(
                    f"{before['loss']:.1f} to {after['loss']:.1f} nats from step {before['step']} "
                    f"to {after['step']}, where the best induction score rises from "
                    f"{best(before, 'induction'):.2f} to {best(after, 'induction'):.2f}"
                )
        heads = "1 layer" if depth == 1 else f"{depth} layers"
        said.append(
            f"{heads}: a cliff with {len(falls)} of {counted(len(of), 'seed')}"
            + (f" ({'; '.join(falls)})." if falls else ".")
        )
    return said


def table(found: dict[int, list[History]]) -> Table:
    """The final loss and best heads of both depths."""
    rows = []
    for depth, of in found.items():
        ends = [history.end for history in of]
        rows.append(
            (
                str(depth),
                number_cell([end["loss"] for end in ends]),
                number_cell([best(end, "previous_token") for end in ends], 2, most=1),
                number_cell([best(end, "induction") for end in ends], 2, most=1),
            )
        )
    return text_table(
        "Loss on the second block, and the best heads",
        ("layers", "nats per token", "previous-token score", "induction score"),
        tuple(rows),
        (
            f"Guessing loses {GUESSING:.2f} nats. Scores are mean attention to one position; a "
            f"head above {THRESHOLD} is of that kind. {intervals(len(found[1]))}",
        ),
    )


def ablations(found: dict[int, list[History]]) -> Table:
    """Two layers with all heads and without either half of the first layer's, and one layer."""
    one, two = ([history.end for history in found[depth]] for depth in LAYERS)
    cases = {
        "two layers": [{"loss": end["loss"], "induction": best(end, "induction")} for end in two],
        f"without the {_LOOK_BACK}": [end["without_previous"] for end in two],
        "without the other half": [end["without_other"] for end in two],
        "one layer": [{"loss": end["loss"], "induction": best(end, "induction")} for end in one],
    }
    counts = ", ".join(str(end["heads_before"]) for end in two)
    return text_table(
        "Two layers without heads of the first",
        ("model", "nats per token", "induction score"),
        (
            *(
                (
                    name,
                    number_cell([one["loss"] for one in ends]),
                    number_cell([one["induction"] for one in ends], 2, most=1),
                )
                for name, ends in cases.items()
            ),
            ("guessing", f"{GUESSING:.3f}", "–"),
        ),
        (
            f"Each half is {_HEADS // 2} of the {_HEADS} heads, by their final previous-token "
            f"scores; {counts} heads by seed score {THRESHOLD} or more. Zeros replace a head's "
            "output, which the second layer has never seen: it can become worse than guessing.",
        ),
    )


def histories(found: dict[int, list[History]]) -> list[Plot]:
    """Loss and best scores over steps."""
    steps = [line["step"] for line in found[1][0].measured]

    def over_steps(of: Sequence[History], value: Any) -> tuple[list[int], np.ndarray]:
        return steps, np.array([[value(line) for line in history.measured] for history in of])

    one_or_two = {1: "1 layer", 2: "2 layers"}
    lost = {
        one_or_two[depth]: over_steps(of, lambda line: line["loss"]) for depth, of in found.items()
    }
    kinds = {"previous token": "previous_token", "induction": "induction"}
    scored = {
        f"{one_or_two[depth]}: {kind}": over_steps(of, partial(best, kind=key))
        for depth, of in found.items()
        for kind, key in kinds.items()
    }
    return [
        lines_plot(
            "cliff",
            "Loss on predictable tokens.",
            {"loss": lost},
            x="steps",
            y="nats per token",
            level=("guessing", GUESSING),
        ),
        lines_plot(
            "heads",
            "The score of the best head of each kind over the same steps.",
            {"scores": scored},
            x="steps",
            y="attention",
            level=("threshold", THRESHOLD),
            limits=(0, 1),
        ),
    ]


def maps(attention: Sequence[Any]) -> Plot:
    """The attention of every head of one model on one row: queries down, keys across."""
    patterns = np.array(attention)
    layers, heads = patterns.shape[:2]
    figure, rows = panels(layers, heads, width=9.0, height=5.0)
    for layer, row in enumerate(rows):
        for head, axes in enumerate(row):
            axes.imshow(patterns[layer, head, :64, :64], cmap="magma", vmin=0, vmax=1)
            axes.set_title(f"layer {layer}, head {head}")
            axes.grid(False)
    caption = (
        "Attention of each head of the first seed's two-layer model, on the first 64 tokens of one "
        "row: queries down, keys across. A previous-token head is a line next to the diagonal, an "
        "induction head one that begins where a block is repeated."
    )
    return Plot("maps", caption, figure)
