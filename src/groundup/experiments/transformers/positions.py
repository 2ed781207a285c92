"""Which position encoding lets a model read longer contexts than in training? Five are compared.

    RoPE, learned, sinusoidal, ALiBi, none (`lm.positions`)

Each is trained on windows of 128 tokens of the small world's stories, and on copying strings of up
to 16 letters, and is then tested on two and four times the length. Learned vectors do not exist
beyond the trained length; RoPE and sinusoids have values there that training has never seen; ALiBi
counts backwards from the query, so nearby tokens look the same as before (Press et al. 2022, Train
Short, Test Long); without positions a model can infer order only by counting (Kazemnejad et al.
2023).

A longer window helps in two ways: a token may have more context, and fewer tokens are at the
beginning of a window, where context is short (Press et al. call it the early-token curse). So there
are two measurements: adjacent windows, where every token counts, and windows that slide by 32
tokens, of which the last 32 count, the same tokens for every window length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from groundup.experiments.transformers.cells import Cell, History, trained
from groundup.experiments.transformers.config import PositionsConfig
from groundup.experiments.transformers.copying import CONTEXT, LETTERS, LONGEST, TASK
from groundup.experiments.transformers.copying import measured as copied
from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    intervals,
    lines_plot,
    number_cell,
    share_cell,
)
from groundup.experiments.transformers.language import (
    Material,
    WindowStream,
    losses,
    material,
    non_overlapping,
    sliding,
)
from groundup.experiments.transformers.models import Architecture, transformer
from groundup.experiments.transformers.tasks import TaskStream
from groundup.lm.config import POSITION_EMBEDDINGS, PositionEmbedding
from groundup.lm.model import CausalLM
from groundup.report.claim import Claim
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT, experiment, write
from groundup.report.table import Cell as Shown
from groundup.report.table import Table, text_table

NAME = "positions"
QUESTION = "Which position encoding lets a model read longer contexts than in training?"
TRAINED, TIMES = 128, (1, 2, 4)
NAMES: Mapping[PositionEmbedding, str] = {
    "rope": "RoPE",
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "alibi": "ALiBi",
    "none": "no positions",
}
WINDOWS = ("side by side", "sliding")
_VOCAB, _WIDTH, _HEADS, _LAYERS, _ROWS = 512, 128, 4, 3, 24
_COPY_ROWS, _COPY_WIDTH, _COPY_LAYERS = 12, 64, 2
_COPIED = tuple(LONGEST * times for times in TIMES)
_TOKENS, _QUICK_TOKENS, _STRIDE = 16_384, 2_560, TRAINED // 4


def run(config: PositionsConfig) -> Path:
    """Train all encodings on both tasks, test them on longer inputs, and write the results.

    After a stop it resumes. Raises `UserError` for a folder with other files.
    """
    return experiment(config.out, NAME, config, partial(_run, config))


def _run(config: PositionsConfig) -> None:
    begun = perf_counter()
    text = material(
        config.out / "text", "world", vocab_size=_VOCAB, megabytes=0.3 if config.quick else 4
    )
    read, copies = (
        {
            one: [trained(config, cell(config, one, seed)) for seed in config.all_seeds]
            for one in POSITION_EMBEDDINGS
        }
        for cell in (partial(_reading, text=text), _copying)
    )
    claims = tested(read, copies)
    write(
        config,
        NAME,
        QUESTION,
        tables=[*(language_table(read, way) for way in WINDOWS), copying_table(copies)],
        plots=[language_plot(read), copying_plot(copies)],
        remarks=conclusions(claims),
        claims=claims,
        data={
            NAMES[one]: {
                "language": [history.end for history in read[one]],
                "copying": [history.end for history in copies[one]],
            }
            for one in POSITION_EMBEDDINGS
        },
        pieces=("cells", "text", RESULT),
        seconds=perf_counter() - begun,
    )


# Training.


def _reading(config: PositionsConfig, one: PositionEmbedding, seed: int, text: Material) -> Cell:
    shape = transformer(
        width=_WIDTH,
        depth=_LAYERS,
        heads=_HEADS,
        vocab_size=text.vocab_size,
        # Untrained position vectors would be noise.
        context=TRAINED,
        position_embedding_type=one,
    )
    return Cell(
        f"language-{one}-{seed}",
        Architecture(shape),
        WindowStream(text.train, TRAINED, _ROWS, seed),
        seed,
        steps=10 if config.quick else config.steps,
        rows=_ROWS,
        context=TRAINED,
        rate=0.02,
        embedding_rate=0.006,
        optimizer="muon",
        measure=lambda model, step: measured(
            model, text, _QUICK_TOKENS if config.quick else _TOKENS
        ),
        dtype="auto",
    )


def _copying(config: PositionsConfig, one: PositionEmbedding, seed: int) -> Cell:
    shape = transformer(
        width=_COPY_WIDTH,
        depth=_COPY_LAYERS,
        heads=_HEADS,
        vocab_size=64,
        context=2 * LONGEST + 1,
        position_embedding_type=one,
    )
    lengths = [length for length in _COPIED if reaches(one, length, LONGEST)]
    return Cell(
        f"copying-{one}-{seed}",
        Architecture(shape),
        TaskStream(TASK, _COPY_ROWS, seed),
        seed,
        steps=10 if config.quick else config.copying_steps,
        rows=_COPY_ROWS,
        context=CONTEXT,
        rate=0.003,
        embedding_rate=0.01,
        measure=lambda model, step: copied(
            model, step, rows=10 if config.quick else 100, lengths=lengths
        ),
        dtype="auto",
    )


def reaches(one: PositionEmbedding, length: int, most: int) -> bool:
    """Whether a model that was trained up to `most` accepts this length."""
    return one != "learned" or length <= most


def measured(model: CausalLM, text: Material, count: int) -> dict[str, Any]:
    """Nats per token at every length that the model accepts, in both kinds of windows."""
    found: dict[str, dict[str, float]] = {way: {} for way in WINDOWS}
    for context in (TRAINED * times for times in TIMES):
        if not reaches(model.config.position, context, TRAINED):
            continue
        starts = non_overlapping(text.heldout, context, count)
        whole = losses(model, text.heldout, starts, context)
        found[WINDOWS[0]][str(context)] = float(whole.mean())
        starts = sliding(text.heldout, context, count // 4, _STRIDE, TRAINED * TIMES[-1])
        ends = losses(model, text.heldout, starts, context)[:, -_STRIDE:]
        found[WINDOWS[1]][str(context)] = float(ends.mean())
    return found


# Report.

Histories = Mapping[PositionEmbedding, Sequence[History]]


def values(histories: Histories, one: PositionEmbedding, what: str, length: int) -> list[float]:
    """An encoding's results at a length, for each seed; empty if it does not accept the length."""
    found = [history.end[what].get(str(length)) for history in histories[one]]
    return [value for value in found if value is not None]


