"""What a shim offers to those who copy its ledger and store: the entries as they lie there, and the bundles they name."""

from models.releases import canonical
from models.releases.bundle import MANIFEST_FILE, BundleError, Manifest, TooLargeError
from models.releases.canonical import NotCanonicalError
from models.releases.entry import Entry
from models.releases.ledger import DamagedLedgerError, Ledger
from models.releases.store import AbsentReleaseError, Store
from serving import page, parcel
from serving.page import LedgerPage
from serving.parcel import ParcelError
from serving.problems import Problem


class Offer:
    """Reads ``ledger`` and ``store`` anew for each request; what a generation names is remembered."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        """Offer these; nothing is read yet."""
        self._ledger = ledger
        self._store = store
        self._read: set[int] = set()  # the generations that were looked into,
        self._known: set[str] = set()  # and the digests they name, with what those pin

    def page(self, after: int) -> LedgerPage:
        """Return the entries past generation ``after``.

        Raises
        ------
        Problem
            503 where they cannot be read.
        """
        try:
            return page.read(self._ledger, after)
        except (DamagedLedgerError, OSError) as error:
            raise Problem(503, str(error)) from None

    def bundle(self, digest: str) -> bytes:
        """Return the bundle of ``digest`` as a tar.

        Raises
        ------
        Problem
            404 unless a generation names it, or a bundle that one names pins it, and the store holds it; likewise where it
            is too large to be sent. 503 where it is damaged.
        """
        try:
            folder = self._store.path(digest)
            if not self._is_named(digest):
                raise Problem(404, f"no generation names the bundle {digest!r}")
            return parcel.pack(folder, self._store.verify(digest))
        except AbsentReleaseError as error:
            raise Problem(404, str(error)) from None
        except (TooLargeError, ParcelError) as error:
            raise Problem(404, f"the bundle {digest} is not sent: {error}") from None
        except (BundleError, DamagedLedgerError, OSError) as error:
            raise Problem(503, f"the bundle {digest}: {error}") from None

    def _is_named(self, digest: str) -> bool:
        """Tell whether the ledger names ``digest``, or what it names pins it; the newest are read first, and each once."""
        for generation in reversed(self._ledger.generations()):
            if digest in self._known:
                return True
            if generation not in self._read:
                named = named_by(self._ledger.read(generation).entry)
                self._known.update(named, *map(self._pins, named - self._known))
                self._read.add(generation)
        return digest in self._known

    def _pins(self, digest: str) -> tuple[str, ...]:
        try:
            data = (self._store.path(digest) / MANIFEST_FILE).read_bytes()
            return tuple(canonical.decode(data, Manifest).pins.values())
        except (AbsentReleaseError, NotCanonicalError, OSError):
            return ()  # what is not there, or damaged, pins nothing


def named_by(entry: Entry) -> set[str]:
    """Return the digests of all bundles that ``entry`` releases."""
    return {*entry.models.values()}.union(*(release.digests() for release in entry.streams.values()))
