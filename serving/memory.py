"""What the shim remembers of its recent decisions: where in the spool each one lies, in sixteen bytes apiece where C was built."""

from typing import Protocol

try:
    from serving import _fast_path
except ImportError:  # no compiler at the installation
    _fast_path = None  # type: ignore[assignment]  # looked at before its use


class Memory(Protocol):
    """A bounded map from a mark (`identity.fingerprint`) to a place in the spool; the longest unused are forgotten first."""

    def __len__(self) -> int: ...

    def remember(self, mark: int, place: int, /) -> None:
        """Remember that the decision of ``mark`` lies at ``place``."""

    def place(self, mark: int, /) -> int | None:
        """Return where the decision of ``mark`` lies, None when it is not remembered."""


def of_capacity(capacity: int) -> Memory:
    """Return a memory of at most ``capacity`` decisions, at the least half of that many.

    Raises
    ------
    ValueError
        If the capacity is below 2.
    """
    return DecisionMemory(capacity) if _fast_path is None else _fast_path.Marks(capacity)


def keep_little() -> None:
    """Let this process give memory back that a large request took, where C was built; to be called before threads are started."""
    if _fast_path is not None:
        _fast_path.keep_little()


class DecisionMemory:
    """The memory in Python.

    Two generations of a dictionary stand in for a linked list: when the young one is full it becomes the old one, and
    what was old is dropped. What is asked for moves to the young. So at least half of ``capacity`` is always known,
    in constant time and without a lock: all callers share one thread.
    """

    def __init__(self, capacity: int) -> None:
        """Remember at most ``capacity`` places, at the least half of that many.

        Raises
        ------
        ValueError
            If the capacity is below 2.
        """
        if capacity < 2:  # noqa: PLR2004 - two generations need a place each
            raise ValueError(f"capacity must be at least 2, got {capacity}")
        self._half = capacity // 2
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._young) + sum(mark not in self._young for mark in self._old)

    def remember(self, mark: int, place: int, /) -> None:
        """Remember that the decision of ``mark`` lies at ``place``."""
        self._young[mark] = place
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}

    def place(self, mark: int, /) -> int | None:
        """Return where the decision of ``mark`` lies, None when it is not remembered."""
        if (place := self._young.get(mark)) is not None:
            return place
        if (place := self._old.pop(mark, None)) is not None:
            self.remember(mark, place)
        return place
