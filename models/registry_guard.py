"""The app that MLflow's server runs (``mlflow server --app-name turnout``): its basic-auth, and the name of who approves.

It stands between the server's routes and its store, so that every way in passes it: the REST interface, the pages, and
whatever else the server answers.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Response, g, has_request_context
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.server import app as flask_app
from mlflow.server import auth, handlers

from models import stamping
from models.registered import APPROVED_MODELS, GUARD_HEADER, copied_from
from models.stamping import GUARDED_MODELS, StampError


def create_app(app: Any = flask_app) -> Any:
    """Return MLflow's app with basic-auth, whose registry stamps and keeps the approvers of `APPROVED_MODELS`."""
    served = auth.create_app(app)
    guard(handlers._get_model_registry_store(), user=_user, is_admin=_is_admin)  # noqa: SLF001 - MLflow is locked, and has no public door to it
    app.after_request(_announce)
    return served


def guard(store: Any, *, user: Callable[[], str], is_admin: Callable[[str], bool]) -> None:
    """Let the registry ``store`` of a server say who approved, and let nobody but an admin make or rename a guarded model."""
    create_version, set_tag = store.create_model_version, store.set_model_version_tag
    delete_tag, create_model, rename = (
        store.delete_model_version_tag,
        store.create_registered_model,
        store.rename_registered_model,
    )

    def create_model_version(
        name: str, source: str, run_id: str | None = None, tags: Iterable[Any] | None = None, *rest: Any, **more: Any
    ) -> Any:
        given = {tag.key: tag.value for tag in tags or ()}
        if (
            name in APPROVED_MODELS and "description" in more
        ):  # the page copies tags, and forgets what the reviewer read
            more["description"] = more["description"] or _description(store, source)
        said = _or_refuse(_stamp, store, name, source, given, user)
        return create_version(name, source, run_id, [_tag(*pair) for pair in said.items()], *rest, **more)

    def set_model_version_tag(name: str, version: str, tag: Any) -> None:
        value = _or_refuse(
            stamping.stamp_remark, name, tag.key, tag.value, user=user() if name in GUARDED_MODELS else ""
        )
        set_tag(name, version, _tag(tag.key, value))

    def delete_model_version_tag(name: str, version: str, key: str) -> None:
        _or_refuse(stamping.check_removal, name, key)
        delete_tag(name, version, key)

    def create_registered_model(name: str, *rest: Any, **more: Any) -> Any:
        if name in GUARDED_MODELS and not is_admin(user()) and not _is_there(store, name):
            raise _denied(f"{name} is made by an administrator: turnout registry secure")
        return create_model(name, *rest, **more)

    def rename_registered_model(name: str, new_name: str) -> Any:
        if {name, new_name}.intersection(GUARDED_MODELS):
            raise _denied(f"{name} does not become {new_name}: the names of guarded models stay")
        return rename(name, new_name)

    for method in (
        create_model_version,
        set_model_version_tag,
        delete_model_version_tag,
        create_registered_model,
        rename_registered_model,
    ):
        setattr(store, method.__name__, method)


def _stamp(store: Any, name: str, source: str, tags: dict[str, str], user: Callable[[], str]) -> dict[str, str]:
    if name not in GUARDED_MODELS:
        return tags
    if name not in APPROVED_MODELS:
        return stamping.stamp_candidate(tags, user=user())
    model, number = copied_from(source) or (None, 0)
    candidate = {} if model is None else dict(store.get_model_version(model, number).tags)
    return stamping.stamp_approval(name, tags, copied_from=model, candidate_tags=candidate, user=user())


def _description(store: Any, source: str) -> str:
    model, number = copied_from(source) or (None, 0)
    return "" if model is None else store.get_model_version(model, number).description or ""


def _or_refuse(rule: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    try:
        return rule(*arguments, **more)
    except StampError as error:
        raise _denied(str(error)) from None


def _tag(name: str, value: str) -> Any:
    return ModelVersionTag(name, value)  # type: ignore[no-untyped-call]  # MLflow's


def _denied(message: str) -> MlflowException:
    return MlflowException(message, error_code=PERMISSION_DENIED)


def _is_there(store: Any, name: str) -> bool:
    try:
        store.get_registered_model(name)
    except MlflowException:
        return False
    return True


def _user() -> str:
    """Return who was authenticated for the request under way; without one, nothing is written."""
    user = g.get("mlflow_authenticated_user") if has_request_context() else None
    if not user:
        raise _denied("nobody was authenticated for this request")
    return str(user)


def _is_admin(username: str) -> bool:
    return bool(auth.store.get_user(username).is_admin)


def _announce(response: Response) -> Response:
    """Say in every answer whose approvers this server vouches for."""
    response.headers[GUARD_HEADER] = ",".join(APPROVED_MODELS)
    return response
