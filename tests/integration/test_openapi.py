"""What the document promises, a real shim keeps, whatever is asked of it: schemathesis against the ASGI form of the shim."""

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from serving import openapi, routes, server
from serving.asgi import Application
from serving.routes import Route
from serving.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what schemathesis imports is not ours to mend
    schemathesis = pytest.importorskip("schemathesis")

TOKEN = {"Authorization": "Bearer t"}
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { static_epsilon = 0.5 }
features = { numbers = { weight = "event.weight" } }

[destinations]
a = {}
b = {}
"""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    root = tmp_path_factory.mktemp("shim")
    (root / "turnout.toml").write_text(CONFIGURATION)
    return server.build(Settings(home=root / "home", config_path=root / "turnout.toml", host="testserver", token="t"))


@pytest.fixture(scope="module")
def schema(application: Application) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", application, headers=TOKEN)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("route", routes.TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_no_request_that_the_document_suggests_is_an_internal_error(schema: Any, route: Route) -> None:
    operation = schema[route.path][route.method]
    known = known_statuses(route.path, route.method)

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        response = case.call(headers=TOKEN)
        assert response.status_code in known, response.content

    ask()


def known_statuses(path: str, method: str) -> set[int]:
    operation = openapi.describe()["paths"][path].get(method.lower())
    return {404, 405, *(map(int, operation["responses"]) if operation else ())}


def test_every_route_of_the_table_is_in_the_document(application: Application) -> None:
    described = {(path, method) for path, of in openapi.describe()["paths"].items() for method in of}
    assert described == {(route.path, route.method.lower()) for route in routes.TABLE}
    assert {route.pattern for route in routes.TABLE} == application.handler.paths.patterns
