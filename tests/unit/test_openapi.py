import json
from typing import Any

import jsonschema

from serving import openapi, routes


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_the_document_is_whole() -> None:
    document = json.loads(openapi.document())
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    assert {name.rpartition("/")[2] for name in references(document)} <= schemas.keys()
    for name in schemas:
        jsonschema.Draft202012Validator.check_schema({**document, "$ref": f"#/components/schemas/{name}"})
    operations = [of["operationId"] for path in document["paths"].values() for of in path.values()]
    assert len(operations) == len(set(operations)) == len(routes.TABLE)


def test_what_is_not_public_says_its_role_and_that_a_token_may_be_needed() -> None:
    document = json.loads(openapi.document())
    for route in routes.TABLE:
        operation = document["paths"][route.path][route.method.lower()]
        assert ("security" in operation) == (route.role is not None)
        assert route.role is None or route.role in operation["description"]


def test_the_public_routes_are_the_probes_and_no_other() -> None:
    probes = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
    assert probes == routes.PUBLIC_PATHS
