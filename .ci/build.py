"""Builds what has a form in C where there is a compiler; where there is none, numpy and Python do the same work."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PRODUCTS = {
    Path("models/native/masks.c"): Path("models/_masks.abi3.so"),
    Path("models/native/scorer.c"): Path("models/_scorer.abi3.so"),
    Path("serving/keys.c"): Path("serving/_keys.abi3.so"),
    Path("serving/native/fast_path.c"): Path("serving/_fast_path.abi3.so"),
}
LIMITED_API = "0x030B0000"  # one build serves Python 3.11 and everything after it
FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-ffp-contract=off", f"-DPy_LIMITED_API={LIMITED_API}")


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]  # it is generic in its configuration, which we have not
    """Compiles in the source tree, so that an editable installation finds the product as a wheel does."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build before hatchling collects the files; say in one line why not, and go on."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        remove(root)  # one of another machine would be taken for ours
        if reason := compile_all(root):
            remove(root)
            self.app.display_warning(f"what could be in C stays in numpy and Python: {reason}")
            return
        build_data["artifacts"].extend(f"/{product.as_posix()}" for product in PRODUCTS.values())
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def remove(root: Path) -> None:
    """Remove every product under ``root``."""
    for product in PRODUCTS.values():
        (root / product).unlink(missing_ok=True)


def compile_all(root: Path) -> str:
    """Compile under ``root``; return why it could not be done, nothing where it was."""
    if sys.platform == "win32":
        return "not built on Windows"
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "no C compiler is there"
    include = Path(sysconfig.get_paths()["include"])
    if not (include / "Python.h").exists():
        return "Python's headers are not there"
    link = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-lm",)
    for source, product in PRODUCTS.items():
        command = [compiler, *FLAGS, f"-I{include}", str(source), "-o", str(product), *link]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - the system's compiler
        if done.returncode:
            return f"{Path(compiler).name} failed: {(done.stderr.strip().splitlines() or ['without a word'])[0]}"
    return ""
