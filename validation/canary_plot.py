"""The plot of a look at a canary: how the gain closed in, and how far the evidence is from deciding."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models import betting
from models.betting import Units
from validation.canary import measure_gain
from validation.canary_gate import CanaryGate
from validation.canary_log import CanaryLog

_N_POINTS = 16  # each costs two bisections over all that came before it


def draw(log: CanaryLog, gate: CanaryGate) -> Figure:
    """Return the gain per decision with its limits (above) and the evidence for either verdict (below), as decisions came in."""
    gain = measure_gain(log, gate)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 5), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        if len(gain.total):
            _draw_gain(above, gain, gate)
            _draw_evidence(below, gain, gate)
        above.set(ylabel="gain per decision")
        above.set_title(f"challenger - champion, limits at alpha {gate.alpha:g} a side, at all times", fontsize=10)
        below.set(ylabel="evidence (log10)", xlabel="decisions that count")
    return figure


def _draw_gain(axes: Axes, gain: Units, gate: CanaryGate) -> None:
    seen = np.cumsum(gain.size)
    ends = np.unique(np.linspace(1, len(seen), _N_POINTS).astype(np.int64))
    prefixes = [gain.first(int(end)) for end in ends]
    low = [betting.lower_limit(prefix, gate.alpha) for prefix in prefixes]
    high = [betting.upper_limit(prefix, gate.alpha) for prefix in prefixes]
    mean = np.cumsum(gain.total)[ends - 1] / seen[ends - 1]
    axes.fill_between(seen[ends - 1], low, high, color="C0", alpha=0.2, lw=0)
    axes.plot(seen[ends - 1], mean, color="C0")
    axes.axhline(0.0 - gate.margin, color="0.5", lw=1)
    spread = 4.0 * max(abs(mean[len(mean) // 4 :]).max(), gate.margin, 1e-9)
    axes.set_ylim(max(min(low), -spread), min(max(high), spread))


def _draw_evidence(axes: Axes, gain: Units, gate: CanaryGate) -> None:
    seen = np.cumsum(gain.size)
    for units, mean, label in ((gain, -gate.margin, "promote"), (gain.mirrored(), gate.margin, "roll back")):
        axes.plot(seen, betting.log_wealth(units, mean) / math.log(10.0), label=label)
    axes.axhline(-math.log10(gate.alpha), color="0.5", lw=1, ls="--")
    axes.annotate("decides", (seen[0], -math.log10(gate.alpha)), fontsize=8, va="bottom")
    axes.legend(frameon=False, fontsize=8)
