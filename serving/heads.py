"""Heads of requests that were parsed before: a caller's differ in little more than the length of the body."""

from serving.intake import Form
from serving.messages import Request

_MAX_KNOWN, _MAX_BYTES = 1_024, 4_096  # heads, and how long one may be
_END = b"\r\n\r\n"


class KnownHeads:
    """What heads mean, by their bytes; a head means what it meant.

    ``decisions`` are those that ask for decisions in a way that the fast path may take: by their bytes twice the length of
    the body, and one more where a request is an event alone.
    """

    def __init__(self) -> None:
        """Know none."""
        self._known: dict[bytes, tuple[Request, int]] = {}
        self.decisions: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def take(self, data: bytes) -> tuple[Request, bytes] | None:
        """Return the first request of ``data`` with its body and what follows it; None where its head is not known, or it is not whole."""
        end = data.find(_END) + len(_END)
        found = self._known.get(data[:end])
        if found is None or len(data) < end + found[1]:
            return None
        (method, path, query, headers, _, trusted, opened), n_bytes = found
        body = data[end : end + n_bytes]
        return Request(method, path, query, headers, body, trusted, opened), data[end + n_bytes :]

    def learn(self, begun: bytes, request: Request, n_bytes: int, *, form: Form | None = None) -> None:
        """Remember the head that ``begun`` begins with, if it is there as a whole, and the length of the body it announces.

        ``form`` is that of the decisions it asks for, where the fast path may take them.
        """
        end = begun.find(_END) + len(_END)
        if not len(_END) < end <= _MAX_BYTES:
            return
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
            self.decisions.clear()
        self._known[begun[:end]] = request, n_bytes
        if form is not None:
            self.decisions[begun[:end]] = n_bytes << 1 | (form == "event")
