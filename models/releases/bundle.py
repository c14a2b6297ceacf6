"""A model on disk: a flat folder of plain files and a manifest of their digests, whose own digest names the whole.

Text (LightGBM's own, JSON, CSV), and tables of numbers that begin with the line of their kind: nothing in a bundle can run
when it is read, and nothing else that is binary, a pickle least of all, passes under the name of either.
"""

import codecs
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from models.releases import canonical
from models.releases.canonical import Digest, NotCanonicalError

MANIFEST_FILE = "manifest.json"
TABLES_SUFFIX = ".masks"  # of the leaf-mask tables beside a booster's text
TABLES_MAGIC = b"turnout leaf masks 1\n\0\0\0"
SUFFIXES = (".csv", ".json", TABLES_SUFFIX, ".txt")

_FILE_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"  # no separator and no leading dot: no path, no hidden file
_CHUNK_BYTES = 1 << 20
_TEXT = codecs.getincrementaldecoder("utf-8")

FileName = Annotated[str, Meta(pattern=_FILE_PATTERN)]
ModelName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_.-]{0,63}\Z")]


class BundleError(ValueError):
    """A folder that is not the bundle it should be: names the file, what was expected and what was found."""

    def __init__(self, file: str, *, expected: str, found: str) -> None:
        super().__init__(f"{file}: expected {expected}, found {found}")
        self.file = file
        self.expected = expected
        self.found = found


class ManifestError(BundleError):
    """A manifest that is missing, malformed, or not the one that the digest names."""


class FileMismatchError(BundleError):
    """A file whose bytes are not those of the manifest."""


class MissingFileError(BundleError):
    """A file of the manifest that is not there."""


class ForeignFileError(BundleError):
    """Something that has no place in a bundle: an extra file, a folder, a link, another suffix, bytes that are no text."""


class TooLargeError(BundleError):
    """A file, or all of them, past the limits."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a bundle may be; a router of three heads and 200 trees each takes about 2 MB."""

    max_files: int = 256
    max_file_bytes: int = 256 * 1024 * 1024
    max_total_bytes: int = 512 * 1024 * 1024


DEFAULT_LIMITS = Limits()


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is: its kind, the SHA-256 of every file, and the digests of the models that it reads (``pins``)."""

    kind: ModelName
    files: dict[FileName, Digest]
    pins: dict[ModelName, Digest] = {}
    schema: Annotated[int, Meta(ge=1, le=1)] = 1


class _Listing(NamedTuple):
    name: str
    n_bytes: int


def seal(folder: Path, *, kind: str, pins: Mapping[str, str] | None = None, limits: Limits = DEFAULT_LIMITS) -> str:
    """Write the manifest of ``folder``, over an earlier one, and return the bundle's digest.

    The same files, kind and pins give the same digest, wherever and whenever they are sealed.

    Raises
    ------
    BundleError
        If something in the folder has no place in a bundle, or the kind or a pin is malformed.
    """
    names = [name for name in _list_files(folder, limits) if name != MANIFEST_FILE]
    if not names:
        raise MissingFileError(folder.name, expected="at least one file", found="none")
    files = {name: _hash_file(folder / name, limits) for name in names}
    try:
        manifest = canonical.normalise(Manifest(kind=kind, files=files, pins=dict(pins or {})))
    except NotCanonicalError as error:
        raise ManifestError(MANIFEST_FILE, expected="a well-formed kind and pins", found=str(error)) from None
    data = canonical.encode(manifest)
    (folder / MANIFEST_FILE).write_bytes(data)
    return canonical.sha256(data)


def verify(folder: Path, digest: str, *, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Return the manifest of ``folder`` if it is, file by file and byte by byte, the bundle that ``digest`` names.

    Raises
    ------
    BundleError
        `ManifestError`, `FileMismatchError`, `MissingFileError`, `ForeignFileError` or `TooLargeError`.
    """
    found = _list_files(folder, limits)
    manifest = read_manifest(folder, digest, limits=limits)
    for name in sorted(set(found) - {MANIFEST_FILE} - set(manifest.files)):
        raise ForeignFileError(name, expected="only files of the manifest", found="a file it does not name")
    for name, expected in manifest.files.items():
        if name not in found:
            raise MissingFileError(name, expected=f"a file of SHA-256 {expected}", found="none")
        sha256 = _hash_file(folder / name, limits)
        if sha256 != expected:
            raise FileMismatchError(name, expected=f"SHA-256 {expected}", found=f"SHA-256 {sha256}")
    return manifest


