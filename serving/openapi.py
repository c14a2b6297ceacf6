"""The interface as an OpenAPI 3.1 document, written from the table of routes and the types that it names."""

import functools
import importlib.metadata
from typing import Any

import msgspec
from msgspec import Struct

from serving import problems, routes
from serving.intake import MAX_BATCH
from serving.routes import JSON, Route

_SCHEMAS = "#/components/schemas/{name}"
_BEARER = "token"
_REFUSALS = {
    400: "not HTTP or not JSON",
    401: "no token that is known",
    403: "a token of another role, or a foreign host name",
    404: "nothing is there",
    413: "the body is too large: nothing of it was parsed",
    415: "another content type",
    422: "JSON that is not what was asked for; the path says where",
    503: "come back after Retry-After",
}
_OF_BODIES = (413, 415, 422)


class ProblemDetails(Struct, kw_only=True):
    """A problem document of RFC 9457; ``path`` says where in the request."""

    type: str
    title: str
    status: int
    detail: str
    path: str = ""


@functools.cache
def version() -> str:
    """Return the version of this software."""
    try:
        return importlib.metadata.version("turnout")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@functools.cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(describe())


def describe() -> dict[str, Any]:
    """Return the document."""
    types = {kind for route in routes.TABLE for kind in (route.takes, route.gives) if kind is not None}
    ordered = [*sorted(types, key=lambda kind: str(kind.__name__)), ProblemDetails]
    _, components = msgspec.json.schema_components(ordered, ref_template=_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes.TABLE:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Turnout", "version": version(), "summary": "Learned routing for event-driven systems"},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {_BEARER: {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.name}_{'_'.join(filter(str.isalnum, route.pattern))}",
        "summary": route.summary,
        "responses": _responses(route),
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _schema(route.takes, route)}}}
    if route.role is not None:
        operation["security"] = [{}, {_BEARER: []}]
        operation["description"] = f"Role: {route.role}."
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    found: list[dict[str, Any]] = []
    if route.parameter is not None:
        found.append({"name": route.parameter, "in": "path", "required": True, "schema": text})
    for name, required in route.query:
        found.append({"name": name, "in": "query", "required": required, "schema": text})
    if route.tagged:
        found.append({"name": "If-None-Match", "in": "header", "schema": {"type": "string"}})
    return found


def _responses(route: Route) -> dict[str, Any]:
    answered: dict[str, Any] = {"description": route.summary}
    schema = {"type": "string"} if route.kind != JSON else {}
    answered["content"] = {route.kind: {"schema": schema if route.gives is None else _schema(route.gives, route)}}
    responses: dict[str, Any] = {str(route.status): answered}
    if route.tagged:
        responses["304"] = {"description": "the caller has that very document"}
    for status, meaning in _REFUSALS.items():
        if route.takes is None and status in _OF_BODIES and not (route.query and status == 422):  # noqa: PLR2004
            continue
        schema = {"$ref": _SCHEMAS.format(name="ProblemDetails")}
        responses[str(status)] = {"description": meaning, "content": {problems.CONTENT_TYPE: {"schema": schema}}}
    return responses


def _schema(kind: Any, route: Route) -> dict[str, Any]:
    one = {"$ref": _SCHEMAS.format(name=kind.__name__)}
    if not route.batch:
        return one
    if kind is route.gives:
        return {"anyOf": [one, {"type": "array"}]}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_BATCH}]}
