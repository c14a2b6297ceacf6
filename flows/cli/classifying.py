"""``turnout classifier``: the models that say what an event's text is about."""

from typing import Annotated

from cyclopts import App, Parameter

from flows.cli import telling

Json = Annotated[bool, Parameter(name="--json")]

app = App(name="classifier")


@app.command
def train(name: str, *, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Fit a classifier on its labelled texts, judge it on the later ones, and register it if it passed.

    Parameters
    ----------
    name
        The classifier, as configured under [classifiers].
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        Read and check the labels, and stop there.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import classify as flow

    if dry_run:
        from flows.wiring import wire

        labelled = flow.read_labels(wire(as_of), name)
        counts = {"texts": len(labelled.texts), "classes": len({*labelled.labels} - {None})}
        outside = {"out of scope": sum(label is None for label in labelled.labels)}
        return telling.report({"state": "would fit", "classifier": name, **counts, **outside}, as_json=as_json)
    return telling.report(flow.classify(name, as_of), as_json=as_json)


@app.command
def release(*, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Release the newest approval of a classifier; streams read with it from then on, routers keep the one they pin.

    Parameters
    ----------
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        Say what would be done, and change nothing.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import promote as flow
    from flows.classify import MODEL

    return telling.report(flow.release(MODEL, as_of, dry_run=dry_run), as_json=as_json)
