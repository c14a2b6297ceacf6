"""``python -m serving [--replay] [--workers N]``: the shim, from its environment alone."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from features.config import ConfigurationError
from serving import server, settings, workers
from serving.settings import SettingsError


def main(arguments: Sequence[str]) -> int:
    """Serve; return 2, after saying why, where the environment or the configuration cannot be used."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m serving", description="The shim, from its environment.")
    parser.add_argument("--replay", action="store_true", help="let requests bring their own time")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
    wished = parser.parse_args(arguments)
    try:
        chosen = settings.read()
        chosen = replace(chosen, replay=chosen.replay or wished.replay)
        return run(chosen, n_workers=wished.workers)
    except (SettingsError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return workers.UNUSABLE


def run(chosen: settings.Settings, *, n_workers: int) -> int:
    """Serve in this process, or in ``n_workers`` of its own.

    Raises
    ------
    SettingsError, ConfigurationError
        Where the number, the port or the configuration cannot be used.
    """
    if n_workers < 1:
        raise SettingsError(f"workers must be at least 1, got {n_workers}")
    try:
        if n_workers > 1:
            return workers.supervise(chosen, n_workers)
        server.serve(chosen)
    except OSError as error:
        raise SettingsError(f"TURNOUT_PORT {chosen.port} cannot be listened on: {error}") from None
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
