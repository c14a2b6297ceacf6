"""Ledger and store under rivals and kill -9: exactly one wins, every loser is told, and nothing is ever half there."""

import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from models.releases import bundle, ledger, store, transitions
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution

REPOSITORY = Path(__file__).parents[2]
BY = Attribution(actor="ada", reason="to begin", at=datetime(2026, 1, 1, tzinfo=UTC))
N_LEDGERS, N_ROUNDS = 100, 10  # a thousand races, on chains short enough to be read a thousand times
N_DEATHS = 3  # of every point here; test_promotion_killed dies twenty times at each of a whole promotion

# Each rival is a process of its own that prepares its entry, waits for the word, and says how it went.
PROLOGUE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from models.releases import transitions
from models.releases.ledger import Ledger, LedgerConflictError
from models.releases.store import Store
from models.releases.transitions import Attribution

def by(actor):
    return Attribution(actor=actor, reason="a race", at=datetime(2026, 1, 2, tzinfo=UTC))

def die_at(point):
    def failpoint(at):
        if at == point:
            os.kill(os.getpid(), signal.SIGKILL)
    return failpoint

def release(history, digest, actor):
    return transitions.release_model(history, name="forecaster", digest=digest, by=by(actor))
"""
RIVAL = """
actor, kind = sys.argv[1:]
for line in sys.stdin:
    ledger = Ledger(Path(line.strip()))
    history = ledger.history()
    above = (history.generation + 5, "f" * 64)
    digest = f"{history.generation:063d}" + actor
    if kind == "approve":
        entry = transitions.start_canary(history, stream="flights", digest=digest, share=0.05, by=by(actor))
    elif kind == "promote":
        entry = transitions.promote(history, stream="flights", by=by(actor))
    elif kind == "append":
        entry = release(history, digest, actor)
    else:
        entry = transitions.restore(history, above=above, by=by(actor))
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        if kind == "restore":
            ledger.restore(entry, above=above)
        else:
            ledger.append(entry, expected_head=history.hash)
        print("won", entry.generation, actor, flush=True)
    except LedgerConflictError as conflict:
        print("lost", conflict.generation, conflict.actor, flush=True)
"""
DYING_APPEND = """
ledger = Ledger(Path(sys.argv[1]), failpoint=die_at(sys.argv[2]))
history = ledger.history()
ledger.append(release(history, "a" * 64, "mortal"), expected_head=history.hash)
"""
DYING_PUT = """
Store(Path(sys.argv[1]), failpoint=die_at(sys.argv[2])).put(Path(sys.argv[3]))
"""
RESTLESS = """
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    history = ledger.history()
    digest = f"{history.generation:064d}"
    print(history.generation + 1, ledger.append(release(history, digest, "restless"), expected_head=history.hash), flush=True)
