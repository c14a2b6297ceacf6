"""The release store: bundles kept under their digest, read-only, each whole or not there at all."""

import errno
import re
import shutil
import tempfile
from pathlib import Path

from models.releases import bundle, durable
from models.releases.bundle import DEFAULT_LIMITS, MANIFEST_FILE, Limits, Manifest
from models.releases.durable import Failpoint

FAILPOINTS = ("put:opened", "put:copied", "put:verified", "put:sealed", "put:renamed")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPORARY_PREFIX = ".put-"


class AbsentReleaseError(LookupError):
    """A digest that the store does not hold."""


class Store:
    """Bundles under ``root``, one folder per digest. Reading needs no lock and no right to write."""

    def __init__(self, root: Path, *, limits: Limits = DEFAULT_LIMITS, failpoint: Failpoint = durable.pass_by) -> None:
        """Take the folder to keep bundles in; it is made by the first `put`. ``failpoint`` is called at every one of `FAILPOINTS`."""
        self._root = root
        self._limits = limits
        self._failpoint = failpoint

    def put(self, folder: Path, *, digest: str | None = None) -> str:
        """Keep a copy of the sealed bundle in ``folder`` and return its digest; twice equals once.

        ``digest`` is the one that was approved: other bytes are refused. The copy itself is verified before it gets its
        name, so bytes that change while they are copied are refused as well. Killed anywhere, it leaves the release
        whole or not there, and at most a temporary folder for `sweep`.

        Raises
        ------
        BundleError
            If ``folder`` is not a whole bundle of that digest, or the store's own copy is damaged.
        """
        digest = digest or bundle.read_digest(folder, limits=self._limits)
        manifest = bundle.verify(folder, digest, limits=self._limits)
        durable.make_folder(self._root)
        with durable.lock(self._root, exclusive=False):
            if (self._root / digest).exists():
                self.verify(digest)
            else:
                self._copy_in(folder, digest, manifest)
            durable.sync_folder(self._root)  # also when another put made the name, and died before this line
        return digest

    def path(self, digest: str) -> Path:
        """Return the folder of a release.

        Raises
        ------
        AbsentReleaseError
            If it is not there.
        """
        folder = self._root / digest
        if not _DIGEST.fullmatch(digest) or not folder.is_dir():
            raise AbsentReleaseError(f"the store holds no release {digest!r}")
        return folder

    def verify(self, digest: str) -> Manifest:
        """Return the manifest of a release whose every byte is as it was put.

        Raises
        ------
        AbsentReleaseError
            If it is not there.
        BundleError
            If it is damaged.
        """
        return bundle.verify(self.path(digest), digest, limits=self._limits)

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest of a release without a look at the other files, which would read every byte; raises as `verify`."""
        return bundle.read_manifest(self.path(digest), digest, limits=self._limits)

    def digests(self) -> tuple[str, ...]:
        """Return the digests of all releases, sorted."""
        if not self._root.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._root.iterdir() if _DIGEST.fullmatch(path.name)))

    def sweep(self) -> tuple[str, ...]:
        """Remove what killed puts left behind and return its names; waits for the puts that are under way."""
        if not self._root.is_dir():
            return ()
        with durable.lock(self._root, exclusive=True):
            leftovers = sorted(self._root.glob(f"{_TEMPORARY_PREFIX}*"))
            for leftover in leftovers:
                _remove(leftover)
        return tuple(leftover.name for leftover in leftovers)

    def _copy_in(self, folder: Path, digest: str, manifest: Manifest) -> None:
        # Beside its final place: rename(2) is atomic only within a file system, and a read-only folder may not change its parent.
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=self._root))
        try:
            self._failpoint("put:opened")
            for name in (*manifest.files, MANIFEST_FILE):
                durable.copy(folder / name, temporary / name)
            self._failpoint("put:copied")
            bundle.verify(temporary, digest, limits=self._limits)
            self._failpoint("put:verified")
            temporary.chmod(durable.READ_ONLY_FOLDER)
            durable.sync_folder(temporary)
            self._failpoint("put:sealed")
            _rename_once(temporary, self._root / digest)
            self._failpoint("put:renamed")
        finally:
            _remove(temporary)


def _rename_once(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise  # what is there already came from another put of the same bytes


def _remove(folder: Path) -> None:
    """Remove a temporary folder, if it still is one: read-only folders do not let go of their files."""
    if folder.is_dir():
        folder.chmod(0o700)
        shutil.rmtree(folder)