def read_digest(folder: Path, *, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the digest that ``folder`` claims, that of its manifest; whether the files agree is for `verify` to say.

    Raises
    ------
    ManifestError
        If there is no manifest.
    """
    if MANIFEST_FILE not in _list_files(folder, limits):
        raise ManifestError(MANIFEST_FILE, expected="a manifest", found="none: the folder was never sealed")
    return _hash_file(folder / MANIFEST_FILE, limits)


def read_manifest(folder: Path, digest: str, *, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Return the manifest that ``digest`` names; whether the files agree is for `verify` to say.

    Raises
    ------
    ManifestError
        If it is another, or none.
    """
    claimed = read_digest(folder, limits=limits)
    if claimed != digest:
        raise ManifestError(MANIFEST_FILE, expected=f"SHA-256 {digest}", found=f"SHA-256 {claimed}")
    try:
        manifest = canonical.decode((folder / MANIFEST_FILE).read_bytes(), Manifest)
    except NotCanonicalError as error:
        raise ManifestError(MANIFEST_FILE, expected="a canonical manifest", found=str(error)) from None
    if not manifest.files:
        raise ManifestError(MANIFEST_FILE, expected="at least one file", found="none")
    return manifest


def _list_files(folder: Path, limits: Limits) -> list[str]:
    """Return the names in ``folder``, sorted, after refusing all that has no place there; nothing is opened yet."""
    if folder.is_symlink() or not folder.is_dir():
        raise ForeignFileError(folder.name, expected="a folder", found="a link" if folder.is_symlink() else "none")
    listings: list[_Listing] = []
    with os.scandir(folder) as entries:
        for entry in entries:  # one at a time: a folder of millions is refused without listing it
            listings.append(_inspect(entry))
            if len(listings) > limits.max_files + 1:
                raise TooLargeError(folder.name, expected=f"at most {limits.max_files} files", found="more")
    for name, n_bytes in listings:
        if n_bytes > limits.max_file_bytes:
            raise TooLargeError(name, expected=f"at most {limits.max_file_bytes} bytes", found=f"{n_bytes}")
    total = sum(n_bytes for _, n_bytes in listings)
    if total > limits.max_total_bytes:
        raise TooLargeError(folder.name, expected=f"at most {limits.max_total_bytes} bytes", found=f"{total}")
    return sorted(name for name, _ in listings)


def _inspect(entry: os.DirEntry[str]) -> _Listing:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        found = "a symbolic link" if entry.is_symlink() else "a folder" if entry.is_dir() else "a special file"
        raise ForeignFileError(entry.name, expected="a plain file", found=found)
    check_name(entry.name)
    return _Listing(entry.name, status.st_size)


def check_name(name: str) -> None:
    """Refuse a file's name that is a path, is hidden, or has another suffix than a bundle's files have.

    Raises
    ------
    ForeignFileError
        Naming it.
    """
    if not re.search(_FILE_PATTERN, name):
        raise ForeignFileError(ascii(name), expected=f"a name like {_FILE_PATTERN}", found="another")
    if not name.endswith(SUFFIXES):
        raise ForeignFileError(name, expected=f"a suffix of {', '.join(SUFFIXES)}", found="another")


def _hash_file(path: Path, limits: Limits) -> str:
    """Return the SHA-256 of a file of its kind, read once, without following a link that has taken its place meanwhile."""
    hasher, n_bytes = hashlib.sha256(), 0
    check = _TablesCheck(path.name) if path.suffix == TABLES_SUFFIX else _TextCheck(path.name)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            n_bytes += len(chunk)
            if n_bytes > limits.max_file_bytes:
                raise TooLargeError(path.name, expected=f"at most {limits.max_file_bytes} bytes", found="more")
            hasher.update(chunk)
            check(chunk)
    check(b"", final=True)
    return hasher.hexdigest()


class _TextCheck:
    """Refuses what is no text, chunk by chunk."""

    def __init__(self, name: str) -> None:
        self._name, self._decoder = name, _TEXT()

    def __call__(self, chunk: bytes, *, final: bool = False) -> None:
        try:
            self._decoder.decode(chunk, final=final)
        except UnicodeDecodeError:
            raise ForeignFileError(self._name, expected="UTF-8 text", found="other bytes") from None
        if b"\0" in chunk:
            raise ForeignFileError(self._name, expected="text", found="a NUL byte")


class _TablesCheck:
    """Refuses what does not begin as tables do; what follows are numbers, and whether they are sound is for their reader."""

    def __init__(self, name: str) -> None:
        self._name, self._begun = name, False

    def __call__(self, chunk: bytes, *, final: bool = False) -> None:
        if not self._begun and (chunk or final) and not chunk.startswith(TABLES_MAGIC):
            raise ForeignFileError(self._name, expected="tables of numbers", found="other bytes")
        self._begun = True
