"""Who may do what in MLflow: the models, roles and users that keep a trainer from approving its own work."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from models.registered import APPROVED_MODELS, CANDIDATE_MODELS, RegistryError, error_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.server.auth.client import AuthServiceClient

Role = Literal["trainer", "reviewer", "promoter"]

PASSWORD_PREFIX = "TURNOUT_PASSWORD_"  # noqa: S105 - the name of a variable, not a secret
_WORKSPACE = "default"
_EXPERIMENT = "experiment"
_MODEL = "registered_model"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One permission of a role; ``resource`` is the name of a model, or of the experiment where the runs are filed."""

    kind: Literal["experiment", "registered_model"]
    resource: str
    permission: Literal["READ", "EDIT"]


def grants(role: Role, *, experiment: str) -> tuple[Grant, ...]:
    """Return what ``role`` may do.

    A trainer files runs and registers candidates; a reviewer reads them, says that they are rejected, and approves, which
    makes a version of an approved model; a promoter writes on those versions, and on their runs, what became of them, and
    ends the runs that killed flows left.
    """
    editable = {
        "trainer": CANDIDATE_MODELS,
        "reviewer": (*APPROVED_MODELS, *CANDIDATE_MODELS),
        "promoter": APPROVED_MODELS,
    }[role]
    models = tuple(
        Grant(kind="registered_model", resource=name, permission="EDIT" if name in editable else "READ")
        for name in (*CANDIDATE_MODELS, *APPROVED_MODELS)
    )
    files = Grant(kind="experiment", resource=experiment, permission="READ" if role == "reviewer" else "EDIT")
    return (files, *models)


def password_variable(username: str) -> str:
    """Return the name of the environment variable that holds the password of a new user."""
    return PASSWORD_PREFIX + re.sub(r"[^A-Z0-9]", "_", username.upper())


def secure(
    tracking_uri: str,
    members: Mapping[Role, Sequence[str]],
    *,
    environment: Mapping[str, str] = os.environ,
    experiment: str = "turnout",
    dry_run: bool = False,
) -> list[str]:
    """Make what is missing of models, roles, users and their grants, as an administrator; return what was done, in words.

    Running it again changes nothing. Under ``dry_run`` it says what it would do. The administrator's name and password
    are those that MLflow's clients read from the environment. A user who is there keeps the password.

    Raises
    ------
    ValueError
        If a user is not there and the environment holds no password for it: names the variable.
    RegistryError
        If MLflow refuses.
    """
    office = _Office(tracking_uri, dry_run=dry_run)
    mlflow = _mlflow()
    try:
        experiment_id = office.ensure_experiment(experiment)
        for name in (*CANDIDATE_MODELS, *APPROVED_MODELS):
            office.ensure_model(name)
        for role, usernames in members.items():
            role_id = office.ensure_role(role)
            for grant in grants(role, experiment=experiment):
                office.ensure_grant(
                    role, role_id, grant, experiment_id if grant.kind == _EXPERIMENT else grant.resource
                )
            for username in usernames:
                office.ensure_user(username, environment.get(password_variable(username)))
                office.ensure_membership(username, role, role_id)
    except mlflow.exceptions.MlflowException as error:
        raise error_of(error.error_code)(f"MLflow at {tracking_uri} would not be secured: {error.message}") from error
    return office.done


class _Office:
    """The administrator's acts, each once: what is there already is left alone."""

    def __init__(self, tracking_uri: str, *, dry_run: bool) -> None:
        if not tracking_uri.startswith(("http://", "https://")):
            raise RegistryError(f"{tracking_uri} knows no users: roles are those of an MLflow server with basic-auth")
        mlflow = _mlflow()
        self._registry: MlflowClient = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
        self._auth: AuthServiceClient = mlflow.server.get_app_client("basic-auth", tracking_uri=tracking_uri)
        self._dry_run = dry_run
        self.done: list[str] = []

    def ensure_experiment(self, name: str) -> str:
        found = self._registry.get_experiment_by_name(name)
        made = None if found else self._do(f"make the experiment {name}", self._registry.create_experiment, name)
        return str(found.experiment_id if found else made)

    def ensure_model(self, name: str) -> None:
        if _find(lambda: self._registry.get_registered_model(name)) is None:
            self._do(f"make the model {name}", self._registry.create_registered_model, name)

    def ensure_role(self, role: Role) -> int:
        known = {found.name: found.id for found in self._auth.list_roles(_WORKSPACE)}
        if role in known:
            return int(known[role])
        made = self._do(f"make the role {role}", self._auth.create_role, _WORKSPACE, role)
        return int(made.id) if made else 0

    def ensure_grant(self, role: Role, role_id: int, grant: Grant, resource_id: str) -> None:
        held = self._auth.list_role_permissions(role_id) if role_id else []
        mine = [p for p in held if (p.resource_type, p.resource_pattern) == (grant.kind, resource_id)]
        told = f"{grant.permission} on the {grant.kind.replace('_', ' ')} {grant.resource} to the role {role}"
        if not mine:
            self._do(
                f"grant {told}", self._auth.add_role_permission, role_id, grant.kind, resource_id, grant.permission
            )
        elif mine[0].permission != grant.permission:
            self._do(f"change to {told}", self._auth.update_role_permission, mine[0].id, grant.permission)

    def ensure_user(self, username: str, password: str | None) -> None:
        if _find(lambda: self._auth.get_user(username)) is not None:
            self._give_up_own(username)
            return
        if not password:
            raise ValueError(f"user {username} is not there: set {password_variable(username)} to its password")
        self._do(f"make the user {username}", self._auth.create_user, username, password)

    def ensure_membership(self, username: str, role: Role, role_id: int) -> None:
        roles = _find(lambda: self._auth.list_user_roles(username)) or []
        if role not in [found.name for found in roles]:
            self._do(f"make {username} a {role}", self._auth.assign_role, username, role_id)

    def _give_up_own(self, username: str) -> None:
        """Take from a user what MLflow gives whoever created a model: to do everything with it."""
        for name in (*CANDIDATE_MODELS, *APPROVED_MODELS):
            held = _find(lambda name=name: self._auth.get_user_permission(username, _MODEL, name))  # type: ignore[misc]  # bound now
            if held is not None and held.permission == "MANAGE":
                told = f"revoke MANAGE on the model {name} from {username}"
                self._do(told, self._auth.revoke_user_permission, username, _MODEL, name)

    def _do(self, told: str, act: Callable[..., Any], *arguments: Any) -> Any:
        self.done.append(told)
        return None if self._dry_run else act(*arguments)


def _find(ask: Callable[[], Any]) -> Any:
    """Return what ``ask`` finds; None where MLflow knows no such thing."""
    try:
        return ask()
    except _mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _mlflow() -> ModuleType:
    import mlflow  # noqa: PLC0415 - takes 2.6 s
    import mlflow.server  # noqa: PLC0415

    return mlflow
