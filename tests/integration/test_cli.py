"""The command line: what it understands, how it fails, and that it imports nothing heavy before it must."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cyclopts import App

from flows import cli, components, settings
from flows.cli import telling

NOTHING_TO_CHANGE = {"audit", "serve", "status", "history", "verify", "drift"}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    for name in components.lone_environment(settings.read()):
        if name != "TURNOUT_HOME":
            monkeypatch.setenv(name, "")  # so that what attaching sets is taken back
            monkeypatch.delenv(name)


class Shim:
    """A shim that takes what it is told."""

    def __init__(self, status: int = 201) -> None:
        self.told: list[tuple[str, str, bytes]] = []
        shim = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                shim.told.append((self.command, self.path, body))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b'{"saved": true, "detail": "no such stream"}')

            do_GET = do_POST = do_DELETE = _take  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def shim() -> Iterator[Shim]:
    made = Shim()
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def commands() -> dict[str, Any]:
    found = {}
    for name, (path, _) in cli._COMMANDS.items():
        module, _, function = path.partition(":")
        command = getattr(import_module(module), function)
        if isinstance(command, App):  # a group of commands
            found |= {f"{name} {part}": command[part].default_command for part in command if not part.startswith("-")}
        else:
            found[name] = command
    return found


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == cli._read_version() != "0.0.0"


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli._COMMANDS:
        assert run(name, "--help") == 0
        assert cli._COMMANDS[name][1].split()[0] in capsys.readouterr().out


def test_every_command_that_changes_something_can_be_tried_first() -> None:
    without = {name for name, command in commands().items() if "dry_run" not in inspect.signature(command).parameters}

    assert without == NOTHING_TO_CHANGE


def test_help_imports_neither_engines_nor_flows() -> None:
    code = (
        "import sys; from flows import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('prefect', 'mlflow', 'duckdb', 'pandas', 'great_expectations', 'lightgbm', 'numpy') "
        "if n in sys.modules])"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)

    assert told.stdout.splitlines()[-1] == "[]"


def test_a_command_that_does_not_exist_is_misunderstood(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("retrian") == 2
    assert "retrian" in capsys.readouterr().err


def test_our_own_errors_are_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", "absent.jsonl") == 1
    assert capsys.readouterr().err == "turnout: absent.jsonl: cannot be read: No such file or directory\n"


def test_a_stop_reaches_every_shim_with_actor_reason_and_expiry(monkeypatch: pytest.MonkeyPatch, shim: Shim) -> None:
    monkeypatch.setenv("TURNOUT_SHIMS", shim.url)

    assert run("stop", "--reason", "late", "--stream", "orders", "--actor", "ann", "--minutes", "5") == 0

    ((method, path, body),) = shim.told
    assert (method, path) == ("POST", "/v1/overrides")
    assert all(part in body for part in (b'"ann"', b'"late"', b'"orders"', b'"stop"', b'"expires_at"'))


def test_shims_that_were_not_reached_are_named_and_fail_the_command(
    monkeypatch: pytest.MonkeyPatch, shim: Shim, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURNOUT_SHIMS", f"http://127.0.0.1:9,{shim.url}")

    assert run("resume", "--actor", "ann") == 1

    assert [told[:2] for told in shim.told] == [("DELETE", "/v1/overrides?kind=stop&actor=ann&reason=")]
    assert "not every shim was reached: http://127.0.0.1:9\n" in capsys.readouterr().err


def test_a_shim_that_refuses_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shim = Shim(status=422)
    monkeypatch.setenv("TURNOUT_SHIMS", shim.url)

    assert run("stop", "--reason", "late", "--stream", "ordres") == 1

    assert "refused with 422: no such stream" in capsys.readouterr().out
    shim.server.shutdown()
    shim.server.server_close()


def test_a_dry_stop_stops_nothing(monkeypatch: pytest.MonkeyPatch, shim: Shim) -> None:
    monkeypatch.setenv("TURNOUT_SHIMS", shim.url)

    assert run("stop", "--reason", "late", "--dry-run") == 0

    assert [told[0] for told in shim.told] == ["GET"]


def test_the_demo_does_not_empty_a_folder_that_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()

    assert run("demo", "--home", "precious") == 1

    assert "not emptied" in capsys.readouterr().err
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_a_refused_report_fails_the_command_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert telling.report({"state": "refused", "reasons": ("stale", "unsigned")}) == 1
    assert capsys.readouterr().out == "state: refused\nreasons: stale; unsigned\n"


def write_configuration(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "turnout.toml").write_text(text)
    monkeypatch.setenv("TURNOUT_CONFIG", str(home / "turnout.toml"))


def test_a_pause_is_tried_first_recorded_shown_and_lifted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_configuration(tmp_path / "home", monkeypatch, tiny_text)

    assert run("pause", "orders", "--reason", "stocktaking", "--actor", "ann", "--dry-run") == 0
    assert '"action": "pause"' in capsys.readouterr().out
    assert not (tmp_path / "home" / "ledger").exists()
    assert run("pause", "orders", "--reason", "stocktaking", "--actor", "ann") == 0
    assert run("pause", "orders", "--reason", "again") == 1
    assert "paused by ann: stocktaking" in capsys.readouterr().err
    assert run("pause", "orders", "--reason", "done", "--lift") == 0
    capsys.readouterr()
    assert run("history") == 0
    told = capsys.readouterr().out
    assert [word in told for word in ("pause", "resume", "stocktaking", "orders", "ann")] == [True] * 5


def test_a_revocation_is_recorded_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_configuration(tmp_path / "home", monkeypatch, tiny_text)
    assert run("revoke", "a" * 64, "--reason", "leaks names") == 0
    assert run("revoke", "a" * 64, "--reason", "again") == 1
    assert "revoked" in capsys.readouterr().err


def test_a_ledger_goes_on_above_what_a_shim_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_configuration(tmp_path / "home", monkeypatch, tiny_text)
    monkeypatch.setenv("TURNOUT_SHIMS", "http://127.0.0.1:9")
    assert run("revoke", "a" * 64, "--reason", "before the loss") == 0
    (tmp_path / "served.json").write_text(f'{{"generation": 7, "head": "{"b" * 64}"}}')

    assert run("ledger", "restore", "--reason", "disk lost", "--state-file", str(tmp_path / "served.json")) == 0
    assert "generation: 8" in capsys.readouterr().out
    assert run("ledger", "restore", "--reason", "nothing known") == 1
    assert "give --state-file" in capsys.readouterr().err


def test_securing_without_the_administrators_password_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("registry", "secure", "--trainer", "ann") == 1
    assert "set MLFLOW_AUTH_ADMIN_PASSWORD" in capsys.readouterr().err


def test_an_audit_wants_an_event_or_a_decision(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit") == 1
    assert "give an event's id, or --decision-id" in capsys.readouterr().err
    assert run("audit", "order-1") == 1
    assert "nothing was ingested yet" in capsys.readouterr().err