"""


class Rival:
    """A process that races when told to."""

    def __init__(self, actor: str, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + RIVAL, actor, kind],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its input is the end of it
        assert self._process.returncode == 0

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def begin(root: Path) -> Ledger:
    fresh = Ledger(root)
    fresh.append(transitions.genesis(streams={"flights": "observe"}, by=BY), expected_head="")
    return fresh


def race(rivals: tuple[Rival, Rival], root: Path) -> tuple[str, str]:
    for rival in rivals:
        rival.say(str(root))
    assert [rival.hear() for rival in rivals] == ["ready", "ready"]
    for rival in rivals:
        rival.say("go")
    first, second = sorted(rival.hear() for rival in rivals)  # "lost" comes before "won"
    return first, second


def run_to_death(script: str, *arguments: str) -> None:
    died = subprocess.run([sys.executable, "-c", PROLOGUE + script, *arguments], cwd=REPOSITORY, check=False)
    assert died.returncode == -9


def prepare(racing: Ledger, kind: str) -> None:
    """Bring the stream to where an approval may begin a canary, or a promoter may crown it."""
    history = racing.history()
    held = history.stream("flights").canary
    if kind == "approve" and held is not None:
        racing.append(transitions.withdraw(history, stream="flights", by=BY), expected_head=history.hash)
    if kind == "promote":
        digest = f"{history.generation:064d}"
        begun = transitions.start_canary(history, stream="flights", digest=digest, share=0.5, by=BY)
        racing.append(begun, expected_head=history.hash)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["approve", "promote"])
def test_p02_r07_of_two_approvals_or_two_promoters_one_wins_and_the_other_is_told_a_thousand_times(
    tmp_path: Path, kind: str
) -> None:
    with Rival("1", kind) as one, Rival("2", kind) as two:
        winners: set[str] = set()
        for number in range(N_LEDGERS):
            racing = begin(tmp_path / str(number))
            for _ in range(N_ROUNDS):
                prepare(racing, kind)
                generation = racing.generations()[-1] + 1
                lost, won = race((one, two), tmp_path / str(number))
                winner = won.split()[2]
                assert won == f"won {generation} {winner}"
                assert lost == f"lost {generation} {winner}"
                assert racing.generations()[-1] == generation
                winners.add(winner)
            head = racing.verify().head
            assert head is not None
            assert head.entry.actor == winner
            release = head.entry.streams["flights"]
            assert (release.canary is None) == (kind == "promote")
            assert racing.sweep() == ()
    assert winners == {"1", "2"}  # or it was no race


def test_an_append_and_a_restore_never_fork_the_chain(tmp_path: Path) -> None:
    with Rival("1", "append") as one, Rival("2", "restore") as two:
        rival_ledger = begin(tmp_path / "ledger")
        for _ in range(60):
            before = rival_ledger.history().generation
            lost, won = race((one, two), tmp_path / "ledger")
            _, generation, winner = won.split()
            assert int(generation) == before + (1 if winner == "1" else 6)
            assert lost == f"lost {generation} {winner}"
            assert rival_ledger.verify().generation == int(generation)


@pytest.mark.parametrize("point", ledger.FAILPOINTS)
def test_p13_an_append_killed_at_any_point_is_recorded_whole_or_not_there(tmp_path: Path, point: str) -> None:
    survivor = begin(tmp_path)
    for _ in range(N_DEATHS):
        before = survivor.history()
        run_to_death(DYING_APPEND, str(tmp_path), point)
        after = survivor.verify()
        assert after.generation == before.generation + (point in ("append:linked", "append:unlinked"))
        left = survivor.sweep()
        assert len(left) == (point in ("append:written", "append:linked"))
        assert survivor.verify() == after
        again = transitions.release_model(after, name="forecaster", digest=f"{after.generation:064d}", by=BY)
        survivor.append(again, expected_head=after.hash)
        assert survivor.verify().generation == after.generation + 1


@pytest.mark.parametrize("point", store.FAILPOINTS)
def test_p13_a_put_killed_at_any_point_leaves_the_release_whole_or_not_there(tmp_path: Path, point: str) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "model.txt").write_text("tree")
    digest = bundle.seal(tmp_path / "router", kind="router")
    for attempt in range(3):
        root = tmp_path / f"store{attempt}"
        run_to_death(DYING_PUT, str(root), point, str(tmp_path / "router"))
        survivor = Store(root)
        assert survivor.digests() == ((digest,) if point == "put:renamed" else ())
        assert len(survivor.sweep()) == (point != "put:renamed")
        assert survivor.put(tmp_path / "router", digest=digest) == digest
        assert survivor.verify(digest)


def acknowledged(root: Path, n_lines: int) -> Iterator[tuple[int, str]]:
    """Let an appender run, kill it after it acknowledged so many generations, and yield all that it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + RESTLESS, str(root)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(n_lines + 1)][1:]
    process.kill()
    rest, _ = process.communicate()
    for line in lines + rest.splitlines(keepends=True):
        if line.endswith("\n"):
            generation, digest = line.split()
            yield int(generation), digest


def test_what_was_acknowledged_survives_an_appender_that_is_killed_in_its_stride(tmp_path: Path) -> None:
    begin(tmp_path)
    luck = random.Random(7)  # noqa: S311 - the moment of a death, not a secret
    promised: list[tuple[int, str]] = []
    for _ in range(12):
        promised += acknowledged(tmp_path, luck.randrange(6))
        history = Ledger(tmp_path).verify(served=promised)
        assert history.generation >= len(promised) + 1
    assert Ledger(tmp_path).generations() == tuple(range(1, history.generation + 1))
    Ledger(tmp_path).sweep()
    assert not list(tmp_path.glob(".append-*"))
