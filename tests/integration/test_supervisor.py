"""The supervisor with small real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from flows import supervisor
from flows.supervisor import Component, ComponentError, Supervisor

SLEEPS = "import time; time.sleep(600)"


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    """The address of something that always answers well."""

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Well)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def component(healthy: str) -> Callable[..., Component]:
    def make(code: str = SLEEPS, *, name: str = "one", url: str = healthy, grace_seconds: float = 60.0) -> Component:
        return Component(
            name=name,
            command=(sys.executable, "-c", code),
            environment=dict(os.environ),
            health_url=url,
            grace_seconds=grace_seconds,
        )

    return make


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Supervisor]:
    supervised = Supervisor(tmp_path / "logs")
    yield supervised
    supervised.stop(())


def wait_until(holds: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def _leaves_behind(told: Path) -> str:
    """Return code that starts a process in another session and tells its id."""
    return (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open({str(told)!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_back_off_doubles_up_to_its_limit() -> None:
    assert [supervisor.backoff_seconds(n) for n in (1, 2, 3, 5, 6, 100)] == [1.0, 2.0, 4.0, 16.0, 30.0, 30.0]


def test_what_dies_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, component: Callable[..., Component]
) -> None:
    monkeypatch.setattr(supervisor, "backoff_seconds", lambda _: 0.0)
    changes: list[int] = []
    running = Supervisor(tmp_path / "logs", on_change=lambda: changes.append(1))
    running.start([component()])
    running.watch()
    first = running.children["one"].process.pid

    os.kill(first, signal.SIGKILL)

    wait_until(lambda: running.children["one"].process.pid != first)
    second = running.children["one"].process.pid
    wait_until(lambda: bool(changes))
    assert running.children["one"].n_restarts == 1
    running.stop(())
    assert is_gone(second)


def test_the_back_off_is_waited_for(running: Supervisor, component: Callable[..., Component]) -> None:
    running.start([component()])
    child = running.children["one"]
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    now = child.started_seconds

    assert [child.revive(now), child.revive(now + 0.9), child.revive(now + 1.1)] == [False, False, True]
    child.process.kill()
    child.process.wait()
    assert [child.revive(now + 2), child.revive(now + 3.9), child.revive(now + 4.1)] == [False, False, True]


def test_a_crash_after_a_long_life_is_the_first_again(running: Supervisor, component: Callable[..., Component]) -> None:
    running.start([component()])
    child = running.children["one"]
    child.n_crashes = 7
    child.process.kill()
    child.process.wait()

    child.revive(child.started_seconds + 61)

    assert child.n_crashes == 1


def test_components_stop_in_the_order_given(
    running: Supervisor, component: Callable[..., Component], tmp_path: Path
) -> None:
    ends = tmp_path / "ends"
    code = (
        "import signal, sys, time, pathlib\n"
        "def end(*_):\n    open({ends!r}, 'a').write({name!r} + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); pathlib.Path({ready!r}).touch(); time.sleep(600)"
    )
    names = ("a", "b", "c")
    running.start(component(code.format(ends=str(ends), name=n, ready=str(tmp_path / n)), name=n) for n in names)
    wait_until(lambda: all((tmp_path / name).exists() for name in names))

    running.stop(("c", "a", "absent"))

    assert ends.read_text().split() == ["c", "a", "b"]


def test_what_does_not_stop_when_asked_is_killed_with_all_that_it_started(
    running: Supervisor, component: Callable[..., Component], tmp_path: Path
) -> None:
    told = tmp_path / "grandchild"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); "
        "time.sleep(600)'])\n"
        f"open({str(told)!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    running.start([component(code, grace_seconds=0.2)])
    wait_until(lambda: told.exists() and bool(told.read_text()))
    pid = running.children["one"].process.pid

    running.stop(())

    assert is_gone(pid)
    wait_until(lambda: is_gone(int(told.read_text())))


def test_what_a_component_started_in_a_session_of_its_own_ends_with_it_even_after_a_crash(
    running: Supervisor, component: Callable[..., Component], tmp_path: Path
) -> None:
    told = tmp_path / "far"
    running.start([component(_leaves_behind(told))])
    wait_until(lambda: told.exists() and bool(told.read_text()))
    child = running.children["one"]
    child.process.kill()
    child.process.wait()
    child.revive(child.started_seconds)
    assert not is_gone(int(told.read_text())), "a crash of its starter is no reason to end it"

    running.stop(())

    assert is_gone(int(told.read_text()))


def test_what_a_killed_supervisor_left_behind_is_ended_before_the_next_start(
    running: Supervisor, component: Callable[..., Component], tmp_path: Path
) -> None:
    told = tmp_path / "far"
    running.start([component(_leaves_behind(told))])
    wait_until(lambda: told.exists() and bool(told.read_text()))
    child = running.children.pop("one")
    child.process.kill()
    child.process.wait()

    running.start([component()])

    assert is_gone(int(told.read_text()))


def test_a_component_that_ends_at_once_is_told_with_the_end_of_its_log(
    running: Supervisor, component: Callable[..., Component]
) -> None:
    broken = component("print('no such file'); raise SystemExit(3)", url="http://127.0.0.1:9/")

    running.start([broken])
    with pytest.raises(ComponentError, match=r"one ended with 3(?s:.*)no such file"):
        running.await_ready()


def test_a_component_that_never_answers_is_given_up(running: Supervisor, component: Callable[..., Component]) -> None:
    running.start([component(), component(name="two", url="http://127.0.0.1:9/")])
    running.await_ready("one")
    with pytest.raises(ComponentError, match="two did not answer in time"):
        running.await_ready(timeout_seconds=0.2)


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """No handler runs on SIGKILL: it is the kernel that ends the child."""
    told = tmp_path / "child"
    code = (
        "import os, pathlib, subprocess, sys, time; from flows import leash\n"
        "command = [sys.executable, '-IS', leash.__file__, str(os.getpid()), sys.executable, '-c', 'import time; time.sleep(600)']\n"
        f"pathlib.Path({str(told)!r}).write_text(str(subprocess.Popen(command).pid)); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(supervisor.__file__).parents[1])
    wait_until(lambda: told.exists() and bool(told.read_text()))
    child = int(told.read_text())
    wait_until(lambda: b"leash.py" not in Path(f"/proc/{child}/cmdline").read_bytes())

    parent.kill()
    parent.wait()

    wait_until(lambda: is_gone(child))
