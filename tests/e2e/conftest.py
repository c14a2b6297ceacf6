"""The whole stack, real: MLflow, Prefect with its worker and deployments, and the shim, on ports of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.components import Ports
from flows.settings import Settings
from flows.stack import Stack


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """Return an empty home beside the tiny world's configuration."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "turnout.toml").write_text(tiny_text)
    return folder / "home"


@pytest.fixture(scope="session")
def stack_settings(home: Path) -> Settings:
    """Return the settings of that home."""
    return Settings(
        home=home,
        config_path=home.parent / "turnout.toml",
        tracking_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        shim_urls=(),
    )


@pytest.fixture(scope="module")
def stack(stack_settings: Settings) -> Iterator[Stack]:
    """Start everything; it is stopped when the module's last test is done: its schedules would go on beside the others."""
    with Stack(stack_settings, ports=Ports(mlflow=0, prefect=0, shim=0)) as running:
        yield running
