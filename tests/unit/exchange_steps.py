"""What the tests of an exchange begin with: a stream without a release, what its shim logged, and a disk that refuses."""

from pathlib import Path

import msgspec

from features import config, spool
from features.records import Decision, Outcome
from serving.debts import Debts
from serving.plan import Plan
from serving.view import ReleaseView

PLAN = Plan.of(
    config.parse("""
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { static_epsilon = 0.5 }
features = { numbers = { weight = "event.weight", hour = "time.hour" } }

[destinations]
a = {}
b = {}
""")
)


class Releases:
    """Nothing is released."""

    view = ReleaseView()

    def report_fault(self, digest: str, reason: str) -> None:
        raise AssertionError(f"{digest}: {reason}")

    def rejections(self) -> dict[str, str]:
        return {}


class IdleRecorder:
    """Holds nothing."""

    holding = False
    n_held = 0

    def flush(self, *, keep: bool = False) -> None:
        raise AssertionError(keep)


class IdleShim:
    """A shim that decides and records nothing, for a handler that does without."""

    def __init__(self) -> None:
        self.recorder = IdleRecorder()
        self.debts = Debts()
        self.releases = Releases()

    def reply(self, *_: object) -> None:
        return None


def records(folder: Path) -> list[Decision | Outcome]:
    lines = [line.payload for path in spool.segments(folder / "spool") for line in spool.read_lines(path)]
    assert None not in lines, "every checksum must hold"
    return [msgspec.json.decode(line, type=Decision | Outcome) for line in lines if line]


def refuse(*_: object) -> int:
    raise OSError(28, "No space left on device")
