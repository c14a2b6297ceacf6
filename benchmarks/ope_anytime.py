"""Limits that hold at every look, where the truth is known: how often they do at the last look, and what that costs in width."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import ope_worlds
from benchmarks.ope_report import Tally
from benchmarks.ope_worlds import Drawn, Population
from models import anytime, evaluation
from models.anytime import AnytimeInterval, Declared
from models.evaluation import Estimate, Refusal

Bounded = Mapping[str, tuple[Tally, Tally]]  # by method: fixed in size, and anytime


def measure(population: Population, n_logs: int, seed: int) -> Bounded:
    """Draw logs of a population whose rewards lie in [0, 1] and tally both kinds of limits of each.

    DR's reward model is the target's own, which saw none of these events: one fitted on the log's other folds has seen
    what comes later, and the limits may not rest on it.
    """
    rng = np.random.default_rng(seed)
    declared = Declared(reward_low=0.0, reward_high=1.0, min_propensity=float(population.logging.min()))
    bounded = {method: (Tally(), Tally()) for method in ("ips", "dr")}
    for _ in range(n_logs):
        for method, judged in _judge(ope_worlds.draw(population, rng), declared).items():
            for tally, said in zip(bounded[method], judged, strict=True):
                tally.add(said, population.true_value)
    return bounded


def _judge(drawn: Drawn, declared: Declared) -> dict[str, tuple[Estimate | Refusal, AnytimeInterval | Refusal]]:
    log, target, q = drawn.log, drawn.target, np.clip(drawn.expected, 0.0, 1.0)
    return {
        "ips": (evaluation.estimate_ips(log, target), anytime.bound_ips(log, target, declared)),
        "dr": (evaluation.estimate_dr(log, target, q), anytime.bound_dr(log, target, q, declared)),
    }


def summarise(sets: Sequence[Bounded]) -> dict[str, dict[str, float | int]]:
    """Return the figures of the JSON: coverage at the last look, and the mean width beside the fixed interval's."""
    summary = {}
    for method in sets[0] if sets else ():
        widths, anytime_widths = (
            np.concatenate([bounded[method][kind].widths for bounded in sets]) for kind in range(2)
        )
        n_held = sum(bounded[method][1].n_held for bounded in sets)
        summary[method] = {
            "coverage": round(n_held / len(anytime_widths), 4),
            "width": round(float(anytime_widths.mean()), 5),
            "fixed_width": round(float(widths.mean()), 5),
            "n_logs": len(anytime_widths),
        }
    return summary
