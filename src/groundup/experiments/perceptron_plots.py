"""The plots of the perceptron experiment."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from groundup.experiments.digits import CLASSES, SIDE, Images
from groundup.experiments.plane import Plane
from groundup.maths.calibration import draw_reliability, reliability_curve, top_label
from groundup.report.figure import Plot
from groundup.report.plots import COLORS, GREY, frame_of_picture, panels

_CLASS_COLORS = COLORS[1], COLORS[0]
_DOUBT = LinearSegmentedColormap.from_list("doubt", (COLORS[1], "white", COLORS[0]))
_ERRORS = LinearSegmentedColormap.from_list("errors", ("white", COLORS[1]))
_SHOWN = 12  # misread images


def boundary_plot(plane: Plane) -> Plot:
    """Both models' boundaries as they move, one row a model, one column a frame."""
    width, height = 1.9 * len(plane.frames), 4.2
    figure, axes = panels(len(plane.models), len(plane.frames), width=width, height=height)
    for row, (model, (first, *_)) in zip(axes, plane.models.items(), strict=True):
        shown = zip(row, plane.frames, first.test, first.maps, strict=True)
        for frame, passes, accuracy, seen in shown:
            after = "1 pass" if passes == 1 else f"{passes} passes"
            frame.set_title(f"{after}: {100 * accuracy:.0f} %")
            _draw_frame(frame, plane, seen)
        row[0].set_ylabel(model)
    return Plot(
        f"boundary-{plane.name}",
        f"The decision boundary on {plane.name} as it moves, after so many passes over the points, "
        "with the accuracy on new points. Colour is the class that a model would answer, paler "
        "where it is less sure; a perceptron is always sure. The first seed.",
        figure,
    )


def _draw_frame(axes: Axes, plane: Plane, seen: Float[np.ndarray, "side side"]) -> None:
    axes.imshow(
        seen, origin="lower", extent=plane.window, cmap=_DOUBT, vmin=0, vmax=1, alpha=0.45,
        aspect="auto", interpolation="bilinear",
    )  # fmt: skip
    for label, colour in enumerate(_CLASS_COLORS):
        x, y = plane.points.x[plane.points.labels == label].T
        axes.plot(x, y, ".", color=colour, markersize=2.5, rasterized=True)
    left, right, bottom, top = plane.window
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    if seen.min() < 0.5 < seen.max():
        grid = np.linspace(left, right, len(seen)), np.linspace(bottom, top, len(seen))
        axes.contour(*grid, seen, levels=[0.5], colors="black", linewidths=1)
    frame_of_picture(axes)


def reading_plot(
    confusion: Integer[np.ndarray, "right read"],
    probs: Float[np.ndarray, "n classes"],
    test: Images,
) -> Plot:
    """What was read as what, and how often the network was right for how sure it was."""
    figure, ((left, right),) = panels(1, 2, width=9.2, height=4.3)
    _draw_confusion(left, confusion)
    confidence, correct = top_label(probs, test.labels)
    curve = reliability_curve(confidence, correct, bins=8, binning="equal mass")
    right.plot([0, 1], [0, 1], ":", color=GREY, label="perfectly calibrated")
    draw_reliability(right, curve, label="network, first seed", color=COLORS[0])
    lowest = min(curve[0].confidence, *(one.accuracy.low for one in curve))
    right.set_xlim(curve[0].confidence - 0.03, 1.01)
    right.set_ylim(lowest - 0.03, 1.01)
    right.set_title("Does it know how sure to be?")
    right.set_xlabel("how sure the network is")
    right.set_ylabel("share of right answers")
    right.legend(loc="lower right", frameon=False)
    return Plot(
        "digits",
        "Left: which digit the network read as which, over all seeds; colour marks mistakes. "
        "Right: of the answers given with so much confidence, how many were right, in eight groups "
        "of equally many images with 95 % intervals.",
        figure,
    )


def _draw_confusion(axes: Axes, confusion: Integer[np.ndarray, "right read"]) -> None:
    mistakes = confusion * (1 - np.eye(CLASSES, dtype=int))
    axes.imshow(mistakes, cmap=_ERRORS, vmin=0, vmax=max(1, int(mistakes.max())))
    for right, read in np.argwhere(confusion > 0):
        count, colour = confusion[right, read], GREY if right == read else "black"
        axes.text(read, right, f"{count}", ha="center", va="center", color=colour, fontsize=9)
    frame_of_picture(axes)
    axes.set_xticks(range(CLASSES))
    axes.set_yticks(range(CLASSES))
    axes.set_title("What was read as what")
    axes.set_xlabel("read")
    axes.set_ylabel("written")


def misread_plot(answers: Integer[np.ndarray, "seeds n"], test: Images) -> Plot:
    """The images that most networks misread, with what each was taken for."""
    wrong = (answers != test.labels).sum(axis=0)
    hardest = np.argsort(-wrong, kind="stable")[: min(_SHOWN, int((wrong > 0).sum()))]
    columns = min(6, len(hardest))
    rows = -(-len(hardest) // columns)
    figure, axes = panels(rows, columns, width=1.45 * columns, height=1.85 * rows)
    for place in (place for row in axes for place in row):
        place.set_axis_off()
    for i, place in zip(hardest, (place for row in axes for place in row), strict=False):
        taken = np.bincount(answers[answers[:, i] != test.labels[i], i]).argmax()
        place.imshow(test.x[i].reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=1)
        place.set_title(f"{test.labels[i]}, read as {taken}\nby {wrong[i]} of {len(answers)}")
    return Plot(
        "misread",
        f"Test images that at least one of the {len(answers)} networks misread: {len(hardest)} of "
        f"{int((wrong > 0).sum())}, those first that most misread.",
        figure,
    )
