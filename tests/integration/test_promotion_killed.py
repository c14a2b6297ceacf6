"""P13: a promotion that is killed at any of its named points, twenty times each, is resumed: never none, never two champions."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.releases import bundle, ledger, store
from models.releases.ledger import Ledger
from models.releases.store import Store
from validation.trust import STATIC, Approval

REPOSITORY = Path(__file__).parents[2]
N_DEATHS = 20
SECOND = [f"{point}/2" for point in ledger.FAILPOINTS]  # an admission begins the ledger, and then the canary
AT = datetime(2026, 1, 1, tzinfo=UTC)

# Imports once, then forks a mortal per line it reads: home, step ("admit" or "promote") and the point to die at ("" for none).
NURSERY = """
import json, os, signal, sys
from datetime import datetime
from pathlib import Path
from features.clock import ReplayClock
from flows import promote, settings
from flows.wiring import Wiring
from models.registered import Downloaded, Version
from models.releases import transitions
from models.releases.ledger import Ledger
from models.releases.store import Store

approved = json.loads(sys.argv[1])

class Registry:
    def download(self, version, folder):
        return Downloaded(bundle=Path(approved["bundle"]), evidence=Path(approved["evidence"]))

def die_at(point):
    name, _, time = point.partition("/")
    left = [int(time or 1)]
    def failpoint(at):
        left[0] -= at == name
        if at == name and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    return failpoint

def live(home, step, point):
    at = datetime.fromisoformat(approved["at"])
    chosen = settings.read({"TURNOUT_HOME": home, "TURNOUT_CONFIG": approved["config"]})
    wired = Wiring(settings=chosen, clock=ReplayClock(at=at), actor="promoter")
    wired.__dict__["registry"] = Registry()
    wired.__dict__["store"] = Store(chosen.store_path, failpoint=die_at(point))
    wired.__dict__["ledger"] = Ledger(chosen.ledger_path, failpoint=die_at(point))
    version = Version(name="router", number=1, tags=approved["tags"], source="models:/router-candidate/1", run_id="r",
        description="", created_at=at)
    if step == "promote":
        if wired.live("orders").champion is None:
            wired.append(transitions.promote, stream="orders", reason="won", evidence={})
        return
    if wired.live("orders").canary is None:
        told = promote.admit(wired, version, dry_run=False)
        assert told["state"] == "admitted", told

print("ready", flush=True)
for line in sys.stdin:
    arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            live(*arguments)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """A process that runs steps of a promotion in children that may die."""

    def __init__(self, folder: Path, configuration: str) -> None:
        (folder / "bundle").mkdir()
        (folder / "bundle" / "model.txt").write_text("tree")
        self.digest = bundle.seal(folder / "bundle", kind="router")
        (folder / "evidence").mkdir()
        (folder / "evidence" / "report.json").write_text("{}")
        (folder / "turnout.toml").write_text(configuration)
        said = Approval(
            kind="router",
            stream="orders",
            digest=self.digest,
            evidence=hashlib.sha256(b"{}").hexdigest(),
            evidence_at=AT.isoformat(),
            baseline=STATIC,
            verdict="passed",
            author="ann",
            approver="bob",
        )
        approved = {
            "bundle": str(folder / "bundle"),
            "evidence": str(folder / "evidence"),
            "config": str(folder / "turnout.toml"),
            "at": AT.isoformat(),
            "tags": said.tags(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", NURSERY, json.dumps(approved)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._hear() == "ready"

    def run(self, home: Path, step: str, point: str = "") -> int:
        """Run a step in a child and return how it ended: 0, or -9 when it was killed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(home), step, point]) + "\n")
        self._process.stdin.flush()
        return int(self._hear())

    def close(self) -> None:
        self._process.communicate()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"), tiny_text)
    yield made
    made.close()


def agreed(home: Path) -> tuple[str | None, str | None]:
    """Return champion and canary, after checking that the chain holds and that the store holds whatever it releases."""
    head = Ledger(home / "ledger").verify().head
    if head is None or "orders" not in head.entry.streams:
        return None, None
    release = head.entry.streams["orders"]
    for digest in release.digests():
        Store(home / "store").verify(digest)
    return release.champion, release.canary


@pytest.mark.slow
@pytest.mark.parametrize("point", [*store.FAILPOINTS, *ledger.FAILPOINTS, *SECOND])
def test_p13_an_admission_killed_at_any_point_is_taken_up_again(tmp_path: Path, nursery: Nursery, point: str) -> None:
    for attempt in range(N_DEATHS):
        home = tmp_path / str(attempt)
        assert nursery.run(home, "admit", point) == -9
        assert agreed(home) in ((None, None), (None, nursery.digest))
        assert nursery.run(home, "admit") == 0
        assert agreed(home) == (None, nursery.digest)
        actions = [recorded.entry.action for recorded in Ledger(home / "ledger").entries()]
        assert actions == ["genesis", "canary"]  # once, however often it died
        Store(home / "store").sweep()
        Ledger(home / "ledger").sweep()
        assert Store(home / "store").digests() == (nursery.digest,)


@pytest.mark.slow
@pytest.mark.parametrize("point", ledger.FAILPOINTS)
def test_p13_a_promotion_killed_at_any_point_crowns_one_champion(tmp_path: Path, nursery: Nursery, point: str) -> None:
    for attempt in range(N_DEATHS):
        home = tmp_path / str(attempt)
        assert nursery.run(home, "admit") == 0
        assert nursery.run(home, "promote", point) == -9
        assert agreed(home) in ((None, nursery.digest), (nursery.digest, None))
        assert nursery.run(home, "promote") == 0
        assert agreed(home) == (nursery.digest, None)
        actions = [recorded.entry.action for recorded in Ledger(home / "ledger").entries()]
        assert actions == ["genesis", "canary", "promote"]
