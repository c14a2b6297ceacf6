"""``turnout drift``: looks, and changes nothing; ``turnout lifecycle`` acts on what it sees."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from flows.cli import telling


def drift(stream: str, *, as_of: str | None = None, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Compare what was decided lately with what the champion was fitted on: features, and predictions with outcomes.

    Parameters
    ----------
    stream
        The stream to look at.
    as_of
        The instant to look at (RFC 3339); default is now.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import watch
    from flows.wiring import wire

    verdict = watch.look(wire(as_of), stream)
    if as_json:
        return telling.report(asdict(verdict), as_json=True)
    sizes = {"training decisions": verdict.n_reference, "recent decisions": verdict.n_recent}
    told = telling.report({"state": verdict.state, "reasons": verdict.reasons, **sizes})
    if verdict.features:
        columns = ("feature", "PSI", "by chance", "limit of chance", "JS distance", "drifted")
        rows = (
            (f.column, f.psi, f.expected_psi, f.critical_psi, f.js_distance, "yes" if f.drifted else "")
            for f in verdict.features
        )
        telling.table(columns, rows)
    return told
