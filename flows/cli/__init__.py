"""The command line: one file per group of commands, parsing only; each is imported when it is called."""

import importlib.metadata
import logging
import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

_COMMANDS = {  # in the order in which the help shows them
    "init": ("flows.cli.beginning:init", "Write a turnout.toml from a sample of events."),
    "demo": ("flows.cli.demo:demo", "Play the whole loop on a year of real flights."),
    "up": ("flows.cli.running:up", "Start MLflow, Prefect with its worker, and the shim, on loopback."),
    "serve": ("flows.cli.running:serve", "Run the shim alone."),
    "status": ("flows.cli.running:status", "Show what runs, what is released, and what is wrong."),
    "ingest": ("flows.cli.learning:ingest", "Take decisions and outcomes into the warehouse."),
    "retrain": ("flows.cli.learning:retrain", "Fit, judge and register a router."),
    "drift": ("flows.cli.watching:drift", "Show how far a stream's world has moved from what its champion learned."),
    "forecast": ("flows.cli.learning:forecast", "Fit, judge and register a demand forecaster, or forecast anew."),
    "classifier": ("flows.cli.classifying:app", "Train and release what says what a text is about."),
    "promote": ("flows.cli.releasing:promote", "Take the next step of a promotion."),
    "lifecycle": ("flows.cli.learning:lifecycle", "Run one round of everything that goes by itself."),
    "approve": ("flows.cli.approving:approve", "Approve a registered candidate."),
    "reject": ("flows.cli.approving:reject", "Reject a registered candidate."),
    "pause": ("flows.cli.releasing:pause", "Let no canary of a stream begin, climb or win."),
    "revoke": ("flows.cli.releasing:revoke", "Forbid a release for good."),
    "audit": ("flows.cli.auditing:audit", "Show which version decided an event, and who approved it."),
    "history": ("flows.cli.releasing:history", "List the generations of the ledger."),
    "rollback": ("flows.cli.releasing:rollback", "Put an earlier champion back."),
    "verify": ("flows.cli.releasing:verify", "Check ledger and release store, byte by byte."),
    "ledger": ("flows.cli.restoring:app", "Mend a ledger that lost its newest generations."),
    "registry": ("flows.cli.securing:app", "Set up who may do what in MLflow."),
    "stop": ("flows.cli.braking:stop", "Stop the AI: every shim decides by its static routes."),
    "resume": ("flows.cli.braking:resume", "Take a stop back."),
}
_OWN_PACKAGES = frozenset({"features", "flows", "models", "scenarios", "serving", "validation"})


def build_app() -> App:
    """Return the command line."""
    app = App(name="turnout", help="Learned routing for event-driven systems.", version=_read_version)
    app.default_parameter = Parameter(negative=())  # an option says what to do, never what not to do
    for name, (path, told) in _COMMANDS.items():
        app.command(path, name=name, help=told)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 when done, 1 when not, 2 when misunderstood."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        told = build_app()(arguments, result_action="return_value")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _OWN_PACKAGES:
            raise  # a defect, or a failing machine: its traceback is what helps
        sys.stderr.write(f"turnout: {error}\n")
        sys.exit(1)
    sys.exit(told if isinstance(told, int) else 0)


def _read_version() -> str:
    return importlib.metadata.version("turnout")
