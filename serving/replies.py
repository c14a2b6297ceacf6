"""Responses as the bytes of HTTP/1.1; what is the same in many of them is written once."""

from email.utils import formatdate
from http import HTTPStatus

from serving.heads import KnownHeads
from serving.messages import Response

_MAX_HEADS = 256
_NOT_MODIFIED = int(HTTPStatus.NOT_MODIFIED)  # a member of an enumeration is found slowly


class Replies:
    """Encodes responses. ``tick`` must be called about once a second: it sets the clock of their date.

    ``heads`` are those that were parsed before, of all connections; ``decided`` is the head of a reply to a decision, up to the
    length of its body.
    """

    def __init__(self) -> None:
        """Begin now."""
        self.heads = KnownHeads()
        self._heads: dict[tuple[int, tuple[tuple[str, str], ...]], bytes] = {}
        self.tick()

    def tick(self) -> None:
        """Take the time."""
        self._date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self.decided = b"%b%bcontent-length: " % (self._head(Response(200)), self._date)

    def encode(self, response: Response, *, closing: bool = False, headless: bool = False) -> bytes:
        """Return the bytes of ``response``; ``closing`` says that none follows, ``headless`` is the answer to a HEAD."""
        head = self._heads.get((response.status, response.headers)) or self._head(response)
        end = b"connection: close\r\n\r\n" if closing else b"\r\n"
        if response.status == _NOT_MODIFIED:
            return b"%b%b%b" % (head, self._date, end)
        body = b"" if headless else response.body
        return b"%b%bcontent-length: %d\r\n%b%b" % (head, self._date, len(response.body), end, body)

    def _head(self, response: Response) -> bytes:
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"]
        # Whether the connection ends is the connection's to say.
        lines += [f"{name}: {_visible(value)}\r\n" for name, value in response.headers if name != "connection"]
        head = "".join(lines).encode("latin-1", "replace")
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[response.status, response.headers] = head
        return head


def _visible(value: str) -> str:
    """Return a header's value without what could end it: nobody's input may begin a line of its own."""
    return "".join(character if " " <= character != "\x7f" else " " for character in value)
