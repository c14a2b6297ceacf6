"""``turnout registry``: who may do what in MLflow."""

import os
import sys

from cyclopts import App

from flows.cli import telling

app = App(name="registry")


@app.command
def secure(
    *,
    trainer: list[str] | None = None,
    reviewer: list[str] | None = None,
    promoter: list[str] | None = None,
    dry_run: bool = False,
) -> int:
    """Make the models, roles and users of an MLflow with basic-auth; running it again changes nothing.

    It acts as the administrator of ``MLFLOW_AUTH_ADMIN_USERNAME`` (default ``admin``) and ``MLFLOW_AUTH_ADMIN_PASSWORD``. The
    password of a new user NAME is read from ``TURNOUT_PASSWORD_NAME``.

    Parameters
    ----------
    trainer
        A user who registers candidates; may be given several times, as the others.
    reviewer
        A user who approves them.
    promoter
        A user who releases what was approved.
    dry_run
        Say what would be done, and change nothing.
    """
    settings = telling.attach()
    if settings.mlflow_admin is None:
        raise telling.UsageError("set MLFLOW_AUTH_ADMIN_PASSWORD to the administrator's password")
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.mlflow_admin
    from models import registry_roles

    done = registry_roles.secure(
        settings.tracking_uri,
        {"trainer": trainer or [], "reviewer": reviewer or [], "promoter": promoter or []},
        dry_run=dry_run,
    )
    sys.stdout.writelines(f"{'would ' if dry_run else ''}{told}\n" for told in done or ["all of it is there already"])
    return 0
