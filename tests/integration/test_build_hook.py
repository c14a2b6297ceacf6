import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / ".ci" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder, sources in (("models", "*.c"), ("models/native", "*"), ("serving", "*.c"), ("serving/native", "*")):
        (tmp_path / folder).mkdir()
        for source in (ROOT / folder).glob(sources):
            shutil.copy(source, tmp_path / folder)
    return tmp_path


class App:
    """What hatchling gives a hook to speak with."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, message: str) -> None:
        self.warnings.append(message)


def build(hook: ModuleType, root: Path, target: str = "wheel") -> tuple[dict[str, Any], list[str]]:
    app, data = App(), {"artifacts": [], "pure_python": True}
    made = hook.BuildHook(str(root), {}, None, None, str(root), target, app)
    made.initialize("standard", data)
    return data, app.warnings


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no compiler is here")
def test_a_wheel_takes_the_product_along_and_says_for_which_platform(hook: ModuleType, tree: Path) -> None:
    data, warnings = build(hook, tree)
    assert warnings == []
    assert data["artifacts"] == [
        "/models/_masks.abi3.so",
        "/models/_scorer.abi3.so",
        "/serving/_keys.abi3.so",
        "/serving/_fast_path.abi3.so",
    ]
    assert not data["pure_python"]
    assert data["tag"].startswith("cp311-abi3-")
    program = (
        "import _fast_path, _keys, _masks, _scorer; "
        "print(_masks.Masks.__name__, _scorer.Scorer.__name__, _keys.may_repeat(b'{}'), _fast_path.digits(0.1))"
    )
    path = os.pathsep.join([str(tree / "models"), str(tree / "serving")])
    ran = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "Masks Scorer False b'0.1'\n"


def test_without_a_compiler_the_installation_goes_on_and_an_older_product_is_gone(
    hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "models" / "_masks.abi3.so").write_bytes(b"of another machine")
    monkeypatch.setenv("PATH", "")
    data, warnings = build(hook, tree)
    assert warnings == ["what could be in C stays in numpy and Python: no C compiler is there"]
    assert data == {"artifacts": [], "pure_python": True}
    assert not (tree / "models" / "_masks.abi3.so").exists()


def test_a_compiler_that_fails_is_quoted_in_one_line(hook: ModuleType, tree: Path) -> None:
    (tree / "serving" / "keys.c").write_text("#error not today\n")
    _, (warning,) = build(hook, tree)
    assert not (tree / "models" / "_masks.abi3.so").exists()  # all of it or nothing
    assert "not today" in warning or "no C compiler" in warning
    assert "\n" not in warning


def test_a_source_distribution_compiles_nothing(hook: ModuleType, tree: Path) -> None:
    assert build(hook, tree, target="sdist") == ({"artifacts": [], "pure_python": True}, [])
    assert not (tree / "models" / "_masks.abi3.so").exists()
