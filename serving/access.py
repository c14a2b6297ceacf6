"""Who may ask what: a token per role, compared in constant time; without any, whoever is on this machine and says so."""

import hmac
from collections.abc import Mapping
from typing import Literal, get_args

from serving.problems import Problem

Role = Literal["decide", "report", "operate", "read"]

ROLES: tuple[Role, ...] = get_args(Role)
_ALL = frozenset(ROLES)
_NONE: frozenset[Role] = frozenset()
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Door:
    """Admits requests by their headers.

    Once any token is set every role needs one: a role without a token of its own opens to the ``master`` alone.
    """

    def __init__(self, *, host: str, master: str | None = None, tokens: Mapping[Role, str] | None = None) -> None:
        """Guard the shim that is called ``host``; ``master`` opens everything, ``tokens`` a role each."""
        keys = [(token, frozenset({role})) for role, token in (tokens or {}).items()]
        keys += [(master, _ALL)] if master else []
        self._keys = tuple((f"Bearer {token}".encode(), roles) for token, roles in keys)
        self._names = _LOOPBACK_NAMES | {host.lower()}

    def admit(self, headers: Mapping[str, str], role: Role | None) -> None:
        """Let pass who has ``role``; None is everybody's.

        Raises
        ------
        Problem
            401 without a token that is known, 403 where it is another role's, or where nobody has a token and the
            request calls this machine by a foreign name, as a web page may that was lured here.
        """
        if role is None:
            return
        if not self._keys:
            self._check_name(headers.get("host", "localhost"))
            return
        roles = self._roles(_given(headers))
        if not roles:
            raise _unknown()
        if role not in roles:
            raise Problem(403, f"the token is not one of role {role!r}")

    def admit_anyone(self, headers: Mapping[str, str]) -> None:
        """Let pass who has any role at all; raises as `admit` does."""
        if not self._keys:
            self._check_name(headers.get("host", "localhost"))
        elif not self._roles(_given(headers)):
            raise _unknown()

    def _roles(self, given: bytes) -> frozenset[Role]:
        """Return what ``given`` opens, in a time that does not depend on which token it is, or nearly is."""
        found = _NONE
        for key, roles in self._keys:
            if hmac.compare_digest(given, key):
                found |= roles
        return found

    def _check_name(self, host: str) -> None:
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._names:
            raise Problem(403, f"the host {host!r} is not this shim's")


def _given(headers: Mapping[str, str]) -> bytes:
    return headers.get("authorization", "").encode("utf-8", "surrogateescape")


def _unknown() -> Problem:
    return Problem(401, "the request needs a token: authorization: Bearer …")
