"""The results of a table of training runs: the fit, its terminal output, and a page.

result.json     the law with intervals, the optima of every budget, and what was left out
report.html     tables and plots on one page
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.errors import UserError
from groundup.maths.intervals import Interval
from groundup.pretrain.scaling.isoflop import IsoFlop, fit_isoflop
from groundup.pretrain.scaling.law import LawFit, fit_law
from groundup.pretrain.scaling.table import RunTable, read_table, set_aside_messages
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT
from groundup.report.page import PAGE, Box, Note, Page, Plots, Section, write_page
from groundup.report.plots import COLORS, GREY, titled
from groundup.report.table import Cell, Table, decimals, number, short_number, text_table
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.runs.files import (
    is_unused,
    read_json_object,
    require_writable_folder,
    temporary_folder,
    write_json,
)

_KIND = "scaling fit"
_CURVES = 200
# A term of the law that changes every loss by less than this share does not matter.
_NEGLIGIBLE = 1e-6
# FLOPs differ from 6 N D by this factor only if the units are wrong; attention scores, the head and
# inactive experts explain less.
_ODD = 30.0


def fit_table(
    path: Path,
    out: Path,
    *,
    columns: Mapping[str, str],
    bootstraps: int,
    seed: int,
    highest_left_out: int | None = None,
) -> Path:
    """Fit the runs of a table in both ways and write the results into the folder `out`.

    Raises `UserError` for a table that cannot be fitted, and for a folder with other files.
    """
    check_folder(out)
    table = read_table(path, columns)
    for line in set_aside_messages(table.bad):
        say(line)
    say(f"{path}: {len(table.runs)} runs; columns {_listed(table.columns)}")
    fit = fit_law(table.runs, bootstraps=bootstraps, seed=seed, highest_left_out=highest_left_out)
    isoflop = fit_isoflop(fit.used, bootstraps=bootstraps, seed=seed)
    tables, plots = [law_table(fit, isoflop)], [fit_plot(fit), frontier_plot(fit, isoflop)]
    if isoflop is not None:
        tables.append(budget_table(isoflop))
        plots.append(isoflop_plot(fit, isoflop))
    remarks = findings(fit, isoflop) + odd_flops(table) + left_out(table, fit, highest_left_out)
    with temporary_folder(out, first=RESULT) as aside:
        content = {
            "schema": 1,
            "kind": _KIND,
            "table": str(path),
            "columns": dict(table.columns),
            "seed": seed,
            "fit": fit.to_json(),
            "isoflop": None if isoflop is None else isoflop.to_json(),
            "left_out_lines": [table.lines[row] for row in np.flatnonzero(~fit.kept)],
            "bad_rows": list(table.bad),
            "remarks": remarks,
        }
        write_json(aside / RESULT, content)
        write_page(aside / PAGE, _page(path, tables, plots, remarks))
    for one in tables:
        console.print(in_terminal(one))
    for remark in remarks:
        say(f"- {remark}")
    say(f"\n{out / PAGE}")
    return out


def check_folder(out: Path) -> None:
    """Refuse, before any work, a folder with other files or that cannot be written.

    Raises `UserError`.
    """
    require_writable_folder(out)
    if is_unused(out):
        return
    with contextlib.suppress(UserError):
        if read_json_object(out / RESULT).get("kind") == _KIND:
            return
    raise UserError(f"--out={out} holds other files; choose another folder, or empty it yourself")


# Sentences.


def findings(fit: LawFit, isoflop: IsoFlop | None) -> list[str]:
    """The conclusions from the numbers, in sentences."""
    law, k = fit.law, fit.used.flops_per_weight
    alpha, digits = fit.interval("alpha"), decimals(float(fit.used.losses.min()))
    said = [
        f"L = {law.E:.{digits}f} + {short_number(law.A)} / N^{law.alpha:.3f} + "
        f"{short_number(law.B)} / D^{law.beta:.3f}; the noise of a run is "
        f"estimated at {fit.deviation:.1%} of its loss.",
        f"With more compute C the best size grows as C^{_words(fit.interval('a'))} and the best "
        f"number of tokens as C^{_words(fit.interval('b'))}.",
    ]
    idle = no_matter(fit)
    said += [f"By this table {one} does not matter, so no size is best." for one in idle]
    largest = float(fit.used.flops.max())
    for flops in () if idle else (largest, 10 * largest):
        n, d = law.optimum(flops, k)
        if not (0 < n < np.inf and 0 < d < np.inf):
            said.append("The exponents are too flat for this table to determine a best size.")
            break
        loss = float(law.loss(n, d))
        said.append(
            f"At {flops:.2g} FLOPs{', the most here,' if flops == largest else ''} the best model "
            f"by the law, the parametric fit, has {short_number(n)} parameters and reads "
            f"{short_number(d)} tokens "
            f"({d / n:.3g} per parameter), for a loss of {loss:.{digits}f}."
        )
    if alpha.high - alpha.low > 0.3:
        said.append(
            f"The table says little about the exponents: alpha may be {alpha.low:.2f} to "
            f"{alpha.high:.2f}. More sizes, and more tokens for each, would narrow it."
        )
    if isoflop is not None and isoflop.a is not None and isoflop.b is not None:
        said.append(
            f"From the budgets' own optima (IsoFLOP), the exponents are {_words(isoflop.a)} "
            f"and {_words(isoflop.b)}."
        )
    return said


def no_matter(fit: LawFit) -> list[str]:
    """Those of size and data that lower no run's loss by the law, so there is no best size."""
    law, runs = fit.law, fit.used
    least = _NEGLIGIBLE * float(runs.losses.min())
    terms = {
        "size": law.A * runs.parameters**-law.alpha,
        "data": law.B * runs.tokens**-law.beta,
    }
    return [name for name, term in terms.items() if np.ptp(term) <= least]


