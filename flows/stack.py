"""The embedded stack on loopback: MLflow, Prefect with its worker and deployments, NATS if asked for, and the shim, as one thing to start."""

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from features.clock import SystemClock
from flows import backlog, components
from flows.calling import call
from flows.components import HEARTBEAT_SECONDS, HOST, NotInstalledError, Ports
from flows.settings import Settings
from flows.supervisor import Supervisor

Name = Literal["mlflow", "prefect", "worker", "nats", "shim"]

ALL: tuple[Name, ...] = ("mlflow", "prefect", "worker", "shim")
PREFECT_FILE = Path(__file__).parents[1] / "prefect.yaml"
STATE_FILE = "stack.json"

_LOCK_FILE = "stack.lock"
# One after the other: together, the worker hangs every other time.
_STOP_ORDER: tuple[Name, ...] = ("worker", "prefect", "mlflow", "shim", "nats")
_DEPLOY_SECONDS = 180.0
_STARTING: Mapping[str, Any] = {"pid": None, "components": {}, "environment": {}}
_ZOMBIES = "Flows without a heartbeat have crashed"


class StackError(RuntimeError):
    """A stack that cannot start: names what is in the way."""


class Stack:
    """The components of ``components`` while the context lasts.

    ``urls`` tells their addresses, ``environment`` is what a flow of another process needs to work with them. What dies
    is restarted; all of it ends with the process that started it. Where ``settings.tracking_uri`` is a server's address,
    that server is used and no MLflow is started.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        components: tuple[Name, ...] = ALL,
        ports: Ports | None = None,
        replay: bool = False,
        prefect_file: Path = PREFECT_FILE,
    ) -> None:
        """Take the choices; nothing starts before the context is entered."""
        external = settings.tracking_uri.startswith(("http://", "https://"))
        self._settings = settings
        self._names = tuple(name for name in components if not (external and name == "mlflow"))
        self._ports = ports or Ports()
        self._replay = replay
        self._prefect_file = prefect_file
        self._supervisor = Supervisor(settings.home / "logs", on_change=self._write_state)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        """Start everything and return once it answers.

        Raises
        ------
        StackError
            If another stack runs on this home, a port is taken, or the deployments are refused.
        ComponentError
            If a component does not come up.
        """
        with ExitStack() as undo:
            self._settings.home.mkdir(parents=True, exist_ok=True)
            undo.enter_context(_lock(self._settings.home))
            self._ports = _claim(self._ports, self._names)
            undo.callback(self._settings.home.joinpath(STATE_FILE).unlink, missing_ok=True)
            undo.callback(self._supervisor.stop, _STOP_ORDER)
            self._start()
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything: the worker first, then the shim, and last its broker."""
        self._exit.close()

    @property
    def urls(self) -> dict[str, str]:
        """The addresses of what listens."""
        listening: dict[str, str] = {name: self._ports.url(name) for name in self._names if name != "worker"}
        return listening | {"mlflow": self.tracking_uri}

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is for the flows of this stack."""
        return self._ports.url("mlflow") if "mlflow" in self._names else self._settings.tracking_uri

    @property
    def settings(self) -> Settings:
        """The settings that flows of this stack work with."""
        shims = (self._ports.url("shim"),) if "shim" in self._names else self._settings.shim_urls
        broker = self._ports.url("nats") if "nats" in self._names else self._settings.nats_url
        return replace(self._settings, tracking_uri=self.tracking_uri, shim_urls=shims, nats_url=broker)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that runs flows with this stack; to be read within the context."""
        return {**components.inherit(os.environ), **self._flow_environment}

    @property
    def _flow_environment(self) -> dict[str, str]:
        if "prefect" in self._names:
            return components.flow_environment(self.settings, self._ports)
        return components.lone_environment(self.settings)

    def pid(self, name: Name) -> int:
        """Return the process id of a component; a restart changes it."""
        return self._supervisor.children[name].process.pid

    def _start(self) -> None:
        for folder in ("mlflow", "prefect"):
            (self._settings.home / folder).mkdir(exist_ok=True)
        if "mlflow" in self._names and self._settings.mlflow_auth:
            self._prepare_users()
        environ = self.environment
        self._start_broker(environ)
        side_by_side = (
            components.mlflow_server(self._settings, self._ports, environ),
            components.prefect_server(self._ports, environ),
            components.shim(self._ports, environ, replay=self._replay),
        )
        self._supervisor.start(component for component in side_by_side if component.name in self._names)
        if "prefect" in self._names:  # its part takes longest: MLflow comes up meanwhile
            self._supervisor.await_ready("prefect")
            self._install_zombie_automation()
            backlog.thin(f"{self._ports.url('prefect')}/api", now=SystemClock().now())
        if "worker" in self._names:
            self._supervisor.start([components.prefect_worker(self._ports, environ)])
            self._supervisor.await_ready("worker")
            self._deploy()
        self._supervisor.await_ready()
        self._supervisor.watch()
        self._write_state()

    def _start_broker(self, environ: Mapping[str, str]) -> None:
        if "nats" not in self._names:
            return
        try:
            broker = components.nats_server(self._settings.home / "nats", self._ports, environ)
        except NotInstalledError as error:
            raise StackError(str(error)) from None
        self._supervisor.start([broker])

    def _prepare_users(self) -> None:
        if self._settings.mlflow_admin is None and not components.auth_database(self._settings).exists():
            raise StackError("TURNOUT_MLFLOW_AUTH is true and MLflow has no users yet: set MLFLOW_AUTH_ADMIN_PASSWORD")
        components.auth_config_path(self._settings).write_text(components.auth_config(self._settings))

    def _deploy(self) -> None:
        """Make the deployments what ``prefect.yaml`` says; running it again changes nothing."""
        try:
            done = subprocess.run(  # noqa: S603 - our own command, no shell
                components.deploy_command(self._prefect_file),
                cwd=self._prefect_file.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_DEPLOY_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StackError(f"{self._prefect_file} was not deployed within {_DEPLOY_SECONDS:.0f} s") from None
        if done.returncode:
            raise StackError(f"{self._prefect_file} cannot be deployed:\n{done.stdout[-4_000:]}{done.stderr[-4_000:]}")

    def _install_zombie_automation(self) -> None:
        """Let the server mark as crashed what stopped its heartbeat; without it a killed flow runs for ever."""
        api = f"{self._ports.url('prefect')}/api/automations"
        named = {"automations": {"name": {"any_": [_ZOMBIES]}}}
        for known in call("POST", f"{api}/filter", body=named, timeout_seconds=30).document:
            call("DELETE", f"{api}/{known['id']}", timeout_seconds=30)
        made = call("POST", f"{api}/", body=_zombie_automation(), timeout_seconds=30)
        if not made.ok:
            raise StackError(f"Prefect refuses the automation {_ZOMBIES!r}: {made.document}")

    def _write_state(self) -> None:
        """Say in ``stack.json`` what runs, for ``turnout status`` and for people."""
        running = {
            name: {
                "pid": child.process.pid,
                "url": self.urls.get(name),
                "log": str(child.log_path),
                "restarts": child.n_restarts,
            }
            for name, child in self._supervisor.children.items()
        }
        path = self._settings.home / STATE_FILE
        told = {"pid": os.getpid(), "components": running, "environment": self._flow_environment}
        path.with_suffix(".tmp").write_text(json.dumps(told, indent=2))
        path.with_suffix(".tmp").replace(path)


def state(home: Path) -> dict[str, Any] | None:
    """Return what the stack of ``home`` says of itself; None if none is up.

    ``pid``, ``components`` (of each its pid, url, log and restarts) and the ``environment`` of its flows; all empty while
    it starts.
    """
    try:
        with _lock(home, patience_seconds=0.0):
            return None  # nobody holds it: what the file says is of a stack that was killed
    except FileNotFoundError:
        return None
    except StackError:
        path = home / STATE_FILE
        return json.loads(path.read_text()) if path.exists() else dict(_STARTING)


@contextmanager
def _lock(home: Path, *, patience_seconds: float = 2.0) -> Iterator[None]:
    """Hold the home's only stack; whoever asks for its state holds it for a moment too, hence the patience."""
    deadline = time.monotonic() + patience_seconds
    with (home / _LOCK_FILE).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StackError(f"a stack runs on {home} already: one home has one stack") from None
                time.sleep(0.05)
        yield


def _claim(ports: Ports, names: tuple[Name, ...]) -> Ports:
    """Return ``ports`` with a free one for every 0.

    Raises
    ------
    StackError
        Naming the port that is taken.
    """
    claimed: dict[str, int] = {}
    with ExitStack() as held:
        listening = [name for name in names if name != "worker"]
        for name in [*listening, *(["nats_monitor"] if "nats" in listening else [])]:
            wanted: int = getattr(ports, name)
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, wanted))
            except OSError as error:
                rule = f"choose another with --{name.replace('_', '-')}-port"
                raise StackError(f"port {wanted} of {name} cannot be had ({error.strerror}): {rule}") from None
            claimed[name] = listener.getsockname()[1]
    return replace(ports, **claimed)


def _zombie_automation() -> dict[str, Any]:
    """Return Prefect's own recipe: a run that sent a heartbeat must send another, or end, within three heartbeats."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed")
    return {
        "name": _ZOMBIES,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            "for_each": ["prefect.resource.id"],
            "after": ["prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)],
            "threshold": 1,
            "within": 3 * HEARTBEAT_SECONDS,
        },
        "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "message": "It stopped sending heartbeats."}],
    }