def tested(read: Histories, copies: Histories) -> list[Claim]:
    """Each encoding at longer lengths compared with the trained length, with ALiBi and RoPE."""
    claims = []
    longest = TRAINED * TIMES[-1]
    for one, name in NAMES.items():
        if not reaches(one, longest, TRAINED):
            continue
        claims.append(
            compared(
                f"{name} reads sliding windows of {longest} better than those of {TRAINED}",
                (f"{name}, {longest}", values(read, one, "sliding", longest)),
                (f"{name}, {TRAINED}", values(read, one, "sliding", TRAINED)),
                "below",
            )
        )
    for one in ("rope", "sinusoidal", "none"):
        claims.append(
            compared(
                f"in sliding windows of {longest} ALiBi has a lower loss than {NAMES[one]}",
                ("ALiBi", values(read, "alibi", "sliding", longest)),
                (NAMES[one], values(read, one, "sliding", longest)),
                "below",
            )
        )
    for one in ("alibi", "none"):
        claims.append(
            compared(
                f"at {_COPIED[1]} letters, twice the longest, {NAMES[one]} copies more letters "
                "than RoPE",
                (NAMES[one], values(copies, one, "letters", _COPIED[1])),
                ("RoPE", values(copies, "rope", "letters", _COPIED[1])),
                "above",
                share=True,
            )
        )
    return claims


def language_table(read: Histories, way: str) -> Table:
    """Nats per token by the length of the window."""
    every = [TRAINED * times for times in TIMES]
    about = {
        "side by side": "Windows are adjacent, and every token counts, including the first ones.",
        "sliding": f"Windows advance by {_STRIDE} tokens, and their last {_STRIDE} count, which "
        "are the same for all lengths.",
    }
    return text_table(
        f"Nats per token in windows {way}",
        ("position encoding", *(str(length) for length in every)),
        tuple(
            (name, *(_cell(values(read, one, way, length), number_cell) for length in every))
            for one, name in NAMES.items()
        ),
        (
            f"{about[way]} Trained on windows of {TRAINED} tokens; – if the model does not accept "
            f"the length. {intervals(len(read['rope']))}",
        ),
    )


def copying_table(copies: Histories) -> Table:
    """Right letters by the length of the string."""
    return text_table(
        "Right letters of copied strings",
        ("position encoding", *(str(length) for length in _COPIED)),
        tuple(
            (
                name,
                *(_cell(values(copies, one, "letters", n), share_cell) for n in _COPIED),
            )
            for one, name in NAMES.items()
        ),
        (
            f"Trained on 1 to {LONGEST} letters out of {LETTERS}, each predicted after the right "
            "letters before it; – if the model does not accept the length.",
        ),
    )


def _cell(found: Sequence[float], shown: Any) -> Shown:
    made: Shown = shown(found) if found else Shown("–")
    return made


def language_plot(read: Histories) -> Plot:
    """Nats over the length of the window, side by side and sliding."""
    return lines_plot(
        "language",
        f"Nats per token by the length of the window; training had {TRAINED}.",
        {way: _lines(read, way, [TRAINED * times for times in TIMES]) for way in WINDOWS},
        x="tokens of the window",
        y="nats per token",
        log_x=True,
        marked=True,
    )


def copying_plot(copies: Histories) -> Plot:
    """Right letters over the length of the string."""
    return lines_plot(
        "copying",
        f"Right letters by the length of the string; {LONGEST} was the longest in training.",
        {"copying": _lines(copies, "letters", list(_COPIED))},
        x="letters",
        y="share of right letters",
        log_x=True,
        limits=(0, 1.03),
        marked=True,
    )


def _lines(histories: Histories, what: str, lengths: Sequence[int]) -> dict[str, Any]:
    lines = {}
    for one, name in NAMES.items():
        at = [length for length in lengths if values(histories, one, what, length)]
        lines[name] = (at, np.array([values(histories, one, what, length) for length in at]).T)
    return lines
