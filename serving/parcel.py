"""A sealed bundle as one uncompressed tar: plain files side by side, and nothing else that a tar can hold."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tarfile import BLOCKSIZE, REGTYPE, TarInfo
from typing import Protocol

from models.releases import bundle
from models.releases.bundle import MANIFEST_FILE, BundleError, ForeignFileError, Limits, Manifest, TooLargeError
from models.releases.durable import READ_ONLY_FILE

# A tar is made and held whole; a router of three heads and 200 trees each takes about 2 MB.
LIMITS = Limits(max_file_bytes=32 * 1024 * 1024, max_total_bytes=32 * 1024 * 1024)
CONTENT_TYPE = "application/x-tar"

_CHUNK_BYTES = 64 * 1024
_END = bytes(BLOCKSIZE)


class ParcelError(BundleError):
    """A tar that is none, holds what has no place in a bundle, or ends too early."""


class Stream(Protocol):
    """Where a tar is read from; a response of ``http.client`` is one."""

    def read(self, n_bytes: int, /) -> bytes:
        """Return the next bytes, fewer only at the end."""


def pack(folder: Path, manifest: Manifest, *, limits: Limits = LIMITS) -> bytes:
    """Return the bundle in ``folder`` as a tar; the same bundle gives the same bytes.

    Raises
    ------
    TooLargeError
        If it takes more than ``limits`` let.
    ParcelError
        If a file's name is too long for a tar's header.
    """
    names = sorted((*manifest.files, MANIFEST_FILE))
    n_bytes = sum((folder / name).stat().st_size for name in names)
    if n_bytes > limits.max_total_bytes:
        raise TooLargeError(folder.name, expected=f"at most {limits.max_total_bytes} bytes to send", found=f"{n_bytes}")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            data = (folder / name).read_bytes()
            member = TarInfo(name)
            member.size, member.mode = len(data), READ_ONLY_FILE
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError as error:
                raise ParcelError(name, expected="a name that fits into a tar's header", found=str(error)) from None
    return packed.getvalue()


def unpack(stream: Stream, folder: Path, *, limits: Limits = LIMITS) -> None:
    """Write the files of a tar into the empty ``folder``; whether they are the bundle that was asked for is for it to say.

    Headers are read one by one as the bytes come: a tar that asks to go back, or to write elsewhere, cannot be heard.

    Raises
    ------
    BundleError
        If something is no plain file of a plain name, comes twice, is too much, or the tar ends too early.
    """
    n_bytes = 0
    for n_files, member in enumerate(_headers(stream), start=1):
        n_bytes += member.size
        if n_files > limits.max_files + 1:
            raise TooLargeError("tar", expected=f"at most {limits.max_files} files and a manifest", found="more")
        if member.size > limits.max_file_bytes or n_bytes > limits.max_total_bytes:
            raise TooLargeError(member.name, expected=f"at most {limits.max_total_bytes} bytes", found=f"{n_bytes}")
        _write(stream, folder / member.name, member)


def _headers(stream: Stream) -> Iterator[TarInfo]:
    """Yield the headers up to the end of the archive; the data of each must have been read before the next."""
    while (block := _take(stream, BLOCKSIZE, "tar")) != _END:
        try:
            member = TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise ParcelError("tar", expected="a member's header", found=str(error)) from None
        if member.type != REGTYPE:
            raise ForeignFileError(ascii(member.name), expected="a plain file", found=f"type {member.type!r}")
        bundle.check_name(member.name)
        if member.size < 0:
            raise ParcelError(member.name, expected="a size", found=f"{member.size}")
        yield member


def _write(stream: Stream, path: Path, member: TarInfo) -> None:
    try:
        with path.open("xb") as file:
            left = member.size
            while left:
                file.write(chunk := _take(stream, min(left, _CHUNK_BYTES), member.name))
                left -= len(chunk)
    except FileExistsError:
        raise ParcelError(member.name, expected="each name once", found="another") from None
    _take(stream, -member.size % BLOCKSIZE, member.name)


def _take(stream: Stream, n_bytes: int, name: str) -> bytes:
    data = stream.read(n_bytes) if n_bytes else b""
    if len(data) < n_bytes:
        raise ParcelError(name, expected=f"{n_bytes} more bytes", found=f"{len(data)}: the tar was cut short")
    return data
