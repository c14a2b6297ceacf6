"""Loads a model in a process that may die of it, and checks it against its golden rows: ``python -m serving.probe FOLDER``."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from models import content, router
from models.releases.bundle import MANIFEST_FILE, Manifest

TIMEOUT_SECONDS = 30.0
MAX_OUTPUT_BYTES = 1024 * 1024
MEMORY_BYTES = 4 * 1024**3  # of address space, most of which a model never touches

_LAST_WORDS_BYTES = 4_096


class ProbeFailedError(ValueError):
    """A model that killed, stopped or failed the process that tried it."""


def try_out(folder: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Load the router or classifier in the sealed ``folder`` in a child process.

    Raises
    ------
    ProbeFailedError
        Saying how the child ended.
    """
    command = [sys.executable, "-m", "serving.probe", str(folder)]
    here = str(Path(__file__).resolve().parents[1])  # the child finds the packages wherever it is started
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryFile() as said:  # a file of limited size: a model gone mad may write without end
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and module
                command, stdout=subprocess.DEVNULL, stderr=said, timeout=timeout_seconds, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            raise ProbeFailedError(f"no answer within {timeout_seconds:g} s") from None
        said.seek(max(0, said.tell() - _LAST_WORDS_BYTES))
        words = said.read().decode(errors="replace").strip().splitlines()
    if done.returncode < 0:
        raise ProbeFailedError(f"killed the probe with signal {-done.returncode}")
    if done.returncode:
        raise ProbeFailedError(words[-1] if words else f"the probe ended with {done.returncode}")


def main(folder: str) -> None:
    """Check one folder, within limits: a mutated model may ask for all there is."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES))
    manifest = msgspec.json.decode((Path(folder) / MANIFEST_FILE).read_bytes(), type=Manifest)
    (content if manifest.kind == content.KIND else router).probe(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
