"""The import contracts hold, and a planted violation breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("features", "models", "validation", "serving", "flows", "scenarios", "benchmarks")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        ("serving/decider.py", "import duckdb\n", "The shim carries nothing of the pipeline"),
        ("features/clock.py", "import models.policy\n", "Imports point down only"),
        ("models/router.py", "import mlflow\n", "One door to MLflow"),
    ],
)
def test_a_planted_violation_breaks_its_contract(copy: Path, module: str, planted: str, contract: str) -> None:
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(planted)
    done = lint(copy)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def test_the_contracts_hold_as_things_are(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
