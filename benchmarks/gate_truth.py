"""Measures the canary's verdicts against the truth: ``python -m benchmarks.gate_truth``; its last line is JSON.

On each FrugalML data set and on the flights every outcome is known, so that a challenger's gain over a champion is, too.
Champions and challengers are drawn: each prefers what a mixture of a fitted reward model, of its opposite and of chance
expects most, some of them better than the champion, some worse; "equal" ones choose another destination that would have
brought exactly the same. Events are drawn with replacement, arms per event, and the product's own judge looks at all of
it: a verdict is decided where a gain or a harm was proven, and right where the truth has that sign.
"""

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import ope_worlds
from benchmarks.ope import DEFAULT_DATA, NO_DATA
from benchmarks.ope_worlds import Population
from features.choices import Rung
from models import evaluation, intervals, logged, policy
from models.logged import LoggedDecisions
from scenarios.flights.timetable import DataMissingError
from validation import canary
from validation.canary_gate import CanaryGate
from validation.canary_log import CanaryLog

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHARE, EXPLORATION = 0.25, 0.05  # of the canary; of both policies, so that the log answers for either
DISAGREEMENT = 0.3  # of the events, on which an equal challenger chooses otherwise
VALUE_TAIL = 0.02  # as the product bounds its reward models
N_DECISIONS, N_CHALLENGERS = 20_000, 30
NEGLIGIBLE = 1e-9  # of the reward's range: sums of floats are no gain


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A challenger's true gain per decision, as a share of the reward's range, and what the judge said."""

    world: str
    kind: str
    truth: float
    state: str
    reason: str

    @property
    def is_decided(self) -> bool:
        """Whether a gain or a harm was proven, by the gain itself."""
        return self.reason.startswith("the gain is")

    @property
    def is_right(self) -> bool:
        """Whether the truth has the sign that was proven."""
        return self.truth > NEGLIGIBLE if self.state == "promote" else self.truth < -NEGLIGIBLE


def judge(world: Population, champion: Floats, challenger: Floats, kind: str, rng: np.random.Generator) -> Judged:
    """Play a canary of two distributions over the rows of ``world`` and judge it once, which is as good as at any time."""
    low, high = float(world.reward.min()), float(world.reward.max())
    value_low, value_high = np.quantile(world.expected, (VALUE_TAIL, 1.0 - VALUE_TAIL)).clip(low, high).tolist()
    gate = CanaryGate(
        reward_low=low,
        reward_high=high,
        value_low=value_low,
        value_high=value_high,
        ladder=(Rung(share=SHARE),),
        max_decisions=N_DECISIONS + 1,
        max_rises={},
    )
    truth = float(((challenger - champion) * world.reward).sum()) / (len(world.offsets) - 1) / (high - low)
    verdict = canary.judge(_play(world, champion, challenger, gate, rng), gate)
    return Judged(world=world.name, kind=kind, truth=truth, state=verdict.state, reason=verdict.reasons[0])


def _play(
    world: Population, champion: Floats, challenger: Floats, gate: CanaryGate, rng: np.random.Generator
) -> CanaryLog:
    events = rng.integers(len(world.offsets) - 1, size=N_DECISIONS)
    n_rows = np.diff(world.offsets)[events]
    rows = ope_worlds.ranges(world.offsets[events], n_rows)
    offsets = np.concatenate(([0], np.cumsum(n_rows)))
    arm = rng.uniform(size=N_DECISIONS) < SHARE
    own, other = champion[rows], challenger[rows]
    chosen = ope_worlds.choose(np.where(np.repeat(arm, n_rows), other, own), offsets, rng.uniform(size=N_DECISIONS))
    log = LoggedDecisions(
        offsets=offsets,
        chosen=chosen,
        propensity=((1.0 - SHARE) * own + SHARE * other)[chosen],
        reward=world.reward[rows][chosen],
    )
    return CanaryLog(
        decided_at=np.datetime64("2026-01-01", "s") + np.arange(N_DECISIONS),
        unit=np.arange(N_DECISIONS),
        share=np.full(N_DECISIONS, SHARE),
        is_challenger=arm,
        increment=evaluation.increments(log, other, own, world.expected[rows].clip(*gate.value_bounds)),
        disagrees=logged.find_disagreements(log, other, own),
    )


def pairs(world: Population, n: int, rng: np.random.Generator) -> Iterator[tuple[str, Floats, Floats]]:
    """Yield ``n`` champions and challengers of each kind, as distributions over the rows of ``world``."""
    spread = float(world.expected.std()) or 1.0
    for _ in range(n):
        weight, other = rng.uniform(0.0, 1.0), rng.uniform(-1.0, 1.0)
        noise = rng.normal(0.0, spread, (2, len(world.expected)))
        champion = _explored(weight * world.expected + (1.0 - weight) * noise[0], world)
        yield "drawn", champion, _explored(other * world.expected + (1.0 - abs(other)) * noise[1], world)
        yield "equal", champion, _twin(champion, world, rng)


def _explored(value: Floats, world: Population) -> Floats:
    greedy = policy.greedy_log(value, world.offsets)
    return policy.epsilon_floor_log(greedy, world.offsets, EXPLORATION)


def _twin(champion: Floats, world: Population, rng: np.random.Generator) -> Floats:
    """Return a policy that prefers, on some events, another destination which brings exactly what the champion's does."""
    event = np.repeat(np.arange(len(world.offsets) - 1), np.diff(world.offsets))
    preferred = np.flatnonzero(champion == np.maximum.reduceat(champion, world.offsets[:-1])[event])
    first = preferred[np.unique(event[preferred], return_index=True)[1]]
    alike = world.reward == world.reward[first][event]
    alike[first] = False
    wanted = rng.uniform(size=len(world.offsets) - 1) < DISAGREEMENT
    value = np.where(alike & wanted[event], 1.0 + rng.uniform(size=len(event)), 0.0)
    value[first] += 0.5
    return _explored(value, world)


