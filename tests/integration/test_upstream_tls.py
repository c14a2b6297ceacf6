"""Asking another shim over TLS: only one whose certificate is trusted and names it, in the same bounded time."""

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving import upstream
from serving.upstream import Upstream, UpstreamError
from tests.integration.test_upstream import EMPTY, Server, ok

DAY = timedelta(days=1)


class TlsServer(Server):
    """A server that wraps every connection in TLS."""

    def __init__(self, certificate: Path, *answers: bytes, then_close: bool = True, drips: bool = False) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        super().__init__(*answers, then_close=then_close, drips=drips, wrap=context)
        self.url = self.url.replace("http:", "https:")


def certify(file: Path, *names: x509.GeneralName) -> Path:
    """Write a certificate for ``names`` that nobody else signed, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "control")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    written = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(signed.public_bytes(encoding) + written)
    return file


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.close()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for 127.0.0.1, which this process trusts."""
    file = certify(tmp_path / "trusted.pem", x509.IPAddress(ip_address("127.0.0.1")))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


def test_a_page_comes_over_tls_from_one_who_is_trusted(servers: list[Server], trusted: Path) -> None:
    servers.append(TlsServer(trusted, ok(EMPTY)))
    found = Upstream(url=servers[-1].url, token="hush").page(0, wait_seconds=0.0)
    assert found is not None
    assert found.generation == 0
    assert b"authorization: Bearer hush" in servers[-1].requests[0]


def test_who_is_not_trusted_is_told_nothing(servers: list[Server], tmp_path: Path, trusted: Path) -> None:
    stranger = certify(tmp_path / "stranger.pem", x509.IPAddress(ip_address("127.0.0.1")))
    assert stranger != trusted
    servers.append(TlsServer(stranger, ok(EMPTY)))
    with pytest.raises(UpstreamError, match=r"cannot be reached: .*certificate"):
        Upstream(url=servers[-1].url, token="hush").page(0, wait_seconds=0.0)
    assert servers[-1].requests == []


def test_a_certificate_for_another_name_is_refused(
    servers: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = certify(tmp_path / "other.pem", x509.DNSName("elsewhere.internal"))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    servers.append(TlsServer(other, ok(EMPTY)))
    with pytest.raises(UpstreamError, match=r"cannot be reached: .*127\.0\.0\.1"):
        Upstream(url=servers[-1].url).page(0, wait_seconds=0.0)


@pytest.mark.parametrize("drips", [False, True])
def test_who_stays_silent_or_drips_is_given_up(
    servers: list[Server], trusted: Path, monkeypatch: pytest.MonkeyPatch, *, drips: bool
) -> None:
    monkeypatch.setattr(upstream, "_PAGE_SECONDS", 0.3)
    servers.append(TlsServer(trusted, ok(b"{", n_bytes=9_000), then_close=False, drips=drips))
    with pytest.raises(UpstreamError, match=r"no whole answer within 0\.3 s|timed out"):
        Upstream(url=servers[-1].url).page(0, wait_seconds=0.0)


def test_closing_ends_what_is_waited_for(servers: list[Server], trusted: Path) -> None:
    servers.append(TlsServer(trusted, then_close=False))
    client = Upstream(url=servers[-1].url)
    threading.Timer(0.2, client.close).start()
    with pytest.raises(UpstreamError):
        client.page(0, wait_seconds=60.0)
