"""What can be said of the live months afterwards, from the decision log and the released forecaster."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import history, log_table
from flows.forecast import read_loads
from flows.wiring import Wiring
from models import backtest, policy
from models.forecaster import Forecaster
from scenarios.flights import world
from scenarios.flights.configuration import STREAM
from scenarios.flights.parcels import Parcels, instants
from scenarios.flights.replay import Replay
from scenarios.flights.tally import Choice
from scenarios.flights.world import World

N_LIVE_DAYS = 121  # the last has no day after it


def champion_choices(wired: Wiring, live_world: World) -> Choice:
    """Return, per event, the greedy choice of the release that was live when it was decided, from the decision log."""
    configured = wired.configuration.streams[STREAM]
    table = history.rewards(wired.warehouse, STREAM, objective=configured.objective, as_of=wired.now)
    table = table.filter(
        pc.greater_equal(
            table["decided_at"],
            pa.scalar(live_world.ready_at[0].astype("datetime64[us]")).cast(table["decided_at"].type),
        )
    )
    log = log_table.from_table(table, configured.features, cluster_by=configured.cluster)
    led = log.policies.get("champion", np.full(int(log.offsets[-1]), np.nan))
    live = policy.greedy_log(np.where(np.isnan(led), log.policies["static"], led), log.offsets)
    place = np.flatnonzero(live) - log.offsets[:-1]
    places = dict(zip(table["event_id"].to_pylist(), place.tolist(), strict=True))
    parcels = Parcels(live_world)
    return np.array([int(live_world.offsets[i]) + places[parcels.name(i)] for i in range(live_world.n_events)])


def count_lost(wired: Wiring, replay: Replay) -> int:
    """Return how many accepted decisions and reported outcomes the warehouse does not have."""
    configured = wired.configuration.streams[STREAM]
    table = history.rewards(wired.warehouse, STREAM, objective=configured.objective, as_of=wired.now)
    known = set(table["decision_id"].to_pylist())
    with_outcome = set(table.filter(pc.equal(table["status"], "observed"))["decision_id"].to_pylist())
    accepted = set(replay.decision_ids)
    return len(accepted - known) + len(accepted - with_outcome)


def judge_forecast(wired: Wiring) -> dict[str, float]:
    """Return how the released forecaster, forecasting every day of the live part, would have done."""
    digest = wired.released("forecaster")
    forecaster = Forecaster.load(wired.store.path(digest or ""))
    panel = read_loads(wired)
    first = instants(np.array([world.LIVE_BEGINS_AT]))[0]
    origins = [first + timedelta(days=day) for day in range(N_LIVE_DAYS)]
    zone = forecaster.card.config.zone
    found = backtest.evaluate(forecaster.forecast, panel, origins, zone=zone)
    return {
        "wape": found.wape,
        "wape_last_week": found.wape_last_week,
        "p10_p90_coverage": found.p10_p90_coverage,
        "n_series_hours": found.n,
    }