def worlds(data: Path, *, quick: bool) -> Iterator[Population]:
    """Yield every world that is there."""
    files = ope_worlds.find_frugalml(data)
    for file in files[:1] if quick else files:
        yield ope_worlds.frugalml_population(file, 1, seed=0)
    try:
        yield ope_worlds.flights_population(1, quick=quick)
    except DataMissingError as error:
        print(f"flights left out: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_truth", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="the folder with frugalml/")
    parser.add_argument("--challengers", type=int, default=N_CHALLENGERS, help="of each kind, per world")
    parser.add_argument("--quick", action="store_true", help="one set and two months of flights, 3 challengers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        print(f"no data: {given.data} is no folder", file=sys.stderr)
        return NO_DATA
    rng, judged = np.random.default_rng(given.seed), list[Judged]()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for world in progress.track(list(worlds(given.data, quick=given.quick)), description="worlds"):
            for kind, champion, challenger in pairs(world, 3 if given.quick else given.challengers, rng):
                judged.append(judge(world, champion, challenger, kind, rng))
    if not judged:
        print(f"no data: neither frugalml under {given.data} nor the flights", file=sys.stderr)
        return NO_DATA
    Console(width=110).print(_table(judged, given.seed))
    print(json.dumps({**summarise(judged), "decisions": N_DECISIONS, "share": SHARE, "seed": given.seed}))
    return 0


def summarise(judged: Sequence[Judged]) -> dict[str, float | int]:
    """Return how often a verdict was decided, and then right; ``agreement_lower_95`` is the exact one-sided limit."""
    decided = [each for each in judged if each.is_decided]
    n_wrong = sum(not each.is_right for each in decided)
    equal = [each for each in judged if each.kind == "equal"]
    return {
        "judged": len(judged),
        "decided": len(decided),
        "agreement": round(1.0 - n_wrong / len(decided), 5) if decided else 0.0,
        "agreement_lower_95": round(1.0 - intervals.rate_limit(n_wrong, len(decided), 0.95), 5),
        "equal": len(equal),
        "equal_promoted": sum(each.state == "promote" for each in equal),
        "equal_harm_proven": sum(each.is_decided and each.state == "rollback" for each in equal),
    }


def _table(judged: Sequence[Judged], seed: int) -> Table:
    caption = f"{N_DECISIONS:,} decisions each, share {SHARE:g}; seed {seed}; Python {platform.python_version()}"
    table = Table(title="Verdicts of the canary where the truth is known", caption=caption)
    for heading in ("world", "kind", "challengers", "better", "promoted", "harm proven", "undecided", "wrong"):
        table.add_column(heading, justify="left" if heading in ("world", "kind") else "right")
    for world, kind in dict.fromkeys((each.world, each.kind) for each in judged):
        group = [each for each in judged if (each.world, each.kind) == (world, kind)]
        decided = [each for each in group if each.is_decided]
        counts = (
            len(group),
            sum(each.truth > NEGLIGIBLE for each in group),
            sum(each.state == "promote" for each in decided),
            sum(each.state == "rollback" for each in decided),
            len(group) - len(decided),
            sum(not each.is_right for each in decided),
        )
        table.add_row(world, kind, *map(str, counts))
    return table


if __name__ == "__main__":
    sys.exit(main())
