"""January to August under the static table: what the log would hold had the shim, with 30 % exploration, decided then."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import msgspec
import numpy as np

from features import config
from features.cloudevents import envelope, event_of
from features.config import Configuration
from scenarios.flights.configuration import STREAM
from scenarios.flights.parcels import Parcels
from scenarios.flights.world import World
from serving.case import Question
from serving.decider import decide
from serving.identity import decision_id, fingerprint
from serving.plan import Plan
from serving.view import StreamView

EXPLORATION = 0.3
N_PARTS = 8
N_PROCESSES = 2


def write(world: World, configuration_text: str, folder: Path, *, on_progress: Callable[[int], None]) -> list[Path]:
    """Decide every parcel of ``world`` with the shim's own decider; write its decisions and outcomes as JSON Lines.

    The decisions are drawn as the shim draws them, by keyed hash: the same log every time, in however many processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part_of = np.arange(world.n_events) * N_PARTS // max(world.n_events, 1)
    # Spawned, not forked: the parent may hold threads of libraries that do not survive a fork.
    with ProcessPoolExecutor(N_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = [
            pool.submit(write_part, world.take(part_of == part), configuration_text, folder, part)
            for part in range(N_PARTS)
        ]
        for part in as_completed(parts):
            on_progress(part.result())
    return [folder]


def write_part(world: World, configuration_text: str, folder: Path, part: int) -> int:
    """Write one part of the past; return how many parcels it holds."""
    configuration = _exploring(config.parse(configuration_text))
    plan, view, parcels = Plan.of(configuration), StreamView(mode="off"), Parcels(world)
    with (
        (folder / f"decisions-{part}.jsonl").open("wb") as decisions,
        (folder / f"outcomes-{part}.jsonl").open("wb") as outcomes,
    ):
        for parcel in range(world.n_events):
            event = event_of(parcels.event(parcel), configuration)
            question = Question(event=event, candidates=parcels.candidates(parcel))
            at = parcels.ready_at[parcel]
            name = decision_id(at, fingerprint(STREAM, event.source, event.id))
            decided = decide(
                question, plan.streams[STREAM], view, None, at=at, decision_id=name, revision=plan.revision
            )
            outcome = parcels.outcome(parcels.pair(parcel, decided.decision.assigned), name)
            decisions.write(msgspec.json.encode(decided.decision) + b"\n")
            outcomes.write(envelope(outcome) + b"\n")
    return world.n_events


def _exploring(configuration: Configuration) -> Configuration:
    stream = configuration.streams[STREAM]
    exploration = msgspec.structs.replace(stream.exploration, static_epsilon=EXPLORATION)
    stream = msgspec.structs.replace(stream, exploration=exploration)
    return msgspec.structs.replace(configuration, streams={STREAM: stream})
