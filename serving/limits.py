"""What one caller may take of the shim before it is cut, and all callers together before more are told to come back."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of one worker; sizes hold before anything is parsed.

    ``head_seconds`` counts from the first byte of a request (or from the connection), ``body_seconds`` from the end of its
    head, ``write_seconds`` from the moment that a reader has ``max_unread_bytes`` outstanding. ``max_in_flight`` counts
    requests whose body is on its way or that wait for their turn; ``max_bodies_bytes`` what is held of all bodies that are
    not whole yet. ``turn_requests`` is how many requests are decided between two looks at the sockets, and after ``turn_seconds``
    none is begun: what is refused waits for no more than these.
    """

    max_body_bytes: int = 4 * 1024 * 1024
    max_head_bytes: int = 64 * 1024
    max_headers: int = 100
    max_connections: int = 4_096
    max_in_flight: int = 512
    max_pipelined: int = 256  # of one connection
    max_bodies_bytes: int = 64 * 1024 * 1024
    max_unread_bytes: int = 1024 * 1024
    turn_requests: int = 32
    turn_seconds: float = 0.002
    head_seconds: float = 8.0
    body_seconds: float = 8.0
    write_seconds: float = 8.0
    keep_alive_seconds: float = (
        75.0  # longer than the minute after which brokers' pools drop an idle connection themselves
    )
    linger_seconds: float = 2.0  # how long a refused body is read and thrown away, so that its sender hears why
    drain_seconds: float = 5.0
    look_seconds: float = 0.5  # between two looks at the clocks of all connections
