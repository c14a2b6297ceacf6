"""Other ways to serve the same booster: FastAPI with one thread, ``mlflow models serve``, and those with an environment of their own."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import loading, shim_world
from benchmarks.loading import Server
from benchmarks.shim_world import World

_APPLICATION = '''
"""The plainest server there is: JSON in, one thread of LightGBM, JSON out."""
import lightgbm
import numpy
from fastapi import FastAPI

booster = lightgbm.Booster(model_file={model!r})
app = FastAPI()


@app.get("/health")
async def health() -> dict:
    return {{}}


@app.post("/score")
async def score(question: dict) -> dict:
    matrix = numpy.array(question["inputs"], dtype=float)
    return {{"predictions": booster.predict(matrix, num_threads=1).tolist()}}
'''

_SERVICE = """
import bentoml
import lightgbm
import numpy as np


@bentoml.service(workers=1, logging={{"access": {{"enabled": False}}}})
class Router:
    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file={model!r})

    @bentoml.api
    def score(self, matrix: list[list[float]]) -> list[float]:
        return self.booster.predict(np.array(matrix), num_threads=1).tolist()
"""
_SAVING = """
import sys
import lightgbm
import mlflow.lightgbm
mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2], pip_requirements=["lightgbm"])
"""


def available(world: World, folder: Path, peers_venv: Path | None) -> tuple[dict[str, tuple[Server, bytes]], list[str]]:
    """Return the peers that can be started, each with its request, and the names of those that are absent."""
    makers: dict[str, Callable[[World, Path], tuple[Server, bytes] | None]] = {"fastapi": _fastapi, "mlflow": _mlflow}
    found, absent = {}, []
    for name, make in makers.items():
        made = make(world, folder)
        if made is None:
            absent.append(name)
        else:
            found[name] = made
    for name, make_apart in (("mlserver", _mlserver), ("bentoml", _bentoml)):
        made = None if peers_venv is None else make_apart(world, folder, peers_venv)
        if made is None:
            absent.append(name)
        else:
            found[name] = made
    return found, absent


def _fastapi(world: World, folder: Path) -> tuple[Server, bytes] | None:
    if not (importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn")):
        return None
    (folder / "peer_fastapi.py").write_text(_APPLICATION.format(model=str(_model(world))))
    port = loading.free_port()
    command = [sys.executable, "-m", "uvicorn", "peer_fastapi:app", "--port", str(port), "--no-access-log"]
    environment = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    server = Server("fastapi", [*command, "--log-level", "error"], port, environment, health="/health")
    return server, shim_world.request("/score", {"inputs": world.matrix})


def _mlflow(world: World, folder: Path) -> tuple[Server, bytes] | None:
    if not importlib.util.find_spec("mlflow"):
        return None
    path = folder / "mlflow-model"
    # In a process of its own, as a peer's server is: here only the registry knows MLflow.
    command = [sys.executable, "-c", _SAVING, str(_model(world)), str(path)]
    subprocess.run(command, check=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, capture_output=True)  # noqa: S603
    port = loading.free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(path), "-p", str(port)]
    path_variable = os.pathsep.join(
        (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    )  # it looks for uvicorn
    environment = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": path_variable,
    }
    server = Server("mlflow", [*command, "--env-manager", "local", "--workers", "1"], port, environment, health="/ping")
    return server, shim_world.request("/invocations", {"inputs": world.matrix})


def _mlserver(world: World, folder: Path, venv: Path) -> tuple[Server, bytes] | None:
    program = venv / "bin" / "mlserver"
    if not program.exists():
        return None
    home = folder / "mlserver"
    home.mkdir()
    port = loading.free_port()
    settings: dict[str, Any] = {
        "http_port": port,
        "grpc_port": loading.free_port(),
        "metrics_port": loading.free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    (home / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "router",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(_model(world)), "version": "1"},
    }
    (home / "model-settings.json").write_text(json.dumps(model))
    flat = [value for row in world.matrix for value in row]
    tensor = {"name": "x", "shape": [len(world.matrix), 30], "datatype": "FP64", "data": flat}
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    server = Server("mlserver", [str(program), "start", str(home)], port, environment, health="/v2/models/router/ready")
    return server, shim_world.request("/v2/models/router/infer", {"inputs": [tensor]})


def _bentoml(world: World, folder: Path, venv: Path) -> tuple[Server, bytes] | None:
    program = venv / "bin" / "bentoml"
    if not program.exists():
        return None
    home = folder / "bentoml"
    home.mkdir()
    (home / "peer_bentoml.py").write_text(_SERVICE.format(model=str(_model(world))))
    port = loading.free_port()
    command = [str(program), "serve", "peer_bentoml:Router", "--port", str(port), "--working-dir", str(home)]
    environment = {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(home / "home")}
    server = Server("bentoml", command, port, environment, health="/readyz")
    return server, shim_world.request("/score", {"matrix": world.matrix})


def _model(world: World) -> Path:
    return next(iter(sorted(world.bundles[0].glob("success_probability*.txt"))))
