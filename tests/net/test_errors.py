"""How foreign errors are translated: their family decides, and their text is never shown."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

import pytest

from grym_fetch.core.errors import CertificateRejected, ConnectFailed
from grym_fetch.net.errors import BROKEN, broken_reason, connect_error, os_reason

SECRET = "hush-hush"
URL = f"https://host.example/a.bin?sig={SECRET}"


def _tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, SECRET)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("raised", "expected", "text", "of_the_proxy"),
    [
        (TimeoutError(SECRET), ConnectFailed, "no connection within 10 s", "no connection to the proxy within 10 s"),
        (OSError(errno.ENETUNREACH, SECRET), ConnectFailed, "cannot connect: network is un", "to the proxy: network"),
        (OSError(f"Multiple exceptions: {SECRET}"), ConnectFailed, "all addresses failed", "all addresses failed"),
        (ConnectionResetError(), ConnectFailed, "cannot connect: the connection was reset", "to the proxy: the conn"),
        (OSError(errno.EMFILE, SECRET), ConnectFailed, "too many open files", "too many open files"),
        (socket.gaierror(-2, SECRET), ConnectFailed, "the host name cannot be resolved", "name of the proxy cannot be"),
        (UnicodeError(SECRET), ConnectFailed, "the host name cannot be resolved", "name of the proxy cannot be"),
        (ssl.SSLCertVerificationError(1, SECRET), CertificateRejected, "the server's certificate", "the proxy's cert"),
        (ssl.SSLError(1, SECRET), ConnectFailed, "the TLS handshake failed: no reason", "handshake with the proxy"),
        (_tls("WRONG_VERSION_NUMBER"), ConnectFailed, "the server speaks no TLS at this port", "wrong version number"),
        (
            _tls("SSLV3_ALERT_HANDSHAKE_FAILURE"),
            CertificateRejected,
            "may want a client certificate",
            "may want a client",
        ),
        (_tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), CertificateRejected, "the server wants a client", "wants a client"),
        (_tls("TLSV1_ALERT_UNKNOWN_CA"), CertificateRejected, "does not accept the client certificate", "unknown ca"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.shows("N18", "U4", "B22")
def test_each_family(
    raised: OSError | UnicodeError, expected: type[ConnectFailed], text: str, of_the_proxy: str
) -> None:
    """The type decides which of our errors it becomes, with its own words, and whether the proxy was at fault."""
    for is_proxy, named in ((False, text), (True, of_the_proxy)):
        error = connect_error(raised, URL, 10.0, is_proxy=is_proxy)
        assert type(error) is expected
        assert named in str(error)
        assert SECRET not in repr(error)


@pytest.mark.shows("A31")
def test_a_client_certificate_is_named_by_its_variables() -> None:
    """Whatever OpenSSL calls it, the message says what to set."""
    for reason in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_HANDSHAKE_FAILURE"):
        assert "GRYM_FETCH_CLIENT_CERT and GRYM_FETCH_CLIENT_KEY" in os_reason(_tls(reason))


@pytest.mark.parametrize(
    ("name", "place", "is_named"),
    [
        ("SSL_CERT_FILE", "folder", True),
        ("SSL_CERT_DIR", "file", True),
        ("SSL_CERT_FILE", "missing", True),
        ("SSL_CERT_FILE", "file", False),
        ("SSL_CERT_DIR", "folder", False),
    ],
)
def test_trust_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, is_named: bool
) -> None:
    """A folder where a file should be, and the other way round, are reasons why nothing is trusted."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, str(tmp_path / place))
    message = str(connect_error(ssl.SSLCertVerificationError(1, SECRET), URL, 10.0))
    assert (f"{name} names {tmp_path / place}, which cannot be read" in message) is is_named


@pytest.mark.parametrize(
    ("error", "began", "expected"),
    [
        ("Expected HTTP/", b"\0\0\x12\x04\0\0\0\0\0", "speaks HTTP/2"),
        ("Expected HTTP/", b"\0\0\n\x04\0\0\0\0\0", "speaks HTTP/2"),
        ("Expected HTTP/", b"\x15\x03\x01\0\x02\x02", "speaks TLS"),
        ("Expected HTTP/", b"SSH-2.0-hush-hush", BROKEN),
        ("Invalid character in Content-Length", b"HTTP/1.1 200 OK", "an invalid Content-Length"),
        ("Content-Length can't be present with Transfer-Encoding", b"HTTP/1.1 200 OK", "beside Transfer-Encoding"),
    ],
)
@pytest.mark.shows("A29")
def test_what_is_wrong_with_a_response(error: str, began: bytes, expected: str) -> None:
    """A protocol other than HTTP is recognised by its first bytes, none of which are shown."""
    assert expected in broken_reason(error, began)
    assert SECRET not in broken_reason(error, began)
