import itertools

import pytest

from serving.access import ROLES, Door, Role
from serving.problems import Problem

TOKENS: dict[Role, str] = {"decide": "d-token", "operate": "o-token"}


def outcome(door: Door, role: Role | None, **headers: str) -> int:
    try:
        door.admit(headers, role)
    except Problem as problem:
        return problem.status
    return 200


def test_s18_each_token_opens_its_role_and_no_other() -> None:
    door = Door(host="127.0.0.1", tokens=TOKENS)
    for role, token in itertools.product(ROLES, TOKENS):
        expected = 200 if role == token else 403
        assert outcome(door, role, authorization=f"Bearer {TOKENS[token]}") == expected
    assert outcome(door, "decide", authorization="d-token") == 401
    assert outcome(door, "read") == 401, "a role without a token is closed, not open"
    assert outcome(door, None) == 200


def test_the_master_opens_everything() -> None:
    door = Door(host="127.0.0.1", master="m", tokens=TOKENS)
    assert [outcome(door, role, authorization="Bearer m") for role in ROLES] == [200] * 4
    assert outcome(door, "decide", authorization="Bearer d-token") == 200
    assert outcome(door, "read", authorization="Bearer d-token") == 403


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer \xff", "Bearer d-toke", "bearer d-token", "Bearer d-token "])
def test_what_is_nearly_a_token_is_none(given: str) -> None:
    assert outcome(Door(host="h", tokens=TOKENS), "decide", authorization=given) == 401


def test_every_token_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(b) or a == b)
    for token in (*TOKENS.values(), "neither"):
        compared.clear()
        outcome(Door(host="h", tokens=TOKENS), "decide", authorization=f"Bearer {token}")
        assert len(compared) == 2
