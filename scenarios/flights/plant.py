"""A bad router for the demo's ladder: the champion with a mistake that people make, so that a withdrawal can be watched."""

import shutil
from typing import Final

import msgspec
import numpy as np

from flows.wiring import Wiring
from models import router
from models.card import CARD_FILE, read_card
from models.releases import bundle, transitions
from models.router import GOLDEN_FILE, GoldenRows
from scenarios.flights.configuration import STREAM

REASON: Final = "planted: the champion, with the promised time forgotten"


def begin_canary(wired: Wiring) -> str:
    """Begin the canary of a router that forgot when a flight is to arrive, and only knows how late it will be; return its digest.

    It is sealed, stored, probed and swapped in as any other; that nobody approved it stands in the ledger.
    """
    champion = wired.live(STREAM).champion
    if champion is None:
        raise ValueError(f"stream {STREAM!r} has no champion to spoil")
    folder = wired.workspace("planted")
    shutil.rmtree(folder)
    shutil.copytree(wired.store.path(champion), folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o700)  # the store's are read-only
    card = read_card(folder)
    latency = msgspec.structs.replace(card.heads["latency_ms"], offset=None)
    spoiled = msgspec.structs.replace(card, heads={**card.heads, "latency_ms": latency})
    (folder / CARD_FILE).write_bytes(msgspec.json.encode(spoiled))
    golden = msgspec.json.decode((folder / GOLDEN_FILE).read_bytes(), type=GoldenRows)
    router.save_golden(folder, router.load(folder), np.array(golden.matrix, dtype=np.float64))
    digest = wired.store.put(folder, digest=bundle.seal(folder, kind="router"))
    share = wired.configuration.streams[STREAM].gate.ladder[0].share
    wired.append(transitions.start_canary, stream=STREAM, digest=digest, share=share, reason=REASON, evidence={})
    return digest