def odd_flops(table: RunTable) -> list[str]:
    """A warning about runs whose FLOPs do not fit their parameters and tokens."""
    times = table.runs.flops / (6 * table.runs.parameters * table.runs.tokens)
    rows = np.flatnonzero((times > _ODD) | (times < 1 / _ODD))
    return [
        f"Warning: FLOPs of {len(rows)} of {counted(len(times), 'run')} are far from 6 N D, as in "
        f"line {table.lines[row]}, {times[row]:.2g} times it; check the units of the columns."
        for row in rows[:1]
    ]


def left_out(table: RunTable, fit: LawFit, highest_left_out: int | None = None) -> list[str]:
    """Sentences on the runs left out of the fit and the rows that are not runs."""
    said = []
    rows = np.flatnonzero(~fit.kept)
    if len(rows):
        lines = ", ".join(
            f"line {table.lines[row]} ({fit.residuals[row]:+.1%})" for row in rows[:10]
        )
        more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
        why = "as outliers" if highest_left_out is None else "as asked, for their loss"
        said.append(f"Left out {why}, {len(rows)} of {len(fit.runs)} runs: {lines}{more}.")
    else:
        said.append("No run was left out as an outlier.")
    if table.bad:
        said.append(f"{counted(len(table.bad), 'row')} set aside: {table.bad[0]}.")
    return said


def _words(value: Interval) -> str:
    return f"{value.estimate:.3f} ({value.low:.3f} to {value.high:.3f})"


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{column} ({name})" for name, column in columns.items())


# Tables.


def law_table(fit: LawFit, isoflop: IsoFlop | None) -> Table:
    """The fitted numbers with their intervals, by both methods."""
    digits = decimals(float(fit.used.losses.min()))
    rows: list[Sequence[str | Cell]] = []
    for name, meaning in (
        ("E", "irreducible loss"),
        ("alpha", "exponent of size"),
        ("beta", "exponent of data"),
        ("a", "best size ∝ C^a"),
        ("b", "best tokens ∝ C^b"),
    ):
        other = None if isoflop is None else getattr(isoflop, name, None)
        rows.append(
            (
                f"{name}\n{meaning}",
                number(fit.interval(name), digits if name == "E" else 3),
                number(other) if other else "–",
            )
        )
    for name in ("A", "B"):
        found = fit.interval(name)
        low, high = short_number(found.low), short_number(found.high)
        rows.append((name, Cell(short_number(found.estimate), f"{low} to {high}"), "–"))
    return text_table("The law of the loss", ("", "L = E + A/N^α + B/D^β", "IsoFLOP"), rows)


def budget_table(isoflop: IsoFlop) -> Table:
    """The optimum of every budget, or why it has none."""
    rows: list[Sequence[str | Cell]] = [
        (f"{one.flops:.2g}", str(len(one.rows)), one.why, "–", "–")
        if one.why
        else (
            f"{one.flops:.2g}",
            str(len(one.rows)),
            short_number(one.parameters),
            short_number(one.tokens),
            f"{one.loss:.{decimals(one.loss)}f}",
        )
        for one in isoflop.budgets
    ]
    heads = ("FLOPs", "runs", "best parameters", "tokens", "loss")
    return text_table("The optimum of every budget (IsoFLOP profiles)", heads, rows)


# Plots.


