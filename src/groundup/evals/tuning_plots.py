"""The pictures of fine-tuning: what was paid for what was gained, the measures, and how it went."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from groundup.evals.tuning import Tuned
from groundup.evals.tuning_measures import GENERAL_TEXT, Unit, main_domain, told
from groundup.report.estimate import Estimate
from groundup.report.history import History
from groundup.report.plots import (
    COLORS,
    GREY,
    Plot,
    finished,
    interval_plot,
    new_figure,
    short_number,
    smoothed,
)


def tuning_plots(models: Sequence[Tuned]) -> list[Plot]:
    """Those of the pictures that there is something to draw for."""
    parent, *tuned = models
    drawn = [trade_plot(models)] if any(_trade(one, parent) for one in tuned) else []
    if any(_curves(one) for one in tuned):
        drawn.append(curves_plot(models))
    return [
        *drawn,
        _intervals("Bits per byte", "bits per byte, less is better", "bits", models),
        _intervals("Questions", "share answered right", "share", models),
    ]


def _intervals(title: str, axis: str, unit: Unit, models: Sequence[Tuned]) -> Plot:
    """All measures of a unit, with what guessing reaches."""
    measures = [measure for measure in told(models) if measure.unit == unit]
    rows = {
        model.name: {
            f"{one.about}: {one.short}": found
            for one in measures
            if (found := one.of(model)) is not None
        }
        for model in models
    }
    return interval_plot(title, axis, rows, unit == "share")


def trade_plot(models: Sequence[Tuned]) -> Plot:
    """Gain on the domain over what general text costs more, with 95 % intervals."""
    parent = models[0]
    figure, axes = new_figure("Gain on the domain, and its price")
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
    axes.plot(0, 0, "o", color=COLORS[0], markersize=5, label=parent.name)
    for number, model in enumerate(models[1:], start=1):
        if (found := _trade(model, parent)) is not None:
            _point(
                axes, *found, f"{model.name} ({model.costs.method})", COLORS[number % len(COLORS)]
            )
    axes.set_xlabel("general text: bits per byte more (to the right: forgotten)")
    axes.set_ylabel("domain: bits per byte less")
    axes.margins(0.2)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return finished(figure, "Gain on the domain against what general text costs more.")


def _trade(model: Tuned, parent: Tuned) -> tuple[Estimate, Estimate] | None:
    price = GENERAL_TEXT.minus(model, parent)
    gain = main_domain(parent).minus(model, parent)
    return None if price is None or gain is None else (price, gain)


def _point(axes: Axes, price: Estimate, gain: Estimate, label: str, colour: str) -> None:
    """A gain is less that is paid: its interval is that of the difference upside down."""
    axes.errorbar(
        price.estimate,
        -gain.estimate,
        xerr=[[price.estimate - price.low], [price.high - price.estimate]],
        yerr=[[gain.high - gain.estimate], [gain.estimate - gain.low]],
        fmt="o",
        color=colour,
        capsize=3,
        label=label,
    )


def curves_plot(models: Sequence[Tuned]) -> Plot:
    """Training loss, smoothed, and held-out loss of all runs over the tokens read."""
    figure, axes = new_figure("Learning curves")
    for number, model in enumerate(models[1:], start=1):
        history = _curves(model)
        if history is None:
            continue
        colour = COLORS[number % len(COLORS)]
        loss, heldout = history.loss(), history.heldout()
        axes.plot(loss.tokens, smoothed(loss.values), color=colour, alpha=0.35, linewidth=1)
        if heldout is not None:
            axes.plot(heldout.tokens, heldout.values, "o-", color=colour, markersize=4)
        axes.plot([], [], "o-", color=colour, markersize=4, label=model.name)
    axes.plot([], [], color=GREY, alpha=0.5, linewidth=1, label="thin: training loss")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.set_xlabel("training tokens")
    axes.set_ylabel("nats per token, held out with dots")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return finished(figure, "Held-out and training loss of every run over the tokens read.")


def _curves(model: Tuned) -> History | None:
    """A run's own account, if it took steps."""
    history = model.history
    return history if history is not None and history.train and history.parent else None
