"""``turnout ingest``, ``retrain``, ``forecast`` and ``lifecycle``: the flows that learn."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli import telling

Json = Annotated[bool, Parameter(name="--json")]


def ingest(*sources: str, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Take decisions and outcomes into the warehouse; running it twice equals running it once.

    Parameters
    ----------
    sources
        Files or folders (spool, CSV, Parquet, JSON Lines, CloudEvents), and streams (nats://HOST:PORT/STREAM); default is the
        shims' spool, and the stream of outcomes where TURNOUT_NATS_URL is set.
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        List the files, and take in nothing.
    as_json
        Print JSON.
    """
    from features.message_reader import is_address

    settings = telling.attach()
    if dry_run:
        roots = [Path(source) for source in sources or settings.outcome_sources if not is_address(source)]
        files = [f for root in roots for f in ([root] if root.is_file() else sorted(root.rglob("*"))) if f.is_file()]
        telling.table(("file", "bytes"), ((file, file.stat().st_size) for file in files))
        return 0
    from flows import ingest as flow

    wanted = [source if is_address(source) else str(Path(source).absolute()) for source in sources]
    return telling.report(flow.ingest(wanted, as_of), as_json=as_json)


def retrain(stream: str, *, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Fit a router on what is closed, judge it against the champion, and register it if it passed.

    Parameters
    ----------
    stream
        The stream whose router to fit.
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        Count the rows that it would be fitted on, and stop there.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import retrain as flow

    if dry_run:
        from flows.wiring import wire

        wired = wire(as_of)
        rows = flow.read_rows(wired, stream, wired.snapshot())
        return telling.report({"state": "would fit", "rows": rows.table.num_rows, **rows.left_out}, as_json=as_json)
    return telling.report(flow.retrain(stream, as_of), as_json=as_json)


def forecast(*, refresh: bool = False, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Fit a demand forecaster, judge it against its baselines, and register it if it passed.

    Parameters
    ----------
    refresh
        Forecast anew with the forecaster that is released, instead.
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        Read the loads, and stop there.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import forecast as flow

    if dry_run:
        from flows.wiring import wire

        panel = flow.read_loads(wire(as_of))
        return telling.report({"state": "would fit", "series": list(panel.series)}, as_json=as_json)
    return telling.report(flow.forecast(as_of, refresh=refresh), as_json=as_json)


def lifecycle(*, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Ingest, take the next step of every promotion, keep the released forecast fresh, retrain where drift asks for it.

    Parameters
    ----------
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        Only say which steps every promotion would take.
    as_json
        Print JSON.
    """
    telling.attach()
    if dry_run:
        from flows import promote as promotion
        from flows.wiring import wire

        streams = wire(as_of).configuration.streams
        steps = {f"promote {name}": promotion.promote(name, as_of, dry_run=True)["state"] for name in streams}
        return telling.report({"state": "would run", **steps}, as_json=as_json)
    from flows import lifecycle as flow

    return telling.report(flow.lifecycle(as_of), as_json=as_json)
