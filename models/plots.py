"""The plots beside a candidate's figures: people look before they read."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.comparison import Comparison
from models.evaluation import Refusal


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Return the plots of a comparison by file name: differences with intervals, calibration, load."""
    with mpl.rc_context({"svg.hashsalt": "turnout", "axes.spines.top": False, "axes.spines.right": False}):
        return {
            "difference.png": _draw(_draw_difference, comparison, size=(7, 2.6)),
            "calibration.png": _draw(_draw_calibration, comparison, size=(4.5, 4.5)),
            "load.png": _draw(_draw_load, comparison, size=(7, 4.5)),
        }


def _draw(paint: Any, comparison: Comparison, *, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    paint(figure.subplots(), comparison)
    return figure


def _draw_difference(axes: Axes, comparison: Comparison) -> None:
    names = [n for n, judgement in comparison.difference.items() if not isinstance(judgement, Refusal)]
    for place, name in enumerate(names):
        estimate = comparison.difference[name]
        if isinstance(estimate, Refusal):
            continue
        scale = max(abs(estimate.low), abs(estimate.high)) or 1.0
        axes.plot(
            [estimate.low / scale, estimate.high / scale], [place, place], lw=3, color="C0", solid_capstyle="butt"
        )
        axes.plot(estimate.value / scale, place, "o", color="C0")
        text = f"{estimate.value:+.3g} [{estimate.low:+.3g}, {estimate.high:+.3g}]"
        axes.annotate(text, (0, place), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    axes.axvline(0, color="0.5", lw=1)
    axes.set(yticks=range(len(names)), yticklabels=names, xticks=[], xlim=(-1.1, 1.1), ylim=(-0.6, len(names) - 0.2))
    axes.set_title("candidate - champion, 95 % intervals (each on its own scale)", fontsize=10)


def _draw_calibration(axes: Axes, comparison: Comparison) -> None:
    if comparison.calibration:
        predicted, observed, _ = np.array(comparison.calibration).T
        low = float(min(predicted.min(), observed.min()))
        axes.plot([low, 1], [low, 1], color="0.7", lw=1)
        axes.plot(predicted, observed, "o-")
    axes.set(xlabel="predicted success probability", ylabel="observed success rate", title="calibration, by tenths")


def _draw_load(axes: Axes, comparison: Comparison) -> None:
    shares = sorted(comparison.load_shares.items(), key=lambda item: -max(item[1]))[:15]
    place = np.arange(len(shares))
    axes.barh(place - 0.2, [champion for _, (champion, _) in shares], height=0.4, label="champion", color="0.6")
    axes.barh(place + 0.2, [candidate for _, (_, candidate) in shares], height=0.4, label="candidate", color="C0")
    axes.set(yticks=place, yticklabels=[name for name, _ in shares], xlabel="share of events", title="load at 100 %")
    axes.invert_yaxis()
    axes.legend(frameon=False)
