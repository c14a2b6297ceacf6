"""The locked set works together: both servers start, a flow runs, and a schedule makes runs; an unlocked set fails here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import backlog, components
from flows.calling import call
from flows.settings import Settings
from flows.stack import PREFECT_FILE, Stack
from models.registry import Registry

ROOT = PREFECT_FILE.parent
PATIENCE_SECONDS = 300.0
TURNOUT = (sys.executable, "-c", "from flows.cli import main; main()")
LOAD_ALL = """
import sys, yaml
from prefect.flows import load_flow_from_entrypoint
for deployment in yaml.safe_load(open(sys.argv[1]))["deployments"]:
    print(load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False).name)
"""


def eventually(look: Callable[[], Any]) -> Any:
    """Return the first true value of ``look``, however busy the machine."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not seen within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.25)
    return seen


def runs(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call("POST", f"{stack.urls['prefect']}/api/flow_runs/filter", body={}).document
    return found


def make(url: str, body: object) -> str:
    """Create something on the server and return its id; a busy one refuses now and then: its database is locked."""
    made: str = eventually(lambda: call("POST", url, body=body, timeout_seconds=30).document.get("id"))
    return made


def processes_with(setting: str) -> dict[int, str]:
    """Return the commands, by PID, of the processes that run with ``setting`` in their environment, but for this one."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mentions = setting.encode() in (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is another user's
        if mentions and int(process.name) != os.getpid():
            found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def test_all_components_answer(stack: Stack) -> None:
    answers = {
        "mlflow": call("GET", f"{stack.urls['mlflow']}/health"),
        "prefect": call("GET", f"{stack.urls['prefect']}/api/health"),
        "shim": call("GET", f"{stack.urls['shim']}/health/ready"),
    }

    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(answers, 200)


def test_a_schedule_makes_runs(stack: Stack) -> None:
    assert eventually(lambda: [run for run in runs(stack) if run["auto_scheduled"]])


def test_what_the_shim_decides_is_ingested_by_the_worker(stack: Stack) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.order", "data": {"amount": 5}}
    assert call("POST", f"{stack.urls['shim']}/v1/decisions", body={"event": event}).ok
    api = f"{stack.urls['prefect']}/api/deployments"
    deployment = call("GET", f"{api}/name/ingest/scheduled").document["id"]
    begun = make(f"{api}/{deployment}/create_flow_run", {})

    def ended() -> str | None:
        state: str = next(run["state_type"] for run in runs(stack) if run["id"] == begun)
        return state if state in ("COMPLETED", "FAILED", "CRASHED") else None

    assert eventually(ended) == "COMPLETED"
    told = call("POST", f"{stack.urls['prefect']}/api/artifacts/filter", body={}).document
    assert any("| n_decisions | 1 |" in artifact["data"] for artifact in told)


def test_w03_of_a_backlog_one_run_of_each_schedule_is_left(stack: Stack) -> None:
    api = f"{stack.urls['prefect']}/api"
    flow = make(f"{api}/flows/", {"name": "backlog"})
    hourly, other = (make(f"{api}/deployments/", {"name": name, "flow_id": flow}) for name in ("hourly", "other"))
    now = datetime.now(UTC)

    def schedule(deployment: str, hours_ago: float, tags: list[str]) -> str:
        due = (now - timedelta(hours=hours_ago)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        asked = {"flow_id": flow, "deployment_id": deployment, "state": state, "tags": tags}
        return make(f"{api}/flow_runs/", asked)

    late = [schedule(hourly, hours_ago, ["auto-scheduled"]) for hours_ago in range(8, 0, -1)]
    kept = {
        late[-1],
        schedule(other, 3, ["auto-scheduled"]),
        schedule(hourly, 5, []),
        schedule(hourly, -1, ["auto-scheduled"]),
    }
    backlog.thin(api, now=now)
    backlog.thin(api, now=now)  # what a busy server refused to delete
    of_ours = {"flow_runs": {"deployment_id": {"any_": [hourly, other]}}}
    left = {run["id"] for run in call("POST", f"{api}/flow_runs/filter", body=of_ours).document}
    assert kept <= left
    assert not set(late[:-1]) & left


def test_t09_of_two_retrainings_at_once_the_second_waits(stack: Stack) -> None:
    for flow, name in (("retrain", "on-demand"), ("retrain-all", "scheduled"), ("lifecycle", "scheduled")):
        known = call("GET", f"{stack.urls['prefect']}/api/deployments/name/{flow}/{name}").document
        limit = known["global_concurrency_limit"]
        assert (limit["limit"], limit["active"]) == (1, True)
        assert known["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_w02_a_killed_flow_is_found_dead_and_its_slot_is_free(stack: Stack) -> None:
    api = f"{stack.urls['prefect']}/api"
    automations = call("POST", f"{api}/automations/filter", body={}).document
    assert [(one["enabled"], one["actions"][0]["state"]) for one in automations] == [(True, "CRASHED")]

    def state(run: str) -> str:
        known: str = call("GET", f"{api}/flow_runs/{run}", timeout_seconds=30).document["state_type"]
        return known

    deployment = call("GET", f"{api}/deployments/name/ingest/scheduled").document["id"]
    killed = make(f"{api}/deployments/{deployment}/create_flow_run", {})
    eventually(lambda: state(killed) == "RUNNING")
    for pid in processes_with(f"PREFECT__FLOW_RUN_ID={killed}"):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: state(killed) not in ("RUNNING", "CANCELLING") and state(killed)) == "CRASHED"
    after = make(f"{api}/deployments/{deployment}/create_flow_run", {})
    eventually(lambda: state(after) == "COMPLETED")


def test_the_server_takes_candidates_and_serves_their_evidence(stack: Stack, tmp_path: Path) -> None:
    for folder in ("bundle", "evidence"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "report.html").write_text(f"<h1>{folder}")
    registry = Registry(stack.tracking_uri)
    number = registry.log_candidate(
        "router-candidate", tmp_path / "bundle", tmp_path / "evidence", metrics={}, params={}, tags={}, description="d"
    )

    approved = registry.approve(registry.version("router-candidate", number), target="router", actor="ann", reason="ok")
    downloaded = registry.download(approved, tmp_path / "here")

    assert (downloaded.bundle / "report.html").read_text() == "<h1>bundle"
    page = f"{stack.urls['mlflow']}/get-artifact?run_uuid={approved.run_id}&path=evidence/report.html"
    assert call("GET", page).document == "<h1>evidence"


def test_the_command_line_finds_the_stack_of_its_home(stack: Stack, home: Path) -> None:
    environ = {**components.inherit(os.environ), "TURNOUT_HOME": str(home)}
    told = subprocess.run([*TURNOUT, "status", "--json"], env=environ, cwd=ROOT, capture_output=True, check=True)

    status = json.loads(told.stdout)
    assert set(status["stack"]) == {"mlflow", "prefect", "worker", "shim"}
    assert status["shims"][stack.urls["shim"]]["problems"] == []


def test_a_shim_that_is_killed_comes_back(stack: Stack) -> None:
    before = stack.pid("shim")
    os.kill(before, signal.SIGKILL)

    eventually(lambda: stack.pid("shim") != before)
    eventually(lambda: _answers(f"{stack.urls['shim']}/health/live"))


def test_every_deployment_loads(stack_settings: Settings) -> None:
    environ = {**components.inherit(os.environ), **components.lone_environment(stack_settings)}
    told = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(PREFECT_FILE)],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 0, told.stderr
    assert {"ingest", "retrain", "forecast", "promote", "lifecycle"} <= set(told.stdout.split())


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """A home for `turnout up`, which finds its databases there the second time."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "turnout.toml").write_text(tiny_text)
    return folder / "home"


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, signal.SIGKILL]
)  # the killed one leaves its stack.json, and is the last
def test_nothing_outlives_turnout_up(own_home: Path, sent: signal.Signals) -> None:
    environ = {
        **components.inherit(os.environ),
        "TURNOUT_HOME": str(own_home),
        "TURNOUT_CONFIG": str(own_home.with_name("turnout.toml")),
    }
    ports = ("--mlflow-port", "0", "--prefect-port", "0", "--shim-port", "0")
    with subprocess.Popen([*TURNOUT, "up", *ports], env=environ, cwd=ROOT, stdout=subprocess.DEVNULL) as up:
        try:
            eventually(lambda: (own_home / "stack.json").exists() or up.poll())
            assert len(processes_with(f"TURNOUT_HOME={own_home}")) >= 5

            up.send_signal(sent)

            assert up.wait(PATIENCE_SECONDS) == (0 if sent is signal.SIGTERM else -signal.SIGKILL)
        finally:
            up.kill()  # leaving the block waits for it: a failure must not wait for ever
    eventually(lambda: not processes_with(f"TURNOUT_HOME={own_home}"))


def _answers(url: str) -> bool:
    try:
        return call("GET", url).ok
    except OSError:
        return False