def fit_plot(fit: LawFit) -> Plot:
    """Measured losses over fitted ones."""
    figure, axes = titled("Loss, measured and fitted")
    expected = fit.law.loss(fit.runs.parameters, fit.runs.tokens)
    kept = fit.kept
    axes.loglog(expected[kept], fit.runs.losses[kept], "o", color=COLORS[0], markersize=3)
    if not kept.all():
        axes.loglog(expected[~kept], fit.runs.losses[~kept], "x", color=COLORS[1], label="left out")
        axes.legend(frameon=False)
    ends = [min(expected.min(), fit.runs.losses.min()), max(expected.max(), fit.runs.losses.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1)
    _plain_numbers(axes.xaxis, axes.yaxis)
    axes.set_xlabel("by the law")
    axes.set_ylabel("loss")
    return Plot(
        "fit", "Every run's loss over the law's prediction; on the line they agree.", figure
    )


def frontier_plot(fit: LawFit, isoflop: IsoFlop | None) -> Plot:
    """The runs by compute and size, and the best size by the law and by the budgets' optima."""
    figure, axes = titled("The best size for every budget")
    runs = fit.used
    axes.loglog(
        runs.flops, runs.parameters, "o", color=GREY, markersize=2.5, alpha=0.5, label="runs"
    )
    flops = np.geomspace(runs.flops.min(), 10 * runs.flops.max(), 60)
    k = runs.flops_per_weight
    if not no_matter(fit):
        best = [fit.law.optimum(one, k)[0] for one in flops]
        axes.loglog(flops, best, color=COLORS[0], label="by the law")
    drawn = [[law.optimum(one, k)[0] for one in flops] for law in fit.drawn[:_CURVES]]
    # A resampling of few runs may not depend on size, or on tokens.
    some = np.array([sizes for sizes in drawn if min(sizes) > 0 and max(sizes) < np.inf])
    if len(some):
        low, high = np.percentile(some, (2.5, 97.5), axis=0)
        axes.fill_between(flops, low, high, color=COLORS[0], alpha=0.18, linewidth=0)
    if isoflop is not None and isoflop.parameters is not None:
        used = isoflop.used
        axes.loglog(
            [one.flops for one in used],
            [one.parameters for one in used],
            "D",
            color=COLORS[1],
            markersize=5,
        )
        axes.loglog(flops, isoflop.parameters(flops), "--", color=COLORS[1], label="IsoFLOP")
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel("parameters")
    axes.legend(frameon=False)
    caption = "Runs by compute and size, and the size of least loss, with its 95 % band."
    return Plot("frontier", caption, figure)


def isoflop_plot(fit: LawFit, isoflop: IsoFlop) -> Plot:
    """The losses of every budget over size, with parabolas, optima and the law."""
    figure, axes = titled("Runs of the same compute", height=4.2)
    runs = fit.used
    for turn, one in enumerate(isoflop.budgets):
        color = COLORS[turn % len(COLORS)]
        sizes = runs.parameters[one.rows]
        axes.plot(sizes, runs.losses[one.rows], "o", color=color, markersize=3.5)
        curve = np.geomspace(sizes.min(), sizes.max(), 50)
        if one.coefficients.any():
            parabola = np.exp(np.polyval(one.coefficients, np.log(curve)))
            axes.plot(curve, parabola, color=color, linewidth=1.2, label=f"{one.flops:.2g} FLOPs")
        if not one.why:
            axes.plot([one.parameters], [one.loss], "*", color=color, markersize=11)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    _short_numbers(axes.xaxis, runs.parameters)
    axes.set_xlabel("parameters")
    axes.set_ylabel("loss")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    caption = "Parabolas through the runs of each budget; a star is a budget's optimum."
    return Plot("isoflop", caption, figure)


def _plain_numbers(*axes: Any) -> None:
    """Losses lie within one power of ten: format their ticks as plain numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.set_minor_formatter(NullFormatter())


def _short_numbers(axis: Any, values: Float[np.ndarray, " runs"]) -> None:
    """Sizes span few powers of ten: ticks at 1, 2 and 5 of each, formatted as 20 k."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    within = (1.0, 2.0, 5.0) if values.max() < 1_000 * values.min() else (1.0,)
    axis.set_major_locator(LogLocator(10, within))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axis.set_minor_formatter(NullFormatter())


def _page(
    path: Path, tables: Sequence[Table], plots: Sequence[Plot], remarks: Sequence[str]
) -> Page:
    about = (
        "Intervals hold in 95 % of tables drawn like this one. Those of the law come from "
        "resampled rows, those of IsoFLOP from simulated losses around the parabolas."
    )
    return Page(
        title="groundup scaling",
        heading="Scaling",
        lead=f"Size, data and loss in {path.name}.",
        opening=[Box("", remarks)],
        sections=[
            *(Section(one.title, f"table-{n}", [one]) for n, one in enumerate(tables, start=1)),
            Section("Plots", "plots", [Plots(plots), Note(about)]),
        ],
    )
