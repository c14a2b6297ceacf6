"""A retraining that is killed half way leaves nothing that counts, and is made up for by the next."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from features import ingestion
from features.clock import ReplayClock
from features.records import Decision, Outcome
from flows import components, retrain
from flows import settings as environment
from flows.wiring import Wiring

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its database's own

Play = Callable[..., list[tuple[Decision, Outcome]]]
TURNOUT = (sys.executable, "-c", "from flows.cli import main; main()")


def wire(home: Path, text: str, play: Play) -> Wiring:
    home.mkdir()
    (home / "turnout.toml").write_text(text)
    chosen = environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")})
    wired = Wiring(settings=chosen, clock=ReplayClock(at=datetime(2026, 1, 1, tzinfo=UTC)))
    told = play(wired.configuration, 700)
    wired.clock.advance(told[-1][1].observed_at + timedelta(hours=2))  # type: ignore[attr-defined]  # a ReplayClock
    log = home / "log.jsonl"
    log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for pair in told for record in pair))
    ingestion.ingest(wired.warehouse, [log], wired.configuration, now=wired.now)
    return wired


def begin(wired: Wiring) -> "subprocess.Popen[bytes]":
    surroundings = {**components.inherit(os.environ), **components.lone_environment(wired.settings)}
    command = [*TURNOUT, "retrain", "orders", "--as-of", wired.now.isoformat()]
    return subprocess.Popen(command, env=surroundings, start_new_session=True)


def test_t08_w04_a_killed_retraining_leaves_no_version_and_a_rerun_gives_the_same_bytes(
    tmp_path: Path, tiny_text: str, play: Play
) -> None:
    wired, untouched = wire(tmp_path / "killed", tiny_text, play), wire(tmp_path / "untouched", tiny_text, play)
    running = begin(wired)
    while not list(wired.settings.home.glob("work/router-*/*.txt")):
        assert running.poll() is None, "it ended before it fitted anything"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert wired.registry.versions(retrain.CANDIDATE_MODEL) == []

    assert begin(wired).wait(timeout=300) == 0
    (version,) = wired.registry.versions(retrain.CANDIDATE_MODEL)
    source = untouched.snapshot()
    log = retrain.read_log(untouched, "orders", source, retrain.read_rows(untouched, "orders", source))
    assert version.tags["turnout.digest"] == retrain.fit_candidate(untouched, "orders", log).digest
