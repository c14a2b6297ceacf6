"""``turnout init``: from a sample of events to a first configuration."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def init(
    sample: Path,
    *,
    output: Path = Path("turnout.toml"),
    destinations: Annotated[tuple[str, ...], Parameter(name="--destination")] = (),
    dry_run: bool = False,
) -> int:
    """Write a turnout.toml from a sample of events; an existing file is never overwritten.

    Parameters
    ----------
    sample
        JSON Lines of CloudEvents or of decision requests.
    output
        The file to write.
    destinations
        Where events may go; for samples that name no candidates.
    dry_run
        Print the configuration and write nothing.
    """
    from features import starter

    text = starter.draft(sample, destinations=destinations)
    if dry_run:
        sys.stdout.write(text)
        return 0
    starter.write(output, text)
    sys.stdout.write(f"{output} is written: read it, then `turnout serve`.\n")
    return 0
