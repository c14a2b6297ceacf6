"""``python -m serving [--replay]``: the shim, from its environment alone."""

import logging
import sys
from dataclasses import replace

from features.config import ConfigurationError
from serving import server, settings
from serving.settings import SettingsError


def main(arguments: list[str]) -> int:
    """Serve; return 2, after saying why, where the environment or the configuration cannot be used."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    unknown = [argument for argument in arguments if argument != "--replay"]
    if unknown:
        sys.stderr.write(f"the only option is --replay, got {' '.join(unknown)}\n")
        return 2
    try:
        chosen = settings.read()
        server.serve(replace(chosen, replay=chosen.replay or "--replay" in arguments))
    except (SettingsError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
