"""What can be wrong with a request, as RFC 9457 problem documents."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

CONTENT_TYPE = "application/problem+json"


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - the word of the RFC
    """A request that cannot be answered: status, what is wrong with it, and where in it (``path``)."""

    status: int
    detail: str
    path: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)
    _body: bytes = b""

    def document(self) -> dict[str, Any]:
        """Return the members of the problem document."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.path is not None:
            members["path"] = self.path
        return members | self.extensions

    def body(self) -> bytes:
        """Return the problem document as JSON; it is written once."""
        if not self._body:
            self._body = msgspec.json.encode(self.document())
        return self._body
